// Losses. torch's older `size_average` and `reduce` are not offered: `reduction` says the same.

import { InvalidArgumentError, ShapeError } from "../../errors/index.ts";
import { suggest } from "../../errors/suggest.ts";
import type { Tensor } from "../../torch/index.ts";
import * as torch from "../../torch/index.ts";
import * as ops from "../../torch/nn.generated.ts";
import { bind, byName, type Rest } from "../arguments.ts";

/** What becomes of the losses of all entries: all of them, their mean (default) or their sum. */
export type Reduction = "none" | "mean" | "sum";

interface Reduced {
  reduction?: Reduction | undefined;
}
const REDUCTION = { reduction: "mean" as Reduction };

/** libtorch's numbers for the reductions. */
const REDUCTIONS: Readonly<Record<string, number>> = { none: 0, mean: 1, sum: 2 };

function reductionIndex(reduction: string): number {
  const index = REDUCTIONS[reduction];
  if (index === undefined) {
    throw new InvalidArgumentError(`'${reduction}' is not a valid reduction.`, {
      suggestion: suggest(reduction, Object.keys(REDUCTIONS)),
    });
  }
  return index;
}

function reduced(loss: Tensor, reduction: Reduction): Tensor {
  return [() => loss, () => loss.mean(), () => loss.sum()][reductionIndex(reduction)]?.() as Tensor;
}

// classes ---------------------------------------------------------------------------------------------------

export interface CrossEntropyOptions extends Reduced {
  /** A factor per class. */
  weight?: Tensor | null | undefined;
  /** Targets of this class count nothing. Default: -100. */
  ignore_index?: number | undefined;
  /** How much of the target is spread over all classes. Default: 0. */
  label_smoothing?: number | undefined;
}

/**
 * Cross entropy of scores [batch, classes, …] with targets [batch, …] of class indices, or with shares of all classes
 * in the shape of the scores.
 *
 * @example F.cross_entropy(logits.view(-1, vocab), labels.view(-1), { ignore_index: -100 });
 */
export const cross_entropy = byName(
  ["input", "target"],
  function cross_entropy(
    input: Tensor,
    target: Tensor,
    ...rest: Rest<[weight: Tensor | null], CrossEntropyOptions>
  ): Tensor {
    const { weight, ignore_index, reduction, label_smoothing } = bind("cross_entropy", rest, {
      weight: null as Tensor | null,
      ignore_index: -100,
      ...REDUCTION,
      label_smoothing: 0,
    });
    return ops.cross_entropy_loss(
      input,
      target,
      weight,
      reductionIndex(reduction),
      ignore_index,
      label_smoothing,
    );
  },
);

/** The negative log likelihood of targets [batch, …] under log-probabilities [batch, classes, …]. */
export const nll_loss = byName(
  ["input", "target"],
  function nll_loss(
    input: Tensor,
    target: Tensor,
    ...rest: Rest<[weight: Tensor | null], Omit<CrossEntropyOptions, "label_smoothing">>
  ): Tensor {
    const { weight, ignore_index, reduction } = bind("nll_loss", rest, {
      weight: null as Tensor | null,
      ignore_index: -100,
      ...REDUCTION,
    });
    return ops.nll_loss_nd(input, target, weight, reductionIndex(reduction), ignore_index);
  },
);

export interface BinaryCrossEntropyOptions extends Reduced {
  weight?: Tensor | null | undefined;
}

/** Binary cross entropy of probabilities with targets between 0 and 1. */
export const binary_cross_entropy = byName(
  ["input", "target"],
  function binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    ...rest: Rest<[weight: Tensor | null], BinaryCrossEntropyOptions>
  ): Tensor {
    const { weight, reduction } = bind("binary_cross_entropy", rest, {
      weight: null as Tensor | null,
      ...REDUCTION,
    });
    sameShape("binary_cross_entropy", input, target);
    const factors = weight?.expand(broadcastShape(target.shape, weight.shape)) ?? null;
    return ops.binary_cross_entropy(input, target, factors, reductionIndex(reduction));
  },
);

/** Binary cross entropy of scores (their sigmoid is the probability) with targets between 0 and 1. */
export const binary_cross_entropy_with_logits = byName(
  ["input", "target"],
  function binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    ...rest: Rest<
      [weight: Tensor | null],
      BinaryCrossEntropyOptions & { pos_weight?: Tensor | null | undefined }
    >
  ): Tensor {
    const { weight, reduction, pos_weight } = bind("binary_cross_entropy_with_logits", rest, {
      weight: null as Tensor | null,
      ...REDUCTION,
      pos_weight: null as Tensor | null,
    });
    sameShape("binary_cross_entropy_with_logits", input, target);
    return torch.binary_cross_entropy_with_logits(
      input,
      target,
      weight,
      pos_weight,
      reductionIndex(reduction),
    );
  },
);

/** Multi-class margin loss of scores [batch, classes] with class indices [batch]. Default: p 1, margin 1. */
export const multi_margin_loss = byName(
  ["input", "target"],
  function multi_margin_loss(
    input: Tensor,
    target: Tensor,
    ...rest: Rest<
      [p: number, margin: number, weight: Tensor | null],
      Reduced & { p?: number; margin?: number; weight?: Tensor | null }
    >
  ): Tensor {
    const { p, margin, weight, reduction } = bind("multi_margin_loss", rest, {
      p: 1,
      margin: 1,
      weight: null as Tensor | null,
      ...REDUCTION,
    });
    return ops.multi_margin_loss(input, target, p, margin, weight, reductionIndex(reduction));
  },
);

/** Margin loss between the classes that apply (their indices, -1 ends the list) and the others. */
export const multilabel_margin_loss = byName(
  ["input", "target"],
  function multilabel_margin_loss(input: Tensor, target: Tensor, ...rest: Rest<[], Reduced>): Tensor {
    const { reduction } = bind("multilabel_margin_loss", rest, REDUCTION);
    return ops.multilabel_margin_loss(input, target, reductionIndex(reduction));
  },
);

/** Binary cross entropy of scores over several classes, the mean over the last dimension. */
export const multilabel_soft_margin_loss = byName(
  ["input", "target"],
  function multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    ...rest: Rest<[weight: Tensor | null], BinaryCrossEntropyOptions>
  ): Tensor {
    const { weight, reduction } = bind("multilabel_soft_margin_loss", rest, {
      weight: null as Tensor | null,
      ...REDUCTION,
    });
    const yes = target.mul(ops.log_sigmoid(input));
    const no = target.neg().add(1).mul(ops.log_sigmoid(input.neg()));
    const losses = yes.add(no).neg();
    const weighted = weight ? losses.mul(weight) : losses;
    return reduced(weighted.sum([-1]).div(input.size(-1)), reduction);
  },
);

/** log(1 + exp(-target · input)), for targets 1 and -1. */
export const soft_margin_loss = byName(
  ["input", "target"],
  function soft_margin_loss(input: Tensor, target: Tensor, ...rest: Rest<[], Reduced>): Tensor {
    return ops.soft_margin_loss(
      input,
      target,
      reductionIndex(bind("soft_margin_loss", rest, REDUCTION).reduction),
    );
  },
);

// numbers ---------------------------------------------------------------------------------------------------

interface Weighted extends Reduced {
  /** A factor per entry. */
  weight?: Tensor | null | undefined;
}
const WEIGHTED = { ...REDUCTION, weight: null as Tensor | null };

/** A loss of two broadcast tensors, reduced at once, or weighted by entry first. */
function elementLoss(
  [input, target]: [Tensor, Tensor],
  { reduction, weight }: { reduction: Reduction; weight: Tensor | null },
  loss: (input: Tensor, target: Tensor, reduction: number) => Tensor,
): Tensor {
  const [x, y] = torch.broadcast_tensors(input, target) as [Tensor, Tensor];
  if (weight === null) return loss(x, y, reductionIndex(reduction));
  sameShape("a weighted loss", input, weight);
  return reduced(loss(x, y, 0).mul(weight), reduction);
}

/** Squared differences. */
export const mse_loss = byName(
  ["input", "target"],
  function mse_loss(input: Tensor, target: Tensor, ...rest: Rest<[], Weighted>): Tensor {
    const options = bind("mse_loss", rest, WEIGHTED);
    if (options.weight === null) return elementLoss([input, target], options, ops.mse_loss);
    const { weight, reduction } = options;
    const losses = elementLoss([input, target], { reduction: "none", weight: null }, ops.mse_loss).mul(
      weight,
    );
    return reduction === "mean" ? losses.sum().div(weight.sum()) : reduced(losses, reduction);
  },
);

/** Absolute differences. */
export const l1_loss = byName(
  ["input", "target"],
  function l1_loss(input: Tensor, target: Tensor, ...rest: Rest<[], Weighted>): Tensor {
    return elementLoss([input, target], bind("l1_loss", rest, WEIGHTED), ops.l1_loss);
  },
);

/** Squared below `beta`, absolute above. Default beta: 1. */
export const smooth_l1_loss = byName(
  ["input", "target"],
  function smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    ...rest: Rest<[], Reduced & { beta?: number }>
  ): Tensor {
    const { reduction, beta } = bind("smooth_l1_loss", rest, { ...REDUCTION, beta: 1 });
    const loss =
      beta === 0 ? ops.l1_loss : (x: Tensor, y: Tensor, r: number) => ops.smooth_l1_loss(x, y, r, beta);
    return elementLoss([input, target], { reduction, weight: null }, loss);
  },
);

/** Squared below `delta`, absolute times `delta` above. Default delta: 1. */
export const huber_loss = byName(
  ["input", "target"],
  function huber_loss(
    input: Tensor,
    target: Tensor,
    ...rest: Rest<[reduction: Reduction, delta: number], Weighted & { delta?: number }>
  ): Tensor {
    const { reduction, delta, weight } = bind("huber_loss", rest, {
      ...REDUCTION,
      delta: 1,
      weight: null as Tensor | null,
    });
    return elementLoss([input, target], { reduction, weight }, (x, y, r) => ops.huber_loss(x, y, r, delta));
  },
);

/** Loss of a Poisson distribution with rate exp(input), or the input itself without `log_input`. */
export const poisson_nll_loss = byName(
  ["input", "target"],
  function poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    ...rest: Rest<
      [log_input: boolean, full: boolean],
      Reduced & { log_input?: boolean; full?: boolean; eps?: number }
    >
  ): Tensor {
    const { log_input, full, eps, reduction } = bind("poisson_nll_loss", rest, {
      log_input: true,
      full: false,
      eps: 1e-8,
      ...REDUCTION,
    });
    return torch.poisson_nll_loss(input, target, log_input, full, eps, reductionIndex(reduction));
  },
);

/** Loss of a normal distribution with mean `input` and variance `var` (at least eps; default 1e-6). */
export const gaussian_nll_loss = byName(
  ["input", "target", "var"],
  function gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    variance: Tensor | number,
    ...rest: Rest<[full: boolean, eps: number], Reduced & { full?: boolean; eps?: number }>
  ): Tensor {
    const { full, eps, reduction } = bind("gaussian_nll_loss", rest, {
      full: false,
      eps: 1e-6,
      ...REDUCTION,
    });
    let spread = typeof variance === "number" ? torch.ones_like(input).mul(variance) : variance;
    if (spread.ndim === input.ndim - 1) spread = spread.unsqueeze(-1);
    spread = spread.clone();
    torch.no_grad(() => spread.clamp_({ min: eps }));
    let loss = spread.log().add(input.sub(target).pow(2).div(spread)).mul(0.5);
    if (full) loss = loss.add(0.5 * Math.log(2 * Math.PI));
    return reduced(loss, reduction);
  },
);

/** How far the distribution of log-probabilities `input` is from `target`. "batchmean" divides the sum by the batch size. */
export const kl_div = byName(
  ["input", "target"],
  function kl_div(
    input: Tensor,
    target: Tensor,
    ...rest: Rest<[], { reduction?: Reduction | "batchmean" | undefined; log_target?: boolean | undefined }>
  ): Tensor {
    const { reduction, log_target } = bind("kl_div", rest, {
      reduction: "mean" as Reduction | "batchmean",
      log_target: false,
    });
    const batchmean = reduction === "batchmean";
    const result = torch.kl_div(input, target, reductionIndex(batchmean ? "sum" : reduction), { log_target });
    return batchmean && input.ndim > 0 ? result.div(input.size(0)) : result;
  },
);

// pairs and triples -----------------------------------------------------------------------------------------

interface Margin extends Reduced {
  margin?: number | undefined;
}

/** max(0, -target (x1 - x2) + margin), for targets 1 and -1. Default margin: 0. */
export const margin_ranking_loss = byName(
  ["input1", "input2", "target"],
  function margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    ...rest: Rest<[margin: number], Margin>
  ): Tensor {
    const { margin, reduction } = bind("margin_ranking_loss", rest, { margin: 0, ...REDUCTION });
    return torch.margin_ranking_loss(input1, input2, target, margin, reductionIndex(reduction));
  },
);

/** x for target 1, max(0, margin - x) for target -1. Default margin: 1. */
export const hinge_embedding_loss = byName(
  ["input", "target"],
  function hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    ...rest: Rest<[margin: number], Margin>
  ): Tensor {
    const { margin, reduction } = bind("hinge_embedding_loss", rest, { margin: 1, ...REDUCTION });
    return torch.hinge_embedding_loss(input, target, margin, reductionIndex(reduction));
  },
);

/** 1 - cos(x1, x2) for target 1, max(0, cos(x1, x2) - margin) for target -1. Default margin: 0. */
export const cosine_embedding_loss = byName(
  ["input1", "input2", "target"],
  function cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    ...rest: Rest<[margin: number], Margin>
  ): Tensor {
    const { margin, reduction } = bind("cosine_embedding_loss", rest, { margin: 0, ...REDUCTION });
    return torch.cosine_embedding_loss(input1, input2, target, margin, reductionIndex(reduction));
  },
);

export interface TripletMarginOptions extends Margin {
  /** Which norm. Default: 2. */
  p?: number | undefined;
  /** Default: 1e-6. */
  eps?: number | undefined;
  /** Use the distance of positive and negative where it is smaller. Default: false. */
  swap?: boolean | undefined;
}

/** max(0, ‖anchor - positive‖ - ‖anchor - negative‖ + margin). Default margin: 1. */
export const triplet_margin_loss = byName(
  ["anchor", "positive", "negative"],
  function triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    ...rest: Rest<[margin: number, p: number, eps: number, swap: boolean], TripletMarginOptions>
  ): Tensor {
    const { margin, p, eps, swap, reduction } = bind("triplet_margin_loss", rest, {
      margin: 1,
      p: 2,
      eps: 1e-6,
      swap: false,
      ...REDUCTION,
    });
    return torch.triplet_margin_loss(
      anchor,
      positive,
      negative,
      margin,
      p,
      eps,
      swap,
      reductionIndex(reduction),
    );
  },
);

export interface TripletDistanceOptions extends Margin {
  /** Default: {@link pairwise_distance}. */
  distance_function?: ((x: Tensor, y: Tensor) => Tensor) | null | undefined;
  swap?: boolean | undefined;
}

/** {@link triplet_margin_loss} with a distance of one's own. */
export const triplet_margin_with_distance_loss = byName(
  ["anchor", "positive", "negative"],
  function triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    ...rest: Rest<[], TripletDistanceOptions>
  ): Tensor {
    const { distance_function, margin, swap, reduction } = bind("triplet_margin_with_distance_loss", rest, {
      distance_function: null as ((x: Tensor, y: Tensor) => Tensor) | null,
      margin: 1,
      swap: false,
      ...REDUCTION,
    });
    const distance = distance_function ?? ((x: Tensor, y: Tensor) => torch.pairwise_distance(x, y));
    const near = distance(anchor, positive);
    let far = distance(anchor, negative);
    if (swap) far = torch.minimum(far, distance(positive, negative));
    return reduced(near.sub(far).add(margin).clamp_min(0), reduction);
  },
);

// sequences -------------------------------------------------------------------------------------------------

export interface CTCOptions extends Reduced {
  /** The class that stands for "nothing". Default: 0. */
  blank?: number | undefined;
  /** Infinite losses (targets longer than the input) count 0. Default: false. */
  zero_infinity?: boolean | undefined;
}

/**
 * Connectionist temporal classification: log-probabilities [time, batch, classes], targets [batch, length] or all in a
 * row, and how long each input and target is.
 */
export const ctc_loss = byName(
  ["log_probs", "targets", "input_lengths", "target_lengths"],
  function ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor | readonly number[],
    target_lengths: Tensor | readonly number[],
    ...rest: Rest<[blank: number, reduction: Reduction, zero_infinity: boolean], CTCOptions>
  ): Tensor {
    const { blank, reduction, zero_infinity } = bind("ctc_loss", rest, {
      blank: 0,
      ...REDUCTION,
      zero_infinity: false,
    });
    const ctc = torch.ctc_loss as (...args: unknown[]) => Tensor;
    return ctc(
      log_probs,
      targets,
      input_lengths,
      target_lengths,
      blank,
      reductionIndex(reduction),
      zero_infinity,
    );
  },
);

function sameShape(name: string, input: Tensor, target: Tensor): void {
  if (input.shape.join() === target.shape.join()) return;
  throw new ShapeError(
    `[${name}] the shapes must be equal, got [${input.shape.join(", ")}] and [${target.shape.join(", ")}].`,
  );
}

function broadcastShape(a: readonly number[], b: readonly number[]): number[] {
  const length = Math.max(a.length, b.length);
  return Array.from({ length }, (_, i) => {
    const [x, y] = [a[i - length + a.length] ?? 1, b[i - length + b.length] ?? 1];
    return x === 1 ? y : x;
  });
}
