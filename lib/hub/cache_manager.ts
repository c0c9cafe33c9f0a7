// What the cache holds, and making room in it. Python's cache and ours are one, so are the rules: a blob is removed when no
// snapshot links to it any more.

import { lstat, readdir, readFile, rm, stat } from "node:fs/promises";
import path from "node:path";
import { EntryNotFoundError } from "../errors/index.ts";
import { blobOf, etagOf, RepoCache } from "./cache.ts";
import { checksum } from "./checksum.ts";
import { cacheFolder } from "./environment.ts";
import { withFileLock } from "./lock.ts";
import type { HubOptions } from "./options.ts";
import { isLast, sharedTarget, sweepShared } from "./shared_blobs.ts";

export interface CachedFile {
  readonly path: string;
  readonly pointer: string;
  readonly blob: string;
  readonly size: number;
}

export interface CachedRevision {
  readonly commit: string;
  readonly refs: readonly string[];
  readonly files: readonly CachedFile[];
  /** Bytes, including those that other revisions use too. */
  readonly size: number;
  readonly last_modified: Date;
}

export interface CachedRepo {
  readonly type: string;
  readonly name: string;
  readonly folder: string;
  readonly revisions: readonly CachedRevision[];
  /** Bytes on the disk: each blob once. */
  readonly size: number;
  readonly last_used: Date;
  /** Files of downloads that did not end. */
  readonly incomplete: readonly { readonly file: string; readonly size: number }[];
}

export interface CacheInfo {
  readonly folder: string;
  readonly repos: readonly CachedRepo[];
  readonly size: number;
  /** Links whose blob is missing: the file is downloaded again when it is needed. */
  readonly broken: readonly string[];
}

type CacheOption = Pick<HubOptions, "cache_dir">;

const entries = (folder: string) => readdir(folder, { withFileTypes: true }).catch(() => []);

async function filesBelow(folder: string): Promise<string[]> {
  const all = await readdir(folder, { withFileTypes: true, recursive: true }).catch(() => []);
  return all.filter((entry) => !entry.isDirectory()).map((entry) => path.join(entry.parentPath, entry.name));
}

/** Lists the repositories in the cache, the largest first. A cache that is not there is empty. */
export async function scan_cache_dir(options: CacheOption = {}): Promise<CacheInfo> {
  const folder = cacheFolder(options);
  const repos: CachedRepo[] = [];
  const broken: string[] = [];
  for (const entry of await entries(folder)) {
    const [, type, name] = /^(model|dataset|space)s--(.+)$/.exec(entry.name) ?? [];
    if (type === undefined || name === undefined || !entry.isDirectory()) continue;
    repos.push(await scanRepo(type, name.replaceAll("--", "/"), path.join(folder, entry.name), broken));
  }
  repos.sort((a, b) => b.size - a.size);
  return { folder, repos, broken, size: repos.reduce((sum, { size }) => sum + size, 0) };
}

async function scanRepo(type: string, name: string, folder: string, broken: string[]): Promise<CachedRepo> {
  const refs = await refsOf(folder);
  const blobs = new Map<string, number>();
  const revisions: CachedRevision[] = [];
  let lastUsed = 0;
  for (const { name: commit } of await entries(path.join(folder, "snapshots"))) {
    const snapshot = path.join(folder, "snapshots", commit);
    const files: CachedFile[] = [];
    let modified = (await stat(snapshot)).mtimeMs;
    for (const pointer of await filesBelow(snapshot)) {
      const facts = await stat(pointer).catch(() => undefined);
      if (facts === undefined) {
        broken.push(pointer);
        continue;
      }
      const { file: blob } = await blobOf(pointer);
      blobs.set(blob, facts.size);
      modified = Math.max(modified, facts.mtimeMs);
      lastUsed = Math.max(lastUsed, facts.atimeMs);
      files.push({ path: path.relative(snapshot, pointer), pointer, blob, size: facts.size });
    }
    revisions.push({
      commit,
      refs: [...refs].filter(([, named]) => named === commit).map(([ref]) => ref),
      files: files.sort((a, b) => (a.path < b.path ? -1 : 1)),
      size: [...new Map(files.map(({ blob, size }) => [blob, size])).values()].reduce(
        (sum, size) => sum + size,
        0,
      ),
      last_modified: new Date(modified),
    });
  }
  const incomplete: { file: string; size: number }[] = [];
  for (const { name: file } of await entries(path.join(folder, "blobs"))) {
    if (!file.endsWith(".incomplete")) continue;
    const full = path.join(folder, "blobs", file);
    const facts = await lstat(full).catch(() => undefined);
    // A file with gaps takes the room of its blocks.
    if (facts !== undefined) incomplete.push({ file: full, size: Math.min(facts.size, facts.blocks * 512) });
  }
  return {
    type,
    name,
    folder,
    revisions,
    size: [...blobs.values()].reduce((sum, size) => sum + size, 0),
    last_used: new Date(lastUsed),
    incomplete,
  };
}

async function refsOf(folder: string): Promise<Map<string, string>> {
  const root = path.join(folder, "refs");
  const refs = new Map<string, string>();
  for (const file of await filesBelow(root)) {
    const commit = (await readFile(file, "utf8").catch(() => "")).trim();
    refs.set(path.relative(root, file).split(path.sep).join("/"), commit);
  }
  return refs;
}

/**
 * Removes revisions of a repository from the cache, all of them if none is named (as branch, tag or commit, the beginning of
 * one suffices); what other revisions use stays. Resolves to the bytes that became free.
 *
 * Throws `EntryNotFoundError` when the cache has no such repository or revision.
 */
export async function delete_revisions(
  name: string,
  revisions: readonly string[] = [],
  options: CacheOption & { readonly dry_run?: boolean; readonly type?: string } = {},
): Promise<number> {
  const info = await scan_cache_dir(options);
  const repo = info.repos.find((one) => one.name === name && one.type === (options.type ?? "model"));
  if (repo === undefined) {
    throw new EntryNotFoundError(`'${name}' is not in the cache ${info.folder}.`);
  }
  const chosen = new Set(revisions.length === 0 ? repo.revisions : []);
  for (const revision of revisions) {
    const found = repo.revisions.filter(
      ({ commit, refs }) => refs.includes(revision) || (revision.length >= 4 && commit.startsWith(revision)),
    );
    if (found.length !== 1) {
      throw new EntryNotFoundError(
        `'${name}' has ${found.length === 0 ? "no" : "more than one"} revision '${revision}' in the cache.`,
        {
          hint: `It has: ${repo.revisions.map(({ commit, refs }) => [commit.slice(0, 12), ...refs].join(" ")).join(", ")}`,
        },
      );
    }
    chosen.add(found[0] as CachedRevision);
  }
  return removeRevisions(repo, chosen, options.dry_run ?? false);
}

async function removeRevisions(
  repo: CachedRepo,
  chosen: ReadonlySet<CachedRevision>,
  dryRun: boolean,
): Promise<number> {
  const root = path.dirname(repo.folder);
  const staying = repo.revisions.filter((revision) => !chosen.has(revision));
  if (staying.length === 0) {
    const left = repo.incomplete.reduce((sum, { size }) => sum + size, 0);
    const all = new Map(repo.revisions.flatMap(({ files }) => files.map(({ blob, size }) => [blob, size])));
    const { bytes, shared } = await freed(all, root);
    if (!dryRun) {
      await rm(repo.folder, { recursive: true, force: true });
      await rm(path.join(root, ".locks", path.basename(repo.folder)), { recursive: true, force: true });
      for (const stored of shared) await sweepShared(stored, root);
    }
    return bytes + left;
  }
  const used = new Set(staying.flatMap(({ files }) => files.map(({ blob }) => blob)));
  const free = new Map<string, number>();
  for (const { commit, refs, files } of chosen) {
    for (const { blob, size } of files) if (!used.has(blob)) free.set(blob, size);
    if (dryRun) continue;
    // The snapshot goes first: a link without its blob is worse than a blob without a link.
    await rm(path.join(repo.folder, "snapshots", commit), { recursive: true, force: true });
    await rm(path.join(repo.folder, ".no_exist", commit), { recursive: true, force: true });
    await rm(path.join(repo.folder, "trees", `${commit}.json`), { force: true });
    for (const ref of refs) await rm(path.join(repo.folder, "refs", ...ref.split("/")), { force: true });
  }
  const { bytes, shared } = await freed(free, root);
  if (!dryRun) {
    for (const blob of free.keys()) await rm(blob, { force: true });
    for (const stored of shared) await sweepShared(stored, root);
  }
  return bytes;
}

/** How many bytes go with some blobs, and which shared ones they link to. */
async function freed(
  blobs: ReadonlyMap<string, number>,
  root: string,
): Promise<{ readonly bytes: number; readonly shared: ReadonlySet<string> }> {
  const shared = new Set<string>();
  const going = new Set(blobs.keys());
  let bytes = 0;
  for (const [blob, size] of blobs) {
    const stored = await sharedTarget(blob, root);
    if (stored === undefined) bytes += size;
    else if (!shared.has(stored) && (await isLast(stored, root, going))) bytes += size;
    if (stored !== undefined) shared.add(stored);
  }
  return { bytes, shared };
}

export interface PruneOptions extends CacheOption {
  /** Only tell what would be removed. Default false. */
  readonly dry_run?: boolean | undefined;
}

/**
 * Removes what nobody asks for any more: revisions that no branch or tag names, what interrupted downloads left, blobs
 * without a link. A download that is under way is left alone. Resolves to what went and the bytes that became free.
 */
export async function prune_cache(
  options: PruneOptions = {},
): Promise<{ readonly removed: readonly string[]; readonly bytes: number }> {
  const { dry_run = false } = options;
  const info = await scan_cache_dir(options);
  const removed: string[] = [];
  let bytes = 0;
  for (const repo of info.repos) {
    const named = repo.revisions.some(({ refs }) => refs.length > 0);
    const detached = new Set(named ? repo.revisions.filter(({ refs }) => refs.length === 0) : []);
    for (const { commit } of detached) removed.push(`${repo.name} ${commit.slice(0, 12)}`);
    if (detached.size > 0) bytes += await removeRevisions(repo, detached, dry_run);
    const linked = new Set(repo.revisions.flatMap(({ files }) => files.map(({ blob }) => blob)));
    for (const { name } of await entries(path.join(repo.folder, "blobs"))) {
      const file = path.join(repo.folder, "blobs", name);
      if (linked.has(file)) continue;
      const etag = name.split(".")[0] as string;
      const lock = path.join(info.folder, ".locks", path.basename(repo.folder), `${etag}.lock`);
      const facts = await lstat(file).catch(() => undefined);
      if (facts === undefined || !(await isIdle(lock))) continue;
      removed.push(`${repo.name} ${name}`);
      const stored = await sharedTarget(file, info.folder);
      bytes += stored === undefined ? Math.min(facts.size, facts.blocks * 512) : 0;
      if (!dry_run) await rm(file, { force: true });
      if (!dry_run && stored !== undefined) await sweepShared(stored, info.folder);
    }
  }
  if (!dry_run) for (const link of info.broken) await rm(link, { force: true });
  return { removed: [...removed, ...info.broken], bytes };
}

/** Nobody holds the lock. A file system without locks cannot tell: then nothing is called idle. */
async function isIdle(lock: string): Promise<boolean> {
  let idle = false;
  const soon = AbortSignal.timeout(20);
  await withFileLock(lock, soon, async (held) => {
    idle = held;
  }).catch(() => {});
  return idle;
}

export interface VerifyResult {
  readonly repo: string;
  readonly commit: string;
  readonly checked: number;
  /** Files whose bytes are not what the repository lists. */
  readonly wrong: readonly string[];
  /** Links whose blob is missing. */
  readonly missing: readonly string[];
}

/**
 * Computes the checksums of the files in the cache and compares them with their names, which are the checksums they must
 * have. Of one repository, or of all. Needs no network.
 */
export async function verify_cache(
  name?: string,
  options: CacheOption & { readonly signal?: AbortSignal | undefined } = {},
): Promise<VerifyResult[]> {
  const info = await scan_cache_dir(options);
  const repos = info.repos.filter((repo) => name === undefined || repo.name === name);
  if (name !== undefined && repos.length === 0) {
    throw new EntryNotFoundError(`'${name}' is not in the cache ${info.folder}.`);
  }
  const results: VerifyResult[] = [];
  for (const repo of repos) {
    const known = new Map<string, boolean>();
    for (const { commit, files } of repo.revisions) {
      const listing = await new RepoCache(repo.name, options).listing(commit);
      const wrong: string[] = [];
      for (const { path: file, blob, size } of files) {
        options.signal?.throwIfAborted();
        const listed = repo.type === "model" ? listing?.get(file) : undefined;
        const etag = listed === undefined ? path.basename(blob) : etagOf(listed);
        if (!/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(etag)) continue; // a copy, of which nothing is known
        const key = `${blob} ${etag}`;
        if (!known.has(key)) known.set(key, (await checksum(blob, etag, size, options.signal)) === etag);
        if (!known.get(key)) wrong.push(file);
      }
      const missing = info.broken.filter((link) =>
        link.startsWith(path.join(repo.folder, "snapshots", commit)),
      );
      results.push({ repo: repo.name, commit, checked: files.length, wrong, missing });
    }
  }
  return results;
}
