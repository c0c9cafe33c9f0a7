// The package as people get it: packed, installed into an empty folder without scripts, used without a compiler.

import { execFileSync, spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import t from "tap";
import { fixture, root } from "../support/fixtures.js";

const folder = mkdtempSync(join(tmpdir(), "torchformers-packed-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));

/** A package and those that it needs, by name: the folder of each, as Node finds it from the one that needs it. */
function needed(name: string, from: string, found: Map<string, string>): void {
  if (found.has(name)) return;
  const nested = join(from, "node_modules", name);
  const folder = existsSync(nested) ? nested : join(root, "node_modules", name);
  found.set(name, folder);
  const { dependencies = {} } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as {
    dependencies?: Record<string, string>;
  };
  for (const dependency of Object.keys(dependencies)) needed(dependency, folder, found);
}

/** Compilers that fail come first on PATH. */
function environment(): NodeJS.ProcessEnv {
  const tools = join(folder, "no-compiler");
  mkdirSync(tools, { recursive: true });
  for (const name of ["cc", "gcc", "c++", "g++", "clang", "cmake", "make", "ninja", "node-gyp"]) {
    writeFileSync(join(tools, name), "#!/bin/sh\nexit 1\n");
    chmodSync(join(tools, name), 0o755);
  }
  const { NODE_OPTIONS: _hooks, NODE_V8_COVERAGE: _coverage, ...env } = process.env;
  return { ...env, OMP_NUM_THREADS: "1", PATH: `${tools}${delimiter}${process.env["PATH"]}` };
}

/** Runs a program in the folder; resolves to what it printed, or to how it failed. */
function run(file: string, code: string, ...args: string[]): string {
  writeFileSync(join(folder, file), code);
  const options = { cwd: folder, encoding: "utf8", env: environment() } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, [...args, file], options);
  return status === 0 ? stdout : `exit ${status}: ${stderr}`;
}

t.before(() => {
  const npm = (cwd: string, ...args: string[]) =>
    execFileSync("npm", [...args, "--ignore-scripts", "--no-audit", "--no-fund"], {
      cwd,
      env: environment(),
      stdio: "pipe",
    });
  npm(root, "pack", "--pack-destination", folder);
  const { version, dependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const packages = new Map<string, string>();
  for (const name of Object.keys(dependencies)) needed(name, root, packages);
  const local = [...packages.values()];
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name: "consumer", private: true }));
  // The dependencies are copies of the installed ones: a test needs no network.
  npm(folder, "install", "--offline", "--install-links", `./torchformers-${version}.tgz`, ...local);
  symlinkSync(fixture("demo-llama"), join(folder, "model"));
});

const generate = `
  const tokenizer = await AutoTokenizer.from_pretrained("./model");
  const model = await AutoModelForCausalLM.from_pretrained("./model");
  const ids = await model.generate(await tokenizer("This class is used to", { return_tensors: "pt" }), { max_new_tokens: 20 });
  console.log(await tokenizer.decode(ids.index(0), { skip_special_tokens: true }));`;
const text = "This class is used to create a `torch.nn.Module` object.\n";

t.test("an ES module", async (t) => {
  t.equal(
    run("a.mjs", `import { AutoModelForCausalLM, AutoTokenizer } from "torchformers";${generate}`),
    text,
  );
});

t.test("CommonJS", async (t) => {
  const code = `const { AutoModelForCausalLM, AutoTokenizer } = require("torchformers");(async () => {${generate}})();`;
  t.equal(run("b.cjs", code, "--no-warnings"), text);
  const both = `import("torchformers").then(({ torch }) => console.log(torch === require("torchformers").torch));`;
  t.equal(run("both.cjs", both, "--no-warnings"), "true\n", "one copy for both");
});

t.test("a worker thread alone", async (t) => {
  const code = `
    import { isMainThread, parentPort, Worker } from "node:worker_threads";
    if (isMainThread) new Worker(new URL(import.meta.url)).on("message", (sum) => console.log(sum));
    else import("torchformers").then(({ torch }) => parentPort.postMessage(torch.ones([2, 3]).sum().item()));`;
  t.equal(run("c.mjs", code), "6\n");
});

t.test("the command", async (t) => {
  const command = join(folder, "node_modules/.bin/torchformers");
  const args = ["generate", "./model", "This class is used to", "-n", "20"];
  t.equal(execFileSync(command, args, { cwd: folder, encoding: "utf8", env: environment() }), text);
});

t.test("types, for a strict program without Node's types", async (t) => {
  const program = `
    import { AutoModelForCausalLM, type Tensor, torch } from "torchformers";
    const model = await AutoModelForCausalLM.from_pretrained("./model", { dtype: "float32" });
    export const logits: Tensor = model.forward({ input_ids: torch.tensor([[1, 2]]) }).logits;
    // @ts-expect-error
    torch.ones([2]).sum([0], { keepdims: true });`;
  writeFileSync(join(folder, "program.mts"), program);
  const compilerOptions = {
    ...{ strict: true, exactOptionalPropertyTypes: true, noEmit: true, skipLibCheck: true, types: [] },
    ...{ target: "es2023", module: "nodenext", lib: ["es2023", "esnext.disposable", "dom"] },
  };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["program.mts"] }));
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  const { stdout } = spawnSync(process.execPath, [tsc, "-p", "."], { cwd: folder, encoding: "utf8" });
  t.equal(stdout, "");
});

t.test("stack traces name the TypeScript source", async (t) => {
  const code = `
    import { nn, torch } from "torchformers";
    try { new nn.Linear(2, 3).forward(torch.ones([4])); } catch (error) { console.log(error.stack); }`;
  const stack = run("d.mjs", code, "--enable-source-maps");
  const [, source, line] = /torchformers\/(lib\/nn\/linear\.ts):(\d+)/.exec(stack) ?? [];
  t.ok(source, stack);
  const path = join(folder, "node_modules/torchformers", source ?? "");
  t.ok(
    existsSync(path) && readFileSync(path, "utf8").split("\n").length >= Number(line),
    "it is in the package",
  );
});

/** Compiles a folder of the consumer, as its own project or with the options of a template. */
function compile(place: string, files?: readonly string[]): string {
  const compilerOptions = {
    ...{
      strict: true,
      noUncheckedIndexedAccess: true,
      exactOptionalPropertyTypes: true,
      noImplicitOverride: true,
    },
    ...{ erasableSyntaxOnly: true, verbatimModuleSyntax: true, skipLibCheck: true, types: ["node"] },
    ...{
      rewriteRelativeImportExtensions: true,
      target: "es2023",
      module: "nodenext",
      outDir: "out",
      rootDir: ".",
    },
    lib: ["es2023", "esnext.disposable"],
  };
  if (files) writeFileSync(join(place, "tsconfig.json"), JSON.stringify({ compilerOptions, files }));
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  return spawnSync(process.execPath, [tsc, "-p", "."], { cwd: place, encoding: "utf8" }).stdout;
}

const inFolder = (place: string, ...args: string[]) =>
  spawnSync(process.execPath, args, { cwd: place, encoding: "utf8", env: environment() });

/** A folder beside the tarball for programs in TypeScript. */
function project(name: string): string {
  const place = join(folder, name);
  mkdirSync(place, { recursive: true });
  const types = join(folder, "node_modules/@types");
  mkdirSync(types, { recursive: true });
  if (!existsSync(join(types, "node")))
    symlinkSync(join(root, "node_modules/@types/node"), join(types, "node"));
  return place;
}

t.test("eject: llama copied out, one line changed", async (t) => {
  const place = project("ejected");
  writeFileSync(join(place, "package.json"), JSON.stringify({ type: "module" }));
  const command = join(folder, "node_modules/.bin/torchformers");
  execFileSync(command, ["eject", "llama", "copy", "--name", "turned-llama"], {
    cwd: place,
    env: environment(),
  });
  const files = ["copy/index.ts", "copy/parity.test.ts"];
  t.equal(compile(place, files), "", "strictly");
  t.match(inFolder(place, "--test", "out/copy/parity.test.js"), { status: 0 }, "as the original");

  const path = join(place, "copy/modeling_llama.ts");
  const source = readFileSync(path, "utf8");
  const changed = source.replace(
    "this.act_fn.forward(this.gate_proj.forward(x)).mul(",
    "this.act_fn.forward(this.gate_proj.forward(x)).add(",
  );
  t.not(changed, source);
  writeFileSync(path, changed);
  t.equal(compile(place, files), "");
  t.match(inFolder(place, "--test", "out/copy/parity.test.js"), { status: 1 }, "no longer");
  writeFileSync(
    join(place, "run.mjs"),
    `import { AutoModelForCausalLM } from "torchformers";
     import { LlamaForCausalLM } from "./out/copy/index.js";
     const model = await LlamaForCausalLM.from_pretrained("../model");
     await model.save_pretrained("./saved");
     const again = await AutoModelForCausalLM.from_pretrained("./saved");
     const ids = await again.generate([1, 2, 3], { max_new_tokens: 4 });
     console.log(again instanceof LlamaForCausalLM, again.config.model_type, ids.shape[0]);`,
  );
  const { stdout, stderr } = inFolder(place, "run.mjs");
  t.equal(stdout, "true turned-llama 1\n", stderr);
});

t.test("init: a package that compiles, passes its tests, trains, and can be packed", async (t) => {
  const place = project("striped-net");
  const command = join(folder, "node_modules/.bin/torchformers");
  execFileSync(command, ["init", "striped-net"], { cwd: folder, env: environment() });
  t.equal(compile(place), "");
  t.match(inFolder(place, "--test", "dist/"), { status: 0 });
  t.match(inFolder(place, "dist/train.js"), {
    status: 0,
    stdout: /step 30: loss 0\.\d+\nsaved into \.\/model\n/,
  });
  t.match(inFolder(place, "dist/push.js"), { status: 2, stderr: /Which repository/ });
  const packed = execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], {
    cwd: place,
    encoding: "utf8",
    env: environment(),
  });
  const names = JSON.parse(packed)[0].files.map(({ path }: { path: string }) => path);
  for (const name of [
    "dist/index.js",
    "dist/index.d.ts",
    "src/modeling_striped_net.ts",
    "README.md",
    "package.json",
  ])
    t.ok(names.includes(name), name);
  t.notOk(
    names.some((name: string) => name.startsWith("model/")),
    "no weights",
  );
});
