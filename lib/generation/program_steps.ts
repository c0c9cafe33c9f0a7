// Generation as a native loop over Programs: buffers, stages, and the two ways of running them.
//
// Where everything can be recorded, the loop runs by itself and JavaScript reads what came, as far behind as it likes.
// Where a processor or a criterion is JavaScript, the loop pauses after each forward, and the choice is made here.
import { setImmediate as nextTurn } from "node:timers/promises";
import { type LoopNews, ProgramLoop, type Stage } from "../compile/loop.ts";
import { OutOfMemoryError } from "../errors/index.ts";
import { warnOnce } from "../errors/warnings.ts";
import type { PreTrainedModel } from "../modeling/modeling_utils.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { Buffers } from "./buffers.ts";
import { choiceKey, needsHost } from "./processors.ts";
import {
  type Choice,
  choice,
  decode,
  type Forward,
  lengthen,
  prefill,
  programsOf,
  Unrecordable,
} from "./recorded_steps.ts";
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

/** Records the stages of a request. Each recording is a turn of the event loop of its own. */
class Stages {
  readonly #model: PreTrainedModel;
  readonly #generation: Generation;
  readonly #host: boolean;
  #made = false;

  constructor(model: PreTrainedModel, generation: Generation, host: boolean) {
    this.#model = model;
    this.#generation = generation;
    this.#host = host;
  }

  /** The first step: the prompt. */
  async prompt({ chunks, forward, choice, isEmpty, setPrompt }: Buffers): Promise<Stage[]> {
    const { run } = this.#generation;
    const keep = wanted(run);
    const stages: Stage[] = [];
    for (const [i, { tensors, isPrompt }] of chunks.entries()) {
      const empties = isEmpty && i === 0;
      const collects = i === chunks.length - 1 && (keep.attentions || keep.hidden_states);
      setPrompt(forward.cache, isPrompt);
      stages.push(
        await this.#stage(
          `prefill ${empties} ${this.#outputs()}`,
          prefill(this.#model, run, empties),
          [forward, tensors, run.state.extra],
          collects,
          () => setPrompt(forward.cache, false),
        ),
      );
    }
    return [...stages, ...(await this.#choice(choice))];
  }

  /** All other steps. */
  async step({ forward, choice }: Buffers): Promise<Stage[]> {
    const { run } = this.#generation;
    const keep = wanted(run);
    const next = await this.#stage(
      `decode ${this.#outputs()}`,
      decode(this.#model, run),
      [forward, run.state.extra],
      keep.attentions || keep.hidden_states,
    );
    return [next, ...(await this.#choice(choice))];
  }

  /** What fills a longer cache. */
  lengthen(from: Forward, to: Forward): Promise<Stage> {
    return this.#stage("lengthen", lengthen, [from, to], false);
  }

  async #choice(tensors: Choice): Promise<Stage[]> {
    if (this.#host) return [];
    const { run } = this.#generation;
    const keep = wanted(run);
    const key = choiceKey(run.settings, run.facts, run.pad_token_id);
    const name = `choice ${keep.scores} ${keep.logits} ${key}`;
    return [await this.#stage(name, choice(run), [tensors], keep.scores || keep.logits)];
  }

  #outputs(): string {
    const { settings } = this.#generation.run;
    return [
      settings.return_dict_in_generate,
      settings.output_attentions,
      settings.output_hidden_states,
    ].join();
  }

  async #stage(
    name: string,
    fn: (...args: never[]) => unknown,
    args: unknown[],
    collects: boolean,
    then?: () => void,
  ): Promise<Stage> {
    const { recordings } = programsOf(this.#model);
    let stage: Stage | undefined;
    const made = () => {
      this.#made = true;
    };
    try {
      torch.no_grad(() =>
        torch.tidy(() => {
          stage = recordings.stage(name, fn, args, { collects, made });
        }),
      );
    } finally {
      then?.();
    }
    if (this.#made) await nextTurn();
    this.#made = false;
    this.#generation.options.signal?.throwIfAborted();
    return stage as unknown as Stage;
  }
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
  const host = needsHost({ settings: generation.run.settings, options: generation.options }) !== undefined;
  const stages = new Stages(model, generation, host);
  let started = await start(model, generation, stages, host);
  if (started === undefined) {
    // A parameter was moved, or replaced by one that looks different.
    programsOf(model).recordings.clear();
    started = await start(model, generation, stages, host);
    if (started === undefined) throw new Error("a recording does not fit the tensors that it was made from");
  }
  const { buffers, loop } = started;
  const { signal } = generation.options;
  const abort = () => loop.cancel();
  signal?.addEventListener("abort", abort, { once: true });
  const collected = new Collected();
  /** Lets a paused loop go on, in a longer cache if this one is full. */
  const goOn = async (steps: number, limit: number) => {
    if (steps === buffers.room && steps < buffers.most) {
      const [from, to, release] = buffers.grow(model);
      const body = await stages.step(buffers);
      const first = [await stages.lengthen(from, to), ...body];
      if (!loop.replace({ first, body })) throw new Error("the weights were replaced while they were in use");
      release();
    }
    loop.allow(Math.min(limit, buffers.room));
  };
  const way: Way = { generation, buffers, loop, collected, goOn };
  let answer: Answer | undefined;
  try {
    signal?.throwIfAborted();
    answer = yield* host ? withHost(way) : byItself(way);
    return answer;
  } finally {
    signal?.removeEventListener("abort", abort);
    ProgramLoop.discard(await loop.end());
    if (!answer) collected.dispose();
    buffers.dispose();
  }
}

interface Way {
  readonly generation: Generation;
  readonly buffers: Buffers;
  readonly loop: ProgramLoop;
  readonly collected: Collected;
  readonly goOn: (steps: number, limit: number) => Promise<void>;
}

/** Makes all ready and starts the loop; undefined when a recording does not fit the weights any more. */
async function start(
  model: PreTrainedModel,
  { run, options, generator, quiet }: Generation,
  stages: Stages,
  host: boolean,
): Promise<{ buffers: Buffers; loop: ProgramLoop } | undefined> {
  let buffers: Buffers | undefined;
  let loop: ProgramLoop | undefined;
  try {
    buffers = new Buffers(model, run);
    const [first, body] = [await stages.prompt(buffers), await stages.step(buffers)];
    const { choice, room, most } = buffers;
    const own = {
      ids: choice.ids,
      going: run.facts.eos_token_id ? choice.going : undefined,
      limit: Math.min(quiet ? Infinity : AHEAD, room),
      most,
      milliseconds: run.criteria.items.find((item) => item instanceof MaxTimeCriteria)?.milliseconds_left,
      generator,
      quiet,
    };
    loop = ProgramLoop.start({ first, body, ...(host ? { limit: 1 } : own) });
    return loop && { buffers, loop };
  } catch (error) {
    options.signal?.throwIfAborted();
    throw error instanceof OutOfMemoryError ? error : new Unrecordable(error);
  } finally {
    if (loop === undefined) buffers?.dispose();
  }
}

/** The loop runs by itself; what it made is read behind it. */
async function* byItself({
  generation: { run, options, quiet },
  buffers,
  loop,
  collected,
  goOn,
}: Way): AsyncGenerator<Step, Answer, void> {
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
      if (!news.ended) loop.allow(Math.min(++taken + AHEAD, buffers.room));
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
    if (news.paused) await goOn(news.steps, quiet ? Infinity : taken + AHEAD);
  } while (!news.ended);
  if (news.noGraph !== "")
    warnOnce(`The device's work is queued operator by operator, without a CUDA graph: ${news.noGraph}`);
  buffers.collect(news.collected, collected);
  const sequences = buffers.sequences(news.steps);
  return answerOf(run, sequences, buffers.cacheAfter(run, news.steps), collected);
}

/** The loop pauses after each forward; processors, choice and criteria run here, over the exact sequence. */
async function* withHost({
  generation: { run, options, generator },
  buffers,
  loop,
  collected,
  goOn,
}: Way): AsyncGenerator<Step, Answer, void> {
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
      if (!done) await goOn(steps, steps + 1);
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
