// The JSON files that hold configurations.

import { ConfigError } from "../errors/index.ts";
import { readText } from "../hub/files.ts";
import { parseJson } from "../json/json.ts";
import { shown } from "./field_types.ts";

/** The file of a checkpoint's configuration. */
export const CONFIG_NAME = "config.json";

/** The release of the reference whose file formats are followed; written into files as `transformers_version`. */
export const TRANSFORMERS_VERSION = "5.23.0";

/** The object that a JSON file holds; `ConfigError` when it holds anything else. */
export async function readConfigFile(file: string): Promise<Record<string, unknown>> {
  const dict = parseJson(await readText(file, ConfigError), { file, floatTags: true });
  if (typeof dict !== "object" || dict === null || Array.isArray(dict)) {
    throw new ConfigError(`${file} must hold a JSON object, not ${shown(dict)}.`);
  }
  return dict;
}

/** Runs `make` and puts the file's name before the message of a `ConfigError`. */
export function inFile<T>(file: string, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new ConfigError(`${file}: ${error.message}`, { cause: error });
  }
}

/** The newest of `config.<version>.json` that is not newer than the reference's release. */
export function versionedFile(names: readonly unknown[]): string {
  const number = (version: string) =>
    version.split(".").reduce((sum, part) => sum * 1000 + Number.parseInt(part, 10), 0);
  const usable = names
    .map((name) => /^config\.(\d+\.\d+\.\d+)\.json$/.exec(String(name)))
    .filter((match) => match !== null && number(match[1] as string) <= number(TRANSFORMERS_VERSION))
    .sort((a, b) => number(a?.[1] as string) - number(b?.[1] as string));
  return usable.at(-1)?.[0] ?? CONFIG_NAME;
}
