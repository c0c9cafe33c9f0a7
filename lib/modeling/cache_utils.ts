// Key/value caches: what attention layers remember between calls. One layer object per attention layer.
import { TREE } from "../compile/tree.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import type { Device, Dtype, Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";

/** What a cache reads from a configuration. */
export interface CacheConfig {
  readonly num_hidden_layers: number;
  /** One of "full_attention", "sliding_attention", "chunked_attention" per layer. */
  readonly layer_types?: readonly string[] | null;
  readonly sliding_window?: number | null;
  readonly attention_chunk_size?: number | null;
}

/** Where the keys of a mask start, and how many there are. */
export interface MaskSizes {
  readonly kv_length: number;
  readonly kv_offset: number;
}

/** The cache of one attention layer; keys and values are [batch, heads, length, head_dim]. */
export abstract class CacheLayer {
  static readonly [TREE] = true;
  keys: Tensor | undefined = undefined;
  values: Tensor | undefined = undefined;
  readonly is_sliding: boolean = false;
  /** Its shapes never change, so that a step over it can be recorded once. */
  readonly is_compileable: boolean = false;
  /** Set by an owner that hands the tensors to nobody: replaced ones are freed at once, not when they are garbage. */
  exclusive = false;

  /** Appends new keys and values, and gives all of those that attention should see. */
  abstract update(keys: Tensor, values: Tensor): [keys: Tensor, values: Tensor];
  /** Tokens seen so far; a tensor where the length is not known to JavaScript. */
  abstract get_seq_length(): number | Tensor;
  abstract get_mask_sizes(query_length: number): MaskSizes;
  /** The most tokens it can hold, or -1. */
  abstract get_max_length(): number;
  abstract reset(): void;
  /** Forgets the last `count` tokens. */
  abstract crop(count: number): void;

  /** Picks rows of the batch, in order: beams that go on. */
  reorder_cache(index: Tensor): void {
    if (this.keys && this.values) {
      this.set(
        this.keys.index_select(0, index.to(this.keys.device)),
        this.values.index_select(0, index.to(this.values.device)),
      );
    }
  }

  /** Repeats each row of the batch. */
  batch_repeat_interleave(repeats: number): void {
    if (this.keys && this.values) {
      this.set(this.keys.repeat_interleave(repeats, 0), this.values.repeat_interleave(repeats, 0));
    }
  }

  batch_select_indices(index: Tensor): void {
    this.reorder_cache(index);
  }

  /** Frees the tensors now. */
  dispose(): void {
    this.keys?.dispose();
    this.values?.dispose();
    this.keys = this.values = undefined;
  }

  /** Stores tensors that outlive the scope in which a model runs. */
  protected set(keys: Tensor, values: Tensor): void {
    if (this.exclusive) {
      if (this.keys !== keys) this.keys?.dispose();
      if (this.values !== values) this.values?.dispose();
    }
    this.keys = torch.keep(keys);
    this.values = torch.keep(values);
  }
}

/** Grows by concatenation. The default. */
export class DynamicLayer extends CacheLayer {
  override update(keys: Tensor, values: Tensor): [Tensor, Tensor] {
    const all: [Tensor, Tensor] =
      this.keys && this.values
        ? [torch.cat([this.keys, keys], -2), torch.cat([this.values, values], -2)]
        : [keys, values];
    this.set(...all);
    return all;
  }

  override get_seq_length(): number {
    return this.keys?.shape.at(-2) ?? 0;
  }

  override get_mask_sizes(query_length: number): MaskSizes {
    return { kv_length: this.get_seq_length() + query_length, kv_offset: 0 };
  }

  override get_max_length(): number {
    return -1;
  }

  override reset(): void {
    this.keys = this.values = undefined;
  }

  /** Holds a copy of the first `length` positions of these. */
  load(keys: Tensor, values: Tensor, length: number): void {
    this.set(keys.narrow(-2, 0, length).clone(), values.narrow(-2, 0, length).clone());
  }

  override crop(count: number): void {
    const left = this.get_seq_length() - count;
    if (this.keys && this.values && count > 0) {
      this.set(this.keys.narrow(-2, 0, Math.max(left, 0)), this.values.narrow(-2, 0, Math.max(left, 0)));
    }
  }
}

/** Grows until `sliding_window` - 1 tokens are held, then forgets the oldest. */
export class DynamicSlidingWindowLayer extends DynamicLayer {
  override readonly is_sliding: boolean = true;
  readonly sliding_window: number;
  /** Tokens seen so far, those that were forgotten too. */
  protected seen = 0;

  constructor(sliding_window: number) {
    super();
    this.sliding_window = sliding_window;
  }

  override update(keys: Tensor, values: Tensor): [Tensor, Tensor] {
    this.seen += keys.shape.at(-2) as number;
    const all: [Tensor, Tensor] =
      this.keys && this.values
        ? [torch.cat([this.keys, keys], -2), torch.cat([this.values, values], -2)]
        : [keys, values];
    const length = all[0].shape.at(-2) as number;
    const held = Math.min(length, this.sliding_window - 1);
    this.set(all[0].narrow(-2, length - held, held), all[1].narrow(-2, length - held, held));
    return all;
  }

  override load(keys: Tensor, values: Tensor, length: number): void {
    const held = Math.min(length, this.sliding_window - 1);
    const last = (t: Tensor) => t.narrow(-2, length - held, held).clone();
    this.set(last(keys), last(values));
    this.seen = length;
  }

  override get_seq_length(): number {
    return this.seen;
  }

  override get_mask_sizes(query_length: number): MaskSizes {
    const held = Math.min(this.seen, this.sliding_window - 1);
    return { kv_length: held + query_length, kv_offset: this.seen - held };
  }

  override get_max_length(): number {
    return this.sliding_window;
  }

  override reset(): void {
    super.reset();
    this.seen = 0;
  }

  override crop(count: number): void {
    if (count > 0 && this.seen >= this.sliding_window) {
      throw new InvalidArgumentError(
        "A sliding window that is full has forgotten what cropping would bring back.",
      );
    }
    const before = super.get_seq_length();
    super.crop(count);
    this.seen -= before - super.get_seq_length();
  }
}

/** What the keys and values of one layer look like: [batch, heads, length, key_dim or value_dim]. */
export interface CacheLayout {
  readonly heads: number;
  readonly key_dim: number;
  readonly value_dim: number;
  readonly dtype: Dtype;
  readonly device: Device;
}

/**
 * Room for `max_cache_len` tokens, allocated at the first update (or before, by `allocate`) and written in place. The
 * length is a tensor, so that one recorded step serves every position.
 */
export class StaticLayer extends CacheLayer {
  override readonly is_compileable: boolean = true;
  readonly max_cache_len: number;
  cumulative_length: Tensor | undefined = undefined;
  /** Set while the cache is empty and a prompt comes: attention need not look at the room behind it. */
  is_prompt = false;

  constructor(max_cache_len: number) {
    super();
    this.max_cache_len = max_cache_len;
  }

  override update(keys: Tensor, values: Tensor): [Tensor, Tensor] {
    const length = keys.shape.at(-2) as number;
    if (!this.keys || !this.values || !this.cumulative_length) {
      const [batch, heads, , key_dim] = keys.shape as [number, number, number, number];
      const { dtype, device } = keys;
      this.allocate(batch, { heads, key_dim, value_dim: values.shape.at(-1) as number, dtype, device });
      this.reset();
    }
    const [allKeys, allValues, seen] = [
      this.keys as Tensor,
      this.values as Tensor,
      this.cumulative_length as Tensor,
    ];
    if (this.is_prompt) {
      allKeys.narrow(2, 0, length).copy_(keys);
      allValues.narrow(2, 0, length).copy_(values);
      seen.add_(length);
      return [keys, values];
    }
    const positions =
      length === 1 ? seen.reshape([1]) : torch.arange(length, { device: keys.device }).add(seen);
    allKeys.index_copy_(2, positions, keys);
    allValues.index_copy_(2, positions, values);
    seen.add_(length);
    return [allKeys, allValues];
  }

  /** Makes the tensors; their values are whatever the memory held, until `reset`. */
  allocate(batch: number, { heads, key_dim, value_dim, dtype, device }: CacheLayout): void {
    const room = (dim: number) => torch.empty([batch, heads, this.max_cache_len, dim], { dtype, device });
    this.set(room(key_dim), room(value_dim));
    this.cumulative_length = torch.keep(torch.zeros([], { dtype: "int64", device }));
  }

  override get_seq_length(): number | Tensor {
    return this.is_prompt ? 0 : (this.cumulative_length ?? 0);
  }

  override get_mask_sizes(query_length: number): MaskSizes {
    return { kv_length: this.is_prompt ? query_length : this.max_cache_len, kv_offset: 0 };
  }

  override get_max_length(): number {
    return this.max_cache_len;
  }

  override reset(): void {
    this.keys?.zero_();
    this.values?.zero_();
    this.cumulative_length?.zero_();
  }

  override crop(count: number): void {
    this.cumulative_length?.sub_(count);
  }

  override dispose(): void {
    super.dispose();
    this.cumulative_length?.dispose();
    this.cumulative_length = undefined;
  }
}

/** A static layer under a sliding mask. It holds all positions: the window only limits what attention sees. */
export class StaticSlidingWindowLayer extends StaticLayer {
  override readonly is_sliding: boolean = true;
  readonly sliding_window: number;

  constructor(max_cache_len: number, sliding_window: number) {
    super(max_cache_len);
    this.sliding_window = sliding_window;
  }
}

/** The window of each layer of a model, or undefined for full attention. */
function layerWindows(config: CacheConfig): (number | undefined)[] {
  const { sliding_window, attention_chunk_size, num_hidden_layers } = config;
  const types =
    config.layer_types ??
    Array.from({ length: num_hidden_layers }, () =>
      sliding_window != null
        ? "sliding_attention"
        : attention_chunk_size != null
          ? "chunked_attention"
          : "full_attention",
    );
  return types.map((type) =>
    type === "sliding_attention"
      ? (sliding_window ?? undefined)
      : type === "chunked_attention"
        ? (attention_chunk_size ?? undefined)
        : undefined,
  );
}

/** The caches of all layers of a model. */
export class Cache {
  readonly layers: CacheLayer[];
  /** Fields are no #private ones, so that a recorded function can take a cache apart. */
  static readonly [TREE]: boolean = true;
  /** Makes layers on demand when their number is not known beforehand. */
  protected readonly makeLayer: (() => CacheLayer) | undefined;

  constructor(layers: CacheLayer[], makeLayer?: () => CacheLayer) {
    this.layers = layers;
    this.makeLayer = makeLayer;
  }

  get length(): number {
    return this.layers.length;
  }

  /** Stores new keys and values of a layer, and gives all of those that its attention should see. */
  update(keys: Tensor, values: Tensor, layer_idx: number): [keys: Tensor, values: Tensor] {
    while (this.makeLayer && this.layers.length <= layer_idx) this.layers.push(this.makeLayer());
    return this.layer(layer_idx).update(keys, values);
  }

  protected layer(layer_idx: number): CacheLayer {
    const layer = this.layers[layer_idx];
    if (layer === undefined) {
      throw new InvalidArgumentError(
        `The cache has ${this.layers.length} layers, and layer ${layer_idx} was asked for.`,
      );
    }
    return layer;
  }

  /** Tokens seen so far: a number, or a tensor for static caches. */
  get_seq_length(layer_idx = 0): number | Tensor {
    return this.layers[layer_idx]?.get_seq_length() ?? 0;
  }

  get_mask_sizes(query_length: number, layer_idx = 0): MaskSizes {
    return this.layers[layer_idx]?.get_mask_sizes(query_length) ?? { kv_length: query_length, kv_offset: 0 };
  }

  /** The most tokens it can hold, or -1. */
  get_max_length(layer_idx?: number): number {
    if (layer_idx !== undefined) return this.layers[layer_idx]?.get_max_length() ?? -1;
    return Math.max(-1, ...this.layers.map((layer) => layer.get_max_length()));
  }

  get is_compileable(): boolean {
    return this.layers.length > 0 && this.layers.every((layer) => layer.is_compileable);
  }

  get is_sliding(): boolean[] {
    return this.layers.map((layer) => layer.is_sliding);
  }

  /** Says that nobody else holds the tensors of this cache: replaced ones are freed at once. */
  set exclusive(value: boolean) {
    for (const layer of this.layers) layer.exclusive = value;
  }

  reset(): void {
    for (const layer of this.layers) layer.reset();
  }

  /** Forgets the last `count` tokens. A negative count means the same, as in Python. */
  crop(count: number): void {
    for (const layer of this.layers) layer.crop(Math.abs(count));
  }

  reorder_cache(index: Tensor): void {
    for (const layer of this.layers) layer.reorder_cache(index);
  }

  batch_repeat_interleave(repeats: number): void {
    for (const layer of this.layers) layer.batch_repeat_interleave(repeats);
  }

  batch_select_indices(index: Tensor): void {
    for (const layer of this.layers) layer.batch_select_indices(index);
  }

  /** Frees all tensors now instead of when they are garbage. */
  dispose(): void {
    for (const layer of this.layers) layer.dispose();
  }
}

/** A cache that grows with the sequence. With a config, sliding layers forget what their window left behind. */
export class DynamicCache extends Cache {
  constructor({ config }: { config?: CacheConfig } = {}) {
    const layers = config
      ? layerWindows(config).map((window) =>
          window === undefined ? new DynamicLayer() : new DynamicSlidingWindowLayer(window),
        )
      : [];
    super(layers, () => new DynamicLayer());
  }
}

/** A cache of fixed size, written in place. */
export class StaticCache extends Cache {
  constructor({ config, max_cache_len }: { config: CacheConfig; max_cache_len: number }) {
    super(
      layerWindows(config).map((window) =>
        window === undefined
          ? new StaticLayer(max_cache_len)
          : new StaticSlidingWindowLayer(max_cache_len, window),
      ),
    );
  }
}

/** Self-attention and cross-attention caches of an encoder-decoder model. */
export class EncoderDecoderCache extends Cache {
  static override readonly [TREE] = false;
  readonly self_attention_cache: Cache;
  readonly cross_attention_cache: Cache;
  /** Layers whose cross-attention keys and values are computed already. */
  readonly is_updated = new Set<number>();

  constructor(self_attention_cache: Cache, cross_attention_cache: Cache) {
    super(self_attention_cache.layers);
    this.self_attention_cache = self_attention_cache;
    this.cross_attention_cache = cross_attention_cache;
  }

  override update(keys: Tensor, values: Tensor, layer_idx: number): [Tensor, Tensor] {
    return this.self_attention_cache.update(keys, values, layer_idx);
  }

  override reset(): void {
    super.reset();
    this.cross_attention_cache.reset();
    this.is_updated.clear();
  }

  override reorder_cache(index: Tensor): void {
    super.reorder_cache(index);
    this.cross_attention_cache.reorder_cache(index);
  }

  override batch_repeat_interleave(repeats: number): void {
    super.batch_repeat_interleave(repeats);
    this.cross_attention_cache.batch_repeat_interleave(repeats);
  }

  override batch_select_indices(index: Tensor): void {
    super.batch_select_indices(index);
    this.cross_attention_cache.batch_select_indices(index);
  }

  override dispose(): void {
    super.dispose();
    this.cross_attention_cache.dispose();
  }
}
