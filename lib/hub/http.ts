// Requests to the hub: redirects that do not carry the token away, time limits, waiting and trying again, and errors with
// the page to visit. The one place that opens connections.

import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { Readable, pipeline as unpackInto } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { createBrotliDecompress, createGunzip, createInflate } from "node:zlib";
import { HubError, OfflineModeError } from "../errors/index.ts";
import { warnOnce } from "../errors/warnings.ts";
import { endpoint, isOfflineEverywhere, timeouts } from "./environment.ts";
import { agentFor } from "./proxy.ts";
import { quoted, redact } from "./redact.ts";
import { hubErrorOf, isTransient } from "./responses.ts";

const REDIRECTS = new Set([301, 302, 303, 307, 308]);
const MOST_REDIRECTS = 8;
const LONGEST_ERROR_BODY = 64 * 1024;
/** What may follow when everything needed has come: bytes, and milliseconds. */
const [LONGEST_REST, LONGEST_WAIT] = [64 * 1024, 2_000];
/** The hub lists a thousand files per page, in less than a megabyte. */
const LONGEST_ANSWER = 64 * 1024 * 1024;

/** How often and after how many milliseconds a request is tried again. One object, so that tests can hurry. */
export const retries = { attempts: 5, delay: 500, longest: 8_000, longestAsked: 120_000 };

export interface HubRequest {
  readonly method?: string | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly body?: string | Uint8Array | Blob | undefined;
  /** Sent to the hub's own origin and nowhere else. */
  readonly token?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds until the answer begins. */
  readonly timeout?: number | undefined;
  /** Which repository this is about, for errors. */
  readonly repo?: string | undefined;
  /** The most attempts; 1 gives up at once. */
  readonly attempts?: number | undefined;
  /** What must not happen twice is tried again only when the hub said that it did not happen (429). */
  readonly once?: boolean | undefined;
  /** Answers of 400 and above that another attempt would not change are handed out instead of thrown. */
  readonly raw?: boolean | undefined;
  readonly onSent?: ((bytes: number) => void) | undefined;
}

/** The head of an answer; its body is still to be read. */
export interface HubResponse {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly message: http.IncomingMessage;
  /** Where the answer came from, after redirects. */
  readonly url: string;
}

/** A connection that failed or was silent for too long: worth another attempt. */
export class ConnectionError extends Error {
  override readonly name = "ConnectionError";
}

let agentName: string | undefined;

function userAgent(): string {
  if (agentName === undefined) {
    const file = new URL("../../package.json", import.meta.url);
    const { version } = JSON.parse(readFileSync(file, "utf8")) as { version: string };
    agentName = `torchformers/${version}; node/${process.versions.node}`;
  }
  const origin = process.env.HF_HUB_USER_AGENT_ORIGIN;
  return origin ? `${agentName}; origin/${origin.replaceAll(/[^\x20-\x7e]/g, "")}` : agentName;
}

/** One request without redirects. Rejects with `ConnectionError`, or with the signal's reason. */
async function send(url: URL, request: HubRequest): Promise<http.IncomingMessage> {
  const { method = "GET", body, token, signal, onSent } = request;
  signal?.throwIfAborted();
  if (isOfflineEverywhere()) throw new OfflineModeError("The network is switched off (HF_HUB_OFFLINE).");
  const length =
    typeof body === "string" ? Buffer.byteLength(body) : body instanceof Blob ? body.size : body?.length;
  const headers: Record<string, string> = {
    "accept-encoding": "identity",
    "user-agent": userAgent(),
    ...request.headers,
    ...(length === undefined ? {} : { "content-length": String(length) }),
    ...(token !== undefined && url.origin === new URL(endpoint()).origin
      ? { authorization: `Bearer ${token}` }
      : {}),
  };
  const agent = await agentFor(url);
  for (let attempt = 0; ; attempt++) {
    let reused = false;
    try {
      return await new Promise<http.IncomingMessage>((resolve, reject) => {
        const outgoing = (url.protocol === "https:" ? https : http).request(url, {
          method,
          headers,
          agent,
          ...(signal === undefined ? {} : { signal }),
        });
        const limit = request.timeout ?? timeouts().answer;
        let timer = setTimeout(expire, limit);
        function expire() {
          outgoing.destroy(new ConnectionError(`no answer within ${limit / 1000} s`));
        }
        outgoing.once("response", (message) => {
          clearTimeout(timer);
          resolve(message);
        });
        outgoing.once("error", (error) => {
          clearTimeout(timer);
          reused = outgoing.reusedSocket;
          reject(error);
        });
        if (body === undefined || typeof body === "string" || body instanceof Uint8Array) {
          outgoing.end(body);
          onSent?.(length ?? 0);
        } else {
          // The time for an answer runs from the last byte that could be sent.
          const source = Readable.fromWeb(body.stream() as import("node:stream/web").ReadableStream);
          source.on("data", (chunk: Uint8Array) => {
            clearTimeout(timer);
            timer = setTimeout(expire, limit);
            onSent?.(chunk.length);
          });
          pipeline(source, outgoing).catch(reject);
        }
      });
    } catch (error) {
      signal?.throwIfAborted();
      // As a rule a connection that the server had closed while it waited for us: the request was not looked at.
      if (reused && attempt === 0 && !request.once && !(body instanceof Blob)) continue;
      if (error instanceof ConnectionError || error instanceof OfflineModeError) throw error;
      const { code, message } = error as NodeJS.ErrnoException;
      throw new ConnectionError(code ?? message);
    }
  }
}

/** Reads what is left of an answer that nobody needs, so that its connection can be used again; a little of it, and soon. */
export function letGo(message: http.IncomingMessage): void {
  if (message.readableEnded || message.destroyed) return;
  let left = LONGEST_REST;
  const timer = setTimeout(() => message.destroy(), LONGEST_WAIT).unref();
  message.once("close", () => clearTimeout(timer));
  message.on("error", () => {});
  message.on("data", (chunk: Buffer) => {
    left -= chunk.length;
    if (left < 0) message.destroy();
  });
  message.resume();
}

/** One request, following redirects. The token goes to the hub's own origin only. */
export async function follow(address: string, request: HubRequest): Promise<HubResponse> {
  let url = new URL(address);
  let current = request;
  for (let hops = 0; ; hops++) {
    const message = await send(url, current);
    const status = message.statusCode ?? 0;
    const { location } = message.headers;
    if (!REDIRECTS.has(status) || location === undefined) {
      return { status, headers: message.headers, message, url: url.href };
    }
    letGo(message);
    if (hops === MOST_REDIRECTS || !URL.canParse(location, url.href)) {
      throw new HubError(`${redact(address)} leads from one address to the next without an end.`, { status });
    }
    const next = new URL(location, url);
    if (!/^https?:$/.test(next.protocol) || (url.protocol === "https:" && next.protocol === "http:")) {
      throw new HubError(
        `${redact(address)} leads to ${redact(next.href)}, which is not as safe; not followed.`,
        {
          status,
        },
      );
    }
    noteRenamed(url, next, request.repo);
    if (next.origin !== url.origin) {
      const { authorization, ...headers } = current.headers ?? {};
      current = { ...current, headers };
    }
    if (status === 303 || ((status === 301 || status === 302) && current.method === "POST")) {
      current = { ...current, method: "GET", body: undefined };
    }
    url = next;
  }
}

/** A redirect from one repository's address to another's on the same host: it was renamed. */
function noteRenamed(from: URL, to: URL, repo: string | undefined): void {
  if (repo === undefined || from.origin !== to.origin || !from.pathname.includes(`/${repo}`)) return;
  const rest = from.pathname.slice(from.pathname.indexOf(`/${repo}`) + repo.length + 1);
  const start = from.pathname.slice(0, from.pathname.indexOf(`/${repo}`) + 1);
  if (!to.pathname.startsWith(start) || !to.pathname.endsWith(rest)) return;
  const name = to.pathname.slice(start.length, to.pathname.length - rest.length);
  if (name !== repo && /^[\w.-]+\/[\w.-]+$/.test(name)) {
    warnOnce(`The repository '${repo}' is now called '${name}': ${endpoint()}/${name}`);
  }
}

/** Milliseconds that an answer asks to wait: `Retry-After` (seconds or a date), or the reset of `RateLimit`. */
export function askedToWait(headers: http.IncomingHttpHeaders, now: number = Date.now()): number | undefined {
  const after = headers["retry-after"]?.trim();
  if (after !== undefined && after !== "") {
    const wait = /^\d+$/.test(after) ? Number(after) * 1000 : Date.parse(after) - now;
    if (wait >= 0) return wait;
  }
  const reset = /;\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d+)/.exec(String(headers.ratelimit ?? ""))?.[1];
  return reset === undefined ? undefined : Number(reset) * 1000;
}

/** Waits before attempt number `attempt` (from 1): longer each time, never all at once, or as long as was asked for. */
export async function pause(attempt: number, asked: number | undefined, signal?: AbortSignal): Promise<void> {
  const { delay, longest, longestAsked } = retries;
  const own = Math.min(longest, delay * 2 ** (attempt - 1)) * (0.75 + Math.random() / 2);
  await sleep(Math.max(own, Math.min(asked ?? 0, longestAsked)), undefined, signal ? { signal } : {}).catch(
    (error) => {
      signal?.throwIfAborted();
      throw error;
    },
  );
}

/** A request that is tried again where that can help; resolves to an answer below 400, rejects with a typed error. */
export async function hubRequest(address: string, request: HubRequest = {}): Promise<HubResponse> {
  const attempts = request.attempts ?? retries.attempts;
  for (let attempt = 1; ; attempt++) {
    let asked: number | undefined;
    try {
      const response = await follow(address, request);
      if (response.status < 400) return response;
      const isWorthIt = request.once ? response.status === 429 : isTransient(response.status);
      if (request.raw && !isWorthIt) return response;
      const error = await failure(response, request);
      if (!isWorthIt || attempt >= attempts) throw error;
      asked = askedToWait(response.headers);
    } catch (error) {
      if (!(error instanceof ConnectionError)) throw error;
      if (attempt >= attempts || request.once) throw unreachable(address, error, request);
    }
    await pause(attempt, asked, request.signal);
  }
}

/** The error for an answer of 400 and above; reads its body. */
export async function failure(response: HubResponse, { repo }: HubRequest): Promise<Error> {
  const text = (await readBody(response, LONGEST_ERROR_BODY).catch(() => undefined)) ?? "";
  // What a storage says is nothing that the hub says of a repository.
  const isHub = new URL(response.url).origin === new URL(endpoint()).origin;
  return hubErrorOf({ ...response, text, repo: isHub ? repo : undefined });
}

export function unreachable(address: string, error: Error, { repo }: HubRequest): HubError {
  const host = URL.canParse(address) ? new URL(address).host : address;
  return new HubError(`${host} cannot be reached (${quoted(error.message)}).`, {
    page: repo === undefined ? undefined : `${endpoint()}/${repo}`,
    hint: "Look at the network, at HTTPS_PROXY and at HF_ENDPOINT. What is in the cache can be used with local_files_only: true.",
  });
}

const UNPACK = {
  gzip: createGunzip,
  "x-gzip": createGunzip,
  deflate: createInflate,
  br: createBrotliDecompress,
} as const;

/** How an answer is packed, undefined for not at all. We ask for plain bytes; some servers and proxies pack all the same. */
export function packingOf(headers: http.IncomingHttpHeaders): string | undefined {
  const packing = headers["content-encoding"]?.trim().toLowerCase();
  return packing === "" || packing === "identity" ? undefined : packing;
}

/** The bytes of an answer, unpacked; to destroy it is to give up the connection. */
export function bodyOf({ headers, message, url }: HubResponse): Readable {
  const packing = packingOf(headers);
  if (packing === undefined) return message;
  const unpack = UNPACK[packing as keyof typeof UNPACK] as (typeof UNPACK)["gzip"] | undefined;
  if (unpack === undefined) {
    message.destroy();
    throw new HubError(`${redact(url)} sends bytes packed as '${quoted(packing)}', which was not asked for.`);
  }
  return unpackInto(message, unpack(), () => {}); // whoever reads hears of errors
}

/** The bytes of an answer, at most `most` and a piece; `ConnectionError` when it breaks off or is silent for too long. */
export async function readBytes(response: HubResponse, most: number): Promise<Buffer> {
  const limit = timeouts().bytes;
  const chunks: Buffer[] = [];
  let size = 0;
  const body = bodyOf(response);
  const silence = setTimeout(
    () => body.destroy(new ConnectionError(`no bytes within ${limit / 1000} s`)),
    limit,
  );
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      silence.refresh();
      size += chunk.length;
      chunks.push(chunk);
      if (size > most) break;
    }
  } catch (error) {
    throw error instanceof ConnectionError ? error : new ConnectionError((error as Error).message);
  } finally {
    clearTimeout(silence);
  }
  return Buffer.concat(chunks);
}

/** The text of an answer, undefined when it is longer than `most` bytes; errors as of `readBytes`. */
async function readBody(response: HubResponse, most: number = LONGEST_ANSWER): Promise<string | undefined> {
  const bytes = await readBytes(response, most);
  return bytes.length > most ? undefined : bytes.toString("utf8");
}

/** An answer with its text, tried again as a whole when it breaks off; POST requests that must not be sent twice are not. */
export async function hubText(
  address: string,
  request: HubRequest = {},
): Promise<{ readonly text: string; readonly response: HubResponse }> {
  const attempts = request.once ? 1 : (request.attempts ?? retries.attempts);
  for (let attempt = 1; ; attempt++) {
    const response = await hubRequest(address, request);
    try {
      const text = await readBody(response);
      if (text !== undefined) return { text, response };
      throw new HubError(`${redact(address)} answers with more than ${LONGEST_ANSWER / 1e6} MB.`, {
        status: response.status,
        hint: "Is HF_ENDPOINT the address of a hub?",
      });
    } catch (error) {
      request.signal?.throwIfAborted();
      if (error instanceof HubError) throw error;
      if (attempt >= attempts) throw unreachable(address, error as Error, request);
      await pause(attempt, undefined, request.signal);
    }
  }
}

/** A JSON answer; one that is not whole is asked for again. */
export async function hubJson(
  address: string,
  request: HubRequest = {},
): Promise<{ readonly value: unknown; readonly response: HubResponse }> {
  const attempts = request.attempts ?? retries.attempts;
  for (let attempt = 1; ; attempt++) {
    const { text, response } = await hubText(address, request);
    try {
      return { value: JSON.parse(text), response };
    } catch {
      if (attempt < attempts) {
        await pause(attempt, undefined, request.signal);
        continue;
      }
      throw new HubError(`${redact(address)} did not answer with JSON.`, {
        status: response.status,
        hint: "Is HF_ENDPOINT the address of a hub, and does no proxy put a page of its own in between?",
      });
    }
  }
}
