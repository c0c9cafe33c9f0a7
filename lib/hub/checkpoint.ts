// Which files hold the weights of a checkpoint; only those are brought from the hub. Only safetensors is read: a pickle can run code, and is never opened.

import path from "node:path";
import { CheckpointError, EntryNotFoundError } from "../errors/index.ts";
import { type Json, parseJson } from "../json/json.ts";
import {
  assertSafeName,
  findFile,
  type HubOptions,
  hasFile,
  isOffline,
  missing,
  pin,
  prefetch,
  readText,
} from "./files.ts";
import { assertInside } from "./links.ts";

export const SAFE_WEIGHTS_NAME = "model.safetensors";
export const SAFE_WEIGHTS_INDEX_NAME = "model.safetensors.index.json";

/** Weights in other formats: named in errors, never opened. */
const FOREIGN_WEIGHTS = [
  "pytorch_model.bin",
  "pytorch_model.bin.index.json",
  "tf_model.h5",
  "flax_model.msgpack",
] as const;

export interface CheckpointOptions extends HubOptions {
  /** Reads `model.fp16.safetensors` instead of `model.safetensors`, for the variant "fp16". */
  readonly variant?: string | undefined;
  /** A file that `config.json` names in place of the usual ones: safetensors, or an index of them. */
  readonly transformers_weights?: string | undefined;
}

export interface CheckpointFiles {
  /** Paths of the safetensors files, in the order of their names. */
  readonly files: readonly string[];
  /** Tensor name → path, when there is an index. */
  readonly weight_map: ReadonlyMap<string, string> | undefined;
  /** The `metadata` of the index (`total_size`, sometimes `dtype`); empty without an index. */
  readonly metadata: Readonly<Record<string, Json>>;
}

/** `model.safetensors` and "fp16" give `model.fp16.safetensors`: the variant goes before the last extension. */
export function withVariant(name: string, variant: string | undefined): string {
  if (variant === undefined) return name;
  const dot = name.lastIndexOf(".");
  return `${name.slice(0, dot)}.${variant}${name.slice(dot)}`;
}

/**
 * Finds the safetensors files of a checkpoint, in the reference's order: what `transformers_weights` names, one file,
 * then an index of several.
 *
 * Throws `CheckpointError` for an index that is not valid or leads out of its folder and for weights in another
 * format, `EntryNotFoundError` when there are no weights or a shard is missing.
 *
 * ```ts
 * const { files } = await findCheckpoint("./my-model", { variant: "fp16" });
 * ```
 */
export async function findCheckpoint(
  dirOrRepo: string,
  options: CheckpointOptions = {},
): Promise<CheckpointFiles> {
  const { variant, transformers_weights } = options;
  if (variant !== undefined) assertSafeName(variant, "The variant");
  const candidates =
    transformers_weights !== undefined
      ? [checkedWeightsName(transformers_weights)]
      : [withVariant(SAFE_WEIGHTS_NAME, variant), withVariant(SAFE_WEIGHTS_INDEX_NAME, variant)];
  const { name: source, options: pinned } = await pin(dirOrRepo, options);
  const quiet = { ...pinned, progress_callback: undefined };
  for (const name of candidates) {
    const isIndex = name.endsWith(".json");
    const file = await findFile(source, name, isIndex ? quiet : pinned);
    if (file === undefined) continue;
    await assertInside(file);
    if (isIndex) return readShards(source, file, pinned);
    return { files: [file], weight_map: undefined, metadata: {} };
  }
  throw await noWeights(source, candidates, quiet);
}

const shellQuoted = (text: string) =>
  /^[\w./:@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

function checkedWeightsName(name: string): string {
  assertSafeName(name, "transformers_weights");
  if (!name.endsWith(".safetensors") && !name.endsWith(".safetensors.index.json")) {
    throw new CheckpointError(
      `transformers_weights is '${name}'; it must name a safetensors file or an index of them.`,
    );
  }
  return name;
}

async function noWeights(
  dirOrRepo: string,
  candidates: readonly string[],
  options: CheckpointOptions,
): Promise<Error> {
  const place = path.join(dirOrRepo, options.subfolder ?? "");
  for (const name of FOREIGN_WEIGHTS) {
    const foreign = withVariant(name, options.variant);
    if (!(await hasFile(dirOrRepo, foreign, options).catch(() => false))) continue;
    return new CheckpointError(
      `${place} holds ${foreign} and no safetensors file; only safetensors is read.`,
      {
        hint: name.startsWith("pytorch_model")
          ? `A pickle can run code when it is opened, so it was not. This reads the weights in it and nothing else: npx torchformers convert ${shellQuoted(path.join(place, foreign))}`
          : "Save the model with Python's save_pretrained to get safetensors.",
      },
    );
  }
  if (isOffline(options)) {
    const error = await missing(dirOrRepo, candidates[0] as string, options);
    if (!(error instanceof EntryNotFoundError)) return error;
  }
  return new EntryNotFoundError(`No weights in ${place}: looked for ${candidates.join(", ")}.`);
}

/** Reads an index and checks that every shard is a file beside it. */
async function readShards(
  dirOrRepo: string,
  index: string,
  options: CheckpointOptions,
): Promise<CheckpointFiles> {
  const { weight_map, metadata } = parseIndex(await readText(index, CheckpointError), index);
  const shards = [...new Set(weight_map.values())].sort();
  const rest = await prefetch(dirOrRepo, shards, options);
  const paths = new Map<string, string>();
  const absent: string[] = [];
  for (const shard of shards) {
    const file = await findFile(dirOrRepo, shard, rest);
    if (file === undefined) absent.push(shard);
    else {
      await assertInside(file);
      paths.set(shard, file);
    }
  }
  if (absent.length > 0) {
    if (isOffline(options)) {
      const error = await missing(dirOrRepo, absent[0] as string, options);
      if (!(error instanceof EntryNotFoundError)) throw error;
    }
    throw new EntryNotFoundError(
      `${index} lists ${absent.join(", ")}, which is missing from ${path.dirname(index)}.`,
    );
  }
  return {
    files: [...paths.values()],
    weight_map: new Map([...weight_map].map(([tensor, shard]) => [tensor, paths.get(shard) as string])),
    metadata,
  };
}

/**
 * The content of a `model.safetensors.index.json`: tensor name → shard name, and the metadata.
 *
 * A shard must lie in the checkpoint's own folder, so its name is a plain file name.
 */
export function parseIndex(
  text: string,
  file: string,
): { readonly weight_map: ReadonlyMap<string, string>; readonly metadata: Readonly<Record<string, Json>> } {
  const index = parseJson(text, { file, error: CheckpointError });
  if (!isObject(index)) throw new CheckpointError(`${file} must hold a JSON object.`);
  const { weight_map, metadata } = index;
  if (!isObject(weight_map)) {
    throw new CheckpointError(`${file} has no 'weight_map' that maps tensor names to files.`);
  }
  const shards = new Map<string, string>();
  for (const [tensor, shard] of Object.entries(weight_map)) {
    if (typeof shard !== "string")
      throw new CheckpointError(`${file}: weight_map['${tensor}'] must be a file name.`);
    if (/[\\/\0]/.test(shard) || shard === "" || shard === ".." || /^[a-zA-Z]:/.test(shard)) {
      throw new CheckpointError(
        `${file}: weight_map['${tensor}'] is '${shard}'; a shard must lie in the checkpoint's own folder.`,
      );
    }
    if (!shard.endsWith(".safetensors")) {
      throw new CheckpointError(`${file}: weight_map['${tensor}'] is '${shard}'; only safetensors is read.`);
    }
    shards.set(tensor, shard);
  }
  if (shards.size === 0) throw new CheckpointError(`${file}: weight_map is empty.`);
  return { weight_map: shards, metadata: isObject(metadata) ? metadata : {} };
}

const isObject = (value: Json | undefined): value is { [key: string]: Json } =>
  typeof value === "object" && value !== null && !Array.isArray(value);
