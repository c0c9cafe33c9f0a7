// Bringing one file whole: locked, resumed, checked, then put in place.

import { mkdir, stat } from "node:fs/promises";
import path from "node:path";
import { HubError } from "../errors/index.ts";
import { fileError } from "./cache.ts";
import { withFileLock } from "./lock.ts";
import { PartialFile } from "./partial_file.ts";
import { linkShared } from "./shared_blobs.ts";
import { type Connections, download, type Source } from "./transfer.ts";
import { downloadXet, isForXet } from "./xet.ts";

export interface BlobRequest {
  readonly source: Source;
  readonly etag: string;
  readonly size: number;
  readonly xetHash: string | undefined;
  /** Where it goes. */
  readonly file: string;
  /** The cache whose shared blobs may serve. */
  readonly cache?: string | undefined;
  readonly lock: string;
  readonly force: boolean;
  readonly signal: AbortSignal | undefined;
  /** Bytes that came, or were there already; negative when they turned out to be wrong. */
  readonly onBytes: (count: number) => void;
}

/**
 * Brings a file, unless another process just did. What is in its place has the checksum that the listing names.
 *
 * @throws HubError when it cannot be had, or never has the right checksum; FileError for the disk.
 */
export async function bringBlob(request: BlobRequest, connections: Connections): Promise<void> {
  const { file, lock, signal, force, size, etag, source } = request;
  await mkdir(path.dirname(file), { recursive: true }).catch((error) => {
    throw fileError(file, error);
  });
  await withFileLock(lock, signal, async (held) => {
    if (!force && (await stat(file).catch(() => undefined))?.size === size) return;
    if (request.cache !== undefined && !force && (await linkShared(file, request.cache, request))) return;
    const partial = await PartialFile.open(file, etag, size, held);
    let counted = 0;
    const count = (bytes: number) => {
      counted += bytes;
      request.onBytes(bytes);
    };
    try {
      if (partial.loaded > 0) count(partial.loaded);
      for (let attempt = 1; ; attempt++) {
        if (isForXet(request)) await downloadXet(partial, request, count);
        else await download(partial, source, connections, count, signal);
        if (await partial.complete(file)) return;
        count(-counted);
        await partial.restart();
        if (attempt === 2) throw wrongChecksum(request);
      }
    } finally {
      await partial.leave();
    }
  });
}

const wrongChecksum = ({ source: { name, repo }, etag, size }: BlobRequest): HubError =>
  new HubError(
    `${name} of '${repo}' came twice with a wrong checksum (${size} bytes, wanted ${etag.length === 64 ? "SHA-256" : "git hash"} ${etag}); nothing was kept.`,
    { hint: "Does a proxy change what it hands on? Another network, or another HF_ENDPOINT, may help." },
  );
