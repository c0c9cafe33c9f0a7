// Writes safetensors files.
import { fileURLToPath } from "node:url";
import { addon } from "../addon/loader.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import { Tensor } from "../torch/index.ts";
import { readOptions } from "../torch/options.ts";

/** Options of `save_file`. */
export interface SaveFileOptions {
  /** Text that is kept in the file's header under `__metadata__`. Python's libraries look for `{ format: "pt" }`. */
  readonly metadata?: Readonly<Record<string, string>> | null | undefined;
}

/**
 * Writes tensors into a safetensors file, byte for byte as the reference does, off the event loop.
 *
 * The file appears whole or not at all: it is written beside its place, made durable, and moved there. Tensors that are
 * not contiguous or lie on another device are copied. Changing a tensor before the promise resolves may reach the file.
 *
 * @throws InvalidArgumentError when two tensors share memory, which the format cannot say.
 * @throws FileError when the file cannot be written; nothing is left behind.
 * @example
 * await safetensors.save_file(model.state_dict(), "model.safetensors", { metadata: { format: "pt" } });
 */
export async function save_file(
  tensors: Readonly<Record<string, Tensor>> | ReadonlyMap<string, Tensor>,
  path: string | URL,
  options: SaveFileOptions = {},
): Promise<void> {
  const { metadata = null } = readOptions("save_file", [options], ["metadata"]) as SaveFileOptions;
  const entries = tensors instanceof Map ? [...tensors] : Object.entries(tensors);
  for (const [name, tensor] of entries) {
    if (!(tensor instanceof Tensor)) throw new InvalidArgumentError(`[save_file] '${name}' is not a Tensor.`);
  }
  checkMetadata(metadata);
  refuseShared(entries);
  await addon().saveSafetensors(
    path instanceof URL ? fileURLToPath(path) : path,
    entries.map(([name]) => name),
    entries.map(([, tensor]) => tensor._handle),
    metadata,
  );
}

function checkMetadata(metadata: SaveFileOptions["metadata"]): void {
  for (const [key, value] of Object.entries(metadata ?? {})) {
    if (typeof value === "string") continue;
    throw new InvalidArgumentError(
      `[save_file] metadata holds text only, and '${key}' is of type ${typeof value}.`,
      {
        hint: "Turn it into text first, for example with JSON.stringify.",
      },
    );
  }
}

/** Bytes of its storage that a tensor spans: [begin, end). */
function span(tensor: Tensor): readonly [number, number] {
  const strides = tensor.stride();
  const last = tensor.shape.reduce(
    (at, size, i) => at + (size - 1) * (strides[i] as number),
    tensor.storage_offset(),
  );
  return [tensor.storage_offset() * tensor.itemsize, (last + 1) * tensor.itemsize];
}

/** Two names for one memory would be written twice and be two tensors when they are loaded. */
function refuseShared(entries: readonly (readonly [string, Tensor])[]): void {
  const storages = new Map<number, { name: string; begin: number; end: number }[]>();
  for (const [name, tensor] of entries) {
    if (tensor.is_meta || tensor.numel() === 0) continue;
    const { id } = tensor.untyped_storage();
    const [begin, end] = span(tensor);
    const others = storages.get(id) ?? [];
    const other = others.find((o) => begin < o.end && o.begin < end);
    if (other) {
      throw new InvalidArgumentError(
        `[save_file] '${other.name}' and '${name}' share memory, and the format has no way to say so.`,
        {
          hint: "Save one of them, or a copy (`tensor.clone()`). A model's save_pretrained leaves tied weights out.",
        },
      );
    }
    others.push({ name, begin, end });
    storages.set(id, others);
  }
}
