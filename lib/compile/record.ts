// Recording: runs a function once on fakes, and keeps what it called.
import { addon } from "../addon/loader.ts";
import { TraceError } from "../errors/index.ts";
import { Tensor } from "../torch/index.ts";
import { guardsFor } from "./owners.ts";
import { modelLine, Program } from "./program.ts";
import { copyTree, type Flat, mutationsSince, snapshot, Templates } from "./tree.ts";

/** Frames per operator: enough to reach a model's line behind the functions of torch and nn. */
const FRAMES = 12;

export type AnyFunction = (...args: never[]) => unknown;

/**
 * Records `fn` for arguments like these, and has the passes of these names (undefined: all) rewrite what was recorded.
 * Nothing is computed but constants, and neither the arguments nor captured tensors are written.
 *
 * @throws TraceError that names the line, where the function does what cannot be recorded
 */
export function record(
  fn: AnyFunction,
  args: readonly unknown[],
  { tensors, objects }: Flat,
  passes?: readonly string[] | undefined,
): Program {
  const native = addon();
  const lines: Error[] = [];
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = FRAMES;
  native.beginRecording(lines);
  try {
    const copies = new Map<object, object>();
    // In the order of the signature; a tensor that it does not see is a captured one.
    for (const tensor of tensors) copies.set(tensor, fake(tensor));
    const fakes = copyTree(args, (tensor) => tensor, copies) as never[];
    const copied = <T extends object>(originals: readonly T[]) =>
      originals.map((original) => copies.get(original) as T);
    const [inputs, places] = [copied(tensors), copied(objects)];
    const before = snapshot(places);

    const returned = fn(...fakes);
    if (typeof (returned as { then?: unknown } | null | undefined)?.then === "function")
      throw new TraceError(
        "[compile] the function returned a promise; only synchronous work can be recorded.",
      );

    const templates = new Templates(inputs, places, ({ _handle }) => native.isFake(_handle));
    const result = templates.of(returned);
    const mutations = mutationsSince(before, places, templates);
    const recorded = native.endRecording(
      templates.outputs.map(({ _handle }) => _handle),
      passes,
    );
    const { program, captured, draws } = recorded;
    const guards = guardsFor(captured);
    const kept = recorded.lines.map((line) => lines[line] as Error);
    const facts = { draws, outputs: templates.outputs.length };
    return new Program(program, facts, { guards, result, mutations, lines: kept });
  } catch (error) {
    native.abandonRecording();
    throw withLine(error);
  } finally {
    Error.stackTraceLimit = limit;
  }
}

/** What stands for an argument. */
function fake(tensor: Tensor): Tensor {
  const stand = new Tensor();
  stand._handle = addon().recordInput(stand, tensor._handle);
  return stand;
}

/** A TraceError says where in the model it came from. */
function withLine(error: unknown): unknown {
  if (!(error instanceof TraceError)) return error;
  const line = modelLine(error);
  if (line !== "") error.message += `\n  at ${line}`;
  return error;
}
