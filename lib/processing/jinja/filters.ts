// What may follow `|` in a template: `| trim`, `| tojson(indent=2)`, `| map(attribute="name")`.

import { bind, fail, integer, string } from "./arguments.ts";
import { pairs } from "./methods.ts";
import { capitalize, percentFormat, points, replace, splitLines } from "./strings.ts";
import { runTest, whole } from "./tests.ts";
import {
  type Arguments,
  compare,
  equal,
  Float,
  isNumber,
  items,
  JinjaError,
  type JsonOptions,
  join,
  lengthOf,
  limited,
  MAX_ITEMS,
  numberOf,
  PLAIN_JSON,
  repeat,
  strip,
  Tuple,
  text,
  toJson,
  truth,
  typeName,
  Undefined,
  type Value,
} from "./values.ts";

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

const PREFIXES: Readonly<Record<number, string>> = { 2: "0b", 8: "0o", 16: "0x" };

/** `int(value, base)`, else `int(float(value))`, else the fallback. */
function toInteger(value: Value, fallback: Value, base: number): Value {
  if (value instanceof Undefined) throw new JinjaError(value.reason);
  if (isNumber(value)) {
    const number = numberOf(value);
    return Number.isFinite(number) ? Math.trunc(number) + 0 : fallback;
  }
  if (typeof value !== "string") return fallback;
  const [, sign = "", body = ""] = /^([+-]?)(.*)$/s.exec(strip(value, null, "both").toLowerCase()) ?? [];
  const bare = body.startsWith(PREFIXES[base] ?? "-") ? body.slice(2) : body;
  const digits = "0123456789abcdefghijklmnopqrstuvwxyz".slice(0, base);
  const whole =
    /^[\da-z]+(_[\da-z]+)*$/.test(bare) && [...bare.replaceAll("_", "")].every((c) => digits.includes(c));
  if (whole) return Number.parseInt(sign + bare.replaceAll("_", ""), base) + 0;
  const float = toFloat(value, null);
  return float instanceof Float && Number.isFinite(float.value) ? Math.trunc(float.value) + 0 : fallback;
}

function toFloat(value: Value, fallback: Value): Value {
  if (value instanceof Undefined) throw new JinjaError(value.reason);
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
  ["int", [["default", "base"], (v, [other = 0, base]) => toInteger(v, other, integer(base, 10))]],
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
  if (name === "format") {
    if (args.length > 0 && kwargs.size > 0)
      throw new JinjaError("can't handle positional and keyword arguments at the same time");
    return percentFormat(text(value), kwargs.size > 0 ? new Map<Value, Value>(kwargs) : Tuple.make(args));
  }
  const row = FILTERS.get(ALIASES[name] ?? name);
  if (row === undefined) throw new JinjaError(`No filter named '${name}'.`);
  return row[1](value, bind(name, row[0], args, kwargs), attribute);
}
