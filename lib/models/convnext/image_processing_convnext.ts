// Image processors of ConvNeXT, and of ResNet: below 384 pixels the middle is cut out of a somewhat larger image, from 384 on
// the image is stretched to a square.
import { InvalidArgumentError } from "../../errors/index.ts";
import { PilBackend, TorchvisionBackend } from "../../processing/image/image_processing_backends.ts";
import {
  type BaseImageProcessor,
  type PreparedKwargs,
  type ResizeOptions,
  resizeOptions,
} from "../../processing/image/image_processing_utils.ts";
import {
  get_resize_output_image_size,
  IMAGENET_STANDARD_MEAN,
  IMAGENET_STANDARD_STD,
  PILImageResampling,
  type SizeDict,
  sizeKeys,
  spatial,
} from "../../processing/image/image_utils.ts";
import type { Tensor } from "../../torch/index.ts";

const CROP_PCT = 224 / 256;

/** What both backends do, over the `resize` of their base. */
function resizeAndCrop(
  processor: BaseImageProcessor,
  image: Tensor,
  size: SizeDict,
  { crop_pct = CROP_PCT, ...options }: ConvNextResizeOptions,
  resize: (image: Tensor, size: SizeDict, options: ResizeOptions) => Tensor,
): Tensor {
  const edge = size.shortest_edge;
  if (!edge)
    throw new InvalidArgumentError(
      `size must have the key 'shortest_edge'; it has ${sizeKeys(size).join(", ")}.`,
    );
  if (edge >= 384) return resize(image, { height: edge, width: edge }, options);
  const [height, width] = get_resize_output_image_size(spatial(image), Math.trunc(edge / crop_pct));
  return processor.center_crop(resize(image, { height, width }, options), { height: edge, width: edge });
}

export interface ConvNextResizeOptions extends ResizeOptions {
  /** The part of the resized image's edge that is kept below 384 pixels. */
  readonly crop_pct?: number | undefined;
}

export class ConvNextImageProcessor extends TorchvisionBackend {
  static override readonly valid_kwargs = [...TorchvisionBackend.valid_kwargs, "crop_pct"];
  static override readonly float_kwargs = [...TorchvisionBackend.float_kwargs, "crop_pct"];
  static override readonly resample = PILImageResampling.BICUBIC;
  static override readonly image_mean = IMAGENET_STANDARD_MEAN;
  static override readonly image_std = IMAGENET_STANDARD_STD;
  static override readonly size = { shortest_edge: 384 };
  static override readonly default_to_square = false;
  static override readonly do_resize = true;
  static override readonly do_rescale = true;
  static override readonly do_normalize = true;
  static readonly crop_pct = CROP_PCT;

  declare crop_pct: number;

  override resize(
    image: Tensor,
    size: SizeDict,
    options: PILImageResampling | ConvNextResizeOptions | null = {},
  ): Tensor {
    const given = resizeOptions(options) as ConvNextResizeOptions;
    return resizeAndCrop(this, image, size, given, (...args) => super.resize(...args));
  }

  override _resized(image: Tensor, { size, resample, crop_pct }: PreparedKwargs): Tensor {
    return this.resize(image, size as SizeDict, { resample, crop_pct });
  }

  /** This model's images are never padded, whatever `do_pad` says. */
  override _crop_scale_and_pad(images: readonly Tensor[], kwargs: PreparedKwargs): Tensor[] {
    return super._crop_scale_and_pad(images, { ...kwargs, do_pad: false });
  }
}

export class ConvNextImageProcessorPil extends PilBackend {
  static override readonly valid_kwargs = [...PilBackend.valid_kwargs, "crop_pct"];
  static override readonly float_kwargs = [...PilBackend.float_kwargs, "crop_pct"];
  static override readonly resample = PILImageResampling.BICUBIC;
  static override readonly image_mean = IMAGENET_STANDARD_MEAN;
  static override readonly image_std = IMAGENET_STANDARD_STD;
  static override readonly size = { shortest_edge: 384 };
  static override readonly default_to_square = false;
  static override readonly do_resize = true;
  static override readonly do_rescale = true;
  static override readonly do_normalize = true;
  static readonly crop_pct = CROP_PCT;

  declare crop_pct: number;

  override resize(
    image: Tensor,
    size: SizeDict,
    options: PILImageResampling | ConvNextResizeOptions | null = {},
  ): Tensor {
    const given = resizeOptions(options) as ConvNextResizeOptions;
    return resizeAndCrop(this, image, size, given, (...args) => super.resize(...args));
  }

  override _resized(image: Tensor, { size, resample, crop_pct }: PreparedKwargs): Tensor {
    return this.resize(image, size as SizeDict, { resample, crop_pct });
  }

  /** This model's images are never padded, whatever `do_pad` says. */
  override _crop_scale_and_pad(images: readonly Tensor[], kwargs: PreparedKwargs): Tensor[] {
    return super._crop_scale_and_pad(images, { ...kwargs, do_pad: false });
  }
}
