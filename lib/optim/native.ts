// Operators that torch keeps to itself: they change their arguments and return nothing.

import type { Value } from "../addon/addon.ts";
import { addon } from "../addon/loader.ts";
import { BoundNumber, recording } from "../compile/session.ts";
import { findOp } from "../torch/resolve.ts";
import { adopt, Tensor } from "../torch/tensor.ts";

type Argument = Tensor | readonly Tensor[] | number | BoundNumber | boolean | null;

const crossing = (argument: Argument): Value => {
  if (argument instanceof BoundNumber) return argument.value;
  if (argument instanceof Tensor) return argument._handle;
  return Array.isArray(argument) ? argument.map(({ _handle }: Tensor) => _handle) : (argument as Value);
};

/** A setting, which may differ in each run of a Program: a learning rate is no reason to record again. */
export const setting = (read: () => number): number | BoundNumber => recording()?.number(read) ?? read();

/** What decides which operators run: a Program holds as long as it stays the same. */
export const decision = <T>(read: () => T): T => recording()?.depend(read) ?? read();

/** Runs `aten::name.overload`, which writes its arguments, on arguments in the schema's order. */
export function run(name: string, overload: string, ...args: Argument[]): void {
  call(name, overload, args);
}

/** The fresh tensor that `aten::name.overload` makes of arguments in the schema's order. */
export const compute = (name: string, overload: string, ...args: Argument[]): Tensor =>
  adopt(call(name, overload, args) as number);

/** L2 regularization: gradient + weight_decay * parameter, where there is any. */
export const decayed = (grad: Tensor, param: Tensor, group: { readonly weight_decay: number }): Tensor =>
  decision(() => group.weight_decay !== 0)
    ? compute(
        "add",
        "Tensor",
        grad,
        param,
        setting(() => group.weight_decay),
      )
    : grad;

function call(name: string, overload: string, args: readonly Argument[]): Value {
  const native = addon();
  const result = native.call(findOp(name, overload), null, ...args.map(crossing));
  if (recording() !== undefined) {
    for (const [i, argument] of args.entries())
      if (argument instanceof BoundNumber) native.bindNumber(i, argument.index);
  }
  return result;
}
