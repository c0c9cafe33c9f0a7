// Stochastic gradient descent, with momentum.

import { InvalidArgumentError } from "../errors/index.ts";
import { bind, type Rest } from "../nn/arguments.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { run } from "./native.ts";
import {
  type BaseOptions,
  type Entry,
  groupBy,
  notNegative,
  Optimizer,
  type ParamGroup,
  type Params,
  refuseUnsupported,
} from "./optimizer.ts";

export interface SGDOptions extends BaseOptions {
  /** Default: 1e-3. */
  lr: number;
  /** The share of the former step in this one. Default: 0. */
  momentum: number;
  /** How much less of the gradient goes into the momentum. Default: 0. */
  dampening: number;
  /** Default: 0. */
  weight_decay: number;
  /** Look ahead along the momentum. Default: false. */
  nesterov: boolean;
  /** Default: false. */
  maximize: boolean;
  /** Stored; the result is the same. */
  foreach: boolean | null;
  differentiable: boolean;
  /** One operator for all parameters. Default: null, no. */
  fused: boolean | null;
}

const DEFAULTS: SGDOptions = {
  lr: 1e-3,
  momentum: 0,
  dampening: 0,
  weight_decay: 0,
  nesterov: false,
  maximize: false,
  foreach: null,
  differentiable: false,
  fused: null,
};

type SGDRest = Rest<
  [lr: number, momentum: number, dampening: number, weight_decay: number, nesterov: boolean],
  Partial<SGDOptions>
>;

/**
 * Steps against the gradient, with momentum if wanted.
 *
 * @example const optimizer = new optim.SGD(model.parameters(), { lr: 0.1, momentum: 0.9, nesterov: true });
 */
export class SGD extends Optimizer<SGDOptions> {
  constructor(params: Params<SGDOptions>, ...rest: SGDRest) {
    super(params, bind("SGD", rest, DEFAULTS));
  }

  protected override check(options: SGDOptions): void {
    notNegative("SGD", options, ["lr", "momentum", "weight_decay"]);
    const { nesterov, momentum, dampening, fused, foreach } = options;
    if (nesterov && (momentum <= 0 || dampening !== 0)) {
      throw new InvalidArgumentError("SGD: nesterov needs a momentum, and no dampening.");
    }
    if (fused && foreach) throw new InvalidArgumentError("SGD: fused and foreach exclude each other.");
    refuseUnsupported("SGD", options);
  }

  protected override update(group: ParamGroup<SGDOptions>, entries: readonly Entry[]): void {
    if (group.fused) fusedStep(group, entries);
    else for (const entry of entries) singleStep(group, entry);
  }
}

const bufferOf = ({ state }: Entry): Tensor | null =>
  state.momentum_buffer instanceof torch.Tensor ? state.momentum_buffer : null;

function fusedStep(
  { lr, momentum, dampening, weight_decay, nesterov, maximize }: SGDOptions,
  entries: readonly Entry[],
): void {
  // The operator starts the momentum of all parameters of a call, or of none.
  const alike = ({ param, state }: Entry) =>
    `${param.device} ${param.dtype} ${state.momentum_buffer == null}`;
  for (const group of groupBy(entries, alike)) {
    const first = momentum !== 0 && group.every((entry) => bufferOf(entry) === null);
    if (first)
      for (const { grad, state } of group) state.momentum_buffer = torch.keep(torch.empty_like(grad));
    run(
      "_fused_sgd_",
      "",
      group.map(({ param }) => param),
      group.map(({ grad }) => grad),
      momentum === 0 ? [] : group.map((entry) => bufferOf(entry) as Tensor),
      weight_decay,
      momentum,
      lr,
      dampening,
      nesterov,
      maximize,
      first,
    );
  }
}

function singleStep(
  { lr, momentum, dampening, weight_decay, nesterov, maximize }: SGDOptions,
  entry: Entry,
): void {
  const { param, state } = entry;
  let grad = maximize ? entry.grad.neg() : entry.grad;
  if (weight_decay !== 0) grad = grad.add(param, { alpha: weight_decay });
  if (momentum !== 0) {
    let buffer = bufferOf(entry);
    if (buffer) {
      buffer.mul_(momentum).add_(grad, { alpha: 1 - dampening });
    } else {
      buffer = torch.keep(grad.detach().clone());
      state.momentum_buffer = buffer;
    }
    grad = nesterov ? grad.add(buffer, { alpha: momentum }) : buffer;
  }
  param.add_(grad, { alpha: -lr });
}
