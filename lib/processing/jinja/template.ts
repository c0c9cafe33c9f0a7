// A chat template: parsed once, rendered often. The language is that of Python's jinja2, and so are the values: templates
// were written for Python.

import { markers, type Rendered, readMarks } from "./generation.ts";
import { Run } from "./interpreter.ts";
import type { Statement } from "./nodes.ts";
import { parse } from "./parser.ts";
import type { Value } from "./values.ts";

export class Template {
  readonly #program: readonly Statement[];

  /** Throws a SyntaxError for a text that is not a template. */
  constructor(source: string) {
    this.#program = parse(source);
  }

  render(variables: ReadonlyMap<string, Value>): Rendered {
    const marks = markers(variables);
    return readMarks(new Run(marks).program(this.#program, variables), marks);
  }
}
