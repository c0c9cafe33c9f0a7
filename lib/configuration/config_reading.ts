// Finding a checkpoint's config.json, and in a composite one the part that is meant.

import { warnOnce } from "../errors/warnings.ts";
import { assertSafeName, HUB_OPTIONS, kindOf, pin, resolveFile } from "../hub/files.ts";
import { isRecord } from "../json/json.ts";
import { CONFIG_NAME, readConfigFile, versionedFile } from "./config_files.ts";
import type { ConfigClass, FromPretrainedOptions } from "./configuration_utils.ts";

type Fields = Record<string, unknown>;

/** Options of `from_pretrained` that say how to get the file, and are no fields. */
const PLACE_OPTIONS = [...HUB_OPTIONS, "proxies", "trust_remote_code", "code_revision"] as const;

/** What `PretrainedConfig.get_config_dict` does. */
export async function readConfigDict(
  dirOrRepo: string,
  options: FromPretrainedOptions,
): Promise<{ readonly dict: Fields; readonly file: string; readonly unused: Fields }> {
  const unused: Fields = { ...options };
  for (const option of PLACE_OPTIONS) delete unused[option];
  const isFile = (await kindOf(dirOrRepo)) === "file";
  const { name: source, options: pinned } = await pin(dirOrRepo, options);
  let file = isFile ? dirOrRepo : await resolveFile(source, CONFIG_NAME, pinned);
  let dict = await readConfigFile(file);
  if (!isFile && Array.isArray(dict.configuration_files)) {
    const name = versionedFile(dict.configuration_files);
    assertSafeName(name, "The configuration file");
    file = await resolveFile(source, name, pinned);
    dict = await readConfigFile(file);
  }
  if (typeof unused.model_type === "string" && dict.model_type !== unused.model_type) {
    warnOnce(
      `${file} has model_type '${String(dict.model_type)}', which is overridden by '${unused.model_type}'.`,
    );
    dict.model_type = unused.model_type;
  }
  return { dict, file, unused };
}

/** Of a composite configuration's content, the part that is meant for the class. */
export function partFor(Config: ConfigClass, dict: Fields): Fields {
  const { base_config_key, model_type, name } = Config;
  const part =
    base_config_key !== "" && isRecord(dict[base_config_key]) ? (dict[base_config_key] as Fields) : dict;
  if (model_type === "" || part.model_type === undefined || part.model_type === model_type) return part;
  const inner = Object.values(part).find((value) => isRecord(value) && value.model_type === model_type);
  if (inner !== undefined) return inner as Fields;
  warnOnce(
    `A configuration of model_type '${String(part.model_type)}' is read as ${name} ('${model_type}').`,
  );
  return part;
}
