// Blobs that several repositories of the cache share. Python moves what it brings by Xet to `<cache>/blobs/<2 digits>/<Xet
// hash>`; a repository's blob is then a link to it, and `<Xet hash>.refs` lists those links, so that the last one that goes
// takes the bytes along. We use what is there and clear up by the same rules; what we bring ourselves stays the repository's.

import { randomBytes } from "node:crypto";
import { lstat, mkdir, open, readFile, readlink, rename, rm, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { checksum } from "./checksum.ts";
import { isTrue } from "./environment.ts";
import { withFileLock } from "./lock.ts";

const MARKER = ".huggingface-shared-blobs";
const VERSION = "1\n";
const BLOB = /^(?:models|datasets|spaces|kernels)--[^/]+\/blobs\/[^/\r\n]+$/;

/** Whether the cache has a store of shared blobs, of a kind that we know. */
async function hasStore(root: string): Promise<boolean> {
  const facts = await lstat(path.join(root, "blobs")).catch(() => undefined);
  if (!facts?.isDirectory()) return false;
  return (await readFile(path.join(root, "blobs", MARKER), "utf8").catch(() => "")) === VERSION;
}

/** The shared blob that a repository's blob is a link to; undefined when it is a file of its own. */
export async function sharedTarget(blob: string, root: string): Promise<string | undefined> {
  const link = await readlink(blob).catch(() => undefined);
  if (link === undefined || !(await hasStore(root))) return undefined;
  const target = path.resolve(path.dirname(blob), link);
  const [, digits, hash] =
    /^(..)[\\/]([0-9a-f]{64})$/.exec(path.relative(path.join(root, "blobs"), target)) ?? [];
  return hash?.slice(0, 2) === digits ? target : undefined;
}

/**
 * Makes `blob` a link to the shared blob of a Xet hash, if the cache has it with the right checksum; false when there is
 * none, or anything is in the way. Whoever calls holds the blob's own lock.
 */
export async function linkShared(
  blob: string,
  root: string,
  {
    xetHash,
    etag,
    size,
    signal,
  }: {
    readonly xetHash: string | undefined;
    readonly etag: string;
    readonly size: number;
    readonly signal: AbortSignal | undefined;
  },
): Promise<boolean> {
  const { HF_HUB_DISABLE_SHARED_BLOBS, HF_HUB_DISABLE_XET, HF_HUB_DISABLE_SYMLINKS } = process.env;
  if ([HF_HUB_DISABLE_SHARED_BLOBS, HF_HUB_DISABLE_XET, HF_HUB_DISABLE_SYMLINKS].some(isTrue)) return false;
  if (xetHash === undefined || !/^[0-9a-f]{64}$/.test(xetHash) || !(await hasStore(root))) return false;
  const stored = path.join(root, "blobs", xetHash.slice(0, 2), xetHash);
  const facts = await lstat(stored).catch(() => undefined);
  if (!facts?.isFile() || facts.size !== size) return false;
  try {
    return await withFileLock(`${stored}.lock`, signal, async (held) => {
      // Without a lock somebody may be clearing up.
      if (!held || (await checksum(stored, etag, size, signal)) !== etag) return false;
      const temporary = path.join(
        path.dirname(blob),
        `.${path.basename(blob)}.${randomBytes(4).toString("hex")}.shared`,
      );
      await mkdir(path.dirname(blob), { recursive: true });
      await symlink(path.relative(path.dirname(blob), stored), temporary);
      try {
        const manifest = await open(`${stored}.refs`, "a", 0o666);
        try {
          await manifest.write(`${path.relative(root, blob).split(path.sep).join("/")}\n`);
          await manifest.sync();
        } finally {
          await manifest.close();
        }
        await rename(temporary, blob);
        return true;
      } finally {
        await rm(temporary, { force: true });
      }
    });
  } catch {
    signal?.throwIfAborted();
    return false; // it is downloaded then
  }
}

/** The repositories' blobs that are links to a shared one; undefined when nobody can tell. */
async function referencesOf(stored: string, root: string): Promise<Set<string> | undefined> {
  const lines = await readFile(`${stored}.refs`, "utf8").catch(() => undefined);
  if (lines === undefined) return undefined;
  const references = new Set<string>();
  for (const line of lines.split("\n")) {
    if (!BLOB.test(line) || line.split("/").includes("..")) continue;
    if ((await sharedTarget(path.join(root, line), root)) === stored) references.add(line);
  }
  return references;
}

/** Whether nothing but some blobs, which are about to go, links to a shared one. */
export async function isLast(stored: string, root: string, going: ReadonlySet<string>): Promise<boolean> {
  const references = await referencesOf(stored, root);
  if (references === undefined || references.size === 0) return false;
  return [...references].every((line) => going.has(path.join(root, line)));
}

/** Removes a shared blob that nothing links to any more. Where its list of links is missing it stays, as in Python. */
export async function sweepShared(stored: string, root: string): Promise<void> {
  await withFileLock(`${stored}.lock`, AbortSignal.timeout(5_000), async (held) => {
    const references = held ? await referencesOf(stored, root) : undefined;
    if (references === undefined) return;
    if (references.size > 0) {
      const temporary = `${stored}.refs.${randomBytes(4).toString("hex")}.tmp`;
      await writeFile(
        temporary,
        [...references]
          .sort()
          .map((line) => `${line}\n`)
          .join(""),
        { mode: 0o666 },
      );
      await rename(temporary, `${stored}.refs`);
      return;
    }
    await rm(stored, { force: true });
    await rm(`${stored}.refs`, { force: true });
  }).catch(() => {}); // it stays for the next time
}
