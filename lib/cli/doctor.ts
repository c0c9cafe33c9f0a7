// torchformers doctor: goes the way from Node to a first operator, says at each step what was found, and what to do.

import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Command } from "commander";
import { cachedLibtorch, cacheFolder, FLAVOURS } from "../addon/libtorch.ts";
import { compareVersions, libc, MINIMUM_GLIBC, SUPPORTED_PLATFORMS } from "../addon/platform.ts";
import { fileSizes } from "../setup/file_sizes.ts";
import { cudaDriver, environment, loadNative, type Native } from "./environment.ts";
import { bold, EXIT, formatBytes, printJson } from "./support.ts";

interface Finding {
  readonly name: string;
  /** `note`: worth knowing, nothing is broken. */
  readonly state: "ok" | "note" | "failed";
  readonly detail: string;
  /** What was tried on the way, one per line. */
  readonly tried?: readonly string[];
  readonly remedy?: string | undefined;
}

/** A folder in the cache that nothing uses any more. */
interface Stale {
  readonly folder: string;
  readonly bytes: number;
}

const EXAMPLES = `
Exit code: 0 when an operator runs on the CPU (with --cuda: and a device can be used), else 1.

Examples:
  $ npx torchformers doctor
  $ npx torchformers doctor --json
  $ npx torchformers doctor --cuda            also load CUDA's part where there is no driver`;

export function define(command: Command): void {
  command
    .option("--json", "print it as JSON")
    .option("--cuda", "a device must be usable; its libraries are loaded even without a driver")
    .addHelpText("after", EXAMPLES)
    .action(run);
}

interface Flags {
  readonly json?: boolean;
  readonly cuda?: boolean;
}

async function run({ json = false, cuda: needed = false }: Flags): Promise<void> {
  if (needed) process.env["TORCHFORMERS_CUDA"] = "load";
  const native = loadNative();
  const stale = await staleFolders();
  const findings = [
    node(),
    system(),
    prebuilt(native),
    libtorch(native),
    libraries(native),
    await operator(native),
    cuda(native, needed),
    cache(stale),
  ];
  if (json)
    printJson({
      findings,
      stale,
      environment: environment(native),
      opened: native.report.opened,
      tried: native.report.tried,
    });
  else console.log(findings.map(describe).join("\n"));
  if (findings.some(({ state }) => state === "failed")) process.exitCode = EXIT.error;
}

function describe({ name, state, detail, tried = [], remedy }: Finding): string {
  const mark = { ok: "✓", note: "·", failed: "✗" }[state];
  const more = [...tried, ...(remedy === undefined ? [] : remedy.split("\n").map((line) => `→ ${line}`))];
  return [`${mark} ${bold(name, process.stdout)}: ${detail}`, ...more.map((line) => `    ${line}`)].join(
    "\n",
  );
}

function node(): Finding {
  return {
    name: "Node",
    state: "ok",
    detail: `${process.versions.node}, Node-API ${process.versions["napi"]}`,
  };
}

function system(): Finding {
  const platform = `${process.platform}-${process.arch}`;
  const c = libc();
  const detail = `${platform}${c ? `, ${c.name} ${c.version ?? ""}`.trimEnd() : ""}`;
  const name = "System";
  if (!SUPPORTED_PLATFORMS.includes(platform)) {
    return { name, state: "failed", detail, remedy: `Supported: ${SUPPORTED_PLATFORMS.join(", ")}` };
  }
  if (c?.name === "musl") {
    return {
      name,
      state: "failed",
      detail,
      remedy: "libtorch exists for glibc only: use a Debian or Ubuntu based image",
    };
  }
  if (c?.version !== undefined && compareVersions(c.version, MINIMUM_GLIBC) < 0) {
    return {
      name,
      state: "failed",
      detail,
      remedy: `glibc ${MINIMUM_GLIBC} or newer is needed (Debian 12, Ubuntu 22.04, RHEL 9)`,
    };
  }
  return { name, state: "ok", detail };
}

function prebuilt({ report, error }: Native): Finding {
  const name = "Addon";
  if (report.loader !== undefined) return { name, state: "ok", detail: report.loader };
  return { name, state: "failed", detail: "not found", remedy: error?.message };
}

function libtorch({ report }: Native): Finding {
  const name = "libtorch";
  if (report.loader === undefined)
    return { name, state: "note", detail: "not looked for: there is no addon to use it" };
  const tried = report.tried.map(
    ({ source, place, reason }) =>
      `${reason === null ? "found in" : "tried"} ${source}: ${place}${reason === null ? "" : `, ${reason}`}`,
  );
  const found = report.libtorch;
  if (found)
    return { name, state: "ok", detail: `${found.version}${found.headers ? ", with headers" : ""}`, tried };
  return { name, state: "failed", detail: "not found", tried, remedy: "npx torchformers setup" };
}

/** The libraries of the CPU part; CUDA has its own finding. */
function libraries({ report }: Native): Finding {
  const name = "Libraries";
  const cpu = report.opened.filter(({ library }) => !/cuda/.test(library));
  const tried = cpu.map(
    ({ library, error, milliseconds }) => `${library}: ${error ?? `opened in ${milliseconds.toFixed(0)} ms`}`,
  );
  if (cpu.length === 0) return { name, state: "note", detail: "not opened" };
  const failed = cpu.find(({ error }) => error !== null);
  if (!failed) return { name, state: "ok", detail: "opened", tried };
  return { name, state: "failed", detail: "do not open", tried, remedy: "npx torchformers setup --force" };
}

/** The whole way: an operator is found, runs and gives the right number. */
async function operator({ addon, error, report }: Native): Promise<Finding> {
  const name = "Operators";
  if (!addon) {
    // A step before has told the reason already, unless everything was there and the addon itself does not load.
    const told = report.libtorch === undefined || report.opened.some((opened) => opened.error !== null);
    const [detail, ...remedy] = told ? ["not tried"] : (error?.message ?? "").split("\n");
    return {
      name,
      state: told ? "note" : "failed",
      detail: detail as string,
      ...(remedy.length > 0 ? { remedy: remedy.join("\n") } : {}),
    };
  }
  try {
    const { torch } = await import("../index.ts");
    const sum = torch.ones([2, 3]).sum().item();
    if (sum !== 6) return { name, state: "failed", detail: `the sum of six ones is ${sum}` };
    return {
      name,
      state: "ok",
      detail: `run; CPU ${addon.cpuCapability()}, ${addon.getNumThreads()} threads, torch ${addon.torchVersion()}`,
    };
  } catch (problem) {
    return { name, state: "failed", detail: (problem as Error).message };
  }
}

function cuda({ addon, report }: Native, needed: boolean): Finding {
  const name = "CUDA";
  const driver = cudaDriver();
  const tried = report.opened
    .filter(({ library }) => /cuda/.test(library))
    .map(
      ({ library, error, milliseconds }) =>
        `${library}: ${error ?? `opened in ${milliseconds.toFixed(0)} ms`}`,
    );
  const devices = (addon?.deviceInfo() ?? []).filter(({ type }) => type === "cuda");
  if (devices.length > 0) {
    const told = devices.map(
      (device) =>
        `${device.name} (${device.capability}), ${formatBytes(device.free_memory)} of ${formatBytes(device.total_memory)} free`,
    );
    return { name, state: "ok", detail: `driver ${driver ?? "unknown"}; ${told.join("; ")}`, tried };
  }
  const [detail = `driver ${driver ?? "none"}; not tried`, ...reasons] = addon?.cudaReasons() ?? [];
  return {
    name,
    state: needed ? "failed" : "note",
    detail,
    tried: [...reasons, ...tried],
    remedy:
      report.libtorch?.cuda === false && (driver !== undefined || needed)
        ? "This libtorch has no CUDA part: npx torchformers setup --flavour cu130"
        : undefined,
  };
}

function cache(stale: readonly Stale[]): Finding {
  const name = "Cache";
  if (stale.length === 0) return { name, state: "ok", detail: cacheFolder() };
  const bytes = stale.reduce((sum, folder) => sum + folder.bytes, 0);
  return {
    name,
    state: "note",
    detail: `${formatBytes(bytes)} in ${cacheFolder()} are of no use any more`,
    tried: stale.map((folder) => `${folder.folder}: ${formatBytes(folder.bytes)}`),
    remedy: `rm -r ${stale.map(({ folder }) => folder).join(" ")}`,
  };
}

/** Other versions of libtorch, and what interrupted runs of setup have left. */
async function staleFolders(): Promise<Stale[]> {
  const current = FLAVOURS.map((flavour) => cachedLibtorch(flavour));
  const parent = join(cacheFolder(), "libtorch");
  const names = await readdir(parent).catch(() => []);
  const folders = names
    .map((name) => join(parent, name))
    .filter((folder) => !current.includes(folder) && !folder.endsWith(".lock"));
  return Promise.all(folders.map(async (folder) => ({ folder, bytes: await folderBytes(folder) })));
}

const folderBytes = async (folder: string): Promise<number> =>
  (await fileSizes(folder)).reduce((sum, size) => sum + size, 0);
