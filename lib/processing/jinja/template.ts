// A chat template: parsed once, rendered often. `@huggingface/jinja` reads the language; its own interpreter prints and
// compares as JavaScript does, and templates are written for Python, so the values and their behaviour are ours.

import { parse, tokenize } from "@huggingface/jinja";
import { markers, type Rendered, readMarks, withAssignments } from "./generation.ts";
import { type Node, Run } from "./interpreter.ts";
import type { Value } from "./values.ts";

export class Template {
  readonly #program: Node;

  /** Throws a SyntaxError for a text that is not a template. */
  constructor(source: string) {
    // In Jinja a line break after a comment or block goes, and the blanks before one at the start of a line.
    const tokens = tokenize(withAssignments(source), { lstrip_blocks: true, trim_blocks: true });
    this.#program = parse(tokens) as unknown as Node;
  }

  render(variables: ReadonlyMap<string, Value>): Rendered {
    const marks = markers(variables);
    return readMarks(new Run(marks).program(this.#program, variables), marks);
  }
}
