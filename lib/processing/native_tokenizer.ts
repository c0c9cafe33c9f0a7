// The `tokenizers` addon in our own terms: reading a file for it, its truncation, its tokens.

import { readFile } from "node:fs/promises";
import { AddedToken as NativeAddedToken, type Tokenizer } from "tokenizers";
import { EntryNotFoundError } from "../errors/index.ts";
import type { Replaced } from "./encoding.ts";
import { type AddedTokenData, complete, type Truncation } from "./tokenizer_backend.ts";

/** A native encoding, and lists that replace its own: first, then those of its overflowing ones. */
export interface Result extends Replaced {
  readonly encoding: NativeEncoding;
}

export type NativeEncoding = Awaited<ReturnType<Tokenizer["encode"]>>;

const STRATEGIES = {
  longest_first: "LongestFirst",
  only_first: "OnlyFirst",
  only_second: "OnlySecond",
} as const;
export function setTruncation(tokenizer: Tokenizer, truncation: Truncation | null): void {
  if (truncation === null) {
    tokenizer.disableTruncation();
    return;
  }
  const { strategy, max_length, stride, side } = truncation;
  tokenizer.setTruncation(max_length, { strategy: STRATEGIES[strategy] as never, stride, direction: side });
}

export const nativeToken = (token: AddedTokenData): NativeAddedToken => {
  const { content, special, single_word, lstrip, rstrip, normalized } = complete(token);
  return new NativeAddedToken(content, special, {
    singleWord: single_word,
    leftStrip: lstrip,
    rightStrip: rstrip,
    normalized,
  });
};

export async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new EntryNotFoundError(`${path} cannot be read: ${(cause as Error).message}.`, { cause });
  }
}
