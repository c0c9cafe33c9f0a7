// Making a token the user's, on this machine, for Python too.

import { InvalidArgumentError } from "../errors/index.ts";
import { type User, whoami } from "./api.ts";
import { endpoint } from "./environment.ts";
import { type DeviceCode, deviceToken, requestDeviceCode } from "./oauth.ts";
import { forgetTokens, keepToken, type Renewal, storeNamed } from "./stored_tokens.ts";
import { tokenFor } from "./token.ts";

/**
 * Asks the hub whose token it is, and keeps it where Python's `hf auth login` does. Resolves to its owner.
 *
 * Throws `HubError` with status 401 when the hub does not accept it; then nothing is kept.
 */
export async function login(token: string): Promise<User> {
  const clean = await tokenFor(token);
  if (clean === undefined) {
    throw new InvalidArgumentError("The token is empty.", {
      hint: `Tokens are made at ${endpoint()}/settings/tokens.`,
    });
  }
  return keep(clean);
}

/** Options of {@link login_in_browser}. */
export interface BrowserLoginOptions {
  /** Told where to go, and which code to enter there. */
  readonly on_code: (code: Pick<DeviceCode, "url" | "user_code">) => void;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Gets a token by way of a browser, on this machine or another one, and keeps it; it is renewed before it expires. Resolves
 * to its owner.
 *
 * ```ts
 * await hub.login_in_browser({ on_code: ({ url, user_code }) => console.log(`${url}: ${user_code}`) });
 * ```
 *
 * Throws `HubError` when it is denied there, or nobody comes in time; the signal's reason.
 */
export async function login_in_browser({ on_code, signal }: BrowserLoginOptions): Promise<User> {
  const code = await requestDeviceCode(signal);
  on_code(code);
  const { token, renewal } = await deviceToken(code, signal);
  return keep(token, renewal);
}

async function keep(token: string, renewal?: Renewal): Promise<User> {
  const user = await whoami({ token });
  await storeNamed(token, user.auth?.accessToken?.displayName || `oauth-${user.name}`, renewal);
  await keepToken(token);
  return user;
}

/** Forgets all tokens that were kept on this machine; resolves to false when there was none. */
export const logout = (): Promise<boolean> => forgetTokens();
