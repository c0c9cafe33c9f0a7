// Tensors inside the arguments and results of a forward: lists, plain objects and model outputs, nested.

import { isOptions } from "./options.ts";
import { Tensor } from "./tensor.ts";

/** Objects whose enumerable fields count as contents: plain ones, and model outputs (they have `to_tuple`). */
function isRecord(value: unknown): value is Record<string, unknown> {
  return isOptions(value) || typeof (value as { to_tuple?: unknown } | null)?.to_tuple === "function";
}

/** All tensors in `value`, in the order in which they are met. */
export function tensorsIn(value: unknown, found: Tensor[] = []): Tensor[] {
  if (value instanceof Tensor) found.push(value);
  else if (Array.isArray(value)) for (const item of value) tensorsIn(item, found);
  else if (isRecord(value)) for (const key of Object.keys(value)) tensorsIn(value[key], found);
  return found;
}

/** A copy of `value` in which each tensor is replaced; whatever holds no tensor is kept as it is. */
export function mapTensors<T>(value: T, replace: (tensor: Tensor) => Tensor): T;
export function mapTensors(value: unknown, replace: (tensor: Tensor) => Tensor): unknown {
  if (value instanceof Tensor) return replace(value);
  if (Array.isArray(value)) return value.map((item) => mapTensors(item, replace));
  if (!isRecord(value)) return value;
  const copy = Object.create(Object.getPrototypeOf(value), Object.getOwnPropertyDescriptors(value));
  for (const key of Object.keys(value)) copy[key] = mapTensors(value[key], replace);
  return copy;
}
