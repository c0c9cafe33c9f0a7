// How long the event loop is held while models are loaded and run: monitorEventLoopDelay after import, while a tokenizer of
// 128,000 entries and a model are loaded, during `generate`, and during a compiled forward of 512 tokens, each against the
// same histogram of an idle loop beside as many spinning processes as there are threads.
//
//   PHASE_S=3 node bench/event_loop.mjs
import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { AutoModelForCausalLM, AutoTokenizer, torch } from "torchformers";
import { describeMachine, table } from "./support.mjs";

const seconds = Number(process.env.PHASE_S ?? 3);
const demo = fileURLToPath(new URL("../test/fixtures/demo-llama", import.meta.url));

/** A folder with the demo model and a byte-level BPE tokenizer of 128,000 entries, as many merges nearly. */
function largeTokenizer() {
  const folder = mkdtempSync(join(tmpdir(), "torchformers-bench-"));
  cpSync(demo, folder, { recursive: true });
  const file = join(folder, "tokenizer.json");
  const tokenizer = JSON.parse(readFileSync(file, "utf8"));
  const taken = new Set(tokenizer.added_tokens.map(({ id }) => id));
  const letters = Object.keys(tokenizer.model.vocab).filter((token) => [...token].length === 1);
  const vocab = Object.fromEntries(
    Object.entries(tokenizer.model.vocab).filter(([token, id]) => [...token].length === 1 || taken.has(id)),
  );
  let next = Math.max(...Object.values(vocab), ...taken) + 1;
  const merges = [];
  let left = letters;
  while (next < 128000) {
    const made = [];
    for (const a of left)
      for (const b of letters) {
        if (next >= 128000 || a + b in vocab) continue;
        vocab[a + b] = next++;
        merges.push([a, b]);
        made.push(a + b);
      }
    left = made;
  }
  writeFileSync(file, JSON.stringify({ ...tokenizer, model: { ...tokenizer.model, vocab, merges } }));
  return folder;
}

/** Runs `work` again and again for the time, and gives p99 and maximum of the loop's delay in milliseconds. */
async function measure(work) {
  const histogram = monitorEventLoopDelay({ resolution: 1 });
  await new Promise((resolve) => setTimeout(resolve, 50));
  histogram.enable();
  const end = performance.now() + seconds * 1000;
  do await work();
  while (performance.now() < end);
  histogram.disable();
  return [histogram.percentile(99) / 1e6, histogram.max / 1e6];
}

const threads = torch.get_num_threads();
describeMachine({ threads, seconds: `${seconds} each` });
const folder = largeTokenizer();
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
try {
  const spinners = Array.from({ length: threads }, () => spawn(process.execPath, ["-e", "for (;;);"]));
  await wait(500);
  const base = await measure(() => wait(100));
  for (const spinner of spinners) spinner.kill();

  const results = { "an idle loop beside spinners": base, "after import": await measure(() => wait(100)) };
  results["loading, 128,000 entries"] = await measure(async () => {
    const [, model] = await Promise.all([
      AutoTokenizer.from_pretrained(folder),
      AutoModelForCausalLM.from_pretrained(folder),
    ]);
    for (const parameter of model.parameters()) parameter.dispose();
  });
  const model = await AutoModelForCausalLM.from_pretrained(demo);
  const input_ids = torch.arange(512).remainder(900).unsqueeze(0);
  const inputs = {
    input_ids: input_ids.narrow(1, 0, 16),
    attention_mask: torch.ones([1, 16], { dtype: "int64" }),
  };
  results.generate = await measure(async () => {
    await model.generate(inputs, { max_new_tokens: 64, min_new_tokens: 64, do_sample: false });
  });
  results["a compiled forward of 512"] = await measure(async () => {
    const { logits } = await model.run({ input_ids, use_cache: false });
    logits.dispose();
  });
  table(
    ["", "p99 ms", "max ms", "p99 above the idle loop's"],
    Object.entries(results).map(([name, [p99, max]]) => [name, p99, max, p99 - base[0]]),
  );
} finally {
  rmSync(folder, { recursive: true, force: true });
}
console.log("\nwanted: p99 less than 15 ms above the idle loop's, max below 50 ms");
process.exit(0);
