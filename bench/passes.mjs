// What each pass over recordings gains: all passes against all but that one, in turn, on a small Llama; and all against
// none. A pass whose figure is 1.00 here is for other models, or prepares others.
import { LlamaConfig, LlamaForCausalLM, StaticCache, torch } from "torchformers";
import { describeMachine, median, table } from "./support.mjs";

const PASSES = [
  "dead_code",
  "identities",
  "constants",
  "common",
  "norms",
  "last_positions",
  "residuals",
  "rotary",
  "swiglu",
  "linears",
  "attention",
  "views",
  "in_place",
];
const rounds = Number(process.env.ROUNDS ?? 7);
const BATCH_MS = Number(process.env.BATCH_MS ?? 40);

const cases = {
  "one token, 12 x 64, fp32": { layers: 12, hidden: 64, kv: 4, length: 1, dtype: "float32" },
  "one token, 12 x 64, bf16": { layers: 12, hidden: 64, kv: 2, length: 1, dtype: "bfloat16" },
  "64 tokens, 4 x 256, fp32": { layers: 4, hidden: 256, kv: 2, length: 64, dtype: "float32" },
};

function prepare({ layers, hidden, kv, length, dtype }) {
  const config = new LlamaConfig({
    hidden_size: hidden,
    intermediate_size: Math.round(hidden * 2.7),
    num_attention_heads: 4,
    num_key_value_heads: kv,
    num_hidden_layers: layers,
    vocab_size: 512,
  });
  const model = new LlamaForCausalLM(config).eval().to(dtype);
  const ids = torch.tensor([Array.from({ length }, (_, i) => i + 1)]);
  return (passes) => {
    const cache = new StaticCache({ config, max_cache_len: 128 });
    const step = torch.compile(
      (input_ids, past_key_values) =>
        torch.no_grad(() => model.forward({ input_ids, past_key_values }).logits.select(1, -1)),
      { passes },
    );
    let done = 0;
    return {
      async run() {
        if (done + length > 128) {
          cache.reset();
          done = 0;
        }
        done += length;
        (await step(ids, cache)).dispose();
      },
      operators: () => step.programs().at(-1).length,
    };
  };
}

async function batch(run, count) {
  const start = performance.now();
  for (let i = 0; i < count; i++) await run();
  return ((performance.now() - start) / count) * 1e3;
}

describeMachine({ threads: torch.get_num_threads() });
for (const [name, options] of Object.entries(cases)) {
  const make = prepare(options);
  const sides = new Map([
    ["all", make(true)],
    ["none", make(false)],
    ...PASSES.map((pass) => [pass, make(PASSES.filter((each) => each !== pass))]),
  ]);
  const times = new Map([...sides.keys()].map((key) => [key, []]));
  for (const { run } of sides.values()) for (let i = 0; i < 3; i++) await run();
  const count = Math.max(3, Math.round(BATCH_MS / ((await batch(sides.get("all").run, 5)) / 1e3)));
  for (let round = 0; round < rounds; round++)
    for (const [key, { run }] of sides) times.get(key).push(await batch(run, count));
  const all = times.get("all");
  table(
    [name, "operators", "us", "without / all"],
    [...sides].map(([key, { operators }]) => [
      key === "all" || key === "none" ? key : `without ${key}`,
      `${operators()}`,
      median(times.get(key)),
      median(times.get(key).map((x, i) => x / all[i])),
    ]),
  );
  console.log();
}
