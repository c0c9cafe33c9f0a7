// What the Auto model classes have in common: the class that a checkpoint's config asks for, found, imported and used.
import { PretrainedConfig } from "../configuration/index.ts";
import { registerForAutoClass } from "../custom_code/auto_classes.ts";
import { type Asked, type CodeOptions, remoteClass } from "../custom_code/load_class.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import { HUB_OPTIONS, pin } from "../hub/files.ts";
import { type FromPretrainedOptions, type LoadingInfo, withAdapter } from "../modeling/from_pretrained.ts";
import { type ModelClass, PreTrainedModel } from "../modeling/modeling_utils.ts";
import type { Dtype } from "../torch/index.ts";
import {
  assertConfigClass,
  assertRemoteClass,
  CONFIG_MAPPING,
  loadConfig,
  NATIVE_CONFIGS,
  unknownModelType,
} from "./configuration_auto.ts";
import { type KeyClass, LazyClassMapping, type Loader, type RegisterOptions } from "./lazy_mapping.ts";
import { MAPPINGS } from "./mappings.generated.ts";

/** Options of `from_config`. */
export interface FromConfigOptions {
  readonly dtype?: Dtype | "auto" | null;
  readonly attn_implementation?: string | null;
  /** Run the code that the config's repository brings along. Default: not. */
  readonly trust_remote_code?: boolean | undefined;
  readonly revision?: string | undefined;
  readonly code_revision?: string | undefined;
}

/** A task, as far as calling code sees its models. */
export interface AutoModelClass<M extends PreTrainedModel> {
  /** Auto classes are not constructed: this throws. */
  new (): never;
  readonly name: string;

  /**
   * Loads a checkpoint with the class that its config.json asks for. Options as of `PreTrainedModel.from_pretrained`.
   *
   * @throws UnknownModelTypeError when no such class is known, RemoteCodeError when the repository brings its own code.
   */
  from_pretrained(
    dirOrRepo: string,
    options: FromPretrainedOptions & { output_loading_info: true },
  ): Promise<[model: M, info: LoadingInfo]>;
  from_pretrained(dirOrRepo: string, options?: FromPretrainedOptions): Promise<M>;

  /** A model with weights by chance, of the class that the config asks for. */
  from_config(config: PretrainedConfig, options?: FromConfigOptions): Promise<M>;

  /**
   * Makes a class known for a class of configurations, which AutoConfig must know; `config_class` of the model must be
   * that one. What its `forward` takes and gives is its own affair.
   *
   * @throws InvalidArgumentError for classes that do not go together, an unknown configuration, one that has a class.
   * @example AutoModel.register(MyConfig, MyModel);
   */
  register(config_class: KeyClass, model_class: ModelClass, options?: RegisterOptions): void;
}

type AnyClass = ModelClass & typeof PreTrainedModel;

/** Refuses classes that are none, and a model that is made for another configuration. */
function assertRegistrable(name: string, config_class: KeyClass, model_class: AnyClass): void {
  const where = `${name}.register`;
  assertConfigClass(where, config_class);
  if (typeof model_class !== "function" || !(model_class.prototype instanceof PreTrainedModel)) {
    const got = typeof model_class === "function" ? (model_class as AnyClass).name : typeof model_class;
    throw new InvalidArgumentError(`[${where}] ${got} is no class that extends PreTrainedModel.`, {
      hint: `The order is ${name}.register(MyConfig, MyModel).`,
    });
  }
  const own = model_class.config_class as unknown as KeyClass;
  if (own === config_class) return;
  if (own === (PretrainedConfig as unknown)) {
    throw new InvalidArgumentError(
      `[${where}] ${model_class.name} does not say what its configuration is, but it is registered for ${config_class.name}.`,
      { hint: `Write in ${model_class.name}: static override readonly config_class = ${config_class.name};` },
    );
  }
  throw new InvalidArgumentError(
    `[${where}] ${model_class.name}.config_class is ${own.name} ('${own.model_type}'), but it is registered for ${config_class.name} ('${config_class.model_type}').`,
    { hint: `Make the two the same: ${where}(${own.name}, ${model_class.name});` },
  );
}

function unknownConfig(name: string, config_class: KeyClass, model_class: AnyClass): InvalidArgumentError {
  const { model_type } = config_class;
  const taken = CONFIG_MAPPING.has(model_type);
  const exist = taken ? ", { exist_ok: true }" : "";
  return new InvalidArgumentError(
    `[${name}.register] AutoConfig does not give ${config_class.name} for '${model_type}', so ${model_class.name} would never be found.`,
    { hint: `First: AutoConfig.register(${JSON.stringify(model_type)}, ${config_class.name}${exist});` },
  );
}

/** The Auto class of a task; its built-in classes are those that the generated mappings name. */
export function autoModel<M extends PreTrainedModel>(name: string): AutoModelClass<M> {
  const builtins = ((MAPPINGS as Partial<Record<string, object>>)[name] ?? {}) as Record<
    string,
    Loader<AnyClass>
  >;
  const mapping = new LazyClassMapping<AnyClass>(name, builtins, NATIVE_CONFIGS);

  async function classFor(config: PretrainedConfig, source: string): Promise<AnyClass> {
    const found = await mapping.get(config.constructor as unknown as KeyClass);
    if (found) return found;
    const error = unknownModelType(config.model_type, source);
    const known = mapping.modelTypes();
    throw new InvalidArgumentError(
      known.length === 0
        ? `${name}: no model of this task is implemented yet.`
        : `${name} has no class for model_type '${config.model_type}' (${source}); it has one for ${known.join(", ")}.`,
      { cause: error },
    );
  }

  /** The class that the repository brings along, if it is to be used. */
  async function remoteFor(
    config: PretrainedConfig,
    source: string,
    options: CodeOptions,
    asked: Asked,
  ): Promise<AnyClass | undefined> {
    const key = config.constructor as unknown as KeyClass;
    const known = await mapping.get(key);
    const remote = (await remoteClass({
      auto: name,
      auto_map: config.auto_map,
      file: `${source}/config.json`,
      source,
      options,
      asked,
      model_type: config.model_type,
      known: known && { name: known.name, isRegistered: mapping.isRegistered(key) },
    })) as AnyClass | undefined;
    if (remote === undefined) return undefined;
    assertRemoteClass(remote, PreTrainedModel, source);
    registerForAutoClass(remote, name);
    return remote;
  }

  /** The config that is given or lies beside the weights, and whose code it may name; of an adapter, those of its base model. */
  async function configOf(
    given: string | undefined,
    dirOrRepo: string,
    options: FromPretrainedOptions,
    asked: Asked,
  ): Promise<{ config: PretrainedConfig; source: string; code: CodeOptions; asked: Asked }> {
    const wanted = [...HUB_OPTIONS, "trust_remote_code", "code_revision"] as const;
    const code = Object.fromEntries(
      wanted
        .map((key) => [key, options[key]] as const)
        .filter(([key, value]) => value !== undefined && key !== "progress_callback"),
    ) as CodeOptions;
    const from = async (source: string, code: CodeOptions, asked: Asked) => ({
      config: (await loadConfig(source, { ...code }, asked)) as PretrainedConfig,
      source,
      code,
      asked,
    });
    if (given !== undefined) return { ...(await from(given, code, asked)), source: dirOrRepo };
    const found = await withAdapter(dirOrRepo, options, options.adapter_kwargs);
    if (found === undefined || found.isEmbedded) return from(dirOrRepo, code, asked);
    const { revision: _adapters, subfolder: _folder, ...others } = code;
    const { name: base, options: pinned } = await pin(found.base, others);
    return from(base, pinned, { dirOrRepo: found.base });
  }

  const auto = class {
    constructor() {
      throw new InvalidArgumentError(
        `${name} is not constructed; call ${name}.from_pretrained(directory) or from_config(config).`,
      );
    }

    static async from_pretrained(
      source: string,
      given_options: FromPretrainedOptions = {},
    ): Promise<PreTrainedModel | [PreTrainedModel, LoadingInfo]> {
      const { name: dirOrRepo, options } = await pin(source, given_options);
      const asked = { dirOrRepo: source, revision: given_options.revision };
      const given = options.config;
      const {
        config,
        source: codeSource,
        code,
        asked: codeAsked,
      } = given instanceof PretrainedConfig
        ? { config: given, source: dirOrRepo, code: options as CodeOptions, asked }
        : await configOf(given ?? undefined, dirOrRepo, options, asked);
      const remote = await remoteFor(config, codeSource, code, codeAsked);
      const cls = remote ?? (await classFor(config, dirOrRepo));
      // A class that does not name its configuration cannot read it.
      const named = (cls.config_class as unknown) !== PretrainedConfig;
      return cls.from_pretrained(dirOrRepo, named ? options : { ...options, config });
    }

    static async from_config(
      config: PretrainedConfig,
      options: FromConfigOptions = {},
    ): Promise<PreTrainedModel> {
      if (!(config instanceof PretrainedConfig))
        throw new InvalidArgumentError(`${name}.from_config takes a PretrainedConfig.`);
      const { trust_remote_code, code_revision, revision, ...others } = options;
      const source = config.name_or_path;
      const code = { trust_remote_code, code_revision, revision };
      const remote =
        source === "" ? undefined : await remoteFor(config, source, code, { dirOrRepo: source, revision });
      return (remote ?? (await classFor(config, "from_config")))._from_config(config, others);
    }

    static register(config_class: KeyClass, model_class: AnyClass, options: RegisterOptions = {}): void {
      assertRegistrable(name, config_class, model_class);
      if (!mapping.isKnown(config_class)) throw unknownConfig(name, config_class, model_class);
      mapping.register(config_class, model_class, options);
    }
  };
  Object.defineProperty(auto, "name", { value: name });
  return auto as unknown as AutoModelClass<M>;
}
