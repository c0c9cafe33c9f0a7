// Python's operations on strings, where they differ from JavaScript's: code points, line ends, splitting, formatting.

import { string } from "./arguments.ts";
import {
  type Arguments,
  isNumber,
  JinjaError,
  join,
  limited,
  numberOf,
  repeat,
  repr,
  splitSpace,
  strip,
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
