// What a checkpoint and a model did not have in common, as a table.
import process from "node:process";
import { CheckpointError } from "../errors/index.ts";

/** The result of comparing a checkpoint with a model. */
export interface LoadingInfo {
  /** In the model, not in the checkpoint: newly initialized. */
  readonly missing_keys: Set<string>;
  /** In the checkpoint, not in the model: not used. */
  readonly unexpected_keys: Set<string>;
  /** In both, with different shapes: name, shape in the checkpoint, shape in the model. */
  readonly mismatched_keys: Set<
    readonly [name: string, checkpoint: readonly number[], model: readonly number[]]
  >;
  readonly error_msgs: string[];
}

type Style = "red" | "yellow" | "orange" | "bold" | "italic";
const CODES: Readonly<Record<Style, string>> = {
  red: "31",
  yellow: "33",
  orange: "38;5;208",
  bold: "1",
  italic: "3",
};

/** Layer numbers are folded: "layers.{0, 1, 2}.norm.weight", and "{0...31}" for more than ten. */
export function foldKeys<T>(entries: Iterable<readonly [string, T]>): [string, T][] {
  const patterns = new Map<string, { numbers: Set<number>[]; value: T }>();
  for (const [key, value] of entries) {
    const numbers = key
      .split(".")
      .filter((part) => /^\d+$/.test(part))
      .map(Number);
    const pattern = key
      .split(".")
      .map((part) => (/^\d+$/.test(part) ? "*" : part))
      .join(".");
    const entry = patterns.get(pattern) ?? { numbers: numbers.map(() => new Set<number>()), value };
    for (const [i, number] of numbers.entries()) entry.numbers[i]?.add(number);
    patterns.set(pattern, { ...entry, value });
  }
  return [...patterns].map(([pattern, { numbers, value }]) => {
    let i = 0;
    const folded = pattern
      .split(".")
      .map((part) => (part === "*" ? range(numbers[i++] as Set<number>) : part));
    return [folded.join("."), value];
  });
}

function range(numbers: Set<number>): string {
  const sorted = [...numbers].sort((a, b) => a - b);
  if (sorted.length === 1) return String(sorted[0]);
  return sorted.length > 10 ? `{${sorted[0]}...${sorted.at(-1)}}` : `{${sorted.join(", ")}}`;
}

/** The report, or undefined when everything fits. */
export function loadingReport(info: LoadingInfo, title: string, colours: boolean): string | undefined {
  const style = (text: string, as: Style) => (colours ? `\x1b[${CODES[as]}m${text}\x1b[0m` : text);
  const rows: [key: string, status: string, colour: Style, detail: string][] = [];
  const notes: string[] = [];
  const plain = (keys: Iterable<string>) => foldKeys([...keys].map((key) => [key, ""] as const));
  const note = (status: string, colour: Style, text: string) =>
    notes.push(`- ${style(`${status}:`, colour)} ${style(text, "italic")}`);

  if (info.unexpected_keys.size > 0) {
    note("UNEXPECTED", "orange", "not used; fine when the checkpoint is of another task or architecture.");
    for (const [key] of plain(info.unexpected_keys)) rows.push([key, "UNEXPECTED", "orange", ""]);
  }
  if (info.missing_keys.size > 0) {
    note(
      "MISSING",
      "red",
      "not in the checkpoint, so newly initialized. Train the model before you rely on it.",
    );
    for (const [key] of plain(info.missing_keys)) rows.push([key, "MISSING", "red", ""]);
  }
  if (info.mismatched_keys.size > 0) {
    note("MISMATCH", "yellow", "newly initialized, because the checkpoint has another shape.");
    const mismatches = [...info.mismatched_keys].map(
      ([key, found, wanted]) => [key, { found, wanted }] as const,
    );
    for (const [key, { found, wanted }] of foldKeys(mismatches)) {
      rows.push([
        key,
        "MISMATCH",
        "yellow",
        `checkpoint [${found.join(", ")}], model [${wanted.join(", ")}]`,
      ]);
    }
  }
  if (rows.length === 0) return undefined;

  const width = Math.max(3, ...rows.map(([key]) => key.length));
  const line = (key: string, status: string, colour: Style | undefined, detail: string) =>
    `${key.padEnd(width)} | ${colour ? style(status.padEnd(10), colour) : status.padEnd(10)} | ${detail}`.replace(
      /[ |]+$/,
      "",
    );
  return [
    style(title, "bold"),
    line("Key", "Status", undefined, ""),
    `${"-".repeat(width)}-+-${"-".repeat(10)}`,
    ...rows.map((row) => line(...row)),
    "",
    "Notes:",
    ...notes,
  ].join("\n");
}

/** Writes the report to the standard error stream, in colours on a terminal, unless warnings are switched off. */
export function printLoadingReport(info: LoadingInfo, title: string): void {
  if (["error", "silent", "off"].includes(process.env.TORCHFORMERS_LOG ?? "")) return;
  const { stderr } = process;
  const colours = Boolean(stderr.isTTY) && !process.env.NO_COLOR;
  const report = loadingReport(info, title, colours);
  if (report !== undefined) stderr.write(`${report}\n`);
}

/** Shapes that differ, as an error. */
export function mismatch(info: LoadingInfo, source: string): CheckpointError {
  const each = [...info.mismatched_keys].map(
    ([name, found, wanted]) => `${name} is [${found.join(", ")}], the model has [${wanted.join(", ")}]`,
  );
  return new CheckpointError(`Shapes in ${source} differ from the model's: ${some(each, "; ")}.`, {
    ...keyLists(info),
    hint: "Check the config, or pass { ignore_mismatched_sizes: true } to initialize these weights anew.",
  });
}

/** The three lists, as `CheckpointError` carries them. */
export const keyLists = (info: LoadingInfo) => ({
  missing_keys: [...info.missing_keys],
  unexpected_keys: [...info.unexpected_keys],
  mismatched_keys: [...info.mismatched_keys],
});

const some = (items: readonly string[], separator = ", ") =>
  items.length > 5
    ? `${items.slice(0, 5).join(separator)}${separator}and ${items.length - 5} more`
    : items.join(separator);

/** The three lists in words. */
export function lists(info: LoadingInfo): string {
  const { missing_keys, unexpected_keys, mismatched_keys } = keyLists(info);
  const part = (what: string, names: readonly string[]) =>
    names.length > 0 ? [`${what}: ${some(names)}.`] : [];
  return [
    ...part("Missing", missing_keys),
    ...part("Unexpected", unexpected_keys),
    ...part(
      "Mismatched",
      mismatched_keys.map(([name]) => name),
    ),
  ].join(" ");
}
