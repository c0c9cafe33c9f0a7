// Optimizer: groups of parameters with their settings, and what is remembered for each parameter.

import { inspect } from "node:util";
import { recording } from "../compile/session.ts";
import { InvalidArgumentError, TraceError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { bind, type Rest } from "../nn/arguments.ts";
import { HookList } from "../nn/hooks.ts";
import { clearGrad } from "../nn/parameter.ts";
import { py } from "../nn/repr.ts";
import {
  enable_grad,
  keep,
  no_grad,
  type RemovableHandle,
  Tensor,
  tidy,
  view_as_real,
} from "../torch/index.ts";

/** Parameters that share settings. What a group does not set has the optimizer's default. */
export type GroupOptions<O> = Partial<O> & {
  params: Tensor | Iterable<Tensor> | Iterable<readonly [string, Tensor]>;
};

/** Tensors, pairs of name and tensor, or groups with settings of their own. */
export type Params<O> = Iterable<Tensor> | Iterable<readonly [string, Tensor]> | Iterable<GroupOptions<O>>;

/** A group as the optimizer holds it; settings may be changed between steps, as schedulers do. */
export type ParamGroup<O> = O & { params: Tensor[]; param_names?: string[]; initial_lr?: number };

/** What is remembered for one parameter: moments, counters. */
export type ParamState = Record<string, Tensor | number | null>;

/** torch's layout: parameters are numbered through all groups. */
export interface OptimizerStateDict {
  state: Record<number, ParamState>;
  param_groups: ({ params: number[]; param_names?: string[] } & Record<string, unknown>)[];
}

/** Every optimizer has a learning rate. */
export interface BaseOptions {
  lr: number;
}

/** A parameter whose gradient is there, and what is remembered for it. */
export interface Entry {
  readonly param: Tensor;
  readonly grad: Tensor;
  readonly state: ParamState;
}

type StepHook = (optimizer: never) => void;

/** Base of all optimizers. */
export abstract class Optimizer<O extends BaseOptions = BaseOptions> {
  readonly defaults: O;
  param_groups: ParamGroup<O>[] = [];
  /** By parameter; filled at its first step. */
  readonly state = new Map<Tensor, ParamState>();
  readonly #stepPre = new HookList<StepHook>();
  readonly #stepPost = new HookList<StepHook>();
  readonly #afterStep: (() => void)[] = [];

  /** @param defaults the settings of groups that do not set them, in torch's order. */
  constructor(params: Params<O>, defaults: O) {
    this.defaults = defaults;
    if (params instanceof Tensor) {
      throw new InvalidArgumentError(
        "An optimizer takes a list of parameters or of groups, got a single Tensor.",
      );
    }
    const list = [...(params as Iterable<unknown>)];
    if (list.length === 0) throw new InvalidArgumentError("The optimizer got an empty list of parameters.");
    const plain = list[0] instanceof Tensor || Array.isArray(list[0]);
    const groups = plain ? [{ params: list }] : list;
    for (const group of groups) this.add_param_group(group as GroupOptions<O>);
  }

  /** Applies the gradients of one group; runs without recording. */
  protected abstract update(group: ParamGroup<O>, entries: readonly Entry[]): void;

  /** Throws when a setting is out of its range. */
  protected abstract check(options: O): void;

  /**
   * One step along the gradients.
   *
   * @param closure computes the loss and its gradients again, with recording; its result is returned.
   * @example
   * optimizer.zero_grad();
   * loss.backward();
   * optimizer.step();
   */
  step(): undefined;
  step<T>(closure: () => T): T;
  step<T>(closure?: () => T): T | undefined {
    this.#watch();
    for (const hook of this.#stepPre) hook(this as never);
    const result = closure ? enable_grad(closure) : undefined;
    tidy("optimizer step", () => {
      no_grad(() => {
        for (const group of this.param_groups) this.update(group, this.#entries(group));
      });
    });
    for (const hook of this.#stepPost) hook(this as never);
    const session = recording();
    for (const callback of this.#afterStep) {
      if (session) session.afterRun.push(callback);
      else callback();
    }
    return result;
  }

  /** In a recording: what the step depends on, beside the numbers of the groups, which each run reads anew. */
  #watch(): void {
    const session = recording();
    if (session === undefined) return;
    if (this.#stepPre.size + this.#stepPost.size > 0) {
      throw new TraceError("[optimizer.step] hooks around a step cannot be recorded.", {
        hint: "Remove them, or run the training step eagerly.",
      });
    }
    session.use(this);
    const groups = this.param_groups;
    session.depend(() => this.param_groups);
    session.depend(() => groups.length);
    for (const [i, group] of groups.entries()) {
      session.depend(() => groups[i]);
      session.depend(() => group.params);
      session.depend(() => group.params.length);
      for (const [k, param] of group.params.entries()) {
        session.depend(() => group.params[k]);
        // An empty entry is no state: a run that is never made leaves nothing behind.
        if (!this.state.has(param)) this.state.set(param, {});
        session.depend(() => this.state.get(param));
      }
      const settings = group as unknown as Record<string, unknown>;
      for (const [key, value] of Object.entries(settings))
        if (value === null || typeof value === "boolean") session.depend(() => settings[key]);
    }
  }

  /** `callback` is called after each step, in a Program after each run. */
  _afterStep(callback: () => void): void {
    this.#afterStep.push(callback);
  }

  /** Drops the gradients of all parameters, or fills them with zeros. */
  zero_grad(...rest: Rest<[set_to_none: boolean], { set_to_none?: boolean | undefined }>): void {
    const { set_to_none } = bind("zero_grad", rest, { set_to_none: true });
    for (const { params } of this.param_groups) for (const param of params) clearGrad(param, set_to_none);
  }

  /** Adds parameters, such as those of layers that are thawed in the course of training. */
  add_param_group(options: GroupOptions<O>): void {
    for (const name of Object.keys(options)) {
      const known = ["params", "param_names", "initial_lr", ...Object.keys(this.defaults)];
      if (known.includes(name)) continue;
      throw new InvalidArgumentError(
        `${this.constructor.name}: unknown option '${name}' in a parameter group.`,
        {
          suggestion: suggest(name, known),
        },
      );
    }
    const { params, ...rest } = options;
    const given =
      params instanceof Tensor ? [params] : [...(params as Iterable<Tensor | readonly [string, Tensor]>)];
    const named = given.filter((item): item is readonly [string, Tensor] => Array.isArray(item));
    if (named.length > 0 && named.length < given.length) {
      throw new InvalidArgumentError("Either all parameters of a group have names, or none.");
    }
    const tensors = given.map((item) => (Array.isArray(item) ? item[1] : item) as Tensor);
    this.#checkTensors(tensors);
    const settings = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined));
    const names = named.length > 0 ? { param_names: named.map(([name]) => name) } : {};
    const group = { params: tensors, ...names, ...this.defaults, ...settings } as ParamGroup<O>;
    this.check(group);
    const [first] = this.param_groups;
    if (first && "param_names" in first !== "param_names" in group) {
      throw new InvalidArgumentError("Either all parameter groups have names, or none.");
    }
    this.param_groups.push(group);
  }

  #checkTensors(tensors: readonly unknown[]): void {
    const taken = new Set(this.param_groups.flatMap(({ params }) => params));
    for (const tensor of tensors) {
      if (!(tensor instanceof Tensor)) {
        throw new InvalidArgumentError(
          `An optimizer takes Tensors, got ${tensor === null ? "null" : typeof tensor}.`,
        );
      }
      if (!tensor.is_leaf)
        throw new InvalidArgumentError("A tensor that was computed from others cannot be optimized.");
      if (taken.has(tensor))
        throw new InvalidArgumentError("A parameter stands in more than one place of the groups.");
      taken.add(tensor);
    }
  }

  #entries({ params }: ParamGroup<O>): Entry[] {
    return params.flatMap((param) => {
      const { grad } = param;
      if (!grad) return [];
      let state = this.state.get(param);
      if (!state) {
        state = {};
        this.state.set(param, state);
      }
      return [{ param, grad, state }];
    });
  }

  /** Everything that a later run needs to go on: `{ state, param_groups }` as torch writes it. */
  state_dict(): OptimizerStateDict {
    const numbers = new Map<Tensor, number>();
    for (const { params } of this.param_groups) for (const param of params) numbers.set(param, numbers.size);
    const param_groups = this.param_groups.map(({ params, ...settings }) => ({
      ...(settings as Record<string, unknown>),
      params: params.map((param) => numbers.get(param) as number),
    }));
    const state: Record<number, ParamState> = {};
    for (const [param, values] of this.state) {
      if (Object.keys(values).length > 0) state[numbers.get(param) as number] = { ...values };
    }
    return { state, param_groups };
  }

  /** Goes on from a `state_dict`; tensors are copied to the dtype and device of their parameters. */
  load_state_dict({ state, param_groups }: Readonly<OptimizerStateDict>): void {
    if (param_groups.length !== this.param_groups.length) {
      throw new InvalidArgumentError(
        `The state has ${param_groups.length} parameter groups, the optimizer ${this.param_groups.length}.`,
      );
    }
    const byNumber = new Map<number, [Tensor, ParamGroup<O>]>();
    const groups = this.param_groups.map((group, i) => {
      const saved = param_groups[i] as OptimizerStateDict["param_groups"][number];
      if (saved.params.length !== group.params.length) {
        throw new InvalidArgumentError(
          `Group ${i} of the state has ${saved.params.length} parameters, that of the optimizer ${group.params.length}.`,
        );
      }
      // torch writes null where we write nothing, and settings that only later versions know.
      const loaded = { ...group, ...saved, params: group.params } as ParamGroup<O>;
      for (const [k, number] of saved.params.entries())
        byNumber.set(number, [group.params[k] as Tensor, loaded]);
      return loaded;
    });
    this.param_groups = groups;
    this.state.clear();
    for (const [number, values] of Object.entries(state)) {
      const found = byNumber.get(Number(number));
      if (!found) continue;
      const [param, group] = found;
      const own = Object.entries(values).map(
        ([key, value]) => [key, this.restore(group, param, key, value)] as const,
      );
      this.state.set(param, Object.fromEntries(own));
    }
  }

  /** A loaded value in the form in which this optimizer keeps it. */
  protected restore(
    _group: ParamGroup<O>,
    param: Tensor,
    key: string,
    value: ParamState[string],
  ): ParamState[string] {
    if (!(value instanceof Tensor)) return value;
    if (key === "step") return keep(value.clone());
    const dtype = param.is_floating_point() ? param.dtype : value.dtype;
    return keep(value.to({ device: param.device, dtype, copy: true }));
  }

  /** `hook(optimizer)` before each step. */
  register_step_pre_hook(hook: (optimizer: this) => void): RemovableHandle {
    return this.#stepPre.add(hook as StepHook);
  }

  /** `hook(optimizer)` after each step. */
  register_step_post_hook(hook: (optimizer: this) => void): RemovableHandle {
    return this.#stepPost.add(hook as StepHook);
  }

  toString(): string {
    const groups = this.param_groups.map((group, i) => {
      const lines = Object.entries(group)
        .filter(([key]) => key !== "params")
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([key, value]) => `    ${key}: ${typeof value === "string" ? value : py(value)}\n`);
      return `\nParameter Group ${i}\n${lines.join("")}`;
    });
    return `${this.constructor.name} (${groups.join("")})`;
  }

  [inspect.custom](): string {
    return this.toString();
  }
}

/** Refuses settings below zero, NaN too. */
export function notNegative(name: string, options: object, keys: readonly string[]): void {
  for (const key of keys) {
    const value = (options as Record<string, unknown>)[key];
    if (typeof value !== "number" || !(value >= 0)) {
      throw new InvalidArgumentError(`${name}: ${key} must be a number of at least 0, got ${value}.`);
    }
  }
}

/** The settings that torch has for kinds of execution that do not exist here, or make no difference. */
export interface ExecutionOptions {
  /** Stored; the result is the same. */
  foreach: boolean | null;
  maximize: boolean;
  capturable: boolean;
  differentiable: boolean;
}

export function refuseUnsupported(
  name: string,
  options: { capturable?: boolean; differentiable?: boolean },
): void {
  for (const key of ["capturable", "differentiable"] as const) {
    if (options[key]) throw new InvalidArgumentError(`${name}: ${key} is not supported.`);
  }
}

/** The state tensor of this name; made, and spared by memory scopes, at the first step. */
export function stateTensor(state: ParamState, key: string, make: () => Tensor): Tensor {
  return knownState(state, key) ?? putState(state, key, make());
}

/** The state tensor of this name, if there is one. */
export function knownState(state: ParamState, key: string): Tensor | null {
  const session = recording();
  const known = session?.hasAssigned(state, key)
    ? state[key]
    : (session?.depend(() => state[key]) ?? state[key]);
  return known instanceof Tensor ? known : null;
}

/** Makes `tensor` part of the state; in a Program its run does. */
export function putState(state: ParamState, key: string, tensor: Tensor): Tensor {
  const session = recording();
  if (session) session.assign(state, key, keep(tensor));
  else state[key] = keep(tensor);
  return tensor;
}

/** Entries that can go through one call of a fused operator. */
export function groupBy<E extends Entry>(entries: readonly E[], keyOf: (entry: E) => string): E[][] {
  const groups = new Map<string, E[]>();
  for (const entry of entries) {
    const key = keyOf(entry);
    const group = groups.get(key);
    if (group) group.push(entry);
    else groups.set(key, [entry]);
  }
  return [...groups.values()];
}

/** Complex numbers as pairs of real ones: the updates treat both parts alike. */
export function realView(tensor: Tensor): Tensor {
  return tensor.is_complex() ? view_as_real(tensor) : tensor;
}
