// Where code of repositories lies when it runs: a folder per content, so that a name stands for the same bytes for ever, below
// a folder per installed copy of this package, whose node_modules/torchformers is that copy. Code that imports "torchformers"
// so gets the very classes of the program that loads it.
import { createHash, randomBytes } from "node:crypto";
import {
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  realpath,
  rename,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { builtinModules } from "node:module";
import path from "node:path";
import process from "node:process";
import { CustomCodeError, FileError, RemoteCodeError } from "../errors/index.ts";
import { modulesFolder } from "../hub/environment.ts";
import { libraryFolder } from "./source_file.ts";

/** Files by their names, ready to run. */
export type CodeFiles = ReadonlyMap<string, Buffer>;

/** All scripts are modules, whatever the repository says. */
const PACKAGE = Buffer.from('{ "type": "module", "private": true }\n');

/** SHA-256 over names and bytes: what the folder of some code is called. */
export function contentHash(files: CodeFiles): string {
  const hash = createHash("sha256");
  for (const [name, bytes] of [...files].sort(([a], [b]) => (a < b ? -1 : 1)))
    hash.update(`${name}\0${bytes.length}\0`).update(bytes);
  return hash.digest("hex");
}

/** The root of the running package. Throws `CustomCodeError` where there is none, as in a bundle. */
export async function packageRoot(): Promise<string> {
  const root = path.dirname(libraryFolder());
  const name = await readFile(path.join(root, "package.json"), "utf8")
    .then((text) => (JSON.parse(text) as { name?: unknown }).name)
    .catch(() => undefined);
  if (name === "torchformers") return realpath(root);
  throw new CustomCodeError(
    "This torchformers is part of a bundle, so code of repositories cannot import it.",
    {
      hint: "Leave torchformers out of the bundle (external), with the package beside it.",
    },
  );
}

/** Puts code where it can be imported from, and gives its folder. What is there already is compared byte by byte. */
export async function placeCode(files: CodeFiles, packages: readonly string[]): Promise<string> {
  const root = await packageRoot();
  const key = createHash("sha256").update(root).digest("hex").slice(0, 16);
  const place = path.join(modulesFolder(), "torchformers_modules", key);
  const all = new Map([...files, ["package.json", PACKAGE] as const]);
  const folder = path.join(place, contentHash(all));
  try {
    await linkTo(root, path.join(place, "node_modules", "torchformers"));
    if (!(await holds(folder, all))) await write(folder, all);
    for (const name of packages) await linkTo(await installed(name), path.join(folder, "node_modules", name));
  } catch (error) {
    if (error instanceof RemoteCodeError) throw error;
    throw new FileError(`Code cannot be placed in ${folder}: ${(error as Error).message}`, {
      cause: error,
      hint: "Name another folder: HF_MODULES_CACHE=<folder>",
    });
  }
  return folder;
}

/** Whether a folder has exactly these files. */
async function holds(folder: string, files: CodeFiles): Promise<boolean> {
  const found = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => undefined);
  if (found === undefined) return false;
  const names = found
    .filter((entry) => !entry.isDirectory())
    .map((entry) => path.relative(folder, path.join(entry.parentPath ?? entry.path, entry.name)))
    .map((name) => name.split(path.sep).join("/"))
    .filter((name) => !name.startsWith("node_modules/"));
  if (names.length !== files.size || names.some((name) => !files.has(name))) return false;
  for (const [name, bytes] of files) {
    const file = path.join(folder, ...name.split("/"));
    if (!(await lstat(file)).isFile() || !(await readFile(file)).equals(bytes)) return false;
  }
  return true;
}

async function write(folder: string, files: CodeFiles): Promise<void> {
  const made = `${folder}.${randomBytes(6).toString("hex")}.tmp`;
  try {
    for (const [name, bytes] of files) {
      const file = path.join(made, ...name.split("/"));
      await mkdir(path.dirname(file), { recursive: true, mode: 0o700 });
      await writeFile(file, bytes, { flag: "wx", mode: 0o600 });
    }
    await rm(folder, { recursive: true, force: true });
    await rename(made, folder);
  } catch (error) {
    await rm(made, { recursive: true, force: true });
    // Another process was faster: what counts is what is there now.
    if (!(await holds(folder, files).catch(() => false))) throw error;
  }
}

async function linkTo(target: string, link: string): Promise<void> {
  if ((await readlink(link).catch(() => undefined)) === target) return;
  await mkdir(path.dirname(link), { recursive: true, mode: 0o700 });
  const made = `${link}.${randomBytes(6).toString("hex")}`;
  await symlink(target, made, process.platform === "win32" ? "junction" : "dir");
  await rename(made, link);
}

/** Whether a specifier is one of Node's own modules. */
export const isBuiltin = (specifier: string): boolean =>
  specifier.startsWith("node:") || builtinModules.includes(specifier.split("/")[0] as string);

/** "@org/name/part" → "@org/name". */
export const packageOf = (specifier: string): string =>
  specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/");

const isPackageName = (name: string) => /^(@[a-z0-9~-][a-z0-9._~-]*\/)?[a-z0-9~-][a-z0-9._~-]*$/i.test(name);

/** The folder of a package as the program's working directory, or this package, would find it; undefined where there is none. */
export async function findPackage(name: string): Promise<string | undefined> {
  if (!isPackageName(name)) return undefined;
  for (const start of [process.cwd(), await packageRoot()]) {
    for (let folder = start; ; folder = path.dirname(folder)) {
      const found = path.join(folder, "node_modules", ...name.split("/"));
      const isThere = await lstat(path.join(found, "package.json")).catch(() => undefined);
      if (isThere !== undefined) return realpath(found);
      if (path.dirname(folder) === folder) break;
    }
  }
  return undefined;
}

async function installed(name: string): Promise<string> {
  const found = await findPackage(name);
  if (found === undefined) throw new RemoteCodeError(`The package '${name}' is not installed.`);
  return found;
}
