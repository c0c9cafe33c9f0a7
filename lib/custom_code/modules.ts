// What a source file imports and exports, and TypeScript without its types.
import { CustomCodeError } from "../errors/index.ts";

/** One import of a module. */
export interface ModuleImport {
  /** Undefined for an `import()` of something computed. */
  readonly specifier: string | undefined;
  /** Where the specifier stands, without quotes. */
  readonly start: number;
  readonly end: number;
  readonly typeOnly: boolean;
}

export interface ModuleText {
  readonly imports: readonly ModuleImport[];
  /** Names of values that it exports. */
  readonly exports: readonly string[];
  /** `export * from`: names that are not known here. */
  readonly reexports: boolean;
}

/** What the lexer gives, as far as it is used. */
type Lexed = readonly [
  imports: readonly {
    readonly type: string;
    readonly specifier: string | undefined;
    readonly start: number;
    readonly end: number;
    readonly typeOnly?: boolean;
    /** A template with holes: nothing that could be resolved. */
    readonly glob?: boolean;
  }[],
  exports: readonly { readonly name: string | undefined; readonly typeOnly: boolean }[],
];

/** Reads imports and exports, of JavaScript and of TypeScript. Throws `CustomCodeError` for what does not parse. */
export async function lexModule(text: string, file: string): Promise<ModuleText> {
  const { init, parse } = await import("es-module-lexer");
  await init;
  let lexed: Lexed;
  try {
    lexed = parse(text, file) as unknown as Lexed;
  } catch (error) {
    throw new CustomCodeError(`${file} is no module that parses: ${(error as Error).message}`, {
      cause: error,
    });
  }
  const [imports, exports] = lexed;
  const found: ModuleImport[] = [];
  let reexports = false;
  for (const { specifier: given, start, end, type, typeOnly, glob } of imports) {
    if (type === "import-meta") continue;
    if (type === "reexport-star") reexports = true;
    const specifier = glob ? undefined : given;
    // A dynamic import's position has the quotes.
    const quoted = type === "dynamic" && specifier !== undefined ? 1 : 0;
    found.push({ specifier, start: start + quoted, end: end - quoted, typeOnly: typeOnly === true });
  }
  const names = exports.flatMap(({ name, typeOnly }) => (typeOnly || name === undefined ? [] : [name]));
  return { imports: found, exports: names, reexports };
}

/** A text with some of its specifiers replaced. */
export function withSpecifiers(
  text: string,
  imports: readonly ModuleImport[],
  replacement: (specifier: string) => string,
): string {
  let result = text;
  for (const { specifier, start, end } of [...imports].sort((a, b) => b.start - a.start)) {
    if (specifier !== undefined) result = result.slice(0, start) + replacement(specifier) + result.slice(end);
  }
  return result;
}

/**
 * TypeScript with spaces in the place of its types, so that lines and columns stay. The same library in every Node, and not
 * what some versions of it have built in: what is made of a source must not depend on where it is made.
 *
 * Throws `CustomCodeError` for what cannot be had by removing types alone: enums, parameter properties, namespaces.
 */
export async function stripTypes(text: string, file: string): Promise<string> {
  const { default: swc } = await import("@swc/wasm-typescript");
  try {
    return swc.transformSync(text, { mode: "strip-only", filename: file }).code as string;
  } catch (error) {
    const { message, startLine } = error as { message?: string; startLine?: number };
    throw new CustomCodeError(`${file}${startLine ? `:${startLine}` : ""}: ${message ?? String(error)}.`, {
      cause: error,
      hint: "Only types that can be removed are allowed in code that is shared (erasableSyntaxOnly in tsconfig.json).",
    });
  }
}

/** The name of the JavaScript that is made of a TypeScript file; others as they are. */
export const scriptName = (file: string): string =>
  /\.d\.m?ts$/.test(file) ? file : file.replace(/\.ts$/, ".js").replace(/\.mts$/, ".mjs");
