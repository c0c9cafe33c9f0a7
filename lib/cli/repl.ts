// torchformers repl: Node's REPL with torch, nn and, if named, a loaded model. Top-level await works.

import { homedir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type REPLServer, start } from "node:repl";
import { PassThrough } from "node:stream";
import type { Command } from "commander";
import { load, MODEL, type ModelFlags, withModel } from "./model.ts";
import { interruptible } from "./support.ts";

const DETAILS = `
There is everything the package exports, and \`model\` and \`tokenizer\` when one is named. A program may come from
standard input: what its lines give is printed, without prompts.

Examples:
  $ npx torchformers repl
  > torch.arange(6).view(2, 3)
  $ npx torchformers repl ./model
  > await tokenizer.decode((await model.generate(await tokenizer("This", { return_tensors: "pt" }))).index(0))
  $ echo "model.num_parameters()" | npx torchformers repl ./model`;

export function define(command: Command): void {
  command.argument("[model]", MODEL);
  withModel(command).addHelpText("after", DETAILS).action(run);
}

async function run(name: string | undefined, flags: ModelFlags): Promise<void> {
  const library = await import("../index.ts");
  const loaded = name === undefined ? {} : await interruptible((signal) => load(name, flags, signal));
  // The global context: in another one `[1, 2]` would not be an instance of the library's Array.
  Object.assign(globalThis, library, loaded);
  await (process.stdin.isTTY ? converse(Object.keys(loaded)) : execute());
}

async function converse(loaded: readonly string[]): Promise<void> {
  const names = ["torch", "nn", "optim", ...loaded].join(", ");
  console.log(`torchformers on Node ${process.version}: ${names}, and all else the package exports.`);
  const repl = start({ prompt: "> ", useGlobal: true, breakEvalOnSigint: true });
  repl.setupHistory(join(homedir(), ".torchformers_repl_history"), () => {});
  await ended(repl);
}

/** Runs standard input line by line. Left alone, Node's REPL takes a pipe's next line while the last still awaits. */
async function execute(): Promise<void> {
  const input = new PassThrough();
  const repl = start({ prompt: "", input, output: process.stdout, terminal: false, useGlobal: true });
  let left = false; // by .exit
  const end = ended(repl).then(() => {
    left = true;
  });
  for await (const line of createInterface({ input: process.stdin, terminal: false })) {
    const evaluated = new Promise<void>((resolve) => {
      repl.displayPrompt = () => resolve();
    });
    input.write(`${line}\n`);
    await Promise.race([evaluated, end]);
    if (left) return;
  }
  input.end();
  await end;
}

const ended = (repl: REPLServer) => new Promise<void>((resolve) => repl.once("exit", () => resolve()));
