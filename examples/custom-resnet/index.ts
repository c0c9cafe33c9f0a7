// A model of your own around timm's ResNet: a config, two models, timm's weights; saved, registered, loaded by Auto classes.
//   node build/examples/custom-resnet/index.js [resnet50d] [output folder] [user/repo]
// With a repository, and a token in HF_TOKEN or from `npx torchformers login`, it is also sent to the hub and brought back.
import {
  AutoConfig,
  AutoModel,
  AutoModelForImageClassification,
  type Tensor,
  timm,
  torch,
} from "torchformers";
import { ResnetConfig, type ResnetConfigOptions } from "./configuration_resnet.ts";
import { ResnetModel, ResnetModelForImageClassification } from "./modeling_resnet.ts";

const [name = "resnet50d", output = "build/custom-resnet", repo] = process.argv.slice(2);

const d = { stem_width: 32, stem_type: "deep", avg_down: true } as const;
const VARIANTS: Readonly<Record<string, ResnetConfigOptions>> = {
  resnet10t: { block_type: "basic", layers: [1, 1, 1, 1], ...d, stem_type: "deep_tiered" },
  resnet18: { block_type: "basic", layers: [2, 2, 2, 2] },
  resnet26d: { layers: [2, 2, 2, 2], ...d },
  resnet50: {},
  resnet50d: d,
  resnet101: { layers: [3, 4, 23, 3] },
  resnext50_32x4d: { cardinality: 32, base_width: 4 },
};
const variant = VARIANTS[name];
if (!variant) throw new Error(`This example knows ${Object.keys(VARIANTS).join(", ")}.`);

// A name of its own needs a class that says it, and models that are made for that class.
class OwnConfig extends ResnetConfig {
  static override readonly model_type: string = "my-resnet";
}
class OwnModel extends ResnetModel {
  static override readonly config_class = OwnConfig;
}
class OwnModelForImageClassification extends ResnetModelForImageClassification {
  static override readonly config_class = OwnConfig;
}

// The library has a "resnet" of its own: whoever takes its place says so. A new name is simply added.
AutoConfig.register("resnet", ResnetConfig, { exist_ok: true });
AutoModel.register(ResnetConfig, ResnetModel);
AutoModelForImageClassification.register(ResnetConfig, ResnetModelForImageClassification);
AutoConfig.register("my-resnet", OwnConfig);
AutoModel.register(OwnConfig, OwnModel);
AutoModelForImageClassification.register(OwnConfig, OwnModelForImageClassification);

const pretrained = (await timm.create_model(name, { pretrained: true })).eval();
const pixel_values = torch.randn([1, 3, 64, 64]);
const expected = torch.no_grad(() => pretrained.forward(pixel_values));
const same = (logits: Tensor) => torch.allclose(logits, expected, { atol: 1e-5 });

for (const [Config, Model] of [
  [ResnetConfig, ResnetModelForImageClassification],
  [OwnConfig, OwnModelForImageClassification],
] as const) {
  const model = new Model(new Config(variant)).eval();
  model.model.load_state_dict(pretrained.state_dict());
  const { logits, loss } = model.forward({ pixel_values, labels: torch.tensor([7]) });
  console.log(`${Config.model_type}: timm's outputs: ${same(logits)}, loss ${loss?.item().toFixed(4)}`);

  const folder = `${output}/${Config.model_type}`;
  await model.save_pretrained(folder);
  const again = await AutoModelForImageClassification.from_pretrained(folder);
  const run = await again.run({ pixel_values });
  console.log(`${Config.model_type}: loaded as ${again.constructor.name}, same outputs: ${same(run.logits)}`);

  const features = (await AutoModel.from_pretrained(folder)) as unknown as ResnetModel;
  const maps = await features.run(pixel_values);
  console.log(`${Config.model_type}: ${features.constructor.name} gives features [${maps.shape.join(", ")}]`);

  if (repo !== undefined) {
    const { url } = await model.push_to_hub(`${repo}-${Config.model_type}`, { private: true });
    const pulled = await AutoModelForImageClassification.from_pretrained(`${repo}-${Config.model_type}`);
    const { logits } = torch.no_grad(() => pulled.forward({ pixel_values }));
    console.log(`${Config.model_type}: sent to ${url}, brought back with the same outputs: ${same(logits)}`);
  }
}
