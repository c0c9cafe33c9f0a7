// pipeline(task, model): everything that a task needs, loaded and ready to be called.

import type { AutoModelClass } from "../auto/auto_factory.ts";
import { AutoModelForCausalLM, AutoModelForImageClassification } from "../auto/modeling_auto.ts";
import { AutoImageProcessor, AutoProcessor, type AutoProcessorOptions } from "../auto/processing_auto.ts";
import { AutoTokenizer } from "../auto/tokenization_auto.ts";
import type { PretrainedConfig } from "../configuration/index.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { warn } from "../errors/warnings.ts";
import { HUB_OPTIONS, type HubOptions, pin } from "../hub/files.ts";
import { isPlain } from "../json/json.ts";
import type { FromPretrainedOptions } from "../modeling/from_pretrained.ts";
import { PreTrainedModel } from "../modeling/modeling_utils.ts";
import { BaseImageProcessor } from "../processing/image/image_processing_utils.ts";
import { ProcessorMixin } from "../processing/processing_utils.ts";
import { PreTrainedTokenizerFast } from "../processing/tokenization_utils.ts";
import type { TokenizerLoadOptions } from "../processing/tokenizer_options.ts";
import type { Dtype } from "../torch/index.ts";
import { deviceName, Pipeline, type PipelineParts, type Values } from "./base.ts";
import { ImageClassificationPipeline } from "./image_classification.ts";
import { TextGenerationPipeline } from "./text_generation.ts";

export { type CallOptions, Pipeline, type PipelineParts, type StepParameters } from "./base.ts";
export {
  type Classification,
  type ClassificationFunction,
  type ImageClassificationOptions,
  ImageClassificationPipeline,
} from "./image_classification.ts";
export {
  type GeneratedChat,
  type GeneratedIds,
  type GeneratedText,
  type TextGenerationOptions,
  TextGenerationPipeline,
} from "./text_generation.ts";

/** Task → what `pipeline(task)` gives. A program that registers a task adds it here by declaration merging. */
export interface PipelineTasks {
  "text-generation": TextGenerationPipeline;
  "image-classification": ImageClassificationPipeline;
}

/** How the parts are loaded, and options of the pipeline's calls, for all calls. */
export interface PipelineOptions extends HubOptions {
  /** A loaded model, a directory or a repository; may also be the second argument. */
  readonly model?: string | PreTrainedModel | undefined;
  readonly config?: PretrainedConfig | undefined;
  /** Default: the model's own. */
  readonly tokenizer?: string | PreTrainedTokenizerFast | undefined;
  readonly image_processor?: string | BaseImageProcessor | undefined;
  readonly processor?: string | ProcessorMixin | undefined;
  /** "cpu", "cuda:1", a number of a CUDA device, -1 for the CPU. Default: the first CUDA device if there is one. */
  readonly device?: string | number | null | undefined;
  /** Instead of `device`: as of `from_pretrained`. */
  readonly device_map?: FromPretrainedOptions["device_map"];
  /** Default "auto": as the weights are stored. */
  readonly dtype?: Dtype | "auto" | null | undefined;
  /** The older name of `dtype`. */
  readonly torch_dtype?: Dtype | "auto" | null | undefined;
  readonly trust_remote_code?: boolean | null | undefined;
  readonly use_fast?: boolean | undefined;
  /** More options of the model's `from_pretrained`. */
  readonly model_kwargs?: Readonly<Record<string, unknown>> | undefined;
  readonly pipeline_class?: PipelineClass | undefined;
  /** How many inputs of a list go through the model together. Default 1. */
  readonly batch_size?: number | null | undefined;
  /** Work with weights that were neither loaded nor trained. Default false. */
  readonly allow_uninitialized?: boolean | undefined;
  readonly [option: string]: unknown;
}

/** A class of pipelines. */
export interface PipelineClass {
  new (parts: PipelineParts): Pipeline;
  readonly name: string;
  readonly _load_tokenizer: boolean;
  readonly _load_image_processor: boolean;
  readonly _load_processor: boolean;
}

/** A class that loads the model of a task. */
type LoadsModels = Pick<AutoModelClass<PreTrainedModel>, "from_pretrained"> & { readonly name: string };

export interface TaskImplementation {
  readonly impl: PipelineClass;
  /** Tried one after the other. */
  readonly pt: readonly LoadsModels[];
}

/** The tasks that there are. */
export class PipelineRegistry {
  readonly #tasks: Map<string, TaskImplementation>;

  constructor(tasks: Readonly<Record<string, TaskImplementation>>) {
    this.#tasks = new Map(Object.entries(tasks));
  }

  get_supported_tasks(): string[] {
    return [...this.#tasks.keys()].sort();
  }

  /** @throws InvalidArgumentError for a task that is not known. */
  check_task(task: string): TaskImplementation {
    const found = this.#tasks.get(task);
    if (found !== undefined) return found;
    const known = this.get_supported_tasks();
    throw new InvalidArgumentError(`pipeline: the task '${task}' is not known.`, {
      suggestion: suggest(task, known),
      hint: `Known: ${known.join(", ")}. A task of your own: PIPELINE_REGISTRY.register_pipeline("${task}", { … }).`,
    });
  }

  /**
   * Makes a task known; one that is known already is replaced, with a warning.
   *
   * @example
   * PIPELINE_REGISTRY.register_pipeline("pair-classification", {
   *   pipeline_class: PairClassificationPipeline,
   *   pt_model: AutoModelForSequenceClassification,
   * });
   */
  register_pipeline(
    task: string,
    {
      pipeline_class,
      pt_model,
    }: { readonly pipeline_class: PipelineClass; readonly pt_model: LoadsModels | readonly LoadsModels[] },
  ): void {
    if (this.#tasks.has(task)) warn(`The task '${task}' is registered already; its pipeline is replaced.`);
    if (!(pipeline_class?.prototype instanceof Pipeline))
      throw new InvalidArgumentError(`register_pipeline: the class for '${task}' must extend Pipeline.`);
    const pt = Array.isArray(pt_model) ? pt_model : [pt_model as LoadsModels];
    this.#tasks.set(task, { impl: pipeline_class, pt });
  }
}

/** The tasks of `pipeline`. */
export const PIPELINE_REGISTRY: PipelineRegistry = new PipelineRegistry({
  "text-generation": { impl: TextGenerationPipeline, pt: [AutoModelForCausalLM] },
  "image-classification": { impl: ImageClassificationPipeline, pt: [AutoModelForImageClassification] },
});

const LOADING = [
  "model",
  "config",
  "tokenizer",
  "image_processor",
  "processor",
  "device",
  "device_map",
  "dtype",
  "torch_dtype",
  "trust_remote_code",
  "use_fast",
  "model_kwargs",
  "pipeline_class",
  ...HUB_OPTIONS.filter((name) => name !== "signal"),
];

/**
 * Loads a model with what prepares its inputs, for a task. The result is called with inputs; its work does not hold the event
 * loop.
 *
 * @param task "text-generation", "image-classification", or one that a program registered
 * @param model a directory, a repository on the hub, or a loaded model
 * @throws UninitializedWeightsError when the checkpoint lacks weights that the task needs; `allow_uninitialized: true`
 * @throws InvalidArgumentError for an unknown task or option; the signal's reason on abort
 * @example
 * const classify = await pipeline("image-classification", "./resnet", { device: "cuda:0", dtype: "bfloat16" });
 * const [best] = await classify("photo.jpg");
 */
export function pipeline<T extends keyof PipelineTasks>(
  task: T,
  model: string | PreTrainedModel,
  options?: PipelineOptions,
): Promise<PipelineTasks[T]>;
export function pipeline<T extends keyof PipelineTasks>(
  task: T,
  options: PipelineOptions,
): Promise<PipelineTasks[T]>;
export function pipeline(
  task: string,
  model: string | PreTrainedModel | PipelineOptions,
  options?: PipelineOptions,
): Promise<Pipeline>;
export async function pipeline(
  task: string,
  given?: string | PreTrainedModel | PipelineOptions,
  given_options: PipelineOptions = {},
): Promise<Pipeline> {
  const isOptions = isPlain(given);
  const options = isOptions ? (given as PipelineOptions) : given_options;
  const model = (isOptions ? options.model : given) as string | PreTrainedModel | undefined;
  const { impl, pt } = PIPELINE_REGISTRY.check_task(task);
  const Class = options.pipeline_class ?? impl;
  if (typeof model !== "string" && !(model instanceof PreTrainedModel)) {
    throw new InvalidArgumentError(
      `pipeline("${task}") needs a model: a directory, a repository or a model.`,
      {
        hint: `pipeline("${task}", "./my-model")`,
      },
    );
  }
  options.signal?.throwIfAborted();
  const parts: Parts & { readonly model: PreTrainedModel } =
    typeof model === "string"
      ? await loadAll(task, model, Class, pt, options)
      : { model, ...(await loadParts(undefined, Class, options)) };
  const own: Values = Object.fromEntries(
    Object.entries(options).filter(([key, value]) => !LOADING.includes(key) && value !== undefined),
  );
  const isPlaced = parts.model.hf_device_map !== undefined && options.device == null;
  const device = typeof model === "string" || isPlaced ? undefined : deviceName(options.device);
  return new Class({ ...own, ...parts, task, device });
}

/** The model and its parts, side by side and from one commit. */
async function loadAll(
  task: string,
  source: string,
  Class: PipelineClass,
  classes: readonly LoadsModels[],
  options: PipelineOptions,
): Promise<Parts & { readonly model: PreTrainedModel }> {
  const { device, device_map, dtype, torch_dtype, config, trust_remote_code, model_kwargs } = options;
  if (device_map !== undefined && device !== undefined && device !== null)
    throw new InvalidArgumentError("pipeline: device and device_map cannot be given together.");
  const { name, options: pinned } = await pin(source, options);
  const hub = hubOf(pinned);
  const loading = loadParts(name, Class, { ...pinned, model: undefined });
  loading.catch(() => {}); // where both fail, it is the model's error that helps
  const load: Record<string, unknown> = {
    ...hub,
    dtype: dtype ?? torch_dtype ?? "auto",
    device_map: device_map ?? deviceName(device),
    ...model_kwargs,
  };
  if (config !== undefined) load.config = config;
  if (trust_remote_code !== undefined && trust_remote_code !== null)
    load.trust_remote_code = trust_remote_code;
  let failure: unknown;
  for (const auto of classes) {
    try {
      const model = await auto.from_pretrained(name, load as FromPretrainedOptions);
      return { model, ...(await loading) };
    } catch (error) {
      failure ??= error;
    }
  }
  throw failure ?? new InvalidArgumentError(`pipeline: no class loads models for '${task}'.`);
}

const hubOf = (options: HubOptions): HubOptions =>
  Object.fromEntries(HUB_OPTIONS.flatMap((key) => (options[key] === undefined ? [] : [[key, options[key]]])));

type Parts = Pick<PipelineParts, "tokenizer" | "image_processor" | "processor">;

/** What a class of pipelines wants beside the model: as given, from where the options say, or from the model's place. */
async function loadParts(
  name: string | undefined,
  Class: PipelineClass,
  options: PipelineOptions,
): Promise<Parts> {
  const { trust_remote_code } = options;
  const hub = { ...hubOf(options), ...(trust_remote_code == null ? {} : { trust_remote_code }) };
  const part = async <T extends object>(
    given: unknown,
    wanted: boolean,
    is: (value: unknown) => value is T,
    load: (from: string) => Promise<T>,
  ): Promise<T | undefined> => {
    if (is(given)) return given;
    if (typeof given === "string") return load(given);
    return wanted && name !== undefined ? load(name) : undefined;
  };
  const [tokenizer, image_processor, processor] = await Promise.all([
    part(
      options.tokenizer,
      Class._load_tokenizer && options.processor === undefined,
      (value) => value instanceof PreTrainedTokenizerFast,
      (from) => AutoTokenizer.from_pretrained(from, hub as TokenizerLoadOptions),
    ),
    part(
      options.image_processor,
      Class._load_image_processor && options.processor === undefined,
      (value) => value instanceof BaseImageProcessor,
      (from) =>
        AutoImageProcessor.from_pretrained(from, {
          ...hub,
          ...(options.config === undefined ? {} : { config: options.config }),
          ...(options.use_fast === undefined ? {} : { use_fast: options.use_fast }),
        } as AutoProcessorOptions),
    ),
    part(
      options.processor,
      Class._load_processor,
      (value) => value instanceof ProcessorMixin,
      async (from) => {
        const found = await AutoProcessor.from_pretrained(from, hub as AutoProcessorOptions);
        if (found instanceof ProcessorMixin) return found;
        throw new InvalidArgumentError(`'${from}' has no processor, only a ${found.constructor.name}.`);
      },
    ),
  ]);
  return { tokenizer, image_processor, processor };
}
