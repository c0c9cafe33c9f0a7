// Renewing a token that came from a browser before it expires, by the rules of Python's client: a day before, one process at
// a time, and never an error. Without success the old token is sent, and the hub says what is wrong with it.

import { warn, warnOnce } from "../errors/warnings.ts";
import { isOfflineEverywhere, storedTokensPath } from "./environment.ts";
import { withFileLock } from "./lock.ts";
import { OAuthError, refreshAccessToken } from "./oauth.ts";
import { redact } from "./redact.ts";
import { keepToken, keptToken, storedTokens, storeNamed } from "./stored_tokens.ts";

/** Seconds before its end at which a token is renewed, and until the next look after nothing could be done. */
const [MARGIN, AGAIN] = [24 * 3600, 300];
const LONGEST_LOCK = 30_000; // ms

/** What was found out about the token of the file, and until when that holds: this is asked before every request. */
let decision: { readonly file: string; readonly token: string; readonly until: number } | undefined;
let running: { readonly file: string; readonly result: Promise<string> } | undefined;

const now = () => Date.now() / 1000;

/** The token to send in place of the one in the file: as a rule itself. */
export async function refreshed(file: string): Promise<string> {
  if (decision?.file === file && now() < decision.until) return decision.token;
  if (running?.file !== file) {
    const result = decide(file).finally(() => {
      running = undefined;
    });
    running = { file, result };
  }
  return running.result;
}

async function decide(file: string): Promise<string> {
  const settle = (token: string, until: number): string => {
    decision = { file: token, token, until };
    return token;
  };
  const stored = await storedTokens().catch(() => undefined);
  const [name, fields] = [...(stored ?? [])].find(([, one]) => one.get("hf_token") === file) ?? [];
  const refreshToken = fields?.get("refresh_token");
  const expires = secondsOf(fields);
  if (name === undefined || refreshToken === undefined || expires === undefined) {
    // Another process may have renewed it just now.
    const current = await keptToken();
    if (current !== undefined && current !== file) return current;
    return settle(file, now() + AGAIN);
  }
  if (expires - MARGIN > now()) return settle(file, expires - MARGIN);
  if (isOfflineEverywhere()) return file;
  try {
    const lock = `${storedTokensPath()}.lock`;
    return await withFileLock(lock, AbortSignal.timeout(LONGEST_LOCK), async () => {
      // A process that renews it makes the old way to renew it worthless: look again.
      const there = (await storedTokens()).get(name);
      const theirs = there?.get("hf_token");
      if (theirs !== undefined && theirs !== file) return settle(theirs, recheck(secondsOf(there)));
      const { token, renewal } = await refreshAccessToken(refreshToken);
      await storeNamed(token, name, renewal);
      if ((await keptToken()) === file) await keepToken(token);
      return settle(token, recheck(renewal?.expires_at));
    });
  } catch (error) {
    const said = redact((error as Error).message.split("\n")[0] as string);
    if (error instanceof OAuthError && error.reason === "invalid_grant") {
      warn(`The login on the hub has ended; log in again (\`npx torchformers login\`). ${said}`);
      return settle(file, Infinity);
    }
    warnOnce(`The token of the hub expires soon, and could not be renewed; it is tried again later. ${said}`);
    return settle(file, now() + AGAIN);
  }
}

/** Tokens that last less than the margin must not be renewed at every request. */
const recheck = (expires: number | undefined): number => Math.max(now() + AGAIN, (expires ?? 0) - MARGIN);

function secondsOf(fields: ReadonlyMap<string, string> | undefined): number | undefined {
  const text = fields?.get("expires_at");
  return text !== undefined && /^\s*[+-]?\d+\s*$/.test(text) ? Number(text) : undefined;
}
