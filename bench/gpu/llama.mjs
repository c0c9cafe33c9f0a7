// Forward and greedy generation of Llamas with random weights on a GPU, against Python transformers.
import { LlamaConfig, LlamaForCausalLM, torch } from "torchformers";
import { hasPython, median, PythonPeer } from "../support.mjs";

/** Sizes as their configuration; the first has next to no work, so that what is measured is overhead. */
const MODELS = {
  "12 layers of 64": {
    hidden_size: 64,
    intermediate_size: 176,
    num_hidden_layers: 12,
    num_attention_heads: 4,
    num_key_value_heads: 4,
    vocab_size: 1000,
  },
  "1.1B": {
    hidden_size: 2048,
    intermediate_size: 5632,
    num_hidden_layers: 22,
    num_attention_heads: 32,
    num_key_value_heads: 4,
    vocab_size: 32000,
  },
};
const NEW_TOKENS = 64;

const PEER = `
import sys, json, time, torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.set_grad_enabled(False)
models = {}
def clock():
    torch.cuda.synchronize()
    return time.perf_counter()
for line in sys.stdin:
    r = json.loads(line)
    if r["name"] not in models:
        models.clear()
        torch.cuda.empty_cache()
        with torch.device("cuda"):
            models[r["name"]] = LlamaForCausalLM(LlamaConfig(**r["config"])).to(torch.bfloat16).eval()
    model = models[r["name"]]
    ids = torch.ones(1, r["length"], dtype=torch.long, device="cuda")
    start = clock()
    if r["new"] == 0:
        model(ids, use_cache=False)
    else:
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=r["new"], min_new_tokens=r["new"], do_sample=False, pad_token_id=0)
    print(json.dumps(clock() - start))
`;

async function time(model, device, length, created) {
  const sync = () => device.startsWith("cuda") && torch.cuda.synchronize(device);
  const input_ids = torch.ones([1, length], { dtype: "int64", device });
  sync();
  const start = performance.now();
  if (created === 0)
    torch.no_grad(() => torch.tidy(() => void model.forward({ input_ids, use_cache: false })));
  else
    await model.generate(
      { input_ids, attention_mask: torch.ones_like(input_ids) },
      { max_new_tokens: created, min_new_tokens: created, do_sample: false, pad_token_id: 0 },
    );
  sync();
  return (performance.now() - start) / 1000;
}

export async function measure(device, { rounds = 5, models = Object.keys(MODELS) } = {}) {
  const peer = hasPython("torch", "transformers") ? new PythonPeer(PEER) : undefined;
  const rows = [];
  for (const name of models) {
    const config = MODELS[name];
    const model = new LlamaForCausalLM(new LlamaConfig(config)).to(device, "bfloat16").eval();
    for (const [what, length, created] of [
      ["forward of 1 token", 1, 0],
      ["forward of 1,024 tokens", 1024, 0],
      ["generate, per token", 128, NEW_TOKENS],
    ]) {
      const [ours, theirs] = [[], []];
      for (let round = -1; round < rounds; round++) {
        const mine = await time(model, device, length, created);
        const other = await peer?.ask({ name, config, length, new: created });
        if (round < 0) continue; // warms both sides
        ours.push(mine);
        theirs.push(other);
      }
      const per = (times) => (median(times) / Math.max(created, 1)) * 1000;
      rows.push({
        name: `Llama, ${name}, bfloat16: ${what}`,
        ours: per(ours),
        ...(peer ? { theirs: per(theirs) } : {}),
        unit: "ms",
      });
      console.log(rows.at(-1));
    }
    model.dispose();
    if (device.startsWith("cuda")) torch.cuda.empty_cache();
  }
  peer?.close();
  return rows;
}
