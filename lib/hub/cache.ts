// The cache's layout, which is Python's: blobs by checksum, snapshots of links to them, refs that name commits, markers
// for files that do not exist, and the listing of each commit. Both sides read what the other wrote.

import { randomBytes } from "node:crypto";
import {
  copyFile,
  lstat,
  mkdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import path from "node:path";
import { FileError } from "../errors/index.ts";
import { warnOnce } from "../errors/warnings.ts";
import { cacheFolder, isTrue } from "./environment.ts";
import { assertSafeName, isCommit } from "./names.ts";

/** A file as a repository lists it. */
export interface RepoFile {
  readonly path: string;
  readonly size: number;
  /** git's hash of the file, or of the pointer that stands for it. */
  readonly oid: string;
  /** SHA-256 of a large file. */
  readonly sha256: string | undefined;
  readonly xetHash: string | undefined;
}

/** What a blob is called: the SHA-256 of a large file, git's hash of any other. */
export const etagOf = ({ sha256, oid }: RepoFile): string => sha256 ?? oid;

/** Where the files of one repository lie. */
export class RepoCache {
  readonly repo: string;
  readonly root: string;
  readonly folder: string;

  constructor(repo: string, options: { readonly cache_dir?: string | undefined } = {}) {
    this.repo = repo;
    this.root = cacheFolder(options);
    this.folder = path.join(this.root, `models--${repo.replaceAll("/", "--")}`);
  }

  snapshot(commit: string): string {
    return path.join(this.folder, "snapshots", commit);
  }

  pointer(commit: string, file: string): string {
    return path.join(this.snapshot(commit), ...file.split("/"));
  }

  blob(etag: string): string {
    return path.join(this.folder, "blobs", etag);
  }

  lock(etag: string): string {
    return path.join(this.root, ".locks", path.basename(this.folder), `${etag}.lock`);
  }

  /** The commit that a branch or tag stood for when it was last asked; a commit is itself. */
  async commitOf(revision: string): Promise<string | undefined> {
    assertSafeName(revision, "The revision");
    const text = await readIfThere(path.join(this.folder, "refs", ...revision.split("/")));
    if (text === undefined)
      return isCommit(revision) || (await this.hasSnapshot(revision)) ? revision : undefined;
    const commit = text.trim();
    return /^[\w-]+$/.test(commit) ? commit : undefined;
  }

  async hasSnapshot(commit: string): Promise<boolean> {
    return (await stat(this.snapshot(commit)).catch(() => undefined))?.isDirectory() ?? false;
  }

  /** Notes what a branch or tag stands for. A cache that cannot be written to is no error here. */
  async noteRef(revision: string, commit: string): Promise<void> {
    if (revision === commit) return;
    const file = path.join(this.folder, "refs", ...revision.split("/"));
    if ((await readIfThere(file)) === commit) return;
    try {
      // Python takes a ref to a snapshot that is not there for a damaged cache.
      await mkdir(this.snapshot(commit), { recursive: true });
      await mkdir(path.dirname(file), { recursive: true });
      await replace(file, commit);
    } catch (error) {
      warnOnce(`The cache cannot note a revision: ${(error as Error).message}`);
    }
  }

  /** Whether it is known that a commit has no such file. */
  async isAbsent(commit: string, file: string): Promise<boolean> {
    return (await stat(this.#absence(commit, file)).catch(() => undefined))?.isFile() ?? false;
  }

  async noteAbsent(commit: string, file: string): Promise<void> {
    const marker = this.#absence(commit, file);
    try {
      await mkdir(path.dirname(marker), { recursive: true });
      await writeFile(marker, "");
    } catch {
      // Only saves the next question.
    }
  }

  #absence(commit: string, file: string): string {
    return path.join(this.folder, ".no_exist", commit, ...file.split("/"));
  }

  /** The files of a commit, if they were listed before. */
  async listing(commit: string): Promise<Map<string, RepoFile> | undefined> {
    return readListing(path.join(this.folder, "trees", `${commit}.json`));
  }

  async noteListing(commit: string, files: Iterable<RepoFile>): Promise<void> {
    await writeListing(path.join(this.folder, "trees", `${commit}.json`), files);
  }

  /** Puts the link to a blob into a snapshot; where links are not possible, a copy. */
  async link(etag: string, pointer: string): Promise<void> {
    const blob = this.blob(etag);
    await mkdir(path.dirname(pointer), { recursive: true }).catch((error) => {
      throw fileError(pointer, error);
    });
    const target = path.relative(path.dirname(pointer), blob);
    const temporary = `${pointer}.${randomBytes(4).toString("hex")}.tmp`;
    if (!isTrue(process.env.HF_HUB_DISABLE_SYMLINKS)) {
      try {
        await symlink(target, temporary);
        await rename(temporary, pointer);
        return;
      } catch (error) {
        await rm(temporary, { force: true });
        const { code } = error as NodeJS.ErrnoException;
        if (!["EPERM", "ENOSYS", "EOPNOTSUPP", "ENOTSUP", "EINVAL"].includes(code ?? ""))
          throw fileError(pointer, error);
        warnOnce(`${this.root} cannot hold symbolic links: files are copied into each snapshot.`);
      }
    }
    try {
      await copyFile(blob, temporary);
      await rename(temporary, pointer);
    } catch (error) {
      await rm(temporary, { force: true });
      throw fileError(pointer, error);
    }
  }

  /** The path of a file of a commit, if it is there. A link whose blob was removed does not count. */
  async find(commit: string, file: string): Promise<string | undefined> {
    const pointer = this.pointer(commit, file);
    return (await stat(pointer).catch(() => undefined))?.isFile() ? pointer : undefined;
  }

  /** Tells backup programs that this folder can be brought again. */
  async tag(): Promise<void> {
    const text =
      "Signature: 8a477f597d28d172789f06886806bc55\n# Files of the Hugging Face Hub, which can be downloaded again.\n";
    await writeFile(path.join(this.root, "CACHEDIR.TAG"), text, { flag: "wx" }).catch(() => {});
  }
}

/** The error for what the file system refuses. */
export function fileError(file: string, error: unknown): FileError {
  const { code, message } = error as NodeJS.ErrnoException;
  const hints: Record<string, string> = {
    ENOSPC:
      "The disk is full. `npx torchformers cache ls` lists what takes room; HF_HOME names another place.",
    EACCES: "The folder belongs to someone else. HF_HOME or cache_dir names another place.",
    EROFS: "The disk is read-only. HF_HOME or cache_dir names another place.",
  };
  const hint = hints[code ?? ""];
  return new FileError(`${file} cannot be written (${code ?? message}).`, {
    cause: error,
    ...(hint === undefined ? {} : { hint }),
  });
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR" || code === "EISDIR") return undefined;
    throw new FileError(`${file} cannot be read (${code}).`, { cause: error });
  }
}

async function replace(file: string, text: string): Promise<void> {
  const temporary = `${file}.${randomBytes(4).toString("hex")}.tmp`;
  try {
    await writeFile(temporary, text);
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

// Listings: Python's trees/<commit>.json -------------------------------------------------------------------------------

interface ListedFile {
  readonly size: number;
  readonly blob_id: string;
  readonly lfs_sha256?: string;
  readonly lfs_size?: number;
  readonly xet_hash?: string;
}

const HASH = /^[0-9a-f]{64}$/;

/** A number of bytes that a file can have. */
export const isSize = (size: unknown): size is number => Number.isSafeInteger(size) && (size as number) >= 0;

/** A listing of a commit never changes, so it is parsed once. */
const parsed = new Map<string, { readonly stamp: string; readonly files: Map<string, RepoFile> }>();
const MOST_PARSED = 64;

export async function readListing(file: string): Promise<Map<string, RepoFile> | undefined> {
  const facts = await stat(file).catch(() => undefined);
  if (facts === undefined) return undefined;
  const stamp = `${facts.ino} ${facts.size} ${facts.mtimeMs}`;
  const known = parsed.get(file);
  if (known?.stamp === stamp) return known.files;
  try {
    const { format_version, files } = JSON.parse(await readFile(file, "utf8")) as {
      format_version: number;
      files: Record<string, ListedFile>;
    };
    if (format_version !== 1) return undefined;
    const listed = new Map<string, RepoFile>();
    for (const [name, { size, blob_id, lfs_sha256, lfs_size, xet_hash }] of Object.entries(files)) {
      if (!isSize(lfs_size ?? size) || !/^[0-9a-f]{40}$/.test(blob_id)) return undefined;
      if (lfs_sha256 !== undefined && !HASH.test(lfs_sha256)) return undefined;
      listed.set(name, {
        path: name,
        size: lfs_size ?? size,
        oid: blob_id,
        sha256: lfs_sha256,
        xetHash: xet_hash,
      });
    }
    if (parsed.size >= MOST_PARSED) parsed.clear();
    parsed.set(file, { stamp, files: listed });
    return listed;
  } catch {
    return undefined; // damaged: it is asked for again
  }
}

export async function writeListing(file: string, files: Iterable<RepoFile>): Promise<void> {
  const entries: Record<string, ListedFile> = {};
  for (const { path: name, size, oid, sha256, xetHash } of [...files].sort((a, b) =>
    a.path < b.path ? -1 : 1,
  )) {
    entries[name] = {
      size,
      blob_id: oid,
      ...(sha256 === undefined ? {} : { lfs_sha256: sha256, lfs_size: size }),
      ...(xetHash === undefined ? {} : { xet_hash: xetHash }),
    };
  }
  try {
    await mkdir(path.dirname(file), { recursive: true });
    await replace(file, JSON.stringify({ format_version: 1, files: entries }, null, 1));
  } catch {
    // Only saves the next question.
  }
}

/** What a pointer of a snapshot leads to, and whether it is a link. */
export async function blobOf(pointer: string): Promise<{ readonly file: string; readonly isLink: boolean }> {
  const facts = await lstat(pointer);
  if (!facts.isSymbolicLink()) return { file: pointer, isLink: false };
  return { file: path.resolve(path.dirname(pointer), await readlink(pointer)), isLink: true };
}
