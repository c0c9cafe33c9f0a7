// The steps of generation as recorded functions: a chunk of the prompt, one more token, the choice of a token.
//
// They work on tensors of fixed shape that they update in place, so that few recordings serve all lengths: room for a
// whole sequence, a static cache, masks as long as the cache. What stands behind the tokens so far means nothing: a causal
// mask hides it from all tokens before, and it is overwritten before a token comes to see it.

import { modes } from "../compile/compile.ts";
import { constant } from "../compile/constant.ts";
import { Recordings } from "../compile/loop.ts";
import { type AnyFunction, record } from "../compile/record.ts";
import { flatten } from "../compile/tree.ts";
import { TraceError } from "../errors/index.ts";
import {
  type CacheConfig,
  type CacheLayout,
  StaticCache,
  type StaticLayer,
} from "../modeling/cache_utils.ts";
import type { PreTrainedModel } from "../modeling/modeling_utils.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import type { ForwardOutput } from "./eager_steps.ts";
import type { ModelInputs } from "./options.ts";
import { PaddedSequence } from "./padded_sequence.ts";
import { accepts, type Run } from "./prepare.ts";
import { pads, wanted } from "./step.ts";

/** A request that has to run eagerly; `cause` says why. Nothing has run yet when it is thrown. */
export class Unrecordable extends Error {
  constructor(cause: unknown) {
    super("the steps cannot be recorded", { cause });
  }
}

/** What the choice of a token works on. */
export interface Choice {
  /** Prompt and answer [batch, room]. */
  readonly sequences: Tensor;
  /** How many of them are there, and how many of those were the prompt: scalars. */
  readonly length: Tensor;
  readonly prompt_length: Tensor;
  /** Padding before each row [batch]. */
  readonly padding: Tensor | undefined;
  /** 1 for rows that go on [batch], and whether there is one: a scalar. */
  readonly unfinished: Tensor;
  readonly going: Tensor;
  /** The last tokens [batch, 1]. */
  readonly ids: Tensor;
  /** The last scores [batch, vocabulary], float32. */
  readonly logits: Tensor;
}

/** What the model works on. */
export interface Forward {
  readonly ids: Tensor;
  readonly logits: Tensor;
  /** [batch, room of the cache] */
  readonly attention_mask: Tensor | undefined;
  /** Of the next tokens [batch or 1, 1]. */
  readonly position_ids: Tensor | undefined;
  readonly cache: StaticCache;
}

/** A part of the prompt, filled up on the right. */
export interface Chunk {
  /** [batch, length] */
  readonly input_ids?: Tensor | undefined;
  /** [batch, length, hidden] */
  readonly inputs_embeds?: Tensor | undefined;
  /** [batch or 1, length]; behind the tokens the last position again. */
  readonly position_ids?: Tensor | undefined;
  /** Where the last token stands [1], and how many positions stand behind it: a scalar. */
  readonly last: Tensor;
  readonly filling: Tensor;
}

/** How large the parts are that a model makes in a step. */
export interface Layout {
  readonly layers: readonly (CacheLayout | undefined)[];
  readonly vocabulary: number;
}

interface ModelPrograms {
  readonly recordings: Recordings;
  readonly layouts: Map<string, Layout>;
}

const all = new WeakMap<PreTrainedModel, ModelPrograms>();

/** The recordings of a model; they live as long as it does. */
export function programsOf(model: PreTrainedModel): ModelPrograms {
  let programs = all.get(model);
  if (programs === undefined) {
    programs = { recordings: new Recordings(), layouts: new Map() };
    all.set(model, programs);
  }
  return programs;
}

export const configOf = (model: PreTrainedModel): CacheConfig =>
  model.config.get_text_config({ decoder: true }) as unknown as CacheConfig;

/** The next of so many lengths per power of two. */
const roundUp = (length: number, perOctave: number) => {
  const step = 2 ** (Math.ceil(Math.log2(length)) - 1) / perOctave;
  return Math.ceil(length / step) * step;
};

/** Prompts are filled up to these lengths, so that few recordings suffice: what is filled in is computed for nothing. */
export const bucket = (length: number): number => (length <= 16 ? 16 : roundUp(length, 4));

/** Room for a sequence and in a cache: coarser, since it is reserved and hardly looked at. */
export const roomFor = (length: number): number => (length <= 32 ? 32 : roundUp(length, 2));

function refuseHooks(model: PreTrainedModel): void {
  for (const [name, module] of model.named_modules())
    if (module._has_forward_hooks()) throw new TraceError(`${name || "the model"} has forward hooks.`);
}

const call = (model: PreTrainedModel, inputs: ModelInputs) =>
  (model.forward as (inputs: ModelInputs) => unknown).call(model, inputs) as ForwardOutput;

/** Finds out, on fakes, what the model puts into a cache. */
export function layoutOf(model: PreTrainedModel, { state }: Run): Layout {
  const { layouts } = programsOf(model);
  const key = `${model.dtype}\n${model.device}\n${modes()}`;
  const known = layouts.get(key);
  if (known) return known;
  let layout: Layout | undefined;
  const probe = (inputs: ModelInputs) => {
    refuseHooks(model);
    const cache = new StaticCache({ config: configOf(model), max_cache_len: 1 });
    const { logits } = call(model, { ...inputs, past_key_values: cache, use_cache: true });
    const layers = cache.layers.map(({ keys, values }) => {
      if (!keys || !values) return undefined;
      const [, heads, , key_dim] = keys.shape as [number, number, number, number];
      const value_dim = values.shape[3] as number;
      return { heads, key_dim, value_dim, dtype: keys.dtype, device: keys.device };
    });
    layout = { layers, vocabulary: logits.shape.at(-1) as number };
    cache.dispose();
  };
  torch.no_grad(() =>
    torch.tidy(() => {
      const one = (t: Tensor) => t.narrow(1, 0, 1);
      const inputs: ModelInputs = { ...state.extra };
      if (state.inputs_embeds) inputs.inputs_embeds = one(state.inputs_embeds);
      else inputs.input_ids = one(state.input_ids);
      if (state.position_ids) inputs.position_ids = one(state.position_ids);
      const args = [inputs];
      record(probe as AnyFunction, args, flatten(args));
    }),
  );
  layouts.set(key, layout as unknown as Layout);
  return layout as unknown as Layout;
}

/** What a recorded forward returns of what was asked for; undefined: nothing. */
function outputsOf(keep: ReturnType<typeof wanted>, { attentions, hidden_states }: ForwardOutput) {
  if (!keep.attentions && !keep.hidden_states) return undefined;
  return {
    attentions: keep.attentions ? attentions : undefined,
    hidden_states: keep.hidden_states ? hidden_states : undefined,
  };
}

function modelInputs({ settings }: Run, forward: Forward, extra: ModelInputs): ModelInputs {
  const inputs: ModelInputs = { ...extra, use_cache: true, past_key_values: forward.cache };
  if (forward.attention_mask) inputs.attention_mask = forward.attention_mask;
  if (settings.output_attentions) inputs.output_attentions = true;
  if (settings.output_hidden_states) inputs.output_hidden_states = true;
  return inputs;
}

/** Feeds a part of the prompt; leaves the scores after its last token. `empties`: the cache is emptied first. */
export const prefill =
  (model: PreTrainedModel, run: Run, empties: boolean) =>
  (forward: Forward, chunk: Chunk, extra: ModelInputs): unknown => {
    refuseHooks(model);
    const { cache, logits } = forward;
    if (empties) cache.reset();
    const inputs = modelInputs(run, forward, extra);
    for (const name of ["input_ids", "inputs_embeds", "position_ids"] as const)
      if (chunk[name]) inputs[name] = chunk[name];
    const keeps = accepts(model, "logits_to_keep");
    if (keeps) inputs.logits_to_keep = chunk.last;
    const outputs = call(model, inputs);
    const scores = keeps ? outputs.logits : outputs.logits.index_select(1, chunk.last);
    logits.copy_(scores.select(1, 0).to("float32"));
    for (const layer of cache.layers) (layer as StaticLayer).cumulative_length?.sub_(chunk.filling);
    return outputsOf(wanted(run), outputs);
  };

/** Feeds the last tokens; leaves the scores after them. */
export const decode =
  (model: PreTrainedModel, run: Run) =>
  (forward: Forward, extra: ModelInputs): unknown => {
    refuseHooks(model);
    const inputs = modelInputs(run, forward, extra);
    inputs.input_ids = forward.ids;
    if (forward.position_ids) inputs.position_ids = forward.position_ids;
    const outputs = call(model, inputs);
    const length = outputs.logits.shape[1] as number;
    forward.logits.copy_(outputs.logits.select(1, length - 1).to("float32"));
    forward.position_ids?.add_(1);
    return outputsOf(wanted(run), outputs);
  };

/** Moves what a cache holds to a longer one, which is empty; masks are as long as their cache. */
export const lengthen = (from: Forward, to: Forward): void => {
  const move = (a: Tensor | undefined, b: Tensor | undefined) => {
    if (!a || !b) return;
    const [had, has] = [a.shape[2] as number, b.shape[2] as number];
    b.narrow(2, 0, had).copy_(a);
    b.narrow(2, had, has - had).zero_();
  };
  for (const [i, layer] of (from.cache.layers as StaticLayer[]).entries()) {
    const longer = to.cache.layers[i] as StaticLayer;
    move(layer.keys, longer.keys);
    move(layer.values, longer.values);
    if (layer.cumulative_length) longer.cumulative_length?.copy_(layer.cumulative_length);
  }
  if (from.attention_mask)
    to.attention_mask?.narrow(1, 0, from.attention_mask.shape[1] as number).copy_(from.attention_mask);
};

/** Chooses a token per row by the last scores, and appends it. */
export const choice =
  (run: Run) =>
  (at: Choice): unknown => {
    const { settings, processors, pad_token_id, facts } = run;
    const keep = wanted(run);
    const sequence = new PaddedSequence({ ...at, ids: at.sequences }, facts.length);
    let scores = at.logits;
    for (const processor of processors) {
      if (typeof processor === "function") throw new TraceError("a function among the processors");
      scores = processor.processPadded(sequence, scores);
    }
    let ids = settings.do_sample ? torch.multinomial(scores.softmax(-1), 1).squeeze(1) : scores.argmax(-1);
    if (pads(run)) {
      const { unfinished } = at;
      ids = ids.mul(unfinished).add(torch.sub(1, unfinished).mul(pad_token_id as number));
    }
    const column = ids.unsqueeze(1);
    at.sequences.index_copy_(1, at.length.reshape([1]), column);
    at.length.add_(1);
    at.ids.copy_(column);
    if (facts.eos_token_id) {
      const list = [...facts.eos_token_id];
      const eos = constant(() => torch.tensor(list, { dtype: "int64", device: ids.device }));
      at.unfinished.mul_(column.eq(eos).any(-1).bitwise_not());
      at.going.copy_(at.unfinished.max());
    }
    if (!keep.scores && !keep.logits) return undefined;
    // The tensor with the scores is written again by the next step.
    return {
      scores: keep.scores ? (scores === at.logits ? scores.clone() : scores) : undefined,
      logits: keep.logits ? at.logits.clone() : undefined,
    };
  };
