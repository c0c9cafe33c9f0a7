// Python's arithmetic: floats stay floats, // and % round down, + and * work on sequences.

import { percentFormat } from "./strings.ts";
import {
  checkSize,
  Float,
  isNumber,
  JinjaError,
  MAX_ITEMS,
  numberOf,
  repeat,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from "./values.ts";

const modulo = (a: number, b: number): number => a - b * Math.floor(a / b);

export function arithmetic(operator: string, left: Value, right: Value): Value {
  for (const side of [left, right]) if (side instanceof Undefined) throw new JinjaError(side.reason);
  if (operator === "%" && typeof left === "string") return percentFormat(left, right);
  if (isNumber(left) && isNumber(right)) return numeric(operator, left, right);
  if (operator === "+") {
    if (typeof left === "string" && typeof right === "string") return left + right;
    if (left instanceof Tuple && right instanceof Tuple) return Tuple.make([...left, ...right]);
    if (Array.isArray(left) && Array.isArray(right)) return left.concat(right);
  }
  if (operator === "*") {
    const isWhole = (value: Value) => typeof value === "number" || typeof value === "boolean";
    const [sequence, count] = isWhole(left) ? [right, left] : [left, right];
    const times = Number(count);
    if (isWhole(count) && typeof sequence === "string") return repeat(sequence, times);
    if (isWhole(count) && Array.isArray(sequence)) {
      checkSize(sequence.length * times, MAX_ITEMS);
      const copies = Array.from({ length: sequence.length === 0 ? 0 : Math.max(0, times) }, () => sequence);
      return sequence instanceof Tuple ? Tuple.make(copies.flat()) : copies.flat();
    }
  }
  throw new JinjaError(
    `unsupported operand type(s) for ${operator}: '${typeName(left)}' and '${typeName(right)}'`,
  );
}

function numeric(operator: string, left: number | Float | boolean, right: number | Float | boolean): Value {
  const [a, b] = [numberOf(left), numberOf(right)];
  const isFloat = left instanceof Float || right instanceof Float;
  const result = (value: number): Value => (isFloat ? new Float(value) : value);
  if (b === 0 && ["/", "//", "%"].includes(operator)) throw new JinjaError("division by zero");
  switch (operator) {
    case "+":
      return result(a + b);
    case "-":
      return result(a - b);
    case "*":
      return result(a * b);
    case "/":
      return new Float(a / b);
    case "//":
      return result(Math.floor(a / b));
    case "%":
      return result(modulo(a, b));
    case "**":
      return b < 0 ? new Float(a ** b) : result(a ** b);
    default:
      throw new JinjaError(`unknown operator ${operator}`);
  }
}
