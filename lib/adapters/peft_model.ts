// PEFT's wrapper: adapters for any module, not only for a PreTrainedModel.
import path from "node:path";
import { InvalidArgumentError } from "../errors/index.ts";
import { warn } from "../errors/warnings.ts";
import { HUB_OPTIONS, type HubOptions, pin } from "../hub/files.ts";
import { bind } from "../nn/arguments.ts";
import * as nn from "../nn/index.ts";
import type { MergeOptions } from "./adapter_mixin.ts";
import { LoraConfig } from "./config.ts";
import { readAdapterConfig, readAdapterWeights, writeAdapter } from "./files.ts";
import {
  type Adaptable,
  deleteAdapter,
  enableAdapters,
  injectAdapter,
  loraLayers,
  mergeAdapters,
  type PeftConfigs,
  setActive,
  unloadAdapters,
  unmergeAdapters,
} from "./inject.ts";
import { type AdapterLoadResult, configOf, set_peft_model_state_dict } from "./state.ts";

type AnyModule = nn.Module;
// biome-ignore lint/suspicious/noExplicitAny: the arguments are those of the wrapped module's own forward.
type Forward = (...args: any[]) => any;
type ForwardOf<M> = M extends { forward: infer F extends Forward } ? F : Forward;
/** A method that the wrapped module has. */
type MethodOf<M, Name extends string> = M extends Record<Name, infer F> ? F : never;

/** Modules that are trained and saved as a whole for a task, in PEFT's wrappers. */
const HEADS: Readonly<Record<string, readonly string[]>> = {
  SEQ_CLS: ["classifier", "score"],
  TOKEN_CLS: ["classifier", "score"],
  QUESTION_ANS: ["qa_outputs"],
};

export interface PeftModelOptions {
  /** Keep float16 and bfloat16 adapters in float32, which training needs. Default: true. */
  readonly autocast_adapter_dtype?: boolean | undefined;
  /** Make the adapter without values. Default: false. */
  readonly low_cpu_mem_usage?: boolean | undefined;
}

/** Options of loading into a {@link PeftModel}, beside those of the hub. */
export interface PeftLoadOptions extends HubOptions, PeftModelOptions {
  /** Let the adapter be trained. Default: false: it is frozen, and the model set to evaluate. */
  readonly is_trainable?: boolean | undefined;
}

/** Holds the model, so that names in it are those of PEFT's files. */
export class LoraModel<M extends AnyModule = AnyModule> extends nn.Module {
  readonly model: M;

  constructor(model: M) {
    super();
    this.model = model;
    this.training = model.training;
  }

  override forward(...args: never[]): unknown {
    return this.model.forward(...args);
  }
}

/**
 * A module with adapters beside some of its layers; the module itself is changed in place.
 *
 * @example
 * const model = get_peft_model(new Net(), new LoraConfig({ r: 4, target_modules: ["fc1", "fc2"] }));
 * model.print_trainable_parameters();
 * await model.save_pretrained("./adapter");
 */
export class PeftModel<M extends AnyModule = AnyModule> extends nn.Module {
  readonly base_model: LoraModel<M>;
  #active: string[];

  constructor(model: M, config: LoraConfig, adapter_name = "default", options: PeftModelOptions = {}) {
    super();
    const { autocast_adapter_dtype, low_cpu_mem_usage } = bind("PeftModel", [options], {
      autocast_adapter_dtype: true,
      low_cpu_mem_usage: false,
    });
    if (!(model instanceof nn.Module)) throw new InvalidArgumentError("A PeftModel takes a module first.");
    if (!(config instanceof LoraConfig))
      throw new InvalidArgumentError("A PeftModel takes a LoraConfig after the module.");
    this.base_model = new LoraModel(model);
    this.training = model.training;
    this.#active = [adapter_name];
    this.#inject(adapter_name, config, [adapter_name], low_cpu_mem_usage, autocast_adapter_dtype);
  }

  #inject(
    name: string,
    config: LoraConfig,
    active: readonly string[],
    empty: boolean,
    autocast: boolean,
  ): void {
    const heads = HEADS[config.task_type ?? ""];
    if (heads !== undefined) config.modules_to_save = [...(config.modules_to_save ?? []), ...heads];
    injectAdapter(this.#model, config, name, { empty, active });
    if (!autocast) return;
    for (const [, layer] of loraLayers(this.#model))
      for (const parameter of layer.adapter_parameters(name))
        if (parameter.dtype === "float16" || parameter.dtype === "bfloat16")
          layer.cast_adapter(name, { dtype: "float32" });
  }

  get #model(): Adaptable {
    return this.base_model.model as Adaptable;
  }

  /** The configs of the adapters, by name. */
  get peft_config(): PeftConfigs {
    return this.#model.peft_config ?? {};
  }

  get active_adapters(): string[] {
    return [...this.#active];
  }

  get active_adapter(): string {
    return this.#active[0] as string;
  }

  /** The module with the adapters in it. */
  get_base_model(): M {
    return this.base_model.model;
  }

  override forward(...args: Parameters<ForwardOf<M>>): ReturnType<ForwardOf<M>> {
    return (this.base_model.model.forward as Forward)(...args);
  }

  /** The wrapped model's own, where it generates. */
  get generate(): MethodOf<M, "generate"> {
    return this.#method("generate");
  }

  /** The wrapped model's own, where it generates. */
  get stream(): MethodOf<M, "stream"> {
    return this.#method("stream");
  }

  #method<Name extends string>(name: Name): MethodOf<M, Name> {
    const model = this.base_model.model as unknown as Record<string, unknown>;
    const method = model[name];
    if (typeof method !== "function")
      throw new InvalidArgumentError(`${this.base_model.model._get_name()} has no method '${name}'.`);
    return method.bind(model) as MethodOf<M, Name>;
  }

  /** Adds an adapter, which is not active until `set_adapter`. */
  add_adapter(adapter_name: string, config: LoraConfig, options: PeftModelOptions = {}): void {
    const { autocast_adapter_dtype, low_cpu_mem_usage } = bind("add_adapter", [options], {
      autocast_adapter_dtype: true,
      low_cpu_mem_usage: false,
    });
    this.#assertNew(adapter_name);
    this.#inject(adapter_name, config.clone(), this.#active, low_cpu_mem_usage, autocast_adapter_dtype);
  }

  /** Loads one more adapter from a folder or the hub; it is not active until `set_adapter`. */
  async load_adapter(
    model_id: string,
    adapter_name: string,
    options: PeftLoadOptions = {},
  ): Promise<AdapterLoadResult> {
    this.#assertNew(adapter_name);
    const { place, hub, config, own } = await readConfig(model_id, options);
    const state = await readAdapterWeights(place, hub);
    try {
      this.#inject(adapter_name, config, this.#active, own.low_cpu_mem_usage, own.autocast_adapter_dtype);
      return this.#fill(adapter_name, state, place, own.is_trainable);
    } finally {
      for (const tensor of Object.values(state)) tensor.dispose();
    }
  }

  #fill(name: string, state: nn.StateDict, source: string, trainable: boolean): AdapterLoadResult {
    let result: AdapterLoadResult;
    try {
      result = set_peft_model_state_dict(this.#model, state, { adapter_name: name, source });
    } catch (error) {
      deleteAdapter(this.#model, name);
      throw error;
    }
    if (result.missing_keys.length > 0)
      warn(
        `${source} lacks tensors of its adapter, which keep their first values: ${result.missing_keys.join(", ")}.`,
      );
    if (!trainable) this.eval();
    return result;
  }

  /** A module with an adapter from a folder or the hub. */
  static async from_pretrained<M extends AnyModule>(
    model: M,
    model_id: string,
    options: PeftLoadOptions & { readonly adapter_name?: string | undefined } = {},
  ): Promise<PeftModel<M>> {
    const { adapter_name = "default", ...others } = options;
    const { place, hub, config, own } = await readConfig(model_id, others);
    const state = await readAdapterWeights(place, hub);
    try {
      const wrapped = new PeftModel(model, config, adapter_name, {
        autocast_adapter_dtype: own.autocast_adapter_dtype,
        low_cpu_mem_usage: own.low_cpu_mem_usage,
      });
      try {
        wrapped.#fill(adapter_name, state, place, own.is_trainable);
      } catch (error) {
        unloadAdapters(wrapped.#model);
        throw error;
      }
      return wrapped;
    } finally {
      for (const tensor of Object.values(state)) tensor.dispose();
    }
  }

  /** Chooses the adapter that is used and trained, or several whose results are added. */
  set_adapter(adapter_name: string | readonly string[]): void {
    const names = [adapter_name].flat() as string[];
    for (const name of names) configOf(this.#model, name);
    setActive(this.#model, names);
    this.#active = names;
  }

  /** Removes an adapter. When it was the only active one, another one becomes active. */
  delete_adapter(adapter_name: string): void {
    configOf(this.#model, adapter_name);
    this.#active = deleteAdapter(this.#model, adapter_name);
  }

  /** Runs `fn` without the adapters, and gives its result. */
  disable_adapter<T>(fn: () => T): T {
    const layers = [...loraLayers(this.#model)].map(([, layer]) => layer);
    const was = layers.some((layer) => layer.disable_adapters);
    enableAdapters(this.#model, false);
    const restore = () => {
      if (!was) enableAdapters(this.#model, true);
    };
    let result: T;
    try {
      result = fn();
    } catch (error) {
      restore();
      throw error;
    }
    if (typeof (result as { then?: unknown } | null)?.then === "function")
      return (result as unknown as Promise<unknown>).finally(restore) as T;
    restore();
    return result;
  }

  merge_adapter(options: MergeOptions = {}): void {
    const { adapter_names, safe_merge } = bind("merge_adapter", [options], {
      adapter_names: null as readonly string[] | null,
      safe_merge: false,
    });
    mergeAdapters(this.#model, adapter_names, safe_merge);
  }

  unmerge_adapter(): void {
    unmergeAdapters(this.#model);
  }

  /** Adds adapters to the weights for good, and gives the module back without any. */
  merge_and_unload(options: MergeOptions = {}): M {
    this.merge_adapter(options);
    unloadAdapters(this.#model);
    return this.base_model.model;
  }

  /** Gives the module back as it was before the adapters; what is merged is taken out. */
  unload(): M {
    unmergeAdapters(this.#model);
    unloadAdapters(this.#model);
    return this.base_model.model;
  }

  /** Numbers of values that are trained, and of all values. */
  get_nb_trainable_parameters(): [trainable: number, all: number] {
    let [trainable, all] = [0, 0];
    for (const parameter of this.parameters()) {
      all += parameter.numel();
      if (parameter.requires_grad) trainable += parameter.numel();
    }
    return [trainable, all];
  }

  print_trainable_parameters(): void {
    const [trainable, all] = this.get_nb_trainable_parameters();
    const text = (n: number) => n.toLocaleString("en-US");
    console.log(
      `trainable params: ${text(trainable)} || all params: ${text(all)} || trainable%: ${((100 * trainable) / all).toFixed(4)}`,
    );
  }

  /**
   * Writes adapters in PEFT's format: "default" into the directory, others into folders of their names in it.
   *
   * @param options.selected_adapters default: all.
   */
  async save_pretrained(
    directory: string,
    options: {
      readonly selected_adapters?: readonly string[] | null | undefined;
      readonly save_embedding_layers?: boolean | "auto" | undefined;
    } = {},
  ): Promise<void> {
    const { selected_adapters, save_embedding_layers } = bind("save_pretrained", [options], {
      selected_adapters: null as readonly string[] | null,
      save_embedding_layers: "auto" as boolean | "auto",
    });
    const names = selected_adapters ?? Object.keys(this.peft_config);
    for (const name of names) configOf(this.#model, name);
    for (const name of names) {
      const folder = name === "default" ? directory : path.join(directory, name);
      const { task_type } = configOf(this.#model, name);
      await writeAdapter(this.#model, folder, {
        adapter_name: name,
        save_embedding_layers,
        inference_mode: true,
        ...(task_type === null ? { auto_mapping: autoMapping(this.#model) } : {}),
      });
    }
  }

  #assertNew(name: string): void {
    if (this.peft_config[name] === undefined) return;
    throw new InvalidArgumentError(`The model has an adapter '${name}' already.`);
  }
}

/** Where Python finds the class of the base model. */
function autoMapping(model: Adaptable): { base_model_class: string; parent_library: string } {
  const type = model.config?.model_type;
  return {
    base_model_class: model.constructor.name,
    parent_library: type ? `transformers.models.${type}.modeling_${type}` : "__main__",
  };
}

async function readConfig(model_id: string, options: PeftLoadOptions) {
  const entries = Object.entries(options);
  const isHub = ([key]: [string, unknown]) => HUB_OPTIONS.includes(key as never);
  const own = bind("load_adapter", [Object.fromEntries(entries.filter((entry) => !isHub(entry)))], {
    autocast_adapter_dtype: true,
    low_cpu_mem_usage: false,
    is_trainable: false,
  });
  const { name: place, options: hub } = await pin(
    model_id,
    Object.fromEntries(entries.filter(isHub)) as HubOptions,
  );
  const config = await readAdapterConfig(place, hub);
  config.inference_mode = !own.is_trainable;
  return { place, hub, config, own };
}

/**
 * Puts adapters beside layers of any module, and wraps it; see {@link PeftModel}.
 *
 * @param adapter_name default: "default".
 */
export function get_peft_model<M extends AnyModule>(
  model: M,
  peft_config: LoraConfig,
  ...rest:
    | [adapter_name?: string, options?: PeftModelOptions]
    | [options?: PeftModelOptions & { readonly adapter_name?: string | undefined }]
): PeftModel<M> {
  const { adapter_name, ...options } = bind("get_peft_model", rest, {
    adapter_name: "default",
    autocast_adapter_dtype: true,
    low_cpu_mem_usage: false,
  });
  if (!(peft_config instanceof LoraConfig))
    throw new InvalidArgumentError("get_peft_model takes a LoraConfig after the module.");
  if (model instanceof nn.Module && [...loraLayers(model)].length > 0)
    warn("The model has adapters already; call unload() first to begin anew.");
  const config = peft_config.clone();
  config.base_model_name_or_path = (model as Adaptable).config?.name_or_path || null;
  return new PeftModel(model, config, adapter_name, options);
}

/** Puts an adapter into a module in place, without a wrapper. Gives the module. */
export function inject_adapter_in_model<M extends AnyModule>(
  peft_config: LoraConfig,
  model: M,
  ...rest:
    | [adapter_name?: string, options?: { readonly low_cpu_mem_usage?: boolean | undefined }]
    | [
        options?: {
          readonly adapter_name?: string | undefined;
          readonly low_cpu_mem_usage?: boolean | undefined;
        },
      ]
): M {
  const { adapter_name, low_cpu_mem_usage } = bind("inject_adapter_in_model", rest, {
    adapter_name: "default",
    low_cpu_mem_usage: false,
  });
  if (!(peft_config instanceof LoraConfig))
    throw new InvalidArgumentError("inject_adapter_in_model takes a LoraConfig first.");
  injectAdapter(model as Adaptable, peft_config.clone(), adapter_name, { empty: low_cpu_mem_usage });
  return model;
}
