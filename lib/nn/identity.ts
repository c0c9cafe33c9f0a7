// Identity, and layers that only change a shape.

import type { Tensor } from "../torch/index.ts";
import { type Arguments, bind, REQUIRED, type Rest, type Sizes } from "./arguments.ts";
import * as F from "./functional.ts";
import { Module } from "./module.ts";
import { py } from "./repr.ts";

/** Gives back what it is given; arguments of the constructor are ignored. */
export class Identity extends Module {
  constructor(..._ignored: readonly unknown[]) {
    super();
  }

  override forward<T>(x: T): T {
    return x;
  }
}

/** Joins the dimensions from `start_dim` (default 1) to `end_dim` (default -1). */
export class Flatten extends Module {
  readonly start_dim: number;
  readonly end_dim: number;

  constructor(...rest: Rest<[start_dim: number, end_dim: number], { start_dim?: number; end_dim?: number }>) {
    super();
    const { start_dim, end_dim } = bind("Flatten", rest, { start_dim: 1, end_dim: -1 });
    this.start_dim = start_dim;
    this.end_dim = end_dim;
  }

  override forward(x: Tensor): Tensor {
    return x.flatten(this.start_dim, this.end_dim);
  }

  override extra_repr(): string {
    return `start_dim=${this.start_dim}, end_dim=${this.end_dim}`;
  }
}

/** Splits dimension `dim` into the sizes `unflattened_size`, one of which may be -1. */
export class Unflatten extends Module {
  readonly dim: number;
  readonly unflattened_size: readonly number[];

  constructor(
    ...args: Arguments<[dim: number, unflattened_size: readonly number[]], ["dim", "unflattened_size"]>
  ) {
    super();
    const { dim, unflattened_size } = bind("Unflatten", args, {
      dim: REQUIRED as number,
      unflattened_size: REQUIRED as readonly number[],
    });
    this.dim = dim;
    this.unflattened_size = unflattened_size;
  }

  override forward(x: Tensor): Tensor {
    return x.unflatten(this.dim, this.unflattened_size);
  }

  override extra_repr(): string {
    return `dim=${this.dim}, unflattened_size=${py(this.unflattened_size)}`;
  }
}

interface PatchSettings {
  /** Default: 1. */
  dilation?: Sizes | undefined;
  /** Default: 0. */
  padding?: Sizes | undefined;
  /** Default: 1. */
  stride?: Sizes | undefined;
}
type Patches = [dilation: Sizes, padding: Sizes, stride: Sizes];
const PATCHES = { dilation: 1 as Sizes, padding: 0 as Sizes, stride: 1 as Sizes };

/** Patches of an image as columns: [batch, channels, height, width] to [batch, channels · kernel, positions]. */
export class Unfold extends Module {
  readonly kernel_size: Sizes;
  readonly dilation: Sizes;
  readonly padding: Sizes;
  readonly stride: Sizes;

  constructor(...args: Arguments<[kernel_size: Sizes], ["kernel_size"], Patches, PatchSettings>) {
    super();
    const { kernel_size, dilation, padding, stride } = bind("Unfold", args, {
      kernel_size: REQUIRED as Sizes,
      ...PATCHES,
    });
    this.kernel_size = kernel_size;
    this.dilation = dilation;
    this.padding = padding;
    this.stride = stride;
  }

  override forward(x: Tensor): Tensor {
    return F.unfold(x, this.kernel_size, this.dilation, this.padding, this.stride);
  }

  override extra_repr(): string {
    const { kernel_size, dilation, padding, stride } = this;
    return `kernel_size=${py(kernel_size)}, dilation=${py(dilation)}, padding=${py(padding)}, stride=${py(stride)}`;
  }
}

/** The sum of patches in their places: [batch, channels · kernel, positions] to [batch, channels, height, width]. */
export class Fold extends Module {
  readonly output_size: Sizes;
  readonly kernel_size: Sizes;
  readonly dilation: Sizes;
  readonly padding: Sizes;
  readonly stride: Sizes;

  constructor(
    ...args: Arguments<
      [output_size: Sizes, kernel_size: Sizes],
      ["output_size", "kernel_size"],
      Patches,
      PatchSettings
    >
  ) {
    super();
    const { output_size, kernel_size, dilation, padding, stride } = bind("Fold", args, {
      output_size: REQUIRED as Sizes,
      kernel_size: REQUIRED as Sizes,
      ...PATCHES,
    });
    this.output_size = output_size;
    this.kernel_size = kernel_size;
    this.dilation = dilation;
    this.padding = padding;
    this.stride = stride;
  }

  override forward(x: Tensor): Tensor {
    return F.fold(x, this.output_size, this.kernel_size, this.dilation, this.padding, this.stride);
  }

  override extra_repr(): string {
    const { output_size, kernel_size, dilation, padding, stride } = this;
    const sizes = `output_size=${py(output_size)}, kernel_size=${py(kernel_size)}`;
    return `${sizes}, dilation=${py(dilation)}, padding=${py(padding)}, stride=${py(stride)}`;
  }
}

/** [batch, channels · r², height, width] to [batch, channels, height · r, width · r]. */
export class PixelShuffle extends Module {
  readonly upscale_factor: number;

  constructor(...args: Arguments<[upscale_factor: number], ["upscale_factor"]>) {
    super();
    this.upscale_factor = bind("PixelShuffle", args, { upscale_factor: REQUIRED as number }).upscale_factor;
  }

  override forward(x: Tensor): Tensor {
    return F.pixel_shuffle(x, this.upscale_factor);
  }

  override extra_repr(): string {
    return `upscale_factor=${this.upscale_factor}`;
  }
}

/** Undoes {@link PixelShuffle}. */
export class PixelUnshuffle extends Module {
  readonly downscale_factor: number;

  constructor(...args: Arguments<[downscale_factor: number], ["downscale_factor"]>) {
    super();
    this.downscale_factor = bind("PixelUnshuffle", args, {
      downscale_factor: REQUIRED as number,
    }).downscale_factor;
  }

  override forward(x: Tensor): Tensor {
    return F.pixel_unshuffle(x, this.downscale_factor);
  }

  override extra_repr(): string {
    return `downscale_factor=${this.downscale_factor}`;
  }
}

/** Mixes the channels of `groups` groups. */
export class ChannelShuffle extends Module {
  readonly groups: number;

  constructor(...args: Arguments<[groups: number], ["groups"]>) {
    super();
    this.groups = bind("ChannelShuffle", args, { groups: REQUIRED as number }).groups;
  }

  override forward(x: Tensor): Tensor {
    return F.channel_shuffle(x, this.groups);
  }

  override extra_repr(): string {
    return `groups=${this.groups}`;
  }
}
