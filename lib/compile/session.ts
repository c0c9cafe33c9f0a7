// The recording that is under way, for those whose state lies in plain JavaScript: optimizers above all.
import { TraceError } from "../errors/index.ts";
import type { Tensor } from "../torch/index.ts";
import type { Guard } from "./owners.ts";

/** A number of a recording that is asked for again before each run. */
export class BoundNumber {
  readonly value: number;
  /** Which of the numbers of a call. */
  readonly index: number;

  constructor(value: number, index: number) {
    this.value = value;
    this.index = index;
  }
}

/** A property that a run sets to a tensor it made. */
export interface Assignment {
  readonly object: Record<string, unknown>;
  readonly key: string;
  readonly before: unknown;
}

/** What waits for the run that makes an owner's state. */
const busy = new WeakMap<object, Promise<unknown>>();

/** Thrown through a function that is being recorded: its owner's state is being made by a run, so it is recorded later. */
export class Wait {
  readonly until: Promise<unknown>;

  constructor(until: Promise<unknown>) {
    this.until = until;
  }
}

export class Session {
  readonly guards: Guard[] = [];
  readonly numbers: (() => number)[] = [];
  readonly assignments: Assignment[] = [];
  readonly afterRun: (() => void)[] = [];
  readonly owners = new Set<object>();
  readonly #assigned = new Map<object, Set<string>>();

  /**
   * This recording uses the state of `owner`.
   *
   * While a run is under way that will set it, the recording ends here and is made again afterwards.
   */
  use(owner: object): void {
    const until = busy.get(owner);
    if (until !== undefined) throw new Wait(until);
    this.owners.add(owner);
  }

  /** The recording holds as long as `read()` gives what it gives now. */
  depend<T>(read: () => T): T {
    const value = read();
    const object = {
      get value() {
        return read();
      },
    };
    this.guards.push({ object, key: "value", value });
    return value;
  }

  /** A number that `read` gives anew before each run: no reason to record again. */
  number(read: () => number): BoundNumber {
    this.numbers.push(read);
    return new BoundNumber(read(), this.numbers.length - 1);
  }

  /** `object[key]` becomes this tensor of the recording: now, and for good after each run. */
  assign(object: Record<string, unknown>, key: string, tensor: Tensor): void {
    if (!this.hasAssigned(object, key)) this.assignments.push({ object, key, before: object[key] });
    const keys = this.#assigned.get(object);
    if (keys) keys.add(key);
    else this.#assigned.set(object, new Set([key]));
    object[key] = tensor;
  }

  /** Whether this recording has set the property. */
  hasAssigned(object: Record<string, unknown>, key: string): boolean {
    return this.#assigned.get(object)?.has(key) ?? false;
  }

  /** Puts back what the recording had assigned. */
  restore(): void {
    for (const { object, key, before } of this.assignments) {
      if (before === undefined) delete object[key];
      else object[key] = before;
    }
  }
}

/** The promise that a call has to await before it may use these owners, if any. */
export function pendingState(owners: Iterable<object>): Promise<unknown> | undefined {
  for (const owner of owners) {
    const until = busy.get(owner);
    if (until !== undefined) return until;
  }
  return undefined;
}

/** Until `run` has ended, the owners' state is being made. */
export function holdState(owners: Iterable<object>, run: Promise<unknown>): void {
  const settled = run.then(
    () => {},
    () => {},
  );
  for (const owner of owners) {
    busy.set(owner, settled);
    void settled.then(() => busy.get(owner) === settled && busy.delete(owner));
  }
}

let current: Session | undefined;

/** The recording that is under way on this thread. */
export const recording = (): Session | undefined => current;

/** Runs `body` as the recording's; nested recordings are refused by the addon. */
export function within<T>(session: Session, body: () => T): T {
  const outer = current;
  current = session;
  try {
    return body();
  } finally {
    current = outer;
  }
}

/** For what would happen once, and not in each run. */
export function refuseInRecording(what: string, hint: string): void {
  if (current !== undefined) throw new TraceError(`[${what}] cannot be recorded.`, { hint });
}
