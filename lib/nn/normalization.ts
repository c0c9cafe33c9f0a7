// Normalization over the last dimensions, and over groups of channels.

import { InvalidArgumentError } from "../errors/index.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { type Arguments, bind, REQUIRED } from "./arguments.ts";
import { emptyParameter, FACTORY, type FactoryOptions } from "./factory.ts";
import * as F from "./functional.ts";
import * as init from "./init.ts";
import { Module } from "./module.ts";
import type { Parameter } from "./parameter.ts";
import { py, pyFloat } from "./repr.ts";

type Shape = [normalized_shape: number | readonly number[]];
const SHAPE = { normalized_shape: REQUIRED as number | readonly number[] };
const shapeOf = (shape: number | readonly number[]): readonly number[] =>
  typeof shape === "number" ? [shape] : [...shape];

export interface LayerNormOptions extends FactoryOptions {
  /** Added to the variance. Default: 1e-5. */
  eps?: number | undefined;
  /** Learn a factor per entry. Default: true. */
  elementwise_affine?: boolean | undefined;
  /** Learn a bias per entry, too. Default: true. */
  bias?: boolean | undefined;
}

/**
 * Zero mean and unit variance over the last dimensions, which have the shape `normalized_shape`.
 *
 * @example new nn.LayerNorm(10, { eps: 1e-6 }).forward(torch.randn([20, 5, 10]));
 */
export class LayerNorm extends Module {
  readonly normalized_shape: readonly number[];
  readonly eps: number;
  readonly elementwise_affine: boolean;
  weight: Parameter | null;
  bias: Parameter | null;

  constructor(
    ...args: Arguments<
      Shape,
      ["normalized_shape"],
      [eps: number, elementwise_affine: boolean, bias: boolean],
      LayerNormOptions
    >
  ) {
    super();
    const { normalized_shape, eps, elementwise_affine, bias, ...options } = bind("LayerNorm", args, {
      ...SHAPE,
      eps: 1e-5,
      elementwise_affine: true,
      bias: true,
      ...FACTORY,
    });
    this.normalized_shape = shapeOf(normalized_shape);
    this.eps = eps;
    this.elementwise_affine = elementwise_affine;
    const empty = () => emptyParameter(this.normalized_shape, options);
    this.weight = elementwise_affine ? empty() : null;
    this.bias = elementwise_affine && bias ? empty() : null;
    this.reset_parameters();
  }

  reset_parameters(): void {
    if (this.weight) init.ones_(this.weight);
    if (this.bias) init.zeros_(this.bias);
  }

  override forward(x: Tensor): Tensor {
    return torch.layer_norm(x, this.normalized_shape, this.weight, this.bias, this.eps);
  }

  override extra_repr(): string {
    return `${py(this.normalized_shape)}, eps=${pyFloat(this.eps)}, elementwise_affine=${py(this.elementwise_affine)}`;
  }
}

export interface RMSNormOptions extends FactoryOptions {
  /** Added to the mean square. Default: the dtype's own. */
  eps?: number | null | undefined;
  /** Learn a factor per entry. Default: true. */
  elementwise_affine?: boolean | undefined;
}

/**
 * Unit mean square over the last dimensions, which have the shape `normalized_shape`.
 *
 * @example new nn.RMSNorm([2, 3]).forward(torch.randn([2, 2, 3]));
 */
export class RMSNorm extends Module {
  readonly normalized_shape: readonly number[];
  readonly eps: number | null;
  readonly elementwise_affine: boolean;
  weight: Parameter | null;

  constructor(
    ...args: Arguments<
      Shape,
      ["normalized_shape"],
      [eps: number | null, elementwise_affine: boolean],
      RMSNormOptions
    >
  ) {
    super();
    const { normalized_shape, eps, elementwise_affine, ...options } = bind("RMSNorm", args, {
      ...SHAPE,
      eps: null as number | null,
      elementwise_affine: true,
      ...FACTORY,
    });
    this.normalized_shape = shapeOf(normalized_shape);
    this.eps = eps;
    this.elementwise_affine = elementwise_affine;
    this.weight = elementwise_affine ? emptyParameter(this.normalized_shape, options) : null;
    this.reset_parameters();
  }

  reset_parameters(): void {
    if (this.weight) init.ones_(this.weight);
  }

  override forward(x: Tensor): Tensor {
    return torch.rms_norm(x, this.normalized_shape, this.weight, this.eps);
  }

  override extra_repr(): string {
    const eps = this.eps === null ? "None" : pyFloat(this.eps);
    return `${py(this.normalized_shape)}, eps=${eps}, elementwise_affine=${py(this.elementwise_affine)}`;
  }
}

export interface GroupNormOptions extends FactoryOptions {
  /** Added to the variance. Default: 1e-5. */
  eps?: number | undefined;
  /** Learn a factor and a bias per channel. Default: true. */
  affine?: boolean | undefined;
}

/**
 * Zero mean and unit variance over groups of the channels of [batch, channels, …].
 *
 * @example new nn.GroupNorm(3, 6).forward(torch.randn([20, 6, 10, 10]));
 */
export class GroupNorm extends Module {
  readonly num_groups: number;
  readonly num_channels: number;
  readonly eps: number;
  readonly affine: boolean;
  weight: Parameter | null;
  bias: Parameter | null;

  constructor(
    ...args: Arguments<
      [num_groups: number, num_channels: number],
      ["num_groups", "num_channels"],
      [eps: number, affine: boolean],
      GroupNormOptions
    >
  ) {
    super();
    const { num_groups, num_channels, eps, affine, ...options } = bind("GroupNorm", args, {
      num_groups: REQUIRED as number,
      num_channels: REQUIRED as number,
      eps: 1e-5,
      affine: true,
      ...FACTORY,
    });
    if (num_channels % num_groups !== 0) {
      throw new InvalidArgumentError(
        `GroupNorm: num_channels ${num_channels} must be divisible by num_groups ${num_groups}.`,
      );
    }
    this.num_groups = num_groups;
    this.num_channels = num_channels;
    this.eps = eps;
    this.affine = affine;
    const empty = () => emptyParameter([num_channels], options);
    this.weight = affine ? empty() : null;
    this.bias = affine ? empty() : null;
    this.reset_parameters();
  }

  reset_parameters(): void {
    if (this.weight) init.ones_(this.weight);
    if (this.bias) init.zeros_(this.bias);
  }

  override forward(x: Tensor): Tensor {
    return torch.group_norm(x, this.num_groups, this.weight, this.bias, this.eps);
  }

  override extra_repr(): string {
    return `${this.num_groups}, ${this.num_channels}, eps=${pyFloat(this.eps)}, affine=${py(this.affine)}`;
  }
}

type LocalResponse = Arguments<
  [size: number],
  ["size"],
  [alpha: number, beta: number, k: number],
  { alpha?: number; beta?: number; k?: number }
>;

/** Divides by a power of the mean square of `size` neighbouring channels. Default: alpha 1e-4, beta 0.75, k 1. */
export class LocalResponseNorm extends Module {
  readonly size: number;
  readonly alpha: number;
  readonly beta: number;
  readonly k: number;

  constructor(...args: LocalResponse) {
    super();
    const { size, alpha, beta, k } = bind("LocalResponseNorm", args, {
      size: REQUIRED as number,
      alpha: 1e-4,
      beta: 0.75,
      k: 1,
    });
    this.size = size;
    this.alpha = alpha;
    this.beta = beta;
    this.k = k;
  }

  override forward(x: Tensor): Tensor {
    return F.local_response_norm(x, this.size, this.alpha, this.beta, this.k);
  }

  override extra_repr(): string {
    return `${this.size}, alpha=${pyFloat(this.alpha)}, beta=${pyFloat(this.beta)}, k=${pyFloat(this.k)}`;
  }
}
