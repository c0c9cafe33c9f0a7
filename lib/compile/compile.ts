// torch.compile: a function that runs as a Program, off the event loop.
import type { Addon, RunResult } from "../addon/addon.ts";
import { addon } from "../addon/loader.ts";
import { InvalidArgumentError, TraceError } from "../errors/index.ts";
import { warn } from "../errors/warnings.ts";
import { writeFileAtomic } from "../hub/atomic.ts";
import { get_default_device, keep, Tensor } from "../torch/index.ts";
import { adopt } from "../torch/tensor.ts";
import { type Bucket, checkBuckets, cut, type Filled, fill, findCuts } from "./buckets.ts";
import { brokenGuard } from "./owners.ts";
import { chromeTrace, type ProfileEntry, type Program } from "./program.ts";
import { type AnyFunction, record } from "./record.ts";
import { nextRun } from "./run_number.ts";
import { holdState, pendingState, Wait } from "./session.ts";
import { applyMutations, type Flat, flatten, type Instance, instantiate } from "./tree.ts";

export interface CompileOptions {
  /** How many recordings are kept; the one that was not used for longest goes first. Default: 64. */
  cache_size?: number | undefined;
  /**
   * Which passes may rewrite a recording: `true`, the default, all; `false` none, so that it runs operator by operator as it
   * was recorded; or a list of names, for comparison. Program.toString() shows what became of it. Passes that replace
   * operators are off where gradients are needed, whatever is asked for.
   */
  passes?: boolean | readonly PassName[] | undefined;
  /**
   * Lengths that are padded to a few sizes, so that few recordings serve many calls. The function gets the padded tensors:
   * what it computes of the true part must not depend on the padding, for which its masks are padded too. Results are cut back
   * (to views) where they are as long as a padded argument; whether and where is found by a second recording, without padding,
   * that is not run. A result that depends on a length in another way is a TraceError; so is a function that writes to a padded
   * argument.
   *
   * @example
   * const embed = torch.compile((ids: Tensor, mask: Tensor) => model.forward({ input_ids: ids, attention_mask: mask }).logits, {
   *   buckets: { args: { 0: { dim: 1, value: pad_token_id }, 1: { dim: 1, value: 0 } }, sizes: [32, 64, 128] },
   * });
   */
  buckets?: Bucket | readonly Bucket[] | undefined;
}

/** The passes over a recording, in the order in which they run. */
export type PassName =
  | "dead_code"
  | "identities"
  | "constants"
  | "common"
  | "norms"
  | "last_positions"
  | "residuals"
  | "rotary"
  | "swiglu"
  | "linears"
  | "attention"
  | "views"
  | "in_place";

export interface RunOptions {
  /** Ends the run before its next operator; the promise rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** What a compiled function has done so far. */
export interface CompileCounters {
  readonly calls: number;
  /** Recordings made, those that replaced an outdated one included. */
  readonly recordings: number;
  /** Recordings given up because a module, a parameter or a setting had changed. */
  readonly outdated: number;
  /** Recordings given up for room. */
  readonly evicted: number;
}

/** The tensors of a recorded result are there when the promise resolves. */
export interface Compiled<A extends unknown[], R> {
  (...args: A): Promise<R>;
  /** As a call, with options. */
  run(args: A, options?: RunOptions): Promise<R>;
  /** Runs once and says how long each operator took. */
  profile(...args: A): Promise<ProfileEntry[]>;
  /** As profile; also writes a file for chrome://tracing or Perfetto, whole or not at all. */
  trace(file: string, ...args: A): Promise<ProfileEntry[]>;
  /** Forgets all recordings: for when a value in a closure has changed. */
  recompile(): void;
  /** The recordings, the one used last at the end. */
  programs(): Program[];
  readonly counters: CompileCounters;
}

/**
 * Makes a function run as a Program: it is recorded once per signature of its arguments (structure, numbers, strings,
 * shapes, dtypes, devices, modes of the thread), and then runs without JavaScript between its operators, on the executor's
 * thread, while the event loop is free.
 *
 * Parameters and buffers that the function uses may change, move or be replaced; other values of its closure are constants
 * of the recording, see `recompile`. Arguments and captured tensors that the function writes in place are written by the
 * run. Do not write to them yourself before the promise resolves: that is a TensorBusyError.
 *
 * @throws TraceError (the promise rejects) where the function reads a tensor's values; the message names the line.
 * @example
 * const step = torch.compile((x: Tensor) => model.forward(x).relu());
 * const y = await step(torch.randn(2, 8));
 */
export function compile<A extends unknown[], R>(
  fn: (...args: A) => R,
  options?: CompileOptions,
): Compiled<A, R>;
export function compile<A extends unknown[], R>(
  module: { forward(...args: A): R },
  options?: CompileOptions,
): Compiled<A, R>;
export function compile<A extends unknown[], R>(
  target: ((...args: A) => R) | { forward(...args: A): R },
  { cache_size = 64, passes = true, buckets, ...unknown }: CompileOptions = {},
): Compiled<A, R> {
  for (const name of Object.keys(unknown))
    throw new InvalidArgumentError(`[compile] unknown option '${name}'.`);
  if (!(Number.isInteger(cache_size) && cache_size >= 1))
    throw new InvalidArgumentError(`[compile] cache_size must be a positive integer, got ${cache_size}.`);
  if (typeof target !== "function" && typeof target?.forward !== "function")
    throw new InvalidArgumentError("[compile] takes a function or a module.");
  if (typeof passes !== "boolean" && !Array.isArray(passes))
    throw new InvalidArgumentError("[compile] passes must be true, false or a list of names.");
  const names = passes === true ? undefined : passes === false ? [] : [...passes];
  const fn = typeof target === "function" ? target : (...args: A) => target.forward(...args);
  const cache = new ProgramCache(
    fn as AnyFunction,
    cache_size,
    names,
    buckets === undefined ? undefined : checkBuckets(buckets),
  );
  const profile = async (args: A) => (await cache.call(args, {}, true)).profile;
  const compiled = async (...args: A): Promise<R> => (await cache.call(args, {}, false)).result as R;
  return Object.defineProperties(compiled, {
    name: { value: `compiled ${fn.name}` },
    run: {
      value: async (args: A, options: RunOptions = {}) =>
        (await cache.call(args, options, false)).result as R,
    },
    profile: { value: (...args: A) => profile(args) },
    trace: {
      value: async (file: string, ...args: A) => {
        const entries = await profile(args);
        await writeFileAtomic(file, chromeTrace(entries));
        return entries;
      },
    },
    recompile: { value: () => cache.clear() },
    programs: { value: () => cache.programs() },
    counters: { get: () => ({ ...cache.counters }) },
  }) as Compiled<A, R>;
}

/** The recordings of one function, by signature. */
class ProgramCache {
  readonly counters = { calls: 0, recordings: 0, outdated: 0, evicted: 0 };
  readonly #fn: AnyFunction;
  readonly #size: number;
  readonly #passes: readonly string[] | undefined;
  readonly #buckets: readonly Bucket[] | undefined;
  readonly #cuts = new WeakMap<Program, ReturnType<typeof findCuts>>();
  // By key and in the order of last use; several for one key where other state than the arguments tells them apart.
  readonly #programs: { readonly key: string; readonly program: Program }[] = [];

  constructor(
    fn: AnyFunction,
    size: number,
    passes: readonly string[] | undefined,
    buckets: readonly Bucket[] | undefined,
  ) {
    this.#fn = fn;
    this.#size = size;
    this.#passes = passes;
    this.#buckets = buckets;
  }

  clear(): void {
    this.#programs.length = 0;
  }

  programs(): Program[] {
    return this.#programs.map(({ program }) => program);
  }

  async call(
    args: readonly unknown[],
    { signal }: RunOptions,
    profiled: boolean,
  ): Promise<{ result: unknown; profile: ProfileEntry[] }> {
    signal?.throwIfAborted();
    this.counters.calls++;
    const native = addon();
    const flat = flatten(args);
    const filled = this.#buckets && fill(this.#buckets, args);
    const padded = filled?.padded ?? new Map<Tensor, Tensor>();
    const handles = flat.tensors.map((tensor) => (padded.get(tensor) ?? tensor)._handle);
    const thread = modes();
    const key = `${flat.key}\n${native.tensorsKey(handles)}\n${thread}`;
    const id = nextRun();
    const generators = flat.generators.map(({ _handle }) => _handle);
    const prepare = (program: Program) => {
      if (filled) this.#findCuts(program, args, flat, filled);
    };
    const start = (program: Program) => {
      const numbers = program._numbers.map((read) => read());
      return native.runProgram(program._native, handles, id, profiled, generators, numbers);
    };

    let started = this.#start(key, prepare, start);
    while (started === undefined || started instanceof Wait) {
      if (started instanceof Wait) {
        await started.until;
        signal?.throwIfAborted();
        if (modes() !== thread)
          throw new TraceError("[compile] the modes of the thread changed while the call had to wait.", {
            hint: "Await the first training step before the next call.",
          });
        started = this.#start(key, prepare, start);
        continue;
      }
      const program = this.#record(key, args, flat, padded);
      if (program instanceof Wait) {
        started = program;
        continue;
      }
      prepare(program);
      const pending = start(program);
      if (!pending) throw new Error("a recording does not fit the tensors that it was made from");
      started = { program, pending };
    }
    const { program, pending } = started;
    if (program._assignments.length > 0) holdState(program._owners, pending);
    const abort = () => native.cancelRun(id);
    signal?.addEventListener("abort", abort, { once: true });
    try {
      const { outputs, spans } = await pending;
      const tensors = outputs.map((handle) => (handle === null ? null : adopt(handle)));
      const cuts = filled && this.#cuts.get(program);
      if (filled && cuts) {
        for (const [i, tensor] of tensors.entries())
          if (tensor) tensors[i] = cut(tensor, cuts[i] ?? [], filled.fills);
      }
      return { result: finish(program, tensors, flat), profile: profiled ? program._profile(spans) : [] };
    } catch (error) {
      if ((error as { code?: string }).code === "ERR_ABORTED") throw signal?.reason;
      throw explain(error, program);
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /** Starts the first recording for `key` that holds; forgets those that no longer do. */
  #start(
    key: string,
    prepare: (program: Program) => void,
    start: (program: Program) => ReturnType<Addon["runProgram"]>,
  ): Started | Wait | undefined {
    for (const entry of this.#programs.filter((entry) => entry.key === key).reverse()) {
      const { program } = entry;
      const until = pendingState(program._owners);
      if (until !== undefined) return new Wait(until);
      const holds = brokenGuard(program._guards) === undefined;
      if (holds) prepare(program);
      const pending = holds ? start(program) : null;
      // false: made for gradients that are there, or for none; the other case comes again.
      if (pending === false) continue;
      this.#programs.splice(this.#programs.indexOf(entry), 1);
      if (pending === null) {
        this.counters.outdated++;
        continue;
      }
      this.#programs.push(entry);
      return { program, pending };
    }
    return undefined;
  }

  /** Once something is padded: which parts of the outputs are. */
  #findCuts(program: Program, args: readonly unknown[], flat: Flat, { fills, padded }: Filled): void {
    if (padded.size === 0 || this.#cuts.has(program)) return;
    this.#cuts.set(program, findCuts(program, record(this.#fn, args, flat, []), fills));
  }

  #record(
    key: string,
    args: readonly unknown[],
    flat: Flat,
    padded: ReadonlyMap<Tensor, Tensor>,
  ): Program | Wait {
    let program: Program;
    try {
      program = record(this.#fn, args, flat, this.#passes, padded);
    } catch (error) {
      if (error instanceof Wait) return error;
      throw error;
    }
    this.counters.recordings++;
    if (this.#programs.length >= this.#size) {
      this.#programs.shift();
      if (this.counters.evicted++ === 0)
        warn(`A compiled function ('${this.#fn.name}') was called with more than ${this.#size} signatures.`);
    }
    this.#programs.push({ key, program });
    return program;
  }
}

interface Started {
  readonly program: Program;
  readonly pending: Promise<RunResult>;
}

/** What of this thread's state operators depend on. */
export function modes(): string {
  const native = addon();
  const cast = (device: string) => {
    const { enabled, dtype } = native.autocast(device);
    return enabled ? dtype : "";
  };
  return [
    native.gradMode(),
    native.inferenceMode(),
    cast("cpu"),
    cast("cuda"),
    native.defaultDtype(),
    get_default_device(),
  ].join();
}

/** Gives the outputs of a run their objects. */
function finish(program: Program, outputs: readonly (Tensor | null)[], flat: Flat): unknown {
  const instance: Instance = {
    outputs,
    inputs: flat.tensors,
    objects: flat.objects,
    made: new Map<number, object>(),
  };
  const result = instantiate(program._result, instance);
  applyMutations(program._mutations, instance);
  for (const { object, key, node } of program._assignments) {
    const value = instantiate(node, instance);
    object[key] = value instanceof Tensor ? keep(value) : value;
  }
  for (const callback of program._afterRun) callback();
  return result;
}

/** An error of a run says which line of the model recorded the operator that failed. */
export function explain(error: unknown, program: Program): unknown {
  const { instruction } = error as { instruction?: number };
  if (!(error instanceof Error) || instruction === undefined) return error;
  const line = program.line(instruction);
  if (line !== "") error.message += `\n  at ${line}`;
  return error;
}
