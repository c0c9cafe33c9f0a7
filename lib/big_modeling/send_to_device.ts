// Arguments and results on their way between devices.

import { type Device, Tensor } from "../torch/index.ts";
import { isOptions } from "../torch/options.ts";
import { tensorsIn } from "../torch/tensor_tree.ts";

/** Where the first tensor in some arguments is; undefined without one. */
export const findDevice = (value: unknown): Device | undefined => tensorsIn(value)[0]?.device;

const isRecord = (value: unknown): value is Record<string, unknown> =>
  isOptions(value) || typeof (value as { to_tuple?: unknown } | null)?.to_tuple === "function";

/**
 * `value` with its tensors on `device`: in lists, plain objects and model outputs, however deep; entries of objects under a name
 * in `skip` stay. What needs no move is given back as the same object.
 */
export function sendTo<T>(value: T, device: Device, skip?: ReadonlySet<string>): T;
export function sendTo(value: unknown, device: Device, skip: ReadonlySet<string> = new Set()): unknown {
  if (value instanceof Tensor) return value.device === device ? value : value.to({ device });
  if (Array.isArray(value)) {
    const moved = value.map((item) => sendTo(item, device, skip));
    return moved.some((item, i) => item !== value[i]) ? moved : value;
  }
  if (!isRecord(value)) return value;
  let copy: Record<string, unknown> | undefined;
  for (const key of Object.keys(value)) {
    if (skip.has(key)) continue;
    const moved = sendTo(value[key], device, skip);
    if (moved === value[key]) continue;
    copy ??= Object.create(Object.getPrototypeOf(value), Object.getOwnPropertyDescriptors(value)) as Record<
      string,
      unknown
    >;
    copy[key] = moved;
  }
  return copy ?? value;
}

/** Names as a set, however they were given. */
export const nameSet = (names: string | Iterable<string> | null | undefined): ReadonlySet<string> =>
  new Set(typeof names === "string" ? [names] : (names ?? []));
