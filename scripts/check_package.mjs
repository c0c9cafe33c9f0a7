// What `npm pack` would ship: complete, nothing that is not meant to be, addons that load on the oldest system that is
// supported, and a program that bundles with the package as an external. Ends with `N passed, N failed`, one per check.

import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { outputs } from "./build_native.mjs";
import { findOnPath, isMain, root } from "./support.mjs";

/** Debian 12, Ubuntu 22.04 and RHEL 9 have at least these. Kept in step with lib/addon/platform.ts. */
const NEWEST = { GLIBC: "2.34", GLIBCXX: "3.4.29" };
const SHIPPED =
  /^(dist|lib|prebuilds|templates)\/|^(package\.json|README\.md|LICENSE|THIRD_PARTY\.md|CHANGELOG\.md)$/;
const NEEDED = [
  "dist/index.js",
  "dist/index.d.ts",
  "dist/index.js.map",
  "dist/index.d.ts.map",
  "dist/cli/main.js",
  "lib/index.ts",
  "templates/model/package.json.template",
  "templates/model/src/index.ts",
  "prebuilds/linux-x64/torchformers.napi.glibc.node",
  "prebuilds/linux-x64/torchformers_core.node",
  "LICENSE",
  "README.md",
  "THIRD_PARTY.md",
];

function* contents() {
  const packed = execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], {
    cwd: root,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
  const names = JSON.parse(packed)[0].files.map(({ path }) => path);
  for (const name of NEEDED) if (!names.includes(name)) yield `${name} would not be shipped`;
  for (const name of names) {
    if (!SHIPPED.test(name)) yield `${name} would be shipped`;
    const source = /^dist\/(.*)\.js$/.exec(name)?.[1];
    if (source && !existsSync(join(root, "lib", `${source}.ts`)))
      yield `${name} has no source any more; remove dist/ and build again`;
  }
}

const newer = (a, b) => a.localeCompare(b, "en", { numeric: true }) > 0;

function* addons() {
  const { loader, core } = outputs();
  if (!findOnPath("readelf")) return; // without binutils nothing was built here
  for (const path of [loader, core].filter(existsSync)) {
    const versions = execFileSync("readelf", ["--version-info", "--wide", path], { encoding: "utf8" });
    for (const [, library, version] of new Set([...versions.matchAll(/Name: (GLIBC|GLIBCXX)_([\d.]+)/g)])) {
      if (newer(version, NEWEST[library]))
        yield `${path} needs ${library}_${version}; ${NEWEST[library]} is the newest allowed`;
    }
    const dynamic = execFileSync("readelf", ["--dynamic", "--wide", path], { encoding: "utf8" });
    if (/R(UN)?PATH/.test(dynamic)) yield `${path} carries a RPATH`;
    if (!/NODELETE/.test(dynamic)) yield `${path} is not linked with -z nodelete`;
    if (/NEEDED.*\[libtorch(_cuda)?\.so\]/.test(dynamic))
      yield `${path} is linked with libtorch.so or libtorch_cuda.so`;
  }
}

/** Bundled with the package left outside, as deploy.md says, and run. */
function* bundle() {
  const folder = mkdtempSync(join(tmpdir(), "torchformers-bundle-"));
  try {
    writeFileSync(
      join(folder, "main.ts"),
      'import { torch } from "torchformers";\nconsole.log(torch.ones([2, 3]).sum().item());\n',
    );
    mkdirSync(join(folder, "node_modules"));
    symlinkSync(root, join(folder, "node_modules/torchformers"), "dir");
    const esbuild = join(root, "node_modules/esbuild/bin/esbuild");
    const args = [
      "main.ts",
      "--bundle",
      "--platform=node",
      "--format=esm",
      "--external:torchformers",
      "--outfile=main.mjs",
      "--log-level=warning",
    ];
    const built = spawnSync(esbuild, args, { cwd: folder, encoding: "utf8" });
    if (built.status !== 0) yield `esbuild: ${built.stderr}`;
    const { stdout, stderr } = spawnSync(process.execPath, ["main.mjs"], { cwd: folder, encoding: "utf8" });
    if (stdout.trim() !== "6")
      yield `the bundled program printed ${JSON.stringify(stdout)} instead of 6: ${stderr}`;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (isMain(import.meta.url)) {
  let failed = 0;
  const checks = { contents, addons, bundle };
  for (const [name, check] of Object.entries(checks)) {
    const problems = [...check()];
    if (problems.length === 0) continue;
    failed++;
    console.log([`${name}:`, ...problems.map((problem) => `  ${problem}`)].join("\n"));
  }
  console.log(`${Object.keys(checks).length - failed} passed, ${failed} failed`);
  process.exitCode = failed === 0 ? 0 : 1;
}
