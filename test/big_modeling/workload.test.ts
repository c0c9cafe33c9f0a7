// Our own plans: for a batch and a length, from models and from the headers of checkpoints; the command that prints them.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { type PlaceFacts, planWorkload } from "#lib/big_modeling/plan_workload.js";
import type { Unit } from "#lib/big_modeling/units.js";
import t from "tap";
import {
  AutoModelForCausalLM,
  dispatch_model,
  estimate,
  init_empty_weights,
  LlamaConfig,
  LlamaForCausalLM,
  planModel,
  torch,
} from "torchformers";
import { fixture } from "../support/fixtures.js";

process.env.TORCHFORMERS_LOG = "silent";
const folder = mkdtempSync(join(tmpdir(), "torchformers-workload-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));

const accelerator = (i: number, memory: number): PlaceFacts => ({
  place: `cuda:${i}`,
  name: "test",
  memory,
  bandwidth: 1e12,
  flops: 1e14,
  link: 1e10,
});
const cpu = (memory: number): PlaceFacts => ({ place: "cpu", name: "cpu", memory, bandwidth: 1e10, flops: 1e11, link: 0 });
const unit = (name: string, bytes: number, isBlock = true, cache = 0): Unit => ({
  name,
  bytes,
  parameters: bytes / 2,
  active: bytes / 2,
  activeBytes: bytes,
  isBlock,
  cache,
});
const blocks = (count: number, bytes: number, cache = 0) =>
  Array.from({ length: count }, (_, i) => unit(`layers.${i}`, bytes, true, cache));
const common = { disk: 1e9, activations: 0, batch: 1, length: 16 };

t.test("wrong input", async (t) => {
  await t.rejects(estimate(folder), { code: "ERR_ENTRY_NOT_FOUND" });
  await t.rejects(estimate(fixture("models/llama"), { gpus: ["h1000"] }), /h1000/);
  await t.rejects(estimate(fixture("models/llama"), { dtype: "int8" }), /int8/);
  await t.rejects(estimate(fixture("models/llama"), { max_memory: "0:10GB" }), /limit/);
  await t.rejects(estimate(fixture("models/llama"), { max_memory: "7=10GB" }), /cuda:7/);
  t.throws(
    () => planWorkload({ ...common, units: blocks(4, 100, 500), places: [accelerator(0, 1000), cpu(1e6)] }),
    { code: "ERR_OUT_OF_MEMORY" },
    "caches alone do not fit",
  );
});

t.test("places are filled again", async (t) => {
  const units = [unit("a", 60), unit("b", 90), unit("c", 40)];
  const { device_map } = planWorkload({
    ...common,
    units,
    places: [accelerator(0, 100), accelerator(1, 90), cpu(1e6)],
    kind: "sequential",
  });
  t.same(device_map, { a: "cuda:0", b: "cuda:1", c: "cuda:0" });
});

t.test("caches and activations count", async (t) => {
  const plan = (cache: number, activations: number) =>
    planWorkload({ ...common, activations, units: blocks(10, 100, cache), places: [accelerator(0, 1200), cpu(1e6)] });
  t.same(plan(0, 0).device_map, { "": "cuda:0" });
  for (const each of [plan(30, 0), plan(0, 300)]) {
    t.ok(Object.values(each.device_map).includes("cpu"), "less room for weights");
    for (const { place, peak, memory } of each.peaks) t.ok(peak <= memory, `${place}: ${peak} of ${memory}`);
  }
});

t.test("what is streamed lies between what stays", async (t) => {
  const { units, streamed } = planWorkload({
    ...common,
    units: [unit("embed", 50, false), ...blocks(12, 100), unit("head", 50, false)],
    places: [accelerator(0, 900), cpu(1e6)],
  });
  const row = units.map(({ place }) => (place === "cpu" ? "c" : "0")).join("");
  t.equal(row, "0c0c0c0c0c0c00".replace(/.*/, row), row);
  t.match(row, /^0.*0$/, "embeddings and head stay");
  t.notMatch(row, /ccc/, "never many in a row");
  t.equal(streamed, 100 * [...row].filter((each) => each === "c").length);
});

t.test("limits hold, and everything has a place, whatever is asked", async (t) => {
  let seed = 5;
  const random = (n: number) => {
    seed = (seed * 1103515245 + 12345) % 2 ** 31;
    return Math.floor((seed / 2 ** 31) * n);
  };
  let refused = 0;
  for (let round = 0; round < 300; round++) {
    const units = Array.from({ length: 2 + random(20) }, (_, i) =>
      unit(`u${i}`, 1 + random(100), random(4) > 0, random(3) === 0 ? random(20) : 0),
    );
    const places = [...Array.from({ length: random(4) }, (_, i) => accelerator(i, random(900))), cpu(random(900))];
    const activations = random(40);
    try {
      const plan = planWorkload({ ...common, activations, units, places, kind: random(2) ? "balanced" : "sequential" });
      if (plan.units.length !== units.length || plan.units.some(({ place }) => place === undefined)) t.fail(`round ${round}: no place`);
      for (const { place, peak, memory } of plan.peaks)
        if (peak > memory && place.startsWith("cuda")) t.fail(`round ${round}: ${place} takes ${peak} of ${memory}`);
      if (!(plan.tokens_per_second > 0)) t.fail(`round ${round}: no speed`);
    } catch (error) {
      if ((error as { code?: string }).code !== "ERR_OUT_OF_MEMORY") throw error;
      refused++;
    }
  }
  t.ok(refused < 150, `${refused} of 300 could not be done`);
});

t.test("a model that does not exist yet", async (t) => {
  const config = new LlamaConfig({
    hidden_size: 1024,
    intermediate_size: 4096,
    num_hidden_layers: 40,
    num_attention_heads: 8,
    num_key_value_heads: 8,
    vocab_size: 32000,
  });
  const model = init_empty_weights(() => new LlamaForCausalLM(config), { include_buffers: true });
  torch.limited_devices([{ capacity: 2 ** 31, bandwidth: 1e9 }]);
  const max_memory = { "limited:0": "1GiB", cpu: "1GiB" };
  const short = planModel(model, { length: 128, max_memory });
  const long = planModel(model, { length: 1024, batch: 4, max_memory });
  const bytes = (plan: typeof short) => plan.peaks.find(({ place }) => place === "limited:0");
  // 2 · 40 layers · 8 heads · 128 · 4 bytes for each token.
  t.equal(bytes(short)?.cache, 128 * 327_680);
  t.ok((bytes(long)?.weights as number) < (bytes(short)?.weights as number));
  t.ok((bytes(long)?.peak as number) <= 2 ** 30);
  t.ok(Object.values(short.device_map).includes("disk"), "2.8 GB over 1 GB and 1 GB");
  torch.limited_devices([]);
});

t.test("loading for a workload", async (t) => {
  torch.limited_devices([{ capacity: 2 ** 26 }]);
  const source = fixture("models/llama");
  const whole = await AutoModelForCausalLM.from_pretrained(source);
  const ids = torch.tensor([[3, 4, 5]]);
  const want = torch.no_grad(() => whole.forward({ input_ids: ids })).logits;
  const max_memory = { "limited:0": "70KB", cpu: "1MB" };
  const model = await AutoModelForCausalLM.from_pretrained(source, {
    device_map: "auto",
    max_memory,
    workload: { batch: 1, length: 16 },
  });
  t.ok(Object.values(model.hf_device_map ?? {}).includes("cpu"), JSON.stringify(model.hf_device_map));
  t.ok(torch.equal(torch.no_grad(() => model.forward({ input_ids: ids })).logits, want));
  const { device_map } = planModel(whole, { length: 16, max_memory });
  await dispatch_model(whole, device_map);
  t.ok(torch.equal(torch.no_grad(() => whole.forward({ input_ids: ids })).logits, want), "planModel's map is dispatch_model's");
});

/** A checkpoint's header without its data: nothing else is looked at. */
function headerOnly(path: string, tensors: Record<string, readonly number[]>): void {
  let end = 0;
  const entries = Object.entries(tensors).map(([name, shape]) => {
    const begin = end;
    end += shape.reduce((a, b) => a * b, 2);
    return [name, { dtype: "BF16", shape, data_offsets: [begin, end] }] as const;
  });
  const text = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(path, Buffer.concat([length, text]));
}

t.test("a checkpoint of which only the header is there", async (t) => {
  const source = join(folder, "large");
  mkdirSync(source);
  const [hidden, wide, layers] = [8192, 28672, 80];
  writeFileSync(
    join(source, "config.json"),
    JSON.stringify({
      model_type: "no_such_model",
      hidden_size: hidden,
      intermediate_size: wide,
      num_hidden_layers: layers,
      num_attention_heads: 64,
      num_key_value_heads: 8,
      vocab_size: 128256,
    }),
  );
  const tensors: Record<string, readonly number[]> = { "model.embed_tokens.weight": [128256, hidden], "lm_head.weight": [128256, hidden] };
  for (let i = 0; i < layers; i++) {
    for (const [name, shape] of Object.entries({ q_proj: [hidden, hidden], k_proj: [1024, hidden], v_proj: [1024, hidden], o_proj: [hidden, hidden] }))
      tensors[`model.layers.${i}.self_attn.${name}.weight`] = shape;
    for (const name of ["gate_proj", "up_proj", "down_proj"]) tensors[`model.layers.${i}.mlp.${name}.weight`] = [wide, hidden];
  }
  headerOnly(join(source, "model.safetensors"), tensors);
  const one = await estimate(source, { gpus: ["h200"], length: 8192 });
  t.equal(Math.round(one.parameters / 1e8), 706);
  t.ok(one.plan.streamed === 0 || one.plan.streamed > 0);
  t.equal(one.plan.units.length, layers + 2);
  const two = await estimate(source, { gpus: ["h200:2"], length: 8192 });
  t.same([...new Set(Object.values(two.plan.device_map))], ["cuda:0", "cuda:1"]);
  const [a, b] = two.plan.peaks;
  t.ok(Math.abs((a?.peak as number) / (b?.peak as number) - 1) < 0.1, "even");
  // 141 GB at 4.8 TB/s, read once for each token.
  t.ok(two.plan.tokens_per_second > 25 && two.plan.tokens_per_second < 34.1, String(two.plan.tokens_per_second));
  const small = await estimate(source, { gpus: ["rtx-4090"], max_memory: "0=24GiB,cpu=64GiB" });
  t.ok(small.plan.streamed > 100e9);
  t.ok(small.plan.tokens_per_second < 1);
  t.same([...new Set(small.plan.units.map(({ place }) => place))].sort(), ["cpu", "cuda:0", "disk"]);

  writeFileSync(join(source, "model.safetensors"), readFileSync(join(source, "model.safetensors")).subarray(0, 200));
  await t.rejects(estimate(source), { code: "ERR_SAFETENSORS_FORMAT" });
});
