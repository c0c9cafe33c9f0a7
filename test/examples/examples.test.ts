// The examples, compiled and run on the demo model; and the programs in README.md and the guides, compiled and run too.

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import t from "tap";
import ts from "typescript";
import { fixture, root } from "../support/fixtures.js";

// One thread: a team of two waits long for each other on a machine that is busy with tests.
process.env["OMP_NUM_THREADS"] = "1";

/** A hub in a process of its own, which has the demo model; a home and a token for it. */
async function startHub(folder: string): Promise<NodeJS.ProcessEnv> {
  mkdirSync(join(folder, "repos"), { recursive: true });
  symlinkSync(fixture("demo-llama"), join(folder, "repos/demo-llama"));
  const server = spawn(
    process.execPath,
    [join(root, "build/test/support/hub_server.js"), join(folder, "repos")],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  t.teardown(() => server.kill());
  const [url] = await once(server.stdout, "data");
  return { HF_ENDPOINT: String(url).trim(), HF_HOME: join(folder, "home"), HF_TOKEN: "hf_testtoken" };
}

Object.assign(process.env, await startHub(t.testdir()));

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
    hub: /^Once upon a time.+\norg\/demo-llama: 1 revision in the cache\nsent: http.*\/tester\/sent\/commit\//,
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
      name === "hub"
        ? ["org/demo-llama", "tester/sent"]
        : name === "custom-model" || name === "fine-tuning"
          ? [fixture("demo-llama"), join(output, name)]
          : [];
    t.match(example(name, ...args), { status: 0, stdout }, name);
  }
  t.match(
    readFileSync(join(output, "fine-tuning/loss.svg"), "utf8"),
    /<polyline points="0\.0,0\.0 [\s\S]*<\/svg>/,
  );
});

/** Writes all ```ts blocks of a page as one program; its imports may stand anywhere in it. */
function extract(page: string): string {
  const blocks = [...readFileSync(join(root, page), "utf8").matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(
    ([, code]) => code,
  );
  const file = join(root, "build/guides", `${basename(page, ".md")}.ts`);
  mkdirSync(join(root, "build/guides"), { recursive: true });
  writeFileSync(file, blocks.join("\n"));
  return file;
}

/** What the compiler says to the programs; writes their JavaScript beside them. */
function compile(files: readonly string[]): string[] {
  const { config } = ts.readConfigFile(join(root, "tsconfig.json"), ts.sys.readFile);
  const compilerOptions = { ...config.compilerOptions, noEmit: false, allowImportingTsExtensions: false };
  const { options } = ts.convertCompilerOptionsFromJson(compilerOptions, root);
  const program = ts.createProgram(files, options);
  const { diagnostics } = program.emit();
  return [...ts.getPreEmitDiagnostics(program), ...diagnostics].map(
    ({ file, messageText }) =>
      `${basename(file?.fileName ?? "")}: ${ts.flattenDiagnosticMessageText(messageText, "\n")}`,
  );
}

t.test("README.md and the guides", async (t) => {
  const guides = readdirSync(join(root, "docs/guides")).map((name) => `docs/guides/${name}`);
  const files = ["README.md", ...guides].map(extract);
  t.same(compile(files), [], "they compile");
  const folder = t.testdir({ test: { fixtures: {} } });
  for (const link of ["model", "test/fixtures/demo-llama"])
    symlinkSync(fixture("demo-llama"), join(folder, link));
  for (const file of files) {
    const program = file.replace(/\.ts$/, ".js");
    const { status, stdout, stderr } = spawnSync(process.execPath, [program], {
      cwd: folder,
      encoding: "utf8",
    });
    t.equal(status, 0, `${basename(program)} ${status === 0 ? "" : stderr}`);
    t.not(stdout, "");
  }
});
