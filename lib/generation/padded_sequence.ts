// A sequence with room behind it: what recorded processors see instead of the exact prefix.
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";

/** Tokens so far in tensors of fixed shape; how many there are is a tensor, too. */
export class PaddedSequence {
  /** [batch, room]; what stands behind the tokens so far means nothing. */
  readonly ids: Tensor;
  /** Tokens so far, the prompt included: a scalar. */
  readonly length: Tensor;
  /** Tokens of the prompt: a scalar. */
  readonly prompt_length: Tensor;
  /** Tokens of the prompt, for what is counted from there: a recording must not depend on it otherwise. */
  readonly prompt: number;
  /** Per row, how many tokens at the start are padding [batch]; undefined: none. */
  readonly padding: Tensor | undefined;

  constructor(
    tensors: { ids: Tensor; length: Tensor; prompt_length: Tensor; padding: Tensor | undefined },
    prompt: number,
  ) {
    this.ids = tensors.ids;
    this.length = tensors.length;
    this.prompt_length = tensors.prompt_length;
    this.padding = tensors.padding;
    this.prompt = prompt;
  }

  /** Tokens after the prompt: a scalar. */
  get added(): Tensor {
    return this.length.sub(this.prompt_length);
  }

  /** 0, 1, 2, … [1, room] */
  get positions(): Tensor {
    return torch.arange(this.ids.shape[1] as number, { device: this.ids.device }).unsqueeze(0);
  }

  /** The ids where a token stands, `other` behind [batch, room]. */
  filled(other: number): Tensor {
    return this.ids.masked_fill(this.positions.ge(this.length), other);
  }

  /** The prompt's ids, `other` behind [batch, room]. */
  promptFilled(other: number): Tensor {
    return this.ids.masked_fill(this.positions.ge(this.prompt_length), other);
  }

  /** The last `count` tokens [batch, count]; the first one again where there are fewer. */
  last(count: number): Tensor {
    const at = torch.arange(count, { device: this.ids.device }).add(this.length).sub(count).clamp({ min: 0 });
    return this.ids.index_select(1, at);
  }
}
