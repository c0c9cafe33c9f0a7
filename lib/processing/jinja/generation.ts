// `{% generation %} … {% endgeneration %}`: the blocks that say which part of a prompt the assistant wrote. The parser
// does not know them, so they become assignments to a name of ours, which write a mark into the text.

import type { Value } from "./values.ts";

export const GENERATION = "__generation__";
const GENERATION_TAGS = /\{%(-?)\s*(end)?generation\s*(-?)%\}/g;

export interface Rendered {
  readonly text: string;
  /** [start, end) in code points of what was written inside `{% generation %}`. */
  readonly generations: (readonly [number, number])[];
}

/** What opens and what closes a block in the marked text. */
export type Marks = readonly [open: string, close: string];

/** The template with its generation tags as assignments. */
export const withAssignments = (source: string): string =>
  source.replaceAll(
    GENERATION_TAGS,
    (_, left: string, end: string | undefined, right: string) =>
      `{%${left} set ${GENERATION} = ${end === undefined ? "true" : "false"} ${right}%}`,
  );

/** Two marks that no input contains: runs of NUL longer than any in the variables, and a letter. */
export function markers(variables: ReadonlyMap<string, Value>): Marks {
  let longest = 0;
  const visit = (value: Value): void => {
    if (typeof value === "string") {
      for (const run of value.match(/\0+/g) ?? []) longest = Math.max(longest, run.length);
    } else if (Array.isArray(value)) value.forEach(visit);
    else if (value instanceof Map) for (const [key, item] of value) [key, item].forEach(visit);
  };
  for (const value of variables.values()) visit(value);
  const fence = "\0".repeat(longest + 1);
  return [`${fence}<${fence}`, `${fence}>${fence}`];
}

/** Takes the marks out of a rendered text, and says where they were. */
export function readMarks(marked: string, [open, close]: Marks): Rendered {
  const generations: [number, number][] = [];
  let at = 0;
  let out = "";
  let start = 0;
  for (const part of marked.split(new RegExp(`(${open}|${close})`))) {
    if (part === open) start = at;
    else if (part === close) generations.push([start, at]);
    else {
      out += part;
      at += [...part].length;
    }
  }
  return { text: out, generations };
}
