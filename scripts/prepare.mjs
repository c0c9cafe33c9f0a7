// Makes a checkout ready: npm dependencies, TypeScript, libtorch, the native addon. Only what is stale is done, and what
// it takes is checked first. Plain Node without dependencies: a clean clone has none.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join, relative } from "node:path";
import { buildNative, libtorchFolder, nativeIsFresh } from "./build_native.mjs";
import { fail, findOnPath, isMain, root, withLock } from "./support.mjs";

const MINIMUM_NODE = [20, 19];
const stamps = join(root, "build/stamps");

/** One step: a key that names the state of its inputs, and what brings its outputs to that state. */
const steps = {
  dependencies: {
    key: () => digest([readFileSync(join(root, "package-lock.json"))]),
    outputs: () => [join(root, "node_modules/typescript/bin/tsc")],
    run: () => npm("ci", "--no-audit", "--no-fund"),
  },
  typescript: {
    key: () => fingerprint("lib", "tsconfig.json", "tsconfig.build.json", "package-lock.json"),
    outputs: () => [join(root, "dist/index.js"), join(root, "dist/cli/main.js")],
    run: () => compile("tsconfig.build.json", "lib", "dist"),
  },
  tests: {
    key: () => fingerprint("lib", "test", "tsconfig.json", "tsconfig.test.json", "package-lock.json"),
    outputs: () => [join(root, "build/test")],
    run: () => compile("tsconfig.test.json", "test", "build/test"),
  },
};

/**
 * @param options.tests Also compile the tests.
 */
export async function prepare({ tests = false } = {}) {
  checkNode();
  const stale = [steps.dependencies, steps.typescript, ...(tests ? [steps.tests] : [])].filter(
    (step) => !isFresh(step),
  );
  const native = !(await isNativeFresh());
  if (stale.length === 0 && !native) return;

  checkTools({ dependencies: stale.includes(steps.dependencies), native });
  mkdirSync(stamps, { recursive: true });
  await withLock(join(root, "build/prepare.lock"), "another set-up of this checkout", async () => {
    ensure("dependencies");
    ensure("typescript");
    if (!(await isNativeFresh())) {
      setUpLibtorch();
      console.log("Building the native addon …");
      await buildNative({ libtorch: await libtorchFolder() });
    }
    if (tests) ensure("tests");
  });
}

/** A step's stamp is written after its outputs, so one that was interrupted is done again. */
function ensure(name) {
  const step = steps[name];
  if (isFresh(step)) return;
  const stamp = stampOf(step);
  rmSync(stamp, { force: true });
  step.run();
  writeFileSync(stamp, step.key());
}

const stampOf = (step) =>
  join(
    stamps,
    Object.keys(steps).find((name) => steps[name] === step),
  );

function isFresh(step) {
  const stamp = stampOf(step);
  return existsSync(stamp) && step.outputs().every(existsSync) && readFileSync(stamp, "utf8") === step.key();
}

/** libtorch is found as the package will find it, and the addon is built of these sources for that version. */
async function isNativeFresh() {
  const search = join(root, "dist/addon/libtorch.js");
  if (!existsSync(search)) return false;
  const { libtorch } = (await import(search)).findLibtorch();
  return libtorch !== undefined && nativeIsFresh(libtorch.root);
}

// --- steps --------------------------------------------------------------------------------------------------------------

function npm(...args) {
  console.log(`npm ${args[0]} …`);
  // Through npm's own script where npm started us: it need not be on PATH then.
  const { npm_execpath: script } = process.env;
  run(...(script?.endsWith(".js") ? [process.execPath, [script, ...args]] : ["npm", args]));
}

function compile(project, sources, folder) {
  console.log(`tsc -p ${project} …`);
  // Without its outputs, tsc's own note of what is up to date is wrong.
  if (!existsSync(join(root, folder)))
    rmSync(join(root, "build", `${project.replace(/\.json$/, "")}.tsbuildinfo`), { force: true });
  run(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-p", project]);
  prune(join(root, folder), join(root, sources));
}

/** tsc leaves the outputs of sources that were removed. */
function prune(folder, sources) {
  for (const name of readdirSync(folder, { recursive: true })) {
    const source = /^(.*)\.(js|d\.ts)(\.map)?$/.exec(name)?.[1];
    if (source !== undefined && !existsSync(join(sources, `${source}.ts`))) rmSync(join(folder, name));
  }
}

function setUpLibtorch() {
  run(process.execPath, [join(root, "dist/cli/main.js"), "setup", "--headers"]);
}

function run(command, args) {
  const { status, signal, error } = spawnSync(command, args, { stdio: "inherit", cwd: root });
  if (error) throw error;
  if (signal === "SIGINT" || status === 130) process.exit(130);
  if (status !== 0) process.exit(status || 1);
}

// --- freshness ----------------------------------------------------------------------------------------------------------

function digest(parts) {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest("hex");
}

/** Names, sizes and times of all files below: a few milliseconds, where reading them takes many more. */
function fingerprint(...paths) {
  const visit = (path) => {
    const facts = statSync(path);
    if (!facts.isDirectory()) return [`${relative(root, path)}\0${facts.size}\0${facts.mtimeMs}\0`];
    const names = readdirSync(path).filter((name) => name !== "fixtures");
    return names.sort().flatMap((name) => visit(join(path, name)));
  };
  return digest(paths.flatMap((path) => visit(join(root, path))));
}

// --- tools --------------------------------------------------------------------------------------------------------------

function checkNode() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major > MINIMUM_NODE[0] || (major === MINIMUM_NODE[0] && minor >= MINIMUM_NODE[1])) return;
  fail(
    `Node ${MINIMUM_NODE.join(".")} or newer is needed; this is ${process.versions.node}.`,
    "nodejs.org and nvm have newer ones.",
  );
}

/** Names everything that is missing, with the package that brings it, before anything is half done. */
function checkTools({ dependencies, native }) {
  const missing = [];
  if (dependencies && !process.env.npm_execpath && !findOnPath("npm"))
    missing.push(["npm", "to install the dependencies", "npm"]);
  if (native) {
    if (!process.env.CXX && !findOnPath("g++")) missing.push(["g++", "to build the native addon", "g++"]);
    const download = [
      libtorchSeemsThere() ? [] : ["libtorch"],
      hasTool("cmake") ? [] : ["cmake"],
      hasTool("ninja") ? [] : ["ninja"],
    ].flat();
    if (download.length > 0) missing.push(...missingTransport(download.join(", ")));
  }
  if (missing.length === 0) return;
  const width = Math.max(...missing.map(([tool]) => tool.length));
  fail(
    [
      "Missing, and needed before anything can be set up:",
      ...missing.map(([tool, why]) => `  ${tool.padEnd(width)}  ${why}`),
    ].join("\n"),
    `Debian and Ubuntu: sudo apt-get install ${[...new Set(missing.map(([, , name]) => name))].join(" ")}`,
  );
}

/** pip does; uv does too. */
function missingTransport(what) {
  const why = `to download ${what}`;
  const works = (command, ...args) => spawnSync(command, args, { stdio: "ignore" }).status === 0;
  if (works("python3", "-m", "pip", "--version") || works("uv", "--version")) return [];
  if (works("python3", "--version")) return [["pip", why, "python3-pip"]];
  return [
    ["python3", why, "python3"],
    ["pip", why, "python3-pip"],
  ];
}

const hasTool = (name) => findOnPath(name) !== undefined || existsSync(join(root, "build/tools", name));

/** A first guess for a checkout that has no built search yet; lib/addon/libtorch.ts is the real one. */
function libtorchSeemsThere() {
  const { TORCHFORMERS_LIBTORCH, TORCHFORMERS_CACHE, XDG_CACHE_HOME } = process.env;
  if (TORCHFORMERS_LIBTORCH) return true;
  const cache = join(
    TORCHFORMERS_CACHE || join(XDG_CACHE_HOME || join(homedir(), ".cache"), "torchformers"),
    "libtorch",
  );
  if (
    existsSync(cache) &&
    readdirSync(cache).some((name) => existsSync(join(cache, name, "torch/include/ATen/ATen.h")))
  )
    return true;
  const ask =
    "import importlib.util as u, importlib.metadata as m, sys; sys.exit(not (u.find_spec('torch') and m.version('torch').split('+')[0] == '2.11.0'))";
  return spawnSync("python3", ["-c", ask], { stdio: "ignore" }).status === 0;
}

if (isMain(import.meta.url)) await prepare();
