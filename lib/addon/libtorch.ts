// Where libtorch is: the places a copy may lie in, in order, and what is wrong with each that does not fit.
// Knows files only; nothing is opened here.

import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";

/** The one version of libtorch that the addon is built for. Its C++ interface changes with every release. */
export const LIBTORCH_VERSION = "2.11.0";

/** What a copy can do: `cpu` has the CPU libraries only, `cu130` all of them, for CUDA 13.0. */
export type Flavour = "cpu" | "cu130";

/** The flavours in the order in which cached copies are preferred; `cu130` also runs without a GPU. */
export const FLAVOURS: readonly Flavour[] = ["cu130", "cpu"];

export type LibtorchSource = "environment" | "package" | "cache" | "python";

/** A copy of libtorch, laid out as its wheel is: the libraries find each other by relative paths. */
export interface Libtorch {
  /** The folder that holds `torch/` and, beside it, `nvidia/`. */
  readonly root: string;
  /** `torch/lib` in it. */
  readonly lib: string;
  /** For example "2.11.0+cu130". */
  readonly version: string;
  readonly source: LibtorchSource;
  /** The CUDA libraries are there too. */
  readonly cuda: boolean;
  /** The headers are there, so that the addon can be built against it. */
  readonly headers: boolean;
}

/** A place that was looked at. */
export interface Attempt {
  readonly source: LibtorchSource;
  readonly place: string;
  /** Why it does not fit; null for the one that was taken. */
  readonly reason: string | null;
}

export interface LibtorchSearch {
  readonly libtorch: Libtorch | undefined;
  readonly tried: readonly Attempt[];
}

type Env = Readonly<Record<string, string | undefined>>;

/** The folder for what we download: `TORCHFORMERS_CACHE`, or `torchformers` in the user's cache folder. */
export function cacheFolder(env: Env = process.env): string {
  if (env["TORCHFORMERS_CACHE"]) return resolve(env["TORCHFORMERS_CACHE"]);
  return join(env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "torchformers");
}

/** The folder that `torchformers setup` fills for a flavour. */
export function cachedLibtorch(flavour: Flavour, env: Env = process.env): string {
  return join(cacheFolder(env), "libtorch", `${LIBTORCH_VERSION}-${flavour}`);
}

/**
 * Looks for libtorch in `TORCHFORMERS_LIBTORCH`, an installed platform package, the cache folder and the Python
 * environment's own torch, in this order. A folder named by the variable is the only one looked at.
 *
 * @param options.headers Only a copy that the addon can be built against will do.
 */
export function findLibtorch({
  headers = false,
  env = process.env,
}: {
  headers?: boolean;
  env?: Env;
} = {}): LibtorchSearch {
  const tried: Attempt[] = [];
  for (const [source, place] of candidates(env)) {
    const found = place.startsWith("/") ? examine(source, place, headers) : "not installed";
    tried.push({ source, place, reason: typeof found === "string" ? found : null });
    if (typeof found !== "string") return { libtorch: found, tried };
  }
  return { libtorch: undefined, tried };
}

function* candidates(env: Env): Generator<[LibtorchSource, string]> {
  const named = env["TORCHFORMERS_LIBTORCH"];
  if (named) {
    yield ["environment", rootOf(resolve(named))];
    return;
  }
  for (const flavour of FLAVOURS) yield ["package", platformPackage(flavour)];
  for (const flavour of FLAVOURS) yield ["cache", cachedLibtorch(flavour, env)];
  yield* pythonFolders(env);
}

/** People also name `torch` or `torch/lib` itself. */
function rootOf(folder: string): string {
  if (basename(folder) === "lib" && basename(dirname(folder)) === "torch") return dirname(dirname(folder));
  return basename(folder) === "torch" && existsSync(join(folder, "lib")) ? dirname(folder) : folder;
}

/** The copy in a folder, or what it lacks. */
function examine(source: LibtorchSource, root: string, headersWanted: boolean): Libtorch | string {
  if (!existsSync(root)) return "does not exist";
  const lib = join(root, "torch/lib");
  for (const name of ["libc10.so", "libtorch_cpu.so"]) {
    if (!existsSync(join(lib, name))) return `has no torch/lib/${name}`;
  }
  const version = versionOf(root);
  if (version === undefined) return "has no torch/version.py that names a version";
  if (version.split("+")[0] !== LIBTORCH_VERSION) return `is torch ${version}; ${LIBTORCH_VERSION} is needed`;
  const headers = existsSync(join(root, "torch/include/ATen/ATen.h"));
  if (headersWanted && !headers) return "has no headers in torch/include";
  return { root, lib, version, source, cuda: existsSync(join(lib, "libtorch_cuda.so")), headers };
}

function versionOf(root: string): string | undefined {
  try {
    return /^__version__ = '([^']+)'/m.exec(readFileSync(join(root, "torch/version.py"), "utf8"))?.[1];
  } catch {
    return undefined;
  }
}

/** The folder of an installed platform package, or its name. */
function platformPackage(flavour: Flavour): string {
  const name = `@torchformers/libtorch-${process.platform}-${process.arch}-${flavour}`;
  try {
    return dirname(createRequire(import.meta.url).resolve(`${name}/package.json`));
  } catch {
    return name;
  }
}

/** The site-packages of the active virtual environment, then where `python3` on PATH would import torch from. */
function* pythonFolders(env: Env): Generator<[LibtorchSource, string]> {
  const active = env["VIRTUAL_ENV"];
  if (active) {
    const lib = join(active, "lib");
    const versions = existsSync(lib) ? readdirSync(lib).filter((name) => /^python3\.\d+$/.test(name)) : [];
    for (const version of versions) yield ["python", join(lib, version, "site-packages")];
  }
  // Asks where the package is without importing it, which would take a second.
  const ask =
    "import importlib.util as u; s = u.find_spec('torch'); print(s.origin if s and s.origin else '')";
  const { stdout } = spawnSync("python3", ["-c", ask], {
    encoding: "utf8",
    timeout: 10_000,
    env: { ...env } as NodeJS.ProcessEnv,
  });
  const origin = stdout?.trim();
  yield ["python", origin ? dirname(dirname(origin)) : "torch of python3 on PATH"];
}
