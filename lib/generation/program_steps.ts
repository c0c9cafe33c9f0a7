// Generation as a native loop over Programs: buffers, stages, and the two ways of running them.
//
// Where everything can be recorded, the loop runs by itself and JavaScript reads what came, as far behind as it likes.
// Where a processor or a criterion is JavaScript, the loop pauses after each forward, and the choice is made here.
import { setImmediate as nextTurn } from "node:timers/promises";
import { type LoopNews, ProgramLoop, type Stage } from "../compile/loop.ts";
import type { PreTrainedModel } from "../modeling/modeling_utils.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { Buffers } from "./buffers.ts";
import { choiceKey, needsHost } from "./processors.ts";
import { choice, decode, prefill, programsOf, Unrecordable } from "./recorded_steps.ts";
import {
  type Answer,
  answerOf,
  Collected,
  checkCriteria,
  choose,
  type Generation,
  type Step,
  unfinishedRows,
  wanted,
} from "./step.ts";
import { MaxTimeCriteria } from "./stopping_criteria.ts";

/** So many steps the loop is ahead of a consumer at most. */
const AHEAD = 32;

interface Ready {
  readonly buffers: Buffers;
  readonly first: readonly Stage[];
  readonly body: readonly Stage[];
}

/**
 * The steps; it ends with the answer. The caller frees the run.
 *
 * @throws Unrecordable before anything has run
 */
export async function* programSteps(
  model: PreTrainedModel,
  generation: Generation,
): AsyncGenerator<Step, Answer, void> {
  const { run, options, generator, quiet } = generation;
  const host = needsHost({ settings: run.settings, options });
  const start = async () => {
    const ready = await makeReady(model, generation, host !== undefined);
    const loop = ProgramLoop.start({
      first: ready.first,
      body: ready.body,
      ...(host === undefined
        ? {
            ids: ready.buffers.choice.ids,
            going: run.facts.eos_token_id ? ready.buffers.choice.going : undefined,
            limit: quiet ? undefined : AHEAD,
            most: ready.buffers.most,
            milliseconds: run.criteria.items.find((item) => item instanceof MaxTimeCriteria)?.milliseconds_left,
            generator,
            quiet,
          }
        : { limit: 1 }),
    });
    return { ready, loop };
  };
  let { ready, loop } = await start();
  if (loop === undefined) {
    // A parameter was moved or replaced by one that looks different.
    ready.buffers.dispose();
    programsOf(model).recordings.clear();
    ({ ready, loop } = await start());
    if (loop === undefined) throw new Error("a recording does not fit the tensors that it was made from");
  }
  const { buffers } = ready;
  const running = loop;
  const { signal } = options;
  const abort = () => running.cancel();
  signal?.addEventListener("abort", abort, { once: true });
  const collected = new Collected();
  let answer: Answer | undefined;
  try {
    signal?.throwIfAborted();
    answer = yield* host === undefined
      ? byItself(generation, buffers, running, collected)
      : withHost(generation, buffers, running, collected);
    return answer;
  } finally {
    signal?.removeEventListener("abort", abort);
    ProgramLoop.discard(await running.end());
    if (!answer) collected.dispose();
    buffers.dispose();
  }
}

/** Buffers for the request, and Programs for them. Each recording is a turn of the event loop of its own. */
async function makeReady(model: PreTrainedModel, { run, options }: Generation, host: boolean): Promise<Ready> {
  const { recordings } = programsOf(model);
  const keep = wanted(run);
  const collects = { forward: keep.attentions || keep.hidden_states, choice: keep.scores || keep.logits };
  let isNew = false;
  const stage = (...[name, fn, args, collects]: [string, never, unknown[], boolean]): Stage => {
    let made: Stage | undefined;
    const options = {
      collects,
      made: () => {
        isNew = true;
      },
    };
    torch.no_grad(() =>
      torch.tidy(() => {
        made = recordings.stage(name, fn, args, options);
      }),
    );
    return made as unknown as Stage;
  };
  const turn = async () => {
    if (isNew) await nextTurn();
    isNew = false;
    options.signal?.throwIfAborted();
  };
  const kind = [keep.attentions, keep.hidden_states].join();
  let buffers: Buffers | undefined;
  try {
    try {
      buffers = new Buffers(model, run);
      const { forward, chunks, state } = { forward: buffers.forward, chunks: buffers.chunks, state: run.state };
      const first: Stage[] = [];
      for (const [i, { tensors, isPrompt }] of chunks.entries()) {
        const empties = i === 0 && buffers.isEmpty;
        const isLast = i === chunks.length - 1;
        buffers.setPrompt(isPrompt);
        const fn = prefill(model, run, empties) as never;
        first.push(
          stage(
            `prefill ${empties} ${kind}`,
            fn,
            [forward, tensors, state.extra],
            isLast && collects.forward,
          ),
        );
        buffers.setPrompt(false);
        await turn();
      }
      const body = [
        stage(`decode ${kind}`, decode(model, run) as never, [forward, state.extra], collects.forward),
      ];
      await turn();
      if (host) return { buffers, first, body };
      const key = choiceKey(run.settings, run.facts, run.pad_token_id);
      const name = `choice ${[keep.scores, keep.logits].join()} ${key}`;
      const chosen = stage(name, choice(run) as never, [buffers.choice], collects.choice);
      await turn();
      return { buffers, first: [...first, chosen], body: [...body, chosen] };
    } catch (error) {
      options.signal?.throwIfAborted();
      if ((error as { code?: string }).code === "ERR_OUT_OF_MEMORY") throw error;
      throw new Unrecordable(error);
    }
  } catch (error) {
    buffers?.dispose();
    throw error;
  }
}

/** The loop runs by itself; what it made is read behind it. */
async function* byItself(
  { run, options, quiet }: Generation,
  buffers: Buffers,
  loop: ProgramLoop,
  collected: Collected,
): AsyncGenerator<Step, Answer, void> {
  const { streamer, signal } = options;
  const [rows] = run.state.input_ids.shape as [number];
  let news: LoopNews;
  let taken = 0;
  do {
    news = await loop.next();
    if (news.cancelled) {
      ProgramLoop.discard(news.collected);
      throw signal?.reason;
    }
    for (let at = 0; !quiet && at < news.ids.length; at += rows) {
      signal?.throwIfAborted();
      if (!news.ended) loop.allow(++taken + AHEAD);
      const ids = torch.tensor(news.ids.slice(at, at + rows), {
        dtype: "int64",
        device: run.state.input_ids.device,
      });
      let isHandedOn = false;
      try {
        await streamer?.put(ids);
        isHandedOn = true;
      } finally {
        if (!isHandedOn) ids.dispose();
      }
      yield { ids };
    }
  } while (!news.ended);
  buffers.collect(news.collected, collected);
  const sequences = buffers.sequences(news.steps);
  return answerOf(run, sequences, buffers.cacheAfter(run, news.steps), collected);
}

/** The loop pauses after each forward; processors, choice and criteria run here, over the exact sequence. */
async function* withHost(
  { run, options, generator }: Generation,
  buffers: Buffers,
  loop: ProgramLoop,
  collected: Collected,
): AsyncGenerator<Step, Answer, void> {
  const { state } = run;
  const { streamer, signal } = options;
  const keep = wanted(run);
  let unfinished = unfinishedRows(run);
  let pending: Tensor | undefined; // ids that were not handed on yet
  try {
    for (let steps = 1, done = false; !done; steps++) {
      const news = await loop.next();
      if (news.cancelled) {
        ProgramLoop.discard(news.collected);
        throw signal?.reason;
      }
      signal?.throwIfAborted();
      const step = torch.no_grad(() =>
        torch.tidy(() => {
          const logits = buffers.forward.logits.clone();
          const { ids, scores } = choose(run, logits, unfinished, generator);
          buffers.forward.ids.copy_(ids.unsqueeze(1));
          return {
            ids,
            input_ids: torch.cat([state.input_ids, ids.unsqueeze(1)], 1),
            scores: keep.scores ? scores : undefined,
            logits: keep.logits ? logits : undefined,
          };
        }),
      );
      pending = step.ids;
      const before = state.input_ids;
      state.input_ids = step.input_ids;
      run.release({ ...state, input_ids: before, attention_mask: undefined, position_ids: undefined });
      collected.add(step);
      [unfinished, done] = await checkCriteria(run, unfinished, collected);
      if (!done) loop.allow(steps + 1);
      await streamer?.put(step.ids);
      pending = undefined;
      yield { ids: step.ids };
      if (done) {
        buffers.collect(await loop.end(), collected);
        return answerOf(run, state.input_ids, buffers.cacheAfter(run, steps), collected);
      }
    }
    throw new Error("unreachable");
  } finally {
    unfinished.dispose();
    pending?.dispose();
  }
}
