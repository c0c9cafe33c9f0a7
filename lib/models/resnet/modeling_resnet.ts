// ResNet: convolutions whose results are added to their input, in stages that halve the image and widen its channels.
// Paper: arXiv 1512.03385; the stride stands in the 3x3 convolution of a bottleneck unless the config says otherwise.
import { InvalidArgumentError } from "../../errors/index.ts";
import { ACT2FN, type Activation } from "../../modeling/activations.ts";
import { BackboneMixin } from "../../modeling/backbone_utils.ts";
import * as init from "../../modeling/initialization.ts";
import { ForSequenceClassificationLoss } from "../../modeling/loss.ts";
import {
  BackboneOutput,
  BaseModelOutputWithNoAttention,
  BaseModelOutputWithPoolingAndNoAttention,
  ImageClassifierOutputWithNoAttention,
} from "../../modeling/modeling_outputs.ts";
import { PreTrainedModel } from "../../modeling/modeling_utils.ts";
import * as nn from "../../nn/index.ts";
import type { Tensor } from "../../torch/index.ts";
import { ResNetConfig } from "./configuration_resnet.ts";

interface ConvOptions {
  readonly kernel_size?: number;
  readonly stride?: number;
  /** Name of the activation at the end; null for none. */
  readonly activation?: string | null;
}

/** Convolution, batch norm, activation. The size stays the same but for the stride. */
export class ResNetConvLayer extends nn.Module {
  convolution: nn.Conv2d;
  normalization: nn.BatchNorm2d;
  activation: nn.Layer;

  constructor(
    in_channels: number,
    out_channels: number,
    { kernel_size = 3, stride = 1, activation = "relu" }: ConvOptions = {},
  ) {
    super();
    const padding = Math.trunc(kernel_size / 2);
    this.convolution = new nn.Conv2d(in_channels, out_channels, kernel_size, {
      stride,
      padding,
      bias: false,
    });
    this.normalization = new nn.BatchNorm2d(out_channels);
    this.activation = activation === null ? new nn.Identity() : ACT2FN(activation);
  }

  override forward(x: Tensor): Tensor {
    return this.activation.forward(this.normalization.forward(this.convolution.forward(x)));
  }
}

/** The stem: one wide convolution and a max pool, each of which halves height and width. */
export class ResNetEmbeddings extends nn.Module {
  embedder: ResNetConvLayer;
  pooler: nn.MaxPool2d;
  readonly num_channels: number;

  constructor({ num_channels, embedding_size, hidden_act }: ResNetConfig) {
    super();
    this.embedder = new ResNetConvLayer(num_channels, embedding_size, {
      kernel_size: 7,
      stride: 2,
      activation: hidden_act,
    });
    this.pooler = new nn.MaxPool2d(3, { stride: 2, padding: 1 });
    this.num_channels = num_channels;
  }

  override forward(pixel_values: Tensor): Tensor {
    const num_channels = pixel_values.shape[1];
    if (num_channels !== this.num_channels) {
      throw new InvalidArgumentError(
        `pixel_values have ${num_channels} channels, but config.num_channels is ${this.num_channels}.`,
      );
    }
    return this.pooler.forward(this.embedder.forward(pixel_values));
  }
}

/** Brings the input of a block to the size of its output. */
export class ResNetShortCut extends nn.Module {
  convolution: nn.Conv2d;
  normalization: nn.BatchNorm2d;

  constructor(in_channels: number, out_channels: number, { stride = 2 } = {}) {
    super();
    this.convolution = new nn.Conv2d(in_channels, out_channels, 1, { stride, bias: false });
    this.normalization = new nn.BatchNorm2d(out_channels);
  }

  override forward(x: Tensor): Tensor {
    return this.normalization.forward(this.convolution.forward(x));
  }
}

interface BlockOptions {
  readonly stride?: number;
  readonly activation?: string;
}

/** What both kinds of block do: layers, whose result is added to the input, then the activation. */
abstract class ResidualLayer extends nn.Module {
  shortcut: nn.Layer;
  layer: nn.Sequential;
  activation: Activation;

  constructor(
    in_channels: number,
    out_channels: number,
    { stride = 1, activation = "relu" }: BlockOptions,
    layers: () => ResNetConvLayer[],
  ) {
    super();
    this.shortcut =
      in_channels !== out_channels || stride !== 1
        ? new ResNetShortCut(in_channels, out_channels, { stride })
        : new nn.Identity();
    this.layer = new nn.Sequential(...layers());
    this.activation = ACT2FN(activation);
  }

  override forward(x: Tensor): Tensor {
    return this.activation.forward(this.layer.forward(x).add(this.shortcut.forward(x)));
  }
}

/** Two 3×3 convolutions, for smaller models. */
export class ResNetBasicLayer extends ResidualLayer {
  constructor(in_channels: number, out_channels: number, options: BlockOptions = {}) {
    const { stride = 1 } = options;
    super(in_channels, out_channels, options, () => [
      new ResNetConvLayer(in_channels, out_channels, { stride }),
      new ResNetConvLayer(out_channels, out_channels, { activation: null }),
    ]);
  }
}

/** 1×1, 3×3, 1×1: the wide convolution works on `out_channels / reduction` channels. */
export class ResNetBottleNeckLayer extends ResidualLayer {
  constructor(
    in_channels: number,
    out_channels: number,
    options: BlockOptions & { readonly reduction?: number; readonly downsample_in_bottleneck?: boolean } = {},
  ) {
    const { stride = 1, reduction = 4, downsample_in_bottleneck = false } = options;
    const reduced = Math.trunc(out_channels / reduction);
    super(in_channels, out_channels, options, () => [
      new ResNetConvLayer(in_channels, reduced, {
        kernel_size: 1,
        stride: downsample_in_bottleneck ? stride : 1,
      }),
      new ResNetConvLayer(reduced, reduced, { stride: downsample_in_bottleneck ? 1 : stride }),
      new ResNetConvLayer(reduced, out_channels, { kernel_size: 1, activation: null }),
    ]);
  }
}

/** Blocks of one width; the first one has the stride. */
export class ResNetStage extends nn.Module {
  layers: nn.Sequential;

  constructor(
    { layer_type, hidden_act: activation, downsample_in_bottleneck }: ResNetConfig,
    in_channels: number,
    out_channels: number,
    { stride = 2, depth = 2 } = {},
  ) {
    super();
    const first =
      layer_type === "bottleneck"
        ? new ResNetBottleNeckLayer(in_channels, out_channels, {
            stride,
            activation,
            downsample_in_bottleneck,
          })
        : new ResNetBasicLayer(in_channels, out_channels, { stride, activation });
    const Layer = layer_type === "bottleneck" ? ResNetBottleNeckLayer : ResNetBasicLayer;
    const others = Array.from(
      { length: depth - 1 },
      () => new Layer(out_channels, out_channels, { activation }),
    );
    this.layers = new nn.Sequential(first, ...others);
  }

  override forward(x: Tensor): Tensor {
    return this.layers.forward(x);
  }
}

/** All stages, one after the other. */
export class ResNetEncoder extends nn.Module {
  stages: nn.ModuleList<ResNetStage>;

  constructor(config: ResNetConfig) {
    super();
    const { embedding_size, hidden_sizes, depths, downsample_in_first_stage } = config;
    this.stages = new nn.ModuleList(
      hidden_sizes.map(
        (channels, i) =>
          new ResNetStage(config, hidden_sizes[i - 1] ?? embedding_size, channels, {
            stride: i > 0 || downsample_in_first_stage ? 2 : 1,
            depth: depths[i] as number,
          }),
      ),
    );
  }

  override forward(x: Tensor, { output_hidden_states = false } = {}): BaseModelOutputWithNoAttention {
    const hidden_states: Tensor[] | undefined = output_hidden_states ? [x] : undefined;
    let h = x;
    for (const stage of this.stages) {
      h = stage.forward(h); // [batch, channels, height, width]
      hidden_states?.push(h);
    }
    return new BaseModelOutputWithNoAttention({ last_hidden_state: h, hidden_states });
  }
}

/** What all ResNet models share. */
export class ResNetPreTrainedModel extends PreTrainedModel {
  static override readonly config_class = ResNetConfig;
  static override base_model_prefix = "resnet";
  static override readonly main_input_name: string = "pixel_values";
  static override readonly _no_split_modules: readonly string[] = ["ResNetConvLayer", "ResNetShortCut"];

  declare readonly config: ResNetConfig;

  constructor(config: ResNetConfig) {
    super(config);
  }

  override _init_weights(module: nn.Module): void {
    super._init_weights(module);
    if (module instanceof nn.Conv2d) {
      init.kaiming_normal_(module.weight, { mode: "fan_out", nonlinearity: "relu" });
    } else if (module instanceof nn.Linear) {
      init.kaiming_uniform_(module.weight, { a: Math.sqrt(5) });
      if (!module.bias) return;
      const [fan_in] = nn.init._calculate_fan_in_and_fan_out(module.weight);
      const bound = fan_in > 0 ? 1 / Math.sqrt(fan_in) : 0;
      init.uniform_(module.bias, -bound, bound);
    }
  }
}

/** What a ResNet takes. */
export interface ResNetInputs {
  /** Images [batch, channels, height, width]. */
  pixel_values: Tensor;
  /** Return the output of the stem and of each stage. Default: `config.output_hidden_states`. */
  output_hidden_states?: boolean | null | undefined;
}

const RESNET_INPUTS: readonly (keyof ResNetInputs)[] = ["pixel_values", "output_hidden_states"];

/** ResNet without a head. */
export class ResNetModel extends ResNetPreTrainedModel {
  static override readonly forward_inputs: readonly string[] = RESNET_INPUTS;

  embedder: ResNetEmbeddings;
  encoder: ResNetEncoder;
  pooler: nn.AdaptiveAvgPool2d;

  constructor(config: ResNetConfig) {
    super(config);
    this.embedder = new ResNetEmbeddings(config);
    this.encoder = new ResNetEncoder(config);
    this.pooler = new nn.AdaptiveAvgPool2d([1, 1]);
    this.post_init();
  }

  override forward(inputs: ResNetInputs): BaseModelOutputWithPoolingAndNoAttention {
    this.check_inputs(inputs);
    const { last_hidden_state, hidden_states } = this.encoder.forward(
      this.embedder.forward(inputs.pixel_values),
      { output_hidden_states: this.wants_hidden_states(inputs) },
    );
    const pooler_output = this.pooler.forward(last_hidden_state); // [batch, channels, 1, 1]
    return new BaseModelOutputWithPoolingAndNoAttention({ last_hidden_state, pooler_output, hidden_states });
  }
}

/** What the classifier takes beside the image. */
export interface ResNetForImageClassificationInputs extends ResNetInputs {
  /** Class indices [batch], class indicators [batch, labels], or numbers for regression. */
  labels?: Tensor | null | undefined;
}

/** ResNet with a score per label for the whole image. */
export class ResNetForImageClassification extends ResNetPreTrainedModel {
  static override readonly forward_inputs: readonly string[] = [...RESNET_INPUTS, "labels"];

  readonly num_labels: number;
  resnet: ResNetModel;
  classifier: nn.Sequential;

  constructor(config: ResNetConfig) {
    super(config);
    this.num_labels = config.num_labels ?? 0;
    this.resnet = new ResNetModel(config);
    const channels = config.hidden_sizes.at(-1) as number;
    this.classifier = new nn.Sequential(
      new nn.Flatten(),
      this.num_labels > 0 ? new nn.Linear(channels, this.num_labels) : new nn.Identity(),
    );
    this.post_init();
  }

  /**
   * Scores of the labels, and the loss when `labels` are given.
   *
   * @example
   * const { logits, loss } = model.forward({ pixel_values, labels });
   */
  override forward(inputs: ResNetForImageClassificationInputs): ImageClassifierOutputWithNoAttention {
    this.check_inputs(inputs);
    const { labels, ...rest } = inputs;
    const { pooler_output, hidden_states } = this.resnet.forward(rest);
    const logits = this.classifier.forward(pooler_output);
    const loss = labels ? ForSequenceClassificationLoss(logits, labels, this.config) : undefined;
    return new ImageClassifierOutputWithNoAttention({ loss, logits, hidden_states });
  }
}

/** ResNet as a backbone: the outputs of the stages that `config.out_features` names. */
export class ResNetBackbone extends BackboneMixin(ResNetPreTrainedModel) {
  static override readonly forward_inputs: readonly string[] = RESNET_INPUTS;

  override readonly num_features: readonly number[];
  embedder: ResNetEmbeddings;
  encoder: ResNetEncoder;

  constructor(config: ResNetConfig) {
    super(config);
    this.num_features = [config.embedding_size, ...config.hidden_sizes];
    this.embedder = new ResNetEmbeddings(config);
    this.encoder = new ResNetEncoder(config);
    this.post_init();
  }

  override get has_attentions(): boolean {
    return false;
  }

  /**
   * @example
   * const backbone = await AutoBackbone.from_pretrained("microsoft/resnet-50", { out_features: ["stage2", "stage4"] });
   * backbone.forward({ pixel_values }).feature_maps.map(({ shape }) => shape[1]); // [512, 2048]
   */
  override forward(inputs: ResNetInputs): BackboneOutput {
    this.check_inputs(inputs);
    const { hidden_states = [] } = this.encoder.forward(this.embedder.forward(inputs.pixel_values), {
      output_hidden_states: true,
    });
    const feature_maps = hidden_states.filter((_, i) =>
      this.out_features.includes(this.stage_names[i] as string),
    );
    return new BackboneOutput({
      feature_maps,
      hidden_states: this.wants_hidden_states(inputs) ? hidden_states : undefined,
    });
  }
}
