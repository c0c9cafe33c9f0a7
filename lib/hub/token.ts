// The user's token: where it comes from, where login puts it. It never becomes part of a message.

import { chmod, mkdir, open, readFile, rename, rm } from "node:fs/promises";
import path from "node:path";
import { HubError, InvalidArgumentError } from "../errors/index.ts";
import { endpoint, isTrue, storedTokensPath, tokenPath } from "./environment.ts";

/** A string is the token; true: there must be one; false: none is sent; undefined, null: the user's, if there is one. */
export type TokenOption = string | boolean | null | undefined;

const clean = (text: string | undefined): string | undefined =>
  text?.replaceAll(/[\r\n]/g, "").trim() || undefined;

/** The token of the environment, or of the file that `login` wrote. */
export async function get_token(): Promise<string | undefined> {
  const { HF_TOKEN, HUGGING_FACE_HUB_TOKEN } = process.env;
  return clean(HF_TOKEN || HUGGING_FACE_HUB_TOKEN) ?? clean(await readSecret(tokenPath()));
}

/** The token to send, undefined for none. */
export async function tokenFor(option: TokenOption): Promise<string | undefined> {
  if (option === false) return undefined;
  const isImplicit = option === undefined || option === null;
  if (isImplicit && isTrue(process.env.HF_HUB_DISABLE_IMPLICIT_TOKEN)) return undefined;
  const token = typeof option === "string" ? clean(option) : await get_token();
  if (token === undefined && option === true) {
    throw new InvalidArgumentError("token: true asks for a token, and there is none.", {
      hint: `Run \`npx torchformers login\`, or set HF_TOKEN. Tokens are made at ${endpoint()}/settings/tokens.`,
    });
  }
  if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) {
    throw new InvalidArgumentError("The token holds characters that no token has.", {
      hint: "It is the option `token`, the variable HF_TOKEN or the file that `torchformers login` writes.",
    });
  }
  return token;
}

/** Takes the token, and what addresses hide, out of a text that is shown or thrown. */
export function redact(text: string, token?: string | undefined): string {
  let shown = token === undefined ? text : text.replaceAll(token, "[token]");
  shown = shown
    .replaceAll(/\bhf_[A-Za-z0-9_]{8,}/g, "[token]")
    .replaceAll(/\bBearer\s+\S+/gi, "Bearer [token]");
  // Signed addresses carry their right of access in the query, others a password before the host.
  return shown
    .replaceAll(/(https?:\/\/[^\s?#"']+)\?[^\s"']*/g, "$1")
    .replaceAll(/(https?:\/\/)[^\s/@"']+@/g, "$1");
}

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

async function readStored(): Promise<Sections> {
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

/** Makes a token the user's: in the file of tokens by name and in the one that is read. */
export async function storeToken(token: string, name: string): Promise<void> {
  const stored = await readStored();
  stored.set(name.replaceAll(/[[\]\r\n]/g, "_"), new Map([["hf_token", token]]));
  await writeStored(stored);
  await writeSecret(tokenPath(), token);
}

/** Forgets the user's token; false when there was none. */
export async function forgetToken(): Promise<boolean> {
  const token = clean(await readSecret(tokenPath()));
  const stored = await readStored();
  const names = [...stored].filter(([, fields]) => fields.get("hf_token") === token).map(([name]) => name);
  for (const name of names) stored.delete(name);
  if (names.length > 0) await writeStored(stored);
  await rm(tokenPath(), { force: true });
  return token !== undefined;
}
