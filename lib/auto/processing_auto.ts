// The Auto classes of processors: of images, sound, video, and of several kinds of input at once.

import { CONFIG_NAME, readConfigFile } from "../configuration/config_files.ts";
import type { PretrainedConfig } from "../configuration/index.ts";
import { InvalidArgumentError, RemoteCodeError, TorchformersError } from "../errors/index.ts";
import { warnOnce } from "../errors/warnings.ts";
import { findFile, pin } from "../hub/files.ts";
import { isRecord } from "../json/json.ts";
import { BaseImageProcessor } from "../processing/image/image_processing_utils.ts";
import {
  type BaseVideoProcessor,
  FEATURE_EXTRACTOR,
  type FeatureExtractionMixin,
  hubOptions,
  IMAGE_PROCESSOR,
  noSettings,
  PROCESSOR_NAME,
  Preprocessor,
  type PreprocessorKind,
  type PreprocessorLoadOptions,
  readSettings,
  type Settings,
  VIDEO_PROCESSOR,
} from "../processing/preprocessor.ts";
import { ProcessorMixin, type ProcessorPart, setPartLoader } from "../processing/processing_utils.ts";
import type { TokenizerLoadOptions } from "../processing/tokenizer_options.ts";
import { CONFIG_MAPPING } from "./configuration_auto.ts";
import type { KeyClass, Loader, RegisterOptions } from "./lazy_mapping.ts";
import { CONFIG_CLASS_NAMES, PROCESSOR_CLASSES } from "./mappings.generated.ts";
import {
  FEATURE_EXTRACTOR_NAMES,
  IMAGE_PROCESSOR_NAMES,
  PROCESSOR_NAMES,
  VIDEO_PROCESSOR_NAMES,
} from "./processor_names.generated.ts";
import { AutoTokenizer } from "./tokenization_auto.ts";

/** Options of an Auto class's `from_pretrained`; others override settings. */
export interface AutoProcessorOptions extends PreprocessorLoadOptions {
  /** Of image processors: "torchvision" (the default), "pil", or a name that a program registered. */
  readonly backend?: string | null | undefined;
  /** The older name: true is "torchvision", false "pil". */
  readonly use_fast?: boolean | null | undefined;
  /** The model's configuration, if it is at hand. */
  readonly config?: PretrainedConfig | undefined;
}

/** A class that an Auto class gives. */
interface Loads<P> {
  readonly name: string;
  from_pretrained(dirOrRepo: string, options?: PreprocessorLoadOptions): Promise<P>;
}

/** Backend → class; things without backends have one entry. */
type Backends<P> = Readonly<Record<string, Loads<P>>>;

const DEFAULT_BACKEND = "torchvision";

/** What programs and this package have for one Auto class. */
class Registry<P> {
  readonly auto: string;
  readonly #base: { readonly name: string; readonly prototype: unknown };
  readonly #names: Readonly<Record<string, string | Readonly<Record<string, string>>>>;
  readonly #registered = new Map<KeyClass, Backends<P>>();

  constructor(
    auto: string,
    base: { readonly name: string; readonly prototype: unknown },
    names: Readonly<Record<string, string | Readonly<Record<string, string>>>>,
  ) {
    this.auto = auto;
    this.#base = base;
    this.#names = names;
  }

  get isEmpty(): boolean {
    return this.#registered.size === 0;
  }

  register(config: KeyClass, given: Backends<P>, { exist_ok = false }: RegisterOptions): void {
    for (const [backend, cls] of Object.entries(given)) {
      const isRight =
        typeof cls === "function" &&
        (cls as { prototype: unknown }).prototype instanceof (this.#base as never);
      if (!isRight)
        throw new InvalidArgumentError(
          `[${this.auto}.register] the class for '${backend}' must extend ${this.#base.name}; got ${String((cls as Loads<P> | null)?.name ?? cls)}.`,
        );
    }
    if (Object.keys(given).length === 0)
      throw new InvalidArgumentError(`[${this.auto}.register] no class was given.`);
    const known = this.#registered.get(config);
    const isNative =
      CONFIG_CLASS_NAMES[config.model_type] === config.name && config.model_type in this.#names;
    const isNew = Object.entries(given).every(
      ([backend, cls]) => known?.[backend] === undefined || known[backend] === cls,
    );
    if (!exist_ok && (!isNew || (known === undefined && isNative))) {
      throw new InvalidArgumentError(`[${this.auto}.register] ${config.name} already has a class.`, {
        hint: `To replace it: ${this.auto}.register(${config.name}, ${Object.values(given)[0]?.name}, { exist_ok: true }).`,
      });
    }
    this.#registered.set(config, { ...known, ...given });
  }

  /** What a program registered for the models of a checkpoint. */
  async forModel(
    model_type: string | undefined,
    config: PretrainedConfig | undefined,
  ): Promise<Backends<P> | undefined> {
    if (this.isEmpty) return undefined;
    const exact = config && this.#registered.get(config.constructor as unknown as KeyClass);
    if (exact !== undefined) return exact;
    if (model_type === undefined) return undefined;
    const Config = (await CONFIG_MAPPING.get(model_type)) as KeyClass | undefined;
    const own = Config && this.#registered.get(Config);
    return own ?? [...this.#registered].findLast(([key]) => key.model_type === model_type)?.[1];
  }

  /** The class of that name: registered, or of this package; with the others that belong to it. */
  async named(name: string): Promise<Backends<P> | undefined> {
    for (const entry of this.#registered.values())
      if (Object.values(entry).some((cls) => cls.name === name)) return entry;
    const entries = Object.values(this.#names);
    const siblings = entries.find((entry) => Object.values(asBackends(entry)).includes(name));
    return builtins<P>(siblings === undefined ? { [DEFAULT_BACKEND]: name } : asBackends(siblings));
  }

  /** The class that the reference has for a model_type, where it exists here. */
  async native(model_type: string | undefined): Promise<Backends<P> | undefined> {
    const names = model_type === undefined ? undefined : this.#names[model_type];
    return names === undefined ? undefined : builtins<P>(asBackends(names));
  }

  /** The reference's name for the class of a model_type. */
  nativeName(model_type: string | undefined): string | undefined {
    const names = model_type === undefined ? undefined : this.#names[model_type];
    return names === undefined ? undefined : Object.values(asBackends(names))[0];
  }

  isReferenceName(name: string): boolean {
    return Object.values(this.#names).some((entry) => Object.values(asBackends(entry)).includes(name));
  }
}

const asBackends = (names: string | Readonly<Record<string, string>>): Readonly<Record<string, string>> =>
  typeof names === "string" ? { [DEFAULT_BACKEND]: names } : names;

/** The classes of these names that exist here; undefined for none. */
async function builtins<P>(names: Readonly<Record<string, string>>): Promise<Backends<P> | undefined> {
  const found: Record<string, Loads<P>> = {};
  for (const [backend, name] of Object.entries(names)) {
    const load = (PROCESSOR_CLASSES as Partial<Record<string, Loader<unknown>>>)[name];
    if (load !== undefined) found[backend] = (await load()) as Loads<P>;
  }
  return Object.keys(found).length === 0 ? undefined : found;
}

/** The class for a backend, else the one that there is, with a word about it. */
function pick<P>(entry: Backends<P>, backend: string | undefined): Loads<P> {
  const wanted = backend ?? DEFAULT_BACKEND;
  const cls = entry[wanted];
  if (cls !== undefined) return cls;
  const [other, found] = Object.entries(entry)[0] as [string, Loads<P>];
  if (backend !== undefined) warnOnce(`${found.name}: there is no backend '${backend}', '${other}' is used.`);
  return found;
}

/** config.json of a checkpoint, if it has one. */
async function modelConfig(dirOrRepo: string, options: AutoProcessorOptions): Promise<Settings> {
  if (options.config !== undefined) return options.config as unknown as Settings;
  const file = await findFile(dirOrRepo, CONFIG_NAME, hubOptions(options)).catch(() => undefined);
  return file === undefined ? {} : readConfigFile(file);
}

const textOf = (value: unknown): string | undefined => (typeof value === "string" ? value : undefined);

const remoteCode = (auto: string, ...dicts: readonly Settings[]): string | undefined => {
  const maps = dicts.map(({ auto_map }) => (isRecord(auto_map) ? auto_map[auto] : undefined));
  const found = maps.find((entry) => entry !== undefined && entry !== null);
  return found === undefined ? undefined : JSON.stringify(found);
};

/** The error for a checkpoint whose class is not here. */
function noClass(
  registry: Registry<unknown>,
  dirOrRepo: string,
  name: string | undefined,
  model_type: string | undefined,
  remote: string | undefined,
): Error {
  if (remote !== undefined) {
    return new RemoteCodeError(`'${dirOrRepo}' needs the repository's own code (${remote}).`, {
      hint: `Write the class and call ${registry.auto}.register(MyConfig, MyClass).`,
    });
  }
  const wanted = name ?? registry.nativeName(model_type);
  const why =
    wanted === undefined
      ? "its files name none"
      : registry.isReferenceName(wanted) || wanted === registry.nativeName(model_type)
        ? `transformers has '${wanted}', but it is not implemented here yet`
        : `'${wanted}' is not known`;
  return new InvalidArgumentError(`${registry.auto} has no class for '${dirOrRepo}': ${why}.`, {
    hint: `Known: ${Object.keys(PROCESSOR_CLASSES).join(", ")}. A class of your own: ${registry.auto}.register(MyConfig, MyClass).`,
  });
}

/** Removes the options that say which class is meant. */
function loadOptions({ backend: _, use_fast: __, config: ___, ...rest }: AutoProcessorOptions) {
  return rest as PreprocessorLoadOptions;
}

function notConstructed(name: string): never {
  throw new InvalidArgumentError(`${name} is not constructed; call ${name}.from_pretrained(directory).`);
}

/** The class for the settings of a checkpoint. */
async function preprocessorClass<P>(
  registry: Registry<P>,
  kind: PreprocessorKind,
  dirOrRepo: string,
  options: AutoProcessorOptions,
  backend: string | undefined,
): Promise<Loads<P>> {
  const filename = options.image_processor_filename;
  const found = await readSettings(dirOrRepo, kind, { ...hubOptions(options), filename });
  if (found === undefined) throw noSettings(dirOrRepo, kind);
  const { settings } = found;
  const config = await modelConfig(dirOrRepo, options);
  const model_type = textOf(config.model_type);
  const own = await registry.forModel(model_type, options.config);
  if (own !== undefined) return pick(own, backend);

  const older = kind === IMAGE_PROCESSOR ? textOf(settings.feature_extractor_type) : undefined;
  const declared =
    textOf(settings[kind.type]) ??
    older?.replace("FeatureExtractor", "ImageProcessor") ??
    textOf(config[kind.type]);
  const name = kind === IMAGE_PROCESSOR ? declared?.replace(/Fast$/, "") : declared;
  const entry =
    (name === undefined ? undefined : await registry.named(name)) ?? (await registry.native(model_type));
  if (entry !== undefined) return pick(entry, backend);
  throw noClass(
    registry as Registry<unknown>,
    dirOrRepo,
    name,
    model_type,
    remoteCode(registry.auto, settings, config),
  );
}

const images = new Registry<BaseImageProcessor>(
  "AutoImageProcessor",
  BaseImageProcessor,
  IMAGE_PROCESSOR_NAMES,
);
const sounds = new Registry<FeatureExtractionMixin>(
  "AutoFeatureExtractor",
  Preprocessor,
  FEATURE_EXTRACTOR_NAMES,
);
const videos = new Registry<BaseVideoProcessor>("AutoVideoProcessor", Preprocessor, VIDEO_PROCESSOR_NAMES);
const processors = new Registry<ProcessorMixin>("AutoProcessor", ProcessorMixin, PROCESSOR_NAMES);

/** A class of image processors, or one per backend. */
export type ImageProcessorClasses =
  | Loads<BaseImageProcessor>
  | Readonly<Record<string, Loads<BaseImageProcessor>>>;

export interface ImageRegisterOptions extends RegisterOptions {
  readonly image_processor_classes?: Readonly<Record<string, Loads<BaseImageProcessor>>> | undefined;
  /** For the backend "pil". */
  readonly slow_image_processor_class?: Loads<BaseImageProcessor> | undefined;
  /** For the backend "torchvision". */
  readonly fast_image_processor_class?: Loads<BaseImageProcessor> | undefined;
}

/**
 * Gives the image processor of a checkpoint.
 *
 * @example
 * const processor = await AutoImageProcessor.from_pretrained("./vit");
 * const { pixel_values } = await processor("photo.jpg", { return_tensors: "pt" });
 */
export class AutoImageProcessor {
  constructor() {
    notConstructed("AutoImageProcessor");
  }

  /**
   * Reads preprocessor_config.json (or processor_config.json) of a directory or a repository on the hub. Options that name a
   * setting override it.
   *
   * @throws EntryNotFoundError when there is no such file; RemoteCodeError when the repository brings its own code.
   */
  static async from_pretrained(
    dirOrRepo: string,
    options: AutoProcessorOptions = {},
  ): Promise<BaseImageProcessor> {
    const { name, options: pinned } = await pin(dirOrRepo, options);
    const { backend, use_fast } = options;
    if (use_fast !== undefined && use_fast !== null)
      warnOnce("use_fast is an older name: pass backend: 'torchvision' for true, 'pil' for false.");
    const wanted =
      backend ?? (use_fast === undefined || use_fast === null ? undefined : use_fast ? "torchvision" : "pil");
    const cls = await preprocessorClass(images, IMAGE_PROCESSOR, name, pinned, wanted);
    return cls.from_pretrained(name, loadOptions(pinned));
  }

  /**
   * Makes classes known for the checkpoints of a configuration class: one, or one per backend. They win over the name in a
   * checkpoint's files. What exists is replaced only with `exist_ok`.
   *
   * @example
   * AutoImageProcessor.register(MyConfig, MyImageProcessor);
   */
  static register(
    config_class: KeyClass,
    classes: ImageProcessorClasses | null,
    options: ImageRegisterOptions = {},
  ): void {
    const { slow_image_processor_class: pil, fast_image_processor_class: torchvision } = options;
    const single = typeof classes === "function" ? (classes as Loads<BaseImageProcessor>) : undefined;
    const given: Record<string, Loads<BaseImageProcessor>> = {
      ...(single === undefined ? (classes as Backends<BaseImageProcessor> | null) : {}),
      ...options.image_processor_classes,
    };
    if (single !== undefined) given[DEFAULT_BACKEND] = single;
    if (pil !== undefined) given.pil = pil;
    if (torchvision !== undefined) given.torchvision = torchvision;
    images.register(config_class, given, options);
  }
}

/** Gives the processor of sound of a checkpoint. None is built in yet; a program registers its own. */
export class AutoFeatureExtractor {
  constructor() {
    notConstructed("AutoFeatureExtractor");
  }

  /** Reads preprocessor_config.json of a directory or a repository on the hub. Errors as of `AutoImageProcessor`. */
  static async from_pretrained(
    dirOrRepo: string,
    options: AutoProcessorOptions = {},
  ): Promise<FeatureExtractionMixin> {
    const { name, options: pinned } = await pin(dirOrRepo, options);
    const cls = await preprocessorClass(sounds, FEATURE_EXTRACTOR, name, pinned, undefined);
    return cls.from_pretrained(name, loadOptions(pinned));
  }

  /** Makes a class known for the checkpoints of a configuration class. */
  static register(
    config_class: KeyClass,
    feature_extractor_class: Loads<FeatureExtractionMixin>,
    options: RegisterOptions = {},
  ): void {
    sounds.register(config_class, { [DEFAULT_BACKEND]: feature_extractor_class }, options);
  }
}

/** Gives the video processor of a checkpoint. None is built in yet; a program registers its own. */
export class AutoVideoProcessor {
  constructor() {
    notConstructed("AutoVideoProcessor");
  }

  /** Reads video_preprocessor_config.json of a directory or a repository on the hub. Errors as of `AutoImageProcessor`. */
  static async from_pretrained(
    dirOrRepo: string,
    options: AutoProcessorOptions = {},
  ): Promise<BaseVideoProcessor> {
    const { name, options: pinned } = await pin(dirOrRepo, options);
    const cls = await preprocessorClass(videos, VIDEO_PROCESSOR, name, pinned, undefined);
    return cls.from_pretrained(name, loadOptions(pinned));
  }

  /** Makes a class known for the checkpoints of a configuration class. */
  static register(
    config_class: KeyClass,
    video_processor_class: Loads<BaseVideoProcessor>,
    options: RegisterOptions = {},
  ): void {
    videos.register(config_class, { [DEFAULT_BACKEND]: video_processor_class }, options);
  }
}

/** What `AutoProcessor` gives: a processor, or the one part that a checkpoint has. */
export type AnyProcessor = ProcessorMixin | ProcessorPart;

/** Files that may name the class of a processor, in the order in which they are asked. */
const NAMING_FILES = [
  PROCESSOR_NAME,
  "preprocessor_config.json",
  "video_preprocessor_config.json",
  "tokenizer_config.json",
];

/**
 * Gives the processor of a checkpoint, whatever it is made of; for a checkpoint with one part only, that part (a tokenizer, an
 * image processor).
 *
 * @example
 * const processor = await AutoProcessor.from_pretrained("./sam");
 */
export class AutoProcessor {
  constructor() {
    notConstructed("AutoProcessor");
  }

  /** Options as of `AutoImageProcessor.from_pretrained`; they reach the parts. */
  static async from_pretrained(dirOrRepo: string, options: AutoProcessorOptions = {}): Promise<AnyProcessor> {
    const { name, options: pinned } = await pin(dirOrRepo, options);
    const hub = hubOptions(pinned);
    const config = await modelConfig(name, pinned);
    const model_type = textOf(config.model_type);
    const own = await processors.forModel(model_type, options.config);
    if (own !== undefined) return pick(own, undefined).from_pretrained(name, pinned);

    let declared: string | undefined;
    let remote: string | undefined;
    for (const file of NAMING_FILES) {
      const found = await findFile(name, file, hub);
      if (found === undefined) continue;
      const dict = await readConfigFile(found);
      remote ??= remoteCode("AutoProcessor", dict);
      declared = textOf(dict.processor_class);
      if (declared !== undefined) break;
    }
    declared ??= textOf(config.processor_class);
    remote ??= remoteCode("AutoProcessor", config);
    const entry =
      (declared === undefined ? undefined : await processors.named(declared)) ??
      (await processors.native(model_type));
    if (entry !== undefined) return pick(entry, undefined).from_pretrained(name, pinned);
    if (declared !== undefined || remote !== undefined)
      throw noClass(processors as Registry<unknown>, dirOrRepo, declared, model_type, remote);
    return onlyPart(name, dirOrRepo, pinned);
  }

  /** Makes a class known for the checkpoints of a configuration class. */
  static register(
    config_class: KeyClass,
    processor_class: { readonly name: string; readonly prototype: ProcessorMixin },
    options: RegisterOptions = {},
  ): void {
    processors.register(
      config_class,
      { [DEFAULT_BACKEND]: processor_class as unknown as Loads<ProcessorMixin> },
      options,
    );
  }
}

/** The one part that a checkpoint has. */
async function onlyPart(
  name: string,
  dirOrRepo: string,
  options: AutoProcessorOptions,
): Promise<ProcessorPart> {
  const failures: Error[] = [];
  const tokenizer = () => AutoTokenizer.from_pretrained(name, hubOptions(options) as TokenizerLoadOptions);
  const parts = [AutoImageProcessor, AutoVideoProcessor, AutoFeatureExtractor];
  for (const load of [tokenizer, ...parts.map((auto) => () => auto.from_pretrained(name, options))]) {
    try {
      return await load();
    } catch (error) {
      if (!(error instanceof TorchformersError)) throw error;
      failures.push(error);
    }
  }
  throw new InvalidArgumentError(
    `'${dirOrRepo}' has no processor, tokenizer, image processor, video processor or feature extractor that can be loaded.`,
    { cause: failures[0], hint: failures.map(({ message }) => message.split("\n")[0]).join("\n") },
  );
}

setPartLoader("image_processor", (name, options) => AutoImageProcessor.from_pretrained(name, options));
setPartLoader("feature_extractor", (name, options) => AutoFeatureExtractor.from_pretrained(name, options));
setPartLoader("video_processor", (name, options) => AutoVideoProcessor.from_pretrained(name, options));
setPartLoader("tokenizer", (name, options) =>
  AutoTokenizer.from_pretrained(name, hubOptions(options) as TokenizerLoadOptions),
);
