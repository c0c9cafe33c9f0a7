// The settings of a ResNet that timm builds.
import { ConfigError, type ConfigKwargs, PretrainedConfig } from "torchformers";

const BLOCK_TYPES = ["basic", "bottleneck"] as const;
const STEM_TYPES = ["", "deep", "deep_tiered"] as const;

/** Fields with their defaults: a ResNet-50. */
export interface ResnetConfigOptions extends ConfigKwargs {
  readonly block_type?: (typeof BLOCK_TYPES)[number];
  readonly layers?: number[];
  readonly num_classes?: number;
  readonly input_channels?: number;
  readonly cardinality?: number;
  readonly base_width?: number;
  readonly stem_width?: number;
  readonly stem_type?: (typeof STEM_TYPES)[number];
  readonly avg_down?: boolean;
}

export class ResnetConfig extends PretrainedConfig {
  static override readonly model_type: string = "resnet";
  static override readonly field_types = {
    block_type: "str",
    layers: "list[int]",
    num_classes: "int",
    input_channels: "int",
    cardinality: "int",
    base_width: "int",
    stem_width: "int",
    stem_type: "str",
    avg_down: "bool",
  };
  static override readonly field_ranges = { num_classes: { min: 1 }, input_channels: { min: 1 } };

  declare block_type: (typeof BLOCK_TYPES)[number];
  /** Blocks of each stage. */
  declare layers: number[];
  declare num_classes: number;
  declare input_channels: number;
  /** Groups of the 3×3 convolutions. */
  declare cardinality: number;
  /** Their width. */
  declare base_width: number;
  declare stem_width: number;
  declare stem_type: (typeof STEM_TYPES)[number];
  /** Shortcuts pool before they convolve. */
  declare avg_down: boolean;

  constructor({
    block_type = "bottleneck",
    layers = [3, 4, 6, 3],
    num_classes = 1000,
    input_channels = 3,
    cardinality = 1,
    base_width = 64,
    stem_width = 64,
    stem_type = "",
    avg_down = false,
    ...kwargs
  }: ResnetConfigOptions = {}) {
    super(kwargs);
    this.block_type = block_type;
    this.layers = layers;
    this.num_classes = num_classes;
    this.input_channels = input_channels;
    this.cardinality = cardinality;
    this.base_width = base_width;
    this.stem_width = stem_width;
    this.stem_type = stem_type;
    this.avg_down = avg_down;
    this.post_init();
  }

  /** Called at the end of construction and before saving, after the types were checked. */
  override validate_architecture(): void {
    if (!BLOCK_TYPES.includes(this.block_type))
      throw new ConfigError(`block_type must be one of ${BLOCK_TYPES.join(", ")}, got '${this.block_type}'.`);
    if (!STEM_TYPES.includes(this.stem_type))
      throw new ConfigError(`stem_type must be "", "deep" or "deep_tiered", got '${this.stem_type}'.`);
    if (this.layers.length !== 4)
      throw new ConfigError(`layers must have four entries, one per stage, got ${this.layers.length}.`);
    if (this.block_type === "basic" && (this.cardinality !== 1 || this.base_width !== 64))
      throw new ConfigError("cardinality and base_width are for block_type 'bottleneck'.");
  }
}
