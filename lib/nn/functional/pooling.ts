// Pooling: one value for each window, or for each of a given number of windows.

import { InvalidArgumentError } from "../../errors/index.ts";
import type { Tensor } from "../../torch/index.ts";
import * as torch from "../../torch/index.ts";
import * as ops from "../../torch/nn.generated.ts";
import { bind, byName, ntuple, type Rest, type Sizes } from "../arguments.ts";

/** A pooled tensor, and where in the input each value stood. */
export type WithIndices = [output: Tensor, indices: Tensor];

export interface MaxPoolFunctionOptions {
  /** Default: the kernel size. */
  stride?: Sizes | null | undefined;
  /** Default: 0. */
  padding?: Sizes | undefined;
  /** Default: 1. */
  dilation?: Sizes | undefined;
  /** Count windows that reach beyond the end. Default: false. */
  ceil_mode?: boolean | undefined;
  /** Also give the position of each maximum. Default: false. */
  return_indices?: boolean | undefined;
}
type MaxPool = Rest<
  [stride: Sizes | null, padding: Sizes, dilation: Sizes, ceil_mode: boolean],
  MaxPoolFunctionOptions
>;
const MAX_POOL = {
  stride: null as Sizes | null,
  padding: 0 as Sizes,
  dilation: 1 as Sizes,
  ceil_mode: false,
  return_indices: false,
};

type Pool = (
  x: Tensor,
  kernel: number[],
  stride: number[],
  padding: number[],
  dilation: number[],
  ceil: boolean,
) => unknown;
const MAX_POOLS: Readonly<Record<number, Pool>> = {
  1: torch.max_pool1d_with_indices as unknown as Pool,
  2: ops.max_pool2d_with_indices as unknown as Pool,
  3: ops.max_pool3d_with_indices as unknown as Pool,
};
const PLAIN_MAX_POOLS: Readonly<Record<number, Pool>> = {
  1: torch.max_pool1d as unknown as Pool,
  2: torch.max_pool2d as unknown as Pool,
  3: torch.max_pool3d as unknown as Pool,
};

/** One body for one, two and three dimensions; results as `return_indices` asks. */
export function maxPool(
  dims: number,
  input: Tensor,
  kernel_size: Sizes,
  rest: MaxPool,
): Tensor | WithIndices {
  const { stride, padding, dilation, ceil_mode, return_indices } = bind(`max_pool${dims}d`, rest, MAX_POOL);
  const pool = (return_indices ? MAX_POOLS : PLAIN_MAX_POOLS)[dims] as Pool;
  const kernel = ntuple(kernel_size, dims);
  const result = pool(
    input,
    kernel,
    stride === null ? kernel : ntuple(stride, dims),
    ntuple(padding, dims),
    ntuple(dilation, dims),
    ceil_mode,
  );
  return result as Tensor | WithIndices;
}

/** The maximum of each window of [batch, channels, length]. */
export const max_pool1d = byName(
  ["input", "kernel_size"],
  function max_pool1d(input: Tensor, kernel_size: Sizes, ...rest: MaxPool): Tensor {
    return maxPool(1, input, kernel_size, rest) as Tensor;
  },
);

/** The maximum of each window of [batch, channels, height, width]. */
export const max_pool2d = byName(
  ["input", "kernel_size"],
  function max_pool2d(input: Tensor, kernel_size: Sizes, ...rest: MaxPool): Tensor {
    return maxPool(2, input, kernel_size, rest) as Tensor;
  },
);

/** The maximum of each window of [batch, channels, depth, height, width]. */
export const max_pool3d = byName(
  ["input", "kernel_size"],
  function max_pool3d(input: Tensor, kernel_size: Sizes, ...rest: MaxPool): Tensor {
    return maxPool(3, input, kernel_size, rest) as Tensor;
  },
);

interface MaxUnpoolOptions {
  stride?: Sizes | null | undefined;
  padding?: Sizes | undefined;
  /** Default: the smallest input that pools to this. */
  output_size?: readonly number[] | null | undefined;
}
type MaxUnpool = Rest<
  [stride: Sizes | null, padding: Sizes, output_size: readonly number[] | null],
  MaxUnpoolOptions
>;

/** Puts maxima back where `indices` says, zeros elsewhere; for one, two and three dimensions. */
export function maxUnpool(
  dims: number,
  input: Tensor,
  indices: Tensor,
  kernel_size: Sizes,
  rest: MaxUnpool,
): Tensor {
  const { stride, padding, output_size } = bind(`max_unpool${dims}d`, rest, {
    stride: null as Sizes | null,
    padding: 0 as Sizes,
    output_size: null as readonly number[] | null,
  });
  const kernel = ntuple(kernel_size, dims);
  const strides = stride === null ? kernel : ntuple(stride, dims);
  const pads = ntuple(padding, dims);
  const size =
    output_size?.slice(-dims) ??
    input.shape
      .slice(-dims)
      .map((n, i) => (n - 1) * (strides[i] as number) + (kernel[i] as number) - 2 * (pads[i] as number));
  if (dims === 3) return ops.max_unpool3d(input, indices, size, strides, pads);
  if (dims === 2) return ops.max_unpool2d(input, indices, size);
  return ops.max_unpool2d(input.unsqueeze(-1), indices.unsqueeze(-1), [...size, 1]).squeeze(-1);
}

/** Puts maxima back where `max_pool1d` had found them (`indices`); 0 elsewhere. */
export const max_unpool1d = byName(
  ["input", "indices", "kernel_size"],
  function max_unpool1d(input: Tensor, indices: Tensor, kernel_size: Sizes, ...rest: MaxUnpool): Tensor {
    return maxUnpool(1, input, indices, kernel_size, rest);
  },
);

/** Puts maxima back where `max_pool2d` had found them (`indices`); 0 elsewhere. */
export const max_unpool2d = byName(
  ["input", "indices", "kernel_size"],
  function max_unpool2d(input: Tensor, indices: Tensor, kernel_size: Sizes, ...rest: MaxUnpool): Tensor {
    return maxUnpool(2, input, indices, kernel_size, rest);
  },
);

/** Puts maxima back where `max_pool3d` had found them (`indices`); 0 elsewhere. */
export const max_unpool3d = byName(
  ["input", "indices", "kernel_size"],
  function max_unpool3d(input: Tensor, indices: Tensor, kernel_size: Sizes, ...rest: MaxUnpool): Tensor {
    return maxUnpool(3, input, indices, kernel_size, rest);
  },
);

export interface AvgPoolFunctionOptions {
  /** Default: the kernel size. */
  stride?: Sizes | null | undefined;
  /** Default: 0. */
  padding?: Sizes | undefined;
  /** Default: false. */
  ceil_mode?: boolean | undefined;
  /** Padding counts as zeros in the mean. Default: true. */
  count_include_pad?: boolean | undefined;
  /** Divide by this instead of the number of entries. Two and three dimensions only. */
  divisor_override?: number | null | undefined;
}
type AvgPool = Rest<
  [stride: Sizes | null, padding: Sizes, ceil_mode: boolean, count_include_pad: boolean],
  AvgPoolFunctionOptions
>;

/** The mean of each window, for one, two and three dimensions. */
export function avgPool(dims: number, input: Tensor, kernel_size: Sizes, rest: AvgPool): Tensor {
  const { stride, padding, ceil_mode, count_include_pad, divisor_override } = bind(`avg_pool${dims}d`, rest, {
    stride: null as Sizes | null,
    padding: 0 as Sizes,
    ceil_mode: false,
    count_include_pad: true,
    divisor_override: null as number | null,
  });
  const kernel = ntuple(kernel_size, dims);
  const strides = stride === null ? kernel : ntuple(stride, dims);
  const pads = ntuple(padding, dims);
  if (dims === 1) {
    if (divisor_override !== null) throw new InvalidArgumentError("avg_pool1d has no divisor_override.");
    return torch.avg_pool1d(input, kernel, strides, pads, ceil_mode, count_include_pad);
  }
  const pool = dims === 2 ? ops.avg_pool2d : ops.avg_pool3d;
  return pool(input, kernel, strides, pads, ceil_mode, count_include_pad, divisor_override);
}

/** The mean of each window of [batch, channels, length]. */
export const avg_pool1d = byName(
  ["input", "kernel_size"],
  function avg_pool1d(input: Tensor, kernel_size: Sizes, ...rest: AvgPool): Tensor {
    return avgPool(1, input, kernel_size, rest);
  },
);

/** The mean of each window of [batch, channels, height, width]. */
export const avg_pool2d = byName(
  ["input", "kernel_size"],
  function avg_pool2d(input: Tensor, kernel_size: Sizes, ...rest: AvgPool): Tensor {
    return avgPool(2, input, kernel_size, rest);
  },
);

/** The mean of each window of [batch, channels, depth, height, width]. */
export const avg_pool3d = byName(
  ["input", "kernel_size"],
  function avg_pool3d(input: Tensor, kernel_size: Sizes, ...rest: AvgPool): Tensor {
    return avgPool(3, input, kernel_size, rest);
  },
);

interface LpPoolOptions {
  stride?: Sizes | null | undefined;
  ceil_mode?: boolean | undefined;
}
type LpPool = Rest<[stride: Sizes | null, ceil_mode: boolean], LpPoolOptions>;

/** The p-norm of each window, for one, two and three dimensions. */
export function lpPool(
  dims: number,
  input: Tensor,
  norm_type: number,
  kernel_size: Sizes,
  rest: LpPool,
): Tensor {
  const { stride, ceil_mode } = bind(`lp_pool${dims}d`, rest, {
    stride: null as Sizes | null,
    ceil_mode: false,
  });
  const entries = ntuple(kernel_size, dims).reduce((product, n) => product * n, 1);
  const mean = avgPool(dims, input.pow(norm_type), kernel_size, [{ stride, ceil_mode }]);
  return mean
    .sign()
    .mul(mean.abs().relu())
    .mul(entries)
    .pow(1 / norm_type);
}

/** (Σ xᵖ)^(1/p) over windows of [batch, channels, length]. */
export const lp_pool1d = byName(
  ["input", "norm_type", "kernel_size"],
  function lp_pool1d(input: Tensor, norm_type: number, kernel_size: number, ...rest: LpPool): Tensor {
    return lpPool(1, input, norm_type, kernel_size, rest);
  },
);

/** (Σ xᵖ)^(1/p) over windows of [batch, channels, height, width]. */
export const lp_pool2d = byName(
  ["input", "norm_type", "kernel_size"],
  function lp_pool2d(input: Tensor, norm_type: number, kernel_size: Sizes, ...rest: LpPool): Tensor {
    return lpPool(2, input, norm_type, kernel_size, rest);
  },
);

/** (Σ xᵖ)^(1/p) over windows of [batch, channels, depth, height, width]. */
export const lp_pool3d = byName(
  ["input", "norm_type", "kernel_size"],
  function lp_pool3d(input: Tensor, norm_type: number, kernel_size: Sizes, ...rest: LpPool): Tensor {
    return lpPool(3, input, norm_type, kernel_size, rest);
  },
);

/** A number of windows per dimension; null keeps the input's size. */
export type OutputSizes = number | readonly (number | null)[];

function outputSizes(input: Tensor, size: OutputSizes, dims: number): number[] {
  const sizes = typeof size === "number" ? ntuple(size, dims) : size;
  return sizes.map((n, i) => n ?? input.size(i - dims));
}

/** Means over so many windows that the result has the given size, for one, two and three dimensions. */
export function adaptiveAvgPool(dims: number, input: Tensor, output_size: OutputSizes): Tensor {
  const sizes = outputSizes(input, output_size, dims);
  if (dims === 1) return torch.adaptive_avg_pool1d(input, sizes);
  return dims === 2 ? ops.adaptive_avg_pool2d(input, sizes) : ops.adaptive_avg_pool3d(input, sizes);
}

/** Maxima over so many windows that the result has the given size, and where they stood. */
export function adaptiveMaxPool(dims: number, input: Tensor, output_size: OutputSizes): WithIndices {
  const sizes = outputSizes(input, output_size, dims);
  if (dims === 1) return torch.adaptive_max_pool1d(input, sizes) as WithIndices;
  return (
    dims === 2 ? ops.adaptive_max_pool2d(input, sizes) : ops.adaptive_max_pool3d(input, sizes)
  ) as WithIndices;
}

/** The mean over windows that are chosen so that the result has `output_size`. */
export const adaptive_avg_pool1d = (input: Tensor, output_size: OutputSizes): Tensor =>
  adaptiveAvgPool(1, input, output_size);
/** The mean over windows that are chosen so that the result has `output_size`. */
export const adaptive_avg_pool2d = (input: Tensor, output_size: OutputSizes): Tensor =>
  adaptiveAvgPool(2, input, output_size);
/** The mean over windows that are chosen so that the result has `output_size`. */
export const adaptive_avg_pool3d = (input: Tensor, output_size: OutputSizes): Tensor =>
  adaptiveAvgPool(3, input, output_size);

/** Called with `{ return_indices: true }`, the pooling functions give a pair. */
type AdaptiveMaxPool = {
  (input: Tensor, output_size: OutputSizes, options: true | { return_indices: true }): WithIndices;
  (input: Tensor, output_size: OutputSizes, options?: false | { return_indices?: false | undefined }): Tensor;
};
const adaptiveMax = (dims: number) =>
  ((input: Tensor, output_size: OutputSizes, ...rest: unknown[]) => {
    const { return_indices } = bind(`adaptive_max_pool${dims}d`, rest, { return_indices: false });
    const result = adaptiveMaxPool(dims, input, output_size);
    return return_indices ? result : result[0];
  }) as AdaptiveMaxPool;

/** The maximum over windows that are chosen so that the result has `output_size`. */
export const adaptive_max_pool1d: AdaptiveMaxPool = adaptiveMax(1);
/** The maximum over windows that are chosen so that the result has `output_size`. */
export const adaptive_max_pool2d: AdaptiveMaxPool = adaptiveMax(2);
/** The maximum over windows that are chosen so that the result has `output_size`. */
export const adaptive_max_pool3d: AdaptiveMaxPool = adaptiveMax(3);
