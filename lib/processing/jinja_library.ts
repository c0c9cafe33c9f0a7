// What templates may call: the filters, tests, methods and functions of Jinja and Python that chat templates use.
// Nothing here reaches a JavaScript property by a template's name for it.

import {
  type Arguments,
  type Callable,
  compare,
  contains,
  equal,
  Float,
  isNumber,
  items,
  JinjaError,
  join,
  type JsonOptions,
  lengthOf,
  limited,
  MAX_ITEMS,
  Namespace,
  numberOf,
  PLAIN_JSON,
  repeat,
  repr,
  splitSpace,
  strip,
  text,
  toJson,
  truth,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from "./jinja_values.ts";

/** Longer ranges are refused, as in the reference's sandbox. */
const MAX_RANGE = 100_000;

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
  return names.map((name, i) => args[i] ?? kwargs.get(name));
}

const integer = (value: Value | undefined, fallback: number): number => {
  if (value === undefined || value === null) return fallback;
  if (typeof value === "number" || typeof value === "boolean") return Number(value);
  throw new JinjaError(`'${typeName(value)}' object cannot be interpreted as an integer`);
};

const string = (value: Value | undefined): string => {
  if (typeof value === "string") return value;
  throw new JinjaError(`must be str, not ${typeName(value ?? null)}`);
};

// ---------------------------------------------------------------------------------------------------------------------
// Methods

const points = (value: string): string[] => [...value];
const capitalize = (value: string): string => {
  const [first = "", ...rest] = points(value);
  return first.toUpperCase() + rest.join("").toLowerCase();
};
const titled = (value: string): string => value.replaceAll(/\p{L}+/gu, capitalize);
// biome-ignore lint/suspicious/noControlCharactersInRegex: Python ends lines at these too
const LINE_END = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/;

function splitLines(value: string): string[] {
  const lines = value.split(LINE_END);
  if (lines.at(-1) === "") lines.pop();
  return lines;
}

function split(value: string, separator: Value | undefined, limit: number, fromRight: boolean): string[] {
  if (separator === undefined || separator === null) {
    const parts = splitSpace(value);
    if (limit < 0 || parts.length <= limit + 1) return parts;
    // The rest keeps its inner white space.
    const own = fromRight ? parts.slice(-limit) : parts.slice(0, limit);
    let rest = strip(value, null, "both");
    for (const part of fromRight ? [...own].reverse() : own) {
      rest = fromRight
        ? strip(rest.slice(0, -part.length), null, "right")
        : strip(rest.slice(part.length), null, "left");
    }
    return fromRight ? [rest, ...own] : [...own, rest];
  }
  if (separator === "") throw new JinjaError("empty separator");
  const parts = value.split(string(separator));
  if (limit < 0 || parts.length <= limit + 1) return parts;
  const sep = string(separator);
  return fromRight
    ? [parts.slice(0, parts.length - limit).join(sep), ...parts.slice(parts.length - limit)]
    : [...parts.slice(0, limit), parts.slice(limit).join(sep)];
}

/** Puts `next` before each character and after the last, `count` times at most. */
function weave(chars: readonly string[], next: string, count: number): string {
  return join(
    [...chars, ""].map((char, i) => (i < count ? next + char : char)),
    "",
  );
}

function replace(value: string, old: string, next: string, count: number): string {
  if (old !== "") return join(split(value, old, count, false), next);
  return weave(points(value), next, count < 0 ? Number.POSITIVE_INFINITY : count);
}

function find(value: string, part: string, start: number, fromRight: boolean): number {
  const from = points(value)
    .slice(0, start < 0 ? undefined : start)
    .join("").length;
  const at = fromRight ? value.lastIndexOf(part) : value.indexOf(part, from);
  return at < from ? -1 : points(value.slice(0, at)).length;
}

const affixes = (value: Value | undefined): string[] =>
  Array.isArray(value) ? value.map(string) : [string(value)];

const pad = (value: string, width: number, fill: string, side: "left" | "right"): string => {
  const missing = repeat(fill, width - points(value).length);
  return side === "left" ? missing + value : value + missing;
};

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

const pairs = (dict: Map<Value, Value>): Value[] => [...dict].map((pair) => Tuple.make(pair));

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

/** Replaces what `marks` captures; the text grows to the limit at most. */
function substitute(pattern: string, marks: RegExp, value: (mark: string) => string): string {
  let out = "";
  for (const [i, part] of pattern.split(marks).entries())
    out = limited(out + (i % 2 === 1 ? value(part) : part));
  return out;
}

/** `str.format` with plain fields: `{}`, `{0}`, `{name}`. */
function format(pattern: string, args: readonly Value[], kwargs: Arguments): string {
  let next = 0;
  return substitute(pattern, /(\{\{|\}\}|\{[^{}]*\})/, (mark) => {
    if (mark === "{{" || mark === "}}") return mark[0] as string;
    const field = mark.slice(1, -1);
    const value = field === "" ? args[next++] : /^\d+$/.test(field) ? args[Number(field)] : kwargs.get(field);
    if (value === undefined) throw new JinjaError(`str.format: no argument for '{${field}}'`);
    return text(value);
  });
}

/** `pattern % values`, for %s, %d, %r, %f, %.2f and %%. */
export function percentFormat(pattern: string, values: readonly Value[]): string {
  let next = 0;
  return substitute(pattern, /(%(?:\.\d+)?[a-zA-Z%])/, (mark) => {
    const kind = mark.at(-1);
    if (kind === "%") return "%";
    const value = values[next++];
    if (value === undefined) throw new JinjaError("not enough arguments for format string");
    if (kind === "s") return text(value);
    if (kind === "r") return repr(value);
    if (kind === "d" && isNumber(value)) return String(Math.trunc(numberOf(value)));
    if (kind === "f" && isNumber(value))
      return numberOf(value).toFixed(mark === "%f" ? 6 : Math.min(100, Number(mark.slice(2, -1))));
    throw new JinjaError(`unsupported format '%${kind}' for ${typeName(value)}`);
  });
}

// ---------------------------------------------------------------------------------------------------------------------
// Tests

type Test = (value: Value, args: Value[]) => boolean;

const whole = (value: Value): number => {
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

export function runTest(name: string, value: Value, args: Value[]): boolean {
  const test = TESTS.get(name);
  if (test === undefined) throw new JinjaError(`No test named '${name}'.`);
  return test(value, args);
}

// ---------------------------------------------------------------------------------------------------------------------
// Filters

/** An attribute by a dotted path, as `map(attribute="a.b")` reads it. */
export type Attribute = (value: Value, name: Value) => Value;

function readPath(value: Value, path: Value, attribute: Attribute): Value {
  if (typeof path !== "string") return attribute(value, path);
  const parts = path.split(".").map((part) => (/^\d+$/.test(part) ? Number(part) : part));
  return parts.reduce<Value>((from, part) => attribute(from, part), value);
}

const folded = (value: Value, caseSensitive: boolean): Value =>
  typeof value === "string" && !caseSensitive ? value.toLowerCase() : value;

function indent(value: string, width: Value, first: boolean, blank: boolean): string {
  const by = typeof width === "string" ? width : repeat(" ", integer(width, 4));
  const [head = "", ...rest] = splitLines(`${value}\n`);
  const lines = join([head, ...rest.map((line) => (line !== "" || blank ? by + line : line))], "\n");
  return first ? by + lines : lines;
}

function rounded(value: Value, precision: number, how: string): Value {
  const scale = 10 ** precision;
  const scaled = whole(value) * scale;
  // Python rounds halves to even.
  const even = Math.abs(scaled % 1) === 0.5 ? 2 * Math.round(scaled / 2) : Math.round(scaled);
  const result = how === "ceil" ? Math.ceil(scaled) : how === "floor" ? Math.floor(scaled) : even;
  return new Float(result / scale);
}

function toInteger(value: Value, fallback: Value): Value {
  if (isNumber(value)) return Math.trunc(numberOf(value));
  if (typeof value !== "string" || !/^\s*[+-]?\d[\d_]*(\.\d*)?\s*$/.test(value)) return fallback;
  return Math.trunc(Number(value.replaceAll("_", "")));
}

function toFloat(value: Value, fallback: Value): Value {
  if (isNumber(value)) return new Float(numberOf(value));
  const parsed = typeof value === "string" && value.trim() !== "" ? Number(value) : Number.NaN;
  return Number.isNaN(parsed) ? fallback : new Float(parsed);
}

const add = (a: Value, b: Value): Value => {
  if (!isNumber(a) || !isNumber(b)) throw new JinjaError(`sum of ${typeName(a)} and ${typeName(b)}`);
  const sum = numberOf(a) + numberOf(b);
  return a instanceof Float || b instanceof Float ? new Float(sum) : sum;
};

/** The options of `tojson`, by their Python names. */
function jsonOptions([ensure_ascii, indentation, separators, sort_keys]: (Value | undefined)[]): JsonOptions {
  const pair = Array.isArray(separators) ? ([string(separators[0]), string(separators[1])] as const) : null;
  const unit = indentation ?? null;
  if (unit !== null && typeof unit !== "number" && typeof unit !== "string")
    throw new JinjaError("indent must be a number or a string");
  return {
    ...PLAIN_JSON,
    ensureAscii: truth(ensure_ascii ?? false),
    indent: unit,
    separators: pair,
    sortKeys: truth(sort_keys ?? false),
  };
}

type Filter = (value: Value, args: (Value | undefined)[], attribute: Attribute) => Value;
type FilterRow = readonly [names: readonly string[], run: Filter];

const ends =
  (last: boolean): Filter =>
  (value) => {
    const list = items(value);
    return (
      (last ? list.at(-1) : list[0]) ??
      (list.length > 0 ? null : new Undefined("No first or last item, the sequence is empty."))
    );
  };

const extreme =
  (sign: number): Filter =>
  (value, [caseSensitive, path], attribute) => {
    const key = (item: Value) =>
      folded(path === undefined ? item : readPath(item, path, attribute), truth(caseSensitive ?? false));
    const list = items(value);
    if (list.length === 0) return new Undefined("No aggregated item, sequence was empty.");
    return list.reduce((best, item) => (sign * compare(key(item), key(best)) > 0 ? item : best));
  };

const FILTERS: ReadonlyMap<string, FilterRow> = new Map<string, FilterRow>([
  ["abs", [[], (v) => (v instanceof Float ? new Float(Math.abs(v.value)) : Math.abs(whole(v)))]],
  ["attr", [["name"], (v, [name], attribute) => attribute(v, name ?? null)]],
  [
    "batch",
    [["linecount", "fill_with"], (v, [count, fill]) => batches(items(v), integer(count, 1), fill ?? null)],
  ],
  ["capitalize", [[], (v) => capitalize(text(v))]],
  [
    "default",
    [
      ["default_value", "boolean"],
      (v, [other = "", loose]) =>
        v instanceof Undefined || (truth(loose ?? false) && !truth(v)) ? other : v,
    ],
  ],
  ["dictsort", [["case_sensitive", "by", "reverse"], (v, args) => dictSort(v, args)]],
  [
    "escape",
    [
      [],
      (v) =>
        text(v)
          .replaceAll("&", "&amp;")
          .replaceAll("<", "&lt;")
          .replaceAll(">", "&gt;")
          .replaceAll("'", "&#39;")
          .replaceAll('"', "&#34;"),
    ],
  ],
  ["first", [[], ends(false)]],
  ["last", [[], ends(true)]],
  ["float", [["default"], (v, [other = new Float(0)]) => toFloat(v, other)]],
  ["int", [["default", "base"], (v, [other = 0]) => toInteger(v, other)]],
  [
    "indent",
    [
      ["width", "first", "blank"],
      (v, [width = 4, first, blank]) => indent(text(v), width, truth(first ?? false), truth(blank ?? false)),
    ],
  ],
  [
    "items",
    [
      [],
      (v) =>
        v instanceof Undefined
          ? []
          : v instanceof Map
            ? pairs(v)
            : fail(`Can only get item pairs from a mapping.`),
    ],
  ],
  [
    "join",
    [
      ["d", "attribute"],
      (v, [by = "", path], attribute) =>
        join(
          items(v).map((item) =>
            text(path === undefined || path === null ? item : readPath(item, path, attribute)),
          ),
          text(by),
        ),
    ],
  ],
  ["length", [[], lengthOf]],
  ["list", [[], (v) => [...items(v)]]],
  ["lower", [[], (v) => text(v).toLowerCase()]],
  ["upper", [[], (v) => text(v).toUpperCase()]],
  ["max", [["case_sensitive", "attribute"], extreme(1)]],
  ["min", [["case_sensitive", "attribute"], extreme(-1)]],
  [
    "replace",
    [
      ["old", "new", "count"],
      (v, [old, next, count]) => replace(text(v), text(old ?? null), text(next ?? null), integer(count, -1)),
    ],
  ],
  ["reverse", [[], (v) => (typeof v === "string" ? points(v).reverse().join("") : [...items(v)].reverse())]],
  [
    "round",
    [
      ["precision", "method"],
      (v, [precision, how = "common"]) => rounded(v, integer(precision, 0), text(how)),
    ],
  ],
  ["safe", [[], (v) => v]],
  [
    "sort",
    [["reverse", "case_sensitive", "attribute"], (v, args, attribute) => sorted(items(v), args, attribute)],
  ],
  ["string", [[], (v) => text(v)]],
  [
    "sum",
    [
      ["attribute", "start"],
      (v, [path, start = 0], attribute) =>
        items(v)
          .map((item) => (path === undefined || path === null ? item : readPath(item, path, attribute)))
          .reduce(add, start),
    ],
  ],
  ["title", [[], (v) => text(v).replaceAll(/[^-\s({[<]+/g, capitalize)]],
  [
    "tojson",
    [["ensure_ascii", "indent", "separators", "sort_keys"], (v, args) => toJson(v, jsonOptions(args))],
  ],
  ["trim", [["chars"], (v, [chars]) => strip(text(v), chars, "both")]],
  [
    "unique",
    [
      ["case_sensitive", "attribute"],
      (v, [sensitive, path], attribute) =>
        unique(items(v), (item) =>
          folded(path === undefined ? item : readPath(item, path, attribute), truth(sensitive ?? false)),
        ),
    ],
  ],
  ["wordcount", [[], (v) => text(v).match(/\w+/gu)?.length ?? 0]],
]);

const ALIASES: Readonly<Record<string, string>> = { d: "default", e: "escape", count: "length" };

function fail(message: string): never {
  throw new JinjaError(message);
}

function batches(list: readonly Value[], size: number, fill: Value): Value[] {
  const out: Value[][] = [];
  for (let i = 0; i < list.length; i += Math.max(1, size)) out.push(list.slice(i, i + size));
  const last = out.at(-1);
  while (fill !== null && last !== undefined && last.length < Math.min(size, MAX_ITEMS)) last.push(fill);
  return out;
}

function sorted(
  list: Value[],
  [reverse, sensitive, path]: (Value | undefined)[],
  attribute: Attribute,
): Value[] {
  const paths =
    typeof path === "string" ? path.split(",") : path === undefined || path === null ? [] : [path];
  const key = (item: Value): Value => {
    const found = paths.length === 0 ? [item] : paths.map((part) => readPath(item, part, attribute));
    return found.map((part) => folded(part, truth(sensitive ?? false)));
  };
  const sign = truth(reverse ?? false) ? -1 : 1;
  return list
    .map((item) => ({ item, key: key(item) }))
    .sort((a, b) => sign * compare(a.key, b.key))
    .map(({ item }) => item);
}

function dictSort(value: Value, [sensitive, by, reverse]: (Value | undefined)[]): Value[] {
  if (!(value instanceof Map)) throw new JinjaError(`dictsort needs a mapping, not ${typeName(value)}`);
  const at = by === "value" ? 1 : 0;
  const sign = truth(reverse ?? false) ? -1 : 1;
  const key = (pair: Value) => folded((pair as Value[])[at] as Value, truth(sensitive ?? false));
  return pairs(value).sort((a, b) => sign * compare(key(a), key(b)));
}

function unique(list: readonly Value[], key: (item: Value) => Value): Value[] {
  const seen: Value[] = [];
  return list.filter((item) => {
    const own = key(item);
    if (seen.some((other) => equal(other, own))) return false;
    seen.push(own);
    return true;
  });
}

/** `select`, `reject` and their `attr` forms, and `map`: filters over filters and tests. */
function overItems(
  name: string,
  value: Value,
  args: Value[],
  kwargs: Arguments,
  attribute: Attribute,
): Value | undefined {
  if (name === "map") {
    const path = kwargs.get("attribute");
    if (path !== undefined) {
      const other = kwargs.get("default");
      return items(value).map((item) => {
        const found = readPath(item, path, attribute);
        return found instanceof Undefined && other !== undefined ? other : found;
      });
    }
    const [filter, ...rest] = args;
    return items(value).map((item) => runFilter(text(filter ?? null), item, rest, kwargs, attribute));
  }
  const form = /^(select|reject)(attr)?$/.exec(name);
  if (form === null) return undefined;
  const wanted = form[1] === "select";
  const path = form[2] === undefined ? undefined : args[0];
  const [test, ...rest] = form[2] === undefined ? args : args.slice(1);
  return items(value).filter((item) => {
    const subject = path === undefined ? item : readPath(item, path, attribute);
    return (test === undefined ? truth(subject) : runTest(text(test), subject, rest)) === wanted;
  });
}

export function runFilter(
  name: string,
  value: Value,
  args: Value[],
  kwargs: Arguments,
  attribute: Attribute,
): Value {
  limited(value);
  const over = overItems(name, value, args, kwargs, attribute);
  if (over !== undefined) return over;
  if (name === "format") return percentFormat(text(value), args);
  const row = FILTERS.get(ALIASES[name] ?? name);
  if (row === undefined) throw new JinjaError(`No filter named '${name}'.`);
  return row[1](value, bind(name, row[0], args, kwargs), attribute);
}

// ---------------------------------------------------------------------------------------------------------------------
// Functions

const MONTHS = [
  "January",
  "February",
  "March",
  "April",
  "May",
  "June",
  "July",
  "August",
  "September",
  "October",
  "November",
  "December",
];
const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/** `strftime` in the C locale. */
export function strftime(date: Date, pattern: string): string {
  const two = (value: number) => String(value).padStart(2, "0");
  const hours12 = date.getHours() % 12 || 12;
  const day = DAYS[date.getDay()] as string;
  const month = MONTHS[date.getMonth()] as string;
  const start = new Date(date.getFullYear(), 0, 1);
  const dayOfYear =
    Math.round(
      (new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime() - start.getTime()) /
        86_400_000,
    ) + 1;
  const parts: Readonly<Record<string, string | number>> = {
    Y: date.getFullYear(),
    y: two(date.getFullYear() % 100),
    m: two(date.getMonth() + 1),
    d: two(date.getDate()),
    e: String(date.getDate()).padStart(2),
    H: two(date.getHours()),
    I: two(hours12),
    M: two(date.getMinutes()),
    S: two(date.getSeconds()),
    f: String(date.getMilliseconds() * 1000).padStart(6, "0"),
    p: date.getHours() < 12 ? "AM" : "PM",
    B: month,
    b: month.slice(0, 3),
    h: month.slice(0, 3),
    A: day,
    a: day.slice(0, 3),
    w: date.getDay(),
    u: date.getDay() || 7,
    j: String(dayOfYear).padStart(3, "0"),
    n: "\n",
    t: "\t",
    "%": "%",
    z: "",
    Z: "",
    F: `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`,
    T: `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`,
    R: `${two(date.getHours())}:${two(date.getMinutes())}`,
    D: `${two(date.getMonth() + 1)}/${two(date.getDate())}/${two(date.getFullYear() % 100)}`,
    "-d": date.getDate(),
    "-m": date.getMonth() + 1,
    "-H": date.getHours(),
    "-I": hours12,
    "-M": date.getMinutes(),
    "-S": date.getSeconds(),
    "-j": dayOfYear,
  }; // prettier-ignore
  return pattern.replaceAll(/%(-?[a-zA-Z%])/g, (whole, code: string) => String(parts[code] ?? whole));
}

function range(args: Value[]): Value {
  const [start, stop, step] =
    args.length < 2
      ? [0, integer(args[0], 0), 1]
      : [integer(args[0], 0), integer(args[1], 0), integer(args[2], 1)];
  if (step === 0) throw new JinjaError("range() arg 3 must not be zero");
  const size = Math.max(0, Math.ceil((stop - start) / step));
  if (size > MAX_RANGE)
    throw new JinjaError(`Range too big. The sandbox blocks ranges larger than ${MAX_RANGE}.`);
  return Array.from({ length: size }, (_, i) => start + i * step);
}

/** Arguments of `dict(…)` and `namespace(…)`: a mapping or pairs, and names. */
function entries(args: Value[], kwargs: Arguments): Map<Value, Value> {
  const [source] = args;
  const listed =
    source instanceof Map
      ? [...source]
      : source === undefined
        ? []
        : items(source).map((pair) => items(pair) as [Value, Value]);
  return new Map([...listed, ...kwargs]);
}

/** What every template finds defined. */
export const GLOBALS: ReadonlyMap<string, Value> = new Map<string, Value>([
  ["range", range],
  ["dict", (args, kwargs) => entries(args, kwargs)],
  [
    "namespace",
    (args, kwargs) => {
      const attributes = entries(args, kwargs) as Map<string, Value>;
      for (const name of attributes.keys()) checkNamespaceName(name);
      return new Namespace(attributes);
    },
  ],
  ["strftime_now", ([pattern = ""]) => strftime(new Date(), string(pattern))],
  ["raise_exception", ([message = ""]) => fail(text(message))],
]);

export function checkNamespaceName(name: Value): void {
  if (typeof name === "string" && name.startsWith("_")) {
    throw new JinjaError(
      `Chat templates cannot store underscore-prefixed attributes on a namespace, but got '${name}'.`,
    );
  }
}
