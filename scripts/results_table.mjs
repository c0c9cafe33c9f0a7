// The table of measured figures, from bench/results/*.json: one row for each line that a machine has measured, and no
// others. Printed, or with --write put between the markers in README.md.

import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isMain, root } from "./support.mjs";

const MARKERS = ["<!-- results -->", "<!-- /results -->"];
const HEADER = ["machine", "what", "ours", "Python", "ours / Python"];

const figure = (value, unit) =>
  value === undefined || value === null ? "" : `${Number(value.toPrecision(3))} ${unit}`;

/** Markdown; "" when nothing was measured. */
export function table(results) {
  const rows = results.flatMap(({ machine, rows }) =>
    rows
      .filter(({ ours }) => Number.isFinite(ours))
      .map(({ name, ours, theirs, unit }) => [
        machine,
        name,
        figure(ours, unit),
        figure(theirs, unit),
        Number.isFinite(theirs) ? (ours / theirs).toFixed(2) : "",
      ]),
  );
  if (rows.length === 0) return "";
  return [HEADER, HEADER.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

/** The text with the table between its markers, which stay. */
export function insert(text, markdown) {
  const [begin, end] = MARKERS.map((marker) => text.indexOf(marker));
  if (begin < 0 || end < begin) return undefined;
  const inner = markdown === "" ? "\n" : `\n${markdown}\n`;
  return `${text.slice(0, begin + MARKERS[0].length)}${inner}${text.slice(end)}`;
}

export function readResults(folder = join(root, "bench/results")) {
  if (!existsSync(folder)) return [];
  const files = readdirSync(folder)
    .filter((name) => name.endsWith(".json"))
    .sort();
  return files.map((name) => JSON.parse(readFileSync(join(folder, name), "utf8")));
}

if (isMain(import.meta.url)) {
  const markdown = table(readResults());
  if (!process.argv.includes("--write")) console.log(markdown || "Nothing was measured yet.");
  else {
    const readme = join(root, "README.md");
    const text = insert(readFileSync(readme, "utf8"), markdown);
    if (text === undefined) {
      console.error(`README.md has no place for the table: ${MARKERS.join(" … ")}`);
      process.exit(1);
    }
    writeFileSync(readme, text);
  }
}
