// Programs in processes of their own, for what one process can show once only.
import { spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { root } from "./fixtures.js";

/** The package's entry as a URL, for `import` in a program outside of the checkout. */
export const packageUrl: string = pathToFileURL(join(root, "dist/index.js")).href;

/** Starts an ES module in `directory`; `torchformers` in it is this package. `before` is run by the shell first. */
export function startProgram(program: string, directory: string, before = "") {
  mkdirSync(directory, { recursive: true });
  const file = join(directory, "program.mjs");
  writeFileSync(file, program.replaceAll('"torchformers"', JSON.stringify(packageUrl)));
  // Without the test runner's own hooks: they write files too.
  const command = `unset NODE_OPTIONS NODE_V8_COVERAGE; ${before}exec "$0" "$1"`;
  return spawn("bash", ["-c", command, process.execPath, file], {
    cwd: directory,
    stdio: ["ignore", "pipe", "inherit"],
  });
}

export interface Ended {
  readonly stdout: string;
  readonly status: number | null;
  readonly signal: string | null;
}

export async function runProgram(program: string, directory: string, before?: string): Promise<Ended> {
  const child = startProgram(program, directory, before);
  let stdout = "";
  child.stdout?.on("data", (chunk) => {
    stdout += chunk;
  });
  return new Promise((resolve) =>
    child.once("close", (status, signal) => resolve({ stdout, status, signal })),
  );
}
