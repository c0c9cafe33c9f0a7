// Llamas with random weights for benchmarks: made once, kept in a folder that both sides load.
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LlamaConfig, LlamaForCausalLM, torch } from "torchformers";

/** The sizes of TinyLlama: 1.1 billion parameters. */
export const LLAMA_1B = {
  vocab_size: 32000,
  hidden_size: 2048,
  intermediate_size: 5632,
  num_hidden_layers: 22,
  num_attention_heads: 32,
  num_key_value_heads: 4,
  max_position_embeddings: 8192,
  tie_word_embeddings: false,
};

/** Half of the keys and values are read for each byte of weights at 1,000 tokens: the cache is what costs. */
export const LLAMA_CACHE = {
  vocab_size: 1000,
  hidden_size: 1024,
  intermediate_size: 1024,
  num_hidden_layers: 2,
  num_attention_heads: 32,
  num_key_value_heads: 32,
  head_dim: 128,
  max_position_embeddings: 8192,
  tie_word_embeddings: false,
};

/** A folder with config.json and model.safetensors in bf16. BENCH_MODELS says where such folders are; they are large. */
export async function llamaFolder(name, config) {
  const root = process.env.BENCH_MODELS ?? join(tmpdir(), "torchformers-bench");
  const folder = join(root, name);
  if (existsSync(folder)) return folder;
  console.log(`Making ${folder} …`);
  mkdirSync(root, { recursive: true });
  torch.manual_seed(0);
  const model = LlamaForCausalLM._from_config(new LlamaConfig(config), { dtype: "bfloat16" });
  const unfinished = `${folder}.${process.pid}`;
  rmSync(unfinished, { recursive: true, force: true });
  await model.save_pretrained(unfinished);
  renameSync(unfinished, folder);
  return folder;
}

/** Parameters that a token multiplies: all but the embedding, of which it picks a row. */
export function multiplied(model) {
  return [...model.named_parameters()]
    .filter(([name]) => !name.includes("embed_tokens"))
    .map(([, parameter]) => parameter);
}

/** Python's side: loads the folder of the first line, then answers {length} and {length, created} with seconds. */
export const LLAMA_PEER = `
import sys, json, time, torch
from transformers import AutoModelForCausalLM
torch.set_grad_enabled(False)
first = json.loads(sys.stdin.readline())
torch.set_num_threads(first["threads"])
model = AutoModelForCausalLM.from_pretrained(first["folder"], dtype=torch.bfloat16).eval()
print(json.dumps(True))
for line in sys.stdin:
    r = json.loads(line)
    ids = torch.arange(1, r["length"] + 1)[None] % 900
    start = time.perf_counter()
    if "created" in r:
        n = r["created"]
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, min_new_tokens=n, do_sample=False, pad_token_id=0)
    else:
        model(ids, logits_to_keep=1)
    print(json.dumps(time.perf_counter() - start))
`;

/** The same ids as Python's side. */
export function promptOf(length) {
  return torch
    .arange(1, length + 1)
    .remainder(900)
    .unsqueeze(0);
}

/** Seconds of our `generate` of exactly `created` tokens. */
export async function generateSeconds(model, length, created) {
  const input_ids = promptOf(length);
  const inputs = { input_ids, attention_mask: torch.ones_like(input_ids) };
  const start = performance.now();
  await model.generate(inputs, {
    max_new_tokens: created,
    min_new_tokens: created,
    do_sample: false,
    pad_token_id: 0,
  });
  return (performance.now() - start) / 1000;
}
