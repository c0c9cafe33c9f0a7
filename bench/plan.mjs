// How long a plan takes, for an 80-layer model of 100 billion parameters whose weights do not exist: our planner and the reference's
// rules here, accelerate's and transformers' planners in Python on the same skeleton. To be below 200 ms, with no weight touched.
//
//     node bench/plan.mjs [rounds]

import { spawnSync } from "node:child_process";
import process from "node:process";
import {
  get_balanced_memory,
  infer_auto_device_map,
  init_empty_weights,
  LlamaConfig,
  LlamaForCausalLM,
  torch,
} from "torchformers";

const rounds = Number(process.argv[2] ?? 5);
const shape = {
  hidden_size: 9984,
  intermediate_size: 28672,
  num_hidden_layers: 80,
  num_attention_heads: 78,
  num_key_value_heads: 6,
  vocab_size: 128256,
  head_dim: 128,
  tie_word_embeddings: false,
};
const GB = 1e9;
const max_memory = { 0: 80 * GB, 1: 80 * GB, cpu: 60 * GB };
const no_split_module_classes = ["LlamaDecoderLayer"];

const before = torch.memory_stats();
const built = performance.now();
const model = init_empty_weights(
  () => torch.with_default_dtype("bfloat16", () => new LlamaForCausalLM(new LlamaConfig(shape))),
  { include_buffers: true },
);
const skeleton = performance.now() - built;
const times = [];
let map;
for (let i = 0; i < rounds; i++) {
  const start = performance.now();
  const balanced = get_balanced_memory(model, { max_memory, no_split_module_classes });
  map = infer_auto_device_map(model, { max_memory: balanced, no_split_module_classes });
  times.push(performance.now() - start);
}
const best = Math.min(...times);
const touched = torch.memory_stats().private_bytes - before.private_bytes;

const python = process.env.TORCHFORMERS_BENCH_PYTHON ?? "python3";
const reference = spawnSync(
  python,
  [
    "-c",
    `
import json, time, torch
from accelerate import init_empty_weights, infer_auto_device_map
from accelerate.utils import get_balanced_memory
from transformers import LlamaConfig, LlamaForCausalLM
shape = json.loads('${JSON.stringify(shape)}')
torch.set_default_dtype(torch.bfloat16)
with init_empty_weights(include_buffers=True):
    model = LlamaForCausalLM(LlamaConfig(**shape))
memory = {0: 80 * 10**9, 1: 80 * 10**9, "cpu": 60 * 10**9}
times = []
for _ in range(${rounds}):
    start = time.perf_counter()
    limits = get_balanced_memory(model, dict(memory), no_split_module_classes=["LlamaDecoderLayer"])
    found = infer_auto_device_map(model, limits, no_split_module_classes=["LlamaDecoderLayer"])
    times.append(1000 * (time.perf_counter() - start))
print(json.dumps({"best": min(times), "map": {k: f"cuda:{v}" if isinstance(v, int) else v for k, v in found.items()}}))
`,
  ],
  { encoding: "utf8", maxBuffer: 2 ** 26 },
);
console.log(
  `${(model.num_parameters() / 1e9).toFixed(1)}B parameters, ${shape.num_hidden_layers} layers; skeleton ${skeleton.toFixed(0)} ms`,
);
console.log(
  `plan: ${best.toFixed(1)} ms (best of ${rounds}; the first ${times[0].toFixed(1)}), ${touched} bytes of tensors made`,
);
if (reference.status === 0) {
  const { best: theirs, map: found } = JSON.parse(reference.stdout.trim().split("\n").at(-1));
  const same = Object.entries(found).every(([name, place]) => map[name] === place);
  console.log(
    `Python: ${theirs.toFixed(1)} ms; ratio ${(theirs / best).toFixed(2)}x; ${same ? "the same plan" : "ANOTHER PLAN"}`,
  );
} else console.log(`Python could not be asked: ${reference.stderr.trim().split("\n").at(-1)}`);
if (best > 200) process.exitCode = 1;
