// The tree that a template is read into.

/** What is given to a call, a filter or a test. */
export interface Given {
  readonly args: readonly Expression[];
  readonly kwargs: readonly (readonly [name: string, value: Expression])[];
  readonly dynArgs: Expression | undefined;
  readonly dynKwargs: Expression | undefined;
}

export type Expression =
  | { readonly type: "Literal"; readonly value: string | number | boolean | null }
  | { readonly type: "Float"; readonly value: number }
  | { readonly type: "Name"; readonly name: string }
  | { readonly type: "List" | "Tuple"; readonly items: readonly Expression[] }
  | { readonly type: "Dict"; readonly items: readonly (readonly [Expression, Expression])[] }
  | { readonly type: "Attribute"; readonly object: Expression; readonly name: string }
  | { readonly type: "Item"; readonly object: Expression; readonly key: Expression }
  | { readonly type: "Slice"; readonly bounds: readonly (Expression | undefined)[] }
  | { readonly type: "Call"; readonly callee: Expression; readonly given: Given }
  | { readonly type: "Filter"; readonly value: Expression; readonly name: string; readonly given: Given }
  | { readonly type: "Test"; readonly value: Expression; readonly name: string; readonly given: Given }
  | { readonly type: "Unary"; readonly operator: "not" | "-" | "+"; readonly value: Expression }
  | {
      readonly type: "Binary";
      readonly operator: string;
      readonly left: Expression;
      readonly right: Expression;
    }
  | {
      readonly type: "Compare";
      readonly first: Expression;
      readonly rest: readonly (readonly [string, Expression])[];
    }
  | { readonly type: "Concat"; readonly items: readonly Expression[] }
  | {
      readonly type: "If";
      readonly test: Expression;
      readonly yes: Expression;
      readonly no: Expression | undefined;
    };

/** A name, a tuple of targets, or `namespace.attribute`. */
export type Target =
  | { readonly type: "Name"; readonly name: string }
  | { readonly type: "Tuple"; readonly items: readonly Target[] }
  | { readonly type: "NamespaceAttribute"; readonly namespace: string; readonly name: string };

/** What follows a value: `| name(…)`. */
export interface Piped {
  readonly name: string;
  readonly given: Given;
}

export interface MacroNode {
  readonly name: string;
  readonly parameters: readonly (readonly [name: string, fallback: Expression | undefined])[];
  readonly body: readonly Statement[];
  /** Which of `varargs`, `kwargs`, `caller` the body speaks of. */
  readonly special: ReadonlySet<string>;
}

export interface ForNode {
  readonly type: "for";
  readonly target: Target;
  readonly iterable: Expression;
  readonly test: Expression | undefined;
  readonly recursive: boolean;
  readonly body: readonly Statement[];
  readonly otherwise: readonly Statement[];
}

export type Statement =
  | { readonly type: "text"; readonly value: string }
  | { readonly type: "output"; readonly values: readonly Expression[] }
  | {
      readonly type: "if";
      readonly branches: readonly (readonly [Expression, readonly Statement[]])[];
      readonly otherwise: readonly Statement[];
    }
  | ForNode
  | { readonly type: "set"; readonly target: Target; readonly value: Expression }
  | {
      readonly type: "setBlock";
      readonly target: Target;
      readonly filters: readonly Piped[];
      readonly body: readonly Statement[];
    }
  | {
      readonly type: "with";
      readonly values: readonly (readonly [Target, Expression])[];
      readonly body: readonly Statement[];
    }
  | { readonly type: "macro"; readonly macro: MacroNode }
  | {
      readonly type: "call";
      readonly call: Expression & { readonly type: "Call" };
      readonly caller: MacroNode;
    }
  | { readonly type: "filter"; readonly filters: readonly Piped[]; readonly body: readonly Statement[] }
  | { readonly type: "generation"; readonly body: readonly Statement[] }
  | { readonly type: "break" | "continue" };
