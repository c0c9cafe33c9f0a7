// Schedulers made of schedulers, and the one that looks at a metric.

import { InvalidArgumentError } from "../../errors/index.ts";
import { bind, type Rest } from "../../nn/arguments.ts";
import {
  type AnyOptimizer,
  checkOptimizer,
  type Group,
  type LastEpoch,
  type LRScheduler,
  perGroup,
  type SchedulerState,
} from "./scheduler.ts";

type Steppable = LRScheduler | Composed;

/** What both kinds of composition share; their parts are saved inside their state. */
abstract class Composed {
  declare readonly optimizer: AnyOptimizer;
  declare readonly _schedulers: readonly Steppable[];
  _last_lr: number[] = [];

  constructor(name: string, optimizer: AnyOptimizer, schedulers: readonly Steppable[]) {
    checkOptimizer(optimizer);
    if (schedulers.length === 0) throw new InvalidArgumentError(`${name} needs at least one scheduler.`);
    for (const [i, scheduler] of schedulers.entries()) {
      if ((scheduler as unknown) instanceof ReduceLROnPlateau) {
        throw new InvalidArgumentError(
          `${name}: ReduceLROnPlateau (at ${i}) wants a metric at each step and cannot be part of it.`,
        );
      }
      if (scheduler.optimizer !== optimizer) {
        throw new InvalidArgumentError(`${name}: the scheduler at ${i} belongs to another optimizer.`);
      }
    }
    Object.defineProperty(this, "optimizer", { value: optimizer, enumerable: false });
    Object.defineProperty(this, "_schedulers", { value: [...schedulers], enumerable: false });
  }

  abstract step(): void;
  abstract _initial_step(): void;
  abstract _update_lr(epoch?: number): void;

  get_last_lr(): number[] {
    return this._last_lr;
  }

  state_dict(): SchedulerState {
    const fields: SchedulerState = structuredClone(Object.fromEntries(Object.entries(this)));
    return { ...fields, _schedulers: this._schedulers.map((scheduler) => scheduler.state_dict()) };
  }

  load_state_dict(state: Readonly<SchedulerState>): void {
    const { _schedulers, ...fields } = state;
    Object.assign(this, structuredClone(fields));
    for (const [i, part] of (_schedulers as SchedulerState[]).entries())
      this._schedulers[i]?.load_state_dict(part);
  }
}

/**
 * One scheduler after the other; each `milestone` is the step at which the next takes over.
 *
 * @example new optim.lr_scheduler.SequentialLR(optimizer, [warmup, decay], [100]);
 */
export class SequentialLR extends Composed {
  readonly _milestones: readonly number[];
  last_epoch: number;

  constructor(
    optimizer: AnyOptimizer,
    schedulers: readonly Steppable[],
    milestones: readonly number[],
    ...rest: Rest<[last_epoch: number], LastEpoch>
  ) {
    super("SequentialLR", optimizer, schedulers);
    if (milestones.length !== schedulers.length - 1) {
      throw new InvalidArgumentError(
        `SequentialLR: ${schedulers.length} schedulers need ${schedulers.length - 1} milestones, got ${milestones.length}.`,
      );
    }
    this._milestones = [...milestones];
    this.last_epoch = bind("SequentialLR", rest, { last_epoch: -1 }).last_epoch + 1;
    // All schedulers have done their first step when they were made: undo it, then do that of the first one only.
    for (const group of optimizer.param_groups as unknown as Group[]) group.lr = group.initial_lr as number;
    undo(this);
    this._initial_step();
  }

  _initial_step(): void {
    const first = this._schedulers[0] as Steppable;
    first._initial_step();
    this._last_lr = first.get_last_lr();
  }

  step(): void {
    this.last_epoch++;
    const index = this._milestones.filter((milestone) => milestone <= this.last_epoch).length;
    const scheduler = this._schedulers[index] as Steppable;
    if (index > 0 && this._milestones[index - 1] === this.last_epoch) scheduler._update_lr(0);
    else scheduler.step();
    this._last_lr = scheduler.get_last_lr();
  }

  _update_lr(): void {
    this.step();
  }
}

/** Takes back the count of the first step, through all levels. */
function undo(scheduler: Steppable): void {
  if (scheduler instanceof Composed) for (const part of scheduler._schedulers) undo(part);
  else scheduler.last_epoch--;
}

/** Several schedulers at once: each step is a step of all, on what the one before has set. */
export class ChainedScheduler extends Composed {
  constructor(schedulers: readonly Steppable[], optimizer?: AnyOptimizer) {
    super("ChainedScheduler", optimizer ?? (schedulers[0]?.optimizer as AnyOptimizer), schedulers);
    this.#remember();
  }

  _initial_step(): void {
    for (const scheduler of this._schedulers) scheduler._initial_step();
    this.#remember();
  }

  step(): void {
    for (const scheduler of this._schedulers) scheduler.step();
    this.#remember();
  }

  _update_lr(epoch?: number): void {
    for (const scheduler of this._schedulers) scheduler._update_lr(epoch);
    this.#remember();
  }

  #remember(): void {
    this._last_lr = (this.optimizer.param_groups as unknown as Group[]).map(({ lr }) => lr);
  }
}

export interface PlateauOptions {
  /** Whether the metric should fall or rise. Default: "min". */
  mode?: "min" | "max" | undefined;
  /** Default: 0.1. */
  factor?: number | undefined;
  /** How many steps without progress are borne. Default: 10. */
  patience?: number | undefined;
  /** What counts as progress. Default: 1e-4. */
  threshold?: number | undefined;
  /** Of the best value, or absolute. Default: "rel". */
  threshold_mode?: "rel" | "abs" | undefined;
  /** How many steps to wait after a reduction. Default: 0. */
  cooldown?: number | undefined;
  /** Default: 0. */
  min_lr?: number | readonly number[] | undefined;
  /** Smaller reductions are left out. Default: 1e-8. */
  eps?: number | undefined;
}

const worst = (mode: "min" | "max") => (mode === "min" ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY);

/** Times `factor` when a metric has made no progress for a while. */
export class ReduceLROnPlateau {
  declare readonly optimizer: AnyOptimizer;
  factor: number;
  default_min_lr: number | null;
  min_lrs: number[];
  patience: number;
  cooldown: number;
  eps: number;
  last_epoch = 0;
  _last_lr: number[];
  mode: "min" | "max";
  threshold: number;
  threshold_mode: "rel" | "abs";
  best: number;
  cooldown_counter = 0;
  num_bad_epochs = 0;

  constructor(
    optimizer: AnyOptimizer,
    ...rest: Rest<[mode: "min" | "max", factor: number, patience: number], PlateauOptions>
  ) {
    const o = bind("ReduceLROnPlateau", rest, {
      mode: "min" as "min" | "max",
      factor: 0.1,
      patience: 10,
      threshold: 1e-4,
      threshold_mode: "rel" as "rel" | "abs",
      cooldown: 0,
      min_lr: 0 as number | readonly number[],
      eps: 1e-8,
    });
    checkOptimizer(optimizer);
    if (!(o.factor < 1))
      throw new InvalidArgumentError(`ReduceLROnPlateau: factor must be below 1, got ${o.factor}.`);
    if (o.mode !== "min" && o.mode !== "max")
      throw new InvalidArgumentError(`ReduceLROnPlateau: mode must be "min" or "max", got "${o.mode}".`);
    if (o.threshold_mode !== "rel" && o.threshold_mode !== "abs") {
      throw new InvalidArgumentError(
        `ReduceLROnPlateau: threshold_mode must be "rel" or "abs", got "${o.threshold_mode}".`,
      );
    }
    Object.defineProperty(this, "optimizer", { value: optimizer, enumerable: false });
    this.factor = o.factor;
    this.default_min_lr = typeof o.min_lr === "number" ? o.min_lr : null;
    this.min_lrs = perGroup("min_lr", optimizer, o.min_lr);
    this.patience = o.patience;
    this.cooldown = o.cooldown;
    this.eps = o.eps;
    this.mode = o.mode;
    this.threshold = o.threshold;
    this.threshold_mode = o.threshold_mode;
    this.best = worst(o.mode);
    this._last_lr = this.#groups.map(({ lr }) => lr);
  }

  get #groups(): Group[] {
    return this.optimizer.param_groups as unknown as Group[];
  }

  get in_cooldown(): boolean {
    return this.cooldown_counter > 0;
  }

  get_last_lr(): number[] {
    return this._last_lr;
  }

  /** @param metrics the value to watch: a number, or a tensor that holds one. */
  step(metrics: number | { item(): unknown }): void {
    const current = typeof metrics === "number" ? metrics : Number(metrics.item());
    this.last_epoch++;
    if (this.#isBetter(current)) {
      this.best = current;
      this.num_bad_epochs = 0;
    } else {
      this.num_bad_epochs++;
    }
    if (this.in_cooldown) {
      this.cooldown_counter--;
      this.num_bad_epochs = 0;
    }
    if (this.num_bad_epochs > this.patience) {
      this.#reduce();
      this.cooldown_counter = this.cooldown;
      this.num_bad_epochs = 0;
    }
    this._last_lr = this.#groups.map(({ lr }) => lr);
  }

  #isBetter(current: number): boolean {
    const { best, threshold } = this;
    const sign = this.mode === "min" ? -1 : 1;
    const limit = this.threshold_mode === "rel" ? best * (1 + sign * threshold) : best + sign * threshold;
    return this.mode === "min" ? current < limit : current > limit;
  }

  #reduce(): void {
    const groups = this.#groups;
    if (groups.length !== this.min_lrs.length) {
      if (this.default_min_lr === null) {
        throw new InvalidArgumentError(
          `ReduceLROnPlateau: min_lr has ${this.min_lrs.length} entries for ${groups.length} parameter groups.`,
        );
      }
      this.min_lrs = new Array<number>(groups.length).fill(this.default_min_lr);
    }
    for (const [i, group] of groups.entries()) {
      const rate = Math.max(group.lr * this.factor, this.min_lrs[i] as number);
      if (group.lr - rate > this.eps) group.lr = rate;
    }
  }

  state_dict(): SchedulerState {
    const fields: SchedulerState = structuredClone(Object.fromEntries(Object.entries(this)));
    return { ...fields, mode_worse: worst(this.mode) };
  }

  load_state_dict(state: Readonly<SchedulerState>): void {
    const { mode_worse: _, ...fields } = state;
    Object.assign(this, structuredClone(fields));
    // JSON has no infinity: a state without a first metric comes back with null.
    this.best ??= worst(this.mode);
  }
}
