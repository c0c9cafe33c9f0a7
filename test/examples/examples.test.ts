// The examples, compiled and run on the demo model; and the programs in README.md and the guides.

import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, symlinkSync } from "node:fs";
import { basename, join } from "node:path";
import t from "tap";
import ts from "typescript";
import { fixture, root } from "../support/fixtures.js";
import { runProgram } from "../support/program.js";

// One thread: a team of two waits long for each other on a machine that is busy with tests.
process.env["OMP_NUM_THREADS"] = "1";

const node = (...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: "utf8" });
  return { status, stdout, stderr };
};
const example = (name: string, ...args: string[]) => node(`build/examples/${name}/index.js`, ...args);

t.test("examples", async (t) => {
  const built = node("node_modules/typescript/bin/tsc", "-p", "examples/tsconfig.json");
  t.match(built, { status: 0, stdout: "" }, "they compile");
  const expected: Record<string, RegExp> = {
    "custom-model":
      /8 new weights[\s\S]*same logits before training: true[\s\S]*again as AdapterLlamaForCausalLM/,
    "fine-tuning": /[▁-█]{20}\nloss (\d+\.\d+) -> 0\.\d+ in 20 steps\nThe tensor said hello to the gradient/,
    "text-generation": /^The file must be used\.\n$/,
    training: /[▁-█]{60}\nloss 0\.\d+ -> 0\.000\d+ in 300 steps/,
    workers: /tensor\(\[\[ 0\., +2\., +4\.\][\s\S]*tensor\(\[ 4\.4721, 14\.1421\]\)/,
  };
  const folders = readdirSync(join(root, "examples"), { withFileTypes: true }).filter((entry) =>
    entry.isDirectory(),
  );
  t.same(folders.map(({ name }) => name).sort(), Object.keys(expected), "each is run here");
  const output = t.testdir();
  for (const [name, stdout] of Object.entries(expected)) {
    const args =
      name === "custom-model" || name === "fine-tuning" ? [fixture("demo-llama"), join(output, name)] : [];
    t.match(example(name, ...args), { status: 0, stdout }, name);
  }
  t.match(
    readFileSync(join(output, "fine-tuning/loss.svg"), "utf8"),
    /<polyline points="0\.0,0\.0 [\s\S]*<\/svg>/,
  );
});

/** All ```ts blocks of a page as one program; `import`s may stand anywhere in it. */
function program(page: string): string {
  const blocks = [...readFileSync(join(root, page), "utf8").matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(
    ([, code]) => code,
  );
  const { outputText } = ts.transpileModule(blocks.join("\n"), {
    compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 },
  });
  return outputText;
}

const guides = readdirSync(join(root, "docs/guides")).map((name) => `docs/guides/${name}`);
for (const page of guides) {
  t.test(page, async (t) => {
    const folder = t.testdir();
    symlinkSync(fixture("demo-llama"), join(folder, "model"));
    const { status, stdout } = await runProgram(program(page), folder);
    t.equal(status, 0);
    t.not(stdout, "", `${basename(page)} printed something`);
  });
}
