// torch.compile: a function that runs as a Program, off the event loop.
import { addon } from "../addon/loader.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import { warn } from "../errors/warnings.ts";
import { get_default_device } from "../torch/index.ts";
import { adopt } from "../torch/tensor.ts";
import { brokenGuard } from "./owners.ts";
import type { ProfileEntry, Program } from "./program.ts";
import { type AnyFunction, record } from "./record.ts";
import { nextRun } from "./run_number.ts";
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
  { cache_size = 64, passes = true, ...unknown }: CompileOptions = {},
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
  const cache = new ProgramCache(fn as AnyFunction, cache_size, names);
  const compiled = async (...args: A): Promise<R> => (await cache.call(args, {}, false)).result as R;
  return Object.defineProperties(compiled, {
    name: { value: `compiled ${fn.name}` },
    run: {
      value: async (args: A, options: RunOptions = {}) =>
        (await cache.call(args, options, false)).result as R,
    },
    profile: { value: async (...args: A) => (await cache.call(args, {}, true)).profile },
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
  // In the order of last use.
  readonly #programs = new Map<string, Program>();

  constructor(fn: AnyFunction, size: number, passes: readonly string[] | undefined) {
    this.#fn = fn;
    this.#size = size;
    this.#passes = passes;
  }

  clear(): void {
    this.#programs.clear();
  }

  programs(): Program[] {
    return [...this.#programs.values()];
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
    const handles = flat.tensors.map(({ _handle }) => _handle);
    const key = `${flat.key}\n${native.tensorsKey(handles)}\n${modes()}`;
    const id = nextRun();

    let program = this.#find(key) ?? this.#record(key, args, flat);
    let pending = native.runProgram(program._native, handles, id, profiled);
    if (pending === null) {
      // A captured tensor has another shape, dtype or device now, or is gone.
      this.counters.outdated++;
      program = this.#record(key, args, flat);
      pending = native.runProgram(program._native, handles, id, profiled);
      if (pending === null) throw new Error("a recording does not fit the tensors that it was made from");
    }
    const abort = () => native.cancelRun(id);
    signal?.addEventListener("abort", abort, { once: true });
    try {
      const { outputs, spans } = await pending;
      return { result: finish(program, outputs, flat), profile: profiled ? program._profile(spans) : [] };
    } catch (error) {
      if ((error as { code?: string }).code === "ERR_ABORTED") throw signal?.reason;
      throw explain(error, program);
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  #find(key: string): Program | undefined {
    const program = this.#programs.get(key);
    if (program === undefined) return undefined;
    this.#programs.delete(key);
    if (brokenGuard(program._guards) !== undefined) {
      this.counters.outdated++;
      return undefined;
    }
    this.#programs.set(key, program);
    return program;
  }

  #record(key: string, args: readonly unknown[], flat: Flat): Program {
    const program = record(this.#fn, args, flat, this.#passes);
    this.counters.recordings++;
    this.#programs.delete(key);
    if (this.#programs.size >= this.#size) {
      const [oldest] = this.#programs.keys();
      this.#programs.delete(oldest as string);
      if (this.counters.evicted++ === 0)
        warn(`A compiled function ('${this.#fn.name}') was called with more than ${this.#size} signatures.`);
    }
    this.#programs.set(key, program);
    return program;
  }
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
function finish(program: Program, outputs: readonly (number | null)[], flat: Flat): unknown {
  const instance: Instance = {
    outputs: outputs.map((handle) => (handle === null ? null : adopt(handle))),
    inputs: flat.tensors,
    objects: flat.objects,
    made: new Map<number, object>(),
  };
  const result = instantiate(program._result, instance);
  applyMutations(program._mutations, instance);
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
