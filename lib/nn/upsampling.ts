// Resizing as modules.

import type { Tensor } from "../torch/index.ts";
import { bind, type Rest, type Sizes } from "./arguments.ts";
import type { InterpolateOptions, InterpolationMode } from "./functional/vision.ts";
import * as F from "./functional.ts";
import { Module } from "./module.ts";
import { py, pyFloat } from "./repr.ts";

type UpsampleRest = Rest<
  [size: Sizes | null, scale_factor: Sizes | null, mode: InterpolationMode],
  Omit<InterpolateOptions, "antialias">
>;

/**
 * Resizes [batch, channels, …] to a size or by a factor.
 *
 * @example new nn.Upsample({ scale_factor: 2, mode: "bilinear" }).forward(torch.ones([1, 1, 2, 2])).shape; // [1, 1, 4, 4]
 */
export class Upsample extends Module {
  readonly size: Sizes | null;
  readonly scale_factor: Sizes | null;
  readonly mode: InterpolationMode;
  readonly align_corners: boolean | null;
  readonly recompute_scale_factor: boolean | null;

  constructor(...rest: UpsampleRest) {
    super();
    const o = bind("Upsample", rest, {
      size: null as Sizes | null,
      scale_factor: null as Sizes | null,
      mode: "nearest" as InterpolationMode,
      align_corners: null as boolean | null,
      recompute_scale_factor: null as boolean | null,
    });
    this.size = o.size;
    this.scale_factor = o.scale_factor;
    this.mode = o.mode;
    this.align_corners = o.align_corners;
    this.recompute_scale_factor = o.recompute_scale_factor;
  }

  override forward(x: Tensor): Tensor {
    const { size, scale_factor, mode, align_corners, recompute_scale_factor } = this;
    return F.interpolate(x, { size, scale_factor, mode, align_corners, recompute_scale_factor });
  }

  override extra_repr(): string {
    const factor = this.scale_factor;
    const factors =
      factor === null
        ? ""
        : typeof factor === "number"
          ? pyFloat(factor)
          : `(${factor.map(pyFloat).join(", ")})`;
    return `${factor === null ? `size=${py(this.size)}` : `scale_factor=${factors}`}, mode=${py(this.mode)}`;
  }
}

type SizeOrFactor = Rest<
  [size: Sizes | null, scale_factor: Sizes | null],
  { size?: Sizes | null; scale_factor?: Sizes | null }
>;
const SIZE_OR_FACTOR = { size: null as Sizes | null, scale_factor: null as Sizes | null };

/** Enlarges [batch, channels, height, width] by repeating pixels. */
export class UpsamplingNearest2d extends Upsample {
  constructor(...rest: SizeOrFactor) {
    super({ ...bind("UpsamplingNearest2d", rest, SIZE_OR_FACTOR), mode: "nearest" });
  }
}

/** Enlarges [batch, channels, height, width] bilinearly, corners on corners. */
export class UpsamplingBilinear2d extends Upsample {
  constructor(...rest: SizeOrFactor) {
    super({ ...bind("UpsamplingBilinear2d", rest, SIZE_OR_FACTOR), mode: "bilinear", align_corners: true });
  }
}
