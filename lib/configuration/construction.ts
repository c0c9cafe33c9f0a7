// What a configuration's construction remembers: what it was given, until `post_init` has put it in place.

import { ConfigFieldError } from "../errors/index.ts";
import { isRecord, put } from "../json/json.ts";
import { inheritedTable, isConfig, memberOf } from "./class_tables.ts";
import type { ConfigKwargs, PretrainedConfig } from "./configuration_utils.ts";
import type { FieldTypes } from "./field_types.ts";
import { DEFAULT_GENERATION_PARAMS } from "./generation_fields.ts";
import { type LegacyRope, type RopeConfig, type RopeDefaults, standardizeRope } from "./rope.ts";
import { createSubConfig, specOf } from "./sub_configs.ts";

type Fields = Record<string, unknown>;

/** State of a process, not of a checkpoint: dropped when read, never written. */
export const TRANSIENT_FIELDS: ReadonlySet<string> = new Set([
  "_attn_implementation_internal",
  "_experts_implementation_internal",
  "_commit_hash",
  "_is_quantized",
  "_auto_class",
  "_post_init_done",
  "ignore_keys_at_rope_validation",
  "base_model_tp_plan",
  "base_model_pp_plan",
  "base_model_fsdp_plan",
  "distributed_config",
  "transformers_weights",
]);

const OLDER_ROPE = ["rope_scaling", "rope_theta", "partial_rotary_factor"];

/** Parameters of generation do not belong to a model's configuration, unless its class has the field. */
export const isGenerationOnly = (key: string, types: FieldTypes) =>
  Object.hasOwn(DEFAULT_GENERATION_PARAMS, key) && !Object.hasOwn(types, key);

/** The construction of one configuration. */
export class Construction {
  /** Fields whose names are members of the class: kept to be written back, out of reach of code. */
  readonly shadowed: Fields = {};
  /** Whether it is over. */
  isSettled = false;
  readonly #config: PretrainedConfig;
  /** Fields given by an older or another name. */
  readonly #given: Fields = {};
  /** What constructors had stored before a subclass's class fields could run; see `checkOverwritten`. */
  readonly #stored: Fields = {};

  constructor(config: PretrainedConfig) {
    this.#config = config;
  }

  get #fields(): Fields {
    return this.#config as unknown as Fields;
  }

  get #class(): typeof PretrainedConfig {
    return this.#config.constructor as typeof PretrainedConfig;
  }

  get #aliases(): Readonly<Record<string, string>> {
    return inheritedTable<Record<string, string>>(this.#class, "attribute_map");
  }

  /** Stores a field that no constructor has named. */
  set(key: string, value: unknown): void {
    if (TRANSIENT_FIELDS.has(key) && key !== "transformers_weights") return;
    if (!this.isSettled && isGenerationOnly(key, inheritedTable(this.#class, "field_types"))) return;
    if (Object.hasOwn(this.#aliases, key) || OLDER_ROPE.includes(key)) this.#given[key] = value;
    if (key === "rope_scaling" && !this.isSettled) return;
    const member = memberOf(Object.getPrototypeOf(this.#config), key);
    if (member !== undefined && member.set === undefined) put(this.shadowed, key, value);
    else put(this.#config, key, value);
  }

  rememberStored(): void {
    if (this.isSettled) return;
    for (const [key, value] of Object.entries(this.#config))
      if (!(key in this.#stored)) put(this.#stored, key, value);
  }

  /** Whether all classes of the chain have set their fields. */
  isComplete(types: FieldTypes): boolean {
    const { attribute_map } = this.#class;
    return Object.keys(types).every((name) => Object.hasOwn(this.#config, name) || name in attribute_map);
  }

  /** Fields given by another name: the constructor knew nothing of them, and has set their defaults meanwhile. */
  applyAliases(): void {
    for (const [alias, field] of Object.entries(this.#aliases)) {
      if (Object.hasOwn(this.#given, alias)) this.#fields[field] = this.#given[alias];
      delete this.#given[alias];
    }
  }

  /** @param attention the implementation that was chosen for the whole. */
  makeSubConfigs(attention: string | null): void {
    for (const [key, sub] of Object.entries(this.#class.sub_configs)) {
      const value = this.#fields[key];
      const spec = specOf(sub);
      if (isConfig(value) || ((value === null || value === undefined) && spec.optional)) continue;
      const config = createSubConfig(`${this.#class.name}.${key}`, spec, value);
      if (isRecord(value)) config._adopt(value);
      this.#fields[key] = config;
      if (attention !== null) config._attn_implementation = attention;
    }
  }

  /** Older rope fields move into `rope_parameters`, in classes that have it; in others they stay what they are. */
  standardizeRope(types: FieldTypes, defaults: RopeDefaults): void {
    const legacy: Fields = {};
    for (const name of OLDER_ROPE) {
      if (Object.hasOwn(this.#given, name)) legacy[name] = this.#given[name];
      delete this.#given[name];
    }
    if (this.#fields.rope_parameters === undefined) {
      if (legacy.rope_scaling !== undefined) put(this.shadowed, "rope_scaling", legacy.rope_scaling);
      return;
    }
    for (const name of Object.keys(legacy).filter((name) => !Object.hasOwn(types, name))) {
      delete this.#fields[name];
      delete this.#stored[name];
    }
    standardizeRope(this.#config as unknown as RopeConfig, legacy as LegacyRope, defaults);
  }

  /** A class field runs after the parent's constructor: it replaces the caller's value with its own. */
  checkOverwritten(dict: ConfigKwargs): void {
    for (const [key, before] of Object.entries(this.#stored)) {
      const now = this.#fields[key];
      // An object may have been brought into another form, and null stood for what was derived since.
      const isPlain = typeof before !== "object";
      const isReset = now === undefined;
      if (now === before || (!isReset && (before !== dict[key] || !isPlain))) continue;
      throw overwritten(this.#config, key);
    }
  }
}

export function overwritten(config: PretrainedConfig, field: string): ConfigFieldError {
  return new ConfigFieldError(
    `${config.constructor.name}: field '${field}' was overwritten by a class field.`,
    {
      hint:
        `Take its default in the constructor, ({ ${field} = …, ...kwargs } = {}), and ` +
        `write \`declare ${field}: …\` for its type.`,
    },
  );
}
