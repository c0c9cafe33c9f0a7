// Models of the library and random ones over limited devices, the CPU and the disk: each gives what the undivided model gives.
import { cpSync, existsSync, mkdtempSync, readdirSync, rmSync, truncateSync, unlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import t from "tap";
import {
  AutoModelForCausalLM,
  dispatch_model,
  get_max_memory,
  nn,
  remove_hook_from_submodules,
  type Tensor,
  torch,
} from "torchformers";
import { fixture } from "../support/fixtures.js";

process.env.TORCHFORMERS_LOG = "silent";
const devices = () => torch.limited_devices([{ capacity: 2 ** 26 }, { capacity: 2 ** 26 }]);
devices();

const folder = mkdtempSync(join(tmpdir(), "torchformers-dispatch-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));

const ids = torch.tensor([[3, 4, 5, 6, 7]]);
const layers = (count: number, place: (i: number) => string) =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`model.layers.${i}`, place(i)]));
const around = (place: string) => ({
  "model.embed_tokens": place,
  "model.norm": place,
  "model.rotary_emb": place,
  lm_head: place,
});

/** All kinds, for a model of so many layers. */
const maps = (count: number): Record<string, string | Record<string, string>> => ({
  auto: "auto",
  sequential: "sequential",
  balanced_low_0: "balanced_low_0",
  "one device": "limited:0",
  "the CPU": { "": "cpu" },
  "two devices": { ...around("limited:0"), ...layers(count, (i) => `limited:${i % 2}`) },
  "device and CPU": { ...around("limited:0"), ...layers(count, (i) => (i === 0 ? "limited:0" : "cpu")) },
  "device, CPU and disk": {
    ...around("cpu"),
    ...layers(count, (i) => ["limited:0", "disk", "cpu"][i % 3] as string),
  },
  "CPU and disk": { ...around("cpu"), ...layers(count, () => "disk") },
  "all on the disk": { "": "disk" },
  "parts of a block": {
    "": "limited:0",
    "model.layers.0.mlp": "cpu",
    "model.layers.1.self_attn.q_proj": "disk",
    lm_head: "disk",
  },
});

t.test("wrong input", async (t) => {
  const load = (options: Record<string, unknown>) =>
    AutoModelForCausalLM.from_pretrained(fixture("models/llama"), options);
  await t.rejects(load({ device_map: "atuo" }), /atuo/);
  await t.rejects(load({ device_map: { "model.layers": "cpu" } }), /embed_tokens/);
  await t.rejects(load({ device_map: "auto", max_memory: { cpu: "lots" } }), /lots/);
  await t.rejects(load({ device_map: "auto", max_memory: { gpu: 1 } }), /gpu/);
  await t.rejects(load({ device_map: "limited:5" }), /limited:5/);
  await t.rejects(load({ device_map: "meta" }), /meta/);
  t.equal(torch.limited_devices([{ capacity: 2 ** 26 }, { capacity: 100 }]).length, 2);
  await t.rejects(
    load({ device_map: "limited:1" }),
    { code: "ERR_OUT_OF_MEMORY" },
    "a device that is too small",
  );
  devices();
});

for (const name of ["llama", "llama-bf16", "llama-rope_llama3", "llama-sharded"]) {
  t.test(name, async (t) => {
    const source = fixture(`models/${name}`);
    const model = await AutoModelForCausalLM.from_pretrained(source);
    const cast = await AutoModelForCausalLM.from_pretrained(source, { dtype: "float64" });
    const run = (each: typeof model) =>
      torch.no_grad(() => each.forward({ input_ids: ids })).logits as Tensor;
    const [want, wantCast] = [run(model), run(cast)];
    const answer = (await model.generate({ input_ids: ids }, { max_new_tokens: 4 })) as Tensor;
    const compiled = (await model.run({ input_ids: ids })).logits as Tensor;
    model.forward({ input_ids: ids, labels: ids }).loss?.backward();

    for (const [kind, device_map] of Object.entries(maps(model.config.num_hidden_layers as number))) {
      const spread = await AutoModelForCausalLM.from_pretrained(source, { device_map });
      t.ok(torch.equal(run(spread), want), `${kind}: the same logits`);
      // Products of one input are computed together where their weights lie together, and sums then round otherwise.
      const ran = (await spread.run({ input_ids: ids })).logits as Tensor;
      t.ok(torch.allclose(ran, compiled, { rtol: 1.3e-6, atol: 1e-5 }), `${kind}: compiled`);
      const written = (await spread.generate({ input_ids: ids }, { max_new_tokens: 4 })) as Tensor;
      t.ok(torch.equal(written, answer), `${kind}: generates the same`);
      const away = [...spread.parameters()].filter(({ is_meta }) => is_meta);
      if (typeof device_map === "object") t.same(spread.hf_device_map, device_map, `${kind}: hf_device_map`);
      if (away.length > 0) t.throws(() => spread.to("cpu"), /dispatched/, `${kind}: to() is refused`);

      const { loss } = spread.forward({ input_ids: ids, labels: ids });
      if (loss?.requires_grad) {
        loss.backward();
        for (const [key, parameter] of spread.named_parameters()) {
          if (parameter.is_meta) continue;
          const grad = model.get_parameter(key).grad as Tensor;
          if (!torch.allclose(parameter.grad as Tensor, grad, 1e-3, 1e-5))
            t.fail(`${kind}: gradient of ${key}`);
        }
      }

      const saved = join(folder, "saved");
      await spread.save_pretrained(saved, { max_shard_size: "20KB" });
      const again = await AutoModelForCausalLM.from_pretrained(saved, { strict: true });
      t.ok(torch.equal(run(again), want), `${kind}: saved whole`);
      t.ok(
        away.every(({ is_meta }) => is_meta),
        `${kind}: saving brought nothing back`,
      );
      again.dispose();
      spread.dispose();

      const converted = await AutoModelForCausalLM.from_pretrained(source, { device_map, dtype: "float64" });
      t.ok(torch.equal(run(converted), wantCast), `${kind}: in another dtype`);
      converted.dispose();
    }
  });
}

t.test("within limits", async (t) => {
  const source = fixture("models/llama");
  const whole = await AutoModelForCausalLM.from_pretrained(source);
  const total = whole.get_memory_footprint();
  const want = torch.no_grad(() => whole.forward({ input_ids: ids })).logits;
  const seen = new Set<string>();
  for (const [a, b, cpu] of [
    [0.7, 0.7, 1],
    [0.6, 0, 1],
    [0.7, 0, 0.5],
    [0, 0, 0.6],
    [0.9, 0.2, 0.3],
  ] as const) {
    const max_memory = { "limited:0": total * a, "limited:1": total * b, cpu: total * cpu };
    const model = await AutoModelForCausalLM.from_pretrained(source, { device_map: "auto", max_memory });
    for (const place of Object.values(model.hf_device_map ?? {})) seen.add(String(place));
    t.ok(
      torch.equal(torch.no_grad(() => model.forward({ input_ids: ids })).logits, want),
      JSON.stringify(model.hf_device_map),
    );
    model.dispose();
  }
  t.same([...seen].sort(), ["cpu", "disk", "limited:0", "limited:1"], "all places were used");
  t.ok("limited:0" in get_max_memory());
});

t.test("tied embeddings apart", async (t) => {
  const source = fixture("models/llama-rope_llama3");
  const whole = await AutoModelForCausalLM.from_pretrained(source);
  const want = torch.no_grad(() => whole.forward({ input_ids: ids })).logits;
  for (const [embed, head] of [
    ["limited:0", "cpu"],
    ["cpu", "limited:0"],
    ["disk", "cpu"],
    ["limited:0", "limited:1"],
    ["cpu", "disk"],
  ] as const) {
    const device_map = { "": "limited:0", "model.embed_tokens": embed, lm_head: head };
    const model = await AutoModelForCausalLM.from_pretrained(source, { device_map });
    t.ok(
      torch.equal(torch.no_grad(() => model.forward({ input_ids: ids })).logits, want),
      `${embed}, ${head}`,
    );
    t.equal(model.get_output_embeddings()?.weight, model.get_input_embeddings().weight, "one parameter");
    const again = await dispatch_model(whole, device_map, {
      offload_dir: join(folder, `tied-${embed}-${head}`.replaceAll(":", "")),
    });
    t.ok(
      torch.equal(torch.no_grad(() => again.forward({ input_ids: ids })).logits, want),
      "dispatch_model too",
    );
    remove_hook_from_submodules(whole);
    model.dispose();
  }
});

t.test("what happens to files", async (t) => {
  const copy = join(folder, "copy");
  cpSync(fixture("models/llama-sharded"), copy, { recursive: true });
  const whole = await AutoModelForCausalLM.from_pretrained(copy);
  const want = torch.no_grad(() => whole.forward({ input_ids: ids })).logits;
  const model = await AutoModelForCausalLM.from_pretrained(copy, { device_map: { "": "disk" } });
  const shards = readdirSync(copy).filter((name) => name.endsWith(".safetensors"));
  for (const name of shards) unlinkSync(join(copy, name));
  t.ok(
    torch.equal(torch.no_grad(() => model.forward({ input_ids: ids })).logits, want),
    "a shard that vanished is mapped still",
  );
  cpSync(fixture("models/llama-sharded"), copy, { recursive: true });
  const shrunk = await AutoModelForCausalLM.from_pretrained(copy, {
    device_map: { "": "disk" },
    dtype: "float64",
  });
  for (const name of shards) truncateSync(join(copy, name), 4096);
  t.throws(
    () =>
      torch
        .no_grad(() => shrunk.forward({ input_ids: ids }))
        .logits.sum()
        .item(),
    "one that shrank is an error",
  );
  t.notOk(existsSync(join(copy, "index.json")), "nothing was written beside it");
});

/** A chain of layers in blocks; some blocks use a weight of a layer inside directly. */
class Block extends nn.Module {
  readonly a: nn.Linear;
  readonly b: nn.Linear;
  constructor(size: number) {
    super();
    this.a = new nn.Linear(size, size);
    this.b = new nn.Linear(size, size, { bias: false });
  }
  override forward(x: Tensor): Tensor {
    return x.add(this.a.forward(x).relu().matmul(this.b.weight));
  }
}

t.test("random maps over random models", async (t) => {
  let seed = 7;
  const random = (n: number) => {
    seed = (seed * 1103515245 + 12345) % 2 ** 31;
    return Math.floor((seed / 2 ** 31) * n);
  };
  const places = ["limited:0", "limited:1", "cpu", "disk"];
  for (let round = 0; round < 40; round++) {
    const size = 3 + random(6);
    const stack: nn.Module[] = [];
    for (let i = 0, count = 2 + random(5); i < count; i++) {
      const kind = random(4);
      if (kind === 0) stack.push(new Block(size));
      else if (kind === 1) stack.push(new nn.Linear(size, size));
      else if (kind === 2) stack.push(new nn.LayerNorm(size));
      else stack.push(new nn.Sequential(new nn.Linear(size, size), new nn.ReLU(), new nn.BatchNorm1d(size)));
    }
    const model = new nn.Sequential(...stack).eval();
    const linears = [...model.modules()].filter((module) => module instanceof nn.Linear);
    if (linears.length > 1 && random(2) === 0)
      (linears[0] as { weight: nn.Parameter }).weight = (linears.at(-1) as nn.Linear).weight;
    const x = torch.randn([2, size]);
    const want = torch.no_grad(() => model.forward(x)) as Tensor;
    const device_map: Record<string, string> = {};
    for (const [name, child] of model.named_children()) {
      if (child instanceof nn.Sequential && random(2) === 0)
        for (const [inner] of child.named_children())
          device_map[`${name}.${inner}`] = places[random(4)] as string;
      else device_map[name] = places[random(4)] as string;
    }
    const offload_dir = join(folder, `round-${round}`);
    await dispatch_model(model, device_map, {
      offload_dir,
      preload_module_classes: ["Block"],
      offload_buffers: random(2) === 0,
    });
    const got = torch.no_grad(() => [model.forward(x), model.forward(x)]) as [Tensor, Tensor];
    t.ok(torch.equal(got[0], want) && torch.equal(got[1], want), JSON.stringify(device_map));
    remove_hook_from_submodules(model);
    t.ok(torch.equal(torch.no_grad(() => model.forward(x)) as Tensor, want), "and after the hooks are gone");
  }
});
