// The hub's OAuth endpoints: a token by way of a browser (RFC 8628), and a new one for one that expires.

import { setTimeout as sleep } from "node:timers/promises";
import { HubError } from "../errors/index.ts";
import { endpoint, timeouts } from "./environment.ts";
import { hubText } from "./http.ts";
import { hide, printable, quoted } from "./redact.ts";
import type { Renewal } from "./stored_tokens.ts";

/** The public name under which Python's client asks: what it keeps can be renewed by us, and the other way round. */
const CLIENT = "26be6b09-91c5-47da-9861-d2d2bb7a7e36";
const clientId = () => process.env.HF_DEVICE_CODE_OAUTH_CLIENT_ID || CLIENT;

/** What the server said, in its own word: "invalid_grant" when a login has ended for good. */
export class OAuthError extends HubError {
  readonly reason: string | undefined;

  constructor(message: string, facts: { readonly status?: number; readonly reason?: string | undefined }) {
    super(message, { status: facts.status, page: `${endpoint()}/settings/tokens` });
    this.reason = facts.reason;
  }
}

interface Answer {
  readonly status: number;
  readonly fields: Readonly<Record<string, unknown>>;
}

/** One request, sent once; undefined where the answer is no JSON object. */
async function post(
  where: string,
  fields: Record<string, string>,
  signal?: AbortSignal,
): Promise<Answer | undefined> {
  const { text, response } = await hubText(`${endpoint()}/oauth/${where}`, {
    method: "POST",
    headers: { "content-type": "application/x-www-form-urlencoded", accept: "application/json" },
    body: new URLSearchParams({ ...fields, client_id: clientId() }).toString(),
    timeout: timeouts().bytes,
    attempts: 1,
    once: true,
    raw: true,
    signal,
  });
  try {
    const value = JSON.parse(text) as unknown;
    if (typeof value !== "object" || value === null) return undefined;
    return { status: response.status, fields: value as Record<string, unknown> };
  } catch {
    return undefined;
  }
}

const textOf = (value: unknown): string | undefined =>
  typeof value === "string" && value !== "" ? value : undefined;
const secondsOf = (value: unknown): number | undefined =>
  Number.isFinite(Number(value)) && Number(value) > 0 ? Number(value) : undefined;

function refusal(what: string, answer: Answer | undefined): OAuthError {
  if (answer === undefined) return new OAuthError(`${what}: the hub's answer is not JSON.`, {});
  const { error, error_description } = answer.fields;
  const said = [textOf(error) ?? `status ${answer.status}`, textOf(error_description)].filter(Boolean);
  const words = quoted(said.join(", "), 300);
  return new OAuthError(`${what}: ${words}.`, { status: answer.status, reason: textOf(error) });
}

export interface Granted {
  readonly token: string;
  readonly renewal: Renewal | undefined;
}

/** A token out of an answer, if there is one in it. Without a new way to renew it, `before` goes on to hold. */
function granted({ fields }: Answer, before?: string): Granted | undefined {
  const token = textOf(fields.access_token);
  if (token === undefined || !/^[\x21-\x7e]+$/.test(token)) return undefined;
  const refresh_token = textOf(fields.refresh_token) ?? before;
  const lasts = secondsOf(fields.expires_in);
  hide(token);
  if (refresh_token === undefined) return { token, renewal: undefined };
  hide(refresh_token);
  const expires_at = lasts === undefined ? undefined : Math.floor(Date.now() / 1000 + lasts);
  return { token, renewal: { refresh_token, expires_at } };
}

/**
 * Renews a token.
 *
 * @throws OAuthError, with reason "invalid_grant" when the user has to log in again.
 */
export async function refreshAccessToken(refreshToken: string): Promise<Granted> {
  hide(refreshToken);
  const answer = await post("token", { grant_type: "refresh_token", refresh_token: refreshToken });
  const got = answer && granted(answer, refreshToken);
  if (got !== undefined) return got;
  throw refusal("The token could not be renewed", answer);
}

export interface DeviceCode {
  /** Where the user goes; the code is part of the address if the hub can do that. */
  readonly url: string;
  /** What to enter there. */
  readonly user_code: string;
  readonly device_code: string;
  /** Seconds between two questions, and until it is too late. */
  readonly interval: number;
  readonly expires_in: number;
}

export async function requestDeviceCode(signal?: AbortSignal): Promise<DeviceCode> {
  const answer = await post("device", {}, signal);
  const { device_code, user_code, verification_uri, verification_uri_complete, interval, expires_in } =
    answer?.fields ?? {};
  const url = textOf(verification_uri_complete) ?? textOf(verification_uri);
  const [device, user] = [textOf(device_code), textOf(user_code)];
  if (url === undefined || device === undefined || user === undefined || !/^https?:/.test(url)) {
    throw refusal("The hub offers no login by browser", answer);
  }
  return {
    url: printable(url),
    user_code: printable(user),
    device_code: hide(device),
    interval: secondsOf(interval) ?? 5,
    expires_in: secondsOf(expires_in) ?? 900,
  };
}

/** Asks until the user has agreed in the browser. */
export async function deviceToken(code: DeviceCode, signal?: AbortSignal): Promise<Granted> {
  const until = performance.now() + code.expires_in * 1000;
  let { interval } = code;
  while (performance.now() < until) {
    // A network that fails for a moment must not end the login.
    const answer = await post(
      "token",
      { grant_type: "urn:ietf:params:oauth:grant-type:device_code", device_code: code.device_code },
      signal,
    ).catch(() => undefined);
    signal?.throwIfAborted();
    const got = answer && granted(answer);
    if (got !== undefined) return got;
    const reason = answer && answer.status < 500 ? textOf(answer.fields.error) : undefined;
    if (reason === "slow_down") interval += 5;
    else if (reason !== undefined && reason !== "authorization_pending") {
      throw refusal("The login did not come about", answer);
    }
    await sleep(interval * 1000, undefined, signal ? { signal } : {}).catch((error) => {
      signal?.throwIfAborted();
      throw error;
    });
  }
  throw new OAuthError("The login did not come about: nobody agreed in time.", { reason: "expired_token" });
}
