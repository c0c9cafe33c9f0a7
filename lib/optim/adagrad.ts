// Adagrad and RMSprop: steps divided by the root of the squares of former gradients.

import { bind, type Rest } from "../nn/arguments.ts";
import * as torch from "../torch/index.ts";
import { decayed, decision, run, setting } from "./native.ts";
import {
  type BaseOptions,
  type Entry,
  type ExecutionOptions,
  notNegative,
  Optimizer,
  type ParamGroup,
  type Params,
  realView,
  refuseUnsupported,
  stateTensor,
} from "./optimizer.ts";

export interface AdagradOptions extends BaseOptions {
  /** Default: 1e-2. */
  lr: number;
  /** How the steps shrink with their number. Default: 0. */
  lr_decay: number;
  /** Default: 1e-10. */
  eps: number;
  /** Default: 0. */
  weight_decay: number;
  /** Where the sums of squares begin. Default: 0. */
  initial_accumulator_value: number;
  /** Stored; the result is the same. */
  foreach: boolean | null;
  /** Default: false. */
  maximize: boolean;
  differentiable: boolean;
  /** Stored; the result is the same. */
  fused: boolean | null;
}

const ADAGRAD: AdagradOptions = {
  lr: 1e-2,
  lr_decay: 0,
  weight_decay: 0,
  initial_accumulator_value: 0,
  eps: 1e-10,
  foreach: null,
  maximize: false,
  differentiable: false,
  fused: null,
};

/** Duchi, Hazan and Singer (2011): divides by the root of the sum of squares. */
export class Adagrad extends Optimizer<AdagradOptions> {
  constructor(
    params: Params<AdagradOptions>,
    ...rest: Rest<[lr: number, lr_decay: number, weight_decay: number], Partial<AdagradOptions>>
  ) {
    super(params, bind("Adagrad", rest, ADAGRAD));
  }

  protected override check(options: AdagradOptions): void {
    notNegative("Adagrad", options, ["lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"]);
    refuseUnsupported("Adagrad", options);
  }

  protected override update(group: ParamGroup<AdagradOptions>, entries: readonly Entry[]): void {
    const { lr, lr_decay, weight_decay, eps, maximize, initial_accumulator_value } = group;
    for (const { param, grad: given, state } of entries) {
      const step = stateTensor(state, "step", () => torch.zeros([], { dtype: "float32", device: "cpu" }));
      const sum = realView(
        stateTensor(state, "sum", () => torch.zeros_like(param).fill_(initial_accumulator_value)),
      );
      step.add_(1);
      let grad = maximize ? given.neg() : given;
      if (weight_decay !== 0) grad = grad.add(param, { alpha: weight_decay });
      grad = realView(grad);
      const rate = lr / (1 + (Number(step.item()) - 1) * lr_decay);
      sum.addcmul_(grad, grad, { value: 1 });
      realView(param).addcdiv_(grad, sum.sqrt().add_(eps), { value: -rate });
    }
  }
}

export interface RMSpropOptions extends BaseOptions, ExecutionOptions {
  /** Default: 1e-2. */
  lr: number;
  /** Default: 0. */
  momentum: number;
  /** How slowly the mean square moves. Default: 0.99. */
  alpha: number;
  /** Default: 1e-8. */
  eps: number;
  /** Divide by the deviation and not the mean square. Default: false. */
  centered: boolean;
  /** Default: 0. */
  weight_decay: number;
}

const RMSPROP: RMSpropOptions = {
  lr: 1e-2,
  alpha: 0.99,
  eps: 1e-8,
  weight_decay: 0,
  momentum: 0,
  centered: false,
  capturable: false,
  foreach: null,
  maximize: false,
  differentiable: false,
};

/** Hinton's RMSprop: divides by the root of a running mean of squares. */
export class RMSprop extends Optimizer<RMSpropOptions> {
  constructor(
    params: Params<RMSpropOptions>,
    ...rest: Rest<
      [lr: number, alpha: number, eps: number, weight_decay: number, momentum: number],
      Partial<RMSpropOptions>
    >
  ) {
    super(params, bind("RMSprop", rest, RMSPROP));
  }

  protected override check(options: RMSpropOptions): void {
    notNegative("RMSprop", options, ["lr", "alpha", "eps", "weight_decay", "momentum"]);
    refuseUnsupported("RMSprop", options);
  }

  protected override update(group: ParamGroup<RMSpropOptions>, entries: readonly Entry[]): void {
    const { centered, maximize } = group;
    for (const { param, grad: given, state } of entries) {
      const zeros = () => torch.zeros_like(param);
      stateTensor(state, "step", () => torch.zeros([], { dtype: "float32", device: "cpu" })).add_(1);
      const square = realView(stateTensor(state, "square_avg", zeros));
      const buffer = decision(() => group.momentum > 0)
        ? realView(stateTensor(state, "momentum_buffer", zeros))
        : null;
      let grad = decayed(maximize ? given.neg() : given, param, group);
      grad = realView(grad);
      const rest = () => setting(() => 1 - group.alpha);
      run(
        "mul_",
        "Scalar",
        square,
        setting(() => group.alpha),
      );
      run("addcmul_", "", square, grad, grad, rest());
      let deviation = square.sqrt();
      if (centered) {
        const mean = realView(stateTensor(state, "grad_avg", zeros));
        run("lerp_", "Scalar", mean, grad, rest());
        deviation = square.addcmul(mean, mean, { value: -1 }).sqrt_();
      }
      run(
        "add_",
        "Scalar",
        deviation,
        setting(() => group.eps),
      );
      if (buffer) {
        run(
          "mul_",
          "Scalar",
          buffer,
          setting(() => group.momentum),
        );
        buffer.addcdiv_(grad, deviation);
        run(
          "add_",
          "Tensor",
          realView(param),
          buffer,
          setting(() => -group.lr),
        );
      } else {
        run(
          "addcdiv_",
          "",
          realView(param),
          grad,
          deviation,
          setting(() => -group.lr),
        );
      }
    }
  }
}
