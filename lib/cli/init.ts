// torchformers init: begins a package with a model of one's own, from the template that is shipped with this one.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { printJson, UsageError } from "./support.ts";

interface Flags {
  readonly folder?: string;
  readonly force?: boolean;
  readonly json?: boolean;
}

const packageRoot = fileURLToPath(new URL("../../", import.meta.url));
const template = path.join(packageRoot, "templates/model");

const DETAILS = `
The package has a configuration, a model (a ResNet, to be changed), its registration, a test, a small training and a README.
It can be published on npm, and its weights sent to the hub.

Examples:
  $ npx torchformers init my-model
  $ npx torchformers init striped-net --folder packages/striped`;

export function define(command: Command): void {
  command
    .argument("<name>", "of the package, and the model_type of its model: small letters, digits and -")
    .option("--folder <folder>", "where to; by default a folder with that name")
    .option("--force", "write into a folder that is not empty")
    .option("--json", "print one JSON document")
    .addHelpText("after", DETAILS)
    .action(run);
}

async function run(name: string, flags: Flags): Promise<void> {
  if (!/^[a-z][a-z0-9]*(?:-[a-z0-9]+)*$/.test(name))
    throw new UsageError(`'${name}' cannot be the name: use small letters, digits and -, such as my-model.`);
  if (existsSync(path.join(packageRoot, "lib/models", name.replaceAll("-", "_"))))
    throw new UsageError(
      `'${name}' is a model of the library.`,
      `To change it, copy it: npx torchformers eject ${name}`,
    );
  const folder = flags.folder ?? name;
  if (!flags.force && existsSync(folder) && readdirSync(folder).length > 0)
    throw new UsageError(`${folder} is not empty.`, "Give another --folder, or --force.");

  const { version } = JSON.parse(readFileSync(path.join(packageRoot, "package.json"), "utf8")) as {
    version: string;
  };
  const pascal = name.replace(/(?:^|-)(\w)/g, (_, letter: string) => letter.toUpperCase());
  const named = (text: string) =>
    text
      .replaceAll("MyModel", pascal)
      .replaceAll("my-model", name)
      .replaceAll("my_model", name.replaceAll("-", "_"))
      .replaceAll('"torchformers": "^0.1.0"', `"torchformers": "^${version}"`);
  const { writeFileAtomic } = await import("../hub/atomic.ts");
  const files = readdirSync(template, { recursive: true, withFileTypes: true }).filter((entry) =>
    entry.isFile(),
  );
  const written: string[] = [];
  for (const entry of files) {
    const source = path.join(entry.parentPath, entry.name);
    const place = named(path.relative(template, source))
      .replace(/^gitignore$/, ".gitignore")
      .replace(/\.template$/, "");
    await mkdir(path.join(folder, path.dirname(place)), { recursive: true });
    await writeFileAtomic(path.join(folder, place), named(readFileSync(source, "utf8")));
    written.push(place);
  }
  written.sort();
  if (flags.json) {
    printJson({ folder, name, files: written });
    return;
  }
  for (const file of written) console.log(path.join(folder, file));
  console.log(`\nNext: cd ${folder} && npm install && npm test`);
}
