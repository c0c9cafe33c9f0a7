// What the HF_* variables say, by Python's rules. Read at each call: a program may set them after it has imported this.

import { homedir } from "node:os";
import path from "node:path";
import { InvalidArgumentError } from "../errors/index.ts";

/** "1", "on", "yes", "true", in any case. */
export const isTrue = (value: string | undefined): boolean =>
  value !== undefined && ["1", "on", "yes", "true"].includes(value.toLowerCase());

/** `~` and `$NAME` as Python's expanduser and expandvars read them. */
function expanded(folder: string): string {
  return folder
    .replace(/^~(?=\/|$)/, homedir())
    .replace(/\$(?:(\w+)|\{([^}]*)\})/g, (whole, plain, braced) => process.env[plain ?? braced] ?? whole);
}

/** The folder of all that belongs to Hugging Face: `HF_HOME`, else below the user's cache folder. */
export function homeFolder(): string {
  const { HF_HOME, XDG_CACHE_HOME } = process.env;
  return expanded(HF_HOME ?? path.join(XDG_CACHE_HOME ?? path.join(homedir(), ".cache"), "huggingface"));
}

/** The folder that holds the hub's cache. */
export function cacheFolder({ cache_dir }: { readonly cache_dir?: string | undefined } = {}): string {
  if (cache_dir !== undefined) return path.resolve(cache_dir.replace(/^~(?=\/|$)/, homedir()));
  const { HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE } = process.env;
  return expanded(HF_HUB_CACHE ?? HUGGINGFACE_HUB_CACHE ?? path.join(homeFolder(), "hub"));
}

/** The folder for code of repositories that runs: `HF_MODULES_CACHE`, else below the folder of all. */
export const modulesFolder = (): string =>
  path.resolve(expanded(process.env.HF_MODULES_CACHE ?? path.join(homeFolder(), "modules")));

/** The file that `login` writes the token to. */
export const tokenPath = (): string =>
  expanded(process.env.HF_TOKEN_PATH ?? path.join(homeFolder(), "token"));

/** The tokens by name, beside it. */
export const storedTokensPath = (): string => path.join(path.dirname(tokenPath()), "stored_tokens");

/** The hub's address without a slash at the end: `HF_ENDPOINT`, else https://huggingface.co. */
export function endpoint(): string {
  const { HF_ENDPOINT, HUGGINGFACE_CO_STAGING } = process.env;
  const given = isTrue(HUGGINGFACE_CO_STAGING)
    ? "https://hub-ci.huggingface.co"
    : HF_ENDPOINT || "https://huggingface.co";
  if (!URL.canParse(given) || !/^https?:$/.test(new URL(given).protocol)) {
    throw new InvalidArgumentError("HF_ENDPOINT must be an address that begins with http:// or https://.");
  }
  return given.replace(/\/+$/, "");
}

/** Milliseconds that the hub may take to answer, and to send the next bytes. */
export function timeouts(): { readonly answer: number; readonly bytes: number } {
  const seconds = (value: string | undefined) => {
    const number = Number(value);
    return value !== undefined && number > 0 ? number : 10;
  };
  const { HF_HUB_ETAG_TIMEOUT, HF_HUB_DOWNLOAD_TIMEOUT } = process.env;
  return { answer: seconds(HF_HUB_ETAG_TIMEOUT) * 1000, bytes: seconds(HF_HUB_DOWNLOAD_TIMEOUT) * 1000 };
}

/** True when the variables say that the network must not be used. */
export const isOfflineEverywhere = (): boolean =>
  isTrue(process.env.HF_HUB_OFFLINE || process.env.TRANSFORMERS_OFFLINE);
