// Logits processors: what changes the scores of the next token before one is chosen, under Python's class names. Here those
// that look at lengths, special tokens and numbers; repetition and the shaping of distributions have files of their own.
import type { Tensor } from "../../torch/index.ts";
import * as torch from "../../torch/index.ts";
import type { PaddedSequence } from "../padded_sequence.ts";
import {
  type Arguments,
  check,
  isCount,
  LogitsProcessor,
  read,
  type TokenIds,
  TokenSet,
} from "./logits_processor.ts";

// Lengths and special tokens -----------------------------------------------------------------------------------------

/** No end of sequence before `min_length` tokens, the prompt included. */
export class MinLengthLogitsProcessor extends LogitsProcessor {
  readonly min_length: number;
  readonly #eos: TokenSet;

  constructor(...args: Arguments<{ min_length: number; eos_token_id: TokenIds }>) {
    super();
    const { min_length, eos_token_id } = read<{ min_length: number; eos_token_id: TokenIds }>(
      MinLengthLogitsProcessor,
      args,
      ["min_length", "eos_token_id"],
    );
    check(isCount(min_length, 0), MinLengthLogitsProcessor, "min_length", "a count", min_length);
    this.min_length = min_length;
    this.#eos = this.own(new TokenSet(eos_token_id, MinLengthLogitsProcessor, "eos_token_id"));
  }

  override process(input_ids: Tensor, scores: Tensor): Tensor {
    if ((input_ids.shape[1] as number) >= this.min_length) return scores;
    return scores.masked_fill(this.#eos.mask(scores), -Infinity);
  }

  override processPadded({ added, prompt }: PaddedSequence, scores: Tensor): Tensor {
    const early = added.lt(this.min_length - prompt);
    return scores.masked_fill(this.#eos.mask(scores).bitwise_and(early), -Infinity);
  }
}

/** No end of sequence before `min_new_tokens` tokens after the prompt. */
export class MinNewTokensLengthLogitsProcessor extends LogitsProcessor {
  readonly prompt_length_to_skip: number;
  readonly min_new_tokens: number;
  readonly #eos: TokenSet;

  constructor(
    ...args: Arguments<{ prompt_length_to_skip: number; min_new_tokens: number; eos_token_id: TokenIds }>
  ) {
    super();
    const cls = MinNewTokensLengthLogitsProcessor;
    const options = read<{ prompt_length_to_skip: number; min_new_tokens: number; eos_token_id: TokenIds }>(
      cls,
      args,
      ["prompt_length_to_skip", "min_new_tokens", "eos_token_id"],
    );
    check(
      isCount(options.prompt_length_to_skip, 0),
      cls,
      "prompt_length_to_skip",
      "a count",
      options.prompt_length_to_skip,
    );
    check(isCount(options.min_new_tokens, 0), cls, "min_new_tokens", "a count", options.min_new_tokens);
    this.prompt_length_to_skip = options.prompt_length_to_skip;
    this.min_new_tokens = options.min_new_tokens;
    this.#eos = this.own(new TokenSet(options.eos_token_id, cls, "eos_token_id"));
  }

  override process(input_ids: Tensor, scores: Tensor): Tensor {
    if ((input_ids.shape[1] as number) - this.prompt_length_to_skip >= this.min_new_tokens) return scores;
    return scores.masked_fill(this.#eos.mask(scores), -Infinity);
  }

  override processPadded({ added, prompt }: PaddedSequence, scores: Tensor): Tensor {
    const early = added.lt(this.min_new_tokens + this.prompt_length_to_skip - prompt);
    return scores.masked_fill(this.#eos.mask(scores).bitwise_and(early), -Infinity);
  }
}

/** Only `tokens` can come next: their score is 0, all others are impossible. */
function force(tokens: TokenSet, scores: Tensor): Tensor {
  return torch.full_like(scores, -Infinity).masked_fill(tokens.mask(scores), 0);
}

/** The first token after a prompt of one token is `bos_token_id`. */
export class ForcedBOSTokenLogitsProcessor extends LogitsProcessor {
  readonly #bos: TokenSet;

  constructor(...args: Arguments<{ bos_token_id: number }>) {
    super();
    const { bos_token_id } = read<{ bos_token_id: number }>(ForcedBOSTokenLogitsProcessor, args, [
      "bos_token_id",
    ]);
    this.#bos = this.own(new TokenSet(bos_token_id, ForcedBOSTokenLogitsProcessor, "bos_token_id"));
  }

  override process(input_ids: Tensor, scores: Tensor): Tensor {
    return input_ids.shape[1] === 1 ? force(this.#bos, scores) : scores;
  }

  override processPadded({ length }: PaddedSequence, scores: Tensor): Tensor {
    return torch.where(length.eq(1), force(this.#bos, scores), scores);
  }
}

/** The last token that `max_length` leaves room for is one of `eos_token_id`. */
export class ForcedEOSTokenLogitsProcessor extends LogitsProcessor {
  readonly max_length: number;
  readonly #eos: TokenSet;

  constructor(...args: Arguments<{ max_length: number; eos_token_id: TokenIds }>) {
    super();
    const { max_length, eos_token_id } = read<{ max_length: number; eos_token_id: TokenIds }>(
      ForcedEOSTokenLogitsProcessor,
      args,
      ["max_length", "eos_token_id"],
    );
    this.max_length = max_length;
    this.#eos = this.own(new TokenSet(eos_token_id, ForcedEOSTokenLogitsProcessor, "eos_token_id"));
  }

  override process(input_ids: Tensor, scores: Tensor): Tensor {
    return input_ids.shape[1] === this.max_length - 1 ? force(this.#eos, scores) : scores;
  }

  override processPadded({ added, prompt }: PaddedSequence, scores: Tensor): Tensor {
    return torch.where(added.eq(this.max_length - 1 - prompt), force(this.#eos, scores), scores);
  }
}

/** From `start` new tokens on, the end of sequence gains weight by a power of `factor`. */
export class ExponentialDecayLengthPenalty extends LogitsProcessor {
  readonly regulation_start: number;
  readonly regulation_factor: number;
  readonly #eos: TokenSet;

  constructor(
    ...args: Arguments<{
      exponential_decay_length_penalty: readonly [number, number];
      eos_token_id: TokenIds;
      input_ids_seq_length: number;
    }>
  ) {
    super();
    const cls = ExponentialDecayLengthPenalty;
    const {
      exponential_decay_length_penalty: penalty,
      eos_token_id,
      input_ids_seq_length,
    } = read<{
      exponential_decay_length_penalty: readonly [number, number];
      eos_token_id: TokenIds;
      input_ids_seq_length: number;
    }>(cls, args, ["exponential_decay_length_penalty", "eos_token_id", "input_ids_seq_length"]);
    check(
      Array.isArray(penalty) && penalty.length === 2,
      cls,
      "exponential_decay_length_penalty",
      "[start, factor]",
      penalty,
    );
    this.regulation_start = penalty[0] + input_ids_seq_length;
    this.regulation_factor = penalty[1];
    this.#eos = this.own(new TokenSet(eos_token_id, cls, "eos_token_id"));
  }

  override process(input_ids: Tensor, scores: Tensor): Tensor {
    const steps = (input_ids.shape[1] as number) - this.regulation_start;
    if (steps <= 0) return scores;
    const penalty = scores.abs().mul(this.regulation_factor ** steps - 1);
    const applies = this.#eos.mask(scores).bitwise_and(scores.isfinite());
    return scores.add(penalty.masked_fill(applies.bitwise_not(), 0));
  }

  override processPadded({ added, prompt }: PaddedSequence, scores: Tensor): Tensor {
    const steps = added.sub(this.regulation_start - prompt);
    const factor = torch.pow(this.regulation_factor, steps.to("float64")).sub(1);
    const applies = this.#eos.mask(scores).bitwise_and(scores.isfinite()).bitwise_and(steps.gt(0));
    return scores.add(scores.abs().mul(factor).masked_fill(applies.bitwise_not(), 0));
  }
}

/** These tokens never come. */
export class SuppressTokensLogitsProcessor extends LogitsProcessor {
  readonly #tokens: TokenSet;

  constructor(...args: Arguments<{ suppress_tokens: readonly number[] }>) {
    super();
    const { suppress_tokens } = read<{ suppress_tokens: readonly number[] }>(
      SuppressTokensLogitsProcessor,
      args,
      ["suppress_tokens"],
    );
    this.#tokens = this.own(new TokenSet(suppress_tokens, SuppressTokensLogitsProcessor, "suppress_tokens"));
  }

  override process(_input_ids: Tensor, scores: Tensor): Tensor {
    return scores.masked_fill(this.#tokens.mask(scores), -Infinity);
  }
}

/** These tokens do not come first, at `begin_index`. */
export class SuppressTokensAtBeginLogitsProcessor extends LogitsProcessor {
  begin_index: number;
  readonly #tokens: TokenSet;

  constructor(...args: Arguments<{ begin_suppress_tokens: readonly number[]; begin_index: number }>) {
    super();
    const cls = SuppressTokensAtBeginLogitsProcessor;
    const { begin_suppress_tokens, begin_index } = read<{
      begin_suppress_tokens: readonly number[];
      begin_index: number;
    }>(cls, args, ["begin_suppress_tokens", "begin_index"]);
    this.begin_index = begin_index;
    this.#tokens = this.own(new TokenSet(begin_suppress_tokens, cls, "begin_suppress_tokens"));
  }

  set_begin_index(begin_index: number): void {
    this.begin_index = begin_index;
  }

  override process(input_ids: Tensor, scores: Tensor): Tensor {
    if (input_ids.shape[1] !== this.begin_index) return scores;
    return scores.masked_fill(this.#tokens.mask(scores), -Infinity);
  }

  override processPadded({ added, prompt }: PaddedSequence, scores: Tensor): Tensor {
    const first = added.eq(this.begin_index - prompt);
    return scores.masked_fill(this.#tokens.mask(scores).bitwise_and(first), -Infinity);
  }
}

// Numbers --------------------------------------------------------------------------------------------------------

/** NaN becomes 0, infinities the largest and smallest finite numbers. */
export class InfNanRemoveLogitsProcessor extends LogitsProcessor {
  override process(_input_ids: Tensor, scores: Tensor): Tensor {
    const { min, max } = torch.finfo(scores.dtype);
    return torch.nan_to_num(scores, { nan: 0, posinf: max, neginf: min });
  }
}

/** Scores become logarithms of probabilities. */
export class LogitNormalization extends LogitsProcessor {
  override process(_input_ids: Tensor, scores: Tensor): Tensor {
    return scores.log_softmax(-1);
  }
}

/** Scores of 2·batch rows, conditional then unconditional: moves away from the unconditional ones. */
export class ClassifierFreeGuidanceLogitsProcessor extends LogitsProcessor {
  readonly guidance_scale: number;

  constructor(...args: Arguments<{ guidance_scale: number }>) {
    super();
    const { guidance_scale } = read<{ guidance_scale: number }>(ClassifierFreeGuidanceLogitsProcessor, args, [
      "guidance_scale",
    ]);
    check(
      guidance_scale > 1,
      ClassifierFreeGuidanceLogitsProcessor,
      "guidance_scale",
      "above 1",
      guidance_scale,
    );
    this.guidance_scale = guidance_scale;
  }

  override process(input_ids: Tensor, scores: Tensor): Tensor {
    const rows = input_ids.shape[0] as number;
    check(
      scores.shape[0] === 2 * rows,
      ClassifierFreeGuidanceLogitsProcessor,
      "scores",
      `of ${2 * rows} rows`,
      scores.shape[0],
    );
    const [conditional, unconditional] = [scores.narrow(0, 0, rows), scores.narrow(0, rows, rows)];
    return unconditional.add(conditional.sub(unconditional).mul(this.guidance_scale));
  }
}
