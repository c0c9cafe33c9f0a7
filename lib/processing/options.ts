// Options objects of tokenizers: every name is known, or it is an error that says which one was probably meant.

import { InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";

/** Refuses a name that is not in `known`. */
export function checkOptions(options: object, known: readonly string[], call: string): void {
  for (const name of Object.keys(options)) {
    if (known.includes(name)) continue;
    throw new InvalidArgumentError(`[${call}] unknown option '${name}'.`, {
      suggestion: suggest(name, known),
    });
  }
}

/** Refuses a value that is not one of `values`. */
export function checkChoice<T>(value: unknown, values: readonly T[], name: string, call: string): T {
  if (values.includes(value as T)) return value as T;
  const list = values.map((choice) => JSON.stringify(choice)).join(", ");
  const suggestion =
    typeof value === "string"
      ? suggest(
          value,
          values.filter((v) => typeof v === "string"),
        )
      : undefined;
  throw new InvalidArgumentError(`[${call}] ${name} must be one of ${list}; got ${JSON.stringify(value)}.`, {
    suggestion,
  });
}

/** Refuses what is not a whole number of at least `least`. */
export function checkCount(value: unknown, least: number, name: string, call: string): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= least) return value;
  throw new InvalidArgumentError(
    `[${call}] ${name} must be a whole number of at least ${least}; got ${String(value)}.`,
  );
}
