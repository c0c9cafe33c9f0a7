// torchformers eject: copies a model out of the installed package, to be changed.
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import type { Command } from "commander";
import { printJson, UsageError } from "./support.ts";

interface Flags {
  readonly name?: string;
  readonly force?: boolean;
  readonly list?: boolean;
  readonly json?: boolean;
}

const DETAILS = `
The folder gets the model's configuration_<model>.ts and modeling_<model>.ts with imports of public names, an index.ts that
registers them under a name of their own, and a test that compares the copy with the original.

Examples:
  $ npx torchformers eject --list
  $ npx torchformers eject llama ./my-llama
  $ npx torchformers eject vit src/vit --name striped-vit`;

export function define(command: Command): void {
  command
    .argument("[model]", "the model_type of a model of the library")
    .argument("[folder]", "where to; by default a folder with the name of the copy")
    .option("--name <name>", "the model_type of the copy; by default my-<model>")
    .option("--force", "replace files that exist")
    .option("--list", "list the models that there are")
    .option("--json", "print one JSON document")
    .addHelpText("after", DETAILS)
    .action(run);
}

async function run(model: string | undefined, folder: string | undefined, flags: Flags): Promise<void> {
  const { ejectableModels, ejectModel } = await import("./eject_model.ts");
  if (flags.list) {
    if (flags.json) printJson(ejectableModels());
    else for (const name of ejectableModels()) console.log(name);
    return;
  }
  if (model === undefined) throw new UsageError("Which model?", `Models: ${ejectableModels().join(", ")}`);
  const name = flags.name ?? `my-${model}`;
  const files = ejectModel(model, name);
  const target = folder ?? name;
  const existing = files.filter((file) => existsSync(path.join(target, file.name)));
  if (existing.length > 0 && !flags.force)
    throw new UsageError(
      `${target} has ${existing.map((file) => file.name).join(", ")} already.`,
      "Give another folder, or --force to replace them.",
    );
  const { writeFileAtomic } = await import("../hub/atomic.ts");
  await mkdir(target, { recursive: true });
  for (const file of files) await writeFileAtomic(path.join(target, file.name), file.text);
  if (flags.json) {
    printJson({ folder: target, name, files: files.map((file) => file.name) });
    return;
  }
  for (const file of files) console.log(path.join(target, file.name));
  const entry = path.join(target, "index.ts");
  const specifier = path.isAbsolute(entry) || entry.startsWith("..") ? entry : `./${entry}`;
  console.log(`\nimport "${specifier}" makes the Auto classes know '${name}'.`);
}
