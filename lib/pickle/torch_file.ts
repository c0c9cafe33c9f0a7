// Files of torch.save: a zip archive since torch 1.6, a sequence of pickles before. Tensors stay in the file until asked for.
import { open } from "node:fs/promises";
import { addon } from "../addon/loader.ts";
import { CheckpointError, SetupError } from "../errors/index.ts";
import { type ZipEntry, ZipReader } from "../setup/zip.ts";
import { dtypeBytes } from "../torch/dtype.ts";
import * as torch from "../torch/index.ts";
import { Tensor } from "../torch/index.ts";
import { type StorageRef, type TensorRef, unpickle, type Value } from "./unpickle.ts";

/** Longer ones hold no checkpoint: they are read whole. */
const MOST_PICKLE_BYTES = 512 * 2 ** 20;
const MAGIC = 0x1950a86a20f9469cfc6cn;
const PROTOCOL = 1001;

interface Place {
  readonly begin: number;
  readonly bytes: number;
}

/** An open file of torch.save. Close it, or declare it with `using`. */
export class TorchFile {
  readonly path: string;
  readonly value: Value;
  readonly #bytes: Tensor;
  readonly #storages: ReadonlyMap<string, Place>;

  private constructor(path: string, value: Value, bytes: Tensor, storages: ReadonlyMap<string, Place>) {
    this.path = path;
    this.value = value;
    this.#bytes = bytes;
    this.#storages = storages;
  }

  /** @throws CheckpointError when the file is no such file, is damaged, or holds more than plain data. */
  static async open(path: string): Promise<TorchFile> {
    const isZip = await beginsWith(path, "PK\x03\x04");
    try {
      const { value, storages } = isZip ? await readZip(path) : await readLegacy(path);
      const bytes = new Tensor();
      bytes._handle = addon().mapBytes(bytes, path);
      return new TorchFile(path, value, bytes, storages);
    } catch (error) {
      if (error instanceof SetupError) throw new CheckpointError(error.message, { cause: error });
      throw error;
    }
  }

  /** Which bytes a tensor's storage has: two tensors of one storage share memory. */
  storage(ref: StorageRef): Place {
    const place = this.#storages.get(ref.key);
    if (place === undefined) throw this.#fail(`storage '${ref.key}' is not in it`);
    return place;
  }

  /** The tensor over the mapped file; a copy where its bytes are not aligned. */
  tensor({ storage, dtype, offset, size, stride }: TensorRef): Tensor {
    const place = this.storage(storage);
    const width = dtypeBytes(dtype);
    const skipped = storage.offset * dtypeBytes(storage.dtype);
    const available = Math.min(storage.length * dtypeBytes(storage.dtype), place.bytes - skipped);
    const last = size.includes(0)
      ? -1
      : size.reduce((at, n, i) => at + (n - 1) * (stride[i] as number), offset);
    if (!((last + 1) * width <= available))
      throw this.#fail(`a tensor does not fit into storage '${storage.key}'`);
    return torch.no_grad(() =>
      torch.tidy(() => {
        if (last < 0) return torch.empty([...size], { dtype });
        const begin = place.begin + skipped;
        let bytes = this.#bytes.narrow(0, begin, (last + 1) * width);
        if (begin % width !== 0) bytes = bytes.clone();
        return bytes.view(dtype).as_strided([...size], [...stride], bytes.storage_offset() / width + offset);
      }),
    );
  }

  close(): void {
    this.#bytes.dispose();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #fail(reason: string): CheckpointError {
    return new CheckpointError(`'${this.path}' is damaged: ${reason}.`);
  }
}

async function beginsWith(path: string, text: string): Promise<boolean> {
  const file = await open(path, "r");
  try {
    const { buffer } = await file.read(Buffer.alloc(text.length), 0, text.length, 0);
    return buffer.toString("latin1") === text;
  } finally {
    await file.close();
  }
}

async function readAt(path: string, begin: number, length: number): Promise<Uint8Array> {
  if (length > MOST_PICKLE_BYTES)
    throw new CheckpointError(`'${path}' has a pickle of ${length} bytes: too long.`);
  const file = await open(path, "r");
  try {
    const bytes = Buffer.alloc(length);
    for (let done = 0; done < length; ) {
      const { bytesRead } = await file.read(bytes, done, length - done, begin + done);
      if (bytesRead === 0) throw new CheckpointError(`'${path}' is damaged: it ends early.`);
      done += bytesRead;
    }
    return bytes;
  } finally {
    await file.close();
  }
}

// Zip ------------------------------------------------------------------------------------------------------------

async function readZip(path: string): Promise<{ value: Value; storages: Map<string, Place> }> {
  await using zip = await ZipReader.open(path);
  const pickle = zip.entries.find(({ name }) => /^[^/]+\/data\.pkl$/.test(name));
  if (pickle === undefined)
    throw new CheckpointError(`'${path}' is a zip archive, but not one of torch.save.`);
  const root = pickle.name.slice(0, -"data.pkl".length);
  const named = (name: string) => zip.entries.find((entry) => entry.name === root + name);
  if (named("constants.pkl"))
    throw new CheckpointError(
      `'${path}' is a TorchScript program, not a checkpoint: only weights are converted.`,
    );
  const order = named("byteorder");
  if (order && new TextDecoder().decode(await readMember(zip, order)) !== "little")
    throw new CheckpointError(`'${path}' was written by a big-endian machine.`);
  const { value } = unpickle(await readMember(zip, pickle), path);
  const storages = new Map<string, Place>();
  for (const entry of zip.entries) {
    if (!entry.name.startsWith(`${root}data/`) || entry.directory) continue;
    if (entry.deflated) throw new CheckpointError(`'${path}' is compressed, which torch.save never does.`);
    storages.set(entry.name.slice(`${root}data/`.length), {
      begin: await zip.locate(entry),
      bytes: entry.size,
    });
  }
  return { value, storages };
}

async function readMember(zip: ZipReader, entry: ZipEntry): Promise<Uint8Array> {
  if (entry.deflated) throw new CheckpointError(`'${zip.path}' is compressed, which torch.save never does.`);
  return readAt(zip.path, await zip.locate(entry), entry.size);
}

// Before zip -----------------------------------------------------------------------------------------------------

/** Magic number, version, facts of the machine, the value, the storages' keys; then per storage its length and bytes. */
async function readLegacy(path: string): Promise<{ value: Value; storages: Map<string, Place> }> {
  // The pickles stand first, and how long they are is not said: the bytes are looked at through the mapping.
  const mapped = new Tensor();
  mapped._handle = addon().mapBytes(mapped, path);
  const total = mapped.numel();
  mapped.dispose();
  const refuse = (reason: string) => new CheckpointError(`'${path}' is not a file of torch.save: ${reason}.`);
  if (total < 100) throw refuse("it is too short");

  for (let length = Math.min(total, 1 << 20); ; length = Math.min(total, length * 8)) {
    const bytes = await readAt(path, 0, Math.min(length, MOST_PICKLE_BYTES));
    if (bytes[0] !== 0x80) throw refuse("it does not begin with a pickle");
    try {
      return await parseLegacy(path, bytes, total, refuse);
    } catch (error) {
      const isWhole = length >= total || length >= MOST_PICKLE_BYTES;
      if (isWhole || !/ends early|has no end/.test((error as Error).message)) throw error;
    }
  }
}

async function parseLegacy(
  path: string,
  bytes: Uint8Array,
  total: number,
  refuse: (reason: string) => CheckpointError,
): Promise<{ value: Value; storages: Map<string, Place> }> {
  const magic = unpickle(bytes, path);
  if (magic.value !== MAGIC) throw refuse("its magic number is missing");
  const protocol = unpickle(bytes, path, magic.end);
  if (protocol.value !== PROTOCOL) throw refuse("its version is unknown");
  const facts = unpickle(bytes, path, protocol.end);
  if (!(facts.value instanceof Map) || facts.value.get("little_endian") !== true)
    throw refuse("it was written by a big-endian machine");
  const { value, end } = unpickle(bytes, path, facts.end);
  const keys = unpickle(bytes, path, end);
  if (!Array.isArray(keys.value)) throw refuse("the list of its storages is missing");
  const types = new Map<string, number>();
  eachTensor(value, ({ storage }) => types.set(storage.key, dtypeBytes(storage.dtype)));
  const storages = new Map<string, Place>();
  let at = keys.end;
  for (const key of keys.value) {
    const head = await readAt(path, at, 8);
    const length = Number(new DataView(head.buffer, head.byteOffset).getBigInt64(0, true));
    const width = types.get(String(key));
    if (width === undefined) throw refuse(`no tensor says what storage '${String(key)}' holds`);
    const place = { begin: at + 8, bytes: length * width };
    if (!(length >= 0 && place.begin + place.bytes <= total)) throw refuse("a storage does not fit into it");
    storages.set(String(key), place);
    at = place.begin + place.bytes;
  }
  return { value, storages };
}

/** Visits every tensor of a value once, with the keys that lead to it. */
export function eachTensor(value: Value, visit: (tensor: TensorRef, path: readonly string[]) => void): void {
  const seen = new Set<Value>();
  const waiting: [Value, readonly string[]][] = [[value, []]];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const [each, path] = next;
    if (typeof each !== "object" || each === null) continue;
    if ("kind" in each) {
      if (each.kind === "tensor") visit(each, path);
      continue;
    }
    if (seen.has(each)) continue;
    seen.add(each);
    const items: (readonly [unknown, Value])[] =
      each instanceof Map ? [...each] : [...(Array.isArray(each) ? each : each.items).entries()];
    for (const [key, item] of items.reverse()) waiting.push([item, [...path, String(key)]]);
  }
}
