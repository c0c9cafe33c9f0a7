// What a model weighs, part by part. A plan looks at the tree of modules once; no tensor's values are touched.
import { bind } from "../nn/arguments.ts";
import type { Module } from "../nn/index.ts";
import { dtypeBytes } from "../torch/dtype.ts";
import type { Dtype, Tensor } from "../torch/index.ts";
import { dtype_byte_size } from "./byte_sizes.ts";

/** A module or a tensor of a model under one of its names: what a plan places. */
export interface Part {
  readonly name: string;
  /** The module's class; "" for a tensor. */
  readonly className: string;
  readonly isModule: boolean;
  /** Own parameters, as parts. */
  readonly parameters: readonly Part[];
  readonly buffers: readonly Part[];
  /** Direct children, each once. */
  readonly children: readonly Part[];
  readonly module: Module | undefined;
  readonly tensor: Tensor | undefined;
}

const join = (path: string, name: string) => (path === "" ? name : `${path}.${name}`);

/** The tree of a model, with everything in it that a plan asks for. */
export function partsOf(module: Module, name = ""): Part {
  const state = module._own_state();
  const met = new Set<Module>();
  const children: Part[] = [];
  for (const [key, child] of state.children) {
    if (met.has(child)) continue;
    met.add(child);
    children.push(partsOf(child, join(name, key)));
  }
  return {
    name,
    className: module.constructor.name,
    isModule: true,
    parameters: ownTensors(state.parameters, name),
    buffers: ownTensors(state.buffers, name),
    children,
    module,
    tensor: undefined,
  };
}

const ownTensors = (own: readonly (readonly [string, Tensor])[], path: string): Part[] =>
  own.map(([key, tensor]) => ({ ...LEAF, name: join(path, key), tensor }));

const LEAF = {
  className: "",
  isModule: false,
  parameters: [],
  buffers: [],
  children: [],
  module: undefined,
} as const;

/** All parts that are modules, the root first. */
export function* modulesIn(part: Part): Generator<Part> {
  yield part;
  for (const child of part.children) yield* modulesIn(child);
}

/** Bytes by name; a name that is not there weighs nothing. */
export type Sizes = ReadonlyMap<string, number>;
export const sizeOf = (sizes: Sizes, name: string): number => sizes.get(name) ?? 0;

export interface SizeOptions {
  /** Weights are cast to this dtype when they are loaded; those that are smaller already stay. */
  readonly dtype?: Dtype | undefined;
  /** Tensor name → dtype, before `dtype`. */
  readonly special_dtypes?: Readonly<Record<string, Dtype>> | undefined;
  readonly buffers_only?: boolean | undefined;
}

/** Bytes of all modules, parameters and buffers of a tree, as accelerate counts them: what is shared counts under its first name. */
export function sizesAsAccelerate(root: Part, options: SizeOptions = {}): Map<string, number> {
  const { dtype, special_dtypes = {}, buffers_only = false } = options;
  const bytes = (name: string, tensor: Tensor) => {
    const own = tensor.dtype;
    const special = special_dtypes[name];
    if (special !== undefined) return tensor.numel() * dtype_byte_size(special);
    if (dtype === undefined || /^(uint|int|bool)/.test(own)) return tensor.numel() * dtype_byte_size(own);
    return tensor.numel() * Math.min(dtype_byte_size(dtype), dtype_byte_size(own));
  };
  return addUp(uniqueTensors(root, buffers_only ? ["buffers"] : ["parameters", "buffers"]), bytes);
}

/** The same as transformers counts it: targets of ties are left out. */
export function sizesAsTransformers(
  root: Part,
  {
    tied = new Set<string>(),
    buffersOnly = false,
    dtypeOf = (_name: string, tensor: Tensor) => tensor.dtype,
  } = {},
): Map<string, number> {
  const kinds: Kind[] = buffersOnly ? ["buffers"] : ["parameters", "buffers"];
  return addUp(
    uniqueTensors(root, kinds, tied),
    (name, tensor) => tensor.numel() * dtypeBytes(dtypeOf(name, tensor)),
  );
}

type Kind = "parameters" | "buffers";

/** Tensors under their first names: all parameters, then all buffers. */
export function* uniqueTensors(
  root: Part,
  kinds: readonly Kind[] = ["parameters", "buffers"],
  without: ReadonlySet<string> = new Set(),
): Generator<[string, Tensor]> {
  for (const kind of kinds) {
    const modules = new Set<Module>();
    const tensors = new Set<Tensor>();
    const walk = function* (part: Part): Generator<[string, Tensor]> {
      if (modules.has(part.module as Module)) return;
      modules.add(part.module as Module);
      for (const { name, tensor } of part[kind]) {
        if (without.has(name) || tensors.has(tensor as Tensor)) continue;
        tensors.add(tensor as Tensor);
        yield [name, tensor as Tensor];
      }
      for (const child of part.children) yield* walk(child);
    };
    yield* walk(root);
  }
}

function addUp(
  tensors: Iterable<[string, Tensor]>,
  bytesOf: (name: string, tensor: Tensor) => number,
): Map<string, number> {
  const sizes = new Map<string, number>();
  const add = (name: string, bytes: number) => sizes.set(name, (sizes.get(name) ?? 0) + bytes);
  for (const [name, tensor] of tensors) {
    const bytes = bytesOf(name, tensor);
    add("", bytes);
    for (let dot = name.indexOf("."); dot >= 0; dot = name.indexOf(".", dot + 1))
      add(name.slice(0, dot), bytes);
    add(name, bytes);
  }
  return sizes;
}

/**
 * Bytes of each module, parameter and buffer of a model by name; "" is all of it. A tied parameter counts once, under its first name.
 *
 * @param options.dtype count weights as if they were cast. @param options.special_dtypes the same by tensor name.
 * @param options.buffers_only leave parameters out; default false.
 * @example compute_module_sizes(model, { dtype: "float16" })["model.layers.0"];
 */
export function compute_module_sizes(model: Module, options: SizeOptions = {}): Record<string, number> {
  const bound = bind("compute_module_sizes", [options], {
    dtype: undefined as SizeOptions["dtype"],
    special_dtypes: undefined as SizeOptions["special_dtypes"],
    buffers_only: false,
  });
  return Object.fromEntries(sizesAsAccelerate(partsOf(model), bound));
}

/** The largest layer among some parts, and all names of that size; a layer has no children, or must not be split. */
export function largestLayer(
  parts: readonly Part[],
  sizes: Sizes,
  noSplit: ReadonlySet<string>,
): { size: number; names: string[] } {
  let size = 0;
  let names: string[] = [];
  const visit = (part: Part) => {
    if (part.children.length > 0 && !noSplit.has(part.className)) {
      for (const child of part.children) visit(child);
      return;
    }
    const own = sizeOf(sizes, part.name);
    if (own > size) [size, names] = [own, [part.name]];
    else if (own === size) names.push(part.name);
  };
  for (const part of parts) visit(part);
  return { size, names };
}

/** What a plan starts from: the root's own parameters, its children, its own buffers. */
export const firstParts = ({ parameters, children, buffers }: Part): Part[] => [
  ...parameters,
  ...children,
  ...buffers,
];

/** Classes that a model names as not to be split; none for a plain module. */
export function noSplitClasses(model: Module): readonly string[] {
  const declared = (model.constructor as { _no_split_modules?: unknown })._no_split_modules;
  return Array.isArray(declared) ? declared : [];
}

/**
 * Bytes of a model, and its largest layer with the names of all layers of that size.
 *
 * @example const [total, [largest, names]] = calculate_maximum_sizes(model);
 */
export function calculate_maximum_sizes(
  model: Module,
): [total: number, largest: [bytes: number, names: string[]]] {
  const root = partsOf(model);
  const sizes = sizesAsAccelerate(root);
  const { size, names } = largestLayer(firstParts(root), sizes, new Set(noSplitClasses(model)));
  return [sizeOf(sizes, ""), [size, names]];
}

/**
 * Groups of names of one parameter, each sorted.
 *
 * @example find_tied_parameters(model); // [["lm_head.weight", "model.embed_tokens.weight"]]
 */
export function find_tied_parameters(model: Module): string[][] {
  const names = new Map<Tensor, string[]>();
  for (const [name, parameter] of model.named_parameters({ remove_duplicate: false })) {
    const known = names.get(parameter);
    if (known) known.push(name);
    else names.set(parameter, [name]);
  }
  return [...names.values()].filter((group) => group.length > 1).map((group) => group.sort());
}
