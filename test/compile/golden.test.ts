// Every check of the models that exist, through Programs.
import t from "tap";
import { torch } from "torchformers";
import { compiled, replay } from "../support/golden.js";

const METHODS = ["forward", "last_logits", "incremental"];

for (const folder of [
  "models/llama",
  "models/llama-bf16",
  "models/llama-rope_llama3",
  "models/llama-sharded",
  "demo-llama",
]) {
  await replay(t, folder, {
    mode: compiled,
    skip: ({ method }) => (METHODS.includes(method) ? undefined : "not a forward"),
  });
}

t.ok(torch.is_grad_enabled());
