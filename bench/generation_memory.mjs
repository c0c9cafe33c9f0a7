// What a process holds after 20 and after 200 generations: private memory after the allocator gave back what is free, bytes
// in use, and live tensors. In a process whose V8 keeps no large reserve for young objects: it would drown the rest.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { AutoModelForCausalLM, torch } from "torchformers";
import { addon } from "../dist/addon/loader.js";
import { describeMachine, table } from "./support.mjs";

const small = "--max-semi-space-size=1";
if (!process.execArgv.includes(small)) {
  const { status } = spawnSync(process.execPath, [small, fileURLToPath(import.meta.url)], {
    stdio: "inherit",
  });
  process.exit(status ?? 1);
}

setFlagsFromString("--expose-gc");
const gc = runInNewContext("gc");

/** Bytes that belong to this process alone, without what V8 keeps in reserve. */
function held() {
  for (let i = 0; i < 3; i++) {
    gc();
    addon().emptyCache(); // sweeps, and malloc_trim
  }
  const [, kilobytes] = /^RssAnon:\s+(\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8"));
  const { heapTotal, heapUsed } = process.memoryUsage();
  return {
    memory: Number(kilobytes) * 1024 - (heapTotal - heapUsed),
    used: torch.memory_stats().heap_bytes + heapUsed,
    tensors: torch.memory_stats().live_tensors,
  };
}

describeMachine();
const model = await AutoModelForCausalLM.from_pretrained(
  fileURLToPath(new URL("../test/fixtures/demo-llama", import.meta.url)),
);
/** Prompts and answers of several lengths, greedy and sampled, to the end and broken off. */
async function generate(i) {
  const prompt = Array.from({ length: 4 + (i % 5) * 9 }, (_, k) => 5 + ((i * 31 + k * 17) % 4000));
  const options = { max_new_tokens: 16 + (i % 3) * 16, eos_token_id: null, do_sample: i % 2 === 1, seed: i };
  if (i % 4 === 3) {
    let steps = 0;
    for await (const { ids } of model.stream([prompt], options)) {
      ids.dispose();
      if (++steps === 5) break;
    }
    return;
  }
  (await model.generate([prompt], options)).dispose();
}
let done = 0;
const until = async (count) => {
  for (; done < count; done++) await generate(done);
  return held();
};
const early = await until(20);
const late = await until(200);
table(
  ["after generations", "20", "200", "ratio", "wanted"],
  [
    ["RssAnon, MB", early.memory / 1e6, late.memory / 1e6, late.memory / early.memory, "below 1.01"],
    ["in use, MB", early.used / 1e6, late.used / 1e6, late.used / early.used, "below 1.01"],
    ["live tensors", `${early.tensors}`, `${late.tensors}`, late.tensors / early.tensors, "1"],
  ],
);
