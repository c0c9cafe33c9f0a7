// Where each part of a model goes. The reference has two planners that differ in details: accelerate's, which programs call, and
// transformers', behind from_pretrained; both are here as one, with their differences as rules. `fill_again` and a workload are ours.
import { InvalidArgumentError } from "../errors/index.ts";
import { warn } from "../errors/warnings.ts";
import { bind } from "../nn/arguments.ts";
import type { Module } from "../nn/index.ts";
import type { Dtype } from "../torch/index.ts";
import { type DeviceMap, isAccelerator, type MaxMemory, type Place, placesOf } from "./devices.ts";
import { fallbackPart } from "./fallback_allocation.ts";
import { type Budget, classNames, get_max_memory } from "./max_memory.ts";
import {
  find_tied_parameters,
  firstParts,
  largestLayer,
  modulesIn,
  type Part,
  partsOf,
  sizeOf,
  sizesAsAccelerate,
  uniqueTensors,
} from "./module_sizes.ts";
import { isInside, type PlanInput, splitPart, tiedOutside, withTies } from "./plan_parts.ts";

/** What a plan says, before it is tidied: each part that was placed, in order. */
export interface RawPlan {
  readonly map: Map<string, string>;
  /** Bytes that the plan counts on each place, with what it keeps free for layers that visit. */
  readonly used: Record<string, number>;
  /** Buffers of the parts on each place, in bytes. */
  readonly buffers: Record<string, number>;
}

/** Places parts one after the other: accelerators, then the CPU, then the disk; a place that is left is not filled again. */
export function planParts(input: PlanInput): RawPlan {
  const { root, sizes, budget, noSplit, tied, rules, fallback = false, noPlacement, tell = () => {} } = input;
  const places = [...new Set([...Object.keys(budget), "disk"])];
  const accelerators = places.filter(isAccelerator);
  const main = new Set([...accelerators.slice(0, 1), "cpu"]);
  const map = new Map<string, string>();
  const used: Record<string, number> = Object.fromEntries(places.map((place) => [place, 0]));
  const buffers: Record<string, number> = {};

  let waiting = firstParts(root);
  let largest = largestLayer(waiting, sizes, noSplit);
  const measure = () => {
    largest = largestLayer(
      waiting.filter(({ isModule }) => isModule),
      sizes,
      noSplit,
    );
  };
  const canSplit = ({ children, className }: Part) => children.length > 0 && !noSplit.has(className);

  let current = 0;
  for (;;) {
    const part = waiting.shift();
    if (part === undefined) break;
    const { name } = part;
    largest = { size: largest.size, names: largest.names.filter((other) => !isInside(other, name)) };
    if (largest.names.length === 0) measure();

    const place = places[current] as string;
    // A layer that is offloaded from here on must find room on the main places while it is used.
    const reserved = main.has(place) ? largest.size : 0;
    const limit = place === "disk" ? Number.POSITIVE_INFINITY : (budget[place] as number) - reserved;
    const size = sizeOf(sizes, name);
    const outside = tiedOutside(tied, name);
    const { bytes, holders } = withTies(input, part, outside, waiting);
    const taken = used[place] as number;

    if (taken + bytes <= limit) {
      tell(`${name} (${bytes} bytes) goes to ${place}, where ${limit - taken} were left`);
      used[place] = taken + bytes;
      map.set(name, place);
      for (const holder of holders) map.set(holder.name, place);
      waiting = waiting.filter((other) => !holders.includes(other));
      if (part.isModule) buffers[place] = (buffers[place] ?? 0) + buffersIn(part);
      continue;
    }

    // It fits, and what is tied to it does not: perhaps a part of that does.
    if (outside.length > 0 && taken + size <= limit) {
      const holder = holders.find(canSplit);
      if (holder !== undefined) {
        tell(`${name} fits on ${place}, and ${holder.name}, which is tied to it, does not: it is split`);
        const at = waiting.indexOf(holder);
        waiting = [part, ...waiting.slice(0, at), ...splitPart(holder), ...waiting.slice(at + 1)];
        measure();
        continue;
      }
    }

    if ((rules === "transformers" || taken + size >= limit) && canSplit(part)) {
      tell(`${name} does not fit on ${place}: it is split`);
      waiting = [...splitPart(part), ...waiting];
      measure();
      continue;
    }

    if (noPlacement !== undefined && part.isModule) {
      const next = places[current + 1] as string;
      const placed = blockWithout(part, noPlacement);
      const fitsNext = next === "disk" || (used[next] as number) + bytes <= (budget[next] as number);
      if (isAccelerator(next) && !fitsNext && placed !== undefined && noSplit.has(part.className)) {
        waiting = [...placed, ...waiting];
        continue;
      }
    }

    if (taken === 0 && fallback && place !== "disk") {
      const room = (budget[place] as number) - Math.max(largest.size, bytes);
      const found = fallbackPart(input, waiting, room);
      if (found !== undefined) {
        waiting = [found.part, part, ...found.rest];
        continue;
      }
    }

    tell(`${name} (${bytes} bytes) does not fit on ${place}, where ${limit - taken} are left`);
    used[place] = taken + reserved;
    current++;
    waiting = [part, ...waiting];
  }
  return { map, used, buffers };
}

/** All tensors of a block but those that need no place, if there are such. */
function blockWithout(part: Part, names: ReadonlySet<string>): Part[] | undefined {
  const tensors = [...modulesIn(part)].flatMap(({ parameters }) => parameters);
  const buffers = [...modulesIn(part)].flatMap((module) => module.buffers);
  const escapes = ({ name }: Part) => names.has(name.slice(part.name.length + 1));
  return tensors.some(escapes) ? [...tensors, ...buffers].filter((each) => !escapes(each)) : undefined;
}

function buffersIn(part: Part): number {
  return [...uniqueTensors(part, ["buffers"])].reduce((sum, [, tensor]) => sum + tensor.nbytes, 0);
}

/** Names parts as few as possible: children that are all on one place become their parent. */
export function cleanDeviceMap(map: ReadonlyMap<string, string>): Map<string, string> {
  // One walk over a tree of names, where the reference filters all names at each level.
  interface Node {
    readonly children: Map<string, Node>;
    place: string | undefined;
  }
  const node = (): Node => ({ children: new Map(), place: undefined });
  const top = node();
  for (const [name, place] of map) {
    let at = top;
    for (const key of name === "" ? [] : name.split(".")) {
      const next = at.children.get(key) ?? node();
      at.children.set(key, next);
      at = next;
    }
    at.place = place;
  }
  const result = new Map<string, string>();
  const only = ({ place, children }: Node): string | undefined => {
    const places = new Set([...(place === undefined ? [] : [place]), ...[...children.values()].map(only)]);
    return places.size === 1 ? [...places][0] : undefined;
  };
  const visit = (at: Node, name: string) => {
    const place = only(at);
    // A lone child keeps its own name, as a module with one entry does in the reference.
    const entries = count(at);
    if (place !== undefined && (entries > 1 || at.children.size === 0)) {
      result.set(name, place);
      return;
    }
    if (at.place !== undefined) result.set(name, at.place);
    for (const [key, child] of at.children) visit(child, name === "" ? key : `${name}.${key}`);
  };
  const count = ({ place, children }: Node): number =>
    (place === undefined ? 0 : 1) + [...children.values()].reduce((sum, child) => sum + count(child), 0);
  visit(top, "");
  return result;
}

export interface InferOptions {
  /** Place → bytes or size; default: all that is free. */
  readonly max_memory?: MaxMemory | null | undefined;
  /** Classes that stay on one place. */
  readonly no_split_module_classes?: string | Iterable<string> | null | undefined;
  readonly dtype?: Dtype | undefined;
  readonly special_dtypes?: Readonly<Record<string, Dtype>> | undefined;
  /** Print each step. Default false. */
  readonly verbose?: boolean | undefined;
  /** Give a module whose parts are all on one place as one entry. Default true. */
  readonly clean_result?: boolean | undefined;
  /** Buffers of offloaded modules are offloaded too; only a warning depends on it. Default false. */
  readonly offload_buffers?: boolean | undefined;
  /** When nothing in turn fits on a place, look for anything that does. Default false. */
  readonly fallback_allocation?: boolean | undefined;
}

/**
 * Finds a place for each part of a model: accelerators first, then the CPU, then the disk. Room is left for the largest layer
 * that is offloaded, on the first accelerator and on the CPU. The model may be on the meta device.
 *
 * The plan is accelerate's. `planModel` counts caches and activations too and fills places again.
 *
 * @example
 * infer_auto_device_map(model, { max_memory: { 0: "10GiB", cpu: "30GiB" }, no_split_module_classes: ["LlamaDecoderLayer"] });
 */
export function infer_auto_device_map(model: Module, options: InferOptions = {}): Record<string, string> {
  const bound = bind("infer_auto_device_map", [options], {
    max_memory: undefined as InferOptions["max_memory"],
    no_split_module_classes: undefined as InferOptions["no_split_module_classes"],
    dtype: undefined as InferOptions["dtype"],
    special_dtypes: undefined as InferOptions["special_dtypes"],
    verbose: false,
    clean_result: true,
    offload_buffers: false,
    fallback_allocation: false,
  });
  const { dtype, special_dtypes } = bound;
  const root = partsOf(model);
  const budget = get_max_memory(bound.max_memory);
  const plan = planParts({
    root,
    sizes: sizesAsAccelerate(root, { dtype, special_dtypes }),
    budget,
    noSplit: classNames(bound.no_split_module_classes),
    tied: find_tied_parameters(model),
    rules: "accelerate",
    fallback: bound.fallback_allocation,
    tell: bound.verbose ? (line) => console.log(line) : undefined,
  });
  if (!bound.offload_buffers) warnOfBuffers(plan, budget);
  return finishMap(root, plan.map, bound.clean_result);
}

/** Buffers of offloaded layers are on an accelerator all the time, unless they are offloaded too. */
export function warnOfBuffers({ used, buffers }: RawPlan, budget: Readonly<Budget>): void {
  const needed = (buffers.cpu ?? 0) + (buffers.disk ?? 0);
  const accelerators = Object.keys(budget).filter(isAccelerator);
  if (needed === 0 || accelerators.length === 0) return;
  if (accelerators.some((place) => (budget[place] as number) >= needed + (used[place] ?? 0))) return;
  warn(
    `The offloaded layers have ${needed} bytes of buffers, which fit on no accelerator. Pass offload_buffers: true if memory runs out.`,
  );
}

/** Tidies, and covers what the rules forgot. */
export function finishMap(
  root: Part,
  map: ReadonlyMap<string, string>,
  clean = true,
): Record<string, string> {
  return Object.fromEntries(covered(root, clean ? cleanDeviceMap(map) : map));
}

/** A module that was split may have buffers of its own that no entry names: they go where its first part is. */
function covered(root: Part, map: ReadonlyMap<string, string>): Map<string, string> {
  const full = new Map(map);
  const isCovered = (name: string) => {
    for (let at = name; ; at = at.slice(0, at.lastIndexOf("."))) {
      if (full.has(at)) return true;
      if (!at.includes(".")) return full.has("");
    }
  };
  for (const part of modulesIn(root)) {
    for (const { name } of [...part.parameters, ...part.buffers]) {
      if (isCovered(name)) continue;
      const beside = [...map].find(([other]) => isInside(other, part.name));
      full.set(name, beside?.[1] ?? "cpu");
    }
  }
  return full;
}

/** The place of a tensor or module: of the entry that names it or the nearest module around it. */
export function placeOf(map: Readonly<Record<string, Place>>, name: string): Place | undefined {
  for (let at = name; ; at = at.slice(0, at.lastIndexOf("."))) {
    if (Object.hasOwn(map, at)) return map[at];
    if (!at.includes(".")) return map[""];
  }
}

/**
 * Makes sure that a device map gives every parameter and stored buffer of a model a place. Warns of entries that name nothing.
 *
 * @throws InvalidArgumentError that lists what has no place.
 * @example check_device_map(model, { "model.embed_tokens": 0, "model.layers": 0, "model.norm": 0, lm_head: "cpu" });
 */
export function check_device_map(model: Module, device_map: DeviceMap): void {
  const map = placesOf(device_map);
  const tensors = Object.keys(model.state_dict({ keep_vars: true }));
  const all = [
    ...model.named_parameters({ remove_duplicate: false }),
    ...model.named_buffers({ remove_duplicate: false }),
  ];
  const known = new Set([
    ...[...model.named_modules({ remove_duplicate: false })].map(([name]) => name),
    ...all.map(([name]) => name),
  ]);
  const strangers = Object.keys(map).filter((name) => !known.has(name));
  if (strangers.length > 0)
    warn(`The device_map names what the model does not have: ${strangers.join(", ")}.`);
  const missing = tensors.filter((name) => placeOf(map, name) === undefined);
  if (missing.length === 0) return;
  const listed = missing.length > 10 ? [...missing.slice(0, 10), `${missing.length - 10} more`] : missing;
  throw new InvalidArgumentError(`The device_map gives no place for: ${listed.join(", ")}.`, {
    hint: 'Add entries for them, or one for "", which is the whole model.',
  });
}

/** Ties whose names fall on different places: told, since one of them has to be fetched at each use. */
export function warnOfSplitTies(
  tied: readonly (readonly string[])[],
  map: Readonly<Record<string, string>>,
): void {
  for (const group of tied) {
    const places = new Map(group.map((name) => [name, placeOf(map, name)]));
    if (new Set(places.values()).size < 2) continue;
    const listed = [...places].map(([name, place]) => `${name} on ${place}`).join(", ");
    warn(
      `Tied parameters are on different places: ${listed}. They stay on the first, and are fetched for each use on the others.`,
    );
  }
}
