// Symbolic links among the files of a checkpoint: a folder from elsewhere must not lead to other files of this machine.
import { realpath } from "node:fs/promises";
import path from "node:path";
import process from "node:process";
import { CheckpointError } from "../errors/index.ts";

/**
 * The hub's cache keeps files under their hash, and links to them from its snapshots: that is where links may lead. What
 * several repositories share lies below the cache's own `blobs`, in a folder named by the hash's first two digits.
 */
const isBlob = (real: string): boolean =>
  /[\\/](models|datasets|spaces)--[^\\/]+[\\/]blobs[\\/][^\\/]+$/.test(real) ||
  /[\\/]blobs[\\/]([0-9a-f]{2})[\\/]\1[0-9a-f]{62}$/.test(real);

/**
 * Refuses a file that is a link out of its folder. Links within it, folders that are links, and the links of the hub's
 * cache are as good as files; `TORCHFORMERS_FOLLOW_LINKS=1` allows all.
 *
 * Throws `CheckpointError`.
 */
export async function assertInside(file: string): Promise<void> {
  const [real, folder] = await Promise.all([realpath(file), realpath(path.dirname(file))]);
  if (real.startsWith(folder.endsWith(path.sep) ? folder : folder + path.sep) || isBlob(real)) return;
  if (process.env.TORCHFORMERS_FOLLOW_LINKS === "1") return;
  throw new CheckpointError(`${file} is a link that leads out of its folder, to ${real}.`, {
    hint: "Copy the file, give the folder that holds it, or set TORCHFORMERS_FOLLOW_LINKS=1 if the link is yours.",
  });
}
