// The vocabulary of image processing: filters, sizes, where the channels are.

import { InvalidArgumentError, ShapeError } from "../../errors/index.ts";
import { warnOnce } from "../../errors/warnings.ts";
import type { Tensor } from "../../torch/index.ts";

export const IMAGENET_DEFAULT_MEAN = [0.485, 0.456, 0.406] as const;
export const IMAGENET_DEFAULT_STD = [0.229, 0.224, 0.225] as const;
export const IMAGENET_STANDARD_MEAN = [0.5, 0.5, 0.5] as const;
export const IMAGENET_STANDARD_STD = [0.5, 0.5, 0.5] as const;
export const OPENAI_CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073] as const;
export const OPENAI_CLIP_STD = [0.26862954, 0.26130258, 0.27577711] as const;

/** Pillow's filters, by the numbers that configuration files hold. */
export const PILImageResampling = {
  NEAREST: 0,
  LANCZOS: 1,
  BILINEAR: 2,
  BICUBIC: 3,
  BOX: 4,
  HAMMING: 5,
} as const;
export type PILImageResampling = (typeof PILImageResampling)[keyof typeof PILImageResampling];

/** Where the channels of an image are: [channels, height, width] or [height, width, channels]. */
export const ChannelDimension = { FIRST: "channels_first", LAST: "channels_last" } as const;
export type ChannelDimension = (typeof ChannelDimension)[keyof typeof ChannelDimension];

/** How large an image shall become: one of the sets of keys in {@link VALID_SIZE_DICT_KEYS}, in pixels. */
export interface SizeDict {
  readonly height?: number | undefined;
  readonly width?: number | undefined;
  readonly shortest_edge?: number | undefined;
  readonly longest_edge?: number | undefined;
  readonly max_height?: number | undefined;
  readonly max_width?: number | undefined;
  readonly min_pixels?: number | undefined;
  readonly max_pixels?: number | undefined;
}

/** The keys that a size may have together. */
export const VALID_SIZE_DICT_KEYS: readonly (readonly (keyof SizeDict)[])[] = [
  ["height", "width"],
  ["shortest_edge"],
  ["shortest_edge", "longest_edge"],
  ["longest_edge"],
  ["max_height", "max_width"],
  ["min_pixels", "max_pixels"],
];

/** What is taken for a size: its keys, `[height, width]`, or one number. */
export type SizeInput = SizeDict | readonly number[] | number;

/** Keys of a size that have a value. */
export const sizeKeys = (size: SizeDict): string[] =>
  Object.entries(size).flatMap(([key, value]) => (value === undefined || value === null ? [] : [key]));

/**
 * The size that is meant: a number is a square, or, with `default_to_square: false`, the shorter edge; a pair is
 * `[height, width]`.
 *
 * @throws InvalidArgumentError for keys that do not go together and for what is no size.
 * @example get_size_dict(224, { default_to_square: false }); // { shortest_edge: 224 }
 */
export function get_size_dict(
  size: SizeInput,
  {
    default_to_square = true,
    param_name = "size",
  }: { default_to_square?: boolean | null; param_name?: string } = {},
): SizeDict {
  const isCount = (value: unknown) => typeof value === "number" && Number.isInteger(value);
  if (isCount(size)) {
    const edge = size as number;
    return default_to_square ? { height: edge, width: edge } : { shortest_edge: edge };
  }
  if (Array.isArray(size) && size.length >= 2 && size.every(isCount))
    return { height: size[0], width: size[1] };
  if (typeof size !== "object" || size === null || Array.isArray(size))
    throw new InvalidArgumentError(
      `${param_name} must be a number, [height, width] or an object of sizes; got ${JSON.stringify(size)}.`,
    );
  const dict = size as SizeDict;
  const keys = sizeKeys(dict);
  const isValid = VALID_SIZE_DICT_KEYS.some(
    (valid) => valid.length === keys.length && keys.every((key) => valid.includes(key as keyof SizeDict)),
  );
  if (!isValid || !keys.every((key) => isCount(dict[key as keyof SizeDict]))) {
    const sets = VALID_SIZE_DICT_KEYS.map((valid) => valid.join(" and ")).join("; ");
    throw new InvalidArgumentError(
      `${param_name} must have one of these sets of keys, with whole numbers: ${sets}; got ${JSON.stringify(size)}.`,
    );
  }
  return Object.fromEntries(keys.map((key) => [key, dict[key as keyof SizeDict]]));
}

/** Height and width of a size that must have both. */
export function heightAndWidth(size: SizeDict, what = "size"): [height: number, width: number] {
  if (size.height === undefined || size.width === undefined)
    throw new InvalidArgumentError(
      `${what} must have the keys 'height' and 'width'; it has ${sizeKeys(size).join(", ") || "none"}.`,
    );
  return [size.height, size.width];
}

/** Height and width of a tensor [..., height, width]. */
export const spatial = (image: Tensor): [height: number, width: number] => [
  image.shape.at(-2) as number,
  image.shape.at(-1) as number,
];

/**
 * Where the channels of an image of three dimensions (or a batch of them) are, told by its sizes.
 *
 * @throws ShapeError when no size could be a number of channels.
 */
export function infer_channel_dimension_format(
  image: Tensor,
  num_channels: readonly number[] = [1, 3],
): ChannelDimension {
  if (image.ndim < 3 || image.ndim > 5)
    throw new ShapeError(`An image has three dimensions, not the shape [${image.shape.join(", ")}].`);
  const first = num_channels.includes(image.shape.at(-3) as number);
  const last = num_channels.includes(image.shape.at(-1) as number);
  if (first && last) {
    warnOnce(
      `An image of shape [${image.shape.join(", ")}] may have its channels first or last: taken as first. ` +
        "Pass input_data_format to say where they are.",
    );
  }
  if (first) return ChannelDimension.FIRST;
  if (last) return ChannelDimension.LAST;
  throw new ShapeError(
    `No dimension of an image of shape [${image.shape.join(", ")}] can be its channels (${num_channels.join(", ")}).`,
    { hint: "Pass input_data_format: 'channels_first' or 'channels_last'." },
  );
}

// Sizes that keep the proportions --------------------------------------------------------------------------------------

/** As Python rounds: halves to the even neighbour. */
const roundHalfEven = (value: number): number => {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 === 0 ? low : low + 1;
};

type Pair = [height: number, width: number];

/** The shorter edge becomes `size`, less where the longer one would exceed `max_size`. */
export function get_size_with_aspect_ratio([height, width]: Pair, edge: number, max_size?: number): Pair {
  let size = edge;
  let exact: number | undefined;
  if (max_size !== undefined) {
    const shorter = Math.min(height, width);
    const longer = Math.max(height, width);
    if ((longer / shorter) * size > max_size) {
      exact = (max_size * shorter) / longer;
      size = roundHalfEven(exact);
    }
  }
  if ((height <= width && height === size) || (width <= height && width === size)) return [height, width];
  const scaled = exact ?? size;
  return width < height
    ? [Math.trunc((scaled * height) / width), size]
    : [size, Math.trunc((scaled * width) / height)];
}

/** The shorter edge becomes `size`, the longer one what the proportions say, cut off. */
export function get_resize_output_image_size([height, width]: Pair, size: number): Pair {
  const long = (longer: number, shorter: number) => Math.trunc((size * longer) / shorter);
  return width <= height ? [long(height, width), size] : [size, long(width, height)];
}

/** The largest size within both bounds; also for an image that is smaller than them. */
export function get_image_size_for_max_height_width([height, width]: Pair, max: Pair): Pair {
  const scale = Math.min(max[0] / height, max[1] / width);
  return [Math.trunc(height * scale), Math.trunc(width * scale)];
}

/** Height and width that a size gives an image, by the rules that all processors share. */
export function outputSize(image: Tensor, size: SizeDict): Pair {
  const now = spatial(image);
  if (size.shortest_edge && size.longest_edge)
    return get_size_with_aspect_ratio(now, size.shortest_edge, size.longest_edge);
  if (size.shortest_edge) return get_resize_output_image_size(now, size.shortest_edge);
  if (size.max_height && size.max_width)
    return get_image_size_for_max_height_width(now, [size.max_height, size.max_width]);
  if (size.height && size.width) return [size.height, size.width];
  throw new InvalidArgumentError(
    "size must have the keys 'height' and 'width', or 'max_height' and 'max_width', or 'shortest_edge'; " +
      `got ${JSON.stringify(size)}.`,
  );
}
