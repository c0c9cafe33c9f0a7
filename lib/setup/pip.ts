// Downloads wheels with pip, or with uv: the mirrors, proxies and credentials that a user has set up for them hold.

import { spawn, spawnSync } from "node:child_process";
import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { SetupError } from "../errors/index.ts";
import { fileSizes } from "./file_sizes.ts";
import type { Wheel } from "./wheels.ts";

/** A program that answers `… download …`. */
export interface Transport {
  readonly name: "pip" | "uv";
  readonly command: string;
  readonly args: readonly string[];
}

export interface DownloadOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called a few times a second with the bytes that have arrived so far. */
  readonly onProgress?: ((loaded: number) => void) | undefined;
}

/** Asked for when this machine's own Python has no wheel: too old, too new, or no CPython. */
const FIXED_VARIANT = [
  ...["--python-version", "3.12", "--implementation", "cp", "--abi", "cp312", "--only-binary", ":all:"],
  ...["2_28", "2_27", "2_25", "2_18", "2_17", "2014", "2_12", "2010", "2_5", "1"].flatMap((version) => [
    "--platform",
    `manylinux${version.includes("_") ? `_${version}` : version}_x86_64`,
  ]),
];

const works = (command: string, args: readonly string[]): boolean =>
  spawnSync(command, args, { stdio: "ignore", timeout: 60_000 }).status === 0;

/** @throws SetupError that names what to install when there is neither pip nor uv. */
export function findTransport(): Transport {
  for (const python of ["python3", "python"]) {
    if (works(python, ["-m", "pip", "--version"]))
      return { name: "pip", command: python, args: ["-m", "pip"] };
  }
  // uv has no download of its own, but runs pip as a tool.
  if (works("uv", ["--version"])) return { name: "uv", command: "uv", args: ["tool", "run", "pip"] };

  const python = works("python3", ["--version"]);
  throw new SetupError(
    `libtorch is downloaded with pip or uv, and ${python ? "this Python has no pip" : "python3 is missing"}.`,
    {
      hint: `Debian and Ubuntu: apt install ${python ? "python3-pip" : "python3 python3-pip"}\nWithout a network: npx torchformers setup --from <folder with the wheels>`,
    },
  );
}

/** Brings a wheel into `folder`, whole or not at all, and returns the name of its file. */
export async function downloadWheel(
  transport: Transport,
  wheel: Wheel,
  folder: string,
  options: DownloadOptions = {},
): Promise<string> {
  // pip keeps what arrives in TMPDIR: there its growth can be watched, and a killed download is found and removed.
  const temporary = join(folder, `${TEMPORARY}${process.pid}`);
  const done = join(temporary, "done");
  await rm(temporary, { recursive: true, force: true });
  await mkdir(done, { recursive: true });
  const request = `${wheel.project}==${wheel.version}`;
  const args = [
    "download",
    "--no-deps",
    "--no-input",
    "--disable-pip-version-check",
    "--progress-bar",
    "off",
    "--dest",
    done,
    request,
  ];
  try {
    let result = await run(transport, args, temporary, options);
    if (/No matching distribution/i.test(result.output)) {
      result = await run(transport, [...args, ...FIXED_VARIANT], temporary, options);
    }
    if (result.code !== 0) throw downloadFailed(transport, request, result);
    const [name] = await readdir(done);
    if (name === undefined) throw new SetupError(`${transport.name} downloaded no file for ${request}.`);
    await rename(join(done, name), join(folder, name));
    return name;
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

const TEMPORARY = ".download-";

/** Removes what downloads that were killed have left behind. The caller holds the lock, so nobody is downloading. */
export async function removeLeftovers(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (name.startsWith(TEMPORARY)) await rm(join(folder, name), { recursive: true, force: true });
  }
}

interface Outcome {
  readonly code: number | null;
  readonly output: string;
}

async function run(
  transport: Transport,
  args: readonly string[],
  temporary: string,
  options: DownloadOptions,
): Promise<Outcome> {
  const { signal, onProgress } = options;
  const child = spawn(transport.command, [...transport.args, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, TMPDIR: temporary },
    ...(signal === undefined ? {} : { signal }),
  });
  let output = "";
  const collect = (chunk: Buffer) => {
    output += chunk.toString();
    if (process.env["TORCHFORMERS_LOG"] === "debug") process.stderr.write(chunk);
  };
  child.stdout.on("data", collect);
  child.stderr.on("data", collect);
  const watch = setInterval(() => void largest(temporary).then(onProgress), 250);
  try {
    return await new Promise<Outcome>((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (code) => resolve({ code, output }));
    });
  } finally {
    clearInterval(watch);
  }
}

/** Bytes of the largest file below a folder: pip copies it from place to place. */
const largest = async (folder: string): Promise<number> => Math.max(0, ...(await fileSizes(folder)));

function downloadFailed(transport: Transport, request: string, { code, output }: Outcome): SetupError {
  const lines = output.split("\n").filter((line) => /error|no matching/i.test(line));
  const reason = (lines.length > 0 ? lines : output.trim().split("\n").slice(-3)).slice(0, 5).join("\n");
  const hints = /No space left/i.test(output)
    ? [
        "The disk is full: TORCHFORMERS_CACHE names another folder, TMPDIR and pip's cache may be in the way too",
      ]
    : [
        "Is there a network? pip's own settings hold: PIP_INDEX_URL, HTTPS_PROXY, pip.conf",
        "Without one: npx torchformers setup --from <folder with the wheels>",
      ];
  return new SetupError(`${transport.name} could not download ${request} (exit code ${code}):\n${reason}`, {
    hint: hints.join("\n"),
  });
}
