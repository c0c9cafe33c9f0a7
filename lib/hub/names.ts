// Names: of repositories, of files in them, and the patterns that choose files.

import { EntryNotFoundError, InvalidArgumentError } from "../errors/index.ts";
import { quoted } from "./redact.ts";

const REPO_ID = /^(?:[A-Za-z0-9_](?:[\w.-]*\w)?\/)?[A-Za-z0-9_](?:[\w.-]*\w)?$/;

/** "name" or "organization/name", by the rules of the hub. */
export const isRepoId = (name: string): boolean =>
  REPO_ID.test(name) && name.length <= 96 && !/--|\.\./.test(name) && !name.endsWith(".git");

/** "org/name@revision" → name and revision; a name without "@" as it is. Programs without types may give anything. */
export function splitRevision(name: string): {
  readonly repo: string;
  readonly revision: string | undefined;
} {
  if (typeof name !== "string") {
    throw new InvalidArgumentError(
      `A folder or the name of a repository is a string, got ${name === null ? "null" : typeof name}.`,
    );
  }
  const at = name.indexOf("@");
  if (at <= 0 || !isRepoId(name.slice(0, at)) || at === name.length - 1)
    return { repo: name, revision: undefined };
  return { repo: name.slice(0, at), revision: name.slice(at + 1) };
}

/** Throws unless the name is one that a repository can have. */
export function assertRepoId(name: string): void {
  if (isRepoId(name)) return;
  throw new InvalidArgumentError(`'${name}' is not the name of a repository.`, {
    hint: "It is 'name' or 'organization/name' of letters, digits, '-', '_' and '.', at most 96 characters, without '--' or '..'.",
  });
}

/** A commit's full hash: such a revision needs no resolving. */
export const isCommit = (revision: string): boolean => /^[0-9a-f]{40}$/.test(revision);

/**
 * Refuses names that could leave their folder. Lexical on purpose: the hub's cache is made of symbolic links, which a
 * check of real paths would take for an escape.
 */
export function assertSafeName(name: string, what: string): void {
  if (isSafeName(name)) return;
  throw new InvalidArgumentError(`${what} '${name}' must be a relative path that stays inside its folder.`);
}

/** The same for a name that a repository chose: not the caller's mistake. */
export function assertSafeEntry(name: string, repo: string): void {
  if (isSafeName(name) && isPlainName(name)) return;
  throw new EntryNotFoundError(
    `'${repo}' lists the file ${quoted(JSON.stringify(name))}, which would lie outside of its folder or has no name of its own; nothing was written.`,
    {
      hint: "Such a name can be an attack. Tell the hub, and leave the file out with ignore_patterns if you must.",
    },
  );
}

function isSafeName(name: string): boolean {
  const parts = name.split(/[\\/]/);
  const isAbsolute = name.startsWith("/") || name.startsWith("\\") || /(^|\/)[a-zA-Z]:/.test(name);
  return name !== "" && !isAbsolute && !name.includes("\0") && !parts.includes("..");
}

/** No folder is empty or ".", which would make two names one; no half of a character, which no address can hold. */
const isPlainName = (name: string): boolean =>
  name.split("/").every((part) => part !== "" && part !== ".") && !/\p{Surrogate}/u.test(name);

/** One pattern or several; each as of Python's fnmatch: `*` also matches "/", and "folder/" means all in it. */
export type Patterns = string | readonly string[] | null | undefined;

/** The names that a list of patterns lets through. */
export function filterNames(
  names: readonly string[],
  {
    allow_patterns,
    ignore_patterns,
  }: { readonly allow_patterns?: Patterns; readonly ignore_patterns?: Patterns },
): string[] {
  const allowed = compile(allow_patterns);
  const ignored = compile(ignore_patterns);
  return names.filter(
    (name) =>
      (allowed === undefined || allowed.some((pattern) => pattern.test(name))) &&
      !ignored?.some((pattern) => pattern.test(name)),
  );
}

function compile(patterns: Patterns): RegExp[] | undefined {
  if (patterns === null || patterns === undefined) return undefined;
  return (typeof patterns === "string" ? [patterns] : patterns).map((pattern) => {
    const slashes = pattern.replaceAll("\\", "/");
    return fnmatch(slashes.endsWith("/") ? `${slashes}*` : slashes);
  });
}

/** Python's fnmatch as a regular expression. */
function fnmatch(pattern: string): RegExp {
  let source = "";
  for (let i = 0; i < pattern.length; i++) {
    const character = pattern[i] as string;
    if (character === "*") source += ".*";
    else if (character === "?") source += ".";
    else if (character === "[") {
      // A "]" that comes first, or after "!", is one of the characters.
      const first = pattern[i + 1] === "!" ? i + 2 : i + 1;
      const end = pattern.indexOf("]", first + 1);
      if (end < 0) source += "\\[";
      else {
        const inside = pattern.slice(first, end).replaceAll(/[\\\]^[]/g, "\\$&");
        source += `[${first === i + 2 ? "^" : ""}${inside}]`;
        i = end;
      }
    } else source += character.replaceAll(/[.+^${}()|\\/\]]/g, "\\$&");
  }
  return new RegExp(`^${source}$`, "su");
}
