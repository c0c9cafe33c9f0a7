// A configuration of plain data, and of options that override its fields.

import { InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { cloneJson, isRecord } from "../json/json.ts";
import { inheritedTable, isConfig, memberOf } from "./class_tables.ts";
import type { ConfigClass, ConfigKwargs, PretrainedConfig } from "./configuration_utils.ts";
import { checkFields } from "./field_types.ts";

type Fields = Record<string, unknown>;

/** Overrides that must be there when the configuration is made, since other fields follow from them. */
const CONSTRUCTION_FIELDS = [
  "num_labels",
  "attn_implementation",
  "experts_implementation",
  "output_attentions",
  "torch_dtype",
  "dtype",
  "name_or_path",
];

/** See `PretrainedConfig.from_dict`. */
export function fromDict<T extends PretrainedConfig>(
  Config: ConfigClass<T>,
  dict: ConfigKwargs,
  { return_unused_kwargs = false, ...overrides }: ConfigKwargs,
): T | [T, Fields] {
  const given = cloneJson(dict) as Fields;
  const unused: Fields = { ...overrides };
  for (const key of CONSTRUCTION_FIELDS) {
    const value = unused[key];
    if (value === undefined) continue;
    if (!(key.endsWith("dtype") && value === "auto")) given[key] = value;
    delete unused[key];
  }
  delete unused.model_type;
  const config = new Config(given as never);
  config._adopt(given);
  for (const [key, value] of Object.entries(unused)) {
    if (
      value === undefined ||
      !(key in config) ||
      memberOf(Object.getPrototypeOf(config), key)?.value !== undefined
    )
      continue;
    const current = (config as unknown as Fields)[key];
    const isNested = isConfig(current) && isRecord(value);
    const next = isNested
      ? fromDict(current.constructor as ConfigClass, { ...current.to_dict(), ...value }, {})
      : value;
    (config as unknown as Fields)[key] = next;
    delete unused[key];
  }
  if (Object.keys(overrides).length > 0)
    checkFields(Config.name, config, inheritedTable(Config, "field_types"), {});
  if (return_unused_kwargs === true) return [config, unused];
  const [unknown] = Object.keys(unused).filter((key) => unused[key] !== undefined);
  if (unknown !== undefined) {
    const near = suggest(unknown, Object.keys(config));
    throw new InvalidArgumentError(
      `[${Config.name}.from_pretrained] '${unknown}' is no option and no field.`,
      {
        ...(near === undefined ? {} : { suggestion: near }),
      },
    );
  }
  return config;
}
