// Vision models of many configurations against what the reference computed for the same seeds: scripts/goldens/vision.py.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import * as torchformers from "torchformers";
import {
  AutoBackbone,
  AutoConfig,
  AutoModel,
  AutoModelForImageClassification,
  nn,
  type PreTrainedModel,
  type PretrainedConfig,
  ResNetBackbone,
  ResNetConfig,
  ResNetForImageClassification,
  ResNetModel,
  SamConfig,
  SamModel,
  safetensors,
  type Tensor,
  torch,
  ViTConfig,
  ViTForImageClassification,
  ViTForMaskedImageModeling,
  ViTModel,
} from "torchformers";
import { fixture } from "../support/fixtures.js";

const folder = fixture("vision");
const cases = JSON.parse(readFileSync(join(folder, "cases.json"), "utf8"));
const golden = await safetensors.load_file(join(folder, "golden.safetensors"));

type Values = Record<string, unknown>;
type Spec = [kind: string, ...rest: unknown[]];
interface Case {
  readonly name: string;
  readonly class: string;
  readonly config: Values;
  readonly inputs: Record<string, Spec>;
  readonly options: Values;
  readonly outputs: string[];
  readonly grads: string[] | null;
  readonly train: boolean;
  readonly attn: string | null;
  readonly seed: number;
  readonly after: number;
  readonly buffers: string[];
}

const classes = torchformers as unknown as Record<
  string,
  typeof PreTrainedModel & (new (config: PretrainedConfig) => PreTrainedModel)
>;
const configs = torchformers as unknown as Record<string, new (kwargs: Values) => PretrainedConfig>;

/** As the script moves them. */
function move(model: PreTrainedModel, seed: number): void {
  torch.manual_seed(seed);
  torch.no_grad(() => {
    for (const parameter of model.parameters()) parameter.add_(torch.randn(parameter.shape).mul(0.2));
    for (const buffer of model.buffers())
      if (buffer.is_floating_point()) buffer.add_(torch.rand(buffer.shape));
  });
}

function draw([kind, a, b, c]: Spec): Tensor {
  if (kind === "randn") return torch.randn(a as number[]);
  if (kind === "randint") return torch.randint(a as number, b as number, c as number[]);
  if (kind === "uniform") return torch.rand(b as number[]).mul(a as number);
  if (kind === "bool") return torch.rand(b as number[]).lt(a as number);
  return torch.tensor(a as number[]);
}

const pick = (output: unknown, path: string): Tensor =>
  path.split(".").reduce((value, part) => (value as Values)[part], output) as Tensor;

function close(t: Test, actual: Tensor | null | undefined, expected: Tensor | undefined, what: string): void {
  if (!actual || !expected) {
    t.fail(`${what} is missing`);
    return;
  }
  t.same(actual.shape, expected.shape, `${what}: shape`);
  const same = torch.allclose(actual.to("float64"), expected.to("float64"), { atol: 1e-4, rtol: 1e-4 });
  t.ok(same, `${what}: off by ${actual.sub(expected).abs().max().item()}`);
}

t.test("refusals", async (t) => {
  const invalid = { code: "ERR_INVALID_ARGUMENT" };
  const tiny = { embedding_size: 4, hidden_sizes: [4], depths: [1], layer_type: "basic" };
  const resnet = new ResNetModel(new ResNetConfig(tiny));
  t.throws(() => resnet.forward({ pixel_values: torch.zeros([1, 1, 8, 8]) }), {
    ...invalid,
    message: /1 channels/,
  });
  t.throws(() => resnet.forward({ pixel_value: torch.zeros([1, 3, 8, 8]) } as never), {
    ...invalid,
    suggestion: "pixel_values",
  });
  const backbone = new ResNetBackbone(new ResNetConfig(tiny));
  t.throws(
    () => {
      backbone.out_features = ["stage9"];
    },
    { code: "ERR_CONFIG", message: /stage9/ },
  );

  const size = { hidden_size: 8, num_attention_heads: 2, num_hidden_layers: 1, intermediate_size: 8 };
  const vit = new ViTModel(new ViTConfig({ ...size, image_size: 8, patch_size: 4 }));
  const image = torch.zeros([1, 3, 8, 8]);
  t.throws(() => vit.forward({ pixel_values: torch.zeros([1, 3, 8, 12]) }), {
    ...invalid,
    message: /8 × 12/,
  });
  t.throws(() => vit.forward({ pixel_values: torch.zeros([1, 4, 8, 8]) }), {
    ...invalid,
    message: /4 channels/,
  });
  t.throws(
    () => vit.forward({ pixel_values: image, bool_masked_pos: torch.zeros([1, 4], { dtype: "bool" }) }),
    {
      ...invalid,
      message: /mask token/,
    },
  );
  t.throws(() => vit.forward({ pixel_values: image, output_attentions: true }), {
    ...invalid,
    message: /'sdpa'/,
  });
  const masked = new ViTForMaskedImageModeling(new ViTConfig({ ...size, image_size: 8, patch_size: 4 }));
  t.throws(
    () => masked.forward({ pixel_values: image, bool_masked_pos: torch.zeros([1, 4], { dtype: "bool" }) }),
    {
      ...invalid,
      message: /encoder_stride/,
    },
  );

  const config = await AutoConfig.from_pretrained(fixture("models/sam"));
  const sam = new SamModel(config as SamConfig);
  const pixel_values = torch.zeros([2, 3, 48, 48]);
  const points = torch.zeros([2, 1, 1, 2]);
  for (const [inputs, message] of [
    [{}, /exactly one of pixel_values/],
    [{ pixel_values, image_embeddings: pixel_values }, /exactly one of pixel_values/],
    [{ pixel_values: torch.zeros([1, 3, 48, 40]) }, /48 × 40/],
    [{ pixel_values, input_points: torch.zeros([2, 1, 2]) }, /input_points must have the shape/],
    [{ pixel_values, input_boxes: torch.zeros([2, 4]) }, /input_boxes must have the shape/],
    [{ pixel_values, input_points: points, input_boxes: torch.zeros([2, 3, 4]) }, /as many boxes/],
    [{ pixel_values, input_points: torch.zeros([1, 1, 1, 2]) }, /2 images/],
  ] as const) {
    t.throws(() => sam.forward(inputs), { ...invalid, message });
  }
  t.throws(() => new SamModel(new SamConfig({ mask_decoder_config: { num_attention_heads: 7 } })), {
    code: "ERR_CONFIG",
    message: /num_attention_heads \(7\)/,
  });
});

t.test("configurations are saved as the reference saves them, or refused where it refuses", async (t) => {
  for (const { class: name, kwargs, saved, error } of cases.configs) {
    const Config = configs[name] as new (kwargs: Values) => PretrainedConfig;
    const what = `${name} ${JSON.stringify(kwargs).slice(0, 80)}`;
    if (error) t.throws(() => new Config(kwargs), { code: "ERR_CONFIG" }, what);
    else t.equal(new Config(kwargs).to_json_string(), saved, what);
  }
});

for (const each of cases.models as Case[]) {
  t.test(each.name, async (t) => {
    const expected = (key: string) => golden[`${each.name}/${key}`];
    const Model = classes[each.class] as (typeof classes)[string];
    torch.manual_seed(each.seed);
    const Config = Model.config_class as unknown as new (kwargs: Values) => PretrainedConfig;
    const model = (Model._from_config as (config: PretrainedConfig, options: Values) => PreTrainedModel).call(
      Model,
      new Config(each.config),
      { attn_implementation: each.attn },
    );
    t.ok(Math.abs(torch.rand([1]).item() - each.after) < 1e-6, "as many draws for fresh weights");
    const sizes = [...model.parameters()].map((p) => p.detach().to("float64").abs().sum().item() as number);
    const total = expected("initial")?.item() as number;
    t.ok(Math.abs(sizes.reduce((a, b) => a + b) / total - 1) < 1e-6, "fresh weights");
    move(model, each.seed + 1);
    model.train(each.train);
    torch.manual_seed(each.seed + 2);
    const inputs = Object.fromEntries(Object.entries(each.inputs).map(([key, spec]) => [key, draw(spec)]));
    torch.manual_seed(each.seed + 3);
    const call = () => model.forward({ ...inputs, ...each.options } as never) as unknown as { loss?: Tensor };
    const result = each.grads ? call() : torch.no_grad(call);
    for (const path of each.outputs) close(t, pick(result, path), expected(path), path);
    for (const key of each.buffers)
      close(t, new Map(model.named_buffers()).get(key), expected(`buffer:${key}`), key);
    if (!each.grads) return;

    const loss =
      result.loss ?? each.outputs.map((path) => pick(result, path).pow(2).mean()).reduce((a, b) => a.add(b));
    loss.backward();
    const parameters = new Map(model.named_parameters());
    const norms = [...parameters.values()].map(
      (p) => p.grad?.to("float64").norm() ?? torch.tensor(-1, { dtype: "float64" }),
    );
    close(t, torch.stack(norms), expected("gradients"), "norms of all gradients");
    for (const key of each.grads) close(t, parameters.get(key)?.grad, expected(`grad:${key}`), key);
  });
}

t.test("a ViT checkpoint from before version 5", async (t) => {
  const [model, info] = await ViTForImageClassification.from_pretrained(join(folder, "vit-old"), {
    output_loading_info: true,
  });
  t.same([[...info.missing_keys], [...info.unexpected_keys]], [[], []]);
  torch.manual_seed(2);
  const { logits } = torch.no_grad(() => model.forward({ pixel_values: torch.randn([2, 3, 16, 16]) }));
  close(t, logits, golden["vit-old/logits"], "logits");
  const saved = t.testdir();
  await model.save_pretrained(saved);
  const file = await safetensors.load_file(join(saved, "model.safetensors"));
  t.same(Object.keys(file).sort(), cases.old_saved, "saved under the names that the reference saves");
  // The bare model finds its part.
  const [, bare] = await ViTModel.from_pretrained(join(folder, "vit-old"), { output_loading_info: true });
  t.same([...bare.missing_keys].sort(), ["pooler.dense.bias", "pooler.dense.weight"]);
});

t.test("backbones", async (t) => {
  const resnet = fixture("models/resnet");
  const backbone = await AutoBackbone.from_pretrained(resnet, { out_features: ["stage1", "stage3"] });
  t.ok(backbone instanceof ResNetBackbone);
  t.same(backbone.out_indices, [1, 3]);
  t.same(backbone.channels, [8, 16]);
  t.same(backbone.out_feature_channels, { stem: 8, stage1: 8, stage2: 12, stage3: 16, stage4: 24 });
  const pixel_values = torch.randn([1, 3, 32, 32]);
  const { feature_maps, hidden_states } = await backbone.run({ pixel_values });
  t.same(
    feature_maps.map(({ shape }) => shape),
    [
      [1, 8, 8, 8],
      [1, 16, 2, 2],
    ],
  );
  t.equal(hidden_states, undefined);
  backbone.out_indices = [-1];
  t.same(backbone.out_features, ["stage4"]);
  const again = await backbone.run({ pixel_values });
  t.same(
    again.feature_maps.map(({ shape }) => shape),
    [[1, 24, 1, 1]],
    "a Program follows the config",
  );
  t.equal(
    backbone.forward_with_filtered_kwargs({ pixel_values, output_attentions: true }).feature_maps.length,
    1,
  );
  const saved = t.testdir();
  await backbone.save_pretrained(saved);
  const loaded = await AutoBackbone.from_pretrained(saved);
  t.same(loaded.out_features, ["stage4"]);
});

t.test("by Auto classes, with another number of labels, and layers replaced", async (t) => {
  const [model, info] = await AutoModelForImageClassification.from_pretrained(fixture("models/resnet"), {
    num_labels: 2,
    ignore_mismatched_sizes: true,
    output_loading_info: true,
  });
  t.ok(model instanceof ResNetForImageClassification);
  t.same([...info.mismatched_keys].length, 2);
  t.same(model.forward({ pixel_values: torch.zeros([1, 3, 32, 32]) }).logits.shape, [1, 2]);
  const vit = (await AutoModel.from_pretrained(fixture("models/vit/base"))) as unknown as ViTModel;
  const first = vit.layers[0] as { mlp: nn.Module };
  first.mlp = new nn.Identity();
  t.same(vit.forward({ pixel_values: torch.zeros([1, 3, 32, 32]) }).last_hidden_state.shape, [1, 17, 32]);
  vit.gradient_checkpointing_enable();
  vit
    .train()
    .forward({ pixel_values: torch.zeros([1, 3, 32, 32]) })
    .last_hidden_state.sum()
    .backward();
  t.ok(vit.embeddings.cls_token.grad);
});
