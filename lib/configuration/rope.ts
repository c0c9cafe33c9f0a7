// Rotary position parameters of a configuration: one place for today's and older names, and for their checks.
//
// Today a configuration has one object, `rope_parameters: { rope_type, rope_theta, … }`, or one such object per layer
// type. Older files have `rope_scaling` (with `type`), `rope_theta` and `partial_rotary_factor` beside each other.

import { ConfigError } from "../errors/index.ts";
import { warn, warnOnce } from "../errors/warnings.ts";
import { cloneJson, isParsed, markFloat, numberForm, setNumberForm } from "../json/json.ts";
import { type FieldTypes, markFloatFields, shown } from "./field_types.ts";

/** Parameters of one rotary embedding. Which are needed depends on `rope_type`. */
export interface RopeParameters {
  /** "default", "linear", "dynamic", "yarn", "longrope", "llama3", "proportional", or a model's own. */
  rope_type?: string;
  rope_theta?: number;
  /** Share of each head that is rotated. Default 1. */
  partial_rotary_factor?: number;
  /** Factor by which the context is stretched. */
  factor?: number;
  /** Context length in training. Default `max_position_embeddings`. */
  original_max_position_embeddings?: number;
  attention_factor?: number;
  /** yarn. Default 32. */
  beta_fast?: number;
  /** yarn. Default 1. */
  beta_slow?: number;
  mscale?: number;
  mscale_all_dim?: number;
  /** yarn: round the correction range to whole dimensions. Default true. */
  truncate?: boolean;
  /** longrope: a factor per rotated pair, for contexts up to the original length. */
  short_factor?: number[];
  /** longrope: the same for longer contexts. */
  long_factor?: number[];
  /** llama3 */
  low_freq_factor?: number;
  /** llama3 */
  high_freq_factor?: number;
  [key: string]: unknown;
}

/** What this file needs to know of a configuration. */
export interface RopeConfig {
  rope_parameters: RopeParameters | Record<string, RopeParameters | null> | null;
  readonly max_position_embeddings?: number;
  readonly original_max_position_embeddings?: number;
  readonly head_dim?: number | null;
  readonly hidden_size?: number;
  readonly num_attention_heads?: number;
  readonly rope_theta?: number;
  readonly partial_rotary_factor?: number | null;
  readonly layer_types?: readonly string[] | null;
}

/** Settings that a configuration class may change. */
export interface RopeDefaults {
  readonly default_theta: number;
  readonly default_rope_type: string;
  /** Keys a model adds to its rope parameters, not to be warned of. */
  readonly ignore_keys_at_rope_validation: readonly string[];
  /** Fields that the class declares. */
  readonly field_types: FieldTypes;
}

/** The parts of older files that stand beside `rope_parameters`. */
export interface LegacyRope {
  readonly rope_scaling?: RopeParameters | null;
  readonly rope_theta?: number | null;
  readonly partial_rotary_factor?: number | null;
}

/** Types whose scaling starts from the context length of training. */
const SCALED_FROM_ORIGINAL: ReadonlySet<string> = new Set(["llama3", "yarn", "longrope"]);

/** Keys of an object that holds parameters per layer type; empty for a plain one. */
function nestedKeys(config: RopeConfig, rope: object): string[] {
  const labels = config.layer_types ?? [];
  return Object.keys(rope).filter((key) => labels.includes(key));
}

/** The parameter objects of a configuration by layer type; a plain one stands under "full_attention". */
function ropeEntries(config: RopeConfig): [string, RopeParameters][] {
  const rope = config.rope_parameters;
  if (rope === null || Object.keys(rope).length === 0) return [];
  const nested = nestedKeys(config, rope);
  if (nested.length === 0) return [["full_attention", rope as RopeParameters]];
  return nested.flatMap((key) => {
    const entry = (rope as Record<string, RopeParameters | null>)[key];
    return entry === null || entry === undefined ? [] : [[key, entry] as [string, RopeParameters]];
  });
}

/** Floats in Python: a program's `factor: 8` is written 8.0, unless it came from a file that says 8. */
const FLOAT_KEYS: FieldTypes = {
  rope_theta: "float",
  partial_rotary_factor: "float",
  factor: "float",
  attention_factor: "float",
  beta_fast: "float",
  beta_slow: "float",
  mscale: "float",
  mscale_all_dim: "float",
  short_factor: "list[float]",
  long_factor: "list[float]",
  low_freq_factor: "float",
  high_freq_factor: "float",
};

/**
 * Brings `config.rope_parameters` into today's form. What stands in the object wins over `legacy`, and that over the
 * class's defaults; for types that scale from the original context length, that length is filled in.
 */
export function standardizeRope(config: RopeConfig, legacy: LegacyRope, defaults: RopeDefaults): void {
  const given = isFilled(legacy.rope_scaling) ? legacy.rope_scaling : config.rope_parameters;
  if (given !== null && (typeof given !== "object" || Array.isArray(given))) {
    throw new ConfigError(`Field 'rope_parameters' must be a dict, got ${shown(given)}.`);
  }
  config.rope_parameters = cloneJson(given ?? {});
  const theta = legacy.rope_theta ?? config.rope_theta ?? defaults.default_theta;
  const partial = legacy.partial_rotary_factor ?? config.partial_rotary_factor ?? undefined;

  const nested = nestedKeys(config, config.rope_parameters);
  const all = config.rope_parameters as Record<string, RopeParameters | null>;
  const entries =
    nested.length === 0 ? [config.rope_parameters as RopeParameters] : nested.map((key) => all[key]);
  for (const rope of entries) {
    if (typeof rope !== "object" || rope === null) continue;
    if (!isParsed(rope)) markFloatFields(rope, FLOAT_KEYS);
    for (const [key, value] of Object.entries({ rope_theta: theta, partial_rotary_factor: partial })) {
      if (rope[key] !== undefined || value === undefined) continue;
      rope[key] = value;
      markFloat(rope, key);
    }
    rope.rope_type ??= (rope.type as string | undefined) ?? "default";
    if (defaults.default_rope_type !== "default" && rope.rope_type === "default")
      rope.rope_type = defaults.default_rope_type;
    if (!SCALED_FROM_ORIGINAL.has(rope.rope_type)) continue;
    // Phi3 declares the length as a field of its own, which then counts; elsewhere the object's does.
    const { original_max_position_embeddings: outer, max_position_embeddings: present } = config;
    const isField =
      nested.length === 0 && Object.hasOwn(defaults.field_types, "original_max_position_embeddings");
    const original =
      isField && outer !== undefined ? outer : (rope.original_max_position_embeddings ?? present);
    if (original !== undefined) rope.original_max_position_embeddings = original;
  }
}

/** Numbers that moved from beside `rope_parameters` into it keep the way in which `source`, a file's content, wrote them. */
export function adoptRopeForms(config: RopeConfig, source: Readonly<Record<string, unknown>>): void {
  if (!isParsed(source)) return;
  const { rope_scaling, rope_parameters } = source as Readonly<Record<string, Record<string, object> | null>>;
  const given = (isFilled(rope_scaling) ? rope_scaling : rope_parameters) ?? {};
  const isNested = nestedKeys(config, config.rope_parameters ?? {}).length > 0;
  for (const [layerType, rope] of ropeEntries(config)) {
    const before: object = (isNested ? given[layerType] : given) ?? {};
    for (const key of ["rope_theta", "partial_rotary_factor"]) {
      const value = source[key];
      if (typeof value !== "number" || key in before || rope[key] !== value) continue;
      if (Number.isInteger(value)) setNumberForm(rope, key, numberForm(source, key) ?? String(value));
    }
  }
}

const isFilled = (value: object | null | undefined): value is RopeParameters =>
  value !== null && value !== undefined && Object.keys(value).length > 0;

interface Keys {
  readonly required: readonly string[];
  readonly optional: readonly string[];
}

const ROPE_KEYS: Readonly<Record<string, Keys>> = {
  default: { required: [], optional: ["rope_theta"] },
  axial: { required: [], optional: ["rope_theta"] },
  linear: { required: ["factor"], optional: ["rope_theta"] },
  dynamic: { required: ["factor"], optional: ["rope_theta"] },
  yarn: {
    required: ["factor", "original_max_position_embeddings"],
    optional: [
      "rope_theta",
      "attention_factor",
      "beta_fast",
      "beta_slow",
      "mscale",
      "mscale_all_dim",
      "truncate",
    ],
  },
  longrope: {
    required: ["short_factor", "long_factor", "original_max_position_embeddings"],
    optional: ["rope_theta", "attention_factor", "factor"],
  },
  llama3: {
    required: [
      "factor",
      "original_max_position_embeddings",
      "low_freq_factor",
      "high_freq_factor",
      "rope_theta",
    ],
    optional: [],
  },
  proportional: { required: ["rope_theta"], optional: [] },
};

/**
 * Checks `config.rope_parameters`. Missing keys and an odd rotated width are errors, values that the reference
 * only warns of are warnings.
 */
export function validateRope(config: RopeConfig, { ignore_keys_at_rope_validation }: RopeDefaults): void {
  for (const [layerType, rope] of ropeEntries(config)) {
    if (typeof rope !== "object")
      throw new ConfigError(`Field 'rope_parameters' must be a dict, got ${shown(rope)}.`);
    rope.rope_type ??= (rope.type as string | undefined) ?? "default";
    const type = rope.rope_type;
    if (typeof type !== "string")
      throw new ConfigError(`Field 'rope_parameters.rope_type' must be str, got ${shown(type)}.`);
    for (const key of ["rope_theta", "partial_rotary_factor"]) {
      const value = rope[key];
      if (value === undefined || value === null || typeof value === "number") continue;
      throw new ConfigError(`Field 'rope_parameters.${key}' must be a number, got ${shown(value)}.`);
    }
    if (Object.hasOwn(ROPE_KEYS, type)) {
      checkKeys(rope, type, ROPE_KEYS[type] as Keys, ignore_keys_at_rope_validation);
      checkValues(config, rope, type);
    } else {
      warn(
        `rope_parameters: rope_type '${type}' is not one of ${Object.keys(ROPE_KEYS).join(", ")}; it was not checked.`,
      );
    }
    checkRotatedWidth(config, rope, layerType);
  }
}

function checkKeys(rope: RopeParameters, type: string, keys: Keys, ignored: readonly string[]): void {
  const missing = keys.required.filter((key) => !Object.hasOwn(rope, key) && !ignored.includes(key));
  if (missing.length > 0) {
    throw new ConfigError(
      `Field 'rope_parameters' of rope_type '${type}' lacks ${missing.map((key) => `'${key}'`).join(", ")}.`,
    );
  }
  const known = [
    "rope_type",
    "type",
    "partial_rotary_factor",
    ...keys.required,
    ...keys.optional,
    ...ignored,
  ];
  const unknown = Object.keys(rope).filter((key) => !known.includes(key));
  if (unknown.length > 0)
    warn(`rope_parameters of rope_type '${type}' has unknown keys: ${unknown.join(", ")}.`);
}

function checkValues(config: RopeConfig, rope: RopeParameters, type: string): void {
  const complain = (key: string, wanted: string) =>
    warn(`rope_parameters['${key}'] of rope_type '${type}' should be ${wanted}, got ${shown(rope[key])}.`);
  const isNumber = (key: string) => typeof rope[key] === "number";
  const isSet = (key: string) => rope[key] !== undefined && rope[key] !== null;

  if (["linear", "dynamic", "yarn", "llama3"].includes(type) || (type === "longrope" && isSet("factor"))) {
    if (!isNumber("factor") || (rope.factor as number) < 1) complain("factor", "a number of at least 1");
  }
  if (isSet("attention_factor") && !((rope.attention_factor as number) >= 0))
    complain("attention_factor", "a number of at least 0");
  switch (type) {
    case "yarn":
      for (const key of ["beta_fast", "beta_slow"])
        if (isSet(key) && !isNumber(key)) complain(key, "a number");
      if ((rope.beta_fast || 32) < (rope.beta_slow || 1))
        complain("beta_fast", `greater than beta_slow (${rope.beta_slow ?? 1})`);
      checkYarnFactor(config, rope);
      break;
    case "longrope": {
      const pairs = Math.floor(Math.trunc(headWidth(config) * (rope.partial_rotary_factor ?? 1)) / 2);
      for (const key of ["short_factor", "long_factor"]) {
        const list = rope[key];
        if (!Array.isArray(list) || !list.every((item) => typeof item === "number")) {
          throw new ConfigError(
            `Field 'rope_parameters.${key}' must be a list of numbers, got ${shown(list)}.`,
          );
        }
        if (list.length !== pairs) complain(key, `a list of ${pairs} numbers`);
      }
      break;
    }
    case "llama3":
      for (const key of ["low_freq_factor", "high_freq_factor", "original_max_position_embeddings"]) {
        if (!isNumber(key))
          throw new ConfigError(`Field 'rope_parameters.${key}' must be a number, got ${shown(rope[key])}.`);
      }
      if ((rope.high_freq_factor as number) <= (rope.low_freq_factor as number)) {
        complain("high_freq_factor", `greater than low_freq_factor (${rope.low_freq_factor})`);
      }
      if (
        (rope.original_max_position_embeddings as number) >=
        (config.max_position_embeddings ?? Number.POSITIVE_INFINITY)
      ) {
        complain(
          "original_max_position_embeddings",
          `less than max_position_embeddings (${config.max_position_embeddings})`,
        );
      }
      break;
    case "proportional":
      if (!isSet("partial_rotary_factor"))
        complain("partial_rotary_factor", "in [0, 1); without it the type is linear scaling");
      break;
  }
}

function checkYarnFactor(config: RopeConfig, rope: RopeParameters): void {
  const implied =
    (config.max_position_embeddings ?? Number.NaN) / (rope.original_max_position_embeddings as number);
  // A ratio of 1 says only that the original length was filled in from the present one.
  if (Number.isNaN(implied) || implied === rope.factor || implied === 1) return;
  warnOnce(
    `rope_parameters['factor'] is ${rope.factor}, but max_position_embeddings / original_max_position_embeddings is ${implied}; ` +
      "the former is used.",
  );
}

const headWidth = ({ head_dim, hidden_size = 0, num_attention_heads = 1 }: RopeConfig): number =>
  head_dim ?? Math.floor(hidden_size / num_attention_heads);

function checkRotatedWidth({ head_dim }: RopeConfig, rope: RopeParameters, layerType: string): void {
  const factor = rope.partial_rotary_factor ?? 1;
  // Heads of up to 4 are left alone: tiny test checkpoints have them.
  if (head_dim == null || head_dim <= 4 || head_dim % 2 === 0 || Math.trunc(head_dim * factor) !== head_dim)
    return;
  throw new ConfigError(
    `Rotary embeddings need an even width, but head_dim is ${head_dim} with partial_rotary_factor ${factor} (${layerType}).`,
  );
}
