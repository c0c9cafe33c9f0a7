// Writing a file so that a reader, or a process that is killed, sees the old one or the new one and nothing between.

import { randomBytes } from "node:crypto";
import { mkdir, open, rename, rm } from "node:fs/promises";
import path from "node:path";

interface Busy {
  readonly writes: Set<Promise<unknown>>;
  /** A step that no write may overlap. */
  step: Promise<unknown> | undefined;
}

/** What is under way, by folder. */
const busy = new Map<string, Busy>();

/** The folder's state once `idle` holds for it; whoever gets it acts before anything is awaited. */
async function whenIdle(folder: string, idle: (state: Busy) => boolean): Promise<Busy> {
  for (;;) {
    const state = busy.get(folder) ?? { writes: new Set(), step: undefined };
    busy.set(folder, state);
    if (idle(state)) return state;
    await Promise.allSettled([state.step, ...state.writes]);
  }
}

function forget(folder: string, state: Busy): void {
  if (state.writes.size === 0 && state.step === undefined) busy.delete(folder);
}

/** Runs `step` while no `writeFileAtomic` of this process is under way in the folder. */
export async function betweenWrites<T>(folder: string, step: () => Promise<T>): Promise<T> {
  const key = path.resolve(folder);
  const state = await whenIdle(key, ({ writes, step }) => writes.size === 0 && step === undefined);
  const running = step();
  state.step = running;
  try {
    return await running;
  } finally {
    state.step = undefined;
    forget(key, state);
  }
}

/** Writes `text` to `file` by way of a temporary file beside it, a flush to disk and a rename; makes the folder. */
export async function writeFileAtomic(file: string, text: string | Uint8Array): Promise<void> {
  const folder = path.dirname(file);
  const key = path.resolve(folder);
  const state = await whenIdle(key, ({ step }) => step === undefined);
  const writing = write(file, folder, text);
  state.writes.add(writing);
  try {
    await writing;
  } finally {
    state.writes.delete(writing);
    forget(key, state);
  }
}

async function write(file: string, folder: string, text: string | Uint8Array): Promise<void> {
  await mkdir(folder, { recursive: true });
  const temporary = path.join(folder, `.${path.basename(file)}.${randomBytes(6).toString("hex")}.tmp`);
  try {
    const handle = await open(temporary, "wx", 0o666);
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}
