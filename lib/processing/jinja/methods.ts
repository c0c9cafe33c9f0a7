// The methods of strings, lists and dicts that templates may call, by their Python names.

import { bind, integer, string } from "./arguments.ts";
import { capitalize, find, format, pad, points, replace, split, splitLines, titled } from "./strings.ts";
import {
  type Callable,
  equal,
  items,
  JinjaError,
  join,
  strip,
  Tuple,
  typeName,
  type Value,
} from "./values.ts";

const affixes = (value: Value | undefined): string[] =>
  Array.isArray(value) ? value.map(string) : [string(value)];

type StringMethod = (value: string, args: (Value | undefined)[]) => Value;

const isAll =
  (pattern: RegExp): StringMethod =>
  (value) =>
    value !== "" && points(value).every((char) => pattern.test(char));

/** Name → its parameters and what it does. */
const STRING_METHODS: ReadonlyMap<string, readonly [names: readonly string[], run: StringMethod]> = new Map<
  string,
  readonly [readonly string[], StringMethod]
>([
  ["upper", [[], (s) => s.toUpperCase()]],
  ["lower", [[], (s) => s.toLowerCase()]],
  ["casefold", [[], (s) => s.toLowerCase()]],
  ["title", [[], titled]],
  ["capitalize", [[], capitalize]],
  [
    "swapcase",
    [
      [],
      (s) =>
        points(s)
          .map((c) => (c === c.toUpperCase() ? c.toLowerCase() : c.toUpperCase()))
          .join(""),
    ],
  ],
  ["strip", [["chars"], (s, [chars]) => strip(s, chars, "both")]],
  ["lstrip", [["chars"], (s, [chars]) => strip(s, chars, "left")]],
  ["rstrip", [["chars"], (s, [chars]) => strip(s, chars, "right")]],
  ["split", [["sep", "maxsplit"], (s, [sep, limit]) => split(s, sep, integer(limit, -1), false)]],
  ["rsplit", [["sep", "maxsplit"], (s, [sep, limit]) => split(s, sep, integer(limit, -1), true)]],
  ["splitlines", [[], (s) => splitLines(s)]],
  ["partition", [["sep"], (s, [sep]) => partition(s, string(sep), s.indexOf(string(sep)), [s, "", ""])]],
  ["rpartition", [["sep"], (s, [sep]) => partition(s, string(sep), s.lastIndexOf(string(sep)), ["", "", s])]],
  [
    "replace",
    [
      ["old", "new", "count"],
      (s, [old, next, count]) => replace(s, string(old), string(next), integer(count, -1)),
    ],
  ],
  ["startswith", [["prefix"], (s, [prefix]) => affixes(prefix).some((part) => s.startsWith(part))]],
  ["endswith", [["suffix"], (s, [suffix]) => affixes(suffix).some((part) => s.endsWith(part))]],
  [
    "removeprefix",
    [["prefix"], (s, [prefix]) => (s.startsWith(string(prefix)) ? s.slice(string(prefix).length) : s)],
  ],
  [
    "removesuffix",
    [["suffix"], (s, [end]) => (end !== "" && s.endsWith(string(end)) ? s.slice(0, -string(end).length) : s)],
  ],
  ["find", [["sub", "start"], (s, [part, start]) => find(s, string(part), integer(start, 0), false)]],
  ["rfind", [["sub"], (s, [part]) => find(s, string(part), 0, true)]],
  [
    "index",
    [
      ["sub", "start"],
      (s, [part, start]) => orFail(find(s, string(part), integer(start, 0), false), "substring not found"),
    ],
  ],
  [
    "count",
    [["sub"], (s, [part]) => (part === "" ? points(s).length + 1 : s.split(string(part)).length - 1)],
  ],
  ["join", [["iterable"], (s, [parts]) => join(items(parts ?? null).map(string), s)]],
  ["isdigit", [[], isAll(/\p{Nd}/u)]],
  ["isnumeric", [[], isAll(/\p{N}/u)]],
  ["isdecimal", [[], isAll(/\p{Nd}/u)]],
  ["isalpha", [[], isAll(/\p{L}/u)]],
  ["isalnum", [[], isAll(/[\p{L}\p{N}]/u)]],
  ["isspace", [[], (s) => s !== "" && strip(s, null, "both") === ""]],
  ["isupper", [[], (s) => s === s.toUpperCase() && s !== s.toLowerCase()]],
  ["islower", [[], (s) => s === s.toLowerCase() && s !== s.toUpperCase()]],
  [
    "zfill",
    [
      ["width"],
      (s, [width]) =>
        /^[+-]/.test(s)
          ? s[0] + pad(s.slice(1), integer(width, 0) - 1, "0", "left")
          : pad(s, integer(width, 0), "0", "left"),
    ],
  ],
  [
    "ljust",
    [["width", "fillchar"], (s, [width, fill = " "]) => pad(s, integer(width, 0), string(fill), "right")],
  ],
  [
    "rjust",
    [["width", "fillchar"], (s, [width, fill = " "]) => pad(s, integer(width, 0), string(fill), "left")],
  ],
]);

const partition = (value: string, separator: string, at: number, none: readonly string[]): Tuple =>
  Tuple.make(at < 0 ? none : [value.slice(0, at), separator, value.slice(at + separator.length)]);

function orFail(at: number, message: string): number {
  if (at < 0) throw new JinjaError(message);
  return at;
}

export const pairs = (dict: Map<Value, Value>): Value[] => [...dict].map((pair) => Tuple.make(pair));

/** Methods that change their object; the sandbox of the reference refuses them. */
const MUTATING = new Set([
  "append",
  "clear",
  "extend",
  "insert",
  "pop",
  "popitem",
  "remove",
  "reverse",
  "setdefault",
  "sort",
  "update",
]);

/** A method of a value by its Python name, or undefined. */
export function method(value: Value, name: string): Callable | undefined {
  if (typeof value === "string") {
    const found = STRING_METHODS.get(name);
    if (name === "format") return (args, kwargs) => format(value, args, kwargs);
    return found && ((args, kwargs) => found[1](value, bind(name, found[0], args, kwargs)));
  }
  if ((Array.isArray(value) || value instanceof Map) && MUTATING.has(name)) {
    throw new JinjaError(
      `access to attribute '${name}' of '${typeName(value)}' object is unsafe: templates change nothing.`,
    );
  }
  if (Array.isArray(value)) {
    if (name === "index")
      return ([item]) =>
        orFail(
          value.findIndex((own) => equal(own, item ?? null)),
          "the value is not in the list",
        );
    if (name === "count") return ([item]) => value.filter((own) => equal(own, item ?? null)).length;
    if (name === "copy") return () => [...value];
  }
  if (value instanceof Map) {
    if (name === "items") return () => pairs(value);
    if (name === "keys") return () => [...value.keys()];
    if (name === "values") return () => [...value.values()];
    if (name === "copy") return () => new Map(value);
    if (name === "get")
      return ([key = null, fallback = null]) => value.get(key) ?? (value.has(key) ? null : fallback);
  }
  return undefined;
}
