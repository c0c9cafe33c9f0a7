// SAM's configuration: of the image encoder, of the prompt encoder, of the mask decoder, and of the whole.

import { type ConfigKwargs, PretrainedConfig, type SubConfig } from "../../configuration/index.ts";

/** Configuration of the part that reads points, boxes and masks. */
export class SamPromptEncoderConfig extends PretrainedConfig {
  static override readonly model_type: string = "sam_prompt_encoder";
  static override readonly base_config_key: string = "prompt_encoder_config";
  static override readonly field_types: Readonly<Record<string, string>> = {
    hidden_size: "int",
    image_size: "int",
    patch_size: "int",
    mask_input_channels: "int",
    num_point_embeddings: "int",
    hidden_act: "str",
    layer_norm_eps: "float",
  };

  declare hidden_size: number;
  declare image_size: number;
  declare patch_size: number;
  /** Channels that the convolutions over mask prompts end with. */
  declare mask_input_channels: number;
  /** Kinds of points: outside, inside, the two corners of a box. */
  declare num_point_embeddings: number;
  declare hidden_act: string;
  declare layer_norm_eps: number;
  /** Height and width of the image embeddings: `image_size / patch_size`. */
  declare image_embedding_size: number;

  constructor({
    hidden_size = 256,
    image_size = 1024,
    patch_size = 16,
    mask_input_channels = 16,
    num_point_embeddings = 4,
    hidden_act = "gelu",
    layer_norm_eps = 1e-6,
    image_embedding_size = Math.floor(image_size / patch_size),
    ...kwargs
  }: SamPromptEncoderConfigOptions = {}) {
    super(kwargs);
    this.hidden_size = hidden_size;
    this.image_size = image_size;
    this.patch_size = patch_size;
    this.mask_input_channels = mask_input_channels;
    this.num_point_embeddings = num_point_embeddings;
    this.hidden_act = hidden_act;
    this.layer_norm_eps = layer_norm_eps;
    this.image_embedding_size = image_embedding_size;
    this.post_init();
  }
}

/** Configuration of the part that makes masks of the embeddings of image and prompts. */
export class SamMaskDecoderConfig extends PretrainedConfig {
  static override readonly model_type: string = "sam_mask_decoder";
  static override readonly base_config_key: string = "mask_decoder_config";
  static override readonly field_types: Readonly<Record<string, string>> = {
    hidden_size: "int",
    hidden_act: "str",
    mlp_dim: "int",
    num_hidden_layers: "int",
    num_attention_heads: "int",
    attention_downsample_rate: "int",
    num_multimask_outputs: "int",
    iou_head_depth: "int",
    iou_head_hidden_dim: "int",
    layer_norm_eps: "float",
  };

  declare hidden_size: number;
  declare hidden_act: string;
  /** Width of the feed-forward layers. */
  declare mlp_dim: number;
  declare num_hidden_layers: number;
  declare num_attention_heads: number;
  /** How much narrower the attention between tokens and image is. */
  declare attention_downsample_rate: number;
  /** Masks per prompt. */
  declare num_multimask_outputs: number;
  /** Layers of the head that rates the masks. */
  declare iou_head_depth: number;
  declare iou_head_hidden_dim: number;
  declare layer_norm_eps: number;

  constructor({
    hidden_size = 256,
    hidden_act = "relu",
    mlp_dim = 2048,
    num_hidden_layers = 2,
    num_attention_heads = 8,
    attention_downsample_rate = 2,
    num_multimask_outputs = 3,
    iou_head_depth = 3,
    iou_head_hidden_dim = 256,
    layer_norm_eps = 1e-6,
    ...kwargs
  }: SamMaskDecoderConfigOptions = {}) {
    super(kwargs);
    this.hidden_size = hidden_size;
    this.hidden_act = hidden_act;
    this.mlp_dim = mlp_dim;
    this.num_hidden_layers = num_hidden_layers;
    this.num_attention_heads = num_attention_heads;
    this.attention_downsample_rate = attention_downsample_rate;
    this.num_multimask_outputs = num_multimask_outputs;
    this.iou_head_depth = iou_head_depth;
    this.iou_head_hidden_dim = iou_head_hidden_dim;
    this.layer_norm_eps = layer_norm_eps;
    this.post_init();
  }
}

/** Configuration of the image encoder. The defaults are those of SAM ViT-Base. */
export class SamVisionConfig extends PretrainedConfig {
  static override readonly model_type: string = "sam_vision_model";
  static override readonly base_config_key: string = "vision_config";
  static override readonly field_types: Readonly<Record<string, string>> = {
    hidden_size: "int",
    output_channels: "int",
    num_hidden_layers: "int",
    num_attention_heads: "int",
    num_channels: "int",
    image_size: "int",
    patch_size: "int",
    hidden_act: "str",
    layer_norm_eps: "float",
    attention_dropout: "float | int",
    initializer_range: "float",
    qkv_bias: "bool",
    mlp_ratio: "float",
    use_abs_pos: "bool",
    use_rel_pos: "bool",
    window_size: "int",
    global_attn_indexes: "list[int]",
    num_pos_feats: "int",
    mlp_dim: "int | None",
  };
  static override readonly field_ranges: Readonly<Record<string, { min?: number; max?: number }>> = {
    num_attention_heads: { min: 1 },
  };

  declare hidden_size: number;
  /** Channels of the image embeddings. */
  declare output_channels: number;
  declare num_hidden_layers: number;
  declare num_attention_heads: number;
  declare num_channels: number;
  declare image_size: number;
  declare patch_size: number;
  declare hidden_act: string;
  declare layer_norm_eps: number;
  declare attention_dropout: number;
  /** Standard deviation of fresh weights. */
  declare initializer_range: number;
  declare qkv_bias: boolean;
  /** Width of the feed-forward layers, as a multiple of `hidden_size`. */
  declare mlp_ratio: number;
  /** Add positions to the patches. */
  declare use_abs_pos: boolean;
  /** Add positions, relative in height and width, to the attention scores. */
  declare use_rel_pos: boolean;
  /** Side of the windows to which most layers confine attention; 0 for none. */
  declare window_size: number;
  /** Layers that see the whole image. */
  declare global_attn_indexes: number[];
  /** Frequencies of the positions of prompts: half the width of their embeddings. */
  declare num_pos_feats: number;
  /** Width of the feed-forward layers. Default `hidden_size * mlp_ratio`. */
  declare mlp_dim: number;
  /** Spread of the frequencies for fresh weights. Default `hidden_size / 2`. */
  declare scale: number;

  constructor({
    hidden_size = 768,
    output_channels = 256,
    num_hidden_layers = 12,
    num_attention_heads = 12,
    num_channels = 3,
    image_size = 1024,
    patch_size = 16,
    hidden_act = "gelu",
    layer_norm_eps = 1e-6,
    attention_dropout = 0,
    initializer_range = 1e-10,
    qkv_bias = true,
    mlp_ratio = 4,
    use_abs_pos = true,
    use_rel_pos = true,
    window_size = 14,
    global_attn_indexes = [2, 5, 8, 11],
    num_pos_feats = 128,
    mlp_dim = null,
    scale = Math.floor(hidden_size / 2),
    ...kwargs
  }: SamVisionConfigOptions = {}) {
    super(kwargs);
    this.hidden_size = hidden_size;
    this.output_channels = output_channels;
    this.num_hidden_layers = num_hidden_layers;
    this.num_attention_heads = num_attention_heads;
    this.num_channels = num_channels;
    this.image_size = image_size;
    this.patch_size = patch_size;
    this.hidden_act = hidden_act;
    this.layer_norm_eps = layer_norm_eps;
    this.attention_dropout = attention_dropout;
    this.initializer_range = initializer_range;
    this.qkv_bias = qkv_bias;
    this.mlp_ratio = mlp_ratio;
    this.use_abs_pos = use_abs_pos;
    this.use_rel_pos = use_rel_pos;
    this.window_size = window_size;
    this.global_attn_indexes = global_attn_indexes;
    this.num_pos_feats = num_pos_feats;
    this.mlp_dim = mlp_dim ?? Math.trunc(hidden_size * mlp_ratio);
    this.scale = scale;
    this.post_init();
  }
}

/**
 * Configuration of the whole model.
 *
 * ```ts
 * const config = new SamConfig({ vision_config: { image_size: 512 }, prompt_encoder_config: { image_size: 512 } });
 * config.prompt_encoder_config.image_embedding_size; // 32
 * ```
 */
export class SamConfig extends PretrainedConfig {
  static override readonly model_type: string = "sam";
  static override readonly sub_configs: Readonly<Record<string, SubConfig>> = {
    prompt_encoder_config: SamPromptEncoderConfig,
    mask_decoder_config: SamMaskDecoderConfig,
    vision_config: SamVisionConfig,
  };
  static override readonly field_types: Readonly<Record<string, string>> = {
    vision_config: "dict | None",
    prompt_encoder_config: "dict | None",
    mask_decoder_config: "dict | None",
    initializer_range: "float",
    tie_word_embeddings: "bool",
  };

  declare vision_config: SamVisionConfig;
  declare prompt_encoder_config: SamPromptEncoderConfig;
  declare mask_decoder_config: SamMaskDecoderConfig;
  /** Standard deviation of fresh weights outside of the image encoder. */
  declare initializer_range: number;
  /** The positions of image and prompts are one tensor. */
  declare tie_word_embeddings: boolean;

  constructor({
    vision_config = null,
    prompt_encoder_config = null,
    mask_decoder_config = null,
    initializer_range = 0.02,
    tie_word_embeddings = true,
    ...kwargs
  }: SamConfigOptions = {}) {
    super(kwargs);
    this.vision_config = vision_config as SamVisionConfig;
    this.prompt_encoder_config = prompt_encoder_config as SamPromptEncoderConfig;
    this.mask_decoder_config = mask_decoder_config as SamMaskDecoderConfig;
    this.initializer_range = initializer_range;
    this.tie_word_embeddings = tie_word_embeddings;
    this.post_init();
  }
}

/** Fields of `SamPromptEncoderConfig`, each with a default, and those that every configuration has. */
export interface SamPromptEncoderConfigOptions extends ConfigKwargs {
  readonly hidden_size?: number;
  readonly image_size?: number;
  readonly patch_size?: number;
  readonly mask_input_channels?: number;
  readonly num_point_embeddings?: number;
  readonly hidden_act?: string;
  readonly layer_norm_eps?: number;
  readonly image_embedding_size?: number;
}

/** Fields of `SamMaskDecoderConfig`, each with a default, and those that every configuration has. */
export interface SamMaskDecoderConfigOptions extends ConfigKwargs {
  readonly hidden_size?: number;
  readonly hidden_act?: string;
  readonly mlp_dim?: number;
  readonly num_hidden_layers?: number;
  readonly num_attention_heads?: number;
  readonly attention_downsample_rate?: number;
  readonly num_multimask_outputs?: number;
  readonly iou_head_depth?: number;
  readonly iou_head_hidden_dim?: number;
  readonly layer_norm_eps?: number;
}

/** Fields of `SamVisionConfig`, each with a default, and those that every configuration has. */
export interface SamVisionConfigOptions extends ConfigKwargs {
  readonly hidden_size?: number;
  readonly output_channels?: number;
  readonly num_hidden_layers?: number;
  readonly num_attention_heads?: number;
  readonly num_channels?: number;
  readonly image_size?: number;
  readonly patch_size?: number;
  readonly hidden_act?: string;
  readonly layer_norm_eps?: number;
  readonly attention_dropout?: number;
  readonly initializer_range?: number;
  readonly qkv_bias?: boolean;
  readonly mlp_ratio?: number;
  readonly use_abs_pos?: boolean;
  readonly use_rel_pos?: boolean;
  readonly window_size?: number;
  readonly global_attn_indexes?: number[];
  readonly num_pos_feats?: number;
  readonly mlp_dim?: number | null;
  readonly scale?: number;
}

/** Fields of `SamConfig`, each with a default, and those that every configuration has. */
export interface SamConfigOptions extends ConfigKwargs {
  readonly vision_config?: SamVisionConfigOptions | SamVisionConfig | null;
  readonly prompt_encoder_config?: SamPromptEncoderConfigOptions | SamPromptEncoderConfig | null;
  readonly mask_decoder_config?: SamMaskDecoderConfigOptions | SamMaskDecoderConfig | null;
  readonly initializer_range?: number;
  readonly tie_word_embeddings?: boolean;
}
