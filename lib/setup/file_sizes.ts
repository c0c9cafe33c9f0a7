// How many bytes the files below a folder have.

import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";

/** One size per file; files may vanish while we look, and then count as empty. */
export async function fileSizes(folder: string): Promise<number[]> {
  const entries = await readdir(folder, { withFileTypes: true, recursive: true }).catch(() => []);
  const sizes = entries
    .filter((entry) => entry.isFile())
    .map((entry) =>
      stat(join(entry.parentPath, entry.name)).then(
        ({ size }) => size,
        () => 0,
      ),
    );
  return await Promise.all(sizes);
}
