// Python's operations on strings, where they differ from JavaScript's: code points, line ends, splitting, formatting.

import { fail, integer, string } from "./arguments.ts";
import {
  type Arguments,
  Float,
  isNumber,
  JinjaError,
  join,
  limited,
  numberOf,
  repeat,
  repr,
  splitSpace,
  strip,
  Tuple,
  text,
  typeName,
  type Value,
} from "./values.ts";

export const points = (value: string): string[] => [...value];
export const capitalize = (value: string): string => {
  const [first = "", ...rest] = points(value);
  return first.toUpperCase() + rest.join("").toLowerCase();
};
export const titled = (value: string): string => value.replaceAll(/\p{L}+/gu, capitalize);
// biome-ignore lint/suspicious/noControlCharactersInRegex: Python ends lines at these too
const LINE_END = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/;

export function splitLines(value: string): string[] {
  const lines = value.split(LINE_END);
  if (lines.at(-1) === "") lines.pop();
  return lines;
}

export function split(
  value: string,
  separator: Value | undefined,
  limit: number,
  fromRight: boolean,
): string[] {
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

export function replace(value: string, old: string, next: string, count: number): string {
  if (old !== "") return join(split(value, old, count, false), next);
  return weave(points(value), next, count < 0 ? Number.POSITIVE_INFINITY : count);
}

export function find(value: string, part: string, start: number, fromRight: boolean): number {
  const from = points(value)
    .slice(0, start < 0 ? undefined : start)
    .join("").length;
  const at = fromRight ? value.lastIndexOf(part) : value.indexOf(part, from);
  return at < from ? -1 : points(value.slice(0, at)).length;
}

export const pad = (value: string, width: number, fill: string, side: "left" | "right"): string => {
  const missing = repeat(fill, width - points(value).length);
  return side === "left" ? missing + value : value + missing;
};

/** Replaces what `marks` captures; the text grows to the limit at most. */
function substitute(pattern: string, marks: RegExp, value: (mark: string) => string): string {
  let out = "";
  for (const [i, part] of pattern.split(marks).entries())
    out = limited(out + (i % 2 === 1 ? value(part) : part));
  return out;
}

/** `str.format` with plain fields: `{}`, `{0}`, `{name}`. */
export function format(pattern: string, args: readonly Value[], kwargs: Arguments): string {
  let next = 0;
  return substitute(pattern, /(\{\{|\}\}|\{[^{}]*\})/, (mark) => {
    if (mark === "{{" || mark === "}}") return mark[0] as string;
    const field = mark.slice(1, -1);
    const value = field === "" ? args[next++] : /^\d+$/.test(field) ? args[Number(field)] : kwargs.get(field);
    if (value === undefined) throw new JinjaError(`str.format: no argument for '{${field}}'`);
    return text(value);
  });
}

const CONVERSION = /(%(?:\([^)]*\))?[-+ #0]*(?:\*|\d+)?(?:\.\d+)?[a-zA-Z%])/;

/** `pattern % values`: one value, a tuple of them, or a mapping for `%(name)s`. */
export function percentFormat(pattern: string, given: Value): string {
  const values = given instanceof Tuple ? given : [given];
  let next = 0;
  const formatted = substitute(pattern, CONVERSION, (mark) => {
    const parts = /^%(?:\(([^)]*)\))?([-+ #0]*)(\*|\d+)?(?:\.(\d+))?(.)$/.exec(mark) as RegExpExecArray;
    const [, name, flags = "", width = "0", precision, kind = ""] = parts;
    if (kind === "%") return "%";
    const take = (): Value => {
      if (next < values.length) return values[next++] as Value;
      throw new JinjaError("not enough arguments for format string");
    };
    const room = width === "*" ? integer(take(), 0) : Number(width);
    let value: Value;
    if (name === undefined) value = take();
    else if (given instanceof Map) value = given.get(name) ?? fail(repr(name));
    else throw new JinjaError("format requires a mapping");
    return aligned(converted(value, kind, flags, precision), flags, room, kind);
  });
  if (next < values.length && !(given instanceof Map))
    throw new JinjaError("not all arguments converted during string formatting");
  return formatted;
}

function converted(value: Value, kind: string, flags: string, precision: string | undefined): string {
  const digits = precision === undefined ? 6 : Math.min(100, Number(precision));
  const signed = (number: number, body: string) =>
    (number < 0 || Object.is(number, -0) ? "-" : flags.includes("+") ? "+" : flags.includes(" ") ? " " : "") +
    body;
  if (kind === "s" || kind === "r" || kind === "a") {
    const all = kind === "s" ? text(value) : repr(value);
    return precision === undefined ? all : points(all).slice(0, digits).join("");
  }
  if (kind === "c") return typeof value === "number" ? String.fromCodePoint(value) : text(value);
  if (!isNumber(value))
    throw new JinjaError(`%${kind} format: a real number is required, not ${typeName(value)}`);
  const number = numberOf(value);
  const size = Math.abs(number);
  if ("diu".includes(kind))
    return signed(
      Math.trunc(number),
      Math.trunc(size)
        .toString()
        .padStart(precision === undefined ? 0 : digits, "0"),
    );
  if ("xXo".includes(kind)) {
    if (!Number.isInteger(number) || value instanceof Float)
      throw new JinjaError(`%${kind} format: an integer is required, not ${typeName(value)}`);
    const body = size.toString(kind === "o" ? 8 : 16);
    const prefix = flags.includes("#") ? `0${kind}` : "";
    return signed(number, prefix + (kind === "X" ? body.toUpperCase() : body));
  }
  if ("fFeEgG".includes(kind)) return signed(number, floating(size, kind, digits));
  throw new JinjaError(`unsupported format character '${kind}'`);
}

/** As C writes it: an exponent has two digits at least, and `g` takes trailing zeros off. */
function floating(size: number, kind: string, digits: number): string {
  if (!Number.isFinite(size)) return Number.isNaN(size) ? "nan" : "inf";
  const lower = kind.toLowerCase();
  const exponential = (places: number) => size.toExponential(places).replace(/e([+-])(\d)$/, "e$10$2");
  let out: string;
  if (lower === "f") out = size.toFixed(digits);
  else if (lower === "e") out = exponential(digits);
  else {
    const places = Math.max(1, digits);
    const exponent = size === 0 ? 0 : Number(size.toExponential(places - 1).split("e")[1]);
    out = exponent < -4 || exponent >= places ? exponential(places - 1) : size.toFixed(places - 1 - exponent);
    if (out.includes(".")) out = out.replace(/\.?0+(e|$)/, "$1");
  }
  return kind === lower ? out : out.toUpperCase();
}

function aligned(body: string, flags: string, width: number, kind: string): string {
  if (flags.includes("-")) return pad(body, width, " ", "right");
  if (!flags.includes("0") || "srac".includes(kind)) return pad(body, width, " ", "left");
  const [, sign = "", digits = ""] = /^([-+ ]?(?:0[xXo])?)(.*)$/s.exec(body) as RegExpExecArray;
  return sign + pad(digits, width - sign.length, "0", "left");
}
