// The two ways of working on images: with torchvision's operators and roundings, and with Pillow's and numpy's. Which one a
// model was trained with can be seen in its results, so both are here, each to the reference's numbers.

import { DtypeError, InvalidArgumentError, ShapeError } from "../../errors/index.ts";
import * as torch from "../../torch/index.ts";
import { is_floating_point, Tensor } from "../../torch/index.ts";
import { BatchFeature } from "../batch_feature.ts";
import type { Settings } from "../preprocessor.ts";
import {
  BaseImageProcessor,
  channelsFirst,
  type PadOptions,
  type PreparedKwargs,
  padSize,
  type ResizeOptions,
  resizeOptions,
} from "./image_processing_utils.ts";
import { crop, padAround, padTo, pillowResize, rescale, torchvisionResize } from "./image_transforms.ts";
import { heightAndWidth, outputSize, PILImageResampling, type SizeDict, spatial } from "./image_utils.ts";

type Means = number | readonly number[] | Tensor;

/** One number per channel, or one for all, as a tensor that goes with [channels, height, width]. */
function perChannel(values: Means, like: Tensor): Tensor {
  const made =
    values instanceof Tensor
      ? values.to({ dtype: like.dtype, device: like.device })
      : torch.tensor(values, { dtype: like.dtype, device: like.device });
  if (made.ndim === 0) return made;
  const channels = like.shape.at(-3);
  if (made.shape[0] !== channels && made.shape[0] !== 1 && channels !== 1) {
    throw new ShapeError(
      `image_mean and image_std have ${made.shape[0]} numbers, an image has ${channels} channels.`,
    );
  }
  return made.reshape([-1, 1, 1]);
}

function checkUnit(image: Tensor): void {
  if (image.min().item() < 0 || image.max().item() > 1)
    throw new InvalidArgumentError("An RGBA image of floats has values from 0 to 1; this one has others.");
}

/** 1 inside the image, 0 where it was padded: [height, width] of int64. */
function maskOf(image: Tensor, [height, width]: readonly [number, number]): Tensor {
  const [h, w] = spatial(image);
  const inside = torch.ones([h, w], { dtype: "int64", device: image.device });
  return torch.constant_pad_nd(inside, [0, width - w, 0, height - h], 0);
}

/**
 * Works as the reference does with torchvision, on the device of the images or on `device`.
 *
 * @example
 * class MyImageProcessor extends TorchvisionBackend {
 *   static override readonly size = { height: 224, width: 224 };
 *   static override readonly resample = PILImageResampling.BICUBIC;
 *   static override readonly do_resize = true;
 * }
 */
export class TorchvisionBackend extends BaseImageProcessor {
  get backend(): string {
    return "torchvision";
  }

  process_image(image: Tensor, kwargs: PreparedKwargs): Tensor {
    let first = channelsFirst(image, kwargs.input_data_format);
    if (kwargs.do_convert_rgb) first = this.convert_to_rgb(first);
    first = first.contiguous();
    return kwargs.device ? first.to(kwargs.device) : first;
  }

  convert_to_rgb(image: Tensor): Tensor {
    const channels = image.shape.at(-3) as number;
    if (channels === 1) return image.repeat_interleave(3, -3);
    if (channels === 2) throw new ShapeError("An image of two channels is not made RGB by this backend.");
    if (channels !== 4) return image;
    const { dtype } = image;
    const isFloat = is_floating_point(image);
    if (isFloat) checkUnit(image);
    if (dtype === "int32" || dtype === "int64")
      throw new DtypeError(
        `An RGBA image of ${dtype} cannot go through floats without a loss; cast it to uint8.`,
      );
    // Over floats from 0 to 1 and back, as torchvision casts them.
    const unit = isFloat ? image.to("float32") : image.to("float32").mul(torch.float(1 / largestOf(dtype)));
    const alpha = unit.narrow(-3, 3, 1);
    const onWhite = unit.narrow(-3, 0, 3).mul(alpha).add(torch.sub(1, alpha));
    return isFloat ? onWhite.to(dtype) : onWhite.mul(torch.float(largestOf(dtype) + 1 - 1e-3)).to(dtype);
  }

  /** Resizes to `size`; the shorter edge alone, or bounds, keep the proportions. */
  resize(image: Tensor, size: SizeDict, options: PILImageResampling | ResizeOptions | null = {}): Tensor {
    const { resample, antialias = true } = resizeOptions(options);
    const filter = resample ?? PILImageResampling.BILINEAR;
    return torchvisionResize(image, outputSize(image, size), filter, antialias);
  }

  center_crop(image: Tensor, size: SizeDict): Tensor {
    const [height, width] = heightAndWidth(size);
    const padded = padAround(image, [height, width], (missing) => Math.floor(missing / 2));
    const [h, w] = spatial(padded);
    return crop(padded, Math.trunc((h - height) / 2), Math.trunc((w - width) / 2), height, width);
  }

  rescale(image: Tensor, scale: number): Tensor {
    return image.mul(torch.float(scale));
  }

  normalize(image: Tensor, mean: Means, std: Means): Tensor {
    if (!is_floating_point(image))
      throw new InvalidArgumentError(`normalize takes an image of floats, not of ${image.dtype}.`);
    if (!(std instanceof Tensor) && [std].flat().some((value) => value === 0))
      throw new InvalidArgumentError("normalize: a standard deviation is 0.");
    return image.sub(perChannel(mean, image)).div(perChannel(std, image));
  }

  /** Both steps in one, as floats: the mean and the deviation are scaled instead of the image. */
  rescale_and_normalize(image: Tensor, kwargs: PreparedKwargs): Tensor {
    const { do_rescale, do_normalize, image_mean, image_std } = kwargs;
    const factor = kwargs.rescale_factor as number;
    if (!do_normalize) return do_rescale ? this.rescale(image, factor) : image;
    const floats = image.to("float32");
    const channels = image.shape.at(-3) as number;
    // The reference subtracts in place where it had to cast, which cannot make more channels.
    for (const values of image.dtype === "float32" ? [] : [image_mean, image_std]) {
      if (!Array.isArray(values) || values.length <= channels) continue;
      throw new ShapeError(
        `image_mean and image_std are for ${values.length} channels, an image has ${channels}.`,
        {
          hint: "Pass do_convert_rgb: true for grey images.",
        },
      );
    }
    if (!do_rescale) return this.normalize(floats, image_mean as Means, image_std as Means);
    const scaled = (values: Means) =>
      torch
        .tensor(values as number | number[], { dtype: "float32", device: image.device })
        .mul(torch.float(1 / factor));
    return this.normalize(floats, scaled(image_mean as Means), scaled(image_std as Means));
  }

  pad(images: readonly Tensor[], options?: PadOptions & { return_mask?: false }): Tensor[];
  pad(images: readonly Tensor[], options: PadOptions & { return_mask: true }): [Tensor[], Tensor[]];
  pad(
    images: readonly Tensor[],
    options: PadOptions & { return_mask?: boolean } = {},
  ): Tensor[] | [Tensor[], Tensor[]] {
    return padAll(images, options);
  }

  _preprocess(images: readonly Tensor[], kwargs: PreparedKwargs): BatchFeature {
    const resized = this._grouped(images, kwargs, (stacked) =>
      kwargs.do_resize ? this._resized(stacked, kwargs) : stacked,
    );
    const pixel_values = this._crop_scale_and_pad(resized, kwargs);
    return new BatchFeature({ pixel_values }, kwargs.return_tensors);
  }

  /** The steps after resizing, in which images may still differ in size. */
  _crop_scale_and_pad(images: readonly Tensor[], kwargs: PreparedKwargs): Tensor[] {
    const processed = this._grouped(images, kwargs, (stacked) => {
      const cropped = kwargs.do_center_crop
        ? this.center_crop(stacked, kwargs.crop_size as SizeDict)
        : stacked;
      return this.rescale_and_normalize(cropped, kwargs);
    });
    return kwargs.do_pad ? this.pad(processed, { pad_size: kwargs.pad_size }) : processed;
  }

  /**
   * Runs a step over batches [images, channels, height, width] of images that are alike, and gives the results in the order
   * of the images. On the CPU each image is a batch of its own unless `disable_grouping` is false, which is faster there.
   */
  _grouped(
    images: readonly Tensor[],
    { disable_grouping }: Pick<PreparedKwargs, "disable_grouping">,
    step: (stacked: Tensor) => Tensor,
  ): Tensor[] {
    if (disable_grouping ?? images[0]?.device === "cpu")
      return images.map((image) => step(image.unsqueeze(0)).squeeze(0));
    const groups = new Map<string, number[]>();
    for (const [i, image] of images.entries()) {
      const key = `${image.dtype} ${image.shape.join()}`;
      groups.set(key, [...(groups.get(key) ?? []), i]);
    }
    const results: Tensor[] = new Array(images.length);
    for (const members of groups.values()) {
      const stacked = torch.stack(members.map((i) => images[i] as Tensor));
      for (const [row, result] of step(stacked).unbind(0).entries()) results[members[row] as number] = result;
    }
    return results;
  }
}

const LARGEST: Readonly<Record<string, number>> = {
  uint8: 255,
  int8: 127,
  int16: 32767,
  uint16: 65535,
  int32: 2147483647,
};

const largestOf = (dtype: string): number => LARGEST[dtype] ?? Number(2n ** 63n - 1n);

function padAll(
  images: readonly Tensor[],
  {
    pad_size,
    fill_value = 0,
    padding_mode = "constant",
    return_mask = false,
  }: PadOptions & { return_mask?: boolean },
): Tensor[] | [Tensor[], Tensor[]] {
  const size = padSize(images, pad_size);
  const padded = images.map((image) => padTo(image, size, padding_mode, fill_value));
  return return_mask ? [padded, images.map((image) => maskOf(image, size))] : padded;
}

/** Works as the reference does with Pillow and numpy: on the CPU, bytes are resized in whole numbers. */
export class PilBackend extends BaseImageProcessor {
  get backend(): string {
    return "pil";
  }

  process_image(image: Tensor, kwargs: PreparedKwargs): Tensor {
    const first = channelsFirst(image.to("cpu"), kwargs.input_data_format);
    return (kwargs.do_convert_rgb ? this.convert_to_rgb(first) : first).contiguous();
  }

  convert_to_rgb(image: Tensor): Tensor {
    const channels = image.shape.at(-3) as number;
    if (channels === 1) return image.repeat_interleave(3, -3);
    if (channels !== 4) return image;
    const isFloat = is_floating_point(image);
    if (isFloat) checkUnit(image);
    const wide = isFloat ? image : image.to("float64");
    const white = isFloat ? 1 : 255;
    const alpha = wide.narrow(-3, 3, 1).div(white);
    const onWhite = alpha.mul(wide.narrow(-3, 0, 3)).add(torch.sub(1, alpha).mul(white));
    return (isFloat ? onWhite : onWhite.round()).to(image.dtype);
  }

  /** Resizes to `size`, to Pillow's bytes. */
  resize(image: Tensor, size: SizeDict, options: PILImageResampling | ResizeOptions | null = {}): Tensor {
    const filter = resizeOptions(options).resample ?? PILImageResampling.BILINEAR;
    return pillowResize(image, outputSize(image, size), filter);
  }

  center_crop(image: Tensor, size: SizeDict): Tensor {
    const [height, width] = heightAndWidth(size);
    const [h, w] = spatial(image);
    const padded = padAround(image, [height, width], (missing) => Math.ceil(missing / 2));
    const start = (now: number, wanted: number) =>
      Math.floor((now - wanted) / 2) + Math.ceil(Math.max(wanted - now, 0) / 2);
    return crop(padded, start(h, height), start(w, width), height, width);
  }

  rescale(image: Tensor, scale: number): Tensor {
    return rescale(image, scale);
  }

  normalize(image: Tensor, mean: Means, std: Means): Tensor {
    const floats = is_floating_point(image) ? image : image.to("float32");
    const channels = image.shape.at(-3) as number;
    for (const values of [mean, std]) {
      const count = Array.isArray(values) ? values.length : channels;
      if (count !== channels)
        throw new ShapeError(
          `image_mean and image_std must have ${channels} numbers, one per channel; got ${count}.`,
        );
    }
    return floats.sub(perChannel(mean, floats)).div(perChannel(std, floats));
  }

  pad(images: readonly Tensor[], options?: PadOptions & { return_mask?: false }): Tensor[];
  pad(images: readonly Tensor[], options: PadOptions & { return_mask: true }): [Tensor[], Tensor[]];
  pad(
    images: readonly Tensor[],
    options: PadOptions & { return_mask?: boolean } = {},
  ): Tensor[] | [Tensor[], Tensor[]] {
    return padAll(images, options);
  }

  _preprocess(images: readonly Tensor[], kwargs: PreparedKwargs): BatchFeature {
    const resized = images.map((image) => (kwargs.do_resize ? this._resized(image, kwargs) : image));
    const pixel_values = this._crop_scale_and_pad(resized, kwargs);
    return new BatchFeature({ pixel_values }, kwargs.return_tensors);
  }

  /** The steps after resizing. */
  _crop_scale_and_pad(images: readonly Tensor[], kwargs: PreparedKwargs): Tensor[] {
    const processed = images.map((image) => {
      let result = image;
      if (kwargs.do_center_crop) result = this.center_crop(result, kwargs.crop_size as SizeDict);
      if (kwargs.do_rescale) result = this.rescale(result, kwargs.rescale_factor as number);
      if (kwargs.do_normalize)
        result = this.normalize(result, kwargs.image_mean as Means, kwargs.image_std as Means);
      return result;
    });
    return kwargs.do_pad ? this.pad(processed, { pad_size: kwargs.pad_size }) : processed;
  }

  /** Files name the class without "Pil": the backend is chosen when they are read. */
  override to_dict(): Settings {
    const dict = super.to_dict();
    dict.image_processor_type = String(dict.image_processor_type).replace(/Pil$/, "");
    return dict;
  }
}

export { TorchvisionBackend as BaseImageProcessorFast };
