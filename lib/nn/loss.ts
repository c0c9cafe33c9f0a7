// Losses as modules. A `weight` is a buffer, so that it moves with its module.

import type { Tensor } from "../torch/index.ts";
import { bind, type Rest } from "./arguments.ts";
import { PairwiseDistance } from "./distance.ts";
import type { Reduction } from "./functional/loss.ts";
import * as F from "./functional.ts";
import { Module } from "./module.ts";

interface Reduced {
  /** What becomes of the losses of all entries. Default: "mean". */
  reduction?: Reduction | undefined;
}
interface Weighted extends Reduced {
  weight?: Tensor | null | undefined;
}
const REDUCTION = { reduction: "mean" as Reduction };
const WEIGHTED = { weight: null as Tensor | null, ...REDUCTION };

abstract class _Loss extends Module {
  readonly reduction: Reduction;

  constructor(reduction: Reduction) {
    super();
    this.reduction = reduction;
  }
}

abstract class _WeightedLoss extends _Loss {
  declare readonly weight: Tensor | null;

  constructor(weight: Tensor | null, reduction: Reduction) {
    super(reduction);
    this.register_buffer("weight", weight);
  }
}

/** Absolute differences. */
export class L1Loss extends _Loss {
  constructor(...rest: Rest<[], Reduced>) {
    super(bind("L1Loss", rest, REDUCTION).reduction);
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return F.l1_loss(input, target, { reduction: this.reduction });
  }
}

/** Squared differences. @example new nn.MSELoss().forward(output, target).backward(); */
export class MSELoss extends _Loss {
  constructor(...rest: Rest<[], Reduced>) {
    super(bind("MSELoss", rest, REDUCTION).reduction);
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return F.mse_loss(input, target, { reduction: this.reduction });
  }
}

/** Squared below `beta` (default 1), absolute above. */
export class SmoothL1Loss extends _Loss {
  readonly beta: number;

  constructor(...rest: Rest<[], Reduced & { beta?: number | undefined }>) {
    const { reduction, beta } = bind("SmoothL1Loss", rest, { ...REDUCTION, beta: 1 });
    super(reduction);
    this.beta = beta;
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return F.smooth_l1_loss(input, target, { reduction: this.reduction, beta: this.beta });
  }
}

/** Squared below `delta` (default 1), absolute times `delta` above. */
export class HuberLoss extends _Loss {
  readonly delta: number;

  constructor(
    ...rest: Rest<[reduction: Reduction, delta: number], Reduced & { delta?: number | undefined }>
  ) {
    const { reduction, delta } = bind("HuberLoss", rest, { ...REDUCTION, delta: 1 });
    super(reduction);
    this.delta = delta;
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return F.huber_loss(input, target, { reduction: this.reduction, delta: this.delta });
  }
}

/**
 * Cross entropy of scores [batch, classes, …] with class indices [batch, …], or with shares of all classes.
 *
 * @example new nn.CrossEntropyLoss({ label_smoothing: 0.1 }).forward(logits, labels);
 */
export class CrossEntropyLoss extends _WeightedLoss {
  readonly ignore_index: number;
  readonly label_smoothing: number;

  constructor(
    ...rest: Rest<
      [weight: Tensor | null],
      Weighted & { ignore_index?: number | undefined; label_smoothing?: number | undefined }
    >
  ) {
    const o = bind("CrossEntropyLoss", rest, { ...WEIGHTED, ignore_index: -100, label_smoothing: 0 });
    super(o.weight, o.reduction);
    this.ignore_index = o.ignore_index;
    this.label_smoothing = o.label_smoothing;
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    const { weight, ignore_index, reduction, label_smoothing } = this;
    return F.cross_entropy(input, target, { weight, ignore_index, reduction, label_smoothing });
  }
}

/** The negative log likelihood of class indices [batch, …] under log-probabilities [batch, classes, …]. */
export class NLLLoss extends _WeightedLoss {
  readonly ignore_index: number;

  constructor(...rest: Rest<[weight: Tensor | null], Weighted & { ignore_index?: number | undefined }>) {
    const o = bind("NLLLoss", rest, { ...WEIGHTED, ignore_index: -100 });
    super(o.weight, o.reduction);
    this.ignore_index = o.ignore_index;
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    const { weight, ignore_index, reduction } = this;
    return F.nll_loss(input, target, { weight, ignore_index, reduction });
  }
}

/** Binary cross entropy of probabilities. */
export class BCELoss extends _WeightedLoss {
  constructor(...rest: Rest<[weight: Tensor | null], Weighted>) {
    const { weight, reduction } = bind("BCELoss", rest, WEIGHTED);
    super(weight, reduction);
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return F.binary_cross_entropy(input, target, { weight: this.weight, reduction: this.reduction });
  }
}

/** Binary cross entropy of scores. `pos_weight` is a factor on the targets, per class. */
export class BCEWithLogitsLoss extends _WeightedLoss {
  declare readonly pos_weight: Tensor | null;

  constructor(...rest: Rest<[weight: Tensor | null], Weighted & { pos_weight?: Tensor | null | undefined }>) {
    const { weight, reduction, pos_weight } = bind("BCEWithLogitsLoss", rest, {
      ...WEIGHTED,
      pos_weight: null as Tensor | null,
    });
    super(weight, reduction);
    this.register_buffer("pos_weight", pos_weight);
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    const { weight, pos_weight, reduction } = this;
    return F.binary_cross_entropy_with_logits(input, target, { weight, pos_weight, reduction });
  }
}

/** How far log-probabilities are from a distribution; "batchmean" divides the sum by the batch size. */
export class KLDivLoss extends Module {
  readonly reduction: Reduction | "batchmean";
  readonly log_target: boolean;

  constructor(
    ...rest: Rest<[], { reduction?: Reduction | "batchmean" | undefined; log_target?: boolean | undefined }>
  ) {
    super();
    const defaults = { reduction: "mean" as Reduction | "batchmean", log_target: false };
    const { reduction, log_target } = bind("KLDivLoss", rest, defaults);
    this.reduction = reduction;
    this.log_target = log_target;
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return F.kl_div(input, target, { reduction: this.reduction, log_target: this.log_target });
  }
}

/** Loss of a Poisson distribution. */
export class PoissonNLLLoss extends _Loss {
  readonly log_input: boolean;
  readonly full: boolean;
  readonly eps: number;

  constructor(
    ...rest: Rest<
      [log_input: boolean, full: boolean],
      Reduced & { log_input?: boolean | undefined; full?: boolean | undefined; eps?: number | undefined }
    >
  ) {
    const { log_input, full, eps, reduction } = bind("PoissonNLLLoss", rest, {
      log_input: true,
      full: false,
      eps: 1e-8,
      ...REDUCTION,
    });
    super(reduction);
    this.log_input = log_input;
    this.full = full;
    this.eps = eps;
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    const { log_input, full, eps, reduction } = this;
    return F.poisson_nll_loss(input, target, { log_input, full, eps, reduction });
  }
}

/** Loss of a normal distribution with a variance of its own for each target. */
export class GaussianNLLLoss extends _Loss {
  readonly full: boolean;
  readonly eps: number;

  constructor(...rest: Rest<[], Reduced & { full?: boolean | undefined; eps?: number | undefined }>) {
    const { full, eps, reduction } = bind("GaussianNLLLoss", rest, { full: false, eps: 1e-6, ...REDUCTION });
    super(reduction);
    this.full = full;
    this.eps = eps;
  }

  override forward(input: Tensor, target: Tensor, variance: Tensor | number): Tensor {
    return F.gaussian_nll_loss(input, target, variance, {
      full: this.full,
      eps: this.eps,
      reduction: this.reduction,
    });
  }
}

type MarginRest = Rest<[margin: number], Reduced & { margin?: number | undefined }>;

abstract class _MarginLoss extends _Loss {
  readonly margin: number;

  constructor(name: string, margin: number, rest: MarginRest) {
    const o = bind(name, rest, { margin, ...REDUCTION });
    super(o.reduction);
    this.margin = o.margin;
  }
}

/** max(0, -target (x1 - x2) + margin). Default margin: 0. */
export class MarginRankingLoss extends _MarginLoss {
  constructor(...rest: MarginRest) {
    super("MarginRankingLoss", 0, rest);
  }

  override forward(input1: Tensor, input2: Tensor, target: Tensor): Tensor {
    return F.margin_ranking_loss(input1, input2, target, { margin: this.margin, reduction: this.reduction });
  }
}

/** x for target 1, max(0, margin - x) for target -1. Default margin: 1. */
export class HingeEmbeddingLoss extends _MarginLoss {
  constructor(...rest: MarginRest) {
    super("HingeEmbeddingLoss", 1, rest);
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return F.hinge_embedding_loss(input, target, { margin: this.margin, reduction: this.reduction });
  }
}

/** 1 - cos for target 1, max(0, cos - margin) for target -1. Default margin: 0. */
export class CosineEmbeddingLoss extends _MarginLoss {
  constructor(...rest: MarginRest) {
    super("CosineEmbeddingLoss", 0, rest);
  }

  override forward(input1: Tensor, input2: Tensor, target: Tensor): Tensor {
    return F.cosine_embedding_loss(input1, input2, target, {
      margin: this.margin,
      reduction: this.reduction,
    });
  }
}

/** max(0, ‖anchor - positive‖ - ‖anchor - negative‖ + margin). Default margin: 1. */
export class TripletMarginLoss extends _Loss {
  readonly margin: number;
  readonly p: number;
  readonly eps: number;
  readonly swap: boolean;

  constructor(
    ...rest: Rest<
      [margin: number, p: number, eps: number, swap: boolean],
      Reduced & {
        margin?: number | undefined;
        p?: number | undefined;
        eps?: number | undefined;
        swap?: boolean | undefined;
      }
    >
  ) {
    const { margin, p, eps, swap, reduction } = bind("TripletMarginLoss", rest, {
      margin: 1,
      p: 2,
      eps: 1e-6,
      swap: false,
      ...REDUCTION,
    });
    super(reduction);
    this.margin = margin;
    this.p = p;
    this.eps = eps;
    this.swap = swap;
  }

  override forward(anchor: Tensor, positive: Tensor, negative: Tensor): Tensor {
    const { margin, p, eps, swap, reduction } = this;
    return F.triplet_margin_loss(anchor, positive, negative, { margin, p, eps, swap, reduction });
  }
}

type Distance = (x: Tensor, y: Tensor) => Tensor;

/** {@link TripletMarginLoss} with a distance of one's own. */
export class TripletMarginWithDistanceLoss extends _Loss {
  readonly distance_function: Distance | PairwiseDistance;
  readonly margin: number;
  readonly swap: boolean;

  constructor(
    ...rest: Rest<
      [],
      Reduced & {
        distance_function?: Distance | null | undefined;
        margin?: number | undefined;
        swap?: boolean | undefined;
      }
    >
  ) {
    const defaults = { distance_function: null as Distance | null, margin: 1, swap: false, ...REDUCTION };
    const { distance_function, margin, swap, reduction } = bind(
      "TripletMarginWithDistanceLoss",
      rest,
      defaults,
    );
    super(reduction);
    this.distance_function = distance_function ?? new PairwiseDistance();
    this.margin = margin;
    this.swap = swap;
  }

  override forward(anchor: Tensor, positive: Tensor, negative: Tensor): Tensor {
    const { distance_function: distance, margin, swap, reduction } = this;
    const distance_function =
      typeof distance === "function" ? distance : (x: Tensor, y: Tensor) => distance.forward(x, y);
    return F.triplet_margin_with_distance_loss(anchor, positive, negative, {
      distance_function,
      margin,
      swap,
      reduction,
    });
  }
}

/** log(1 + exp(-target · input)), for targets 1 and -1. */
export class SoftMarginLoss extends _Loss {
  constructor(...rest: Rest<[], Reduced>) {
    super(bind("SoftMarginLoss", rest, REDUCTION).reduction);
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return F.soft_margin_loss(input, target, { reduction: this.reduction });
  }
}

/** Multi-class margin loss. Default: p 1, margin 1. */
export class MultiMarginLoss extends _WeightedLoss {
  readonly p: number;
  readonly margin: number;

  constructor(
    ...rest: Rest<
      [p: number, margin: number, weight: Tensor | null],
      Weighted & { p?: number | undefined; margin?: number | undefined }
    >
  ) {
    const { p, margin, weight, reduction } = bind("MultiMarginLoss", rest, { p: 1, margin: 1, ...WEIGHTED });
    super(weight, reduction);
    this.p = p;
    this.margin = margin;
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    const { p, margin, weight, reduction } = this;
    return F.multi_margin_loss(input, target, { p, margin, weight, reduction });
  }
}

/** Margin loss between the classes that apply and the others. */
export class MultiLabelMarginLoss extends _Loss {
  constructor(...rest: Rest<[], Reduced>) {
    super(bind("MultiLabelMarginLoss", rest, REDUCTION).reduction);
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return F.multilabel_margin_loss(input, target, { reduction: this.reduction });
  }
}

/** Binary cross entropy of scores over several classes, the mean over the last dimension. */
export class MultiLabelSoftMarginLoss extends _WeightedLoss {
  constructor(...rest: Rest<[weight: Tensor | null], Weighted>) {
    const { weight, reduction } = bind("MultiLabelSoftMarginLoss", rest, WEIGHTED);
    super(weight, reduction);
  }

  override forward(input: Tensor, target: Tensor): Tensor {
    return F.multilabel_soft_margin_loss(input, target, { weight: this.weight, reduction: this.reduction });
  }
}

/** Connectionist temporal classification; see {@link F.ctc_loss}. */
export class CTCLoss extends _Loss {
  readonly blank: number;
  readonly zero_infinity: boolean;

  constructor(
    ...rest: Rest<
      [blank: number, reduction: Reduction, zero_infinity: boolean],
      Reduced & { blank?: number | undefined; zero_infinity?: boolean | undefined }
    >
  ) {
    const { blank, reduction, zero_infinity } = bind("CTCLoss", rest, {
      blank: 0,
      ...REDUCTION,
      zero_infinity: false,
    });
    super(reduction);
    this.blank = blank;
    this.zero_infinity = zero_infinity;
  }

  override forward(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor | readonly number[],
    target_lengths: Tensor | readonly number[],
  ): Tensor {
    const { blank, reduction, zero_infinity } = this;
    return F.ctc_loss(log_probs, targets, input_lengths, target_lengths, { blank, reduction, zero_infinity });
  }
}
