// torchformers download: brings a repository, or those files that patterns choose.

import type { Command } from "commander";
import { snapshot_download } from "../hub/snapshot.ts";
import { number } from "./model.ts";
import { ProgressBar, showBytes } from "./progress.ts";
import { interruptible, printJson } from "./support.ts";

interface Flags {
  readonly revision?: string;
  readonly exclude?: string[];
  readonly localDir?: string;
  readonly cacheDir?: string;
  readonly force?: boolean;
  readonly offline?: boolean;
  readonly connections?: number;
  readonly json?: boolean;
}

const DETAILS = `
Files come into the cache that Python's huggingface_hub uses (HF_HOME, HF_HUB_CACHE); what is there is not brought again,
and a run that was interrupted is picked up by the next one. A token is taken from HF_TOKEN or \`torchformers login\`.

Examples:
  $ npx torchformers download org/name
  $ npx torchformers download org/name@v1.0 "*.safetensors" "*.json"
  $ npx torchformers download org/name --exclude "*.bin" --local-dir ./model`;

export function define(command: Command): void {
  command
    .argument("<repo>", 'its name, with "@revision" if need be')
    .argument("[patterns...]", 'which files: "*.json", "onnx/" (default: all)')
    .option("--revision <name>", "branch, tag or commit")
    .option("--exclude <patterns...>", "leave these files out")
    .option("--local-dir <folder>", "put plain files there instead of into the cache")
    .option("--cache-dir <folder>", "use another cache")
    .option("--force", "bring what is there once more")
    .option("--offline", "use no network: only say where it lies")
    .option("--connections <n>", "at once (default: 8)", number({ integer: true, above: 0 }))
    .option("--json", "print the result as JSON")
    .addHelpText("after", DETAILS)
    .action(run);
}

async function run(repo: string, patterns: string[], flags: Flags): Promise<void> {
  const bar = new ProgressBar();
  try {
    const folder = await interruptible((signal) =>
      snapshot_download(repo, {
        signal,
        revision: flags.revision,
        allow_patterns: patterns.length > 0 ? patterns : undefined,
        ignore_patterns: flags.exclude,
        local_dir: flags.localDir,
        cache_dir: flags.cacheDir,
        force_download: flags.force,
        local_files_only: flags.offline,
        max_workers: flags.connections,
        progress_callback: showBytes(bar, "Downloading"),
      }),
    );
    bar.finish();
    if (flags.json) printJson({ repo, folder });
    else console.log(folder);
  } finally {
    bar.finish();
  }
}
