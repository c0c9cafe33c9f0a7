// Builds the two addons with CMake and puts them where node-gyp-build looks: prebuilds/<platform>-<arch>/.
//
//   node scripts/build_native.mjs [--libtorch DIR] [--sanitize address,undefined] [--clean] [--target NAME]
//
// cmake and ninja come from PATH, or from their wheels, unpacked into build/tools; nothing is installed into the system.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { fail, findOnPath, isMain, root, withLock } from "./support.mjs";

const tools = join(root, "build/tools");
const pinned = { cmake: "3.31.6", ninja: "1.11.1.4", "clang-format": "19.1.7" };

/** Where the addons of a build lie. A sanitized build stays apart: `TORCHFORMERS_PREBUILD=build/sanitized` picks it. */
export function outputs(sanitize = "") {
  const base = sanitize ? join(root, "build/sanitized") : root;
  const folder = join(base, "prebuilds", `${process.platform}-${process.arch}`);
  return {
    build: join(root, sanitize ? "build/native-sanitized" : "build/native"),
    folder,
    // node-gyp-build takes the name with the most tags that fit; the core lies beside it and is required by path.
    loader: join(folder, "torchformers.napi.glibc.node"),
    core: join(folder, "torchformers_core.node"),
    cuda: join(folder, "torchformers_cuda.so"), // where CUDA's headers were found
    stamp: join(root, sanitize ? "build/native-sanitized" : "build/native", "stamp.json"),
  };
}

/** Everything the result depends on, as one hash: the sources, and libtorch's version, wherever a copy of it lies. */
export function nativeHash(libtorch) {
  const hash = createHash("sha256");
  const add = (path) =>
    hash.update(relative(root, path)).update("\0").update(readFileSync(path)).update("\0");
  const walk = (folder) => {
    for (const entry of readdirSync(folder, { withFileTypes: true }).sort((a, b) =>
      a.name < b.name ? -1 : 1,
    )) {
      const path = join(folder, entry.name);
      if (entry.isFile() && /\.(cc|h)$/.test(entry.name)) add(path);
      else if (entry.isDirectory() && entry.name !== "test") walk(path);
    }
  };
  walk(join(root, "native"));
  add(join(root, "CMakeLists.txt"));
  hash.update(process.arch);
  const version = join(libtorch, "torch/version.py");
  if (existsSync(version)) add(version);
  return hash.digest("hex");
}

/** The last build is of these sources and this libtorch, and its files are there. */
export function nativeIsFresh(libtorch) {
  const { stamp, loader, core } = outputs();
  if (!existsSync(stamp) || !existsSync(loader) || !existsSync(core)) return false;
  return JSON.parse(readFileSync(stamp, "utf8")).hash === nativeHash(libtorch);
}

/** Builds what is stale. At most two jobs: a file that includes ATen takes 1.5 GB of memory. */
export async function buildNative({ libtorch, sanitize = "", clean = false, target, verbose = false }) {
  const { build, folder, loader, core, cuda, stamp } = outputs(sanitize);
  if (clean) rmSync(build, { recursive: true, force: true });
  mkdirSync(build, { recursive: true });
  await withLock(join(build, ".lock"), "another native build", async () => {
    const hash = nativeHash(libtorch);
    const { cmake, ninja } = await buildTools();
    const options = [
      "-G",
      "Ninja",
      `-DCMAKE_MAKE_PROGRAM=${ninja}`,
      "-DCMAKE_BUILD_TYPE=Release",
      `-DLIBTORCH_ROOT=${libtorch}`,
      `-DTF_SANITIZE=${sanitize}`,
    ];
    const configured = join(build, "configured.json");
    const wanted = JSON.stringify({ cmake, options });
    if (!existsSync(configured) || readFileSync(configured, "utf8") !== wanted) {
      rmSync(join(build, "CMakeCache.txt"), { force: true });
      run(cmake, ["-S", root, "-B", build, ...options]);
      writeFileSync(configured, wanted);
    }
    run(cmake, [
      "--build",
      build,
      "--parallel",
      "2",
      ...(target ? ["--target", target] : []),
      ...(verbose ? ["--verbose"] : []),
    ]);
    if (target) return;

    mkdirSync(folder, { recursive: true });
    install(join(build, "torchformers.node"), loader);
    install(join(build, "torchformers_core.node"), core);
    const built = join(build, "torchformers_cuda.so");
    if (existsSync(built)) install(built, cuda);
    writeFileSync(stamp, JSON.stringify({ hash, libtorch, sanitize }));
  });
}

/** By rename: a running process keeps its mapping of the old file. */
function install(from, to) {
  const temporary = `${to}.${process.pid}.tmp`;
  copyFileSync(from, temporary);
  renameSync(temporary, to);
}

function run(command, args) {
  const { status, signal, error } = spawnSync(command, args, { stdio: "inherit", cwd: root });
  if (error) throw error;
  if (status !== 0)
    fail(`${command} ${args.slice(0, 2).join(" ")} … ended with ${signal ?? `exit code ${status}`}.`);
}

async function buildTools() {
  return { cmake: await findTool("cmake"), ninja: await findTool("ninja") };
}

/** Our own copy comes first: another program of that name on PATH would mean a whole build again. */
const findTool = async (name) => ownTool(name) ?? findOnPath(name) ?? (await fetchTool(name));

function ownTool(name) {
  const folder = join(tools, name);
  if (!existsSync(folder)) return undefined;
  const path = readdirSync(folder, { recursive: true }).find((path) => path.match(`(bin|scripts)/${name}$`));
  return path && join(folder, path);
}

/** Downloads the tool's wheel and unpacks it with our own set-up code; `pip install` would touch the system. */
export async function fetchTool(name) {
  const own = ownTool(name);
  if (own) return own;
  const folder = join(tools, name);
  console.log(`Getting ${name} ${pinned[name]} into ${relative(root, folder)}`);
  const { downloadWheel, findTransport } = await import("../dist/setup/pip.js");
  const { ZipReader } = await import("../dist/setup/zip.js");
  const temporary = `${folder}.tmp`;
  rmSync(temporary, { recursive: true, force: true });
  mkdirSync(temporary, { recursive: true });
  const wheel = { project: name, version: pinned[name] };
  const file = join(temporary, await downloadWheel(findTransport(), wheel, temporary));
  const zip = await ZipReader.open(file);
  for (const entry of zip.entries) await zip.extract(entry, temporary);
  await zip.close();
  rmSync(file);
  renameSync(temporary, folder);
  return ownTool(name);
}

/** The folder of libtorch to build against: named, or found as the package finds it at run time. */
export async function libtorchFolder(named) {
  if (named) return named;
  const search = join(root, "dist/addon/libtorch.js");
  if (!existsSync(search)) {
    if (process.env.TORCHFORMERS_LIBTORCH) return process.env.TORCHFORMERS_LIBTORCH;
    fail("The TypeScript is not built yet: run `npm run build` first, or name a folder with --libtorch.");
  }
  const { findLibtorch } = await import(search);
  const { libtorch, tried } = findLibtorch({ headers: true });
  if (libtorch) return libtorch.root;
  fail(
    [
      "libtorch with its headers was not found. Tried:",
      ...tried.map(({ place, reason }) => `  ${place}: ${reason}`),
    ].join("\n"),
    "Get it with `npx torchformers setup --headers`.",
  );
}

if (isMain(import.meta.url)) {
  const { values } = parseArgs({
    options: {
      libtorch: { type: "string" },
      sanitize: { type: "string" },
      clean: { type: "boolean" },
      target: { type: "string" },
      verbose: { type: "boolean" },
    },
  });
  if (!findOnPath("g++") && !process.env.CXX) fail("g++ is missing.", "Debian and Ubuntu: apt install g++");
  await buildNative({ ...values, libtorch: await libtorchFolder(values.libtorch) });
}
