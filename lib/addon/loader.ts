// Loads the native code, on first use: importing the package never does. One call per environment (thread); what it
// opens is shared by the process, and opening it again costs nothing.

import { existsSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { isMainThread } from "node:worker_threads";
import { InvalidArgumentError, LibtorchNotFoundError, NativeBindingNotFoundError } from "../errors/index.ts";
import type { Addon } from "./addon.ts";
import { collectYoung } from "./collect_young.ts";
import { makeError } from "./error_factory.ts";
import { type Attempt, findLibtorch, LIBTORCH_VERSION, type Libtorch } from "./libtorch.ts";
import { compareVersions, libc, MINIMUM_GLIBC, MINIMUM_GLIBCXX, SUPPORTED_PLATFORMS } from "./platform.ts";

/** native/loader/loader.cc. */
interface LoaderAddon {
  /** Opens a library and keeps it; the dynamic linker's message when it does not load. */
  open(path: string): string | null;
  /** Takes the lock of an open file without waiting: 0 taken until the file is closed, 1 held by another, 2 not possible. */
  lock(fd: number): 0 | 1 | 2;
}

/** One library that was opened, or not. */
export interface Opened {
  readonly library: string;
  /** The dynamic linker's message; null when it loaded. */
  readonly error: string | null;
  readonly milliseconds: number;
}

/** What loading did, for `torchformers doctor`. */
export interface LoadReport {
  readonly libtorch: Libtorch | undefined;
  readonly tried: readonly Attempt[];
  readonly opened: readonly Opened[];
  readonly loader: string | undefined;
  readonly core: string | undefined;
  /** CUDA code is loaded, so that a device may be used. */
  readonly cuda: boolean;
}

const packageRoot = fileURLToPath(new URL("../..", import.meta.url));
const require = createRequire(import.meta.url);
const platform = `${process.platform}-${process.arch}`;

/** Where the addon's `shape` and `stride` leave their values. Tensors have at most 64 dimensions. */
export const sizes = new Float64Array(64);

/** How long, in milliseconds, the end of the process waits for the operator that the executor is at. */
const PATIENCE = 2000;

let loaded: Addon | undefined;
let report: LoadReport = {
  libtorch: undefined,
  tried: [],
  opened: [],
  loader: undefined,
  core: undefined,
  cuda: false,
};

/** What the last call of `addon()` found and opened. */
export const loadReport = (): LoadReport => report;

/**
 * The native code of this environment, loaded at the first call.
 *
 * @throws NativeBindingNotFoundError when there is no addon for this platform, or it does not load.
 * @throws LibtorchNotFoundError when libtorch is not on this machine, or does not load; says which command brings it.
 */
export function addon(): Addon {
  loaded ??= load();
  return loaded;
}

/**
 * Takes the advisory lock (`flock`) of an open file without waiting; closing the file, or the end of the process, gives
 * it back. "unsupported": the file system, or this platform, has no such locks. Needs no libtorch.
 */
export function lockFile(fd: number): "taken" | "held" | "unsupported" {
  if (locker === undefined) {
    try {
      locker = requireAddon(resolveLoader()) as LoaderAddon;
    } catch {
      locker = null;
    }
  }
  return (["taken", "held", "unsupported"] as const)[locker?.lock?.(fd) ?? 2];
}

let locker: LoaderAddon | null | undefined;

function load(): Addon {
  report = { libtorch: undefined, tried: [], opened: [], loader: undefined, core: undefined, cuda: false };
  const loader = resolveLoader();
  const core = join(dirname(loader), "torchformers_core.node");
  report = { ...report, loader, core };

  const { libtorch, tried } = findLibtorch();
  report = { ...report, libtorch, tried };
  if (!libtorch) throw libtorchMissing(tried);

  const absence = openLibtorch(requireAddon(loader) as LoaderAddon, libtorch);
  const native = requireAddon(core) as Addon;
  native.setErrorFactory(makeError);
  native.setYoungCollector(collectYoung);
  native.setSizesArray(sizes);
  native.noteCudaLibrary(absence ?? "");
  if (absence === null) native.openCudaLibrary(join(dirname(core), "torchformers_cuda.so"));
  // Whatever ends the process: process.exit(), an exception that nobody caught, or the end of the work.
  if (isMainThread) process.once("exit", () => native.endProcess(PATIENCE));
  return native;
}

/**
 * Opens the libraries by absolute path; the core's NEEDED names then resolve to them, wherever they lie. Returns why
 * CUDA's part is not among them, or null.
 */
function openLibtorch(loader: LoaderAddon, libtorch: Libtorch): string | null {
  const opened: Opened[] = [];
  const open = (library: string): string | null => {
    const start = performance.now();
    const error = loader.open(library);
    opened.push({ library, error, milliseconds: performance.now() - start });
    report = { ...report, opened };
    return error;
  };

  for (const name of ["libc10.so", "libtorch_cpu.so"]) {
    const error = open(join(libtorch.lib, name));
    if (error !== null) throw libtorchBroken(libtorch, error);
  }
  // Before the core is there: torch looks up its CUDA hooks once.
  const absence = openCuda(open, libtorch);
  report = { ...report, cuda: absence === null };
  return absence;
}

/** Opens CUDA's part of libtorch where it can be of use, and says why not; null when it is open. */
function openCuda(open: (library: string) => string | null, libtorch: Libtorch): string | null {
  const wanted = process.env["TORCHFORMERS_CUDA"] || "auto";
  if (!["auto", "load", "off"].includes(wanted)) {
    throw new InvalidArgumentError(`TORCHFORMERS_CUDA is "${wanted}"; it must be "auto", "load" or "off".`);
  }
  if (wanted === "off") return "TORCHFORMERS_CUDA=off";
  if (!libtorch.cuda)
    return `libtorch ${libtorch.version} in ${libtorch.root} has no CUDA part (npx torchformers setup --flavour cu130)`;
  // Without a driver it would be 0.3 s for nothing.
  if (open("libcuda.so.1") !== null && wanted === "auto")
    return "libtorch_cuda was not loaded for want of a driver";
  const error = open(join(libtorch.lib, "libtorch_cuda.so"));
  return error && `libtorch_cuda does not load: ${error}`;
}

/** The path of the loader addon for this platform; the core lies beside it. */
function resolveLoader(): string {
  let cause: unknown;
  try {
    // `TORCHFORMERS_PREBUILD` names another folder that holds prebuilds/.
    const path = (require("node-gyp-build") as { path(folder: string): string }).path(packageRoot);
    if (/^torchformers\./.test(basename(path))) return path;
  } catch (error) {
    cause = error;
  }
  throw bindingMissing(cause);
}

function requireAddon(path: string): unknown {
  try {
    return require(path);
  } catch (error) {
    throw bindingBroken(path, error as Error);
  }
}

// --- help ---------------------------------------------------------------------------------------------------------------

const list = (lines: readonly string[]) => lines.map((line) => `  - ${line}`).join("\n");

function libtorchMissing(tried: readonly Attempt[]): LibtorchNotFoundError {
  const places = list(tried.map(({ place, reason }) => `${place}: ${reason}`));
  const hint = tried.some(({ source }) => source === "environment")
    ? `TORCHFORMERS_LIBTORCH must name the folder that holds torch/lib of torch ${LIBTORCH_VERSION}; unset it to have the other places searched.`
    : [
        "Possible solutions:",
        list([
          "Get it: npx torchformers setup (a download of 540 MB, by pip or uv)",
          "Without a network: npx torchformers setup --from <folder with the wheels>",
          `Name a copy that you have: TORCHFORMERS_LIBTORCH=<folder that holds torch/lib of torch ${LIBTORCH_VERSION}>`,
        ]),
      ].join("\n");
  return new LibtorchNotFoundError(`libtorch ${LIBTORCH_VERSION} was not found. Looked in:\n${places}`, {
    hint,
  });
}

function libtorchBroken({ root, source }: Libtorch, error: string): LibtorchNotFoundError {
  const solutions = [];
  if (/lib(cupti|cudart)\.so/.test(error)) {
    solutions.push(
      "The small NVIDIA wheels that its CPU part needs too (nvidia-cuda-cupti, nvidia-cuda-runtime) are not beside it",
    );
  }
  if (/GLIBC/.test(error)) solutions.push(glibcHelp());
  if (/static TLS/.test(error)) solutions.push("Load torchformers before other native packages");
  solutions.push(
    source === "cache"
      ? "Bring a whole copy: npx torchformers setup --force"
      : "Bring a copy of our own: npx torchformers setup",
  );
  solutions.push("See what was tried: npx torchformers doctor");
  return new LibtorchNotFoundError(`libtorch in ${root} does not load: ${error}`, {
    hint: `Possible solutions:\n${list(solutions)}`,
  });
}

function bindingMissing(cause: unknown): NativeBindingNotFoundError {
  const folder = join(packageRoot, "prebuilds");
  const present = existsSync(folder) ? readdirSync(folder) : [];
  const c = libc();
  const solutions = [];
  if (c?.name === "musl") {
    solutions.push(
      "This system uses musl (Alpine); libtorch exists for glibc only. Use a Debian or Ubuntu based image, such as node:22-slim",
    );
  } else if (!SUPPORTED_PLATFORMS.includes(platform)) {
    solutions.push(`There is no prebuilt addon for ${platform}, only for ${SUPPORTED_PLATFORMS.join(", ")}`);
  } else if (existsSync(join(packageRoot, "CMakeLists.txt"))) {
    solutions.push("This is a clone: build the addon with npm run build:native");
  } else {
    if (present.length > 0)
      solutions.push(
        `The package holds ${present.join(", ")} only. Was node_modules copied from another machine? Install it here`,
      );
    solutions.push(
      "Install the package again: npm install torchformers",
      "A lockfile made on another platform can leave platform packages out: remove node_modules and package-lock.json, then npm install",
      'A bundler must leave the package alone: mark "torchformers" as external',
    );
  }
  return new NativeBindingNotFoundError(`The native addon of torchformers for ${platform} was not found.`, {
    cause,
    hint: `Possible solutions:\n${list(solutions)}`,
  });
}

function bindingBroken(path: string, error: Error): NativeBindingNotFoundError {
  const solutions = [];
  if (/GLIBC/.test(error.message)) solutions.push(glibcHelp());
  else if (/undefined symbol/.test(error.message)) {
    solutions.push(
      `The addon was built against another libtorch than the one found (${report.libtorch?.root}, ${report.libtorch?.version})`,
      "In a clone, build it again: npm run build:native",
    );
  }
  solutions.push("See what was found: npx torchformers doctor");
  return new NativeBindingNotFoundError(`The native addon ${path} does not load: ${error.message}`, {
    cause: error,
    hint: `Possible solutions:\n${list(solutions)}`,
  });
}

function glibcHelp(): string {
  const c = libc();
  const here =
    c?.version !== undefined && compareVersions(c.version, MINIMUM_GLIBC) < 0
      ? `; this one has glibc ${c.version}`
      : "";
  return `The system is too old: glibc ${MINIMUM_GLIBC} and GLIBCXX_${MINIMUM_GLIBCXX} or newer are needed (Debian 12, Ubuntu 22.04, RHEL 9)${here}`;
}
