// torchformers upload: sends a folder as one commit.

import type { Command } from "commander";
import { printable } from "../hub/redact.ts";
import { create_repo, upload_folder } from "../hub/upload.ts";
import { ProgressBar, showBytes } from "./progress.ts";
import { interruptible, printJson } from "./support.ts";

interface Flags {
  readonly revision?: string;
  readonly pathInRepo?: string;
  readonly include?: string[];
  readonly exclude?: string[];
  readonly message?: string;
  readonly description?: string;
  readonly createPr?: boolean;
  readonly private?: boolean;
  readonly json?: boolean;
}

const DETAILS = `
The repository is made if it is not there. What the hub has already is not sent again, so that a run that was interrupted
can simply be repeated.

Examples:
  $ npx torchformers upload ./my-model user/my-model
  $ npx torchformers upload ./my-model user/my-model --private --message "First try"
  $ npx torchformers upload ./my-model org/their-model --create-pr`;

export function define(command: Command): void {
  command
    .argument("<folder>", "what to send")
    .argument("<repo>", "its name")
    .option("--revision <branch>", "commit to this branch (default: main)")
    .option("--path-in-repo <folder>", "put the files there")
    .option("--include <patterns...>", "only these files")
    .option("--exclude <patterns...>", "leave these files out")
    .option("-m, --message <text>", "of the commit")
    .option("--description <text>", "of the commit")
    .option("--create-pr", "open a pull request")
    .option("--private", "make the repository private, if it is made")
    .option("--json", "print the result as JSON")
    .addHelpText("after", DETAILS)
    .action(run);
}

async function run(folder: string, name: string, flags: Flags): Promise<void> {
  const bar = new ProgressBar();
  try {
    const info = await interruptible(async (signal) => {
      const { repo } = await create_repo(name, { signal, exist_ok: true, private: flags.private });
      return upload_folder(repo, folder, {
        signal,
        revision: flags.revision,
        path_in_repo: flags.pathInRepo,
        allow_patterns: flags.include,
        ignore_patterns: flags.exclude,
        commit_message: flags.message,
        commit_description: flags.description,
        create_pr: flags.createPr,
        progress_callback: showBytes(bar, "Uploading"),
      });
    });
    bar.finish();
    if (flags.json) printJson(info);
    else console.log(printable(String(info.pr_url ?? info.url)));
  } finally {
    bar.finish();
  }
}
