// Files in Xet storage. The hub also serves them by plain requests, which can be resumed and take little memory, up to a
// size; beyond it, @huggingface/hub puts them together from their chunks.

import { HubError, TorchformersError } from "../errors/index.ts";
import { hubFetch } from "./api.ts";
import type { BlobRequest } from "./blobs.ts";
import { endpoint, isTrue } from "./environment.ts";
import { ConnectionError, pause, retries, unreachable } from "./http.ts";
import type { PartialFile } from "./partial_file.ts";

/** The hub serves nothing larger by plain requests. An object, so that tests can use small files. */
export const xet = { above: 50_000_000_000 };

export const isForXet = ({ xetHash, size }: Pick<BlobRequest, "xetHash" | "size">): boolean =>
  xetHash !== undefined &&
  /^[0-9a-f]{64}$/i.test(xetHash) &&
  size > xet.above &&
  !isTrue(process.env.HF_HUB_DISABLE_XET);

/** Brings all bytes that a file lacks; what came stays when it fails. */
export async function downloadXet(
  file: PartialFile,
  { source, size, signal }: BlobRequest,
  onBytes: (count: number) => void,
): Promise<void> {
  const hub = await import("@huggingface/hub");
  const { token, repo, commit, address, name } = source;
  const fetch = hubFetch({ token, repo, signal });
  const whole = await hub.downloadFile({ repo, path: name, revision: commit, hubUrl: endpoint(), fetch });
  if (whole === null || whole.size !== size) {
    throw new HubError(
      `${name} of '${repo}' has ${whole?.size ?? 0} bytes there and ${size} in the listing.`,
    );
  }
  for (let failures = 0; ; ) {
    const [gap] = file.missing();
    if (gap === undefined) return;
    let at = gap[0];
    try {
      const reader = whole.slice(gap[0], gap[1]).stream().getReader();
      try {
        for (;;) {
          signal?.throwIfAborted();
          const { done, value } = await reader.read();
          if (done) break;
          file.hash(at, value);
          await file.write(at, value);
          at += value.length;
          failures = 0;
          onBytes(value.length);
        }
      } finally {
        await reader.cancel().catch(() => {});
      }
      if (at < gap[1]) throw new ConnectionError("the answer is too short");
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof TorchformersError) throw error;
      failures++;
      if (failures >= retries.attempts) throw unreachable(address, error as Error, source);
      await pause(failures, undefined, signal);
    }
  }
}
