// The files of a commit, as the hub lists them, page by page. Not by @huggingface/hub: it takes a link to the next page that
// it cannot read for the end, and what is missing in a listing counts as missing in the repository.

import { HubError } from "../errors/index.ts";
import { isSize, RepoCache, type RepoFile } from "./cache.ts";
import { endpoint } from "./environment.ts";
import { hubJson } from "./http.ts";
import { assertSafeEntry } from "./names.ts";
import { type HubOptions, isOffline } from "./options.ts";
import { quoted } from "./redact.ts";
import { tokenFor } from "./token.ts";

/** The hub advises to stay below 100,000 files. */
const MOST_ENTRIES = 1_000_000;
const MOST_EMPTY_PAGES = 100;

interface Entry {
  readonly type?: unknown;
  readonly path?: unknown;
  readonly size?: unknown;
  readonly oid?: unknown;
  readonly lfs?: { readonly oid?: unknown; readonly size?: unknown } | null;
  readonly xetHash?: unknown;
}

const isHash = (text: unknown, length: 40 | 64): text is string =>
  typeof text === "string" && text.length === length && /^[0-9a-f]+$/.test(text);

/**
 * The files of a commit: from the cache, else from the hub. Undefined when there is no network and it was never listed.
 *
 * @throws HubError when the hub's listing makes no sense; EntryNotFoundError for names that would leave their folder.
 */
export async function listFiles(
  repo: string,
  commit: string,
  options: HubOptions = {},
): Promise<Map<string, RepoFile> | undefined> {
  const cache = new RepoCache(repo, options);
  const known = await cache.listing(commit);
  if (known !== undefined || isOffline(options)) return known;
  const files = new Map<string, RepoFile>();
  const seen = new Set<string>();
  for await (const entry of entries(repo, commit, options)) {
    const { type, path: name } = entry;
    if (typeof name !== "string") throw senseless(repo, "has an entry without a name");
    if (seen.has(name)) throw senseless(repo, `names ${JSON.stringify(name)} twice`);
    if (seen.add(name).size > MOST_ENTRIES) throw senseless(repo, `has more than ${MOST_ENTRIES} entries`);
    if (type !== "file") continue;
    assertSafeEntry(name, repo);
    files.set(name, fileOf(repo, name, entry));
  }
  await cache.noteListing(commit, files.values());
  return files;
}

function fileOf(repo: string, name: string, { size, oid, lfs, xetHash }: Entry): RepoFile {
  const sha256 = lfs?.oid;
  const bytes = lfs?.size ?? size;
  if (!isHash(oid, 40) || (sha256 !== undefined && !isHash(sha256, 64))) {
    throw senseless(repo, `has ${JSON.stringify(name)} with a checksum that is none`);
  }
  if (!isSize(bytes)) throw senseless(repo, `has ${JSON.stringify(name)} with a size that is none`);
  return { path: name, size: bytes, oid, sha256, xetHash: isHash(xetHash, 64) ? xetHash : undefined };
}

async function* entries(repo: string, commit: string, options: HubOptions): AsyncGenerator<Entry> {
  const token = await tokenFor(options.token);
  const asked = new Set<string>();
  let address = `${endpoint()}/api/models/${repo}/tree/${commit}?recursive=true&expand=false`;
  for (let empty = 0; ; ) {
    asked.add(address);
    const { value, response } = await hubJson(address, { token, repo, signal: options.signal });
    if (!Array.isArray(value)) throw senseless(repo, "is no list");
    for (const entry of value) yield (entry ?? {}) as Entry;
    if (value.length === 0 && ++empty > MOST_EMPTY_PAGES) throw senseless(repo, "has no end");
    const link = nextPage(response.headers.link);
    if (link === undefined) return;
    if (!URL.canParse(link, address) || !/^https?:/.test(new URL(link, address).href)) {
      throw senseless(repo, "goes on at an address that is none");
    }
    address = new URL(link, address).href;
    if (asked.has(address)) throw senseless(repo, "leads back to a page before");
  }
}

/** The address that a `Link` header calls the next one, as it is written there. */
export function nextPage(link: string | readonly string[] | undefined): string | undefined {
  for (const [, target, parameters] of String(link ?? "").matchAll(/<([^>]*)>([^<]*)/g)) {
    const isNext = /;\s*rel\s*=\s*(?:"(?:[^"]*\s)?next(?:\s[^"]*)?"|next\b)/i.test(parameters as string);
    if (isNext) return target;
  }
  return undefined;
}

const senseless = (repo: string, what: string): HubError =>
  new HubError(`The hub's listing of '${repo}' ${quoted(what, 300)}.`, {
    page: `${endpoint()}/${repo}`,
    hint: "Is HF_ENDPOINT the address of a hub, and does no proxy change what it answers?",
  });
