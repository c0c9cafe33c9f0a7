// Schedulers with one rule: by a function, by steps, or along a simple curve.

import { InvalidArgumentError } from "../../errors/index.ts";
import { type Arguments, bind, REQUIRED, type Rest } from "../../nn/arguments.ts";
import {
  type AnyOptimizer,
  checkOptimizer,
  type LastEpoch,
  LRScheduler,
  perGroup,
  type SchedulerState,
} from "./scheduler.ts";

const LAST_EPOCH = { last_epoch: -1 };

/** A factor for the number of a step. */
export type Factor = (epoch: number) => number;

type ByFunctionArguments = Arguments<
  [lr_lambda: Factor | readonly Factor[]],
  ["lr_lambda"],
  [last_epoch: number],
  LastEpoch
>;

/** Schedulers by functions: one for all groups, or one each. Functions are no part of the state. */
abstract class ByFunction extends LRScheduler {
  declare lr_lambdas: Factor[];

  constructor(name: string, optimizer: AnyOptimizer, args: ByFunctionArguments) {
    checkOptimizer(optimizer);
    const { lr_lambda, last_epoch } = bind(name, args, {
      lr_lambda: REQUIRED as Factor | readonly Factor[],
      ...LAST_EPOCH,
    });
    const lr_lambdas = perGroup("lr_lambda", optimizer, lr_lambda);
    super(optimizer, last_epoch, { lr_lambdas });
  }

  override state_dict(): SchedulerState {
    const functions = this.lr_lambdas;
    this.lr_lambdas = [];
    try {
      return { ...super.state_dict(), lr_lambdas: functions.map(() => null) };
    } finally {
      this.lr_lambdas = functions;
    }
  }

  override load_state_dict(state: Readonly<SchedulerState>): void {
    const { lr_lambdas: _, ...fields } = state;
    super.load_state_dict(fields);
  }
}

/**
 * The first learning rate, times a factor for the number of the step.
 *
 * @example new optim.lr_scheduler.LambdaLR(optimizer, (step) => Math.min(1, step / 100));
 */
export class LambdaLR extends ByFunction {
  constructor(optimizer: AnyOptimizer, ...args: ByFunctionArguments) {
    super("LambdaLR", optimizer, args);
  }

  override get_lr(): number[] {
    return this.base_lrs.map((lr, i) => lr * (this.lr_lambdas[i] as Factor)(this.last_epoch));
  }
}

/** The learning rate before, times a factor for the number of the step. */
export class MultiplicativeLR extends ByFunction {
  constructor(optimizer: AnyOptimizer, ...args: ByFunctionArguments) {
    super("MultiplicativeLR", optimizer, args);
  }

  override get_lr(): number[] {
    const rates = this.currentRates();
    return this._is_initial
      ? rates
      : rates.map((lr, i) => lr * (this.lr_lambdas[i] as Factor)(this.last_epoch));
  }
}

interface GammaOptions extends LastEpoch {
  gamma?: number | undefined;
}
type Gamma = [gamma: number, last_epoch: number];

/** Times `gamma` (default 0.1) every `step_size` steps. */
export class StepLR extends LRScheduler {
  declare step_size: number;
  declare gamma: number;

  constructor(
    optimizer: AnyOptimizer,
    ...args: Arguments<[step_size: number], ["step_size"], Gamma, GammaOptions>
  ) {
    const defaults = { step_size: REQUIRED as number, gamma: 0.1, ...LAST_EPOCH };
    const { step_size, gamma, last_epoch } = bind("StepLR", args, defaults);
    super(optimizer, last_epoch, { step_size, gamma });
  }

  override get_lr(): number[] {
    const rates = this.currentRates();
    if (this.last_epoch === 0 || this.last_epoch % this.step_size !== 0) return rates;
    return rates.map((lr) => lr * this.gamma);
  }

  protected override closedForm(): number[] {
    return this.base_lrs.map((lr) => lr * this.gamma ** Math.floor(this.last_epoch / this.step_size));
  }
}

/** Times `gamma` (default 0.1) at each of the `milestones`. */
export class MultiStepLR extends LRScheduler {
  /** How often each milestone was named. */
  declare milestones: Record<number, number>;
  declare gamma: number;

  constructor(
    optimizer: AnyOptimizer,
    ...args: Arguments<[milestones: Iterable<number>], ["milestones"], Gamma, GammaOptions>
  ) {
    const defaults = { milestones: REQUIRED as Iterable<number>, gamma: 0.1, ...LAST_EPOCH };
    const { milestones, gamma, last_epoch } = bind("MultiStepLR", args, defaults);
    const counts: Record<number, number> = {};
    for (const milestone of milestones) counts[milestone] = (counts[milestone] ?? 0) + 1;
    super(optimizer, last_epoch, { milestones: counts, gamma });
  }

  override get_lr(): number[] {
    const times = this.milestones[this.last_epoch] ?? 0;
    return this.currentRates().map((lr) => (times === 0 ? lr : lr * this.gamma ** times));
  }

  protected override closedForm(): number[] {
    const passed = Object.entries(this.milestones).filter(
      ([milestone]) => Number(milestone) <= this.last_epoch,
    );
    const times = passed.reduce((sum, [, count]) => sum + count, 0);
    return this.base_lrs.map((lr) => lr * this.gamma ** times);
  }
}

/** Times `factor` (default 1/3) for the first `total_iters` (default 5) steps. */
export class ConstantLR extends LRScheduler {
  declare factor: number;
  declare total_iters: number;

  constructor(
    optimizer: AnyOptimizer,
    ...rest: Rest<
      [factor: number, total_iters: number, last_epoch: number],
      LastEpoch & { factor?: number | undefined; total_iters?: number | undefined }
    >
  ) {
    const { last_epoch, ...settings } = bind("ConstantLR", rest, {
      factor: 1 / 3,
      total_iters: 5,
      ...LAST_EPOCH,
    });
    if (!(settings.factor >= 0 && settings.factor <= 1)) {
      throw new InvalidArgumentError(`ConstantLR: factor must be between 0 and 1, got ${settings.factor}.`);
    }
    super(optimizer, last_epoch, settings);
  }

  override get_lr(): number[] {
    const rates = this.currentRates();
    if (this.last_epoch === 0) return rates.map((lr) => lr * this.factor);
    return this.last_epoch === this.total_iters ? rates.map((lr) => lr * (1 / this.factor)) : rates;
  }

  protected override closedForm(): number[] {
    const factor = this.factor + (this.last_epoch >= this.total_iters ? 1 : 0) * (1 - this.factor);
    return this.base_lrs.map((lr) => lr * factor);
  }
}

/** From `start_factor` (default 1/3) to `end_factor` (default 1) in `total_iters` (default 5) steps. */
export class LinearLR extends LRScheduler {
  declare start_factor: number;
  declare end_factor: number;
  declare total_iters: number;

  constructor(
    optimizer: AnyOptimizer,
    ...rest: Rest<
      [start_factor: number, end_factor: number, total_iters: number, last_epoch: number],
      LastEpoch & {
        start_factor?: number | undefined;
        end_factor?: number | undefined;
        total_iters?: number | undefined;
      }
    >
  ) {
    const defaults = { start_factor: 1 / 3, end_factor: 1, total_iters: 5, ...LAST_EPOCH };
    const { last_epoch, ...settings } = bind("LinearLR", rest, defaults);
    const { start_factor, end_factor } = settings;
    if (!(start_factor > 0 && start_factor <= 1)) {
      throw new InvalidArgumentError(
        `LinearLR: start_factor must be above 0 and at most 1, got ${start_factor}.`,
      );
    }
    if (!(end_factor >= 0 && end_factor <= 1)) {
      throw new InvalidArgumentError(`LinearLR: end_factor must be between 0 and 1, got ${end_factor}.`);
    }
    super(optimizer, last_epoch, settings);
  }

  override get_lr(): number[] {
    const rates = this.currentRates();
    const { last_epoch, start_factor, end_factor, total_iters } = this;
    if (last_epoch === 0) return rates.map((lr) => lr * start_factor);
    if (this._is_initial || last_epoch > total_iters) return rates;
    const slope = end_factor - start_factor;
    return rates.map((lr) => lr * (1 + slope / (total_iters * start_factor + (last_epoch - 1) * slope)));
  }

  protected override closedForm(): number[] {
    const { last_epoch, start_factor, end_factor, total_iters } = this;
    const factor =
      start_factor + ((end_factor - start_factor) * Math.min(total_iters, last_epoch)) / total_iters;
    return this.base_lrs.map((lr) => lr * factor);
  }
}

/** Times `gamma` at each step. */
export class ExponentialLR extends LRScheduler {
  declare gamma: number;

  constructor(
    optimizer: AnyOptimizer,
    ...args: Arguments<[gamma: number], ["gamma"], [last_epoch: number], LastEpoch>
  ) {
    const defaults = { gamma: REQUIRED as number, ...LAST_EPOCH };
    const { gamma, last_epoch } = bind("ExponentialLR", args, defaults);
    super(optimizer, last_epoch, { gamma });
  }

  override get_lr(): number[] {
    const rates = this.currentRates();
    return this._is_initial ? rates : rates.map((lr) => lr * this.gamma);
  }

  protected override closedForm(): number[] {
    return this.base_lrs.map((lr) => lr * this.gamma ** this.last_epoch);
  }
}

/** Down to 0 in `total_iters` (default 5) steps along a polynomial of the degree `power` (default 1). */
export class PolynomialLR extends LRScheduler {
  declare total_iters: number;
  declare power: number;

  constructor(
    optimizer: AnyOptimizer,
    ...rest: Rest<
      [total_iters: number, power: number, last_epoch: number],
      LastEpoch & { total_iters?: number | undefined; power?: number | undefined }
    >
  ) {
    const { last_epoch, ...settings } = bind("PolynomialLR", rest, {
      total_iters: 5,
      power: 1,
      ...LAST_EPOCH,
    });
    super(optimizer, last_epoch, settings);
  }

  override get_lr(): number[] {
    const rates = this.currentRates();
    const { last_epoch, total_iters, power } = this;
    if (this._is_initial || last_epoch > total_iters) return rates;
    const decay = ((1 - last_epoch / total_iters) / (1 - (last_epoch - 1) / total_iters)) ** power;
    return rates.map((lr) => lr * decay);
  }

  protected override closedForm(): number[] {
    const { last_epoch, total_iters, power } = this;
    const left = (1 - Math.min(total_iters, last_epoch) / total_iters) ** power;
    return this.base_lrs.map((lr) => lr * left);
  }
}
