// The types of a configuration's fields, written as Python writes them, and the checks that follow from them.

import { ConfigError } from "../errors/index.ts";
import { isParsed, markFloat, markFloats, numberForm, setNumberForm } from "../json/json.ts";

/**
 * Types by field name, in Python's notation: `"int"`, `"int | None"`, `"float"`, `"int | list[int] | None"`, `"dict"`.
 * A name that is none of int, float, bool, str, None, list and dict stands for any value.
 */
export type FieldTypes = Readonly<Record<string, string>>;

/** Bounds of numeric fields, both included. */
export type FieldRanges = Readonly<Record<string, { readonly min?: number; readonly max?: number }>>;

type FieldType =
  | { readonly kind: "int" | "float" | "bool" | "str" | "None" | "dict" | "any" }
  | { readonly kind: "list"; readonly item: FieldType | undefined }
  | { readonly kind: "union"; readonly members: readonly FieldType[] };

const parsed = new Map<string, FieldType>();

/** Parts of a union; a `|` inside brackets belongs to an inner type. */
function members(text: string): string[] {
  const parts = [""];
  let depth = 0;
  for (const unit of text) {
    if (unit === "[") depth++;
    if (unit === "]") depth--;
    if (unit === "|" && depth === 0) parts.push("");
    else parts[parts.length - 1] += unit;
  }
  return parts.map((part) => part.trim());
}

function parseType(text: string): FieldType {
  const known = parsed.get(text);
  if (known !== undefined) return known;
  const parts = members(text);
  const type: FieldType =
    parts.length > 1 ? { kind: "union", members: parts.map(parseType) } : parseSingle(parts[0] as string);
  parsed.set(text, type);
  return type;
}

function parseSingle(name: string): FieldType {
  const [base = "", argument] = name.split(/\[(.*)\]$/s);
  switch (base) {
    case "int":
    case "float":
    case "bool":
    case "str":
    case "None":
    case "dict":
      return { kind: base };
    case "list":
    case "tuple": {
      // `tuple[int, ...]` has one item type, as a list has; tuples of different ones are not told apart.
      const item = argument?.replace(/, *\.\.\.$/, "");
      return { kind: "list", item: item === undefined || item.includes(",") ? undefined : parseType(item) };
    }
    default:
      return { kind: "any" };
  }
}

/** `form` is how the number was written in its file, when it came from one. */
function fits(value: unknown, type: FieldType, form: string | undefined): boolean {
  switch (type.kind) {
    case "any":
      return true;
    case "None":
      return value === null;
    case "bool":
      return typeof value === "boolean";
    case "str":
      return typeof value === "string";
    case "int":
      return (
        typeof value === "bigint" ||
        (typeof value === "number" && Number.isInteger(value) && !isFloatForm(form))
      );
    case "float":
      return typeof value === "number";
    case "dict":
      return typeof value === "object" && value !== null && !Array.isArray(value);
    case "list": {
      const { item } = type;
      return (
        Array.isArray(value) &&
        (item === undefined || value.every((entry, i) => fits(entry, item, numberForm(value, i))))
      );
    }
    case "union":
      return type.members.some((member) => fits(value, member, form));
  }
}

const isFloatForm = (form: string | undefined) => form !== undefined && /[.eEN]/.test(form);

/** A value as an error shows it. */
export function shown(value: unknown): string {
  if (value === null) return "None";
  if (typeof value === "string") return `str '${value.length > 60 ? `${value.slice(0, 60)}…` : value}'`;
  if (typeof value === "boolean") return `bool ${value}`;
  if (typeof value === "bigint") return `int ${value}`;
  if (typeof value === "number") return `${Number.isInteger(value) ? "int" : "float"} ${value}`;
  if (Array.isArray(value)) return `a list of ${value.length}`;
  return typeof value === "object" ? "a dict" : `a ${typeof value}`;
}

/** Sizes and counts are never negative; a class may say otherwise in its `field_ranges`. */
const isSize = (name: string) => /(^|_)(size|dim)$|^num_|^max_position_embeddings$/.test(name);

/** Throws `ConfigError` for a field whose value is not of its type or out of its range. */
export function checkFields(owner: string, values: object, types: FieldTypes, ranges: FieldRanges): void {
  for (const [name, text] of Object.entries(types)) {
    const value = (values as Record<string, unknown>)[name];
    if (value === undefined) continue;
    const form = numberForm(values, name);
    if (!fits(value, parseType(text), form)) {
      const came = isFloatForm(form) && Number.isInteger(value) ? `float ${form}` : shown(value);
      throw new ConfigError(`${owner}: field '${name}' must be ${text}, got ${came}.`);
    }
    if (typeof value !== "number") continue;
    const { min = isSize(name) ? 0 : undefined, max } = ranges[name] ?? {};
    if ((min !== undefined && !(value >= min)) || (max !== undefined && !(value <= max))) {
      const bounds = [min === undefined ? "" : `at least ${min}`, max === undefined ? "" : `at most ${max}`];
      throw new ConfigError(
        `${owner}: field '${name}' must be ${bounds.filter(Boolean).join(" and ")}, got ${value}.`,
      );
    }
  }
}

/** Where a plain JavaScript number has two readings: a field that may be a float is one, unless its file said int. */
function marks(type: FieldType): "float" | "floats" | undefined {
  const options = type.kind === "union" ? type.members : [type];
  if (options.some(({ kind }) => kind === "float")) return "float";
  return options.some((option) => option.kind === "list" && option.item?.kind === "float")
    ? "floats"
    : undefined;
}

/** Remembers for every float field of `values` that it is written as a float. */
export function markFloatFields(values: object, types: FieldTypes): void {
  for (const [name, text] of Object.entries(types)) {
    const value = (values as Record<string, unknown>)[name];
    const type = parseType(text);
    const mark = marks(type);
    if (mark === "float" && typeof value === "number") {
      const takesInt = type.kind === "union" && type.members.some(({ kind }) => kind === "int");
      const form = numberForm(values, name);
      if (form === undefined || !takesInt) markFloat(values, name);
    } else if (mark === "floats" && Array.isArray(value)) {
      markFloats(value);
    }
  }
}

/**
 * Takes over how numbers were written in `source`, for the fields of `target` that still hold the same value.
 * A whole number without a form in a parsed source was written as an integer.
 */
export function adoptNumberForms(target: object, source: object): void {
  for (const [name, value] of Object.entries(source)) {
    if (typeof value !== "number" || !Object.is((target as Record<string, unknown>)[name], value)) continue;
    const form =
      numberForm(source, name) ??
      (isParsed(source) && Number.isSafeInteger(value) ? String(value) : undefined);
    if (form !== undefined) setNumberForm(target, name, form);
  }
}
