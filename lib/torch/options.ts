// Arguments of hand-written functions: positional, then one bag of named ones.
import { InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { FloatScalar } from "./types.ts";

/** A bag of named arguments: true for `{ … }`, false for null, arrays, tensors and every other instance of a class. */
export function isOptions(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

const plain = (value: unknown) => (value instanceof FloatScalar ? value.value : value);

/** Brings positional arguments and a last options object under their names; refuses unknown and doubled ones. */
export function readOptions(
  name: string,
  args: readonly unknown[],
  names: readonly string[],
): Record<string, unknown> {
  const last = args.at(-1);
  const bag = isOptions(last) ? last : undefined;
  const places = bag ? args.slice(0, -1) : args;
  if (places.length > names.length)
    throw new InvalidArgumentError(`[${name}] takes ${names.length} arguments, got ${places.length}.`);
  const options: Record<string, unknown> = {};
  for (const key of Object.keys(bag ?? {})) {
    if (!names.includes(key))
      throw new InvalidArgumentError(`[${name}] unknown option '${key}'.`, {
        suggestion: suggest(key, names),
      });
    if (bag?.[key] !== undefined) options[key] = plain(bag[key]);
  }
  for (const [i, value] of places.entries()) {
    const key = names[i] as string;
    if (value === undefined) continue;
    if (key in options)
      throw new InvalidArgumentError(`[${name}] '${key}' is given by position and by name.`);
    options[key] = plain(value);
  }
  return options;
}
