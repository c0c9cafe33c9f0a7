// `{% generation %} … {% endgeneration %}`: the blocks that say which part of a prompt the assistant wrote. They write marks
// into the text, which are taken out in the end.

import type { Value } from "./values.ts";

export interface Rendered {
  readonly text: string;
  /** [start, end) in code points of what was written inside `{% generation %}`. */
  readonly generations: (readonly [number, number])[];
}

/** What opens and what closes a block in the marked text. */
export type Marks = readonly [open: string, close: string];

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
