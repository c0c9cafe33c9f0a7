// What the two backends do to tensors [..., channels, height, width]: scaling, padding, cropping.

import { addon } from "../../addon/loader.ts";
import { InvalidArgumentError, ShapeError } from "../../errors/index.ts";
import { warnOnce } from "../../errors/warnings.ts";
import * as F from "../../nn/functional.ts";
import type { Tensor } from "../../torch/index.ts";
import * as torch from "../../torch/index.ts";
import { tensorOp } from "../../torch/native_op.ts";
import { PILImageResampling, spatial } from "./image_utils.ts";

export type PaddingMode = "constant" | "edge" | "reflect" | "symmetric";

const WHOLE = ["uint8", "int8", "int16", "int32", "int64"];

// torchvision ----------------------------------------------------------------------------------------------------------

/** torchvision resizes bytes without a detour over floats where the processor has the instructions for it. */
let nativeBytes: boolean | undefined;
const resizesBytes = (): boolean => (nativeBytes ??= ["AVX2", "AVX512"].includes(addon().cpuCapability()));

const MODES: Readonly<Record<number, "nearest-exact" | "bilinear" | "bicubic">> = {
  [PILImageResampling.NEAREST]: "nearest-exact",
  [PILImageResampling.BILINEAR]: "bilinear",
  [PILImageResampling.BICUBIC]: "bicubic",
};

/** `torchvision.transforms.v2.functional.resize`: its operators, its roundings. */
export function torchvisionResize(
  image: Tensor,
  [height, width]: readonly [number, number],
  resample: number,
  antialias: boolean,
): Tensor {
  let filter = resample;
  if (filter === PILImageResampling.LANCZOS) {
    warnOnce("The torchvision backend has no Lanczos filter and takes bicubic; backend: 'pil' has it.");
    filter = PILImageResampling.BICUBIC;
  }
  const mode = MODES[filter];
  if (mode === undefined) {
    throw new InvalidArgumentError(`resample must be one of 0, 1, 2, 3 here; got ${resample}.`, {
      hint: "The filters 4 (box) and 5 (Hamming) exist in the Pillow backend: { backend: 'pil' }.",
    });
  }
  const [h, w] = spatial(image);
  if (h === height && w === width) return image;
  const lead = image.shape.slice(0, -2);
  if (image.numel() === 0) return image.new_empty([...lead, height, width]);
  const { dtype, device } = image;
  const isNative =
    dtype === "float32" ||
    dtype === "float64" ||
    (dtype === "uint8" &&
      (mode === "nearest-exact" || (device === "cpu" && (mode === "bicubic" || resizesBytes()))));
  const batch = image.reshape([-1, lead.at(-1) ?? 1, h, w]);
  const options =
    mode === "nearest-exact"
      ? { size: [height, width], mode }
      : { size: [height, width], mode, align_corners: false, antialias };
  let resized = F.interpolate(isNative ? batch : batch.to("float32"), options);
  if (!isNative) {
    if (mode === "bicubic" && dtype === "uint8") resized = resized.clamp(0, 255);
    if (WHOLE.includes(dtype)) resized = resized.round();
    resized = resized.to(dtype);
  }
  return resized.reshape([...lead, height, width]);
}

// Pillow ---------------------------------------------------------------------------------------------------------------

const resample8 = (image: Tensor, [height, width]: readonly [number, number], filter: number): Tensor =>
  tensorOp("torchformers::resample", "", image._handle, height, width, filter);

/** Colours weighed by alpha and back, as Pillow keeps them while it resizes; [..., channels, height, width], alpha last. */
function premultiply(image: Tensor): Tensor {
  const [colours, alpha] = parts(image);
  const product = colours.mul(alpha).add(128);
  return torch.cat([shiftRight8(shiftRight8(product).add(product)), alpha], -3).to("uint8");
}

function unpremultiply(image: Tensor): Tensor {
  const [colours, alpha] = parts(image);
  const plain = alpha.eq(0).logical_or(alpha.eq(255));
  const divided = torch.div(colours.mul(255), alpha.clamp(1), { rounding_mode: "floor" }).clamp(0, 255);
  return torch.cat([torch.where(plain, colours, divided), alpha], -3).to("uint8");
}

const shiftRight8 = (x: Tensor): Tensor => torch.div(x, 256, { rounding_mode: "floor" });

function parts(image: Tensor): [colours: Tensor, alpha: Tensor] {
  const whole = image.to("int32");
  const last = (whole.shape.at(-3) as number) - 1;
  return [whole.narrow(-3, 0, last), whole.narrow(-3, last, 1)];
}

/**
 * The same bytes as `PIL.Image.resize`. Floats are taken for bytes, or for 0 to 1, as the reference takes them.
 *
 * @throws ShapeError for a number of channels that Pillow has no mode for; InvalidArgumentError for values outside.
 */
export function pillowResize(image: Tensor, size: readonly [number, number], resample: number): Tensor {
  const channels = image.shape.at(-3) ?? 0;
  if (image.ndim < 3 || channels < 1 || channels > 4) {
    throw new ShapeError(
      `Pillow's images have 1 to 4 channels, [channels, height, width]; got the shape [${image.shape.join(", ")}].`,
    );
  }
  if (!Object.values<number>(PILImageResampling).includes(resample))
    throw new InvalidArgumentError(`resample must be from 0 to 5; got ${resample}.`);
  const isScaled = image.dtype !== "uint8" && isFraction(image);
  const bytes = image.dtype === "uint8" ? image : (isScaled ? rescale(image, 255) : image).to("uint8");
  const hasAlpha = channels === 2 || channels === 4;
  const isSame = spatial(image).every((n, i) => n === size[i]);
  const resized =
    hasAlpha && resample !== PILImageResampling.NEAREST && !isSame
      ? unpremultiply(resample8(premultiply(bytes), size, resample))
      : resample8(bytes, size, resample);
  return isScaled ? rescale(resized, 1 / 255) : resized;
}

/** True for values from 0 to 1 that are no whole numbers, false for whole ones from 0 to 255. */
function isFraction(image: Tensor): boolean {
  const isWhole = torch.allclose(image.to("float64"), image.to("int64").to("float64"));
  const [least, most] = [image.min().item<number>(), image.max().item<number>()];
  const limit = isWhole ? 255 : 1;
  if (Number(least) >= 0 && Number(most) <= limit) return !isWhole;
  throw new InvalidArgumentError(
    `Pillow resizes bytes: values must be from 0 to ${limit}, they are from ${least} to ${most}.`,
  );
}

/** Over float64, as numpy does it. */
export const rescale = (image: Tensor, scale: number): Tensor =>
  image.to("float64").mul(torch.float(scale)).to("float32");

// Padding --------------------------------------------------------------------------------------------------------------

/** Which entry of a line of `length` stands at `place`, which may lie behind its end. */
function mirrored(place: number, length: number, mode: PaddingMode): number {
  if (mode === "edge") return Math.min(place, length - 1);
  const period = mode === "reflect" ? Math.max(2 * (length - 1), 1) : 2 * length;
  const within = place % period;
  if (within < length) return within;
  return mode === "reflect" ? period - within : period - 1 - within;
}

/** Pads on the right and at the bottom. */
export function padTo(
  image: Tensor,
  [height, width]: readonly [number, number],
  mode: PaddingMode,
  value: number,
): Tensor {
  const [h, w] = spatial(image);
  if (height < h || width < w) {
    throw new InvalidArgumentError(
      `pad_size must not be smaller than an image: it is ${height} x ${width}, an image is ${h} x ${w} (height x width).`,
    );
  }
  if (height === h && width === w) return image;
  if (mode === "constant") return torch.constant_pad_nd(image, [0, width - w, 0, height - h], value);
  if (!["edge", "reflect", "symmetric"].includes(mode))
    throw new InvalidArgumentError(
      `padding_mode must be constant, edge, reflect or symmetric; got '${mode}'.`,
    );
  const along = (size: number, length: number) =>
    torch.tensor(
      Array.from({ length: size }, (_, i) => mirrored(i, length, mode)),
      { dtype: "int64", device: image.device },
    );
  return image.index_select(-2, along(height, h)).index_select(-1, along(width, w));
}

/** `image` in the middle of a larger one of zeros; `before` says how much of what is missing comes first. */
export function padAround(
  image: Tensor,
  [height, width]: readonly [number, number],
  before: (missing: number) => number,
): Tensor {
  const [h, w] = spatial(image);
  const [down, right] = [Math.max(height - h, 0), Math.max(width - w, 0)];
  if (down === 0 && right === 0) return image;
  const [top, left] = [before(down), before(right)];
  return torch.constant_pad_nd(image, [left, right - left, top, down - top], 0);
}

/** A part of an image, as a view. */
export const crop = (image: Tensor, top: number, left: number, height: number, width: number): Tensor =>
  image.narrow(-2, top, height).narrow(-1, left, width);
