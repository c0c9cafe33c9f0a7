import t from "tap";
import { compiled, eager, replay } from "../support/golden.js";
import { notYet } from "../support/not_yet.js";

process.env.TORCHFORMERS_LOG = "silent";

await replay(t, "generate/logits_processors");
for (const mode of [eager, compiled]) {
  await replay(t, "generate/llama", { mode, skip: notYet });
  await replay(t, "generate/llama-generation_config", { mode, skip: notYet });
  await replay(t, "demo-llama", { mode });
}
