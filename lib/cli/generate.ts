// torchformers generate: streams a continuation of a prompt.

import { text as readAll } from "node:stream/consumers";
import type { Command } from "commander";
import {
  generationOptions,
  load,
  MODEL,
  type ModelFlags,
  type SamplingFlags,
  withModel,
  withSampling,
} from "./model.ts";
import { interruptible, printJson, UsageError } from "./support.ts";

interface Flags extends ModelFlags, SamplingFlags {
  readonly json?: boolean;
}

const DETAILS = `
Without a prompt it is read from standard input.

Examples:
  $ npx torchformers generate ./model "This class is used to"
  $ npx torchformers generate ./model "Once upon a time" -t 0.8 --top-p 0.95 --seed 1
  $ echo "The file must be" | npx torchformers generate ./model --json`;

export function define(command: Command): void {
  command.argument("<model>", MODEL).argument("[prompt...]", "the text to continue");
  withModel(withSampling(command, 100))
    .option("--json", "print one JSON document when it is done")
    .addHelpText("after", DETAILS)
    .action(run);
}

async function run(name: string, words: readonly string[], flags: Flags): Promise<void> {
  const prompt = words.length > 0 ? words.join(" ") : await readPrompt();
  await interruptible((signal) => generate(name, prompt, flags, signal));
}

async function readPrompt(): Promise<string> {
  if (process.stdin.isTTY)
    throw new UsageError(
      "There is no prompt.",
      'Give it as an argument: torchformers generate ./model "Once upon a time"',
    );
  return (await readAll(process.stdin)).replace(/\r?\n$/, "");
}

async function generate(name: string, prompt: string, flags: Flags, signal: AbortSignal): Promise<void> {
  const { model, tokenizer } = await load(name, flags, signal);
  if (flags.seed !== undefined) (await import("../index.ts")).torch.manual_seed(flags.seed);
  const inputs = await tokenizer(prompt, { return_tensors: "pt" });
  const started = performance.now();
  let text = "";
  if (!flags.json) process.stdout.write(prompt);
  for await (const piece of model.stream({ ...inputs }, { ...generationOptions(flags), tokenizer, signal })) {
    text += piece;
    if (!flags.json) process.stdout.write(piece);
  }
  if (flags.json) printJson({ model: name, prompt, text, seconds: (performance.now() - started) / 1000 });
  else process.stdout.write("\n");
}
