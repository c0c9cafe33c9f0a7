// Everything of the hub that a program may use; in the package as `hub`.

export { type User, whoami } from "./api.ts";
export {
  type CachedRepo,
  type CachedRevision,
  type CacheInfo,
  delete_revisions,
  type PruneOptions,
  prune_cache,
  scan_cache_dir,
  type VerifyResult,
  verify_cache,
} from "./cache_manager.ts";
export { type BrowserLoginOptions, login, login_in_browser, logout } from "./login.ts";
export type { HubOptions, ProgressEvent } from "./options.ts";
export { hf_hub_download, type SnapshotOptions, snapshot_download } from "./snapshot.ts";
export { get_token, type TokenOption } from "./token.ts";
export {
  type CommitInfo,
  type CommitOptions,
  type CreateRepoOptions,
  create_repo,
  type Upload,
  type UploadFolderOptions,
  upload_files,
  upload_folder,
} from "./upload.ts";
