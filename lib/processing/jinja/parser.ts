// Reads tokens into a tree, by the grammar of Python's jinja2.
// Over 500 lines because the grammar is one: statements, targets, then expressions from the loosest to the tightest.

import { TemplateSyntaxError, type Token, type TokenKind, tokenize } from "./lexer.ts";
import type { Expression, Given, MacroNode, Piped, Statement, Target } from "./nodes.ts";

const CONSTANTS: ReadonlyMap<string, boolean | null> = new Map([
  ["true", true],
  ["True", true],
  ["false", false],
  ["False", false],
  ["none", null],
  ["None", null],
]);
const SPECIAL = ["varargs", "kwargs", "caller"];
const COMPARISONS = ["==", "!=", "<", "<=", ">", ">="];
/** Of what else may stand after a test's name without brackets, these are no argument. */
const AFTER_TEST = ["else", "or", "and"];
const NOTHING: Given = { args: [], kwargs: [], dynArgs: undefined, dynKwargs: undefined };
/** Tags of jinja2 that need other templates, or that chat templates do not have. */
const NOT_HERE = ["extends", "include", "import", "from", "block", "autoescape"];

class Parser {
  readonly #tokens: readonly Token[];
  #at = 0;
  /** Special names met in the macro that is being read. */
  #special = new Set<string>();
  #loops = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  // tokens --------------------------------------------------------------------------------------------------

  get #current(): Token {
    return this.#tokens[this.#at] as Token;
  }

  #next(): Token {
    const token = this.#current;
    if (token.kind !== "eof") this.#at++;
    return token;
  }

  #is(kind: TokenKind, ...values: string[]): boolean {
    const token = this.#current;
    return token.kind === kind && (values.length === 0 || values.includes(token.value));
  }

  #skipIf(kind: TokenKind, value: string): boolean {
    if (!this.#is(kind, value)) return false;
    this.#next();
    return true;
  }

  #expect(kind: TokenKind, value?: string): Token {
    if (this.#is(kind, ...(value === undefined ? [] : [value]))) return this.#next();
    throw this.#error(`expected token '${value ?? kind.replace("_", " of ")}', got '${this.#shown()}'`);
  }

  #shown(): string {
    const { kind, value } = this.#current;
    if (kind === "eof") return "end of template";
    return ["block_end", "variable_end", "block_begin", "variable_begin", "data"].includes(kind)
      ? kind.replace("_", " of ")
      : value;
  }

  #error(message: string): TemplateSyntaxError {
    return new TemplateSyntaxError(message, this.#current.line);
  }

  // statements ----------------------------------------------------------------------------------------------

  template(): readonly Statement[] {
    const body = this.#body([]);
    if (!this.#is("eof")) throw this.#error(`unexpected '${this.#shown()}'`);
    return body;
  }

  /** Up to a tag of one of these names, which becomes the current token; up to the end without names. */
  #body(ends: readonly string[]): Statement[] {
    const body: Statement[] = [];
    while (!this.#is("eof")) {
      const { kind, value } = this.#next();
      if (kind === "data") body.push({ type: "text", value });
      else if (kind === "variable_begin") {
        body.push({ type: "output", values: [this.#tuple()] });
        this.#expect("variable_end");
      } else {
        if (this.#is("name", ...ends) && ends.length > 0) return body;
        body.push(this.#statement());
        this.#expect("block_end");
      }
    }
    if (ends.length > 0)
      throw this.#error(
        `Unexpected end of template. Looked for: ${ends.map((end) => `'${end}'`).join(" or ")}.`,
      );
    return body;
  }

  /** What stands between a tag's end and one of these tags. */
  #block(...ends: string[]): Statement[] {
    this.#skipIf("operator", ":");
    this.#expect("block_end");
    return this.#body(ends);
  }

  #blockUntil(end: string): Statement[] {
    const body = this.#block(end);
    this.#next();
    return body;
  }

  #statement(): Statement {
    if (!this.#is("name")) throw this.#error("tag name expected");
    const { value: tag, line } = this.#next();
    switch (tag) {
      case "if":
        return this.#if();
      case "for":
        return this.#for();
      case "set":
        return this.#set();
      case "with":
        return this.#with();
      case "print":
        return {
          type: "output",
          values: this.#list(
            () => this.#is("block_end"),
            () => this.#expression(),
          ),
        };
      case "macro": {
        const name = this.#expect("name").value;
        return { type: "macro", macro: this.#macro(name, this.#signature(), "endmacro") };
      }
      case "call":
        return this.#callBlock();
      case "filter":
        return { type: "filter", filters: this.#filters(true), body: this.#blockUntil("endfilter") };
      case "generation":
        return { type: "generation", body: this.#blockUntil("endgeneration") };
      case "break":
      case "continue":
        if (this.#loops === 0) throw new TemplateSyntaxError(`'${tag}' outside loop`, line);
        return { type: tag };
      default:
        throw new TemplateSyntaxError(
          NOT_HERE.includes(tag)
            ? `A chat template cannot contain '${tag}'.`
            : `Encountered unknown tag '${tag}'.`,
          line,
        );
    }
  }

  #if(): Statement {
    const branches: [Expression, Statement[]][] = [];
    for (;;) {
      branches.push([this.#tuple({ conditional: false }), this.#block("elif", "else", "endif")]);
      const { value } = this.#next();
      if (value === "elif") continue;
      return { type: "if", branches, otherwise: value === "else" ? this.#blockUntil("endif") : [] };
    }
  }

  #for(): Statement {
    const target = this.#target(["in"]);
    this.#expect("name", "in");
    const iterable = this.#tuple({ conditional: false, ends: ["recursive"] });
    const test = this.#skipIf("name", "if") ? this.#expression() : undefined;
    const recursive = this.#skipIf("name", "recursive");
    this.#loops++;
    const body = this.#block("endfor", "else");
    this.#loops--;
    const otherwise = this.#next().value === "else" ? this.#blockUntil("endfor") : [];
    return { type: "for", target, iterable, test, recursive, body, otherwise };
  }

  #set(): Statement {
    const target = this.#target([], true);
    if (this.#skipIf("operator", "=")) return { type: "set", target, value: this.#tuple() };
    return { type: "setBlock", target, filters: this.#filters(false), body: this.#blockUntil("endset") };
  }

  #with(): Statement {
    const values = this.#list(
      () => this.#is("block_end"),
      (): [Target, Expression] => {
        const target = this.#target([]);
        this.#expect("operator", "=");
        return [target, this.#expression()];
      },
    );
    return { type: "with", values, body: this.#blockUntil("endwith") };
  }

  #callBlock(): Statement {
    const parameters = this.#is("operator", "(") ? this.#signature() : [];
    const call = this.#expression();
    if (call.type !== "Call") throw this.#error("expected call");
    return { type: "call", call, caller: this.#macro("caller", parameters, "endcall") };
  }

  #macro(name: string, parameters: MacroNode["parameters"], end: string): MacroNode {
    const [outside, loops] = [this.#special, this.#loops];
    this.#special = new Set();
    this.#loops = 0;
    const body = this.#blockUntil(end);
    const special = this.#special;
    this.#special = outside;
    this.#loops = loops;
    return { name, parameters, body, special };
  }

  #signature(): [string, Expression | undefined][] {
    this.#expect("operator", "(");
    let optional = false;
    const parameters = this.#list(
      () => this.#is("operator", ")"),
      (): [string, Expression | undefined] => {
        const name = this.#expect("name").value;
        const fallback = this.#skipIf("operator", "=") ? this.#expression() : undefined;
        if (optional && fallback === undefined)
          throw this.#error("non-default argument follows default argument");
        optional ||= fallback !== undefined;
        return [name, fallback];
      },
    );
    this.#expect("operator", ")");
    return parameters;
  }

  /** Items with commas between them. */
  #list<T>(ends: () => boolean, item: () => T, trailing = false): T[] {
    const list: T[] = [];
    while (!ends()) {
      if (list.length > 0) this.#expect("operator", ",");
      if (trailing && ends()) break;
      list.push(item());
    }
    return list;
  }

  // targets and tuples --------------------------------------------------------------------------------------

  #target(ends: readonly string[], namespaces = false): Target {
    return this.#asTarget(this.#tuple({ simple: true, ends, namespaces }), namespaces);
  }

  #asTarget(node: Expression, namespaces: boolean): Target {
    if (node.type === "Name") return node;
    if (node.type === "Tuple")
      return { type: "Tuple", items: node.items.map((item) => this.#asTarget(item, namespaces)) };
    if (namespaces && node.type === "Attribute" && node.object.type === "Name")
      return { type: "NamespaceAttribute", namespace: node.object.name, name: node.name };
    throw this.#error(`can't assign to '${node.type.toLowerCase()}'`);
  }

  /** An expression, or several with commas: a tuple, which brackets need not enclose. */
  #tuple(
    options: {
      /** Names and literals only. */
      simple?: boolean;
      conditional?: boolean;
      ends?: readonly string[];
      brackets?: boolean;
      namespaces?: boolean;
    } = {},
  ): Expression {
    const { simple = false, conditional = true, ends = [], brackets = false, namespaces = false } = options;
    const items: Expression[] = [];
    let isTuple = false;
    for (;;) {
      if (items.length > 0) this.#expect("operator", ",");
      const atEnd =
        this.#is("variable_end") ||
        this.#is("block_end") ||
        this.#is("operator", ")") ||
        (ends.length > 0 && this.#is("name", ...ends));
      if (atEnd) break;
      items.push(simple ? this.#primary(namespaces) : conditional ? this.#expression() : this.#or());
      if (!this.#is("operator", ",")) break;
      isTuple = true;
    }
    const [only] = items;
    if (isTuple || (only === undefined && brackets)) return { type: "Tuple", items };
    if (only === undefined) throw this.#error(`Expected an expression, got '${this.#shown()}'`);
    return only;
  }

  // expressions, from the loosest binding to the tightest ---------------------------------------------------

  #expression(): Expression {
    let node = this.#or();
    while (this.#skipIf("name", "if")) {
      const test = this.#or();
      const no = this.#skipIf("name", "else") ? this.#expression() : undefined;
      node = { type: "If", test, yes: node, no };
    }
    return node;
  }

  #or(): Expression {
    let left = this.#and();
    while (this.#skipIf("name", "or")) left = { type: "Binary", operator: "or", left, right: this.#and() };
    return left;
  }

  #and(): Expression {
    let left = this.#not();
    while (this.#skipIf("name", "and")) left = { type: "Binary", operator: "and", left, right: this.#not() };
    return left;
  }

  #not(): Expression {
    if (this.#skipIf("name", "not")) return { type: "Unary", operator: "not", value: this.#not() };
    return this.#compare();
  }

  #compare(): Expression {
    const first = this.#sum();
    const rest: [string, Expression][] = [];
    for (;;) {
      if (this.#is("operator", ...COMPARISONS)) rest.push([this.#next().value, this.#sum()]);
      else if (this.#skipIf("name", "in")) rest.push(["in", this.#sum()]);
      else if (this.#is("name", "not") && this.#isAhead("in")) {
        this.#next();
        this.#next();
        rest.push(["not in", this.#sum()]);
      } else break;
    }
    return rest.length === 0 ? first : { type: "Compare", first, rest };
  }

  #isAhead(name: string): boolean {
    const ahead = this.#tokens[this.#at + 1];
    return ahead?.kind === "name" && ahead.value === name;
  }

  #chain(operators: readonly string[], operand: () => Expression): Expression {
    let left = operand();
    while (this.#is("operator", ...operators)) {
      const operator = this.#next().value;
      left = { type: "Binary", operator, left, right: operand() };
    }
    return left;
  }

  #sum(): Expression {
    return this.#chain(["+", "-"], () => this.#concat());
  }

  #concat(): Expression {
    const items = [this.#product()];
    while (this.#skipIf("operator", "~")) items.push(this.#product());
    return items.length === 1 ? (items[0] as Expression) : { type: "Concat", items };
  }

  #product(): Expression {
    return this.#chain(["*", "/", "//", "%"], () => this.#chain(["**"], () => this.#unary()));
  }

  #unary(withFilter = true): Expression {
    let node: Expression;
    if (this.#is("operator", "-", "+")) {
      const operator = this.#next().value as "-" | "+";
      node = { type: "Unary", operator, value: this.#unary(false) };
    } else node = this.#primary();
    node = this.#postfix(node);
    return withFilter ? this.#filtersAndTests(node) : node;
  }

  #primary(namespaces = false): Expression {
    const { kind, value } = this.#next();
    switch (kind) {
      case "name":
        return this.#name(value, namespaces);
      case "string": {
        let joined = value;
        while (this.#is("string")) joined += this.#next().value;
        return { type: "Literal", value: joined };
      }
      case "integer":
        return { type: "Literal", value: Number(value.replaceAll("_", "")) };
      case "float":
        return { type: "Float", value: Number(value.replaceAll("_", "")) };
      case "operator":
        if (value === "(") {
          const node = this.#tuple({ brackets: true });
          this.#expect("operator", ")");
          return node;
        }
        if (value === "[") {
          const items = this.#list(
            () => this.#is("operator", "]"),
            () => this.#expression(),
            true,
          );
          this.#expect("operator", "]");
          return { type: "List", items };
        }
        if (value === "{") return this.#dict();
    }
    if (kind !== "eof") this.#at--;
    throw this.#error(`unexpected '${this.#shown()}'`);
  }

  #name(name: string, namespaces: boolean): Expression {
    const constant = CONSTANTS.get(name);
    if (constant !== undefined) return { type: "Literal", value: constant };
    if (SPECIAL.includes(name)) this.#special.add(name);
    if (namespaces && this.#skipIf("operator", "."))
      return { type: "Attribute", object: { type: "Name", name }, name: this.#expect("name").value };
    return { type: "Name", name };
  }

  #dict(): Expression {
    const items = this.#list(
      () => this.#is("operator", "}"),
      (): [Expression, Expression] => {
        const key = this.#expression();
        this.#expect("operator", ":");
        return [key, this.#expression()];
      },
      true,
    );
    this.#expect("operator", "}");
    return { type: "Dict", items };
  }

  #postfix(start: Expression): Expression {
    let node = start;
    for (;;) {
      if (this.#is("operator", ".", "[")) node = this.#subscript(node);
      else if (this.#is("operator", "(")) node = { type: "Call", callee: node, given: this.#given() };
      else return node;
    }
  }

  #filtersAndTests(start: Expression): Expression {
    let node = start;
    for (;;) {
      if (this.#is("operator", "|")) {
        for (const piped of this.#filters(false)) node = { type: "Filter", value: node, ...piped };
      } else if (this.#is("name", "is")) node = this.#test(node);
      else if (this.#is("operator", "(")) node = { type: "Call", callee: node, given: this.#given() };
      else return node;
    }
  }

  #subscript(object: Expression): Expression {
    if (this.#skipIf("operator", ".")) {
      if (this.#is("name")) return { type: "Attribute", object, name: this.#next().value };
      if (this.#is("integer"))
        return { type: "Item", object, key: { type: "Literal", value: Number(this.#next().value) } };
      throw this.#error("expected name or number");
    }
    this.#expect("operator", "[");
    const keys = this.#list(
      () => this.#is("operator", "]"),
      () => this.#key(),
    );
    const [only] = keys;
    if (only === undefined) throw this.#error("expected subscript expression");
    this.#expect("operator", "]");
    return { type: "Item", object, key: keys.length === 1 ? only : { type: "Tuple", items: keys } };
  }

  /** An index, or a slice. */
  #key(): Expression {
    const ends = () => this.#is("operator", "]", ",", ":");
    const bounds: (Expression | undefined)[] = [ends() ? undefined : this.#expression()];
    if (!this.#is("operator", ":")) return bounds[0] ?? this.#expression();
    while (bounds.length < 3 && this.#skipIf("operator", ":"))
      bounds.push(ends() ? undefined : this.#expression());
    return { type: "Slice", bounds };
  }

  #given(): Given {
    const args: Expression[] = [];
    const kwargs: [string, Expression][] = [];
    let dynArgs: Expression | undefined;
    let dynKwargs: Expression | undefined;
    const ensure = (holds: boolean) => {
      if (!holds) throw this.#error("invalid syntax for function call expression");
    };
    const one = () => {
      if (this.#skipIf("operator", "*")) {
        ensure(dynArgs === undefined && dynKwargs === undefined);
        dynArgs = this.#expression();
      } else if (this.#skipIf("operator", "**")) {
        ensure(dynKwargs === undefined);
        dynKwargs = this.#expression();
      } else if (this.#is("name") && this.#tokens[this.#at + 1]?.value === "=") {
        ensure(dynKwargs === undefined);
        const name = this.#next().value;
        this.#next();
        kwargs.push([name, this.#expression()]);
      } else {
        ensure(dynArgs === undefined && dynKwargs === undefined && kwargs.length === 0);
        args.push(this.#expression());
      }
    };
    this.#expect("operator", "(");
    this.#list(() => this.#is("operator", ")"), one, true);
    this.#expect("operator", ")");
    return { args, kwargs, dynArgs, dynKwargs };
  }

  #dottedName(): string {
    let name = this.#expect("name").value;
    while (this.#skipIf("operator", ".")) name += `.${this.#expect("name").value}`;
    return name;
  }

  /** `| name(…) | name`; without the first bar when it starts `inline`. */
  #filters(inline: boolean): Piped[] {
    const filters: Piped[] = [];
    while (this.#skipIf("operator", "|") || (inline && filters.length === 0)) {
      const name = this.#dottedName();
      filters.push({ name, given: this.#is("operator", "(") ? this.#given() : NOTHING });
    }
    return filters;
  }

  #test(value: Expression): Expression {
    this.#next();
    const negated = this.#skipIf("name", "not");
    const name = this.#dottedName();
    let given = NOTHING;
    if (this.#is("operator", "(")) given = this.#given();
    else if (this.#startsArgument()) {
      if (this.#is("name", "is")) throw this.#error("You cannot chain multiple tests with is");
      given = { ...NOTHING, args: [this.#postfix(this.#primary())] };
    }
    const node: Expression = { type: "Test", value, name, given };
    return negated ? { type: "Unary", operator: "not", value: node } : node;
  }

  #startsArgument(): boolean {
    if (this.#is("name")) return !this.#is("name", ...AFTER_TEST);
    return this.#is("string") || this.#is("integer") || this.#is("float") || this.#is("operator", "[", "{");
  }
}

export const parse = (source: string): readonly Statement[] => new Parser(tokenize(source)).template();
