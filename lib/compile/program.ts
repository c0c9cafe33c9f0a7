// A recorded function: what it computes, in order, and how to run it.
import type { ProgramHandle } from "../addon/addon.ts";
import { addon } from "../addon/loader.ts";
import type { Guard } from "./owners.ts";
import type { Mutation, Node } from "./tree.ts";

/** A property outside of the arguments that each run sets. */
export interface Assigned {
  readonly object: Record<string, unknown>;
  readonly key: string;
  readonly node: Node;
}

/** How long one operator took in a run. */
export interface ProfileEntry {
  /** As `toString` shows it. */
  readonly text: string;
  /** The operator's name. */
  readonly op: string;
  /** The line of the model that recorded it. */
  readonly line: string;
  /** Milliseconds since the run began. */
  readonly begin: number;
  readonly milliseconds: number;
}

/**
 * One recording of a function for one signature of its arguments: operators, constants and what each works on.
 *
 * @example
 * const [program] = compiled.programs();
 * console.log(String(program)); // one line per operator, with shapes, dtypes and the model's line
 */
export class Program {
  readonly _native: ProgramHandle;
  readonly _guards: readonly Guard[];
  readonly _result: Node;
  readonly _mutations: readonly Mutation[];
  /** Numbers to ask for before each run. */
  readonly _numbers: readonly (() => number)[];
  readonly _assignments: readonly Assigned[];
  readonly _afterRun: readonly (() => void)[];
  /** The shapes of its outputs. */
  readonly _shapes: readonly (readonly number[])[];
  /** Whose state it uses. */
  readonly _owners: ReadonlySet<object>;
  /** The number of operators. */
  readonly length: number;
  /** The number of tensors that a run makes for its result. */
  readonly outputs: number;
  /** Whether it draws random numbers. */
  readonly draws: boolean;
  readonly #lines: readonly Error[];

  constructor(
    native: ProgramHandle,
    facts: { draws: boolean; outputs: number },
    parts: {
      guards: readonly Guard[];
      result: Node;
      mutations: readonly Mutation[];
      lines: readonly Error[];
      numbers: readonly (() => number)[];
      assignments: readonly Assigned[];
      afterRun: readonly (() => void)[];
      owners: ReadonlySet<object>;
      shapes: readonly (readonly number[])[];
    },
  ) {
    this._native = native;
    this._guards = parts.guards;
    this._result = parts.result;
    this._mutations = parts.mutations;
    this._numbers = parts.numbers;
    this._assignments = parts.assignments;
    this._afterRun = parts.afterRun;
    this._owners = parts.owners;
    this._shapes = parts.shapes;
    this.length = parts.lines.length;
    this.draws = facts.draws;
    this.outputs = facts.outputs;
    this.#lines = parts.lines;
    letGo(parts.lines);
  }

  /** The line of the model that recorded an operator: "forward (…/modeling_llama.js:101:17)". */
  line(index: number): string {
    const error = this.#lines[index];
    return error === undefined ? "" : modelLine(error);
  }

  /** One line per operator: results with dtype and shape, the operator, its arguments, the model's line. */
  toString(): string {
    return addon()
      .programText(this._native)
      .map((text, i) => `${text}  // ${this.line(i)}`)
      .join("\n");
  }

  /** What `spans` (begin and end of each operator, in nanoseconds) mean. */
  _profile(spans: readonly number[]): ProfileEntry[] {
    return addon()
      .programText(this._native)
      .map((text, i) => {
        const [begin, end] = [spans[2 * i] as number, spans[2 * i + 1] as number];
        const op = /([\w:.]+)\(/.exec(text.slice(text.lastIndexOf(" = ") + 1))?.[1] ?? "";
        return { text, op, line: this.line(i), begin: begin / 1e6, milliseconds: (end - begin) / 1e6 };
      });
  }
}

/** Stacks formatted in one turn of the event loop. */
const STACKS = 32;

/**
 * Until its stack is formatted, an Error keeps alive whatever its frames worked on: the arguments of the recording, the
 * buffers of a request. It takes too long to be done at once, and is done a few at a time.
 */
function letGo(lines: readonly Error[], from = 0): void {
  if (from >= lines.length) return;
  setImmediate(() => {
    for (const { stack } of lines.slice(from, from + STACKS)) void stack;
    letGo(lines, from + STACKS);
  });
}

/** Where the rooms that only pass calls on lie. */
const PASSING = /[/\\](?:dist|lib)[/\\](?:addon|torch|compile)[/\\]|^node:|\bnode:internal/;
const LAYERS = /[/\\](?:dist|lib)[/\\]nn[/\\]/;

/** The frame of a stack that belongs to the model. Formatting a stack takes long, so it is done when somebody asks. */
export function modelLine(error: Error): string {
  const frames = (error.stack ?? "")
    .split("\n")
    .filter((line) => line.trimStart().startsWith("at "))
    .map((line) => line.trim().slice(3))
    .filter((line) => !PASSING.test(line));
  return frames.find((line) => !LAYERS.test(line)) ?? frames[0] ?? "";
}

/** A profile in the format of Chrome's trace viewer (chrome://tracing, Perfetto). */
export function chromeTrace(entries: readonly ProfileEntry[]): string {
  const traceEvents = entries.map(({ op, text, line, begin, milliseconds }) => ({
    name: op,
    ph: "X",
    pid: 1,
    tid: 1,
    ts: begin * 1e3,
    dur: milliseconds * 1e3,
    args: { text, line },
  }));
  return JSON.stringify({ traceEvents });
}
