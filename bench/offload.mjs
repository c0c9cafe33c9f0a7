// Models whose layers take turns. 0: on a device of limited bandwidth, against the larger of bytes/bandwidth and compute, and
// the synchronous mode beside it. 1: from the disk on the CPU with cold files, against a plain sequential read of them. 2: the
// same with warm files, against accelerate with every layer on the disk. CASES=0,2 chooses; BENCH_LAYERS makes a smaller model.
import { spawnSync } from "node:child_process";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { bigCheckpoint } from "./big_checkpoint.mjs";
import { describeMachine, hasPython, median, python, table } from "./support.mjs";

const folder = await bigCheckpoint();
const weights = readdirSync(folder)
  .filter((name) => name.endsWith(".safetensors"))
  .map((name) => join(folder, name));
const bytes = weights.reduce((sum, file) => sum + statSync(file).size, 0);
const rounds = Number(process.env.ROUNDS ?? 3);
const chosen = process.env.CASES?.split(",").map(Number) ?? [0, 1, 2];

function run(command, args) {
  const { status, stdout, stderr } = spawnSync(command, args, {
    encoding: "utf8",
    cwd: fileURLToPath(new URL("..", import.meta.url)),
    env: { ...process.env, HF_HUB_OFFLINE: "1", TRANSFORMERS_VERBOSITY: "error" },
  });
  if (status !== 0) throw new Error(`${command} failed: ${stderr}`);
  return stdout === "" ? undefined : JSON.parse(stdout.trim().split("\n").at(-1));
}

const OURS = `
import { readFileSync } from "node:fs";
import { BlockStreamer, LlamaForCausalLM, limited_devices, torch } from "torchformers";
const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
const field = (name) => Number(new RegExp(name + ":\\\\s+(\\\\d+)").exec(readFileSync("/proc/self/status", "utf8"))[1]) * 1024;
const load = () => LlamaForCausalLM.from_pretrained(${JSON.stringify(folder)});
const blocksOf = (modules) => modules.map((module) => ({ tensors: new Map(module.named_parameters()) }));
const everything = (model) => blocksOf([model.model.embed_tokens, ...model.model.layers, model.model.norm, model.lm_head]);
const seconds = async (body) => { const start = performance.now(); await body(); return (performance.now() - start) / 1000; };
`;

/** Layers stream to a device; embedding and head stay. Bandwidths are such that copies take `ratios` of the compute. */
const LIMITED = (length, ratios) => `${OURS}
const inputs = { input_ids: torch.arange(${length}).unsqueeze(0), use_cache: false };
const whole = await load();
await whole.run(inputs);
const size = [...whole.model.layers.parameters()].reduce((sum, { nbytes }) => sum + nbytes, 0);
const [first] = [await seconds(() => whole.run(inputs))];
const sides = [];
for (const ratio of ${JSON.stringify(ratios)}) {
  for (const options of [{}, { depth: 2 }, { synchronous: true }]) {
    limited_devices([{ capacity: 2 ** 30, bandwidth: size / (first * ratio) }]);
    const model = await load();
    const streamer = new BlockStreamer("limited:0", blocksOf([...model.model.layers]), options);
    streamer.rest();
    await model.run(inputs);
    sides.push({ ratio, options, model, streamer, copy: first * ratio, times: [] });
  }
}
const compute = [];
// One after the other, as tokens are: what is brought ahead for the next run is paid for in this one.
const several = async (model) => {
  await model.run(inputs);
  return (await seconds(async () => { for (let i = 0; i < 3; i++) await model.run(inputs); })) / 3;
};
for (let round = 0; round < ${rounds}; round++) {
  compute.push(await several(whole));
  for (const side of sides) side.times.push(await several(side.model));
}
const result = sides.map(({ ratio, options, copy, times, streamer }) => {
  const { exposed_ms, hidden_ms } = streamer.stats();
  return { ratio, mode: options.synchronous ? "synchronous" : \`\${options.depth ?? 1} ahead\`, copy, time: median(times), exposed_ms, hidden_ms,
    share: median(times.map((time, i) => Math.max(copy, compute[i]) / time)) };
});
console.log(JSON.stringify({ size, compute: median(compute), result }));
`;

const IN_PLACE = `${OURS}
const model = await load();
const streamer = new BlockStreamer("cpu", everything(model));
streamer.rest();
const inputs = { input_ids: torch.tensor([[1]]), use_cache: false };
const first = await seconds(() => model.run(inputs));
const more = [];
for (let i = 0; i < 5; i++) more.push(await seconds(() => model.run(inputs)));
console.log(JSON.stringify({ first, warm: median(more), anonymous: field("RssAnon"), disk: streamer.stats().disk_bytes }));
`;

const READ = `
import { closeSync, openSync, readSync } from "node:fs";
const buffer = Buffer.alloc(4 << 20);
const start = performance.now();
for (const path of ${JSON.stringify(weights)}) {
  const fd = openSync(path, "r");
  while (readSync(fd, buffer, 0, buffer.length, null) > 0);
  closeSync(fd);
}
console.log(JSON.stringify({ seconds: (performance.now() - start) / 1000 }));
`;

/** Drops the files' pages from the cache; they were written to the disk when they were made. */
const DROP = `
import os, sys
for path in sys.argv[1:]:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd); os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED); os.close(fd)
`;

const THEIRS = `
import json, tempfile, time, torch
from transformers import LlamaForCausalLM
torch.set_grad_enabled(False)
model = LlamaForCausalLM.from_pretrained(${JSON.stringify(folder)}, dtype="auto", device_map={"": "disk"}, offload_folder=tempfile.mkdtemp())
ids = torch.tensor([[1]])
times = []
for i in range(4):
    start = time.perf_counter(); model(ids, use_cache=False).logits.argmax(-1).tolist(); times.append(time.perf_counter() - start)
print(json.dumps({"warm": sorted(times[1:])[1]}))
`;

const node = (program) => run(process.execPath, ["--input-type=module", "-e", program]);
const gigabytes = (value) => `${(value / 1e9).toFixed(2)} GB`;
describeMachine({ bytes: gigabytes(bytes) });

if (chosen.includes(0)) {
  const { size, compute, result } = node(LIMITED(Number(process.env.LENGTH ?? 512), [0.5, 1, 2]));
  console.log(
    `\n${gigabytes(size)} of layers, compute alone ${compute.toFixed(2)} s; wanted: 0.9 of the limit`,
  );
  table(
    ["copies take", "mode", "seconds", "of the limit", "exposed ms", "hidden ms"],
    result.map(({ copy, mode, time, share, exposed_ms, hidden_ms }) => [
      `${copy.toFixed(2)} s`,
      mode,
      time,
      share,
      exposed_ms,
      hidden_ms,
    ]),
  );
}
if (chosen.includes(1)) {
  const sides = [];
  for (let round = 0; round < rounds; round++) {
    run(python, ["-c", DROP, ...weights]);
    const mine = node(IN_PLACE);
    run(python, ["-c", DROP, ...weights]);
    sides.push({ ...mine, read: node(READ).seconds });
  }
  const rate = (key) => median(sides.map((side) => bytes / side[key] / 1e9));
  console.log("\nfrom the disk, cold; wanted: 0.85");
  table(
    ["first token GB/s", "a plain read GB/s", "ratio"],
    [[rate("first"), rate("read"), median(sides.map(({ first, read }) => read / first))]],
  );
}
if (chosen.includes(2)) {
  const peers = hasPython("torch", "transformers", "accelerate");
  const sides = [];
  for (let round = 0; round < rounds; round++)
    sides.push({ ...node(IN_PLACE), theirs: peers ? run(python, ["-c", THEIRS]).warm : Number.NaN });
  const rate = (key) => median(sides.map((side) => bytes / side[key] / 1e9));
  console.log("\nfrom the disk, warm, a token; wanted: 2.5 times accelerate with every layer on the disk");
  table(
    ["ours GB/s", "accelerate GB/s", "times", "private memory"],
    [
      [
        rate("warm"),
        rate("theirs"),
        median(sides.map(({ warm, theirs }) => theirs / warm)),
        gigabytes(median(sides.map(({ anonymous }) => anonymous))),
      ],
    ],
  );
}
