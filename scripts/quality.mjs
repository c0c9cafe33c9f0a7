// npm run quality tells what is not as it should be; npm run style (--mend) mends what a machine can mend.

import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { fetchTool } from "./build_native.mjs";
import { findOnPath, root } from "./support.mjs";

const mend = process.argv.includes("--mend");
let failed = 0;

function step(name, command, args) {
  console.log(`\n${name}`);
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: "inherit" });
  if (error) console.error(String(error));
  if (status !== 0) failed++;
}

const node = (name, ...args) => step(name, process.execPath, args);
const bin = (name) => join(root, "node_modules", name);

const cpp = (folder) =>
  readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? cpp(path) : /\.(cc|h)$/.test(entry.name) ? [path] : [];
  });

/** Its output changes between major versions, so only the pinned one counts. */
async function clangFormat() {
  try {
    return await fetchTool("clang-format");
  } catch (error) {
    console.log(`\nclang-format is left out: ${error.message}`);
    return findOnPath("clang-format");
  }
}

node(
  `biome check${mend ? " --write" : ""}`,
  bin("@biomejs/biome/bin/biome"),
  "check",
  ...(mend ? ["--write"] : []),
);
const formatter = await clangFormat();
if (formatter)
  step("clang-format", formatter, [...(mend ? ["-i"] : ["--dry-run", "--Werror"]), ...cpp("native")]);

if (!mend) {
  node("tsc --noEmit", bin("typescript/bin/tsc"), "--noEmit");
  node("tsc --noEmit, tests", bin("typescript/bin/tsc"), "--noEmit", "-p", "tsconfig.test.json");
  node("check.mjs", join(root, "scripts/check.mjs"));
  node("publint --strict", bin("publint/src/cli.js"), "--strict");
  node("check_package.mjs", join(root, "scripts/check_package.mjs"));
}
console.log(failed === 0 ? "\nAll is well." : `\n${failed} of the steps above failed.`);
process.exitCode = failed === 0 ? 0 : 1;
