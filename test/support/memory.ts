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

/**
 * Memory that belongs to this process alone, in bytes; mapped files do not count, nor does what V8 keeps in reserve: its
 * heap comes and goes in steps larger than the leaks that are looked for.
 */
export function privateMemory(): number {
  const [, kilobytes] = /^RssAnon:\s+(\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8")) ?? [];
  const { heapTotal, heapUsed } = process.memoryUsage();
  return Number(kilobytes) * 1024 - (heapTotal - heapUsed);
}

/** Long counts are reduced unless `npm run test:soak` runs. */
export const soak = process.env["TORCHFORMERS_SOAK"] !== undefined;
