// JSON as Python reads and writes it, without losing what a JavaScript number cannot say.
//
// Python tells 30 from 30.0 and keeps integers of any length; files are refused by the reference when the
// difference is lost. Values are plain JavaScript numbers here, and a side table remembers, per object and key,
// how the number was written. A remembered form counts only as long as the number is still the same.

import { ConfigError } from "../errors/index.ts";

export type Json = null | boolean | number | bigint | string | Json[] | { [key: string]: Json };

/** Whether a value is what JSON calls an object. */
export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** The same, but no instance of a class. */
export const isPlain = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" &&
  value !== null &&
  !Array.isArray(value) &&
  Object.getPrototypeOf(value) === Object.prototype;

/** Nesting beyond this is refused; Python gives up at about a thousand. */
const MAX_DEPTH = 500;

// ---------------------------------------------------------------------------------------------------------------------
// Number forms

interface NumberForm {
  readonly value: number;
  readonly text: string;
}

const forms = new WeakMap<object, Map<string, NumberForm>>();
const integerKeyed = new WeakSet<object>();

function formsOf(container: object): Map<string, NumberForm> {
  let known = forms.get(container);
  if (known === undefined) {
    known = new Map();
    forms.set(container, known);
  }
  return known;
}

/** How the number at `container[key]` was written, or undefined when nothing is known of it. */
export function numberForm(container: object, key: string | number): string | undefined {
  const form = forms.get(container)?.get(String(key));
  const value = (container as Record<string, unknown>)[key];
  return form !== undefined && Object.is(form.value, value) ? form.text : undefined;
}

/** Remembers that the number at `container[key]` is written as `text`. */
export function setNumberForm(container: object, key: string | number, text: string): void {
  const value = (container as Record<string, unknown>)[key];
  if (typeof value === "number") formsOf(container).set(String(key), { value, text });
}

/** Remembers that the number at `container[key]` is a float, even when it is whole: `1` is written `1.0`. */
export function markFloat(container: object, key: string | number): void {
  const value = (container as Record<string, unknown>)[key];
  if (typeof value === "number") setNumberForm(container, key, floatText(value));
}

/** Marks each number of a (nested) array as a float. */
export function markFloats(values: readonly unknown[]): void {
  values.forEach((value, i) => {
    if (Array.isArray(value)) markFloats(value);
    else markFloat(values, i);
  });
}

/** Keys of this object are integers in Python; it sorts them as numbers. */
export function markIntegerKeys<T extends object>(container: T): T {
  integerKeyed.add(container);
  return container;
}

/** Whether a value was made by `parseJson`, so that its whole numbers without a form are known to be integers. */
export const isParsed = (container: object): boolean => forms.has(container);

/** A deep copy of plain data; number forms come along. */
export function cloneJson<T>(value: T): T {
  if (typeof value !== "object" || value === null) return value;
  const isPlain =
    Array.isArray(value) ||
    Object.getPrototypeOf(value) === Object.prototype ||
    Object.getPrototypeOf(value) === null;
  if (!isPlain) return value;
  const copy = (Array.isArray(value) ? [] : {}) as Record<string, unknown>;
  for (const [key, item] of Object.entries(value)) put(copy, key, cloneJson(item));
  const known = forms.get(value);
  if (known !== undefined) forms.set(copy, new Map(known));
  if (integerKeyed.has(value)) integerKeyed.add(copy);
  return copy as T;
}

/** Equality as Python has it for JSON values: by content, `1` equals `1.0`, NaN is not itself. */
export function equalJson(a: unknown, b: unknown): boolean {
  if (typeof a === "object" && a !== null && typeof b === "object" && b !== null) {
    if (Array.isArray(a) !== Array.isArray(b)) return false;
    const keys = Object.keys(a);
    if (keys.length !== Object.keys(b).length) return false;
    return keys.every(
      (key) =>
        Object.hasOwn(b, key) &&
        equalJson((a as Record<string, unknown>)[key], (b as Record<string, unknown>)[key]),
    );
  }
  if (typeof a === "bigint" || typeof b === "bigint")
    return integerOf(a) === integerOf(b) && integerOf(a) !== undefined;
  return a === b;
}

const integerOf = (value: unknown): bigint | undefined => {
  if (typeof value === "bigint") return value;
  return typeof value === "number" && Number.isInteger(value) ? BigInt(value) : undefined;
};

/** Assignment that cannot reach the prototype. */
export function put(target: object, key: string, value: unknown): void {
  if (key === "__proto__") {
    Object.defineProperty(target, key, { value, enumerable: true, writable: true, configurable: true });
  } else {
    (target as Record<string, unknown>)[key] = value;
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Writing

/** A float as Python's `repr` writes it: `1e-05`, `30.0`, `1e+16`. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "Infinity" : "-Infinity";
  const sign = value < 0 || Object.is(value, -0) ? "-" : "";
  const [mantissa = "0", power = "0"] = Math.abs(value).toExponential().split("e");
  const digits = mantissa.replace(".", "");
  const exponent = Number(power);
  if (exponent < -4 || exponent >= 16) {
    const size = String(Math.abs(exponent)).padStart(2, "0");
    return `${sign}${mantissa}e${exponent < 0 ? "-" : "+"}${size}`;
  }
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, "0");
  return `${sign}${whole}.${digits.slice(exponent + 1) || "0"}`;
}

function numberText(value: number, form: string | undefined): string {
  if (form !== undefined) return form;
  if (!Number.isInteger(value) || Object.is(value, -0)) return floatText(value);
  return Number.isSafeInteger(value) ? String(value) : BigInt(value).toString();
}

const SHORT_ESCAPES: Readonly<Record<string, string>> = {
  '"': '\\"',
  "\\": "\\\\",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\b": "\\b",
  "\f": "\\f",
};

/** A string in ASCII, as Python's `ensure_ascii` writes it. */
function stringText(value: string): string {
  const escaped = value.replace(
    /["\\]|[^ -~]/g,
    (unit) => SHORT_ESCAPES[unit] ?? `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  return `"${escaped}"`;
}

/** Order of Python strings: by code point, where JavaScript compares UTF-16 units. */
function byCodePoint(a: string, b: string): number {
  const left = [...a];
  const right = [...b];
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    const difference = (left[i]?.codePointAt(0) ?? 0) - (right[i]?.codePointAt(0) ?? 0);
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}

export interface StringifyOptions {
  /** Write NaN and the infinities as `{"__float__": "NaN"}`, which every JSON reader takes. Default: bare, as Python's json. */
  readonly floatTags?: boolean;
  /** Default true. */
  readonly sortKeys?: boolean;
}

/**
 * Text of `value`, byte for byte as Python's `json.dumps(value, indent=2, sort_keys=True)`.
 *
 * Keys whose value is `undefined` are left out. Throws `ConfigError` for what JSON cannot hold.
 */
export function stringifyJson(
  value: unknown,
  { floatTags = false, sortKeys = true }: StringifyOptions = {},
): string {
  const write = (item: unknown, indent: string, form: string | undefined, depth: number): string => {
    if (depth > MAX_DEPTH)
      throw new ConfigError(`The value nests deeper than ${MAX_DEPTH} levels; does it contain itself?`);
    if (item === null || item === undefined) return "null";
    if (typeof item === "boolean" || typeof item === "bigint") return String(item);
    if (typeof item === "string") return stringText(item);
    if (typeof item === "number") {
      if (floatTags && !Number.isFinite(item))
        return write({ __float__: floatText(item) }, indent, undefined, depth + 1);
      return numberText(item, form);
    }
    if (typeof item !== "object") throw new ConfigError(`A ${typeof item} cannot be written as JSON.`);
    const inner = `${indent}  `;
    if (Array.isArray(item)) {
      if (item.length === 0) return "[]";
      const lines = item.map((entry, i) => inner + write(entry, inner, numberForm(item, i), depth + 1));
      return `[\n${lines.join(",\n")}\n${indent}]`;
    }
    const keys = Object.keys(item).filter((key) => (item as Record<string, unknown>)[key] !== undefined);
    if (keys.length === 0) return "{}";
    if (sortKeys) keys.sort(integerKeyed.has(item) ? (a, b) => Number(a) - Number(b) : byCodePoint);
    const lines = keys.map((key) => {
      const text = write((item as Record<string, unknown>)[key], inner, numberForm(item, key), depth + 1);
      return `${inner}${stringText(key)}: ${text}`;
    });
    return `{\n${lines.join(",\n")}\n${indent}}`;
  };
  return write(value, "", undefined, 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// Reading

export interface ParseOptions {
  /** Named in errors. */
  readonly file?: string;
  /** Turn `{"__float__": "Infinity"}` and its like into the number. Default false. */
  readonly floatTags?: boolean;
  /** The class to throw. Default `ConfigError`. */
  readonly error?: new (
    message: string,
  ) => Error;
}

const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?/y;
const isPlainUnit = (unit: number) => unit >= 0x20 && unit !== 0x22 && unit !== 0x5c;
const SPACE = /[ \t\n\r]*/y;
const WORDS: readonly (readonly [string, Json])[] = [
  ["null", null],
  ["true", true],
  ["false", false],
  ["NaN", Number.NaN],
  ["Infinity", Number.POSITIVE_INFINITY],
  ["-Infinity", Number.NEGATIVE_INFINITY],
];
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};
const FLOAT_TAGS: Readonly<Record<string, number>> = {
  Infinity: Number.POSITIVE_INFINITY,
  "-Infinity": Number.NEGATIVE_INFINITY,
  NaN: Number.NaN,
};

/**
 * Reads JSON as Python's `json.loads` does: `NaN` and the infinities are numbers, of two equal keys the later counts.
 * A byte order mark is skipped.
 *
 * Errors name file, line, column and the field that was being read; nesting is limited, so that no input
 * exhausts the stack.
 */
export function parseJson(text: string, options: ParseOptions = {}): Json {
  return new Parser(text, options).document();
}

class Parser {
  readonly #text: string;
  readonly #options: ParseOptions;
  readonly #path: (string | number)[] = [];
  #at = 0;

  constructor(text: string, options: ParseOptions) {
    this.#text = text;
    this.#options = options;
  }

  document(): Json {
    if (this.#text.charCodeAt(0) === 0xfeff) this.#at = 1;
    this.#space();
    const value = this.#value();
    this.#space();
    if (this.#at < this.#text.length) this.#fail("more text follows the value");
    return value;
  }

  #value(): Json {
    const first = this.#text[this.#at];
    if (first === "{") return this.#object();
    if (first === "[") return this.#array();
    if (first === '"') return this.#string();
    for (const [word, value] of WORDS) {
      if (this.#text.startsWith(word, this.#at)) {
        this.#at += word.length;
        return value;
      }
    }
    return this.#number();
  }

  #object(): Json {
    this.#enter();
    const object: { [key: string]: Json } = {};
    formsOf(object);
    this.#space();
    if (!this.#take("}")) {
      do {
        this.#space();
        if (this.#text[this.#at] !== '"') this.#fail("a key in double quotes was expected");
        const key = this.#string();
        this.#path[this.#path.length - 1] = key;
        this.#space();
        if (!this.#take(":")) this.#fail("':' was expected");
        this.#space();
        this.#store(object, key);
        this.#space();
      } while (this.#take(","));
      if (!this.#take("}")) this.#fail("',' or '}' was expected");
    }
    this.#path.pop();
    return this.#options.floatTags ? untag(object) : object;
  }

  #array(): Json {
    this.#enter();
    const array: Json[] = [];
    formsOf(array);
    this.#space();
    if (!this.#take("]")) {
      do {
        this.#space();
        this.#path[this.#path.length - 1] = array.length;
        this.#store(array, String(array.length));
        this.#space();
      } while (this.#take(","));
      if (!this.#take("]")) this.#fail("',' or ']' was expected");
    }
    this.#path.pop();
    return array;
  }

  /** Reads a value into its container, with the form of a number that its value does not tell. */
  #store(container: object, key: string): void {
    const start = this.#at;
    const value = this.#value();
    put(container, key, value);
    if (typeof value !== "number" || !Number.isFinite(value)) {
      forms.get(container)?.delete(key);
      return;
    }
    const text = this.#text.slice(start, this.#at);
    const isInteger = /^-?[0-9]+$/.test(text);
    if (isInteger && !Number.isSafeInteger(value)) setNumberForm(container, key, BigInt(text).toString());
    else if (!isInteger && Number.isInteger(value)) markFloat(container, key);
    else forms.get(container)?.delete(key);
  }

  #number(): number {
    NUMBER.lastIndex = this.#at;
    const match = NUMBER.exec(this.#text);
    if (match === null)
      this.#fail(
        this.#at >= this.#text.length ? "the text ends where a value was expected" : "a value was expected",
      );
    this.#at = NUMBER.lastIndex;
    const isFloat = match[1] !== undefined || match[2] !== undefined;
    // Python's int knows no -0, its float does.
    return isFloat ? Number(match[0]) : Number(match[0]) + 0;
  }

  #string(): string {
    let value = "";
    this.#at++;
    for (;;) {
      const start = this.#at;
      while (isPlainUnit(this.#text.charCodeAt(this.#at))) this.#at++;
      value += this.#text.slice(start, this.#at);
      const unit = this.#text[this.#at];
      if (unit === undefined) this.#fail("the text ends inside a string");
      if (unit !== '"' && unit !== "\\") this.#fail("a control character stands inside a string");
      this.#at++;
      if (unit === '"') return value;
      value += this.#escape();
    }
  }

  #escape(): string {
    const letter = this.#text[this.#at] ?? "";
    if (letter === "u") {
      const hex = this.#text.slice(this.#at + 1, this.#at + 5);
      if (!/^[0-9a-fA-F]{4}$/.test(hex)) this.#fail("four hexadecimal digits were expected after \\u");
      this.#at += 5;
      return String.fromCharCode(Number.parseInt(hex, 16));
    }
    const plain = ESCAPES[letter];
    if (plain === undefined) this.#fail("an unknown escape stands inside a string");
    this.#at++;
    return plain;
  }

  #enter(): void {
    if (this.#path.length >= MAX_DEPTH) this.#fail(`the nesting is deeper than ${MAX_DEPTH} levels`);
    this.#path.push("");
    this.#at++;
  }

  #space(): void {
    SPACE.lastIndex = this.#at;
    SPACE.exec(this.#text);
    this.#at = SPACE.lastIndex;
  }

  #take(unit: string): boolean {
    if (this.#text[this.#at] !== unit) return false;
    this.#at++;
    return true;
  }

  #fail(reason: string): never {
    const before = this.#text.slice(0, this.#at);
    const line = before.split("\n").length;
    const column = this.#at - before.lastIndexOf("\n");
    const path = this.#path.filter((part) => part !== "");
    const shown = path.length > 6 ? [...path.slice(0, 6), "…"] : path;
    const field = shown.length > 0 ? `, at field '${shown.join(".")}'` : "";
    const Failure = this.#options.error ?? ConfigError;
    throw new Failure(
      `${this.#options.file ?? "JSON"} is not valid JSON: line ${line} column ${column}${field}: ${reason}.`,
    );
  }
}

/** `{"__float__": "NaN"}` is how the reference writes what JSON has no number for. */
function untag(object: { [key: string]: Json }): Json {
  const tag = object.__float__;
  if (typeof tag !== "string" || Object.keys(object).length !== 1 || !Object.hasOwn(FLOAT_TAGS, tag))
    return object;
  return FLOAT_TAGS[tag] as number;
}
