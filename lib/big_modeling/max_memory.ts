// How much of each place a plan may use: what is free, what the caller allows, and what balances the load.
import { InvalidArgumentError } from "../errors/index.ts";
import { warn } from "../errors/warnings.ts";
import { bind } from "../nn/arguments.ts";
import type { Module } from "../nn/index.ts";
import type { Dtype } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { convert_file_size_to_int } from "./byte_sizes.ts";
import { byPriority, isAccelerator, type MaxMemory, placeName } from "./devices.ts";
import { modulesIn, type Part, partsOf, type Sizes, sizeOf, sizesAsAccelerate } from "./module_sizes.ts";
import { limitedPlaces } from "./placement.ts";

/** Place → bytes, in the order in which places are filled. */
export type Budget = Record<string, number>;

/** What is free now: CUDA devices and limited devices, and RAM that can be had without swapping. */
function freeMemory(): Budget {
  const budget: Budget = {};
  for (let i = 0; i < torch.cuda.device_count(); i++) budget[`cuda:${i}`] = torch.cuda.mem_get_info(i)[0];
  for (const [name, free] of limitedPlaces()) budget[name] = free;
  budget.cpu = process.availableMemory();
  return budget;
}

/** Bytes by canonical place, checked, in the order in which places are filled. */
export function parseBudget(given: MaxMemory): Budget {
  const found = new Map<string, number>();
  for (const [key, size] of Object.entries(given)) {
    const place = placeName(key, "A key of max_memory");
    if (place === "meta") throw new InvalidArgumentError("max_memory: 'meta' holds no memory.");
    if (found.has(place)) throw new InvalidArgumentError(`max_memory names ${place} twice.`);
    // Limits that a plan made itself, such as nine tenths of what is free, are no whole numbers.
    const isLimit = typeof size === "number" && size >= 0 && Number.isFinite(size);
    found.set(place, isLimit ? size : convert_file_size_to_int(size));
  }
  return Object.fromEntries([...found].sort(([a], [b]) => byPriority(a, b)));
}

/**
 * Bytes that may be used, by place: what is given, sizes such as "10GiB" read; or all that is free now.
 *
 * @throws InvalidArgumentError for a place or a size that is none.
 * @example get_max_memory({ 0: "10GiB", cpu: "30GiB" }); // { "cuda:0": 10737418240, cpu: 32212254720 }
 */
export function get_max_memory(max_memory?: MaxMemory | null): Budget {
  if (max_memory === undefined || max_memory === null) return freeMemory();
  const budget = parseBudget(max_memory);
  const there = new Set([...limitedPlaces()].map(([name]) => name));
  for (const place of Object.keys(budget).filter(isAccelerator)) {
    const missing = place.startsWith("limited")
      ? !there.has(place)
      : Number(place.split(":")[1]) >= torch.cuda.device_count();
    if (missing) warn(`max_memory names ${place}, which is not available.`);
  }
  return budget;
}

/**
 * The same as `from_pretrained` asks it: what is free counts what libtorch's allocator keeps for later, and a tenth of the RAM
 * is left alone.
 */
export function availableMemory(max_memory: MaxMemory | null | undefined): Budget {
  const budget = get_max_memory(max_memory);
  if (max_memory !== undefined && max_memory !== null) return budget;
  for (let i = 0; i < torch.cuda.device_count(); i++)
    budget[`cuda:${i}`] =
      (budget[`cuda:${i}`] as number) + torch.cuda.memory_reserved(i) - torch.cuda.memory_allocated(i);
  budget.cpu = (budget.cpu ?? 0) * 0.9;
  return budget;
}

export interface BalanceOptions {
  /** Default: what is free. */
  readonly max_memory?: MaxMemory | null | undefined;
  readonly no_split_module_classes?: string | Iterable<string> | null | undefined;
  readonly dtype?: Dtype | undefined;
  readonly special_dtypes?: Readonly<Record<string, Dtype>> | undefined;
  /** Put as little as possible on the first accelerator. Default false. */
  readonly low_zero?: boolean | undefined;
}

/** A list of class names, however it was given. */
export const classNames = (given: string | Iterable<string> | null | undefined): Set<string> =>
  new Set(typeof given === "string" ? [given] : (given ?? []));

/**
 * Limits under which a plan uses each accelerator about as much as the others: an equal share and some room, all of it on the last.
 *
 * @example get_balanced_memory(model, { max_memory: { 0: "10GiB", 1: "10GiB" }, no_split_module_classes: ["LlamaDecoderLayer"] });
 */
export function get_balanced_memory(model: Module, options: BalanceOptions = {}): Budget {
  const { max_memory, no_split_module_classes, dtype, special_dtypes, low_zero } = bind(
    "get_balanced_memory",
    [options],
    {
      max_memory: undefined as BalanceOptions["max_memory"],
      no_split_module_classes: undefined as BalanceOptions["no_split_module_classes"],
      dtype: undefined as BalanceOptions["dtype"],
      special_dtypes: undefined as BalanceOptions["special_dtypes"],
      low_zero: false,
    },
  );
  const root = partsOf(model);
  const sizes = sizesAsAccelerate(root, { dtype, special_dtypes });
  const budget = get_max_memory(max_memory);
  const isFree = max_memory === undefined || max_memory === null;
  return balanced(
    budget,
    sizes,
    roomAsAccelerate(root, sizes, classNames(no_split_module_classes)),
    low_zero,
    isFree,
  );
}

/** Changes a budget so that accelerators share the model; `room` bytes are added to each share. */
export function balanced(
  budget: Budget,
  sizes: Sizes,
  room: number,
  lowZero: boolean,
  isFree: boolean,
): Budget {
  const all = Object.keys(budget).filter(isAccelerator);
  const used = all.filter((place) => (budget[place] as number) > 0);
  const first = used[0];
  if (first === undefined) return budget;
  const low = lowZero && used.length > 1;
  // All that is free on an only accelerator would leave nothing for what a forward needs.
  if (used.length === 1 && isFree) budget[first] = (budget[first] as number) * 0.9;

  const share = Math.floor(sizeOf(sizes, "") / (low ? used.length - 1 : used.length)) + room;
  const zero = all[0] as string;
  for (const place of used.slice(0, -1))
    if (!(low && place === zero)) budget[place] = Math.min(share, budget[place] as number);
  if (low) {
    // As the reference counts them: an empty one takes the place of one that is not.
    const elsewhere = all.slice(1, used.length).reduce((sum, place) => sum + (budget[place] as number), 0);
    budget[zero] = Math.min(Math.max(0, sizeOf(sizes, "") - elsewhere), budget[zero] as number);
  }
  return budget;
}

/** Room beside each share as accelerate finds it: the first block of each class, or the mean of the last modules. */
export function roomAsAccelerate(root: Part, sizes: Sizes, noSplit: ReadonlySet<string>): number {
  const classOf = new Map([...modulesIn(root)].map(({ name, className }) => [name, className]));
  const blocks = new Map<string, number>();
  for (const [name, size] of sizes) {
    const className = classOf.get(name);
    if (name === "" || className === undefined || !noSplit.has(className)) continue;
    if (!blocks.has(className)) blocks.set(className, size);
  }
  const block = Math.max(0, ...blocks.values());
  // Without the tensors, the last names are modules.
  const tensors = leaves([...sizes.keys()]);
  const modules = leaves([...sizes.keys()].filter((name) => !tensors.has(name)));
  const total = [...modules].reduce((sum, name) => sum + sizeOf(sizes, name), 0);
  return Math.trunc(1.25 * Math.max(block, Math.trunc(total / Math.max(modules.size, 1))));
}

/** The same as transformers finds it: the largest block, or the largest module that has tensors of its own. */
export function roomAsTransformers(root: Part, sizes: Sizes, noSplit: ReadonlySet<string>): number {
  let largest = 0;
  for (const { name, className, parameters, buffers } of modulesIn(root)) {
    if (noSplit.has(className)) largest = Math.max(largest, sizeOf(sizes, name));
    if (name === "") continue;
    const own = [...parameters, ...buffers].reduce((sum, part) => sum + sizeOf(sizes, part.name), 0);
    largest = Math.max(largest, own);
  }
  return Math.trunc(1.25 * largest);
}

/** Names that are no other name's beginning. */
function leaves(names: readonly string[]): Set<string> {
  const parents = new Set(
    names.filter((name) => name.includes(".")).map((name) => name.slice(0, name.lastIndexOf("."))),
  );
  return new Set(names.filter((name) => name !== "" && !parents.has(name)));
}
