// LRScheduler: sets the learning rates of an optimizer's groups, once per step.

import { refuseInRecording } from "../../compile/session.ts";
import { InvalidArgumentError } from "../../errors/index.ts";
import { warn } from "../../errors/warnings.ts";
import { Optimizer } from "../optimizer.ts";

/** A parameter group as schedulers see it: a learning rate, and settings that they may read or move. */
export interface Group {
  lr: number;
  initial_lr?: number;
  momentum?: number;
  betas?: readonly number[];
  [setting: string]: unknown;
}

/** A scheduler's own fields by name, without the optimizer and without functions. Plain data, as JSON takes it. */
export type SchedulerState = Record<string, unknown>;

export interface LastEpoch {
  /** The last step that was done, for going on; needs groups with `initial_lr`. Default: -1, none. */
  last_epoch?: number | undefined;
}

// biome-ignore lint/suspicious/noExplicitAny: schedulers read nothing of an optimizer but what all have
export type AnyOptimizer = Optimizer<any>;

/**
 * Base of all schedulers. A subclass gives its settings to `super`, declares them (`declare readonly gamma: number`),
 * and writes `get_lr`: the first learning rates are set while the constructor of this class runs.
 */
export abstract class LRScheduler {
  declare readonly optimizer: AnyOptimizer;
  /** Learning rates that the groups began with. */
  base_lrs: number[] = [];
  /** How many steps were done; what `get_lr` goes by. */
  last_epoch: number;
  _step_count = 0;
  _is_initial = false;
  _last_lr: number[] = [];
  #optimizerStepped = false;

  constructor(optimizer: AnyOptimizer, last_epoch: number, settings: object = {}) {
    checkOptimizer(optimizer);
    Object.defineProperty(this, "optimizer", { value: optimizer, enumerable: false });
    Object.assign(this, settings);
    this.last_epoch = last_epoch;
    for (const [i, group] of this.groups.entries()) {
      if (last_epoch === -1) group.initial_lr ??= group.lr;
      else if (group.initial_lr === undefined) {
        throw new InvalidArgumentError(
          `Group ${i} has no 'initial_lr', which a scheduler with last_epoch ${last_epoch} needs.`,
          {
            hint: "Load the optimizer's state first, or leave last_epoch out.",
          },
        );
      }
    }
    this.base_lrs = this.groups.map(({ initial_lr }) => initial_lr as number);
    optimizer._afterStep(() => {
      this.#optimizerStepped = true;
    });
    this._initial_step();
  }

  protected get groups(): Group[] {
    return this.optimizer.param_groups as unknown as Group[];
  }

  /** The learning rates for `last_epoch`, one per group. */
  abstract get_lr(): number[];

  /** The learning rates for `last_epoch` from the beginning on, where there is a formula; else as {@link get_lr}. */
  protected closedForm(): number[] {
    return this.get_lr();
  }

  /** The learning rates that were set last, one per group. */
  get_last_lr(): number[] {
    return this._last_lr;
  }

  /** Goes one step on and sets the learning rates. Call it after the optimizer's step. */
  step(): void {
    refuseInRecording(
      "lr_scheduler.step",
      "Call it after the compiled function: its runs read the learning rate.",
    );
    if (this._step_count === 1 && !this.#optimizerStepped) {
      warn("lr_scheduler.step() was called before optimizer.step(): the first learning rate is skipped.");
    }
    this._step_count++;
    this._update_lr();
  }

  _initial_step(): void {
    this._step_count = 0;
    this._is_initial = true;
    this.step();
    this._is_initial = false;
  }

  /** Sets the learning rates of the next step, or of step `epoch`. */
  _update_lr(epoch?: number): void {
    this.last_epoch = epoch ?? this.last_epoch + 1;
    this.setRates(epoch === undefined ? this.get_lr() : this.closedForm());
  }

  protected setRates(rates: readonly number[]): void {
    for (const [i, group] of this.groups.entries()) group.lr = rates[i] as number;
    this._last_lr = this.currentRates();
  }

  protected currentRates(): number[] {
    return this.groups.map(({ lr }) => lr);
  }

  /** Everything but the optimizer and functions, as plain data. */
  state_dict(): SchedulerState {
    const data = Object.entries(this).filter(([, value]) => typeof value !== "function");
    return structuredClone({ ...Object.fromEntries(data), _get_lr_called_within_step: false });
  }

  load_state_dict(state: Readonly<SchedulerState>): void {
    const { _get_lr_called_within_step: _, ...fields } = state;
    Object.assign(this, structuredClone(fields));
  }
}

export function checkOptimizer(optimizer: unknown): asserts optimizer is AnyOptimizer {
  if (!(optimizer instanceof Optimizer))
    throw new InvalidArgumentError("A scheduler takes an Optimizer as its first argument.");
}

/** One value for all groups, or one each. */
export function perGroup<T>(name: string, optimizer: AnyOptimizer, value: T | readonly T[]): T[] {
  const count = optimizer.param_groups.length;
  if (!Array.isArray(value)) return new Array<T>(count).fill(value as T);
  if (value.length !== count)
    throw new InvalidArgumentError(`${name} has ${value.length} entries for ${count} parameter groups.`);
  return [...value];
}
