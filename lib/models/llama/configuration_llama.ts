// Llama's configuration: sizes, special tokens, rotary embeddings.

import { type ConfigKwargs, PretrainedConfig } from "../../configuration/configuration_utils.ts";
import type { RopeParameters } from "../../configuration/rope.ts";
import { ConfigError } from "../../errors/index.ts";

/**
 * Configuration of the Llama models. The defaults are Llama-7B's.
 *
 * ```ts
 * const config = new LlamaConfig({ hidden_size: 256, num_attention_heads: 4, rope_parameters: { rope_type: "linear", factor: 2 } });
 * config.head_dim; // 64
 * ```
 */
export class LlamaConfig extends PretrainedConfig {
  static override readonly model_type: string = "llama";
  static override readonly keys_to_ignore_at_inference: readonly string[] = ["past_key_values"];
  static override readonly field_types: Readonly<Record<string, string>> = {
    vocab_size: "int",
    hidden_size: "int",
    intermediate_size: "int",
    num_hidden_layers: "int",
    num_attention_heads: "int",
    num_key_value_heads: "int | None",
    hidden_act: "str",
    max_position_embeddings: "int",
    initializer_range: "float",
    rms_norm_eps: "float",
    use_cache: "bool",
    pad_token_id: "int | None",
    bos_token_id: "int | None",
    eos_token_id: "int | list[int] | None",
    pretraining_tp: "int | None",
    tie_word_embeddings: "bool",
    rope_parameters: "dict | None",
    attention_bias: "bool",
    attention_dropout: "int | float | None",
    mlp_bias: "bool",
    head_dim: "int | None",
  };
  static override readonly field_ranges: Readonly<Record<string, { min?: number; max?: number }>> = {
    initializer_range: { min: 0, max: 1 },
    num_attention_heads: { min: 1 },
    num_key_value_heads: { min: 1 },
  };

  declare vocab_size: number;
  declare hidden_size: number;
  /** Width of the feed-forward layers. */
  declare intermediate_size: number;
  declare num_hidden_layers: number;
  declare num_attention_heads: number;
  /** Heads of keys and values, each shared by several of queries. Default `num_attention_heads`. */
  declare num_key_value_heads: number;
  declare hidden_act: string;
  declare max_position_embeddings: number;
  /** Standard deviation of fresh weights. */
  declare initializer_range: number;
  declare rms_norm_eps: number;
  declare use_cache: boolean;
  declare pad_token_id: number | null;
  declare bos_token_id: number | null;
  declare eos_token_id: number | number[] | null;
  declare pretraining_tp: number | null;
  declare tie_word_embeddings: boolean;
  declare rope_parameters: RopeParameters;
  declare attention_bias: boolean;
  declare attention_dropout: number | null;
  declare mlp_bias: boolean;
  /** Width of a head. Default `hidden_size / num_attention_heads`. */
  declare head_dim: number;

  constructor({
    vocab_size = 32000,
    hidden_size = 4096,
    intermediate_size = 11008,
    num_hidden_layers = 32,
    num_attention_heads = 32,
    num_key_value_heads = null,
    hidden_act = "silu",
    max_position_embeddings = 2048,
    initializer_range = 0.02,
    rms_norm_eps = 1e-6,
    use_cache = true,
    pad_token_id = null,
    bos_token_id = 1,
    eos_token_id = 2,
    pretraining_tp = 1,
    tie_word_embeddings = false,
    rope_parameters = null,
    attention_bias = false,
    attention_dropout = 0,
    mlp_bias = false,
    head_dim = null,
    ...kwargs
  }: LlamaConfigOptions = {}) {
    super(kwargs);
    this.vocab_size = vocab_size;
    this.hidden_size = hidden_size;
    this.intermediate_size = intermediate_size;
    this.num_hidden_layers = num_hidden_layers;
    this.num_attention_heads = num_attention_heads;
    this.num_key_value_heads = num_key_value_heads ?? num_attention_heads;
    this.hidden_act = hidden_act;
    this.max_position_embeddings = max_position_embeddings;
    this.initializer_range = initializer_range;
    this.rms_norm_eps = rms_norm_eps;
    this.use_cache = use_cache;
    this.pad_token_id = pad_token_id;
    this.bos_token_id = bos_token_id;
    this.eos_token_id = eos_token_id;
    this.pretraining_tp = pretraining_tp;
    this.tie_word_embeddings = tie_word_embeddings;
    this.rope_parameters = rope_parameters as RopeParameters;
    this.attention_bias = attention_bias;
    this.attention_dropout = attention_dropout;
    this.mlp_bias = mlp_bias;
    this.head_dim = head_dim ?? Math.floor(hidden_size / num_attention_heads);
    this.post_init();
  }

  override validate_architecture(): void {
    if (this.hidden_size % this.num_attention_heads === 0) return;
    throw new ConfigError(
      `${this.constructor.name}: field 'hidden_size' (${this.hidden_size}) must be a multiple of ` +
        `num_attention_heads (${this.num_attention_heads}).`,
    );
  }
}

/** Fields of `LlamaConfig`, each with a default, and those that every configuration has. */
export interface LlamaConfigOptions extends ConfigKwargs {
  readonly vocab_size?: number;
  readonly hidden_size?: number;
  readonly intermediate_size?: number;
  readonly num_hidden_layers?: number;
  readonly num_attention_heads?: number;
  readonly num_key_value_heads?: number | null;
  readonly hidden_act?: string;
  readonly max_position_embeddings?: number;
  readonly initializer_range?: number;
  readonly rms_norm_eps?: number;
  readonly use_cache?: boolean;
  readonly pad_token_id?: number | null;
  readonly bos_token_id?: number | null;
  readonly eos_token_id?: number | number[] | null;
  readonly pretraining_tp?: number | null;
  readonly tie_word_embeddings?: boolean;
  readonly rope_parameters?: RopeParameters | null;
  /** Older names, read into `rope_parameters`. */
  readonly rope_scaling?: RopeParameters | null;
  readonly rope_theta?: number;
  readonly attention_bias?: boolean;
  readonly attention_dropout?: number | null;
  readonly mlp_bias?: boolean;
  readonly head_dim?: number | null;
}
