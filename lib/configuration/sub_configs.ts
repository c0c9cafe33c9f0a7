// Configurations inside configurations, such as the text and vision parts of a multimodal one.

import { ConfigError } from "../errors/index.ts";
import type { ConfigClass, PretrainedConfig } from "./configuration_utils.ts";
import { shown } from "./field_types.ts";

/** How a field that is itself a configuration is made. */
export interface SubConfigSpec {
  /** Its class. Without one, the `model_type` in its data decides. */
  readonly config_class?: ConfigClass;
  /** The `model_type` to take when the data names none. */
  readonly model_type?: string;
  /** Arguments when there are no data. */
  readonly init_kwargs?: Readonly<Record<string, unknown>>;
  /** Whether `null` stays `null`, where otherwise a default configuration is made. Default false. */
  readonly optional?: boolean;
}

/** A class alone stands for `{ config_class }`. */
export type SubConfig = SubConfigSpec | ConfigClass;

export const specOf = (sub: SubConfig): SubConfigSpec =>
  typeof sub === "function" ? { config_class: sub } : sub;

const known = new Map<string, ConfigClass>();

/** Makes a class known for parts that name only a `model_type`. Constructors cannot wait for an import, so it comes first. */
export function registerConfigClass(model_type: string, config_class: ConfigClass): void {
  known.set(model_type, config_class);
}

/** Imports and registers the class of a `model_type`; undefined when there is none. */
export type ConfigClassLoader = (model_type: string) => Promise<ConfigClass | undefined>;

let load: ConfigClassLoader = async () => undefined;

/** Installed by AutoConfig, which knows where the classes are. */
export function setConfigClassLoader(loader: ConfigClassLoader): void {
  load = loader;
}

/** Imports the classes of the configurations that a configuration of this class and content has inside. */
export async function loadSubConfigClasses(config_class: ConfigClass, data: unknown): Promise<void> {
  for (const [key, sub] of Object.entries(config_class.sub_configs)) {
    const spec = specOf(sub);
    const part = isData(data) ? data[key] : undefined;
    const model_type =
      isData(part) && typeof part.model_type === "string" ? part.model_type : spec.model_type;
    const found =
      spec.config_class ??
      (model_type === undefined ? undefined : (known.get(model_type) ?? (await load(model_type))));
    if (found !== undefined) await loadSubConfigClasses(found, part);
  }
}

const isData = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null;

/** Makes the configuration of one field from plain data, or from nothing. */
export function createSubConfig(field: string, spec: SubConfigSpec, value: unknown): PretrainedConfig {
  if (value !== null && value !== undefined && (typeof value !== "object" || Array.isArray(value))) {
    throw new ConfigError(`Field '${field}' must be a dict, a configuration or None, got ${shown(value)}.`);
  }
  const data = (value ?? spec.init_kwargs ?? {}) as Readonly<Record<string, unknown>>;
  const Config = spec.config_class ?? classFor(field, data.model_type ?? spec.model_type);
  const { model_type: _, ...fields } = data;
  return new Config(fields as never);
}

function classFor(field: string, model_type: unknown): ConfigClass {
  if (typeof model_type !== "string") throw new ConfigError(`Field '${field}' names no model_type.`);
  const found = known.get(model_type);
  if (found !== undefined) return found;
  throw new ConfigError(
    `Field '${field}' is of model_type '${model_type}', whose configuration class is not loaded.`,
    {
      hint: `Load the whole with AutoConfig.from_pretrained, or call \`await AutoConfig.for_model("${model_type}")\` first.`,
    },
  );
}
