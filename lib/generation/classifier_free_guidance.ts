// Classifier-free guidance: away from what the model would say without the prompt. arXiv 2306.17806.
import { InvalidArgumentError } from "../errors/index.ts";
import { type Cache, type CacheConfig, DynamicCache } from "../modeling/cache_utils.ts";
import type { PreTrainedModel } from "../modeling/modeling_utils.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { LogitsProcessor } from "./logits_process/logits_processor.ts";

export interface UnbatchedGuidanceOptions {
  /** Above 1: towards the prompt. 1 changes nothing. */
  readonly guidance_scale: number;
  /** Scores the tokens a second time, after the negative prompt. */
  readonly model: PreTrainedModel;
  /** The negative prompt [batch, length]. Default: the last token of the prompt. */
  readonly unconditional_ids?: Tensor | null | undefined;
  readonly unconditional_attention_mask?: Tensor | null | undefined;
  /** Default true. */
  readonly use_cache?: boolean | null | undefined;
}

/** log p(token | prompt) and log p(token | negative prompt), moved apart by `guidance_scale`. */
export class UnbatchedClassifierFreeGuidanceLogitsProcessor extends LogitsProcessor {
  readonly guidance_scale: number;
  readonly #model: PreTrainedModel;
  readonly #cache: Cache | undefined;
  #ids: Tensor | undefined;
  #mask: Tensor | undefined;
  #isFirst = true;

  constructor({
    guidance_scale,
    model,
    unconditional_ids,
    unconditional_attention_mask,
    use_cache,
  }: UnbatchedGuidanceOptions) {
    super();
    if (!(typeof guidance_scale === "number" && guidance_scale > 0)) {
      throw new InvalidArgumentError(
        `guidance_scale must be a number above 0, got ${String(guidance_scale)}.`,
      );
    }
    this.guidance_scale = guidance_scale;
    this.#model = model;
    this.#ids = unconditional_ids ?? undefined;
    this.#mask = unconditional_attention_mask ?? undefined;
    if (use_cache !== false) {
      this.#cache = this.own(
        new DynamicCache({ config: model.config.get_text_config() as unknown as CacheConfig }),
      );
    }
  }

  override process(input_ids: Tensor, scores: Tensor): Tensor {
    const conditional = scores.log_softmax(-1);
    if (this.guidance_scale === 1) return conditional;
    const logits = this.#unconditional(input_ids);
    const unconditional = logits.select(1, (logits.shape[1] as number) - 1).log_softmax(-1);
    return conditional.sub(unconditional).mul(this.guidance_scale).add(unconditional);
  }

  /** Scores after the negative prompt and what was generated since. */
  #unconditional(input_ids: Tensor): Tensor {
    const last = input_ids.narrow(1, (input_ids.shape[1] as number) - 1, 1);
    const one = torch.ones_like(last);
    const [before, mask] = [this.#ids, this.#mask];
    if (this.#isFirst || before === undefined || mask === undefined) {
      this.#ids = torch.keep(before ?? last.clone());
      this.#mask = torch.keep(mask ?? torch.ones_like(this.#ids));
    } else {
      this.#ids = torch.keep(this.#cache ? last.clone() : torch.cat([before, last], 1));
      this.#mask = torch.keep(torch.cat([mask, one], 1));
    }
    this.#isFirst = false;
    const inputs = {
      input_ids: this.#ids,
      attention_mask: this.#mask,
      past_key_values: this.#cache,
      use_cache: this.#cache !== undefined,
    };
    return (
      (this.#model.forward as (inputs: object) => unknown).call(this.#model, inputs) as { logits: Tensor }
    ).logits;
  }
}
