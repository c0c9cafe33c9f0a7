// torchformers setup: brings libtorch.

import { type Command, Option } from "commander";
import { type Flavour, findLibtorch } from "../addon/libtorch.ts";
import { type SetupProgress, type SetupResult, setup } from "../setup/setup.ts";
import { ProgressBar } from "./progress.ts";
import { formatBytes, interruptible, printJson } from "./support.ts";

interface Flags {
  readonly flavour: Flavour;
  readonly from?: string;
  readonly headers?: boolean;
  readonly force?: boolean;
  readonly dryRun?: boolean;
  readonly json?: boolean;
}

const DETAILS = `
libtorch is downloaded with pip or uv, whose mirrors, proxies and credentials hold, and unpacked into the cache folder
(TORCHFORMERS_CACHE, else torchformers in the user's cache folder). Checksums are verified. A run that was interrupted
is picked up by the next one.

Examples:
  $ npx torchformers setup
  $ npx torchformers setup --flavour cu130
  $ npx torchformers setup --dry-run --json
  $ python3 -m pip download --no-deps --dest wheels torch==2.11.0 nvidia-cuda-cupti==13.0.85 nvidia-cuda-runtime==13.0.96
  $ npx torchformers setup --from wheels   on the machine without a network`;

export function define(command: Command): void {
  command
    .addOption(
      new Option("--flavour <name>", "cpu, or cu130 for CUDA 13.0").choices(["cpu", "cu130"]).default("cpu"),
    )
    .option("--from <folder>", "take the wheels from a folder, download nothing")
    .option("--headers", "also unpack the headers, to build the addon")
    .option("--force", "do it even when a fitting copy is there")
    .option("--dry-run", "only say what would be done")
    .option("--json", "print the result as JSON")
    .addHelpText("after", DETAILS)
    .action(run);
}

async function run({ json = false, ...options }: Flags): Promise<void> {
  const bar = new ProgressBar();
  const onProgress = (progress: SetupProgress) => show(bar, progress);
  try {
    const result = await interruptible((signal) => setup({ ...options, signal, onProgress }));
    bar.finish();
    if (json) printJson(result);
    else console.log(describe(result));
    warnOfVariable(result);
  } finally {
    bar.finish();
  }
}

const VERBS: Readonly<Record<SetupProgress["stage"], string>> = {
  wait: "",
  download: "Downloading",
  verify: "Verifying",
  unpack: "Unpacking",
};

function show(bar: ProgressBar, { stage, name, loaded, total }: SetupProgress): void {
  if (stage === "wait") bar.note("Another setup is running; waiting for it …");
  else bar.update({ label: `${VERBS[stage]} ${name}`, loaded, total });
}

/** A variable that names another folder hides the copy that was just set up. */
function warnOfVariable({ folder }: SetupResult): void {
  const named = process.env["TORCHFORMERS_LIBTORCH"];
  if (!named) return;
  const { libtorch } = findLibtorch();
  if (libtorch?.root !== folder)
    console.error(`TORCHFORMERS_LIBTORCH names ${named}, which is used instead; unset it to use this copy.`);
}

function describe({ status, folder, version, flavour, downloads, bytes }: SetupResult): string {
  if (status === "present") return `libtorch ${version} is there: ${folder} (${formatBytes(bytes)})`;
  if (status === "installed")
    return `libtorch ${version} (${flavour}) is set up: ${folder} (${formatBytes(bytes)} on the disk)`;
  const size = downloads.reduce((sum, download) => sum + download.size, 0);
  return [
    `libtorch ${version} (${flavour}) would be set up in ${folder}, about ${formatBytes(bytes)} on the disk.`,
    downloads.length > 0 ? `Downloads, ${formatBytes(size)} in all:` : "Nothing has to be downloaded.",
    ...downloads.map((download) => `  ${download.name} (${formatBytes(download.size)})`),
  ].join("\n");
}
