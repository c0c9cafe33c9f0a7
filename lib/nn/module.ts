// Module: the base of all layers and models. What it holds is what its own enumerable properties hold.
//
// Over 500 lines because torch's Module is one class, and each method is short; walking the tree, printing, hooks and the
// reading of state dicts live in their own files.

import { inspect } from "node:util";
import { announceOwner } from "../compile/owners.ts";
import { ConfigFieldError, InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { type Device, type Dtype, keep, no_grad, type RemovableHandle, Tensor } from "../torch/index.ts";
import { bind } from "./arguments.ts";
import { type Around, ForwardHooks, type Gradients, type Replacement, wrapForward } from "./hooks.ts";
import { countModule, isInitial, markInitial } from "./initial_values.ts";
import { printModule, summarize } from "./module_print.ts";
import { isFloatOrComplex, parseTo, type ToOptions } from "./module_to.ts";
import {
  lookUp,
  type NamedRest,
  namedTensors,
  type OwnState,
  type RecurseRest,
  walkModules,
} from "./module_walk.ts";
import { Buffer, clearGrad, Parameter } from "./parameter.ts";
import {
  type IncompatibleKeys,
  type LoadContext,
  loadOwnState,
  loadStateDict,
  type StateDict,
  StateDictHooks,
  saveState,
} from "./state_dict.ts";

type Kind = "parameter" | "buffer" | "module";
type Properties = Record<string, unknown>;

/**
 * Base class of all layers and models.
 *
 * A property that holds a `Parameter`, a registered buffer or a `Module` is part of the state, under its name;
 * nested names are joined by dots. `#private` fields are not looked at.
 *
 * @example
 * class Net extends nn.Module {
 *   readonly fc: nn.Linear;
 *   constructor() {
 *     super();
 *     this.fc = new nn.Linear(4, 2);
 *   }
 *   override forward(x: Tensor): Tensor {
 *     return this.fc.forward(x).relu();
 *   }
 * }
 */
export class Module {
  /** Version of the layout of this class's own state, stored beside the state dict. */
  static _version = 1;

  training = true;
  /** Names of registered buffers, and whether they are stored. */
  readonly #buffers = new Map<string, { value: Tensor | null; persistent: boolean }>();
  /** Names that once held state, for the search for overwritten fields. */
  readonly #known = new Map<string, Kind>();
  #forwardHooks: ForwardHooks | undefined;
  #stateDictHooks: StateDictHooks | undefined;

  constructor() {
    announceOwner(this);
    countModule();
  }

  /** What the module computes; each subclass writes its own. Hooks stand around it. */
  forward(..._args: never[]): unknown {
    throw new InvalidArgumentError(
      `Module [${this._get_name()}] is missing the required "forward" function.`,
    );
  }

  // state ---------------------------------------------------------------------------------------------------

  /**
   * Adds a tensor that is part of the state and is not trained, such as a running mean. Replace it by assignment.
   *
   * @param tensor null keeps the name free.
   * @param options.persistent whether it is stored in the state dict; default true.
   */
  register_buffer(
    name: string,
    tensor: Tensor | null,
    options: { persistent?: boolean | undefined } = {},
  ): void {
    const { persistent } = bind("register_buffer", [options], { persistent: true });
    this.#claim("buffer", name, tensor === null || tensor instanceof Tensor, tensor);
    const entry = { value: tensor, persistent };
    this.#buffers.set(name, entry);
    if (tensor) keep(tensor);
    // An accessor, so that a tensor assigned later also outlives the memory scope it was made in.
    Object.defineProperty(this, name, {
      get: () => entry.value,
      set: (value: Tensor | null) => {
        if (value instanceof Parameter) this.#setPlain(name, value);
        else if (value !== null && !(value instanceof Tensor)) throw notA(this, "buffer", name, value);
        else {
          entry.value = value;
          if (value) keep(value);
        }
      },
      enumerable: true,
      configurable: true,
    });
  }

  /** Adds a parameter under a name that is computed; same as assigning it. null keeps the name free. */
  register_parameter(name: string, parameter: Parameter | null): void {
    this.#claim("parameter", name, parameter === null || parameter instanceof Parameter, parameter);
    this.#setPlain(name, parameter);
  }

  /** Adds a child under a name that is computed; same as assigning it. null keeps the name free. */
  add_module(name: string, module: Module | null): void {
    this.#claim("module", name, module === null || module instanceof Module, module);
    this.#setPlain(name, module);
  }

  /** Same as {@link add_module}. */
  register_module(name: string, module: Module | null): void {
    this.add_module(name, module);
  }

  /**
   * What the properties of this module itself hold.
   *
   * @throws InvalidArgumentError for an array of modules or parameters, which would be lost.
   * @throws ConfigFieldError for a registered name that a class field has overwritten.
   */
  _own_state(): OwnState {
    const parameters: [string, Parameter][] = [];
    const buffers: [string, Tensor][] = [];
    const children: [string, Module][] = [];
    for (const name of Object.keys(this)) {
      const value = (this as unknown as Properties)[name];
      if (value === undefined) {
        if (this.#known.has(name)) throw overwritten(this, name, this.#known.get(name) as Kind);
      } else if (value instanceof Tensor) {
        if (value instanceof Parameter) parameters.push([name, value]);
        else if (value instanceof Buffer || this.#buffers.has(name)) buffers.push([name, value]);
      } else if (value instanceof Module) {
        children.push([name, value]);
      } else if (Array.isArray(value)) {
        this.#refuseArray(name, value);
      }
    }
    return { parameters, buffers, children };
  }

  /** Whether a buffer of this module is stored in its state dict. */
  _is_persistent(name: string): boolean {
    const value = (this as unknown as Properties)[name];
    return value instanceof Buffer ? value.persistent : (this.#buffers.get(name)?.persistent ?? false);
  }

  /**
   * Finds class fields that overwrote what an earlier constructor had stored: what is state now must still be there
   * at the next call. A base class calls it at the end of its constructor, and again when construction is over.
   *
   * @throws ConfigFieldError that names the field and the rule.
   */
  assertFieldsIntact(): void {
    for (const [name, kind] of this.#known) {
      if (Object.hasOwn(this, name) && (this as unknown as Properties)[name] === undefined)
        throw overwritten(this, name, kind);
    }
    const { parameters, buffers, children } = this._own_state();
    this.#known.clear();
    for (const [name] of parameters) this.#known.set(name, "parameter");
    for (const [name] of buffers) this.#known.set(name, "buffer");
    for (const [name] of children) this.#known.set(name, "module");
  }

  #setPlain(name: string, value: unknown): void {
    this.#buffers.delete(name);
    Object.defineProperty(this, name, { value, writable: true, enumerable: true, configurable: true });
  }

  #claim(kind: Kind, name: string, valid: boolean, value: unknown): void {
    if (typeof name !== "string")
      throw new InvalidArgumentError(`The name of a ${kind} must be a string, got ${typeof name}.`);
    if (name === "") throw new InvalidArgumentError(`The name of a ${kind} can't be empty.`);
    if (name.includes("."))
      throw new InvalidArgumentError(`The name of a ${kind} can't contain ".", got "${name}".`);
    if (!valid) throw notA(this, kind, name, value);
    const taken = name in this && !this.#known.has(name) && !this.#isState(name);
    if (taken && (this as unknown as Properties)[name] !== undefined) {
      throw new InvalidArgumentError(`${this._get_name()} already has a property '${name}'.`);
    }
    this.#known.set(name, kind);
  }

  #isState(name: string): boolean {
    const value = (this as unknown as Properties)[name];
    return value === null || value instanceof Tensor || value instanceof Module;
  }

  #refuseArray(name: string, value: readonly unknown[]): void {
    const item = value.find((item) => item instanceof Module || item instanceof Parameter);
    if (item === undefined) return;
    const [what, list] = item instanceof Module ? ["modules", "ModuleList"] : ["parameters", "ParameterList"];
    throw new InvalidArgumentError(
      `${this._get_name()}.${name} is a plain array of ${what}, which would be no part of the model. Use nn.${list}.`,
    );
  }

  // walking -------------------------------------------------------------------------------------------------

  /** Pairs of dotted name and module, this one first under the name `prefix`. */
  named_modules(
    options: { prefix?: string | undefined; remove_duplicate?: boolean | undefined } = {},
  ): Generator<[string, Module]> {
    const { prefix, remove_duplicate } = bind("named_modules", [options], {
      prefix: "",
      remove_duplicate: true,
    });
    return walkModules(this, prefix, remove_duplicate ? new Set() : null);
  }

  /** All modules in the tree, each once, this one first. */
  *modules(): Generator<Module> {
    for (const [, module] of this.named_modules()) yield module;
  }

  /** Pairs of name and direct child, each child once. */
  *named_children(): Generator<[string, Module]> {
    const met = new Set<Module>();
    for (const [name, child] of this._own_state().children) {
      if (met.has(child)) continue;
      met.add(child);
      yield [name, child];
    }
  }

  *children(): Generator<Module> {
    for (const [, child] of this.named_children()) yield child;
  }

  /** Pairs of dotted name and parameter; a tied one comes once, under its first name. */
  named_parameters(...rest: NamedRest): Generator<[string, Parameter]> {
    return namedTensors(this, "named_parameters", rest, (module) => module._own_state().parameters);
  }

  *parameters(...rest: RecurseRest): Generator<Parameter> {
    for (const [, parameter] of this.named_parameters(bind("parameters", rest, { recurse: true })))
      yield parameter;
  }

  /** Pairs of dotted name and buffer, stored in the state dict or not. */
  named_buffers(...rest: NamedRest): Generator<[string, Tensor]> {
    return namedTensors(this, "named_buffers", rest, (module) => module._own_state().buffers);
  }

  *buffers(...rest: RecurseRest): Generator<Tensor> {
    for (const [, buffer] of this.named_buffers(bind("buffers", rest, { recurse: true }))) yield buffer;
  }

  /** The module at a dotted path; "" is this one. */
  get_submodule(target: string): Module {
    let module: Module = this;
    for (const name of target === "" ? [] : target.split(".")) {
      const next: unknown = (module as unknown as Properties)[name];
      if (!(next instanceof Module)) {
        const known = module._own_state().children.map(([child]) => child);
        throw new InvalidArgumentError(
          `${module._get_name()} has no module '${name}' (looking for '${target}').`,
          {
            suggestion: suggest(name, known),
          },
        );
      }
      module = next;
    }
    return module;
  }

  /**
   * Puts a module in the place of the one at a dotted path; the same as assigning it there.
   *
   * @param options.strict refuse a path where there is no module yet; default false.
   * @example model.set_submodule("layers.0.attn", new MyAttention(config));
   */
  set_submodule(
    target: string,
    module: Module,
    ...rest: [options?: { strict?: boolean | undefined }] | [strict: boolean]
  ): void {
    const { strict } = bind("set_submodule", rest, { strict: false });
    if (target === "")
      throw new InvalidArgumentError("set_submodule needs the path of the module to replace.");
    const dot = target.lastIndexOf(".");
    const name = target.slice(dot + 1);
    const parent = this.get_submodule(target.slice(0, Math.max(dot, 0)));
    const present = (parent as unknown as Properties)[name];
    if (!(module instanceof Module)) throw notA(parent, "module", name, module);
    if (!(present instanceof Module) && (strict || name in parent)) {
      throw new InvalidArgumentError(
        `${parent._get_name()} has no module '${name}' (replacing '${target}').`,
        {
          suggestion: suggest(
            name,
            parent._own_state().children.map(([child]) => child),
          ),
        },
      );
    }
    (parent as unknown as Properties)[name] = module;
  }

  /** The parameter at a dotted path. */
  get_parameter(target: string): Parameter {
    return lookUp(this, target, "parameter", (module) => module._own_state().parameters);
  }

  /** The buffer at a dotted path. */
  get_buffer(target: string): Tensor {
    return lookUp(this, target, "buffer", (module) => module._own_state().buffers);
  }

  /** Calls `fn` for every module of the tree, children before their parents. */
  apply(fn: (module: Module) => void): this {
    for (const child of this.children()) child.apply(fn);
    fn(this);
    return this;
  }

  // moving and modes ----------------------------------------------------------------------------------------

  /**
   * Moves and casts parameters and buffers in place: the Tensor objects stay, what they hold changes.
   *
   * @throws InvalidArgumentError for an integer dtype.
   * @example model.to("cuda:0"); model.to("bfloat16"); model.to({ device: "cpu", dtype: "float32" });
   */
  to(
    target: Device | number | Dtype | Tensor,
    ...rest: [dtype?: Dtype | ToOptions, non_blocking?: boolean]
  ): this;
  to(options: ToOptions): this;
  to(target: Device | number | Tensor | ToOptions, ...rest: unknown[]): this {
    const { device, dtype, non_blocking } = parseTo(target, rest);
    if (dtype && !isFloatOrComplex(dtype)) {
      throw new InvalidArgumentError(`Module.to takes a floating point or complex dtype, got ${dtype}.`);
    }
    return this._apply((tensor) => {
      if (tensor.is_meta && device && device !== "meta") throw emptyModule(this);
      const cast = tensor.is_floating_point() || tensor.is_complex() ? (dtype ?? tensor.dtype) : tensor.dtype;
      return tensor.to({ device: device ?? tensor.device, dtype: cast, non_blocking });
    });
  }

  /** Moves to `device` without the values: the new memory is not initialised. The way off the `meta` device. */
  to_empty(options: { device: Device; recurse?: boolean | undefined }): this {
    const { device, recurse } = bind("to_empty", [options], { device: "cpu", recurse: true });
    return this._apply((tensor) => tensor.new_empty(tensor.shape, { device, dtype: tensor.dtype }), {
      recurse,
    });
  }

  /** Casts parameters and buffers of every kind, integers too. */
  type(dtype: Dtype): this {
    return this._apply((tensor) => tensor.to({ dtype }));
  }

  float(): this {
    return this.to("float32");
  }

  double(): this {
    return this.to("float64");
  }

  half(): this {
    return this.to("float16");
  }

  bfloat16(): this {
    return this.to("bfloat16");
  }

  cpu(): this {
    return this.to("cpu");
  }

  cuda(device: number | Device = "cuda"): this {
    return this.to(typeof device === "number" ? `cuda:${device}` : device);
  }

  /** Puts `fn(tensor)` into each parameter, its gradient, and each buffer; a shared tensor is treated once. */
  _apply(fn: (tensor: Tensor) => Tensor, { recurse = true }: { recurse?: boolean | undefined } = {}): this {
    no_grad(() => {
      for (const tensor of [...this.parameters({ recurse }), ...this.buffers({ recurse })]) {
        const { grad } = tensor;
        // The gradient must fit its tensor at each moment, so it is taken off in between.
        if (grad) tensor.grad = null;
        const initial = isInitial(tensor);
        tensor.data = fn(tensor);
        if (initial) markInitial(tensor);
        if (grad) tensor.grad = fn(grad);
      }
    });
    return this;
  }

  /** Training mode for the whole tree: dropout and batch norm behave differently. Default: on. */
  train(mode = true): this {
    if (typeof mode !== "boolean")
      throw new InvalidArgumentError(`train() takes a boolean, got ${typeof mode}.`);
    for (const module of this.modules()) module.training = mode;
    return this;
  }

  /** Same as `train(false)`. */
  eval(): this {
    return this.train(false);
  }

  /** Switches the recording of gradients for all parameters. */
  requires_grad_(requires_grad = true): this {
    for (const parameter of this.parameters()) parameter.requires_grad_(requires_grad);
    return this;
  }

  /** Drops the gradients of all parameters, or fills them with zeros. */
  zero_grad(options: { set_to_none?: boolean | undefined } = {}): void {
    const { set_to_none } = bind("zero_grad", [options], { set_to_none: true });
    for (const parameter of this.parameters()) clearGrad(parameter, set_to_none);
  }

  /** Gives up all parameters and buffers; their memory is freed once nothing else needs it. Later use is a DisposedError. */
  dispose(): void {
    for (const tensor of [...this.parameters(), ...this.buffers()]) if (!tensor.is_disposed) tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  // hooks ---------------------------------------------------------------------------------------------------

  /** Calls `hook` before each forward. What it returns, other than undefined, replaces the arguments. */
  register_forward_pre_hook(
    // biome-ignore lint/suspicious/noExplicitAny: the arguments are those of the module's own forward.
    hook: (module: this, args: any) => unknown,
    options: { prepend?: boolean } = {},
  ): RemovableHandle {
    return this.#hooks().pre.add(hook, options);
  }

  /** Calls `hook` after each forward. What it returns, other than undefined, replaces the output. */
  register_forward_hook(
    // biome-ignore lint/suspicious/noExplicitAny: arguments and output are those of the module's own forward.
    hook: (module: this, args: any, output: any) => unknown,
    options: { prepend?: boolean } = {},
  ): RemovableHandle {
    return this.#hooks().post.add(hook, options);
  }

  /**
   * Calls `hook` when the gradients with respect to the inputs are there. What it returns, other than undefined,
   * replaces them. Inputs and outputs are the tensors in the arguments and in the result, in their order.
   */
  register_full_backward_hook(
    hook: (module: this, grad_input: Gradients, grad_output: Gradients) => Replacement,
    options: { prepend?: boolean } = {},
  ): RemovableHandle {
    return this.#hooks().backward.add(hook, options);
  }

  /** Calls `hook` when the gradients of the outputs are there, before the module's own backward. */
  register_full_backward_pre_hook(
    hook: (module: this, grad_output: Gradients) => Replacement,
    options: { prepend?: boolean } = {},
  ): RemovableHandle {
    return this.#hooks().backwardPre.add(hook, options);
  }

  /** Whether hooks stand around the forward of this module itself that a recording would not see. */
  _has_forward_hooks(): boolean {
    return this.#forwardHooks?.isOpaque ?? false;
  }

  /** Puts `around` in the place of forward, under all hooks; it is handed the forward that it stands for. */
  _wrap_forward(around: Around): RemovableHandle {
    return this.#hooks().around.add(around);
  }

  #hooks(): ForwardHooks {
    this.#forwardHooks ??= new ForwardHooks((hooks) => wrapForward(this, hooks));
    return this.#forwardHooks;
  }

  // state dicts ---------------------------------------------------------------------------------------------

  /**
   * All parameters and stored buffers by their dotted names, as tensors that share their memory.
   *
   * @param options.prefix put before each name as it is. @param options.keep_vars give the Parameter objects themselves.
   */
  state_dict(
    options: {
      destination?: StateDict | undefined;
      prefix?: string | undefined;
      keep_vars?: boolean | undefined;
    } = {},
  ): StateDict {
    const { destination, prefix, keep_vars } = bind("state_dict", [options], {
      destination: undefined as StateDict | undefined,
      prefix: "",
      keep_vars: false,
    });
    return saveState(this, destination, prefix, keep_vars);
  }

  /**
   * Copies values into the parameters and buffers.
   *
   * @param options.strict demand the same names on both sides; default true.
   * @param options.assign let the parameters hold the given tensors, with their dtype and device, instead of copying; default false.
   * @throws CheckpointError that lists missing and unexpected names and sizes that differ.
   */
  load_state_dict(
    state_dict: Readonly<StateDict>,
    ...rest:
      | [options?: { strict?: boolean | undefined; assign?: boolean | undefined }]
      | [strict: boolean, assign?: boolean]
  ): IncompatibleKeys {
    return loadStateDict(this, state_dict, bind("load_state_dict", rest, { strict: true, assign: false }));
  }

  /** Writes this module's own part into `destination`; children are not its concern. */
  _save_to_state_dict(destination: StateDict, prefix: string, keep_vars: boolean): void {
    const { parameters, buffers } = this._own_state();
    for (const [name, tensor] of [...parameters, ...buffers.filter(([name]) => this._is_persistent(name))]) {
      destination[prefix + name] = keep_vars ? tensor : tensor.detach();
    }
  }

  /** Reads this module's own part out of `state_dict`. Override to accept older layouts, then call `super`. */
  _load_from_state_dict(...context: LoadContext): void {
    loadOwnState(this, ...context);
  }

  /** Whether hooks rearrange what this module itself is about to load. */
  _has_load_hooks(): boolean {
    return (this.#stateDictHooks?.preLoad.size ?? 0) > 0;
  }

  /** Hook lists around saving and loading; made when first asked for. */
  _state_dict_hooks(): StateDictHooks {
    this.#stateDictHooks ??= new StateDictHooks();
    return this.#stateDictHooks;
  }

  /** `hook(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)`, before this module loads. */
  _register_load_state_dict_pre_hook(hook: (...context: LoadContext) => void): RemovableHandle {
    return this._state_dict_hooks().preLoad.add(hook);
  }

  /** Like {@link _register_load_state_dict_pre_hook}, with the module as first argument. */
  register_load_state_dict_pre_hook(hook: (module: this, ...context: LoadContext) => void): RemovableHandle {
    return this._state_dict_hooks().preLoad.add((...context) => hook(this, ...context));
  }

  /** `hook(module, incompatible_keys)`, after this module and its children have loaded; it may edit the lists. */
  register_load_state_dict_post_hook(
    hook: (module: this, incompatible_keys: IncompatibleKeys) => void,
  ): RemovableHandle {
    return this._state_dict_hooks().postLoad.add((keys) => hook(this, keys));
  }

  /** `hook(module, prefix, keep_vars)`, before this module's part is written. */
  register_state_dict_pre_hook(
    hook: (module: this, prefix: string, keep_vars: boolean) => void,
  ): RemovableHandle {
    return this._state_dict_hooks().preSave.add((prefix, keep_vars) => hook(this, prefix, keep_vars));
  }

  /** `hook(module, state_dict, prefix, local_metadata)`, after this module and its children were written. */
  register_state_dict_post_hook(
    hook: (module: this, state_dict: StateDict, prefix: string, local_metadata: object) => void,
  ): RemovableHandle {
    return this._register_state_dict_hook((module: this, ...args) => {
      hook(module, ...args);
    });
  }

  /** Like {@link register_state_dict_post_hook}; a state dict that it returns replaces the written one. */
  _register_state_dict_hook(
    hook: (
      module: this,
      state_dict: StateDict,
      prefix: string,
      local_metadata: object,
    ) => StateDict | undefined,
  ): RemovableHandle {
    return this._state_dict_hooks().postSave.add((...args) => hook(this, ...args));
  }

  // printing ------------------------------------------------------------------------------------------------

  _get_name(): string {
    return this.constructor.name;
  }

  /** What stands in the brackets after the name: the settings of this layer. */
  extra_repr(): string {
    return "";
  }

  /** The tree of modules as torch prints it. */
  toString(): string {
    return printModule(this);
  }

  /**
   * The tree with the shape, dtype, device and bytes of each tensor; `console.log(model)` prints it.
   *
   * @param options.depth how many levels are opened; default all.
   */
  summary(options: { depth?: number | undefined } = {}): string {
    const { depth } = bind("summary", [options], { depth: Number.POSITIVE_INFINITY });
    return summarize(this, depth);
  }

  [inspect.custom](): string {
    return summarize(this, Number.POSITIVE_INFINITY);
  }
}

function notA(module: Module, kind: Kind, name: string, value: unknown): InvalidArgumentError {
  const expected = { parameter: "a Parameter", buffer: "a Tensor", module: "a Module" }[kind];
  const got = typeof value === "object" ? (value?.constructor.name ?? "null") : typeof value;
  return new InvalidArgumentError(
    `${module._get_name()}.${name}: a ${kind} must be ${expected} or null, got ${got}.`,
  );
}

function emptyModule(module: Module): InvalidArgumentError {
  return new InvalidArgumentError(`${module._get_name()} is on the meta device and has no values to copy.`, {
    hint: "Load its weights, or call to_empty({ device }) and initialise it.",
  });
}

function overwritten(module: Module, name: string, kind: Kind): ConfigFieldError {
  return new ConfigFieldError(
    `${module._get_name()}.${name} held a ${kind} and is undefined now: a class field of a subclass overwrote it.`,
    {
      hint: `Write 'declare readonly ${name}: …' in the subclass; assign null to drop a ${kind} on purpose.`,
    },
  );
}
