// What an adapter is: the fields of PEFT's adapter_config.json.
import path from "node:path";
import { readConfigFile } from "../configuration/config_files.ts";
import { ConfigError, InvalidArgumentError, UnsupportedAdapterError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { warn } from "../errors/warnings.ts";
import { writeFileAtomic } from "../hub/atomic.ts";
import { HUB_OPTIONS, type HubOptions, resolveFile } from "../hub/files.ts";
import { cloneJson, isRecord, markFloat, numberForm, setNumberForm, stringifyJson } from "../json/json.ts";

export const ADAPTER_CONFIG_NAME = "adapter_config.json";

/** The release of PEFT whose file format is followed; written into files as `peft_version`. */
const PEFT_VERSION = "0.21.2";

const TASK_TYPES = [
  "SEQ_CLS",
  "SEQ_2_SEQ_LM",
  "CAUSAL_LM",
  "TOKEN_CLS",
  "QUESTION_ANS",
  "FEATURE_EXTRACTION",
] as const;

/** What a model with the adapter is for; PEFT reads it when it loads the files. */
export type TaskType = (typeof TASK_TYPES)[number];

/** The fields of {@link LoraConfig}, under PEFT's names. */
export interface LoraConfigFields {
  task_type: TaskType | null;
  base_model_name_or_path: string | null;
  revision: string | null;
  /** Whether the adapter was loaded to be used, not to be trained. Default: false. */
  inference_mode: boolean;
  /** The rank: the width between the two matrices. Default: 8. */
  r: number;
  /**
   * Which modules get the adapter: names or ends of names, a regular expression for whole names, or "all-linear" for all
   * linear layers but the output layer. Default: what the reference takes for the model's `model_type`.
   */
  target_modules: readonly string[] | string | null;
  /** Modules that do not get it, although they are targets; as `target_modules`. */
  exclude_modules: readonly string[] | string | null;
  /** The adapter is multiplied by `lora_alpha / r`. Default: 8. */
  lora_alpha: number;
  /** Default: 0. */
  lora_dropout: number;
  /** The layers store their weights as [in, out]. Default: false. */
  fan_in_fan_out: boolean;
  /** Which biases of the model are trained and saved too. Default: "none". */
  bias: "none" | "all" | "lora_only";
  /** Multiply by `lora_alpha / √r`. Default: false. */
  use_rslora: boolean;
  /** Modules that are trained and saved as a whole, such as a classifier that was made anew. */
  modules_to_save: readonly string[] | null;
  /**
   * true: the first matrix by chance, the second zero, so that nothing changes at first; "gaussian": the same with a normal
   * distribution; false: both by chance. Default: true.
   */
  init_lora_weights: boolean | string;
  /** Numbers of the layers to treat. Default: all. */
  layers_to_transform: readonly number[] | number | null;
  /** The name of the list of layers, where there is more than one. */
  layers_pattern: readonly string[] | string | null;
  /** Pattern of names → another rank. */
  rank_pattern: Readonly<Record<string, number>>;
  /** Pattern of names → another alpha. */
  alpha_pattern: Readonly<Record<string, number>>;
  /** Learn the length of each row of the weights apart from its direction. Default: false. */
  use_dora: boolean;
  /** Give the second matrix a bias. Default: false. */
  lora_bias: boolean;
  auto_mapping: unknown;
  peft_version: string;
}

const DEFAULTS: LoraConfigFields = {
  task_type: null,
  base_model_name_or_path: null,
  revision: null,
  inference_mode: false,
  r: 8,
  target_modules: null,
  exclude_modules: null,
  lora_alpha: 8,
  lora_dropout: 0,
  fan_in_fan_out: false,
  bias: "none",
  use_rslora: false,
  modules_to_save: null,
  init_lora_weights: true,
  layers_to_transform: null,
  layers_pattern: null,
  rank_pattern: {},
  alpha_pattern: {},
  use_dora: false,
  lora_bias: false,
  auto_mapping: null,
  peft_version: PEFT_VERSION,
};

/** Fields of PEFT's LoRA that are read and written, and mean something else than their default only where it is refused. */
const NOT_IMPLEMENTED: Readonly<Record<string, unknown>> = {
  alora_invocation_tokens: null,
  arrow_config: null,
  corda_config: null,
  ensure_weight_tying: false,
  eva_config: null,
  kasa_config: null,
  layer_replication: null,
  loftq_config: {},
  lora_ga_config: null,
  megatron_config: null,
  megatron_core: "megatron.core",
  monteclora_config: null,
  qalora_group_size: 16,
  target_parameters: null,
  trainable_token_indices: null,
  use_bdlora: null,
  use_qalora: false,
  velora_config: null,
};

/** Fields that change nothing by themselves. */
const WITHOUT_EFFECT = ["megatron_core", "qalora_group_size"];

const INITIALIZATIONS = ["gaussian"];

/** What PEFT calls a method that it knows and this library does not have. */
const OTHER_METHODS =
  "ADALORA ADAMSS ADAPTION_PROMPT BEFT BOFT C3A CARTRIDGE CPT DEFT DELORA FOURIERFT FROD GLORA GRALORA HIRA HRA IA3 LILY LN_TUNING LOHA LOKR MISS MULTITASK_PROMPT_TUNING OFT OSF P_TUNING PEANUT POLY PREFIX_TUNING PROMPT_TUNING PSOFT PVERA RANDLORA ROAD SHADOW SHIRA SUPERTUNING TINYLORA TRAINABLE_TOKENS UNILORA VBLORA VERA WAVEFT XLORA".split(
    " ",
  );

const isDefault = (value: unknown, fallback: unknown): boolean =>
  value === fallback ||
  value === null ||
  value === undefined ||
  value === false ||
  (typeof value === "object" && Object.keys(value).length === 0);

/** Both the TypeScript fields and those that are only kept; declared on the class by this interface. */
export interface LoraConfig extends LoraConfigFields {}

/**
 * A LoRA adapter: two small matrices beside each chosen layer, whose product is added to the layer's weight.
 *
 * @throws InvalidArgumentError for an unknown field or a value that cannot be, UnsupportedAdapterError for a variant that is
 *   not implemented.
 * @example
 * const config = new LoraConfig({ r: 16, lora_alpha: 32, target_modules: ["q_proj", "v_proj"], lora_dropout: 0.05 });
 * model.add_adapter(config);
 */
// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: the fields are assigned from their table of defaults.
export class LoraConfig {
  /** Always "LORA". */
  readonly peft_type: "LORA";

  constructor(fields: Partial<LoraConfigFields> & Readonly<Record<string, unknown>> = {}) {
    const known = { ...DEFAULTS, ...NOT_IMPLEMENTED } as Record<string, unknown>;
    for (const name of Object.keys(fields)) {
      if (name in known || name === "peft_type") continue;
      throw new InvalidArgumentError(`LoraConfig has no field '${name}'.`, {
        suggestion: suggest(name, Object.keys(known)),
      });
    }
    this.peft_type = "LORA";
    const own: Record<string, unknown> = this as never;
    for (const [name, fallback] of Object.entries(known)) {
      const value = (fields as Record<string, unknown>)[name];
      own[name] = value === undefined ? cloneJson(fallback) : cloneJson(value);
      const form = value === undefined ? undefined : numberForm(fields, name);
      if (form !== undefined) setNumberForm(own, name, form);
    }
    own.rank_pattern ??= {};
    own.alpha_pattern ??= {};
    if (numberForm(own, "lora_dropout") === undefined) markFloat(own, "lora_dropout");
    this.validate();
  }

  /** Refuses what cannot be, and what is not implemented. */
  validate(): void {
    const own = this as unknown as Record<string, unknown>;
    for (const [name, fallback] of Object.entries(NOT_IMPLEMENTED)) {
      if (WITHOUT_EFFECT.includes(name) || isDefault(own[name], fallback)) continue;
      throw new UnsupportedAdapterError(`LoRA with '${name}' is not implemented.`, {
        hint: "Leave the field at its default, or train and use the adapter with PEFT.",
      });
    }
    const wrong = (field: string, expected: string) =>
      new InvalidArgumentError(`LoraConfig.${field} must be ${expected}, got ${show(own[field])}.`);
    if (!(Number.isInteger(this.r) && this.r > 0)) throw wrong("r", "a positive integer");
    if (!Number.isFinite(this.lora_alpha)) throw wrong("lora_alpha", "a number");
    if (!(this.lora_dropout >= 0 && this.lora_dropout <= 1)) throw wrong("lora_dropout", "between 0 and 1");
    if (!["none", "all", "lora_only"].includes(this.bias))
      throw wrong("bias", '"none", "all" or "lora_only"');
    if (this.task_type !== null && !TASK_TYPES.includes(this.task_type))
      throw wrong("task_type", `one of ${TASK_TYPES.join(", ")}`);
    for (const field of ["target_modules", "exclude_modules", "layers_pattern"])
      if (!isNames(own[field]) && typeof own[field] !== "string" && own[field] !== null)
        throw wrong(field, "a list of names, a string or null");
    if (this.modules_to_save !== null && !isNames(this.modules_to_save))
      throw wrong("modules_to_save", "a list of names or null");
    for (const field of ["rank_pattern", "alpha_pattern"])
      if (!isRecord(own[field]) || !Object.values(own[field]).every((value) => typeof value === "number"))
        throw wrong(field, "an object of numbers");
    for (const [pattern, rank] of Object.entries(this.rank_pattern))
      if (!(Number.isInteger(rank) && rank > 0))
        throw wrong("rank_pattern", `positive integers ('${pattern}')`);
    const { init_lora_weights: init, layers_to_transform: layers } = this;
    const indices = [layers ?? []].flat();
    if (!indices.every((index) => Number.isInteger(index)))
      throw wrong("layers_to_transform", "an integer, a list of integers or null");
    if (typeof this.target_modules === "string" && layers !== null)
      throw new InvalidArgumentError("LoraConfig: layers_to_transform needs target_modules to be a list.");
    if (typeof this.target_modules === "string" && this.layers_pattern !== null)
      throw new InvalidArgumentError("LoraConfig: layers_pattern needs target_modules to be a list.");
    if (this.layers_pattern !== null && this.layers_pattern.length > 0 && indices.length === 0)
      throw new InvalidArgumentError("LoraConfig: layers_pattern needs layers_to_transform.");
    if (typeof init !== "boolean" && !INITIALIZATIONS.includes(String(init).toLowerCase()))
      throw new UnsupportedAdapterError(`init_lora_weights: '${String(init)}' is not implemented.`, {
        hint: 'It may be true, false or "gaussian".',
      });
    if (this.lora_bias && typeof init !== "boolean")
      throw new InvalidArgumentError("LoraConfig: lora_bias needs init_lora_weights to be true or false.");
    if (this.lora_bias && this.use_dora)
      throw new InvalidArgumentError("LoraConfig: lora_bias and use_dora exclude each other.");
  }

  /** The fields as a plain object, as adapter_config.json holds them. */
  to_dict(): Record<string, unknown> {
    return cloneJson({ ...this }) as unknown as Record<string, unknown>;
  }

  /** The text of adapter_config.json, as Python writes it. */
  to_json_string(): string {
    return stringifyJson(this);
  }

  clone(): this {
    const { peft_type: _type, ...fields } = this;
    const copy = new (this.constructor as typeof LoraConfig)(fields as never);
    for (const name of Object.keys(fields)) {
      const form = numberForm(this, name);
      if (form !== undefined) setNumberForm(copy, name, form);
    }
    return copy as this;
  }

  /** Writes adapter_config.json into a directory that is there. */
  async save_pretrained(directory: string): Promise<void> {
    await writeFileAtomic(path.join(directory, ADAPTER_CONFIG_NAME), this.to_json_string());
  }

  /**
   * Reads adapter_config.json of a directory or of a repository on the hub.
   *
   * Fields of a later release of PEFT are left out, with one warning, as PEFT does.
   *
   * @throws EntryNotFoundError when there is none, UnsupportedAdapterError for another method than LoRA.
   */
  static async from_pretrained(dirOrRepo: string, options: HubOptions = {}): Promise<LoraConfig> {
    for (const name of Object.keys(options))
      if (!HUB_OPTIONS.includes(name as never))
        throw new InvalidArgumentError(`LoraConfig.from_pretrained has no option '${name}'.`, {
          suggestion: suggest(name, HUB_OPTIONS),
        });
    const file = await resolveFile(dirOrRepo, ADAPTER_CONFIG_NAME, options);
    return LoraConfig.from_dict(await readConfigFile(file), file);
  }

  /** The config that a parsed adapter_config.json describes; `file` is named in errors. */
  static from_dict(dict: Readonly<Record<string, unknown>>, file = ADAPTER_CONFIG_NAME): LoraConfig {
    const { peft_type } = dict;
    if (peft_type !== "LORA") throw otherMethod(peft_type, file);
    const fields: Record<string, unknown> = {};
    const strange: string[] = [];
    for (const [name, value] of Object.entries(dict)) {
      if (name === "peft_type" || name === "runtime_config") continue;
      if (!(name in DEFAULTS) && !(name in NOT_IMPLEMENTED)) {
        strange.push(name);
        continue;
      }
      fields[name] = value;
      const form = numberForm(dict, name);
      if (form !== undefined) setNumberForm(fields, name, form);
    }
    if (strange.length > 0)
      warn(`${file}: ${strange.join(", ")} are fields of a later release of PEFT, and are left out.`);
    return new LoraConfig(fields as never);
  }
}

/** PEFT's base class; LoRA is the method that there is. */
export { LoraConfig as PeftConfig };

const isNames = (value: unknown): value is readonly string[] =>
  Array.isArray(value) && value.every((name) => typeof name === "string");

const show = (value: unknown): string =>
  typeof value === "string" ? `"${value}"` : (JSON.stringify(value) ?? String(value));

function otherMethod(peft_type: unknown, file: string): Error {
  if (typeof peft_type !== "string")
    return new ConfigError(`${file} names no peft_type, so it describes no adapter.`);
  if (OTHER_METHODS.includes(peft_type))
    return new UnsupportedAdapterError(`${file}: the method ${peft_type} is not implemented.`, {
      hint: "LoRA adapters (peft_type LORA) can be loaded.",
    });
  return new UnsupportedAdapterError(
    `${file}: '${peft_type}' is not a method that PEFT ${PEFT_VERSION} knows.`,
  );
}
