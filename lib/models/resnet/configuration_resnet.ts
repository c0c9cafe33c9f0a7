// ResNet's configuration: widths and depths of the stages, kind of block, and which stages a backbone gives.

import { BackboneConfigMixin, type ConfigKwargs, PretrainedConfig } from "../../configuration/index.ts";
import { ConfigError } from "../../errors/index.ts";

/**
 * Configuration of the ResNet models. The defaults are ResNet-50's.
 *
 * ```ts
 * const config = new ResNetConfig({ layer_type: "basic", hidden_sizes: [64, 128, 256, 512], depths: [2, 2, 2, 2] });
 * config.stage_names; // ["stem", "stage1", "stage2", "stage3", "stage4"]
 * ```
 */
export class ResNetConfig extends BackboneConfigMixin(PretrainedConfig) {
  static override readonly model_type: string = "resnet";
  static readonly layer_types: readonly string[] = ["basic", "bottleneck"];
  static override readonly field_types: Readonly<Record<string, string>> = {
    num_channels: "int",
    embedding_size: "int",
    hidden_sizes: "list[int]",
    depths: "list[int]",
    layer_type: "str",
    hidden_act: "str",
    downsample_in_first_stage: "bool",
    downsample_in_bottleneck: "bool",
  };

  declare num_channels: number;
  /** Channels after the stem. */
  declare embedding_size: number;
  /** Channels after each stage. */
  declare hidden_sizes: number[];
  /** Blocks in each stage. */
  declare depths: number[];
  /** "basic" (two 3×3 convolutions, for ResNet-18 and -34) or "bottleneck" (1×1, 3×3, 1×1). */
  declare layer_type: string;
  declare hidden_act: string;
  /** The first stage halves height and width too. */
  declare downsample_in_first_stage: boolean;
  /** In a bottleneck the first convolution has the stride, instead of the second. */
  declare downsample_in_bottleneck: boolean;

  constructor({
    num_channels = 3,
    embedding_size = 64,
    hidden_sizes = [256, 512, 1024, 2048],
    depths = [3, 4, 6, 3],
    layer_type = "bottleneck",
    hidden_act = "relu",
    downsample_in_first_stage = false,
    downsample_in_bottleneck = false,
    out_features = null,
    out_indices = null,
    stage_names,
    ...kwargs
  }: ResNetConfigOptions = {}) {
    super(kwargs);
    this.num_channels = num_channels;
    this.embedding_size = embedding_size;
    this.hidden_sizes = hidden_sizes;
    this.depths = depths;
    this.layer_type = layer_type;
    this.hidden_act = hidden_act;
    this.downsample_in_first_stage = downsample_in_first_stage;
    this.downsample_in_bottleneck = downsample_in_bottleneck;
    const stages = Array.isArray(depths) ? depths.length : 0; // of another type they are refused at the end
    this.stage_names = ["stem", ...Array.from({ length: stages }, (_, i) => `stage${i + 1}`)];
    this.set_output_features_output_indices({ out_features, out_indices });
    if (stage_names) this.stage_names = stage_names;
    this.post_init();
  }

  override validate_layer_type(): void {
    const { layer_types } = ResNetConfig;
    if (layer_types.includes(this.layer_type)) return;
    throw new ConfigError(
      `${this.constructor.name}: field 'layer_type' is '${this.layer_type}'; it must be one of ${layer_types.join(", ")}.`,
    );
  }
}

/** Fields of `ResNetConfig`, each with a default, and those that every configuration has. */
export interface ResNetConfigOptions extends ConfigKwargs {
  readonly num_channels?: number;
  readonly embedding_size?: number;
  readonly hidden_sizes?: number[];
  readonly depths?: number[];
  readonly layer_type?: "basic" | "bottleneck" | (string & {});
  readonly hidden_act?: string;
  readonly downsample_in_first_stage?: boolean;
  readonly downsample_in_bottleneck?: boolean;
  /** Stages that a backbone gives, by name. Default: the last one. */
  readonly out_features?: readonly string[] | null;
  /** The same by index. */
  readonly out_indices?: readonly number[] | null;
  /** Written into files; follows from `depths`. */
  readonly stage_names?: string[];
}
