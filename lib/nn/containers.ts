// Containers: modules and parameters in lists and dictionaries, as own properties of the container.

import { InvalidArgumentError } from "../errors/index.ts";
import { Tensor } from "../torch/index.ts";
import { isOptions } from "../torch/options.ts";
import { Module } from "./module.ts";
import { printWith, repeatedLines } from "./module_print.ts";
import { Parameter } from "./parameter.ts";

/** A module that takes one tensor and gives one, as the parts of a `Sequential` do. */
export interface Layer extends Module {
  forward(x: Tensor): Tensor;
}

/** Entries stand as own properties "0", "1", …; these helpers keep the numbering without gaps. */
type Numbered<T> = Record<number, T>;

function absolute(name: string, index: number, length: number): number {
  const at = index < 0 ? index + length : index;
  if (!Number.isInteger(index) || at < 0 || at >= length) {
    throw new InvalidArgumentError(`${name}: index ${index} is out of range for length ${length}.`);
  }
  return at;
}

/** Puts `items` in the place of all entries. */
function renumber<T>(list: Numbered<T>, length: number, items: readonly T[]): void {
  for (let i = 0; i < length; i++) delete list[i];
  for (const [i, item] of items.entries()) list[i] = item;
}

/**
 * Submodules in a list: `list[0]`, `list.length`, `for … of`.
 *
 * @param modules what to begin with.
 * @example this.layers = new nn.ModuleList(Array.from({ length: 4 }, () => new nn.Linear(8, 8)));
 */
export class ModuleList<T extends Module = Module> extends Module implements Iterable<T> {
  [index: number]: T;

  constructor(modules: Iterable<T> = []) {
    super();
    this.extend(modules);
  }

  get length(): number {
    return this._own_state().children.length;
  }

  *[Symbol.iterator](): Iterator<T> {
    for (const [, child] of this._own_state().children) yield child as T;
  }

  /** The entry at `index`; negative ones count from the end. */
  at(index: number): T {
    return this[absolute(this._get_name(), index, this.length)] as T;
  }

  /** A new list over the same modules, `start` to before `end`. */
  slice(start?: number, end?: number): ModuleList<T> {
    return new ModuleList([...this].slice(start, end));
  }

  /** Pairs of position and module. */
  entries(): IterableIterator<[number, T]> {
    return [...this].entries();
  }

  map<R>(fn: (module: T, index: number) => R): R[] {
    return [...this].map((module, i) => fn(module, i));
  }

  append(module: T): this {
    this.add_module(String(this.length), module);
    return this;
  }

  extend(modules: Iterable<T>): this {
    for (const module of modules) this.append(module);
    return this;
  }

  /** Puts `module` before the entry at `index`. */
  insert(index: number, module: T): void {
    const items = [...this];
    const length = items.length;
    items.splice(index, 0, module);
    renumber<T>(this, length, items);
  }

  /** Takes the entry at `index` out; default the last one. */
  pop(index = -1): T {
    const items = [...this];
    const length = items.length;
    const [taken] = items.splice(absolute(this._get_name(), index, length), 1);
    renumber<T>(this, length, items);
    return taken as T;
  }

  override toString(): string {
    return printWith(this, repeatedLines(this._own_state().children));
  }
}

/**
 * Layers that run one after the other, each on the result of the one before.
 *
 * @example
 * new nn.Sequential(new nn.Linear(4, 8), new nn.ReLU(), new nn.Linear(8, 2));
 * new nn.Sequential({ conv: new nn.Conv2d(3, 8, 3), act: new nn.ReLU() });
 */
export class Sequential extends Module implements Iterable<Module> {
  [index: number]: Layer;

  constructor(...modules: readonly Module[] | readonly [Readonly<Record<string, Module>>]) {
    super();
    const [first] = modules;
    if (modules.length === 1 && isOptions(first)) {
      for (const [name, module] of Object.entries(first as Record<string, Module>))
        this.add_module(name, module);
    } else {
      this.extend(modules as readonly Module[]);
    }
  }

  override forward(x: Tensor, ...rest: unknown[]): Tensor {
    // What follows the first argument goes to the first layer only.
    let result: unknown = x;
    let first = rest;
    for (const module of Object.values(this)) {
      if (!(module instanceof Module)) continue;
      result = (module as { forward(...args: unknown[]): unknown }).forward(result, ...first);
      first = [];
    }
    return result as Tensor;
  }

  get length(): number {
    return this._own_state().children.length;
  }

  *[Symbol.iterator](): Iterator<Module> {
    for (const [, child] of this._own_state().children) yield child;
  }

  /** The layer at `index`, whatever its name; negative ones count from the end. */
  at(index: number): Layer {
    return [...this][absolute("Sequential", index, this.length)] as Layer;
  }

  /** A new Sequential over the same layers under the same names, `start` to before `end`. */
  slice(start?: number, end?: number): Sequential {
    return new Sequential(Object.fromEntries(this._own_state().children.slice(start, end)));
  }

  append(module: Module): this {
    this.add_module(String(this.length), module);
    return this;
  }

  extend(modules: Iterable<Module>): this {
    for (const module of modules) this.append(module);
    return this;
  }

  /** Puts `module` before the layer at `index`; the layers must be numbered, not named. */
  insert(index: number, module: Module): this {
    const items = [...this];
    const length = items.length;
    items.splice(index, 0, module);
    renumber<Module>(this as unknown as Numbered<Module>, length, items);
    return this;
  }

  /** Takes the layer at `index` out; default the last one. The layers must be numbered, not named. */
  pop(index = -1): Module {
    const items = [...this];
    const length = items.length;
    const [taken] = items.splice(absolute("Sequential", index, length), 1);
    renumber<Module>(this as unknown as Numbered<Module>, length, items);
    return taken as Module;
  }
}

/**
 * Submodules under names that are not known beforehand.
 *
 * @example
 * const heads = new nn.ModuleDict({ a: new nn.Linear(4, 2) });
 * heads.get("a").forward(x);
 */
export class ModuleDict<T extends Module = Module> extends Module implements Iterable<string> {
  constructor(modules: Readonly<Record<string, T>> | Iterable<readonly [string, T]> = {}) {
    super();
    this.update(modules);
  }

  get length(): number {
    return this._own_state().children.length;
  }

  /** The names, as in Python. */
  [Symbol.iterator](): Iterator<string> {
    return this.keys();
  }

  has(name: string): boolean {
    return Object.hasOwn(this, name) && (this as unknown as Record<string, unknown>)[name] instanceof Module;
  }

  /** @throws InvalidArgumentError when there is none of this name. */
  get(name: string): T {
    return this.get_submodule(name) as T;
  }

  set(name: string, module: T): this {
    this.add_module(name, module);
    return this;
  }

  /** Takes the module out and returns it. */
  pop(name: string): T {
    const module = this.get(name);
    delete (this as unknown as Record<string, unknown>)[name];
    return module;
  }

  clear(): void {
    for (const name of [...this.keys()]) this.pop(name);
  }

  update(modules: Readonly<Record<string, T>> | Iterable<readonly [string, T]>): void {
    const pairs = Symbol.iterator in modules ? modules : Object.entries(modules);
    for (const [name, module] of pairs as Iterable<readonly [string, T]>) this.set(name, module);
  }

  *keys(): Generator<string> {
    for (const [name] of this._own_state().children) yield name;
  }

  *values(): Generator<T> {
    for (const [, module] of this._own_state().children) yield module as T;
  }

  *items(): Generator<[string, T]> {
    for (const [name, module] of this._own_state().children) yield [name, module as T];
  }
}

const describe = (tensor: Tensor, type: string) =>
  `Parameter containing: [${type} of size ${tensor.shape.join("x")}${tensor.is_cuda ? ` (${tensor.device})` : ""}]`;

const asParameter = (tensor: Tensor) => (tensor instanceof Parameter ? tensor : new Parameter(tensor));

/**
 * Parameters in a list: `list[0]`, `list.length`, `for … of`. A plain tensor becomes a parameter.
 *
 * @example this.scales = new nn.ParameterList([torch.ones([8]), torch.ones([8])]);
 */
export class ParameterList extends Module implements Iterable<Parameter> {
  [index: number]: Parameter;

  constructor(values: Iterable<Tensor> = []) {
    super();
    this.extend(values);
  }

  get length(): number {
    return this._own_state().parameters.length;
  }

  *[Symbol.iterator](): Iterator<Parameter> {
    for (const [, parameter] of this._own_state().parameters) yield parameter;
  }

  /** The entry at `index`; negative ones count from the end. */
  at(index: number): Parameter {
    return this[absolute("ParameterList", index, this.length)] as Parameter;
  }

  append(value: Tensor): this {
    this.register_parameter(String(this.length), asParameter(value));
    return this;
  }

  extend(values: Iterable<Tensor>): this {
    for (const value of values) this.append(value);
    return this;
  }

  override extra_repr(): string {
    return [...this]
      .map((parameter, i) => `  (${i}): ${describe(parameter, `torch.${parameter.dtype}`)}`)
      .join("\n");
  }
}

/**
 * Parameters under names that are not known beforehand. A plain tensor becomes a parameter.
 *
 * @example new nn.ParameterDict({ left: torch.ones([2]) }).get("left");
 */
export class ParameterDict extends Module implements Iterable<string> {
  constructor(values: Readonly<Record<string, Tensor>> | Iterable<readonly [string, Tensor]> = {}) {
    super();
    this.update(values);
  }

  get length(): number {
    return this._own_state().parameters.length;
  }

  /** The names, as in Python. */
  [Symbol.iterator](): Iterator<string> {
    return this.keys();
  }

  has(name: string): boolean {
    return Object.hasOwn(this, name) && (this as unknown as Record<string, unknown>)[name] instanceof Tensor;
  }

  /** @throws InvalidArgumentError when there is none of this name. */
  get(name: string): Parameter {
    return this.get_parameter(name);
  }

  set(name: string, value: Tensor): this {
    this.register_parameter(name, asParameter(value));
    return this;
  }

  /** Takes the parameter out and returns it. */
  pop(name: string): Parameter {
    const parameter = this.get(name);
    delete (this as unknown as Record<string, unknown>)[name];
    return parameter;
  }

  clear(): void {
    for (const name of [...this.keys()]) this.pop(name);
  }

  update(values: Readonly<Record<string, Tensor>> | Iterable<readonly [string, Tensor]>): void {
    const pairs = Symbol.iterator in values ? values : Object.entries(values);
    for (const [name, value] of pairs as Iterable<readonly [string, Tensor]>) this.set(name, value);
  }

  *keys(): Generator<string> {
    for (const [name] of this._own_state().parameters) yield name;
  }

  *values(): Generator<Parameter> {
    for (const [, parameter] of this._own_state().parameters) yield parameter;
  }

  *items(): Generator<[string, Parameter]> {
    for (const [name, parameter] of this._own_state().parameters) yield [name, parameter];
  }

  override extra_repr(): string {
    return [...this.items()]
      .map(([name, parameter]) => `  (${name}): ${describe(parameter, "torch.FloatTensor")}`)
      .join("\n");
  }
}
