// torchformers estimate: says where a model's blocks would lie, and how fast it would be, before any weight is read.

import type { Command } from "commander";
import type { PlacedUnit, PlacePeak, WorkloadPlan } from "../big_modeling/plan_workload.ts";
import { number } from "./model.ts";
import { bold, formatBytes, interruptible, printJson } from "./support.ts";

interface Flags {
  readonly batch: number;
  readonly length: number;
  readonly dtype?: string;
  readonly maxMemory?: string;
  readonly gpu?: string[];
  readonly sequential?: boolean;
  readonly disk: number;
  readonly revision?: string;
  readonly json?: boolean;
}

const DETAILS = `
Reads config.json and the headers of the weights; of a repository of the hub these are range requests of some kilobytes. Devices
are those of this machine, or with --gpu those of one you do not have. Speeds of GPUs are their makers' figures, the CPU's are timed
here: a prediction is the least time that moving the weights takes, and real runs take longer.

Examples:
  $ npx torchformers estimate org/name --length 8192
  $ npx torchformers estimate org/name --gpu h200:2 --batch 16
  $ npx torchformers estimate ./model --max-memory "0=10GiB,cpu=30GiB" --json`;

export function define(command: Command): void {
  command
    .argument("<model>", "a folder, or a repository of the hub")
    .option("--batch <n>", "sequences at once", number({ integer: true, above: 0 }), 1)
    .option("--length <n>", "tokens of each, prompt and answer", number({ integer: true, above: 0 }), 2048)
    .option("--dtype <name>", "that the weights are cast to (default: what they have)")
    .option("--max-memory <limits>", 'what may be used: "0=10GiB,cpu=30GiB" (default: what is free)')
    .option("--gpu <names...>", 'GPUs to plan for, such as "h200:2"')
    .option("--sequential", "fill GPUs one after the other instead of evenly")
    .option("--disk <GB/s>", "how fast the disk reads", number({ above: 0 }), 2)
    .option("--revision <name>", "branch, tag or commit")
    .option("--json", "print one JSON document")
    .addHelpText("after", DETAILS)
    .action(run);
}

async function run(model: string, flags: Flags): Promise<void> {
  const { estimate } = await import("../big_modeling/estimate.ts");
  const result = await interruptible((signal) =>
    estimate(model, {
      batch: flags.batch,
      length: flags.length,
      dtype: flags.dtype,
      max_memory: flags.maxMemory,
      gpus: flags.gpu,
      kind: flags.sequential ? "sequential" : "balanced",
      disk: flags.disk * 1e9,
      revision: flags.revision,
      signal,
    }),
  );
  if (flags.json) {
    printJson(result);
    return;
  }
  const { plan, parameters, bytes, dtypes } = result;
  console.log(
    `${bold(model, process.stdout)}: ${count(parameters)} parameters, ${formatBytes(bytes)} (${dtypes.join(", ")})`,
  );
  console.log(`${flags.batch} × ${flags.length} tokens\n`);
  console.log(picture(plan));
  console.log(table(plan.peaks));
  if (plan.streamed > 0)
    console.log(`\n${formatBytes(plan.streamed)} of weights are brought to ${plan.main} for each token.`);
  console.log(
    `\n${bold(`${figure(plan.tokens_per_second)} tokens/s`, process.stdout)} at most, and the first token after ${figure(plan.first_token_s)} s or more.`,
  );
}

const count = (n: number) =>
  n >= 1e9 ? `${(n / 1e9).toFixed(1)} billion` : n >= 1e6 ? `${(n / 1e6).toFixed(1)} million` : String(n);
const figure = (n: number) => (n >= 100 ? n.toFixed(0) : n >= 1 ? n.toFixed(1) : n.toPrecision(2));

/** A place's letter and colour: what each cell of the picture shows. */
const LETTERS: Readonly<Record<string, readonly [letter: string, colour: number]>> = {
  cpu: ["c", 43],
  disk: ["d", 41],
};
const COLOURS = [42, 44, 46, 45, 102, 104, 106, 105];

function cell(place: string): string {
  const index = Number(place.split(":")[1] ?? 0);
  const [letter, colour] = LETTERS[place] ?? [String(index % 10), COLOURS[index % COLOURS.length] as number];
  return isColoured() ? `\u001b[30;${colour}m${letter}\u001b[0m` : letter;
}

const isColoured = () =>
  !process.env["NO_COLOR"] && (process.stdout.isTTY === true || Boolean(process.env["FORCE_COLOR"]));

/** One cell per block, in the order of the forward; parts outside of blocks by name. */
function picture({ units }: WorkloadPlan): string {
  const lines: string[] = [];
  const rows: PlacedUnit[][] = [];
  for (const unit of units) {
    const last = rows.at(-1);
    if (unit.isBlock && last?.[0]?.isBlock && stackOf(last[0]) === stackOf(unit)) last.push(unit);
    else rows.push([unit]);
  }
  const width = Math.min(28, Math.max(...rows.map(([first]) => stackOf(first as PlacedUnit).length)));
  for (const row of rows) {
    const name = stackOf(row[0] as PlacedUnit)
      .slice(-width)
      .padEnd(width);
    for (let i = 0; i < row.length; i += 50) {
      const cells = row.slice(i, i + 50).map(({ place }) => cell(place));
      lines.push(`  ${i === 0 ? name : " ".repeat(width)}  ${cells.join("")}`);
    }
  }
  const places = [...new Set(units.map(({ place }) => place))];
  lines.push("", `  ${places.map((place) => `${cell(place)} ${place}`).join("   ")}`, "");
  return lines.join("\n");
}

const stackOf = ({ name, isBlock }: PlacedUnit) => (isBlock ? name.replace(/\.?\d+$/, "") : name);

function table(peaks: readonly PlacePeak[]): string {
  const rows = peaks.map(({ place, name, memory, weights, cache, activations, slots, peak }) => {
    const limit = Number.isFinite(memory) ? `of ${formatBytes(memory)}` : "";
    return [
      name === place ? place : `${place} (${name})`,
      formatBytes(weights),
      formatBytes(cache),
      formatBytes(activations + slots),
      `${formatBytes(peak)} ${limit}`,
    ];
  });
  const all = [["", "weights", "cache", "work", "peak"], ...rows];
  const widths = all[0]?.map((_, i) => Math.max(...all.map((row) => (row[i] as string).length))) ?? [];
  return all
    .map((row) => `  ${row.map((text, i) => text.padEnd(widths[i] as number)).join("  ")}`.trimEnd())
    .join("\n");
}
