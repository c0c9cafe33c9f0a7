// What `save_pretrained` writes of a configuration: what differs from the defaults.

import { equalJson, numberForm, put, setNumberForm } from "../json/json.ts";
import type { PretrainedConfig } from "./configuration_utils.ts";

type Fields = Record<string, unknown>;

/** What `PretrainedConfig.to_diff_dict` does; `base` is what the base class's defaults write. */
export function diffDict(config: PretrainedConfig, base: Fields): Fields {
  const Config = config.constructor as typeof PretrainedConfig;
  const all = config.to_dict();
  const ownDefaults = defaultsOf(Config);
  const output: Fields = {};
  for (const [key, value] of Object.entries(all)) {
    if (key === "_name_or_path") continue;
    const attribute = (config as unknown as Fields)[key];
    const isChanged =
      !Object.hasOwn(base, key) ||
      !equalJson(value, base[key]) ||
      !equalJson(value, ownDefaults[key] ?? value);
    if (Object.hasOwn(Config.sub_configs, key) && isConfig(attribute)) {
      put(output, key, nestedDiff(value as Fields, base, attribute));
    } else if (isChanged || key === "transformers_version" || key === "quantization_config") {
      put(output, key, value);
      const form = numberForm(all, key);
      if (form !== undefined) setNumberForm(output, key, form);
    }
  }
  return output;
}

/** The fields of a class's default configuration; none when it cannot be made without arguments. */
function defaultsOf(Config: typeof PretrainedConfig): Fields {
  try {
    return new Config().to_dict();
  } catch {
    return {};
  }
}

/** What is written of a configuration inside another: its type, its own fields, and common ones that differ from its defaults. */
function nestedDiff(value: Fields, base: Fields, config: PretrainedConfig): Fields {
  const defaults = defaultsOf(config.constructor as typeof PretrainedConfig);
  const output: Fields = {};
  for (const [key, item] of Object.entries(value)) {
    if (key === "_name_or_path") continue;
    if (Object.hasOwn(base, key) && equalJson(item, defaults[key]) && key !== "model_type") continue;
    put(output, key, item);
    const form = numberForm(value, key);
    if (form !== undefined) setNumberForm(output, key, form);
  }
  return output;
}

const isConfig = (value: unknown): value is PretrainedConfig =>
  typeof (value as PretrainedConfig | null)?.to_diff_dict === "function";
