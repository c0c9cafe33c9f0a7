// What saving a folder in one step needs from the addon: see lib/hub/folder_transaction.ts.
import type { FolderTools } from "../hub/folder_transaction.ts";
import { addon } from "./loader.ts";

export const folderTools: FolderTools = {
  exchange: (a, b) => addon().exchangePaths(a, b),
  lock: (folder) => addon().lockPath(folder),
  unlock: (lock) => addon().unlockPath(lock),
};
