// LoRA adapters against PEFT: first values for a seed, losses, gradients, merging, files in both directions.
import { readFileSync } from "node:fs";
import { cp, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import t, { type Test } from "tap";
import {
  AutoModelForCausalLM,
  get_peft_model,
  LlamaForCausalLM,
  LoraConfig,
  nn,
  PeftModel,
  safetensors,
  type Tensor,
  torch,
} from "torchformers";
import { fixture } from "../support/fixtures.js";

process.env.TORCHFORMERS_LOG = "silent";
const llama = fixture("models/llama");
const folder = (name: string) => join(fixture("adapters"), name);
const golden = await safetensors.load_file(join(fixture("adapters"), "golden.safetensors"));
const { ids: IDS, cases } = JSON.parse(readFileSync(join(fixture("adapters"), "golden.json"), "utf8")) as {
  ids: number[][];
  cases: { name: string; fields: Record<string, unknown> }[];
};
const ids = torch.tensor(IDS);

const value = (name: string): Tensor => {
  const found = golden[name];
  if (found === undefined) throw new Error(`no golden ${name}`);
  return found;
};

const invalid = { code: "ERR_INVALID_ARGUMENT" };

/** The golden tensors below a name. */
const under = (prefix: string): Record<string, Tensor> =>
  Object.fromEntries(
    Object.entries(golden)
      .filter(([name]) => name.startsWith(`${prefix}/`))
      .map(([name, tensor]) => [name.slice(prefix.length + 1), tensor]),
  );

function close(t: Test, actual: Tensor, expected: Tensor, message: string, atol = 1e-6): void {
  t.same(actual.shape, expected.shape, `${message}: shape`);
  if (torch.allclose(actual.to("float32"), expected.to("float32"), { atol, rtol: 1e-5 })) t.pass(message);
  else t.fail(`${message}: off by ${actual.sub(expected).abs().max().item()}`);
}

/** The same tensors under the same names. */
function sameState(
  t: Test,
  actual: Record<string, Tensor>,
  expected: Record<string, Tensor>,
  atol?: number,
): void {
  t.same(Object.keys(actual).sort(), Object.keys(expected).sort(), "names");
  for (const [name, tensor] of Object.entries(expected))
    if (actual[name]) close(t, actual[name], tensor, name, atol);
}

const loss = (model: LlamaForCausalLM): Tensor =>
  model.forward({ input_ids: ids, labels: ids }).loss as Tensor;

/** Loss, gradients, and the result after a step, as the golden script measures them. */
function trainsLike<M extends nn.Module>(
  t: Test,
  model: M,
  forward: (model: M) => Tensor,
  name: string,
): void {
  const before = forward(model);
  close(t, before.detach(), value(`${name}/loss`), "loss");
  before.backward();
  const grads = Object.fromEntries(
    [...model.named_parameters()]
      .filter(([, { grad }]) => grad)
      .map(([key, { grad }]) => [key, grad as Tensor]),
  );
  sameState(t, grads, under(`${name}/grad`), 1e-5);
  torch.no_grad(() => {
    for (const parameter of model.parameters()) {
      if (!parameter.grad) continue;
      parameter.sub_(parameter.grad.mul(0.1));
      parameter.grad = null;
    }
    close(t, forward(model), value(`${name}/after`), "after a step", 1e-5);
  });
}

for (const { name, fields } of cases) {
  t.test(`as PEFT: ${name}`, async (t) => {
    const model = await LlamaForCausalLM.from_pretrained(llama);
    torch.manual_seed(7);
    model.add_adapter(new LoraConfig(fields));
    sameState(t, model.get_adapter_state_dict(), under(`${name}/init`));
    trainsLike(t, model, loss, name);

    const directory = t.testdir();
    await model.save_pretrained(directory);
    const files = ["adapter_config.json", "adapter_model.safetensors", "generation_config.json"];
    t.same((await readdir(directory)).sort(), files);
    const written = JSON.parse(readFileSync(join(directory, "adapter_config.json"), "utf8"));
    for (const key of ["target_modules", "exclude_modules", "modules_to_save"]) written[key]?.sort?.();
    const expected = JSON.parse(readFileSync(join(folder(name), "adapter_config.json"), "utf8"));
    t.same({ ...written, base_model_name_or_path: "" }, { ...expected, base_model_name_or_path: "" });
    const saved = await safetensors.load_file(join(directory, "adapter_model.safetensors"));
    sameState(t, saved, await safetensors.load_file(join(folder(name), "adapter_model.safetensors")), 1e-5);

    torch.no_grad(() => {
      model.merge_adapter();
      close(t, loss(model), value(`${name}/merged`), "merged", 1e-5);
      model.unmerge_adapter();
      close(t, loss(model), value(`${name}/unmerged`), "unmerged", 1e-5);
    });

    const again = await LlamaForCausalLM.from_pretrained(llama);
    const { missing_keys } = await again.load_adapter(folder(name));
    t.same(missing_keys, []);
    t.notOk([...again.parameters()].some((p) => p.requires_grad && p.shape.length > 5));
    torch.no_grad(() => close(t, loss(again), value(`${name}/after`), "PEFT's file", 1e-5));
  });
}

const logits = (model: LlamaForCausalLM): Tensor =>
  torch.no_grad(() => model.forward({ input_ids: ids }).logits);

t.test("several adapters at once, each alone, none, deleted", async (t) => {
  const model = await LlamaForCausalLM.from_pretrained(llama);
  const plain = logits(model);
  await model.load_adapter(folder("list"), "a");
  await model.load_adapter(folder("regex"), { adapter_name: "b" });
  t.same(model.active_adapters(), ["b"]);
  for (const names of [["a", "b"], ["b", "a"], ["a"], ["b"]]) {
    model.set_adapter(names);
    close(t, logits(model), value(`several/${names.join("+")}`), names.join());
  }
  model.set_adapter(["a", "b"]);
  model.merge_adapter({ adapter_names: ["b"], safe_merge: true });
  model.merge_adapter();
  close(t, logits(model), value("several/a+b"), "both merged", 1e-5);
  model.disable_adapters();
  close(t, logits(model), value("several/none"), "disabled", 1e-5);
  model.enable_adapters();
  close(t, logits(model), value("several/a+b"), "enabled again", 1e-5);
  model.delete_adapter("b");
  close(t, logits(model), value("several/a"), "b deleted", 1e-5);
  model.delete_adapter(["a"]);
  t.notOk(model._hf_peft_config_loaded);
  t.same(
    Object.keys(model.state_dict()),
    Object.keys((await LlamaForCausalLM.from_pretrained(llama)).state_dict()),
  );
  close(t, logits(model), plain, "as before", 1e-5);
  t.throws(() => model.active_adapters(), { code: "ERR_INVALID_ARGUMENT", message: /has no adapter/ });
});

/** As in the golden script. */
class Net extends nn.Module {
  readonly embed: nn.Embedding;
  readonly conv: nn.Conv2d;
  readonly point: nn.Conv2d;
  readonly line: nn.Conv1d;
  readonly fc: nn.Linear;
  readonly score: nn.Linear;

  constructor() {
    super();
    this.embed = new nn.Embedding(10, 6, { padding_idx: 0 });
    this.conv = new nn.Conv2d(1, 4, 3, { stride: 2, padding: 1 });
    this.point = new nn.Conv2d(4, 4, 1);
    this.line = new nn.Conv1d(2, 4, 3);
    this.fc = new nn.Linear(6, 5);
    this.score = new nn.Linear(5, 3);
  }

  override forward(ids: Tensor, image: Tensor): Tensor {
    const h = this.fc.forward(this.embed.forward(ids)).relu();
    const p = this.point.forward(this.conv.forward(image)).tanh();
    const line = this.line.forward(p.flatten(2).transpose(1, 2).narrow(1, 0, 2));
    return this.score
      .forward(h)
      .sum([1])
      .add(p.mean([1, 2, 3]).unsqueeze(1))
      .add(line.mean([1, 2]).unsqueeze(1));
  }
}

const netIds = torch.tensor([
  [1, 2, 0],
  [4, 9, 9],
]);
const netLoss = (model: { forward(ids: Tensor, image: Tensor): Tensor }) =>
  model.forward(netIds, value("net/image")).square().sum();

function baseNet(): Net {
  const net = new Net();
  net.load_state_dict(under("net/base"));
  return net;
}

t.test("any module: get_peft_model", async (t) => {
  const net = baseNet();
  const plain = netLoss(net).item();
  torch.manual_seed(11);
  const config = new LoraConfig({
    modules_to_save: ["score"],
    r: 2,
    lora_alpha: 3,
    target_modules: ["embed", "conv", "point", "line", "fc"],
    bias: "lora_only",
    init_lora_weights: false,
  });
  const model = get_peft_model(net, config);
  model.eval();
  sameState(t, model.state_dict(), under("net/init"));
  t.same(model.get_nb_trainable_parameters(), value("net/count").tolist());
  trainsLike(t, model, netLoss, "net");
  const directory = t.testdir();
  await model.save_pretrained(directory);
  const saved = await safetensors.load_file(join(directory, "adapter_model.safetensors"));
  sameState(t, saved, await safetensors.load_file(join(folder("net"), "adapter_model.safetensors")), 1e-5);
  const text = (dir: string) => JSON.parse(readFileSync(join(dir, "adapter_config.json"), "utf8"));
  t.same({ ...text(directory), target_modules: [] }, { ...text(folder("net")), target_modules: [] });
  torch.no_grad(() => {
    model.merge_adapter();
    close(t, netLoss(model), value("net/merged"), "merged", 1e-4);
    model.unmerge_adapter();
    close(t, netLoss(model), value("net/unmerged"), "unmerged", 1e-4);
  });

  const again = await PeftModel.from_pretrained(baseNet(), folder("net"));
  close(t, netLoss(again).detach(), value("net/after"), "PEFT's file", 1e-4);
  const trainable = [...again.named_parameters()].filter(([, parameter]) => parameter.requires_grad);
  t.ok(
    trainable.every(([name]) => name.endsWith(".base_layer.bias")),
    "as PEFT: only the biases that it was to train",
  );
  const without = again.disable_adapter(() => netLoss(again).item()) as number;
  t.not(without, plain, "biases are the trained ones");
  const merged = again.merge_and_unload();
  t.ok(merged.fc instanceof nn.Linear && merged.score instanceof nn.Linear);
  close(t, netLoss(merged).detach(), value("net/merged"), "merged for good", 1e-4);
  t.same(Object.keys(merged.state_dict()), Object.keys(new Net().state_dict()));
});

t.test("any module: all biases, and one of the second matrix", async (t) => {
  const net = new nn.Sequential(new nn.Linear(4, 5), new nn.ReLU(), new nn.Linear(5, 2));
  net.load_state_dict(under("biased/base"));
  torch.manual_seed(5);
  const config = new LoraConfig({
    r: 2,
    target_modules: ["0"],
    bias: "all",
    lora_bias: true,
    init_lora_weights: false,
  });
  const model = get_peft_model(net, config, "default");
  sameState(t, model.state_dict(), under("biased/init"));
  const lossOf = (model: nn.Module) => (model as nn.Layer).forward(value("biased/x")).square().sum();
  trainsLike(t, model, lossOf, "biased");
  torch.no_grad(() => {
    model.merge_adapter({ safe_merge: true });
    close(t, lossOf(model), value("biased/merged"), "merged", 1e-5);
    model.unmerge_adapter();
    close(t, lossOf(model), value("biased/unmerged"), "unmerged", 1e-5);
  });
  const directory = t.testdir();
  await model.save_pretrained(directory);
  const saved = await safetensors.load_file(join(directory, "adapter_model.safetensors"));
  sameState(t, saved, await safetensors.load_file(join(folder("biased"), "adapter_model.safetensors")), 1e-5);
});

t.test("several adapters of any module: saved into folders, loaded beside one another", async (t) => {
  const model = get_peft_model(
    baseNet(),
    new LoraConfig({ target_modules: ["fc"], init_lora_weights: false }),
  );
  model.add_adapter("other", new LoraConfig({ r: 3, target_modules: ["conv"], init_lora_weights: false }));
  t.same(model.active_adapters, ["default"]);
  t.ok(model.get_base_model().fc.weight.requires_grad === false);
  model.set_adapter("other");
  const result = netLoss(model).item();
  const directory = t.testdir();
  await model.save_pretrained(directory);
  t.same((await readdir(directory)).sort(), ["adapter_config.json", "adapter_model.safetensors", "other"]);
  const again = await PeftModel.from_pretrained(baseNet(), directory);
  await again.load_adapter(join(directory, "other"), "second", { is_trainable: true });
  t.same(again.active_adapters, ["default"]);
  again.set_adapter("second");
  t.equal(netLoss(again).item(), result);
  again.delete_adapter("second");
  t.same(again.active_adapters, ["default"]);
  t.throws(() => again.set_adapter("second"), { code: "ERR_INVALID_ARGUMENT" });
  await t.rejects(again.load_adapter(directory, "default"), /already/);
});

t.test("a wrapped model generates", async (t) => {
  const model = await PeftModel.from_pretrained(
    await LlamaForCausalLM.from_pretrained(llama),
    folder("list"),
  );
  const alone = await LlamaForCausalLM.from_pretrained(llama);
  await alone.load_adapter(folder("list"));
  const options = { max_new_tokens: 5, do_sample: false };
  t.same(
    (await model.generate([3, 7, 11], options)).tolist(),
    (await alone.generate([3, 7, 11], options)).tolist(),
  );
  t.throws(() => get_peft_model(baseNet(), new LoraConfig({ target_modules: ["fc"] })).generate, invalid);
});

t.test("a folder with an adapter is a model", async (t) => {
  const dir = t.testdir();
  await cp(folder("list"), join(dir, "adapter"), { recursive: true });
  const config = JSON.parse(readFileSync(join(folder("list"), "adapter_config.json"), "utf8"));
  const write = (base: string | null) =>
    writeFile(
      join(dir, "adapter/adapter_config.json"),
      JSON.stringify({ ...config, base_model_name_or_path: base }),
    );
  await write(llama);
  const model = await AutoModelForCausalLM.from_pretrained(join(dir, "adapter"));
  t.ok(model instanceof LlamaForCausalLM);
  t.same((model as LlamaForCausalLM).active_adapters(), ["default"]);
  close(t, logits(model as LlamaForCausalLM), value("several/a"), "through an Auto class");
  const named = await LlamaForCausalLM.from_pretrained(join(dir, "adapter"), {
    adapter_name: "x",
    dtype: "bfloat16",
  });
  t.same(named.active_adapters(), ["x"]);
  close(t, logits(named), value("several/bf16"), "bfloat16, as the reference", 2e-3);
  t.ok([...named.named_parameters()].every(([, parameter]) => parameter.dtype === "bfloat16"));

  await write(null);
  await t.rejects(LlamaForCausalLM.from_pretrained(join(dir, "adapter")), {
    code: "ERR_CONFIG",
    message: /base_model_name_or_path/,
  });
  // A whole model with an adapter in the same folder.
  await cp(llama, join(dir, "both"), { recursive: true });
  await cp(folder("list"), join(dir, "both"), { recursive: true });
  close(
    t,
    logits((await AutoModelForCausalLM.from_pretrained(join(dir, "both"))) as LlamaForCausalLM),
    value("several/a"),
    "both",
  );
});

t.test("refused: what does not fit, and what is not implemented", async (t) => {
  const model = await LlamaForCausalLM.from_pretrained(llama);
  const names = Object.keys(model.state_dict());
  const trained = [...model.parameters()].map((parameter) => parameter.requires_grad);
  const state = await safetensors.load_file(join(folder("list"), "adapter_model.safetensors"));
  const config = await LoraConfig.from_pretrained(folder("list"));
  const load = (adapter_state_dict: Record<string, Tensor>, peft_config: LoraConfig = config) =>
    model.load_adapter(null, { peft_config, adapter_state_dict });
  await t.rejects(load({ ...state, "base_model.model.model.layers.9.lora_A.weight": torch.ones([2, 2]) }), {
    code: "ERR_CHECKPOINT",
    unexpected_keys: ["base_model.model.model.layers.9.lora_A.weight"],
  });
  await t.rejects(load(state, new LoraConfig({ ...config.to_dict(), r: 3 })), {
    code: "ERR_CHECKPOINT",
    message: /shapes differ/,
  });
  t.same(Object.keys(model.state_dict()), names, "the model is as it was");
  t.same(
    [...model.parameters()].map((parameter) => parameter.requires_grad),
    trained,
  );
  const [first, ...others] = Object.keys(state);
  const fewer = Object.fromEntries(others.map((name) => [name, state[name] as Tensor]));
  const { missing_keys } = await load(fewer);
  t.equal(missing_keys.length, 1);
  t.ok(first?.includes(missing_keys[0]?.split(".lora_A")[0] as string));
  t.throws(() => model.add_adapter(config), /already/);
  t.throws(() => model.set_adapter("defautl"), { ...invalid, suggestion: "default" });
  t.throws(() => model.add_adapter(config, "a.b"), /name of an adapter/);
  t.throws(() => model.add_adapter({ r: 8 } as never, "b"), /LoraConfig/);
  await t.rejects(model.load_adapter(folder("list"), { adaptername: "x" } as never), {
    ...invalid,
    suggestion: "adapter_name",
  });
  await t.rejects(model.load_adapter(llama, "x"), { code: "ERR_ENTRY_NOT_FOUND" });
  await t.rejects(model.load_adapter(undefined, "x"), { code: "ERR_INVALID_ARGUMENT" });

  t.throws(() => new LoraConfig({ target_module: ["q"] }), { ...invalid, suggestion: "target_modules" });
  t.throws(() => new LoraConfig({ r: 0 }), /positive integer/);
  t.throws(() => new LoraConfig({ target_modules: "q.*", layers_to_transform: [1] }), /needs target_modules/);
  t.throws(() => new LoraConfig({ layers_pattern: "layers" }), /layers_to_transform/);
  t.throws(() => new LoraConfig({ task_type: "CHAT" as never }), /CAUSAL_LM/);
  const unsupported = { code: "ERR_UNSUPPORTED_ADAPTER" };
  t.throws(() => new LoraConfig({ init_lora_weights: "pissa" }), { ...unsupported, message: /pissa/ });
  t.throws(() => new LoraConfig({ trainable_token_indices: [1] }), unsupported);
  t.throws(() => LoraConfig.from_dict({ peft_type: "IA3" }), { ...unsupported, message: /IA3/ });
  t.throws(() => LoraConfig.from_dict({ peft_type: "NEW" }), { ...unsupported, message: /NEW/ });
  t.throws(() => LoraConfig.from_dict({}), { code: "ERR_CONFIG" });
  t.same(LoraConfig.from_dict({ peft_type: "LORA", r: 3, of_tomorrow: 1 }).r, 3);

  const fresh = await LlamaForCausalLM.from_pretrained(llama);
  const add = (fields: Record<string, unknown>) => () => fresh.add_adapter(new LoraConfig(fields));
  t.throws(add({ target_modules: ["nothing"] }), /No module/);
  t.throws(add({ target_modules: ["q_proj"], exclude_modules: ".*" }), /excluded/);
  t.throws(add({ target_modules: ["mlp"] }), /LlamaMLP.*cannot have an adapter/);
  t.throws(add({ target_modules: "(q" }), /regular expression/);
  t.throws(add({ target_modules: ["lm_head"], modules_to_save: ["layers"] }), /saved as a whole/);
  t.same(Object.keys(fresh.state_dict()), names, "nothing was changed");
  t.throws(() => fresh.merge_adapter(), /no adapter/);
  t.throws(() => get_peft_model(new nn.Linear(2, 2), new LoraConfig()), /target_modules/);
  const grouped = new nn.Sequential(new nn.Conv2d(4, 4, 3, { groups: 2 }));
  t.throws(() => get_peft_model(grouped, new LoraConfig({ r: 3, target_modules: ["0"] })), /groups/);
});

t.test("recordings follow the adapters", async (t) => {
  const model = await LlamaForCausalLM.from_pretrained(llama);
  const run = async () => (await model.run({ input_ids: ids })).logits;
  const compiled = torch.compile((input_ids: Tensor) =>
    torch.no_grad(() => model.forward({ input_ids }).logits),
  );
  const generated = async () =>
    (await model.generate({ input_ids: ids }, { max_new_tokens: 6, do_sample: false })).tolist();
  const eagerly = async () =>
    (
      await model.generate({ input_ids: ids }, { max_new_tokens: 6, do_sample: false, mode: "eager" })
    ).tolist();
  const agree = async (message: string) => {
    const expected = logits(model);
    close(t, await run(), expected, `run: ${message}`, 1e-5);
    close(t, await compiled(ids), expected, `compiled: ${message}`, 1e-5);
    t.same(await generated(), await eagerly(), `generate: ${message}`);
    return expected;
  };
  await agree("none");
  await model.load_adapter(folder("list"), "a");
  const a = await agree("loaded");
  model.disable_adapters();
  close(t, await agree("disabled"), value("several/none"), "disabled");
  model.enable_adapters();
  await model.load_adapter(folder("layers"), "saved");
  await agree("a module saved as a whole");
  model.set_adapter("a");
  close(t, await agree("chosen"), a, "chosen again");
  model.merge_adapter();
  close(t, await agree("merged"), a, "merged", 1e-5);
  model.unmerge_adapter();
  await agree("unmerged");
  model.set_adapter(["a"]);
  for (const module of model.modules())
    if ("set_scale" in module) (module as { set_scale(name: string, scale: number): void }).set_scale("a", 3);
  t.notOk(torch.allclose(await agree("scaled"), a, { atol: 1e-3 }));
  model.delete_adapter(["a", "saved"]);
  close(t, await agree("deleted"), value("several/none"), "deleted", 1e-5);
});

t.test("swapping in place keeps recordings", async (t) => {
  const model = await LlamaForCausalLM.from_pretrained(llama);
  model.enable_peft_hotswap({ target_rank: 6 });
  await model.load_adapter(folder("all_linear"));
  const compiled = torch.compile((input_ids: Tensor) =>
    torch.no_grad(() => model.forward({ input_ids }).logits),
  );
  const alone = async (name: string) => {
    const other = await LlamaForCausalLM.from_pretrained(llama);
    await other.load_adapter(folder(name));
    return logits(other);
  };
  close(t, await compiled(ids), await alone("all_linear"), "the first", 1e-5);
  for (const name of ["regex", "list", "default_targets", "all_linear"]) {
    await model.load_adapter(folder(name));
    close(t, await compiled(ids), await alone(name), name, 1e-5);
  }
  t.same(compiled.counters.recordings, 1);
  await t.rejects(model.load_adapter(folder("embeddings")), { code: "ERR_CHECKPOINT" });
  await t.rejects(model.load_adapter(folder("dora")), /use_dora/);

  const plain = await LlamaForCausalLM.from_pretrained(llama);
  await t.rejects(plain.load_adapter(folder("list"), { hotswap: true }), /no adapter/);
  await plain.load_adapter(folder("default_targets"));
  await t.rejects(plain.load_adapter(folder("regex"), { hotswap: true }), { code: "ERR_CHECKPOINT" });
  t.throws(() => plain.enable_peft_hotswap(8), /before the first/);
});
