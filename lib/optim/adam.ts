// Adam and AdamW: by libtorch's fused operator where it applies, else step by step.

import { InvalidArgumentError } from "../errors/index.ts";
import { bind, type Rest } from "../nn/arguments.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { run, setting } from "./native.ts";
import {
  type BaseOptions,
  type Entry,
  type ExecutionOptions,
  groupBy,
  notNegative,
  Optimizer,
  type ParamGroup,
  type ParamState,
  type Params,
  realView,
  refuseUnsupported,
  stateTensor,
} from "./optimizer.ts";

export interface AdamOptions extends BaseOptions, ExecutionOptions {
  /** Default: 1e-3. */
  lr: number;
  /** How slowly the means of gradients and of their squares move. Default: [0.9, 0.999]. */
  betas: readonly [number, number];
  /** Added to the root of the mean square. Default: 1e-8. */
  eps: number;
  /** Default: 0 for Adam, 0.01 for AdamW. */
  weight_decay: number;
  /** Divide by the largest mean square so far. Default: false. */
  amsgrad: boolean;
  /** One operator for all parameters. Default (null): where it applies, on floating point parameters. */
  fused: boolean | null;
  /** Take the weight decay off the parameters, not the gradients: what makes AdamW. */
  decoupled_weight_decay: boolean;
}

type AdamRest<O> = Rest<
  [lr: number, betas: readonly [number, number], eps: number, weight_decay: number, amsgrad: boolean],
  O
>;
type Settings = Partial<Omit<AdamOptions, "decoupled_weight_decay">>;

const DEFAULTS: AdamOptions = {
  lr: 1e-3,
  betas: [0.9, 0.999],
  eps: 1e-8,
  weight_decay: 0,
  amsgrad: false,
  maximize: false,
  foreach: null,
  capturable: false,
  differentiable: false,
  fused: null,
  decoupled_weight_decay: false,
};

/** The settings of AdamW, which fixes how the weight decay is applied. */
const { decoupled_weight_decay: _, ...WITHOUT_DECOUPLING } = DEFAULTS;

interface Moments extends Entry {
  readonly step: Tensor;
  readonly mean: Tensor;
  readonly square: Tensor;
  /** The largest mean square so far; only with amsgrad. */
  readonly largest: Tensor | null;
}

/**
 * Kingma and Ba (2015): steps by a running mean of the gradients, divided by the root of their mean square.
 *
 * @example const optimizer = new optim.Adam(model.parameters(), { lr: 1e-3, weight_decay: 1e-4 });
 */
export class Adam extends Optimizer<AdamOptions> {
  constructor(
    params: Params<AdamOptions>,
    ...rest: AdamRest<Settings & { decoupled_weight_decay?: boolean }>
  ) {
    super(params, bind(new.target.name, rest, DEFAULTS));
  }

  protected override check(options: AdamOptions): void {
    const name = this.constructor.name;
    notNegative(name, options, ["lr", "eps", "weight_decay"]);
    const { betas, fused, foreach } = options;
    if (betas.length !== 2 || !betas.every((beta) => beta >= 0 && beta < 1)) {
      throw new InvalidArgumentError(
        `${name}: betas must be two numbers from 0 to below 1, got [${betas.join(", ")}].`,
      );
    }
    if (fused && foreach) throw new InvalidArgumentError(`${name}: fused and foreach exclude each other.`);
    refuseUnsupported(name, options);
  }

  protected override update(group: ParamGroup<AdamOptions>, entries: readonly Entry[]): void {
    const fused = isFused(group, entries);
    const moments = entries.map((entry): Moments => {
      const { param, state } = entry;
      const zeros = () => torch.zeros_like(param);
      return {
        ...entry,
        step: stateTensor(state, "step", () =>
          torch.zeros([], { dtype: "float32", device: fused ? param.device : "cpu" }),
        ),
        mean: stateTensor(state, "exp_avg", zeros),
        square: stateTensor(state, "exp_avg_sq", zeros),
        largest: group.amsgrad ? stateTensor(state, "max_exp_avg_sq", zeros) : null,
      };
    });
    if (fused) fusedStep(group, moments);
    else for (const entry of moments) singleStep(group, entry);
  }

  protected override restore(
    group: ParamGroup<AdamOptions>,
    param: Tensor,
    key: string,
    value: ParamState[string],
  ): ParamState[string] {
    const restored = super.restore(group, param, key, value);
    // The fused operator wants its counters beside the parameters.
    if (key !== "step" || !(restored instanceof torch.Tensor) || group.fused === false) return restored;
    return torch.keep(restored.to({ device: param.device, dtype: "float32" }));
  }
}

/**
 * Loshchilov and Hutter (2019): Adam whose weight decay is taken off the parameters directly. Default decay: 0.01.
 *
 * @example
 * const optimizer = new optim.AdamW(model.parameters(), { lr: 5e-5 });
 * new optim.AdamW([{ params: decayed, weight_decay: 0.1 }, { params: others, weight_decay: 0 }], { lr: 1e-4 });
 */
export class AdamW extends Adam {
  constructor(params: Params<AdamOptions>, ...rest: AdamRest<Settings>) {
    const settings = bind(new.target.name, rest, { ...WITHOUT_DECOUPLING, weight_decay: 1e-2 });
    super(params, { ...settings, decoupled_weight_decay: true });
  }
}

const FUSED_DEVICE = /^(cpu|cuda)/;

function isFused({ fused }: AdamOptions, entries: readonly Entry[]): boolean {
  if (fused === false) return false;
  const applies = entries.every(({ param }) => param.is_floating_point() && FUSED_DEVICE.test(param.device));
  if (!applies && fused) {
    throw new InvalidArgumentError("A fused optimizer takes floating point parameters on cpu or cuda only.");
  }
  return applies;
}

/** One call per device and dtype. */
function fusedStep(group: AdamOptions, entries: readonly Moments[]): void {
  const { amsgrad, maximize, decoupled_weight_decay } = group;
  for (const alike of groupBy(entries, ({ param }) => `${param.device} ${param.dtype}`)) {
    const steps = alike.map(({ step }) => step);
    run("_foreach_add_", "Scalar", steps, 1);
    run(
      decoupled_weight_decay ? "_fused_adamw_" : "_fused_adam_",
      "",
      alike.map(({ param }) => param),
      alike.map(({ grad }) => grad),
      alike.map(({ mean }) => mean),
      alike.map(({ square }) => square),
      alike.flatMap(({ largest }) => largest ?? []),
      steps,
      setting(() => group.lr),
      setting(() => group.betas[0]),
      setting(() => group.betas[1]),
      setting(() => group.weight_decay),
      setting(() => group.eps),
      amsgrad,
      maximize,
    );
  }
}

function singleStep(group: AdamOptions, entry: Moments): void {
  const { lr, betas, weight_decay, eps, maximize, decoupled_weight_decay } = group;
  const [beta1, beta2] = betas;
  const { param, step } = entry;
  step.add_(1);
  let grad = maximize ? entry.grad.neg() : entry.grad;
  if (weight_decay !== 0) {
    if (decoupled_weight_decay) param.mul_(1 - lr * weight_decay);
    else grad = grad.add(param, { alpha: weight_decay });
  }
  grad = realView(grad);
  const mean = realView(entry.mean);
  const square = realView(entry.square);
  mean.lerp_(grad, 1 - beta1);
  square.mul_(beta2).addcmul_(grad, grad, { value: 1 - beta2 });

  const count = Number(step.item());
  const correction1 = 1 - beta1 ** count;
  const correction2 = Math.sqrt(1 - beta2 ** count);
  let under = square;
  if (entry.largest) {
    under = realView(entry.largest);
    under.copy_(torch.maximum(under, square));
  }
  const denominator = under.sqrt().div(correction2).add_(eps);
  realView(param).addcdiv_(mean, denominator, { value: -lr / correction1 });
}
