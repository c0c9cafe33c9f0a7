// Golden checks of what the library does not do yet, with what they wait for.
import type { Check } from "./golden.js";

export function notYet({ options, name }: Check): string | undefined {
  if (options.prompt_lookup_num_tokens !== undefined || options.assistant !== undefined)
    return "assisted generation";
  return Number(options.num_beams ?? 1) > 1 || name === "defaults" ? "beam search" : undefined;
}
