// Tokens with a role of their own: the beginning of a text, its end, padding.

import { InvalidArgumentError } from "../errors/index.ts";
import { type AddedTokenData, complete } from "./tokenizer_backend.ts";

/** Attributes that every tokenizer has. */
export const SPECIAL_TOKENS = [
  "bos_token",
  "eos_token",
  "unk_token",
  "sep_token",
  "pad_token",
  "cls_token",
  "mask_token",
] as const;

export type NamedToken = (typeof SPECIAL_TOKENS)[number];
export type Token = string | AddedTokenData;

export const isNamedToken = (name: string): name is NamedToken =>
  (SPECIAL_TOKENS as readonly string[]).includes(name);

export const isAddedToken = (value: unknown): value is AddedTokenData =>
  typeof value === "object" && value !== null && typeof (value as AddedTokenData).content === "string";

export const contentOf = (token: Token): string => (typeof token === "string" ? token : token.content);

/** A token with its matching rules; one that is given as a text has the defaults. */
export function tokenData(token: Token, special: boolean): AddedTokenData {
  if (typeof token === "string") return complete({ content: token, special });
  if (!isAddedToken(token))
    throw new InvalidArgumentError(`A token is a string or { content, … }; got ${JSON.stringify(token)}.`);
  return complete(special ? { ...token, special } : token);
}
