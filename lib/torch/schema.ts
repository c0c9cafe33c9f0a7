// Reads operator schemas: "add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor".
// Knows nothing of tensors, so that the generator can use it too.

export interface Parameter {
  readonly name: string;
  /** Without alias marks, list brackets and question marks: "Tensor", "int", "Scalar", "ScalarType", … */
  readonly type: string;
  readonly list: boolean;
  /** Length of a fixed-size list, which also takes a single value; 0 otherwise. */
  readonly size: number;
  readonly nullable: boolean;
  /** `Tensor?[]`: entries may be null. */
  readonly nullableItems: boolean;
  readonly keywordOnly: boolean;
  readonly default: string | undefined;
  readonly written: boolean;
}

export interface Result {
  readonly name: string;
  readonly type: string;
  readonly list: boolean;
  readonly written: boolean;
}

export interface Schema {
  readonly text: string;
  readonly name: string;
  readonly overload: string;
  readonly parameters: readonly Parameter[];
  /** How many parameters may be given by position; they come first. */
  readonly positional: number;
  readonly results: readonly Result[];
}

/** Splits at commas that stand outside brackets. */
function splitList(text: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text[i] as string;
    if ("([".includes(c)) depth++;
    else if (")]".includes(c)) depth--;
    else if (c === "," && depth === 0) {
      parts.push(text.slice(start, i).trim());
      start = i + 1;
    }
  }
  const last = text.slice(start).trim();
  if (last !== "") parts.push(last);
  return parts;
}

const TYPE = /^(\w+)(\([^)]*\))?(\?)?(?:\[(\d*)\])?(\([^)]*\))?(\?)?/;

/** "Tensor(a!)?[]" and the like, into its parts. */
function parseType(text: string) {
  const [, base = "", alias = "", inner, size, , outer] = text.match(TYPE) ?? [];
  const list = size !== undefined;
  return {
    type: base === "SymInt" ? "int" : base,
    list,
    size: Number(size || 0),
    nullable: list ? outer !== undefined : inner !== undefined || outer !== undefined,
    nullableItems: list && inner !== undefined,
    written: text.includes("!") && alias !== undefined,
  };
}

function parseParameter(text: string, keywordOnly: boolean): Parameter {
  const space = text.lastIndexOf(" ", text.includes("=") ? text.indexOf("=") : text.length);
  const [name = "", ...value] = text.slice(space + 1).split("=");
  return {
    ...parseType(text.slice(0, space)),
    name,
    keywordOnly,
    default: value.length > 0 ? value.join("=") : undefined,
  };
}

function parseResult(text: string): Result {
  const { type, list, written } = parseType(text);
  return { name: text.match(/ (\w+)$/)?.[1] ?? "", type, list, written };
}

/** Reads one schema; the namespace ("aten::") may be there or not. */
export function parseSchema(text: string): Schema {
  const [, name = "", overload = ""] = text.match(/^(?:\w+::)?(\w+)(?:\.(\w+))?\(/) ?? [];
  const arrow = text.lastIndexOf(" -> ");
  const inside = text.slice(text.indexOf("(") + 1, text.lastIndexOf(")", arrow));
  const output = text.slice(arrow + 4);
  let keywordOnly = false;
  const parameters: Parameter[] = [];
  for (const part of splitList(inside)) {
    if (part === "*") keywordOnly = true;
    else parameters.push(parseParameter(part, keywordOnly));
  }
  return {
    text,
    name,
    overload,
    parameters,
    positional: parameters.filter((parameter) => !parameter.keywordOnly).length,
    results: splitList(output.startsWith("(") ? output.slice(1, -1) : output).map(parseResult),
  };
}
