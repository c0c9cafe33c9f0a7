// npm test [-- paths]: sets up what is missing, then runs the native tests, the TypeScript tests and the checks.
// With paths (files or folders below test/) only the TypeScript tests there run. Ends with a line `N passed, N failed`.

import { spawn } from "node:child_process";
import { existsSync, readdirSync, realpathSync, statSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { createInterface } from "node:readline";
import { prepare } from "./prepare.mjs";
import { fail, root } from "./support.mjs";

/** Tests that need what this machine may lack, or much time; each is run by naming its folder. */
const APART = ["test/gpu", "test/soak"];

/** Compiled tests of sources that are there: tsc leaves the outputs of removed ones. */
function compiledTests(paths) {
  const sources =
    paths.length > 0
      ? paths.flatMap((path) => testsBelow(find(path)))
      : testsBelow(join(root, "test"), APART);
  return sources.map((path) => join("build", relative(root, path).replace(/\.ts$/, ".js")));
}

function find(path) {
  const found = [resolve(path), join(root, "test", path)].find(existsSync);
  return (
    found ??
    fail(`There is no ${path}.`, "Name a file or folder below test/, for example: npm test -- test/setup")
  );
}

function testsBelow(path, apart = []) {
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const below = join(path, entry.name);
      if (entry.isDirectory())
        return entry.name === "fixtures" || apart.includes(relative(root, below))
          ? []
          : testsBelow(below, apart);
      return entry.name.endsWith(".test.ts") ? [below] : [];
    });
}

/** Runs a script and hands each line of its output on; resolves to the exit code. */
async function lines(args, onLine) {
  const child = spawn(process.execPath, args, { cwd: root, stdio: ["ignore", "pipe", "inherit"] });
  for await (const line of createInterface({ input: child.stdout })) onLine(line);
  if (child.exitCode === null && child.signalCode === null)
    await new Promise((done) => child.once("exit", done));
  return child.exitCode ?? 1;
}

/** A line per file; what happened inside is told only where something failed. */
async function runTap(files) {
  const tap = realpathSync(join(root, "node_modules/.bin/tap"));
  const counts = { passed: 0, failed: 0, skipped: 0 };
  let block = [];
  let failedFiles = 0;
  const code = await lines([tap, "--reporter=tap", ...files], (line) => {
    const totals = /^# \{ (.*) \}$/.exec(line)?.[1];
    if (totals !== undefined) {
      const count = (name) => Number(new RegExp(`\\b${name}: (\\d+)`).exec(totals)?.[1] ?? 0);
      counts.passed = count("pass");
      counts.failed = count("fail");
      counts.skipped = count("skip") + count("todo");
    }
    const result = /^(not )?ok \d+ - /.exec(line);
    if (result) {
      if (result[1]) console.log(block.join("\n"));
      failedFiles += result[1] ? 1 : 0;
      console.log(line.replace("build/test/", "test/"));
      block = [];
    } else if (/^[ #]/.test(line)) block.push(line);
  });
  // A file that dies before its first assertion has none that failed.
  counts.failed = Math.max(counts.failed, failedFiles, code === 0 ? 0 : 1);
  return counts;
}

/** A script that counts for itself ends with the same line as this one; any other counts as one test. */
async function runScript(...args) {
  let counts;
  const code = await lines(args, (line) => {
    console.log(line);
    const told = /^(\d+) passed, (\d+) failed$/.exec(line);
    if (told) counts = { passed: Number(told[1]), failed: Number(told[2]), skipped: 0 };
  });
  counts ??= { passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, skipped: 0 };
  return { ...counts, failed: Math.max(counts.failed, code === 0 ? 0 : 1) };
}

const paths = process.argv.slice(2);
await prepare({ tests: true });

const results = [];
const files = compiledTests(paths);
if (paths.length === 0) {
  for (const script of ["test_native.mjs", "check.mjs"].map((name) => join(root, "scripts", name))) {
    if (existsSync(script)) results.push(await runScript(script));
  }
}
if (files.length > 0) results.push(await runTap(files));

const sum = (name) => results.reduce((total, result) => total + result[name], 0);
if (sum("skipped") > 0) console.log(`${sum("skipped")} skipped`);
console.log(`${sum("passed")} passed, ${sum("failed")} failed`);
process.exitCode = sum("failed") > 0 || sum("passed") === 0 ? 1 : 0;
