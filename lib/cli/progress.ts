// Progress on stderr: a bar that redraws itself on a terminal, a line every quarter elsewhere (logs, CI, container builds).

import type { ProgressEvent } from "../hub/options.ts";
import { printable } from "../hub/redact.ts";
import { formatBytes } from "./support.ts";

const WIDTH = 24; // characters
const REDRAW = 100; // ms
const LONG = 100e6; // bytes

export interface Progress {
  readonly label: string;
  /** What of it is under way, shown on a terminal: may change from one update to the next. */
  readonly detail?: string;
  readonly loaded: number; // bytes
  readonly total: number; // bytes
}

/** Shows one step after the other; a new label ends the step before. */
export class ProgressBar {
  readonly #stream: NodeJS.WriteStream;
  readonly #terminal: boolean;
  #current: Progress | undefined;
  #started = 0;
  #drawn = 0;
  #quarter = -1;

  constructor(stream: NodeJS.WriteStream = process.stderr) {
    this.#stream = stream;
    this.#terminal = stream.isTTY === true;
  }

  update(progress: Progress): void {
    if (progress.label !== this.#current?.label) {
      this.finish();
      this.#started = performance.now();
      this.#quarter = -1;
    }
    this.#current = progress;
    if (this.#terminal) this.#draw(progress.loaded >= progress.total);
    else this.#log(progress);
  }

  /** A line of its own, above the bar. */
  note(text: string): void {
    this.finish();
    this.#stream.write(`${text}\n`);
  }

  /** Ends the step, leaving its last state on the screen. */
  finish(): void {
    if (this.#current && this.#terminal) {
      this.#draw(true);
      this.#stream.write("\n");
    }
    this.#current = undefined;
  }

  #draw(now: boolean): void {
    const time = performance.now();
    if (!this.#current || (!now && time - this.#drawn < REDRAW)) return;
    this.#drawn = time;
    const { label, detail, loaded, total } = this.#current;
    const fraction = total > 0 ? Math.min(1, loaded / total) : 1;
    const filled = Math.round(fraction * WIDTH);
    const bar = "━".repeat(filled) + " ".repeat(WIDTH - filled);
    const seconds = (time - this.#started) / 1000;
    const rate = seconds > 0.5 ? `  ${formatBytes(loaded / seconds)}/s` : "";
    const named = detail === undefined ? label : `${label} ${detail}`;
    const shown = named.length > 34 ? `${named.slice(0, 33)}…` : named;
    const text = `${shown.padEnd(34)} ${bar} ${String(Math.floor(fraction * 100)).padStart(3)} %  ${formatBytes(loaded)} of ${formatBytes(total)}${rate}`;
    this.#stream.write(`\r${text.slice(0, (this.#stream.columns || 120) - 1)}\u001b[K`);
  }

  /** Small steps are told when they end, long ones on the way. */
  #log({ label, loaded, total }: Progress): void {
    const quarter = total > 0 ? Math.floor((loaded / total) * 4) : 4;
    if (quarter <= this.#quarter || (total < LONG && quarter < 4)) return;
    this.#quarter = quarter;
    this.#stream.write(`${label}: ${quarter === 4 ? "done" : `${quarter * 25} %`} (${formatBytes(total)})\n`);
  }
}

/** One bar over all files of a download or upload; the one that moves is named. */
export function showBytes(bar: ProgressBar, verb: string): (event: ProgressEvent) => void {
  return ({ file, total_loaded, total_bytes }) => {
    bar.update({ label: verb, detail: printable(file), loaded: total_loaded, total: total_bytes });
  };
}
