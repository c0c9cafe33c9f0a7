// Two models around timm's ResNet: one gives features, the other scores classes.
import { ImageClassifierOutput, nn, PreTrainedModel, type Tensor, timm } from "torchformers";
import { ResnetConfig } from "./configuration_resnet.ts";

const BLOCKS = { basic: timm.BasicBlock, bottleneck: timm.Bottleneck };

function build(config: ResnetConfig): timm.ResNet {
  return new timm.ResNet(BLOCKS[config.block_type], config.layers, {
    num_classes: config.num_classes,
    in_chans: config.input_channels,
    cardinality: config.cardinality,
    base_width: config.base_width,
    stem_width: config.stem_width,
    stem_type: config.stem_type,
    avg_down: config.avg_down,
  });
}

/** What both have in common. */
class ResnetPreTrainedModel extends PreTrainedModel {
  static override readonly config_class = ResnetConfig;
  static override base_model_prefix = "model";
  static override readonly main_input_name: string = "pixel_values";

  declare readonly config: ResnetConfig;

  constructor(config: ResnetConfig) {
    super(config);
  }

  /** As timm draws fresh convolutions; all else is for the parent. */
  override _init_weights(module: nn.Module): void {
    super._init_weights(module);
    if (module instanceof nn.Conv2d)
      nn.init.kaiming_normal_(module.weight, { mode: "fan_out", nonlinearity: "relu" });
  }
}

/** Images → feature maps: a tensor in, a tensor out. */
export class ResnetModel extends ResnetPreTrainedModel {
  readonly model: timm.ResNet;

  constructor(config: ResnetConfig) {
    super(config);
    this.model = build(config);
    this.post_init();
  }

  override forward(tensor: Tensor): Tensor {
    return this.model.forward_features(tensor);
  }
}

/** Images → a score per class, and the loss when labels are given. */
export class ResnetModelForImageClassification extends ResnetPreTrainedModel {
  static override readonly forward_inputs: readonly string[] = ["pixel_values", "labels"];

  readonly model: timm.ResNet;

  constructor(config: ResnetConfig) {
    super(config);
    this.model = build(config);
    this.post_init();
  }

  override forward(inputs: { pixel_values: Tensor; labels?: Tensor | null }): ImageClassifierOutput {
    this.check_inputs(inputs);
    const logits = this.model.forward(inputs.pixel_values);
    const loss = inputs.labels ? nn.functional.cross_entropy(logits, inputs.labels) : undefined;
    return new ImageClassifierOutput({ loss, logits });
  }
}
