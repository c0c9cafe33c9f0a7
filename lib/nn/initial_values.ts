// Which tensors hold the values that `nn.init` gave them, and nothing since: a layer that was made for a loaded model and
// never got weights is found by it.
import type { Tensor } from "../torch/index.ts";

interface Mark {
  readonly version: number;
  readonly storage: number;
}

const marks = new WeakMap<Tensor, Mark>();
let modules = 0;

const present = (tensor: Tensor): Mark => ({
  version: tensor._version,
  storage: tensor.untyped_storage().id,
});

/** Says that a tensor now holds initial values. */
export function markInitial(tensor: Tensor): void {
  if (!tensor.is_meta) marks.set(tensor, present(tensor));
}

/** Says that initial values are what is meant, as those of an adapter, with which nothing changes before training. */
export function acceptInitial(...tensors: readonly Tensor[]): void {
  for (const tensor of tensors) marks.delete(tensor);
}

/** Whether a tensor still holds the initial values that were written into it. */
export function isInitial(tensor: Tensor): boolean {
  const mark = marks.get(tensor);
  if (mark === undefined || tensor.is_disposed || tensor.is_meta) return false;
  const { version, storage } = present(tensor);
  return mark.version === version && mark.storage === storage;
}

/** Counts a module; called by every constructor. */
export function countModule(): void {
  modules++;
}

/** How many modules were made so far: while the number stays, no new one can have come into a model. */
export const modulesMade = (): number => modules;
