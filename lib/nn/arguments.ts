// Calls as torch writes them: positional arguments, then keyword arguments as one options object at the end.

import { InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { isOptions } from "../torch/options.ts";

/**
 * What may follow the required arguments of a call: any number of the optional ones `P` by position, then an
 * options object `O`.
 */
export type Rest<P extends readonly unknown[], O> =
  | [options?: O | undefined]
  | (P extends readonly [infer First, ...infer Others] ? [First | undefined, ...Rest<Others, O>] : never);

/** Required arguments `Q` may stand before the optional ones, or all go by name in one object `N`. */
export type Arguments<Q extends readonly unknown[], N, R extends readonly unknown[]> =
  | [...Q, ...R]
  | [options: N];

/** In the place of a default: the caller must give it. */
export const REQUIRED: unknown = Symbol("required");

/**
 * Gives each optional argument of a call its value: by position, by name, or its default.
 *
 * @param name the function's or class's name, for the messages.
 * @param rest what followed the required arguments.
 * @param defaults every optional argument in torch's order; `undefined` in a call means its default.
 * @throws InvalidArgumentError for an unknown name, a surplus argument, or one that is given twice.
 *
 * @example bind("Linear", [false, { dtype: "float16" }], { bias: true, device: undefined, dtype: undefined })
 */
export function bind<D extends object>(name: string, rest: readonly unknown[], defaults: D): D {
  const bound = { ...defaults } as Record<string, unknown>;
  if (rest.length > 0) take(name, rest, Object.keys(defaults), bound);
  for (const key in bound) {
    if (bound[key] === REQUIRED) throw new InvalidArgumentError(`${name}() needs the argument '${key}'.`);
  }
  return bound as D;
}

function take(
  name: string,
  rest: readonly unknown[],
  names: readonly string[],
  bound: Record<string, unknown>,
): void {
  const last = rest[rest.length - 1];
  const options = isOptions(last) ? last : undefined;
  const positional = options === undefined ? rest.length : rest.length - 1;
  if (positional > names.length) {
    throw new InvalidArgumentError(
      `${name}() takes at most ${names.length} optional arguments, got ${positional}.`,
    );
  }
  for (let i = 0; i < positional; i++) {
    if (rest[i] !== undefined) bound[names[i] as string] = rest[i];
  }
  for (const key in options) {
    const at = names.indexOf(key);
    if (at < 0) {
      throw new InvalidArgumentError(`${name}() got an unknown option '${key}'.`, {
        suggestion: suggest(key, names),
      });
    }
    if (options[key] === undefined) continue;
    if (at < positional && rest[at] !== undefined) {
      throw new InvalidArgumentError(`${name}() got '${key}' by position and by name.`);
    }
    bound[key] = options[key];
  }
}

/** A size that is one number for all dimensions, or one number each. */
export type Sizes = number | readonly number[];

/** `2` → `[2, 2]` for two dimensions; an array is copied as it is. */
export function ntuple(value: Sizes, length: number): number[] {
  return typeof value === "number" ? new Array<number>(length).fill(value) : [...value];
}
