// What every benchmark shares: the machine's description, a Python peer that answers on a pipe, medians, tables.
import { spawn, spawnSync } from "node:child_process";
import { cpus, loadavg } from "node:os";
import { createInterface } from "node:readline";

export const python = process.env.TORCHFORMERS_BENCH_PYTHON ?? "python3";

/** Prints what the figures were measured on. */
export function describeMachine(extra = {}) {
  const cpu = cpus();
  const facts = {
    cpu: `${cpu.length} x ${cpu[0]?.model.trim()}`,
    load: loadavg()
      .map((x) => x.toFixed(2))
      .join(" "),
    node: process.version,
    ...extra,
  };
  for (const [name, value] of Object.entries(facts)) console.log(`${name.padEnd(12)} ${value}`);
  console.log();
}

/** The version of a Python package, or exits with what to install: a benchmark without its other side says nothing. */
export function requirePython(...packages) {
  const code = `import json, importlib.metadata as m; print(json.dumps({p: m.version(p) for p in ${JSON.stringify(packages)}}))`;
  const { status, stdout } = spawnSync(python, ["-c", code], { encoding: "utf8" });
  if (status === 0) return JSON.parse(stdout);
  console.error(
    `This benchmark compares with Python's ${packages.join(", ")}, which ${python} does not have.`,
  );
  console.error("Set TORCHFORMERS_BENCH_PYTHON to an interpreter that has them.");
  process.exit(2);
}

/** Whether Python has these packages; for benchmarks whose figures are worth having alone. */
export function hasPython(...packages) {
  const code = `import importlib.util as u, sys; sys.exit(any(u.find_spec(p) is None for p in ${JSON.stringify(packages)}))`;
  return spawnSync(python, ["-c", code], { stdio: "ignore" }).status === 0;
}

/** A process that answers each JSON line we send with one JSON line. */
export class Peer {
  #child;
  #waiting = [];

  constructor(command, args, env = {}) {
    this.#child = spawn(command, args, {
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...process.env, ...env },
    });
    createInterface({ input: this.#child.stdout }).on("line", (line) =>
      this.#waiting.shift()?.resolve(JSON.parse(line)),
    );
    this.#child.on("exit", (code) => {
      for (const { reject } of this.#waiting) reject(new Error(`${command} ended with ${code}`));
    });
  }

  ask(request) {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#child.stdin.write(`${JSON.stringify(request)}\n`);
    });
  }

  close() {
    this.#child.stdin.end();
  }
}

/** A peer that runs a Python script. */
export class PythonPeer extends Peer {
  constructor(script, env = {}) {
    super(python, ["-u", "-c", script], env);
  }
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Rows of strings and numbers as an aligned table. */
export function table(header, rows) {
  const cells = [header, ...rows].map((row) =>
    row.map((cell) => (typeof cell === "number" ? cell.toFixed(3) : String(cell))),
  );
  const widths = header.map((_, i) => Math.max(...cells.map((row) => row[i].length)));
  for (const row of cells)
    console.log(
      row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join("  "),
    );
}
