// Kinds of JavaScript values, and which of them fit a parameter of an operator.
import { Generator } from "./generator.ts";
import type { Parameter } from "./schema.ts";
import { Tensor } from "./tensor.ts";
import { FloatScalar } from "./types.ts";

export const ABSENT = 0;
export const TENSOR = 1;
export const INT = 2;
export const FLOAT = 3;
export const BOOL = 4;
export const STRING = 5;
export const NULL = 6;
export const EMPTY = 7;
export const INTS = 8;
export const FLOATS = 9;
export const TENSORS = 10;
export const BOOLS = 11;
export const GENERATOR = 12;
export const MARKED = 13;
export const OTHER = 14;
export const NESTED = 15;
export const KIND_NAMES = [
  "nothing",
  "Tensor",
  "int",
  "float",
  "bool",
  "string",
  "null",
  "[]",
  "int[]",
  "float[]",
  "Tensor[]",
  "bool[]",
  "Generator",
  "float",
  "object",
  "array",
];

export const isWhole = (value: number) => Number.isSafeInteger(value) && !Object.is(value, -0);

export function kindOf(value: unknown): number {
  switch (typeof value) {
    case "number":
      return isWhole(value) ? INT : FLOAT;
    case "boolean":
      return BOOL;
    case "string":
      return STRING;
    case "undefined":
      return ABSENT;
    case "bigint":
      return INT;
  }
  if (value === null) return NULL;
  if (value instanceof Tensor) return TENSOR;
  if (Array.isArray(value)) return kindOfList(value);
  if (value instanceof Generator) return GENERATOR;
  return value instanceof FloatScalar ? MARKED : OTHER;
}

/** Lists are of their widest entry's kind: [1, 0.5] are floats, [null, t] tensors. */
function kindOfList(values: readonly unknown[]): number {
  if (values.length === 0) return EMPTY;
  let kind = EMPTY;
  for (const value of values) {
    const one = kindOf(value);
    if (one === TENSOR || one === NULL) kind = kind === EMPTY || kind === TENSORS ? TENSORS : NESTED;
    else if (one === INT) kind = kind === EMPTY ? INTS : kind === INTS || kind === FLOATS ? kind : NESTED;
    else if (one === FLOAT || one === MARKED)
      kind = kind === EMPTY || kind === INTS || kind === FLOATS ? FLOATS : NESTED;
    else if (one === BOOL) kind = kind === EMPTY || kind === BOOLS ? BOOLS : NESTED;
    else return NESTED;
  }
  return kind;
}

const SCALAR_TYPES: Record<string, readonly number[]> = {
  Tensor: [TENSOR],
  Scalar: [INT, FLOAT, BOOL, MARKED],
  int: [INT],
  float: [INT, FLOAT, MARKED],
  bool: [BOOL],
  str: [STRING],
  ScalarType: [STRING],
  Layout: [STRING],
  Device: [STRING, INT],
  MemoryFormat: [STRING],
  Generator: [GENERATOR],
};
const LIST_TYPES: Record<string, readonly number[]> = {
  Tensor: [TENSORS, EMPTY],
  Scalar: [INTS, FLOATS, EMPTY],
  int: [INTS, EMPTY],
  float: [INTS, FLOATS, EMPTY],
  bool: [BOOLS, EMPTY],
};

export function fits(kind: number, parameter: Parameter, numbersAsTensors: boolean): boolean {
  if (kind === ABSENT) return parameter.default !== undefined || parameter.nullable;
  if (kind === NULL) return parameter.nullable;
  if (parameter.list) {
    if (LIST_TYPES[parameter.type]?.includes(kind)) return true;
    return parameter.size > 0 && (SCALAR_TYPES[parameter.type]?.includes(kind) ?? false);
  }
  if (SCALAR_TYPES[parameter.type]?.includes(kind)) return true;
  return (
    numbersAsTensors &&
    parameter.type === "Tensor" &&
    (kind === INT || kind === FLOAT || kind === BOOL || kind === MARKED)
  );
}
