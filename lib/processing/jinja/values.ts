// Values of chat templates and what Python does with them: printing, comparing, truth. Templates were written for
// Python, where 1.0 is not 1, None prints as "None" and strings count code points; each of these shows in the output.

import { getHeapStatistics } from "node:v8";
import { floatText } from "../../json/json.ts";

/** A Python float; whole numbers in plain JavaScript numbers are Python's integers. */
export class Float {
  readonly value: number;
  constructor(value: number) {
    this.value = value;
  }
}

/** What a name that nothing is known of stands for: prints as nothing, iterates over nothing, fails otherwise. */
export class Undefined {
  /** Says what is missing, when it is used. */
  readonly reason: string;
  constructor(reason: string) {
    this.reason = reason;
  }
}

export class Tuple extends Array<Value> {
  static make(items: readonly Value[]): Tuple {
    const tuple = new Tuple();
    tuple.push(...items);
    return tuple;
  }
}

/** `namespace(…)`: attributes that survive the scope of a loop. */
export class Namespace {
  readonly attributes: Map<string, Value>;
  constructor(attributes: Map<string, Value>) {
    this.attributes = attributes;
  }
}

/** `loop` within a `for`; called, it renders the loop's body over something else. */
export class Loop {
  readonly attributes: ReadonlyMap<string, Value>;
  readonly call: Callable;
  constructor(attributes: ReadonlyMap<string, Value>, call: Callable) {
    this.attributes = attributes;
    this.call = call;
  }
}

export type Arguments = Map<string, Value>;
export type Callable = (args: Value[], kwargs: Arguments) => Value;
export type Dict = Map<Value, Value>;
export type Value =
  | Undefined
  | null
  | boolean
  | number
  | Float
  | string
  | Value[]
  | Dict
  | Namespace
  | Loop
  | Callable;

/** An error of the template: what Python would raise. */
export class JinjaError extends Error {}

// A thread that reaches the limit of its heap in one large allocation takes the process along, so templates are stopped
// well before: single values are limited, and the heap is looked at when one is large.

/** Code units of a text, about a million tokens. */
export const MAX_TEXT = 4_000_000;
export const MAX_ITEMS = 1_000_000;
export const HEAP_LIMIT_MB = 1024;
const LARGE = 65_536;

/** Refuses a size beyond the limits; gives the value back otherwise. */
export function limited<T extends Value>(value: T): T {
  if (typeof value === "string") checkSize(value.length, MAX_TEXT);
  else if (Array.isArray(value)) checkSize(value.length, MAX_ITEMS);
  return value;
}

export function checkSize(size: number, most: number): void {
  if (size > most)
    throw new JinjaError(
      `The chat template makes a value of ${size} ${most === MAX_TEXT ? "characters" : "items"}; the limit is ${most}.`,
    );
  if (size > LARGE) checkHeap();
}

export function checkHeap(): void {
  if (getHeapStatistics().used_heap_size < 0.75 * HEAP_LIMIT_MB * 2 ** 20) return;
  throw new JinjaError(`The chat template needs more than ${0.75 * HEAP_LIMIT_MB} MB.`);
}

/** Joins texts, and stops at the limit before the result is made. */
export function join(parts: readonly string[], separator: string): string {
  checkSize(
    parts.reduce((size, part) => size + part.length, separator.length * Math.max(0, parts.length - 1)),
    MAX_TEXT,
  );
  return parts.join(separator);
}

/** Plain data as template values. */
export function fromPlain(value: unknown): Value {
  if (value === undefined) return new Undefined("undefined");
  if (typeof value === "number") return Number.isInteger(value) ? value : new Float(value);
  if (Array.isArray(value)) return value.map(fromPlain);
  if (typeof value === "object" && value !== null) {
    return new Map(Object.entries(value).map(([key, item]) => [key, fromPlain(item)]));
  }
  return value as Value;
}

export const isNumber = (value: Value): value is number | Float | boolean =>
  typeof value === "number" || typeof value === "boolean" || value instanceof Float;

export const numberOf = (value: number | Float | boolean): number =>
  value instanceof Float ? value.value : Number(value);

/** The name of the value's type in Python, for messages. */
export function typeName(value: Value): string {
  if (value === null) return "NoneType";
  if (value instanceof Undefined) return "Undefined";
  if (value instanceof Float) return "float";
  if (value instanceof Tuple) return "tuple";
  if (Array.isArray(value)) return "list";
  if (value instanceof Map) return "dict";
  if (value instanceof Namespace) return "Namespace";
  if (value instanceof Loop) return "LoopContext";
  return (
    { string: "str", number: "int", boolean: "bool", function: "function" }[typeof value as string] ??
    "object"
  );
}

export function truth(value: Value): boolean {
  if (value instanceof Undefined || value === null) return false;
  if (isNumber(value)) return numberOf(value) !== 0;
  if (typeof value === "string" || Array.isArray(value)) return value.length > 0;
  return value instanceof Map ? value.size > 0 : true;
}

export function equal(a: Value, b: Value): boolean {
  if (isNumber(a) && isNumber(b)) return numberOf(a) === numberOf(b);
  if (a instanceof Undefined || b instanceof Undefined)
    return a instanceof Undefined && b instanceof Undefined;
  if (Array.isArray(a) && Array.isArray(b)) {
    const sameKind = a instanceof Tuple === b instanceof Tuple;
    return sameKind && a.length === b.length && a.every((item, i) => equal(item, b[i] as Value));
  }
  if (a instanceof Map && b instanceof Map) {
    return a.size === b.size && [...a].every(([key, item]) => b.has(key) && equal(item, b.get(key) as Value));
  }
  return a === b;
}

/** Negative, zero or positive, for what Python orders: numbers, strings by code point, lists. */
export function compare(a: Value, b: Value): number {
  if (isNumber(a) && isNumber(b)) return numberOf(a) - numberOf(b);
  if (typeof a === "string" && typeof b === "string") return compare([...a].map(codeOf), [...b].map(codeOf));
  if (Array.isArray(a) && Array.isArray(b)) {
    for (let i = 0; i < Math.min(a.length, b.length); i++) {
      if (!equal(a[i] as Value, b[i] as Value)) return compare(a[i] as Value, b[i] as Value);
    }
    return a.length - b.length;
  }
  throw new JinjaError(`'<' not supported between instances of '${typeName(a)}' and '${typeName(b)}'`);
}

const codeOf = (char: string): number => char.codePointAt(0) as number;

/** What a `for` runs over. */
export function items(value: Value): Value[] {
  if (value instanceof Undefined) return [];
  if (typeof value === "string") return [...value];
  if (Array.isArray(value)) return value;
  if (value instanceof Map) return [...value.keys()];
  throw new JinjaError(`'${typeName(value)}' object is not iterable`);
}

export function lengthOf(value: Value): number {
  if (value instanceof Map) return value.size;
  if (value instanceof Undefined || typeof value === "string" || Array.isArray(value))
    return items(value).length;
  throw new JinjaError(`object of type '${typeName(value)}' has no len()`);
}

export function contains(container: Value, item: Value): boolean {
  if (typeof container === "string") {
    if (typeof item === "string") return container.includes(item);
    throw new JinjaError(`'in <string>' requires string as left operand, not ${typeName(item)}`);
  }
  if (container instanceof Map) return container.has(item);
  return items(container).some((candidate) => equal(candidate, item));
}

/** `str(value)`. */
export function text(value: Value): string {
  if (value instanceof Undefined) return "";
  return typeof value === "string" ? value : repr(value);
}

/** `repr(value)`. */
export function repr(value: Value): string {
  if (value === null) return "None";
  if (value instanceof Undefined) return "Undefined";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number") return integerText(value);
  if (value instanceof Float) return floatText(value.value).replace("Infinity", "inf").replace("NaN", "nan");
  if (typeof value === "string") return limited(quoted(value));
  if (value instanceof Tuple) return `(${join(value.map(repr), ", ")}${value.length === 1 ? "," : ""})`;
  if (Array.isArray(value)) return `[${join(value.map(repr), ", ")}]`;
  if (value instanceof Map)
    return `{${join(
      [...value].map(([key, item]) => `${repr(key)}: ${repr(item)}`),
      ", ",
    )}}`;
  if (value instanceof Namespace) return `<Namespace ${repr(value.attributes as Dict)}>`;
  if (value instanceof Loop)
    return `<LoopContext ${text(value.attributes.get("index") as Value)}/${text(value.attributes.get("length") as Value)}>`;
  throw new JinjaError("A function cannot be printed.");
}

const integerText = (value: number): string =>
  Number.isSafeInteger(value) ? String(value) : BigInt(value).toString();

const NAMED_ESCAPES: Readonly<Record<string, string>> = {
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\\": "\\\\",
};

/** A string as Python's repr writes it: single quotes unless only those are inside; what does not print is escaped. */
function quoted(value: string): string {
  const quote = value.includes("'") && !value.includes('"') ? '"' : "'";
  // Printable in Python: all but control, format, surrogate, private and unassigned, and separators other than the space.
  const body = value.replaceAll(/[\\\p{C}\p{Z}]/gu, (char) => {
    const code = codeOf(char);
    if (char === " ") return char;
    if (NAMED_ESCAPES[char] !== undefined) return NAMED_ESCAPES[char];
    if (code < 0x100) return `\\x${code.toString(16).padStart(2, "0")}`;
    return code < 0x10000
      ? `\\u${code.toString(16).padStart(4, "0")}`
      : `\\U${code.toString(16).padStart(8, "0")}`;
  });
  return quote + (quote === "'" ? body.replaceAll("'", "\\'") : body) + quote;
}

export interface JsonOptions {
  readonly indent: number | string | null;
  readonly ensureAscii: boolean;
  readonly sortKeys: boolean;
  readonly separators: readonly [string, string] | null;
}

/** `json.dumps(value)`. */
export function toJson(value: Value, options: JsonOptions): string {
  const unit = typeof options.indent === "number" ? repeat(" ", options.indent) : options.indent;
  const [comma, colon] = options.separators ?? [unit === null ? ", " : ",", ": "];
  const string = (plain: string): string => {
    const json = limited(JSON.stringify(plain));
    if (!options.ensureAscii) return json;
    return json.replaceAll(
      /[\u007f-\uffff]/g,
      (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
    );
  };
  const list = (open: string, lines: string[], close: string, depth: number): string => {
    if (lines.length === 0) return open + close;
    if (unit === null) return open + join(lines, comma) + close;
    const inner = `\n${repeat(unit, depth + 1)}`;
    return `${open}${inner}${join(lines, comma + inner)}\n${repeat(unit, depth)}${close}`;
  };
  const write = (item: Value, depth: number): string => {
    if (item === null) return "null";
    if (typeof item === "boolean") return String(item);
    if (typeof item === "number") return integerText(item);
    if (item instanceof Float) return floatText(item.value);
    if (typeof item === "string") return string(item);
    if (Array.isArray(item))
      return list(
        "[",
        item.map((entry) => write(entry, depth + 1)),
        "]",
        depth,
      );
    if (item instanceof Map) {
      const entries = [...item];
      if (options.sortKeys) entries.sort(([a], [b]) => compare(a, b));
      const lines = entries.map(([key, entry]) => string(keyText(key)) + colon + write(entry, depth + 1));
      return list("{", lines, "}", depth);
    }
    throw new JinjaError(`Object of type ${typeName(item)} is not JSON serializable`);
  };
  return write(value, 0);
}

/** `text * times`. */
export function repeat(value: string, times: number): string {
  checkSize(value.length * Math.max(0, times), MAX_TEXT);
  return value.repeat(Math.max(0, times));
}

/** JSON has string keys only; Python writes the others as JSON would. */
function keyText(key: Value): string {
  if (typeof key === "string") return key;
  if (key === null || isNumber(key)) return toJson(key, PLAIN_JSON);
  throw new JinjaError(`keys must be str, int, float, bool or None, not ${typeName(key)}`);
}

export const PLAIN_JSON: JsonOptions = {
  indent: null,
  ensureAscii: false,
  sortKeys: false,
  separators: null,
};

/** White space as Python knows it, for regular expressions. */
export const SPACE =
  "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
const SPACE_LEFT = new RegExp(`^${SPACE}+`);
const SPACE_RUN = new RegExp(`${SPACE}+`);
const IS_SPACE = new RegExp(SPACE);

/** `str.strip`, `lstrip`, `rstrip`: of white space as Python knows it, or of the given characters. */
export function strip(value: string, chars: Value | undefined, sides: "left" | "right" | "both"): string {
  if (chars !== undefined && chars !== null) {
    const set = new Set(items(chars));
    const points = [...value];
    let [start, end] = [0, points.length];
    while (sides !== "right" && start < end && set.has(points[start] as string)) start++;
    while (sides !== "left" && end > start && set.has(points[end - 1] as string)) end--;
    return points.slice(start, end).join("");
  }
  const left = sides === "right" ? value : value.replace(SPACE_LEFT, "");
  if (sides === "left") return left;
  let end = left.length;
  while (end > 0 && IS_SPACE.test(left[end - 1] as string)) end--;
  return left.slice(0, end);
}

export const splitSpace = (value: string): string[] =>
  strip(value, null, "both")
    .split(SPACE_RUN)
    .filter((part) => part !== "");

/** `sequence[start:stop:step]`. */
export function slice<T>(
  sequence: readonly T[],
  start: number | null,
  stop: number | null,
  step: number | null,
): T[] {
  const by = step ?? 1;
  if (by === 0) throw new JinjaError("slice step cannot be zero");
  const size = sequence.length;
  const [least, most] = by > 0 ? [0, size] : [-1, size - 1];
  const bound = (at: number | null, fallback: number) =>
    at === null ? fallback : Math.min(Math.max(at < 0 ? at + size : at, least), most);
  const first = bound(start, by > 0 ? 0 : size - 1);
  const end = bound(stop, by > 0 ? size : -1);
  const out: T[] = [];
  for (let i = first; by > 0 ? i < end : i > end; i += by) out.push(sequence[i] as T);
  return out;
}
