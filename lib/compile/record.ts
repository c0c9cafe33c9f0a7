// Recording: runs a function once on fakes, and keeps what it called.
import { addon } from "../addon/loader.ts";
import { TraceError } from "../errors/index.ts";
import { Tensor } from "../torch/index.ts";
import { guardsFor } from "./owners.ts";
import { modelLine, Program } from "./program.ts";
import { Session, Wait, within } from "./session.ts";
import { copyTree, type Flat, mutationsSince, snapshot, Templates } from "./tree.ts";

/** Frames per operator: enough to reach a model's line behind the functions of torch and nn. */
const FRAMES = 12;

export type AnyFunction = (...args: never[]) => unknown;

/**
 * Records `fn` for arguments like these, and has the passes of these names (undefined: all) rewrite what was recorded.
 * Nothing is computed but constants, and neither the arguments nor captured tensors are written.
 *
 * @param padded what stands in the place of arguments' tensors
 * @throws TraceError that names the line, where the function does what cannot be recorded
 */
export function record(
  fn: AnyFunction,
  args: readonly unknown[],
  { tensors, objects, generators }: Flat,
  passes?: readonly string[] | undefined,
  padded: ReadonlyMap<Tensor, Tensor> = new Map(),
): Program {
  const native = addon();
  const session = new Session();
  const lines: Error[] = [];
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = FRAMES;
  native.beginRecording(lines);
  try {
    const copies = new Map<object, object>();
    // In the order of the signature; a tensor that it does not see is a captured one.
    for (const tensor of tensors) copies.set(tensor, fake(padded.get(tensor) ?? tensor));
    for (const { _handle } of generators) native.recordGenerator(_handle);
    const fakes = copyTree(args, (tensor) => tensor, copies) as never[];
    const copied = <T extends object>(originals: readonly T[]) =>
      originals.map((original) => copies.get(original) as T);
    const [inputs, places] = [copied(tensors), copied(objects)];
    const before = snapshot(places);
    const versions = tensors.map((tensor) =>
      padded.has(tensor) ? native.version((copies.get(tensor) as Tensor)._handle) : 0,
    );

    const returned = within(session, () => fn(...fakes));
    if (typeof (returned as { then?: unknown } | null | undefined)?.then === "function")
      throw new TraceError(
        "[compile] the function returned a promise; only synchronous work can be recorded.",
      );

    for (const [i, tensor] of tensors.entries()) {
      if (padded.has(tensor) && native.version((copies.get(tensor) as Tensor)._handle) !== versions[i])
        throw new TraceError("[compile] buckets: the function writes to an argument that is padded.");
    }
    const templates = new Templates(inputs, places, ({ _handle }) => native.isFake(_handle));
    const result = templates.of(returned);
    const mutations = mutationsSince(before, places, templates);
    const assignments = session.assignments.map(({ object, key }) => ({
      object,
      key,
      node: templates.of(object[key]),
    }));
    session.restore();
    const recorded = native.endRecording(
      templates.outputs.map(({ _handle }) => _handle),
      passes,
    );
    const { program, captured, draws } = recorded;
    const guards = [...guardsFor(captured), ...session.guards];
    const { numbers, afterRun, owners } = session;
    const shapes = templates.outputs.map(({ shape }) => [...shape]);
    const kept = recorded.lines.map((line) => lines[line] as Error);
    return new Program(
      program,
      { draws, outputs: templates.outputs.length },
      { guards, result, mutations, lines: kept, numbers, assignments, afterRun, owners, shapes },
    );
  } catch (error) {
    session.restore();
    native.abandonRecording();
    if (error instanceof Wait) throw error;
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
