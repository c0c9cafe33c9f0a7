import t from "tap";
import { type Check, replay } from "../support/golden.js";

/** Ways of decoding that are not implemented yet. */
function notYet({ options, name }: Check): string | undefined {
  if (options.prompt_lookup_num_tokens !== undefined || options.assistant !== undefined)
    return "assisted generation";
  return Number(options.num_beams ?? 1) > 1 || name === "defaults" ? "beam search" : undefined;
}

await replay(t, "generate/logits_processors");
await replay(t, "generate/llama", { skip: notYet });
await replay(t, "generate/llama-generation_config", { skip: notYet });
