// Facts about this machine that decide whether the prebuilt addon can load.

import { existsSync } from "node:fs";

/** The oldest C and C++ libraries that the prebuilt addon runs on. */
export const MINIMUM_GLIBC = "2.34";
export const MINIMUM_GLIBCXX = "3.4.29";

/** Prebuilt addons exist for these. */
export const SUPPORTED_PLATFORMS: readonly string[] = ["linux-x64"];

/** The C library: its version, or "musl". Undefined where neither can be told (not Linux). */
export function libc():
  | { readonly name: "glibc" | "musl"; readonly version: string | undefined }
  | undefined {
  if (process.platform !== "linux") return undefined;
  // Without the network part a report takes a millisecond instead of a DNS timeout.
  const report = process.report as NodeJS.ProcessReport & { excludeNetwork?: boolean };
  const before = report.excludeNetwork ?? false;
  report.excludeNetwork = true;
  const { header } = report.getReport() as { header?: { glibcVersionRuntime?: string } };
  report.excludeNetwork = before;
  if (header?.glibcVersionRuntime) return { name: "glibc", version: header.glibcVersionRuntime };
  return existsSync("/etc/alpine-release") || header ? { name: "musl", version: undefined } : undefined;
}

/** Compares dotted numbers: negative when `a` is older. */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [a, b].map((version) => version.split(".").map(Number)) as [number[], number[]];
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
