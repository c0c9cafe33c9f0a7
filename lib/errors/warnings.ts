// Warnings go to the process's own warning channel, so that `--no-warnings` and listeners apply.

const told = new Set<string>();

const silent = () => ["error", "silent", "off"].includes(process.env.TORCHFORMERS_LOG ?? "");

/** Warns, unless `TORCHFORMERS_LOG` is `error`, `silent` or `off`. */
export function warn(message: string): void {
  if (!silent()) process.emitWarning(message, { type: "TorchformersWarning" });
}

/** Warns the first time a text is given, and never again in this environment. */
export function warnOnce(message: string): void {
  if (told.has(message)) return;
  told.add(message);
  warn(message);
}
