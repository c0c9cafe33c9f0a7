// torch.ops: every operator of the registry, by its own name.
import type { Value } from "../addon/addon.ts";
import { addon } from "../addon/loader.ts";
import { findOp, pack, tensorOp } from "./native_op.ts";
import { parseSchema } from "./schema.ts";

/** One overload of an operator: arguments in the schema's order, tensors as Tensor. */
export type OpOverload = (...args: unknown[]) => unknown;
/** An operator: its overloads by name (`default` where the schema has none). */
export type OpPacket = Readonly<Record<string, OpOverload>>;

function opOverload(text: string): OpOverload {
  const schema = parseSchema(text);
  const name = text.slice(0, text.search(/[.(]/));
  const cross = (value: unknown): Value => {
    if (Array.isArray(value)) return value.map(cross);
    return typeof value === "object" && value !== null && "_handle" in value
      ? (value._handle as number)
      : (value as Value);
  };
  const fresh =
    schema.results.length === 1 &&
    schema.results[0]?.type === "Tensor" &&
    !schema.results[0].list &&
    !schema.results[0].written;
  const written = schema.parameters.findIndex((parameter) => parameter.written);
  return (...args) => {
    const values = args.map(cross);
    if (fresh) return tensorOp(name, schema.overload, ...values);
    const result = addon().call(findOp(name, schema.overload), null, ...values);
    if (schema.results.length === 1 && schema.results[0]?.written && !schema.results[0].list)
      return args[written];
    return pack(result, schema.results);
  };
}

/** All operators of a namespace, by name, made from the registry when they are first asked for. */
function namespace(prefix: string): Readonly<Record<string, OpPacket>> {
  const texts = new Map<string, string[]>();
  for (const text of addon().listOps()) {
    if (!text.startsWith(`${prefix}::`)) continue;
    const name = text.slice(prefix.length + 2, text.search(/[.(]/));
    texts.set(name, [...(texts.get(name) ?? []), text]);
  }
  const operators: Record<string, OpPacket> = {};
  for (const [name, overloads] of texts) lazily(operators, name, () => packet(overloads));
  return operators;
}

function packet(texts: readonly string[]): OpPacket {
  const overloads: Record<string, OpOverload> = {};
  for (const text of texts)
    lazily(overloads, text.match(/^\w+::\w+\.(\w+)\(/)?.[1] ?? "default", () => opOverload(text));
  return overloads;
}

/** A property that is made when it is read for the first time. */
function lazily(target: object, name: string, make: () => unknown): void {
  Object.defineProperty(target, name, {
    enumerable: true,
    configurable: true,
    get: () => {
      const value = make();
      Object.defineProperty(target, name, { value, enumerable: true });
      return value;
    },
  });
}

/**
 * Every operator of the registry, untyped, without conversions beyond Tensor and number.
 *
 * @example
 * torch.ops.aten._fused_adamw_.default(params, grads, …);
 */
export const ops = {} as { readonly aten: Readonly<Record<string, OpPacket>> };
lazily(ops, "aten", () => namespace("aten"));
