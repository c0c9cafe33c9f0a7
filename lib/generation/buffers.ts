// The tensors of one generation that its Programs update in place, and what is made of them at the end.
import { TraceError } from "../errors/index.ts";
import { type Cache, DynamicLayer, StaticCache, StaticLayer } from "../modeling/cache_utils.ts";
import type { PreTrainedModel } from "../modeling/modeling_utils.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { type Run, seenBy } from "./prepare.ts";
import {
  bucket,
  type Choice,
  type Chunk,
  configOf,
  type Forward,
  type Layout,
  layoutOf,
  roomFor,
} from "./recorded_steps.ts";
import type { Collected } from "./step.ts";

/** A part of the prompt with where it stands. */
interface PromptChunk {
  readonly tensors: Chunk;
  /** Its tokens, without what fills it up. */
  readonly length: number;
  /** The cache is empty: attention looks at the chunk only. */
  readonly isPrompt: boolean;
}

/** How much of a prompt is to be fed, in which parts, and how long the cache has to be. */
interface Plan {
  /** Begin and end of each part within the prompt, and its length filled up. */
  readonly parts: readonly (readonly [begin: number, end: number, filled: number])[];
  readonly capacity: number;
}

/** Tokens that a cache has room for at first; it grows when they have come. */
const ROOM = 256;

export class Buffers {
  readonly choice: Choice;
  forward: Forward;
  readonly chunks: readonly PromptChunk[];
  /** The cache holds nothing that the first chunk must leave there. */
  readonly isEmpty: boolean;
  /** The most steps there can be. */
  readonly most: number;
  readonly #prompt: number; // tokens
  readonly #fed: number; // tokens in the cache after the prompt
  readonly #need: number; // tokens in it after the last step
  readonly #layout: Layout;
  readonly #grows: boolean;
  readonly #owned = new Set<{ dispose(): void }>();

  /** Allocates what a request needs, rounded up. @throws TraceError for what no Program can work on */
  constructor(model: PreTrainedModel, run: Run) {
    const { state, settings } = run;
    if (!state.cache)
      throw new TraceError("without a cache, the model sees another number of tokens at each step.");
    const layout = layoutOf(model, run);
    const total = ((state.inputs_embeds ?? state.input_ids).shape as [number, number])[1];
    const [rows, prompt] = state.input_ids.shape as [number, number];
    const given = state.ownsCache ? undefined : state.cache;
    const seen = given ? seenBy(given) : 0;
    const from = total > seen ? seen : 0;
    this.#prompt = prompt;
    this.#fed = seen + total - from;
    this.most = (settings.max_length as number) - prompt;
    this.isEmpty = seen === 0;
    this.#need = this.#fed + this.most - 1;
    this.#layout = layout;
    const fixed = given instanceof StaticCache || settings.cache_implementation === "static";
    this.#grows = !fixed;
    const need = fixed ? this.#need : Math.min(this.#need, this.#fed + ROOM);
    const plan = planFor(run, { seen, from, total, need }, given);
    try {
      const parts = torch.no_grad(() =>
        torch.tidy(() => {
          const cache = given instanceof StaticCache ? given : new StaticCache(cacheOptions(model, plan));
          if (cache !== given) this.#own(cache);
          fillCache(cache, given, layout, rows);
          return this.#make(run, layout, plan, cache);
        }),
      );
      ({ choice: this.choice, forward: this.forward, chunks: this.chunks } = parts);
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  #own<T extends { dispose(): void }>(item: T): T {
    this.#owned.add(item);
    return item;
  }

  #make({ state, facts, pad_token_id }: Run, layout: Layout, plan: Plan, cache: StaticCache) {
    const { input_ids, inputs_embeds, position_ids } = state;
    const [rows, prompt] = input_ids.shape as [number, number];
    const { device } = input_ids;
    const own = (t: Tensor) => this.#own(torch.keep(t));
    const whole = (sizes: number[], value: number) =>
      own(torch.full(sizes, value, { dtype: "int64", device }));

    const room = roomFor(prompt + this.most);
    const sequences = whole([rows, room], pad_token_id ?? 0);
    sequences.narrow(1, 0, prompt).copy_(input_ids);
    const choice: Choice = {
      sequences,
      length: whole([], prompt),
      prompt_length: whole([], prompt),
      padding: facts.mask && own(facts.mask.ne(0).to("int32").argmax(1)),
      unfinished: whole([rows], 1),
      going: whole([], 1),
      ids: whole([rows, 1], 0),
      logits: own(torch.empty([rows, layout.vocabulary], { dtype: "float32", device })),
    };

    let attention_mask: Tensor | undefined;
    if (state.attention_mask) {
      const known = state.attention_mask.shape[1] as number;
      attention_mask = own(torch.ones([rows, plan.capacity], { dtype: state.attention_mask.dtype, device }));
      attention_mask.narrow(1, 0, known).copy_(state.attention_mask);
    }
    const total = ((inputs_embeds ?? input_ids).shape as [number, number])[1];
    // Positions may have been given for the new tokens only.
    const offset = position_ids ? (position_ids.shape[1] as number) - total : 0;
    const lastPosition = position_ids?.narrow(1, (position_ids.shape[1] as number) - 1, 1);
    const forward: Forward = {
      ids: choice.ids,
      logits: choice.logits,
      attention_mask,
      position_ids: lastPosition && own(lastPosition.add(1)),
      cache,
    };
    const chunks = plan.parts.map(([begin, end, filled], i): PromptChunk => {
      const length = end - begin;
      const part = (t: Tensor, fill: Tensor) => own(filled === length ? t.clone() : torch.cat([t, fill], 1));
      const zeros = (t: Tensor) => {
        const [batch, , ...sizes] = t.shape as [number, number, ...number[]];
        return torch.zeros([batch, filled - length, ...sizes], { dtype: t.dtype, device });
      };
      const tokens = (inputs_embeds ?? input_ids).narrow(1, begin, length);
      const positions = position_ids?.narrow(1, offset + begin, length);
      const last = positions?.narrow(1, length - 1, 1).expand([-1, filled - length]);
      return {
        tensors: {
          [inputs_embeds ? "inputs_embeds" : "input_ids"]: part(tokens, zeros(tokens)),
          position_ids: positions && part(positions, last as Tensor),
          last: whole([1], length - 1),
          filling: whole([], filled - length),
        } as unknown as Chunk,
        length,
        isPrompt: this.isEmpty && i === 0,
      };
    });
    return { choice, forward, chunks };
  }

  /** While it is set, attention over an empty cache looks at the prompt only. */
  setPrompt(cache: StaticCache, isPrompt: boolean): void {
    for (const layer of cache.layers) (layer as StaticLayer).is_prompt = isPrompt;
  }

  /** After so many steps the cache is full. */
  get room(): number {
    const { max_cache_len } = this.forward.cache.layers[0] as StaticLayer;
    return this.#grows ? max_cache_len - this.#fed + 1 : this.most;
  }

  /** Gives the cache more room: what it was before and what it is now, to be filled from there. */
  grow(model: PreTrainedModel): readonly [from: Forward, to: Forward, release: () => void] {
    const from = this.forward;
    const length = (from.cache.layers[0] as StaticLayer).max_cache_len;
    const max_cache_len = roomFor(Math.min(this.#need, 2 * length));
    const [rows] = this.choice.ids.shape as [number];
    torch.no_grad(() =>
      torch.tidy(() => {
        const cache = this.#own(new StaticCache({ config: configOf(model), max_cache_len }));
        for (const [i, layer] of (cache.layers as StaticLayer[]).entries()) {
          const layout = this.#layout.layers[i];
          if (layout) layer.allocate(rows, layout);
        }
        const { attention_mask: mask } = from;
        const longer = mask && torch.ones([rows, max_cache_len], { dtype: mask.dtype, device: mask.device });
        this.forward = { ...from, cache, attention_mask: longer && this.#own(torch.keep(longer)) };
      }),
    );
    const release = () => {
      for (const item of [from.cache, from.attention_mask]) {
        if (!item) continue;
        item.dispose();
        this.#owned.delete(item);
      }
    };
    return [from, this.forward, release];
  }

  /** Prompt and answer [batch, length] after so many steps. */
  sequences(steps: number): Tensor {
    return torch.tidy(() => this.choice.sequences.narrow(1, 0, this.#prompt + steps).clone());
  }

  /** The cache that an answer brings along: the caller's own, else one of the kind that was asked for. */
  cacheAfter({ state, settings }: Run, steps: number): Cache | undefined {
    const { cache } = this.forward;
    const target = state.cache as Cache;
    if ((state.ownsCache && !settings.return_dict_in_generate) || target === cache) return target;
    if (target instanceof StaticCache) {
      this.#owned.delete(cache);
      return cache;
    }
    const length = this.#fed + steps - 1;
    torch.no_grad(() =>
      torch.tidy(() => {
        for (const [i, { keys, values }] of cache.layers.entries()) {
          target.layers[i] ??= new DynamicLayer();
          if (keys && values) (target.layers[i] as DynamicLayer).load(keys, values, length);
        }
      }),
    );
    return target;
  }

  /** Sorts what the stages gave, and cuts off what stands behind the tokens. */
  collect(results: readonly unknown[], into: Collected): void {
    let queries = (this.chunks.at(-1) as PromptChunk).length;
    let keys = this.#fed;
    const cut = (t: Tensor, ...sizes: readonly (readonly [dim: number, size: number])[]) => {
      const made = torch.tidy(() => sizes.reduce((all, [dim, size]) => all.narrow(dim, 0, size), t).clone());
      t.dispose();
      return made;
    };
    for (const result of results) {
      const { scores, logits, attentions, hidden_states } = result as {
        scores?: Tensor;
        logits?: Tensor;
        attentions?: readonly Tensor[];
        hidden_states?: readonly Tensor[];
      };
      into.add({
        scores,
        logits,
        attentions: attentions?.map((t) => cut(t, [2, queries], [3, keys])),
        hidden_states: hidden_states?.map((t) => cut(t, [1, queries])),
      });
      if (attentions ?? hidden_states) [queries, keys] = [1, keys + 1];
    }
  }

  dispose(): void {
    for (const item of this.#owned) item.dispose();
    this.#owned.clear();
  }
}

function planFor(
  { settings }: Run,
  { seen, from, total, need }: { seen: number; from: number; total: number; need: number },
  given: Cache | undefined,
): Plan {
  const size = settings.prefill_chunk_size ?? total - from;
  const fixed = given instanceof StaticCache ? given.get_max_length() : undefined;
  const most = fixed ?? Infinity;
  const parts: [number, number, number][] = [];
  let capacity = fixed ?? roomFor(Math.max(need, settings.max_cache_len ?? 0));
  for (let begin = from; begin < total; begin += size) {
    const end = Math.min(begin + size, total);
    // Parts of the size that was asked for are all alike; the rest is rounded up.
    const isWhole = end - begin === size && size < total - from;
    const start = seen + begin - from;
    const filled = isWhole ? size : Math.min(bucket(end - begin), most - start);
    parts.push([begin, end, filled]);
    capacity = Math.max(capacity, start + filled);
  }
  return { parts, capacity };
}

const cacheOptions = (model: PreTrainedModel, { capacity }: Plan) => ({
  config: configOf(model),
  max_cache_len: capacity,
});

/** Gives each layer its tensors, with what a growing cache of the caller's holds already. */
function fillCache(cache: StaticCache, given: Cache | undefined, { layers }: Layout, rows: number): void {
  const from = given === cache ? undefined : given;
  if (from && !from.layers.every((layer) => layer.constructor === DynamicLayer))
    throw new TraceError(`a ${from.constructor.name} with layers of its own kind cannot be recorded.`);
  if (cache === given && !cache.layers.every((layer) => layer instanceof StaticLayer))
    throw new TraceError(`a ${cache.constructor.name} with layers of its own kind cannot be recorded.`);
  for (const [i, layer] of (cache.layers as StaticLayer[]).entries()) {
    const layout = layers[i];
    if (layer.keys || !layout) continue;
    layer.allocate(rows, layout);
    // What was never written must be numbers all the same: attention multiplies it by zero. A prompt sees to it.
    if (given) layer.reset();
    const { keys, values } = from?.layers[i] ?? {};
    if (keys && values) write(layer, keys, values);
  }
}

function write(layer: StaticLayer, keys: Tensor, values: Tensor): void {
  const length = keys.shape[2] as number;
  layer.keys?.narrow(2, 0, length).copy_(keys);
  layer.values?.narrow(2, 0, length).copy_(values);
  layer.cumulative_length?.fill_(length);
}
