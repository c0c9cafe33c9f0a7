// Facts about this machine and this installation, for `env` and `doctor`. Nothing here fails: what cannot be found out is
// undefined.

import { readFileSync } from "node:fs";
import { arch, availableParallelism, cpus, freemem, release, totalmem } from "node:os";
import type { Addon } from "../addon/addon.ts";
import { cacheFolder } from "../addon/libtorch.ts";
import { addon, type LoadReport, loadReport } from "../addon/loader.ts";
import { libc } from "../addon/platform.ts";
import { TorchformersError } from "../errors/index.ts";

/** The addon, or why it does not load. */
export interface Native {
  readonly addon: Addon | undefined;
  readonly error: Error | undefined;
  readonly report: LoadReport;
}

export function loadNative(): Native {
  try {
    return { addon: addon(), error: undefined, report: loadReport() };
  } catch (error) {
    return { addon: undefined, error: error as Error, report: loadReport() };
  }
}

export interface Environment {
  readonly torchformers: string;
  readonly node: string;
  readonly system: string;
  readonly libc: string | undefined;
  readonly cpu: { readonly model: string; readonly threads: number; readonly capability: string | undefined };
  readonly memory: { readonly total: number; readonly free: number }; // bytes
  readonly libtorch:
    | { readonly version: string; readonly folder: string; readonly source: string }
    | undefined;
  readonly addon:
    | { readonly path: string; readonly compiler: string; readonly napi: number; readonly sanitizer: string }
    | undefined;
  readonly error: { readonly code: string | undefined; readonly message: string } | undefined;
  readonly cuda: { readonly driver: string | undefined; readonly loaded: boolean };
  readonly devices: ReturnType<Addon["deviceInfo"]>;
  readonly threads: number | undefined;
  readonly cache: string;
  /** Variables that change what we do. Tokens are not told. */
  readonly variables: Readonly<Record<string, string>>;
}

export function environment({ addon: native, error, report }: Native = loadNative()): Environment {
  const { libtorch, core } = report;
  return {
    torchformers: packageVersion(),
    node: process.versions.node,
    system: `${systemName()}, Linux ${release()}, ${arch()}`,
    libc: describeLibc(),
    cpu: {
      model: cpus()[0]?.model.trim() ?? "unknown",
      threads: availableParallelism(),
      capability: native?.cpuCapability(),
    },
    memory: memory(),
    libtorch: libtorch && { version: libtorch.version, folder: libtorch.root, source: libtorch.source },
    addon: native && core ? { path: core, ...pick(native.buildInfo()) } : undefined,
    error: error && {
      code: error instanceof TorchformersError ? error.code : undefined,
      message: error.message,
    },
    cuda: { driver: cudaDriver(), loaded: report.cuda },
    devices: native?.deviceInfo() ?? [],
    threads: native?.getNumThreads(),
    cache: cacheFolder(),
    variables: variables(),
  };
}

const pick = ({ compiler, napi, sanitizer }: ReturnType<Addon["buildInfo"]>) => ({
  compiler,
  napi,
  sanitizer,
});

export function packageVersion(): string {
  return (
    JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string }
  ).version;
}

/** A container may have less than the machine; without a limit Node tells a number beyond all memory. */
function memory(): Environment["memory"] {
  const limit = process.constrainedMemory() || Number.POSITIVE_INFINITY;
  return { total: Math.min(limit, totalmem()), free: Math.min(limit, freemem()) };
}

function describeLibc(): string | undefined {
  const c = libc();
  return c && (c.version === undefined ? c.name : `${c.name} ${c.version}`);
}

/** The kernel module's version; undefined where there is no NVIDIA driver. */
export function cudaDriver(): string | undefined {
  return /Kernel Module\D*([\d.]+)/.exec(readText("/proc/driver/nvidia/version"))?.[1];
}

function systemName(): string {
  return /^PRETTY_NAME="?([^"\n]+)/m.exec(readText("/etc/os-release"))?.[1] ?? process.platform;
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function variables(): Record<string, string> {
  const relevant =
    /^(TORCHFORMERS_|HF_|OMP_|MKL_)|^(CUDA_VISIBLE_DEVICES|LD_LIBRARY_PATH|LD_PRELOAD|NO_COLOR|VIRTUAL_ENV|XDG_CACHE_HOME)$/;
  const entries = Object.entries(process.env).filter(
    ([name, value]) => relevant.test(name) && value !== undefined,
  );
  return Object.fromEntries(
    entries
      .sort()
      .map(([name, value]) => [name, /TOKEN|KEY|SECRET/.test(name) ? "(set)" : (value as string)]),
  );
}
