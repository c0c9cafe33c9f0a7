// Warpers: logits processors that shape the distribution which is sampled from.
import { InvalidArgumentError } from "../../errors/index.ts";
import type { Tensor } from "../../torch/index.ts";
import * as torch from "../../torch/index.ts";
import {
  type Arguments,
  check,
  type FilterOptions,
  isCount,
  LogitsProcessor,
  read,
} from "./logits_processor.ts";

/** Divides scores by the temperature: below 1 sharper, above 1 flatter. */
export class TemperatureLogitsWarper extends LogitsProcessor {
  readonly temperature: number;

  constructor(...args: Arguments<{ temperature: number }>) {
    super();
    const { temperature } = read<{ temperature: number }>(TemperatureLogitsWarper, args, ["temperature"]);
    if (!(typeof temperature === "number" && temperature > 0)) {
      throw new InvalidArgumentError(
        `TemperatureLogitsWarper: temperature must be a number above 0, got ${String(temperature)}.`,
        {
          ...(temperature === 0 ? { hint: "For greedy decoding set do_sample: false." } : {}),
        },
      );
    }
    this.temperature = temperature;
  }

  override process(_input_ids: Tensor, scores: Tensor): Tensor {
    return scores.div(this.temperature);
  }
}

abstract class Filter extends LogitsProcessor {
  readonly filter_value: number;
  readonly min_tokens_to_keep: number;

  constructor(
    cls: { readonly name: string },
    { filter_value = -Infinity, min_tokens_to_keep = 1 }: FilterOptions,
  ) {
    super();
    check(
      isCount(min_tokens_to_keep, 1),
      cls,
      "min_tokens_to_keep",
      "a positive integer",
      min_tokens_to_keep,
    );
    this.filter_value = filter_value;
    this.min_tokens_to_keep = min_tokens_to_keep;
  }

  override process(_input_ids: Tensor, scores: Tensor): Tensor {
    return scores.masked_fill(this.removed(scores), this.filter_value);
  }

  /** [batch, vocabulary], true for what goes. */
  protected abstract removed(scores: Tensor): Tensor;
}

/** The k-th largest score of each row [batch, 1]; fewer where the vocabulary is smaller. */
function kthLargest(scores: Tensor, k: number): Tensor {
  const [values] = scores.topk(Math.min(k, scores.shape.at(-1) as number));
  return values.narrow(-1, (values.shape.at(-1) as number) - 1, 1);
}

/** Keeps the `top_k` best tokens. */
export class TopKLogitsWarper extends Filter {
  readonly top_k: number;

  constructor(...args: Arguments<{ top_k: number } & FilterOptions>) {
    const options = read<{ top_k: number } & FilterOptions>(TopKLogitsWarper, args, [
      "top_k",
      "filter_value",
      "min_tokens_to_keep",
    ]);
    super(TopKLogitsWarper, options);
    check(isCount(options.top_k, 1), TopKLogitsWarper, "top_k", "a positive integer", options.top_k);
    this.top_k = Math.max(options.top_k, this.min_tokens_to_keep);
  }

  protected override removed(scores: Tensor): Tensor {
    return scores.lt(kthLargest(scores, this.top_k));
  }
}

/** Keeps the best tokens whose probabilities add up to `top_p`. */
export class TopPLogitsWarper extends Filter {
  readonly top_p: number;

  constructor(...args: Arguments<{ top_p: number } & FilterOptions>) {
    const options = read<{ top_p: number } & FilterOptions>(TopPLogitsWarper, args, [
      "top_p",
      "filter_value",
      "min_tokens_to_keep",
    ]);
    super(TopPLogitsWarper, options);
    check(options.top_p >= 0 && options.top_p <= 1, TopPLogitsWarper, "top_p", "from 0 to 1", options.top_p);
    this.top_p = options.top_p;
  }

  protected override removed(scores: Tensor): Tensor {
    const [sorted, order] = torch.sort(scores, { descending: false });
    const small = sorted
      .softmax(-1)
      .cumsum(-1)
      .le(1 - this.top_p);
    const size = small.shape.at(-1) as number;
    const kept = Math.min(this.min_tokens_to_keep, size);
    small.narrow(-1, size - kept, kept).fill_(false);
    return small.scatter(1, order, small);
  }
}

/** Keeps the best tokens within a share `top_h` of the entropy of the 100 best. */
export class TopHLogitsWarper extends LogitsProcessor {
  readonly top_n: number = 100;
  readonly top_h: number;
  readonly filter_value: number;

  constructor(...args: Arguments<{ top_h: number; filter_value?: number }>) {
    super();
    const { top_h, filter_value = -Infinity } = read<{ top_h: number; filter_value?: number }>(
      TopHLogitsWarper,
      args,
      ["top_h", "filter_value"],
    );
    check(top_h > 0 && top_h <= 1, TopHLogitsWarper, "top_h", "above 0 and at most 1", top_h);
    this.top_h = top_h;
    this.filter_value = filter_value;
  }

  override process(_input_ids: Tensor, scores: Tensor): Tensor {
    const [best, order] = scores.topk(Math.min(this.top_n, scores.shape.at(-1) as number));
    const probabilities = best.softmax(-1);
    const limit = entropy(best).mul(this.top_h).unsqueeze(-1);
    const kept = probabilities.mul(probabilities.log()).neg().cumsum(-1).le(limit);
    kept.narrow(-1, 0, 1).fill_(true);
    const keep = torch.zeros_like(scores, { dtype: "bool" }).scatter_(1, order, kept);
    return scores.masked_fill(keep.bitwise_not(), this.filter_value);
  }
}

/** Entropy of the distribution that scores [batch, n] stand for [batch]. */
function entropy(scores: Tensor): Tensor {
  const logarithms = scores.log_softmax(-1);
  return logarithms
    .clamp({ min: torch.finfo(scores.dtype).min })
    .mul(logarithms.exp())
    .sum(-1)
    .neg();
}

/** Keeps tokens at least `min_p` times as probable as the best. */
export class MinPLogitsWarper extends Filter {
  readonly min_p: number;

  constructor(...args: Arguments<{ min_p: number } & FilterOptions>) {
    const options = read<{ min_p: number } & FilterOptions>(MinPLogitsWarper, args, [
      "min_p",
      "filter_value",
      "min_tokens_to_keep",
    ]);
    super(MinPLogitsWarper, options);
    check(options.min_p >= 0 && options.min_p <= 1, MinPLogitsWarper, "min_p", "from 0 to 1", options.min_p);
    this.min_p = options.min_p;
  }

  protected override removed(scores: Tensor): Tensor {
    const probabilities = scores.softmax(-1);
    const small = probabilities.lt(probabilities.amax(-1, true).mul(this.min_p));
    const [, best] = probabilities.topk(
      Math.min(this.min_tokens_to_keep, probabilities.shape.at(-1) as number),
    );
    return small.scatter_(-1, best, false);
  }
}

/** Keeps the tokens whose surprise is nearest to the expected one, up to a probability of `mass`. */
export class TypicalLogitsWarper extends Filter {
  readonly mass: number;

  constructor(...args: Arguments<{ mass?: number } & FilterOptions>) {
    const options = read<{ mass?: number } & FilterOptions>(TypicalLogitsWarper, args, [
      "mass",
      "filter_value",
      "min_tokens_to_keep",
    ]);
    super(TypicalLogitsWarper, options);
    this.mass = options.mass ?? 0.9;
    check(this.mass > 0 && this.mass < 1, TypicalLogitsWarper, "typical_p", "between 0 and 1", this.mass);
  }

  protected override removed(scores: Tensor): Tensor {
    const logarithms = scores.log_softmax(-1);
    const expected = logarithms.mul(logarithms.exp()).nansum(-1, true).neg();
    const [distance, order] = torch.sort(logarithms.neg().sub(expected).abs(), { descending: false });
    const size = distance.shape.at(-1) as number;
    const last = scores
      .gather(-1, order)
      .softmax(-1)
      .cumsum(-1)
      .lt(this.mass)
      .sum(1)
      .clamp({ max: size - 1 });
    const far = distance.gt(distance.gather(1, last.view([-1, 1])));
    far.narrow(-1, 0, Math.min(this.min_tokens_to_keep, size)).fill_(false);
    return far.scatter(1, order, far);
  }
}

/** Removes tokens less probable than `epsilon`. */
export class EpsilonLogitsWarper extends Filter {
  readonly epsilon: number;

  constructor(...args: Arguments<{ epsilon: number } & FilterOptions>) {
    const options = read<{ epsilon: number } & FilterOptions>(EpsilonLogitsWarper, args, [
      "epsilon",
      "filter_value",
      "min_tokens_to_keep",
    ]);
    super(EpsilonLogitsWarper, options);
    check(
      options.epsilon > 0 && options.epsilon < 1,
      EpsilonLogitsWarper,
      "epsilon_cutoff",
      "between 0 and 1",
      options.epsilon,
    );
    this.epsilon = options.epsilon;
  }

  protected override removed(scores: Tensor): Tensor {
    return scores
      .softmax(-1)
      .lt(this.epsilon)
      .bitwise_and(scores.lt(kthLargest(scores, this.min_tokens_to_keep)));
  }
}

/** Removes tokens less probable than `epsilon`, or less where the distribution is flat. */
export class EtaLogitsWarper extends Filter {
  readonly epsilon: number;

  constructor(...args: Arguments<{ epsilon: number } & FilterOptions>) {
    const options = read<{ epsilon: number } & FilterOptions>(EtaLogitsWarper, args, [
      "epsilon",
      "filter_value",
      "min_tokens_to_keep",
    ]);
    super(EtaLogitsWarper, options);
    check(
      options.epsilon > 0 && options.epsilon < 1,
      EtaLogitsWarper,
      "eta_cutoff",
      "between 0 and 1",
      options.epsilon,
    );
    this.epsilon = options.epsilon;
  }

  protected override removed(scores: Tensor): Tensor {
    const eta = entropy(scores)
      .neg()
      .exp()
      .mul(Math.sqrt(this.epsilon))
      .clamp({ max: this.epsilon })
      .unsqueeze(-1);
    return scores
      .softmax(-1)
      .lt(eta)
      .bitwise_and(scores.lt(kthLargest(scores, this.min_tokens_to_keep)));
  }
}
