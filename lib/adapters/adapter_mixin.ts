// What a PreTrainedModel can do with adapters: transformers' names over PEFT's files.
import { InvalidArgumentError } from "../errors/index.ts";
import { warn } from "../errors/warnings.ts";
import { HUB_OPTIONS, type HubOptions, pin } from "../hub/files.ts";
import { bind } from "../nn/arguments.ts";
import * as nn from "../nn/index.ts";
import { LoraConfig } from "./config.ts";
import { readAdapterConfig, readAdapterWeights } from "./files.ts";
import { hotswap, prepareHotswap } from "./hotswap.ts";
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
import {
  type AdapterLoadResult,
  configOf,
  get_peft_model_state_dict,
  set_peft_model_state_dict,
} from "./state.ts";

/** Options of `load_adapter`, beside those of the hub. */
export interface LoadAdapterOptions extends HubOptions {
  /** Default: "default". */
  readonly adapter_name?: string | null | undefined;
  /** Used in the place of the folder's own config; needed with `adapter_state_dict`. */
  readonly peft_config?: LoraConfig | Readonly<Record<string, unknown>> | null | undefined;
  /** The tensors themselves, by the names of a file, in the place of a folder. */
  readonly adapter_state_dict?: Readonly<nn.StateDict> | null | undefined;
  /** Do not draw values for matrices that the file replaces. Default: false, as in Python: the numbers drawn are the same. */
  readonly low_cpu_mem_usage?: boolean | undefined;
  /** Let the adapter be trained. Default: false: it is frozen, and the model set to evaluate. */
  readonly is_trainable?: boolean | undefined;
  /** Put the values into the adapter that has this name. Default "auto": after `enable_peft_hotswap`, where there is one. */
  readonly hotswap?: boolean | "auto" | undefined;
  /** Options of the hub for the adapter's files only. */
  readonly adapter_kwargs?: HubOptions | null | undefined;
}

const LOAD_DEFAULTS = {
  adapter_name: null as string | null,
  peft_config: null as LoraConfig | Readonly<Record<string, unknown>> | null,
  adapter_state_dict: null as Readonly<nn.StateDict> | null,
  low_cpu_mem_usage: false,
  is_trainable: false,
  hotswap: "auto" as boolean | "auto",
  local_files_only: undefined as boolean | undefined,
  adapter_kwargs: null as HubOptions | null,
};

/** Options of merging. */
export interface MergeOptions {
  /** Default: the active ones. */
  readonly adapter_names?: readonly string[] | null | undefined;
  /** Leave the weights as they are, and throw, where a sum is not finite. Default: false. */
  readonly safe_merge?: boolean | undefined;
}

/** The part of `PreTrainedModel` that concerns adapters. */
export abstract class PeftAdapterMixin extends nn.Module {
  /** The configs of the adapters, by name; undefined while there is none. */
  declare peft_config?: PeftConfigs;
  #hotswapRank: number | undefined;

  /** Whether the model has adapters. */
  get _hf_peft_config_loaded(): boolean {
    return this.peft_config !== undefined;
  }

  /** Renames a name of an older layout; a model with conversions overrides it. */
  _rename_adapter_key(key: string): string {
    return key;
  }

  /**
   * Puts a new adapter beside layers of the model, and makes it the active one. Only adapters can be trained afterwards.
   *
   * @param adapter_name default: "default".
   * @throws InvalidArgumentError when there is one of this name, or no module is meant by the config.
   * @example
   * model.add_adapter(new LoraConfig({ r: 8, target_modules: "all-linear" }));
   * const optimizer = new optim.AdamW([...model.parameters()].filter((p) => p.requires_grad), { lr: 1e-3 });
   */
  add_adapter(adapter_config: LoraConfig, adapter_name: string | null = null): void {
    const name = adapter_name ?? "default";
    if (!(adapter_config instanceof LoraConfig))
      throw new InvalidArgumentError("add_adapter takes a LoraConfig first.", {
        hint: "new LoraConfig({ r: 8, target_modules: [...] })",
      });
    this.#assertNew(name);
    const config = adapter_config.clone();
    config.base_model_name_or_path = (this as Adaptable).config?.name_or_path ?? null;
    injectAdapter(this, config, name);
    this.set_adapter(name);
  }

  /**
   * Loads an adapter in PEFT's format from a folder or the hub, and makes it the active one.
   *
   * Every tensor of the file must have a place in the model; tensors that the file lacks are told of.
   *
   * @throws CheckpointError for names without a place and other shapes, UnsupportedAdapterError for another method than LoRA.
   * @example
   * await model.load_adapter("./my-adapter");
   * await model.load_adapter("user/other-adapter", "other", { revision: "v2" });
   * model.set_adapter("default");
   */
  async load_adapter(
    peft_model_id?: string | null,
    ...rest: [options?: LoadAdapterOptions] | [adapter_name?: string | null, options?: LoadAdapterOptions]
  ): Promise<AdapterLoadResult> {
    const last = rest.at(-1);
    const hub: Record<string, unknown> = {};
    const own: Record<string, unknown> = {};
    if (typeof last === "object" && last !== null)
      for (const [key, value] of Object.entries(last))
        (HUB_OPTIONS.includes(key as never) ? hub : own)[key] = value;
    const given = typeof last === "object" && last !== null ? [...rest.slice(0, -1), own] : rest;
    const options = bind("load_adapter", given, LOAD_DEFAULTS);
    return this.#load(peft_model_id ?? undefined, options, {
      ...hub,
      ...options.adapter_kwargs,
    } as HubOptions);
  }

  async #load(
    source: string | undefined,
    options: typeof LOAD_DEFAULTS,
    hubOptions: HubOptions,
  ): Promise<AdapterLoadResult> {
    const name = options.adapter_name ?? "default";
    const exists = this.peft_config?.[name] !== undefined;
    const swap = options.hotswap === "auto" ? this.#hotswapRank !== undefined && exists : options.hotswap;
    if (swap && !exists)
      throw new InvalidArgumentError(
        `hotswap: the model has no adapter '${name}' whose place could be taken.`,
      );
    if (!swap) this.#assertNew(name);
    const { adapter_state_dict } = options;
    if (source === undefined && (adapter_state_dict === null || options.peft_config === null))
      throw new InvalidArgumentError(
        "load_adapter takes a folder or repository, or both peft_config and adapter_state_dict.",
      );

    const pinned = source === undefined ? undefined : await pin(source, hubOptions);
    const { name: place = "the state dict", options: hub = hubOptions } = pinned ?? {};
    const given = options.peft_config;
    const config =
      given === null
        ? await readAdapterConfig(place, hub)
        : given instanceof LoraConfig
          ? given.clone()
          : LoraConfig.from_dict({ peft_type: "LORA", ...given });
    config.inference_mode = !options.is_trainable;
    const state = adapter_state_dict ?? (await readAdapterWeights(place, hub));
    const rename = (key: string) => this._rename_adapter_key(key);
    try {
      const result = swap
        ? hotswap(this, name, config, state, { source: place, rename })
        : this.#put(name, config, state, place, options.low_cpu_mem_usage);
      if (config.inference_mode) {
        this.eval();
        for (const [, layer] of loraLayers(this)) layer.requires_grad_(false);
      }
      if (result.missing_keys.length > 0)
        warn(
          `${place} lacks tensors of its adapter, which keep their first values: ${result.missing_keys.join(", ")}.`,
        );
      return result;
    } finally {
      if (adapter_state_dict === null) for (const tensor of Object.values(state)) tensor.dispose();
    }
  }

  /** A new adapter with the values of a state dict; the model is as it was where these do not fit. */
  #put(
    name: string,
    config: LoraConfig,
    state: Readonly<nn.StateDict>,
    source: string,
    empty: boolean,
  ): AdapterLoadResult {
    const active = this.peft_config === undefined ? [] : this.active_adapters();
    const trained = [...this.parameters()].map((parameter) => [parameter, parameter.requires_grad] as const);
    injectAdapter(this, config, name, { empty });
    try {
      const rename = (key: string) => this._rename_adapter_key(key);
      const result = set_peft_model_state_dict(this, state, { adapter_name: name, source, rename });
      if (this.#hotswapRank !== undefined) prepareHotswap(this, name, this.#hotswapRank);
      return result;
    } catch (error) {
      this.#remove(name);
      if (this.peft_config !== undefined) setActive(this, active);
      for (const [parameter, requires_grad] of trained) parameter.requires_grad_(requires_grad);
      throw error;
    }
  }

  /**
   * Lets adapters be swapped in place: `load_adapter` under a name that is there changes values only, so that compiled
   * functions and `generate` go on with their recordings. Call it before the first adapter is loaded.
   *
   * @param options.target_rank the largest rank of the adapters to come; default 128.
   */
  enable_peft_hotswap(
    ...rest:
      | [options?: { target_rank?: number; check_compiled?: "error" | "warn" | "ignore" }]
      | [target_rank: number, check_compiled?: "error" | "warn" | "ignore"]
  ): void {
    const { target_rank, check_compiled } = bind("enable_peft_hotswap", rest, {
      target_rank: 128,
      check_compiled: "error" as "error" | "warn" | "ignore",
    });
    if (!["error", "warn", "ignore"].includes(check_compiled))
      throw new InvalidArgumentError(
        "enable_peft_hotswap: check_compiled must be 'error', 'warn' or 'ignore'.",
      );
    if (this.peft_config !== undefined) {
      const message = "enable_peft_hotswap is called before the first adapter is loaded.";
      if (check_compiled === "error") throw new InvalidArgumentError(message);
      if (check_compiled === "warn") warn(message);
    }
    this.#hotswapRank = target_rank;
  }

  /**
   * Chooses the adapter that is used, or several whose results are added. It can be trained then; the others cannot.
   *
   * @throws InvalidArgumentError for a name that the model does not have.
   */
  set_adapter(adapter_name: string | readonly string[]): void {
    this.#assertLoaded();
    const names = [adapter_name].flat() as string[];
    for (const name of names) configOf(this, name);
    setActive(this, names);
  }

  /** Uses the model without its adapters, until `enable_adapters`. */
  disable_adapters(): void {
    this.#assertLoaded();
    enableAdapters(this, false);
  }

  enable_adapters(): void {
    this.#assertLoaded();
    enableAdapters(this, true);
  }

  /** The names of the adapters that are used. @throws InvalidArgumentError when the model has none. */
  active_adapters(): string[] {
    this.#assertLoaded();
    for (const [, layer] of loraLayers(this)) return layer.active_adapters;
    return [];
  }

  /**
   * The tensors of an adapter under the names of PEFT's files, without the prefix that `save_pretrained` puts before them.
   *
   * @param adapter_name default: the active one. @param state_dict default: the model's own.
   */
  get_adapter_state_dict(
    ...rest:
      | [adapter_name?: string | null, state_dict?: nn.StateDict | null]
      | [options: { adapter_name?: string | null; state_dict?: nn.StateDict | null }]
  ): nn.StateDict {
    this.#assertLoaded();
    const { adapter_name, state_dict } = bind("get_adapter_state_dict", rest, {
      adapter_name: null as string | null,
      state_dict: null as nn.StateDict | null,
    });
    const [first = "default"] = adapter_name === null ? this.active_adapters() : [adapter_name];
    return get_peft_model_state_dict(this, { adapter_name: first, state_dict });
  }

  /**
   * Removes adapters. After the last one the model is as it was before the first.
   *
   * @throws InvalidArgumentError for a name that the model does not have, or an adapter that is merged.
   */
  delete_adapter(adapter_names: string | readonly string[]): void {
    this.#assertLoaded();
    const names = [adapter_names].flat() as string[];
    for (const name of names) configOf(this, name);
    for (const name of names) this.#remove(name);
  }

  #remove(name: string): void {
    deleteAdapter(this, name);
    if (Object.keys(this.peft_config ?? {}).length === 0) unloadAdapters(this);
  }

  /** Adds adapters to the weights, so that they cost nothing; `unmerge_adapter` takes them out again. */
  merge_adapter(options: MergeOptions = {}): void {
    this.#assertLoaded();
    const { adapter_names, safe_merge } = bind("merge_adapter", [options], {
      adapter_names: null as readonly string[] | null,
      safe_merge: false,
    });
    for (const name of adapter_names ?? []) configOf(this, name);
    mergeAdapters(this, adapter_names, safe_merge);
  }

  unmerge_adapter(): void {
    this.#assertLoaded();
    unmergeAdapters(this);
  }

  /** Adds adapters to the weights for good: the model is one without adapters then, and is saved as a whole. */
  merge_and_unload(options: MergeOptions = {}): this {
    this.merge_adapter(options);
    unloadAdapters(this);
    return this;
  }

  #assertLoaded(): void {
    if (this.peft_config !== undefined) return;
    throw new InvalidArgumentError(`${this._get_name()} has no adapter.`, {
      hint: "Add one with add_adapter(config), or load one with load_adapter(directory).",
    });
  }

  #assertNew(name: string): void {
    if (this.peft_config?.[name] === undefined) return;
    throw new InvalidArgumentError(`${this._get_name()} has an adapter '${name}' already.`, {
      hint: "Give it another adapter_name, or delete the other one first.",
    });
  }
}
