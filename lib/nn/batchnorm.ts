// Normalization per channel: by the statistics of the batch, or of each sample.

import { ShapeError } from "../errors/index.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { type Arguments, bind, REQUIRED } from "./arguments.ts";
import { emptyParameter, FACTORY, type FactoryOptions, factory } from "./factory.ts";
import * as F from "./functional.ts";
import * as init from "./init.ts";
import { Module } from "./module.ts";
import type { Parameter } from "./parameter.ts";
import { py, pyFloat } from "./repr.ts";
import type { LoadContext } from "./state_dict.ts";

export interface NormOptions extends FactoryOptions {
  /** Added to the variance. Default: 1e-5. */
  eps?: number | undefined;
  /** The share of new statistics in the running ones; null: their plain average. Default: 0.1. */
  momentum?: number | null | undefined;
  /** Learn a factor and a bias per channel. Default: true for batches, false for samples. */
  affine?: boolean | undefined;
  /** Keep running statistics for evaluation. Default: true for batches, false for samples. */
  track_running_stats?: boolean | undefined;
}
type NormArguments = Arguments<
  [num_features: number],
  ["num_features"],
  [eps: number, momentum: number | null, affine: boolean, track_running_stats: boolean],
  NormOptions
>;
type NormSettings = {
  num_features: number;
  eps: number;
  momentum: number | null;
  affine: boolean;
  track_running_stats: boolean;
} & FactoryOptions;

const BATCH: NormSettings = {
  num_features: REQUIRED as number,
  eps: 1e-5,
  momentum: 0.1,
  affine: true,
  track_running_stats: true,
  ...FACTORY,
};
const INSTANCE: NormSettings = { ...BATCH, affine: false, track_running_stats: false };

/** What both families have in common. */
export abstract class _NormBase extends Module {
  /** 2: num_batches_tracked was added. */
  static override _version = 2;

  readonly num_features: number;
  readonly eps: number;
  readonly momentum: number | null;
  readonly affine: boolean;
  readonly track_running_stats: boolean;
  weight: Parameter | null;
  bias: Parameter | null;
  declare running_mean: Tensor | null;
  declare running_var: Tensor | null;
  declare num_batches_tracked: Tensor | null;

  constructor({ num_features, eps, momentum, affine, track_running_stats, ...options }: NormSettings) {
    super();
    this.num_features = num_features;
    this.eps = eps;
    this.momentum = momentum;
    this.affine = affine;
    this.track_running_stats = track_running_stats;
    const { device } = factory(options);
    const empty = () => torch.empty([num_features], factory(options));
    this.weight = affine ? emptyParameter([num_features], options) : null;
    this.bias = affine ? emptyParameter([num_features], options) : null;
    this.register_buffer("running_mean", track_running_stats ? empty() : null);
    this.register_buffer("running_var", track_running_stats ? empty() : null);
    this.register_buffer(
      "num_batches_tracked",
      track_running_stats ? torch.empty([], { dtype: "int64", device }) : null,
    );
    this.reset_parameters();
  }

  reset_running_stats(): void {
    if (this.running_mean) init.zeros_(this.running_mean);
    if (this.running_var) init.ones_(this.running_var);
    if (this.num_batches_tracked) init.zeros_(this.num_batches_tracked);
  }

  reset_parameters(): void {
    this.reset_running_stats();
    if (this.weight) init.ones_(this.weight);
    if (this.bias) init.zeros_(this.bias);
  }

  /** Throws a ShapeError unless `x` has one of the numbers of dimensions that this class takes. */
  protected checkDims(x: Tensor, dims: readonly number[]): void {
    if (dims.includes(x.ndim)) return;
    throw new ShapeError(
      `[${this._get_name()}] the input must have ${dims.join(" or ")} dimensions, got ${x.ndim}.`,
    );
  }

  override extra_repr(): string {
    const momentum = this.momentum === null ? "None" : pyFloat(this.momentum);
    const affine = `affine=${py(this.affine)}, track_running_stats=${py(this.track_running_stats)}`;
    return `${this.num_features}, eps=${pyFloat(this.eps)}, momentum=${momentum}, ${affine}`;
  }

  override _load_from_state_dict(...context: LoadContext): void {
    const [state_dict, prefix, { version }] = context;
    const key = `${prefix}num_batches_tracked`;
    const own = this.num_batches_tracked;
    if ((version === undefined || version < 2) && own && !Object.hasOwn(state_dict, key)) {
      state_dict[key] = own.is_meta ? torch.zeros([], { dtype: "int64", device: "cpu" }) : own;
    }
    super._load_from_state_dict(...context);
  }
}

abstract class BatchNorm extends _NormBase {
  protected abstract readonly dims: readonly number[];

  override forward(x: Tensor): Tensor {
    this.checkDims(x, this.dims);
    const tracking = this.training && this.track_running_stats;
    let momentum = this.momentum ?? 0;
    if (tracking && this.num_batches_tracked) {
      const counter = this.num_batches_tracked;
      torch.no_grad(() => counter.add_(1));
      if (this.momentum === null) momentum = 1 / Number(counter.item());
    }
    const useRunning = !this.training || this.track_running_stats;
    return F.batch_norm(
      x,
      useRunning ? this.running_mean : null,
      useRunning ? this.running_var : null,
      this.weight,
      this.bias,
      this.training || (this.running_mean === null && this.running_var === null),
      momentum,
      this.eps,
    );
  }
}

/**
 * Zero mean and unit variance per channel of [batch, channels] or [batch, channels, length].
 *
 * @example new nn.BatchNorm1d(100, { affine: false }).forward(torch.randn([20, 100]));
 */
export class BatchNorm1d extends BatchNorm {
  constructor(...args: NormArguments) {
    super(bind("BatchNorm1d", args, BATCH));
  }

  protected get dims(): readonly number[] {
    return [2, 3];
  }
}

/**
 * Zero mean and unit variance per channel of [batch, channels, height, width].
 *
 * @example new nn.BatchNorm2d(100).forward(torch.randn([20, 100, 35, 45]));
 */
export class BatchNorm2d extends BatchNorm {
  constructor(...args: NormArguments) {
    super(bind("BatchNorm2d", args, BATCH));
  }

  protected get dims(): readonly number[] {
    return [4];
  }
}

/** Zero mean and unit variance per channel of [batch, channels, depth, height, width]. */
export class BatchNorm3d extends BatchNorm {
  constructor(...args: NormArguments) {
    super(bind("BatchNorm3d", args, BATCH));
  }

  protected get dims(): readonly number[] {
    return [5];
  }
}

abstract class InstanceNorm extends _NormBase {
  /** Dimensions of an input without the batch. */
  protected abstract readonly loneDims: number;

  override forward(x: Tensor): Tensor {
    this.checkDims(x, [this.loneDims, this.loneDims + 1]);
    const channels = x.size(x.ndim - this.loneDims);
    if (this.affine && channels !== this.num_features) {
      throw new ShapeError(
        `[${this._get_name()}] the input must have ${this.num_features} channels, got ${channels}.`,
      );
    }
    if (x.ndim === this.loneDims) return this.#normalize(x.unsqueeze(0)).squeeze(0);
    return this.#normalize(x);
  }

  #normalize(x: Tensor): Tensor {
    return F.instance_norm(x, {
      running_mean: this.running_mean,
      running_var: this.running_var,
      weight: this.weight,
      bias: this.bias,
      use_input_stats: this.training || !this.track_running_stats,
      momentum: this.momentum ?? 0,
      eps: this.eps,
    });
  }
}

/** Zero mean and unit variance per channel and sample of [batch, channels, length]. */
export class InstanceNorm1d extends InstanceNorm {
  constructor(...args: NormArguments) {
    super(bind("InstanceNorm1d", args, INSTANCE));
  }

  protected get loneDims(): number {
    return 2;
  }
}

/** Zero mean and unit variance per channel and sample of [batch, channels, height, width]. */
export class InstanceNorm2d extends InstanceNorm {
  constructor(...args: NormArguments) {
    super(bind("InstanceNorm2d", args, INSTANCE));
  }

  protected get loneDims(): number {
    return 3;
  }
}

/** Zero mean and unit variance per channel and sample of [batch, channels, depth, height, width]. */
export class InstanceNorm3d extends InstanceNorm {
  constructor(...args: NormArguments) {
    super(bind("InstanceNorm3d", args, INSTANCE));
  }

  protected get loneDims(): number {
    return 4;
  }
}
