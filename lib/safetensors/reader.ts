// Reads safetensors files. The file is mapped: a tensor on the CPU is the file's pages, read when they are touched.
import { fileURLToPath } from "node:url";
import type { FileHandle, SafetensorsEntry } from "../addon/addon.ts";
import { addon } from "../addon/loader.ts";
import { DisposedError, EntryNotFoundError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { dtypeBytes } from "../torch/dtype.ts";
import { type Device, type Dtype, Tensor } from "../torch/index.ts";
import { readOptions } from "../torch/options.ts";

/** What a file says of a tensor, without reading it. */
export interface TensorInfo {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Bytes of its data in the file. */
  readonly nbytes: number;
}

/** Options of `load_file`. */
export interface LoadFileOptions {
  /** Where the tensors go. Default "cpu": they are the mapped file itself, and a write to one stays private. */
  readonly device?: Device | undefined;
}

/** An open safetensors file; tensors are made when asked for. From `safe_open`. */
export class SafeOpen {
  /** As it was given. */
  readonly path: string;
  /** Bytes of the file. */
  readonly byteLength: number;
  readonly #file: FileHandle;
  readonly #entries: readonly SafetensorsEntry[];
  readonly #indices: ReadonlyMap<string, number>;
  readonly #metadata: Readonly<Record<string, string>> | null;
  readonly #device: Device;
  readonly #dataOffset: number;
  #closed = false;

  /** Use `safe_open`. */
  constructor(
    path: string,
    opened: Awaited<ReturnType<ReturnType<typeof addon>["openSafetensors"]>>,
    device: Device,
  ) {
    this.path = path;
    this.byteLength = opened.byteLength;
    this.#file = opened.file;
    this.#entries = opened.entries;
    this.#indices = new Map(opened.entries.map(({ name }, index) => [name, index]));
    this.#metadata = opened.metadata;
    this.#device = device;
    // Every byte after the header belongs to a tensor.
    this.#dataOffset = opened.byteLength - (opened.entries.at(-1)?.end ?? 0);
  }

  /** The names of the tensors, in the order of their data. */
  keys(): string[] {
    return [...this.#indices.keys()];
  }

  has(name: string): boolean {
    return this.#indices.has(name);
  }

  /** The file's `__metadata__`, or null. */
  metadata(): Record<string, string> | null {
    return this.#metadata && { ...this.#metadata };
  }

  /** Dtype, shape and size of a tensor, without touching its data. */
  get_info(name: string): TensorInfo {
    const { dtype, shape, begin, end } = this.#entries[this.#index(name)] as SafetensorsEntry;
    return { dtype: dtype as Dtype, shape, nbytes: end - begin };
  }

  /**
   * A tensor over the mapped file, valid also after `close()`. On another device than the CPU: a copy there.
   *
   * @throws EntryNotFoundError when the file has no tensor of that name.
   */
  get_tensor(name: string): Tensor {
    const index = this.#index(name);
    if (this.#closed) throw new DisposedError(`The safetensors file '${this.path}' is closed.`);
    const tensor = new Tensor();
    tensor._handle = addon().safetensorsTensor(tensor, this.#file, index);
    if (this.#device === "cpu") return tensor;
    const moved = tensor.to(this.#device);
    tensor.dispose();
    return moved;
  }

  /** Whether a tensor's bytes can be used where they lie; else `get_tensor` copies them. */
  is_aligned(name: string): boolean {
    const { dtype, begin } = this.#entries[this.#index(name)] as SafetensorsEntry;
    return (this.#dataOffset + begin) % dtypeBytes(dtype as Dtype) === 0;
  }

  /** The addon's names for a tensor, for readers of many at once. */
  _place(name: string): readonly [file: FileHandle, index: number] {
    if (this.#closed) throw new DisposedError(`The safetensors file '${this.path}' is closed.`);
    return [this.#file, this.#index(name)];
  }

  /** Lets the file go. Tensors that were made from it keep its mapping alive. */
  close(): void {
    if (!this.#closed) addon().closeSafetensors(this.#file);
    this.#closed = true;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #index(name: string): number {
    const index = this.#indices.get(name);
    if (index !== undefined) return index;
    const near = suggest(name, this.#indices.keys());
    throw new EntryNotFoundError(
      `The safetensors file '${this.path}' has no tensor '${name}'.${near === undefined ? "" : ` Did you mean '${near}'?`}`,
    );
  }
}

/**
 * Opens a safetensors file and checks its header, off the event loop; no tensor is read yet.
 *
 * @throws SafetensorsFormatError when the file breaks the format: the message names the file, the tensor and the reason.
 * @throws EntryNotFoundError when there is no such file; FileError when it cannot be read.
 * @example
 * const file = await safetensors.safe_open("model.safetensors");
 * for (const name of file.keys()) console.log(name, file.get_info(name).shape);
 * file.close();
 */
export async function safe_open(path: string | URL, options: LoadFileOptions = {}): Promise<SafeOpen> {
  const { device = "cpu" } = readOptions("safe_open", [options], ["device"]) as LoadFileOptions;
  const name = path instanceof URL ? fileURLToPath(path) : path;
  return new SafeOpen(name, await addon().openSafetensors(name), device);
}

/**
 * All tensors of a safetensors file by name, in the order of their data. On the CPU nothing is copied: each tensor is a
 * part of the mapped file, and writing to it changes neither the file nor other tensors.
 *
 * @throws as `safe_open`.
 * @example
 * const weights = await safetensors.load_file("model.safetensors");
 * weights["lm_head.weight"].shape;
 */
export async function load_file(
  path: string | URL,
  options: LoadFileOptions = {},
): Promise<Record<string, Tensor>> {
  const file = await safe_open(path, readOptions("load_file", [options], ["device"]));
  try {
    // A tensor may be called "__proto__": entries become own properties, whatever their names.
    return Object.fromEntries(file.keys().map((name) => [name, file.get_tensor(name)]));
  } finally {
    file.close();
  }
}
