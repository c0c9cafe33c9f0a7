// What every template finds defined: range(), namespace(), strftime_now(), raise_exception().

import { fail, integer, string } from "./arguments.ts";
import { type Arguments, items, JinjaError, Namespace, text, type Value } from "./values.ts";

/** Longer ranges are refused, as in the reference's sandbox. */
const MAX_RANGE = 100_000;

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
