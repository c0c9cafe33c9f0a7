// Writing the code of a class beside its weights: the module that defines it, as it is and as JavaScript without types, with
// what it imports by relative paths.
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { CustomCodeError } from "../errors/index.ts";
import { warn } from "../errors/warnings.ts";
import { writeFileAtomic } from "../hub/atomic.ts";
import type { Shareable } from "./auto_classes.ts";
import { lexModule, scriptName, stripTypes, withSpecifiers } from "./modules.ts";
import { isInside, isMainScript, libraryFolder, sourceFileOf } from "./source_file.ts";

const ENDINGS = [".ts", ".mts", ".js", ".mjs"];
const endingOf = (file: string) => path.extname(file);
const isTyped = (file: string) => /\.m?ts$/.test(file);

/** The code of a class: files by their names beside the weights, and how `auto_map` names the class. */
export interface SharedCode {
  /** "modeling_resnet.ResnetModel". */
  readonly reference: string;
  readonly files: ReadonlyMap<string, string>;
}

/**
 * Gathers the code of a class that was registered for an Auto class; undefined when it was not, and, with a warning, when
 * the class stands in the script that was started.
 *
 * Throws `CustomCodeError` for code that cannot be shared: without a file, not exported, importing from outside its folder.
 */
export async function gatherCode(cls: Shareable): Promise<SharedCode | undefined> {
  if (cls._auto_class === null || cls._auto_class === undefined) return undefined;
  const main = await sourceFileOf(cls);
  if (isInside(main, libraryFolder()))
    throw new CustomCodeError(`${cls.name} is a class of the library itself: its code is there already.`);
  if (isMainScript(main)) {
    warn(
      `The code of ${cls.name} is not saved, since it is defined in the script that runs (${path.basename(main)}): put it into a module of its own, and import that.`,
    );
    return undefined;
  }
  const folder = path.dirname(main);
  const files = new Map<string, string>();
  await gather(main, folder, files);
  const { exports, reexports } = await lexModule(await readFile(main, "utf8"), main);
  if (!exports.includes(cls.name) && !reexports) {
    throw new CustomCodeError(
      `${path.basename(main)} does not export ${cls.name}, so nothing could load it.`,
      {
        hint: `Write: export class ${cls.name} …`,
      },
    );
  }
  const stem = path.basename(main, endingOf(main));
  if (!/^[A-Za-z_][\w-]*$/.test(stem)) {
    throw new CustomCodeError(`'${path.basename(main)}' cannot be named in auto_map.`, {
      hint: "Give the file a name of letters, digits, '_' and '-', with no further dot.",
    });
  }
  return { reference: `${stem}.${cls.name}`, files };
}

/** Adds a file and what it imports; `files` is by name beside the weights. */
async function gather(file: string, folder: string, files: Map<string, string>): Promise<void> {
  const name = path.relative(folder, file).split(path.sep).join("/");
  if (files.has(name)) return;
  const source = await readFile(file, "utf8");
  files.set(name, source.replace(/\n\/\/[#@] sourceMappingURL=.*\s*$/, "\n"));
  if (file.endsWith(".json")) return;

  const script = isTyped(file) ? await stripTypes(source, file) : source;
  const { imports } = await lexModule(script, file);
  const own: string[] = [];
  for (const { specifier } of imports) {
    if (specifier?.startsWith(".")) own.push(resolveImport(specifier, file, folder));
    else if (specifier !== undefined && /^([#/]|file:|data:)/.test(specifier)) {
      throw new CustomCodeError(`${file} imports '${specifier}', which nobody else can resolve.`, {
        hint: "Import packages by their names, and files by relative paths.",
      });
    }
  }
  if (isTyped(file)) {
    files.set(scriptName(name), withSpecifiers(script, imports, asScript));
    for (const each of await typeImports(source, file, folder)) await gatherTypes(each, folder, files);
  } else {
    const typed = await typedSource(file, source);
    const typedName = name.replace(/\.(m?)js$/, ".$1ts");
    if (typed !== undefined && !files.has(typedName)) files.set(typedName, await readFile(typed, "utf8"));
  }
  for (const each of own) await gather(each, folder, files);
}

const asScript = (specifier: string) => (specifier.startsWith(".") ? scriptName(specifier) : specifier);

function resolveImport(specifier: string, from: string, folder: string): string {
  const target = path.resolve(path.dirname(from), specifier);
  // TypeScript also writes the name of the script that will be made of a file.
  const typed = target.replace(/\.(m?)js$/, ".$1ts");
  const found = [target, typed].find((candidate) => existsSync(candidate));
  if (found === undefined || !(ENDINGS.includes(endingOf(found)) || found.endsWith(".json"))) {
    throw new CustomCodeError(`${from} imports '${specifier}', which is no .ts, .js, .mjs or .json file.`, {
      hint: "Native code and other files are not shared with a model.",
    });
  }
  if (!isInside(found, folder)) {
    throw new CustomCodeError(`${from} imports '${specifier}', which lies outside of ${folder}.`, {
      hint: "Put what belongs to the model beside it, or into a folder there.",
    });
  }
  return found;
}

/** Relative imports of types: no JavaScript needs them, a reader of the .ts files does. */
async function typeImports(source: string, file: string, folder: string): Promise<string[]> {
  const { imports } = await lexModule(source, file);
  return imports.flatMap(({ specifier, typeOnly }) => {
    if (!typeOnly || !specifier?.startsWith(".")) return [];
    const target = path.resolve(path.dirname(file), specifier);
    return existsSync(target) && isTyped(target) && isInside(target, folder) ? [target] : [];
  });
}

async function gatherTypes(file: string, folder: string, files: Map<string, string>): Promise<void> {
  const name = path.relative(folder, file).split(path.sep).join("/");
  if (files.has(name)) return;
  const source = await readFile(file, "utf8");
  files.set(name, source);
  for (const each of await typeImports(source, file, folder)) await gatherTypes(each, folder, files);
}

/** The TypeScript that a script was made of: beside it, or where its source map says. */
async function typedSource(file: string, source: string): Promise<string | undefined> {
  const beside = file.replace(/\.(m?)js$/, ".$1ts");
  if (beside !== file && existsSync(beside)) return beside;
  const [, map] = /\n\/\/[#@] sourceMappingURL=(\S+)\s*$/.exec(source) ?? [];
  if (map === undefined || map.startsWith("data:")) return undefined;
  try {
    const at = path.resolve(path.dirname(file), map);
    const { sources, sourceRoot = "" } = JSON.parse(await readFile(at, "utf8")) as {
      sources: string[];
      sourceRoot?: string;
    };
    const [only, ...more] = sources.map((name) => path.resolve(path.dirname(at), sourceRoot, name));
    return only !== undefined && more.length === 0 && isTyped(only) && existsSync(only) ? only : undefined;
  } catch {
    return undefined; // the script alone will do
  }
}

/** Writes gathered code into a folder. Two classes may share files, but not names of different files. */
export async function writeCode(folder: string, codes: readonly (SharedCode | undefined)[]): Promise<void> {
  const all = new Map<string, string>();
  for (const code of codes) {
    for (const [name, text] of code?.files ?? []) {
      const other = all.get(name);
      if (other !== undefined && other !== text)
        throw new CustomCodeError(`Two different files are called ${name}: give one of them another name.`);
      all.set(name, text);
    }
  }
  for (const [name, text] of all) await writeFileAtomic(path.join(folder, ...name.split("/")), text);
}
