// AutoConfig: the configuration class that a config.json asks for by its `model_type`.

import { inFile } from "../configuration/config_files.ts";
import {
  type ConfigClass,
  type ConfigKwargs,
  type FromPretrainedOptions,
  PretrainedConfig,
} from "../configuration/configuration_utils.ts";
import {
  loadSubConfigClasses,
  registerConfigClass,
  setConfigClassLoader,
} from "../configuration/sub_configs.ts";
import { registerForAutoClass } from "../custom_code/auto_classes.ts";
import { type Asked, type CodeOptions, remoteClass } from "../custom_code/load_class.ts";
import type { AnyClass } from "../custom_code/source_file.ts";
import {
  ConfigError,
  InvalidArgumentError,
  RemoteCodeError,
  UnknownModelTypeError,
} from "../errors/index.ts";
import { nearest } from "../errors/suggest.ts";
import { pin } from "../hub/files.ts";
import { LazyMapping, type NativeConfigs, type RegisterOptions } from "./lazy_mapping.ts";
import { CONFIG_CLASS_NAMES, MAPPINGS } from "./mappings.generated.ts";
import { REFERENCE_MODEL_TYPES } from "./reference_model_types.ts";

/** `model_type` → configuration class. */
export const CONFIG_MAPPING: LazyMapping<ConfigClass> = new LazyMapping<ConfigClass>(
  "AutoConfig",
  MAPPINGS.AutoConfig,
);

/** For the mappings of the other Auto classes. */
export const NATIVE_CONFIGS: NativeConfigs = { mapping: CONFIG_MAPPING, names: CONFIG_CLASS_NAMES };

/** The error for a `model_type` without a class. `source` says where the name stands. */
export function unknownModelType(model_type: string, source: string): UnknownModelTypeError {
  const known = CONFIG_MAPPING.keys();
  const near = nearest(model_type, known);
  const isReference = REFERENCE_MODEL_TYPES.has(model_type);
  const misspelt = isReference ? [] : nearest(model_type, REFERENCE_MODEL_TYPES);
  const why = isReference
    ? `transformers has '${model_type}', but it is not implemented here yet.`
    : misspelt.length > 0
      ? `Did you mean ${misspelt.map((name) => `'${name}'`).join(" or ")}?`
      : "It is no model type of transformers either.";
  return new UnknownModelTypeError(`The model_type '${model_type}' (${source}) is not known. ${why}`, {
    nearest: near.length > 0 ? near : misspelt,
    hint: `Known: ${known.join(", ")}. A class of your own: AutoConfig.register("${model_type}", MyConfig).`,
  });
}

async function configClass(model_type: string): Promise<ConfigClass | undefined> {
  const found = await CONFIG_MAPPING.get(model_type);
  if (found === undefined) return undefined;
  registerConfigClass(model_type, found);
  return found;
}

setConfigClassLoader(configClass);

/**
 * Gives the configuration of any known model.
 *
 * ```ts
 * const config = await AutoConfig.from_pretrained("./my-model");
 * config.model_type; // "llama"
 * ```
 */
export class AutoConfig {
  constructor() {
    throw new InvalidArgumentError(
      "AutoConfig is not constructed; call AutoConfig.from_pretrained(directory).",
    );
  }

  /**
   * Reads a checkpoint's config.json and makes the configuration its `model_type` names. Options as of
   * `PretrainedConfig.from_pretrained`.
   *
   * Code that a repository brings along (`auto_map`) is run only with `trust_remote_code: true`: otherwise a known
   * `model_type` is served by its class here, and any other is a `RemoteCodeError`. `code_revision` names the commit of code
   * that lies in another repository.
   *
   * Throws `UnknownModelTypeError`, `RemoteCodeError`, `ConfigError`, `EntryNotFoundError`.
   */
  static from_pretrained(
    dirOrRepo: string,
    options: FromPretrainedOptions & { readonly return_unused_kwargs: true },
  ): Promise<[PretrainedConfig, Record<string, unknown>]>;
  static from_pretrained(dirOrRepo: string, options?: FromPretrainedOptions): Promise<PretrainedConfig>;
  static async from_pretrained(
    dirOrRepo: string,
    options: FromPretrainedOptions = {},
  ): Promise<PretrainedConfig | [PretrainedConfig, Record<string, unknown>]> {
    return loadConfig(dirOrRepo, options, { dirOrRepo, revision: options.revision });
  }

  /** A fresh configuration of a model type. */
  static async for_model(model_type: string, kwargs: ConfigKwargs = {}): Promise<PretrainedConfig> {
    const Config = await configClass(model_type);
    if (Config === undefined) throw unknownModelType(model_type, "AutoConfig.for_model");
    await loadSubConfigClasses(Config, kwargs);
    return PretrainedConfig.from_dict.call(Config, kwargs) as PretrainedConfig;
  }

  /**
   * Makes a configuration class known, so that `from_pretrained` finds it. The class's own `model_type` must be the
   * same name; a name that is taken needs `exist_ok`, and then the class wins for that type in all of this process.
   *
   * Throws `InvalidArgumentError` for names that differ, a name that is taken, what is no class of configurations.
   *
   * ```ts
   * AutoConfig.register("my-model", MyConfig);
   * AutoConfig.register("resnet", MyResnetConfig, { exist_ok: true }); // instead of the library's
   * ```
   */
  static register(model_type: string, config: ConfigClass, options: RegisterOptions = {}): void {
    assertConfigClass("AutoConfig.register", config);
    if (config.model_type !== model_type || model_type === "") {
      const line = `static override readonly model_type = ${JSON.stringify(model_type)};`;
      throw new InvalidArgumentError(
        `[AutoConfig.register] ${config.name}.model_type is '${config.model_type}', but it is registered as '${model_type}'.`,
        {
          hint:
            config.model_type === ""
              ? `Write in ${config.name}: ${model_type === "" ? "static override readonly model_type = …" : line}`
              : `Make the two the same: AutoConfig.register(${JSON.stringify(config.model_type)}, ${config.name});`,
        },
      );
    }
    CONFIG_MAPPING.register(model_type, config, options);
    registerConfigClass(model_type, config);
  }
}

/** Throws unless a value is a class of configurations of this very package. */
export function assertConfigClass(where: string, value: unknown): asserts value is ConfigClass {
  if (typeof value === "function" && value.prototype instanceof PretrainedConfig) return;
  throw new InvalidArgumentError(`[${where}] ${describe(value)} is no class that extends PretrainedConfig.`, {
    hint: "Give the class itself. One that extends the PretrainedConfig of another copy of torchformers is not of this one.",
  });
}

const describe = (value: unknown) =>
  typeof value === "function"
    ? value.name || "an anonymous class"
    : value instanceof PretrainedConfig
      ? `an instance of ${value.constructor.name}`
      : typeof value;

/** What `AutoConfig.from_pretrained` does; `asked` is what the user named, before a branch became a commit. */
export async function loadConfig(
  dirOrRepo: string,
  options: FromPretrainedOptions,
  asked: Asked,
): Promise<PretrainedConfig | [PretrainedConfig, Record<string, unknown>]> {
  const { name, options: pinned } = await pin(dirOrRepo, options);
  const { dict, file, unused } = await PretrainedConfig.get_config_dict(name, pinned);
  const isNamed = dict.model_type !== undefined || "pretrained_cfg" in dict;
  const known = !isNamed ? undefined : await configClass(modelTypeOf(dict, file));
  const remote = await remoteClass({
    auto: "AutoConfig",
    auto_map: dict.auto_map,
    file,
    source: name,
    options: pinned as CodeOptions,
    asked,
    model_type: typeof dict.model_type === "string" ? dict.model_type : undefined,
    known: known && {
      name: known.name,
      isRegistered: CONFIG_MAPPING.registered(modelTypeOf(dict, file)) !== undefined,
    },
  });
  if (remote !== undefined) {
    assertRemoteClass(remote, PretrainedConfig, name);
    registerForAutoClass(remote as typeof PretrainedConfig, "AutoConfig");
  }
  const Config = (remote as ConfigClass | undefined) ?? known;
  if (Config === undefined) throw unknownModelType(modelTypeOf(dict, file), file);
  await loadSubConfigClasses(Config, dict);
  return inFile(
    file,
    () =>
      PretrainedConfig.from_dict.call(Config, dict, { name_or_path: name, ...unused }) as PretrainedConfig,
  );
}

/** Throws unless a class of a repository extends a class of this very package. */
export function assertRemoteClass(cls: unknown, base: AnyClass, source: string): void {
  if (typeof cls === "function" && cls.prototype instanceof (base as unknown as new () => object)) return;
  throw new RemoteCodeError(
    `${(cls as { name?: string }).name || "A class"} of ${source} does not extend ${base.name}.`,
    { hint: 'Its code must import the class from "torchformers".' },
  );
}

function modelTypeOf(dict: Readonly<Record<string, unknown>>, file: string): string {
  const { model_type, layer_types } = dict;
  if (model_type === undefined && "pretrained_cfg" in dict) return "timm_wrapper"; // a file of timm's own
  if (model_type === undefined) {
    throw new ConfigError(`${file}: 'model_type' is missing, so the model is not known.`, {
      hint: `Add "model_type", one of: ${CONFIG_MAPPING.keys().join(", ")}.`,
    });
  }
  if (typeof model_type !== "string") throw new ConfigError(`${file}: field 'model_type' must be str.`);
  // Checkpoints of the alternating kind were published under mistral's name.
  return model_type === "mistral" && layer_types !== undefined ? "ministral" : model_type;
}
