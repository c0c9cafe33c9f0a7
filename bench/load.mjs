// from_pretrained of a 2.2 GB bfloat16 checkpoint and one forward of one token, with the files in the page cache and without;
// and with a cast to float32. Each measurement is a process of its own that has imported its library before the clock starts.
import { spawnSync } from "node:child_process";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { bigCheckpoint } from "./big_checkpoint.mjs";
import { describeMachine, median, python, requirePython, table } from "./support.mjs";

const folder = await bigCheckpoint();
const weights = readdirSync(folder)
  .filter((name) => name.endsWith(".safetensors"))
  .map((name) => join(folder, name));
const bytes = weights.reduce((sum, file) => sum + statSync(file).size, 0);

const MEMORY = `
const { readFileSync } = await import("node:fs");
const field = (name) => Number(new RegExp(name + ":\\\\s+(\\\\d+)").exec(readFileSync("/proc/self/status", "utf8"))[1]) * 1024;`;
const ours = (dtype, forward) => `
import { LlamaForCausalLM, torch } from "torchformers";
torch.zeros([1]).add(1);
${MEMORY}
const before = field("RssAnon");
let peak = before;
const start = performance.now();
const watch = setInterval(() => { peak = Math.max(peak, field("RssAnon")); }, 5);
const model = await LlamaForCausalLM.from_pretrained(${JSON.stringify(folder)}, { dtype: ${JSON.stringify(dtype)} });
const loaded = performance.now();
const anonymous = field("RssAnon") - before;
if (${forward}) torch.no_grad(() => model.forward({ input_ids: torch.tensor([[1]]), use_cache: false }).logits.argmax(-1).tolist());
clearInterval(watch);
console.log(JSON.stringify({ load: (loaded - start) / 1000, total: (performance.now() - start) / 1000, anonymous, peak: Math.max(peak, field("RssAnon")) - before }));
`;
const theirs = (dtype, forward) => `
import json, os, time, threading, torch
from transformers import LlamaForCausalLM
torch.zeros(1).add(1)
def field(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
before = field("RssAnon"); peak = before; done = False
def watch():
    global peak
    while not done:
        peak = max(peak, field("RssAnon")); time.sleep(0.005)
threading.Thread(target=watch, daemon=True).start()
start = time.perf_counter()
model = LlamaForCausalLM.from_pretrained(${JSON.stringify(folder)}, dtype=${dtype === "auto" ? '"auto"' : `torch.${dtype}`})
loaded = time.perf_counter()
anonymous = field("RssAnon") - before
if ${forward ? "True" : "False"}:
    with torch.no_grad(): model(torch.tensor([[1]]), use_cache=False).logits.argmax(-1).tolist()
done = True
print(json.dumps({"load": loaded - start, "total": time.perf_counter() - start, "anonymous": anonymous, "peak": max(peak, field("RssAnon")) - before}))
`;
/** Drops the files' pages from the cache; they were written to the disk when they were made. */
const DROP = `
import os, sys
for path in sys.argv[1:]:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd); os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED); os.close(fd)
`;

function run(command, args) {
  const { status, stdout, stderr } = spawnSync(command, args, {
    encoding: "utf8",
    cwd: fileURLToPath(new URL("..", import.meta.url)),
    env: { ...process.env, HF_HUB_OFFLINE: "1", TRANSFORMERS_VERBOSITY: "error" },
  });
  if (status !== 0) throw new Error(`${command} failed: ${stderr}`);
  return stdout === "" ? undefined : JSON.parse(stdout.trim().split("\n").at(-1));
}

describeMachine({
  python,
  ...requirePython("torch", "transformers"),
  bytes: `${(bytes / 1e9).toFixed(2)} GB`,
});
const CASES = [
  { name: "same dtype, warm", dtype: "auto", forward: true, cold: false, wanted: 4 },
  { name: "same dtype, cold", dtype: "auto", forward: true, cold: true, wanted: 1.5 },
  { name: "cast to float32, warm", dtype: "float32", forward: false, cold: false, wanted: 2 },
];
const chosen = process.env.CASES?.split(",").map(Number) ?? CASES.keys();
const rounds = Number(process.env.ROUNDS ?? 5);
const rows = [];
const notes = [];
for (const { name, dtype, forward, cold, wanted } of [...chosen].map((i) => CASES[i])) {
  const sides = { ours: [], theirs: [] };
  for (let round = -1; round < rounds; round++) {
    if (cold) run(python, ["-c", DROP, ...weights]);
    const mine = run(process.execPath, ["--input-type=module", "-e", ours(dtype, forward)]);
    if (cold) run(python, ["-c", DROP, ...weights]);
    const peer = run(python, ["-c", theirs(dtype, forward)]);
    if (round < 0) continue;
    sides.ours.push(mine);
    sides.theirs.push(peer);
  }
  const middle = (side, field) => median(sides[side].map((each) => each[field]));
  const ratio = median(sides.ours.map(({ total }, i) => sides.theirs[i].total / total));
  rows.push([
    name,
    middle("ours", "load"),
    middle("ours", "total"),
    middle("theirs", "load"),
    middle("theirs", "total"),
    ratio,
    `${wanted}x`,
  ]);
  const part = (side, field) => `${((100 * middle(side, field)) / bytes).toFixed(1)} %`;
  notes.push(
    `${name}: private memory after loading ${part("ours", "anonymous")} of the files (Python ${part("theirs", "anonymous")}), at most ${part("ours", "peak")} (Python ${part("theirs", "peak")})`,
  );
}
table(
  ["", "ours: load s", "and forward s", "Python: load s", "and forward s", "times faster", "wanted"],
  rows,
);
console.log(`\n${notes.join("\n")}`);
console.log("wanted: same dtype below 5 %; a cast to float32 below 200 % and one file");
