// Pooling as modules: one value for each window, or for each of a given number of windows.

import type { Tensor } from "../torch/index.ts";
import { type Arguments, bind, ntuple, REQUIRED, type Sizes } from "./arguments.ts";
import * as P from "./functional/pooling.ts";
import { Module } from "./module.ts";
import { py } from "./repr.ts";

type Kernel = [kernel_size: Sizes];
type KernelName = ["kernel_size"];
const KERNEL = { kernel_size: REQUIRED as Sizes };

export interface MaxPoolOptions {
  /** Default: the kernel size. */
  stride?: Sizes | null | undefined;
  /** Default: 0. */
  padding?: Sizes | undefined;
  /** Default: 1. */
  dilation?: Sizes | undefined;
  /** Also give where each maximum stood, for MaxUnpool. Default: false. */
  return_indices?: boolean | undefined;
  /** Count windows that reach beyond the end. Default: false. */
  ceil_mode?: boolean | undefined;
}
type MaxPoolArguments = Arguments<
  Kernel,
  KernelName,
  [stride: Sizes | null, padding: Sizes, dilation: Sizes, return_indices: boolean, ceil_mode: boolean],
  MaxPoolOptions
>;

abstract class _MaxPool extends Module {
  readonly kernel_size: Sizes;
  readonly stride: Sizes;
  readonly padding: Sizes;
  readonly dilation: Sizes;
  readonly return_indices: boolean;
  readonly ceil_mode: boolean;

  constructor(...args: MaxPoolArguments) {
    super();
    const o = bind(new.target.name, args, {
      ...KERNEL,
      stride: null as Sizes | null,
      padding: 0 as Sizes,
      dilation: 1 as Sizes,
      return_indices: false,
      ceil_mode: false,
    });
    this.kernel_size = o.kernel_size;
    this.stride = o.stride ?? o.kernel_size;
    this.padding = o.padding;
    this.dilation = o.dilation;
    this.return_indices = o.return_indices;
    this.ceil_mode = o.ceil_mode;
  }

  protected pool(dims: number, x: Tensor): Tensor {
    const { stride, padding, dilation, ceil_mode, return_indices } = this;
    // With return_indices it is a pair; the type says what it nearly always is.
    return P.maxPool(dims, x, this.kernel_size, [
      { stride, padding, dilation, ceil_mode, return_indices },
    ]) as Tensor;
  }

  override extra_repr(): string {
    const { kernel_size, stride, padding, dilation, ceil_mode } = this;
    const window = `kernel_size=${py(kernel_size)}, stride=${py(stride)}, padding=${py(padding)}`;
    return `${window}, dilation=${py(dilation)}, ceil_mode=${py(ceil_mode)}`;
  }
}

/** The maximum of each window of [batch, channels, length]. */
export class MaxPool1d extends _MaxPool {
  override forward(x: Tensor): Tensor {
    return this.pool(1, x);
  }
}

/** The maximum of each window of [batch, channels, height, width]. */
export class MaxPool2d extends _MaxPool {
  override forward(x: Tensor): Tensor {
    return this.pool(2, x);
  }
}

/** The maximum of each window of [batch, channels, depth, height, width]. */
export class MaxPool3d extends _MaxPool {
  override forward(x: Tensor): Tensor {
    return this.pool(3, x);
  }
}

type UnpoolArguments = Arguments<
  Kernel,
  KernelName,
  [stride: Sizes | null, padding: Sizes],
  { stride?: Sizes | null | undefined; padding?: Sizes | undefined }
>;

abstract class _MaxUnpool extends Module {
  readonly kernel_size: readonly number[];
  readonly stride: readonly number[];
  readonly padding: readonly number[];

  constructor(dims: number, args: UnpoolArguments) {
    super();
    const { kernel_size, stride, padding } = bind(new.target.name, args, {
      ...KERNEL,
      stride: null as Sizes | null,
      padding: 0 as Sizes,
    });
    this.kernel_size = ntuple(kernel_size, dims);
    this.stride = ntuple(stride ?? kernel_size, dims);
    this.padding = ntuple(padding, dims);
  }

  /** Puts maxima back where `indices` says. `output_size` picks one of the sizes that pool to the input's. */
  override forward(x: Tensor, indices: Tensor, output_size: readonly number[] | null = null): Tensor {
    const { kernel_size, stride, padding } = this;
    return P.maxUnpool(kernel_size.length, x, indices, kernel_size, [{ stride, padding, output_size }]);
  }

  override extra_repr(): string {
    return `kernel_size=${py(this.kernel_size)}, stride=${py(this.stride)}, padding=${py(this.padding)}`;
  }
}

/** Undoes MaxPool1d with the indices that it gave; what was not a maximum is 0. */
export class MaxUnpool1d extends _MaxUnpool {
  constructor(...args: UnpoolArguments) {
    super(1, args);
  }
}

/** Undoes MaxPool2d with the indices that it gave; what was not a maximum is 0. */
export class MaxUnpool2d extends _MaxUnpool {
  constructor(...args: UnpoolArguments) {
    super(2, args);
  }
}

/** Undoes MaxPool3d with the indices that it gave; what was not a maximum is 0. */
export class MaxUnpool3d extends _MaxUnpool {
  constructor(...args: UnpoolArguments) {
    super(3, args);
  }
}

export interface AvgPoolOptions {
  /** Default: the kernel size. */
  stride?: Sizes | null | undefined;
  /** Default: 0. */
  padding?: Sizes | undefined;
  /** Count windows that reach beyond the end. Default: false. */
  ceil_mode?: boolean | undefined;
  /** Padding counts as zeros in the mean. Default: true. */
  count_include_pad?: boolean | undefined;
  /** Divide by this instead of the number of entries. Two and three dimensions only. */
  divisor_override?: number | null | undefined;
}
type AvgPoolArguments = Arguments<
  Kernel,
  KernelName,
  [stride: Sizes | null, padding: Sizes, ceil_mode: boolean, count_include_pad: boolean],
  AvgPoolOptions
>;

abstract class _AvgPool extends Module {
  readonly kernel_size: Sizes;
  readonly stride: Sizes;
  readonly padding: Sizes;
  readonly ceil_mode: boolean;
  readonly count_include_pad: boolean;
  readonly divisor_override: number | null;

  constructor(...args: AvgPoolArguments) {
    super();
    const o = bind(new.target.name, args, {
      ...KERNEL,
      stride: null as Sizes | null,
      padding: 0 as Sizes,
      ceil_mode: false,
      count_include_pad: true,
      divisor_override: null as number | null,
    });
    this.kernel_size = o.kernel_size;
    this.stride = o.stride ?? o.kernel_size;
    this.padding = o.padding;
    this.ceil_mode = o.ceil_mode;
    this.count_include_pad = o.count_include_pad;
    this.divisor_override = o.divisor_override;
  }

  protected pool(dims: number, x: Tensor): Tensor {
    const { stride, padding, ceil_mode, count_include_pad, divisor_override } = this;
    return P.avgPool(dims, x, this.kernel_size, [
      { stride, padding, ceil_mode, count_include_pad, divisor_override },
    ]);
  }

  override extra_repr(): string {
    return `kernel_size=${py(this.kernel_size)}, stride=${py(this.stride)}, padding=${py(this.padding)}`;
  }
}

/** The mean of each window of [batch, channels, length]. */
export class AvgPool1d extends _AvgPool {
  override forward(x: Tensor): Tensor {
    return this.pool(1, x);
  }

  override extra_repr(): string {
    // torch keeps the sizes of this class as tuples.
    return `kernel_size=${py(ntuple(this.kernel_size, 1))}, stride=${py(ntuple(this.stride, 1))}, padding=${py(ntuple(this.padding, 1))}`;
  }
}

/** The mean of each window of [batch, channels, height, width]. */
export class AvgPool2d extends _AvgPool {
  override forward(x: Tensor): Tensor {
    return this.pool(2, x);
  }
}

/** The mean of each window of [batch, channels, depth, height, width]. */
export class AvgPool3d extends _AvgPool {
  override forward(x: Tensor): Tensor {
    return this.pool(3, x);
  }
}

type LpPoolArguments = Arguments<
  [norm_type: number, kernel_size: Sizes],
  ["norm_type", "kernel_size"],
  [stride: Sizes | null, ceil_mode: boolean],
  { stride?: Sizes | null | undefined; ceil_mode?: boolean | undefined }
>;

abstract class _LPPool extends Module {
  readonly norm_type: number;
  readonly kernel_size: Sizes;
  readonly stride: Sizes | null;
  readonly ceil_mode: boolean;

  constructor(...args: LpPoolArguments) {
    super();
    const { norm_type, kernel_size, stride, ceil_mode } = bind(new.target.name, args, {
      norm_type: REQUIRED as number,
      ...KERNEL,
      stride: null as Sizes | null,
      ceil_mode: false,
    });
    this.norm_type = norm_type;
    this.kernel_size = kernel_size;
    this.stride = stride;
    this.ceil_mode = ceil_mode;
  }

  protected pool(dims: number, x: Tensor): Tensor {
    return P.lpPool(dims, x, this.norm_type, this.kernel_size, [
      { stride: this.stride, ceil_mode: this.ceil_mode },
    ]);
  }

  override extra_repr(): string {
    const { norm_type, kernel_size, stride, ceil_mode } = this;
    return `norm_type=${py(norm_type)}, kernel_size=${py(kernel_size)}, stride=${py(stride)}, ceil_mode=${py(ceil_mode)}`;
  }
}

/** The p-norm of each window of [batch, channels, length]. */
export class LPPool1d extends _LPPool {
  override forward(x: Tensor): Tensor {
    return this.pool(1, x);
  }
}

/** The p-norm of each window of [batch, channels, height, width]. */
export class LPPool2d extends _LPPool {
  override forward(x: Tensor): Tensor {
    return this.pool(2, x);
  }
}

/** The p-norm of each window of [batch, channels, depth, height, width]. */
export class LPPool3d extends _LPPool {
  override forward(x: Tensor): Tensor {
    return this.pool(3, x);
  }
}

type OutputSize = [output_size: P.OutputSizes];
const OUTPUT_SIZE = { output_size: REQUIRED as P.OutputSizes };

abstract class _AdaptivePool extends Module {
  /** The size of the result; null keeps the input's. */
  readonly output_size: P.OutputSizes;

  constructor(output_size: P.OutputSizes) {
    super();
    this.output_size = output_size;
  }

  override extra_repr(): string {
    return `output_size=${py(this.output_size)}`;
  }
}

abstract class _AdaptiveAvgPool extends _AdaptivePool {
  constructor(...args: Arguments<OutputSize, ["output_size"]>) {
    super(bind(new.target.name, args, OUTPUT_SIZE).output_size);
  }
}

/** Means over so many windows of [batch, channels, length] that the result has the given size. */
export class AdaptiveAvgPool1d extends _AdaptiveAvgPool {
  override forward(x: Tensor): Tensor {
    return P.adaptiveAvgPool(1, x, this.output_size);
  }
}

/** Means over so many windows of [batch, channels, height, width] that the result has the given size. */
export class AdaptiveAvgPool2d extends _AdaptiveAvgPool {
  override forward(x: Tensor): Tensor {
    return P.adaptiveAvgPool(2, x, this.output_size);
  }
}

/** Means over so many windows of [batch, channels, depth, height, width] that the result has the given size. */
export class AdaptiveAvgPool3d extends _AdaptiveAvgPool {
  override forward(x: Tensor): Tensor {
    return P.adaptiveAvgPool(3, x, this.output_size);
  }
}

abstract class _AdaptiveMaxPool extends _AdaptivePool {
  readonly return_indices: boolean;

  constructor(
    ...args: Arguments<
      OutputSize,
      ["output_size"],
      [return_indices: boolean],
      { return_indices?: boolean | undefined }
    >
  ) {
    const o = bind(new.target.name, args, { ...OUTPUT_SIZE, return_indices: false });
    super(o.output_size);
    this.return_indices = o.return_indices;
  }

  protected pool(dims: number, x: Tensor): Tensor {
    const result = P.adaptiveMaxPool(dims, x, this.output_size);
    // With return_indices it is a pair; the type says what it nearly always is.
    return (this.return_indices ? result : result[0]) as Tensor;
  }
}

/** Maxima over so many windows of [batch, channels, length] that the result has the given size. */
export class AdaptiveMaxPool1d extends _AdaptiveMaxPool {
  override forward(x: Tensor): Tensor {
    return this.pool(1, x);
  }
}

/** Maxima over so many windows of [batch, channels, height, width] that the result has the given size. */
export class AdaptiveMaxPool2d extends _AdaptiveMaxPool {
  override forward(x: Tensor): Tensor {
    return this.pool(2, x);
  }
}

/** Maxima over so many windows of [batch, channels, depth, height, width] that the result has the given size. */
export class AdaptiveMaxPool3d extends _AdaptiveMaxPool {
  override forward(x: Tensor): Tensor {
    return this.pool(3, x);
  }
}
