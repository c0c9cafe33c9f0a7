// Gradients: what a tensor knows of them, the modes, and torch.autograd.
import type { TypedArray } from "../addon/addon.ts";
import { addon } from "../addon/loader.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import { tensorOp } from "./native_op.ts";
import { readOptions } from "./options.ts";
import { adopt, extendTensor, Tensor, type TensorData } from "./tensor.ts";
import type { RemovableHandle } from "./types.ts";

export interface BackwardOptions {
  /** Gradient of some loss with respect to this tensor; may be left out for a single value. */
  gradient?: Tensor | null | undefined;
  /** Keep the graph for another backward. Default: `create_graph`. */
  retain_graph?: boolean | null | undefined;
  /** Make the gradients differentiable. Default false. */
  create_graph?: boolean | undefined;
  /** Accumulate into these leaves only. Default: all. */
  inputs?: Tensor | readonly Tensor[] | null | undefined;
}

export interface AutogradMethods {
  /** Whether operations on this tensor are recorded for `backward`. */
  get requires_grad(): boolean;
  set requires_grad(value: boolean);
  /** The gradient that `backward` accumulated, or null. */
  get grad(): Tensor | null;
  set grad(value: Tensor | null);
  /**
   * The same memory without history: `p.data.mul_(2)`, `p.data = other`. Called, it gives the values:
   * `await t.data()` resolves to a typed array, contiguous, bfloat16 and float16 as Float32Array (`{ raw: true }`: their bits).
   */
  get data(): TensorData;
  set data(value: Tensor);
  /** Made by the user, not by an operation that is recorded. */
  readonly is_leaf: boolean;
  /** Name of the graph's node that made this tensor ("AddBackward0"), or null. */
  readonly grad_fn: string | null;
  readonly output_nr: number;
  /**
   * Adds the gradients of all leaves that this tensor was computed from to their `grad`.
   *
   * @example
   * loss.backward();
   */
  backward(
    gradient?: Tensor | null,
    retain_graph?: boolean | null,
    create_graph?: boolean,
    options?: BackwardOptions,
  ): void;
  backward(options: BackwardOptions): void;
  backward(gradient: Tensor | null, options: BackwardOptions): void;
  requires_grad_(requires_grad?: boolean): this;
  /** Keeps the gradient of a tensor that is not a leaf. */
  retain_grad(): void;
  /** `hook` sees the gradient each time it is computed and may return another one. */
  // biome-ignore lint/suspicious/noConfusingVoidType: a hook may have no return statement
  register_hook(hook: (grad: Tensor) => Tensor | null | undefined | void): RemovableHandle;
  /** `hook` is called with this leaf after its `grad` has been added to. */
  register_post_accumulate_grad_hook(hook: (parameter: Tensor) => void): RemovableHandle;
}

const handles = (tensors: Tensor | readonly Tensor[]): number[] =>
  (tensors instanceof Tensor ? [tensors] : tensors).map(({ _handle }) => _handle);

/** `p.data`: its handle is made on first use, since a call for the values needs none. */
function dataOf(tensor: Tensor): TensorData {
  const values = async ({ raw = false }: { raw?: boolean } = {}): Promise<TypedArray> =>
    addon().toData(tensor._handle, raw);
  let handle: number | undefined;
  Object.setPrototypeOf(values, Tensor.prototype);
  Object.defineProperty(values, "_handle", {
    get: () => (handle ??= addon().variableData(values, tensor._handle)),
    set: (value: number) => {
      handle = value;
    },
  });
  return values as unknown as TensorData;
}

const removable = (id: number): RemovableHandle => {
  const remove = () => addon().removeHook(id);
  return { remove, [Symbol.dispose]: remove };
};

extendTensor({
  get requires_grad(): boolean {
    return addon().requiresGrad((this as unknown as Tensor)._handle);
  },
  set requires_grad(value: boolean) {
    addon().setRequiresGrad((this as unknown as Tensor)._handle, value);
  },
  get grad(): Tensor | null {
    const grad = new Tensor();
    grad._handle = addon().grad(grad, (this as unknown as Tensor)._handle);
    return grad._handle === 0 ? null : grad;
  },
  set grad(value: Tensor | null | undefined) {
    addon().setGrad((this as unknown as Tensor)._handle, value?._handle ?? 0);
  },
  get data(): TensorData {
    return dataOf(this as unknown as Tensor);
  },
  set data(value: Tensor) {
    addon().rebind((this as unknown as Tensor)._handle, value._handle);
  },
  get is_leaf(): boolean {
    return addon().isLeaf((this as unknown as Tensor)._handle);
  },
  get grad_fn(): string | null {
    return addon().gradFn((this as unknown as Tensor)._handle);
  },
  get output_nr(): number {
    return addon().outputNr((this as unknown as Tensor)._handle);
  },
  backward(this: Tensor, ...args: unknown[]): void {
    const options = readOptions("backward", args, [
      "gradient",
      "retain_graph",
      "create_graph",
      "inputs",
    ]) as BackwardOptions;
    const { gradient, create_graph = false, retain_graph, inputs } = options;
    const grads = gradient ? [gradient._handle] : null;
    addon().backward(
      [this._handle],
      grads,
      retain_graph ?? create_graph,
      create_graph,
      inputs ? handles(inputs) : null,
    );
  },
  requires_grad_(this: Tensor, requires_grad = true): Tensor {
    addon().setRequiresGrad(this._handle, requires_grad);
    return this;
  },
  retain_grad(this: Tensor): void {
    addon().retainGrad(this._handle);
  },
  register_hook(this: Tensor, hook: (grad: Tensor) => Tensor | null | undefined): RemovableHandle {
    return removable(addon().registerHook(this._handle, (handle) => hook(adopt(handle))?._handle ?? 0));
  },
  register_post_accumulate_grad_hook(this: Tensor, hook: (parameter: Tensor) => void): RemovableHandle {
    return removable(addon().registerPostAccumulateGradHook(this._handle, () => hook(this)));
  },
});

// Modes -------------------------------------------------------------------------------------------------------

/** Runs `body` between `enter` and `leave`; a promise would outlive them, so it is refused. */
export function scoped<T>(name: string, enter: () => void, leave: () => void, body: () => T): T {
  enter();
  try {
    const result = body();
    if (typeof (result as { then?: unknown } | null | undefined)?.then === "function") {
      throw new InvalidArgumentError(`[${name}] the callback returned a promise.`, {
        hint: "Its state belongs to this thread and ends with the callback: await outside of it, and call it around synchronous work.",
      });
    }
    return result;
  } finally {
    leave();
  }
}

function withGradMode<T>(name: string, enabled: boolean, body: () => T): T {
  const native = addon();
  const before = native.gradMode();
  return scoped(
    name,
    () => native.setGradMode(enabled),
    () => native.setGradMode(before),
    body,
  );
}

/**
 * Runs a callback without recording gradients, and returns its result.
 *
 * @example
 * const y = torch.no_grad(() => model.forward({ input_ids }));
 */
export const no_grad = <T>(body: () => T): T => withGradMode("no_grad", false, body);

/** Records gradients within `no_grad`. */
export const enable_grad = <T>(body: () => T): T => withGradMode("enable_grad", true, body);

/** Switches recording for a callback, or from now on. */
export function set_grad_enabled(enabled: boolean): void;
export function set_grad_enabled<T>(enabled: boolean, body: () => T): T;
export function set_grad_enabled<T>(enabled: boolean, body?: () => T): T | undefined {
  if (body) return withGradMode("set_grad_enabled", enabled, body);
  addon().setGradMode(enabled);
  return undefined;
}

/** Whether operations are recorded for backward. */
export const is_grad_enabled = (): boolean => addon().gradMode();

/** Like `no_grad`, and faster; what is made within cannot take part in later recording. */
export function inference_mode<T>(body: () => T): T;
export function inference_mode<T>(enabled: boolean, body: () => T): T;
export function inference_mode<T>(enabled: boolean | (() => T), body?: () => T): T {
  const native = addon();
  const mode = typeof enabled === "boolean" ? enabled : true;
  const run = typeof enabled === "function" ? enabled : (body as () => T);
  return scoped(
    "inference_mode",
    () => native.pushInferenceMode(mode),
    () => native.popInferenceMode(),
    run,
  );
}

/** Whether `inference_mode` is on. */
export const is_inference_mode_enabled = (): boolean => addon().inferenceMode();

export interface AutocastOptions {
  /** Default: bfloat16 on the CPU, float16 on CUDA. */
  dtype?: "bfloat16" | "float16" | undefined;
  /** Default true. */
  enabled?: boolean | undefined;
}

/**
 * Runs a callback with mixed precision: matrix products in `dtype`, what needs it in float32.
 *
 * @example
 * const loss = torch.autocast("cuda", { dtype: "bfloat16" }, () => model.forward(batch).loss);
 */
export function autocast<T>(device_type: string, body: () => T): T;
export function autocast<T>(device_type: string, options: AutocastOptions, body: () => T): T;
export function autocast<T>(device_type: string, options: AutocastOptions | (() => T), body?: () => T): T {
  const native = addon();
  const { enabled = true, dtype } = typeof options === "function" ? {} : options;
  const before = native.autocast(device_type);
  return scoped(
    "autocast",
    () => native.setAutocast(device_type, enabled, dtype ?? (device_type === "cpu" ? "bfloat16" : "float16")),
    () => {
      native.setAutocast(device_type, before.enabled, before.dtype);
      if (!before.enabled) native.clearAutocastCache();
    },
    typeof options === "function" ? options : (body as () => T),
  );
}

/** Whether `autocast` is on. */
export const is_autocast_enabled = (device_type = "cuda"): boolean => addon().autocast(device_type).enabled;

// torch.autograd ----------------------------------------------------------------------------------------------

export interface GradOptions {
  grad_outputs?: Tensor | readonly (Tensor | null)[] | null | undefined;
  retain_graph?: boolean | null | undefined;
  create_graph?: boolean | undefined;
  /** Give null for inputs that took no part, instead of an error. Default: `materialize_grads`. */
  allow_unused?: boolean | null | undefined;
  /** Give zeros for inputs that took no part. Default false. */
  materialize_grads?: boolean | undefined;
}

const gradHandles = (grads: GradOptions["grad_outputs"]): number[] | null =>
  grads == null ? null : (grads instanceof Tensor ? [grads] : grads).map((grad) => grad?._handle ?? 0);

/**
 * Gradients of `outputs` with respect to `inputs`, without touching any `grad`.
 *
 * @example
 * const [dx] = torch.autograd.grad(y.sum(), [x]);
 */
export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: Tensor | readonly Tensor[],
  options?: GradOptions & { allow_unused?: false },
): Tensor[];
export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: Tensor | readonly Tensor[],
  options: GradOptions,
): (Tensor | null)[];
export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: Tensor | readonly Tensor[],
  {
    grad_outputs,
    retain_graph,
    create_graph = false,
    materialize_grads = false,
    allow_unused,
  }: GradOptions = {},
): (Tensor | null)[] {
  const keepGraph = retain_graph ?? create_graph;
  const unused = allow_unused ?? materialize_grads;
  const sources = inputs instanceof Tensor ? [inputs] : inputs;
  const found = addon().autogradGrad(
    handles(outputs),
    gradHandles(grad_outputs),
    handles(sources),
    keepGraph,
    create_graph,
    unused,
  );
  return found.map((handle, i) => {
    if (handle) return adopt(handle);
    if (!materialize_grads) return null;
    return tensorOp("zeros_like", "", (sources[i] as Tensor)._handle);
  });
}

/** `backward` of several tensors at once. */
export function backward(
  tensors: Tensor | readonly Tensor[],
  {
    grad_tensors,
    retain_graph,
    create_graph = false,
    inputs,
  }: {
    grad_tensors?: Tensor | readonly (Tensor | null)[] | null;
    retain_graph?: boolean | null;
    create_graph?: boolean;
    inputs?: Tensor | readonly Tensor[] | null;
  } = {},
): void {
  addon().backward(
    handles(tensors),
    gradHandles(grad_tensors),
    retain_graph ?? create_graph,
    create_graph,
    inputs ? handles(inputs) : null,
  );
}

/** Finds the forward operation whose gradient is not a number or fails; slow. */
export const set_detect_anomaly = (enabled: boolean): void => addon().detectAnomaly(enabled);
