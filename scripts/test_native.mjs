// Tests the native rooms: the ones that parse bytes as programs of their own under AddressSanitizer, UBSan and
// LeakSanitizer, with a fuzzer; then, with --addon, the addon itself, built with sanitizers and loaded into Node.
//
//   node scripts/test_native.mjs [--files N] [--plain] [--addon]
//
// Without --addon the same suite runs on the addon as it is, where it has been built.
// Needs g++ alone (libasan comes with it); --addon needs libtorch and its headers.

import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { outputs } from "./build_native.mjs";
import { fail, findOnPath, root } from "./support.mjs";

const { values: options } = parseArgs({
  options: {
    /** How many mutated files the reader gets. */
    files: { type: "string", default: "300000" },
    /** Without sanitizers. */
    plain: { type: "boolean", default: false },
    addon: { type: "boolean", default: false },
  },
});

const compiler = process.env.CXX ?? findOnPath("g++");
if (!compiler) fail("g++ is missing.", "Debian and Ubuntu: apt install g++");

const flags = ["-std=c++20", "-g", "-O1", "-Wall", "-Wextra", `-I${root}`, "-pthread"];
const sanitizers = options.plain ? [] : ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
const folder = join(root, "build/native-test", options.plain ? "plain" : "sanitized");
const bad = join(root, "test/fixtures/bad");

const files = (path) => readdirSync(join(root, path)).map((name) => join(path, name));
/** The rooms without libtorch and Node, and not the bindings over them. */
const bindings = ["files.cc", "safetensors.cc", "transfer.cc"];
const formats = files("native/io").filter(
  (path) => path.endsWith(".cc") && !bindings.some((name) => path.endsWith(`/${name}`)),
);
/** Devices and the streaming to them, but for what is over libtorch. */
const placement = ["device", "limited_device", "ring", "source", "streamer"].map(
  (name) => `native/placement/${name}.cc`,
);
const headers = [...["io", "tensor", "placement", "test"].flatMap((room) => files(`native/${room}`))].filter(
  (path) => path.endsWith(".h"),
);
/** Programs, and the sources that each needs beside its own. */
const programs = {
  test_io: formats,
  fuzz_safetensors: formats,
  test_handles: [],
  test_placement: [...placement, "native/io/mapping.cc"],
};

const modified = (path) => (existsSync(path) ? statSync(path).mtimeMs : 0);

/** Compiles what is older than its source or any header; two at a time. */
async function compile() {
  mkdirSync(folder, { recursive: true });
  const newest = Math.max(...headers.map((path) => modified(join(root, path))));
  const own = (name) => `native/test/${name}.cc`;
  const sources = [...formats, ...placement, ...Object.keys(programs).map(own)];
  const object = (source) => join(folder, `${source.split("/").at(-1)}.o`);
  const stale = sources.filter(
    (source) => modified(object(source)) < Math.max(newest, modified(join(root, source))),
  );
  const worker = async () => {
    for (let source = stale.shift(); source; source = stale.shift()) {
      await run(compiler, [...flags, ...sanitizers, "-c", join(root, source), "-o", object(source)]);
    }
  };
  await Promise.all([worker(), worker()]);

  for (const [name, needed] of Object.entries(programs)) {
    const objects = [...needed, own(name)].map(object);
    const program = join(folder, name);
    if (modified(program) < Math.max(...objects.map(modified))) {
      await run(compiler, [...sanitizers, "-pthread", ...objects, "-o", program]);
    }
  }
}

function run(command, args) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, stdio: "inherit" });
    child.on("error", (error) => fail(error.message));
    child.on("close", (code) => (code === 0 ? resolve() : fail(`${command} ended with exit code ${code}.`)));
  });
}

const total = { passed: 0, failed: 0 };

/** Runs a test program; what it counted is added up, and an end without a count is a failure. */
function test(title, command, args, env = {}) {
  console.log(`# ${title}`);
  const { status, signal, stdout } = spawnSync(command, args, {
    cwd: root,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
    maxBuffer: 1 << 28,
    env: { ...process.env, ...env },
  });
  process.stdout.write(stdout ?? "");
  const counted = /(\d+) passed, (\d+) failed\s*$/.exec(stdout ?? "");
  total.passed += Number(counted?.[1] ?? 0);
  total.failed += Number(counted?.[2] ?? 0);
  if (status !== 0 && !(Number(counted?.[2]) > 0)) {
    total.failed += 1;
    console.log(`${title}: ended with ${signal ?? `exit code ${status}`}`);
  }
}

/** Good files and refused ones, so that both lie a mutation away. */
function seeds() {
  const refused = readdirSync(bad).filter((name) => name.startsWith("safetensors-"));
  const good = ["outside.safetensors", "config-array/model.safetensors"];
  const paths = [
    ...refused.map((name) => join(name, "model.safetensors")),
    ...good,
    ...good,
    ...good,
    ...good,
  ];
  return paths.map((path) => join(bad, path)).filter((path) => existsSync(path));
}

/** What crosses the border between JavaScript and the addon, in every shape. */
const suite = join(root, "test/native/sanitized.mjs");
const built = () => existsSync(outputs().core) && existsSync(join(root, "dist/index.js"));

/** The suite under sanitizers, whose runtime must be in the process before Node. */
function testSanitizedAddon() {
  const library = (name) =>
    spawnSync(compiler, [`-print-file-name=${name}`], { encoding: "utf8" }).stdout.trim();
  const build = spawnSync(
    process.execPath,
    [join(root, "scripts/build_native.mjs"), "--sanitize", "address,undefined"],
    {
      cwd: root,
      stdio: "inherit",
    },
  );
  if (build.status !== 0) fail("The addon does not build with sanitizers.");
  test("the addon under sanitizers", process.execPath, ["--expose-gc", suite], {
    LD_PRELOAD: [library("libasan.so"), library("libubsan.so")].join(":"),
    // Node and libtorch are not built with sanitizers: leaks and container annotations across them are not ours.
    ASAN_OPTIONS:
      "detect_leaks=0:detect_container_overflow=0:detect_odr_violation=0:allocator_may_return_null=1",
    UBSAN_OPTIONS: "print_stacktrace=1",
    TORCHFORMERS_PREBUILD: join(root, "build/sanitized"),
  });
}

const scratch = mkdtempSync(join(tmpdir(), "torchformers-native-"));
try {
  await compile();
  test("handles", join(folder, "test_handles"), []);
  test("rooms that parse bytes and write files", join(folder, "test_io"), [bad, scratch]);
  test("blocks that take turns on a device", join(folder, "test_placement"), [scratch]);
  test("mutated safetensors files", join(folder, "fuzz_safetensors"), [options.files, scratch, ...seeds()]);
  if (options.addon) testSanitizedAddon();
  else if (built()) test("the addon, as it is", process.execPath, ["--expose-gc", suite]);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
console.log(`${total.passed} passed, ${total.failed} failed`);
process.exitCode = total.failed === 0 ? 0 : 1;
