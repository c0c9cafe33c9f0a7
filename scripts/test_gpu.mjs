// npm run test:gpu [-- --no-bench | --no-tests]: every check and every measurement that needs a GPU, on cuda:0.
//
// Without a usable GPU it says why and ends with 2. In a checkout it sets up what is missing first; in a bundle
// (scripts/bundle.mjs --tests --bench) everything is there.

import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { root } from "./support.mjs";

const device = "cuda:0";
const tests = join(root, "build/test/gpu");
const benchmarks = join(root, "bench/gpu");

/** Opens CUDA's libraries even without a driver: what is wrong with them is worth knowing too. */
async function openDevice() {
  process.env.TORCHFORMERS_CUDA ??= "load";
  const { torch } = await import(pathToFileURL(join(root, "dist/index.js")).href);
  const reasons = torch.cuda.unavailable_reasons();
  if (reasons.length === 0) return torch;
  console.error(
    `No GPU can be used on this machine:\n${reasons.map((reason) => `  - ${reason}`).join("\n")}`,
  );
  console.error("`npx torchformers doctor --cuda` shows what was tried.");
  process.exit(2);
}

/** Runs one file of tests; what it prints is shown when it fails. */
async function runFile(path) {
  // The goldens are float32's: cuDNN would otherwise round convolutions to TF32, as torch lets it by default.
  const env = { ...process.env, TORCHFORMERS_TEST_DEVICE: device, NVIDIA_TF32_OVERRIDE: "0" };
  const child = spawn(process.execPath, ["--enable-source-maps", path], {
    stdio: ["ignore", "pipe", "inherit"],
    env,
  });
  const ended = new Promise((resolve) => child.once("close", (code, signal) => resolve(code ?? signal)));
  const lines = [];
  const counts = { passed: 0, failed: 0, skipped: 0 };
  for await (const line of createInterface({ input: child.stdout })) {
    lines.push(line);
    const totals = /^# \{ (.*) \}$/.exec(line)?.[1];
    if (totals === undefined) continue;
    const count = (name) => Number(new RegExp(`\\b${name}: (\\d+)`).exec(totals)?.[1] ?? 0);
    Object.assign(counts, { passed: count("pass"), failed: count("fail"), skipped: count("skip") });
  }
  const code = await ended;
  // A file that dies before its first assertion has none that failed.
  if (code !== 0) counts.failed = Math.max(counts.failed, 1);
  if (counts.failed > 0) console.log(lines.join("\n"));
  return counts;
}

async function runTests() {
  const sum = { passed: 0, failed: 0, skipped: 0 };
  const files = readdirSync(tests).filter((name) => name.endsWith(".test.js"));
  for (const name of files.sort()) {
    const start = performance.now();
    const counts = await runFile(join(tests, name));
    for (const key of Object.keys(sum)) sum[key] += counts[key];
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    const skipped = counts.skipped > 0 ? `, ${counts.skipped} skipped` : "";
    console.log(
      `${counts.failed === 0 ? "ok" : "not ok"}  ${name}  ${counts.passed} passed, ${counts.failed} failed${skipped}  (${seconds} s)`,
    );
  }
  return sum;
}

/** Writes bench/results/<machine>.json; the README's table is made of these files (scripts/results_table.mjs). */
async function runBenchmarks(torch) {
  const { name, total_memory } = torch.cuda.get_device_properties(device);
  const rows = [];
  for (const file of readdirSync(benchmarks)
    .filter((name) => name.endsWith(".mjs"))
    .sort()) {
    console.log(`\n== ${file}`);
    const { measure } = await import(pathToFileURL(join(benchmarks, file)).href);
    rows.push(...(await measure(device)));
  }
  const machine = `${name.replace(/^NVIDIA /, "")}`;
  const results = {
    machine,
    gpu: name,
    gpu_memory: total_memory,
    cpu: `${cpus().length} x ${cpus()[0]?.model.trim()}`,
    node: process.versions.node,
    version: JSON.parse(readFileSync(join(root, "package.json"), "utf8")).version,
    date: new Date().toISOString().slice(0, 10),
    rows,
  };
  const folder = join(root, "bench/results");
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `${machine.toLowerCase().replace(/[^a-z0-9]+/g, "-")}.json`);
  writeFileSync(path, `${JSON.stringify(results, null, 2)}\n`);
  console.log(`\nwritten: ${path}`);
}

const flag = { type: "boolean" };
const { values } = parseArgs({ options: { "no-bench": flag, "no-tests": flag, "no-prepare": flag } });
if (!values["no-prepare"] && existsSync(join(root, "tsconfig.test.json"))) {
  const { prepare } = await import("./prepare.mjs");
  await prepare({ tests: true });
}
const torch = await openDevice();
console.log(`${torch.cuda.get_device_name(device)}, torch ${torch.__version__ ?? "2.11.0"}\n`);
const sum =
  values["no-tests"] || !existsSync(tests) ? { passed: 0, failed: 0, skipped: 0 } : await runTests();
if (!values["no-bench"] && existsSync(benchmarks)) await runBenchmarks(torch);
console.log(
  `\n${sum.skipped > 0 ? `${sum.skipped} skipped\n` : ""}${sum.passed} passed, ${sum.failed} failed`,
);
process.exitCode = sum.failed > 0 ? 1 : 0;
