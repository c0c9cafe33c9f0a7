// The settings of MyModel.
import { PretrainedConfig } from "torchformers/configuration";
import { ConfigError } from "torchformers/errors";

/** What the constructor takes beside the fields of every configuration. */
export interface MyModelFields {
  /** Two convolutions per block, or three with a narrow one in the middle. Default: "bottleneck". */
  block_type?: "basic" | "bottleneck";
  /** Blocks per stage. Default: [3, 4, 6, 3]. */
  layers?: readonly number[];
  /** Default: 1000. */
  num_classes?: number;
  /** Default: 3. */
  input_channels?: number;
  /** Groups of the middle convolution of a bottleneck. Default: 1. */
  cardinality?: number;
  /** Channels per group of the first stage, of 64. Default: 64. */
  base_width?: number;
  /** Channels of the first convolution of a deep stem. Default: 64. */
  stem_width?: number;
  /** "" for one convolution of 7 x 7, "deep" for three of 3 x 3. Default: "". */
  stem_type?: "" | "deep";
  /** Halve the size of a block's shortcut by averaging instead of by leaving out. Default: false. */
  avg_down?: boolean;
}

/**
 * Configuration of MyModel.
 *
 * @example new MyModelConfig({ block_type: "basic", layers: [2, 2, 2, 2], num_classes: 10 });
 */
export class MyModelConfig extends PretrainedConfig {
  static override readonly model_type: string = "my-model";
  // Fields are assigned in the constructor and only declared here: an initializer would overwrite what was read.
  declare block_type: "basic" | "bottleneck";
  declare layers: readonly number[];
  declare num_classes: number;
  declare input_channels: number;
  declare cardinality: number;
  declare base_width: number;
  declare stem_width: number;
  declare stem_type: "" | "deep";
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
  }: MyModelFields & Readonly<Record<string, unknown>> = {}) {
    if (!["basic", "bottleneck"].includes(block_type))
      throw new ConfigError(`block_type must be "basic" or "bottleneck", got "${block_type}".`);
    if (!["", "deep"].includes(stem_type))
      throw new ConfigError(`stem_type must be "" or "deep", got "${stem_type}".`);
    if (!layers.every((count) => Number.isInteger(count) && count > 0))
      throw new ConfigError(`layers must be positive integers, got ${layers.join(", ")}.`);
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
  }
}
