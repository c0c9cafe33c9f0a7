// Image processors of SAM: the longer edge to the model's size, the rest padded; and masks back to the size of the image.
import { InvalidArgumentError } from "../../errors/index.ts";
import * as F from "../../nn/functional.ts";
import { BatchFeature } from "../../processing/batch_feature.ts";
import { PilBackend, TorchvisionBackend } from "../../processing/image/image_processing_backends.ts";
import {
  type BaseImageProcessor,
  type PreparedKwargs,
  type ResizeOptions,
  resizeOptions,
} from "../../processing/image/image_processing_utils.ts";
import {
  IMAGENET_DEFAULT_MEAN,
  IMAGENET_DEFAULT_STD,
  PILImageResampling,
  type SizeDict,
  sizeKeys,
  spatial,
} from "../../processing/image/image_utils.ts";
import { Tensor } from "../../torch/index.ts";

type Size = readonly [height: number, width: number];

/** Height and width when the longer edge becomes `longest_edge`. */
export function preprocessShape([height, width]: Size, longest_edge: number): [number, number] {
  const scale = longest_edge / Math.max(height, width);
  return [Math.trunc(height * scale + 0.5), Math.trunc(width * scale + 0.5)];
}

function longestEdge(image: Tensor, size: SizeDict): SizeDict {
  if (!size.longest_edge)
    throw new InvalidArgumentError(
      `size must have the key 'longest_edge'; it has ${sizeKeys(size).join(", ")}.`,
    );
  const [height, width] = preprocessShape(spatial(image), size.longest_edge);
  return { height, width };
}

/** Images and maps, with the sizes that are needed to go back. `prepare` gives resized images and padded ones. */
function withSizes(
  images: readonly Tensor[],
  maps: readonly Tensor[] | undefined,
  kwargs: PreparedKwargs,
  processor: BaseImageProcessor,
  prepare: (images: readonly Tensor[], kwargs: PreparedKwargs) => [resized: Tensor[], padded: Tensor[]],
): BatchFeature {
  const first = images.map((image) => processor.process_image(image, kwargs));
  const [resized, pixel_values] = prepare(first, kwargs);
  const data: Record<string, unknown> = {
    pixel_values,
    original_sizes: first.map(spatial),
    reshaped_input_sizes: resized.map(spatial),
  };
  if (maps !== undefined) {
    const mapKwargs = {
      ...kwargs,
      do_convert_rgb: false,
      do_normalize: false,
      do_rescale: false,
      resample: PILImageResampling.NEAREST,
      size: kwargs.mask_size,
      pad_size: kwargs.mask_pad_size,
      input_data_format: "channels_first",
    } as PreparedKwargs;
    const planes = maps.map((map) => processor.process_image(map, mapKwargs));
    data.labels = prepare(planes, mapKwargs)[1].map((map) => map.squeeze(0).to("int64"));
  }
  return new BatchFeature(data, kwargs.return_tensors);
}

export interface PostProcessMasksOptions {
  /** Values above it belong to the mask. Default 0. */
  readonly mask_threshold?: number | undefined;
  /** Give booleans rather than scores. Default true. */
  readonly binarize?: boolean | undefined;
  /** The size that images were padded to. Default: the processor's `pad_size`. */
  readonly pad_size?: SizeDict | null | undefined;
}

type Sizes = Tensor | readonly Size[];
const sizesOf = (sizes: Sizes): Size[] =>
  sizes instanceof Tensor ? sizes.tolist<[number, number][]>() : [...sizes];

/** Both classes' `post_process_masks`. */
function postProcessMasks(
  masks: Tensor | readonly Tensor[],
  original_sizes: Sizes,
  reshaped_input_sizes: Sizes,
  pad_size: SizeDict | null,
  { mask_threshold = 0, binarize = true }: PostProcessMasksOptions,
): Tensor[] {
  const { height, width } = pad_size ?? {};
  if (height === undefined || width === undefined)
    throw new InvalidArgumentError("post_process_masks: pad_size must have the keys 'height' and 'width'.");
  const each = masks instanceof Tensor ? masks.unbind(0) : masks;
  const reshaped = sizesOf(reshaped_input_sizes);
  return sizesOf(original_sizes).map((size, i) => {
    const [mask, inner] = [each[i], reshaped[i]];
    if (!(mask instanceof Tensor) || inner === undefined)
      throw new InvalidArgumentError(`post_process_masks: there are no masks or sizes for image ${i}.`);
    const scale = (image: Tensor, to: Size) =>
      F.interpolate(image, { size: [...to], mode: "bilinear", align_corners: false });
    const padded = scale(mask, [height, width]);
    const scores = scale(padded.narrow(-2, 0, inner[0]).narrow(-1, 0, inner[1]), size);
    return binarize ? scores.gt(mask_threshold) : scores;
  });
}

const SETTINGS = ["mask_size", "mask_pad_size"];

export class SamImageProcessor extends TorchvisionBackend {
  static override readonly valid_kwargs = [...TorchvisionBackend.valid_kwargs, ...SETTINGS];
  static override readonly size_kwargs = [...TorchvisionBackend.size_kwargs, ...SETTINGS];
  static override readonly image_like_inputs = ["segmentation_maps"];
  static override readonly resample = PILImageResampling.BILINEAR;
  static override readonly image_mean = IMAGENET_DEFAULT_MEAN;
  static override readonly image_std = IMAGENET_DEFAULT_STD;
  static override readonly size = { longest_edge: 1024 };
  static readonly mask_size = { longest_edge: 256 };
  static override readonly do_resize = true;
  static override readonly do_rescale = true;
  static override readonly do_normalize = true;
  static override readonly do_convert_rgb = true;
  static override readonly do_pad = true;
  static override readonly pad_size = { height: 1024, width: 1024 };
  static readonly mask_pad_size = { height: 256, width: 256 };

  declare mask_size: SizeDict;
  declare mask_pad_size: SizeDict;

  override resize(
    image: Tensor,
    size: SizeDict,
    options: PILImageResampling | ResizeOptions | null = {},
  ): Tensor {
    return super.resize(image, longestEdge(image, size), resizeOptions(options));
  }

  override _preprocess_image_like_inputs(
    images: readonly Tensor[],
    kwargs: PreparedKwargs,
    { segmentation_maps }: Readonly<Record<string, readonly Tensor[]>> = {},
  ): BatchFeature {
    return withSizes(images, segmentation_maps, kwargs, this, (prepared, kwargs) => {
      const resized = this._grouped(prepared, kwargs, (stacked) =>
        kwargs.do_resize ? this._resized(stacked, kwargs) : stacked,
      );
      return [resized, this._crop_scale_and_pad(resized, kwargs)];
    });
  }

  /**
   * Masks in the size of their images: padding is taken away again. One tensor [prompts, masks, height, width] per image.
   *
   * @param masks of the model, [prompts, masks, height, width] per image
   * @param original_sizes height and width of each image before it was resized, as the call gave them
   * @param reshaped_input_sizes and after
   */
  post_process_masks(
    masks: Tensor | readonly Tensor[],
    original_sizes: Sizes,
    reshaped_input_sizes: Sizes,
    options: PostProcessMasksOptions = {},
  ): Tensor[] {
    const pad_size = options.pad_size ?? this.pad_size;
    return postProcessMasks(masks, original_sizes, reshaped_input_sizes, pad_size, options);
  }
}

export class SamImageProcessorPil extends PilBackend {
  static override readonly valid_kwargs = [...PilBackend.valid_kwargs, ...SETTINGS];
  static override readonly size_kwargs = [...PilBackend.size_kwargs, ...SETTINGS];
  static override readonly image_like_inputs = ["segmentation_maps"];
  static override readonly resample = PILImageResampling.BILINEAR;
  static override readonly image_mean = IMAGENET_DEFAULT_MEAN;
  static override readonly image_std = IMAGENET_DEFAULT_STD;
  static override readonly size = { longest_edge: 1024 };
  static readonly mask_size = { longest_edge: 256 };
  static override readonly do_resize = true;
  static override readonly do_rescale = true;
  static override readonly do_normalize = true;
  static override readonly do_convert_rgb = true;
  static override readonly do_pad = true;
  static override readonly pad_size = { height: 1024, width: 1024 };
  static readonly mask_pad_size = { height: 256, width: 256 };

  declare mask_size: SizeDict;
  declare mask_pad_size: SizeDict;

  override resize(
    image: Tensor,
    size: SizeDict,
    options: PILImageResampling | ResizeOptions | null = {},
  ): Tensor {
    return super.resize(image, longestEdge(image, size), resizeOptions(options));
  }

  override _preprocess_image_like_inputs(
    images: readonly Tensor[],
    kwargs: PreparedKwargs,
    { segmentation_maps }: Readonly<Record<string, readonly Tensor[]>> = {},
  ): BatchFeature {
    return withSizes(images, segmentation_maps, kwargs, this, (prepared, kwargs) => {
      const resized = prepared.map((image) => (kwargs.do_resize ? this._resized(image, kwargs) : image));
      return [resized, this._crop_scale_and_pad(resized, kwargs)];
    });
  }

  /** As of `SamImageProcessor`. */
  post_process_masks(
    masks: Tensor | readonly Tensor[],
    original_sizes: Sizes,
    reshaped_input_sizes: Sizes,
    options: PostProcessMasksOptions = {},
  ): Tensor[] {
    const pad_size = options.pad_size ?? this.pad_size;
    return postProcessMasks(masks, original_sizes, reshaped_input_sizes, pad_size, options);
  }
}
