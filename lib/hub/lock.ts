// Locks between processes, ours and Python's: `flock` on the files below .locks, as Python's filelock takes it.
//
// The lock spares work; what keeps wrong bytes out of the cache is that a blob is renamed into place after its checksum.
// Where a file system (or this platform) has no flock, `held` is false and the caller writes to a file of its own.

import { type FileHandle, mkdir, open, stat } from "node:fs/promises";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { lockFile } from "../addon/loader.ts";
import { warnOnce } from "../errors/warnings.ts";
import { fileError } from "./cache.ts";

const [FIRST_WAIT, LONGEST_WAIT] = [5, 100]; // ms

/** Runs `work` while holding the lock of a file, which stays there. Waits for whoever has it. */
export async function withFileLock<T>(
  file: string,
  signal: AbortSignal | undefined,
  work: (held: boolean) => Promise<T>,
): Promise<T> {
  await mkdir(path.dirname(file), { recursive: true }).catch((error) => {
    throw fileError(file, error);
  });
  for (let wait = FIRST_WAIT; ; wait = Math.min(LONGEST_WAIT, wait * 2)) {
    signal?.throwIfAborted();
    const handle = await openLock(file);
    try {
      const state = lockFile(handle.fd);
      if (state === "unsupported") {
        warnOnce(
          `${path.dirname(file)} cannot be locked; processes that load the same file may each download it.`,
        );
        return await work(false);
      }
      // Someone may have removed the file before we had its lock: then nobody else will meet us there.
      if (state === "taken" && (await isStill(file, handle))) return await work(true);
    } finally {
      await handle.close();
    }
    await sleep(wait, undefined, signal === undefined ? {} : { signal }).catch((error) => {
      signal?.throwIfAborted();
      throw error;
    });
  }
}

/** Group-writable, as Python makes them, since several users may share a cache; another's file suffices to read. */
async function openLock(file: string): Promise<FileHandle> {
  try {
    const handle = await open(file, "a+", 0o664);
    const { mode, uid } = await handle.stat();
    if (uid === process.geteuid?.() && (mode & 0o020) === 0) await handle.chmod(0o664).catch(() => {});
    return handle;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const readable =
      code === "EACCES" || code === "EROFS" ? await open(file, "r").catch(() => undefined) : undefined;
    if (readable !== undefined) return readable;
    throw fileError(file, error);
  }
}

async function isStill(file: string, handle: FileHandle): Promise<boolean> {
  const [here, there] = await Promise.all([handle.stat(), stat(file).catch(() => undefined)]);
  return there !== undefined && here.ino === there.ino && here.dev === there.dev;
}
