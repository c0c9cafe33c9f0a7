// The base class of all model configurations: reading, writing, checking and comparing them, as the reference does.
// biome-ignore-all lint/complexity/noThisInStatic: statics are inherited, so the class that was called is meant.
// Over 500 lines because it is one class with its overloads and doc comments; construction, reading, labels, rope and checks
// are in files of their own.

import path from "node:path";
import { registerForAutoClass } from "../custom_code/auto_classes.ts";
import { gatherCode, writeCode } from "../custom_code/save_code.ts";
import { ConfigError } from "../errors/index.ts";
import { warnOnce } from "../errors/warnings.ts";
import { writeFileAtomic } from "../hub/atomic.ts";
import { type HubOptions, kindOf } from "../hub/files.ts";
import { loadingCard } from "../hub/model_card.ts";
import type { Pushable, PushToHubOptions, SaveAndPushOptions } from "../hub/push.ts";
import type { CommitInfo } from "../hub/upload.ts";
import {
  cloneJson,
  isRecord,
  markIntegerKeys,
  numberForm,
  put,
  setNumberForm,
  stringifyJson,
} from "../json/json.ts";
import { defineAliases, inheritedTable } from "./class_tables.ts";
import { diffDict } from "./config_diff.ts";
import { CONFIG_NAME, inFile, readConfigFile, TRANSFORMERS_VERSION } from "./config_files.ts";
import { partFor, readConfigDict } from "./config_reading.ts";
import { Construction, isGenerationOnly, overwritten, TRANSIENT_FIELDS } from "./construction.ts";
import {
  adoptNumberForms,
  checkFields,
  type FieldRanges,
  type FieldTypes,
  markFloatFields,
} from "./field_types.ts";
import { fromDict } from "./from_dict.ts";
import { makeLabels, readLabels } from "./labels.ts";
import { adoptRopeForms, type RopeConfig, type RopeDefaults, standardizeRope, validateRope } from "./rope.ts";
import { loadSubConfigClasses, type SubConfig } from "./sub_configs.ts";
import { flatSide, textPart } from "./text_config.ts";
import { checkCommon, checkLayerTypes, checkTokenIds, renameLayerTypes } from "./validation.ts";

/** Arguments of a configuration's constructor: fields by name. */
export type ConfigKwargs = Readonly<Record<string, unknown>>;

/** A class of configurations; `never` because each takes its own options. */
export type ConfigClass<T extends PretrainedConfig = PretrainedConfig> = (new (
  kwargs?: never,
) => T) &
  Pick<typeof PretrainedConfig, "model_type" | "base_config_key" | "sub_configs" | "field_types">;

/** Options of a configuration's `from_pretrained`: where its file is, and fields to replace. */
export interface FromPretrainedOptions extends HubOptions {
  /** Give `[config, unused]`, where `unused` holds the options that name no field. Default false. */
  readonly return_unused_kwargs?: boolean;
  /** Any field, to replace its value. */
  readonly [field: string]: unknown;
}

type Fields = Record<string, unknown>;

/**
 * Base class of the configurations.
 *
 * A configuration's own enumerable properties are its fields. A subclass names its defaults in the constructor's
 * destructuring and ends with `post_init()`, which derives, standardizes and checks:
 *
 * ```ts
 * class MyConfig extends PretrainedConfig {
 *   static override readonly model_type = "my-model";
 *   static override readonly field_types = { layers: "list[int]", dropout: "float" };
 *   declare layers: number[];
 *   declare dropout: number;
 *
 *   constructor({ layers = [3, 4, 6, 3], dropout = 0, ...kwargs }: ConfigKwargs & { layers?: number[]; dropout?: number } = {}) {
 *     super(kwargs);
 *     this.layers = layers;
 *     this.dropout = dropout;
 *     this.post_init();
 *   }
 * }
 * ```
 *
 * Never give a field an initializer, and never declare a parent's field again without `declare`: either would
 * overwrite what the parent's constructor stored (`ConfigFieldError`).
 */
export class PretrainedConfig {
  /** The name by which a `config.json` says its class. */
  static readonly model_type: string = "";
  /** The field of a composite configuration that holds this one, for `from_pretrained` on the whole. */
  static readonly base_config_key: string = "";
  /** Other names of fields: `{ hidden_size: "n_embd" }` lets `config.hidden_size` read `config.n_embd`. */
  static readonly attribute_map: Readonly<Record<string, string>> = {};
  /** Fields that are configurations themselves. */
  static readonly sub_configs: Readonly<Record<string, SubConfig>> = {};
  /** The Auto class that finds this one where its code is shared; see {@link register_for_auto_class}. */
  static _auto_class: string | null = null;
  /** Types of the fields, in Python's notation; those of parent classes are inherited. */
  static readonly field_types: FieldTypes = {
    transformers_version: "str | None",
    architectures: "list[str] | None",
    output_hidden_states: "bool | None",
    return_dict: "bool | None",
    dtype: "str | None",
    chunk_size_feed_forward: "int",
    is_encoder_decoder: "bool",
    id2label: "dict | None",
    label2id: "dict | None",
    problem_type: "str | None",
  };
  /** Bounds of numeric fields. Without one, sizes and counts are at least 0. */
  static readonly field_ranges: FieldRanges = {};
  /** Outputs that are left out when predictions are gathered. */
  static readonly keys_to_ignore_at_inference: readonly string[] = [];
  static readonly default_theta: number = 10_000;
  static readonly default_rope_type: string = "default";
  static readonly ignore_keys_at_rope_validation: readonly string[] = [];

  declare transformers_version: string | null;
  declare architectures: string[] | null;
  declare output_hidden_states: boolean | null;
  declare return_dict: boolean | null;
  /** Dtype of the weights, by torch's name. */
  declare dtype: string | null;
  declare chunk_size_feed_forward: number;
  declare is_encoder_decoder: boolean;
  declare id2label: Record<number, string> | null;
  declare label2id: Record<string, number> | null;
  declare problem_type: "regression" | "single_label_classification" | "multi_label_classification" | null;

  // Fields that most models have, so that general code can ask for them.
  declare vocab_size?: number;
  declare hidden_size?: number;
  declare num_hidden_layers?: number;
  declare num_attention_heads?: number;
  declare tie_word_embeddings?: boolean;
  declare use_cache?: boolean;
  declare pad_token_id?: number | null;
  declare bos_token_id?: number | null;
  declare eos_token_id?: number | number[] | null;
  declare quantization_config?: Record<string, unknown> | null;
  declare auto_map?: Record<string, unknown>;

  readonly #construction = new Construction(this);
  #nameOrPath = "";
  #outputAttentions: boolean | null = false;
  #attention: string | null = null;
  #experts: string | null = null;

  constructor(kwargs: ConfigKwargs = {}) {
    const Config = new.target;
    defineAliases(Config, inheritedTable(Config, "attribute_map"));
    const {
      transformers_version = null,
      architectures = null,
      output_hidden_states = false,
      return_dict = true,
      dtype = null,
      torch_dtype = null,
      chunk_size_feed_forward = 0,
      is_encoder_decoder = false,
      id2label = null,
      label2id = null,
      num_labels,
      problem_type = null,
      name_or_path,
      output_attentions = false,
      attn_implementation = null,
      experts_implementation = null,
      model_type,
      _name_or_path,
      ...others
    } = kwargs;
    Object.assign(this, { transformers_version, architectures, output_hidden_states, return_dict });
    Object.assign(this, { chunk_size_feed_forward, is_encoder_decoder, problem_type });
    this.dtype = plainDtype(dtype ?? torch_dtype) as string | null;
    this.label2id = label2id as Record<string, number> | null;
    this.id2label = readLabels(Config.name, id2label);
    const count = (num_labels ?? null) as number | null;
    if (id2label === null) this.num_labels = count ?? 2;
    else if (count !== null && count !== this.num_labels) {
      warnOnce(`num_labels is ${count}, but id2label has ${this.num_labels} labels; new labels are made.`);
      this.num_labels = count;
    }
    this.#nameOrPath = String(name_or_path ?? _name_or_path ?? "");
    this.#outputAttentions = output_attentions as boolean | null;
    this._attn_implementation = attn_implementation as string | null;
    this._experts_implementation = experts_implementation as string | null;
    // The class says the model type; only a configuration of no known class keeps what it was given.
    if (model_type !== undefined && Config.model_type === "")
      this.#construction.shadowed.model_type = model_type;
    for (const [key, value] of Object.entries(others)) this.#construction.set(key, value);
    this.#construction.rememberStored();
    if (Config === PretrainedConfig) this.post_init();
  }

  get model_type(): string {
    return (
      (this.constructor as typeof PretrainedConfig).model_type ||
      String(this.#construction.shadowed.model_type ?? "")
    );
  }

  /** Where the configuration was loaded from; "" when it was not. */
  get name_or_path(): string {
    return this.#nameOrPath;
  }

  set name_or_path(value: string) {
    this.#nameOrPath = String(value);
  }

  get _name_or_path(): string {
    return this.#nameOrPath;
  }

  set _name_or_path(value: string) {
    this.#nameOrPath = String(value);
  }

  /** The number of labels: the size of `id2label`. Setting another number makes new labels. */
  get num_labels(): number | null {
    return this.id2label === null ? null : Object.keys(this.id2label).length;
  }

  set num_labels(count: number) {
    if (this.id2label !== null && this.num_labels === count) return;
    Object.assign(this, makeLabels(this.constructor.name, count));
  }

  get use_return_dict(): boolean | null {
    return this.return_dict;
  }

  /** The older name of `dtype`. */
  get torch_dtype(): string | null {
    return this.dtype;
  }

  set torch_dtype(value: string | null) {
    this.dtype = plainDtype(value) as string | null;
  }

  get output_attentions(): boolean | null {
    return this.#outputAttentions;
  }

  /** Attention weights exist only in the eager implementation, which this chooses when none is chosen. */
  set output_attentions(value: boolean | null) {
    if (value) this._attn_implementation ??= "eager";
    this.#outputAttentions = value;
    this.validate_output_attentions();
  }

  /** The attention implementation that was chosen, for this configuration and those inside it; never written to files. */
  get _attn_implementation(): string | null {
    return this.#attention;
  }

  set _attn_implementation(value: string | Readonly<Record<string, string>> | null) {
    this.#attention = ownChoice(value, this.#attention);
    for (const [key, config] of this.#subConfigs()) {
      config._attn_implementation = isRecord(value)
        ? ((value[key] as string) ?? config._attn_implementation)
        : value;
    }
  }

  get _experts_implementation(): string | null {
    return this.#experts;
  }

  set _experts_implementation(value: string | Readonly<Record<string, string>> | null) {
    this.#experts = ownChoice(value, this.#experts);
    for (const [key, config] of this.#subConfigs()) {
      config._experts_implementation = isRecord(value)
        ? ((value[key] as string) ?? config._experts_implementation)
        : value;
    }
  }

  /** The older name of `rope_parameters`. */
  get rope_scaling(): unknown {
    return (this as Fields).rope_parameters;
  }

  set rope_scaling(value: unknown) {
    (this as Fields).rope_parameters = value;
    if (value !== null && value !== undefined) standardizeRope(this.#rope(), {}, this.#ropeDefaults());
  }

  /**
   * Finishes construction: makes the configurations inside this one, brings older names into today's form, checks.
   * To be called at the end of a constructor; while a subclass has still to set fields of its own, it does nothing.
   */
  post_init(): void {
    const types = this.#fieldTypes();
    const construction = this.#construction;
    construction.rememberStored();
    if (!construction.isComplete(types)) return;
    construction.makeSubConfigs(this.#attention);
    construction.applyAliases();
    construction.standardizeRope(types, this.#ropeDefaults());
    renameLayerTypes(this as Fields);
    markFloatFields(this, types);
    this.validate();
    construction.isSettled = true;
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Checks

  /** Checks fields and what they say together; throws `ConfigError` that names the field. */
  validate(): void {
    const types = this.#fieldTypes();
    const reset = Object.keys(types).find(
      (name) => Object.hasOwn(this, name) && (this as Fields)[name] === undefined,
    );
    if (reset !== undefined) throw overwritten(this, reset);
    checkFields(this.constructor.name, this, types, inheritedTable(this.#class(), "field_ranges"));
    checkCommon(this);
    this.validate_output_attentions();
    this.validate_architecture();
    this.validate_token_ids();
    this.validate_layer_type();
    this.validate_rope();
  }

  validate_output_attentions(): void {
    const implementation = this.#attention;
    if (!this.#outputAttentions || implementation === null || implementation === "eager") return;
    throw new ConfigError(
      `${this.constructor.name}: field 'output_attentions' needs attn_implementation 'eager', but it is '${implementation}'.`,
    );
  }

  /** For subclasses: what their sizes must satisfy together. */
  validate_architecture(): void {
    const { head_dim, num_heads, embed_dim } = this as Fields;
    if (typeof head_dim !== "number" || typeof num_heads !== "number" || typeof embed_dim !== "number")
      return;
    if (head_dim * num_heads !== embed_dim) {
      throw new ConfigError(
        `${this.constructor.name}: field 'embed_dim' (${embed_dim}) must be head_dim (${head_dim}) times num_heads (${num_heads}).`,
      );
    }
  }

  validate_token_ids(): void {
    checkTokenIds(textPart(this, { decoder: true }) ?? this);
  }

  validate_layer_type(): void {
    checkLayerTypes(this);
  }

  validate_rope(): void {
    if ((this as Fields).rope_parameters !== undefined) validateRope(this.#rope(), this.#ropeDefaults());
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Reading

  /**
   * Reads the configuration of a checkpoint.
   *
   * `dirOrRepo` is a directory, a JSON file, or a repository on the hub ("org/name", "org/name@revision"). Options that name fields override them;
   * an option that is neither is an `InvalidArgumentError`, or is given back with `return_unused_kwargs`.
   *
   * Throws `EntryNotFoundError` when there is no config.json, `ConfigError` when it is not valid.
   *
   * ```ts
   * const config = await LlamaConfig.from_pretrained("./my-model", { num_labels: 3 });
   * const [same, unused] = await LlamaConfig.from_pretrained("./my-model", { colour: "red", return_unused_kwargs: true });
   * ```
   */
  static from_pretrained<T extends PretrainedConfig>(
    this: ConfigClass<T>,
    dirOrRepo: string,
    options: FromPretrainedOptions & { readonly return_unused_kwargs: true },
  ): Promise<[T, Record<string, unknown>]>;
  static from_pretrained<T extends PretrainedConfig>(
    this: ConfigClass<T>,
    dirOrRepo: string,
    options?: FromPretrainedOptions,
  ): Promise<T>;
  static async from_pretrained<T extends PretrainedConfig>(
    this: ConfigClass<T>,
    dirOrRepo: string,
    options: FromPretrainedOptions = {},
  ): Promise<T | [T, Record<string, unknown>]> {
    const { dict, file, unused } = await PretrainedConfig.get_config_dict(dirOrRepo, options);
    const part = partFor(this, dict);
    await loadSubConfigClasses(this, part);
    return inFile(file, () => fromDict(this, part, unused));
  }

  /**
   * The content of a checkpoint's config.json, the path it was read from, and the options that say nothing of where to
   * find it. `ConfigError` when it is not a JSON object.
   */
  static async get_config_dict(
    dirOrRepo: string,
    options: FromPretrainedOptions = {},
  ): Promise<{ readonly dict: Fields; readonly file: string; readonly unused: Fields }> {
    return await readConfigDict(dirOrRepo, options);
  }

  /**
   * Makes a configuration of plain data, as `from_pretrained` does after reading it. `options` as there.
   *
   * ```ts
   * LlamaConfig.from_dict({ hidden_size: 64, num_attention_heads: 4 }).head_dim; // 16
   * ```
   */
  static from_dict<T extends PretrainedConfig>(
    this: ConfigClass<T>,
    dict: ConfigKwargs,
    options: ConfigKwargs & { readonly return_unused_kwargs: true },
  ): [T, Record<string, unknown>];
  static from_dict<T extends PretrainedConfig>(
    this: ConfigClass<T>,
    dict: ConfigKwargs,
    options?: ConfigKwargs,
  ): T;
  static from_dict<T extends PretrainedConfig>(
    this: ConfigClass<T>,
    dict: ConfigKwargs,
    options: ConfigKwargs = {},
  ): T | [T, Record<string, unknown>] {
    return fromDict(this, dict, options);
  }

  /** Reads one JSON file. */
  static async from_json_file<T extends PretrainedConfig>(this: ConfigClass<T>, file: string): Promise<T> {
    const dict = await readConfigFile(file);
    await loadSubConfigClasses(this, dict);
    return inFile(file, () => fromDict(this, dict, {}) as T);
  }

  /**
   * After construction from `dict`: takes over how its numbers were written, and checks that no class field reset
   * what was given. For `from_dict`.
   */
  _adopt(dict: ConfigKwargs): void {
    this.#construction.checkOverwritten(dict);
    adoptNumberForms(this, dict);
    if ((this as Fields).rope_parameters !== undefined) adoptRopeForms(this.#rope(), dict);
    this.post_init();
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Writing

  /** All fields as plain data. */
  to_dict(): Record<string, unknown> {
    const output: Fields = {};
    for (const [key, value] of [...Object.entries(this.#construction.shadowed), ...Object.entries(this)]) {
      if (TRANSIENT_FIELDS.has(key) || value === undefined || typeof value === "function") continue;
      if (value instanceof PretrainedConfig) {
        const inner = value.to_dict();
        delete inner.transformers_version;
        put(output, key, inner);
      } else {
        put(output, key, cloneJson(value));
        const form = numberForm(this, key);
        if (form !== undefined) setNumberForm(output, key, form);
      }
    }
    // Python keeps the ids as integers, and writes them in their order.
    if (isRecord(output.id2label) && Object.keys(output.id2label).every((id) => /^\d+$/.test(id))) {
      markIntegerKeys(output.id2label);
    }
    output._name_or_path = this.#nameOrPath;
    output.output_attentions = this.#outputAttentions;
    output.model_type = this.model_type;
    output.transformers_version = TRANSFORMERS_VERSION;
    markFloatFields(output, this.#fieldTypes());
    return output;
  }

  /** What `save_pretrained` writes: the model's own fields, and of the common ones those that differ from the defaults. */
  to_diff_dict(): Record<string, unknown> {
    return diffDict(this, new PretrainedConfig().to_dict());
  }

  /** The text of config.json, byte for byte as the reference writes it; all fields with `use_diff: false`. */
  to_json_string({ use_diff = true }: { readonly use_diff?: boolean } = {}): string {
    return `${stringifyJson(use_diff ? this.to_diff_dict() : this.to_dict(), { floatTags: true })}\n`;
  }

  /** Writes one JSON file, atomically. */
  async to_json_file(file: string, options: { readonly use_diff?: boolean } = {}): Promise<void> {
    await writeFileAtomic(file, this.to_json_string(options));
  }

  /**
   * Says that the code of this class is to be saved beside what it describes, for `AutoConfig.from_pretrained` with
   * `trust_remote_code`. Only a class of a module of its own can be shared.
   *
   * ```ts
   * ResnetConfig.register_for_auto_class();
   * ```
   */
  static register_for_auto_class(auto_class: string | { readonly name: string } = "AutoConfig"): void {
    registerForAutoClass(this, auto_class);
  }

  /** What `register_for_auto_class` asked for, as part of the fields: `auto_map` names the class. */
  _add_to_auto_map(auto_class: string, reference: unknown): void {
    this.auto_map = { ...this.auto_map, [auto_class]: reference };
  }

  /**
   * Writes config.json into `directory`, which is made if need be. Python's `from_pretrained` reads it. With `push_to_hub`
   * it is sent to the hub too, to `repo_id` (default: the name of the directory).
   *
   * Throws `ConfigError` when a field is not valid or belongs into a generation configuration.
   */
  async save_pretrained(directory: string, options: SaveAndPushOptions = {}): Promise<void> {
    if (options.push_to_hub === true) {
      const { saveAndPush } = await import("../hub/push.ts");
      await saveAndPush(this.#pushable(), directory, options);
      return;
    }
    if ((await kindOf(directory)) === "file")
      throw new ConfigError(`'${directory}' is a file; a directory was expected.`);
    const generation = Object.keys(this.#generationParameters());
    if (generation.length > 0) {
      throw new ConfigError(`${this.constructor.name} has generation parameters: ${generation.join(", ")}.`, {
        hint: "Set them on model.generation_config.",
      });
    }
    this.validate();
    const code = await gatherCode(this.#class());
    if (code !== undefined) this._add_to_auto_map(this.#class()._auto_class as string, code.reference);
    await writeCode(directory, [code]);
    await this.to_json_file(path.join(directory, CONFIG_NAME));
  }

  /**
   * Sends config.json to the hub, into a repository that is made if need be. Resolves to the commit.
   *
   * ```ts
   * await config.push_to_hub("user/my-model", { commit_message: "A smaller one" });
   * ```
   */
  async push_to_hub(repo_id: string, options: PushToHubOptions = {}): Promise<CommitInfo> {
    const { pushToHub } = await import("../hub/push.ts");
    return pushToHub(this.#pushable(), repo_id, options);
  }

  #pushable(): Pushable {
    return {
      name: this.constructor.name,
      save: (folder) => this.save_pretrained(folder),
      card: loadingCard(
        `A ${this.constructor.name}${this.model_type ? ` (\`${this.model_type}\`)` : ""}: the settings of a model, without weights.`,
        "AutoConfig",
        "config",
      ),
    };
  }

  toJSON(): unknown {
    return this.to_dict();
  }

  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return `${this.constructor.name} ${this.to_json_string()}`;
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Use

  /** Sets fields from plain data. */
  update(fields: ConfigKwargs): void {
    for (const [key, value] of Object.entries(fields)) this.#construction.set(key, value);
  }

  /** A copy that shares nothing with this one. */
  clone(): this {
    const copy = fromDict(this.constructor as ConfigClass<this>, this.to_dict(), {}) as this;
    copy._attn_implementation = this._attn_implementation;
    copy._experts_implementation = this._experts_implementation;
    // Where the weights lie is not written to files, but a copy must know it.
    const { transformers_weights } = this as Fields;
    if (transformers_weights !== undefined) copy.update({ transformers_weights });
    return copy;
  }

  /**
   * The configuration of the text part: this one, or the one inside it. With `decoder` or `encoder` only that side is
   * looked for; an older encoder-decoder configuration, which has both sides flat, then gives a copy with that side's sizes.
   */
  get_text_config({
    decoder,
    encoder,
  }: {
    readonly decoder?: boolean;
    readonly encoder?: boolean;
  } = {}): PretrainedConfig {
    const isBoth = Boolean(decoder) === Boolean(encoder);
    const part = textPart(this, { decoder, encoder });
    if (part !== undefined) return part;
    return isBoth || !this.is_encoder_decoder ? this : flatSide(this, decoder ? "decoder" : "encoder");
  }

  // -------------------------------------------------------------------------------------------------------------------

  #class(): typeof PretrainedConfig {
    return this.constructor as typeof PretrainedConfig;
  }

  #fieldTypes(): FieldTypes {
    return inheritedTable(this.#class(), "field_types");
  }

  #rope(): RopeConfig {
    return this as unknown as RopeConfig;
  }

  #ropeDefaults(): RopeDefaults {
    const { default_theta, default_rope_type, ignore_keys_at_rope_validation } = this.#class();
    return {
      default_theta,
      default_rope_type,
      ignore_keys_at_rope_validation,
      field_types: this.#fieldTypes(),
    };
  }

  #subConfigs(): [string, PretrainedConfig][] {
    const names = Object.keys(this.#class().sub_configs);
    return names.flatMap((name) => {
      const config = (this as Fields)[name];
      return config instanceof PretrainedConfig ? [[name, config] as [string, PretrainedConfig]] : [];
    });
  }

  #generationParameters(): Fields {
    const types = this.#fieldTypes();
    const found = Object.entries(this).filter(
      ([key, value]) => value !== null && value !== undefined && isGenerationOnly(key, types),
    );
    return Object.fromEntries(found.filter(([key]) => key !== "use_cache"));
  }
}

export { PretrainedConfig as PreTrainedConfig };

// ---------------------------------------------------------------------------------------------------------------------

const ownChoice = (
  value: string | Readonly<Record<string, string>> | null,
  present: string | null,
): string | null =>
  isRecord(value) ? ((value[""] as string | undefined) ?? present) : (value as string | null);

/** `torch.float32` and `float32` are one dtype. */
const plainDtype = (value: unknown) => (typeof value === "string" ? value.replace(/^torch\./, "") : value);
