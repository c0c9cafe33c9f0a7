// Operator overloads by name: their ids, calls with values that are ready to cross, and what comes back.
import type { OpId, Value } from "../addon/addon.ts";
import { addon } from "../addon/loader.ts";
import type { Result } from "./schema.ts";
import { adopt, Tensor } from "./tensor.ts";

const operators = new Map<string, OpId>();

/** The id of an overload, looked up once. */
export function findOp(name: string, overload: string): OpId {
  const key = `${name}.${overload}`;
  let op = operators.get(key);
  if (op === undefined) {
    op = addon().findOp(name.includes("::") ? name : `aten::${name}`, overload);
    operators.set(key, op);
  }
  return op;
}

/** Runs an overload whose result is one fresh tensor, on values that are ready to cross. */
export function tensorOp(name: string, overload: string, ...args: Value[]): Tensor {
  const out = new Tensor();
  out._handle = addon().call(findOp(name, overload), out, ...args) as number;
  return out;
}

/** Results that are not one fresh tensor: handles get their objects, several results get their names. */
export function pack(value: Value, results: readonly Result[]): unknown {
  if (results.length === 0) return undefined;
  if (results.length === 1) return packOne(value, results[0] as Result);
  const items = (value as Value[]).map((item, i) => packOne(item, results[i] as Result));
  for (const [i, { name }] of results.entries()) {
    if (name !== "") Object.defineProperty(items, name, { value: items[i], enumerable: false });
  }
  return items;
}

function packOne(value: Value, result: Result): unknown {
  if (result.type !== "Tensor") return value;
  if (result.list) return (value as number[]).map(adoptOrNull);
  return adoptOrNull(value);
}

const adoptOrNull = (value: Value) => (value ? adopt(value as number) : null);
