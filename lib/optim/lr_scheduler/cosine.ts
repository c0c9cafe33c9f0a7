// Schedulers along a cosine.

import { InvalidArgumentError } from "../../errors/index.ts";
import { type Arguments, bind, REQUIRED } from "../../nn/arguments.ts";
import { type AnyOptimizer, type LastEpoch, LRScheduler } from "./scheduler.ts";

interface CosineOptions extends LastEpoch {
  eta_min?: number | undefined;
}

/** Along a cosine down to `eta_min` (default 0) in `T_max` steps, then up again. */
export class CosineAnnealingLR extends LRScheduler {
  declare T_max: number;
  declare eta_min: number;

  constructor(
    optimizer: AnyOptimizer,
    ...args: Arguments<[T_max: number], ["T_max"], [eta_min: number, last_epoch: number], CosineOptions>
  ) {
    const defaults = { T_max: REQUIRED as number, eta_min: 0, last_epoch: -1 };
    const { T_max, eta_min, last_epoch } = bind("CosineAnnealingLR", args, defaults);
    super(optimizer, last_epoch, { T_max, eta_min });
  }

  /** From the learning rate before, as torch does, so that changes by others are kept. */
  override get_lr(): number[] {
    const rates = this.currentRates();
    const { last_epoch, T_max, eta_min } = this;
    if (this._is_initial) return rates;
    if (this._step_count === 1 && last_epoch > 0) return this.closedForm();
    if ((last_epoch - 1 - T_max) % (2 * T_max) === 0) {
      const rise = (1 - Math.cos(Math.PI / T_max)) / 2;
      return rates.map((lr, i) => lr + ((this.base_lrs[i] as number) - eta_min) * rise);
    }
    const now = 1 + Math.cos((Math.PI * last_epoch) / T_max);
    const before = 1 + Math.cos((Math.PI * (last_epoch - 1)) / T_max);
    return rates.map((lr) => (now / before) * (lr - eta_min) + eta_min);
  }

  protected override closedForm(): number[] {
    const { last_epoch, T_max, eta_min } = this;
    return this.base_lrs.map(
      (lr) => eta_min + ((lr - eta_min) * (1 + Math.cos((Math.PI * last_epoch) / T_max))) / 2,
    );
  }
}

interface WarmRestarts extends CosineOptions {
  T_mult?: number | undefined;
}

/** Along a cosine down to `eta_min` (default 0) in `T_0` steps, again and again, each time `T_mult` (default 1) times as long. */
export class CosineAnnealingWarmRestarts extends LRScheduler {
  declare T_0: number;
  declare T_i: number;
  declare T_mult: number;
  declare eta_min: number;
  declare T_cur: number;

  constructor(
    optimizer: AnyOptimizer,
    ...args: Arguments<
      [T_0: number],
      ["T_0"],
      [T_mult: number, eta_min: number, last_epoch: number],
      WarmRestarts
    >
  ) {
    const { T_0, T_mult, eta_min, last_epoch } = bind("CosineAnnealingWarmRestarts", args, {
      T_0: REQUIRED as number,
      T_mult: 1,
      eta_min: 0,
      last_epoch: -1,
    });
    if (!Number.isInteger(T_0) || T_0 <= 0)
      throw new InvalidArgumentError(`T_0 must be a positive integer, got ${T_0}.`);
    if (!Number.isInteger(T_mult) || T_mult < 1)
      throw new InvalidArgumentError(`T_mult must be an integer of at least 1, got ${T_mult}.`);
    super(optimizer, last_epoch, { T_0, T_i: T_0, T_mult, eta_min, T_cur: last_epoch });
  }

  override get_lr(): number[] {
    const { eta_min, T_cur, T_i } = this;
    return this.base_lrs.map(
      (lr) => eta_min + ((lr - eta_min) * (1 + Math.cos((Math.PI * T_cur) / T_i))) / 2,
    );
  }

  /** @param epoch where to go, may be a fraction; default the next step. */
  override step(epoch?: number): void {
    this._step_count++;
    this._update_lr(epoch);
  }

  override _update_lr(epoch?: number): void {
    const target = epoch ?? (this.last_epoch < 0 ? 0 : undefined);
    if (target === undefined) this.advance();
    else this.goTo(target);
    this.last_epoch = target === undefined ? this.last_epoch + 1 : Math.floor(target);
    this.setRates(this.get_lr());
  }

  // Not #private: the base constructor calls them before a subclass has its private methods.
  private advance(): void {
    this.T_cur++;
    if (this.T_cur < this.T_i) return;
    this.T_cur %= this.T_i;
    this.T_i *= this.T_mult;
  }

  private goTo(epoch: number): void {
    const { T_0, T_mult } = this;
    if (epoch < 0) throw new InvalidArgumentError(`A scheduler cannot go to epoch ${epoch}.`);
    if (epoch < T_0) {
      this.T_i = T_0;
      this.T_cur = epoch;
    } else if (T_mult === 1) {
      this.T_cur = epoch % T_0;
    } else {
      const rounds = Math.trunc(Math.log((epoch / T_0) * (T_mult - 1) + 1) / Math.log(T_mult));
      this.T_cur = epoch - (T_0 * (T_mult ** rounds - 1)) / (T_mult - 1);
      this.T_i = T_0 * T_mult ** rounds;
    }
  }
}
