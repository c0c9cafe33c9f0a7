// Where the values of offloaded weights come from: tensors in memory or over mapped files, or files that are read at each use.
import { isAbsolute, resolve } from "node:path";
import { CheckpointError, InvalidArgumentError } from "../errors/index.ts";
import { type SafeOpen, safe_open } from "../safetensors/index.ts";
import { asDtype } from "../torch/dtype.ts";
import type { Dtype, Tensor } from "../torch/index.ts";
import { type OffloadIndex, readOffloadedWeight, readOffloadIndex } from "./offload_folder.ts";

/** The values of one weight. */
export interface WeightSource {
  /** A tensor that stays where it is for as long as the model lives; undefined: `read` makes one at each use. */
  readonly tensor: Tensor | undefined;
  /** Fresh values, to be disposed of by the caller. */
  read(): Tensor;
}

/** Name → values. Plain objects of tensors will do. */
export interface WeightsMap {
  has(name: string): boolean;
  source(name: string): WeightSource;
}

/** A tensor as a source. */
export const sourceOf = (tensor: Tensor): WeightSource => ({ tensor, read: () => tensor.detach() });

/** Tensors by name as a map. */
export function mapOf(tensors: Readonly<Record<string, Tensor>> | ReadonlyMap<string, Tensor>): WeightsMap {
  const all =
    tensors instanceof Map ? (tensors as ReadonlyMap<string, Tensor>) : new Map(Object.entries(tensors));
  return {
    has: (name) => all.has(name),
    source: (name) => sourceOf(known(all.get(name), name)),
  };
}

/** The part of a map under a prefix. */
export const prefixed = (map: WeightsMap, prefix: string): WeightsMap => ({
  has: (name) => map.has(prefix + name),
  source: (name) => map.source(prefix + name),
});

export const isWeightsMap = (value: object): value is WeightsMap =>
  typeof (value as Partial<WeightsMap>).source === "function";

function known<T>(value: T | undefined, name: string): T {
  if (value !== undefined) return value;
  throw new InvalidArgumentError(`The offloaded weights have no '${name}'.`);
}

/**
 * Weights in a state dict, in an offload folder, or where an index says: first what the state dict has.
 *
 * @example
 * const weights = await OffloadedWeightsLoader.open({ save_folder: "./offload" });
 * weights.get("lm_head.weight");
 */
export class OffloadedWeightsLoader implements WeightsMap {
  readonly #sources: ReadonlyMap<string, WeightSource>;

  private constructor(sources: ReadonlyMap<string, WeightSource>) {
    this.#sources = sources;
  }

  static async open({
    state_dict,
    save_folder,
    index,
  }: {
    readonly state_dict?: Readonly<Record<string, Tensor>> | undefined;
    readonly save_folder?: string | undefined;
    /** Default: index.json of the folder. */
    readonly index?: OffloadIndex | undefined;
  }): Promise<OffloadedWeightsLoader> {
    if (state_dict === undefined && save_folder === undefined && index === undefined)
      throw new InvalidArgumentError("OffloadedWeightsLoader needs a state_dict, a save_folder or an index.");
    const sources = new Map<string, WeightSource>();
    const entries = index ?? (save_folder === undefined ? {} : await readOffloadIndex(save_folder));
    await openIndex(entries, save_folder, sources);
    for (const [name, tensor] of Object.entries(state_dict ?? {})) sources.set(name, sourceOf(tensor));
    return new OffloadedWeightsLoader(sources);
  }

  keys(): string[] {
    return [...this.#sources.keys()];
  }

  get size(): number {
    return this.#sources.size;
  }

  has(name: string): boolean {
    return this.#sources.has(name);
  }

  source(name: string): WeightSource {
    return known(this.#sources.get(name), name);
  }

  /** The values of a weight on the CPU. */
  get(name: string): Tensor {
    return this.source(name).read();
  }
}

/** Opens the files of an index. Those of safetensors are mapped once, however many weights they hold. */
async function openIndex(
  index: OffloadIndex,
  folder: string | undefined,
  sources: Map<string, WeightSource>,
): Promise<void> {
  const files = new Map<string, SafeOpen>();
  for (const [name, entry] of Object.entries(index)) {
    const { safetensors_file, weight_name = name, dtype } = entry;
    if (safetensors_file === undefined) {
      if (folder === undefined)
        throw new CheckpointError(`'${name}' lies in an offload folder, and none is named.`);
      sources.set(name, { tensor: undefined, read: () => readOffloadedWeight(folder, name, entry) });
      continue;
    }
    if (!isAbsolute(safetensors_file) && safetensors_file.split(/[\\/]/).includes(".."))
      throw new CheckpointError(
        `The offload index leads out of its folder: '${safetensors_file}' for '${name}'.`,
      );
    const file = files.get(safetensors_file) ?? (await safe_open(resolve(safetensors_file)));
    files.set(safetensors_file, file);
    sources.set(name, fileSource(file, weight_name, dtype === undefined ? undefined : asDtype(dtype)));
  }
}

/** A tensor of a safetensors file: the mapping where it can be used as it lies, else read at each use. */
export function fileSource(file: SafeOpen, name: string, dtype?: Dtype): WeightSource {
  const isAsStored = dtype === undefined || file.get_info(name).dtype === dtype;
  if (isAsStored && file.is_aligned(name)) return sourceOf(file.get_tensor(name));
  return {
    tensor: undefined,
    read() {
      const stored = file.get_tensor(name);
      if (isAsStored) return stored;
      const cast = stored.to({ dtype: dtype as Dtype });
      stored.dispose();
      return cast;
    },
  };
}
