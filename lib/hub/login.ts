// Making a token the user's, on this machine, for Python too.

import { InvalidArgumentError } from "../errors/index.ts";
import { type User, whoami } from "./api.ts";
import { endpoint } from "./environment.ts";
import { forgetToken, storeToken, tokenFor } from "./token.ts";

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
  const user = await whoami({ token: clean });
  await storeToken(clean, user.auth?.accessToken?.displayName ?? user.name);
  return user;
}

/** Forgets the token that `login` kept; resolves to false when there was none. */
export const logout = (): Promise<boolean> => forgetToken();
