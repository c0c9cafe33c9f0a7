// torchformers inspect: what a repository could make run, before anybody trusts it.

import type { Command } from "commander";
import { type InspectedFile, type Inspection, inspect_repo } from "../custom_code/inspect_repo.ts";
import { bold, formatBytes, interruptible, printJson } from "./support.ts";

interface Flags {
  readonly revision?: string;
  readonly cacheDir?: string;
  readonly json?: boolean;
}

const DETAILS = `
Nothing of the repository is run, and only its code is downloaded. Exit code 1 when the hub's scans found something, 0
otherwise; that nothing was found is no proof that code is harmless: read it.

Examples:
  $ npx torchformers inspect org/name
  $ npx torchformers inspect org/name@v1.0 --json
  $ npx torchformers inspect ./model`;

export function define(command: Command): void {
  command
    .argument("<repo>", 'a folder, or a name on the hub, with "@revision" if need be')
    .option("--revision <name>", "branch, tag or commit")
    .option("--cache-dir <folder>", "use another cache")
    .option("--json", "print the result as JSON")
    .addHelpText("after", DETAILS)
    .action(run);
}

async function run(repo: string, { revision, cacheDir, json = false }: Flags): Promise<void> {
  const found = await interruptible((signal) =>
    inspect_repo(repo, { signal, revision, cache_dir: cacheDir }),
  );
  if (json) printJson(found);
  else print(found);
  const verdicts = [...found.code, ...found.native, ...found.pickles].map(({ verdict }) => verdict);
  const isBad = (verdict: string | undefined) => verdict === "unsafe" || verdict === "suspicious";
  if ((found.scans?.issues.length ?? 0) > 0 || verdicts.some(isBad)) process.exitCode = 1;
}

function print({ source, commit, auto_map, code, native, pickles, links, scans }: Inspection): void {
  const title = (text: string) => console.log(`\n${bold(text, process.stdout)}`);
  console.log(commit === undefined ? source : `${source} at commit ${commit}`);

  title("auto_map: classes that it wants to bring along");
  const maps = Object.entries(auto_map);
  if (maps.length === 0) console.log("  none");
  for (const [file, entries] of maps)
    for (const [auto, reference] of Object.entries(entries))
      console.log(`  ${auto}: ${JSON.stringify(reference)} (${file})`);

  title(`Code: ${code.length} files`);
  for (const { path, size, sha256, imports, reaches, note, verdict } of code) {
    console.log(
      `  ${path}  ${formatBytes(size)}${verdict ? `  hub: ${verdict}` : ""}${note ? `  ${note}` : ""}`,
    );
    if (sha256) console.log(`    sha256  ${sha256}`);
    if (imports.length > 0) console.log(`    imports ${imports.join(", ")}`);
    if (reaches.length > 0) console.log(`    reaches ${reaches.join(", ")}`);
  }
  if (native.length > 0) {
    title(`Native code: ${native.length} files, never loaded`);
    for (const file of native) printFile(file);
  }
  title(`Pickles: ${pickles.length} files`);
  if (pickles.length > 0)
    console.log("  Python runs what these name; here they are only read as data, by `torchformers convert`.");
  for (const file of pickles) printFile(file);
  if (links.length > 0) title(`Links: ${links.join(", ")}`);

  title("The hub's scans");
  if (scans === undefined) console.log("  none: this is a folder");
  else if (scans === null) console.log("  the hub does not say");
  else {
    console.log(`  ${scans.done ? "done" : "not done yet"}, ${scans.issues.length} files with issues`);
    for (const { path, level } of scans.issues) console.log(`  ${path}: ${level}`);
  }
  const scripts = code.filter(({ path }) => /\.m?[jt]s$/.test(path));
  if (scripts.length === 0) return;
  const pin = commit === undefined ? "" : `, revision: "${commit}"`;
  console.log(`\nOnce you have read it: from_pretrained("${source}", { trust_remote_code: true${pin} })`);
}

function printFile({ path, size, sha256, verdict, imports }: InspectedFile): void {
  console.log(`  ${path}  ${formatBytes(size)}${verdict ? `  hub: ${verdict}` : ""}`);
  if (sha256) console.log(`    sha256  ${sha256}`);
  if (imports && imports.length > 0) console.log(`    imports ${imports.join(", ")}`);
}
