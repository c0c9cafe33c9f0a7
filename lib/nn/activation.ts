// Activation functions as modules.

import { InvalidArgumentError } from "../errors/index.ts";
import type { Tensor } from "../torch/index.ts";
import { type Arguments, bind, REQUIRED, type Rest } from "./arguments.ts";
import { emptyParameter, FACTORY, type FactoryOptions } from "./factory.ts";
import * as F from "./functional.ts";
import * as init from "./init.ts";
import { Module } from "./module.ts";
import type { Parameter } from "./parameter.ts";
import { py, pyFloat } from "./repr.ts";

interface InplaceOptions {
  /** Write the result into the input. Default: false. */
  inplace?: boolean | undefined;
}
type Inplace = Rest<[inplace: boolean], InplaceOptions>;
const suffix = (inplace: boolean) => (inplace ? ", inplace=True" : "");

/** Activations whose only setting is `inplace`. */
abstract class InplaceActivation extends Module {
  readonly inplace: boolean;

  constructor(...rest: Inplace) {
    super();
    this.inplace = bind(new.target.name, rest, { inplace: false }).inplace;
  }

  override extra_repr(): string {
    return this.inplace ? "inplace=True" : "";
  }
}

/** max(0, x) */
export class ReLU extends InplaceActivation {
  override forward(x: Tensor): Tensor {
    return F.relu(x, this.inplace);
  }
}

/** min(max(0, x), 6) */
export class ReLU6 extends InplaceActivation {
  override forward(x: Tensor): Tensor {
    return F.relu6(x, this.inplace);
  }
}

/** x sigmoid(x) */
export class SiLU extends InplaceActivation {
  override forward(x: Tensor): Tensor {
    return F.silu(x, this.inplace);
  }
}

/** x tanh(softplus(x)) */
export class Mish extends InplaceActivation {
  override forward(x: Tensor): Tensor {
    return F.mish(x, this.inplace);
  }
}

/** relu6(x + 3) / 6 */
export class Hardsigmoid extends InplaceActivation {
  override forward(x: Tensor): Tensor {
    return F.hardsigmoid(x, this.inplace);
  }

  override extra_repr(): string {
    return "";
  }
}

/** x relu6(x + 3) / 6 */
export class Hardswish extends InplaceActivation {
  override forward(x: Tensor): Tensor {
    return F.hardswish(x, this.inplace);
  }
}

/** The scaled exponential linear unit, which keeps mean and variance. */
export class SELU extends InplaceActivation {
  override forward(x: Tensor): Tensor {
    return F.selu(x, this.inplace);
  }
}

/** 1 / (1 + exp(-x)) */
export class Sigmoid extends Module {
  override forward(x: Tensor): Tensor {
    return x.sigmoid();
  }
}

/** (exp(x) - exp(-x)) / (exp(x) + exp(-x)) */
export class Tanh extends Module {
  override forward(x: Tensor): Tensor {
    return x.tanh();
  }
}

/** log(sigmoid(x)) */
export class LogSigmoid extends Module {
  override forward(x: Tensor): Tensor {
    return F.logsigmoid(x);
  }
}

/** x / (1 + |x|) */
export class Softsign extends Module {
  override forward(x: Tensor): Tensor {
    return F.softsign(x);
  }
}

/** x - tanh(x) */
export class Tanhshrink extends Module {
  override forward(x: Tensor): Tensor {
    return F.tanhshrink(x);
  }
}

/** x above `threshold`, else `value`. */
export class Threshold extends Module {
  readonly threshold: number;
  readonly value: number;
  readonly inplace: boolean;

  constructor(
    ...args: Arguments<
      [threshold: number, value: number],
      ["threshold", "value"],
      [inplace: boolean],
      InplaceOptions
    >
  ) {
    super();
    const { threshold, value, inplace } = bind("Threshold", args, {
      threshold: REQUIRED as number,
      value: REQUIRED as number,
      inplace: false,
    });
    this.threshold = threshold;
    this.value = value;
    this.inplace = inplace;
  }

  override forward(x: Tensor): Tensor {
    return F.threshold(x, this.threshold, this.value, this.inplace);
  }

  override extra_repr(): string {
    return `threshold=${py(this.threshold)}, value=${py(this.value)}${suffix(this.inplace)}`;
  }
}

/** leaky_relu with a slope drawn between `lower` (default 1/8) and `upper` (default 1/3) while training, else their mean. */
export class RReLU extends Module {
  readonly lower: number;
  readonly upper: number;
  readonly inplace: boolean;

  constructor(
    ...rest: Rest<
      [lower: number, upper: number, inplace: boolean],
      InplaceOptions & { lower?: number; upper?: number }
    >
  ) {
    super();
    const { lower, upper, inplace } = bind("RReLU", rest, { lower: 1 / 8, upper: 1 / 3, inplace: false });
    this.lower = lower;
    this.upper = upper;
    this.inplace = inplace;
  }

  override forward(x: Tensor): Tensor {
    return F.rrelu(x, this.lower, this.upper, this.training, this.inplace);
  }

  override extra_repr(): string {
    return `lower=${pyFloat(this.lower)}, upper=${pyFloat(this.upper)}${suffix(this.inplace)}`;
  }
}

/** x cut to lie between `min_val` (default -1) and `max_val` (default 1). */
export class Hardtanh extends Module {
  readonly min_val: number;
  readonly max_val: number;
  readonly inplace: boolean;

  constructor(
    ...rest: Rest<
      [min_val: number, max_val: number, inplace: boolean],
      InplaceOptions & { min_val?: number; max_val?: number }
    >
  ) {
    super();
    const { min_val, max_val, inplace } = bind("Hardtanh", rest, { min_val: -1, max_val: 1, inplace: false });
    if (max_val <= min_val)
      throw new InvalidArgumentError(`Hardtanh: max_val ${max_val} must be above min_val ${min_val}.`);
    this.min_val = min_val;
    this.max_val = max_val;
    this.inplace = inplace;
  }

  override forward(x: Tensor): Tensor {
    return F.hardtanh(x, this.min_val, this.max_val, this.inplace);
  }

  override extra_repr(): string {
    return `min_val=${pyFloat(this.min_val)}, max_val=${pyFloat(this.max_val)}${suffix(this.inplace)}`;
  }
}

interface AlphaOptions extends InplaceOptions {
  /** Default: 1. */
  alpha?: number | undefined;
}

abstract class AlphaActivation extends Module {
  readonly alpha: number;
  readonly inplace: boolean;

  constructor(...rest: Rest<[alpha: number, inplace: boolean], AlphaOptions>) {
    super();
    const { alpha, inplace } = bind(new.target.name, rest, { alpha: 1, inplace: false });
    this.alpha = alpha;
    this.inplace = inplace;
  }

  override extra_repr(): string {
    return `alpha=${pyFloat(this.alpha)}${suffix(this.inplace)}`;
  }
}

/** x above 0, else alpha (exp(x) - 1). */
export class ELU extends AlphaActivation {
  override forward(x: Tensor): Tensor {
    return F.elu(x, this.alpha, this.inplace);
  }
}

/** max(0, x) + min(0, alpha (exp(x / alpha) - 1)) */
export class CELU extends AlphaActivation {
  override forward(x: Tensor): Tensor {
    return F.celu(x, this.alpha, this.inplace);
  }
}

/** The first half of dimension `dim` (default -1), gated by the sigmoid of the second. */
export class GLU extends Module {
  readonly dim: number;

  constructor(...rest: Rest<[dim: number], { dim?: number | undefined }>) {
    super();
    this.dim = bind("GLU", rest, { dim: -1 }).dim;
  }

  override forward(x: Tensor): Tensor {
    return F.glu(x, this.dim);
  }

  override extra_repr(): string {
    return `dim=${this.dim}`;
  }
}

/** The Gaussian error linear unit: exact ("none", the default) or by "tanh". */
export class GELU extends Module {
  readonly approximate: "none" | "tanh";

  constructor(...rest: Rest<[approximate: "none" | "tanh"], { approximate?: "none" | "tanh" | undefined }>) {
    super();
    this.approximate = bind("GELU", rest, { approximate: "none" as "none" | "tanh" }).approximate;
  }

  override forward(x: Tensor): Tensor {
    return F.gelu(x, this.approximate);
  }

  override extra_repr(): string {
    return `approximate=${py(this.approximate)}`;
  }
}

type Lambda = Rest<[lambd: number], { lambd?: number | undefined }>;

abstract class Shrink extends Module {
  readonly lambd: number;

  constructor(...rest: Lambda) {
    super();
    this.lambd = bind(new.target.name, rest, { lambd: 0.5 }).lambd;
  }

  override extra_repr(): string {
    return pyFloat(this.lambd);
  }
}

/** x beyond ±lambd (default 0.5), else 0. */
export class Hardshrink extends Shrink {
  override forward(x: Tensor): Tensor {
    return F.hardshrink(x, this.lambd);
  }
}

/** x moved towards 0 by lambd (default 0.5), 0 within. */
export class Softshrink extends Shrink {
  override forward(x: Tensor): Tensor {
    return F.softshrink(x, this.lambd);
  }
}

/** x above 0, else negative_slope x. Default slope: 0.01. */
export class LeakyReLU extends Module {
  readonly negative_slope: number;
  readonly inplace: boolean;

  constructor(
    ...rest: Rest<
      [negative_slope: number, inplace: boolean],
      InplaceOptions & { negative_slope?: number | undefined }
    >
  ) {
    super();
    const { negative_slope, inplace } = bind("LeakyReLU", rest, { negative_slope: 0.01, inplace: false });
    this.negative_slope = negative_slope;
    this.inplace = inplace;
  }

  override forward(x: Tensor): Tensor {
    return F.leaky_relu(x, this.negative_slope, this.inplace);
  }

  override extra_repr(): string {
    return `negative_slope=${pyFloat(this.negative_slope)}${suffix(this.inplace)}`;
  }
}

/** log(1 + exp(beta x)) / beta, and x itself where beta x is above `threshold`. Default: 1 and 20. */
export class Softplus extends Module {
  readonly beta: number;
  readonly threshold: number;

  constructor(
    ...rest: Rest<
      [beta: number, threshold: number],
      { beta?: number | undefined; threshold?: number | undefined }
    >
  ) {
    super();
    const { beta, threshold } = bind("Softplus", rest, { beta: 1, threshold: 20 });
    this.beta = beta;
    this.threshold = threshold;
  }

  override forward(x: Tensor): Tensor {
    return F.softplus(x, this.beta, this.threshold);
  }

  override extra_repr(): string {
    return `beta=${pyFloat(this.beta)}, threshold=${pyFloat(this.threshold)}`;
  }
}

export interface PReLUOptions extends FactoryOptions {
  /** One slope, or one per channel. Default: 1. */
  num_parameters?: number | undefined;
  /** Where the slopes begin. Default: 0.25. */
  init?: number | undefined;
}

/** leaky_relu with a learned slope. */
export class PReLU extends Module {
  readonly num_parameters: number;
  readonly init: number;
  weight: Parameter;

  constructor(...rest: Rest<[num_parameters: number, init: number], PReLUOptions>) {
    super();
    const { num_parameters, init, ...options } = bind("PReLU", rest, {
      num_parameters: 1,
      init: 0.25,
      ...FACTORY,
    });
    this.num_parameters = num_parameters;
    this.init = init;
    this.weight = emptyParameter([num_parameters], options);
    this.reset_parameters();
  }

  reset_parameters(): void {
    init.constant_(this.weight, this.init);
  }

  override forward(x: Tensor): Tensor {
    return F.prelu(x, this.weight);
  }

  override extra_repr(): string {
    return `num_parameters=${this.num_parameters}`;
  }
}

type Dim = Rest<[dim: number | null], { dim?: number | null | undefined }>;

abstract class SoftmaxBase extends Module {
  /** The dimension whose entries sum to 1. */
  readonly dim: number | null;

  constructor(...rest: Dim) {
    super();
    this.dim = bind(new.target.name, rest, { dim: null as number | null }).dim;
  }

  override extra_repr(): string {
    return `dim=${py(this.dim)}`;
  }
}

/** exp(x), scaled to a sum of 1 along `dim`. */
export class Softmax extends SoftmaxBase {
  override forward(x: Tensor): Tensor {
    return F.softmax(x, this.dim);
  }
}

/** Softmax of -x along `dim`. */
export class Softmin extends SoftmaxBase {
  override forward(x: Tensor): Tensor {
    return F.softmin(x, this.dim);
  }
}

/** log(softmax(x)) along `dim`, without the loss of digits. */
export class LogSoftmax extends SoftmaxBase {
  override forward(x: Tensor): Tensor {
    return F.log_softmax(x, this.dim);
  }
}

/** Softmax over the channels of [batch, channels, height, width], or without batch. */
export class Softmax2d extends Module {
  override forward(x: Tensor): Tensor {
    if (x.ndim !== 3 && x.ndim !== 4)
      throw new InvalidArgumentError(`Softmax2d takes 3 or 4 dimensions, got ${x.ndim}.`);
    return F.softmax(x, -3);
  }
}
