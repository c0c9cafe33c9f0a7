// torch.utils.checkpoint: memory for time. What a function's operators save for backward is not kept, and the function
// runs once more when backward needs it.
import { addon } from "../addon/loader.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import { warnOnce } from "../errors/warnings.ts";
import { is_grad_enabled, scoped } from "./autograd.ts";
import { readOptions } from "./options.ts";
import { tidy } from "./scope.ts";
import { Tensor } from "./tensor.ts";
import { mapTensors, tensorsIn } from "./tensor_tree.ts";

export interface CheckpointOptions {
  /** Let the second run draw the same random numbers, for dropout. Default true. */
  preserve_rng_state?: boolean | undefined;
  /** Only false, the default: the older way of checkpointing asks more of the caller and gives the same gradients. */
  use_reentrant?: boolean | undefined;
  /** Compare shapes, dtypes and devices of what both runs save (`"default"`), or not (`"none"`). */
  determinism_check?: "default" | "none" | undefined;
  /** End the second run as soon as everything needed is there. Default true. */
  early_stop?: boolean | undefined;
}

const OPTIONS = ["preserve_rng_state", "use_reentrant", "determinism_check", "early_stop"] as const;

const isList = (value: unknown): boolean => Array.isArray(value);

function settings(options: CheckpointOptions) {
  const given = readOptions("checkpoint", [options], OPTIONS) as CheckpointOptions;
  const { preserve_rng_state = true, use_reentrant = false } = given;
  const { determinism_check = "default", early_stop = true } = given;
  if (use_reentrant) {
    throw new InvalidArgumentError("[checkpoint] use_reentrant: true is not offered.", {
      hint: "Leave it out: gradients are the same, and inputs need not require gradients.",
    });
  }
  if (determinism_check !== "default" && determinism_check !== "none") {
    throw new InvalidArgumentError(
      `[checkpoint] determinism_check is "default" or "none", got ${JSON.stringify(determinism_check)}.`,
    );
  }
  return { preserve_rng_state, determinism_check, early_stop };
}

/**
 * Calls `fn(...args)` without keeping what its operators save for backward; backward calls it again. Losses and
 * gradients are the same as without, also with dropout.
 *
 * `fn` must do the same both times. It runs in a memory scope: of the tensors made in it, its result and what hangs on its
 * arguments stay. In a recorded function (`torch.compile`) it is an ordinary call.
 *
 * @param args tensors in lists, plain objects and model outputs are kept for the second call; an inplace change of one in
 * between is an error.
 * @example
 * const h = torch.utils.checkpoint.checkpoint((x) => block.forward(x), [x]);
 */
export function checkpoint<A extends readonly unknown[], R>(
  fn: (...args: A) => R,
  args: A,
  options: CheckpointOptions = {},
): R {
  if (typeof fn !== "function" || !isList(args)) {
    throw new InvalidArgumentError("checkpoint(fn, args, options) takes a function and a list of arguments.");
  }
  const { preserve_rng_state, determinism_check, early_stop } = settings(options);
  if (!is_grad_enabled()) return fn(...args);
  const native = addon();
  const inputs = tensorsIn(args);
  if (inputs.some(({ _handle }) => native.isFake(_handle))) {
    warnOnce("Checkpointing does nothing in a recorded function: a Program keeps all that backward needs.");
    return fn(...args);
  }

  const handles = inputs.map(({ _handle }) => _handle);
  const again = secondRun(fn, mapTensors(args, () => new Tensor()) as A);
  const enter = () =>
    native.openCheckpoint(handles, again, preserve_rng_state, early_stop, determinism_check === "default");
  const leave = () => native.closeCheckpoint();
  return tidy(() => ({ result: scoped("checkpoint", enter, leave, () => fn(...args)), args })).result;
}

/**
 * Calls `fn` on tensors under new handles, in the places of `template`. The graph holds this function, so it must not know
 * the arguments themselves: a tensor of the graph among them would keep the graph alive.
 */
function secondRun<A extends readonly unknown[]>(fn: (...args: A) => unknown, template: A) {
  return (handles: readonly number[]): void => {
    let next = 0;
    const restore = () => intoScope(handles[next++] as number);
    try {
      tidy(() => void fn(...(mapTensors(template, restore) as A)));
    } catch (error) {
      if (!addon().checkpointStopped()) throw error;
    }
  };
}

/** The tensor of a handle without owner, as one that the innermost scope frees. */
function intoScope(handle: number): Tensor {
  const tensor = new Tensor();
  tensor._handle = addon().alias(tensor, handle);
  addon().dispose(handle);
  return tensor;
}

/**
 * Calls functions one after the other, in `segments` groups of which all but the last are checkpointed.
 *
 * @example
 * const y = torch.utils.checkpoint.checkpoint_sequential([...model.children()], 4, x);
 */
export function checkpoint_sequential<T>(
  functions: Iterable<((input: T) => T) | { forward(input: T): T }>,
  segments: number,
  input: T,
  options: CheckpointOptions = {},
): T {
  const calls = [...functions].map((item) =>
    typeof item === "function" ? item : (value: T) => item.forward(value),
  );
  const size = Math.trunc(calls.length / segments);
  if (!Number.isInteger(segments) || segments < 1 || size < 1) {
    throw new InvalidArgumentError(
      `checkpoint_sequential() takes 1 to ${calls.length} segments for ${calls.length} functions, got ${segments}.`,
    );
  }
  const run = (from: number, to: number) => (value: T) =>
    calls.slice(from, to).reduce((current, call) => call(current), value);
  let value = input;
  for (let i = 0; i < segments - 1; i++) {
    value = checkpoint(run(i * size, (i + 1) * size), [value], options);
  }
  return run((segments - 1) * size, calls.length)(value);
}
