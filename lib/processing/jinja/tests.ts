// What may follow `is` in a template: `is defined`, `is string`, `is divisibleby 3`.

import { bind } from "./arguments.ts";
import {
  type Arguments,
  compare,
  contains,
  equal,
  Float,
  isNumber,
  JinjaError,
  numberOf,
  text,
  typeName,
  Undefined,
  type Value,
} from "./values.ts";

type Test = (value: Value, args: Value[]) => boolean;

export const whole = (value: Value): number => {
  if (!isNumber(value)) throw new JinjaError(`a number is needed, not ${typeName(value)}`);
  return numberOf(value);
};

const ORDER: readonly (readonly [string, (order: number) => boolean])[] = [
  ["lt", (order) => order < 0],
  ["le", (order) => order <= 0],
  ["gt", (order) => order > 0],
  ["ge", (order) => order >= 0],
];
const ORDER_NAMES: Readonly<Record<string, readonly string[]>> = {
  lt: ["lt", "lessthan", "<"],
  le: ["le", "<="],
  gt: ["gt", "greaterthan", ">"],
  ge: ["ge", ">="],
};

export const TESTS: ReadonlyMap<string, Test> = new Map<string, Test>([
  ["defined", (value) => !(value instanceof Undefined)],
  ["undefined", (value) => value instanceof Undefined],
  ["none", (value) => value === null],
  ["true", (value) => value === true],
  ["false", (value) => value === false],
  ["boolean", (value) => typeof value === "boolean"],
  ["string", (value) => typeof value === "string"],
  ["number", isNumber],
  ["integer", (value) => typeof value === "number"],
  ["float", (value) => value instanceof Float],
  ["mapping", (value) => value instanceof Map],
  [
    "iterable",
    (value) =>
      value instanceof Undefined || typeof value === "string" || Array.isArray(value) || value instanceof Map,
  ],
  [
    "sequence",
    (value) =>
      value instanceof Undefined || typeof value === "string" || Array.isArray(value) || value instanceof Map,
  ],
  ["callable", (value) => typeof value === "function"],
  ["odd", (value) => Math.abs(whole(value) % 2) === 1],
  ["even", (value) => whole(value) % 2 === 0],
  ["divisibleby", (value, [by = null]) => whole(value) % whole(by) === 0],
  [
    "lower",
    (value) => text(value) === text(value).toLowerCase() && text(value) !== text(value).toUpperCase(),
  ],
  [
    "upper",
    (value) => text(value) === text(value).toUpperCase() && text(value) !== text(value).toLowerCase(),
  ],
  ["in", (value, [container = null]) => contains(container, value)],
  ["sameas", (value, [other = null]) => value === other],
  ...["eq", "equalto", "=="].map((name): [string, Test] => [
    name,
    (value, [other = null]) => equal(value, other),
  ]),
  ...["ne", "!="].map((name): [string, Test] => [name, (value, [other = null]) => !equal(value, other)]),
  ...ORDER.flatMap(([key, holds]) =>
    (ORDER_NAMES[key] as readonly string[]).map((name): [string, Test] => [
      name,
      (value, [other = null]) => holds(compare(value, other)),
    ]),
  ),
]);

/** Tests that take one more argument, and its name. */
const PARAMETERS: Readonly<Record<string, string>> = {
  divisibleby: "num",
  sameas: "other",
  in: "seq",
  ...Object.fromEntries(["eq", "equalto", "==", "ne", "!="].map((name) => [name, ""])),
  ...Object.fromEntries(Object.values(ORDER_NAMES).flatMap((names) => names.map((name) => [name, ""]))),
};

export function runTest(
  name: string,
  value: Value,
  args: readonly Value[],
  kwargs: Arguments = new Map(),
): boolean {
  const test = TESTS.get(name);
  if (test === undefined) throw new JinjaError(`No test named '${name}'.`);
  const parameter = PARAMETERS[name];
  const given = bind(`test_${name}`, parameter === undefined ? [] : [parameter], args, kwargs);
  if (parameter !== undefined && given[0] === undefined)
    throw new JinjaError(`test_${name}() missing 1 required positional argument`);
  return test(value, given as Value[]);
}
