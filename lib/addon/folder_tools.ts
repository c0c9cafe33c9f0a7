// What saving a folder in one step needs from the addon: the FolderTools of lib/hub/folder_transaction.ts.
import { addon } from "./loader.ts";

export const folderTools = {
  exchange: (a: string, b: string): boolean => addon().exchangePaths(a, b),
  lock: (folder: string): number => addon().lockPath(folder),
  unlock: (lock: number): void => addon().unlockPath(lock),
};
