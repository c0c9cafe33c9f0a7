// What the methods of a tokenizer take: the reference's names and meaning.

import type { HubOptions } from "../hub/files.ts";
import type { Tensor } from "../torch/index.ts";
import type { ChatTemplates } from "./chat_template.ts";
import type { Token } from "./special_tokens.ts";
import type { Side, Text, TruncationStrategy } from "./tokenizer_backend.ts";

/** What a tokenizer class presets; see `tokenizer_classes.generated.ts`. */
export interface TokenizerPresets {
  readonly model_input_names?: readonly string[];
  readonly padding_side?: Side;
  readonly truncation_side?: Side;
  readonly clean_up_tokenization_spaces?: boolean;
  readonly [special_token: `${string}_token`]: string;
}

/** Options of a tokenizer's call; the reference's names and meaning. */
export interface TokenizerCallOptions {
  /** Second text of each pair. */
  text_pair?: Text | readonly Text[] | null;
  /** Texts to become `labels`. */
  text_target?: Text | readonly Text[] | null;
  text_pair_target?: Text | readonly Text[] | null;
  /** Put the special tokens of the file around each text. Default true. */
  add_special_tokens?: boolean;
  /** true or "longest": to the longest of the batch; "max_length": to `max_length`. Default false. */
  padding?: boolean | "longest" | "max_length" | "do_not_pad";
  /** true or "longest_first": cut the longer text of a pair first. Default false, or true where only `max_length` is given. */
  truncation?: boolean | TruncationStrategy | "do_not_truncate" | null;
  /** Length to cut or pad to, special tokens included. Default: the model's. */
  max_length?: number | null;
  /** Tokens that overflowing pieces share. Default 0. */
  stride?: number;
  /** The texts are lists of words. Default false. */
  is_split_into_words?: boolean;
  pad_to_multiple_of?: number | null;
  padding_side?: Side | null;
  truncation_side?: Side | null;
  /** "pt" gives int64 tensors [batch, length]; otherwise plain arrays. */
  return_tensors?: "pt" | null;
  return_token_type_ids?: boolean | null;
  return_attention_mask?: boolean | null;
  /** Give what truncation cut off as rows of their own, with `overflow_to_sample_mapping`. Default false. */
  return_overflowing_tokens?: boolean;
  return_special_tokens_mask?: boolean;
  /** [start, end) of each token, in Unicode code points. Default false. */
  return_offsets_mapping?: boolean;
  return_length?: boolean;
  /** Warn of texts longer than the model takes. Default true. */
  verbose?: boolean;
}

export const CALL_OPTIONS = [
  "text_pair",
  "text_target",
  "text_pair_target",
  "add_special_tokens",
  "padding",
  "truncation",
  "max_length",
  "stride",
  "is_split_into_words",
  "pad_to_multiple_of",
  "padding_side",
  "truncation_side",
  "return_tensors",
  "return_token_type_ids",
  "return_attention_mask",
  "return_overflowing_tokens",
  "return_special_tokens_mask",
  "return_offsets_mapping",
  "return_length",
  "verbose",
] as const satisfies readonly (keyof TokenizerCallOptions)[]; // prettier-ignore

/** Options of `decode` and `batch_decode`. */
export interface DecodeOptions {
  /** Leave special tokens out. Default false. */
  skip_special_tokens?: boolean;
  /** Remove the spaces before punctuation, as WordPiece wants; default by tokenizer_config.json. */
  clean_up_tokenization_spaces?: boolean | null;
}

/** Ids in any of the shapes that the library gives them. */
export type TokenIds = number | bigint | readonly (number | bigint)[] | BigInt64Array | Int32Array | Tensor;

/** Options of `pad`; as in a call. */
export interface PadOptions {
  padding?: TokenizerCallOptions["padding"];
  max_length?: number | null;
  pad_to_multiple_of?: number | null;
  padding_side?: Side | null;
  return_attention_mask?: boolean | null;
  return_tensors?: "pt" | null;
  verbose?: boolean;
}

export const PAD_OPTIONS = [
  "padding",
  "max_length",
  "pad_to_multiple_of",
  "padding_side",
  "return_attention_mask",
  "return_tensors",
  "verbose",
] as const satisfies readonly (keyof PadOptions)[]; // prettier-ignore

/** Options of `apply_chat_template`; any further name is a variable of the template. */
export interface ChatTemplateOptions {
  tools?: readonly object[] | null;
  documents?: readonly object[] | null;
  /** A template, or the name of one of the tokenizer's. Default: the tokenizer's own. */
  chat_template?: string | null;
  /** End with what makes the model answer. Default false. */
  add_generation_prompt?: boolean;
  /** Leave the last message open, to be continued; a string names the field. Default false. */
  continue_final_message?: boolean | string;
  /** Default true; false gives the text. */
  tokenize?: boolean;
  padding?: TokenizerCallOptions["padding"];
  truncation?: TokenizerCallOptions["truncation"];
  max_length?: number | null;
  return_tensors?: "pt" | null;
  /** Default true: a BatchEncoding; false: the ids alone. */
  return_dict?: boolean;
  /** Add `assistant_masks`: 1 for tokens inside `{% generation %}`. Default false. */
  return_assistant_tokens_mask?: boolean;
  tokenizer_kwargs?: TokenizerCallOptions | null;
  [variable: string]: unknown;
}

/** Options of `from_pretrained`: where the files are, and values that replace those of tokenizer_config.json. */
export interface TokenizerLoadOptions extends HubOptions {
  padding_side?: Side;
  truncation_side?: Side;
  model_max_length?: number;
  model_input_names?: readonly string[];
  clean_up_tokenization_spaces?: boolean;
  chat_template?: ChatTemplates | null;
  extra_special_tokens?: readonly Token[] | Record<string, Token>;
  /** Put `bos_token` before every text, instead of what tokenizer.json says. */
  add_bos_token?: boolean;
  /** Put `eos_token` after every text, instead of what tokenizer.json says. */
  add_eos_token?: boolean;
  [special_token: `${string}_token`]: Token | boolean | null | undefined;
  readonly [older: string]: unknown;
}
