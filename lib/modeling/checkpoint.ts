// The tensors of a checkpoint, over all of its files, before any of them is read.
import type { PretrainedConfig } from "../configuration/index.ts";
import { CheckpointError } from "../errors/index.ts";
import type { CheckpointFiles } from "../hub/checkpoint.ts";
import { type SafeOpen, safe_open } from "../safetensors/index.ts";
import { asDtype } from "../torch/dtype.ts";
import type { Dtype } from "../torch/index.ts";
import { naturalOrder } from "./natural_order.ts";

export interface Entry {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly file: SafeOpen;
  /** Name in the file. */
  readonly name: string;
}

/** All tensors of all files by their names, none of them read yet. */
export class Checkpoint {
  readonly entries: ReadonlyMap<string, Entry>;
  readonly #files: readonly SafeOpen[];

  private constructor(files: readonly SafeOpen[], entries: ReadonlyMap<string, Entry>) {
    this.#files = files;
    this.entries = entries;
  }

  static async open({ files, weight_map }: CheckpointFiles): Promise<Checkpoint> {
    const opened: SafeOpen[] = [];
    const found: [string, Entry][] = [];
    try {
      for (const path of files) {
        const file = await safe_open(path);
        opened.push(file);
        for (const name of file.keys()) {
          if (weight_map && weight_map.get(name) !== path) continue;
          const { dtype, shape } = file.get_info(name);
          found.push([name, { dtype: asDtype(dtype), shape, file, name }]);
        }
      }
      const entries = new Map(found.sort(([a], [b]) => naturalOrder(a, b)));
      const present = new Set(found.map(([, { name }]) => name));
      for (const [name, path] of weight_map ?? []) {
        if (present.has(name)) continue;
        throw new CheckpointError(`The index says that ${path} holds '${name}', and it does not.`);
      }
      return new Checkpoint(opened, entries);
    } catch (error) {
      for (const file of opened) file.close();
      throw error;
    }
  }

  close(): void {
    for (const file of this.#files) file.close();
  }
}

/** Refuses a config that would build a model without end: each layer needs at least one tensor in the file. */
export function assertPlausible(config: PretrainedConfig, checkpoint: Checkpoint, source: string): void {
  for (const [field, value] of Object.entries(config)) {
    const counts = /layers$|^n_layer$|^depth$/.test(field) && typeof value === "number";
    if (!counts || value <= Math.max(1000, checkpoint.entries.size)) continue;
    throw new CheckpointError(
      `config.${field} is ${value}, but ${source} has only ${checkpoint.entries.size} tensors: the weights of almost all layers are missing.`,
    );
  }
}
