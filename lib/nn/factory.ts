// Where and as what the tensors of a new layer are made.

import { type Device, type Dtype, empty } from "../torch/index.ts";
import { Parameter } from "./parameter.ts";

/** Where and as what the tensors of a new layer are made. */
export interface FactoryOptions {
  /** Default: torch's default device. */
  device?: Device | null | undefined;
  /** Default: torch's default dtype. */
  dtype?: Dtype | null | undefined;
}

/** Defaults of {@link FactoryOptions}, for `bind`. */
export const FACTORY: FactoryOptions = { device: undefined, dtype: undefined };

/** The options of `torch.empty` and the like. */
export const factory = ({
  device,
  dtype,
}: FactoryOptions): { device: Device | null; dtype: Dtype | null } => ({
  device: device ?? null,
  dtype: dtype ?? null,
});

/** A parameter without values yet. */
export function emptyParameter(
  shape: readonly number[],
  options: FactoryOptions,
  requires_grad = true,
): Parameter {
  const memory = empty(shape, factory(options));
  const parameter = new Parameter(memory, requires_grad);
  // The parameter holds the memory now: one handle per tensor is enough.
  memory.dispose();
  return parameter;
}
