// Calls of operators: from the arguments of a function or a method to the addon, and back to tensors.
import type { Addon, OpId, Value } from "../addon/addon.ts";
import { addon } from "../addon/loader.ts";
import { defaultDevice } from "./default_device.ts";
import { pack } from "./native_op.ts";
import { isOptions } from "./options.ts";
import { isFactory, namedPlan, Operator, type Plan, planFor } from "./plans.ts";
import { Tensor } from "./tensor.ts";

export { findOp, pack, tensorOp } from "./native_op.ts";
export { Operator } from "./plans.ts";

/** Runs an operator on the arguments of a function (or of a method, its receiver first). */
export function invoke(operator: Operator, args: unknown[], method: boolean): unknown {
  let count = args.length;
  while (count > 0 && args[count - 1] === undefined) count--;
  const last = args[count - 1];
  if (count > 0 && isOptions(last)) return invokeNamed(operator, args, count - 1, last, method);
  return run(planFor(operator, args, count, method), args, count);
}

function invokeNamed(
  operator: Operator,
  args: readonly unknown[],
  count: number,
  options: Record<string, unknown>,
  method: boolean,
): unknown {
  const names: string[] = [];
  const values: unknown[] = args.slice(0, count);
  let requiresGrad = false;
  for (const name of Object.keys(options)) {
    const value = options[name];
    if (value === undefined) continue;
    if (name === "requires_grad" && operator.schemas.some(isFactory)) {
      requiresGrad = value === true;
    } else {
      names.push(name);
      values.push(value);
    }
  }
  const result = run(namedPlan(operator, values, count, names, method), values, count);
  if (requiresGrad) addon().setRequiresGrad((result as Tensor)._handle, true);
  return result;
}

function run(plan: Plan, args: readonly unknown[], count: number): unknown {
  const { sources, converts, crossing } = plan;
  const values = new Array<Value>(crossing);
  for (let i = 0; i < crossing; i++) {
    const source = sources[i] as number;
    if (source < 0) continue;
    const convert = converts[i];
    if (source === plan.varargs) values[i] = args.slice(source, count) as number[];
    else values[i] = convert === undefined ? (args[source] as Value) : convert(args[source], args);
  }
  if (plan.deviceAt >= 0 && defaultDevice.name !== undefined && values[plan.deviceAt] == null)
    values[plan.deviceAt] = defaultDevice.name;
  const native = addon();
  if (plan.freshTensor) {
    const out = new Tensor();
    out._handle = apply(native, plan.op, out, values) as number;
    return out;
  }
  const result = apply(native, plan.op, null, values);
  return plan.returnsArgument >= 0 ? args[plan.returnsArgument] : pack(result, plan.schema.results);
}

/** `call` without a spread for the usual numbers of arguments. */
function apply(native: Addon, op: OpId, owner: object | null, v: readonly Value[]): Value {
  switch (v.length) {
    case 1:
      return native.call(op, owner, v[0]);
    case 2:
      return native.call(op, owner, v[0], v[1]);
    case 3:
      return native.call(op, owner, v[0], v[1], v[2]);
    case 4:
      return native.call(op, owner, v[0], v[1], v[2], v[3]);
    case 5:
      return native.call(op, owner, v[0], v[1], v[2], v[3], v[4]);
    default:
      return native.call(op, owner, ...v);
  }
}

/** The public function of an operator. */
export function operator(name: string): (...args: never[]) => unknown {
  const found = new Operator(name);
  return (...args: unknown[]) => invoke(found, args, false);
}

/** The public method of an operator. */
export function method(name: string): (this: Tensor, ...args: unknown[]) => unknown {
  const found = new Operator(name);
  return function (this: Tensor, ...args: unknown[]) {
    args.unshift(this);
    return invoke(found, args, true);
  };
}
