// Sending files to the hub: one commit for all of them. The protocol is @huggingface/hub's; connections, retries and errors
// are ours. What the hub's storage already has is not sent again, neither within a call nor by the next one.

import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { HubError, InvalidArgumentError, TorchformersError } from "../errors/index.ts";
import { askCommit, hubFetch, whoami } from "./api.ts";
import { etagOf, type RepoFile } from "./cache.ts";
import { checksum } from "./checksum.ts";
import { endpoint, isOfflineEverywhere } from "./environment.ts";
import { pause, retries } from "./http.ts";
import { listFiles } from "./listing.ts";
import { assertRepoId, assertSafeName, filterNames, type Patterns } from "./names.ts";
import { ByteProgress, type HubOptions } from "./options.ts";
import { redact } from "./redact.ts";
import { isTransient } from "./responses.ts";
import { tokenFor } from "./token.ts";

/** Who may do it, and what to tell meanwhile. */
type CommonOptions = Pick<HubOptions, "token" | "signal" | "progress_callback">;

/** Options of {@link create_repo}. */
export interface CreateRepoOptions extends CommonOptions {
  /** Default: what the organization has set, as a rule public. */
  readonly private?: boolean | null | undefined;
  /** A repository that is there already is no error. Default false. */
  readonly exist_ok?: boolean | undefined;
}

/** What an upload became. */
export interface CommitInfo {
  readonly repo: string;
  /** The commit's hash. */
  readonly oid: string;
  /** Its page. */
  readonly url: string;
  /** The page of the pull request, if one was asked for. */
  readonly pr_url: string | undefined;
}

/** How an upload is described. */
export interface CommitOptions extends CommonOptions {
  /** The branch. Default "main". */
  readonly revision?: string | undefined;
  readonly commit_message?: string | undefined;
  readonly commit_description?: string | undefined;
  /** Opens a pull request instead of committing to the branch. Default false. */
  readonly create_pr?: boolean | undefined;
}

/** A file on the disk, and its name in the repository. */
export interface Upload {
  readonly path: string;
  readonly file: string;
}

/** "name" becomes "user/name", by the token's owner. */
export async function fullName(name: string, options: CommonOptions): Promise<string> {
  assertRepoId(name);
  if (name.includes("/")) return name;
  return `${(await whoami(options)).name}/${name}`;
}

/**
 * Makes a repository for a model; resolves to its full name and page.
 *
 * ```ts
 * const { repo, url } = await hub.create_repo("my-model", { private: true, exist_ok: true });
 * ```
 *
 * Throws `HubError` with status 409 when it exists, and with 401 or 403 when the token may not make it.
 */
export async function create_repo(
  name: string,
  options: CreateRepoOptions = {},
): Promise<{ readonly repo: string; readonly url: string }> {
  assertOnline();
  const repo = await fullName(name, options);
  const token = await tokenFor(options.token ?? true);
  const made = { repo, url: `${endpoint()}/${repo}` };
  const hub = await import("@huggingface/hub");
  try {
    await hub.createRepo({
      repo,
      hubUrl: endpoint(),
      fetch: hubFetch({ token, signal: options.signal }),
      accessToken: undefined as never, // our fetch adds it, and it never leaves this room
      ...(options.private === null || options.private === undefined
        ? {}
        : { visibility: options.private ? "private" : "public", private: options.private }),
    });
    return made;
  } catch (error) {
    options.signal?.throwIfAborted();
    const { status } = error as HubError;
    // Without the right to make it one may still have the right to write to it.
    const mayExist = options.exist_ok && (status === 409 || status === 403 || status === undefined);
    if (mayExist && (status === 409 || (await exists(repo, options)))) return made;
    throw asHubError(error, repo);
  }
}

const exists = (repo: string, options: CommonOptions): Promise<boolean> =>
  askCommit(repo, "main", { token: options.token, signal: options.signal, attempts: 1 }).then(
    () => true,
    () => false,
  );

function assertOnline(): void {
  if (isOfflineEverywhere()) {
    throw new HubError("Nothing can be sent: the network is switched off (HF_HUB_OFFLINE).");
  }
}

/** Options of {@link upload_folder}. */
export interface UploadFolderOptions extends CommitOptions {
  /** Folder inside the repository. Default: its root. */
  readonly path_in_repo?: string | undefined;
  readonly allow_patterns?: Patterns;
  readonly ignore_patterns?: Patterns;
}

/** Never sent: git's own files, and the notes of downloads. */
const NEVER = [".git", ".git/*", "*/.git", "*/.git/*", ".cache/huggingface/*", "*/.cache/huggingface/*"];

/**
 * Sends the files of a folder as one commit. The repository must be there: see `create_repo`.
 *
 * ```ts
 * await hub.upload_folder("user/my-model", "./my-model", { ignore_patterns: "*.log" });
 * ```
 *
 * Throws as `upload_files`, and `InvalidArgumentError` when no file is left to send.
 */
export async function upload_folder(
  repo: string,
  folder: string,
  options: UploadFolderOptions = {},
): Promise<CommitInfo> {
  if (!(await stat(folder).catch(() => undefined))?.isDirectory()) {
    throw new InvalidArgumentError(`'${folder}' is not a directory.`);
  }
  const { path_in_repo = "" } = options;
  if (path_in_repo !== "") assertSafeName(path_in_repo, "path_in_repo");
  const ignore = options.ignore_patterns ?? [];
  const names = filterNames(await namesBelow(folder), {
    allow_patterns: options.allow_patterns,
    ignore_patterns: [...NEVER, ...(typeof ignore === "string" ? [ignore] : ignore)],
  });
  if (names.length === 0) throw new InvalidArgumentError(`'${folder}' has no file to send.`);
  const files = names.map((name) => ({
    path: path.posix.join(path_in_repo, name),
    file: path.join(folder, ...name.split("/")),
  }));
  return upload_files(repo, files, options);
}

/** The files below a folder, with "/" between folders, in order. */
export async function namesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const names: string[] = [];
  for (const entry of entries) {
    const file = path.join(entry.parentPath, entry.name);
    if (entry.isFile() || (entry.isSymbolicLink() && (await stat(file)).isFile())) {
      names.push(path.relative(folder, file).split(path.sep).join("/"));
    }
  }
  return names.sort();
}

/**
 * Sends files as one commit. `progress_callback` is told of the bytes, `signal` stops it; what was sent by then need not be
 * sent again by the next call.
 *
 * Throws `RepositoryNotFoundError`, `HubError` for all that the hub refuses, and the signal's reason.
 */
export async function upload_files(
  name: string,
  files: readonly Upload[],
  options: CommitOptions = {},
): Promise<CommitInfo> {
  assertOnline();
  const { signal } = options;
  signal?.throwIfAborted();
  const repo = await fullName(name, options);
  const token = await tokenFor(options.token ?? true);
  const sized = await Promise.all(
    files.map(async ({ path: name, file }) => {
      assertSafeName(name, "The file name");
      return { path: name, file, size: (await stat(file)).size };
    }),
  );
  const progress = new ByteProgress("upload", options.progress_callback, sized);
  progress.begin();
  const branch = options.revision ?? "main";
  const before = options.create_pr ? undefined : await headOf(repo, branch, options);
  for (let attempt = 1; ; attempt++) {
    try {
      return await commit(repo, token, sized, progress, options);
    } catch (error) {
      signal?.throwIfAborted();
      const failure = asHubError(error, repo);
      const isFinal =
        !(failure instanceof HubError) || !isWorthRepeating(failure) || attempt >= retries.attempts;
      if (isFinal && !(failure instanceof HubError && failure.status === undefined)) throw failure;
      // The answer to a commit may be lost after the commit was made. Then it must not be made twice.
      const made = before === undefined ? undefined : await arrived(repo, branch, before, sized, options);
      if (made !== undefined) {
        for (const { path: file } of sized) progress.done(file);
        return made;
      }
      if (isFinal || before === undefined) throw failure;
      await pause(attempt, undefined, signal);
    }
  }
}

/** Lost connections and overloads; also a refusal by the storage, whose addresses expire. */
const isWorthRepeating = ({ status }: HubError): boolean =>
  status === undefined || isTransient(status) || status === 412;

type Sized = Upload & { readonly size: number };

async function commit(
  repo: string,
  token: string | undefined,
  files: readonly Sized[],
  progress: ByteProgress,
  options: CommitOptions,
): Promise<CommitInfo> {
  const hub = await import("@huggingface/hub");
  const { signal } = options;
  const steps = hub.commitIter({
    repo,
    title: options.commit_message ?? "Upload with torchformers",
    ...(options.commit_description === undefined ? {} : { description: options.commit_description }),
    branch: options.revision ?? "main",
    isPullRequest: options.create_pr ?? false,
    hubUrl: endpoint(),
    fetch: hubFetch({ token, repo, signal }),
    ...(signal === undefined ? {} : { abortSignal: signal }),
    operations: files.map(({ path: name, file }) => ({
      operation: "addOrUpdate",
      path: name,
      content: pathToFileURL(path.resolve(file)),
    })),
  });
  const sizes = new Map(files.map(({ path: name, size }) => [name, size]));
  const sent = new Map<string, number>();
  for (;;) {
    const { done, value } = await steps.next();
    if (done) {
      for (const { path: name } of files) progress.done(name);
      if (typeof value?.commit.oid !== "string") {
        throw new HubError(`'${repo}': the hub did not say which commit it made.`);
      }
      return { repo, oid: value.commit.oid, url: value.commit.url, pr_url: value.pullRequestUrl };
    }
    if (value.event !== "fileProgress" || value.state !== "uploading") continue;
    const bytes = Math.floor(value.progress * (sizes.get(value.path) ?? 0));
    progress.add(value.path, bytes - (sent.get(value.path) ?? 0));
    sent.set(value.path, bytes);
  }
}

async function headOf(repo: string, branch: string, options: CommitOptions): Promise<string | undefined> {
  return askCommit(repo, branch, { token: options.token ?? true, signal: options.signal });
}

/** The branch's new commit, if it holds all the files as they are here. */
async function arrived(
  repo: string,
  branch: string,
  before: string,
  files: readonly Sized[],
  options: CommitOptions,
): Promise<CommitInfo | undefined> {
  const now = await headOf(repo, branch, options).catch(() => undefined);
  if (now === undefined || now === before) return undefined;
  const listing = await listFiles(repo, now, { token: options.token ?? true, signal: options.signal });
  for (const { path: name, file, size } of files) {
    const there: RepoFile | undefined = listing?.get(name);
    if (there === undefined || there.size !== size) return undefined;
    if ((await checksum(file, etagOf(there), size, options.signal)) !== etagOf(there)) return undefined;
  }
  return { repo, oid: now, url: `${endpoint()}/${repo}/commit/${now}`, pr_url: undefined };
}

/** Errors of @huggingface/hub in our terms; it puts whole addresses into messages. */
function asHubError(error: unknown, repo: string): Error {
  if (error instanceof TorchformersError || (error as Error).name === "AbortError") return error as Error;
  const { statusCode, message } = error as { statusCode?: number; message?: string };
  const isStorage = statusCode === 403 || statusCode === 401;
  return new HubError(`'${repo}': ${redact(String(message ?? error))}`, {
    status: isStorage ? undefined : statusCode,
    page: `${endpoint()}/${repo}`,
    hint: "What was sent so far is kept: the next attempt sends only the rest.",
  });
}
