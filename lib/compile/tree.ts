// Arguments and results of a recorded function, taken apart into tensors and the structure around them.
import { InvalidArgumentError, TraceError } from "../errors/index.ts";
import { Generator, Tensor } from "../torch/index.ts";

/**
 * Classes whose instances are taken apart: their state is in enumerable properties only, so that a copy without running
 * the constructor is as good as the original. Set `static readonly [TREE] = true`; subclasses inherit it.
 */
export const TREE: unique symbol = Symbol("torchformers.tree");

type Fields = Record<PropertyKey, unknown>;

/** Whether an object's fields are looked at; other objects are passed on as they are. */
function isTree(value: object): boolean {
  if (Array.isArray(value)) return true;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype === Object.prototype || prototype === null) return true;
  return Boolean((value.constructor as { [TREE]?: boolean } | undefined)?.[TREE]);
}

let lastIdentity = 0;
const identities = new WeakMap<object, number>();

function identity(object: object): number {
  const known = identities.get(object);
  if (known !== undefined) return known;
  identities.set(object, ++lastIdentity);
  return lastIdentity;
}

/** The tensors of a value, each once, its objects, each once, and a text that says everything else. */
export interface Flat {
  readonly key: string;
  readonly tensors: readonly Tensor[];
  readonly objects: readonly object[];
  readonly generators: readonly Generator[];
}

/** Takes arguments apart. Two values with equal keys differ in what their tensors are, and in nothing else. */
export function flatten(value: unknown): Flat {
  const tensors: Tensor[] = [];
  const objects: object[] = [];
  const generators: Generator[] = [];
  const places = new Map<object, number>();
  let key = "";
  const walk = (value: unknown): void => {
    switch (typeof value) {
      case "number":
        key += Object.is(value, -0) ? "-0" : String(value);
        return;
      case "string":
        key += JSON.stringify(value);
        return;
      case "bigint":
        key += `${value}n`;
        return;
      case "boolean":
      case "undefined":
        key += value;
        return;
      case "function":
        // A tensor's `.data` can be called.
        if (!(value instanceof Tensor)) {
          key += `f${identity(value)}`;
          return;
        }
        break;
      case "symbol":
        throw new InvalidArgumentError("[compile] a symbol cannot be an argument of a compiled function.");
    }
    if (value === null) {
      key += "null";
      return;
    }
    const object = value as object;
    const place = places.get(object);
    if (place !== undefined) {
      key += `^${place}`;
      return;
    }
    places.set(object, places.size);
    if (object instanceof Tensor) {
      key += "T";
      tensors.push(object);
      return;
    }
    if (object instanceof Generator) {
      key += `G${object.device}`;
      generators.push(object);
      return;
    }
    if (!isTree(object)) {
      refuseHidden(object);
      key += `o${identity(object)}`;
      return;
    }
    objects.push(object);
    key += Array.isArray(object) ? "[" : `${identity(object.constructor ?? Object)}{`;
    for (const name of Object.keys(object)) {
      key += `${JSON.stringify(name)}:`;
      walk((object as Fields)[name]);
      key += ",";
    }
    key += "}";
  };
  walk(value);
  return { key, tensors, objects, generators };
}

/** An object that is passed on as it is must not bring tensors along: the recording would keep those of its first call. */
function refuseHidden(object: object): void {
  const hidden =
    object instanceof Map || object instanceof Set
      ? [...object.values()].some((item) => item instanceof Tensor)
      : "forward" in object
        ? false
        : Object.values(object).some((item) => item instanceof Tensor);
  if (!hidden) return;
  throw new InvalidArgumentError(
    `[compile] an argument of class ${object.constructor?.name} holds tensors, which a recording cannot see.`,
    { hint: "Pass its tensors in a plain object or an array." },
  );
}

/** A copy of the objects of a tree, with other tensors; what is not taken apart is shared. */
export function copyTree(
  value: unknown,
  replace: (tensor: Tensor) => Tensor,
  copies: Map<object, object>,
): unknown {
  if ((typeof value !== "object" && typeof value !== "function") || value === null) return value;
  const known = copies.get(value);
  if (known !== undefined) return known;
  if (value instanceof Tensor) {
    const tensor = replace(value);
    copies.set(value, tensor);
    return tensor;
  }
  if (typeof value === "function" || !isTree(value)) return value;
  const copy: object = Array.isArray(value) ? [] : Object.create(Object.getPrototypeOf(value));
  copies.set(value, copy);
  for (const name of Reflect.ownKeys(value)) {
    const descriptor = Object.getOwnPropertyDescriptor(value, name) as PropertyDescriptor;
    if ("value" in descriptor) descriptor.value = copyTree(descriptor.value, replace, copies);
    Object.defineProperty(copy, name, descriptor);
  }
  return copy;
}

/** How a result is made from the tensors of a run and the arguments of the call. */
export type Node =
  | { readonly kind: "value"; readonly value: unknown }
  | { readonly kind: "output"; readonly index: number }
  | { readonly kind: "input"; readonly index: number } // a tensor of the arguments, passed through
  | { readonly kind: "argument"; readonly index: number } // an object of the arguments
  | ObjectNode;

interface ObjectNode {
  readonly kind: "object";
  readonly id: number;
  readonly prototype: object | null;
  readonly isArray: boolean;
  readonly properties: readonly (readonly [PropertyKey, PropertyDescriptor, Node])[];
}

/** Turns what a recorded function returned, or left in its arguments, into nodes. */
export class Templates {
  /** The fakes that become results of a run, each once. */
  readonly outputs: Tensor[] = [];
  readonly #nodes = new Map<object, Node>();
  readonly #isFake: (tensor: Tensor) => boolean;
  #objects = 0;

  constructor(inputs: readonly Tensor[], objects: readonly object[], isFake: (tensor: Tensor) => boolean) {
    this.#isFake = isFake;
    for (const [index, tensor] of inputs.entries()) this.#nodes.set(tensor, { kind: "input", index });
    for (const [index, object] of objects.entries()) this.#nodes.set(object, { kind: "argument", index });
  }

  of(value: unknown): Node {
    if ((typeof value !== "object" && typeof value !== "function") || value === null)
      return { kind: "value", value };
    const known = this.#nodes.get(value);
    if (known !== undefined) return known;
    if (value instanceof Tensor) return this.#remember(value, this.#tensor(value));
    if (typeof value === "function" || !isTree(value)) return { kind: "value", value };
    return this.#object(value);
  }

  #tensor(tensor: Tensor): Node {
    if (tensor.is_disposed)
      throw new TraceError("[compile] the function returned a tensor that is disposed.");
    // A tensor from elsewhere, passed through: a parameter.
    if (!this.#isFake(tensor)) return { kind: "value", value: tensor };
    this.outputs.push(tensor);
    return { kind: "output", index: this.outputs.length - 1 };
  }

  #object(object: object): Node {
    const properties: [PropertyKey, PropertyDescriptor, Node][] = [];
    const node: Node = {
      kind: "object",
      id: this.#objects++,
      prototype: Object.getPrototypeOf(object),
      isArray: Array.isArray(object),
      properties,
    };
    this.#nodes.set(object, node);
    for (const name of Reflect.ownKeys(object)) {
      const descriptor = Object.getOwnPropertyDescriptor(object, name) as PropertyDescriptor;
      if (!("value" in descriptor))
        throw new TraceError(`[compile] the result has an accessor '${String(name)}'.`);
      properties.push([name, descriptor, this.of(descriptor.value)]);
    }
    return node;
  }

  #remember(value: object, node: Node): Node {
    this.#nodes.set(value, node);
    return node;
  }
}

/** All that nodes say but the tensors themselves, as text: equal texts give results of equal structure and values. */
export function describe(result: Node, mutations: readonly Mutation[]): string {
  const seen = new Set<number>();
  const text = (node: Node | undefined): string => {
    if (node === undefined) return "-";
    switch (node.kind) {
      case "value":
        // A closure that is made anew each time (a cache's own) is known by its text.
        return typeof node.value === "object" && node.value !== null
          ? `o${identity(node.value)}`
          : `${typeof node.value} ${String(node.value)}`;
      case "object": {
        if (seen.has(node.id)) return `^${node.id}`;
        seen.add(node.id);
        const fields = node.properties.map(([name, , child]) => `${String(name)}:${text(child)}`);
        return `${node.id}{${fields.join()}}`;
      }
      default:
        return `${node.kind} ${node.index}`;
    }
  };
  const changes = mutations.map(({ object, key, node }) => `${object}.${key}=${text(node)}`);
  return [text(result), ...changes].join("\n");
}

/** The tensors and objects that nodes refer to, in one call. */
export interface Instance {
  readonly outputs: readonly (Tensor | null)[];
  readonly inputs: readonly Tensor[];
  readonly objects: readonly object[];
  readonly made: Map<number, object>;
}

export function instantiate(node: Node, instance: Instance): unknown {
  switch (node.kind) {
    case "value":
      return node.value;
    case "output":
      return instance.outputs[node.index];
    case "input":
      return instance.inputs[node.index];
    case "argument":
      return instance.objects[node.index];
  }
  const known = instance.made.get(node.id);
  if (known !== undefined) return known;
  const object: object = node.isArray ? [] : Object.create(node.prototype);
  instance.made.set(node.id, object);
  for (const [name, descriptor, child] of node.properties)
    Object.defineProperty(object, name, { ...descriptor, value: instantiate(child, instance) });
  return object;
}

/** What a function did to an object that it was given. */
export interface Mutation {
  /** Which of the arguments' objects. */
  readonly object: number;
  readonly key: string;
  /** undefined: the property was deleted. */
  readonly node: Node | undefined;
}

/** The enumerable fields of objects, to find later what has changed. */
export const snapshot = (objects: readonly object[]): ReadonlyMap<string, unknown>[] =>
  objects.map((object) => new Map(Object.entries(object)));

export function mutationsSince(
  before: readonly ReadonlyMap<string, unknown>[],
  objects: readonly object[],
  templates: Templates,
): Mutation[] {
  const mutations: Mutation[] = [];
  for (const [index, object] of objects.entries()) {
    const fields = before[index] as ReadonlyMap<string, unknown>;
    for (const [key, value] of Object.entries(object)) {
      if (!fields.has(key) || !Object.is(fields.get(key), value))
        mutations.push({ object: index, key, node: templates.of(value) });
    }
    for (const key of fields.keys())
      if (!Object.hasOwn(object, key)) mutations.push({ object: index, key, node: undefined });
  }
  return mutations;
}

export function applyMutations(mutations: readonly Mutation[], instance: Instance): void {
  for (const { object, key, node } of mutations) {
    const target = instance.objects[object] as Fields;
    if (node) {
      target[key] = instantiate(node, instance);
    } else {
      delete target[key];
      if (Array.isArray(target) && Number(key) === target.length - 1) target.length--;
    }
  }
}
