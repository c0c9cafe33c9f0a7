// torchformers repl: Node's REPL with torch, nn and, if named, a loaded model. Top-level await works.

import { homedir } from "node:os";
import { join } from "node:path";
import { start } from "node:repl";
import type { Command } from "commander";
import { load, type ModelFlags, withModel } from "./model.ts";

const DETAILS = `
There is everything the package exports, and \`model\` and \`tokenizer\` when a folder is named.

Examples:
  $ npx torchformers repl
  > torch.arange(6).view(2, 3)
  $ npx torchformers repl ./model
  > await tokenizer.decode((await model.generate(await tokenizer("This", { return_tensors: "pt" }))).index(0))`;

export function define(command: Command): void {
  command.argument("[model]", "a folder with config.json, weights and tokenizer.json");
  withModel(command).addHelpText("after", DETAILS).action(run);
}

async function run(name: string | undefined, flags: ModelFlags): Promise<void> {
  const library = await import("../index.ts");
  const loaded = name === undefined ? {} : await load(name, flags);
  const names = ["torch", "nn", "optim", ...Object.keys(loaded)].join(", ");
  if (process.stdin.isTTY) console.log(`torchformers on Node ${process.version}: ${names}, and all else the package exports.`);
  const repl = start({ prompt: "> ", useGlobal: false });
  Object.assign(repl.context, library, loaded);
  if (process.stdin.isTTY) repl.setupHistory(join(homedir(), ".torchformers_repl_history"), () => {});
  await new Promise((resolve) => repl.once("exit", resolve));
}
