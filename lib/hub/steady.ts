// Reading several files of a folder that a save may exchange for another one at any moment.
import { stat } from "node:fs/promises";

/** Only savers that never rest make it more than a few. */
const ATTEMPTS = 100;

/** Which folder stands at a path; undefined when none does. File systems give a number again, so its birth counts too. */
async function identity(folder: string): Promise<string | undefined> {
  const found = await stat(folder, { bigint: true }).catch(() => undefined);
  return found && `${found.dev}:${found.ino}:${found.birthtimeNs}`;
}

/**
 * What `read` gives when the same folder stood at `folder` all the while; otherwise it is read again, so that files of
 * two saves are never mixed. An error counts only when the folder stayed.
 */
export async function readSteadily<T>(
  folder: string,
  read: () => Promise<T>,
  discard: (result: T) => void,
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    const before = await identity(folder);
    const changed = async () => attempt < ATTEMPTS && (await identity(folder)) !== before;
    let result: T;
    try {
      result = await read();
    } catch (error) {
      if (await changed()) continue;
      throw error;
    }
    if (!(await changed())) return result;
    discard(result);
  }
}
