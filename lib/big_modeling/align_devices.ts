// The hook that brings a module's weights and inputs to where it is computed, and the functions that attach it over a model.
import { recording } from "../compile/session.ts";
import { bind } from "../nn/arguments.ts";
import type { Module } from "../nn/index.ts";
import type { Device, Tensor } from "../torch/index.ts";
import { type Place, placeName } from "./devices.ts";
import { add_hook_to_module, hookOf, ModelHook } from "./hooks.ts";
import { executionDevice } from "./placement.ts";
import { CopyFeeder, type Feeder, homeOf, letRest, settle } from "./residence.ts";
import { findDevice, nameSet, sendTo } from "./send_to_device.ts";
import { isWeightsMap, mapOf, prefixed, type WeightsMap } from "./weights_map.ts";

/** A map of weights, or plain tensors by name. */
export type Weights = WeightsMap | Readonly<Record<string, Tensor>> | ReadonlyMap<string, Tensor>;
type Names = string | Iterable<string> | null;

export const asWeightsMap = (weights: Weights): WeightsMap =>
  isWeightsMap(weights) ? weights : mapOf(weights as Readonly<Record<string, Tensor>>);

export interface AlignDevicesOptions {
  /** Where inputs and weights are while the forward runs. Default: where they are. */
  readonly execution_device?: Place | null | undefined;
  /** Bring the weights for each forward and let them rest between. Default false. */
  readonly offload?: boolean | undefined;
  /** Give the output on the device of the input. Default false. */
  readonly io_same_device?: boolean | undefined;
  /** Values of offloaded weights by their names in the module. Default: copies of them on the CPU. */
  readonly weights_map?: Weights | null | undefined;
  /** Offload buffers too. Default false. */
  readonly offload_buffers?: boolean | undefined;
  /** Treat the weights of all modules inside too. Default false. */
  readonly place_submodules?: boolean | undefined;
  /** Names of arguments and outputs that stay where they are. */
  readonly skip_keys?: Names | undefined;
}

const DEFAULTS = {
  execution_device: undefined as Place | null | undefined,
  offload: false,
  io_same_device: false,
  weights_map: undefined as Weights | null | undefined,
  offload_buffers: false,
  place_submodules: false,
  skip_keys: undefined as Names | undefined,
};

/** Parameters and, if wanted, buffers of a module by name; of all modules inside with `recurse`. */
export function namedTensors(
  module: Module,
  { buffers = true, recurse = false, persistentOnly = false } = {},
): Map<string, Tensor> {
  const found = new Map<string, Tensor>(module.named_parameters({ recurse }));
  if (buffers)
    for (const [name, buffer] of module.named_buffers({ recurse }))
      if (!persistentOnly || isPersistent(module, name)) found.set(name, buffer);
  return found;
}

function isPersistent(module: Module, name: string): boolean {
  const dot = name.lastIndexOf(".");
  return module.get_submodule(name.slice(0, Math.max(dot, 0)))._is_persistent(name.slice(dot + 1));
}

/**
 * Keeps inputs and weights of a module on one device, and with `offload` the weights elsewhere between forwards.
 *
 * A gradient of an offloaded weight is not computed; gradients flow through it to others.
 *
 * @example
 * add_hook_to_module(model, new AlignDevicesHook({ execution_device: "cuda:0", offload: true, place_submodules: true }));
 */
export class AlignDevicesHook extends ModelHook {
  /** Canonical name of the place, or undefined. */
  execution_device: string | undefined;
  readonly offload: boolean;
  readonly io_same_device: boolean;
  readonly offload_buffers: boolean;
  readonly place_submodules: boolean;
  readonly skip_keys: ReadonlySet<string>;
  weights_map: WeightsMap | undefined;
  /** Name → where a weight was when the hook came. */
  original_devices: Readonly<Record<string, string>> = {};
  readonly #inputDevices: (Device | undefined)[] = [];
  #offloaded: ReadonlyMap<string, Tensor> = new Map();
  #feeder: Feeder | undefined;
  #inUse: (Feeder | undefined)[] = [];

  constructor(options: AlignDevicesOptions = {}) {
    super();
    const bound = bind("AlignDevicesHook", [options], DEFAULTS);
    const device = bound.execution_device;
    this.execution_device =
      device === undefined || device === null ? undefined : placeName(device, "execution_device");
    this.offload = bound.offload;
    this.io_same_device = bound.io_same_device;
    this.offload_buffers = bound.offload_buffers;
    this.place_submodules = bound.place_submodules;
    this.skip_keys = nameSet(bound.skip_keys);
    this.weights_map = bound.weights_map ? asWeightsMap(bound.weights_map) : undefined;
  }

  override init_hook<M extends Module>(module: M): M {
    const recurse = this.place_submodules;
    const place = this.execution_device;
    if (!this.offload) {
      if (place === undefined) return module;
      const foreign = new Map<string, Tensor>();
      for (const [name, tensor] of namedTensors(module, { recurse })) {
        const home = pinned.get(tensor);
        if (home === undefined || home === place) settle(tensor, place, name);
        else if (executionDevice(home) !== executionDevice(place)) foreign.set(name, tensor);
      }
      if (foreign.size > 0) this.#feeder = new CopyFeeder(place, foreign);
      return module;
    }
    this.original_devices = Object.fromEntries(
      [...namedTensors(module, { recurse })].map(([name, tensor]) => [name, homeOf(tensor)]),
    );
    const buffers = this.offload_buffers;
    const given = namedTensors(module, { buffers, recurse, persistentOnly: true });
    this.weights_map ??= mapOf(new Map([...given].map(([name, tensor]) => [name, onCpu(tensor)])));
    this.#offloaded = given;
    for (const [name, tensor] of given) {
      // A tied weight that is resident for another module stays so.
      if (!pinned.has(tensor)) letRest(tensor, this.weights_map.source(name));
    }
    if (place !== undefined)
      for (const [name, buffer] of module.named_buffers({ recurse }))
        if (!given.has(name)) settle(buffer, place, name);
    if (given.size > 0) this.#feeder = new CopyFeeder(place ?? "cpu", given);
    return module;
  }

  /** The weights that this hook brings, by their names in the module. */
  get offloaded(): ReadonlyMap<string, Tensor> {
    return this.#offloaded;
  }

  /** Brings the weights in another way from now on; undefined: a copy for each use. */
  useFeeder(feeder: Feeder | undefined): void {
    this.#feeder = feeder ?? new CopyFeeder(this.execution_device ?? "cpu", this.#offloaded);
  }

  override pre_forward(_module: Module, ...args: unknown[]): readonly unknown[] {
    if (this.io_same_device) this.#inputDevices.push(findDevice(args));
    // A run of what is recorded brings its weights by itself.
    const feeder = recording() === undefined ? this.#feeder : undefined;
    try {
      feeder?.acquire();
      this.#inUse.push(feeder);
    } catch (error) {
      if (this.io_same_device) this.#inputDevices.pop();
      throw error;
    }
    if (this.execution_device === undefined) return args;
    return sendTo(args, executionDevice(this.execution_device), this.skip_keys);
  }

  override post_forward(_module: Module, given: unknown): unknown {
    const feeder = this.#inUse.pop();
    const kept = feeder?.keep?.(given) ?? given;
    feeder?.release();
    const device = this.io_same_device ? this.#inputDevices.pop() : undefined;
    return device === undefined ? kept : sendTo(kept, device, this.skip_keys);
  }

  override cancel_forward(_module: Module): void {
    this.#inUse.pop()?.release();
    if (this.io_same_device) this.#inputDevices.pop();
  }

  override detach_hook<M extends Module>(module: M): M {
    if (!this.offload) return module;
    for (const [name, tensor] of this.#offloaded) {
      const device = this.original_devices[name];
      if (device !== undefined && device !== "meta") settle(tensor, device, name);
    }
    return module;
  }

  override get is_traceable(): boolean {
    return this.#feeder === undefined || this.#feeder.isStreamed === true;
  }

  override toString(): string {
    const { execution_device, offload, io_same_device, offload_buffers, place_submodules, skip_keys } = this;
    return `AlignDevicesHook(execution_device=${execution_device}, offload=${offload}, io_same_device=${io_same_device}, offload_buffers=${offload_buffers}, place_submodules=${place_submodules}, skip_keys=${[...skip_keys]})`;
  }
}

/** Tensors that several modules share, and the place where one of them keeps it; others fetch it. */
const pinned = new WeakMap<Tensor, string>();

/** Says where a shared tensor stays; undefined: wherever a hook puts it. */
export function pin(tensor: Tensor, place: string | undefined): void {
  if (place === undefined) pinned.delete(tensor);
  else pinned.set(tensor, place);
}

function onCpu(tensor: Tensor): Tensor {
  return tensor.device === "cpu" ? tensor.detach() : tensor.detach().to({ device: "cpu" });
}

export interface AttachOptions {
  readonly execution_device?: Place | null | undefined;
  readonly offload?: boolean | undefined;
  readonly weights_map?: Weights | null | undefined;
  readonly offload_buffers?: boolean | undefined;
  /** The module's name in the model, which is put before names in `weights_map`. Default "". */
  readonly module_name?: string | undefined;
  readonly skip_keys?: Names | undefined;
  /** Classes whose weights are brought for the whole of their forward: those that use weights of modules inside themselves. */
  readonly preload_module_classes?: Names | undefined;
}

const ATTACH = {
  execution_device: undefined as Place | null | undefined,
  offload: false,
  weights_map: undefined as Weights | null | undefined,
  offload_buffers: false,
  module_name: "",
  skip_keys: undefined as Names | undefined,
  preload_module_classes: undefined as Names | undefined,
};

const childName = (path: string, name: string) => (path === "" ? name : `${path}.${name}`);

/** Gives every module that has weights of its own an `AlignDevicesHook`. */
export function attach_align_device_hook(module: Module, options: AttachOptions = {}): void {
  const bound = bind("attach_align_device_hook", [options], ATTACH);
  const whole = nameSet(bound.preload_module_classes);
  const weights = bound.weights_map ? asWeightsMap(bound.weights_map) : undefined;
  attachTo(module, bound.module_name);

  function attachTo(each: Module, name: string): void {
    const isWhole = bound.offload && whole.has(each.constructor.name);
    if (isWhole || namedTensors(each).size > 0) {
      const hook = new AlignDevicesHook({
        execution_device: bound.execution_device,
        offload: bound.offload,
        weights_map: weights && prefixed(weights, name === "" ? "" : `${name}.`),
        offload_buffers: bound.offload_buffers,
        place_submodules: isWhole,
        skip_keys: bound.skip_keys,
      });
      add_hook_to_module(each, hook, true);
    }
    if (isWhole) return;
    for (const [key, child] of each.named_children()) attachTo(child, childName(name, key));
  }
}

/** Gives modules with weights anywhere inside, and without a hook, one that moves their inputs. */
export function attach_execution_device_hook(
  module: Module,
  execution_device: Place,
  options: { skip_keys?: Names | undefined; preload_module_classes?: Names | undefined } = {},
): void {
  const { skip_keys, preload_module_classes } = bind("attach_execution_device_hook", [options], {
    skip_keys: undefined as Names | undefined,
    preload_module_classes: undefined as Names | undefined,
  });
  const whole = nameSet(preload_module_classes);
  const visit = (each: Module) => {
    if (hookOf(each) === undefined && Object.keys(each.state_dict({ keep_vars: true })).length > 0)
      add_hook_to_module(each, new AlignDevicesHook({ execution_device, skip_keys }));
    if (!whole.has(each.constructor.name)) for (const child of each.children()) visit(child);
  };
  visit(module);
}

export interface AttachOnBlocksOptions extends Omit<AttachOptions, "execution_device" | "offload"> {
  /** For all of the module, or by name of the module. */
  readonly execution_device?: Place | Readonly<Record<string, Place>> | null | undefined;
  readonly offload?: boolean | Readonly<Record<string, boolean>> | undefined;
}

/** Gives the blocks that `execution_device` and `offload` name their hooks. */
export function attach_align_device_hook_on_blocks(
  module: Module,
  options: AttachOnBlocksOptions = {},
): void {
  const bound = bind("attach_align_device_hook_on_blocks", [options], {
    ...ATTACH,
    execution_device: undefined as AttachOnBlocksOptions["execution_device"],
    offload: false as boolean | Readonly<Record<string, boolean>>,
  });
  const { skip_keys, preload_module_classes, offload_buffers } = bound;
  const weights_map = bound.weights_map ? asWeightsMap(bound.weights_map) : undefined;
  const common = { weights_map, offload_buffers, skip_keys, preload_module_classes };
  const isMap = <T>(value: unknown): value is Readonly<Record<string, T>> =>
    typeof value === "object" && value !== null;

  // One device and one answer: one hook, or one per module.
  if (!isMap<Place>(bound.execution_device) && !isMap<boolean>(bound.offload)) {
    const execution_device = bound.execution_device as Place | undefined;
    if (bound.offload) {
      attach_align_device_hook(module, {
        ...common,
        execution_device,
        offload: true,
        module_name: bound.module_name,
      });
    } else {
      add_hook_to_module(
        module,
        new AlignDevicesHook({ execution_device, io_same_device: true, skip_keys, place_submodules: true }),
      );
    }
    return;
  }

  const names = Object.keys(isMap(bound.execution_device) ? bound.execution_device : bound.offload);
  const spread = <T>(value: unknown): Readonly<Record<string, T>> =>
    isMap<T>(value) ? value : Object.fromEntries(names.map((name) => [name, value as T]));
  const devices = spread<Place>(bound.execution_device);
  const offloads = spread<boolean>(bound.offload);
  visit(module, bound.module_name);

  function visit(each: Module, name: string): void {
    const execution_device = devices[name];
    const isNamed = Object.hasOwn(devices, name) && Object.hasOwn(offloads, name);
    const io_same_device = name === "";
    if (isNamed && !offloads[name]) {
      const hook = new AlignDevicesHook({
        execution_device,
        offload_buffers,
        io_same_device,
        place_submodules: true,
        skip_keys,
      });
      add_hook_to_module(each, hook);
      attach_execution_device_hook(each, execution_device as Place, { skip_keys });
    } else if (isNamed) {
      attach_align_device_hook(each, { ...common, execution_device, offload: true, module_name: name });
      if (hookOf(each) === undefined)
        add_hook_to_module(each, new AlignDevicesHook({ execution_device, io_same_device, skip_keys }));
      attach_execution_device_hook(each, execution_device as Place, { skip_keys, preload_module_classes });
    } else if (name === "") {
      add_hook_to_module(each, new AlignDevicesHook({ execution_device, io_same_device: true, skip_keys }));
    }
    for (const [key, child] of each.named_children()) visit(child, childName(name, key));
  }
}
