// Operators that torch keeps to itself: they change their arguments and return nothing.

import type { Value } from "../addon/addon.ts";
import { addon } from "../addon/loader.ts";
import { Tensor } from "../torch/index.ts";
import { findOp } from "../torch/resolve.ts";

type Argument = Tensor | readonly Tensor[] | number | boolean | null;

const crossing = (argument: Argument): Value => {
  if (argument instanceof Tensor) return argument._handle;
  return Array.isArray(argument) ? argument.map(({ _handle }: Tensor) => _handle) : (argument as Value);
};

/** Runs `aten::name.overload` on arguments in the schema's order. */
export function run(name: string, overload: string, ...args: Argument[]): void {
  addon().call(findOp(name, overload), null, ...args.map(crossing));
}
