// Runs a parsed template: statements, expressions, scopes, with the values and operations of Python.

import { bind } from "./arguments.ts";
import { runFilter } from "./filters.ts";
import { checkNamespaceName, GLOBALS } from "./functions.ts";
import { GENERATION, type Marks } from "./generation.ts";
import { attributeOf, itemOf } from "./members.ts";
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

/** A node of the parser's tree; which fields it has goes by `type`. */
// biome-ignore lint/suspicious/noExplicitAny: the package exports no node types
export type Node = { readonly type: string; readonly [field: string]: any };

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

/** Statements print their text, expressions their value: `None` included. */
const STATEMENTS = new Set([
  "If",
  "For",
  "Set",
  "Macro",
  "Comment",
  "CallStatement",
  "FilterStatement",
  "Break",
  "Continue",
]);

const STEPS_PER_LOOK = 4096;

/** One rendering. */
export class Run {
  readonly #marks: Marks;
  #steps = 0;

  constructor(marks: Marks) {
    this.#marks = marks;
  }

  program(program: Node, variables: ReadonlyMap<string, Value>): string {
    const globals = new Scope();
    for (const [name, value] of GLOBALS) globals.set(name, value);
    for (const name of ["true", "True"]) globals.set(name, true);
    for (const name of ["false", "False"]) globals.set(name, false);
    for (const name of ["none", "None"]) globals.set(name, null);
    const scope = new Scope(globals);
    for (const [name, value] of variables) scope.set(name, value);
    return this.#block(program.body, scope);
  }

  #block(body: readonly Node[], scope: Scope): string {
    let out = "";
    try {
      for (const node of body) {
        const value = this.#run(node, scope);
        out = limited(out + (STATEMENTS.has(node.type) ? (value as string) : text(value)));
      }
    } catch (error) {
      if (error instanceof LeaveLoop) throw new LeaveLoop(out + error.written, error.ends);
      throw error;
    }
    return out;
  }

  #run(node: Node, scope: Scope): Value {
    if (++this.#steps % STEPS_PER_LOOK === 0) checkHeap();
    return limited(this.#evaluate(node, scope));
  }

  #evaluate(node: Node, scope: Scope): Value {
    switch (node.type) {
      case "StringLiteral":
      case "IntegerLiteral":
        return node.value;
      case "FloatLiteral":
        return new Float(node.value);
      case "Identifier":
        return scope.get(node.value);
      case "ArrayLiteral":
        return (node.value as Node[]).map((item) => this.#run(item, scope));
      case "TupleLiteral":
        return Tuple.make((node.value as Node[]).map((item) => this.#run(item, scope)));
      case "ObjectLiteral":
        return new Map(
          [...(node.value as Map<Node, Node>)].map(([key, item]) => [
            this.#run(key, scope),
            this.#run(item, scope),
          ]),
        );
      case "MemberExpression":
        return this.#member(node, scope);
      case "CallExpression":
        return this.#call(this.#run(node.callee, scope), ...this.#arguments(node.args, scope));
      case "FilterExpression":
        return this.#filter(node.filter, this.#run(node.operand, scope), scope);
      case "TestExpression":
        return runTest(node.test.value, this.#run(node.operand, scope), []) !== node.negate;
      case "UnaryExpression":
        return this.#unary(node.operator.value, this.#run(node.argument, scope));
      case "BinaryExpression":
        return this.#binary(node, scope);
      case "Ternary":
        return this.#run(truth(this.#run(node.condition, scope)) ? node.trueExpr : node.falseExpr, scope);
      case "SelectExpression":
        if (truth(this.#run(node.test, scope))) return this.#run(node.lhs, scope);
        return new Undefined("the inline if-expression evaluated to false and no else section was defined.");
      case "If":
        return this.#block(truth(this.#run(node.test, scope)) ? node.body : node.alternate, scope);
      case "For":
        return this.#for(node, scope);
      case "Set":
        return this.#set(node, scope);
      case "Macro":
        scope.set(node.name.value, this.#macro(node.name.value, node.args, node.body, scope));
        return "";
      case "CallStatement":
        return this.#callStatement(node, scope);
      case "FilterStatement":
        return text(this.#filter(node.filter, this.#block(node.body, scope), scope));
      case "Comment":
        return "";
      case "Break":
        throw new LeaveLoop("", true);
      case "Continue":
        throw new LeaveLoop("", false);
      default:
        throw new JinjaError(`A template cannot contain ${node.type} here.`);
    }
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Statements

  #for(node: Node, scope: Scope): string {
    const filtered = node.iterable.type === "SelectExpression";
    const source = items(this.#run(filtered ? node.iterable.lhs : node.iterable, scope));
    const scopes: Scope[] = [];
    const kept: Value[] = [];
    for (const item of source) {
      const inner = new Scope(scope);
      this.#assign(node.loopvar, item, inner);
      if (filtered && !truth(this.#run(node.iterable.test, inner))) continue;
      scopes.push(inner);
      kept.push(item);
    }
    if (scopes.length === 0) return this.#block(node.defaultBlock, new Scope(scope));
    let out = "";
    let changed: Value[] | undefined;
    for (const [i, inner] of scopes.entries()) {
      inner.set(
        "loop",
        loopOf(kept, i, (values) => {
          const isNew = changed === undefined || !equal(changed, values);
          changed = values;
          return isNew;
        }),
      );
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

  #set(node: Node, scope: Scope): string {
    const value =
      node.value === null ? this.#block(node.body, new Scope(scope)) : this.#run(node.value, scope);
    if (node.assignee.type === "Identifier" && node.assignee.value === GENERATION) {
      return this.#marks[value === true ? 0 : 1];
    }
    if (node.assignee.type === "MemberExpression") {
      const target = this.#run(node.assignee.object, scope);
      if (!(target instanceof Namespace))
        throw new JinjaError("cannot assign attribute on non-namespace object");
      checkNamespaceName(node.assignee.property.value);
      target.attributes.set(node.assignee.property.value, value);
      return "";
    }
    this.#assign(node.assignee, value, scope);
    return "";
  }

  #assign(target: Node, value: Value, scope: Scope): void {
    if (target.type === "Identifier") {
      scope.set(target.value, value);
      return;
    }
    if (target.type !== "TupleLiteral") throw new JinjaError(`cannot assign to ${target.type}`);
    const parts = items(value);
    const names = target.value as Node[];
    if (parts.length > names.length)
      throw new JinjaError(`too many values to unpack (expected ${names.length})`);
    if (parts.length < names.length)
      throw new JinjaError(`not enough values to unpack (expected ${names.length}, got ${parts.length})`);
    for (const [i, name] of names.entries()) this.#assign(name, parts[i] as Value, scope);
  }

  #macro(name: string, parameters: readonly Node[], body: readonly Node[], scope: Scope): Callable {
    const defaults = parameters.map((parameter) =>
      parameter.type === "Identifier" ? undefined : (parameter.value as Node),
    );
    const names = parameters.map(
      (parameter) => (parameter.type === "Identifier" ? parameter.value : parameter.key.value) as string,
    );
    return (args, kwargs) => {
      const inner = new Scope(scope);
      const extra = new Map([...kwargs].filter(([key]) => !names.includes(key)));
      const caller = extra.get("caller");
      extra.delete("caller");
      const known = new Map([...kwargs].filter(([key]) => names.includes(key)));
      const values = bind(name, names, args.slice(0, names.length), known);
      for (const [i, parameter] of names.entries()) {
        const fallback = defaults[i];
        const missing =
          fallback === undefined ? new Undefined(`parameter '${parameter}' was not provided`) : undefined;
        inner.set(parameter, values[i] ?? missing ?? this.#run(fallback as Node, inner));
      }
      inner.set("varargs", Tuple.make(args.slice(names.length)));
      inner.set("kwargs", extra as Map<Value, Value>);
      if (caller !== undefined) inner.set("caller", caller);
      return this.#block(body, inner);
    };
  }

  #callStatement(node: Node, scope: Scope): string {
    const [args, kwargs] = this.#arguments(node.call.args, scope);
    kwargs.set("caller", this.#macro("caller", node.callerArgs ?? [], node.body, scope));
    return text(this.#call(this.#run(node.call.callee, scope), args, kwargs));
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Expressions

  #arguments(nodes: readonly Node[], scope: Scope): [Value[], Arguments] {
    const args: Value[] = [];
    const kwargs: Arguments = new Map();
    for (const node of nodes) {
      if (node.type === "SpreadExpression") args.push(...items(this.#run(node.argument, scope)));
      else if (node.type === "KeywordArgumentExpression")
        kwargs.set(node.key.value, this.#run(node.value, scope));
      else if (node.type === "KeywordSpreadExpression") {
        const more = this.#run(node.argument, scope);
        if (!(more instanceof Map))
          throw new JinjaError(`argument after ** must be a mapping, not ${typeName(more)}`);
        for (const [name, value] of more) kwargs.set(String(name), value);
      } else args.push(this.#run(node, scope));
    }
    return [args, kwargs];
  }

  #call(callee: Value, args: Value[], kwargs: Arguments): Value {
    if (typeof callee === "function") return callee(args, kwargs);
    if (callee instanceof Undefined) throw new JinjaError(callee.reason);
    throw new JinjaError(`'${typeName(callee)}' object is not callable`);
  }

  #filter(filter: Node, value: Value, scope: Scope): Value {
    if (filter.type === "Identifier") return runFilter(filter.value, value, [], new Map(), attributeOf);
    return runFilter(filter.callee.value, value, ...this.#arguments(filter.args, scope), attributeOf);
  }

  #member(node: Node, scope: Scope): Value {
    const object = this.#run(node.object, scope);
    if (object instanceof Undefined) throw new JinjaError(object.reason);
    if (!node.computed) {
      const name = node.property.value as string | number;
      return typeof name === "number" ? itemOf(object, name) : attributeOf(object, name);
    }
    if (node.property.type !== "SliceExpression") return itemOf(object, this.#run(node.property, scope));
    const bounds = [node.property.start, node.property.stop, node.property.step].map(
      (bound: Node | undefined) => {
        const value = bound === undefined ? null : this.#run(bound, scope);
        if (value === null || typeof value === "number" || typeof value === "boolean")
          return value === null ? null : Number(value);
        throw new JinjaError("slice indices must be integers or None");
      },
    ) as [number | null, number | null, number | null];
    if (typeof object === "string") return slice([...object], ...bounds).join("");
    if (Array.isArray(object)) {
      const part = slice(object, ...bounds);
      return object instanceof Tuple ? Tuple.make(part) : part;
    }
    throw new JinjaError(`'${typeName(object)}' object is not subscriptable`);
  }

  #unary(operator: string, value: Value): Value {
    if (operator === "not") return !truth(value);
    if (!isNumber(value))
      throw new JinjaError(`bad operand type for unary ${operator}: '${typeName(value)}'`);
    const number = operator === "-" ? -numberOf(value) : numberOf(value);
    return value instanceof Float ? new Float(number) : number + 0;
  }

  #binary(node: Node, scope: Scope): Value {
    const operator = node.operator.value as string;
    const left = this.#run(node.left, scope);
    if (operator === "and") return truth(left) ? this.#run(node.right, scope) : left;
    if (operator === "or") return truth(left) ? left : this.#run(node.right, scope);
    const right = this.#run(node.right, scope);
    switch (operator) {
      case "==":
        return equal(left, right);
      case "!=":
        return !equal(left, right);
      case "in":
        return contains(right, left);
      case "not in":
        return !contains(right, left);
      case "~":
        return text(left) + text(right);
      case "<":
        return this.#order(left, right) < 0;
      case "<=":
        return this.#order(left, right) <= 0;
      case ">":
        return this.#order(left, right) > 0;
      case ">=":
        return this.#order(left, right) >= 0;
      default:
        return arithmetic(operator, left, right);
    }
  }

  #order(left: Value, right: Value): number {
    for (const side of [left, right]) if (side instanceof Undefined) throw new JinjaError(side.reason);
    return compare(left, right);
  }
}

function loopOf(list: readonly Value[], i: number, isChanged: (values: Value[]) => boolean): Value {
  const outside = (at: number): Value => list[at] ?? new Undefined("there is no such item");
  return new Map<Value, Value>([
    ["index", i + 1],
    ["index0", i],
    ["revindex", list.length - i],
    ["revindex0", list.length - i - 1],
    ["first", i === 0],
    ["last", i === list.length - 1],
    ["length", list.length],
    ["depth", 1],
    ["depth0", 0],
    ["previtem", outside(i - 1)],
    ["nextitem", outside(i + 1)],
    ["cycle", (args) => args[i % args.length] ?? null],
    ["changed", (args) => isChanged(args)],
  ]);
}
