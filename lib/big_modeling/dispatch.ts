// A model over several places: each block where the device map says, with hooks that bring what is elsewhere.
import { InvalidArgumentError } from "../errors/index.ts";
import { bind } from "../nn/arguments.ts";
import { type Module, Parameter } from "../nn/index.ts";
import { parseTo } from "../nn/module_to.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { AlignDevicesHook, attach_align_device_hook_on_blocks, pin } from "./align_devices.ts";
import { check_device_map, placeOf } from "./device_map.ts";
import { type DeviceMap, type Place, placeName, placesOf } from "./devices.ts";
import { add_hook_to_module, GUARDED, hookOf, type ModelHook, SequentialHook } from "./hooks.ts";
import { noSplitClasses } from "./module_sizes.ts";
import { hasOffloadIndex, type OffloadIndex, offload_state_dict } from "./offload_folder.ts";
import { isInside } from "./plan_parts.ts";
import { isOffloaded, letRest, settle, sourceFor } from "./residence.ts";
import { stopStreaming, streamBlocks } from "./streaming.ts";
import {
  OffloadedWeightsLoader,
  prefixed,
  sourceOf,
  type WeightSource,
  type WeightsMap,
} from "./weights_map.ts";

type Names = string | Iterable<string> | null;

export interface DispatchOptions {
  /** Where offloaded modules compute. Default: the first accelerator of the map, else the CPU. */
  readonly main_device?: Place | null | undefined;
  /** Values of the modules on the CPU. Default: the model's. */
  readonly state_dict?: Readonly<Record<string, Tensor>> | null | undefined;
  /** Folder for the modules on the disk; one that has an index already is used as it is. */
  readonly offload_dir?: string | null | undefined;
  /** Where the values of modules on the disk are. Default: index.json of `offload_dir`. */
  readonly offload_index?: OffloadIndex | null | undefined;
  readonly offload_buffers?: boolean | undefined;
  /** Names of arguments and outputs that are not moved between devices. */
  readonly skip_keys?: Names | undefined;
  /**
   * Classes whose weights are brought for the whole of their forward. Default: the model's `_no_split_modules`, so that a
   * weight used anywhere in a block is there.
   */
  readonly preload_module_classes?: Names | undefined;
  /** Attach hooks although everything is on one device. Default false. */
  readonly force_hooks?: boolean | undefined;
}

/** What dispatching works with, beside names: values that the caller has found already. */
export interface Prepared {
  readonly main: string;
  readonly sources: WeightsMap | undefined;
  /** Bytes on the main device that weights may take while they are used. Default: what is free. */
  readonly room?: number | undefined;
}

/**
 * Puts each part of a model where `device_map` says, and hooks that make it run: inputs follow the modules, and what is on the
 * CPU or the disk is brought to the main device for its forward. Sets `hf_device_map`, and refuses `to()` from then on.
 *
 * @throws InvalidArgumentError for a map that does not cover the model, or without a folder for what goes to the disk.
 * @example await dispatch_model(model, { embed: 0, "layers.0": 0, "layers.1": "cpu", head: 0 });
 */
export async function dispatch_model<M extends Module>(
  model: M,
  device_map: DeviceMap,
  options: DispatchOptions = {},
): Promise<M> {
  const bound = bind("dispatch_model", [options], {
    main_device: undefined as DispatchOptions["main_device"],
    state_dict: undefined as DispatchOptions["state_dict"],
    offload_dir: undefined as DispatchOptions["offload_dir"],
    offload_index: undefined as DispatchOptions["offload_index"],
    offload_buffers: false,
    skip_keys: undefined as DispatchOptions["skip_keys"],
    preload_module_classes: undefined as DispatchOptions["preload_module_classes"],
    force_hooks: false,
  });
  check_device_map(model, device_map);
  const map = placesOf(device_map);
  const main = mainPlace(map, bound.main_device);
  const needsHooks = isDistributed(map) || bound.force_hooks;
  const sources = needsHooks ? await findSources(model, map, bound) : undefined;
  return dispatch(model, map, { ...bound, main, sources });
}

/** The same without looking for values: all that is offloaded is in `sources`, or resident now. */
export function dispatch<M extends Module>(
  model: M,
  given: Readonly<Record<string, string>>,
  options: Prepared &
    Pick<DispatchOptions, "offload_buffers" | "skip_keys" | "preload_module_classes" | "force_hooks">,
): M {
  const { main, sources, offload_buffers = false, skip_keys } = options;
  if (isDistributed(given) || options.force_hooks) {
    stopStreaming(model);
    const map = disjoint(model, given);
    const names = Object.keys(map);
    const offload = Object.fromEntries(names.map((name) => [name, isElsewhere(map[name] as string, main)]));
    const execution = Object.fromEntries(
      names.map((name) => [name, offload[name] ? main : (map[name] as string)]),
    );
    const all = namesOf(model);
    const weights_map = valuesOf(all, map, main, sources);
    for (const [name, tensor] of all)
      if (tensor.is_meta && weights_map.has(name)) letRest(tensor, weights_map.source(name));
    const unpin = pinShared(all, map, main);
    try {
      attach_align_device_hook_on_blocks(model, {
        execution_device: { ...execution, "": main },
        offload,
        weights_map,
        offload_buffers,
        skip_keys,
        preload_module_classes: options.preload_module_classes ?? noSplitClasses(model),
      });
      hookOwners(model, all, map, { main, weights_map, offload_buffers, skip_keys });
    } finally {
      unpin();
    }
    const streamed = offloadingHooks(model).filter(([, , hook]) => hook.execution_device === main);
    streamBlocks(
      model,
      main,
      streamed.map(([name, , hook]) => [name, hook]),
      { room: options.room },
    );
    refuseMoves(model);
  } else {
    const [place] = Object.values(given) as [string];
    for (const [name, tensor] of [...model.named_parameters(), ...model.named_buffers()])
      settle(tensor, place, name);
  }
  (model as { hf_device_map?: Readonly<Record<string, string>> }).hf_device_map = { ...given };
  return model;
}

type Named = readonly (readonly [string, Tensor])[];

/** All parameters and buffers under all of their names. */
const namesOf = (model: Module): Named => [
  ...model.named_parameters({ remove_duplicate: false }),
  ...model.named_buffers({ remove_duplicate: false }),
];

/** The same map with no entry inside of another: a module that has entries inside is named by its parts. */
function disjoint(model: Module, map: Readonly<Record<string, string>>): Record<string, string> {
  const result: Record<string, string> = {};
  const names = Object.keys(map);
  const visit = (module: Module, name: string, outer: string | undefined) => {
    const place = map[name] ?? outer;
    const inside = names.some((other) => other !== name && isInside(other, name));
    if (!inside) {
      if (place !== undefined) result[name] = place;
      return;
    }
    const { parameters, buffers, children } = module._own_state();
    for (const [key] of [...parameters, ...buffers]) {
      const own = map[childName(name, key)] ?? place;
      if (own !== undefined) result[childName(name, key)] = own;
    }
    for (const [key, child] of children) visit(child, childName(name, key), place);
  };
  visit(model, "", undefined);
  return result;
}

const childName = (path: string, name: string) => (path === "" ? name : `${path}.${name}`);

/** Whether a map needs hooks at all. */
export const isDistributed = (map: Readonly<Record<string, string>>): boolean => {
  const places = new Set(Object.values(map));
  return places.size > 1 || places.has("disk");
};

/** Where what is offloaded computes. */
export function mainPlace(map: Readonly<Record<string, string>>, given?: Place | null): string {
  if (given !== undefined && given !== null) return placeName(given, "main_device");
  return Object.values(map).find((place) => place !== "cpu" && place !== "disk") ?? "cpu";
}

/** Whether weights of a place are brought to the main device for their use. */
export const isElsewhere = (place: string, main: string): boolean =>
  place === "disk" || (place === "cpu" && main !== "cpu");

/**
 * A tensor under several names that fall on different places stays on the first place that computes; only if all of them are
 * offloaded is it too.
 */
function pinShared(all: Named, map: Readonly<Record<string, string>>, main: string): () => void {
  const places = new Map<Tensor, string[]>();
  for (const [name, tensor] of all) {
    const place = placeOf(map, name);
    if (place !== undefined) places.set(tensor, [...(places.get(tensor) ?? []), String(place)]);
  }
  const shared = [...places].filter(([, each]) => new Set(each).size > 1);
  for (const [tensor, each] of shared)
    pin(
      tensor,
      each.find((place) => !isElsewhere(place, main)),
    );
  return () => {
    for (const [tensor] of shared) pin(tensor, undefined);
  };
}

/** Values of offloaded weights by name: those that were found, and those that the model holds itself. */
function valuesOf(
  all: Named,
  map: Readonly<Record<string, string>>,
  main: string,
  sources: WeightsMap | undefined,
): WeightsMap {
  const found = new Map<Tensor, WeightSource>();
  for (const [name, tensor] of all) {
    if (found.has(tensor)) continue;
    if (sources?.has(name)) found.set(tensor, sources.source(name));
    else if (tensor.is_meta) {
      const known = sourceFor(tensor);
      if (known !== undefined) found.set(tensor, known);
    }
  }
  for (const [name, tensor] of all)
    if (!found.has(tensor) && !tensor.is_meta && isElsewhere(String(placeOf(map, name)), main))
      found.set(tensor, sourceOf(cpuCopy(tensor)));
  const tensors = new Map(all);
  const lookUp = (name: string) => {
    const tensor = tensors.get(name);
    return tensor === undefined ? undefined : found.get(tensor);
  };
  return {
    has: (name) => lookUp(name) !== undefined,
    source(name) {
      const source = lookUp(name);
      if (source !== undefined) return source;
      throw new InvalidArgumentError(
        `${name} is on the meta device, and there are no values for it to be offloaded.`,
        {
          hint: "Load a checkpoint with load_checkpoint_and_dispatch, or give a state_dict or an offload_index.",
        },
      );
    },
  };
}

const cpuCopy = (tensor: Tensor): Tensor =>
  torch.no_grad(() =>
    torch.keep(tensor.device === "cpu" ? tensor.detach() : tensor.detach().to({ device: "cpu" })),
  );

/** Entries of the map may be single tensors: the module that owns them gets a hook for them. */
function hookOwners(
  model: Module,
  all: Named,
  map: Readonly<Record<string, string>>,
  options: { main: string; weights_map: WeightsMap; offload_buffers: boolean; skip_keys: Names | undefined },
): void {
  const { main, weights_map, offload_buffers, skip_keys } = options;
  const owners = new Map<string, [string, Tensor][]>();
  for (const [name, tensor] of all) {
    if (!Object.hasOwn(map, name)) continue;
    const owner = name.slice(0, Math.max(name.lastIndexOf("."), 0));
    owners.set(owner, [...(owners.get(owner) ?? []), [name, tensor]]);
  }
  for (const [owner, tensors] of owners) {
    const resident = tensors.filter(([name]) => !isElsewhere(map[name] as string, main));
    const place = (resident[0] && map[resident[0][0]]) ?? main;
    const offload = resident.length < tensors.length;
    for (const [name, tensor] of resident) {
      settle(tensor, map[name] as string, name);
      if (offload) pin(tensor, map[name] as string);
    }
    const hook = new AlignDevicesHook({
      execution_device: place,
      offload,
      weights_map: prefixed(weights_map, owner === "" ? "" : `${owner}.`),
      offload_buffers,
      skip_keys,
    });
    const module = model.get_submodule(owner);
    if (offload || hookOf(module) === undefined) add_hook_to_module(module, hook, true);
    for (const [, tensor] of resident) pin(tensor, undefined);
  }
}

async function findSources(
  model: Module,
  map: Readonly<Record<string, string>>,
  { state_dict, offload_dir, offload_index, offload_buffers }: DispatchOptions,
): Promise<WeightsMap | undefined> {
  // What was left on the disk when it was loaded is known already.
  const state = model.state_dict({ keep_vars: true });
  const unknown = Object.keys(state).filter(
    (name) => placeOf(map, name) === "disk" && !isOffloaded(state[name] as Tensor),
  );
  // Buffers stay where they are, unless they are offloaded too.
  const leaving = unknown.filter((name) => offload_buffers || state[name] instanceof Parameter);
  const onDisk = Object.keys(map).filter((name) => leaving.some((other) => isInside(other, name)));
  if (onDisk.length > 0 && !offload_dir && !offload_index)
    throw new InvalidArgumentError(
      `dispatch_model needs an offload_dir: the map offloads ${onDisk.slice(0, 10).join(", ")} to the disk.`,
    );
  const folder = onDisk.length > 0 && offload_dir ? offload_dir : undefined;
  if (folder !== undefined && !offload_index && !(await hasOffloadIndex(folder))) {
    const empty = unknown.find((name) => state[name]?.is_meta);
    if (empty) throw new InvalidArgumentError(`${empty} is on the meta device and has no values to offload.`);
    await offload_state_dict(
      folder,
      Object.fromEntries(unknown.map((name) => [name, state[name] as Tensor])),
    );
  }
  if (!state_dict && folder === undefined && !offload_index) return undefined;
  return OffloadedWeightsLoader.open({
    state_dict: state_dict ?? undefined,
    save_folder: folder,
    index: offload_index ?? undefined,
  });
}

/** A dispatched model is where its map says: moving it would tear it from its hooks. */
function refuseMoves(model: Module): void {
  for (const name of GUARDED) {
    const inherited = (model as unknown as Record<string, (...args: unknown[]) => unknown>)[name] as (
      ...args: unknown[]
    ) => unknown;
    const value = function guarded(this: Module, ...args: unknown[]): unknown {
      const device = name === "to" ? parseTo(args[0] as never, args.slice(1)).device : name;
      const away = [...model.parameters(), ...model.buffers()].some(isOffloaded);
      if (device || away)
        throw new InvalidArgumentError(
          `${model.constructor.name}.${name}(): the model is dispatched over several devices${away ? ", with weights that are offloaded," : ""} and cannot be ${device ? "moved" : "cast"}.`,
          {
            hint: "Load it again with another device_map or dtype, or call remove_hook_from_submodules(model) first.",
          },
        );
      return inherited.apply(this, args);
    };
    Object.defineProperty(model, name, { value, enumerable: false, configurable: true, writable: true });
  }
}

/** The hooks of a model that bring weights, in the order of its modules. */
export function offloadingHooks(model: Module): [name: string, module: Module, hook: AlignDevicesHook][] {
  const found: [string, Module, AlignDevicesHook][] = [];
  const look = (name: string, module: Module, hook: ModelHook | undefined): void => {
    if (hook instanceof SequentialHook) for (const each of hook.hooks) look(name, module, each);
    else if (hook instanceof AlignDevicesHook && hook.offload) found.push([name, module, hook]);
  };
  for (const [name, module] of model.named_modules()) look(name, module, hookOf(module));
  return found;
}
