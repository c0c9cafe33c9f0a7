// Replacing several files of a folder in one step: whoever looks, after a kill at any moment too, sees all of the old files
// or all of the new ones.
//
// The new set is written into a hidden folder beside the target, what else the target holds is hard-linked in, and the two
// folders change places. Where that is not possible (no such system call, a mount point, a parent that is not writable, the
// working directory) the hidden folder lies inside the target, and a journal says what is to be moved and removed: from the
// moment it is there the new set counts, and the next load or save finishes what was begun.
import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import {
  access,
  chmod,
  chown,
  link,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  realpath,
  rename,
  rm,
  stat,
  symlink,
} from "node:fs/promises";
import path from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { EntryNotFoundError, FileError, TorchformersError } from "../errors/index.ts";
import { betweenWrites, writeFileAtomic } from "./atomic.ts";

/** What Node lacks. */
export interface FolderTools {
  /** Lets two folders change places in one step; false where that cannot be done. */
  exchange(a: string, b: string): boolean;
  /** Locks a folder for this process: a number for `unlock`, or -1 when another one has it. */
  lock(folder: string): number;
  unlock(lock: number): void;
}

export interface FolderReplacement {
  /** Writes the new files into an empty folder; they must be on the disk when it resolves. */
  readonly write: (folder: string) => Promise<void>;
  /** Whether a file of the target goes although no new file has its name. */
  readonly replaces: (name: string) => boolean;
  readonly tools: FolderTools;
}

const STAGE = "torchformers-saving";
const JOURNAL = /^\.torchformers-save-[0-9a-f]{12}\.json$/;
const PLAIN_NAME = /^[^/\\\0]+$/;
/** How long a save waits for another one that is moving files in the same folder. */
const PATIENCE_MS = 30_000;

const unique = () => randomBytes(6).toString("hex");
const codeOf = (error: unknown) => (error as NodeJS.ErrnoException).code;

/** Puts the files that `write` makes into `directory`, in one step. Makes the folder when it is not there. */
export async function replaceInFolder(directory: string, replacement: FolderReplacement): Promise<void> {
  try {
    await replace(directory, replacement);
  } catch (error) {
    throw typed(error, directory);
  }
}

/** An error of the file system as one of this package. */
function typed(error: unknown, directory: string): unknown {
  if (error instanceof TorchformersError || codeOf(error) === undefined) return error;
  const { message } = error as Error;
  const Failure = codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR" ? EntryNotFoundError : FileError;
  return new Failure(`'${directory}' cannot be written: ${message}.`, { cause: error });
}

async function replace(directory: string, { write, replaces, tools }: FolderReplacement): Promise<void> {
  const target = await resolved(directory);
  const before = await stat(target).catch(() => undefined);
  if (before && !before.isDirectory())
    throw new FileError(`'${directory}' is a file; a folder was expected.`);
  if (before) {
    await access(target, constants.W_OK | constants.X_OK);
    await finishReplacement(target, tools);
  }
  const beside = before === undefined || (await canMove(target, before.dev));
  const stage = await makeStage(target, beside, tools);
  try {
    await write(stage.folder);
    await syncFolder(stage.folder);
    const names = (await readdir(stage.folder)).sort();
    if (beside && (await exchange(target, stage.folder, names, replaces, tools))) return;
    await moveByJournal(target, stage.folder, names, replaces, tools);
  } finally {
    await rm(stage.folder, { recursive: true, force: true }).catch(() => {});
    tools.unlock(stage.lock);
  }
}

/** The folder's own path: a link to it stays a link. Its parents are made. */
async function resolved(directory: string): Promise<string> {
  const full = path.resolve(directory);
  const real = await realpath(full).catch(() => undefined);
  if (real !== undefined) return real;
  await mkdir(path.dirname(full), { recursive: true });
  return path.join(await realpath(path.dirname(full)), path.basename(full));
}

/** Whether the folder may give its place to another one: it is nobody's root, and not where this process stands. */
async function canMove(target: string, device: number): Promise<boolean> {
  const parent = path.dirname(target);
  if (parent === target || (await stat(parent)).dev !== device) return false;
  const here = await realpath(process.cwd()).catch(() => "");
  if (here === target || here.startsWith(`${target}${path.sep}`)) return false;
  return access(parent, constants.W_OK | constants.X_OK).then(
    () => true,
    () => false,
  );
}

const stagesOf = (target: string, beside: boolean) =>
  beside
    ? { folder: path.dirname(target), prefix: `.${path.basename(target).slice(0, 200)}.${STAGE}-` }
    : { folder: target, prefix: `.${STAGE}-` };

/** An empty hidden folder, locked so that others can tell it from one that a killed process left behind. */
async function makeStage(
  target: string,
  beside: boolean,
  tools: FolderTools,
): Promise<{ readonly folder: string; readonly lock: number }> {
  const { folder, prefix } = stagesOf(target, beside);
  await removeAbandoned(folder, prefix, tools);
  for (;;) {
    const stage = path.join(folder, prefix + unique());
    await mkdir(stage);
    try {
      const lock = tools.lock(stage);
      // Another process may have taken it for an abandoned one before it was locked.
      if (lock >= 0 && (await stat(stage).catch(() => undefined))) return { folder: stage, lock };
      if (lock >= 0) tools.unlock(lock);
    } catch (error) {
      if ((error as TorchformersError).code !== "ERR_ENTRY_NOT_FOUND") throw error;
    }
  }
}

async function removeAbandoned(folder: string, prefix: string, tools: FolderTools): Promise<void> {
  for (const name of await readdir(folder).catch(() => [] as string[])) {
    if (!name.startsWith(prefix) || !/^[0-9a-f]{12}$/.test(name.slice(prefix.length))) continue;
    try {
      const lock = tools.lock(path.join(folder, name));
      if (lock < 0) continue;
      await rm(path.join(folder, name), { recursive: true, force: true }).catch(() => {});
      tools.unlock(lock);
    } catch {
      // Gone already, or not ours to touch.
    }
  }
}

// By exchange ----------------------------------------------------------------------------------------------------

/** True when the folders changed places, or the new one took an empty place. */
async function exchange(
  target: string,
  stage: string,
  names: readonly string[],
  replaces: (name: string) => boolean,
  tools: FolderTools,
): Promise<boolean> {
  const isNew = (name: string) => names.includes(name) || replaces(name);
  const status = await stat(target).catch(() => undefined);
  if (status === undefined) {
    try {
      await rename(stage, target);
      await syncFolder(path.dirname(target));
      return true;
    } catch (error) {
      if (codeOf(error) !== "ENOTEMPTY" && codeOf(error) !== "EEXIST") throw error;
    }
  }
  const linked = new Map<string, number>();
  if (!(await linkOthers(target, stage, "", (name) => !isNew(name), linked))) return false;
  if (status) {
    await chmod(stage, status.mode & 0o7777);
    const own = await stat(stage);
    if (own.uid !== status.uid || own.gid !== status.gid) {
      const given = await chown(stage, status.uid, status.gid).then(
        () => true,
        () => false,
      );
      if (!given) return false;
    }
  }
  await syncFolder(stage);
  return betweenWrites(target, async () => {
    const lock = tools.lock(target);
    try {
      if (!tools.exchange(stage, target)) return false;
      await syncFolder(path.dirname(target));
      // What others put into the folder since it was looked at.
      await bringOver(stage, target, "", (name) => !isNew(name), linked);
      return true;
    } finally {
      if (lock >= 0) tools.unlock(lock);
    }
  });
}

/** Links all that is kept into the new folder. False where the file system has no hard links, or does not allow one. */
async function linkOthers(
  from: string,
  to: string,
  below: string,
  keeps: (name: string) => boolean,
  linked: Map<string, number>,
): Promise<boolean> {
  for (const entry of await readdir(path.join(from, below), { withFileTypes: true })) {
    if (below === "" && (!keeps(entry.name) || isOurs(entry.name))) continue;
    const name = path.join(below, entry.name);
    const [source, goal] = [path.join(from, name), path.join(to, name)];
    try {
      if (entry.isDirectory()) {
        const { mode } = await stat(source);
        await mkdir(goal);
        if (!(await linkOthers(from, to, name, keeps, linked))) return false;
        await chmod(goal, mode & 0o7777);
      } else if (entry.isSymbolicLink()) {
        await symlink(await readlink(source), goal);
        linked.set(name, (await lstat(source)).ino);
      } else {
        await link(source, goal);
        linked.set(name, (await lstat(source)).ino);
      }
    } catch (error) {
      const code = codeOf(error);
      if (code === "ENOENT") continue; // removed meanwhile
      if (
        code === "EPERM" ||
        code === "EMLINK" ||
        code === "ENOTSUP" ||
        code === "EACCES" ||
        code === "EXDEV"
      )
        return false;
      throw error;
    }
  }
  return true;
}

/** Moves over what appeared, or was replaced, in the old folder after it was linked. */
async function bringOver(
  old: string,
  target: string,
  below: string,
  keeps: (name: string) => boolean,
  linked: ReadonlyMap<string, number>,
): Promise<void> {
  // Another save may take the old folder for one that a killed process left, and remove it.
  const gone = (error: unknown) => {
    if (codeOf(error) !== "ENOENT") throw error;
    return undefined;
  };
  const entries = await readdir(path.join(old, below), { withFileTypes: true }).catch(gone);
  for (const entry of entries ?? []) {
    if (below === "" && (!keeps(entry.name) || isOurs(entry.name))) continue;
    const name = path.join(below, entry.name);
    const [source, goal] = [path.join(old, name), path.join(target, name)];
    if (entry.isDirectory()) {
      await mkdir(goal, { recursive: true });
      await bringOver(old, target, name, keeps, linked);
      continue;
    }
    const found = await lstat(source).catch(gone);
    if (found !== undefined && linked.get(name) !== found.ino) await rename(source, goal).catch(gone);
  }
}

const isOurs = (name: string) =>
  JOURNAL.test(name) || (name.startsWith(`.${STAGE}-`) && /[0-9a-f]{12}$/.test(name));

// By journal -----------------------------------------------------------------------------------------------------

interface Journal {
  /** Name of the hidden folder inside the target. */
  readonly stage: string;
  readonly files: readonly string[];
  readonly remove: readonly string[];
}

async function moveByJournal(
  target: string,
  stage: string,
  names: readonly string[],
  replaces: (name: string) => boolean,
  tools: FolderTools,
): Promise<void> {
  await mkdir(target, { recursive: true });
  const lock = await patientLock(target, tools);
  try {
    await applyJournals(target);
    const name = `.${STAGE}-${unique()}`;
    const inside = path.join(target, name);
    await bringInside(stage, inside, names);
    const remove = (await readdir(target)).filter((each) => !names.includes(each) && replaces(each));
    const journal: Journal = { stage: name, files: names, remove };
    await syncFolder(target);
    await writeFileAtomic(path.join(target, `.torchformers-save-${unique()}.json`), JSON.stringify(journal));
    await syncFolder(target);
    await applyJournals(target);
  } finally {
    tools.unlock(lock);
  }
}

/** The stage becomes a folder inside the target; what was linked into it stays behind. */
async function bringInside(stage: string, inside: string, names: readonly string[]): Promise<void> {
  await mkdir(inside);
  for (const name of names) await rename(path.join(stage, name), path.join(inside, name));
  await syncFolder(inside);
}

async function patientLock(folder: string, tools: FolderTools): Promise<number> {
  for (const until = performance.now() + PATIENCE_MS; ; await sleep(20)) {
    const lock = tools.lock(folder);
    if (lock >= 0) return lock;
    if (performance.now() > until) throw new FileError(`'${folder}' is being written by another process.`);
  }
}

/**
 * Finishes a save that was interrupted after its files were complete. Loading calls it before it reads a folder. Without
 * tools it takes no lock; moving the same files from two processes does no harm.
 *
 * Throws `FileError` when there is something to finish and the folder cannot be written.
 */
export async function finishReplacement(folder: string, tools?: FolderTools): Promise<void> {
  const names = await readdir(folder).catch(() => [] as string[]);
  if (!names.some((name) => JOURNAL.test(name))) return;
  const lock = tools === undefined ? -1 : await patientLock(folder, tools);
  try {
    await applyJournals(folder);
  } catch (error) {
    throw new FileError(
      `A save to '${folder}' was interrupted and cannot be finished: ${(error as Error).message}.`,
      {
        cause: error,
        hint: "Load the folder once from an account that may write to it.",
      },
    );
  } finally {
    if (lock >= 0) tools?.unlock(lock);
  }
}

async function applyJournals(folder: string): Promise<void> {
  for (const name of (await readdir(folder)).filter((each) => JOURNAL.test(each)).sort()) {
    const text = await readFile(path.join(folder, name), "utf8").catch((error: unknown) => {
      if (codeOf(error) === "ENOENT") return undefined;
      throw error;
    });
    if (text === undefined) continue;
    const { stage, files, remove } = parseJournal(text, path.join(folder, name));
    for (const file of files) {
      await rename(path.join(folder, stage, file), path.join(folder, file)).catch((error: unknown) => {
        if (codeOf(error) !== "ENOENT") throw error;
      });
    }
    for (const file of remove) await rm(path.join(folder, file), { force: true });
    await syncFolder(folder);
    await rm(path.join(folder, name), { force: true });
    await rm(path.join(folder, stage), { recursive: true, force: true });
    await syncFolder(folder);
  }
}

/** A journal may come with a folder from elsewhere: it can name files of that folder only. */
function parseJournal(text: string, file: string): Journal {
  const refuse = () => new FileError(`'${file}' is not the journal of a save.`);
  let journal: Partial<Journal>;
  try {
    journal = JSON.parse(text) as Partial<Journal>;
  } catch {
    throw refuse();
  }
  const { stage, files, remove } = journal ?? {};
  const plain = (names: unknown): names is string[] =>
    Array.isArray(names) &&
    names.every((name) => typeof name === "string" && PLAIN_NAME.test(name) && name !== "." && name !== "..");
  if (typeof stage !== "string" || !new RegExp(`^\\.${STAGE}-[0-9a-f]{12}$`).test(stage)) throw refuse();
  if (
    !plain(files) ||
    !plain(remove) ||
    remove.some((name) => !/\.safetensors(\.index(\..+)?\.json)?$/.test(name))
  )
    throw refuse();
  return { stage, files, remove };
}

/** Makes a folder's entries durable, where the file system can. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync().catch(() => {});
  } finally {
    await handle.close();
  }
}
