// A lock file between processes: the holder's host and number, touched now and then so that others see it is alive.

import { readFile, rm, stat, utimes, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";

const TOUCH = 10_000; // ms
/** A lock that nobody has touched for so long is abandoned; on the same host the process is looked up instead. */
const ABANDONED = 60_000; // ms

export interface LockOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called once when another process holds the lock. */
  readonly onWait?: (() => void) | undefined;
}

/** Runs `work` while holding the lock; waits for a living holder, takes over from a dead one. */
export async function withLock<T>(
  path: string,
  { signal, onWait }: LockOptions,
  work: () => Promise<T>,
): Promise<T> {
  const mine = `${hostname()} ${process.pid} ${performance.timeOrigin}`;
  await acquire(path, mine, { signal, onWait });
  const touch = setInterval(() => void utimes(path, new Date(), new Date()).catch(() => {}), TOUCH);
  touch.unref();
  try {
    return await work();
  } finally {
    clearInterval(touch);
    await rm(path, { force: true });
  }
}

async function acquire(path: string, mine: string, { signal, onWait }: LockOptions): Promise<void> {
  for (let told = false; ; ) {
    signal?.throwIfAborted();
    try {
      await writeFile(path, mine, { flag: "wx" });
      // Another process may have taken the same dead lock over at the same moment; the last one to write has it.
      await sleep(50);
      if ((await read(path)) === mine) return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
    if (await isAbandoned(path)) {
      await rm(path, { force: true });
      continue;
    }
    if (!told) onWait?.();
    told = true;
    await sleep(250, undefined, signal === undefined ? {} : { signal });
  }
}

async function read(path: string): Promise<string | undefined> {
  return readFile(path, "utf8").catch(() => undefined);
}

async function isAbandoned(path: string): Promise<boolean> {
  const holder = await read(path);
  const facts = await stat(path).catch(() => undefined);
  if (holder === undefined || facts === undefined) return false;
  const [host, pid] = holder.split(" ");
  if (host !== hostname() || !(Number(pid) > 0)) return Date.now() - facts.mtimeMs > ABANDONED;
  return !isAlive(Number(pid));
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
