// Generation step by step from JavaScript: what a debugger sees, and what cannot be recorded.
import { setImmediate as nextTurn } from "node:timers/promises";
import type { PreTrainedModel } from "../modeling/modeling_utils.ts";
import type { Generator, Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import type { ModelInputs } from "./options.ts";
import type { Run } from "./prepare.ts";
import {
  type Answer,
  answerOf,
  append,
  Collected,
  checkCriteria,
  choose,
  type Generation,
  type Step,
  unfinishedRows,
  wanted,
} from "./step.ts";

export interface ForwardOutput {
  readonly logits: Tensor;
  readonly attentions?: readonly Tensor[];
  readonly hidden_states?: readonly Tensor[];
}

/** The steps; it ends with the answer. The caller frees the run. */
export async function* eagerSteps(
  model: PreTrainedModel,
  { run, options, generator }: Generation,
): AsyncGenerator<Step, Answer, void> {
  const { state, settings } = run;
  const collected = new Collected();
  let unfinished = unfinishedRows(run);
  let pending: Tensor | undefined; // ids that were not handed on yet
  let answer: Answer | undefined;
  try {
    for (let first = true, done = false; !done; first = false) {
      options.signal?.throwIfAborted();
      const ids = advance(model, run, collected, unfinished, first, generator);
      pending = ids;
      // Other work of the process gets its turn between tokens.
      await nextTurn();
      [unfinished, done] = await checkCriteria(run, unfinished, collected);
      await options.streamer?.put(ids);
      pending = undefined;
      yield { ids };
    }
    answer = answerOf(run, state.input_ids, state.cache, collected);
    return answer;
  } finally {
    unfinished.dispose();
    pending?.dispose();
    if (!answer) collected.dispose();
    if (state.ownsCache && !(answer && settings.return_dict_in_generate)) state.cache?.dispose();
  }
}

/** One forward and one choice of tokens [batch], which are appended to the state. */
function advance(
  model: PreTrainedModel,
  run: Run,
  collected: Collected,
  unfinished: Tensor,
  first: boolean,
  generator: Generator | undefined,
): Tensor {
  const { state } = run;
  const keep = wanted(run);
  const before = { ...state };
  const step = torch.no_grad(() =>
    torch.tidy(() => {
      const outputs = forward(model, run, first);
      const length = outputs.logits.shape[1] as number;
      const logits = outputs.logits
        .select(1, length - 1)
        .to("float32")
        .clone();
      const { ids, scores } = choose(run, logits, unfinished, generator);
      return {
        ids,
        ...append(state, ids),
        scores: keep.scores ? scores : undefined,
        logits: keep.logits ? logits : undefined,
        attentions: keep.attentions ? outputs.attentions : undefined,
        hidden_states: keep.hidden_states ? outputs.hidden_states : undefined,
      };
    }),
  );
  Object.assign(state, {
    input_ids: step.input_ids,
    attention_mask: step.attention_mask,
    position_ids: step.position_ids,
    inputs_embeds: undefined,
  });
  run.release(before);
  collected.add(step);
  return step.ids;
}

/** The model on what it has not seen yet; a prompt in chunks, if that was asked for. */
function forward(model: PreTrainedModel, run: Run, first: boolean): ForwardOutput {
  const { inputs, from, to } = modelInputs(run, first);
  const call = (inputs: ModelInputs) =>
    (model.forward as (inputs: ModelInputs) => unknown).call(model, inputs) as ForwardOutput;
  const chunk = run.settings.prefill_chunk_size;
  if (!first || chunk === null || to - from <= chunk) return call(inputs);
  let outputs: ForwardOutput | undefined;
  for (let begin = from; begin < to; begin += chunk) {
    const end = Math.min(begin + chunk, to);
    const part: ModelInputs = { ...inputs };
    for (const name of ["input_ids", "inputs_embeds", "position_ids"])
      if (inputs[name]) part[name] = (inputs[name] as Tensor).narrow(1, begin - from, end - begin);
    if (inputs.attention_mask) part.attention_mask = (inputs.attention_mask as Tensor).narrow(1, 0, end);
    outputs = call(part);
  }
  return outputs as ForwardOutput;
}

/** All tokens in the first step and without a cache; the last one otherwise. And which they are of the whole. */
function modelInputs({ settings, state }: Run, first: boolean) {
  const { cache, attention_mask, inputs_embeds, extra } = state;
  const whole = first || cache === undefined;
  const seen = first && cache ? cache.get_seq_length() : 0;
  const skip = typeof seen === "number" ? seen : seen.item<number>();
  const given = inputs_embeds ?? state.input_ids;
  const to = given.shape[1] as number;
  const from = whole ? (to > skip ? skip : 0) : to - 1;
  const last = (t: Tensor) => {
    const length = t.shape[1] as number;
    const count = whole ? length - (length > skip ? skip : 0) : 1;
    return t.narrow(1, length - count, count).contiguous();
  };
  const inputs: ModelInputs = { ...extra, use_cache: cache !== undefined };
  if (inputs_embeds) inputs.inputs_embeds = last(inputs_embeds);
  else inputs.input_ids = last(state.input_ids);
  if (cache) inputs.past_key_values = cache;
  if (attention_mask) inputs.attention_mask = attention_mask;
  if (state.position_ids) inputs.position_ids = last(state.position_ids);
  if (settings.output_attentions) inputs.output_attentions = true;
  if (settings.output_hidden_states) inputs.output_hidden_states = true;
  return { inputs, from, to };
}
