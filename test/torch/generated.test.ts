// Every generated function is called once on small inputs; those that cannot be are listed with the reason.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { torch } from "torchformers";
import { addon } from "#lib/addon/loader.js";
import { parseSchema } from "#lib/torch/schema.js";
import { root } from "../support/fixtures.js";
import { argumentsOf, findOperator, type Schema, schemas } from "../support/operators.js";

// biome-ignore lint/suspicious/noExplicitAny: functions are called by name
type Any = any;

const registered = new Map(
  addon()
    .listOps()
    .filter((text) => text.startsWith("aten::"))
    .map((text) => [text.slice(6, text.indexOf("(")), parseSchema(text)]),
);

t.test("the distilled schemas are those of the registry", (test) => {
  const facts = ({ parameters, results }: Schema) =>
    JSON.stringify([
      parameters.map(({ name, type, list, nullable, nullableItems, written }) => [
        name,
        type,
        list,
        nullable,
        nullableItems,
        written,
      ]),
      results.map(({ type, list, written }) => [type, list, written]),
    ]);
  const different = schemas.filter((schema) => {
    const known = registered.get(schema.overload ? `${schema.name}.${schema.overload}` : schema.name);
    return known === undefined || facts(known) !== facts(schema);
  });
  test.same(
    different.map(({ text }) => text),
    [],
  );
  test.end();
});

/** Public operators that cannot run here, and why. */
const LEFT_OUT: Record<string, string> = JSON.parse(
  readFileSync(join(root, "test/fixtures/torch/left_out.json"), "utf8"),
);

t.test("every generated function runs", (test) => {
  const names = [...new Set(schemas.map(({ name }) => name))];
  const failures: Record<string, string> = {};
  let called = 0;
  for (const name of names) {
    const schema = schemas.find((one) => one.name === name) as Schema;
    try {
      torch.tidy(() => {
        const args = argumentsOf(name, schema);
        const as = findOperator(name);
        if (as) as(...args);
        // A method's receiver is the argument named self, wherever the function has it.
        const descriptor = Object.getOwnPropertyDescriptor(torch.Tensor.prototype, name);
        if (descriptor?.value) {
          const again = argumentsOf(name, schema);
          const [self] = again.splice(
            Math.max(
              0,
              schema.parameters.findIndex((parameter) => parameter.name === "self"),
            ),
            1,
          );
          if (self instanceof torch.Tensor) (self as Any)[name](...again);
        }
        if (!as && !descriptor) throw new Error("is neither a function nor a method");
      });
      called++;
    } catch (error) {
      failures[name] = (error as Error).message.split("\n")[0] as string;
    }
  }
  const unexpected = Object.entries(failures).filter(([name]) => !(name in LEFT_OUT));
  test.same(unexpected, [], `${called} of ${names.length} operators run`);
  if (!torch.cuda.is_available())
    test.same(
      Object.keys(LEFT_OUT).filter((name) => !(name in failures)),
      [],
      "what is left out does fail",
    );
  test.end();
});
