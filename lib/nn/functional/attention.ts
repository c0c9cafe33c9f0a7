// Attention: the operator, and torch's multi-head attention around it.

import { InvalidArgumentError, ShapeError } from "../../errors/index.ts";
import type { Dtype, Tensor } from "../../torch/index.ts";
import * as torch from "../../torch/index.ts";
import * as ops from "../../torch/nn.generated.ts";
import { bind, byName, type Rest } from "../arguments.ts";

export interface AttentionOptions {
  /** Booleans (true takes part), or numbers to add to the scores. */
  attn_mask?: Tensor | null | undefined;
  /** Default: 0. Applied whenever it is not 0: pass 0 in evaluation mode. */
  dropout_p?: number | undefined;
  /** Each position sees those up to itself. Default: false. */
  is_causal?: boolean | undefined;
  /** The factor on the scores. Default: 1 / √head_dim. */
  scale?: number | null | undefined;
  /** Fewer key and value heads than query heads: each serves a group. Default: false. */
  enable_gqa?: boolean | undefined;
}

/** softmax(q kᵀ · scale + mask) v, of [..., heads, length, head_dim]. */
export const scaled_dot_product_attention = byName(
  ["query", "key", "value"],
  function scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ...rest: Rest<[attn_mask: Tensor | null, dropout_p: number, is_causal: boolean], AttentionOptions>
  ): Tensor {
    const { attn_mask, dropout_p, is_causal, scale, enable_gqa } = bind(
      "scaled_dot_product_attention",
      rest,
      {
        attn_mask: null as Tensor | null,
        dropout_p: 0,
        is_causal: false,
        scale: null as number | null,
        enable_gqa: false,
      },
    );
    return ops.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, {
      scale,
      enable_gqa,
    });
  },
);

/** What `nn.MultiheadAttention` passes on; torch's names. */
export interface MultiHeadAttentionInputs {
  num_heads: number;
  /** [3 · embed_dim, embed_dim]: the projections of query, key and value on top of each other. */
  in_proj_weight: Tensor | null;
  in_proj_bias: Tensor | null;
  out_proj_weight: Tensor;
  out_proj_bias: Tensor | null;
  /** Further key and value, the same for all inputs. */
  bias_k?: Tensor | null | undefined;
  bias_v?: Tensor | null | undefined;
  /** One more key and value of zeros. Default: false. */
  add_zero_attn?: boolean | undefined;
  dropout_p?: number | undefined;
  training?: boolean | undefined;
  /** [batch, source]: true, or a number to add, for keys to leave out. */
  key_padding_mask?: Tensor | null | undefined;
  need_weights?: boolean | undefined;
  /** [target, source] or [batch · heads, target, source]: true leaves out, as opposed to the operator's masks. */
  attn_mask?: Tensor | null | undefined;
  /** Three weights instead of in_proj_weight, for keys and values of other widths. */
  use_separate_proj_weight?: boolean | undefined;
  q_proj_weight?: Tensor | null | undefined;
  k_proj_weight?: Tensor | null | undefined;
  v_proj_weight?: Tensor | null | undefined;
  average_attn_weights?: boolean | undefined;
  is_causal?: boolean | undefined;
}

type Projected = [q: Tensor, k: Tensor, v: Tensor];

/**
 * Projects, attends with several heads, and projects back: query [target, batch, embed_dim], key and value
 * [source, batch, …], all without the batch dimension for a single sequence.
 *
 * @returns the output, and the weights [batch, target, source] when asked for, else null.
 */
export function multi_head_attention_forward(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  inputs: MultiHeadAttentionInputs,
): [output: Tensor, weights: Tensor | null] {
  const { num_heads, need_weights = true, training = true, average_attn_weights = true } = inputs;
  const batched = query.ndim === 3;
  checkInputs(query, key, value, inputs);
  if (!batched) {
    const padding = inputs.key_padding_mask?.unsqueeze(0) ?? null;
    const lone = multi_head_attention_forward(query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1), {
      ...inputs,
      key_padding_mask: padding,
    });
    return [lone[0].squeeze(1), lone[1]?.squeeze(0) ?? null];
  }

  const [target, batch, width] = query.shape as [number, number, number];
  const headDim = width / num_heads;
  let padding = additive(inputs.key_padding_mask, query.dtype, "key_padding_mask");
  const hinted = (inputs.is_causal ?? false) && padding === null && !need_weights;
  let mask = hinted ? null : additive(inputs.attn_mask, query.dtype, "attn_mask");
  if (mask) mask = withHeads(mask, [batch * num_heads, target, key.size(0)]);

  let [q, k, v] = project(query, key, value, inputs);
  const { bias_k, bias_v } = inputs;
  if (bias_k && bias_v) {
    k = torch.cat([k, bias_k.repeat(1, batch, 1)]);
    v = torch.cat([v, bias_v.repeat(1, batch, 1)]);
    mask = mask && ops.pad(mask, [0, 1]);
    padding = padding && ops.pad(padding, [0, 1]);
  }
  const heads = (x: Tensor) => x.reshape([x.size(0), batch * num_heads, headDim]).transpose(0, 1); // [batch · heads, length, head_dim]
  [q, k, v] = [heads(q), heads(k), heads(v)];
  if (inputs.add_zero_attn) {
    const zeros = k.new_zeros([batch * num_heads, 1, headDim]);
    k = torch.cat([k, zeros], 1);
    v = torch.cat([v, zeros], 1);
    mask = mask && ops.pad(mask, [0, 1]);
    padding = padding && ops.pad(padding, [0, 1]);
  }

  const source = k.size(1);
  if (padding) {
    const perHead = padding
      .reshape([batch, 1, 1, source])
      .expand([-1, num_heads, -1, -1])
      .reshape([batch * num_heads, 1, source]);
    mask = mask ? mask.add(perHead) : perHead;
  }
  const dropout_p = training ? (inputs.dropout_p ?? 0) : 0;
  const join = (x: Tensor) =>
    ops
      .linear(x.contiguous().reshape([target * batch, width]), inputs.out_proj_weight, inputs.out_proj_bias)
      .reshape([target, batch, -1]);

  if (!need_weights) {
    const split = (x: Tensor) => x.reshape([batch, num_heads, -1, headDim]);
    const lastMask =
      mask && (mask.size(0) === 1 ? mask.unsqueeze(0) : mask.reshape([batch, num_heads, -1, source]));
    const attended = ops.scaled_dot_product_attention(
      split(q),
      split(k),
      split(v),
      lastMask,
      dropout_p,
      hinted,
    );
    return [join(attended.permute(2, 0, 1, 3)), null];
  }
  const scaled = q.mul(Math.sqrt(1 / headDim));
  const scores = mask
    ? torch.baddbmm(mask, scaled, k.transpose(-2, -1))
    : torch.bmm(scaled, k.transpose(-2, -1));
  let weights = torch.softmax(scores, -1);
  if (dropout_p > 0) weights = torch.dropout(weights, dropout_p, true);
  const output = join(torch.bmm(weights, v).transpose(0, 1));
  weights = weights.reshape([batch, num_heads, target, source]);
  return [output, average_attn_weights ? weights.mean([1]) : weights];
}

function checkInputs(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  { num_heads, key_padding_mask, attn_mask, is_causal }: MultiHeadAttentionInputs,
): void {
  const dims = query.ndim;
  if ((dims !== 2 && dims !== 3) || key.ndim !== dims || value.ndim !== dims) {
    throw new ShapeError(
      `[multi_head_attention] query, key and value must all have 3 dimensions, or 2 without batch; got ${dims}, ${key.ndim} and ${value.ndim}.`,
    );
  }
  if (key_padding_mask && key_padding_mask.ndim !== dims - 1) {
    throw new ShapeError(
      `[multi_head_attention] key_padding_mask must have ${dims - 1} dimensions, got ${key_padding_mask.ndim}.`,
    );
  }
  if (attn_mask && attn_mask.ndim !== 2 && attn_mask.ndim !== 3) {
    throw new ShapeError(
      `[multi_head_attention] attn_mask must have 2 or 3 dimensions, got ${attn_mask.ndim}.`,
    );
  }
  if (query.size(-1) % num_heads !== 0) {
    throw new ShapeError(
      `[multi_head_attention] width ${query.size(-1)} is not divisible by ${num_heads} heads.`,
    );
  }
  if (is_causal && !attn_mask) {
    throw new InvalidArgumentError(
      "multi_head_attention: is_causal is a hint about attn_mask, which is missing.",
    );
  }
}

/** A mask of booleans (true leaves out) as numbers to add to the scores. */
function additive(mask: Tensor | null | undefined, dtype: Dtype, name: string): Tensor | null {
  if (!mask) return null;
  if (mask.is_floating_point()) return mask;
  if (mask.dtype !== "bool")
    throw new InvalidArgumentError(
      `multi_head_attention: ${name} must be of bool or a floating point dtype, got ${mask.dtype}.`,
    );
  return torch.zeros_like(mask, { dtype }).masked_fill_(mask, Number.NEGATIVE_INFINITY);
}

function withHeads(mask: Tensor, full: readonly number[]): Tensor {
  const expected = mask.ndim === 2 ? full.slice(1) : full;
  if (mask.shape.join() !== expected.join()) {
    throw new ShapeError(
      `[multi_head_attention] attn_mask must have the shape [${expected.join(", ")}], got [${mask.shape.join(", ")}].`,
    );
  }
  return mask.ndim === 2 ? mask.unsqueeze(0) : mask;
}

/** Query, key and value through their projections; one product when they are the same tensor, as torch computes it. */
function project(query: Tensor, key: Tensor, value: Tensor, inputs: MultiHeadAttentionInputs): Projected {
  const { in_proj_weight, in_proj_bias, q_proj_weight, k_proj_weight, v_proj_weight } = inputs;
  const width = query.size(-1);
  const biases = in_proj_bias ? in_proj_bias.chunk(3) : [null, null, null];
  const [qBias = null, kBias = null, vBias = null] = biases;
  if (inputs.use_separate_proj_weight) {
    if (!q_proj_weight || !k_proj_weight || !v_proj_weight) {
      throw new InvalidArgumentError(
        "multi_head_attention: use_separate_proj_weight needs q_proj_weight, k_proj_weight and v_proj_weight.",
      );
    }
    return [
      ops.linear(query, q_proj_weight, qBias),
      ops.linear(key, k_proj_weight, kBias),
      ops.linear(value, v_proj_weight, vBias),
    ];
  }
  if (!in_proj_weight) throw new InvalidArgumentError("multi_head_attention: in_proj_weight is missing.");
  const split = (x: Tensor, parts: number) =>
    x
      .unflatten(-1, [parts, width])
      .unsqueeze(0)
      .transpose(0, -2)
      .squeeze(-2)
      .contiguous()
      .unbind(0) as Tensor[];
  if (key === value && query === key)
    return split(ops.linear(query, in_proj_weight, in_proj_bias), 3) as Projected;
  if (key === value) {
    const [qWeight, rest] = in_proj_weight.split([width, width * 2]) as [Tensor, Tensor];
    const [, restBias = null] = in_proj_bias ? in_proj_bias.split([width, width * 2]) : [];
    const [k, v] = split(ops.linear(key, rest, restBias), 2) as [Tensor, Tensor];
    return [ops.linear(query, qWeight, qBias), k, v];
  }
  const [qWeight, kWeight, vWeight] = in_proj_weight.chunk(3) as Projected;
  return [
    ops.linear(query, qWeight, qBias),
    ops.linear(key, kWeight, kBias),
    ops.linear(value, vWeight, vBias),
  ];
}
