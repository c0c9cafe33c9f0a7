// Stochastic gradient descent, with momentum.

import { InvalidArgumentError } from "../errors/index.ts";
import { bind, type Rest } from "../nn/arguments.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { compute, decayed, decision, run, setting } from "./native.ts";
import {
  type BaseOptions,
  type Entry,
  groupBy,
  knownState,
  notNegative,
  Optimizer,
  type ParamGroup,
  type Params,
  putState,
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

const bufferOf = ({ state }: Entry): Tensor | null => knownState(state, "momentum_buffer");

function fusedStep(group: SGDOptions, entries: readonly Entry[]): void {
  const { nesterov, maximize } = group;
  const moving = decision(() => group.momentum !== 0);
  // The operator starts the momentum of all parameters of a call, or of none.
  const alike = (entry: Entry) =>
    `${entry.param.device} ${entry.param.dtype} ${moving && bufferOf(entry) === null}`;
  for (const part of groupBy(entries, alike)) {
    const first = moving && part.every((entry) => bufferOf(entry) === null);
    if (first) for (const { grad, state } of part) putState(state, "momentum_buffer", torch.empty_like(grad));
    run(
      "_fused_sgd_",
      "",
      part.map(({ param }) => param),
      part.map(({ grad }) => grad),
      moving ? part.map((entry) => bufferOf(entry) as Tensor) : [],
      setting(() => group.weight_decay),
      setting(() => group.momentum),
      setting(() => group.lr),
      setting(() => group.dampening),
      nesterov,
      maximize,
      first,
    );
  }
}

function singleStep(group: SGDOptions, entry: Entry): void {
  const { nesterov, maximize } = group;
  const { param, state } = entry;
  let grad = decayed(maximize ? entry.grad.neg() : entry.grad, param, group);
  if (decision(() => group.momentum !== 0)) {
    let buffer = bufferOf(entry);
    if (buffer) {
      run(
        "mul_",
        "Scalar",
        buffer,
        setting(() => group.momentum),
      );
      run(
        "add_",
        "Tensor",
        buffer,
        grad,
        setting(() => 1 - group.dampening),
      );
    } else {
      buffer = putState(state, "momentum_buffer", grad.detach().clone());
    }
    grad = nesterov
      ? compute(
          "add",
          "Tensor",
          grad,
          buffer,
          setting(() => group.momentum),
        )
      : buffer;
  }
  run(
    "add_",
    "Tensor",
    param,
    grad,
    setting(() => -group.lr),
  );
}
