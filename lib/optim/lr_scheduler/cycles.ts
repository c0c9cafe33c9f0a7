// Schedulers that go up and down, and move the momentum the other way.

import { InvalidArgumentError } from "../../errors/index.ts";
import { type Arguments, bind, REQUIRED } from "../../nn/arguments.ts";
import {
  type AnyOptimizer,
  checkOptimizer,
  type Group,
  type LastEpoch,
  LRScheduler,
  perGroup,
  type SchedulerState,
} from "./scheduler.ts";

type PerGroup = number | readonly number[];
const groupsOf = (optimizer: AnyOptimizer) => optimizer.param_groups as unknown as Group[];

/** Whether the momentum of this optimizer is called beta1; throws when it has none. */
function usesBeta1({ defaults }: AnyOptimizer): boolean {
  if (!("momentum" in defaults) && !("betas" in defaults)) {
    throw new InvalidArgumentError("cycle_momentum needs an optimizer with momentum or betas.");
  }
  return "betas" in defaults;
}

function setMomentum(group: Group, momentum: number, beta1: boolean): void {
  if (beta1) group.betas = [momentum, ...(group.betas as readonly number[]).slice(1)];
  else group.momentum = momentum;
}

/** Lets the momentum of all groups begin at its highest. */
function beginMomentum(
  optimizer: AnyOptimizer,
  highest: readonly number[],
  lowest: readonly number[],
  beta1: boolean,
): void {
  for (const [i, group] of groupsOf(optimizer).entries()) {
    setMomentum(group, highest[i] as number, beta1);
    group.max_momentum = highest[i];
    group.base_momentum = lowest[i];
  }
}

export interface CyclicOptions extends LastEpoch {
  /** Steps on the way up. Default: 2000. */
  step_size_up?: number | undefined;
  /** Steps on the way down. Default: as many. */
  step_size_down?: number | null | undefined;
  /** Default: "triangular". */
  mode?: "triangular" | "triangular2" | "exp_range" | undefined;
  /** For "exp_range". Default: 1. */
  gamma?: number | undefined;
  /** A factor on the height of a cycle, in the place of `mode`. */
  scale_fn?: ((x: number) => number) | null | undefined;
  /** What scale_fn gets: the number of the cycle, or of the step. Default: "cycle". */
  scale_mode?: "cycle" | "iterations" | undefined;
  /** Default: true. */
  cycle_momentum?: boolean | undefined;
  /** Default: 0.8. */
  base_momentum?: PerGroup | undefined;
  /** Default: 0.9. */
  max_momentum?: PerGroup | undefined;
}

/** Smith (2017): up from `base_lr` to `max_lr` and down again, over and over. */
export class CyclicLR extends LRScheduler {
  declare max_lrs: number[];
  declare total_size: number;
  declare step_ratio: number;
  declare mode: "triangular" | "triangular2" | "exp_range";
  declare gamma: number;
  declare scale_mode: "cycle" | "iterations";
  declare cycle_momentum: boolean;
  declare use_beta1: boolean;
  declare base_momentums: number[];
  declare max_momentums: number[];
  declare _scale_fn_custom: ((x: number) => number) | null;

  constructor(
    optimizer: AnyOptimizer,
    ...args: Arguments<
      [base_lr: PerGroup, max_lr: PerGroup],
      ["base_lr", "max_lr"],
      [step_size_up: number, step_size_down: number | null],
      CyclicOptions
    >
  ) {
    const o = bind("CyclicLR", args, {
      base_lr: REQUIRED as PerGroup,
      max_lr: REQUIRED as PerGroup,
      step_size_up: 2000,
      step_size_down: null as number | null,
      mode: "triangular" as "triangular" | "triangular2" | "exp_range",
      gamma: 1,
      scale_fn: null as ((x: number) => number) | null,
      scale_mode: "cycle" as "cycle" | "iterations",
      cycle_momentum: true,
      base_momentum: 0.8 as PerGroup,
      max_momentum: 0.9 as PerGroup,
      last_epoch: -1,
    });
    checkOptimizer(optimizer);
    const modes = ["triangular", "triangular2", "exp_range"];
    if (!o.scale_fn && !modes.includes(o.mode)) {
      throw new InvalidArgumentError(`CyclicLR: mode must be one of ${modes.join(", ")}, got '${o.mode}'.`);
    }
    const base_lrs = perGroup("base_lr", optimizer, o.base_lr);
    const total_size = o.step_size_up + (o.step_size_down ?? o.step_size_up);
    const beta1 = o.cycle_momentum && usesBeta1(optimizer);
    const base_momentums = perGroup("base_momentum", optimizer, o.base_momentum);
    const max_momentums = perGroup("max_momentum", optimizer, o.max_momentum);
    if (o.last_epoch === -1) {
      for (const [i, group] of groupsOf(optimizer).entries()) group.lr = base_lrs[i] as number;
      if (o.cycle_momentum) beginMomentum(optimizer, max_momentums, base_momentums, beta1);
    }
    super(optimizer, o.last_epoch, {
      max_lrs: perGroup("max_lr", optimizer, o.max_lr),
      total_size,
      step_ratio: o.step_size_up / total_size,
      mode: o.mode,
      gamma: o.gamma,
      scale_mode: o.scale_fn ? o.scale_mode : o.mode === "exp_range" ? "iterations" : "cycle",
      cycle_momentum: o.cycle_momentum,
      ...(o.cycle_momentum ? { use_beta1: beta1, base_momentums, max_momentums } : {}),
      _scale_fn_custom: o.scale_fn,
    });
    this.base_lrs = base_lrs;
  }

  /** The factor on the height of a cycle. */
  scale_fn(x: number): number {
    if (this._scale_fn_custom) return this._scale_fn_custom(x);
    if (this.mode === "triangular2") return 1 / 2 ** (x - 1);
    return this.mode === "exp_range" ? this.gamma ** x : 1;
  }

  override get_lr(): number[] {
    const { last_epoch, total_size, step_ratio } = this;
    const cycle = Math.floor(1 + last_epoch / total_size);
    const x = 1 + last_epoch / total_size - cycle;
    const height = x <= step_ratio ? x / step_ratio : (x - 1) / (step_ratio - 1);
    const scale = () => this.scale_fn(this.scale_mode === "cycle" ? cycle : last_epoch);
    if (this.cycle_momentum) {
      for (const [i, group] of this.groups.entries()) {
        const [low, high] = [this.base_momentums[i] as number, this.max_momentums[i] as number];
        setMomentum(group, high - (high - low) * height * scale(), this.use_beta1);
      }
    }
    return this.base_lrs.map((low, i) => low + ((this.max_lrs[i] as number) - low) * height * scale());
  }

  override state_dict(): SchedulerState {
    return { ...super.state_dict(), _scale_fn_custom: null };
  }

  override load_state_dict(state: Readonly<SchedulerState>): void {
    const { _scale_fn_custom: _, ...fields } = state;
    super.load_state_dict(fields);
  }
}

/** A part of a cycle: between which settings of a group the values move, and where it ends. */
interface Phase {
  readonly end_step: number;
  readonly start_lr: string;
  readonly end_lr: string;
  readonly start_momentum: string;
  readonly end_momentum: string;
}

export interface OneCycleOptions extends LastEpoch {
  /** How many steps there will be; or epochs and steps_per_epoch. */
  total_steps?: number | null | undefined;
  epochs?: number | null | undefined;
  steps_per_epoch?: number | null | undefined;
  /** The share of steps on the way up. Default: 0.3. */
  pct_start?: number | undefined;
  /** Default: "cos". */
  anneal_strategy?: "cos" | "linear" | undefined;
  /** Default: true. */
  cycle_momentum?: boolean | undefined;
  /** Default: 0.85. */
  base_momentum?: PerGroup | undefined;
  /** Default: 0.95. */
  max_momentum?: PerGroup | undefined;
  /** The first learning rate is max_lr divided by it. Default: 25. */
  div_factor?: number | undefined;
  /** The last learning rate is the first divided by it. Default: 1e4. */
  final_div_factor?: number | undefined;
  /** Come back to the first learning rate before the last phase. Default: false. */
  three_phase?: boolean | undefined;
}

/** Smith and Topin (2018): once up to `max_lr` and down to almost nothing. Step it after each batch. */
export class OneCycleLR extends LRScheduler {
  declare total_steps: number;
  declare _schedule_phases: Phase[];
  declare _anneal_func_type: "cos" | "linear";
  declare cycle_momentum: boolean;
  declare use_beta1: boolean;

  constructor(
    optimizer: AnyOptimizer,
    ...args: Arguments<[max_lr: PerGroup], ["max_lr"], [total_steps: number | null], OneCycleOptions>
  ) {
    const o = bind("OneCycleLR", args, {
      max_lr: REQUIRED as PerGroup,
      total_steps: null as number | null,
      epochs: null as number | null,
      steps_per_epoch: null as number | null,
      pct_start: 0.3,
      anneal_strategy: "cos" as "cos" | "linear",
      cycle_momentum: true,
      base_momentum: 0.85 as PerGroup,
      max_momentum: 0.95 as PerGroup,
      div_factor: 25,
      final_div_factor: 1e4,
      three_phase: false,
      last_epoch: -1,
    });
    checkOptimizer(optimizer);
    const total_steps = stepCount(o);
    if (!(o.pct_start >= 0 && o.pct_start <= 1)) {
      throw new InvalidArgumentError(`OneCycleLR: pct_start must be between 0 and 1, got ${o.pct_start}.`);
    }
    if (o.anneal_strategy !== "cos" && o.anneal_strategy !== "linear") {
      throw new InvalidArgumentError(
        `OneCycleLR: anneal_strategy must be "cos" or "linear", got "${o.anneal_strategy}".`,
      );
    }
    const max_lrs = perGroup("max_lr", optimizer, o.max_lr);
    const beta1 = o.cycle_momentum && usesBeta1(optimizer);
    if (o.last_epoch === -1) {
      for (const [i, group] of groupsOf(optimizer).entries()) {
        group.initial_lr = (max_lrs[i] as number) / o.div_factor;
        group.max_lr = max_lrs[i];
        group.min_lr = group.initial_lr / o.final_div_factor;
      }
      if (o.cycle_momentum) {
        const highest = perGroup("max_momentum", optimizer, o.max_momentum);
        beginMomentum(optimizer, highest, perGroup("base_momentum", optimizer, o.base_momentum), beta1);
      }
    }
    super(optimizer, o.last_epoch, {
      total_steps,
      _schedule_phases: phases(total_steps, o.pct_start, o.three_phase),
      _anneal_func_type: o.anneal_strategy,
      cycle_momentum: o.cycle_momentum,
      ...(o.cycle_momentum ? { use_beta1: beta1 } : {}),
    });
  }

  override get_lr(): number[] {
    const { last_epoch, total_steps, _schedule_phases: phases } = this;
    if (last_epoch > total_steps) {
      throw new InvalidArgumentError(
        `OneCycleLR was made for ${total_steps} steps, this is step ${last_epoch}.`,
      );
    }
    const index = phases.findIndex(({ end_step }, i) => last_epoch <= end_step || i === phases.length - 1);
    const phase = phases[index] as Phase;
    const begin = phases[index - 1]?.end_step ?? 0;
    const share = (last_epoch - begin) / (phase.end_step - begin);
    return this.groups.map((group) => {
      const between = (start: string, end: string) =>
        anneal(this._anneal_func_type, group[start] as number, group[end] as number, share);
      if (this.cycle_momentum)
        setMomentum(group, between(phase.start_momentum, phase.end_momentum), this.use_beta1);
      return between(phase.start_lr, phase.end_lr);
    });
  }
}

/** The value at a share of the way, straight or along a cosine. */
function anneal(strategy: "cos" | "linear", start: number, end: number, share: number): number {
  if (strategy === "linear") return (end - start) * share + start;
  return end + ((start - end) / 2) * (Math.cos(Math.PI * share) + 1);
}

function stepCount({ total_steps, epochs, steps_per_epoch }: OneCycleOptions): number {
  const count = total_steps ?? (epochs && steps_per_epoch ? epochs * steps_per_epoch : null);
  if (count === null)
    throw new InvalidArgumentError("OneCycleLR needs total_steps, or epochs and steps_per_epoch.");
  if (!Number.isInteger(count) || count <= 0) {
    throw new InvalidArgumentError(
      `OneCycleLR: the number of steps must be a positive integer, got ${count}.`,
    );
  }
  return count;
}

function phases(total: number, share: number, three: boolean): Phase[] {
  const up: Phase = {
    end_step: share * total - 1,
    start_lr: "initial_lr",
    end_lr: "max_lr",
    start_momentum: "max_momentum",
    end_momentum: "base_momentum",
  };
  const down = { start_lr: "max_lr", start_momentum: "base_momentum", end_momentum: "max_momentum" };
  const last = { end_step: total - 1, end_lr: "min_lr" };
  if (!three) return [up, { ...down, ...last }];
  return [
    up,
    { ...down, end_step: 2 * share * total - 2, end_lr: "initial_lr" },
    { ...last, start_lr: "initial_lr", start_momentum: "max_momentum", end_momentum: "max_momentum" },
  ];
}
