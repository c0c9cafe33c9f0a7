// Programs that run again and again, natively, over tensors that they update in place.
import type { LoopResult } from "../addon/addon.ts";
import { addon } from "../addon/loader.ts";
import type { Generator, Tensor } from "../torch/index.ts";
import { adopt } from "../torch/tensor.ts";
import { explain, modes } from "./compile.ts";
import { brokenGuard } from "./owners.ts";
import type { Program } from "./program.ts";
import { type AnyFunction, record } from "./record.ts";
import { nextRun } from "./run_number.ts";
import { flatten, instantiate } from "./tree.ts";

/** A Program and the arguments that it is run on. */
export interface Stage {
  readonly program: Program;
  readonly tensors: readonly Tensor[];
  readonly objects: readonly object[];
  /** What it returns is kept, for the end. */
  readonly collects: boolean;
}

/** Recordings of functions, by name and arguments; the one that was not used for longest goes first. */
export class Recordings {
  readonly #size: number;
  readonly #programs = new Map<string, Program>();

  constructor(size = 64) {
    this.#size = size;
  }

  /**
   * `fn` for arguments like these. `name` stands for everything else that the recording depends on: what is in closures.
   * `made` is called when it had to be recorded.
   */
  stage(
    name: string,
    fn: AnyFunction,
    args: readonly unknown[],
    { collects = false, made }: { collects?: boolean; made?: () => void } = {},
  ): Stage {
    const flat = flatten(args);
    const tensors = addon().tensorsKey(flat.tensors.map(({ _handle }) => _handle));
    const key = `${name}\n${flat.key}\n${tensors}\n${modes()}`;
    let program = this.#programs.get(key);
    this.#programs.delete(key);
    if (program === undefined || brokenGuard(program._guards) !== undefined) {
      program = record(fn, args, flat);
      made?.();
    }
    this.#programs.set(key, program);
    if (this.#programs.size > this.#size) this.#programs.delete([...this.#programs.keys()][0] as string);
    return { program, tensors: flat.tensors, objects: flat.objects, collects };
  }

  clear(): void {
    this.#programs.clear();
  }

  get size(): number {
    return this.#programs.size;
  }
}

export interface LoopOptions {
  /** The first step, when it is another one. */
  readonly first: readonly Stage[];
  /** All other steps. */
  readonly body: readonly Stage[];
  /** int64, read after each step. */
  readonly ids?: Tensor | undefined;
  /** One integer: the loop ends when it is zero. */
  readonly going?: Tensor | undefined;
  /** How many steps it may make before it waits for `allow`. Default: all. */
  readonly limit?: number | undefined;
  /** It ends after so many. */
  readonly most?: number | undefined;
  /** It ends with the step in which this time is over. */
  readonly milliseconds?: number | undefined;
  /** Draws from it. Default: from a copy of the default generator, which is written back at the end. */
  readonly generator?: Generator | undefined;
  /**
   * How many steps may be queued before what an earlier one gave is read; what they do after the end is not told of.
   * None where steps draw or collect. Default: 1 on CUDA devices, 0 on the CPU.
   */
  readonly ahead?: number | undefined;
  /** Tells of pauses and the end only. */
  readonly quiet?: boolean | undefined;
}

/** What came since the last time. */
export interface LoopNews extends Omit<LoopResult, "collected"> {
  /** At the end: what each stage that collects returned, in order. */
  readonly collected: readonly unknown[];
}

const number = (value: number | undefined) =>
  value === undefined || value > Number.MAX_SAFE_INTEGER ? Number.MAX_SAFE_INTEGER : value;
/** Stages as the addon takes them. */
const described = (stages: readonly Stage[]) =>
  [
    stages.map(({ program }) => program._native),
    stages.map(({ tensors }) => tensors.map(({ _handle }) => _handle)),
    stages.map(({ collects }) => collects),
  ] as const;

/** Which stages hold from which step on. */
interface Part {
  readonly from: number;
  readonly first: readonly Stage[];
  readonly body: readonly Stage[];
}

/** A paused loop whose object is garbage would keep its tensors for ever. */
const abandoned = new FinalizationRegistry<number>((id) => addon().cancelLoop(id, true));

/**
 * A loop on the executor. Its Programs' arguments belong to it until it has ended: writing to them is a TensorBusyError,
 * but while it is paused.
 */
export class ProgramLoop {
  readonly #id = nextRun();
  readonly #parts: Part[];
  #steps = 0;
  #ended = false;

  private constructor({ first, body }: LoopOptions) {
    this.#parts = [{ from: 0, first, body }];
  }

  /** undefined: a tensor that was captured no longer fits its recording; record again. */
  static start(options: LoopOptions): ProgramLoop | undefined {
    const loop = new ProgramLoop(options);
    const started = addon().startLoop(
      loop.#id,
      ...described([...options.first, ...options.body]),
      options.first.length,
      options.ids?._handle ?? null,
      options.going?._handle ?? null,
      [
        number(options.limit),
        options.most ?? Infinity,
        options.milliseconds ?? Infinity,
        options.ahead ?? Infinity,
      ],
      options.generator?._handle ?? null,
      options.quiet ?? false,
    );
    if (!started) return undefined;
    abandoned.register(loop, loop.#id);
    return loop;
  }

  /** Waits until there is something to tell. Rejects with what a step threw. */
  async next(): Promise<LoopNews> {
    try {
      const news = await addon().nextOfLoop(this.#id);
      this.#ended = news.ended;
      this.#steps = news.steps;
      return { ...news, collected: news.ended ? this.#collected(news) : [] };
    } catch (error) {
      this.#ended = true;
      const { stage } = error as { stage?: number };
      if (stage === undefined) throw error;
      const { first, body } = this.#parts.at(-1) as Part;
      const at = stage >= 0 ? first[stage] : body[-1 - stage];
      throw at ? explain(error, at.program) : error;
    }
  }

  /** It may make `limit` steps in all. */
  allow(limit: number): void {
    if (!this.#ended) addon().allowLoop(this.#id, number(limit));
  }

  /** While it is paused: `first` for the next step and `body` from then on. Whether their captured tensors fit. */
  replace({ first, body }: Pick<LoopOptions, "first" | "body">): boolean {
    this.#parts.push({ from: this.#steps, first, body });
    return addon().replaceLoop(this.#id, ...described([...first, ...body]), first.length);
  }

  /** It ends before its next operator; `next` tells when. */
  cancel(): void {
    if (!this.#ended) addon().cancelLoop(this.#id, false);
  }

  /** Ends it, and waits until it has let go of its tensors. Gives what was collected. */
  async end(): Promise<readonly unknown[]> {
    this.cancel();
    let collected: readonly unknown[] = [];
    while (!this.#ended) {
      const news = await this.next().catch(() => undefined);
      if (news) ({ collected } = news);
    }
    return collected;
  }

  /** Frees the tensors of results that nobody wants. */
  static discard(results: readonly unknown[]): void {
    for (const tensor of flatten(results).tensors) tensor.dispose();
  }

  #collected({ collected, steps }: LoopResult): unknown[] {
    const results: unknown[] = [];
    let at = 0;
    const take = ({ program, tensors, objects, collects }: Stage) => {
      if (!collects) return;
      const outputs = collected.slice(at, at + program.outputs);
      at += program.outputs;
      results.push(
        instantiate(program._result, {
          outputs: outputs.map((handle) => (handle === null ? null : adopt(handle))),
          inputs: tensors,
          objects,
          made: new Map(),
        }),
      );
    };
    for (const [i, { from, first, body }] of this.#parts.entries()) {
      const to = this.#parts[i + 1]?.from ?? steps;
      for (let step = from; step < to; step++)
        for (const stage of step === from && first.length > 0 ? first : body) take(stage);
    }
    // Of a step that was broken off.
    for (const handle of collected.slice(at)) if (handle !== null) addon().dispose(handle);
    return results;
  }
}
