// Weights in a folder of their own, in accelerate's format: a raw file `<name>.dat` for each, and index.json with dtypes and shapes.
// It is for tensors that exist in no other file; those of a checkpoint stay where they are.
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { access, mkdir, open, readFile, rename, rm } from "node:fs/promises";
import path from "node:path";
import { CheckpointError, FileError } from "../errors/index.ts";
import { writeFileAtomic } from "../hub/atomic.ts";
import { assertSafeName } from "../hub/files.ts";
import { asDtype, dtypeBytes } from "../torch/dtype.ts";
import type { Dtype, Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";

/** What index.json says of a tensor: of a `.dat` file, or of one in a safetensors file. */
export interface OffloadEntry {
  readonly dtype?: string;
  readonly shape?: readonly number[];
  readonly safetensors_file?: string;
  /** Name in that file. Default: the tensor's own. */
  readonly weight_name?: string;
}
export type OffloadIndex = Record<string, OffloadEntry>;

export const OFFLOAD_INDEX_NAME = "index.json";
/** So many bytes of a tensor are in memory a second time while it is written. */
const PIECE = 16 * 2 ** 20;

const fileOf = (folder: string, name: string): string => {
  assertSafeName(`${name}.dat`, "A name in the offload index");
  return path.join(folder, `${name}.dat`);
};

/**
 * Writes a tensor into an offload folder and notes it in `index`. The file appears whole or not at all.
 *
 * @throws FileError when the folder cannot be written, or the disk is full.
 * @example const index = await offload_weight(model.lm_head.weight, "lm_head.weight", "./offload", {});
 */
export async function offload_weight(
  weight: Tensor,
  weight_name: string,
  offload_folder: string,
  index: OffloadIndex = {},
): Promise<OffloadIndex> {
  const file = fileOf(offload_folder, weight_name);
  const temporary = `${file}.${process.pid}.tmp`;
  try {
    await mkdir(offload_folder, { recursive: true });
    const handle = await open(temporary, "w");
    try {
      for await (const bytes of pieces(weight)) await handle.writeFile(bytes);
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {});
    throw cannotWrite(weight_name, offload_folder, error as NodeJS.ErrnoException);
  }
  index[weight_name] = { dtype: weight.dtype, shape: weight.shape };
  return index;
}

/** The bytes of a tensor, in order, some at a time. */
async function* pieces(weight: Tensor): AsyncGenerator<Uint8Array> {
  const flat = torch.no_grad(() => weight.detach().to({ device: "cpu" }).reshape([-1]));
  const step = Math.max(1, Math.floor(PIECE / flat.itemsize));
  try {
    for (let start = 0; start < flat.numel(); start += step) {
      const part = flat.narrow(0, start, Math.min(step, flat.numel() - start));
      const raw = await part.data({ raw: true });
      part.dispose();
      yield new Uint8Array(raw.buffer, raw.byteOffset, raw.byteLength);
    }
  } finally {
    flat.dispose();
  }
}

function cannotWrite(name: string, folder: string, error: NodeJS.ErrnoException): Error {
  if (error.code === undefined) return error;
  const hints: Readonly<Record<string, string>> = {
    ENOSPC: "The disk is full: name another offload_folder, or allow more memory by max_memory.",
    EROFS: "The file system cannot be written: name another offload_folder.",
    EACCES: "The folder cannot be written: name another offload_folder.",
    EPERM: "The folder cannot be written: name another offload_folder.",
  };
  return new FileError(`'${name}' could not be offloaded to ${folder}: ${error.message}.`, {
    cause: error,
    hint: hints[error.code] ?? "Name another offload_folder.",
  });
}

/** Adds entries to a folder's index.json. */
export async function save_offload_index(
  index: Readonly<OffloadIndex>,
  offload_folder: string,
): Promise<void> {
  if (Object.keys(index).length === 0) return;
  const file = path.join(offload_folder, OFFLOAD_INDEX_NAME);
  const known = (await exists(file)) ? await readOffloadIndex(offload_folder) : {};
  try {
    await writeFileAtomic(file, JSON.stringify({ ...known, ...index }, undefined, 2));
  } catch (error) {
    throw cannotWrite(OFFLOAD_INDEX_NAME, offload_folder, error as NodeJS.ErrnoException);
  }
}

const exists = (file: string) =>
  access(file).then(
    () => true,
    () => false,
  );

export const hasOffloadIndex = (folder: string): Promise<boolean> =>
  exists(path.join(folder, OFFLOAD_INDEX_NAME));

/**
 * Writes the tensors of a state dict, with their index, into a folder.
 *
 * @example await offload_state_dict("./offload", model.state_dict());
 */
export async function offload_state_dict(
  save_dir: string,
  state_dict: Readonly<Record<string, Tensor>>,
): Promise<void> {
  const index: OffloadIndex = {};
  for (const [name, tensor] of Object.entries(state_dict))
    await offload_weight(tensor, name, save_dir, index);
  await save_offload_index(index, save_dir);
}

/** @throws CheckpointError for an index that is none. */
export async function readOffloadIndex(folder: string): Promise<OffloadIndex> {
  const file = path.join(folder, OFFLOAD_INDEX_NAME);
  let found: unknown;
  try {
    found = JSON.parse(await readFile(file, "utf8"));
  } catch (error) {
    throw new CheckpointError(`${file} cannot be read: ${(error as Error).message}`, { cause: error });
  }
  if (typeof found !== "object" || found === null || Array.isArray(found))
    throw new CheckpointError(`${file} is not an index of offloaded weights.`);
  for (const [name, entry] of Object.entries(found)) checkEntry(file, name, entry);
  return found as OffloadIndex;
}

function checkEntry(file: string, name: string, entry: unknown): void {
  const { safetensors_file, shape, dtype } = (entry ?? {}) as Partial<OffloadEntry>;
  const isFile = typeof safetensors_file === "string";
  const isShape = Array.isArray(shape) && shape.every((n) => Number.isSafeInteger(n) && (n as number) >= 0);
  if (!isFile && !(isShape && typeof dtype === "string"))
    throw new CheckpointError(`${file}: '${name}' needs a dtype and a shape, or a safetensors_file.`);
  if (!isFile) fileOf(".", name);
}

/**
 * Reads one tensor of an offload folder into memory of its own.
 *
 * @throws FileError when the file is gone or is not of the size that the index says.
 */
export function readOffloadedWeight(
  folder: string,
  name: string,
  { dtype, shape = [] }: OffloadEntry,
): Tensor {
  const file = fileOf(folder, name);
  const kind: Dtype = asDtype(dtype as string);
  const bytes = shape.reduce((product, size) => product * size, 1) * dtypeBytes(kind);
  let descriptor: number | undefined;
  try {
    descriptor = openSync(file, "r");
    const { size } = fstatSync(descriptor);
    if (size !== bytes)
      throw new FileError(`${file} has ${size} bytes, and '${name}' has ${bytes}: it was changed.`);
    const buffer = new ArrayBuffer(bytes);
    const into = new Uint8Array(buffer);
    for (let at = 0; at < bytes; ) {
      const count = readSync(descriptor, into, at, Math.min(bytes - at, 2 ** 30), at);
      if (count === 0) throw new FileError(`${file} became shorter while '${name}' was read.`);
      at += count;
    }
    return torch.from_buffer(buffer, { dtype: kind, shape });
  } catch (error) {
    if (error instanceof FileError) throw error;
    throw new FileError(`The offloaded weight '${name}' cannot be read: ${(error as Error).message}.`, {
      cause: error,
    });
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}
