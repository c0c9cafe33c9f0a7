// push_to_hub, for whatever can write itself into a folder: saved, described, sent.

import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { askCommit } from "./api.ts";
import { listFiles } from "./listing.ts";
import { type CardContent, modelCard } from "./model_card.ts";
import { type CommitInfo, type CommitOptions, create_repo, namesBelow, upload_files } from "./upload.ts";

/** Options of every `push_to_hub`. */
export interface PushToHubOptions extends CommitOptions {
  /** Makes a repository that is not there yet private. */
  readonly private?: boolean | null | undefined;
  /** Tags of the model card, beside "torchformers". */
  readonly tags?: readonly string[] | undefined;
}

/** Options of a `save_pretrained` that sends what it wrote. */
export interface SaveAndPushOptions extends PushToHubOptions {
  /** Sends the files to the hub once they are written. Default false. */
  readonly push_to_hub?: boolean | undefined;
  /** Default: the name of the directory. */
  readonly repo_id?: string | undefined;
}

const PUSH_OPTIONS = [
  "private",
  "tags",
  "token",
  "signal",
  "progress_callback",
  "revision",
  "commit_message",
  "commit_description",
  "create_pr",
] as const satisfies readonly (keyof PushToHubOptions)[];

/** The names that {@link splitPushOptions} takes out. */
export const SAVE_AND_PUSH_OPTIONS: readonly string[] = [...PUSH_OPTIONS, "push_to_hub", "repo_id"];

/** The options for the hub, and the others. */
export function splitPushOptions<T extends SaveAndPushOptions>(
  options: T,
): { readonly push: SaveAndPushOptions; readonly rest: Omit<T, keyof SaveAndPushOptions> } {
  const entries = Object.entries(options);
  const isPush = ([name]: [string, unknown]) => SAVE_AND_PUSH_OPTIONS.includes(name);
  return {
    push: Object.fromEntries(entries.filter(isPush)) as SaveAndPushOptions,
    rest: Object.fromEntries(entries.filter((entry) => !isPush(entry))) as Omit<T, keyof SaveAndPushOptions>,
  };
}

/** A kind of thing that can be pushed. Models, configurations and tokenizers are; later kinds plug in here. */
export interface Pushable {
  /** What it is called in the default commit message: "LlamaForCausalLM". */
  readonly name: string;
  readonly card: CardContent;
  /** Writes all its files into a folder. */
  save(folder: string): Promise<unknown>;
}

/** Saves a thing into a folder of its own and sends the files; makes the repository and its card if need be. */
export async function pushToHub(
  thing: Pushable,
  repo_id: string,
  options: PushToHubOptions = {},
): Promise<CommitInfo> {
  const stranger = Object.keys(options).find((name) => !PUSH_OPTIONS.includes(name as never));
  if (stranger !== undefined) {
    throw new InvalidArgumentError(`push_to_hub has no option '${stranger}'.`, {
      suggestion: suggest(stranger, PUSH_OPTIONS),
    });
  }
  const repo = await makeRepo(repo_id, options);
  const folder = await mkdtemp(path.join(tmpdir(), "torchformers-push-"));
  try {
    await thing.save(folder);
    return await send(thing, repo, folder, await namesBelow(folder), options);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Runs a `save`, and where the options say so sends those files of the directory that it wrote. */
export async function saveAndPush(
  thing: Pushable,
  directory: string,
  { push_to_hub = false, repo_id, ...options }: SaveAndPushOptions,
): Promise<CommitInfo | undefined> {
  if (!push_to_hub) {
    await thing.save(directory);
    return undefined;
  }
  const repo = await makeRepo(repo_id ?? path.basename(path.resolve(directory)), options);
  const before = await stamps(directory);
  await thing.save(directory);
  const after = await stamps(directory);
  const written = [...after].filter(([name, stamp]) => before.get(name) !== stamp).map(([name]) => name);
  return send(thing, repo, directory, written, options);
}

async function makeRepo(name: string, options: PushToHubOptions): Promise<string> {
  const { token, signal, private: isPrivate } = options;
  return (await create_repo(name, { token, signal, private: isPrivate, exist_ok: true })).repo;
}

async function stamps(folder: string): Promise<Map<string, string>> {
  const names = await namesBelow(folder).catch(() => []);
  const facts = names.map(async (name) => {
    const { mtimeMs, ino, size } = await stat(path.join(folder, name));
    return [name, `${mtimeMs} ${ino} ${size}`] as const;
  });
  return new Map(await Promise.all(facts));
}

async function send(
  thing: Pushable,
  repo: string,
  folder: string,
  names: readonly string[],
  options: PushToHubOptions,
): Promise<CommitInfo> {
  const { tags, private: _, ...commit } = options;
  const files = names.map((name) => ({ path: name, file: path.join(folder, name) }));
  const card = await mkdtemp(path.join(tmpdir(), "torchformers-card-"));
  try {
    if (!names.includes("README.md") && !(await hasCard(repo, options))) {
      const file = path.join(card, "README.md");
      const content = { ...thing.card, tags: [...(thing.card.tags ?? []), ...(tags ?? [])] };
      await writeFile(file, modelCard(repo, content));
      files.push({ path: "README.md", file });
    }
    return await upload_files(repo, files, { commit_message: `Upload ${thing.name}`, ...commit });
  } finally {
    await rm(card, { recursive: true, force: true });
  }
}

/** A card that is there is its author's: it is left alone. */
async function hasCard(repo: string, options: PushToHubOptions): Promise<boolean> {
  const hub = { token: options.token ?? true, signal: options.signal };
  const commit = await askCommit(repo, options.revision ?? "main", hub);
  return (await listFiles(repo, commit, hub))?.has("README.md") ?? false;
}
