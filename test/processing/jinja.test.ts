// Templates by themselves, against transformers' environment of Python's jinja2 (scripts/goldens/jinja.py).
import { readFileSync } from "node:fs";
import t from "tap";
import { Template } from "#lib/processing/jinja/template.js";
import { fromPlain, JinjaError, type Value } from "#lib/processing/jinja/values.js";
import { fixture } from "../support/fixtures.js";

/** null: does not parse; false: fails. */
type Case = [template: string, rendered: string | null | false];

const { context, by_hand, drawn } = JSON.parse(readFileSync(fixture("jinja.json"), "utf8")) as {
  context: Record<string, unknown>;
  by_hand: Case[];
  drawn: Case[];
};
const variables = new Map(
  Object.entries(context).map(([name, value]): [string, Value] => [name, fromPlain(value)]),
);

function render(source: string): string | null | false {
  let template: Template;
  try {
    template = new Template(source);
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
  try {
    return template.render(variables).text;
  } catch (error) {
    if (error instanceof JinjaError) return false;
    throw error;
  }
}

t.test("what does not parse says where", async (t) => {
  const wrong: [template: string, message: RegExp][] = [
    ["{% if x %}", /Unexpected end of template\. Looked for: 'elif' or 'else' or 'endif'\. \(line 1\)/],
    ["\n\n{{ ) }}", /unexpected '\)' \(line 3\)/],
    ["{{ (1] }}", /unexpected '\]', expected '\)'/],
    ["{% nope %}", /Encountered unknown tag 'nope'/],
    ["{% include 'x' %}", /cannot contain 'include'/],
    ["{% raw %}x", /Missing end of raw directive/],
    ["{# x", /Missing end of comment tag/],
    ["{% break %}", /'break' outside loop/],
    ["{{ x is odd is even }}", /chain multiple tests/],
    ["{{ x is in is y }}", /chain multiple tests/],
    ["{{ f(a=1, 2) }}", /invalid syntax for function call expression/],
    ["{{ '\\x4' }}", /truncated \\x escape/],
    ["{% set 1 = 2 %}", /can't assign to 'literal'/],
  ];
  for (const [template, message] of wrong) t.throws(() => new Template(template), { message }, template);
});

for (const [name, cases] of Object.entries({ by_hand, drawn })) {
  t.test(name, async (t) => {
    for (const [template, rendered] of cases) {
      const got = render(template);
      if (got !== rendered) t.equal(got, rendered, JSON.stringify(template));
    }
    t.ok(cases.length > 100);
  });
}
