// The attention kernels, by name. Models call the one that their config names; users may register more.
import { InvalidArgumentError } from "../errors/index.ts";
import { nearest } from "../errors/suggest.ts";
import * as nn from "../nn/index.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";

const F = nn.functional;

/** What a kernel reads from the attention module that calls it. */
export interface AttentionModule {
  readonly training: boolean;
  /** Query heads per key/value head; 1 when absent. */
  readonly num_key_value_groups?: number;
  /** Without a mask: attend to earlier positions only. True when absent. */
  readonly is_causal?: boolean;
}

/** What an attention function is told beside query, key and value. */
export interface AttentionOptions {
  /** What `masking_utils` built for this kernel: bool or additive, [batch, 1 or heads, queries, keys]; undefined = none. */
  readonly attention_mask?: Tensor | undefined;
  /** Factor on the scores; 1/√head_dim when absent. */
  readonly scaling?: number | undefined;
  /** Dropout on the weights; 0 when absent. */
  readonly dropout?: number | undefined;
  /** Scores are squashed to ±softcap by tanh. */
  readonly softcap?: number | undefined;
  /** Overrides the module's. */
  readonly is_causal?: boolean | undefined;
}

/** Output [batch, queries, heads, head_dim], and the weights [batch, heads, queries, keys] where the kernel has them. */
export type AttentionFunction = (
  module: AttentionModule,
  query: Tensor,
  key: Tensor,
  value: Tensor,
  options: AttentionOptions,
) => [output: Tensor, weights: Tensor | undefined];

export interface AttentionImplementation {
  readonly forward: AttentionFunction;
  /** Wants numbers to add to the scores instead of booleans. */
  readonly additiveMask: boolean;
  /** Masks the future by itself when it gets no mask. */
  readonly handlesCausal: boolean;
  /** Gives attention weights. */
  readonly givesWeights: boolean;
}

/** [batch, kv_heads, length, dim] → [batch, kv_heads · n, length, dim], each head n times in a row. */
export function repeat_kv(x: Tensor, n: number): Tensor {
  if (n === 1) return x;
  const [batch, heads, length, dim] = x.shape as [number, number, number, number];
  return x
    .unsqueeze(2)
    .expand([batch, heads, n, length, dim])
    .reshape([batch, heads * n, length, dim]);
}

/** Attention step by step, with weights to look at; the softmax is computed in float32. */
export const eager_attention_forward: AttentionFunction = (module, query, key, value, options) => {
  const { attention_mask, dropout = 0, softcap, scaling = (query.shape.at(-1) as number) ** -0.5 } = options;
  const groups = module.num_key_value_groups ?? 1;
  let scores = torch.matmul(query, repeat_kv(key, groups).transpose(2, 3)).mul(scaling);
  if (softcap !== undefined) scores = scores.div(softcap).tanh().mul(softcap);
  if (attention_mask !== undefined) scores = scores.add(attention_mask);
  let weights = scores.softmax(-1, { dtype: "float32" }).to(query.dtype);
  if (dropout > 0) weights = F.dropout(weights, { p: dropout, training: module.training });
  return [torch.matmul(weights, repeat_kv(value, groups)).transpose(1, 2).contiguous(), weights];
};

/** torch's fused attention. */
export const sdpa_attention_forward: AttentionFunction = (module, query, key, value, options) => {
  if (options.softcap !== undefined) {
    throw new InvalidArgumentError("'sdpa' attention has no softcap.", {
      hint: "Use attn_implementation: 'eager'.",
    });
  }
  const groups = module.num_key_value_groups ?? 1;
  const [batch, heads, queries, dim] = query.shape as [number, number, number, number];
  const mask = options.attention_mask;
  const is_causal = queries > 1 && mask === undefined && (options.is_causal ?? module.is_causal ?? true);

  let [q, k, v, enable_gqa] = [query, key, value, false];
  if (groups > 1) {
    const keyDim = key.shape.at(-1) as number;
    // With a mask the fused kernels know no grouped heads; one query per head packs into its group instead.
    if (mask === undefined && keyDim === value.shape.at(-1) && keyDim <= 256) enable_gqa = true;
    else if (queries === 1 && (mask === undefined || mask.shape[1] === 1))
      q = query.reshape([batch, heads / groups, groups, dim]);
    else [k, v] = [repeat_kv(key, groups), repeat_kv(value, groups)];
  }
  const out = F.scaled_dot_product_attention(q, k, v, {
    attn_mask: mask,
    dropout_p: options.dropout ?? 0,
    is_causal,
    scale: options.scaling,
    enable_gqa,
  });
  return [out.reshape([batch, heads, queries, -1]).transpose(1, 2).contiguous(), undefined];
};

/** Name → kernel. `register` adds one, and may replace one. */
export const ALL_ATTENTION_FUNCTIONS: Map<string, AttentionImplementation> = new Map([
  [
    "eager",
    { forward: eager_attention_forward, additiveMask: true, handlesCausal: false, givesWeights: true },
  ],
  [
    "sdpa",
    { forward: sdpa_attention_forward, additiveMask: false, handlesCausal: true, givesWeights: false },
  ],
]);

/**
 * Adds an attention kernel under a name that `attn_implementation` then accepts.
 *
 * @example
 * register_attention("traced", (module, q, k, v, options) => {
 *   console.log(q.shape);
 *   return sdpa_attention_forward(module, q, k, v, options);
 * });
 */
export function register_attention(
  name: string,
  forward: AttentionFunction,
  {
    additiveMask = false,
    handlesCausal = false,
    givesWeights = false,
  }: Partial<Omit<AttentionImplementation, "forward">> = {},
): void {
  ALL_ATTENTION_FUNCTIONS.set(name, { forward, additiveMask, handlesCausal, givesWeights });
}

/** The kernel of that name. @throws InvalidArgumentError with the known names. */
export function attentionImplementation(name: string | null): AttentionImplementation {
  const implementation = ALL_ATTENTION_FUNCTIONS.get(name ?? "eager");
  if (implementation === undefined) {
    const known = [...ALL_ATTENTION_FUNCTIONS.keys()];
    throw new InvalidArgumentError(`Unknown attn_implementation '${name}'; known are ${known.join(", ")}.`, {
      suggestion: nearest(name ?? "", known, 1)[0],
    });
  }
  return implementation;
}

/** What attention layers get from their model, in one bag. */
export interface AttentionInputs {
  readonly attention_mask?: Tensor | undefined;
  /** Where a layer puts its weights, when they were asked for. */
  readonly attentions?: Tensor[] | undefined;
}

/** Runs the kernel that the module's config names: output [batch, queries, heads, head_dim]. */
export function attention(
  module: AttentionModule & { readonly config: { readonly _attn_implementation: string | null } },
  query: Tensor,
  key: Tensor,
  value: Tensor,
  { attention_mask, attentions }: AttentionInputs,
  options: Omit<AttentionOptions, "attention_mask"> = {},
): Tensor {
  const implementation = attentionImplementation(module.config._attn_implementation);
  const [output, weights] = implementation.forward(module, query, key, value, { ...options, attention_mask });
  if (attentions && weights) attentions.push(weights);
  return output;
}
