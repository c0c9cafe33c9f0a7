// The loop of generation: one token per row and step, until every row is finished.
//
// It is a generator of steps. `generate` runs it to its end and `stream` hands the steps on, so that a `break`, an abort
// and an exception all end in the same place, which frees the cache.
import { setImmediate as nextTurn } from "node:timers/promises";
import type { PreTrainedModel } from "../modeling/modeling_utils.ts";
import type { Generator, Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { GenerateDecoderOnlyOutput } from "./generation_outputs.ts";
import {
  checkMode,
  type GenerateInputs,
  type GenerateOptions,
  type ModelInputs,
  readRequest,
} from "./options.ts";
import { prepare, type Run, type State } from "./prepare.ts";
import { EosTokenCriteria, StopStringCriteria } from "./stopping_criteria.ts";

/** The tokens of one step. */
export interface Step {
  /** One id per row [batch]; finished rows get the padding token. */
  readonly ids: Tensor;
}

/** What the loop collects beside the tokens. */
interface Collected {
  readonly scores: Tensor[];
  readonly logits: Tensor[];
  readonly attentions: (readonly Tensor[])[];
  readonly hidden_states: (readonly Tensor[])[];
}

interface ForwardOutput {
  readonly logits: Tensor;
  readonly attentions?: readonly Tensor[];
  readonly hidden_states?: readonly Tensor[];
}

/** Runs `generate` step by step; the result is what `generate` resolves to. */
export async function* generateSteps(
  model: PreTrainedModel,
  inputs: GenerateInputs | undefined,
  all: GenerateOptions,
): AsyncGenerator<Step, Tensor | GenerateDecoderOnlyOutput, void> {
  const request = readRequest(model, inputs, all);
  const { options, settings } = request;
  checkMode(settings, options);
  if (!options.allow_uninitialized) model.assert_initialized();
  options.signal?.throwIfAborted();
  const generator = options.seed === undefined ? options.generator : seeded(model, options.seed);

  const run = torch.no_grad(() => torch.tidy(() => prepare(model, request)));
  const { state } = run;
  const collected: Collected = { scores: [], logits: [], attentions: [], hidden_states: [] };
  let unfinished: Tensor | undefined;
  let pending: Tensor | undefined; // ids that were not handed on yet
  let answer: Tensor | GenerateDecoderOnlyOutput | undefined;
  try {
    await options.streamer?.put(state.input_ids);
    unfinished = torch.ones([state.input_ids.shape[0] as number], {
      dtype: "int64",
      device: state.input_ids.device,
    });
    for (let first = true, done = false; !done; first = false) {
      options.signal?.throwIfAborted();
      const ids = advance(model, run, collected, unfinished, first, generator);
      pending = ids;
      // Other work of the process gets its turn between tokens.
      await nextTurn();
      for (const criterion of run.criteria)
        if (criterion instanceof StopStringCriteria) await criterion.prepare(state.input_ids);
      const scores =
        settings.return_dict_in_generate && settings.output_scores ? collected.scores : undefined;
      [unfinished, done] = check(run, unfinished, scores);
      await options.streamer?.put(ids);
      pending = undefined;
      yield { ids };
    }
    await options.streamer?.end();
    answer = result(run, collected);
    return answer;
  } catch (error) {
    await (options.streamer?.fail ? options.streamer.fail(error as Error) : options.streamer?.end());
    throw error;
  } finally {
    unfinished?.dispose();
    pending?.dispose();
    if (state.ownsCache && !(answer && settings.return_dict_in_generate)) state.cache?.dispose();
    run.free(answer ? [state.input_ids] : []);
  }
}

function seeded(model: PreTrainedModel, seed: number | bigint): Generator {
  const generator = new torch.Generator(model.device);
  generator.manual_seed(seed);
  return generator;
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
  const { settings, state, processors, pad_token_id } = run;
  const wanted = settings.return_dict_in_generate === true;
  const before = { ...state };
  const step = torch.no_grad(() =>
    torch.tidy(() => {
      const inputs = modelInputs(run, first);
      const outputs = (model.forward as (inputs: ModelInputs) => unknown).call(
        model,
        inputs,
      ) as ForwardOutput;
      const length = outputs.logits.shape[1] as number;
      const logits = outputs.logits
        .select(1, length - 1)
        .to("float32")
        .clone();
      const scores = processors.process(state.input_ids, logits);
      let ids = settings.do_sample
        ? torch.multinomial(scores.softmax(-1), 1, { generator: generator ?? null }).squeeze(1)
        : scores.argmax(-1);
      if (pad_token_id !== undefined && run.criteria.items.some((item) => item instanceof EosTokenCriteria)) {
        ids = ids.mul(unfinished).add(torch.sub(1, unfinished).mul(pad_token_id));
      }
      return {
        ids,
        ...append(state, ids),
        scores: wanted && settings.output_scores ? scores : undefined,
        logits: wanted && settings.output_logits ? logits : undefined,
        attentions: wanted && settings.output_attentions ? outputs.attentions : undefined,
        hidden_states: wanted && settings.output_hidden_states ? outputs.hidden_states : undefined,
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
  if (step.scores) collected.scores.push(step.scores);
  if (step.logits) collected.logits.push(step.logits);
  if (step.attentions) collected.attentions.push(step.attentions);
  if (step.hidden_states) collected.hidden_states.push(step.hidden_states);
  return step.ids;
}

/** All tokens in the first step and without a cache; the last one otherwise. */
function modelInputs({ settings, state }: Run, first: boolean): ModelInputs {
  const { cache, attention_mask, inputs_embeds, extra } = state;
  const whole = first || cache === undefined;
  const seen = first && cache ? cache.get_seq_length() : 0;
  const skip = typeof seen === "number" ? seen : seen.item<number>();
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
  return inputs;
}

/** The state's tensors with one token more. */
function append({ input_ids, attention_mask, position_ids }: State, ids: Tensor) {
  const rows = ids.shape[0] as number;
  const next = position_ids?.narrow(1, (position_ids.shape[1] as number) - 1, 1).add(1);
  return {
    input_ids: torch.cat([input_ids, ids.unsqueeze(1)], 1),
    attention_mask: attention_mask && torch.cat([attention_mask, attention_mask.new_ones([rows, 1])], 1),
    position_ids: position_ids && torch.cat([position_ids, next as Tensor], 1),
  };
}

/** Which rows go on, and whether none does. */
function check(
  { criteria, state }: Run,
  unfinished: Tensor,
  scores: readonly Tensor[] | undefined,
): [unfinished: Tensor, done: boolean] {
  const next = torch.tidy(() =>
    unfinished.mul(criteria.check(state.input_ids, scores).bitwise_not().to("int64")),
  );
  unfinished.dispose();
  return [next, torch.tidy(() => next.max().item<number>()) === 0];
}

function result({ settings, state }: Run, collected: Collected): Tensor | GenerateDecoderOnlyOutput {
  if (!settings.return_dict_in_generate) return state.input_ids;
  const given = <T>(items: readonly T[], wanted: boolean | null) => (wanted ? items : undefined);
  return new GenerateDecoderOnlyOutput({
    sequences: state.input_ids,
    scores: given(collected.scores, settings.output_scores),
    logits: given(collected.logits, settings.output_logits),
    attentions: given(collected.attentions, settings.output_attentions),
    hidden_states: given(collected.hidden_states, settings.output_hidden_states),
    past_key_values: state.cache,
  });
}
