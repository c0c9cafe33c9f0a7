// Runs the benchmarks named on the command line, or all of them, one process each.
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

const folder = new URL("./", import.meta.url);
const all = readdirSync(folder)
  .filter((file) => file.endsWith(".mjs") && !["main.mjs", "support.mjs", "support_llama.mjs"].includes(file))
  .filter(
    (file) => file.endsWith(".mjs") && !["main.mjs", "support.mjs", "big_checkpoint.mjs"].includes(file),
  )
  .filter(
    (file) => file.endsWith(".mjs") && !["main.mjs", "support.mjs", "big_checkpoint.mjs"].includes(file),
  )
  .map((file) => file.slice(0, -4));
const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !all.includes(name));
if (unknown.length > 0) {
  console.error(`There is no benchmark ${unknown.join(", ")}. There are: ${all.join(", ")}.`);
  process.exit(2);
}
for (const name of wanted.length > 0 ? wanted : all) {
  console.log(`\n== ${name}\n`);
  const { status } = spawnSync(process.execPath, [fileURLToPath(new URL(`${name}.mjs`, folder))], {
    stdio: "inherit",
  });
  if (status !== 0) process.exit(status ?? 1);
}
