// The user's token: where it comes from. It never becomes part of a message.

import { InvalidArgumentError } from "../errors/index.ts";
import { endpoint, isTrue } from "./environment.ts";
import { hide } from "./redact.ts";
import { cleanToken, keptToken } from "./stored_tokens.ts";

/** A string is the token; true: there must be one; false: none is sent; undefined, null: the user's, if there is one. */
export type TokenOption = string | boolean | null | undefined;

/**
 * The user's token: in CI the one that `HF_OIDC_RESOURCE` asks for, else that of the environment, else that of the file
 * which `login` wrote. One that came from a browser is renewed before it expires.
 *
 * Throws `HubError` when `HF_OIDC_RESOURCE` is set and no token can be had.
 */
export async function get_token(): Promise<string | undefined> {
  const { HF_TOKEN, HUGGING_FACE_HUB_TOKEN, HF_OIDC_RESOURCE } = process.env;
  if (HF_OIDC_RESOURCE) return (await import("./oidc.ts")).oidcToken(HF_OIDC_RESOURCE);
  const given = cleanToken(HF_TOKEN || HUGGING_FACE_HUB_TOKEN);
  if (given !== undefined) return given;
  const kept = await keptToken();
  return kept === undefined ? undefined : (await import("./refresh.ts")).refreshed(kept);
}

/** The token to send, undefined for none. */
export async function tokenFor(option: TokenOption): Promise<string | undefined> {
  if (option === false) return undefined;
  const isImplicit = option === undefined || option === null;
  if (isImplicit && isTrue(process.env.HF_HUB_DISABLE_IMPLICIT_TOKEN)) return undefined;
  const token = typeof option === "string" ? cleanToken(option) : await get_token();
  if (token === undefined && option === true) {
    throw new InvalidArgumentError("A token is needed, and there is none.", {
      hint: `Run \`npx torchformers login\`, or set HF_TOKEN. Tokens are made at ${endpoint()}/settings/tokens.`,
    });
  }
  if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) {
    throw new InvalidArgumentError("The token holds characters that no token has.", {
      hint: "It is the option `token`, the variable HF_TOKEN or the file that `torchformers login` writes.",
    });
  }
  return token === undefined ? undefined : hide(token);
}
