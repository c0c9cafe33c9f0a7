// Where login puts tokens, for Python too: one file with the token that is used, one with all of them by name.

import { chmod, mkdir, open, readFile, rename, rm } from "node:fs/promises";
import path from "node:path";
import { HubError } from "../errors/index.ts";
import { storedTokensPath, tokenPath } from "./environment.ts";

/** A token without the line breaks that files and shells leave on it; undefined when nothing is left. */
export const cleanToken = (text: string | undefined): string | undefined =>
  text?.replaceAll(/[\r\n]/g, "").trim() || undefined;

/** The token that `login` wrote, as it is. */
export const keptToken = async (): Promise<string | undefined> => cleanToken(await readSecret(tokenPath()));

async function readSecret(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw new HubError(`The token file ${file} cannot be read (${code}).`);
  }
}

/** Readable by its owner only from the first byte on; whole or not at all. */
async function writeSecret(file: string, text: string): Promise<void> {
  const folder = path.dirname(file);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const temporary = `${file}.${process.pid}.tmp`;
  const handle = await open(temporary, "w", 0o600);
  try {
    await handle.writeFile(text);
    await handle.chmod(0o600);
  } finally {
    await handle.close();
  }
  await rename(temporary, file);
  await chmod(folder, 0o700).catch(() => {});
}

// Tokens by name: the INI file that Python's `hf auth` keeps ---------------------------------------------------------

type Sections = Map<string, Map<string, string>>;

/** The fields by token name: `hf_token`, and for one that can be renewed `refresh_token` and `expires_at` (in seconds). */
export async function storedTokens(): Promise<Sections> {
  const sections: Sections = new Map();
  let current: Map<string, string> | undefined;
  for (const line of ((await readSecret(storedTokensPath())) ?? "").split("\n")) {
    const header = /^\[(.+)\]\s*$/.exec(line);
    const field = /^([^=:#;\s][^=:]*?)\s*[=:]\s*(.*?)\s*$/.exec(line);
    if (header !== null) {
      current = new Map();
      sections.set(header[1] as string, current);
    } else if (field !== null) current?.set((field[1] as string).toLowerCase(), field[2] as string);
  }
  return sections;
}

async function writeStored(sections: Sections): Promise<void> {
  const text = [...sections]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, fields]) => `[${name}]\n${[...fields].map(([k, v]) => `${k} = ${v}\n`).join("")}\n`)
    .join("");
  await writeSecret(storedTokensPath(), text);
}

/** How a token that came from a browser can be renewed. */
export interface Renewal {
  readonly refresh_token: string;
  /** Seconds since 1970. */
  readonly expires_at: number | undefined;
}

/** Puts a token into the file of tokens by name, and nothing older of that name stays. */
export async function storeNamed(token: string, name: string, renewal?: Renewal): Promise<void> {
  const fields = new Map([["hf_token", token]]);
  if (renewal !== undefined) fields.set("refresh_token", renewal.refresh_token);
  if (renewal?.expires_at !== undefined) fields.set("expires_at", String(renewal.expires_at));
  const stored = await storedTokens();
  stored.set(name.replaceAll(/[[\]\r\n]/g, "_"), fields);
  await writeStored(stored);
}

/** Makes a token the one that is read. */
export const keepToken = (token: string): Promise<void> => writeSecret(tokenPath(), token);

/** Forgets the user's tokens, those that Python keeps by name too; false when there was none. */
export async function forgetTokens(): Promise<boolean> {
  const wasThere = (await keptToken()) !== undefined || (await storedTokens()).size > 0;
  await rm(tokenPath(), { force: true });
  await rm(storedTokensPath(), { force: true });
  return wasThere;
}
