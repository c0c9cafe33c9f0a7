// Bringing several files of one commit: into the cache that is shared with Python, or into a folder.

import { copyFile, mkdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { EntryNotFoundError, InvalidArgumentError } from "../errors/index.ts";
import { warn } from "../errors/warnings.ts";
import { notCached, resolveCommit } from "./api.ts";
import { bringBlob } from "./blobs.ts";
import { etagOf, fileError, RepoCache, type RepoFile, writeListing } from "./cache.ts";
import { checksum } from "./checksum.ts";
import { endpoint } from "./environment.ts";
import { listFiles } from "./listing.ts";
import { assertRepoId, assertSafeEntry, filterNames, type Patterns, splitRevision } from "./names.ts";
import { ByteProgress, type HubOptions, isOffline } from "./options.ts";
import { tokenFor } from "./token.ts";
import { Connections, type Source } from "./transfer.ts";

/** Connections at once, for one call. */
const CONNECTIONS = 8;
/** Files in work at once: each holds a lock and an open file. */
const FILES = 16;

/** Runs `work` for each item, so many at once; the first error stops the rest and is thrown. */
async function forEach<T>(
  items: readonly T[],
  atOnce: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const queue = [...items];
  let failure: unknown;
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined && failure === undefined; item = queue.shift()) {
      await work(item).catch((error) => {
        failure ??= error;
      });
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, worker));
  if (failure !== undefined) throw failure;
}

async function sourceOf(
  repo: string,
  commit: string,
  options: HubOptions,
): Promise<Omit<Source, "name" | "address">> {
  return { repo, commit, token: await tokenFor(options.token) };
}

const addressOf = (repo: string, commit: string, name: string): string =>
  `${endpoint()}/${repo}/resolve/${commit}/${name.split("/").map(encodeURIComponent).join("/")}`;

/** Brings files of a commit into the cache; those that are there cost nothing. `options.signal` stops all of them. */
export async function bringFiles(
  repo: string,
  commit: string,
  files: readonly RepoFile[],
  options: HubOptions & { readonly max_workers?: number | undefined } = {},
): Promise<void> {
  const cache = new RepoCache(repo, options);
  const progress = new ByteProgress("download", options.progress_callback, files);
  const absent: RepoFile[] = [];
  const present: RepoFile[] = [];
  for (const file of files) {
    assertSafeEntry(file.path, repo);
    const isThere = !options.force_download && (await cache.find(commit, file.path)) !== undefined;
    (isThere ? present : absent).push(file);
  }
  if (absent.length === 0) return;
  if (isOffline(options)) throw notCached(repo, absent.map(({ path }) => path).join(", "), cache);
  progress.begin();
  for (const file of present) progress.done(file.path);
  await mkdir(cache.folder, { recursive: true }).catch((error) => {
    throw fileError(cache.folder, error);
  });
  await cache.tag();

  const source = await sourceOf(repo, commit, options);
  const connections = new Connections(options.max_workers ?? CONNECTIONS);
  const stop = new AbortController();
  const signal = options.signal === undefined ? stop.signal : AbortSignal.any([options.signal, stop.signal]);
  // The same content under two names is one blob.
  const blobs = new Map<string, RepoFile[]>();
  for (const file of absent) blobs.set(etagOf(file), [...(blobs.get(etagOf(file)) ?? []), file]);
  await forEach([...blobs], FILES, async ([etag, [first, ...twins]]) => {
    const file = first as RepoFile;
    try {
      await bringBlob(
        {
          source: { ...source, name: file.path, address: addressOf(repo, commit, file.path) },
          etag,
          size: file.size,
          xetHash: file.xetHash,
          file: cache.blob(etag),
          cache: cache.root,
          lock: cache.lock(etag),
          force: options.force_download ?? false,
          signal,
          onBytes: (count) => progress.add(file.path, count),
        },
        connections,
      );
      for (const { path: name } of [file, ...twins]) {
        await cache.link(etag, cache.pointer(commit, name));
        progress.done(name);
      }
    } catch (error) {
      stop.abort(error);
      throw error;
    }
  }).catch((error) => {
    options.signal?.throwIfAborted();
    throw error;
  });
}

/** Options of {@link snapshot_download}. */
export interface SnapshotOptions extends Omit<HubOptions, "subfolder"> {
  /** Only files whose names one of these matches: "*.json", "onnx/". */
  readonly allow_patterns?: Patterns;
  /** No file whose name one of these matches. */
  readonly ignore_patterns?: Patterns;
  /** Puts plain files into this folder instead of links into the cache. */
  readonly local_dir?: string | undefined;
  /** Connections at once. Default 8. */
  readonly max_workers?: number | undefined;
}

/**
 * Downloads all files of a repository, or those that patterns choose; resolves to the folder that holds them.
 *
 * The cache is Python's: what is in it is not downloaded again, and Python finds what this brought.
 *
 * Throws `RepositoryNotFoundError`, `RevisionNotFoundError`, `GatedRepoError`, `DisabledRepoError`, `OfflineModeError`,
 * `HubError` for everything else that the network does, `FileError` for the disk, and the signal's reason.
 *
 * ```ts
 * const folder = await hub.snapshot_download("org/name@v1.0", { allow_patterns: ["*.safetensors", "*.json"] });
 * ```
 */
export async function snapshot_download(name: string, options: SnapshotOptions = {}): Promise<string> {
  const { repo, options: pinned } = named(name, options);
  const commit = await resolveCommit(repo, pinned);
  const cache = new RepoCache(repo, pinned);
  const { local_dir } = options;
  const listing = await listFiles(repo, commit, pinned);
  if (listing === undefined) {
    // Without a network, and never listed: what is there is what there is.
    if (local_dir === undefined && (await cache.hasSnapshot(commit))) return cache.snapshot(commit);
    throw notCached(repo, options.revision ?? commit, cache);
  }
  const chosen = filterNames([...listing.keys()], options).map((file) => listing.get(file) as RepoFile);
  if (chosen.length === 0 && listing.size > 0) warn(`No file of '${repo}' matches the patterns.`);
  if (local_dir !== undefined) return bringToFolder(repo, commit, chosen, path.resolve(local_dir), pinned);
  await bringFiles(repo, commit, chosen, pinned);
  await mkdir(cache.snapshot(commit), { recursive: true }).catch(() => {});
  return cache.snapshot(commit);
}

/**
 * Downloads one file of a repository; resolves to its path in the cache, or in `local_dir`.
 *
 * ```ts
 * const file = await hub.hf_hub_download("org/name", "config.json");
 * ```
 *
 * Throws as `snapshot_download`, and `EntryNotFoundError` when the repository has no such file.
 */
export async function hf_hub_download(
  name: string,
  filename: string,
  options: HubOptions & Pick<SnapshotOptions, "local_dir"> = {},
): Promise<string> {
  const { repo, options: pinned } = named(name, options);
  const full = path.posix.join(options.subfolder ?? "", filename);
  assertSafeEntry(full, repo);
  const commit = await resolveCommit(repo, pinned);
  const cache = new RepoCache(repo, pinned);
  if (options.local_dir === undefined && !options.force_download) {
    const there = await cache.find(commit, full);
    if (there !== undefined) return there;
  }
  const listing = await listFiles(repo, commit, pinned);
  if (listing === undefined) throw notCached(repo, full, cache);
  const file = listing.get(full);
  if (file === undefined) {
    await cache.noteAbsent(commit, full);
    throw new EntryNotFoundError(`'${repo}' has no file ${full} (commit ${commit.slice(0, 12)}).`, {
      hint: `Its files: ${endpoint()}/${repo}/tree/${commit}`,
    });
  }
  if (options.local_dir !== undefined) {
    const folder = await bringToFolder(repo, commit, [file], path.resolve(options.local_dir), pinned);
    return path.join(folder, ...full.split("/"));
  }
  await bringFiles(repo, commit, [file], pinned);
  return cache.pointer(commit, full);
}

/** The repository's name and the revision that it or the options name. */
export function named<T extends HubOptions>(
  name: string,
  options: T,
): { readonly repo: string; readonly options: T } {
  const { repo, revision } = splitRevision(name);
  assertRepoId(repo);
  if (revision === undefined) return { repo, options };
  if (options.revision !== undefined && options.revision !== revision) {
    throw new InvalidArgumentError(
      `'${name}' names the revision '${revision}', and the option revision names '${options.revision}'.`,
    );
  }
  return { repo, options: { ...options, revision } };
}

// Into a folder: plain files, and beside them Python's notes of what they are ------------------------------------------

async function bringToFolder(
  repo: string,
  commit: string,
  files: readonly RepoFile[],
  folder: string,
  options: SnapshotOptions,
): Promise<string> {
  const cache = new RepoCache(repo, options);
  const notes = path.join(folder, ".cache", "huggingface");
  const progress = new ByteProgress("download", options.progress_callback, files);
  for (const file of files) assertSafeEntry(file.path, repo);
  const source = await sourceOf(repo, commit, options);
  const connections = new Connections(options.max_workers ?? CONNECTIONS);
  await mkdir(notes, { recursive: true }).catch((error) => {
    throw fileError(notes, error);
  });
  await writeFile(path.join(notes, ".gitignore"), "*", { flag: "wx" }).catch(() => {});
  await writeListing(path.join(notes, "trees", `${commit}.json`), files);
  progress.begin();
  const bring = async (file: RepoFile, target: string): Promise<void> => {
    const note = path.join(notes, "download", ...`${file.path}.metadata`.split("/"));
    const etag = etagOf(file);
    await mkdir(path.dirname(note), { recursive: true });
    if (options.force_download || !(await isCurrent(target, note, file))) {
      const cached = options.force_download ? undefined : await cache.find(commit, file.path);
      await mkdir(path.dirname(target), { recursive: true });
      if (cached !== undefined) {
        const temporary = `${note}.incomplete`;
        await copyFile(cached, temporary);
        await rename(temporary, target);
      } else {
        if (isOffline(options)) throw notCached(repo, file.path, cache);
        const brought = `${note.slice(0, -".metadata".length)}.${etag}`;
        await bringBlob(
          {
            source: { ...source, name: file.path, address: addressOf(repo, commit, file.path) },
            etag,
            size: file.size,
            xetHash: file.xetHash,
            file: brought,
            lock: `${note.slice(0, -".metadata".length)}.lock`,
            force: true,
            signal: options.signal,
            onBytes: (count) => progress.add(file.path, count),
          },
          connections,
        );
        await rename(brought, target).catch((error) => {
          throw fileError(target, error);
        });
      }
    }
    await writeFile(note, `${commit}\n${etag}\n${Date.now() / 1000}\n`);
    progress.done(file.path);
  };
  await forEach(files, FILES, async (file) => {
    const target = path.join(folder, ...file.path.split("/"));
    await bring(file, target).catch((error) => {
      throw (error as NodeJS.ErrnoException).syscall === undefined ? error : fileError(target, error);
    });
  });
  return folder;
}

/** Whether a file of the folder is what the listing says: by the notes, or by its checksum where there are none. */
async function isCurrent(target: string, note: string, file: RepoFile): Promise<boolean> {
  const facts = await stat(target).catch(() => undefined);
  if (facts === undefined || facts.size !== file.size) return false;
  const [, etag, time] = (await readFile(note, "utf8").catch(() => "")).split("\n");
  if (etag !== undefined && facts.mtimeMs / 1000 - 1 <= Number(time)) return etag === etagOf(file);
  return (await checksum(target, etagOf(file), file.size)) === etagOf(file);
}
