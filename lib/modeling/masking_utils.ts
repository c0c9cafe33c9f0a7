// Attention masks, built in one place: which key each query may see.
//
// A pattern is a function of positions; patterns combine by `and` and `or`, and one routine evaluates them. No value is
// read from a tensor, so that a forward can be recorded. The Python library leaves a mask out when it finds nothing
// masked in it; here a mask is left out by what is known without looking:
//   - no attention_mask was given, and there is one query, or as many queries as keys: the kernel's own causal mode;
//   - no attention_mask was given, and attention is bidirectional over everything.
// (`generate` drops an attention_mask of ones before its first step.)
import { InvalidArgumentError } from "../errors/index.ts";
import type { Dtype, Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { attentionImplementation } from "./attention.ts";
import type { Cache } from "./cache_utils.ts";

/** The position indices of a mask, shaped so that they broadcast to [batch, heads, queries, keys]. */
export interface MaskIndices {
  readonly batch: Tensor;
  readonly head: Tensor;
  readonly q: Tensor;
  readonly kv: Tensor;
}

/** True where the query may see the key. */
export type MaskFunction = (at: MaskIndices) => Tensor;

/** Seen where all of the masks see. */
export const and_masks =
  (...masks: MaskFunction[]): MaskFunction =>
  (at) =>
    masks.map((mask) => mask(at)).reduce((a, b) => a.bitwise_and(b));

/** Seen where one of the masks sees. */
export const or_masks =
  (...masks: MaskFunction[]): MaskFunction =>
  (at) =>
    masks.map((mask) => mask(at)).reduce((a, b) => a.bitwise_or(b));

export const causal_mask_function: MaskFunction = ({ q, kv }) => kv.le(q);

export const bidirectional_mask_function: MaskFunction = ({ q }) => q.ge(0);

export const sliding_window_causal_mask_function = (sliding_window: number): MaskFunction =>
  and_masks(({ q, kv }) => kv.gt(q.sub(sliding_window)), causal_mask_function);

export const sliding_window_bidirectional_mask_function =
  (sliding_window: number): MaskFunction =>
  ({ q, kv }) =>
    q.sub(kv).abs().le(sliding_window);

/** Causal within chunks of `chunk_size`, counted from each row's first real token: `left_padding` [batch]. */
export const chunked_causal_mask_function = (chunk_size: number, left_padding: Tensor): MaskFunction =>
  and_masks(({ batch, q, kv }) => {
    const start = left_padding.index(batch);
    const chunk = (t: Tensor) => t.sub(start).floor_divide(chunk_size);
    return chunk(kv).eq(chunk(q));
  }, causal_mask_function);

/** `padding_mask` [batch, keys] is true for real tokens. */
const padding_mask_function =
  (padding_mask: Tensor): MaskFunction =>
  ({ batch, kv }) =>
    padding_mask.index(batch, kv);

/** Several sequences packed in one row: each sees itself only, with the pattern over its own positions. */
function packed_mask_function(mask: MaskFunction, position_ids: Tensor): MaskFunction {
  // A sequence starts where the position does not follow the one before.
  const before = torch.cat(
    [position_ids.narrow(1, 0, 1).sub(1), position_ids.narrow(1, 0, (position_ids.shape[1] as number) - 1)],
    1,
  );
  const sequence = position_ids.sub(before).ne(1).cumsum(-1);
  return (at) => {
    const { batch, q, kv } = at;
    const own = mask({ ...at, q: position_ids.index(batch, q), kv: position_ids.index(batch, kv) });
    return own.bitwise_and(sequence.index(batch, q).eq(sequence.index(batch, kv)));
  };
}

/** What masks read from a configuration. */
export interface MaskConfig {
  readonly _attn_implementation: string | null;
  readonly is_causal?: boolean;
  readonly sliding_window?: number | null;
  readonly attention_chunk_size?: number | null;
}

export interface MaskInputs {
  readonly config: MaskConfig;
  /** [batch, length, hidden]: gives the sizes, dtype and device. */
  readonly inputs_embeds: Tensor;
  /** [batch, keys], 1 for real tokens; or a finished mask of 4 dimensions, which is passed through. */
  readonly attention_mask?: Tensor | null | undefined;
  readonly past_key_values?: Cache | undefined;
  /** Given by the caller, [batch, length]: without cache and attention mask, positions that start over mean packed sequences. */
  readonly position_ids?: Tensor | undefined;
  /** Keys and values come from here instead, [batch, keys, hidden]. */
  readonly encoder_hidden_states?: Tensor | undefined;
  /** Widens the pattern. */
  readonly or_mask_function?: MaskFunction | undefined;
  /** Narrows the pattern. */
  readonly and_mask_function?: MaskFunction | undefined;
}

interface Pattern {
  readonly mask: MaskFunction;
  readonly causal: boolean;
  /** Keys further away than this are masked: a mask is left out only for shorter sequences. */
  readonly reach?: number;
  /** Picks the cache layer whose length counts. */
  readonly sliding: boolean;
}

/** Evaluates a pattern; undefined where the attention kernel needs no mask. */
function buildMask(inputs: MaskInputs, pattern: Pattern): Tensor | undefined {
  const { config, inputs_embeds, past_key_values, position_ids, encoder_hidden_states } = inputs;
  const attention_mask = inputs.attention_mask ?? undefined;
  if (attention_mask?.shape.length === 4) return attention_mask;

  const device = inputs_embeds.device;
  const [batch, queries] = inputs_embeds.shape as [number, number];
  const layer = Math.max(0, past_key_values?.is_sliding.indexOf(pattern.sliding) ?? 0);
  const q_offset = past_key_values?.get_seq_length(layer) ?? 0;
  const { kv_length, kv_offset } = past_key_values?.get_mask_sizes(queries, layer) ?? {
    kv_length: attention_mask?.shape.at(-1) ?? encoder_hidden_states?.shape[1] ?? queries,
    kv_offset: 0,
  };

  let { mask } = pattern;
  const packed = position_ids !== undefined && attention_mask === undefined && past_key_values === undefined;
  const custom = inputs.or_mask_function !== undefined || inputs.and_mask_function !== undefined;
  const within = pattern.reach === undefined || kv_length < pattern.reach;
  const implementation = attentionImplementation(config._attn_implementation);
  if (attention_mask === undefined && !custom && within && !(packed && pattern.causal)) {
    const sized = queries === 1 || kv_length === queries;
    const fixed = typeof q_offset !== "number"; // a static cache has room behind the last token
    if (pattern.causal ? implementation.handlesCausal && sized && !fixed : true) return undefined;
  }

  if (inputs.or_mask_function) mask = or_masks(mask, inputs.or_mask_function);
  if (inputs.and_mask_function) mask = and_masks(mask, inputs.and_mask_function);
  if (packed && pattern.causal) mask = packed_mask_function(mask, position_ids.expand([batch, -1]));
  if (attention_mask !== undefined) {
    mask = and_masks(
      mask,
      padding_mask_function(padTo(attention_mask.to({ device, dtype: "bool" }), kv_offset + kv_length)),
    );
  }

  const range = (length: number, offset: number | Tensor) => {
    const positions = torch.arange(length, { device });
    return offset === 0 ? positions : positions.add(offset);
  };
  const allowed = mask({
    batch: range(batch, 0).reshape([-1, 1, 1, 1]),
    head: range(1, 0).reshape([1, -1, 1, 1]),
    q: range(queries, q_offset).reshape([1, 1, -1, 1]),
    kv: range(kv_length, kv_offset).reshape([1, 1, 1, -1]),
  }).expand([batch, -1, queries, kv_length]);
  return implementation.additiveMask ? additive(allowed, inputs_embeds.dtype) : allowed;
}

/** [batch, n] filled up with "masked" to [batch, length]: room of a static cache. */
function padTo(mask: Tensor, length: number): Tensor {
  const missing = length - (mask.shape[1] as number);
  if (missing <= 0) return mask;
  return torch.cat(
    [mask, torch.zeros([mask.shape[0] as number, missing], { dtype: "bool", device: mask.device })],
    1,
  );
}

/** Zero where allowed, the lowest finite number elsewhere: to be added to scores. */
function additive(allowed: Tensor, dtype: Dtype): Tensor {
  return torch
    .zeros([], { dtype, device: allowed.device })
    .expand(allowed.shape)
    .masked_fill(allowed.bitwise_not(), torch.finfo(dtype).min);
}

/** Each token sees itself and those before; padding is masked. */
export function create_causal_mask(inputs: MaskInputs): Tensor | undefined {
  if (inputs.config.is_causal === false) return create_bidirectional_mask(inputs);
  return buildMask(inputs, { mask: causal_mask_function, causal: true, sliding: false });
}

/** Each token sees all others; padding is masked. */
export function create_bidirectional_mask(inputs: MaskInputs): Tensor | undefined {
  return buildMask(inputs, { mask: bidirectional_mask_function, causal: false, sliding: false });
}

/** Each token sees itself and the `config.sliding_window` - 1 tokens before. */
export function create_sliding_window_causal_mask(inputs: MaskInputs): Tensor | undefined {
  if (inputs.config.is_causal === false) return create_bidirectional_sliding_window_mask(inputs);
  const reach = field(inputs.config, "sliding_window");
  return buildMask(inputs, {
    mask: sliding_window_causal_mask_function(reach),
    causal: true,
    reach,
    sliding: true,
  });
}

/** Each token sees those at most `config.sliding_window` away on either side. */
export function create_bidirectional_sliding_window_mask(inputs: MaskInputs): Tensor | undefined {
  const reach = field(inputs.config, "sliding_window");
  return buildMask(inputs, {
    mask: sliding_window_bidirectional_mask_function(reach),
    causal: false,
    reach,
    sliding: true,
  });
}

/** Each token sees itself and those before in its chunk of `config.attention_chunk_size` tokens. */
export function create_chunked_causal_mask(inputs: MaskInputs): Tensor | undefined {
  const reach = field(inputs.config, "attention_chunk_size");
  const { attention_mask, inputs_embeds } = inputs;
  const left_padding =
    attention_mask?.shape.length === 2
      ? attention_mask.to("bool").to("int64").cumsum(-1).eq(0).sum(-1)
      : torch.zeros([inputs_embeds.shape[0] as number], { dtype: "int64", device: inputs_embeds.device });
  return buildMask(inputs, {
    mask: chunked_causal_mask_function(reach, left_padding),
    causal: true,
    reach,
    sliding: true,
  });
}

function field(config: MaskConfig, name: "sliding_window" | "attention_chunk_size"): number {
  const value = config[name];
  if (value === undefined || value === null) {
    throw new InvalidArgumentError(`This mask needs config.${name}, which is not set.`);
  }
  return value;
}
