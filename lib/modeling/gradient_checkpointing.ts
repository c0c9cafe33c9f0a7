// Layers that compute their activations again in backward instead of keeping them.
import { InvalidArgumentError } from "../errors/index.ts";
import { warnOnce } from "../errors/warnings.ts";
import * as nn from "../nn/index.ts";
import { type CheckpointOptions, checkpoint } from "../torch/checkpoint.ts";
import { isOptions } from "../torch/options.ts";

/** Calls `forward(...args)` and lets backward call it again. */
export type CheckpointFunction = (forward: (...args: unknown[]) => unknown, args: unknown[]) => unknown;

/** Names under which layers get a cache or are told to fill one. */
const CACHES = ["use_cache", "past_key_values", "layer_past"];

/**
 * A layer whose activations may be computed again in backward instead of being kept: see
 * `PreTrainedModel.gradient_checkpointing_enable`. Without a cache then, since it would be filled twice. Hooks on the layer
 * itself stay outside and run once.
 */
export class GradientCheckpointingLayer extends nn.Module {
  /** Layers that only read the cache may keep it. */
  static readonly _can_checkpoint_with_cache: boolean = false;

  declare gradient_checkpointing: boolean;
  declare _gradient_checkpointing_func: CheckpointFunction | undefined;

  constructor() {
    super();
    this.gradient_checkpointing = false;
    wrapForward(new.target.prototype);
  }
}

type Forward = (this: GradientCheckpointingLayer, ...args: unknown[]) => unknown;

const wrapped = new WeakSet<object>();

/** Does it on the prototype, under the hooks of instances. A subclass and its parent are wrapped both. */
function wrapForward(prototype: object): void {
  for (let p = prototype; p !== GradientCheckpointingLayer.prototype; p = Object.getPrototypeOf(p)) {
    if (wrapped.has(p)) break;
    wrapped.add(p);
    const inner = Object.getOwnPropertyDescriptor(p, "forward")?.value as Forward | undefined;
    if (typeof inner !== "function") continue;
    const forward: Forward = function (...args) {
      const { gradient_checkpointing, training, _gradient_checkpointing_func: call } = this;
      const isOutermost = Object.getPrototypeOf(this).forward === forward;
      if (!gradient_checkpointing || !training || !isOutermost || !call) return inner.apply(this, args);
      return call((...given) => inner.apply(this, given), withoutCache(this, args));
    };
    Object.defineProperty(p, "forward", {
      value: forward,
      writable: true,
      configurable: true,
      enumerable: false,
    });
  }
}

function withoutCache(layer: GradientCheckpointingLayer, args: readonly unknown[]): unknown[] {
  const { _can_checkpoint_with_cache, name } = layer.constructor as typeof GradientCheckpointingLayer;
  return args.map((bag) => {
    if (!isOptions(bag)) return bag;
    const dropped = CACHES.filter(
      (key) => bag[key] && (key === "use_cache" || !_can_checkpoint_with_cache),
    ).map((key) => [key, key === "use_cache" ? false : null] as const);
    if (dropped.length === 0) return bag;
    warnOnce(
      `Caching is incompatible with gradient checkpointing in ${name}. Setting ` +
        `${dropped.map(([key, value]) => `\`${key}: ${value}\``).join(", ")}.`,
    );
    return { ...bag, ...Object.fromEntries(dropped) };
  });
}

/** A module that has a switch for checkpointing. */
type Switchable = nn.Module & {
  gradient_checkpointing: boolean;
  _gradient_checkpointing_func: CheckpointFunction | undefined;
};

const switchable = (model: nn.Module): Switchable[] =>
  [...model.modules()].filter((module): module is Switchable => "gradient_checkpointing" in module);

/** Switches checkpointing on for each `every`-th layer of the model. */
export function enableCheckpointing(model: nn.Module, options: CheckpointOptions, every: number): void {
  if (!Number.isInteger(every) || every < 1) {
    throw new InvalidArgumentError(`every_n_layers is a whole number from 1 on, got ${every}.`);
  }
  const modules = switchable(model);
  if (modules.length === 0) throw incompatible(model);
  let layers = 0;
  for (const module of modules) {
    module._gradient_checkpointing_func = (forward, args) => checkpoint(forward, args, options);
    module.gradient_checkpointing =
      module instanceof GradientCheckpointingLayer ? layers++ % every === 0 : true;
  }
}

export function disableCheckpointing(model: nn.Module): void {
  const modules = switchable(model);
  if (modules.length === 0) throw incompatible(model);
  for (const module of modules) module.gradient_checkpointing = false;
}

export const isCheckpointing = (model: nn.Module): boolean =>
  switchable(model).some((module) => module.gradient_checkpointing);

const incompatible = (model: nn.Module) =>
  new InvalidArgumentError(
    `${model._get_name()} is not compatible with gradient checkpointing: none of its modules has a field 'gradient_checkpointing'.`,
    { hint: "Let its layers extend GradientCheckpointingLayer." },
  );
