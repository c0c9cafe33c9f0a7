// torchformers cache: what was downloaded, whether it is whole, and making room.

import type { Command } from "commander";
import { delete_revisions, prune_cache, scan_cache_dir, verify_cache } from "../hub/cache_manager.ts";
import { splitRevision } from "../hub/names.ts";
import { EXIT, formatBytes, interruptible, printJson } from "./support.ts";

interface Flags {
  readonly cacheDir?: string;
  readonly json?: boolean;
  readonly revisions?: boolean;
  readonly dryRun?: boolean;
}

const DETAILS = `
Examples:
  $ npx torchformers cache ls                 repositories by size
  $ npx torchformers cache ls --revisions     with their commits
  $ npx torchformers cache rm org/name        remove one; org/name@v1.0 removes that revision only
  $ npx torchformers cache verify             compute all checksums
  $ npx torchformers cache prune              remove what no branch or tag names, and broken-off downloads`;

export function define(command: Command): void {
  const sub = (name: string, summary: string) =>
    command
      .command(name)
      .summary(summary)
      .description(`${summary[0]?.toUpperCase()}${summary.slice(1)}.`)
      .helpOption("-h, --help", "print this text")
      .option("--cache-dir <folder>", "of another cache")
      .option("--json", "print the result as JSON")
      .exitOverride();
  sub("ls", "list the repositories in the cache")
    .option("--revisions", "list their commits too")
    .action((flags: Flags) => list(flags));
  sub("rm <repos...>", "remove repositories, or revisions of them (org/name@revision)")
    .option("--dry-run", "only say what would become free")
    .action((names: string[], flags: Flags) => remove(names, flags));
  sub("verify [repo]", "compute checksums and compare them with what they must be").action(
    (name: string | undefined, flags: Flags) => verify(name, flags),
  );
  sub("prune", "remove what no branch or tag names, and what interrupted downloads left")
    .option("--dry-run", "only say what would be removed")
    .action((flags: Flags) => prune(flags));
  command.addHelpText("after", DETAILS);
}

/** Left-aligned columns; the last is as long as it is. */
function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)));
  return rows
    .map((row) =>
      row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i] ?? 0))).join("  "),
    )
    .join("\n");
}

const day = (date: Date): string =>
  date.getTime() > 0 ? date.toISOString().slice(0, 16).replace("T", " ") : "never";

async function list({ cacheDir, json = false, revisions = false }: Flags): Promise<void> {
  const info = await scan_cache_dir({ cache_dir: cacheDir });
  if (json) return printJson(info);
  if (info.repos.length === 0) return console.log(`The cache ${info.folder} is empty.`);
  const rows: string[][] = [["REPOSITORY", "SIZE", "LAST USE", revisions ? "COMMIT  REFS" : "REVISIONS"]];
  for (const repo of info.repos) {
    const name = repo.type === "model" ? repo.name : `${repo.type}s/${repo.name}`;
    if (revisions) {
      for (const { commit, refs, size } of repo.revisions)
        rows.push([
          name,
          formatBytes(size),
          day(repo.last_used),
          `${commit.slice(0, 12)}  ${refs.join(", ")}`,
        ]);
    } else {
      const refs = repo.revisions.flatMap((revision) => revision.refs);
      rows.push([
        name,
        formatBytes(repo.size),
        day(repo.last_used),
        `${repo.revisions.length} (${refs.join(", ")})`,
      ]);
    }
  }
  console.log(table(rows));
  const left = info.repos.flatMap(({ incomplete }) => incomplete).reduce((sum, { size }) => sum + size, 0);
  console.log(`\n${formatBytes(info.size)} in ${info.folder}`);
  if (left > 0)
    console.log(`${formatBytes(left)} more of downloads that did not end (torchformers cache prune)`);
  if (info.broken.length > 0) console.log(`${info.broken.length} broken links (torchformers cache prune)`);
}

async function remove(
  names: readonly string[],
  { cacheDir, json = false, dryRun = false }: Flags,
): Promise<void> {
  const removed: { readonly name: string; readonly bytes: number }[] = [];
  for (const name of names) {
    const { repo, revision } = splitRevision(name);
    const options = { dry_run: dryRun, ...(cacheDir === undefined ? {} : { cache_dir: cacheDir }) };
    removed.push({
      name,
      bytes: await delete_revisions(repo, revision === undefined ? [] : [revision], options),
    });
  }
  if (json) return printJson({ removed });
  for (const { name, bytes } of removed)
    console.log(`${name}: ${formatBytes(bytes)} ${dryRun ? "would become" : "became"} free`);
}

async function verify(name: string | undefined, { cacheDir, json = false }: Flags): Promise<void> {
  const results = await interruptible((signal) => verify_cache(name, { cache_dir: cacheDir, signal }));
  if (json) printJson(results);
  let bad = 0;
  for (const { repo, commit, checked, wrong, missing } of results) {
    bad += wrong.length + missing.length;
    if (json) continue;
    const state = wrong.length + missing.length === 0 ? "whole" : "damaged";
    console.log(`${repo} ${commit.slice(0, 12)}: ${checked} ${checked === 1 ? "file" : "files"}, ${state}`);
    for (const file of wrong) console.log(`  wrong bytes: ${file}`);
    for (const file of missing) console.log(`  missing: ${file}`);
  }
  if (bad === 0) return;
  if (!json) console.log("Bring them again with: npx torchformers download <repo> --force");
  process.exitCode = EXIT.error;
}

async function prune({ cacheDir, json = false, dryRun = false }: Flags): Promise<void> {
  const { removed, bytes } = await prune_cache({ cache_dir: cacheDir, dry_run: dryRun });
  if (json) return printJson({ removed, bytes });
  for (const what of removed) console.log(what);
  console.log(
    removed.length === 0
      ? "There is nothing to remove."
      : `${formatBytes(bytes)} ${dryRun ? "would become" : "became"} free.`,
  );
}
