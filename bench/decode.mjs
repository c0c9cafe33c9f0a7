// Tokens per second of `generate`, greedy, one sequence: the demo model in bfloat16 and float32, and a 27M Llama in
// float32 that is made here with random weights. Python transformers generates the same tokens in turn with us.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, torch } from "torchformers";
import { describeMachine, median, PythonPeer, python, requirePython, table } from "./support.mjs";

const rounds = Number(process.env.ROUNDS ?? 7);
const tokens = Number(process.env.TOKENS ?? 64);
const prompt = [5, 17, 99, 230, 41, 7, 310, 12];

const peer = new PythonPeer(`
import json, sys, time, torch
from transformers import AutoModelForCausalLM
models = {}
for line in sys.stdin:
    r = json.loads(line)
    if "load" in r:
        models[r["load"]] = AutoModelForCausalLM.from_pretrained(r["load"], dtype=getattr(torch, r["dtype"])).eval()
        print(json.dumps(str(models[r["load"]].dtype)), flush=True)
        continue
    model = models[r["model"]]
    ids = torch.tensor([r["prompt"]])
    model.generation_config.eos_token_id = None
    start = time.perf_counter()
    with torch.no_grad():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=r["tokens"], do_sample=False, pad_token_id=0)
    print(json.dumps([time.perf_counter() - start, out[0].tolist()]), flush=True)
`);

const made = mkdtempSync(join(tmpdir(), "torchformers-bench-"));
async function makeLlama() {
  torch.manual_seed(0);
  const model = new LlamaForCausalLM(
    new LlamaConfig({
      vocab_size: 8192,
      hidden_size: 384,
      intermediate_size: 1024,
      num_hidden_layers: 12,
      num_attention_heads: 6,
      num_key_value_heads: 6,
      max_position_embeddings: 1024,
      eos_token_id: null,
    }),
  );
  await model.save_pretrained(made);
  return made;
}

describeMachine({ python, ...requirePython("torch", "transformers"), threads: torch.get_num_threads() });
const demo = fileURLToPath(new URL("../test/fixtures/demo-llama", import.meta.url));
const cases = [
  ["demo-llama, 4M", demo, "bfloat16", 2],
  ["demo-llama, 4M", demo, "float32", 2],
  ["27M", await makeLlama(), "float32", 1.5],
];
const rows = [];
try {
  for (const [name, folder, dtype, wanted] of cases) {
    const model = await AutoModelForCausalLM.from_pretrained(folder, { dtype });
    await peer.ask({ load: folder, dtype });
    const sides = { ours: [], eager: [], theirs: [] };
    let same = true;
    const ours = async (mode) => {
      const start = performance.now();
      const out = await model.generate([prompt], {
        max_new_tokens: tokens,
        eos_token_id: null,
        do_sample: false,
        mode,
      });
      const seconds = (performance.now() - start) / 1000;
      const ids = out.tolist()[0];
      out.dispose();
      return [tokens / seconds, ids];
    };
    for (let round = -2; round < rounds; round++) {
      const [speed, ids] = await ours("program");
      const [seconds, theirs] = await peer.ask({ model: folder, prompt, tokens });
      const [eager] = await ours("eager");
      if (round < 0) continue; // recordings, caches
      same &&= ids.join() === theirs.join();
      sides.ours.push(speed);
      sides.eager.push(eager);
      sides.theirs.push(tokens / seconds);
    }
    rows.push([
      `${name}, ${dtype}`,
      median(sides.ours),
      median(sides.eager),
      median(sides.theirs),
      median(sides.ours.map((x, k) => x / sides.theirs[k])),
      `${wanted}`,
      same ? "yes" : "no",
    ]);
  }
} finally {
  peer.close();
  rmSync(made, { recursive: true });
}
table(["tokens per second", "ours", "ours eager", "Python", "ratio", "wanted", "same ids"], rows);
