// What a process holds, for tests that look for leaks.
import { readFileSync } from "node:fs";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { addon } from "#lib/addon/loader.js";

setFlagsFromString("--expose-gc");
const gc = runInNewContext("gc") as () => void;

/** Collects garbage, frees the tensors whose owners were part of it, and gives free memory back to the system. */
export function settle(): void {
  // What only a collected object held is found by the next collection.
  for (let i = 0; i < 3; i++) {
    gc();
    addon().emptyCache();
  }
}

export const live_tensors = (): number => addon().memoryStats().live_tensors;

/** Bytes in use: of the C heap, and of V8's. Exact but for what V8 keeps for itself. */
export const usedMemory = (): number => addon().memoryStats().heap_bytes + process.memoryUsage().heapUsed;

/**
 * Memory that belongs to this process alone, in bytes, used or not; mapped files do not count, nor does what V8 keeps in
 * reserve. Its young generation keeps megabytes of reserve, in memory or not as it likes: run with `SMALL_YOUNG`.
 */
export function privateMemory(): number {
  const [, kilobytes] = /^RssAnon:\s+(\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8")) ?? [];
  const { heapTotal, heapUsed } = process.memoryUsage();
  return Number(kilobytes) * 1024 - (heapTotal - heapUsed);
}

/** Node's option for a young generation of one size. */
export const SMALL_YOUNG = "--max-semi-space-size=1";

/** Long counts are reduced unless `npm run test:soak` runs. */
export const soak = process.env["TORCHFORMERS_SOAK"] !== undefined;
