import t from "tap";
import { replay } from "../../support/golden.js";

for (const folder of [
  "models/llama",
  "models/llama-bf16",
  "models/llama-rope_llama3",
  "models/llama-sharded",
  "demo-llama",
]) {
  await replay(t, folder);
}
