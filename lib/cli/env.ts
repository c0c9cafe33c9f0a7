// torchformers env: the facts that a bug report needs.

import type { Command } from "commander";
import { type Environment, environment } from "./environment.ts";
import { formatBytes, printJson } from "./support.ts";

const EXAMPLES = `
Examples:
  $ npx torchformers env
  $ npx torchformers env --json`;

export function define(command: Command): void {
  command
    .option("--json", "print it as JSON")
    .addHelpText("after", EXAMPLES)
    .action(({ json }: { readonly json?: boolean }) => {
      const facts = environment();
      if (json) printJson(facts);
      else console.log(describe(facts));
    });
}

function describe(facts: Environment): string {
  const { cpu, memory, libtorch, addon, cuda, devices } = facts;
  const rows: [string, string | number | undefined][] = [
    ["torchformers", facts.torchformers],
    ["node", facts.node],
    ["system", facts.system],
    ["C library", facts.libc],
    ["CPU", `${cpu.model}, ${cpu.threads} threads${cpu.capability ? `, ${cpu.capability}` : ""}`],
    ["memory", `${formatBytes(memory.total)}, ${formatBytes(memory.free)} free`],
    ["libtorch", libtorch ? `${libtorch.version} in ${libtorch.folder} (${libtorch.source})` : "not found"],
    [
      "addon",
      addon
        ? `${addon.path} (${addon.compiler}${addon.sanitizer ? `, ${addon.sanitizer}` : ""})`
        : "not loaded: see torchformers doctor",
    ],
    ["CUDA driver", cuda.driver ?? "none"],
    ...devices.map(({ type, index, name, total_memory }): [string, string] => [
      type === "cpu" ? "device cpu" : `device ${type}:${index}`,
      `${name}, ${formatBytes(total_memory)}`,
    ]),
    ["threads", facts.threads],
    ["cache", facts.cache],
    ...Object.entries(facts.variables),
  ];
  const told = rows.filter(([, value]) => value !== undefined);
  const width = Math.max(...told.map(([name]) => name.length));
  return told.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join("\n");
}
