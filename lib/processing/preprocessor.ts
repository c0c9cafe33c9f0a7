// What processors of images, sound and video have in common: settings that are read from and written to JSON files, byte for
// byte as the reference writes them.
// biome-ignore-all lint/complexity/noThisInStatic: statics are inherited, so the class that was called is meant.

import { mkdir } from "node:fs/promises";
import path from "node:path";
import { readConfigFile } from "../configuration/config_files.ts";
import { EntryNotFoundError, InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { writeFileAtomic } from "../hub/atomic.ts";
import { findFile, HUB_OPTIONS, type HubOptions, kindOf, pin } from "../hub/files.ts";
import { loadingCard } from "../hub/model_card.ts";
import type { Pushable, PushToHubOptions, SaveAndPushOptions } from "../hub/push.ts";
import type { CommitInfo } from "../hub/upload.ts";
import {
  cloneJson,
  isParsed,
  isRecord,
  markFloat,
  markFloats,
  numberForm,
  put,
  setNumberForm,
  stringifyJson,
} from "../json/json.ts";
import { Callable } from "./callable.ts";

/** Settings of a combined processor, those of its parts among them. */
export const PROCESSOR_NAME = "processor_config.json";
export const IMAGE_PROCESSOR_NAME = "preprocessor_config.json";
export const VIDEO_PROCESSOR_NAME = "video_preprocessor_config.json";

/** Where a kind of processor keeps its settings. */
export interface PreprocessorKind {
  /** For messages: "image processor". */
  readonly what: string;
  /** Files that may hold the settings, the first is the one that is written. */
  readonly files: readonly string[];
  /** The field of these that names the class. */
  readonly type: string;
  /** The field of processor_config.json that holds the settings. */
  readonly part: string;
  readonly auto: string;
}

export const IMAGE_PROCESSOR: PreprocessorKind = {
  what: "image processor",
  files: [IMAGE_PROCESSOR_NAME],
  type: "image_processor_type",
  part: "image_processor",
  auto: "AutoImageProcessor",
};

export const FEATURE_EXTRACTOR: PreprocessorKind = {
  what: "feature extractor",
  files: [IMAGE_PROCESSOR_NAME],
  type: "feature_extractor_type",
  part: "feature_extractor",
  auto: "AutoFeatureExtractor",
};

export const VIDEO_PROCESSOR: PreprocessorKind = {
  what: "video processor",
  files: [VIDEO_PROCESSOR_NAME, IMAGE_PROCESSOR_NAME],
  type: "video_processor_type",
  part: "video_processor",
  auto: "AutoVideoProcessor",
};

export type Settings = Record<string, unknown>;

/** Options of `from_pretrained`; every other one overrides a setting. */
export interface PreprocessorLoadOptions extends HubOptions {
  /** Also resolve to the options that are no settings, instead of refusing them. Default false. */
  readonly return_unused_kwargs?: boolean | undefined;
  /** The file that holds the settings. Default: preprocessor_config.json. */
  readonly image_processor_filename?: string | undefined;
  readonly trust_remote_code?: boolean | null | undefined;
  readonly [setting: string]: unknown;
}

const LOAD_OPTIONS: readonly string[] = [
  ...HUB_OPTIONS,
  "return_unused_kwargs",
  "image_processor_filename",
  "trust_remote_code",
];

/** The options that say where files are. */
export const hubOptions = (options: HubOptions): HubOptions =>
  Object.fromEntries(
    HUB_OPTIONS.flatMap((key) => (options[key] === undefined ? [] : [[key, options[key]]])),
  ) as HubOptions;

/**
 * The settings of a kind of processor, undefined when a checkpoint has none. Those inside processor_config.json come first.
 * `dirOrRepo` may also be the file itself.
 */
export async function readSettings(
  dirOrRepo: string,
  kind: PreprocessorKind,
  options: HubOptions & { readonly filename?: string | undefined } = {},
): Promise<{ readonly settings: Settings; readonly file: string } | undefined> {
  const { filename, ...hub } = options;
  if ((await kindOf(dirOrRepo)) === "file")
    return { settings: await readConfigFile(dirOrRepo), file: dirOrRepo };
  const combined = await findFile(dirOrRepo, PROCESSOR_NAME, hub);
  if (combined !== undefined) {
    const part = (await readConfigFile(combined))[kind.part];
    if (isRecord(part)) return { settings: part, file: combined };
  }
  for (const name of filename === undefined ? kind.files : [filename]) {
    const file = await findFile(dirOrRepo, name, hub);
    if (file !== undefined) return { settings: await readConfigFile(file), file };
  }
  return undefined;
}

/** The error for a checkpoint without settings. */
export const noSettings = (dirOrRepo: string, kind: PreprocessorKind): Error =>
  new EntryNotFoundError(
    `'${dirOrRepo}' has no ${kind.what}: neither ${kind.files[0]} nor '${kind.part}' in ${PROCESSOR_NAME}.`,
  );

/** A class of processors: its settings' names, and their defaults as statics of the same names. */
export interface PreprocessorClass<P extends Preprocessor = Preprocessor> {
  new (settings: Settings): P;
  readonly name: string;
  readonly kind: PreprocessorKind;
  readonly valid_kwargs: readonly string[];
}

/** Statics that every function has are no defaults. */
const NO_DEFAULTS = ["name", "length", "prototype", "kind", "valid_kwargs", "float_kwargs"];

/** The static of a class or of those it extends; undefined where none has it. */
export function classDefault(cls: object, name: string): unknown {
  if (NO_DEFAULTS.includes(name)) return undefined;
  for (let c: object | null = cls; c !== null && c !== Function.prototype; c = Object.getPrototypeOf(c)) {
    if (Object.hasOwn(c, name)) return (c as Settings)[name];
  }
  return undefined;
}

/**
 * Base class of processors. All settings are own enumerable fields; so are those of a file that no class knows. Defaults are
 * statics: `static resample = PILImageResampling.BICUBIC`.
 */
export abstract class Preprocessor extends Callable {
  static readonly kind: PreprocessorKind = FEATURE_EXTRACTOR;
  /** The names of the settings, which calls may override too. */
  static readonly valid_kwargs: readonly string[] = [];
  /** Settings that are floats to Python even when they are whole: `1` is written as `1.0`. */
  static readonly float_kwargs: readonly string[] = [];

  constructor(settings: Settings = {}) {
    super();
    const { feature_extractor_type, image_processor_type, video_processor_type, processor_class, ...rest } =
      settings;
    const floats = (this.constructor as typeof Preprocessor).float_kwargs;
    for (const [key, value] of Object.entries(rest)) {
      if (value === undefined) continue;
      put(this, key, cloneJson(value));
      if (typeof value === "number") {
        const form = numberForm(settings, key);
        if (form !== undefined) setNumberForm(this, key, form);
        else if (floats.includes(key) && !isParsed(settings)) markFloat(this, key);
      } else if (Array.isArray(value) && floats.includes(key) && !isParsed(value))
        markFloats((this as unknown as Settings)[key] as unknown[]);
    }
  }

  /**
   * Reads the settings of a directory, a repository on the hub, or a JSON file. Options that name a setting override it.
   *
   * @throws EntryNotFoundError when there are none; InvalidArgumentError for an option that is no setting.
   * @example
   * const processor = await ViTImageProcessor.from_pretrained("./vit", { size: 384 });
   */
  static async from_pretrained<P extends Preprocessor>(
    this: PreprocessorClass<P>,
    dirOrRepo: string,
    options: PreprocessorLoadOptions & { return_unused_kwargs: true },
  ): Promise<[processor: P, unused: Settings]>;
  static async from_pretrained<P extends Preprocessor>(
    this: PreprocessorClass<P>,
    dirOrRepo: string,
    options?: PreprocessorLoadOptions,
  ): Promise<P>;
  static async from_pretrained<P extends Preprocessor>(
    this: PreprocessorClass<P>,
    dirOrRepo: string,
    options: PreprocessorLoadOptions = {},
  ): Promise<P | [P, Settings]> {
    const { name, options: pinned } = await pin(dirOrRepo, options);
    const filename = options.image_processor_filename;
    const found = await readSettings(name, this.kind, { ...hubOptions(pinned), filename });
    if (found === undefined) throw noSettings(dirOrRepo, this.kind);
    const overrides = Object.fromEntries(
      Object.entries(options).filter(([key, value]) => !LOAD_OPTIONS.includes(key) && value !== undefined),
    );
    const from_dict = (this as unknown as typeof Preprocessor).from_dict;
    const [processor, unused] = from_dict.call(this as never, found.settings, overrides) as [P, Settings];
    if (options.return_unused_kwargs === true) return [processor, unused];
    for (const key of Object.keys(unused)) {
      throw new InvalidArgumentError(`[${this.name}.from_pretrained] unknown option '${key}'.`, {
        suggestion: suggest(key, [...this.valid_kwargs, ...LOAD_OPTIONS]),
      });
    }
    return processor;
  }

  /** A processor of plain settings and overrides, and those overrides that are no settings. */
  static from_dict<P extends Preprocessor>(
    this: PreprocessorClass<P>,
    settings: Settings,
    overrides: Settings = {},
  ): [processor: P, unused: Settings] {
    const all = cloneJson(settings);
    for (const [key, value] of Object.entries(overrides)) {
      if (!this.valid_kwargs.includes(key)) continue;
      put(all, key, value);
      if ((this as unknown as typeof Preprocessor).float_kwargs.includes(key)) markFloat(all, key);
    }
    const processor = new this(all);
    const unused: Settings = {};
    for (const [key, value] of Object.entries(overrides)) {
      if (this.valid_kwargs.includes(key)) continue;
      if (Object.hasOwn(processor, key)) put(processor, key, value);
      else unused[key] = value;
    }
    return [processor, unused];
  }

  /** All settings and the name of the class, as files have them. */
  to_dict(): Settings {
    const { kind } = this.constructor as typeof Preprocessor;
    const dict: Settings = {};
    for (const [key, value] of Object.entries(this)) {
      put(dict, key, cloneJson(value));
      const form = numberForm(this, key);
      if (form !== undefined) setNumberForm(dict, key, form);
    }
    dict[kind.type] = this.constructor.name;
    return dict;
  }

  /** The text of the JSON file, byte for byte as the reference writes it. */
  to_json_string(): string {
    return `${stringifyJson(this.to_dict())}\n`;
  }

  async to_json_file(file: string): Promise<void> {
    await writeFileAtomic(file, this.to_json_string());
  }

  /**
   * Writes the settings into `directory`, which is made if need be; Python's `from_pretrained` reads them. With `push_to_hub`
   * they are sent to the hub too, to `repo_id` (default: the name of the directory). Resolves to the paths.
   */
  async save_pretrained(directory: string, options: SaveAndPushOptions = {}): Promise<string[]> {
    if (options.push_to_hub === true) {
      const { saveAndPush } = await import("../hub/push.ts");
      await saveAndPush(this.#pushable(), directory, options);
    } else {
      if ((await kindOf(directory)) === "file")
        throw new InvalidArgumentError(`'${directory}' is a file; a directory was expected.`);
      await mkdir(directory, { recursive: true });
      await this.to_json_file(this.#file(directory));
    }
    return [this.#file(directory)];
  }

  /** Sends the settings to the hub, into a repository that is made if need be. Resolves to the commit. */
  async push_to_hub(repo_id: string, options: PushToHubOptions = {}): Promise<CommitInfo> {
    const { pushToHub } = await import("../hub/push.ts");
    return pushToHub(this.#pushable(), repo_id, options);
  }

  #file(directory: string): string {
    return path.join(directory, (this.constructor as typeof Preprocessor).kind.files[0] as string);
  }

  #pushable(): Pushable {
    const { kind, name } = this.constructor as typeof Preprocessor;
    return {
      name: kind.what,
      save: (folder) => this.save_pretrained(folder),
      card: loadingCard(`A ${kind.what} (\`${name}\`).`, kind.auto, "processor"),
    };
  }

  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return `${this.constructor.name} ${this.to_json_string()}`;
  }
}

/** Base class of a user's processors of sound, which `AutoFeatureExtractor` loads. */
export abstract class FeatureExtractionMixin extends Preprocessor {
  static override readonly kind: PreprocessorKind = FEATURE_EXTRACTOR;
}

/** Base class of a user's processors of video, which `AutoVideoProcessor` loads. */
export abstract class BaseVideoProcessor extends Preprocessor {
  static override readonly kind: PreprocessorKind = VIDEO_PROCESSOR;
}
