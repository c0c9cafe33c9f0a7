// accelerate's fallback_allocation: a place that would stay empty gets whatever fits.
import type { Part } from "./module_sizes.ts";
import { type PlanInput, splitPart, tiedOutside, withTies } from "./plan_parts.ts";

/** The first of the waiting parts, or of their parts, that fits into `room` bytes, and what waits without it. */
export function fallbackPart(
  input: PlanInput,
  waiting: readonly Part[],
  room: number,
): { part: Part; rest: Part[] } | undefined {
  if (room < 0) return undefined;
  const part = search(input, waiting, room);
  if (part === undefined) return undefined;
  // Modules around it are opened, from the outside in, until it stands in the list.
  let rest = [...waiting];
  while (!rest.includes(part)) {
    const at = rest.findIndex(({ name, isModule }) => isModule && part.name.startsWith(`${name}.`));
    const around = rest[at] as Part;
    rest = [...rest.slice(0, at), ...splitPart(around), ...rest.slice(at + 1)];
  }
  return { part, rest: rest.filter((other) => other !== part) };
}

function search(input: PlanInput, waiting: readonly Part[], room: number): Part | undefined {
  const queue = [...waiting];
  for (let part = queue.shift(); part !== undefined; part = queue.shift()) {
    if (withTies(input, part, tiedOutside(input.tied, part.name), queue).bytes <= room) return part;
    if (part.children.length > 0 && !input.noSplit.has(part.className)) queue.unshift(...splitPart(part));
  }
  return undefined;
}
