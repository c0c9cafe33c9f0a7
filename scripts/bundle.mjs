// npm run bundle: one archive for a server without a network. It holds Node, the package with its production
// dependencies, and the addons of this platform alone; libtorch is the server's own (a Python environment with
// torch 2.11.0, or TORCHFORMERS_LIBTORCH).
//
//   node scripts/bundle.mjs [--tests] [--bench] [--output FOLDER] [--compression xz|gzip|none] [--no-prepare]

import { spawnSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join, relative } from "node:path";
import { parseArgs } from "node:util";
import { fail, findOnPath, isMain, root } from "./support.mjs";

const LIMIT = 40 * 2 ** 20;
const platform = `${process.platform}-${process.arch}`;
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));

const ARCHIVERS = {
  xz: { ending: ".tar.xz", needs: ["tar", "xz"], args: ["-cJf"], env: { XZ_OPT: "-9e -T2" } },
  gzip: { ending: ".tar.gz", needs: ["tar", "gzip"], args: ["-czf"], env: {} },
  none: { ending: ".tar", needs: ["tar"], args: ["-cf"], env: {} },
};

/** What starts things in the bundle: the Node beside it, wherever the folder lies and whatever PATH says. */
const launcher = (script) => `#!/bin/sh
# libtorch is looked for as everywhere: TORCHFORMERS_LIBTORCH, then the Python environment (VIRTUAL_ENV, python3 on PATH).
here=$(CDPATH= cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd)
exec "$here/bin/node" "$here/node_modules/torchformers/${script}" "$@"
`;

const README = `torchformers ${manifest.version} for ${platform}, with Node ${process.versions.node}.

  bin/torchformers doctor           what is found on this machine, and what is missing
  bin/torchformers generate …       as \`npx torchformers\` elsewhere
  bin/node script.mjs               a script in this folder may import "torchformers"

libtorch is this machine's own: torch 2.11.0 of a Python environment (activate it, or have its python3 on PATH), or name
the folder that holds torch/ by TORCHFORMERS_LIBTORCH. Nothing here uses the network.
`;

/**
 * Fills a folder with the bundle; returns the bytes of each part.
 *
 * @param options.tests also the compiled tests, their fixtures and what runs them: `bin/test-gpu`
 * @param options.bench also the benchmarks
 */
export function fill(folder, { tests = false, bench = false } = {}) {
  const target = join(folder, "node_modules/torchformers");
  mkdirSync(join(folder, "bin"), { recursive: true });
  mkdirSync(target, { recursive: true });
  const parts = {};
  const measure = (name, work) => {
    const before = bytesBelow(folder);
    work();
    parts[name] = bytesBelow(folder) - before;
  };

  measure("Node", () => copyNode(join(folder, "bin/node")));
  measure("package", () => {
    for (const name of ["package.json", "dist", "LICENSE", "CHANGELOG.md", "THIRD_PARTY.md"])
      cpSync(join(root, name), join(target, name), {
        recursive: true,
        filter: (path) => !path.endsWith(".map"),
      });
    script(folder, "torchformers", "dist/cli/main.js");
    writeFileSync(join(folder, "README.txt"), README);
  });
  measure("addons", () =>
    cpSync(join(root, "prebuilds", platform), join(target, "prebuilds", platform), { recursive: true }),
  );
  measure("dependencies", () => {
    for (const [name, path] of dependencies(root)) copyDependency(path, join(folder, "node_modules", name));
  });
  if (tests || bench) {
    measure("scripts", () => {
      for (const name of ["support.mjs", "test_gpu.mjs", "results_table.mjs"])
        cpSync(join(root, "scripts", name), join(target, "scripts", name));
    });
  }
  if (tests) {
    measure("tests", () => {
      cpSync(join(root, "build/test"), join(target, "build/test"), {
        recursive: true,
        filter: (path) => !path.endsWith(".map"),
      });
      bundleTap(join(folder, "node_modules/tap"));
      script(folder, "test-gpu", "scripts/test_gpu.mjs");
    });
    measure("fixtures", () =>
      cpSync(join(root, "test/fixtures"), join(target, "test/fixtures"), { recursive: true }),
    );
  }
  if (bench)
    measure("benchmarks", () => cpSync(join(root, "bench"), join(target, "bench"), { recursive: true }));
  return parts;
}

function script(folder, name, path) {
  writeFileSync(join(folder, "bin", name), launcher(path));
  chmodSync(join(folder, "bin", name), 0o755);
}

/** Without its symbols, which are a fifth of it. */
function copyNode(to) {
  copyFileSync(realpathSync(process.execPath), to);
  chmodSync(to, 0o755);
  if (findOnPath("strip")) run("strip", ["--strip-all", to]);
  else console.warn("strip (binutils) is not on PATH: Node keeps its symbols, and the archive is larger.");
}

const versionOf = (folder) => JSON.parse(readFileSync(join(folder, "package.json"), "utf8")).version;

/** The production dependencies of a package and theirs, by name. One version may be installed in several places. */
function dependencies(folder, found = new Map()) {
  const { dependencies: wanted = {} } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  for (const name of Object.keys(wanted)) {
    const path = packageFolder(name, folder);
    const other = found.get(name);
    if (other !== undefined && versionOf(other) !== versionOf(path))
      fail(`Two versions of ${name} are installed: ${other}, ${path}.`);
    if (other !== undefined) continue;
    found.set(name, path);
    dependencies(path, found);
  }
  return found;
}

/** As Node looks a package up; its entry point may not be asked for, since `exports` can hide package.json. */
function packageFolder(name, from) {
  const places = createRequire(join(from, "package.json")).resolve.paths(name) ?? [];
  const found = places
    .map((place) => join(place, name))
    .find((path) => existsSync(join(path, "package.json")));
  return found ?? fail(`${name} is not installed.`, "Run npm ci first.");
}

/** A dependency brings addons for every platform; one is enough. */
function copyDependency(from, to) {
  const foreign = (path) => path.endsWith(".node") && !isOwnAddon(basename(path));
  cpSync(from, to, {
    recursive: true,
    dereference: true,
    filter: (path) =>
      !foreign(path) && !/\.(map|d\.[cm]?ts)$/.test(path) && relative(from, path) !== "node_modules",
  });
}

const isOwnAddon = (name) => name.includes(platform) && !name.includes("musl");

/** tap is a hundred packages; tests that run on their own need what it exports, in one file. */
function bundleTap(to) {
  mkdirSync(to, { recursive: true });
  const require = createRequire(import.meta.url);
  require("esbuild").buildSync({
    stdin: { contents: `export * from "tap"; export { default } from "tap";`, resolveDir: root },
    outfile: join(to, "index.mjs"),
    bundle: true,
    platform: "node",
    format: "esm",
    target: "node20",
    logLevel: "error",
    // tap's own modules use require and __dirname where they are CommonJS.
    banner: {
      js: `import { createRequire as __bundleRequire } from "node:module"; import { fileURLToPath as __bundlePath } from "node:url";
const require = __bundleRequire(import.meta.url), __filename = __bundlePath(import.meta.url), __dirname = __bundlePath(new URL(".", import.meta.url));`,
    },
  });
  const { version } = JSON.parse(readFileSync(join(root, "node_modules/tap/package.json"), "utf8"));
  writeFileSync(
    join(to, "package.json"),
    JSON.stringify({ name: "tap", version, type: "module", exports: "./index.mjs" }),
  );
}

function bytesBelow(folder) {
  if (!existsSync(folder)) return 0;
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
}

function run(command, args, env = {}) {
  const { status, error } = spawnSync(command, args, { stdio: "inherit", env: { ...process.env, ...env } });
  if (error) throw error;
  if (status !== 0) fail(`${command} ended with exit code ${status}.`);
}

const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`.padStart(10);

async function main() {
  const { values } = parseArgs({
    options: {
      tests: { type: "boolean" },
      bench: { type: "boolean" },
      output: { type: "string", default: join(root, "build/bundle") },
      compression: { type: "string", default: "xz" },
      "no-prepare": { type: "boolean" },
    },
  });
  const archiver =
    ARCHIVERS[values.compression] ?? fail(`--compression is one of ${Object.keys(ARCHIVERS).join(", ")}.`);
  for (const tool of archiver.needs) if (!findOnPath(tool)) fail(`${tool} is not on PATH.`);
  if (!values["no-prepare"]) await (await import("./prepare.mjs")).prepare({ tests: values.tests === true });

  const name = `torchformers-${manifest.version}-${platform}`;
  const folder = join(values.output, name);
  rmSync(folder, { recursive: true, force: true });
  const parts = fill(folder, values);
  for (const [part, bytes] of Object.entries(parts)) console.log(`${megabytes(bytes)}  ${part}`);

  const archive = `${folder}${archiver.ending}`;
  run(
    "tar",
    ["-C", dirname(folder), "--owner=0", "--group=0", "--sort=name", ...archiver.args, archive, name],
    archiver.env,
  );
  rmSync(folder, { recursive: true, force: true });
  const { size } = statSync(archive);
  console.log(`${megabytes(size)}  ${archive}`);
  if (values.compression === "xz" && size > LIMIT)
    fail(`The archive is larger than ${megabytes(LIMIT).trim()}.`);
}

if (isMain(import.meta.url)) await main();
