// Training steps of a small Llama: in a Program against Python's eager loop, in turn; and how free the event loop stays
// meanwhile, against one that has nothing to do beside a thread that computes.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { LlamaConfig, LlamaForCausalLM, nn, optim, torch } from "torchformers";
import { describeMachine, median, PythonPeer, python, requirePython, table } from "./support.mjs";

const rounds = Number(process.env.ROUNDS ?? 7);
const steps = Number(process.env.STEPS ?? 8); // per round
const [batch, length] = [4, 64];

const config = new LlamaConfig({
  vocab_size: 2048,
  hidden_size: 128,
  intermediate_size: 352,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  num_key_value_heads: 4,
  max_position_embeddings: 256,
});

const peerScript = (folder) => `
FOLDER = ${JSON.stringify(folder)}
import json, sys, time, torch
from transformers import LlamaForCausalLM
torch.set_num_threads(${torch.get_num_threads()})
model = LlamaForCausalLM.from_pretrained(FOLDER)
model.train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
torch.manual_seed(0)
ids = torch.randint(0, ${config.vocab_size}, (${batch}, ${length}))
def step():
    optimizer.zero_grad()
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()
for line in sys.stdin:
    begin = time.perf_counter()
    losses = [step() for _ in range(json.loads(line))]
    print(json.dumps({"seconds": time.perf_counter() - begin, "losses": losses}), flush=True)
`;

describeMachine({
  python,
  ...requirePython("torch", "transformers"),
  threads: torch.get_num_threads(),
  model: `${batch} x ${length} ids, AdamW (fused), clipped`,
});

const folder = mkdtempSync(join(tmpdir(), "torchformers-training-"));
torch.manual_seed(0);
const model = new LlamaForCausalLM(config);
await model.save_pretrained(folder);
model.train();
const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-4 });
const scheduler = new optim.lr_scheduler.LambdaLR(optimizer, () => 1);
torch.manual_seed(0);
const ids = torch.randint(0, config.vocab_size, [batch, length]);
const train = () => {
  optimizer.zero_grad();
  const { loss } = model.forward({ input_ids: ids, labels: ids, use_cache: false });
  loss.backward();
  nn.utils.clip_grad_norm_(model.parameters(), 1);
  optimizer.step();
  return loss;
};
const compiled = torch.compile(train);

async function ours(count) {
  const losses = [];
  const begin = performance.now();
  for (let i = 0; i < count; i++) {
    losses.push((await compiled()).item());
    scheduler.step();
  }
  return { seconds: (performance.now() - begin) / 1000, losses };
}

/** The delay of the event loop's timers while `body` is under way, in milliseconds. */
async function delay(body) {
  const histogram = monitorEventLoopDelay({ resolution: 1 });
  histogram.enable();
  await body();
  histogram.disable();
  return { p99: histogram.percentile(99) / 1e6, max: histogram.max / 1e6 };
}

const peer = new PythonPeer(peerScript(folder));
const both = { ours: [], theirs: [] };
const losses = { ours: [], theirs: [] };
for (let round = -1; round < rounds; round++) {
  const mine = await ours(steps);
  const its = await peer.ask(steps);
  losses.ours.push(...mine.losses);
  losses.theirs.push(...its.losses);
  if (round < 0) continue; // warms up, and records
  both.ours.push(steps / mine.seconds);
  both.theirs.push(steps / its.seconds);
}
peer.close();
rmSync(folder, { recursive: true });
const apart = Math.max(...losses.ours.map((loss, i) => Math.abs(loss - losses.theirs[i])));
if (!(apart < 1e-3)) throw new Error(`the losses differ by ${apart}: both sides must do the same work`);
table(
  ["training step", "ours steps/s", "Python steps/s", "ratio"],
  [
    [
      "small Llama",
      median(both.ours),
      median(both.theirs),
      median(both.ours.map((rate, i) => rate / both.theirs[i])),
    ],
  ],
);
console.log(
  `largest difference of the losses: ${apart.toExponential(1)}; recordings: ${compiled.counters.recordings}\n`,
);

// The loop: steps in a Program, steps in eager mode, and nothing beside a thread that is as busy.
const spinner = `
const { parentPort } = require("node:worker_threads");
let until = 0;
const shared = new Int32Array(require("node:worker_threads").workerData);
for (;;) { Atomics.wait(shared, 0, 0); while (Atomics.load(shared, 0) === 1) for (let i = 0; i < 1e5; i++) until += Math.sqrt(i); if (Atomics.load(shared, 0) === 2) break; }
`;
const shared = new Int32Array(new SharedArrayBuffer(4));
const worker = new Worker(spinner, { eval: true, workerData: shared.buffer });
await new Promise((resolve) => worker.once("online", resolve));
const rows = { program: [], idle: [], eager: [] };
for (let round = 0; round < Math.min(rounds, 5); round++) {
  let seconds = 0;
  rows.program.push(
    await delay(async () => {
      ({ seconds } = await ours(steps));
    }),
  );
  Atomics.store(shared, 0, 1);
  Atomics.notify(shared, 0);
  rows.idle.push(await delay(() => sleep(1000 * seconds)));
  Atomics.store(shared, 0, 0);
  rows.eager.push(
    await delay(async () => {
      for (let i = 0; i < steps; i++) {
        torch.tidy(() => train().item());
        await new Promise(setImmediate);
      }
    }),
  );
}
Atomics.store(shared, 0, 2);
Atomics.notify(shared, 0);
table(
  ["event loop while …", "p99 ms", "max ms"],
  [
    ["steps run in a Program", rows.program],
    ["nothing runs, beside a busy thread", rows.idle],
    ["steps run eagerly", rows.eager],
  ].map(([name, all]) => [name, median(all.map(({ p99 }) => p99)), median(all.map(({ max }) => max))]),
);
const ratio = median(rows.program.map(({ p99 }, i) => p99 / rows.idle[i].p99));
console.log(`p99 in a Program / idle: ${ratio.toFixed(2)}`);
