// Where a file of a checkpoint lies: in a directory, in the cache that is shared with Python, or on the hub, from which it
// is brought into the cache. All files of one load come from one commit: `pin` names it, once.

import { readdir, readFile, stat } from "node:fs/promises";
import path from "node:path";
import { EntryNotFoundError, HubError } from "../errors/index.ts";
import { warnOnce } from "../errors/warnings.ts";
import { RepoCache, type RepoFile } from "./cache.ts";
import { cacheFolder } from "./environment.ts";
import { finishReplacement } from "./folder_transaction.ts";
import { assertSafeName, isRepoId, splitRevision } from "./names.ts";
import { type HubOptions, isOffline } from "./options.ts";

export { cacheFolder } from "./environment.ts";
export { assertSafeName } from "./names.ts";
export { HUB_OPTIONS, type HubOptions, isOffline, type ProgressEvent } from "./options.ts";

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

/** A directory or repository, and the options with which all of its files are meant. */
export interface Pinned<T extends HubOptions> {
  /** Without "@revision". */
  readonly name: string;
  /** For a repository, `revision` is a commit. */
  readonly options: T;
}

/**
 * Settles which commit a load uses: for a repository the hub is asked once, for a directory nothing happens. What has been
 * settled is left as it is.
 */
export async function pin<T extends HubOptions>(dirOrRepo: string, options: T): Promise<Pinned<T>> {
  const isRepo = isRepoId(splitRevision(dirOrRepo).repo);
  if (!isRepo || (await kindOf(dirOrRepo)) !== "absent") return { name: dirOrRepo, options };
  const { named } = await import("./snapshot.ts");
  const { resolveCommit } = await import("./api.ts");
  const { repo, options: meant } = named(dirOrRepo, options);
  const revision = await resolveCommit(repo, meant);
  return { name: repo, options: { ...meant, revision } };
}

/** What to say of a checkpoint that is neither a directory nor the name of a repository. */
function noDirectory(dirOrRepo: string, name: string): Error {
  return new EntryNotFoundError(`The directory '${dirOrRepo}' does not exist, so ${name} cannot be read.`, {
    hint: `Searched from ${process.cwd()}. Give a directory that holds the checkpoint's files, or a name on the hub.`,
  });
}

interface Place {
  /** The directory, subfolder included; undefined for a repository. */
  readonly folder: string | undefined;
  readonly repo: string;
  readonly options: HubOptions;
  readonly commit: string;
}

async function placeOf(dirOrRepo: string, options: HubOptions, name: string): Promise<Place> {
  const { subfolder = "" } = options;
  if (subfolder !== "") assertSafeName(subfolder, "The subfolder");
  if ((await kindOf(dirOrRepo)) === "directory") {
    await finishReplacement(path.join(dirOrRepo, subfolder));
    return { folder: path.join(dirOrRepo, subfolder), repo: "", options, commit: "" };
  }
  if (!isRepoId(splitRevision(dirOrRepo).repo)) throw noDirectory(dirOrRepo, name);
  const pinned = await pin(dirOrRepo, options);
  return {
    folder: undefined,
    repo: pinned.name,
    options: pinned.options,
    commit: pinned.options.revision as string,
  };
}

const inRepo = (name: string, { subfolder = "" }: HubOptions): string => path.posix.join(subfolder, name);

async function listed(place: Place): Promise<Map<string, RepoFile> | undefined> {
  const { listFiles } = await import("./listing.ts");
  return listFiles(place.repo, place.commit, place.options);
}

/**
 * The path of one file of a checkpoint, or undefined when the checkpoint has no such file. A file on the hub is downloaded.
 *
 * Throws what the hub says (`RepositoryNotFoundError`, `GatedRepoError`, …), `OfflineModeError` when the repository is not in
 * the cache and there is no network, and `EntryNotFoundError` when a directory stands in the file's place.
 */
export async function findFile(
  dirOrRepo: string,
  name: string,
  options: HubOptions = {},
): Promise<string | undefined> {
  assertSafeName(name, "The file name");
  const place = await placeOf(dirOrRepo, options, name);
  const assertFile = async (file: string): Promise<string | undefined> => {
    const kind = await kindOf(file);
    if (kind === "directory") throw new EntryNotFoundError(`${file} is a directory; a file was expected.`);
    return kind === "file" ? file : undefined;
  };
  if (place.folder !== undefined) return assertFile(path.join(place.folder, name));

  const cache = new RepoCache(place.repo, place.options);
  const full = inRepo(name, options);
  if (!options.force_download || isOffline(options)) {
    const there = await assertFile(cache.pointer(place.commit, full));
    if (there !== undefined) return there;
    if (await cache.isAbsent(place.commit, full)) return undefined;
  }
  const listing = await listed(place);
  const file = listing?.get(full);
  if (file === undefined) {
    if (listing !== undefined && !isOffline(options)) await cache.noteAbsent(place.commit, full);
    return undefined;
  }
  if (isOffline(options)) {
    warnOnce(
      `${full} of '${place.repo}' is not in the cache, and the network is switched off: it is left out.`,
    );
    return undefined;
  }
  const { bringFiles } = await import("./snapshot.ts");
  await bringFiles(place.repo, place.commit, [file], place.options);
  return cache.pointer(place.commit, full);
}

/** Whether a checkpoint has a file, without downloading it. */
export async function hasFile(dirOrRepo: string, name: string, options: HubOptions = {}): Promise<boolean> {
  assertSafeName(name, "The file name");
  const place = await placeOf(dirOrRepo, options, name);
  if (place.folder !== undefined) return (await kindOf(path.join(place.folder, name))) === "file";
  const full = inRepo(name, options);
  const listing = await listed(place);
  if (listing !== undefined) return listing.has(full);
  return (await new RepoCache(place.repo, options).find(place.commit, full)) !== undefined;
}

/** The names of the files in a folder of a checkpoint, in order; none when there is no such folder. */
export async function filesIn(
  dirOrRepo: string,
  folder: string,
  options: HubOptions = {},
): Promise<string[]> {
  assertSafeName(folder, "The folder");
  const place = await placeOf(dirOrRepo, options, folder);
  const full = inRepo(folder, options);
  const listing = place.folder === undefined ? await listed(place) : undefined;
  if (listing !== undefined) {
    const names = [...listing.keys()].filter((name) => path.posix.dirname(name) === full);
    return names.map((name) => path.posix.basename(name)).sort();
  }
  const directory =
    place.folder === undefined
      ? new RepoCache(place.repo, place.options).pointer(place.commit, full)
      : path.join(place.folder, folder);
  if ((await kindOf(directory)) !== "directory") return [];
  return (await readdir(directory)).sort();
}

/**
 * Downloads those of some files that a repository has and the cache lacks, side by side, so that `findFile` finds them; of
 * a directory, nothing. Tells `progress_callback` of all of them together. Resolves to the options for what follows.
 */
export async function prefetch<T extends HubOptions>(
  dirOrRepo: string,
  names: readonly string[],
  options: T,
): Promise<T> {
  const quiet = { ...options, progress_callback: undefined, force_download: false };
  if ((await kindOf(dirOrRepo)) === "directory" || isOffline(options)) return quiet;
  if (!isRepoId(splitRevision(dirOrRepo).repo)) return quiet;
  const place = await placeOf(dirOrRepo, options, names[0] ?? "");
  const cache = new RepoCache(place.repo, place.options);
  const wanted = names.map((name) => inRepo(name, options));
  if (!options.force_download) {
    const missing = await Promise.all(wanted.map((name) => isMissing(cache, place.commit, name)));
    if (!missing.includes(true)) return { ...quiet, revision: place.commit };
  }
  const listing = await listed(place);
  const files = wanted.map((name) => listing?.get(name)).filter((file) => file !== undefined);
  const { bringFiles } = await import("./snapshot.ts");
  await bringFiles(place.repo, place.commit, files, place.options);
  return { ...quiet, revision: place.commit };
}

const isMissing = async (cache: RepoCache, commit: string, name: string): Promise<boolean> =>
  (await cache.find(commit, name)) === undefined && !(await cache.isAbsent(commit, name));

/**
 * The path of one file of a checkpoint.
 *
 * ```ts
 * const file = await resolveFile("org/name", "config.json");
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
  if (file === undefined) throw await missing(dirOrRepo, name, options);
  return file;
}

/** The error for a file that a checkpoint does not have, or that is not in the cache. */
export async function missing(dirOrRepo: string, name: string, options: HubOptions): Promise<Error> {
  const place = await placeOf(dirOrRepo, options, name);
  if (place.folder !== undefined) {
    return new EntryNotFoundError(`${name} is missing: there is no such file in ${place.folder}.`);
  }
  const { notCached } = await import("./api.ts");
  const { endpoint } = await import("./environment.ts");
  const cache = new RepoCache(place.repo, place.options);
  const full = inRepo(name, options);
  const isKnown = await cache.isAbsent(place.commit, full);
  const listing = await cache.listing(place.commit);
  if (isOffline(options) && !isKnown && (listing === undefined || listing.has(full))) {
    return notCached(place.repo, full, cache);
  }
  return new EntryNotFoundError(
    `${full} is missing: '${place.repo}' has no such file (commit ${place.commit.slice(0, 12)}).`,
    {
      hint: `Its files: ${endpoint()}/${place.repo}/tree/${place.commit}`,
    },
  );
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

/** Where a checkpoint was looked for, for messages. */
export const searched = (dirOrRepo: string, options: HubOptions): string =>
  `Searched: the directory ${path.resolve(dirOrRepo)}, the cache ${cacheFolder(options)}.`;
