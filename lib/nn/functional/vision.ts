// Resizing, sampling and rearranging images.

import { InvalidArgumentError } from "../../errors/index.ts";
import { suggest } from "../../errors/suggest.ts";
import type { Tensor } from "../../torch/index.ts";
import * as torch from "../../torch/index.ts";
import * as ops from "../../torch/nn.generated.ts";
import { tensorOp } from "../../torch/resolve.ts";
import { bind, byName, ntuple, type Rest, type Sizes } from "../arguments.ts";
import { adaptiveAvgPool } from "./pooling.ts";

export type InterpolationMode =
  | "nearest"
  | "nearest-exact"
  | "linear"
  | "bilinear"
  | "bicubic"
  | "trilinear"
  | "area";

export interface InterpolateOptions {
  /** The sizes of the result. Either these or factors. */
  size?: Sizes | null | undefined;
  scale_factor?: Sizes | null | undefined;
  /** Default: "nearest". */
  mode?: InterpolationMode | undefined;
  /** The centres of the corners stay where they are. Default: false. */
  align_corners?: boolean | null | undefined;
  /** Use the factors of the whole sizes in the place of those given. Default: false. */
  recompute_scale_factor?: boolean | null | undefined;
  /** Average over the source when shrinking, with "bilinear" and "bicubic". Default: false. */
  antialias?: boolean | undefined;
}

/** Which inputs a mode takes, by their dimensions without batch and channels. */
const DIMS: Readonly<Record<InterpolationMode, readonly number[]>> = {
  nearest: [1, 2, 3],
  "nearest-exact": [1, 2, 3],
  area: [1, 2, 3],
  linear: [1],
  bilinear: [2],
  bicubic: [2],
  trilinear: [3],
};

type Upsample = (
  x: Tensor,
  size: readonly number[] | null,
  align: boolean,
  scales: readonly number[] | null,
) => Tensor;
const LINEAR: Readonly<Record<string, Upsample>> = {
  linear: ops.upsample_linear1d,
  bilinear: ops.upsample_bilinear2d,
  bicubic: ops.upsample_bicubic2d,
  trilinear: ops.upsample_trilinear3d,
};
type Nearest = (x: Tensor, size: readonly number[] | null, scales: readonly number[] | null) => Tensor;
const NEAREST: Readonly<Record<number, Nearest>> = {
  1: ops.upsample_nearest1d,
  2: ops.upsample_nearest2d,
  3: ops.upsample_nearest3d,
};

/**
 * Resizes [batch, channels, …] in its one to three dimensions.
 *
 * @throws InvalidArgumentError when a mode does not fit the input, or not exactly one of size and scale_factor is given.
 * @example F.interpolate(image, { scale_factor: 2, mode: "bilinear", align_corners: false });
 */
export const interpolate = byName(
  ["input"],
  function interpolate(
    input: Tensor,
    ...rest: Rest<
      [size: Sizes | null, scale_factor: Sizes | null, mode: InterpolationMode],
      InterpolateOptions
    >
  ): Tensor {
    const o = bind("interpolate", rest, {
      size: null as Sizes | null,
      scale_factor: null as Sizes | null,
      mode: "nearest" as InterpolationMode,
      align_corners: null as boolean | null,
      recompute_scale_factor: null as boolean | null,
      antialias: false,
    });
    const dims = input.ndim - 2;
    checkMode(o.mode, dims, o.align_corners, o.antialias);
    const { size, scales } = targetSize(input, o);

    if (o.mode === "nearest") return (NEAREST[dims] as Nearest)(input, size, scales);
    if (o.mode === "nearest-exact") return native(`_upsample_nearest_exact${dims}d`, input, size, scales);
    if (o.mode === "area") return adaptiveAvgPool(dims, input, size as number[]);
    const align = o.align_corners ?? false;
    if (o.antialias) return native(`_upsample_${o.mode}2d_aa`, input, size, align, scales);
    return (LINEAR[o.mode] as Upsample)(input, size, align, scales);
  },
);

/** Operators that torch keeps to itself. */
const native = (name: string, input: Tensor, ...args: (readonly number[] | boolean | null)[]) =>
  tensorOp(name, "vec", input._handle, ...args);

function checkMode(
  mode: InterpolationMode,
  dims: number,
  align_corners: boolean | null,
  antialias: boolean,
): void {
  const fitting = DIMS[mode];
  if (fitting === undefined) {
    throw new InvalidArgumentError(`interpolate: unknown mode '${mode}'.`, {
      suggestion: suggest(mode, Object.keys(DIMS)),
    });
  }
  if (!fitting.includes(dims)) {
    const wanted = fitting.map((n) => n + 2).join(", ");
    throw new InvalidArgumentError(
      `interpolate: mode '${mode}' takes an input of ${wanted} dimensions, got ${dims + 2}.`,
    );
  }
  const exact = mode === "nearest" || mode === "nearest-exact" || mode === "area";
  if (exact && align_corners !== null) {
    throw new InvalidArgumentError(`interpolate: align_corners has no meaning in mode '${mode}'.`);
  }
  if (antialias && mode !== "bilinear" && mode !== "bicubic") {
    throw new InvalidArgumentError(
      `interpolate: antialias goes with 'bilinear' and 'bicubic', not '${mode}'.`,
    );
  }
}

interface Target {
  readonly size: Sizes | null;
  readonly scale_factor: Sizes | null;
  readonly mode: InterpolationMode;
  readonly recompute_scale_factor: boolean | null;
}

/** Exactly one of sizes and factors, one per dimension. */
function targetSize(input: Tensor, o: Target): { size: number[] | null; scales: number[] | null } {
  const given = o.size ?? o.scale_factor;
  if (given === null || (o.size !== null && o.scale_factor !== null)) {
    throw new InvalidArgumentError("interpolate: give exactly one of size and scale_factor.");
  }
  const dims = input.ndim - 2;
  const values = ntuple(given, dims);
  if (values.length !== dims) {
    throw new InvalidArgumentError(
      `interpolate: got ${values.length} sizes or factors for an input with ${dims} dimensions to resize.`,
    );
  }
  if (o.size !== null) {
    if (o.recompute_scale_factor) {
      throw new InvalidArgumentError("interpolate: recompute_scale_factor has no meaning beside size.");
    }
    return { size: values, scales: null };
  }
  if (!o.recompute_scale_factor && o.mode !== "area") return { size: null, scales: values };
  return { size: values.map((factor, i) => Math.floor(input.size(i + 2) * factor)), scales: null };
}

/** The older name of {@link interpolate}. */
export const upsample: typeof interpolate = interpolate;

const SAMPLE_MODES = ["bilinear", "nearest", "bicubic"] as const;
const SAMPLE_PADDINGS = ["zeros", "border", "reflection"] as const;

export interface GridSampleOptions {
  /** Default: "bilinear". */
  mode?: (typeof SAMPLE_MODES)[number] | undefined;
  /** What stands outside of the input. Default: "zeros". */
  padding_mode?: (typeof SAMPLE_PADDINGS)[number] | undefined;
  /** -1 and 1 are the centres of the corners, not their outer edges. Default: false. */
  align_corners?: boolean | null | undefined;
}

function oneOf(name: string, option: string, value: string, allowed: readonly string[]): number {
  const at = allowed.indexOf(value);
  if (at < 0) {
    throw new InvalidArgumentError(
      `${name}: ${option} must be one of ${allowed.join(", ")}, got '${value}'.`,
      {
        suggestion: suggest(value, allowed),
      },
    );
  }
  return at;
}

/** Values of [batch, channels, height, width] at the places (x, y) of a grid [batch, …, 2], from -1 to 1; or in three dimensions. */
export const grid_sample = byName(
  ["input", "grid"],
  function grid_sample(
    input: Tensor,
    grid: Tensor,
    ...rest: Rest<
      [mode: "bilinear" | "nearest" | "bicubic", padding_mode: "zeros" | "border" | "reflection"],
      GridSampleOptions
    >
  ): Tensor {
    const { mode, padding_mode, align_corners } = bind("grid_sample", rest, {
      mode: "bilinear" as string,
      padding_mode: "zeros" as string,
      align_corners: null as boolean | null,
    });
    const modeIndex = oneOf("grid_sample", "mode", mode, SAMPLE_MODES);
    const paddingIndex = oneOf("grid_sample", "padding_mode", padding_mode, SAMPLE_PADDINGS);
    return torch.grid_sampler(input, grid, modeIndex, paddingIndex, align_corners ?? false);
  },
);

/** The grid for {@link grid_sample} of affine maps [batch, 2, 3] to an output of the size [batch, channels, height, width]. */
export const affine_grid = byName(
  ["theta", "size"],
  function affine_grid(
    theta: Tensor,
    size: readonly number[],
    ...rest: Rest<[align_corners: boolean | null], { align_corners?: boolean | null | undefined }>
  ): Tensor {
    const { align_corners } = bind("affine_grid", rest, { align_corners: null as boolean | null });
    return torch.affine_grid_generator(theta, size, align_corners ?? false);
  },
);

/** [batch, channels · r², height, width] to [batch, channels, height · r, width · r]. */
export const pixel_shuffle: (input: Tensor, upscale_factor: number) => Tensor = torch.pixel_shuffle;
/** Undoes {@link pixel_shuffle}. */
export const pixel_unshuffle: (input: Tensor, downscale_factor: number) => Tensor = torch.pixel_unshuffle;
/** Mixes the channels of groups: those of the first group stand `groups` apart. */
export const channel_shuffle: (input: Tensor, groups: number) => Tensor = torch.channel_shuffle;
