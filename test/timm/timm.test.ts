// timm's ResNets against what timm computes for the same seeds (scripts/goldens/timm_resnet.py), and weights from folders and hubs.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import {
  AutoConfig,
  AutoModel,
  AutoModelForImageClassification,
  nn,
  safetensors,
  type Tensor,
  TimmWrapperConfig,
  TimmWrapperForImageClassification,
  TimmWrapperModel,
  timm,
  torch,
} from "torchformers";
import { fixture } from "../support/fixtures.js";
import { compiled, replay } from "../support/golden.js";
import { hubFor } from "../support/hub.js";

const folder = fixture("timm");
const cases = JSON.parse(readFileSync(join(folder, "cases.json"), "utf8"));
const golden = await safetensors.load_file(join(folder, "golden.safetensors"));
const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");
const invalid = { code: "ERR_INVALID_ARGUMENT" };

function close(t: Test, actual: Tensor | null | undefined, name: string): void {
  const expected = golden[name];
  if (!actual || !expected) {
    t.fail(`${name} is missing`);
    return;
  }
  t.same(actual.shape, expected.shape, `${name}: shape`);
  const same = torch.allclose(actual.to("float64"), expected.to("float64"), { atol: 1e-4, rtol: 1e-4 });
  t.ok(same, `${name}: off by ${actual.sub(expected).abs().max().item()}`);
}

/** A small model as timm saves it for the hub. */
async function saved(
  directory: string,
  config: object,
  options: timm.ResNetOptions = {},
): Promise<timm.ResNet> {
  mkdirSync(directory, { recursive: true });
  torch.manual_seed(0);
  const block = ["BasicBlock", "BasicBlock", "Bottleneck", "BasicBlock"] as const;
  const settings = { stem_width: 16, stem_type: "deep", avg_down: true, channels: [32, 48, 48, 96] } as const;
  const model = new timm.ResNet(block, [1, 1, 1, 1], { ...settings, ...options });
  await safetensors.save_file(model.state_dict(), join(directory, "model.safetensors"));
  writeFileSync(join(directory, "config.json"), JSON.stringify(config));
  return model.eval();
}

t.test("refusals", async (t) => {
  await t.rejects(timm.create_model("resnet50e"), { ...invalid, suggestion: /resnet50/ });
  await t.rejects(timm.create_model("seresnet50"), { ...invalid, message: /seresnet50/ });
  await t.rejects(timm.create_model("resnet50.a9_in1k"), { ...invalid, message: /a9_in1k/ });
  await t.rejects(timm.create_model("resnet18", { num_class: 3 } as object), {
    ...invalid,
    suggestion: "num_classes",
  });
  await t.rejects(timm.create_model("resnet50t", { pretrained: true, channels: [4, 4, 4, 4] }), {
    ...invalid,
    message: /no pretrained weights for resnet50t/,
  });
  await t.rejects(timm.create_model("remote:resnet18"), { ...invalid, message: /names no model/ });
  await t.rejects(timm.create_model(`local-dir:${t.testdir()}`), { code: "ERR_ENTRY_NOT_FOUND" });
  await t.rejects(timm.create_model(`local-dir:${t.testdir({ "config.json": "{}" })}`), {
    code: "ERR_CHECKPOINT",
    message: /architecture/,
  });
  t.throws(() => new timm.ResNet("BasicBlock", [1, 1, 1, 1], { cardinality: 2 }), {
    ...invalid,
    message: /cardinality/,
  });
  t.throws(() => new timm.ResNet("BasicBlock", [1, 1]), { ...invalid, message: /one entry per stage/ });
  t.throws(() => new timm.ResNet("Block" as "BasicBlock", [1, 1, 1, 1]), { ...invalid, message: /'Block'/ });
  t.throws(() => new timm.ResNet("BasicBlock", [1, 1, 1, 1], { output_stride: 4 }), {
    ...invalid,
    message: /output_stride/,
  });
  t.throws(() => new timm.ResNet("BasicBlock", [1, 1, 1, 1], { global_pool: "mean" as "avg" }), {
    ...invalid,
    message: /'mean'/,
  });
  t.throws(() => new timm.ResNet("BasicBlock", [1, 1, 1, 1], { act_layer: "rlu" }), {
    ...invalid,
    suggestion: "relu",
  });
  const model = new timm.ResNet("BasicBlock", [1, 1, 1, 1], { channels: [4, 4, 4, 4], num_classes: 2 });
  t.throws(() => model.load_state_dict(new nn.Linear(2, 2).state_dict()), { code: "ERR_CHECKPOINT" });
  t.throws(() => model.forward_intermediates(torch.zeros([1, 3, 32, 32]), { indices: [7] }), {
    ...invalid,
    message: /\[7\]/,
  });
});

await replay(t, "models/resnet_d");
await replay(t, "models/resnet_d", { mode: compiled });

for (const { name, block, layers, planes, image, train, args, seed, after, ...expected } of cases.models) {
  t.test(name, async (t) => {
    torch.manual_seed(seed);
    const model = new timm.ResNet(block, layers, {
      ...args,
      channels: planes,
      num_classes: expected.num_classes,
    });
    t.ok(Math.abs(torch.rand([1]).item() - after) < 1e-6, "as many draws for fresh weights");
    const sizes = [...model.parameters()].map((p) => p.detach().to("float64").abs().sum().item() as number);
    const total = golden[`${name}/initial`]?.item() as number;
    t.ok(Math.abs(sizes.reduce((a, b) => a + b) / total - 1) < 1e-6, "fresh weights");
    t.equal(sha256(Object.keys(model.state_dict()).join("\n")), expected.keys, "names of the state dict");
    t.same(
      model.feature_info.map(({ num_chs }) => num_chs),
      expected.channels,
    );
    t.same(
      model.feature_info.map(({ reduction }) => reduction),
      expected.reductions,
    );
    torch.manual_seed(seed + 1);
    torch.no_grad(() => {
      for (const parameter of model.parameters()) parameter.add_(torch.randn(parameter.shape).mul(0.2));
      for (const buffer of model.buffers())
        if (buffer.is_floating_point()) buffer.add_(torch.rand(buffer.shape));
    });
    model.train(train);
    torch.manual_seed(seed + 2);
    const x = torch.randn(image);
    torch.manual_seed(seed + 3);
    const logits = model.forward(x);
    close(t, logits, `${name}/logits`);
    logits.pow(2).mean().backward();
    const norms = [...model.parameters()].map(
      (p) => p.grad?.to("float64").norm() ?? torch.tensor(-1, { dtype: "float64" }),
    );
    close(t, torch.stack(norms), `${name}/gradients`);
    const conv1 = model.conv1 instanceof nn.Sequential ? model.conv1[0] : model.conv1;
    close(t, (conv1 as nn.Conv2d).weight.grad?.to("float64").sum(0), `${name}/conv1`);
    if (train) return;
    torch.no_grad(() => {
      const [last, features] = model.forward_intermediates(x);
      close(t, model.forward_head(last, { pre_logits: true }), `${name}/pooled`);
      for (const [i, feature] of features.entries())
        close(t, feature.to("float64").mean([2, 3]), `${name}/feature${i}`);
    });
  });
}

t.test("every name", async (t) => {
  t.same(timm.list_models(), Object.keys(cases.names).sort());
  for (const [name, expected] of Object.entries(cases.names) as [string, Record<string, unknown>][]) {
    torch.set_default_device("meta");
    const model = await timm.create_model(name);
    torch.set_default_device(null);
    const state = Object.entries(model.state_dict());
    const lines = state.map(([key, { shape }]) => `${key} [${shape.join(", ")}]`).join("\n");
    t.equal(sha256(lines), expected.hash, name);
    const { hash: _, parameters: __, ...cfg } = expected;
    t.match(
      { ...model.pretrained_cfg, hf_hub_id: model.pretrained_cfg.hf_hub_id ?? null },
      cfg,
      `${name}: weights`,
    );
  }
  t.ok(timm.is_model("resnet50d.ra2_in1k"));
  t.notOk(timm.is_model("vit_base"));
  t.match(timm.list_models("resnet50d*", { pretrained: true }), ["resnet50d.a1_in1k"]);
});

t.test("features, classifiers, checkpoints", async (t) => {
  torch.manual_seed(0);
  const model = new timm.ResNet("BasicBlock", [1, 1, 1, 1], { channels: [4, 6, 8, 10], num_classes: 3 });
  const x = torch.randn([2, 3, 32, 32]);
  model.eval();
  const [, all] = model.forward_intermediates(x);
  t.same(
    all.map(({ shape }) => shape[1]),
    [64, 4, 6, 8, 10],
  );
  const [last, two] = model.forward_intermediates(x, { indices: [1, -2], stop_early: true });
  t.same(
    two.map(({ shape }) => shape[1]),
    [4, 8],
  );
  t.equal(last.shape[1], 8, "nothing after the last one that is wanted");
  t.equal(model.forward_intermediates(x, { indices: 2 })[1].length, 2);
  t.same(model.forward_head(model.forward_features(x), { pre_logits: true }).shape, [2, 10]);
  model.reset_classifier(7, "catavgmax");
  t.same([model.forward(x).shape, model.num_classes, model.head_hidden_size], [[2, 7], 7, 20]);
  t.equal((model.get_classifier() as nn.Linear).out_features, 7);
  model.reset_classifier(0);
  t.same(model.forward(x).shape, [2, 20]);

  // Checkpointed blocks give the same gradients.
  model.train();
  const gradients = (enable: boolean) => {
    model.zero_grad();
    model.set_grad_checkpointing({ enable });
    model.forward(x).sum().backward();
    return [...model.parameters()].map((p) => p.grad?.norm().item());
  };
  const plain = gradients(false);
  t.same(gradients(true), plain);
});

t.test("weights from folders", async (t) => {
  const root = t.testdir();
  const directory = join(root, "mine");
  const pretrained_cfg = {
    num_classes: 4,
    input_size: [3, 64, 64],
    first_conv: "conv1.0",
    classifier: "fc",
    tag: "mine",
  };
  const model = await saved(
    directory,
    { architecture: "test_resnet", num_classes: 4, pretrained_cfg },
    { num_classes: 4 },
  );
  const x = torch.randn([1, 3, 64, 64]);
  const name = `local-dir:${directory}`;
  const same = await timm.create_model(name, { pretrained: true });
  t.ok(torch.equal(same.eval().forward(x), model.forward(x)));
  t.match(same.pretrained_cfg, { num_classes: 4, tag: "mine", file: directory });
  const other = await timm.create_model(name, { pretrained: true, num_classes: 9 });
  t.same(other.eval().forward(x).shape, [1, 9], "a fresh classifier");
  t.ok(torch.equal(other.forward_features(x), model.forward_features(x)));
  const grey = await timm.create_model(name, { pretrained: true, in_chans: 1 });
  const conv = (m: timm.ResNet) => (m.conv1 as nn.Sequential)[0] as unknown as nn.Conv2d;
  t.ok(
    torch.allclose(conv(grey).weight, conv(model).weight.sum(1, true)),
    "a grey image is the sum of its channels",
  );
  t.ok(
    torch.equal(
      (await timm.create_model(name)).fc.get_parameter("weight"),
      model.fc.get_parameter("weight"),
    ) === false,
  );
  const again = await timm.create_model("test_resnet", {
    num_classes: 4,
    checkpoint_path: join(directory, "model.safetensors"),
  });
  t.ok(torch.equal(again.eval().forward(x), model.forward(x)));
  for (const channels of [1, 2, 5, 6]) {
    torch.manual_seed(1);
    close(t, timm.adapt_input_conv(channels, torch.randn([4, 3, 2, 2])), `adapted/${channels}`);
  }

  // The older config.json is a pretrained_cfg alone.
  const older = join(root, "older");
  await saved(
    older,
    { architecture: "test_resnet", ...pretrained_cfg, labels: ["a", "b", "c", "d"] },
    { num_classes: 4 },
  );
  const old = await timm.create_model(`local-dir:${older}`, { pretrained: true });
  t.same([old.num_classes, old.pretrained_cfg.label_names], [4, ["a", "b", "c", "d"]]);
  // Arguments that are stored are those of the model.
  const wide = join(root, "wide");
  await saved(
    wide,
    {
      architecture: "test_resnet",
      num_classes: 4,
      pretrained_cfg,
      model_args: { stem_width: 8, in_chans: 2 },
    },
    { num_classes: 4, stem_width: 8, in_chans: 2 },
  );
  const built = await timm.create_model(`local-dir:${wide}`, { pretrained: true });
  t.equal(built.in_chans, 2);
  await t.rejects(timm.create_model(name, { pretrained: true, stem_width: 8 }), { code: "ERR_CHECKPOINT" });
});

t.test("timm's folders by Auto classes", async (t) => {
  const wrapper = fixture("models/resnet_d/timm_wrapper");
  const config = await AutoConfig.from_pretrained(wrapper);
  t.equal(config.to_json_string(), readFileSync(join(wrapper, "config.json"), "utf8"), "config.json");
  t.equal(config.num_labels, 10);

  const root = t.testdir();
  const timms = join(root, "timms");
  const pretrained_cfg = { num_classes: 3, input_size: [3, 64, 64], first_conv: "conv1.0", classifier: "fc" };
  const description = {
    architecture: "test_resnet",
    num_classes: 3,
    label_names: ["a", "b", "c"],
    pretrained_cfg,
  };
  const model = await saved(timms, description, { num_classes: 3 });
  const pixel_values = torch.randn([2, 3, 64, 64]);
  const expected = torch.no_grad(() => model.forward(pixel_values));
  const [loaded, info] = await AutoModelForImageClassification.from_pretrained(timms, {
    output_loading_info: true,
  });
  t.ok(loaded instanceof TimmWrapperForImageClassification);
  t.same([[...info.missing_keys], [...info.unexpected_keys]], [[], []], "names without the wrapper's prefix");
  t.same(loaded.config.id2label, { 0: "a", 1: "b", 2: "c" });
  const out = loaded.forward({ pixel_values, labels: torch.tensor([0, 2]), output_hidden_states: [0, -1] });
  t.ok(torch.allclose(out.logits, expected, { atol: 1e-5 }));
  t.ok(torch.allclose(out.loss as Tensor, nn.functional.cross_entropy(expected, torch.tensor([0, 2]))));
  t.same(
    out.hidden_states?.map(({ shape }) => shape[1]),
    [32, 96],
  );
  t.throws(() => loaded.forward({ pixel_values, output_attentions: true }), {
    ...invalid,
    message: /attention weights/,
  });
  await loaded.save_pretrained(join(root, "saved"));
  const again = await AutoModelForImageClassification.from_pretrained(join(root, "saved"));
  t.ok(torch.equal(again.forward({ pixel_values }).logits, out.logits));
  const fewer = await AutoModelForImageClassification.from_pretrained(timms, {
    num_labels: 2,
    ignore_mismatched_sizes: true,
  });
  t.same(fewer.forward({ pixel_values }).logits.shape, [2, 2]);
  const features = await AutoModel.from_pretrained(timms);
  t.ok(features instanceof TimmWrapperModel);
  const bare = features.forward({ pixel_values });
  t.same((bare as { pooler_output?: Tensor }).pooler_output?.shape, [2, 96]);
  t.equal(
    (features.forward({ pixel_values, do_pooling: false }) as { pooler_output?: Tensor }).pooler_output,
    undefined,
  );
  features.gradient_checkpointing_enable();
  t.ok(features.is_gradient_checkpointing);
  t.throws(() => new TimmWrapperModel(new TimmWrapperConfig({ architecture: "vit_tiny" })), {
    ...invalid,
    message: /vit_tiny/,
  });
  t.throws(
    () =>
      new TimmWrapperModel(
        new TimmWrapperConfig({ architecture: "test_resnet", model_args: { features_only: true } }),
      ),
    {
      ...invalid,
      message: /features_only/,
    },
  );
  t.throws(() => new TimmWrapperForImageClassification(new TimmWrapperConfig({ num_labels: 0 })), {
    ...invalid,
    message: /needs labels/,
  });
});

t.test("weights from the hub", async (t) => {
  const { server } = await hubFor(t);
  const directory = t.testdir();
  const pretrained_cfg = {
    num_classes: 1000,
    input_size: [3, 160, 160],
    first_conv: "conv1.0",
    classifier: "fc",
  };
  const model = await saved(directory, { architecture: "test_resnet", num_classes: 1000, pretrained_cfg });
  const files = Object.fromEntries(
    ["config.json", "model.safetensors"].map((file) => [file, readFileSync(join(directory, file))]),
  );
  server.create("timm/test_resnet.r160_in1k");
  server.commit("timm/test_resnet.r160_in1k", files);
  server.create("someone/pickled");
  server.commit("someone/pickled", {
    "config.json": files["config.json"] as Buffer,
    "pytorch_model.bin": "…",
  });
  const x = torch.randn([1, 3, 64, 64]);
  const loaded = await timm.create_model("test_resnet", { pretrained: true });
  t.ok(torch.equal(loaded.eval().forward(x), model.forward(x)), "the default tag");
  t.equal(loaded.pretrained_cfg.hf_hub_id, "timm/test_resnet.r160_in1k");
  const requests = server.seen.length;
  const offline = await timm.create_model("test_resnet.r160_in1k", {
    pretrained: true,
    local_files_only: true,
  });
  t.ok(torch.equal(offline.eval().forward(x), model.forward(x)), "from the cache");
  t.equal(server.seen.length, requests);
  const named = await timm.create_model("hf-hub:timm/test_resnet.r160_in1k", {
    pretrained: true,
    num_classes: 0,
  });
  t.same(named.forward(x).shape, [1, 96]);
  await t.rejects(timm.create_model("resnet18", { pretrained: true }), { code: "ERR_REPOSITORY_NOT_FOUND" });
  await t.rejects(timm.create_model("hf-hub:someone/pickled", { pretrained: true }), {
    code: "ERR_ENTRY_NOT_FOUND",
    hint: /torchformers convert/,
  });
});
