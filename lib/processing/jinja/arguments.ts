// Arguments of what templates call: by position and by name, as Python binds them.

import { type Arguments, JinjaError, typeName, type Value } from "./values.ts";

/** Reads positional and named arguments by the names of Python's signature. */
export function bind(
  call: string,
  names: readonly string[],
  args: readonly Value[],
  kwargs: Arguments,
): (Value | undefined)[] {
  if (args.length > names.length)
    throw new JinjaError(`${call}() takes at most ${names.length} arguments (${args.length} given)`);
  for (const name of kwargs.keys()) {
    if (!names.includes(name)) throw new JinjaError(`${call}() got an unexpected keyword argument '${name}'`);
    if (names.indexOf(name) < args.length)
      throw new JinjaError(`${call}() got multiple values for argument '${name}'`);
  }
  return names.map((name, i) => (i < args.length ? args[i] : kwargs.get(name)));
}

export const integer = (value: Value | undefined, fallback: number): number => {
  if (value === undefined || value === null) return fallback;
  if (typeof value === "number" || typeof value === "boolean") return Number(value);
  throw new JinjaError(`'${typeName(value)}' object cannot be interpreted as an integer`);
};

export const string = (value: Value | undefined): string => {
  if (typeof value === "string") return value;
  throw new JinjaError(`must be str, not ${typeName(value ?? null)}`);
};

export function fail(message: string): never {
  throw new JinjaError(message);
}
