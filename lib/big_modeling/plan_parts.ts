// What a plan is made from, and how its parts hang together: by names, and by parameters that are tied.
import type { Budget } from "./max_memory.ts";
import { type Part, type Sizes, sizeOf } from "./module_sizes.ts";

/** What a plan is made from. */
export interface PlanInput {
  readonly root: Part;
  readonly sizes: Sizes;
  /** Place → bytes, in the order in which places are filled. */
  readonly budget: Readonly<Budget>;
  readonly noSplit: ReadonlySet<string>;
  /** Groups of names of one parameter. */
  readonly tied: readonly (readonly string[])[];
  readonly rules: "accelerate" | "transformers";
  /** When nothing fits on a place, look for anything that does. accelerate only. */
  readonly fallback?: boolean | undefined;
  /** Names, relative to their block, of parameters that may leave an accelerator which the block does not fit on. transformers only. */
  readonly noPlacement?: ReadonlySet<string> | undefined;
  /** What is told of each step. */
  readonly tell?: ((line: string) => void) | undefined;
}

/** Whether `name` is `part` or inside of it. */
export const isInside = (name: string, part: string): boolean =>
  part === "" || name === part || name.startsWith(`${part}.`);

/** The reference asks for the text anywhere in the name. */
const mentions = (name: string, part: string) => `${name}.`.includes(`${part}.`);

/** Parameters tied to some inside of a part that are not inside of it. */
export function tiedOutside(tied: PlanInput["tied"], name: string): string[] {
  return tied
    .filter(
      (group) =>
        group.some((other) => mentions(other, name)) && !group.every((other) => mentions(other, name)),
    )
    .flatMap((group) => group.filter((other) => !mentions(other, name)));
}

/** Bytes of a part with those that hold parameters tied to it, and these parts, among those that wait. */
export function withTies(
  { sizes, rules }: Pick<PlanInput, "sizes" | "rules">,
  part: Part,
  outside: readonly string[],
  waiting: readonly Part[],
): { bytes: number; holders: Part[] } {
  let bytes = sizeOf(sizes, part.name);
  const holders: Part[] = [];
  for (const name of outside) {
    const holder = waiting.find((other) => isInside(name, other.name));
    if (holder === undefined) continue;
    if (rules === "accelerate") bytes += sizeOf(sizes, holder.name) - sizeOf(sizes, name);
    else if (!holders.includes(holder)) bytes += sizeOf(sizes, holder.name);
    if (!holders.includes(holder)) holders.push(holder);
  }
  return { bytes, holders };
}

/** Own parameters and children of a module that is split, as the reference splits it: buffers follow no rule of their own. */
export const splitPart = ({ parameters, children }: Part): Part[] => [...parameters, ...children];
