// What a step of generation does after the model's forward, from JavaScript: processors, the choice, who is finished.
import type { Cache } from "../modeling/cache_utils.ts";
import type { Generator, Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { GenerateDecoderOnlyOutput } from "./generation_outputs.ts";
import type { Request } from "./options.ts";
import type { Run, State } from "./prepare.ts";
import { EosTokenCriteria, StopStringCriteria } from "./stopping_criteria.ts";

/** The tokens of one step. */
export interface Step {
  /** One id per row [batch]; finished rows get the padding token. */
  readonly ids: Tensor;
}

export type Answer = Tensor | GenerateDecoderOnlyOutput;

/** What both ways of running are given. */
export interface Generation {
  readonly run: Run;
  readonly options: Request["options"];
  readonly generator: Generator | undefined;
  /** Nobody wants the ids before the end. */
  readonly quiet: boolean;
}

/** What is collected beside the tokens, one entry per step. */
export class Collected {
  readonly scores: Tensor[] = [];
  readonly logits: Tensor[] = [];
  readonly attentions: (readonly Tensor[])[] = [];
  readonly hidden_states: (readonly Tensor[])[] = [];

  add(step: {
    scores?: Tensor | undefined;
    logits?: Tensor | undefined;
    attentions?: readonly Tensor[] | undefined;
    hidden_states?: readonly Tensor[] | undefined;
  }): void {
    if (step.scores) this.scores.push(step.scores);
    if (step.logits) this.logits.push(step.logits);
    if (step.attentions) this.attentions.push(step.attentions);
    if (step.hidden_states) this.hidden_states.push(step.hidden_states);
  }

  dispose(): void {
    for (const tensor of [this.scores, this.logits, this.attentions.flat(), this.hidden_states.flat()].flat())
      tensor.dispose();
  }
}

/** Which outputs a request wants to keep. */
export function wanted({ settings }: Run) {
  const all = settings.return_dict_in_generate === true;
  return {
    scores: all && settings.output_scores === true,
    logits: all && settings.output_logits === true,
    attentions: all && settings.output_attentions === true,
    hidden_states: all && settings.output_hidden_states === true,
  };
}

/** Whether rows that are finished get the padding token. */
export const pads = ({ criteria, pad_token_id }: Run): boolean =>
  pad_token_id !== undefined && criteria.items.some((item) => item instanceof EosTokenCriteria);

/** Chooses ids [batch] by the last scores [batch, vocabulary] in float32. To be called in a scope. */
export function choose(run: Run, logits: Tensor, unfinished: Tensor, generator: Generator | undefined) {
  const { settings, state, processors, pad_token_id } = run;
  const scores = processors.process(state.input_ids, logits);
  let ids = settings.do_sample
    ? torch.multinomial(scores.softmax(-1), 1, { generator: generator ?? null }).squeeze(1)
    : scores.argmax(-1);
  if (pads(run)) ids = ids.mul(unfinished).add(torch.sub(1, unfinished).mul(pad_token_id as number));
  return { ids, scores };
}

/** The state's tensors with one token more. */
export function append({ input_ids, attention_mask, position_ids }: State, ids: Tensor) {
  const rows = ids.shape[0] as number;
  const next = position_ids?.narrow(1, (position_ids.shape[1] as number) - 1, 1).add(1);
  return {
    input_ids: torch.cat([input_ids, ids.unsqueeze(1)], 1),
    attention_mask: attention_mask && torch.cat([attention_mask, attention_mask.new_ones([rows, 1])], 1),
    position_ids: position_ids && torch.cat([position_ids, next as Tensor], 1),
  };
}

/** All rows go on [batch]. */
export const unfinishedRows = ({ state: { input_ids } }: Run): Tensor =>
  torch.ones([input_ids.shape[0] as number], { dtype: "int64", device: input_ids.device });

/** Which rows go on, and whether none does. Frees what it replaces. */
export async function checkCriteria(
  run: Run,
  unfinished: Tensor,
  collected: Collected,
): Promise<[unfinished: Tensor, done: boolean]> {
  const { criteria, state } = run;
  for (const criterion of criteria)
    if (criterion instanceof StopStringCriteria) await criterion.prepare(state.input_ids);
  const scores = wanted(run).scores ? collected.scores : undefined;
  const next = torch.tidy(() =>
    unfinished.mul(criteria.check(state.input_ids, scores).bitwise_not().to("int64")),
  );
  unfinished.dispose();
  return [next, torch.tidy(() => next.max().item<number>()) === 0];
}

export function answerOf(
  run: Run,
  sequences: Tensor,
  cache: Cache | undefined,
  collected: Collected,
): Answer {
  if (!run.settings.return_dict_in_generate) return sequences;
  const keep = wanted(run);
  return new GenerateDecoderOnlyOutput({
    sequences,
    scores: keep.scores ? collected.scores : undefined,
    logits: keep.logits ? collected.logits : undefined,
    attentions: keep.attentions ? collected.attentions : undefined,
    hidden_states: keep.hidden_states ? collected.hidden_states : undefined,
    past_key_values: cache,
  });
}
