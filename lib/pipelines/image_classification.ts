// Pictures to labels.

import { InvalidArgumentError } from "../errors/index.ts";
import { type ImageSource, isImageSource, load_image } from "../processing/image/load_image.ts";
import { is_floating_point, Tensor } from "../torch/index.ts";
import {
  type CallOptions,
  checkNames,
  Pipeline,
  runModel,
  type StepParameters,
  type Values,
} from "./base.ts";

/** What becomes of the model's scores. */
export type ClassificationFunction = "sigmoid" | "softmax" | "none";

export interface ImageClassificationOptions extends CallOptions {
  /** How many labels to give, the likeliest first. Default 5; never more than there are. */
  readonly top_k?: number | null | undefined;
  /** Default: by the kind of problem in the model's configuration; softmax for several labels, sigmoid for one. */
  readonly function_to_apply?: ClassificationFunction | null | undefined;
  /** Seconds that a server has to send an image. */
  readonly timeout?: number | null | undefined;
}

export interface Classification {
  readonly label: string;
  readonly score: number;
}

type Stream<T> = Iterable<T> | AsyncIterable<T>;

/**
 * Names what pictures show. Made by `pipeline("image-classification", model)`.
 *
 * @example
 * const classify = await pipeline("image-classification", "./vit");
 * await classify("photo.jpg", { top_k: 3 }); // [{ label: "macaw", score: 0.442 }, …]
 */
export interface ImageClassificationPipeline {
  (inputs: ImageSource, options?: ImageClassificationOptions): Promise<Classification[]>;
  (inputs: readonly ImageSource[], options?: ImageClassificationOptions): Promise<Classification[][]>;
  (
    inputs: Stream<ImageSource>,
    options?: ImageClassificationOptions,
  ): AsyncGenerator<Classification[], void, void>;
}

const FUNCTIONS = ["sigmoid", "softmax", "none"];
const OPTIONS = ["top_k", "function_to_apply", "timeout"];

// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: the call signatures, made by Callable
export class ImageClassificationPipeline extends Pipeline {
  static override readonly _load_image_processor = true;

  _sanitize_parameters(options: Values): StepParameters {
    checkNames(options, OPTIONS, "image-classification");
    const { top_k, timeout } = options;
    const given = options.function_to_apply;
    const function_to_apply = typeof given === "string" ? given.toLowerCase() : given;
    if (function_to_apply !== undefined && function_to_apply !== null) {
      if (!FUNCTIONS.includes(String(function_to_apply)))
        throw new InvalidArgumentError(
          `function_to_apply must be one of ${FUNCTIONS.join(", ")}; got ${JSON.stringify(given)}.`,
        );
    }
    if (top_k !== undefined && top_k !== null && !(Number.isInteger(top_k) && (top_k as number) >= 0))
      throw new InvalidArgumentError(`top_k must be a whole number; got ${String(top_k)}.`);
    return { preprocess: { timeout }, forward: {}, postprocess: { top_k, function_to_apply } };
  }

  protected override isSingle(input: unknown): boolean {
    return isImageSource(input);
  }

  async preprocess(input: unknown, { timeout }: Values, signal?: AbortSignal): Promise<Values> {
    if (this.image_processor === undefined)
      throw new InvalidArgumentError("image-classification needs an image processor.");
    if (!isImageSource(input))
      throw new InvalidArgumentError(
        `An image is a path, an address, bytes, pixels or a tensor, not ${input === null ? "null" : typeof input}.`,
      );
    const image = await load_image(input, { timeout: timeout as number | undefined, signal });
    const features = await this.image_processor(image, { return_tensors: "pt", signal });
    const { dtype } = this;
    return Object.fromEntries(
      Object.entries(features).map(([name, value]) => [
        name,
        value instanceof Tensor && is_floating_point(value) ? value.to(dtype) : value,
      ]),
    );
  }

  _forward(inputs: Values, _parameters: Values, signal?: AbortSignal): Promise<Values | Tensor> {
    return runModel(this.model, inputs, signal);
  }

  postprocess(outputs: Values, { top_k, function_to_apply }: Values): Classification[] {
    const { logits } = outputs;
    if (!(logits instanceof Tensor))
      throw new InvalidArgumentError(
        `${this.model.constructor.name} gives no logits: it has no head for image-classification.`,
      );
    const { problem_type, num_labels, id2label } = this.model.config;
    const apply =
      (function_to_apply as ClassificationFunction | null | undefined) ??
      (problem_type === "regression"
        ? "none"
        : problem_type === "multi_label_classification" || num_labels === 1
          ? "sigmoid"
          : "softmax");
    const row = logits.select(0, 0);
    const raw = row.dtype === "float64" ? row : row.to("float32");
    const scores = apply === "sigmoid" ? raw.sigmoid() : apply === "softmax" ? raw.softmax(-1) : raw;
    const names = id2label as Readonly<Record<number, string>>;
    const labelled = scores
      .tolist<number[]>()
      .map((score, i) => ({ label: names[i] ?? `LABEL_${i}`, score }));
    labelled.sort((a, b) => b.score - a.score);
    return labelled.slice(0, (top_k as number | null | undefined) ?? 5);
  }
}
