// Checkpoints that are pickles, as safetensors.
import { copyFile, mkdir, readdir, stat } from "node:fs/promises";
import path from "node:path";
import { folderTools } from "../addon/folder_tools.ts";
import { CheckpointError, EntryNotFoundError, FileError, InvalidArgumentError } from "../errors/index.ts";
import { writeFileAtomic } from "../hub/atomic.ts";
import { readText } from "../hub/files.ts";
import { replaceInFolder } from "../hub/folder_transaction.ts";
import { parseJson } from "../json/json.ts";
import { save_file } from "../safetensors/index.ts";
import type { Tensor } from "../torch/index.ts";
import { TorchFile } from "./torch_file.ts";
import { type Dict, isTensor, type TensorRef, type Value } from "./unpickle.ts";

/** Options of `convert`. */
export interface ConvertOptions {
  /** The key under which the weights lie, for a file that holds more: "state_dict". Default: found when there is one. */
  readonly key?: string | undefined;
  /** Replace files that exist. Default false. */
  readonly force?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onFile?: ((file: string, index: number, count: number) => void) | undefined;
}

/** What became of one conversion. */
export interface Conversion {
  /** The files written. */
  readonly files: readonly string[];
  readonly tensors: number;
  readonly bytes: number;
  /** Names that share another's memory, and are left out: name → the name that is kept. */
  readonly aliases: Readonly<Record<string, string>>;
  /** Entries that are no tensors, and are left out. */
  readonly dropped: readonly string[];
}

const INDEX = /\.bin(\.index(?:\..+)?\.json)$/;
const PICKLE = /\.(bin|pt|pth|ckpt)$/i;

/**
 * Makes safetensors of a file of torch.save, of the shards that an index names, or of a folder that holds either.
 *
 * Nothing in the file is run: tensors, dicts, lists, tuples, numbers and strings are read, anything else is an error.
 *
 * @param input `pytorch_model.bin`, `x.pt`, `pytorch_model.bin.index.json`, or a folder.
 * @param output a file, or a folder; default: beside the input, under the name that `from_pretrained` looks for.
 * @throws CheckpointError when a file holds more than plain data, is damaged or has no tensors; FileError when an output
 *   exists or cannot be written.
 */
export async function convert(
  input: string,
  output?: string,
  options: ConvertOptions = {},
): Promise<Conversion> {
  const found = await findInput(input);
  return found.endsWith(".json")
    ? convertShards(found, output, options)
    : convertFile(found, output, options);
}

async function isFolder(file: string): Promise<boolean> {
  return (await stat(file).catch(() => undefined))?.isDirectory() ?? false;
}

async function findInput(input: string): Promise<string> {
  const status = await stat(input).catch(() => undefined);
  if (status === undefined) throw new EntryNotFoundError(`'${input}' does not exist.`);
  if (!status.isDirectory()) return input;
  const names = (await readdir(input)).sort();
  const found =
    names.find((name) => INDEX.test(name)) ?? names.find((name) => /^pytorch_model.*\.bin$/.test(name));
  const only = names.filter((name) => PICKLE.test(name));
  const chosen = found ?? (only.length === 1 ? only[0] : undefined);
  if (chosen === undefined)
    throw new EntryNotFoundError(
      `'${input}' holds no pytorch_model.bin, nor its index. Name the file to convert.`,
    );
  return path.join(input, chosen);
}

/** "pytorch_model.bin" → "model.safetensors", the name that loading looks for. */
function outputName(name: string): string {
  return `${name.replace(PICKLE, "").replace(/^pytorch_model/, "model")}.safetensors`;
}

async function refuseExisting(files: readonly string[], { force = false }: ConvertOptions): Promise<void> {
  for (const file of files) {
    if (force || (await stat(file).catch(() => undefined)) === undefined) continue;
    throw new FileError(`'${file}' exists.`, { hint: "Pass --force (force: true) to replace it." });
  }
}

async function convertFile(
  input: string,
  output: string | undefined,
  options: ConvertOptions,
): Promise<Conversion> {
  const intoFolder = output === undefined || !output.endsWith(".safetensors");
  const folder = output === undefined ? path.dirname(input) : intoFolder ? output : path.dirname(output);
  const file = intoFolder ? path.join(folder, outputName(path.basename(input))) : output;
  await refuseExisting([file], options);
  options.onFile?.(input, 0, 1);
  using source = await TorchFile.open(input);
  options.signal?.throwIfAborted();
  const weights = findWeights(source, options.key);
  await mkdir(folder, { recursive: true });
  const { names, bytes, aliases } = await write(source, weights.tensors, file);
  await copyOthers(path.dirname(input), folder);
  return { files: [file], tensors: names.length, bytes, aliases, dropped: weights.dropped };
}

async function convertShards(
  index: string,
  output: string | undefined,
  options: ConvertOptions,
): Promise<Conversion> {
  const from = path.dirname(index);
  const folder = output ?? from;
  if (folder.endsWith(".safetensors"))
    throw new InvalidArgumentError("Several files become several files: name a folder for them.");
  const shards = await readShards(index);
  const goal = path
    .basename(index)
    .replace(/^pytorch_model/, "model")
    .replace(INDEX, ".safetensors$1");
  const goals = shards.map(outputName);
  await refuseExisting(
    [...goals, goal].map((name) => path.join(folder, name)),
    options,
  );

  const result = { tensors: 0, bytes: 0, aliases: {} as Record<string, string>, dropped: new Set<string>() };
  const weight_map: Record<string, string> = {};
  await replaceInFolder(folder, {
    tools: folderTools,
    replaces: () => false,
    write: async (stage) => {
      for (const [i, shard] of shards.entries()) {
        options.signal?.throwIfAborted();
        options.onFile?.(path.join(from, shard), i, shards.length);
        using source = await TorchFile.open(path.join(from, shard));
        const weights = findWeights(source, options.key);
        const written = await write(source, weights.tensors, path.join(stage, goals[i] as string));
        for (const name of written.names) weight_map[name] = goals[i] as string;
        Object.assign(result.aliases, written.aliases);
        for (const name of weights.dropped) result.dropped.add(name);
        result.tensors += written.names.length;
        result.bytes += written.bytes;
      }
      const sorted = Object.fromEntries(Object.entries(weight_map).sort(([a], [b]) => (a < b ? -1 : 1)));
      const content = { metadata: { total_size: result.bytes }, weight_map: sorted };
      await writeFileAtomic(path.join(stage, goal), `${JSON.stringify(content, undefined, 2)}\n`);
    },
  });
  await copyOthers(from, folder);
  const files = [...goals, goal].map((name) => path.join(folder, name));
  return { ...result, files, dropped: [...result.dropped] };
}

async function readShards(index: string): Promise<string[]> {
  const content = parseJson(await readText(index, CheckpointError), { file: index, error: CheckpointError });
  const map = (content as { weight_map?: unknown } | null)?.weight_map;
  if (typeof map !== "object" || map === null) throw new CheckpointError(`${index} has no 'weight_map'.`);
  const shards = [...new Set(Object.values(map))].sort();
  for (const shard of shards) {
    if (typeof shard !== "string" || !PICKLE.test(shard) || /[\\/\0]/.test(shard))
      throw new CheckpointError(
        `${index} names '${String(shard)}'; a shard must lie in the checkpoint's own folder.`,
      );
  }
  return shards as string[];
}

/** The dict of tensors in a file: itself, or the one under a key. */
function findWeights(
  { value, path: file }: TorchFile,
  key: string | undefined,
): { readonly tensors: Map<string, TensorRef>; readonly dropped: readonly string[] } {
  const isDict = (each: Value | undefined): each is Dict => each instanceof Map;
  const holds = (each: Value | undefined): each is Dict => isDict(each) && [...each.values()].some(isTensor);
  let dict: Value | undefined = value;
  if (key !== undefined) {
    for (const part of key.split(".")) dict = isDict(dict) ? dict.get(part) : undefined;
    if (!holds(dict)) throw new CheckpointError(`'${file}' has no tensors under '${key}'.`);
  } else if (!holds(value)) {
    const inside = isDict(value) ? [...value].filter(([, each]) => holds(each)) : [];
    if (inside.length > 1) {
      throw new CheckpointError(
        `'${file}' holds several sets of tensors: ${inside.map(([name]) => String(name)).join(", ")}.`,
        { hint: "Say which one with --key NAME." },
      );
    }
    dict = inside[0]?.[1];
  }
  if (!isDict(dict)) throw new CheckpointError(`'${file}' holds no dict of tensors.`);
  const tensors = new Map<string, TensorRef>();
  const dropped: string[] = [];
  for (const [name, each] of dict) {
    if (isTensor(each) && typeof name === "string") tensors.set(name, each);
    else dropped.push(String(name));
  }
  return { tensors, dropped };
}

const same = (a: readonly number[], b: readonly number[]) =>
  a.length === b.length && a.every((n, i) => n === b[i]);

/** Writes the tensors of one file; of several names for one tensor the first is kept. */
async function write(
  source: TorchFile,
  found: ReadonlyMap<string, TensorRef>,
  file: string,
): Promise<{ names: string[]; bytes: number; aliases: Record<string, string> }> {
  const aliases: Record<string, string> = {};
  const kept = new Map<string, [name: string, tensor: TensorRef][]>();
  const tensors = new Map<string, Tensor>();
  try {
    for (const [name, ref] of found) {
      const others = kept.get(ref.storage.key) ?? [];
      kept.set(ref.storage.key, others);
      const twin = others.find(
        ([, other]) =>
          other.dtype === ref.dtype &&
          other.offset + other.storage.offset === ref.offset + ref.storage.offset &&
          same(other.size, ref.size) &&
          same(other.stride, ref.stride),
      );
      if (twin !== undefined && !ref.size.includes(0)) {
        aliases[name] = twin[0];
        continue;
      }
      const tensor = source.tensor(ref);
      // The format cannot say that two tensors overlap.
      tensors.set(name, others.length > 0 ? tensor.clone() : tensor);
      if (others.length > 0) tensor.dispose();
      others.push([name, ref]);
    }
    const bytes = [...tensors.values()].reduce((sum, tensor) => sum + tensor.nbytes, 0);
    await save_file(tensors, file, { metadata: { ...aliases, format: "pt" } });
    return { names: [...tensors.keys()], bytes, aliases };
  } finally {
    for (const tensor of tensors.values()) tensor.dispose();
  }
}

/** Into another folder go the configuration and the tokenizer too, so that it can be loaded. */
async function copyOthers(from: string, to: string): Promise<void> {
  if (path.resolve(from) === path.resolve(to) || !(await isFolder(to))) return;
  for (const name of await readdir(from)) {
    if (!/\.(json|txt|model|jinja)$/.test(name) || INDEX.test(name) || name.endsWith(".index.json")) continue;
    const goal = path.join(to, name);
    if ((await stat(goal).catch(() => undefined)) === undefined) await copyFile(path.join(from, name), goal);
  }
}
