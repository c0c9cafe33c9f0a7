// What the commands share: exit codes, interruption, errors, sizes.

import { TorchformersError } from "../errors/index.ts";

export const EXIT = { ok: 0, error: 1, usage: 2, interrupted: 130 } as const;

/** A command line that parses but makes no sense. Ends with exit code 2. */
export class UsageError extends TorchformersError {
  constructor(message: string, hint?: string) {
    super("ERR_USAGE", message, hint === undefined ? {} : { hint });
  }
}

/** The user pressed Ctrl-C. */
export class Interrupted extends Error {
  override readonly name: string = "Interrupted";
}

/** Runs `work` with a signal that Ctrl-C aborts. A second Ctrl-C ends the process at once. */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const interrupt = () => {
    if (controller.signal.aborted) process.exit(EXIT.interrupted);
    controller.abort(new Interrupted("interrupted"));
  };
  process.on("SIGINT", interrupt);
  process.on("SIGTERM", interrupt);
  try {
    return await work(controller.signal);
  } catch (error) {
    // Node's own functions reject with an AbortError instead of the reason.
    throw controller.signal.aborted ? controller.signal.reason : error;
  } finally {
    process.off("SIGINT", interrupt);
    process.off("SIGTERM", interrupt);
  }
}

/** Tells an error on stderr and returns the exit code for it. */
export function complain(error: unknown): number {
  if (error instanceof Interrupted) {
    console.error("Interrupted.");
    return EXIT.interrupted;
  }
  const debug = process.env["TORCHFORMERS_LOG"] === "debug";
  if (debug) console.error(error);
  else if (error instanceof Error) {
    console.error(`${bold("error:")} ${error.message}`);
    if (!(error instanceof TorchformersError))
      console.error("TORCHFORMERS_LOG=debug shows where it comes from.");
  } else console.error(`${bold("error:")} ${String(error)}`);
  return error instanceof UsageError ? EXIT.usage : EXIT.error;
}

const decorated = (stream: NodeJS.WriteStream): boolean => stream.isTTY === true && !process.env["NO_COLOR"];

export const bold = (text: string, stream: NodeJS.WriteStream = process.stderr): string =>
  decorated(stream) ? `\u001b[1m${text}\u001b[22m` : text;

/** Bytes for people, in powers of 1000: "452 MB". */
export function formatBytes(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  let value = bytes;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** What a program reads with `--json`: one document on stdout. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}
