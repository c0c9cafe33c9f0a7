// Streams what the demo model writes after a prompt. Uses the package as any program would.

import { join } from "node:path";
import { root } from "./support.mjs";

const PROMPT = "This class is used to";

export async function demo(prompt = PROMPT) {
  const { AutoModelForCausalLM, AutoTokenizer } = await import("torchformers");
  const folder = join(root, "test/fixtures/demo-llama");

  const tokenizer = await AutoTokenizer.from_pretrained(folder);
  const model = await AutoModelForCausalLM.from_pretrained(folder, { dtype: "float32" });

  process.stdout.write(prompt);
  const { input_ids } = await tokenizer(prompt, { return_tensors: "pt" });
  for await (const text of model.stream({ input_ids }, { tokenizer, max_new_tokens: 64 }))
    process.stdout.write(text);
  process.stdout.write("\n");
}
