// Hooks around a module's forward and backward.

import { cat, is_grad_enabled, keep, type RemovableHandle, type Tensor } from "../torch/index.ts";
import { mapTensors, tensorsIn } from "../torch/tensor_tree.ts";
import { bind } from "./arguments.ts";

/** Hooks in the order in which they run. */
export class HookList<H> implements Iterable<H> {
  #hooks: { readonly hook: H }[] = [];
  readonly #changed: () => void;

  /** @param changed is called after each addition and removal. */
  constructor(changed: () => void = () => {}) {
    this.#changed = changed;
  }

  get size(): number {
    return this.#hooks.length;
  }

  add(hook: H, options: { prepend?: boolean } = {}): RemovableHandle {
    const { prepend } = bind("register_hook", [options], { prepend: false });
    // A wrapper per registration, so that a function registered twice is removed once.
    const entry = { hook };
    this.#hooks = prepend ? [entry, ...this.#hooks] : [...this.#hooks, entry];
    this.#changed();
    const remove = () => {
      this.#hooks = this.#hooks.filter((other) => other !== entry);
      this.#changed();
    };
    return { remove, [Symbol.dispose]: remove };
  }

  // The array is replaced on change, never mutated: a hook may remove itself while the list runs.
  *[Symbol.iterator](): Iterator<H> {
    for (const { hook } of this.#hooks) yield hook;
  }
}

/** Gradients in the order of the tensors they belong to; null for a tensor that needs none. */
export type Gradients = readonly (Tensor | null)[];
type Forward = (...args: unknown[]) => unknown;

/** What a backward hook may return: gradients in the place of those it got, or one alone. Anything empty changes nothing. */
export type Replacement = unknown;

/** Stands in the place of a forward: calls `forward` itself, or does not. */
export interface Around {
  (module: never, forward: (...args: unknown[]) => unknown, args: readonly unknown[]): unknown;
  /** A recording may take what it does for a part of the function. Default: false. */
  readonly isTraceable?: boolean | undefined;
}

/**
 * All hooks that stand around the forward of one module. The module is not typed here: each was registered with a
 * function for its own class.
 */
export class ForwardHooks {
  readonly pre: HookList<(module: never, args: readonly unknown[]) => unknown>;
  readonly post: HookList<(module: never, args: readonly unknown[], output: unknown) => unknown>;
  readonly backwardPre: HookList<(module: never, grad_output: Gradients) => Replacement>;
  readonly backward: HookList<(module: never, grad_input: Gradients, grad_output: Gradients) => Replacement>;
  /** Innermost, under all others; the first one lies closest to the forward. */
  readonly around: HookList<Around>;

  /** @param changed is called after each addition and removal. */
  constructor(changed: (hooks: ForwardHooks) => void) {
    const tell = () => changed(this);
    this.pre = new HookList(tell);
    this.post = new HookList(tell);
    this.backwardPre = new HookList(tell);
    this.backward = new HookList(tell);
    this.around = new HookList(tell);
  }

  get size(): number {
    return this.pre.size + this.post.size + this.backwardPre.size + this.backward.size + this.around.size;
  }

  /** Whether a recording of this forward would miss something. */
  get isOpaque(): boolean {
    return this.size > this.around.size || [...this.around].some(({ isTraceable }) => !isTraceable);
  }

  /** Calls `forward` with the hooks around it. */
  run(owner: object, forward: Forward, given: readonly unknown[]): unknown {
    const module = owner as never;
    let args = given;
    for (const hook of this.pre) {
      const result = hook(module, seen(args));
      if (result !== undefined && result !== null) args = Array.isArray(result) ? result : [result];
    }

    const watch =
      this.backward.size + this.backwardPre.size > 0 && is_grad_enabled()
        ? new BackwardWatch(this, module)
        : null;
    if (watch) args = watch.inputs(args);
    let call = forward;
    for (const hook of this.around) {
      const inner = call;
      call = (...given) => hook(module, inner, given);
    }
    let output = call(...args);
    for (const hook of this.post) {
      const result = hook(module, seen(args), seen(output));
      if (result !== undefined && result !== null) output = result;
    }
    return watch ? watch.outputs(output) : output;
  }
}

/** A hook may store what it sees, so a memory scope must not free it. */
function seen<T>(value: T): T {
  for (const tensor of tensorsIn(value)) keep(tensor);
  return value;
}

/** Catches the gradients of one call, and hands them to the backward hooks. */
class BackwardWatch {
  readonly #hooks: ForwardHooks;
  readonly #module: never;
  #inputs: Tensor[] = [];
  #gradOutput: Gradients = [];

  constructor(hooks: ForwardHooks, module: never) {
    this.#hooks = hooks;
    this.#module = module;
  }

  inputs(args: readonly unknown[]): readonly unknown[] {
    this.#inputs = tensorsIn(args);
    return throughOneNode(args, (grads) => this.#inputGradients(grads));
  }

  outputs(output: unknown): unknown {
    return throughOneNode(output, (given) => {
      let grads = given;
      for (const hook of this.#hooks.backwardPre) grads = replaced(hook(this.#module, seen(grads)), grads);
      this.#gradOutput = grads;
      // Without an input that needs a gradient, nothing else would call the hooks.
      if (!this.#inputs.some((input) => input.requires_grad))
        this.#inputGradients(this.#inputs.map(() => null));
      return grads;
    });
  }

  #inputGradients(given: Gradients): Gradients {
    let grads = given;
    for (const hook of this.#hooks.backward)
      grads = replaced(hook(this.#module, seen(grads), seen(this.#gradOutput)), grads);
    return grads;
  }
}

function replaced(result: Replacement, given: Gradients): Gradients {
  if (!result) return given;
  return Array.isArray(result) ? (result as Gradients) : [result as Tensor];
}

/**
 * `value` with its tensors passed through one node of the autograd graph: `onGrads` sees the gradients of all of
 * them at once and gives back those that flow on. A tensor that took no part in the result has a gradient of zeros.
 */
function throughOneNode<T>(value: T, onGrads: (grads: Gradients) => Gradients): T {
  const all = tensorsIn(value);
  const tensors = all.filter((tensor) => tensor.requires_grad);
  const [first] = tensors;
  if (first === undefined) return value;

  /** Positions among all tensors ↔ positions among those with gradients. */
  const call = (grads: readonly Tensor[]): Tensor[] => {
    const queue = [...grads];
    const result = onGrads(all.map((tensor) => (tensor.requires_grad ? (queue.shift() ?? null) : null)));
    const wanted = result.length === all.length ? result.filter((_, i) => all[i]?.requires_grad) : result;
    return grads.map((grad, i) => wanted[i] ?? grad);
  };

  const passed = tensors.length === 1 ? [watchOne(first, call)] : watchMany(tensors, call);
  let next = 0;
  return mapTensors(value, (tensor) => (tensor.requires_grad ? (passed[next++] as Tensor) : tensor));
}

function watchOne(tensor: Tensor, call: (grads: readonly Tensor[]) => Tensor[]): Tensor {
  const view = tensor.view_as(tensor);
  view.register_hook((grad) => call([grad])[0]);
  return view;
}

/** Lays the tensors end to end (in the first one's place and the widest dtype) and takes them apart again. */
function watchMany(tensors: readonly Tensor[], call: (grads: readonly Tensor[]) => Tensor[]): Tensor[] {
  const { device } = tensors[0] as Tensor;
  const sizes = tensors.map((tensor) => tensor.numel());
  const flatten = (parts: readonly Tensor[]) => cat(parts.map((part) => part.reshape([-1]).to({ device })));
  const unflatten = (flat: Tensor) =>
    flat.split(sizes).map((part, i) => {
      const { shape, dtype, device } = tensors[i] as Tensor;
      return part.reshape(shape).to({ device, dtype });
    });

  const flat = flatten(tensors);
  flat.register_hook((grad) => flatten(call(unflatten(grad))).to({ dtype: flat.dtype }));
  return unflatten(flat);
}

type Wrapped = (() => Forward) & { assigned?: PropertyDescriptor | undefined };

/** While there are hooks, `forward` is a property of the instance that runs them around the real one. */
export function wrapForward(owner: object, hooks: ForwardHooks): void {
  const own = Object.getOwnPropertyDescriptor(owner, "forward");
  if (hooks.size === 0) {
    const assigned = (own?.get as Wrapped | undefined)?.assigned;
    delete (owner as { forward?: Forward }).forward;
    if (assigned) Object.defineProperty(owner, "forward", assigned);
  } else if (!own?.get) {
    let inner: Forward | undefined = own?.value;
    const run = (...args: unknown[]) =>
      hooks.run(
        owner,
        (...given) => (inner ?? (Object.getPrototypeOf(owner).forward as Forward)).apply(owner, given),
        args,
      );
    const get: Wrapped = () => run;
    get.assigned = own;
    // A forward assigned while there are hooks goes under them.
    const set = (value: Forward) => {
      inner = value;
      get.assigned = { value, writable: true, enumerable: false, configurable: true };
    };
    Object.defineProperty(owner, "forward", { get, set, enumerable: false, configurable: true });
  }
}
