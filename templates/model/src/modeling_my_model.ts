// MyModel: a residual network, from its blocks to its models. Paper: arXiv 1512.03385.
import { PreTrainedModel } from "torchformers/modeling";
import * as nn from "torchformers/nn";
import type { Tensor } from "torchformers/torch";
import { MyModelConfig } from "./configuration_my_model.ts";

/** What `forward` of the models takes. */
export interface MyModelInputs {
  /** [batch, channels, height, width] */
  pixel_values: Tensor;
  /** Class of each image: [batch]. With labels the output has a loss. */
  labels?: Tensor | null | undefined;
}

/** The shortcut of a block whose result is smaller or has more channels. */
function shortcut(inputs: number, outputs: number, stride: number, average: boolean): nn.Sequential {
  const pool = average && stride > 1 ? new nn.AvgPool2d(2, { stride, ceil_mode: true }) : new nn.Identity();
  const step = average ? 1 : stride;
  return new nn.Sequential(
    pool,
    new nn.Conv2d(inputs, outputs, 1, { stride: step, bias: false }),
    new nn.BatchNorm2d(outputs),
  );
}

/** Two convolutions of 3 x 3, and their input added to their result. */
export class MyModelBasicBlock extends nn.Module {
  static readonly expansion: number = 1;
  readonly conv1: nn.Conv2d;
  readonly bn1: nn.BatchNorm2d;
  readonly conv2: nn.Conv2d;
  readonly bn2: nn.BatchNorm2d;
  readonly downsample: nn.Sequential | null;

  constructor(inputs: number, width: number, stride: number, config: MyModelConfig) {
    super();
    this.conv1 = new nn.Conv2d(inputs, width, 3, { stride, padding: 1, bias: false });
    this.bn1 = new nn.BatchNorm2d(width);
    this.conv2 = new nn.Conv2d(width, width, 3, { padding: 1, bias: false });
    this.bn2 = new nn.BatchNorm2d(width);
    const changes = stride !== 1 || inputs !== width;
    this.downsample = changes ? shortcut(inputs, width, stride, config.avg_down) : null;
  }

  override forward(x: Tensor): Tensor {
    const h = this.bn1.forward(this.conv1.forward(x)).relu();
    return this.bn2.forward(this.conv2.forward(h)).add(this.downsample?.forward(x) ?? x).relu();
  }
}

/** Narrow, convolve, widen; the input is added to the result. */
export class MyModelBottleneck extends nn.Module {
  static readonly expansion: number = 4;
  readonly conv1: nn.Conv2d;
  readonly bn1: nn.BatchNorm2d;
  readonly conv2: nn.Conv2d;
  readonly bn2: nn.BatchNorm2d;
  readonly conv3: nn.Conv2d;
  readonly bn3: nn.BatchNorm2d;
  readonly downsample: nn.Sequential | null;

  constructor(inputs: number, planes: number, stride: number, config: MyModelConfig) {
    super();
    const { cardinality: groups, base_width, avg_down } = config;
    const width = Math.floor(planes * (base_width / 64)) * groups;
    const outputs = planes * MyModelBottleneck.expansion;
    this.conv1 = new nn.Conv2d(inputs, width, 1, { bias: false });
    this.bn1 = new nn.BatchNorm2d(width);
    this.conv2 = new nn.Conv2d(width, width, 3, { stride, padding: 1, groups, bias: false });
    this.bn2 = new nn.BatchNorm2d(width);
    this.conv3 = new nn.Conv2d(width, outputs, 1, { bias: false });
    this.bn3 = new nn.BatchNorm2d(outputs);
    this.downsample = stride !== 1 || inputs !== outputs ? shortcut(inputs, outputs, stride, avg_down) : null;
  }

  override forward(x: Tensor): Tensor {
    let h = this.bn1.forward(this.conv1.forward(x)).relu();
    h = this.bn2.forward(this.conv2.forward(h)).relu();
    return this.bn3.forward(this.conv3.forward(h)).add(this.downsample?.forward(x) ?? x).relu();
  }
}

/** A quarter of the size, and 64 channels. */
function stem({ input_channels, stem_width, stem_type }: MyModelConfig): nn.Sequential {
  const convolve = (inputs: number, outputs: number, size: number, stride: number) => [
    new nn.Conv2d(inputs, outputs, size, { stride, padding: (size - 1) / 2, bias: false }),
    new nn.BatchNorm2d(outputs),
    new nn.ReLU(),
  ];
  const layers =
    stem_type === "deep"
      ? [
          ...convolve(input_channels, stem_width, 3, 2),
          ...convolve(stem_width, stem_width, 3, 1),
          ...convolve(stem_width, 64, 3, 1),
        ]
      : convolve(input_channels, 64, 7, 2);
  return new nn.Sequential(...layers, new nn.MaxPool2d(3, { stride: 2, padding: 1 }));
}

/** What both models have in common. */
export abstract class MyModelPreTrainedModel extends PreTrainedModel {
  static override readonly config_class = MyModelConfig;
  static override base_model_prefix = "model";
  static override readonly main_input_name: string = "pixel_values";
  declare readonly config: MyModelConfig;
}

/** Features of images: [batch, channels, height / 32, width / 32] for four stages. */
export class MyModelModel extends MyModelPreTrainedModel {
  readonly stem: nn.Sequential;
  readonly stages: nn.ModuleList<nn.Sequential>;
  readonly num_features: number;

  constructor(config: MyModelConfig) {
    super(config);
    const Block = config.block_type === "basic" ? MyModelBasicBlock : MyModelBottleneck;
    this.stem = stem(config);
    let inputs = 64;
    const stages = config.layers.map((count, stage) => {
      const planes = 64 * 2 ** stage;
      const blocks = Array.from({ length: count }, (_, i) => {
        const block = new Block(inputs, planes, i === 0 && stage > 0 ? 2 : 1, config);
        inputs = planes * Block.expansion;
        return block;
      });
      return new nn.Sequential(...blocks);
    });
    this.stages = new nn.ModuleList(stages);
    this.num_features = inputs;
    this.post_init();
  }

  override forward({ pixel_values }: MyModelInputs): { last_hidden_state: Tensor } {
    let h = this.stem.forward(pixel_values);
    for (const stage of this.stages) h = stage.forward(h);
    return { last_hidden_state: h };
  }
}

/** Scores of classes: [batch, num_classes]. */
export class MyModelForImageClassification extends MyModelPreTrainedModel {
  readonly model: MyModelModel;
  readonly fc: nn.Linear;

  constructor(config: MyModelConfig) {
    super(config);
    this.model = new MyModelModel(config);
    this.fc = new nn.Linear(this.model.num_features, config.num_classes);
    this.post_init();
  }

  override forward(inputs: MyModelInputs): { loss?: Tensor; logits: Tensor } {
    const { last_hidden_state } = this.model.forward(inputs);
    const logits = this.fc.forward(last_hidden_state.mean([2, 3]));
    if (!inputs.labels) return { logits };
    return { loss: nn.F.cross_entropy(logits, inputs.labels), logits };
  }
}
