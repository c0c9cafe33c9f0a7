// Hooks that stand in the place of a module's forward, as accelerate's do: they see the arguments, and may hold what the forward
// needs only while it runs.
import { InvalidArgumentError } from "../errors/index.ts";
import type { Module } from "../nn/index.ts";
import { no_grad, type RemovableHandle } from "../torch/index.ts";

/**
 * Callbacks around the forward of a module. A subclass overrides what it needs.
 *
 * @example
 * class Doubled extends ModelHook {
 *   override post_forward(_module: nn.Module, output: Tensor) {
 *     return output.mul(2);
 *   }
 * }
 * add_hook_to_module(model, new Doubled());
 */
export class ModelHook {
  /** Whether the forward runs without gradients. */
  readonly no_grad: boolean = false;

  /** Called when the hook is added; gives the module to hook. */
  init_hook<M extends Module>(module: M): M {
    return module;
  }

  /** Called before each forward; gives its arguments. */
  pre_forward(_module: Module, ...args: unknown[]): readonly unknown[] {
    return args;
  }

  /** Called after each forward; gives its output. */
  post_forward(_module: Module, output: unknown): unknown {
    return output;
  }

  /** Called in the place of `post_forward` when the forward threw. */
  cancel_forward(_module: Module): void {}

  /** Called when the hook is removed; gives the module. */
  detach_hook<M extends Module>(module: M): M {
    return module;
  }

  /** Whether a recording of the forward may take this hook for a part of it. */
  get is_traceable(): boolean {
    return false;
  }
}

/** Several hooks as one, in their order. */
export class SequentialHook extends ModelHook {
  readonly hooks: readonly ModelHook[];

  constructor(...hooks: ModelHook[]) {
    super();
    this.hooks = hooks;
  }

  override init_hook<M extends Module>(module: M): M {
    return this.hooks.reduce((each, hook) => hook.init_hook(each), module);
  }

  override pre_forward(module: Module, ...args: unknown[]): readonly unknown[] {
    let given: readonly unknown[] = args;
    let done = 0;
    try {
      for (const hook of this.hooks) {
        given = hook.pre_forward(module, ...given);
        done++;
      }
      return given;
    } catch (error) {
      for (const hook of this.hooks.slice(0, done)) hook.cancel_forward(module);
      throw error;
    }
  }

  override post_forward(module: Module, output: unknown): unknown {
    return this.hooks.reduce((each, hook) => hook.post_forward(module, each), output);
  }

  override cancel_forward(module: Module): void {
    for (const hook of this.hooks) hook.cancel_forward(module);
  }

  override detach_hook<M extends Module>(module: M): M {
    return this.hooks.reduce((each, hook) => hook.detach_hook(each), module);
  }

  override get is_traceable(): boolean {
    return this.hooks.every((hook) => hook.is_traceable);
  }
}

interface Attached {
  hook: ModelHook;
  readonly handle: RemovableHandle;
}

const attached = new WeakMap<Module, Attached>();

/** The hook of a module, if `add_hook_to_module` gave it one. */
export const hookOf = (module: Module): ModelHook | undefined => attached.get(module)?.hook;

/**
 * Puts a hook around a module's forward. A module has one: another replaces it, or with `append` follows it.
 *
 * `module._hf_hook` is the hook, `module._old_forward` the forward without it.
 *
 * @example add_hook_to_module(model.layers[0], new AlignDevicesHook({ execution_device: "cuda:0" }));
 */
export function add_hook_to_module<M extends Module>(
  module: M,
  hook: ModelHook,
  append: boolean | { append?: boolean | undefined } = false,
): M {
  if (!(hook instanceof ModelHook)) throw new InvalidArgumentError("add_hook_to_module takes a ModelHook.");
  const old = hookOf(module);
  let next = hook;
  if (old !== undefined && (typeof append === "boolean" ? append : append.append)) {
    remove_hook_from_module(module);
    next = new SequentialHook(old, hook);
  }
  const known = attached.get(module);
  const hooked = next.init_hook(module);
  if (known !== undefined) {
    known.hook = next;
    return hooked;
  }

  const around = (_owner: Module, forward: (...args: unknown[]) => unknown, args: readonly unknown[]) => {
    const { hook } = attached.get(module) as Attached;
    const given = hook.pre_forward(module, ...args);
    let output: unknown;
    try {
      output = hook.no_grad ? no_grad(() => forward(...given)) : forward(...given);
    } catch (error) {
      hook.cancel_forward(module);
      throw error;
    }
    return hook.post_forward(module, output);
  };
  Object.defineProperty(around, "isTraceable", { get: () => hookOf(module)?.is_traceable ?? true });
  const before = (...args: unknown[]) =>
    (Object.getPrototypeOf(module).forward as (...args: unknown[]) => unknown).apply(module, args);
  const own = Object.getOwnPropertyDescriptor(module, "forward")?.value as typeof before | undefined;
  attached.set(module, { hook: next, handle: module._wrap_forward(around) });
  define(module, "_hf_hook", { get: () => hookOf(module) });
  define(module, "_old_forward", { value: own === undefined ? before : own.bind(module) });
  return hooked;
}

const define = (module: Module, name: string, descriptor: PropertyDescriptor) =>
  Object.defineProperty(module, name, { ...descriptor, enumerable: false, configurable: true });

/** Methods that dispatching puts on a model itself. */
export const GUARDED = ["to", "cuda", "cpu"] as const;

/**
 * Takes the hook of a module away; its forward is again what it was.
 *
 * @param recurse the hooks of all modules inside too. Default false.
 */
export function remove_hook_from_module<M extends Module>(
  module: M,
  recurse: boolean | { recurse?: boolean | undefined } = false,
): M {
  const known = attached.get(module);
  if (known !== undefined) {
    known.hook.detach_hook(module);
    known.handle.remove();
    attached.delete(module);
    for (const name of ["_hf_hook", "_old_forward"]) Reflect.deleteProperty(module, name);
  }
  for (const name of GUARDED) if (Object.hasOwn(module, name)) Reflect.deleteProperty(module, name);
  if (typeof recurse === "boolean" ? recurse : recurse.recurse)
    for (const child of module.children()) remove_hook_from_module(child, true);
  return module;
}

/** Takes the hooks of a module and of all modules inside away. */
export function remove_hook_from_submodules(module: Module): void {
  remove_hook_from_module(module, true);
}
