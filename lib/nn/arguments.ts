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

/**
 * A whole call: the required arguments `Q`, whose names are `K`, then the optional ones. Whatever is not given by
 * position goes by name into the options object.
 *
 * @example
 * type Arguments<[width: number, height: number], ["width", "height"], [depth: number], { depth?: number }>;
 * // (1, 2), (1, 2, 3), (1, 2, { depth: 3 }), (1, { height: 2 }), ({ width: 1, height: 2, depth: 3 })
 */
export type Arguments<
  Q extends readonly unknown[],
  K extends readonly string[],
  P extends readonly unknown[] = [],
  O = never,
> = [...Q, ...Rest<P, O>] | Named<Q, K, [O] extends [never] ? unknown : O>;

/** The calls in which the last required argument goes by name, the last two, and so on. */
type Named<Q extends readonly unknown[], K extends readonly string[], O> = Q extends readonly [
  ...infer Before,
  infer Last,
]
  ? K extends readonly [...infer Names extends string[], infer Name extends string]
    ? [...Before, options: O & Record<Name, Last>] | Named<Before, Names, O & Record<Name, Last>>
    : never
  : never;

/** In the place of a default: the caller must give it. */
export const REQUIRED: unknown = Symbol("required");

/**
 * Gives each argument of a call its value: by position, by name, or its default.
 *
 * @param name the function's or class's name, for the messages.
 * @param args the call's arguments, or what followed the required ones.
 * @param defaults every argument in torch's order; `undefined` in a call means its default. {@link REQUIRED}: it has none.
 * @throws InvalidArgumentError for an unknown name, a surplus argument, one that is missing or is given twice.
 *
 * @example bind("Linear", [20, { out_features: 30 }], { in_features: REQUIRED, out_features: REQUIRED, bias: true })
 */
export function bind<D extends object>(name: string, args: readonly unknown[], defaults: D): D {
  const bound = { ...defaults } as Record<string, unknown>;
  if (args.length > 0) take(name, args, Object.keys(defaults), bound);
  for (const key in bound) {
    if (bound[key] === REQUIRED) throw new InvalidArgumentError(`${name}() needs the argument '${key}'.`);
  }
  return bound as D;
}

function take(
  name: string,
  args: readonly unknown[],
  names: readonly string[],
  bound: Record<string, unknown>,
): void {
  const last = args[args.length - 1];
  const options = isOptions(last) ? last : undefined;
  const positional = options === undefined ? args.length : args.length - 1;
  if (positional > names.length) {
    throw new InvalidArgumentError(
      `${name}() takes at most ${names.length} arguments (${names.join(", ")}), got ${positional}.`,
    );
  }
  for (let i = 0; i < positional; i++) {
    if (args[i] !== undefined) bound[names[i] as string] = args[i];
  }
  for (const key in options) {
    const at = names.indexOf(key);
    if (at < 0) {
      throw new InvalidArgumentError(`${name}() got an unknown option '${key}'.`, {
        suggestion: suggest(key, names),
      });
    }
    if (options[key] === undefined) continue;
    if (at < positional && args[at] !== undefined) {
      throw new InvalidArgumentError(`${name}() got '${key}' by position and by name.`);
    }
    bound[key] = options[key];
  }
}

/** What follows the arguments `K` in the calls `A`. */
type After<A, K extends readonly string[]> = K extends readonly [string, ...infer Names extends string[]]
  ? A extends readonly [unknown, ...infer Others]
    ? After<Others, Names>
    : never
  : A;
/** The first arguments in the calls `A`, one for each of the names `K`. */
type First<A, K extends readonly string[]> = K extends readonly [string, ...infer Names extends string[]]
  ? A extends readonly [infer Head, ...infer Others]
    ? [Head, ...First<Others, Names>]
    : never
  : [];
/** The options object in `R`, one of whose forms has nothing else. */
type Bag<R> = R extends readonly [options?: infer O] ? (unknown extends O ? never : NonNullable<O>) : never;

type ByName<A extends readonly unknown[], K extends readonly string[]> = Named<
  First<A, K>,
  K,
  [Bag<After<A, K>>] extends [never] ? unknown : Bag<After<A, K>>
>;

/**
 * Lets the required arguments of a function go by name, too.
 *
 * @param names of the required arguments, in their order.
 * @param call takes them by position, and then what {@link bind} reads.
 * @throws InvalidArgumentError where one is missing or is given twice.
 *
 * @example byName(["input", "pad"], function pad(input: Tensor, pad: number[], ...rest: Rest<[], PadOptions>) { … });
 */
export function byName<const K extends readonly string[], A extends readonly unknown[], R>(
  names: K,
  call: (...args: A) => R,
): ((...args: A) => R) & ((...args: ByName<A, K>) => R) {
  const count = names.length;
  const called = (...args: unknown[]): R => {
    const last = args[args.length - 1];
    if (args.length > count || (args.length === count && !isOptions(last))) return call(...(args as never));
    return call(...(placed(call.name, names, args, last) as never));
  };
  return Object.defineProperty(called, "name", { value: call.name }) as never;
}

/** Puts the required arguments of a call in their places; the options object comes last, without them. */
function placed(name: string, names: readonly string[], args: readonly unknown[], last: unknown): unknown[] {
  const options = isOptions(last) ? { ...last } : undefined;
  const given = options ? args.slice(0, -1) : args;
  const positional = names.map((key, i) => {
    if (i < given.length) return given[i];
    const value = options?.[key];
    if (value === undefined) throw new InvalidArgumentError(`${name}() needs the argument '${key}'.`);
    delete options?.[key];
    return value;
  });
  return options && Object.keys(options).length > 0 ? [...positional, options] : positional;
}

/** A size that is one number for all dimensions, or one number each. */
export type Sizes = number | readonly number[];

/** `2` → `[2, 2]` for two dimensions; an array is copied as it is. */
export function ntuple(value: Sizes, length: number): number[] {
  return typeof value === "number" ? new Array<number>(length).fill(value) : [...value];
}
