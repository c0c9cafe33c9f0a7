// The headers of a checkpoint's weights: names, dtypes and shapes of all tensors, without the tensors. From a repository of the hub
// they come by range requests, some kilobytes for each file.
import { open } from "node:fs/promises";
import { CheckpointError, HubError, SafetensorsFormatError } from "../errors/index.ts";
import { isRecord } from "../json/json.ts";
import { findCheckpoint, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME } from "./checkpoint.ts";
import { endpoint } from "./environment.ts";
import { findFile, type HubOptions, kindOf, pin } from "./files.ts";
import { hubRequest, readBytes } from "./http.ts";
import { listFiles } from "./listing.ts";
import { isRepoId, splitRevision } from "./names.ts";
import { tokenFor } from "./token.ts";

/** One tensor of a checkpoint. */
export interface WeightHeader {
  readonly name: string;
  /** As safetensors names it: "BF16". */
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: number;
}

/** Most headers are smaller, so one request brings all of it. */
const FIRST = 64 * 1024;
/** What the format allows. */
const LONGEST = 100_000_000;

/** Reads some bytes of a file. */
type ReadRange = (from: number, count: number) => Promise<Buffer>;

/**
 * The tensors of a checkpoint in a folder, or of a repository that may not be in the cache: nothing is downloaded.
 *
 * @throws EntryNotFoundError when there are no safetensors, SafetensorsFormatError for a header that is none.
 * @example const { tensors } = await weightHeaders("org/name");
 */
export async function weightHeaders(dirOrRepo: string, options: HubOptions = {}): Promise<WeightHeader[]> {
  const { name, options: pinned } = await pin(dirOrRepo, options);
  const isRepo = isRepoId(splitRevision(dirOrRepo).repo) && (await kindOf(dirOrRepo)) === "absent";
  const remote = isRepo ? await remoteFiles(name, pinned) : undefined;
  if (remote === undefined) {
    const { files } = await findCheckpoint(name, pinned);
    return (await Promise.all(files.map((file) => localHeader(file)))).flat();
  }
  const found: WeightHeader[][] = [];
  // Some at once: a large checkpoint has hundreds of files.
  const queue = remote.map((file, i) => ({ file, i }));
  const worker = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift())
      found[next.i] = await header(next.file.path, await rangeReader(name, next.file.path, pinned));
  };
  await Promise.all(Array.from({ length: Math.min(8, queue.length) }, worker));
  return found.flat();
}

/** The weight files of a repository, unless all of them are in the cache. */
async function remoteFiles(repo: string, options: HubOptions): Promise<{ path: string }[] | undefined> {
  const listing = await listFiles(repo, options.revision as string, options);
  if (listing === undefined) return undefined;
  const names = [...listing.keys()];
  const weights = names.includes(SAFE_WEIGHTS_NAME)
    ? [SAFE_WEIGHTS_NAME]
    : names.includes(SAFE_WEIGHTS_INDEX_NAME)
      ? names.filter((name) => /^model-\d{5}-of-\d{5}\.safetensors$/.test(name)).sort()
      : [];
  if (weights.length === 0) return undefined;
  const quiet = { ...options, local_files_only: true };
  for (const name of weights) {
    const there = await findFile(repo, name, quiet).catch(() => undefined);
    if (there === undefined) return weights.map((path) => ({ path }));
  }
  return undefined;
}

async function rangeReader(repo: string, file: string, options: HubOptions): Promise<ReadRange> {
  const path = file.split("/").map(encodeURIComponent).join("/");
  const address = `${endpoint()}/${repo}/resolve/${options.revision}/${path}`;
  const token = await tokenFor(options.token);
  return async (from, count) => {
    const headers = { range: `bytes=${from}-${from + count - 1}` };
    const response = await hubRequest(address, { headers, token, repo, signal: options.signal });
    if (response.status !== 206) {
      response.message.destroy();
      throw new HubError(
        `The hub sends no parts of ${file} (${repo}): it answered ${response.status} to a range.`,
      );
    }
    return (await readBytes(response, count)).subarray(0, count);
  };
}

async function localHeader(file: string): Promise<WeightHeader[]> {
  const handle = await open(file, "r");
  try {
    return await header(file, async (from, count) => {
      const buffer = Buffer.alloc(count);
      const { bytesRead } = await handle.read(buffer, 0, count, from);
      return buffer.subarray(0, bytesRead);
    });
  } finally {
    await handle.close();
  }
}

async function header(file: string, read: ReadRange): Promise<WeightHeader[]> {
  const first = await read(0, FIRST);
  const bad = (why: string) => new SafetensorsFormatError(`${file} is not a safetensors file: ${why}.`);
  if (first.length < 8) throw bad("it is shorter than 8 bytes");
  const length = Number(first.readBigUInt64LE(0));
  if (length > LONGEST) throw bad(`its header has ${length} bytes`);
  const rest =
    8 + length > first.length ? await read(first.length, 8 + length - first.length) : Buffer.alloc(0);
  const text = Buffer.concat([first, rest]).subarray(8, 8 + length);
  if (text.length < length) throw bad("its header is cut off");
  let parsed: unknown;
  try {
    parsed = JSON.parse(text.toString("utf8"));
  } catch (error) {
    throw new CheckpointError(`${file} is not a safetensors file: ${(error as Error).message}`, {
      cause: error,
    });
  }
  if (!isRecord(parsed)) throw bad("its header is no object");
  return Object.entries(parsed)
    .filter(([name]) => name !== "__metadata__")
    .map(([name, entry]) => {
      const { dtype, shape, data_offsets } = entry as Partial<Record<string, unknown>>;
      const isRange =
        Array.isArray(data_offsets) && data_offsets.length === 2 && data_offsets.every(Number.isSafeInteger);
      if (
        typeof dtype !== "string" ||
        !Array.isArray(shape) ||
        !shape.every(Number.isSafeInteger) ||
        !isRange
      )
        throw bad(`'${name}' has no dtype, shape and data_offsets`);
      return { name, dtype, shape: shape as number[], bytes: data_offsets[1] - data_offsets[0] };
    });
}
