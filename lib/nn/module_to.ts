// The arguments of `Module.to`, in all the forms that torch takes.

import { isDtype } from "../torch/dtype.ts";
import { type Device, type Dtype, Tensor } from "../torch/index.ts";
import { bind } from "./arguments.ts";

/** How `to` moves and casts. */
export interface ToOptions {
  device?: Device | null | undefined;
  /** A floating point or complex dtype; integer tensors of the module keep theirs. */
  dtype?: Dtype | null | undefined;
  non_blocking?: boolean | undefined;
}

export const isFloatOrComplex = (dtype: Dtype) => /^(float|bfloat|complex)/.test(dtype);

export function parseTo(target: Device | number | Tensor | ToOptions, rest: readonly unknown[]): ToOptions {
  const none: ToOptions = { device: undefined, dtype: undefined, non_blocking: false };
  if (target instanceof Tensor) {
    return {
      ...none,
      ...bind("to", rest, { non_blocking: false }),
      device: target.device,
      dtype: target.dtype,
    };
  }
  if (typeof target === "object" && target !== null) return bind("to", [target], none);
  if (isDtype(target)) return { ...none, ...bind("to", rest, { non_blocking: false }), dtype: target };
  return {
    ...bind("to", rest, { dtype: undefined as Dtype | undefined, non_blocking: false }),
    device: typeof target === "number" ? `cuda:${target}` : target,
  };
}
