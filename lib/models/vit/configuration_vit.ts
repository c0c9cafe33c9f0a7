// ViT's configuration: sizes of image, patches and layers.

import { type ConfigKwargs, PretrainedConfig } from "../../configuration/index.ts";

/**
 * Configuration of the ViT models. The defaults are ViT-Base's, with patches of 16 × 16.
 *
 * ```ts
 * const config = new ViTConfig({ image_size: 384, num_labels: 10 });
 * config.pooler_output_size; // 768
 * ```
 */
export class ViTConfig extends PretrainedConfig {
  static override readonly model_type: string = "vit";
  static override readonly field_types: Readonly<Record<string, string>> = {
    hidden_size: "int",
    num_hidden_layers: "int",
    num_attention_heads: "int",
    intermediate_size: "int",
    hidden_act: "str",
    hidden_dropout_prob: "float | int",
    attention_probs_dropout_prob: "float | int",
    initializer_range: "float",
    layer_norm_eps: "float",
    image_size: "int | list[int]",
    patch_size: "int | list[int]",
    num_channels: "int",
    qkv_bias: "bool",
    encoder_stride: "int",
    pooler_output_size: "int | None",
    pooler_act: "str",
  };
  static override readonly field_ranges: Readonly<Record<string, { min?: number; max?: number }>> = {
    num_attention_heads: { min: 1 },
  };

  declare hidden_size: number;
  declare num_hidden_layers: number;
  declare num_attention_heads: number;
  /** Width of the feed-forward layers. */
  declare intermediate_size: number;
  declare hidden_act: string;
  declare hidden_dropout_prob: number;
  declare attention_probs_dropout_prob: number;
  /** Standard deviation of fresh weights. */
  declare initializer_range: number;
  declare layer_norm_eps: number;
  /** Height and width of the images, one number for both. */
  declare image_size: number | number[];
  declare patch_size: number | number[];
  declare num_channels: number;
  declare qkv_bias: boolean;
  /** How much larger than a patch grid the decoder of masked images makes its result. */
  declare encoder_stride: number;
  /** Width of the pooled vector. Default `hidden_size`. */
  declare pooler_output_size: number;
  declare pooler_act: string;

  constructor({
    hidden_size = 768,
    num_hidden_layers = 12,
    num_attention_heads = 12,
    intermediate_size = 3072,
    hidden_act = "gelu",
    hidden_dropout_prob = 0,
    attention_probs_dropout_prob = 0,
    initializer_range = 0.02,
    layer_norm_eps = 1e-12,
    image_size = 224,
    patch_size = 16,
    num_channels = 3,
    qkv_bias = true,
    encoder_stride = 16,
    pooler_output_size = null,
    pooler_act = "tanh",
    ...kwargs
  }: ViTConfigOptions = {}) {
    super(kwargs);
    this.hidden_size = hidden_size;
    this.num_hidden_layers = num_hidden_layers;
    this.num_attention_heads = num_attention_heads;
    this.intermediate_size = intermediate_size;
    this.hidden_act = hidden_act;
    this.hidden_dropout_prob = hidden_dropout_prob;
    this.attention_probs_dropout_prob = attention_probs_dropout_prob;
    this.initializer_range = initializer_range;
    this.layer_norm_eps = layer_norm_eps;
    this.image_size = image_size;
    this.patch_size = patch_size;
    this.num_channels = num_channels;
    this.qkv_bias = qkv_bias;
    this.encoder_stride = encoder_stride;
    this.pooler_output_size = pooler_output_size || hidden_size;
    this.pooler_act = pooler_act;
    this.post_init();
  }
}

/** Fields of `ViTConfig`, each with a default, and those that every configuration has. */
export interface ViTConfigOptions extends ConfigKwargs {
  readonly hidden_size?: number;
  readonly num_hidden_layers?: number;
  readonly num_attention_heads?: number;
  readonly intermediate_size?: number;
  readonly hidden_act?: string;
  readonly hidden_dropout_prob?: number;
  readonly attention_probs_dropout_prob?: number;
  readonly initializer_range?: number;
  readonly layer_norm_eps?: number;
  readonly image_size?: number | number[];
  readonly patch_size?: number | number[];
  readonly num_channels?: number;
  readonly qkv_bias?: boolean;
  readonly encoder_stride?: number;
  readonly pooler_output_size?: number | null;
  readonly pooler_act?: string;
}
