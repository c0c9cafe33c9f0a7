// What a Program costs between its kernels: one token of a Llama so small that overhead is nearly all of it (12 layers,
// hidden size 64), with a static cache, against the eager forward of Python transformers with its caches. PROFILE=1 prints
// where our time goes.
import { LlamaConfig, LlamaForCausalLM, StaticCache, torch } from "torchformers";
import { describeMachine, median, PythonPeer, requirePython, table } from "./support.mjs";

const POSITIONS = 128;
const STEPS = Number(process.env.STEPS ?? 100);
const rounds = Number(process.env.ROUNDS ?? 9);
const shape = {
  hidden_size: 64,
  intermediate_size: 172,
  num_attention_heads: 4,
  num_key_value_heads: 4,
  num_hidden_layers: 12,
  vocab_size: 512,
};

const theirs = `
import json, sys, time, torch
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache, DynamicCache
request = json.loads(sys.stdin.readline())
config = LlamaConfig(**request["shape"])
models = {dtype: LlamaForCausalLM(config).eval().to(getattr(torch, dtype)) for dtype in ("float32", "bfloat16")}
ids = torch.tensor([[5]])
print(json.dumps({"threads": torch.get_num_threads()}))
for line in sys.stdin:
    request = json.loads(line)
    model = models[request["dtype"]]
    with torch.no_grad():
        cache = StaticCache(config=config, max_cache_len=request["positions"]) if request["cache"] == "static" else DynamicCache(config=config)
        model(ids, past_key_values=cache)
        start = time.perf_counter()
        for _ in range(request["steps"]):
            model(ids, past_key_values=cache)
        print(json.dumps((time.perf_counter() - start) / request["steps"] * 1e6))
`;

async function ours(dtype) {
  const config = new LlamaConfig(shape);
  const model = new LlamaForCausalLM(config).eval().to(dtype);
  const cache = new StaticCache({ config, max_cache_len: POSITIONS });
  const step = torch.compile((input_ids, past_key_values) =>
    torch.no_grad(() => model.forward({ input_ids, past_key_values }).logits),
  );
  const ids = torch.tensor([[5]]);
  const run = async () => (await step(ids, cache)).dispose();
  await run(); // makes the cache's tensors
  return {
    async measure() {
      cache.reset();
      await run();
      const start = performance.now();
      for (let i = 0; i < STEPS; i++) await run();
      return ((performance.now() - start) / STEPS) * 1e3;
    },
    program: () => step.programs().at(-1),
    profile: () => step.profile(ids, cache),
  };
}

// THREADS=1: on a busy machine a team waits for the core that somebody else has, Python's most of all.
if (process.env.THREADS) torch.set_num_threads(Number(process.env.THREADS));
const versions = requirePython("torch", "transformers");
const peer = new PythonPeer(theirs, process.env.THREADS ? { OMP_NUM_THREADS: process.env.THREADS } : {});
const { threads } = await peer.ask({ shape });
describeMachine({ ...versions, threads: `${torch.get_num_threads()} and ${threads}` });

const rows = [];
for (const dtype of ["float32", "bfloat16"]) {
  const side = await ours(dtype);
  const times = { ours: [], static: [], dynamic: [] };
  for (let round = -1; round < rounds; round++) {
    const a = await side.measure();
    const b = await peer.ask({ dtype, cache: "static", positions: POSITIONS, steps: STEPS });
    const c = await peer.ask({ dtype, cache: "dynamic", positions: POSITIONS, steps: STEPS });
    if (round < 0) continue;
    times.ours.push(a);
    times.static.push(b);
    times.dynamic.push(c);
  }
  const ratio = (other) => median(times.ours.map((x, i) => x / other[i]));
  rows.push([
    dtype,
    `${side.program().length}`,
    median(times.ours),
    median(times.static),
    median(times.dynamic),
    ratio(times.static),
    ratio(times.dynamic),
  ]);
  if (process.env.PROFILE) await printProfile(side);
}
table(["one token", "ops", "ours us", "Python static", "dynamic", "ratio static", "ratio dynamic"], rows);
console.log("wanted: at most 0.45");
peer.close();

/** Where the time goes, by operator: the sum over a step, the median of several. */
async function printProfile(side) {
  const sums = new Map();
  for (let i = 0; i < 20; i++) {
    for (const { op, milliseconds } of await side.profile()) {
      const entry = sums.get(op) ?? { count: 0, us: 0 };
      entry.count++;
      entry.us += milliseconds * 1e3;
      sums.set(op, entry);
    }
  }
  const list = [...sums].sort((a, b) => b[1].us - a[1].us);
  table(
    ["operator", "count", "us per step", "us each"],
    list.map(([op, { count, us }]) => [op, `${count / 20}`, us / 20, us / count]),
  );
}
