// Multi-head attention as torch has it.

import { InvalidArgumentError } from "../errors/index.ts";
import type { Tensor } from "../torch/index.ts";
import { type Arguments, bind, REQUIRED, type Rest } from "./arguments.ts";
import { emptyParameter, FACTORY, type FactoryOptions } from "./factory.ts";
import * as F from "./functional.ts";
import * as init from "./init.ts";
import { Linear } from "./linear.ts";
import { Module } from "./module.ts";
import type { Parameter } from "./parameter.ts";

/** The output projection, under the name that torch prints. */
class NonDynamicallyQuantizableLinear extends Linear {}

export interface MultiheadAttentionOptions extends FactoryOptions {
  /** Dropout on the attention weights. Default: 0. */
  dropout?: number | undefined;
  /** Biases on all projections. Default: true. */
  bias?: boolean | undefined;
  /** Learn one further key and value. Default: false. */
  add_bias_kv?: boolean | undefined;
  /** Add a key and a value of zeros. Default: false. */
  add_zero_attn?: boolean | undefined;
  /** Width of the keys. Default: embed_dim. */
  kdim?: number | null | undefined;
  /** Width of the values. Default: embed_dim. */
  vdim?: number | null | undefined;
  /** Inputs are [batch, length, width] and not [length, batch, width]. Default: false. */
  batch_first?: boolean | undefined;
}

export interface AttendOptions {
  /** [batch, source]: true, or a number to add, for keys to leave out. */
  key_padding_mask?: Tensor | null | undefined;
  /** Give the weights, too. Default: true. */
  need_weights?: boolean | undefined;
  /** [target, source] or [batch · heads, target, source]: true leaves out; numbers are added. */
  attn_mask?: Tensor | null | undefined;
  /** The mean of the weights over the heads. Default: true. */
  average_attn_weights?: boolean | undefined;
  /** A hint that attn_mask is causal. Default: false. */
  is_causal?: boolean | undefined;
}

/**
 * Attention with several heads: query [target, batch, embed_dim], key and value [source, batch, …].
 *
 * @example
 * const attention = new nn.MultiheadAttention(16, 4, { batch_first: true });
 * const [output, weights] = attention.forward(x, x, x); // [batch, length, 16], [batch, length, length]
 */
export class MultiheadAttention extends Module {
  readonly embed_dim: number;
  readonly kdim: number;
  readonly vdim: number;
  readonly num_heads: number;
  readonly dropout: number;
  readonly batch_first: boolean;
  readonly head_dim: number;
  in_proj_weight: Parameter | null;
  q_proj_weight: Parameter | null;
  k_proj_weight: Parameter | null;
  v_proj_weight: Parameter | null;
  in_proj_bias: Parameter | null;
  out_proj: Linear;
  bias_k: Parameter | null;
  bias_v: Parameter | null;
  readonly add_zero_attn: boolean;

  constructor(
    ...args: Arguments<
      [embed_dim: number, num_heads: number],
      ["embed_dim", "num_heads"],
      [dropout: number, bias: boolean, add_bias_kv: boolean, add_zero_attn: boolean],
      MultiheadAttentionOptions
    >
  ) {
    super();
    const {
      embed_dim,
      num_heads,
      dropout,
      bias,
      add_bias_kv,
      add_zero_attn,
      kdim,
      vdim,
      batch_first,
      ...options
    } = bind("MultiheadAttention", args, {
      embed_dim: REQUIRED as number,
      num_heads: REQUIRED as number,
      dropout: 0,
      bias: true,
      add_bias_kv: false,
      add_zero_attn: false,
      kdim: null as number | null,
      vdim: null as number | null,
      batch_first: false,
      ...FACTORY,
    });
    if (embed_dim <= 0 || num_heads <= 0 || embed_dim % num_heads !== 0) {
      throw new InvalidArgumentError(
        `MultiheadAttention: embed_dim ${embed_dim} must be a positive multiple of num_heads ${num_heads}.`,
      );
    }
    this.embed_dim = embed_dim;
    this.kdim = kdim ?? embed_dim;
    this.vdim = vdim ?? embed_dim;
    this.num_heads = num_heads;
    this.dropout = dropout;
    this.batch_first = batch_first;
    this.head_dim = embed_dim / num_heads;

    const empty = (...shape: number[]) => emptyParameter(shape, options);
    const packed = this.kdim === embed_dim && this.vdim === embed_dim;
    this.in_proj_weight = packed ? empty(3 * embed_dim, embed_dim) : null;
    this.q_proj_weight = packed ? null : empty(embed_dim, embed_dim);
    this.k_proj_weight = packed ? null : empty(embed_dim, this.kdim);
    this.v_proj_weight = packed ? null : empty(embed_dim, this.vdim);
    this.in_proj_bias = bias ? empty(3 * embed_dim) : null;
    this.out_proj = new NonDynamicallyQuantizableLinear(embed_dim, embed_dim, { bias, ...options });
    this.bias_k = add_bias_kv ? empty(1, 1, embed_dim) : null;
    this.bias_v = add_bias_kv ? empty(1, 1, embed_dim) : null;
    this.add_zero_attn = add_zero_attn;
    this._reset_parameters();
  }

  _reset_parameters(): void {
    for (const weight of [this.in_proj_weight, this.q_proj_weight, this.k_proj_weight, this.v_proj_weight]) {
      if (weight) init.xavier_uniform_(weight);
    }
    if (this.in_proj_bias) init.zeros_(this.in_proj_bias);
    if (this.out_proj.bias) init.zeros_(this.out_proj.bias);
    if (this.bias_k) init.xavier_normal_(this.bias_k);
    if (this.bias_v) init.xavier_normal_(this.bias_v);
  }

  /** @returns the output, and the weights [batch, target, source] (or with a dimension of heads), null without `need_weights`. */
  override forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ...rest: Rest<
      [key_padding_mask: Tensor | null, need_weights: boolean, attn_mask: Tensor | null],
      AttendOptions
    >
  ): [output: Tensor, weights: Tensor | null] {
    const options = bind("MultiheadAttention.forward", rest, {
      key_padding_mask: null as Tensor | null,
      need_weights: true,
      attn_mask: null as Tensor | null,
      average_attn_weights: true,
      is_causal: false,
    });
    // One object stays one object: the projections are then one product.
    const swap = this.batch_first && query.ndim === 3;
    const q = swap ? query.transpose(0, 1) : query;
    const k = key === query ? q : swap ? key.transpose(0, 1) : key;
    const v = value === key ? k : value === query ? q : swap ? value.transpose(0, 1) : value;

    const [output, weights] = F.multi_head_attention_forward(q, k, v, {
      num_heads: this.num_heads,
      in_proj_weight: this.in_proj_weight,
      in_proj_bias: this.in_proj_bias,
      out_proj_weight: this.out_proj.weight,
      out_proj_bias: this.out_proj.bias,
      bias_k: this.bias_k,
      bias_v: this.bias_v,
      add_zero_attn: this.add_zero_attn,
      dropout_p: this.dropout,
      training: this.training,
      use_separate_proj_weight: this.in_proj_weight === null,
      q_proj_weight: this.q_proj_weight,
      k_proj_weight: this.k_proj_weight,
      v_proj_weight: this.v_proj_weight,
      ...options,
    });
    return [swap ? output.transpose(0, 1) : output, weights];
  }
}
