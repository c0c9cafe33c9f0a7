// Questions to the hub: which commit a revision is, who the user is. And our connections for @huggingface/hub.

import { Readable } from "node:stream";
import { HubError, OfflineModeError, RevisionNotFoundError } from "../errors/index.ts";
import { warnOnce } from "../errors/warnings.ts";
import { RepoCache } from "./cache.ts";
import { endpoint } from "./environment.ts";
import { hubJson, hubRequest, hubText } from "./http.ts";
import { assertSafeName, isCommit } from "./names.ts";
import { type HubOptions, isOffline } from "./options.ts";
import { tokenFor } from "./token.ts";

/** `fetch` for @huggingface/hub: our redirects, proxies, time limits and retries; the token stays with us. */
export function hubFetch({
  token,
  signal,
  repo,
}: {
  readonly token: string | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly repo?: string | undefined;
}): typeof fetch {
  return async (input, init = {}) => {
    const url = new URL(input instanceof Request ? input.url : String(input));
    const isHub = url.origin === new URL(endpoint()).origin;
    const { authorization, ...headers } = Object.fromEntries(new Headers(init.headers));
    const isOwn = authorization !== undefined && authorization !== "Bearer undefined";
    const method = init.method ?? "GET";
    const aborts = [signal, init.signal].filter((one) => one !== null && one !== undefined);
    const request = {
      method,
      // It never saw the user's token: what it sends along is a token that the hub gave it for a storage.
      headers: isOwn ? { ...headers, authorization: authorization as string } : headers,
      body: (init.body ?? undefined) as string | Uint8Array | Blob | undefined,
      token: isHub && !isOwn ? token : undefined,
      signal: aborts.length > 1 ? AbortSignal.any(aborts) : aborts[0],
      repo: isHub ? repo : undefined,
      raw: !isHub,
      once: method === "POST" && /\/commit\/|\/repos\/create$/.test(url.pathname),
      onSent: sentReporter(init),
    };
    // Answers to questions are read whole, and asked for again when they break off; files are not.
    const isQuestion = isHub && (method !== "GET" || url.pathname.includes("/api/"));
    const { response, text } = isQuestion
      ? await hubText(url.href, request)
      : { response: await hubRequest(url.href, request), text: undefined };
    const facts = { status: response.status, headers: headersOf(response.headers) };
    const body = text ?? (Readable.toWeb(response.message) as ReadableStream<Uint8Array>);
    const answer = new Response(response.status === 204 ? null : body, facts);
    Object.defineProperty(answer, "url", { value: response.url });
    return answer;
  };
}

const headersOf = (headers: Record<string, string | string[] | undefined>): [string, string][] =>
  Object.entries(headers).flatMap(([name, value]) =>
    value === undefined ? [] : [[name, Array.isArray(value) ? value.join(", ") : value] as [string, string]],
  );

interface ProgressHint {
  readonly part?: number;
  readonly numParts?: number;
  readonly progressCallback?: (fraction: number) => void;
}

const partsSent = new WeakMap<(fraction: number) => void, Float64Array>();

/** @huggingface/hub hands along whom to tell what part of a body was sent. */
function sentReporter(init: RequestInit): ((bytes: number) => void) | undefined {
  const { progressHint: hint } = init as { progressHint?: ProgressHint };
  const tell = hint?.progressCallback;
  const { body } = init;
  if (hint === undefined || tell === undefined) return undefined;
  const size = body instanceof Blob ? body.size : typeof body === "string" ? Buffer.byteLength(body) : 0;
  if (size === 0) return undefined;
  const parts = partsSent.get(tell) ?? new Float64Array(hint.numParts ?? 1);
  partsSent.set(tell, parts);
  let sent = 0;
  return (bytes) => {
    sent = Math.min(size, sent + bytes);
    parts[hint.part ?? 0] = sent / size;
    tell(parts.reduce((sum, one) => sum + one, 0) / parts.length);
  };
}

/** Asks the hub which commit a revision is. */
export async function askCommit(
  repo: string,
  revision: string,
  options: HubOptions & { readonly attempts?: number },
): Promise<string> {
  const address = `${endpoint()}/api/models/${repo}/revision/${encodeURIComponent(revision)}`;
  const token = await tokenFor(options.token);
  const { value } = await hubJson(address, {
    token,
    repo,
    signal: options.signal,
    attempts: options.attempts,
  });
  const { sha } = (value ?? {}) as { sha?: unknown };
  if (typeof sha === "string" && isCommit(sha)) return sha;
  throw new HubError(`${address} names no commit.`, {
    hint: "Is HF_ENDPOINT the address of a hub?",
  });
}

/**
 * The commit that a load uses, for all of its files. Asks the hub; where that is not possible, what the cache knows holds.
 *
 * @throws OfflineModeError when there is no network and the cache knows nothing; what the hub says otherwise.
 */
export async function resolveCommit(repo: string, options: HubOptions = {}): Promise<string> {
  const revision = options.revision ?? "main";
  assertSafeName(revision, "The revision");
  if (isCommit(revision)) return revision;
  const cache = new RepoCache(repo, options);
  const known = await cache.commitOf(revision);
  if (isOffline(options)) {
    if (known !== undefined) return known;
    throw notCached(repo, revision, cache);
  }
  // A full hash without its snapshot is handled above; a snapshot that is named in full needs no question.
  if (known === revision) return known;
  try {
    const usable = known !== undefined && (await cache.hasSnapshot(known)) && !options.force_download;
    const commit = await askCommit(repo, revision, { ...options, ...(usable ? { attempts: 1 } : {}) });
    await cache.noteRef(revision, commit);
    return commit;
  } catch (error) {
    options.signal?.throwIfAborted();
    if (known === undefined || options.force_download || !(error instanceof HubError)) throw error;
    if (error instanceof RevisionNotFoundError || !(await cache.hasSnapshot(known))) throw error;
    warnOnce(
      `'${repo}' could not be asked for (${error.message.split("\n")[0]}) Its commit ${known.slice(0, 12)} in the cache is used.`,
    );
    return known;
  }
}

export function notCached(repo: string, what: string, cache: RepoCache): OfflineModeError {
  return new OfflineModeError(`'${repo}' (${what}) is not in the cache, and the network is switched off.`, {
    hint: `Searched: ${cache.folder}. Unset HF_HUB_OFFLINE and local_files_only, or give a directory.`,
  });
}

/** Who the token belongs to, as the hub tells it. */
export interface User {
  readonly name: string;
  readonly fullname?: string;
  readonly email?: string | null;
  readonly type: string;
  readonly orgs: readonly { readonly name: string }[];
  readonly auth?: {
    readonly type?: string;
    readonly accessToken?: { readonly displayName?: string; readonly role?: string };
  };
}

/**
 * Who the token belongs to.
 *
 * @throws HubError with status 401 when the hub does not accept it, InvalidArgumentError when there is none.
 */
export async function whoami(options: Pick<HubOptions, "token" | "signal"> = {}): Promise<User> {
  const token = await tokenFor(options.token ?? true);
  const { value } = await hubJson(`${endpoint()}/api/whoami-v2`, { token, signal: options.signal });
  const user = (value ?? {}) as Partial<User>;
  if (typeof user.name !== "string") throw new HubError("The hub does not say who the token belongs to.");
  const orgs = (Array.isArray(user.orgs) ? user.orgs : []).filter((org) => typeof org?.name === "string");
  return { ...user, type: typeof user.type === "string" ? user.type : "user", orgs, name: user.name };
}
