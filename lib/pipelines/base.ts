// What all pipelines share: one input, a list or a stream of them goes through preprocessing, the model and postprocessing.
// The work is done off the event loop: the tokenizer's threads, sharp's, and the executor's.

import { InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { isPlain } from "../json/json.ts";
import { type PreTrainedModel, sourceOfForward } from "../modeling/modeling_utils.ts";
import { Callable } from "../processing/callable.ts";
import type { BaseImageProcessor } from "../processing/image/image_processing_utils.ts";
import type { ProcessorMixin } from "../processing/processing_utils.ts";
import type { PreTrainedTokenizerFast } from "../processing/tokenization_utils.ts";
import * as torch from "../torch/index.ts";
import { type Dtype, Tensor } from "../torch/index.ts";
import { collate, splitOutputs } from "./batching.ts";

/** The values that go from one step to the next, by name. */
export type Values = Record<string, unknown>;

/** Options of every call. */
export interface CallOptions {
  /** How many inputs of a list or a stream go through the model together. Default: the pipeline's, which is 1. */
  readonly batch_size?: number | null | undefined;
  /** Ends the work; the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** What a pipeline is made of; `pipeline` loads these. */
export interface PipelineParts {
  readonly model: PreTrainedModel;
  readonly task?: string | undefined;
  readonly tokenizer?: PreTrainedTokenizerFast | undefined;
  readonly image_processor?: BaseImageProcessor | undefined;
  readonly processor?: ProcessorMixin | undefined;
  /** Where the model is moved to. Default: where it is. */
  readonly device?: string | undefined;
  readonly batch_size?: number | null | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Work with weights that were neither loaded nor trained. Default false. */
  readonly allow_uninitialized?: boolean | undefined;
  /** Options of calls, for all calls. */
  readonly [option: string]: unknown;
}

/** The options of a call, sorted by the step that they are for. */
export interface StepParameters {
  readonly preprocess: Values;
  readonly forward: Values;
  readonly postprocess: Values;
}

const PARTS = [
  "model",
  "task",
  "tokenizer",
  "image_processor",
  "processor",
  "device",
  "batch_size",
  "signal",
  "allow_uninitialized",
];

/**
 * Base class of pipelines: objects that are called with inputs. One input gives one result, a list a list, and an iterable
 * (also an async one) an async iterable of results, which takes inputs as its results are asked for.
 *
 * A class of its own says in `_sanitize_parameters` which options it has and in `preprocess`, `_forward` and `postprocess` what
 * it does; `PIPELINE_REGISTRY.register_pipeline` makes it known.
 */
export abstract class Pipeline extends Callable {
  /** Which parts `pipeline` loads for this class. */
  static readonly _load_tokenizer: boolean = false;
  static readonly _load_image_processor: boolean = false;
  static readonly _load_processor: boolean = false;

  readonly task: string;
  readonly model: PreTrainedModel;
  readonly tokenizer: PreTrainedTokenizerFast | undefined;
  readonly image_processor: BaseImageProcessor | undefined;
  readonly processor: ProcessorMixin | undefined;

  readonly #batchSize: number | null | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #options: Values;

  /** @throws UninitializedWeightsError when the model has weights that were neither loaded nor trained. */
  constructor(parts: PipelineParts) {
    super();
    const { model, processor } = parts;
    this.task = parts.task ?? "";
    this.model = model;
    this.processor = processor;
    this.tokenizer = parts.tokenizer ?? processor?.tokenizer;
    this.image_processor = parts.image_processor ?? processor?.image_processor;
    this.#batchSize = parts.batch_size;
    this.#signal = parts.signal;
    this.#options = Object.fromEntries(Object.entries(parts).filter(([key]) => !PARTS.includes(key)));
    if (!(parts.allow_uninitialized ?? false)) model.assert_initialized();
    if (parts.device !== undefined && parts.device !== model.device) {
      if (model.hf_device_map !== undefined && model.hf_device_map !== null)
        throw new InvalidArgumentError(`${this.constructor.name}: the model was placed by a device_map.`, {
          hint: "Leave device out.",
        });
      model.to(parts.device);
    }
    model.eval();
  }

  get device(): string {
    return this.model.device;
  }

  get dtype(): Dtype {
    return this.model.dtype;
  }

  /** Sorts options of the constructor and of calls. @throws InvalidArgumentError for an unknown one. */
  abstract _sanitize_parameters(options: Values): Promise<StepParameters> | StepParameters;
  /** One input as the model takes it, each tensor with a first dimension of 1. */
  abstract preprocess(input: unknown, parameters: Values, signal?: AbortSignal): Promise<Values>;
  /** The model's results for a batch of these. */
  abstract _forward(inputs: Values, parameters: Values, signal?: AbortSignal): Promise<Values | Tensor>;
  /** The result for one input, from its part of the model's results. */
  abstract postprocess(outputs: Values, parameters: Values): Promise<unknown> | unknown;

  /** Whether an input is one although it looks like a list. */
  protected isSingle(input: unknown): boolean {
    return !Array.isArray(input) && !isStream(input);
  }

  /** What calling the pipeline does. */
  _call(inputs: unknown, options: Values & CallOptions = {}): unknown {
    if (this.isSingle(inputs)) return this.#one(inputs, options);
    if (isStream(inputs)) return this.#run(inputs, options);
    return Array.isArray(inputs) ? this.#all(inputs, options) : this.#one(inputs, options);
  }

  async #one(input: unknown, options: Values & CallOptions): Promise<unknown> {
    for await (const result of this.#run([input], { ...options, batch_size: 1 }, true)) return result;
    return undefined;
  }

  async #all(inputs: readonly unknown[], options: Values & CallOptions): Promise<unknown[]> {
    const results: unknown[] = [];
    for await (const result of this.#run(inputs, options)) results.push(result);
    return results;
  }

  /** Results one by one. The next batch is prepared while the model works on this one. */
  async *#run(
    inputs: Iterable<unknown> | AsyncIterable<unknown>,
    { batch_size, signal = this.#signal, ...options }: Values & CallOptions,
    isSingle = false,
  ): AsyncGenerator<unknown, void, void> {
    signal?.throwIfAborted();
    const size = batch_size ?? this.#batchSize ?? 1;
    if (!(Number.isInteger(size) && size >= 1))
      throw new InvalidArgumentError(`batch_size must be a positive integer; got ${size}.`);
    const { preprocess, forward, postprocess } = await this._sanitize_parameters({
      ...this.#options,
      ...options,
    });
    // Python's loader of several inputs draws a number first: with it, what is sampled after a seed is the same.
    if (!isSingle) torch.empty([], { dtype: "int64" }).random_();
    const source = batches(inputs, size);
    const prepare = async (): Promise<Values[] | undefined> => {
      const { done, value } = await source.next();
      if (done) return undefined;
      return Promise.all(value.map((input) => this.preprocess(input, preprocess, signal)));
    };
    let next = prepare();
    try {
      for (let items = await next; items !== undefined; items = await next) {
        next = prepare();
        // Where the model fails first, nobody waits for it.
        next.catch(() => {});
        signal?.throwIfAborted();
        for (const outputs of await this.#forward(items, forward, signal))
          yield await this.postprocess(outputs, postprocess);
      }
    } finally {
      await source.return(undefined);
    }
  }

  async #forward(items: Values[], parameters: Values, signal: AbortSignal | undefined): Promise<Values[]> {
    const inputs =
      items.length === 1 ? (items[0] as Values) : collate(items, this.tokenizer, this.constructor.name);
    const there = toDevice(inputs, this.device) as Values;
    const outputs = await this._forward(there, parameters, signal);
    const here = toDevice(outputs instanceof Tensor ? { logits: outputs } : outputs, "cpu") as Values;
    return items.length === 1 ? [here] : splitOutputs(here, items.length);
  }

  /** Saves the model and what prepares its inputs into a folder. */
  async save_pretrained(directory: string): Promise<void> {
    await this.model.save_pretrained(directory);
    await this.tokenizer?.save_pretrained(directory);
    await this.image_processor?.save_pretrained(directory);
  }

  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return `${this.constructor.name} { model: ${this.model.constructor.name}, dtype: ${this.dtype}, device: ${this.device} }`;
  }
}

/** Something that gives inputs one after the other; not a list, and not one input. */
function isStream(value: unknown): value is Iterable<unknown> | AsyncIterable<unknown> {
  if (typeof value !== "object" || value === null || value instanceof Tensor) return false;
  if (ArrayBuffer.isView(value) || Array.isArray(value)) return false;
  return Symbol.asyncIterator in value || Symbol.iterator in value;
}

/** Groups of `size` entries, the last one as it comes. */
async function* batches(
  inputs: Iterable<unknown> | AsyncIterable<unknown>,
  size: number,
): AsyncGenerator<unknown[], undefined, void> {
  let group: unknown[] = [];
  for await (const input of inputs) {
    group.push(input);
    if (group.length < size) continue;
    yield group;
    group = [];
  }
  if (group.length > 0) yield group;
  return undefined;
}

/** Tensors in lists and objects, moved; everything else as it is. */
function toDevice(value: unknown, device: string): unknown {
  if (value instanceof Tensor) return value.device === device ? value : value.to(device);
  if (Array.isArray(value)) return value.map((item) => toDevice(item, device));
  if (!isPlain(value) && !(value instanceof Object && "to_tuple" in value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, toDevice(item, device)]));
}

/** Refuses options that a pipeline does not have. */
export function checkNames(options: Values, known: readonly string[], name: string): void {
  for (const key of Object.keys(options)) {
    if (known.includes(key)) continue;
    throw new InvalidArgumentError(`[${name}] unknown option '${key}'.`, {
      suggestion: suggest(key, known),
    });
  }
}

/** A parameter that stands for all inputs by name, as users write it. */
const BAGS = /^(inputs|kwargs|args|batch|features|options|data|encoding|model_inputs)$/;

/**
 * Runs a model on named inputs, whatever its `forward` takes. Models of this library take one object. A class of a user says so
 * by `static forward_inputs`, or by taking its first parameter apart (`forward({ pixel_values })`); otherwise the first parameter
 * is a tensor, unless it is called `inputs`, `batch` or the like.
 */
export async function runModel(
  model: PreTrainedModel,
  inputs: Values,
  signal: AbortSignal | undefined,
): Promise<Values | Tensor> {
  const run = model.run as unknown as (
    inputs: unknown,
    options: { signal?: AbortSignal | undefined },
  ) => Promise<Values | Tensor>;
  return run.call(model, takesObject(model) ? inputs : firstTensor(model, inputs), { signal });
}

function takesObject(model: PreTrainedModel): boolean {
  const cls = model.constructor as typeof PreTrainedModel;
  if (cls.forward_inputs !== undefined) return true;
  const first = /\(\s*(\{|[\w$]+|\))/.exec(sourceOfForward(model))?.[1] ?? "";
  return first === "{" || first === ")" || BAGS.test(first);
}

function firstTensor(model: PreTrainedModel, inputs: Values): Tensor {
  const tensors = Object.entries(inputs).filter(([, value]) => value instanceof Tensor);
  if (tensors.length === 1) return tensors[0]?.[1] as Tensor;
  throw new InvalidArgumentError(
    `${model.constructor.name}.forward takes a tensor, but there are several: ${tensors.map(([name]) => name).join(", ")}.`,
    { hint: "Let it take one object, and name its fields in `static forward_inputs`." },
  );
}

/** The device that is meant: -1 is the CPU, a number a CUDA device, none the first CUDA device if there is one. */
export function deviceName(device: string | number | null | undefined): string {
  if (typeof device === "string") return device === "cuda" ? "cuda:0" : device;
  if (typeof device === "number" && device < 0) return "cpu";
  return torch.cuda.is_available() ? `cuda:${device ?? 0}` : "cpu";
}
