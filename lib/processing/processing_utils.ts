// Processors of several kinds of input: an image processor, a tokenizer and so on, called as one and kept in one folder.
// biome-ignore-all lint/complexity/noThisInStatic: statics are inherited, so the class that was called is meant.

import { mkdir } from "node:fs/promises";
import path from "node:path";
import { readConfigFile } from "../configuration/config_files.ts";
import { ConfigError, InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { writeFileAtomic } from "../hub/atomic.ts";
import { findFile, pin, readText } from "../hub/files.ts";
import { loadingCard } from "../hub/model_card.ts";
import type { Pushable, PushToHubOptions, SaveAndPushOptions } from "../hub/push.ts";
import type { CommitInfo } from "../hub/upload.ts";
import { cloneJson, isPlain, stringifyJson } from "../json/json.ts";
import { BatchFeature, type TensorType } from "./batch_feature.ts";
import { Callable } from "./callable.ts";
import { BaseImageProcessor, type ImageInput } from "./image/image_processing_utils.ts";
import { isRawImage } from "./image/load_image.ts";
import {
  hubOptions,
  PROCESSOR_NAME,
  Preprocessor,
  type PreprocessorLoadOptions,
  type Settings,
} from "./preprocessor.ts";
import { PreTrainedTokenizerFast } from "./tokenization_utils.ts";
import type { Text } from "./tokenizer_backend.ts";
import { CALL_OPTIONS } from "./tokenizer_options.ts";

/** A part of a processor. */
export type ProcessorPart = Preprocessor | PreTrainedTokenizerFast;
/** Names of parts. */
export type PartName = "image_processor" | "tokenizer" | "feature_extractor" | "video_processor";

type PartLoader = (dirOrRepo: string, options: PreprocessorLoadOptions) => Promise<ProcessorPart>;
const loaders = new Map<PartName, PartLoader>();

/** Installed by the Auto classes, which know where the classes of parts are. */
export function setPartLoader(name: PartName, load: PartLoader): void {
  loaders.set(name, load);
}

/** Options of a call; those of a part also in an object of their own, as `images_kwargs`. */
export interface ProcessorCallOptions {
  readonly images?: ImageInput | null | undefined;
  readonly text?: Text | readonly Text[] | null | undefined;
  readonly return_tensors?: TensorType | undefined;
  readonly images_kwargs?: Settings | undefined;
  readonly text_kwargs?: Settings | undefined;
  readonly common_kwargs?: Settings | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly [option: string]: unknown;
}

/** The options of a call, sorted by what they are for. */
export interface MergedKwargs {
  readonly images_kwargs: Settings;
  readonly text_kwargs: Settings;
  /** Those that `own_kwargs` names. */
  readonly own: Settings;
}

/** A class of processors. */
export interface ProcessorClass<P extends ProcessorMixin = ProcessorMixin> {
  new (...parts: never[]): P;
  readonly name: string;
  readonly attributes: readonly PartName[];
  readonly settings: readonly string[];
}

export interface ProcessorMixin {
  (options: ProcessorCallOptions): Promise<BatchFeature>;
  (images: ImageInput | null, options?: ProcessorCallOptions): Promise<BatchFeature>;
  (
    images: ImageInput | null,
    text: Text | readonly Text[] | null,
    options?: ProcessorCallOptions,
  ): Promise<BatchFeature>;
}

/**
 * Base class of processors. A class of its own names its parts in `attributes`; the constructor takes them in that order, and
 * an object of settings and the chat template at the end.
 *
 * @example
 * class MyProcessor extends ProcessorMixin {
 *   static override readonly attributes = ["image_processor", "tokenizer"] as const;
 * }
 * const inputs = await new MyProcessor(imageProcessor, tokenizer)({ images: "photo.jpg", text: "What is this?" });
 */
// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: the call signature, made by Callable
export abstract class ProcessorMixin extends Callable {
  static readonly attributes: readonly PartName[] = [];
  /** Settings of the constructor beside the parts; files have them. */
  static readonly settings: readonly string[] = [];
  /** Options of a call beside those of the parts. */
  static readonly own_kwargs: readonly string[] = [];

  declare image_processor: BaseImageProcessor;
  declare tokenizer: PreTrainedTokenizerFast;
  chat_template: string | Readonly<Record<string, string>> | null;

  constructor(...given: readonly unknown[]) {
    super();
    const { name, attributes, settings } = this.constructor as typeof ProcessorMixin;
    const last = given.at(-1);
    const options = isPlain(last) ? last : {};
    const parts = isPlain(last) ? given.slice(0, -1) : given;
    const named = Object.fromEntries(attributes.map((part, i) => [part, parts[i] ?? options[part]]));
    for (const key of Object.keys(options)) {
      if ([...attributes, ...settings, "chat_template"].includes(key)) continue;
      throw new InvalidArgumentError(`[${name}] unknown option '${key}'.`, {
        suggestion: suggest(key, [...attributes, ...settings]),
      });
    }
    for (const [part, value] of Object.entries(named)) {
      checkPart(name, part as PartName, value);
      (this as unknown as Settings)[part] = value;
    }
    for (const key of settings)
      if (options[key] !== undefined) (this as unknown as Settings)[key] = cloneJson(options[key]);
    this.chat_template = (options.chat_template as string | undefined) ?? null;
  }

  /** Names of the model's inputs that this makes. */
  get model_input_names(): string[] {
    const parts = (this.constructor as typeof ProcessorMixin).attributes.map((name) => this.#part(name));
    return [
      ...new Set(parts.flatMap((part) => (part as { model_input_names?: string[] }).model_input_names ?? [])),
    ];
  }

  #part(name: PartName): ProcessorPart {
    return (this as unknown as Record<PartName, ProcessorPart>)[name];
  }

  // Calls ---------------------------------------------------------------------------------------------------------------

  /** What calling the processor does: its parts' results, together. */
  async _call(first?: unknown, second?: unknown, third?: unknown): Promise<BatchFeature> {
    const { images, text, ...options } = callOptions([first, second, third]);
    if ((images ?? null) === null && (text ?? null) === null)
      throw new InvalidArgumentError(`${this.constructor.name} needs images or text.`);
    const { images_kwargs, text_kwargs } = this._merge_kwargs(options);
    const data: Settings = {};
    if (text !== undefined && text !== null && this.tokenizer !== undefined)
      Object.assign(data, {
        ...(await this.tokenizer(text, { ...text_kwargs } as { return_tensors: "pt" })),
      });
    if (images !== undefined && images !== null && this.image_processor !== undefined)
      Object.assign(data, { ...(await this.image_processor(images, images_kwargs)) });
    return new BatchFeature(data);
  }

  /** Sorts the options of a call by the part that they are for. @throws InvalidArgumentError for one that is for none. */
  _merge_kwargs(options: Settings): MergedKwargs {
    const { name, attributes, own_kwargs } = this.constructor as typeof ProcessorMixin;
    const { images_kwargs = {}, text_kwargs = {}, common_kwargs = {}, ...flat } = options;
    const image = this.image_processor?.constructor as typeof BaseImageProcessor | undefined;
    const forImages =
      image === undefined ? [] : [...image.valid_kwargs, ...image.image_like_inputs, "signal"];
    const forText: readonly string[] = attributes.includes("tokenizer") ? CALL_OPTIONS : [];
    const merged = { images_kwargs: {} as Settings, text_kwargs: {} as Settings, own: {} as Settings };
    for (const [key, value] of Object.entries({ ...(common_kwargs as Settings), ...flat })) {
      if (value === undefined) continue;
      if (own_kwargs.includes(key)) merged.own[key] = value;
      else if (forImages.includes(key) || forText.includes(key)) {
        if (forImages.includes(key)) merged.images_kwargs[key] = value;
        if (forText.includes(key)) merged.text_kwargs[key] = value;
      } else if (key !== "signal") {
        throw new InvalidArgumentError(`[${name}] unknown option '${key}'.`, {
          suggestion: suggest(key, [...own_kwargs, ...forImages, ...forText]),
        });
      }
    }
    Object.assign(merged.images_kwargs, images_kwargs);
    Object.assign(merged.text_kwargs, text_kwargs);
    return merged;
  }

  // Files ---------------------------------------------------------------------------------------------------------------

  /**
   * Loads all parts of a processor, and its settings from processor_config.json, of a directory or a repository on the hub.
   *
   * @example const processor = await SamProcessor.from_pretrained("./sam");
   */
  static async from_pretrained<P extends ProcessorMixin>(
    this: ProcessorClass<P>,
    dirOrRepo: string,
    options: PreprocessorLoadOptions = {},
  ): Promise<P> {
    const { name, options: pinned } = await pin(dirOrRepo, options);
    const hub = hubOptions(pinned);
    const parts: ProcessorPart[] = [];
    for (const part of this.attributes) {
      const load = loaders.get(part);
      if (load === undefined)
        throw new InvalidArgumentError(`${this.name} has a part '${part}', which nothing loads.`);
      parts.push(await load(name, (part === "tokenizer" ? hub : pinned) as PreprocessorLoadOptions));
    }
    const file = await findFile(name, PROCESSOR_NAME, hub);
    const dict = file === undefined ? {} : await readConfigFile(file);
    const settings = this.settings.filter((key) => dict[key] !== undefined && dict[key] !== null);
    const own = Object.fromEntries(settings.map((key) => [key, dict[key]]));
    const template = await findFile(name, "chat_template.jinja", hub);
    const tokenizer = parts[this.attributes.indexOf("tokenizer")] as PreTrainedTokenizerFast | undefined;
    const chat_template =
      tokenizer?.chat_template ?? (template === undefined ? dict.chat_template : await readText(template));
    const make = this as unknown as new (...given: unknown[]) => P;
    return new make(...parts, { ...own, chat_template: chat_template ?? null });
  }

  /** Settings, those of the parts but the tokenizer's among them, as processor_config.json has them. */
  to_dict(): Settings {
    const { attributes, settings } = this.constructor as typeof ProcessorMixin;
    const dict: Settings = {};
    for (const key of settings) {
      const value = (this as unknown as Settings)[key];
      if (value !== undefined) dict[key] = cloneJson(value);
    }
    for (const name of attributes) {
      const part = this.#part(name);
      if (part instanceof Preprocessor) dict[name] = part.to_dict();
    }
    dict.processor_class = this.constructor.name;
    return dict;
  }

  /** The text of processor_config.json, byte for byte as the reference writes it. */
  to_json_string(): string {
    return `${stringifyJson(this.to_dict())}\n`;
  }

  /**
   * Writes processor_config.json and the tokenizer's files into `directory`, which is made if need be; the reference loads them.
   * Resolves to the path of processor_config.json.
   */
  async save_pretrained(directory: string, options: SaveAndPushOptions = {}): Promise<string[]> {
    if (options.push_to_hub === true) {
      const { saveAndPush } = await import("../hub/push.ts");
      await saveAndPush(this.#pushable(), directory, options);
    } else await this.#write(directory);
    return [path.join(directory, PROCESSOR_NAME)];
  }

  /** Sends all files to the hub, into a repository that is made if need be. Resolves to the commit. */
  async push_to_hub(repo_id: string, options: PushToHubOptions = {}): Promise<CommitInfo> {
    const { pushToHub } = await import("../hub/push.ts");
    return pushToHub(this.#pushable(), repo_id, options);
  }

  async #write(directory: string): Promise<void> {
    await mkdir(directory, { recursive: true });
    await this.tokenizer?.save_pretrained(directory);
    if (this.tokenizer === undefined && this.chat_template !== null) {
      if (typeof this.chat_template !== "string")
        throw new ConfigError("Several chat templates belong to a tokenizer; this processor has none.");
      await writeFileAtomic(path.join(directory, "chat_template.jinja"), this.chat_template);
    }
    await writeFileAtomic(path.join(directory, PROCESSOR_NAME), this.to_json_string());
  }

  #pushable(): Pushable {
    const { name } = this.constructor;
    return {
      name: "processor",
      save: (folder) => this.#write(folder),
      card: loadingCard(`A processor (\`${name}\`).`, "AutoProcessor", "processor"),
    };
  }

  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return `${this.constructor.name} ${this.to_json_string()}`;
  }
}

function checkPart(owner: string, part: PartName, value: unknown): void {
  const isRight =
    part === "tokenizer"
      ? value instanceof PreTrainedTokenizerFast
      : part === "image_processor"
        ? value instanceof BaseImageProcessor
        : value instanceof Preprocessor;
  if (isRight) return;
  const got =
    typeof value === "function" || typeof value === "object" ? value?.constructor.name : typeof value;
  throw new InvalidArgumentError(`${owner} needs a ${part.replace("_", " ")}; got ${got ?? "null"}.`);
}

/** `(images, text, options)`, `(images, options)` and `(options)` are the same. */
export function callOptions(given: readonly unknown[]): ProcessorCallOptions {
  const isOptions = (value: unknown) => isPlain(value) && !isRawImage(value);
  const at = given.findIndex(isOptions);
  const positional = at < 0 ? given : given.slice(0, at);
  const options = (at < 0 ? {} : given[at]) as ProcessorCallOptions;
  const [images, text] = positional;
  for (const [name, value] of Object.entries({ images, text })) {
    if ((value ?? null) !== null && options[name] !== undefined)
      throw new InvalidArgumentError(`'${name}' is given twice: as an argument and in the options.`);
  }
  return {
    ...options,
    images: (images as ImageInput | undefined) ?? options.images,
    text: (text as Text | undefined) ?? options.text,
  };
}
