// Image processors: pictures into what a model takes. The steps are the reference's, in its order and under its names.

import { InvalidArgumentError, ShapeError } from "../../errors/index.ts";
import { suggest } from "../../errors/suggest.ts";
import { cloneJson } from "../../json/json.ts";
import type { Tensor } from "../../torch/index.ts";
import { type BatchFeature, checkTensorType, type TensorType } from "../batch_feature.ts";
import { offLoop } from "../off_loop.ts";
import {
  classDefault,
  IMAGE_PROCESSOR,
  Preprocessor,
  type PreprocessorKind,
  type Settings,
} from "../preprocessor.ts";
import type { PaddingMode } from "./image_transforms.ts";
import {
  ChannelDimension,
  get_size_dict,
  infer_channel_dimension_format,
  type PILImageResampling,
  type SizeDict,
  type SizeInput,
} from "./image_utils.ts";
import { type ImageSource, isDecoded, isImageSource, load_image } from "./load_image.ts";

/** One image, a batch in one tensor, or lists of these. */
export type ImageInput = ImageSource | readonly ImageSource[] | readonly (readonly ImageSource[])[];

/** Settings of every image processor; a call takes them too, for this call. */
export interface ImagesKwargs {
  /** Make RGB of grey and of RGBA. */
  readonly do_convert_rgb?: boolean | null | undefined;
  readonly do_resize?: boolean | null | undefined;
  readonly size?: SizeInput | null | undefined;
  /** Whether `size: 224` is a square rather than the shorter edge. */
  readonly default_to_square?: boolean | null | undefined;
  readonly crop_size?: SizeInput | null | undefined;
  /** A filter, one of `PILImageResampling`. */
  readonly resample?: PILImageResampling | null | undefined;
  readonly do_rescale?: boolean | null | undefined;
  /** What pixels are multiplied by, 1/255 as a rule. */
  readonly rescale_factor?: number | null | undefined;
  readonly do_normalize?: boolean | null | undefined;
  /** Per channel, after rescaling. */
  readonly image_mean?: number | readonly number[] | null | undefined;
  readonly image_std?: number | readonly number[] | null | undefined;
  readonly do_pad?: boolean | null | undefined;
  readonly pad_size?: SizeInput | null | undefined;
  readonly do_center_crop?: boolean | null | undefined;
  /** Accepted and without effect, as in the reference: results have their channels first. */
  readonly data_format?: ChannelDimension | null | undefined;
  /** Where tensors have their channels. Default: told by their sizes. */
  readonly input_data_format?: ChannelDimension | null | undefined;
  /** Where the work is done; the torchvision backend only. */
  readonly device?: string | null | undefined;
  /** `"pt"` gives one tensor [images, channels, height, width]; without it fields are lists of tensors. */
  readonly return_tensors?: TensorType | undefined;
  readonly disable_grouping?: boolean | null | undefined;
  readonly image_seq_length?: number | null | undefined;
}

/** Options of a call: settings, and what belongs to the call alone. */
export interface ImageCallOptions extends ImagesKwargs {
  /** Ends loading and the work between two operators. */
  readonly signal?: AbortSignal | undefined;
  /** Settings and inputs of one class. */
  readonly [setting: string]: unknown;
}

/** Settings when the work begins: sizes are objects, and what a class adds is there. */
export interface PreparedKwargs {
  readonly do_convert_rgb: boolean | null;
  readonly do_resize: boolean | null;
  readonly size: SizeDict | null;
  readonly crop_size: SizeDict | null;
  readonly resample: PILImageResampling | null;
  readonly do_rescale: boolean | null;
  readonly rescale_factor: number | null;
  readonly do_normalize: boolean | null;
  readonly image_mean: number | readonly number[] | null;
  readonly image_std: number | readonly number[] | null;
  readonly do_pad: boolean | null;
  readonly pad_size: SizeDict | null;
  readonly do_center_crop: boolean | null;
  readonly input_data_format: ChannelDimension | null;
  readonly device: string | null;
  readonly return_tensors: TensorType;
  readonly disable_grouping: boolean | null;
  // biome-ignore lint/suspicious/noExplicitAny: settings of a class of its own
  readonly [setting: string]: any;
}

/** Options of `resize`; a filter's number alone stands for `{ resample }`. */
export interface ResizeOptions {
  readonly resample?: PILImageResampling | null | undefined;
  /** torchvision backend: whether a smaller image is a mean of what it covers. Default true. */
  readonly antialias?: boolean | undefined;
  readonly [setting: string]: unknown;
}

export interface PadOptions {
  /** Default: the largest height and width of the images. */
  readonly pad_size?: SizeDict | null | undefined;
  /** Default 0. */
  readonly fill_value?: number | undefined;
  /** Default "constant". */
  readonly padding_mode?: PaddingMode | undefined;
  readonly disable_grouping?: boolean | null | undefined;
}

type Means = number | readonly number[] | Tensor;

const BOOLEANS = [
  "do_convert_rgb",
  "do_resize",
  "default_to_square",
  "do_rescale",
  "do_normalize",
  "do_pad",
  "do_center_crop",
  "disable_grouping",
];

/** `resize(image, size, 2)` and `resize(image, size, { resample: 2 })` are the same. */
export const resizeOptions = (given: PILImageResampling | ResizeOptions | null | undefined): ResizeOptions =>
  typeof given === "object" && given !== null ? given : { resample: given };

/**
 * Base class of image processors. A class of your own extends `TorchvisionBackend`, states its defaults as statics, and
 * overrides what it does differently; `AutoImageProcessor.register` makes it known.
 *
 * The object is itself a function: `await processor(images, options)`. Decoding and the work on large images happen off the
 * event loop, for which `_preprocess_image_like_inputs` and what it calls must not look at pixel values (they work all the
 * same when they do, on the loop).
 *
 * @example
 * const processor = await AutoImageProcessor.from_pretrained("./vit");
 * const { pixel_values } = await processor("photo.jpg", { return_tensors: "pt" });
 */
export interface BaseImageProcessor {
  // biome-ignore lint/style/useShorthandFunctionType: merged with the class
  (images: ImageInput, options?: ImageCallOptions): Promise<BatchFeature>;
}

// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: the call signature, made by Callable
export abstract class BaseImageProcessor extends Preprocessor {
  static override readonly kind: PreprocessorKind = IMAGE_PROCESSOR;
  static override readonly valid_kwargs: readonly string[] = [
    "do_convert_rgb",
    "do_resize",
    "size",
    "default_to_square",
    "crop_size",
    "resample",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
    "do_pad",
    "pad_size",
    "do_center_crop",
    "data_format",
    "input_data_format",
    "device",
    "return_tensors",
    "disable_grouping",
    "image_seq_length",
  ];
  static override readonly float_kwargs: readonly string[] = ["rescale_factor", "image_mean", "image_std"];
  /** Settings that are sizes; a class adds its own. */
  static readonly size_kwargs: readonly string[] = ["size", "crop_size", "pad_size"];
  /** Inputs beside the images that are loaded as images are, as maps of one channel: `segmentation_maps`. */
  static readonly image_like_inputs: readonly string[] = [];

  static readonly do_convert_rgb: boolean | null = null;
  static readonly do_resize: boolean | null = null;
  static readonly size: SizeInput | null = null;
  static readonly default_to_square: boolean = true;
  static readonly crop_size: SizeInput | null = null;
  static readonly resample: PILImageResampling | null = null;
  static readonly do_rescale: boolean | null = null;
  static readonly rescale_factor: number = 1 / 255;
  static readonly do_normalize: boolean | null = null;
  static readonly image_mean: number | readonly number[] | null = null;
  static readonly image_std: number | readonly number[] | null = null;
  static readonly do_pad: boolean | null = null;
  static readonly pad_size: SizeInput | null = null;
  static readonly do_center_crop: boolean | null = null;
  static readonly model_input_names: readonly string[] = ["pixel_values"];

  declare do_convert_rgb: boolean | null;
  declare do_resize: boolean | null;
  declare size: SizeDict | null;
  declare crop_size: SizeDict | null;
  declare resample: PILImageResampling | null;
  declare do_rescale: boolean | null;
  declare rescale_factor: number | null;
  declare do_normalize: boolean | null;
  declare image_mean: number | readonly number[] | null;
  declare image_std: number | readonly number[] | null;
  declare do_pad: boolean | null;
  declare pad_size: SizeDict | null;
  declare do_center_crop: boolean | null;

  constructor(settings: Settings = {}) {
    super(settings);
    const own = this as unknown as Settings;
    const cls = this.constructor as typeof BaseImageProcessor;
    for (const key of cls.valid_kwargs) {
      // Not a setting of its own in the reference, where it says how `size` is read.
      if (key === "default_to_square") continue;
      own[key] ??= cloneJson(classDefault(cls, key) ?? null);
    }
    Object.assign(own, this._standardize(own));
    delete own.default_to_square;
  }

  /** Names of the model's inputs that this makes. */
  get model_input_names(): readonly string[] {
    return (this.constructor as typeof BaseImageProcessor).model_input_names;
  }

  /** "torchvision" or "pil". */
  abstract get backend(): string;

  // Operations, on tensors [..., channels, height, width] ---------------------------------------------------------------

  abstract resize(image: Tensor, size: SizeDict, options?: PILImageResampling | ResizeOptions | null): Tensor;
  /** The middle of an image, with zeros around it where it is smaller. */
  abstract center_crop(image: Tensor, size: SizeDict): Tensor;
  /** `image * scale`, as float32. */
  abstract rescale(image: Tensor, scale: number): Tensor;
  /** `(image - mean) / std`, per channel. */
  abstract normalize(image: Tensor, mean: Means, std: Means): Tensor;
  /** Pads images on the right and at the bottom to one size. */
  abstract pad(images: readonly Tensor[], options?: PadOptions & { return_mask?: false }): Tensor[];
  abstract pad(
    images: readonly Tensor[],
    options: PadOptions & { return_mask: true },
  ): [images: Tensor[], masks: Tensor[]];
  abstract convert_to_rgb(image: Tensor): Tensor;
  /** An image as given, with its channels first, in the backend's form. */
  abstract process_image(image: Tensor, kwargs: PreparedKwargs): Tensor;
  /** All steps over images with their channels first. */
  abstract _preprocess(images: readonly Tensor[], kwargs: PreparedKwargs): BatchFeature;

  // A call --------------------------------------------------------------------------------------------------------------

  /** What calling the processor does. */
  _call(images: ImageInput, options?: ImageCallOptions): Promise<BatchFeature> {
    return this.preprocess(images, options);
  }

  /**
   * Loads images and prepares them.
   *
   * @throws InvalidArgumentError for an unknown option, and for settings that do not go together; ImageError for what cannot
   * be decoded.
   */
  async preprocess(images: ImageInput, options: ImageCallOptions = {}): Promise<BatchFeature> {
    const { signal, ...given } = options;
    const { image_like_inputs } = this.constructor as typeof BaseImageProcessor;
    const like = image_like_inputs.map((name) => [name, given[name]] as const);
    const kwargs = this._prepare_kwargs(
      Object.fromEntries(Object.entries(given).filter(([key]) => !image_like_inputs.includes(key))),
    );
    const fetched = await this.fetch_images(images, { signal });
    const inputs: Record<string, Tensor[]> = {};
    for (const [name, value] of like) {
      if (value === undefined || value === null) continue;
      inputs[name] = await this.fetch_images(value as ImageInput, { signal, mode: "L", ndim: 2 });
    }
    const all = [...fetched, ...Object.values(inputs).flat()];
    const work = () => this._preprocess_image_like_inputs(fetched, kwargs, inputs);
    return offLoop(this.constructor.name, all, work, signal);
  }

  /** The settings of a call: those given, else the processor's; checked. */
  _prepare_kwargs(given: Settings): PreparedKwargs {
    const { name, valid_kwargs } = this.constructor as typeof BaseImageProcessor;
    const own = this as unknown as Settings;
    const kwargs: Settings = {};
    for (const key of Object.keys(given)) {
      if (!valid_kwargs.includes(key)) {
        throw new InvalidArgumentError(`[${name}] unknown option '${key}'.`, {
          suggestion: suggest(key, valid_kwargs),
        });
      }
    }
    for (const key of valid_kwargs) kwargs[key] = given[key] === undefined ? own[key] : given[key];
    const standard = this._standardize(kwargs) as unknown as PreparedKwargs;
    this._validate_preprocess_kwargs(standard);
    return standard;
  }

  /** Settings in one form: sizes as objects. A class of its own may override it for settings of its own. */
  _standardize(kwargs: Settings): Settings {
    const cls = this.constructor as typeof BaseImageProcessor;
    const standard: Settings = { ...kwargs };
    const default_to_square = (kwargs.default_to_square ?? cls.default_to_square) as boolean;
    for (const key of cls.size_kwargs) {
      const size = kwargs[key];
      if (size === undefined || size === null) continue;
      const options = key === "size" ? { default_to_square, param_name: key } : { param_name: key };
      standard[key] = get_size_dict(size as SizeInput, options);
    }
    return standard;
  }

  /** @throws InvalidArgumentError for values of the wrong kind and for settings without those that they need. */
  _validate_preprocess_kwargs(kwargs: PreparedKwargs): void {
    const { name } = this.constructor;
    const refuse = (text: string) => {
      throw new InvalidArgumentError(`[${name}] ${text}`);
    };
    for (const key of BOOLEANS) {
      const value = kwargs[key];
      if (value !== null && value !== undefined && typeof value !== "boolean")
        refuse(`${key} must be true or false; got ${JSON.stringify(value)}.`);
    }
    for (const key of ["image_mean", "image_std", "rescale_factor"]) {
      const value = kwargs[key] ?? 0;
      const isNumbers = Array.isArray(value) && value.every((item) => typeof item === "number");
      if (typeof value !== "number" && !(isNumbers && key !== "rescale_factor"))
        refuse(`${key} must be ${key === "rescale_factor" ? "a number" : "a number or a list of numbers"}.`);
    }
    if (![null, undefined, ...Object.values(ChannelDimension)].includes(kwargs.input_data_format))
      refuse(`input_data_format must be 'channels_first' or 'channels_last'.`);
    checkTensorType(kwargs.return_tensors);
    const need = (flag: string, ...others: string[]) => {
      const absent = others.filter((key) => (kwargs[key] ?? null) === null);
      if (kwargs[flag] && absent.length > 0) refuse(`${flag} needs ${absent.join(" and ")}.`);
    };
    need("do_rescale", "rescale_factor");
    need("do_normalize", "image_mean", "image_std");
    need("do_center_crop", "crop_size");
    need("do_resize", "size", "resample");
  }

  /** Loads what is not a tensor yet, and makes one flat list of images. */
  async fetch_images(
    images: ImageInput,
    {
      ndim = 3,
      ...options
    }: { signal?: AbortSignal | undefined; mode?: "RGB" | "L"; ndim?: number | undefined } = {},
  ): Promise<Tensor[]> {
    const flat = (Array.isArray(images) ? images.flat() : [images]) as unknown[];
    if (flat.length === 0) throw new InvalidArgumentError("There are no images: the list is empty.");
    for (const item of flat) {
      if (!isImageSource(item))
        throw new InvalidArgumentError(
          `An image is a path, an address, bytes, pixels or a tensor, not ${item === null ? "null" : typeof item}.`,
        );
    }
    const loaded = await Promise.all(flat.map((item) => load_image(item as ImageSource, options)));
    return loaded.flatMap((image) => {
      if (isDecoded(image) || image.ndim === ndim) return [image];
      if (image.ndim === ndim + 1) return image.unbind(0);
      throw new ShapeError(
        `An image has ${ndim} dimensions, a batch ${ndim + 1}; got the shape [${image.shape.join(", ")}].`,
      );
    });
  }

  /** Images, and what else `image_like_inputs` names, into the model's inputs. Overridden where there is more than images. */
  _preprocess_image_like_inputs(
    images: readonly Tensor[],
    kwargs: PreparedKwargs,
    _inputs: Readonly<Record<string, readonly Tensor[]>> = {},
  ): BatchFeature {
    const prepared = images.map((image) => this.process_image(image, kwargs));
    return this._preprocess(prepared, kwargs);
  }

  /** `resize` with the settings of a call; overridden where it takes more of them than `resample`. */
  _resized(image: Tensor, { size, resample }: PreparedKwargs): Tensor {
    return this.resize(image, size as SizeDict, { resample });
  }

  override to_dict(): Settings {
    const dict = super.to_dict();
    for (const [key, value] of Object.entries(dict)) {
      // A null is kept where it says something: where the default is another.
      if (value === null && (classDefault(this.constructor, key) ?? null) === null) delete dict[key];
    }
    return dict;
  }
}

/** The image with its channels first: [height, width] gets one, others are turned where they have them last. */
export function channelsFirst(image: Tensor, format: ChannelDimension | null | undefined): Tensor {
  if (isDecoded(image)) return image;
  if (image.ndim === 2) return image.unsqueeze(0);
  const where = format ?? infer_channel_dimension_format(image, [1, 3, 4]);
  return where === ChannelDimension.LAST ? image.movedim(-1, -3) : image;
}

/** The largest height and width of some images. */
export const largest = (images: readonly Tensor[]): [height: number, width: number] => [
  Math.max(...images.map((image) => image.shape.at(-2) as number)),
  Math.max(...images.map((image) => image.shape.at(-1) as number)),
];

/** Height and width to pad to. */
export function padSize(images: readonly Tensor[], size: SizeDict | null | undefined): [number, number] {
  if (size === null || size === undefined) return largest(images);
  if (!(size.height && size.width))
    throw new InvalidArgumentError(`pad_size must have the keys 'height' and 'width'.`);
  return [size.height, size.width];
}
