// torchformers convert: makes safetensors of a checkpoint that is a pickle.

import type { Command } from "commander";
import { formatBytes, interruptible, printJson } from "./support.ts";

interface Flags {
  readonly key?: string;
  readonly force?: boolean;
  readonly json?: boolean;
}

const DETAILS = `
Nothing in the file is run: tensors, dicts, lists, tuples, numbers and strings are read, anything else is an error.
Without an output the result lies beside the input, under the name that loading looks for.

Examples:
  $ npx torchformers convert ./model/pytorch_model.bin
  $ npx torchformers convert ./model ./model-safetensors
  $ npx torchformers convert checkpoint.pt weights.safetensors --key state_dict`;

export function define(command: Command): void {
  command
    .argument("<input>", "a .bin, .pt or .pth file, the index of several, or a folder with them")
    .argument("[output]", "a .safetensors file, or a folder")
    .option("--key <name>", "where in the file the weights are, such as state_dict")
    .option("--force", "replace files that exist")
    .option("--json", "print one JSON document")
    .addHelpText("after", DETAILS)
    .action(run);
}

async function run(input: string, output: string | undefined, { key, force, json }: Flags): Promise<void> {
  const { convert } = await import("../pickle/convert.ts");
  const result = await interruptible((signal) =>
    convert(input, output, {
      key,
      force,
      signal,
      onFile: (file, i, count) => {
        if (!json) console.error(count > 1 ? `${i + 1}/${count} ${file}` : file);
      },
    }),
  );
  if (json) {
    printJson(result);
    return;
  }
  for (const file of result.files) console.log(file);
  console.log(`${result.tensors} tensors, ${formatBytes(result.bytes)}`);
  for (const [name, kept] of Object.entries(result.aliases))
    console.log(`${name} is ${kept}, which is written once`);
  if (result.dropped.length > 0)
    console.log(`Left out, since they are no tensors: ${result.dropped.join(", ")}`);
}
