// What a tokenizer asks of the Rust core behind it, here (native_backend.ts) or in a thread of its own (tokenizer_thread.ts).

import type { Encoding } from "./encoding.ts";

/** A token beside the vocabulary, with its matching rules, as tokenizer.json writes it. */
export interface AddedTokenData {
  content: string;
  /** Match whole words only. Default false. */
  single_word?: boolean;
  /** Swallow the white space on the left. Default false. */
  lstrip?: boolean;
  /** Swallow the white space on the right. Default false. */
  rstrip?: boolean;
  /** Match in the normalized text; default true, false for special tokens. */
  normalized?: boolean;
  /** Left out by `skip_special_tokens`. Default false. */
  special?: boolean;
}

export type Side = "left" | "right";
export type TruncationStrategy = "longest_first" | "only_first" | "only_second";

export interface Truncation {
  readonly strategy: TruncationStrategy;
  readonly max_length: number;
  readonly stride: number;
  readonly side: Side;
}

export interface Padding {
  /** Pad to this length; null: to the longest of the batch. */
  readonly length: number | null;
  readonly multiple_of: number | null;
  readonly side: Side;
  readonly id: number;
  readonly type_id: number;
  readonly token: string;
}

export type Text = string | readonly string[];

export interface EncodeSettings {
  readonly add_special_tokens: boolean;
  readonly truncation: Truncation | null;
  readonly padding: Padding | null;
  /** Whether what truncation cuts off is wanted. */
  readonly overflow: boolean;
}

/** What is known of a loaded tokenizer without asking the addon. Refreshed when tokens are added. */
export interface TokenizerInfo {
  readonly model_type: string;
  readonly vocab_size: number;
  readonly length: number;
  readonly added_tokens: readonly (Required<AddedTokenData> & { readonly id: number })[];
  /** Truncation and padding that the file itself sets, as the addon spells them. */
  readonly truncation: { direction?: string; max_length: number; strategy?: string; stride?: number } | null;
  readonly padding: PaddingJson | null;
}

export interface PaddingJson {
  strategy?: "BatchLongest" | { Fixed: number };
  direction?: string;
  pad_to_multiple_of?: number | null;
  pad_id?: number;
  pad_type_id?: number;
  pad_token?: string;
}

/** The operations of a loaded tokenizer; here or in a thread of its own. */
export interface TokenizerBackend {
  info: TokenizerInfo;
  encode(
    texts: readonly Text[],
    pairs: readonly Text[] | null,
    settings: EncodeSettings,
  ): Promise<Encoding[]>;
  decode(batch: readonly (readonly number[])[], skip_special_tokens: boolean): Promise<string[]>;
  tokensToIds(tokens: readonly string[]): Promise<(number | null)[]>;
  idsToTokens(ids: readonly number[]): Promise<(string | null)[]>;
  /** The id at once, for attributes such as `pad_token_id`. */
  tokenToIdNow(token: string): number | null;
  joinTokens(tokens: readonly string[]): Promise<string>;
  vocab(): Promise<Record<string, number>>;
  /** Resolves to how many were new to the added tokens. */
  addTokens(tokens: readonly AddedTokenData[]): Promise<number>;
  /** Puts these tokens around every text, instead of what the file says. */
  surround(bos: readonly [string, number] | null, eos: readonly [string, number] | null): Promise<void>;
  /** Special tokens put around one text, or a pair. */
  numSpecialTokens(pair: boolean): Promise<number>;
  save(path: string): Promise<void>;
}

/** Fills in the defaults, as the Rust core has them. */
export function complete(token: AddedTokenData): Required<AddedTokenData> {
  const { content, single_word = false, lstrip = false, rstrip = false, special = false } = token;
  return { content, single_word, lstrip, rstrip, normalized: token.normalized ?? !special, special };
}
