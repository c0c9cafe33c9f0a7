// The processor of SAM: an image with the points and boxes that say what to cut out, in the model's coordinates.
import { InvalidArgumentError, ShapeError } from "../../errors/index.ts";
import type { BatchFeature } from "../../processing/batch_feature.ts";
import { callOptions, type ProcessorCallOptions, ProcessorMixin } from "../../processing/processing_utils.ts";
import { Tensor, tensor } from "../../torch/index.ts";
import {
  type PostProcessMasksOptions,
  preprocessShape,
  type SamImageProcessor,
} from "./image_processing_sam.ts";

type Point = [x: number, y: number];
type Box = [x1: number, y1: number, x2: number, y2: number];
type Nest<T> = T | readonly Nest<T>[];

export interface SamCallOptions extends ProcessorCallOptions {
  /** Maps of labels, [height, width] per image. */
  readonly segmentation_maps?: unknown;
  /** Points [image][object][point] = [x, y], or [image][point], in pixels of the image. */
  readonly input_points?: Nest<number> | Tensor | null | undefined;
  /** For each point 1 (belongs to it) or 0 (does not). */
  readonly input_labels?: Nest<number> | Tensor | null | undefined;
  /** Boxes [image][box] = [x1, y1, x2, y2]. */
  readonly input_boxes?: Nest<number> | Tensor | null | undefined;
  /** What fills up shorter lists of points. Default -10. */
  readonly point_pad_value?: number | null | undefined;
}

const PROMPTS = ["input_points", "input_labels", "input_boxes"];

/**
 * Prepares images and prompts for a SamModel.
 *
 * @example
 * const inputs = await processor("photo.jpg", { input_points: [[[450, 600]]], return_tensors: "pt" });
 * const { pred_masks } = await model.run({ ...inputs });
 */
export interface SamProcessor {
  (options: SamCallOptions): Promise<BatchFeature>;
  (images: Parameters<SamImageProcessor>[0], options?: SamCallOptions): Promise<BatchFeature>;
}

// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: the call signature, made by Callable
export class SamProcessor extends ProcessorMixin {
  static override readonly attributes = ["image_processor"] as const;
  static override readonly own_kwargs = [...PROMPTS, "point_pad_value"];
  static readonly point_pad_value: number = -10;

  declare image_processor: SamImageProcessor;

  /** The longer edge that images are resized to. */
  get target_size(): number {
    return this.image_processor.size?.longest_edge as number;
  }

  override get model_input_names(): string[] {
    return [...this.image_processor.model_input_names, "original_sizes", "reshaped_input_sizes"];
  }

  override async _call(first?: unknown, second?: unknown, third?: unknown): Promise<BatchFeature> {
    const { images, text: _, ...options } = callOptions([first, second, third]);
    if (images === undefined || images === null) throw new InvalidArgumentError("SamProcessor needs images.");
    const { images_kwargs, own } = this._merge_kwargs(options);
    const points = nested(own.input_points, 3, "input_points");
    const labels = nested(own.input_labels, 2, "input_labels");
    const boxes = nested(own.input_boxes, 3, "input_boxes");

    const features = await this.image_processor(images, images_kwargs);
    const sizes = features.original_sizes;
    const original = sizes instanceof Tensor ? sizes.tolist<Point[]>() : (sizes as Point[]);
    const asTensors = images_kwargs.return_tensors === "pt";
    const put = (name: string, values: unknown[] | undefined, ndim: number, dtype: "float64" | "int64") => {
      if (values === undefined) return;
      const made = tensor(values as number[], { dtype });
      features[name] = !asTensors ? values : made.ndim === ndim ? made : made.unsqueeze(1);
    };
    const scaled = points && this.#scale(points, original, false);
    if (scaled && labels) padPoints(scaled, labels, (own.point_pad_value as number | undefined) ?? -10);
    put("input_boxes", boxes && this.#scale(boxes, original, true), 3, "float64");
    put("input_points", scaled, 4, "float64");
    put("input_labels", labels, 3, "int64");
    return features;
  }

  /** Coordinates of each image's nest, in the resized image; of the first image for all when the numbers differ. */
  #scale(values: unknown[], original: readonly Point[], areBoxes: boolean): unknown[] {
    return values.map((nest, i) => {
      const size = original[original.length === values.length ? i : 0] as Point;
      const [height, width] = preprocessShape(size, this.target_size);
      const ratio: Point = [width / size[1], height / size[0]];
      return areBoxes ? boxesOf(nest).map((box) => scaleBox(box, ratio)) : scalePoints(nest, ratio);
    });
  }

  /** As of the image processor. */
  post_process_masks(
    masks: Tensor | readonly Tensor[],
    original_sizes: Parameters<SamImageProcessor["post_process_masks"]>[1],
    reshaped_input_sizes: Parameters<SamImageProcessor["post_process_masks"]>[2],
    options: PostProcessMasksOptions = {},
  ): Tensor[] {
    return this.image_processor.post_process_masks(masks, original_sizes, reshaped_input_sizes, options);
  }
}

/** A prompt as nested lists, copied; at least `depth` of them around each number. */
function nested(value: unknown, depth: number, name: string): unknown[] | undefined {
  if (value === undefined || value === null) return undefined;
  const lists = value instanceof Tensor ? value.tolist() : structuredClone(value);
  let level: unknown = lists;
  for (let i = 0; i < depth; i++) {
    if (!Array.isArray(level) || level.length === 0)
      throw new InvalidArgumentError(
        `${name} must be lists in lists, ${depth} or more deep, the first of them one per image; see SamCallOptions.`,
      );
    level = level[0];
  }
  return lists as unknown[];
}

function scalePoints(nest: unknown, ratio: Point): unknown {
  const list = nest as unknown[];
  if (Array.isArray(list[0])) return list.map((item) => scalePoints(item, ratio));
  if (list.length !== 2 || !list.every((value) => typeof value === "number"))
    throw new ShapeError(`A point is [x, y]; got ${JSON.stringify(nest)}.`);
  return [(list[0] as number) * ratio[0], (list[1] as number) * ratio[1]];
}

/** All boxes of an image, whatever lists they are in. */
function boxesOf(nest: unknown): Box[] {
  const flat = (nest as number[][]).flat(Number.POSITIVE_INFINITY) as number[];
  if (flat.length % 4 !== 0) throw new ShapeError(`A box is [x1, y1, x2, y2]; got ${JSON.stringify(nest)}.`);
  return Array.from({ length: flat.length / 4 }, (_, i) => flat.slice(4 * i, 4 * i + 4) as Box);
}

/** Boxes are kept in single precision before they are scaled, as in the reference. */
const scaleBox = (box: Box, [x, y]: Point): number[] =>
  box.map((value, i) => Math.fround(value) * (i % 2 === 0 ? x : y));

/** Makes the images' lists of points equally long, where they are no deeper than [image][point]. */
function padPoints(points: unknown[], labels: unknown[], pad: number): void {
  const longest = Math.max(...points.map((list) => (list as unknown[]).length));
  for (const [i, list] of points.entries()) {
    const short = list as unknown[];
    const missing = longest - short.length;
    if (missing === 0) continue;
    if (typeof (short[0] as unknown[])[0] !== "number")
      throw new ShapeError("Images have different numbers of objects: their points make no batch.");
    for (let k = 0; k < missing; k++) short.push([pad, pad]);
    (labels[i] as unknown[]).push(...new Array<number>(missing).fill(pad));
  }
}
