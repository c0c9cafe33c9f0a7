// Which overload a call means: the kinds of its arguments pick a plan, which says how each argument crosses and what
// the result becomes. Plans are made once per combination of kinds.
import type { OpId, Value } from "../addon/addon.ts";
import { addon } from "../addon/loader.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import type { Generator } from "./generator.ts";
import {
  ABSENT,
  FLOATS,
  fits,
  GENERATOR,
  INT,
  isWhole,
  KIND_NAMES,
  kindOf,
  MARKED,
  NULL,
  TENSOR,
  TENSORS,
} from "./kinds.ts";
import { findOp, tensorOp } from "./native_op.ts";
import { type Parameter, parseSchema, type Schema } from "./schema.ts";
import { SCHEMAS } from "./schemas.generated.ts";
import { Tensor } from "./tensor.ts";
import { FloatScalar } from "./types.ts";

type Convert = (value: unknown, args: readonly unknown[]) => Value;

export interface Plan {
  readonly schema: Schema;
  op: OpId;
  /** Per parameter of the schema: where its value stands in the call, -1 when absent. */
  readonly sources: readonly number[];
  /** How many values cross; the rest of the schema takes its defaults. */
  readonly crossing: number;
  /** Per parameter: how its value crosses; undefined when as it is. */
  readonly converts: readonly (Convert | undefined)[];
  /** Every integer from this place on is one entry of the size list; -1 when the list is an array. */
  readonly varargs: number;
  /** Index of the argument that the operator writes and returns; -1 when the result is new. */
  readonly returnsArgument: number;
  readonly freshTensor: boolean;
  /** Makes a tensor out of nothing, so the default device applies. */
  readonly deviceAt: number;
}

const handleOf = (value: unknown) => (value as Tensor | Generator)._handle;
const CONVERTS: Record<number, Convert | undefined> = {
  [TENSOR]: handleOf,
  [GENERATOR]: handleOf,
  [TENSORS]: (value) => (value as (Tensor | null)[]).map((item) => (item === null ? null : item._handle)),
  // The addon reads [x] as a float, whole or not.
  [MARKED]: (value) => [(value as FloatScalar).value],
  [FLOATS]: (value) => (value as (number | FloatScalar)[]).map(Number),
};

function converter(kind: number, parameter: Parameter): Convert | undefined {
  if (parameter.type === "Tensor" && !parameter.list && kind !== TENSOR && kind !== NULL)
    return (value, args) => wrapNumber(value, args)._handle;
  if (parameter.type === "Device" && kind === INT) return (value) => `cuda:${value}`;
  return CONVERTS[kind];
}

/**
 * A number where a tensor is wanted, as a tensor without dimensions. In torch such a number yields to the dtype of
 * the tensors beside it as far as its category allows; a tensor of the dtype that both give has the same effect.
 */
function wrapNumber(value: unknown, args: readonly unknown[]): Tensor {
  const beside = args.find((arg) => arg instanceof Tensor);
  const number = value instanceof FloatScalar ? [value.value] : value;
  const isFloat = value instanceof FloatScalar || (typeof value === "number" && !isWhole(value));
  const own = typeof value === "boolean" ? "bool" : isFloat ? addon().defaultDtype() : "int64";
  const dtype = beside ? promoteNumber(beside.dtype, own) : own;
  return tensorOp("scalar_tensor", "", number as Value, dtype);
}

const category = (dtype: string) =>
  dtype === "bool" ? 0 : /^u?int/.test(dtype) ? 1 : dtype.startsWith("complex") ? 3 : 2;
const promoteNumber = (dtype: string, own: string) => (category(own) > category(dtype) ? own : dtype);

function makePlan(
  schema: Schema,
  places: readonly number[],
  kinds: readonly number[],
  varargs: number,
): Plan {
  const { parameters, results } = schema;
  const [result] = results;
  const single = results.length === 1 && result !== undefined;
  const written = parameters.findIndex((parameter) => parameter.written);
  const factory = parameters.every(({ type }) => type !== "Tensor");
  const deviceAt = factory ? parameters.findIndex(({ type }) => type === "Device") : -1;
  return {
    schema,
    op: findOp(schema.name, schema.overload),
    sources: places,
    crossing:
      Math.max(
        places.findLastIndex((source) => source >= 0),
        deviceAt,
      ) + 1,
    converts: parameters.map((parameter, i) =>
      (places[i] as number) < 0 ? undefined : converter(kinds[places[i] as number] as number, parameter),
    ),
    varargs,
    returnsArgument: single && result.written ? (places[written] as number) : -1,
    freshTensor: single && !result.written && result.type === "Tensor" && !result.list,
    deviceAt,
  };
}

/** The overloads of one public name, and the plans made so far. */
export class Operator {
  readonly name: string;
  readonly byKinds = new Map<number, Plan>();
  readonly byNames = new Map<string, Plan>();
  #schemas: Schema[] | undefined;

  constructor(name: string) {
    this.name = name;
  }

  get schemas(): Schema[] {
    this.#schemas ??= schemasOf(this.name);
    return this.#schemas;
  }
}

let schemaTexts: Map<string, string[]> | undefined;

function schemasOf(name: string): Schema[] {
  if (schemaTexts === undefined) {
    schemaTexts = new Map();
    for (const line of SCHEMAS.trim().split("\n")) {
      const key = line.slice(0, line.search(/[.(]/));
      const lines = schemaTexts.get(key);
      if (lines) lines.push(line);
      else schemaTexts.set(key, [line]);
    }
  }
  return (schemaTexts.get(name) ?? []).map(parseSchema);
}

/** Positional arguments only: kinds by place, four bits each. */
export function planFor(operator: Operator, args: readonly unknown[], count: number, method: boolean): Plan {
  if (count > 7) return namedPlan(operator, args.slice(0, count), count, [], method);
  let key = method ? 1 : 0;
  for (let i = 0; i < count; i++) key = key * 16 + kindOf(args[i]);
  key = key * 8 + count;
  let plan = operator.byKinds.get(key);
  if (plan === undefined) {
    plan = choose(operator, args.slice(0, count).map(kindOf), count, [], method);
    operator.byKinds.set(key, plan);
  }
  return plan;
}

/** Positional and named arguments: the first `count` of `args` are positional, behind them stand those of `names`. */
export function namedPlan(
  operator: Operator,
  args: readonly unknown[],
  count: number,
  names: readonly string[],
  method: boolean,
): Plan {
  let key = method ? "m" : "f";
  for (let i = 0; i < args.length; i++) {
    if (i >= count) key += names[i - count];
    key += KIND_MARKS[kindOf(args[i])];
  }
  let plan = operator.byNames.get(key);
  if (plan === undefined) {
    plan = choose(operator, args.map(kindOf), count, names, method);
    operator.byNames.set(key, plan);
  }
  return plan;
}

/** One character per kind that no name has in it. */
const KIND_MARKS = KIND_NAMES.map((_, kind) => String.fromCharCode(0x20 + kind));

/** The first overload that takes arguments of these kinds. */
function choose(
  operator: Operator,
  kinds: readonly number[],
  count: number,
  names: readonly string[],
  method: boolean,
): Plan {
  for (const numbersAsTensors of [false, true]) {
    if (numbersAsTensors && !NUMBERS_AS_TENSORS.has(operator.name)) break;
    for (const schema of operator.schemas) {
      const plan = bind(schema, kinds, count, names, method, numbersAsTensors);
      if (plan !== undefined) return plan;
    }
  }
  throw mismatch(operator, kinds, count, names, method);
}

/** Operators that take a number for any of their tensors, as Python's do. */
const NUMBERS_AS_TENSORS = new Set(
  ["add", "sub", "mul", "div", "divide", "multiply", "subtract", "true_divide", "floor_divide"]
    .flatMap((name) => [name, `${name}_`])
    .concat("copy_"),
);

const nameOf = (parameter: Parameter, method: boolean) =>
  parameter.name === "self" && !method ? "input" : parameter.name;

function bind(
  schema: Schema,
  kinds: readonly number[],
  count: number,
  names: readonly string[],
  method: boolean,
  numbersAsTensors: boolean,
): Plan | undefined {
  const { parameters, positional } = schema;
  const receiver = method ? parameters.findIndex(({ name }) => name === "self") : -1;
  // The receiver of a method stands first in the call, wherever the schema has it.
  const order = parameters.map((_, i) => i);
  if (receiver > 0) order.unshift(...order.splice(receiver, 1));
  const sources = parameters.map(() => -1);
  const listAt = method ? 1 : 0;
  const listParameter = positional === listAt + 1 ? parameters[order[listAt] as number] : undefined;
  let varargs = -1;
  if (
    listParameter?.list &&
    listParameter.type === "int" &&
    count > listAt &&
    kinds.slice(listAt, count).every((kind) => kind === INT)
  ) {
    varargs = listAt;
    if (method) sources[order[0] as number] = 0;
    sources[order[listAt] as number] = listAt;
    if (method && kinds[0] !== TENSOR) return undefined;
  } else {
    if (count > positional) return undefined;
    for (let i = 0; i < count; i++) sources[order[i] as number] = i;
  }
  for (const [i, name] of names.entries()) {
    const at = parameters.findIndex(
      (parameter, j) => nameOf(parameter, method) === name && !(method && j === order[0]),
    );
    if (at < 0 || sources[at] !== -1) return undefined;
    sources[at] = count + i;
  }
  for (const [i, parameter] of parameters.entries()) {
    const source = sources[i] as number;
    if (varargs >= 0 && source === varargs) continue;
    if (!fits(source < 0 ? ABSENT : (kinds[source] as number), parameter, numbersAsTensors)) return undefined;
  }
  return makePlan(schema, sources, kinds, varargs);
}

function mismatch(
  operator: Operator,
  kinds: readonly number[],
  count: number,
  names: readonly string[],
  method: boolean,
): InvalidArgumentError {
  const known = new Set(
    operator.schemas.flatMap(({ parameters }) => parameters.map((parameter) => nameOf(parameter, method))),
  );
  if (operator.schemas.some(isFactory)) known.add("requires_grad");
  const where = `[${operator.name}]`;
  for (const name of names) {
    if (!known.has(name)) {
      return new InvalidArgumentError(`${where} unknown option '${name}'.`, {
        suggestion: suggest(name, known),
      });
    }
  }
  for (const name of names) {
    const twice = operator.schemas.every(({ parameters, positional }) => {
      const at = parameters.findIndex((parameter) => nameOf(parameter, method) === name);
      return at < 0 || (at < count && at < positional);
    });
    if (twice) return new InvalidArgumentError(`${where} '${name}' is given by position and by name.`);
  }
  const given = kinds
    .map((kind, i) => (i < count ? "" : `${names[i - count]}: `) + KIND_NAMES[kind])
    .slice(method ? 1 : 0);
  const forms = operator.schemas.map((schema) => `  ${signature(schema, method)}`);
  return new InvalidArgumentError(
    `${where} no form takes (${given.join(", ")}). There ${forms.length === 1 ? "is" : "are"}:\n${forms.join("\n")}`,
  );
}

/** "(int[]? dim, bool keepdim=false, *, ScalarType? dtype=null)" */
function signature(schema: Schema, method: boolean): string {
  const shown: string[] = [];
  let star = false;
  for (const parameter of schema.parameters) {
    if (method && parameter.name === "self") continue;
    if (parameter.keywordOnly && !star) {
      shown.push("*");
      star = true;
    }
    const type = parameter.type + (parameter.list ? "[]" : "") + (parameter.nullable ? "?" : "");
    const value =
      parameter.default === undefined ? "" : `=${parameter.default.replace("None", "null").toLowerCase()}`;
    shown.push(`${type} ${nameOf(parameter, method)}${value}`);
  }
  return `(${shown.join(", ")})`;
}

export const isFactory = (schema: Schema) =>
  ["dtype", "device", "pin_memory"].every((name) =>
    schema.parameters.some((parameter) => parameter.name === name),
  );
