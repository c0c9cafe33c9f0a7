// What the scripts share. Plain Node: a clean clone has no node_modules.

import {
  accessSync,
  closeSync,
  constants,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

/** The root of the checkout. */
export const root = dirname(dirname(fileURLToPath(import.meta.url)));

export const isMain = (url) => process.argv[1] !== undefined && fileURLToPath(url) === process.argv[1];

/** Ends the process with a message, and what to do about it. */
export function fail(message, hint) {
  console.error(hint ? `${message}\n${hint}` : message);
  process.exit(1);
}

/** The absolute path of a program on PATH, or undefined. */
export function findOnPath(name) {
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    if (!folder) continue;
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      if (statSync(path).isFile()) return path;
    } catch {
      // Not here: the next folder.
    }
  }
  return undefined;
}

const isAlive = (pid) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
};

/** Runs `work` while holding a lock file; waits for a living holder, takes over from a dead one. */
export async function withLock(path, what, work) {
  for (let told = false; ; ) {
    try {
      const file = openSync(path, "wx");
      writeSync(file, String(process.pid));
      closeSync(file);
      break;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    if (isAbandoned(path)) {
      rmSync(path, { force: true });
      continue;
    }
    if (!told) console.log(`Waiting for ${what} to end …`);
    told = true;
    await sleep(200);
  }
  const release = () => rmSync(path, { force: true });
  process.once("exit", release);
  try {
    return await work();
  } finally {
    release();
    process.off("exit", release);
  }
}

/** A lock whose writer is gone. One just created may not carry its number yet. */
function isAbandoned(path) {
  try {
    const pid = Number(readFileSync(path, "utf8"));
    return pid > 0 ? !isAlive(pid) : Date.now() - statSync(path).mtimeMs > 5000;
  } catch {
    return false;
  }
}
