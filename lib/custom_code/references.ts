// `auto_map`: which class of which file of which repository stands for an Auto class. It comes with a checkpoint, so each
// part is held to a closed form before anything is looked for.
import { RemoteCodeError } from "../errors/index.ts";
import { isRepoId } from "../hub/names.ts";
import { isRecord } from "../json/json.ts";

/** "org/name--folder/file.Class", taken apart. */
export interface ClassReference {
  /** The repository that has the file, when it is another one. */
  readonly repo: string | undefined;
  /** Without its ending, with "/" between folders. */
  readonly file: string;
  readonly name: string;
  /** As it was written. */
  readonly text: string;
}

const FILE = /^[A-Za-z_][\w-]*(\/[A-Za-z_][\w-]*)*$/;
const NAME = /^[A-Za-z_$][\w$]*$/;

const isPackages = (file: string) => file.split("/").includes("node_modules");

/** Throws `RemoteCodeError` for what is not of the form "file.Class" or "org/name--file.Class". */
export function parseReference(text: unknown, where: string): ClassReference {
  const refuse = () =>
    new RemoteCodeError(`${where} is ${JSON.stringify(text)}, which is not of the form "file.Class".`, {
      hint: 'Only "file.Class", "folder/file.Class" and "org/name--file.Class" name code; paths that could leave the repository do not.',
    });
  if (typeof text !== "string" || text.length > 300) throw refuse();
  const at = text.indexOf("--");
  const repo = at < 0 ? undefined : text.slice(0, at);
  const [file = "", name = "", ...more] = (at < 0 ? text : text.slice(at + 2)).split(".");
  const isForeign = repo === undefined || (isRepoId(repo) && repo.includes("/"));
  if (!isForeign || more.length > 0 || !FILE.test(file) || isPackages(file) || !NAME.test(name))
    throw refuse();
  return { repo, file, name, text };
}

/** What a file says of an Auto class; of a tokenizer's two classes the fast one. Undefined when it says nothing. */
export function referenceFor(auto_map: unknown, auto: string, where: string): ClassReference | undefined {
  // An older form has the pair of a tokenizer alone.
  const entries =
    Array.isArray(auto_map) && auto === "AutoTokenizer" ? { AutoTokenizer: auto_map } : auto_map;
  if (!isRecord(entries) || !Object.hasOwn(entries, auto)) return undefined;
  const value = entries[auto];
  const one = Array.isArray(value) ? (value[1] ?? value[0]) : value;
  if (one === null || one === undefined) return undefined;
  return parseReference(one, `${where}: auto_map.${auto}`);
}

/** All references of a file, to code in the same place as the given one; what is not of the form is refused too. */
export function neighbours(auto_map: unknown, reference: ClassReference, where: string): ClassReference[] {
  if (!isRecord(auto_map)) return [reference];
  const found = Object.keys(auto_map).map((auto) => referenceFor(auto_map, auto, where));
  return [
    reference,
    ...found.filter((other) => other !== undefined && other.repo === reference.repo),
  ] as ClassReference[];
}
