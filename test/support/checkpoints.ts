// Small checkpoints that tests write for themselves.

import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { LlamaConfig, LlamaForCausalLM, safetensors, torch } from "torchformers";
import { fixture } from "./fixtures.js";

/** Copies the demo model without one of its tensors. */
export async function withoutTensor(folder: string, name: string): Promise<string> {
  mkdirSync(folder, { recursive: true });
  for (const file of ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]) {
    cpSync(join(fixture("demo-llama"), file), join(folder, file));
  }
  const tensors = await safetensors.load_file(join(fixture("demo-llama"), "model.safetensors"));
  delete tensors[name];
  await safetensors.save_file(tensors, join(folder, "model.safetensors"), { metadata: { format: "pt" } });
  return folder;
}

/** A model by chance that never comes to an end: it has no end-of-text token, and room for 100,000 tokens. */
export async function endless(
  folder: string,
  { chat_template }: { chat_template?: string } = {},
): Promise<string> {
  torch.manual_seed(0);
  const config = new LlamaConfig({
    vocab_size: 4096,
    hidden_size: 16,
    intermediate_size: 32,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    max_position_embeddings: 100_000,
    bos_token_id: null,
    eos_token_id: null,
  });
  await new LlamaForCausalLM(config).save_pretrained(folder);
  for (const file of ["tokenizer.json", "tokenizer_config.json"]) {
    cpSync(join(fixture("demo-llama"), file), join(folder, file));
  }
  if (chat_template !== undefined) writeFileSync(join(folder, "chat_template.jinja"), chat_template);
  return folder;
}
