// What a tokenizer returns: the model's inputs as fields, and the way back from tokens to the text as methods.

import { InvalidArgumentError } from "../errors/index.ts";
import { Tensor, tensor } from "../torch/index.ts";
import type { Encoding, Span } from "./encoding.ts";

/** A field of a BatchEncoding: a row, a batch of rows, or a tensor. */
export type EncodingValue = Tensor | number[] | number[][] | (Span[] | Span[][]);

/**
 * The inputs of a model, as own enumerable fields under the reference's names, so that
 * `model.forward({ ...encoding })` works; plain arrays, or tensors after `return_tensors: "pt"`.
 *
 * The methods map between tokens, words and characters of row `batch_index` (0 if left out). Characters count Unicode
 * code points, as in the reference, not UTF-16 units: `[...text].slice(start, end).join("")` is the text of a span.
 *
 * @example
 * const encoding = await tokenizer("Hello world", { return_offsets_mapping: true });
 * encoding.tokens(); // ["Hello", "Ġworld"]
 * encoding.token_to_chars(1); // [6, 11]
 */
export class BatchEncoding {
  declare input_ids: EncodingValue;
  declare attention_mask: EncodingValue;
  declare token_type_ids: EncodingValue;
  declare special_tokens_mask: EncodingValue;
  declare offset_mapping: EncodingValue;
  declare overflow_to_sample_mapping: EncodingValue;
  declare length: EncodingValue;
  declare labels: EncodingValue;
  declare assistant_masks: EncodingValue;
  [field: string]: unknown;

  readonly #encodings: readonly Encoding[];

  constructor(fields: Readonly<Record<string, unknown>> = {}, encodings: readonly Encoding[] = []) {
    this.#encodings = encodings;
    Object.assign(this, fields);
  }

  keys(): string[] {
    return Object.keys(this);
  }

  /** One per row; empty when the object was not made by a tokenizer's call. */
  get encodings(): readonly Encoding[] {
    return this.#encodings;
  }

  /** Tokens of a row. */
  tokens(batch_index = 0): string[] {
    return [...this.#row(batch_index).tokens];
  }

  /** For each token the index of its word, null for special tokens. */
  word_ids(batch_index = 0): (number | null)[] {
    return [...this.#row(batch_index).word_ids];
  }

  /** For each token 0 for the text, 1 for its pair, null for special tokens. */
  sequence_ids(batch_index = 0): (number | null)[] {
    return [...this.#row(batch_index).sequence_ids];
  }

  /** 0 if the token is of the text, 1 if it is of the pair, null for special tokens. */
  token_to_sequence(...index: Index): number | null {
    const [row, token] = this.#at(index);
    return row.sequence_ids[token] ?? null;
  }

  /** Index of the token's word, null for special tokens. */
  token_to_word(...index: Index): number | null {
    const [row, token] = this.#at(index);
    return row.word_ids[token] ?? null;
  }

  /** The characters a token came from, null for special tokens. */
  token_to_chars(...index: Index): Span | null {
    const [row, token] = this.#at(index);
    return row.sequence_ids[token] === null ? null : (row.offsets[token] ?? null);
  }

  /** The token a character is in, null where there is none, such as white space between words. */
  char_to_token(batch_or_char_index: number, char_index?: number, sequence_index = 0): number | null {
    const [row, char] = this.#split(batch_or_char_index, char_index);
    const found = row.offsets.findIndex(
      ([start, end], token) => row.sequence_ids[token] === sequence_index && start <= char && char < end,
    );
    return found < 0 ? null : found;
  }

  /** The word a character is in, null where there is none. */
  char_to_word(batch_or_char_index: number, char_index?: number, sequence_index = 0): number | null {
    const [row] = this.#split(batch_or_char_index, char_index);
    const token = this.char_to_token(batch_or_char_index, char_index, sequence_index);
    return token === null ? null : (row.word_ids[token] ?? null);
  }

  /** The tokens of a word as a range, null if the word has none. */
  word_to_tokens(batch_or_word_index: number, word_index?: number, sequence_index = 0): Span | null {
    const [row, word] = this.#split(batch_or_word_index, word_index);
    const ofWord = (token: number) =>
      row.sequence_ids[token] === sequence_index && row.word_ids[token] === word;
    const tokens = row.ids.map((_, token) => token).filter(ofWord);
    return tokens.length === 0 ? null : [tokens[0] as number, (tokens.at(-1) as number) + 1];
  }

  /** The characters of a word as a range, null if the word has no token. */
  word_to_chars(batch_or_word_index: number, word_index?: number, sequence_index = 0): Span | null {
    const [row] = this.#split(batch_or_word_index, word_index);
    const tokens = this.word_to_tokens(batch_or_word_index, word_index, sequence_index);
    if (tokens === null) return null;
    return [(row.offsets[tokens[0]] as Span)[0], (row.offsets[tokens[1] - 1] as Span)[1]];
  }

  /** Turns the lists into tensors, in place. With `prepend_batch_axis`, a single row becomes [1, length]. */
  convert_to_tensors(tensor_type: "pt" | null | undefined, { prepend_batch_axis = false } = {}): this {
    if (tensor_type === null || tensor_type === undefined) return this;
    if (tensor_type !== "pt") {
      throw new InvalidArgumentError(`return_tensors is 'pt' or absent, not '${tensor_type}'.`);
    }
    for (const [name, value] of Object.entries(this)) {
      if (!Array.isArray(value)) continue;
      (this as Record<string, unknown>)[name] = toTensor(name, prepend_batch_axis ? [value] : value);
    }
    return this;
  }

  /** Moves the tensors to a device, in place. */
  to(device: string): this {
    for (const [name, value] of Object.entries(this)) {
      if (value instanceof Tensor) (this as Record<string, unknown>)[name] = value.to(device);
    }
    return this;
  }

  #row(batch_index: number): Encoding {
    const count = this.#encodings.length;
    const row = this.#encodings[batch_index < 0 ? batch_index + count : batch_index];
    if (row !== undefined) return row;
    throw new InvalidArgumentError(
      count === 0
        ? "This BatchEncoding was not made by a tokenizer's call: it knows no tokens, words or characters."
        : `Row ${batch_index} is out of range: there are ${count}.`,
    );
  }

  #split(first: number, second: number | undefined): [Encoding, number] {
    return second === undefined ? [this.#row(0), first] : [this.#row(first), second];
  }

  #at([first, second]: Index): [Encoding, number] {
    const [row, token] = this.#split(first, second);
    const size = row.ids.length;
    const index = token < 0 ? token + size : token;
    if (index in row.ids) return [row, index];
    throw new InvalidArgumentError(`Token ${token} is out of range: the row has ${size}.`);
  }
}

/** `(token)` of row 0, or `(row, token)`; negative ones count from the end. */
type Index = [batch_or_token_index: number, token_index?: number];

function toTensor(name: string, value: unknown[]): Tensor {
  const ragged =
    Array.isArray(value[0]) &&
    value.some((row) => (row as unknown[]).length !== (value[0] as unknown[]).length);
  if (ragged) {
    throw new InvalidArgumentError(`The rows of ${name} have different lengths, so they make no tensor.`, {
      hint: "Ask for { padding: true } and perhaps { truncation: true }.",
    });
  }
  return tensor(value as number[], { dtype: "int64" });
}

/** What `return_tensors: "pt"` gives: every field that is there is a tensor [batch, length]. */
export interface TensorEncoding extends BatchEncoding {
  input_ids: Tensor;
  attention_mask: Tensor;
  token_type_ids: Tensor;
  special_tokens_mask: Tensor;
  offset_mapping: Tensor;
  overflow_to_sample_mapping: Tensor;
  length: Tensor;
  labels: Tensor;
  assistant_masks: Tensor;
}
