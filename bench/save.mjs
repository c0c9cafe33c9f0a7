// save_pretrained of a loaded 2.2 GB bfloat16 model in files of 500 MB. Ours is on the disk when it ends, Python's in the page
// cache; SYNC=1 makes Python's wait for the disk too. The folder is a new one each time.
import { rmSync } from "node:fs";
import { join } from "node:path";
import { LlamaForCausalLM } from "torchformers";
import { bigCheckpoint, workFolder } from "./big_checkpoint.mjs";
import { describeMachine, median, PythonPeer, python, requirePython, table } from "./support.mjs";

const folder = await bigCheckpoint();
const out = join(workFolder(), "saved");
const PEER = `
import sys, json, os, time, torch
from transformers import LlamaForCausalLM
model = LlamaForCausalLM.from_pretrained(${JSON.stringify(folder)})
for line in sys.stdin:
    r = json.loads(line)
    start = time.perf_counter()
    model.save_pretrained(r["out"], max_shard_size="500MB")
    plain = time.perf_counter() - start
    for name in os.listdir(r["out"]):
        fd = os.open(os.path.join(r["out"], name), os.O_RDONLY); os.fsync(fd); os.close(fd)
    print(json.dumps([plain, time.perf_counter() - start]), flush=True)
`;
describeMachine({ python, ...requirePython("torch", "transformers") });
const peer = new PythonPeer(PEER, { HF_HUB_OFFLINE: "1", TRANSFORMERS_VERBOSITY: "error" });
const model = await LlamaForCausalLM.from_pretrained(folder);
const sides = { ours: [], theirs: [], synced: [] };
for (let round = -1; round < Number(process.env.ROUNDS ?? 3); round++) {
  rmSync(out, { recursive: true, force: true });
  const start = performance.now();
  await model.save_pretrained(out, { max_shard_size: "500MB" });
  const ours = (performance.now() - start) / 1000;
  rmSync(out, { recursive: true, force: true });
  const [plain, synced] = await peer.ask({ out });
  if (round < 0) continue;
  sides.ours.push(ours);
  sides.theirs.push(plain);
  sides.synced.push(synced);
}
rmSync(out, { recursive: true, force: true });
peer.close();
const ratio = (side) => median(sides.ours.map((x, i) => sides[side][i] / x));
table(
  ["2.2 GB in files of 500 MB", "ours s", "Python s", "times faster", "wanted"],
  [
    ["Python's files in the page cache", median(sides.ours), median(sides.theirs), ratio("theirs"), "1.3x"],
    ["Python's files on the disk", median(sides.ours), median(sides.synced), ratio("synced"), ""],
  ],
);
