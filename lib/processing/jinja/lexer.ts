// Cuts a template into tokens, by the rules of Python's jinja2 with `trim_blocks` and `lstrip_blocks`: a line break after a
// block or comment goes, and so do the blanks before one at the start of a line.

import { SPACE, strip } from "./values.ts";

export type TokenKind =
  | "data"
  | "variable_begin"
  | "variable_end"
  | "block_begin"
  | "block_end"
  | "name"
  | "string"
  | "integer"
  | "float"
  | "operator"
  | "eof";

export interface Token {
  readonly kind: TokenKind;
  /** A number's digits as they are written; a string's value. */
  readonly value: string;
  readonly line: number;
}

/** What is wrong with the text of a template. */
export class TemplateSyntaxError extends SyntaxError {
  constructor(message: string, line: number) {
    super(`${message} (line ${line})`);
  }
}

const sticky = (pattern: string, flags = "") => new RegExp(pattern, `sy${flags}`);

// What follows the text before a tag: raw blocks first, since they begin like others.
const TAG = new RegExp(
  `\\{%([-+]?)${SPACE}*raw${SPACE}*(?:-%\\}${SPACE}*|%\\})|(\\{%|\\{#|\\{\\{)([-+]?)`,
  "g",
);
const RAW_END = new RegExp(`\\{%([-+]?)${SPACE}*endraw${SPACE}*(?:\\+%\\}|-%\\}${SPACE}*|%\\}\\n?)`, "g");
const COMMENT_END = new RegExp(`\\+#\\}|-#\\}${SPACE}*|#\\}\\n?`, "g");
const BLOCK_END = sticky(`\\+%\\}|-%\\}${SPACE}*|%\\}\\n?`);
const VARIABLE_END = sticky(`-\\}\\}${SPACE}*|\\}\\}`);
const ONLY_SPACE = new RegExp(`^${SPACE}+$`);

/** Within tags, in this order. */
const RULES: readonly (readonly [TokenKind | "space", RegExp])[] = [
  ["space", sticky(`${SPACE}+`)],
  [
    "float",
    sticky("(?<!\\.)(?:\\d+_)*\\d+(?:(?:\\.(?:\\d+_)*\\d+)?e[+-]?(?:\\d+_)*\\d+|\\.(?:\\d+_)*\\d+)", "i"),
  ],
  ["integer", sticky("0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\\da-f])+|[1-9](?:_?\\d)*|0(?:_?0)*", "i")],
  ["name", sticky("[\\p{ID_Continue}·]+", "u")],
  ["string", sticky("'(?:[^'\\\\]|\\\\.)*'|\"(?:[^\"\\\\]|\\\\.)*\"")],
  ["operator", sticky("\\/\\/|\\*\\*|==|!=|>=|<=|[-+/*%~[\\](){}><=.:|,;]")],
];
const NAME = /^[\p{ID_Start}_]\p{ID_Continue}*$/u;
const CLOSING: Readonly<Record<string, string>> = { "{": "}", "(": ")", "[": "]" };

const countLines = (text: string): number => text.split("\n").length - 1;

class Lexer {
  readonly #source: string;
  readonly #tokens: Token[] = [];
  #at = 0;
  #line = 1;
  /** Whether what was read last ended a line. */
  #lineStarting = true;

  constructor(source: string) {
    this.#source = source.replaceAll(/\r\n|\r/g, "\n").replace(/\n$/, "");
  }

  run(): Token[] {
    while (this.#at < this.#source.length) {
      TAG.lastIndex = this.#at;
      const tag = TAG.exec(this.#source);
      if (!tag) {
        this.#data(this.#source.slice(this.#at));
        break;
      }
      const [whole, rawSign, begin, sign = rawSign] = tag;
      this.#data(this.#before(tag.index, sign ?? "", begin !== "{{"));
      this.#skip(tag.index + whole.length);
      if (begin === undefined) this.#raw();
      else if (begin === "{#") this.#comment();
      else if (begin === "{%") this.#inside("block_begin", "block_end", BLOCK_END);
      else this.#inside("variable_begin", "variable_end", VARIABLE_END);
    }
    this.#push("eof", "");
    return this.#tokens;
  }

  #push(kind: TokenKind, value: string): void {
    this.#tokens.push({ kind, value, line: this.#line });
  }

  #data(text: string): void {
    if (text !== "") this.#push("data", text);
  }

  /** The text up to a tag, without the blanks that the tag's sign or the start of a line takes off. */
  #before(end: number, sign: string, isBlock: boolean): string {
    const text = this.#source.slice(this.#at, end);
    if (sign === "-") return strip(text, null, "right");
    const lineStart = text.lastIndexOf("\n") + 1;
    const strips = sign !== "+" && isBlock && (lineStart > 0 || this.#lineStarting);
    return strips && ONLY_SPACE.test(text.slice(lineStart)) ? text.slice(0, lineStart) : text;
  }

  #skip(to: number): void {
    this.#line += countLines(this.#source.slice(this.#at, to));
    this.#at = to;
    this.#lineStarting = this.#source[to - 1] === "\n";
  }

  #raw(): void {
    RAW_END.lastIndex = this.#at;
    const end = RAW_END.exec(this.#source);
    if (!end) throw new TemplateSyntaxError("Missing end of raw directive", this.#line);
    this.#data(this.#before(end.index, end[1] ?? "", true));
    this.#skip(end.index + end[0].length);
  }

  #comment(): void {
    COMMENT_END.lastIndex = this.#at;
    const end = COMMENT_END.exec(this.#source);
    if (!end) throw new TemplateSyntaxError("Missing end of comment tag", this.#line);
    this.#skip(end.index + end[0].length);
  }

  #match(rule: RegExp): string | undefined {
    rule.lastIndex = this.#at;
    return rule.exec(this.#source)?.[0];
  }

  #inside(begin: TokenKind, end: TokenKind, closes: RegExp): void {
    this.#push(begin, "");
    const open: string[] = [];
    while (this.#at < this.#source.length) {
      const closing = open.length === 0 ? this.#match(closes) : undefined;
      if (closing !== undefined) {
        this.#push(end, "");
        this.#skip(this.#at + closing.length);
        return;
      }
      this.#one(open);
    }
  }

  #one(open: string[]): void {
    for (const [kind, rule] of RULES) {
      const found = this.#match(rule);
      if (found === undefined) continue;
      if (kind === "operator") this.#balance(found, open);
      if (kind === "name" && !NAME.test(found))
        throw new TemplateSyntaxError("Invalid character in identifier", this.#line);
      if (kind === "string") this.#push(kind, unescaped(found.slice(1, -1), this.#line));
      else if (kind !== "space") this.#push(kind, found);
      this.#skip(this.#at + found.length);
      return;
    }
    throw new TemplateSyntaxError(`unexpected char ${JSON.stringify(this.#source[this.#at])}`, this.#line);
  }

  #balance(operator: string, open: string[]): void {
    const closing = CLOSING[operator];
    if (closing !== undefined) open.push(closing);
    else if (["}", ")", "]"].includes(operator)) {
      const expected = open.pop();
      if (expected === operator) return;
      const wanted = expected === undefined ? "" : `, expected '${expected}'`;
      throw new TemplateSyntaxError(`unexpected '${operator}'${wanted}`, this.#line);
    }
  }
}

const ESCAPES: Readonly<Record<string, string>> = {
  "\n": "",
  "\\": "\\",
  "'": "'",
  '"': '"',
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
};

/** A string literal's value by Python's escapes; a backslash before anything else stays. */
function unescaped(body: string, line: number): string {
  const invalid = (what: string) =>
    new TemplateSyntaxError(`'unicodeescape' codec can't decode: ${what}`, line);
  return body.replaceAll(/\\(x.{0,2}|u.{0,4}|U.{0,8}|N\{[^}]*\}?|[0-7]{1,3}|.)/gs, (whole, code: string) => {
    const kind = code[0] as string;
    if (/[0-7]/.test(kind)) return String.fromCodePoint(Number.parseInt(code, 8));
    if (kind === "N") throw invalid("names of characters are not known");
    const digits = { x: 2, u: 4, U: 8 }[kind];
    if (digits === undefined) return ESCAPES[kind] ?? whole;
    const hex = code.slice(1);
    const point = Number.parseInt(hex, 16);
    if (hex.length < digits || /[^\da-f]/i.test(hex)) throw invalid(`truncated \\${kind} escape`);
    if (point > 0x10ffff) throw invalid("illegal Unicode character");
    return String.fromCodePoint(point);
  });
}

export const tokenize = (source: string): Token[] => new Lexer(source).run();
