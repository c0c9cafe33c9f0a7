// Runs a parsed template: statements, expressions, scopes, with the values and operations of Python.

import { bind } from "./arguments.ts";
import { runFilter } from "./filters.ts";
import { checkNamespaceName, GLOBALS } from "./functions.ts";
import type { Marks } from "./generation.ts";
import { attributeOf, itemOf } from "./members.ts";
import type { Expression, ForNode, Given, MacroNode, Piped, Statement, Target } from "./nodes.ts";
import { arithmetic } from "./operators.ts";
import { runTest } from "./tests.ts";
import {
  type Arguments,
  type Callable,
  checkHeap,
  compare,
  contains,
  equal,
  Float,
  isNumber,
  items,
  JinjaError,
  join,
  Loop,
  limited,
  Namespace,
  numberOf,
  slice,
  Tuple,
  text,
  truth,
  typeName,
  Undefined,
  type Value,
} from "./values.ts";

/** A scope: what is set inside stays inside; what is not found is looked for outside. */
class Scope {
  readonly #names = new Map<string, Value>();
  readonly #outer: Scope | undefined;

  constructor(outer?: Scope) {
    this.#outer = outer;
  }

  get(name: string): Value {
    for (let scope: Scope | undefined = this; scope !== undefined; scope = scope.#outer) {
      const found = scope.#names.get(name);
      if (found !== undefined) return found;
    }
    return new Undefined(`'${name}' is undefined`);
  }

  set(name: string, value: Value): void {
    this.#names.set(name, value);
  }
}

/** Leaves a loop's body by `break` (`ends`) or `continue`, with what it had written. */
class LeaveLoop extends Error {
  readonly written: string;
  readonly ends: boolean;

  constructor(written: string, ends: boolean) {
    super();
    this.written = written;
    this.ends = ends;
  }
}

const STEPS_PER_LOOK = 4096;

/** One rendering. */
export class Run {
  readonly #marks: Marks;
  #steps = 0;

  constructor(marks: Marks) {
    this.#marks = marks;
  }

  program(program: readonly Statement[], variables: ReadonlyMap<string, Value>): string {
    const globals = new Scope();
    for (const [name, value] of GLOBALS) globals.set(name, value);
    const scope = new Scope(globals);
    for (const [name, value] of variables) scope.set(name, value);
    return this.#block(program, scope);
  }

  #count(): void {
    if (++this.#steps % STEPS_PER_LOOK === 0) checkHeap();
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Statements

  #block(body: readonly Statement[], scope: Scope): string {
    let out = "";
    try {
      for (const node of body) {
        this.#count();
        out = limited(out + this.#statement(node, scope));
      }
    } catch (error) {
      if (error instanceof LeaveLoop) throw new LeaveLoop(out + error.written, error.ends);
      throw error;
    }
    return out;
  }

  #statement(node: Statement, scope: Scope): string {
    switch (node.type) {
      case "text":
        return node.value;
      case "output":
        return node.values.map((value) => text(this.#run(value, scope))).join("");
      case "if": {
        const taken = node.branches.find(([test]) => truth(this.#run(test, scope)));
        return this.#block(taken?.[1] ?? node.otherwise, scope);
      }
      case "for":
        return this.#for(node, this.#run(node.iterable, scope), scope, 0);
      case "set":
        this.#assign(node.target, this.#run(node.value, scope), scope);
        return "";
      case "setBlock":
        this.#assign(node.target, this.#filtered(node.filters, node.body, scope), scope);
        return "";
      case "with":
        return this.#with(node, scope);
      case "macro":
        scope.set(node.macro.name, this.#macro(node.macro, scope));
        return "";
      case "call": {
        const [args, kwargs] = this.#given(node.call.given, scope);
        kwargs.set("caller", this.#macro(node.caller, scope));
        return text(this.#call(this.#run(node.call.callee, scope), args, kwargs));
      }
      case "filter":
        return text(this.#filtered(node.filters, node.body, scope));
      case "generation":
        return this.#marks[0] + this.#block(node.body, new Scope(scope)) + this.#marks[1];
      case "break":
      case "continue":
        throw new LeaveLoop("", node.type === "break");
    }
  }

  /** @param depth how many calls of `loop(…)` this one is within. */
  #for(node: ForNode, iterable: Value, scope: Scope, depth: number): string {
    const scopes: Scope[] = [];
    const kept: Value[] = [];
    for (const item of items(iterable)) {
      const inner = new Scope(scope);
      this.#assign(node.target, item, inner);
      if (node.test !== undefined && !truth(this.#run(node.test, inner))) continue;
      scopes.push(inner);
      kept.push(item);
    }
    if (scopes.length === 0) return this.#block(node.otherwise, new Scope(scope));
    const again: Callable = ([values = new Undefined("loop() needs something to run over")]) => {
      if (!node.recursive)
        throw new JinjaError("The loop must have the 'recursive' marker to be called recursively.");
      return this.#for(node, values, scope, depth + 1);
    };
    let out = "";
    let changed: Value[] | undefined;
    const isChanged = (values: Value[]) => {
      const isNew = changed === undefined || !equal(changed, values);
      changed = values;
      return isNew;
    };
    for (const [i, inner] of scopes.entries()) {
      inner.set("loop", loopOf(kept, i, depth, isChanged, again));
      try {
        out = limited(out + this.#block(node.body, inner));
      } catch (error) {
        if (!(error instanceof LeaveLoop)) throw error;
        out += error.written;
        if (error.ends) break;
      }
    }
    return out;
  }

  #with(node: Statement & { type: "with" }, scope: Scope): string {
    const inner = new Scope(scope);
    for (const [target, value] of node.values) this.#assign(target, this.#run(value, scope), inner);
    return this.#block(node.body, inner);
  }

  /** The text of a body, through filters. */
  #filtered(filters: readonly Piped[], body: readonly Statement[], scope: Scope): Value {
    return filters.reduce<Value>(
      (value, { name, given }) => runFilter(name, value, ...this.#given(given, scope), attributeOf),
      this.#block(body, new Scope(scope)),
    );
  }

  #assign(target: Target, value: Value, scope: Scope): void {
    if (target.type === "Name") {
      scope.set(target.name, value);
      return;
    }
    if (target.type === "NamespaceAttribute") {
      const namespace = scope.get(target.namespace);
      if (!(namespace instanceof Namespace))
        throw new JinjaError("cannot assign attribute on non-namespace object");
      checkNamespaceName(target.name);
      namespace.attributes.set(target.name, value);
      return;
    }
    const parts = items(value);
    const names = target.items;
    if (parts.length > names.length)
      throw new JinjaError(`too many values to unpack (expected ${names.length})`);
    if (parts.length < names.length)
      throw new JinjaError(`not enough values to unpack (expected ${names.length}, got ${parts.length})`);
    for (const [i, name] of names.entries()) this.#assign(name, parts[i] as Value, scope);
  }

  #macro({ name, parameters, body, special }: MacroNode, scope: Scope): Callable {
    const names = parameters.map(([parameter]) => parameter);
    return (args, given) => {
      const inner = new Scope(scope);
      const kwargs = new Map(given);
      if (special.has("caller"))
        inner.set("caller", kwargs.get("caller") ?? new Undefined("No caller defined"));
      if (special.has("caller")) kwargs.delete("caller");
      if (args.length > names.length && !special.has("varargs"))
        throw new JinjaError(`macro '${name}' takes not more than ${names.length} argument(s)`);
      const known = new Map([...kwargs].filter(([key]) => names.includes(key)));
      const extra = new Map([...kwargs].filter(([key]) => !names.includes(key)));
      const [stranger] = extra.keys();
      if (stranger !== undefined && !special.has("kwargs"))
        throw new JinjaError(`macro '${name}' takes no keyword argument '${stranger}'`);
      const values = bind(name, names, args.slice(0, names.length), known);
      for (const [i, [parameter, fallback]] of parameters.entries()) {
        const missing =
          fallback === undefined ? new Undefined(`parameter '${parameter}' was not provided`) : undefined;
        inner.set(parameter, values[i] ?? missing ?? this.#run(fallback as Expression, inner));
      }
      if (special.has("varargs")) inner.set("varargs", Tuple.make(args.slice(names.length)));
      if (special.has("kwargs")) inner.set("kwargs", extra as Map<Value, Value>);
      return this.#block(body, inner);
    };
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Expressions

  #run(node: Expression, scope: Scope): Value {
    this.#count();
    return limited(this.#evaluate(node, scope));
  }

  #evaluate(node: Expression, scope: Scope): Value {
    switch (node.type) {
      case "Literal":
        return node.value;
      case "Float":
        return new Float(node.value);
      case "Name":
        return scope.get(node.name);
      case "List":
        return node.items.map((item) => this.#run(item, scope));
      case "Tuple":
        return Tuple.make(node.items.map((item) => this.#run(item, scope)));
      case "Dict":
        return new Map(node.items.map(([key, item]) => [this.#run(key, scope), this.#run(item, scope)]));
      case "Attribute":
        return attributeOf(this.#run(node.object, scope), node.name);
      case "Item":
        return this.#item(this.#run(node.object, scope), node.key, scope);
      case "Call":
        return this.#call(this.#run(node.callee, scope), ...this.#given(node.given, scope));
      case "Filter":
        return runFilter(
          node.name,
          this.#run(node.value, scope),
          ...this.#given(node.given, scope),
          attributeOf,
        );
      case "Test":
        return runTest(node.name, this.#run(node.value, scope), ...this.#given(node.given, scope));
      case "Unary":
        return unary(node.operator, this.#run(node.value, scope));
      case "Binary":
        return this.#binary(node, scope);
      case "Compare":
        return this.#compare(node, scope);
      case "Concat":
        return join(
          node.items.map((item) => text(this.#run(item, scope))),
          "",
        );
      case "If":
        if (truth(this.#run(node.test, scope))) return this.#run(node.yes, scope);
        if (node.no !== undefined) return this.#run(node.no, scope);
        return new Undefined("the inline if-expression evaluated to false and no else section was defined.");
      case "Slice":
        throw new JinjaError("a slice stands within brackets");
    }
  }

  #given({ args, kwargs, dynArgs, dynKwargs }: Given, scope: Scope): [Value[], Arguments] {
    const values = args.map((node) => this.#run(node, scope));
    const named: Arguments = new Map(kwargs.map(([name, node]) => [name, this.#run(node, scope)]));
    if (dynArgs !== undefined) values.push(...items(this.#run(dynArgs, scope)));
    if (dynKwargs !== undefined) {
      const more = this.#run(dynKwargs, scope);
      if (!(more instanceof Map))
        throw new JinjaError(`argument after ** must be a mapping, not ${typeName(more)}`);
      for (const [name, value] of more) named.set(String(name), value);
    }
    return [values, named];
  }

  #call(callee: Value, args: Value[], kwargs: Arguments): Value {
    if (typeof callee === "function") return callee(args, kwargs);
    if (callee instanceof Loop) return callee.call(args, kwargs);
    if (callee instanceof Undefined) throw new JinjaError(callee.reason);
    throw new JinjaError(`'${typeName(callee)}' object is not callable`);
  }

  #item(object: Value, key: Expression, scope: Scope): Value {
    if (object instanceof Undefined) throw new JinjaError(object.reason);
    if (key.type !== "Slice") return itemOf(object, this.#run(key, scope));
    const bound = (node: Expression | undefined): number | null => {
      const value = node === undefined ? null : this.#run(node, scope);
      if (value === null || typeof value === "number" || typeof value === "boolean")
        return value === null ? null : Number(value);
      throw new JinjaError("slice indices must be integers or None or have an __index__ method");
    };
    const [start, stop, step] = key.bounds;
    const bounds = [bound(start), bound(stop), bound(step)] as const;
    if (typeof object === "string") return slice([...object], ...bounds).join("");
    if (Array.isArray(object)) {
      const part = slice(object, ...bounds);
      return object instanceof Tuple ? Tuple.make(part) : part;
    }
    return new Undefined(`'${typeName(object)} object' has no such element`);
  }

  #binary(node: Expression & { type: "Binary" }, scope: Scope): Value {
    const left = this.#run(node.left, scope);
    if (node.operator === "and") return truth(left) ? this.#run(node.right, scope) : left;
    if (node.operator === "or") return truth(left) ? left : this.#run(node.right, scope);
    return arithmetic(node.operator, left, this.#run(node.right, scope));
  }

  /** `a < b < c`: each pair in turn, up to the first that does not hold. */
  #compare(node: Expression & { type: "Compare" }, scope: Scope): boolean {
    let left = this.#run(node.first, scope);
    for (const [operator, operand] of node.rest) {
      const right = this.#run(operand, scope);
      if (!holds(operator, left, right)) return false;
      left = right;
    }
    return true;
  }
}

function unary(operator: "not" | "-" | "+", value: Value): Value {
  if (operator === "not") return !truth(value);
  if (value instanceof Undefined) throw new JinjaError(value.reason);
  if (!isNumber(value)) throw new JinjaError(`bad operand type for unary ${operator}: '${typeName(value)}'`);
  const number = operator === "-" ? -numberOf(value) : numberOf(value);
  return value instanceof Float ? new Float(number) : number + 0;
}

function holds(operator: string, left: Value, right: Value): boolean {
  switch (operator) {
    case "==":
      return equal(left, right);
    case "!=":
      return !equal(left, right);
    case "in":
      return contains(right, left);
    case "not in":
      return !contains(right, left);
  }
  for (const side of [left, right]) if (side instanceof Undefined) throw new JinjaError(side.reason);
  const order = compare(left, right);
  if (operator === "<") return order < 0;
  if (operator === "<=") return order <= 0;
  return operator === ">" ? order > 0 : order >= 0;
}

function loopOf(
  list: readonly Value[],
  i: number,
  depth: number,
  isChanged: (values: Value[]) => boolean,
  again: Callable,
): Loop {
  const outside = (at: number, which: string): Value =>
    list[at] ?? new Undefined(`there is no ${which} item`);
  const cycle: Callable = (args) => {
    if (args.length === 0) throw new JinjaError("no items for cycling given");
    return args[i % args.length] as Value;
  };
  const attributes = new Map<string, Value>([
    ["index", i + 1],
    ["index0", i],
    ["revindex", list.length - i],
    ["revindex0", list.length - i - 1],
    ["first", i === 0],
    ["last", i === list.length - 1],
    ["length", list.length],
    ["depth", depth + 1],
    ["depth0", depth],
    ["previtem", outside(i - 1, "previous")],
    ["nextitem", outside(i + 1, "next")],
    ["cycle", cycle],
    ["changed", (args) => isChanged(args)],
  ]);
  return new Loop(attributes, again);
}
