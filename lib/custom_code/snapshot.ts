// The code of a repository that is about to run: the modules that auto_map names and what they import, and nothing else of
// it. Names are checked as names, never by following links; native code does not belong to it.
import { readFile, stat } from "node:fs/promises";
import path from "node:path";
import { CustomCodeError, RemoteCodeError } from "../errors/index.ts";
import { findFile, type HubOptions, kindOf } from "../hub/files.ts";
import { assertInside } from "../hub/links.ts";
import { listFiles } from "../hub/listing.ts";
import { type CodeFiles, findPackage, isBuiltin, packageOf } from "./code_cache.ts";
import { lexModule, scriptName, stripTypes, withSpecifiers } from "./modules.ts";
import type { ClassReference } from "./references.ts";

/** The largest module, and the most of them: code is small, and is read as a whole. */
const FILE_BYTES = 4 * 2 ** 20;
const ALL_BYTES = 32 * 2 ** 20;
const FILES = 500;

/** In this order a class's module is looked for. */
export const SCRIPTS = [".js", ".mjs", ".ts", ".mts"] as const;

/** A directory, or a repository at one commit. */
export interface CodeSource {
  readonly name: string;
  readonly options: HubOptions;
  readonly isDirectory: boolean;
}

/** What runs, and which script each reference means; undefined for one whose code is Python only. */
export interface CodeSnapshot {
  readonly files: CodeFiles;
  readonly scripts: ReadonlyMap<string, string>;
  /** Packages that it imports, beside this one. */
  readonly packages: readonly string[];
}

/** Gathers the code of some references; those that are Python only have no entry in `scripts`. */
export async function takeSnapshot(
  source: CodeSource,
  references: readonly ClassReference[],
): Promise<CodeSnapshot> {
  const taker = new Taker(source);
  const scripts = new Map<string, string>();
  for (const { file } of references) {
    if (scripts.has(file)) continue;
    const found = await taker.first(SCRIPTS.map((ending) => file + ending));
    if (found !== undefined) scripts.set(file, await taker.take(found));
  }
  const packages = [...taker.packages].sort();
  const absent: string[] = [];
  for (const name of packages) if ((await findPackage(name)) === undefined) absent.push(name);
  if (absent.length > 0) {
    throw new RemoteCodeError(
      `The code of ${source.name} imports packages that are not installed: ${absent.join(", ")}.`,
      { hint: `If you trust them: npm install ${absent.join(" ")}` },
    );
  }
  return { files: taker.files, scripts, packages };
}

/** Reads files of a source, within limits. */
export class CodeReader {
  readonly source: CodeSource;
  #total = 0;

  constructor(source: CodeSource) {
    this.source = source;
  }

  /** The bytes of a file, undefined when there is none. Throws `RemoteCodeError` for one that is too large. */
  async read(name: string): Promise<Buffer | undefined> {
    const { name: repo, options, isDirectory } = this.source;
    if (!isDirectory) {
      const listed = await listFiles(repo, options.revision as string, options);
      const entry = listed?.get(name);
      if (listed !== undefined && entry === undefined) return undefined;
      if (entry !== undefined) this.#limit(name, entry.size);
    }
    const file = await findFile(repo, name, options);
    if (file === undefined) return undefined;
    if (isDirectory) await assertInside(file);
    this.#limit(name, (await stat(file)).size);
    const bytes = await readFile(file);
    this.#total += bytes.length;
    this.#limit(name, bytes.length);
    return bytes;
  }

  #limit(name: string, size: number): void {
    const { name: source } = this.source;
    if (size > FILE_BYTES)
      throw new RemoteCodeError(
        `${source}: ${name} has ${size} bytes, more than the ${FILE_BYTES} of any module.`,
      );
    if (this.#total > ALL_BYTES)
      throw new RemoteCodeError(`${source}: its code is larger than ${ALL_BYTES} bytes.`);
  }
}

class Taker {
  readonly files = new Map<string, Buffer>();
  readonly packages = new Set<string>();
  readonly #reader: CodeReader;
  readonly #found = new Map<string, Buffer | undefined>();

  constructor(source: CodeSource) {
    this.#reader = new CodeReader(source);
  }

  /** The first of some names that there is a file for. */
  async first(names: readonly string[]): Promise<string | undefined> {
    for (const name of names) if ((await this.#read(name)) !== undefined) return name;
    return undefined;
  }

  async #read(name: string): Promise<Buffer | undefined> {
    if (!this.#found.has(name)) this.#found.set(name, await this.#reader.read(name));
    return this.#found.get(name);
  }

  /** Adds a file and all that it imports; gives the name of the script that runs. */
  async take(name: string): Promise<string> {
    const target = scriptName(name);
    if (this.files.has(target)) return target;
    const { name: source } = this.#reader.source;
    const where = `${source}: ${name}`;
    const bytes = (await this.#read(name)) as Buffer;
    if (this.files.size >= FILES)
      throw new RemoteCodeError(`${source}: its code has more than ${FILES} files.`);
    this.files.set(target, bytes);
    if (name.endsWith(".json")) return target;
    try {
      const text = decoded(bytes, where);
      const isTyped = target !== name;
      const script = isTyped ? await stripTypes(text, where) : text;
      const { imports } = await lexModule(script, where);
      const replaced = new Map<string, string>();
      for (const { specifier } of imports) {
        if (specifier === undefined || replaced.has(specifier)) continue;
        replaced.set(specifier, await this.#import(specifier, name, where));
      }
      this.files.set(
        target,
        Buffer.from(withSpecifiers(script, imports, (each) => replaced.get(each) as string)),
      );
      // Kept beside the script for whoever reads or shares it again; it does not run.
      const typed = name.replace(/\.(m?)js$/, ".$1ts");
      const original = isTyped ? bytes : await this.#read(typed);
      if (original !== undefined) this.files.set(isTyped ? name : typed, original);
    } catch (error) {
      if (!(error instanceof CustomCodeError)) throw error;
      throw new RemoteCodeError(error.message, { cause: error });
    }
    return target;
  }

  /** What stands in the place of an import; its file is taken too. */
  async #import(specifier: string, from: string, where: string): Promise<string> {
    if (/^\.\.?\//.test(specifier)) {
      const relative = path.posix.join(path.posix.dirname(from), specifier);
      if (relative.startsWith("..") || !/^[\w@./-]+$/.test(specifier)) throw escapes(specifier, where);
      if (/(^|\/)(node_modules|\.[^/]*)(\/|$)/.test(relative)) throw notCode(specifier, where);
      const names =
        path.posix.extname(relative) === "" ? SCRIPTS.map((ending) => relative + ending) : [relative];
      if (/\.m?js$/.test(relative)) names.push(relative.replace(/\.(m?)js$/, ".$1ts"));
      for (const name of names) if (!/\.(m?[jt]s|json)$/.test(name)) throw notCode(specifier, where);
      const found = await this.first(names);
      if (found === undefined)
        throw new RemoteCodeError(`${where} imports '${specifier}', and there is no such file.`);
      const target = await this.take(found);
      const here = path.posix.relative(path.posix.dirname(from), target);
      return here.startsWith(".") ? here : `./${here}`;
    }
    const isPlain = /^(node:)?(@[\w.~-]+\/)?[\w~-][\w.~-]*(\/[\w.~/-]+)?$/.test(specifier);
    if (!isPlain || specifier.includes("..")) throw escapes(specifier, where);
    if (packageOf(specifier) === "torchformers" || isBuiltin(specifier)) return specifier;
    this.packages.add(packageOf(specifier));
    return specifier;
  }
}

function decoded(bytes: Buffer, where: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new RemoteCodeError(`${where} is not valid UTF-8.`);
  }
}

const escapes = (specifier: string, where: string) =>
  new RemoteCodeError(`${where} imports ${JSON.stringify(specifier)}, which leads out of the repository.`, {
    hint: "Such a path can be an attack. Nothing of the repository was run.",
  });

const notCode = (specifier: string, where: string) =>
  new RemoteCodeError(
    `${where} imports '${specifier}': only .js, .mjs, .ts and .json files belong to code that runs.`,
    {
      hint: "Native code of a repository is never loaded.",
    },
  );

/** Whether a path of a caller's is a directory. */
export const isDirectory = async (name: string): Promise<boolean> => (await kindOf(name)) === "directory";
