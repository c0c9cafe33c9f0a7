// Classes that a repository brings along: whether they may be run, and loading them. Nothing asks on a terminal, and nothing
// that a repository says can answer: only `trust_remote_code: true` of the caller does.
import path from "node:path";
import { pathToFileURL } from "node:url";
import { InvalidArgumentError, RemoteCodeError } from "../errors/index.ts";
import { warnOnce } from "../errors/warnings.ts";
import { type HubOptions, hasFile, pin } from "../hub/files.ts";
import { isCommit, splitRevision } from "../hub/names.ts";
import { placeCode } from "./code_cache.ts";
import { type ClassReference, neighbours, referenceFor } from "./references.ts";
import { type CodeSource, isDirectory, SCRIPTS, takeSnapshot } from "./snapshot.ts";

/** Options of `from_pretrained` that concern code of a repository. */
export interface CodeOptions extends HubOptions {
  /** Run code that the repository brings along. Default: not. */
  readonly trust_remote_code?: boolean | undefined;
  /** Revision of the code, where another repository has it. Default: "main"; of the same repository: `revision`. */
  readonly code_revision?: string | undefined;
}

/** What was asked for, before a branch became a commit. */
export interface Asked {
  readonly dirOrRepo: string;
  readonly revision?: string | undefined;
}

/** A question whether a repository's class is to be used, by the Auto class `auto`. */
export interface CodeQuestion {
  readonly auto: string;
  /** Of the file that is read; where it is. */
  readonly auto_map: unknown;
  readonly file: string;
  /** The directory or repository, and its options with the commit. */
  readonly source: string;
  readonly options: CodeOptions;
  readonly asked: Asked;
  readonly model_type: string | undefined;
  /** The class that would be used otherwise, and whether a program registered it. */
  readonly known: { readonly name: string; readonly isRegistered: boolean } | undefined;
}

/**
 * The class that a repository brings along, if it is to be used; undefined when the known one is.
 *
 * Throws `RemoteCodeError` when code is needed and not trusted, is Python only, or breaks the rules.
 */
export async function remoteClass(question: CodeQuestion): Promise<unknown> {
  const { auto, auto_map, file, options, known, source } = question;
  const trust = trusted(options);
  if (known !== undefined && !trust) return undefined;
  const reference = referenceFor(auto_map, auto, file);
  if (reference === undefined) return undefined;
  if (!trust) throw await untrusted(question, reference);
  if (known?.isRegistered) {
    tellKnown(question, reference, known.name, "was registered for its model_type");
    return undefined;
  }
  const code = await codeSource(question, reference);
  const snapshot = await takeSnapshot(code, neighbours(auto_map, reference, file));
  const script = snapshot.scripts.get(reference.file);
  if (script === undefined) {
    if (known === undefined) throw await withoutScript(question, reference, code);
    tellKnown(question, reference, known.name, "is used");
    return undefined;
  }
  warnUnpinned(question, reference, code);
  const folder = await placeCode(snapshot.files, snapshot.packages);
  const module = await importScript(path.join(folder, ...script.split("/")), source);
  const found = module[reference.name];
  if (typeof found === "function") return found;
  throw new RemoteCodeError(`${code.name}: ${script} does not export a class ${reference.name}.`);
}

function trusted({ trust_remote_code }: CodeOptions): boolean {
  if (trust_remote_code === undefined || trust_remote_code === null) return false;
  if (typeof trust_remote_code === "boolean") return trust_remote_code;
  throw new InvalidArgumentError(`trust_remote_code must be true or false, got ${typeof trust_remote_code}.`);
}

async function codeSource(
  { source, options, file, auto }: CodeQuestion,
  { repo }: ClassReference,
): Promise<CodeSource> {
  const { trust_remote_code: _trust, code_revision, subfolder: _folder, ...hub } = options;
  const quiet = { ...hub, progress_callback: undefined };
  if (repo === undefined) {
    if (await isDirectory(source)) return { name: source, options: quiet, isDirectory: true };
    const meant = code_revision === undefined ? quiet : { ...quiet, revision: code_revision };
    const pinned = await pin(source, meant);
    return { name: pinned.name, options: pinned.options, isDirectory: false };
  }
  if (await isDirectory(repo)) {
    throw new RemoteCodeError(
      `${file}: auto_map.${auto} names code of the repository '${repo}', and there is a directory of that name.`,
      {
        hint: "Run the program elsewhere, or rename the directory: a repository must not choose among your folders.",
      },
    );
  }
  const pinned = await pin(repo, { ...quiet, revision: code_revision });
  return { name: pinned.name, options: pinned.options, isDirectory: false };
}

/** Code that may change from one day to the next is told of, with the line that keeps it as it is. */
function warnUnpinned(
  { source, asked, options }: CodeQuestion,
  { repo }: ClassReference,
  code: CodeSource,
): void {
  if (code.isDirectory) return;
  const commit = code.options.revision as string;
  const isOther = repo !== undefined && repo !== source;
  const ofModel = isOther ? undefined : (asked.revision ?? splitRevision(asked.dirOrRepo).revision);
  const wanted = options.code_revision ?? ofModel;
  if (wanted !== undefined && isCommit(wanted)) return;
  const option = isOther ? "code_revision" : "revision";
  warnOnce(
    `The code of '${code.name}' that runs is that of commit ${commit}. Read it, and pin it, or tomorrow's code will run unread: { trust_remote_code: true, ${option}: "${commit}" }`,
  );
}

async function importScript(script: string, source: string): Promise<Record<string, unknown>> {
  try {
    return (await import(pathToFileURL(script).href)) as Record<string, unknown>;
  } catch (error) {
    throw new RemoteCodeError(
      `The code of ${source} does not load: ${(error as Error)?.message ?? String(error)}`,
      {
        cause: error,
      },
    );
  }
}

function tellKnown(question: CodeQuestion, { text }: ClassReference, name: string, why: string): void {
  warnOnce(`The code of ${question.source} for ${question.auto} (${text}) is not run: ${name} ${why}.`);
}

/** The line that makes a class of one's own known. */
const registering = ({ auto, model_type }: CodeQuestion) =>
  auto === "AutoConfig"
    ? `AutoConfig.register(${JSON.stringify(model_type ?? "my-model")}, MyConfig)`
    : `${auto}.register(MyConfig, MyModel)`;

async function untrusted(question: CodeQuestion, reference: ClassReference): Promise<RemoteCodeError> {
  const { auto, source, options } = question;
  const upstream = reference.repo === undefined ? "" : `, of the repository '${reference.repo}'`;
  const begins = `${source} needs code of its own for ${auto} (${reference.text}${upstream})`;
  if (reference.repo === undefined && !(await hasScript(source, reference, options))) {
    return new RemoteCodeError(`${begins}, which is not JavaScript and cannot be run here.`, {
      hint: `Write the class, and make it known: ${registering(question)};`,
    });
  }
  const pinned = isCommit(options.revision ?? "") ? `, revision: "${options.revision}"` : "";
  return new RemoteCodeError(`${begins}, which is run only if you say so.`, {
    hint: `Read it (npx torchformers inspect ${source}), then pass { trust_remote_code: true${pinned} }. Or make a class of your own known: ${registering(question)};`,
  });
}

async function hasScript(source: string, { file }: ClassReference, options: CodeOptions): Promise<boolean> {
  const { subfolder: _folder, trust_remote_code: _trust, code_revision: _code, ...hub } = options;
  for (const ending of SCRIPTS) if (await hasFile(source, file + ending, hub).catch(() => false)) return true;
  return false;
}

async function withoutScript(
  question: CodeQuestion,
  { file, text }: ClassReference,
  code: CodeSource,
): Promise<RemoteCodeError> {
  const isPython = await hasFile(code.name, `${file}.py`, code.options).catch(() => false);
  const what = isPython ? `is Python (${file}.py), which is not run here` : "is not there";
  return new RemoteCodeError(
    `${code.name} needs code of its own for ${question.auto} (${text}), and that ${what}. Looked for: ${SCRIPTS.map((ending) => file + ending).join(", ")}.`,
    { hint: `Write the class, and make it known: ${registering(question)};` },
  );
}
