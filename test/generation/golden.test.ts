import t from "tap";
import { replay } from "../support/golden.js";
import { notYet } from "../support/not_yet.js";

await replay(t, "generate/logits_processors");
await replay(t, "generate/llama", { skip: notYet });
await replay(t, "generate/llama-generation_config", { skip: notYet });
