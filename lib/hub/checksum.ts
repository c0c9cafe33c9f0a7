// Checksums by which blobs are named.

import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";

/** SHA-256 for a large file, git's hash for any other: what the name of its blob says. */
export function hasherFor(etag: string, size: number): Hash {
  if (etag.length === 64) return createHash("sha256");
  return createHash("sha1").update(`blob ${size}\0`);
}

/** The checksum of a file, of the kind that `etag` is. */
export async function checksum(
  file: string,
  etag: string,
  size: number,
  signal?: AbortSignal,
): Promise<string> {
  const hash = hasherFor(etag, size);
  for await (const chunk of createReadStream(file, {
    highWaterMark: 1024 * 1024,
    ...(signal ? { signal } : {}),
  })) {
    hash.update(chunk as Buffer);
  }
  return hash.digest("hex");
}
