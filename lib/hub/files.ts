// Where a file of a checkpoint lies: in a directory, in the local cache of the hub, or (later) on the hub.

import { readFile, stat } from "node:fs/promises";
import { homedir } from "node:os";
import path from "node:path";
import { EntryNotFoundError, HubError, InvalidArgumentError, OfflineModeError } from "../errors/index.ts";
import { finishReplacement } from "./folder_transaction.ts";

/** Options that say which files of a repository are meant and how they may be got. */
export interface HubOptions {
  /** Branch, tag or commit. Default "main"; means nothing for a directory. */
  readonly revision?: string | undefined;
  /** Folder inside the directory or repository. Default "". */
  readonly subfolder?: string | undefined;
  readonly cache_dir?: string | undefined;
  readonly token?: string | boolean | null | undefined;
  /** Never use the network; `HF_HUB_OFFLINE=1` says the same for all calls. Default false. */
  readonly local_files_only?: boolean | undefined;
  readonly force_download?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The names of {@link HubOptions}, to tell them from other options. */
export const HUB_OPTIONS = [
  "revision",
  "subfolder",
  "cache_dir",
  "token",
  "local_files_only",
  "force_download",
  "signal",
] as const satisfies readonly (keyof HubOptions)[];

/** Brings one file of a repository into the cache; gives its path, or undefined when the repository has no such file. */
export type Download = (repo: string, file: string, options: HubOptions) => Promise<string | undefined>;

let download: Download | undefined;

/** Installs the network side. Without one, only directories and the cache are searched. */
export function setDownload(next: Download | undefined): void {
  download = next;
}

const isTrue = (value: string | undefined) =>
  value !== undefined && ["1", "on", "yes", "true"].includes(value.toLowerCase());

/** True when the network must not be used. */
export const isOffline = ({ local_files_only = false }: HubOptions = {}): boolean =>
  local_files_only || isTrue(process.env.HF_HUB_OFFLINE) || isTrue(process.env.TRANSFORMERS_OFFLINE);

/**
 * Refuses names that could leave their folder. Lexical on purpose: the hub's cache is made of symbolic links, which a
 * check of real paths would take for an escape.
 */
export function assertSafeName(name: string, what: string): void {
  const parts = name.split(/[\\/]/);
  const isAbsolute = name.startsWith("/") || name.startsWith("\\") || /^[a-zA-Z]:/.test(name);
  if (name === "" || isAbsolute || name.includes("\0") || parts.includes("..")) {
    throw new InvalidArgumentError(`${what} '${name}' must be a relative path that stays inside its folder.`);
  }
}

type Kind = "file" | "directory" | "absent";

/** What lies at a path; links are followed. */
export async function kindOf(file: string): Promise<Kind> {
  try {
    const found = await stat(file);
    return found.isDirectory() ? "directory" : "file";
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (
      code === "ENOENT" ||
      code === "ENOTDIR" ||
      code === "ENAMETOOLONG" ||
      code === "ERR_INVALID_ARG_VALUE"
    )
      return "absent";
    throw new HubError(`${file} cannot be read (${code}).`, { cause: error });
  }
}

/** The folder that holds the hub's cache, by Python's rules. */
export function cacheFolder({ cache_dir }: HubOptions = {}): string {
  if (cache_dir !== undefined) return cache_dir;
  const { HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME, XDG_CACHE_HOME } = process.env;
  const home = HF_HOME ?? path.join(XDG_CACHE_HOME ?? path.join(homedir(), ".cache"), "huggingface");
  const folder = HF_HUB_CACHE ?? HUGGINGFACE_HUB_CACHE ?? path.join(home, "hub");
  return folder.replace(/^~(?=\/|$)/, homedir());
}

const REPO_ID = /^(?:[\w-][\w.-]*\/)?[\w-][\w.-]*$/;

/** The snapshot of a repository that lies in the cache, or undefined. */
async function cachedSnapshot(repo: string, options: HubOptions): Promise<string | undefined> {
  const folder = path.join(cacheFolder(options), `models--${repo.replaceAll("/", "--")}`);
  const revision = options.revision ?? "main";
  assertSafeName(revision, "The revision");
  const named = path.join(folder, "refs", ...revision.split("/"));
  const commit = (await kindOf(named)) === "file" ? (await readFile(named, "utf8")).trim() : revision;
  assertSafeName(commit, "The commit");
  const snapshot = path.join(folder, "snapshots", commit);
  return (await kindOf(snapshot)) === "directory" ? snapshot : undefined;
}

/**
 * The folder that holds a checkpoint's files, or undefined when they would have to be downloaded.
 *
 * `dirOrRepo` is a directory, or the name of a repository that lies in the cache.
 */
export async function localFolder(dirOrRepo: string, options: HubOptions = {}): Promise<string | undefined> {
  const { subfolder = "" } = options;
  if (subfolder !== "") assertSafeName(subfolder, "The subfolder");
  const isDirectory = (await kindOf(dirOrRepo)) === "directory";
  if (isDirectory) await finishReplacement(path.join(dirOrRepo, subfolder));
  const folder = isDirectory
    ? dirOrRepo
    : REPO_ID.test(dirOrRepo)
      ? await cachedSnapshot(dirOrRepo, options)
      : undefined;
  return folder === undefined ? undefined : path.join(folder, subfolder);
}

/** What to say of a checkpoint that is neither a directory nor in the cache. */
function notFound(dirOrRepo: string, name: string, options: HubOptions): Error {
  if (!REPO_ID.test(dirOrRepo)) {
    return new EntryNotFoundError(`The directory '${dirOrRepo}' does not exist, so ${name} cannot be read.`, {
      hint: `Searched from ${process.cwd()}. Give a directory that holds the checkpoint's files.`,
    });
  }
  const searched = `Searched: the directory ${path.resolve(dirOrRepo)}, the cache ${cacheFolder(options)}.`;
  if (isOffline(options)) {
    return new OfflineModeError(
      `'${dirOrRepo}' is neither a directory nor in the cache, and the network is switched off.`,
      {
        hint: `${searched} Unset HF_HUB_OFFLINE and local_files_only, or give a directory.`,
      },
    );
  }
  return new HubError(
    `'${dirOrRepo}' is neither a directory nor in the cache, and downloading is not part of this version.`,
    {
      hint: `${searched} Download the repository, for example with \`hf download ${dirOrRepo}\`, or give a directory.`,
    },
  );
}

/**
 * The path of one file of a checkpoint, or undefined when the checkpoint has no such file.
 *
 * Throws `HubError` or `OfflineModeError` when the checkpoint itself is not found, and `EntryNotFoundError` when a
 * directory stands in the file's place.
 */
export async function findFile(
  dirOrRepo: string,
  name: string,
  options: HubOptions = {},
): Promise<string | undefined> {
  assertSafeName(name, "The file name");
  const folder = await localFolder(dirOrRepo, options);
  if (folder !== undefined && !(options.force_download && !isOffline(options) && download !== undefined)) {
    const file = path.join(folder, name);
    const kind = await kindOf(file);
    if (kind === "directory") throw new EntryNotFoundError(`${file} is a directory; a file was expected.`);
    if (kind === "file") return file;
    if ((await kindOf(dirOrRepo)) === "directory") return undefined;
  }
  if (!REPO_ID.test(dirOrRepo)) throw notFound(dirOrRepo, name, options);
  if (download !== undefined && !isOffline(options)) {
    return download(dirOrRepo, path.posix.join(options.subfolder ?? "", name), options);
  }
  if (folder !== undefined) return undefined;
  throw notFound(dirOrRepo, name, options);
}

/**
 * The path of one file of a checkpoint.
 *
 * ```ts
 * const file = await resolveFile("./my-model", "config.json");
 * ```
 *
 * Throws as `findFile`, and `EntryNotFoundError` when there is no such file.
 */
export async function resolveFile(
  dirOrRepo: string,
  name: string,
  options: HubOptions = {},
): Promise<string> {
  const file = await findFile(dirOrRepo, name, options);
  if (file === undefined) {
    const place = path.join(dirOrRepo, options.subfolder ?? "");
    throw new EntryNotFoundError(`${name} is missing: there is no such file in ${place}.`);
  }
  return file;
}

/** The text of a file; bytes that are not UTF-8 are an error of the given class. */
export async function readText(
  file: string,
  Failure: new (message: string) => Error = HubError,
): Promise<string> {
  const bytes = await readFile(file);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Failure(`${file} is not valid UTF-8.`);
  }
}
