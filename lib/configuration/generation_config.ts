// The settings of text generation, as a generation_config.json holds them.

import path from "node:path";
import { ConfigError, InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { warnOnce } from "../errors/warnings.ts";
import { writeFileAtomic } from "../hub/atomic.ts";
import { HUB_OPTIONS, type HubOptions, kindOf, readText, resolveFile } from "../hub/files.ts";
import { loadingCard } from "../hub/model_card.ts";
import type { Pushable, PushToHubOptions, SaveAndPushOptions } from "../hub/push.ts";
import type { CommitInfo } from "../hub/upload.ts";
import {
  cloneJson,
  equalJson,
  isPlain,
  numberForm,
  parseJson,
  put,
  setNumberForm,
  stringifyJson,
} from "../json/json.ts";
import { inFile, TRANSFORMERS_VERSION } from "./config_files.ts";
import { type ConfigKwargs, PretrainedConfig } from "./configuration_utils.ts";
import { adoptNumberForms, markFloatFields, shown } from "./field_types.ts";
import {
  DEFAULT_GENERATION_PARAMS,
  EXTRA_OUTPUTS,
  GENERATION_FIELDS as FIELDS,
} from "./generation_fields.ts";
import { validateGeneration } from "./generation_validation.ts";
import { SynthIDTextWatermarkingConfig, WatermarkingConfig } from "./watermarking_config.ts";

/** The file of a checkpoint's generation settings. */
export const GENERATION_CONFIG_NAME = "generation_config.json";

type Fields = Record<string, unknown>;

const METADATA = ["_from_model_config", "_commit_hash", "_original_object_hash", "transformers_version"];

/** The ways of decoding, by the reference's names. */
export type GenerationMode =
  | "contrastive_search"
  | "greedy_search"
  | "sample"
  | "assisted_generation"
  | "dola_generation"
  | "beam_search"
  | "beam_sample"
  | "constrained_beam_search"
  | "group_beam_search";

/** Fields by name; all are optional, and unknown ones are kept. */
export interface GenerationConfigOptions extends ConfigKwargs {
  readonly max_length?: number | null;
  readonly max_new_tokens?: number | null;
  readonly do_sample?: boolean | null;
  readonly num_beams?: number | null;
  readonly temperature?: number | null;
  readonly top_k?: number | null;
  readonly top_p?: number | null;
  readonly repetition_penalty?: number | null;
  readonly use_cache?: boolean | null;
  readonly cache_implementation?: string | null;
  readonly pad_token_id?: number | null;
  readonly bos_token_id?: number | null;
  readonly eos_token_id?: number | number[] | null;
}

/** Options of `GenerationConfig.from_pretrained`: where its file is, and fields to replace. */
export interface GenerationFromPretrainedOptions extends HubOptions {
  /** Default "generation_config.json". */
  readonly config_file_name?: string;
  readonly return_unused_kwargs?: boolean;
  /** Any field, to replace its value. */
  readonly [field: string]: unknown;
}

/** Options that say where to find the file, and are no fields. */
const PLACE_OPTIONS: readonly string[] = [...HUB_OPTIONS, "config_file_name", "proxies"];

/**
 * Settings of `generate`. A field that is `null` was not set: the model's file, then the defaults
 * (`GenerationConfig.default_params`) decide.
 *
 * ```ts
 * const config = new GenerationConfig({ do_sample: true, temperature: 0.7, max_new_tokens: 50 });
 * config.get_generation_mode(); // "sample"
 * ```
 *
 * Throws `ConfigError` for values that can never work, and warns of settings that have no effect together.
 */
export class GenerationConfig {
  /** What applies where nothing was set. */
  static readonly default_params: Readonly<Record<string, unknown>> = DEFAULT_GENERATION_PARAMS;

  /** Length of prompt and answer together; `max_new_tokens` is preferred. Default 20. */
  declare max_length: number | null;
  /** Tokens to generate at most. */
  declare max_new_tokens: number | null;
  declare min_length: number | null;
  declare min_new_tokens: number | null;
  declare early_stopping: boolean | "never" | null;
  /** Seconds after which generation ends. */
  declare max_time: number | null;
  declare stop_strings: string | string[] | null;
  /** Draw tokens instead of taking the likeliest. Default false. */
  declare do_sample: boolean | null;
  declare num_beams: number | null;
  declare use_mtp: boolean | null;
  declare use_cache: boolean | null;
  declare cache_implementation: string | null;
  declare cache_config: Record<string, unknown> | null;
  declare max_cache_len: number | null;
  declare temperature: number | null;
  declare top_k: number | null;
  declare top_p: number | null;
  declare min_p: number | null;
  declare top_h: number | null;
  declare typical_p: number | null;
  declare epsilon_cutoff: number | null;
  declare eta_cutoff: number | null;
  declare repetition_penalty: number | null;
  declare encoder_repetition_penalty: number | null;
  declare length_penalty: number | null;
  declare no_repeat_ngram_size: number | null;
  declare bad_words_ids: number[][] | null;
  declare renormalize_logits: boolean | null;
  declare forced_bos_token_id: number | null;
  declare forced_eos_token_id: number | number[] | null;
  declare remove_invalid_values: boolean | null;
  /** Index from which the penalty applies, and its factor. */
  declare exponential_decay_length_penalty: [number, number] | null;
  declare suppress_tokens: number[] | null;
  declare begin_suppress_tokens: number[] | null;
  /** Pairs of a token sequence and the bias added to its last token. */
  declare sequence_bias: [number[], number][] | null;
  declare token_healing: boolean | null;
  declare guidance_scale: number | null;
  declare watermarking_config: WatermarkingConfig | SynthIDTextWatermarkingConfig | null;
  declare num_return_sequences: number | null;
  declare output_attentions: boolean | null;
  declare output_hidden_states: boolean | null;
  declare output_scores: boolean | null;
  declare output_logits: boolean | null;
  declare return_dict_in_generate: boolean | null;
  declare pad_token_id: number | null;
  declare bos_token_id: number | null;
  declare eos_token_id: number | number[] | null;
  declare encoder_no_repeat_ngram_size: number | null;
  declare decoder_start_token_id: number | number[] | null;
  declare is_assistant: boolean | null;
  declare num_assistant_tokens: number | null;
  declare num_assistant_tokens_schedule: string | null;
  declare assistant_confidence_threshold: number | null;
  declare prompt_lookup_num_tokens: number | null;
  declare max_matching_ngram_size: number | null;
  declare assistant_early_exit: number | null;
  declare assistant_lookbehind: number | null;
  declare target_lookbehind: number | null;
  declare assistant_ensemble_weight: number | null;
  declare speculation_type: string | null;
  declare compile_config: Record<string, unknown> | null;
  declare disable_compile: boolean | null;
  declare continuous_batching_config: Record<string, unknown> | null;
  declare low_memory: boolean | null;
  declare penalty_alpha: number | null;
  declare dola_layers: string | number[] | null;
  declare diversity_penalty: number | null;
  declare num_beam_groups: number | null;
  declare constraints: unknown;
  declare force_words_ids: unknown;
  declare prefill_chunk_size: number | null;
  /** Whether the fields came from a model's config.json. */
  declare _from_model_config: boolean | null;
  declare transformers_version: string | null;

  /** What was loaded, to tell whether it was changed since. */
  #original: string | undefined;

  constructor(options: GenerationConfigOptions = {}) {
    const { _from_model_config = null, transformers_version = null, _commit_hash, ...given } = options;
    const fields = this as unknown as Fields;
    for (const name of Object.keys(FIELDS)) fields[name] = given[name] ?? null;
    const { watermarking_config } = given;
    if (isPlain(watermarking_config))
      this.watermarking_config = WatermarkingConfig.from_dict(watermarking_config);
    this._from_model_config = _from_model_config as boolean | null;
    this.transformers_version = transformers_version as string | null;
    if (!this._from_model_config) {
      for (const [name, value] of Object.entries(given)) {
        if (!Object.hasOwn(FIELDS, name) && value !== undefined && !(name in GenerationConfig.prototype))
          put(this, name, value);
      }
    } else if (given.force_bos_token_to_be_generated) {
      this.forced_bos_token_id = this.bos_token_id;
    }
    adoptNumberForms(this, options);
    this.validate({ user_set_attributes: Object.keys(options) });
  }

  /** How `generate` decodes with these settings. */
  get_generation_mode(assistant_model?: unknown): GenerationMode {
    const mode = this.#baseMode();
    const canAssist = mode === "greedy_search" || mode === "sample";
    const isAssisted =
      assistant_model != null ||
      this.use_mtp ||
      this.prompt_lookup_num_tokens !== null ||
      this.assistant_early_exit !== null;
    if (isAssisted && canAssist) return "assisted_generation";
    if (isAssisted)
      warnOnce(
        `Assisted generation works with greedy search and sampling only; ${mode} runs without the assistant.`,
      );
    if (this.dola_layers === null) return mode;
    if (canAssist) return "dola_generation";
    warnOnce(`DoLa works with greedy search and sampling only; ${mode} runs without it.`);
    return mode;
  }

  #baseMode(): GenerationMode {
    if (this.constraints !== null || this.force_words_ids !== null) return "constrained_beam_search";
    if (this.num_beams === null || this.num_beams === 1) {
      if (this.do_sample === true) return "sample";
      const isContrastive =
        this.top_k !== null && this.top_k > 1 && this.penalty_alpha !== null && this.penalty_alpha > 0;
      return isContrastive ? "contrastive_search" : "greedy_search";
    }
    if (this.num_beam_groups !== null && this.num_beam_groups > 1) return "group_beam_search";
    return this.do_sample === true ? "beam_sample" : "beam_search";
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Checks

  /**
   * Checks the settings. What can never work is a `ConfigError`; what has no effect is a warning, or with `strict` an
   * error. `user_set_attributes` are the fields a caller named: settings that a model's file brought along are not
   * complained of when the caller chose another way of decoding.
   */
  validate({
    strict = false,
    user_set_attributes,
  }: {
    readonly strict?: boolean;
    readonly user_set_attributes?: readonly string[];
  } = {}): void {
    validateGeneration(this, strict, user_set_attributes);
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Reading

  /**
   * Reads the generation_config.json of a checkpoint. Options that name fields override them.
   *
   * Throws `EntryNotFoundError` when there is none, `ConfigError` when it is not valid, and `InvalidArgumentError` for an
   * option that is no field, unless `return_unused_kwargs` asks for them back.
   */
  static from_pretrained(
    dirOrRepo: string,
    options: GenerationFromPretrainedOptions & { readonly return_unused_kwargs: true },
  ): Promise<[GenerationConfig, Record<string, unknown>]>;
  static from_pretrained(
    dirOrRepo: string,
    options?: GenerationFromPretrainedOptions,
  ): Promise<GenerationConfig>;
  static async from_pretrained(
    dirOrRepo: string,
    options: GenerationFromPretrainedOptions = {},
  ): Promise<GenerationConfig | [GenerationConfig, Record<string, unknown>]> {
    const { return_unused_kwargs, _from_model_config, ...given } = options;
    const overrides = Object.fromEntries(
      Object.entries(given).filter(([name]) => !PLACE_OPTIONS.includes(name)),
    );
    const isFile = (await kindOf(dirOrRepo)) === "file";
    const file = isFile
      ? dirOrRepo
      : await resolveFile(dirOrRepo, options.config_file_name ?? GENERATION_CONFIG_NAME, options);
    const dict = parseJson(await readText(file, ConfigError), { file });
    if (!isPlain(dict)) throw new ConfigError(`${file} must hold a JSON object, not ${shown(dict)}.`);
    if (_from_model_config) return inFile(file, () => GenerationConfig.from_model_config(dict));
    const [config, unused] = inFile(file, () =>
      GenerationConfig.from_dict(dict, { ...overrides, return_unused_kwargs: true }),
    );
    config.#original = config.to_json_string({ ignore_metadata: true });
    if (return_unused_kwargs) return [config, unused];
    refuseUnused(unused);
    return config;
  }

  /** Makes settings of plain data. */
  static from_dict(
    dict: ConfigKwargs,
    options: ConfigKwargs & { readonly return_unused_kwargs: true },
  ): [GenerationConfig, Record<string, unknown>];
  static from_dict(dict: ConfigKwargs, options?: ConfigKwargs): GenerationConfig;
  static from_dict(
    dict: ConfigKwargs,
    { return_unused_kwargs = false, ...overrides }: ConfigKwargs = {},
  ): GenerationConfig | [GenerationConfig, Record<string, unknown>] {
    const given = cloneJson(dict) as Fields;
    const { _from_model_config, ...fields } = overrides;
    if (_from_model_config !== undefined) given._from_model_config = _from_model_config;
    // A field that no file or class knows is accepted from the file, and given back from the options.
    const known = Object.entries(fields).filter(
      ([name]) => Object.hasOwn(FIELDS, name) || Object.hasOwn(given, name),
    );
    for (const [name, value] of known) given[name] = value;
    const config = new GenerationConfig(given);
    if (!return_unused_kwargs) return config;
    return [
      config,
      Object.fromEntries(Object.entries(fields).filter(([name]) => !known.some(([used]) => used === name))),
    ];
  }

  /**
   * The generation settings that an older checkpoint keeps in its model configuration, its text part's included.
   * Outputs asked for there switch `return_dict_in_generate` on.
   */
  static from_model_config(model_config: PretrainedConfig | ConfigKwargs): GenerationConfig {
    const isConfig = model_config instanceof PretrainedConfig;
    const outer: ConfigKwargs = isConfig ? model_config.to_dict() : model_config;
    const { _from_model_config: _, ...set } = Object.fromEntries(
      Object.entries(outer).filter(([, value]) => value !== null),
    );
    const dict = cloneJson(set);
    adoptNumberForms(dict, outer);
    const config = GenerationConfig.from_dict(dict, { _from_model_config: true });
    const inner = isConfig
      ? model_config.get_text_config({ decoder: true }).to_dict()
      : textPart(model_config);
    const defaults = new GenerationConfig() as unknown as Fields;
    const fields = config as unknown as Fields;
    for (const name of Object.keys(config)) {
      if (!Object.hasOwn(inner, name) || !equalJson(fields[name], defaults[name])) continue;
      fields[name] = inner[name];
      const form = numberForm(inner, name);
      if (form !== undefined) setNumberForm(config, name, form);
    }
    if (!config.return_dict_in_generate && EXTRA_OUTPUTS.some((name) => config[name]))
      config.return_dict_in_generate = true;
    config.#original = config.to_json_string({ ignore_metadata: true });
    return config;
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Writing

  /** All fields as plain data. */
  to_dict(): Record<string, unknown> {
    const output: Fields = {};
    for (const [name, value] of Object.entries(this)) {
      if (value === undefined) continue;
      put(
        output,
        name,
        value instanceof WatermarkingConfig || value instanceof SynthIDTextWatermarkingConfig
          ? value.to_dict()
          : cloneJson(value),
      );
      const form = numberForm(this, name);
      if (form !== undefined) setNumberForm(output, name, form);
    }
    output.transformers_version = TRANSFORMERS_VERSION;
    markFloatFields(output, FIELDS);
    return output;
  }

  /** The fields that were set. */
  to_diff_dict(): Record<string, unknown> {
    const all = this.to_dict();
    const defaults = new GenerationConfig().to_dict();
    for (const [name, value] of Object.entries(all)) {
      if (
        name !== "transformers_version" &&
        Object.hasOwn(defaults, name) &&
        equalJson(value, defaults[name])
      )
        delete all[name];
    }
    return all;
  }

  /** The text of generation_config.json, byte for byte as the reference writes it. */
  to_json_string({
    use_diff = true,
    ignore_metadata = false,
    keys_to_pop = [],
  }: {
    readonly use_diff?: boolean;
    readonly ignore_metadata?: boolean;
    readonly keys_to_pop?: readonly string[];
  } = {}): string {
    const dict = use_diff ? this.to_diff_dict() : this.to_dict();
    for (const name of [...keys_to_pop, ...(ignore_metadata ? METADATA : [])]) delete dict[name];
    return `${stringifyJson(dict)}\n`;
  }

  async to_json_file(
    file: string,
    options: { readonly use_diff?: boolean; readonly keys_to_pop?: readonly string[] } = {},
  ): Promise<void> {
    await writeFileAtomic(file, this.to_json_string(options));
  }

  /**
   * Writes generation_config.json into `directory`. Settings that have no effect together are refused, unless they are as
   * they were loaded.
   */
  async save_pretrained(
    directory: string,
    {
      config_file_name = GENERATION_CONFIG_NAME,
      ...options
    }: SaveAndPushOptions & { readonly config_file_name?: string } = {},
  ): Promise<void> {
    if (options.push_to_hub === true) {
      const { saveAndPush } = await import("../hub/push.ts");
      await saveAndPush(this.#pushable(config_file_name), directory, options);
      return;
    }
    const isChanged = this.#original !== this.to_json_string({ ignore_metadata: true });
    this.validate({ strict: isChanged });
    if ((await kindOf(directory)) === "file")
      throw new ConfigError(`'${directory}' is a file; a directory was expected.`);
    await this.to_json_file(path.join(directory, config_file_name), { keys_to_pop: ["compile_config"] });
  }

  /** Sends the settings to the hub, into a repository that is made if need be. Resolves to the commit. */
  async push_to_hub(
    repo_id: string,
    {
      config_file_name = GENERATION_CONFIG_NAME,
      ...options
    }: PushToHubOptions & { readonly config_file_name?: string } = {},
  ): Promise<CommitInfo> {
    const { pushToHub } = await import("../hub/push.ts");
    return pushToHub(this.#pushable(config_file_name), repo_id, options);
  }

  #pushable(config_file_name: string): Pushable {
    return {
      name: "GenerationConfig",
      save: (folder) => this.save_pretrained(folder, { config_file_name }),
      card: loadingCard("A GenerationConfig: how text is generated.", "GenerationConfig", "config"),
    };
  }

  toJSON(): unknown {
    return this.to_dict();
  }

  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return `GenerationConfig ${this.to_json_string({ ignore_metadata: true })}`;
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Use

  /**
   * Sets the fields that `values` names, and gives back the rest. With `defaults_only`, only fields that were not set;
   * with `allow_custom_entries`, unknown fields too.
   */
  update(
    values: ConfigKwargs,
    {
      defaults_only = false,
      allow_custom_entries = false,
    }: { readonly defaults_only?: boolean; readonly allow_custom_entries?: boolean } = {},
  ): Record<string, unknown> {
    const fields = this as unknown as Fields;
    const used: string[] = [];
    for (const [name, value] of Object.entries(values)) {
      const isField = Object.hasOwn(this, name);
      if (value === undefined || (!isField && (!allow_custom_entries || name in this))) continue;
      if (isField && defaults_only && fields[name] !== null) continue;
      put(
        this,
        name,
        name === "watermarking_config" && isPlain(value) ? WatermarkingConfig.from_dict(value) : value,
      );
      used.push(name);
    }
    this.validate({ user_set_attributes: used });
    return Object.fromEntries(Object.entries(values).filter(([name]) => !used.includes(name)));
  }

  /** Equality of all fields, wherever they came from. */
  equals(other: GenerationConfig): boolean {
    const text = (config: GenerationConfig) =>
      config.to_json_string({ use_diff: false, ignore_metadata: true });
    return text(this) === text(other);
  }

  clone(): GenerationConfig {
    const copy = GenerationConfig.from_dict(this.to_dict());
    copy.transformers_version = this.transformers_version;
    copy.#original = this.#original;
    return copy;
  }
}

/** The decoder's part of a model configuration that is plain data. */
function textPart(dict: ConfigKwargs): ConfigKwargs {
  const part = ["decoder", "generator", "text_config"]
    .map((name) => dict[name])
    .find((value) => isPlain(value));
  return (part as ConfigKwargs | undefined) ?? dict;
}

function refuseUnused(unused: Fields): void {
  const [unknown] = Object.keys(unused).filter((name) => unused[name] !== undefined);
  if (unknown === undefined) return;
  const near = suggest(unknown, Object.keys(FIELDS));
  throw new InvalidArgumentError(
    `[GenerationConfig.from_pretrained] '${unknown}' is no option and no field.`,
    {
      ...(near === undefined ? {} : { suggestion: near }),
    },
  );
}
