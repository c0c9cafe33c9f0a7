// Texts on their way in and ids on their way back, in every shape that a caller may give them.

import { InvalidArgumentError } from "../errors/index.ts";
import { Tensor } from "../torch/index.ts";
import type { Text } from "./tokenizer_backend.ts";

/** A call's texts as a batch, by the reference's rules for what is one text and what is many. */
export function asBatch(
  text: Text | readonly Text[] | null | undefined,
  pair: Text | readonly Text[] | null,
  split: boolean,
): { texts: Text[]; pairs: Text[] | null; isBatch: boolean } {
  const call = "tokenizer";
  if (text === null || text === undefined)
    throw new InvalidArgumentError(`[${call}] give text or text_target.`);
  const isBatch = Array.isArray(text) && (!split || Array.isArray(text[0]));
  const texts = (isBatch ? text : [text]) as Text[];
  // The reference takes an empty pair of a single text for none.
  const noPair = pair === null || (!isBatch && pair.length === 0);
  const pairs = noPair ? null : ((isBatch ? pair : [pair]) as Text[]);
  if (isBatch && typeof pair === "string") {
    throw new InvalidArgumentError(
      `[${call}] for a batch of texts, text_pair must be a list of the same length.`,
    );
  }
  if (pairs !== null && pairs.length !== texts.length) {
    throw new InvalidArgumentError(
      `[${call}] there are ${texts.length} texts and ${pairs.length} text_pairs.`,
    );
  }
  const isText = split ? isWords : (item: unknown) => typeof item === "string";
  for (const item of [...texts, ...(pairs ?? [])]) {
    if (isText(item)) continue;
    throw new InvalidArgumentError(
      `[${call}] a text must be ${split ? "a list of words" : "a string"}; got ${describe(item)}.`,
      !split && isWords(item) ? { hint: "Lists of words need { is_split_into_words: true }." } : {},
    );
  }
  return { texts, pairs, isBatch };
}

const isWords = (item: unknown): boolean =>
  Array.isArray(item) && item.every((word) => typeof word === "string");

const describe = (value: unknown): string =>
  value === null ? "null" : Array.isArray(value) ? "an array" : typeof value;

/** Ids in any accepted shape, as rows of numbers. */
export function idRows(ids: unknown): { rows: number[][]; isBatch: boolean } {
  const plain = ids instanceof Tensor ? ids.tolist() : ids;
  if (typeof plain === "number" || typeof plain === "bigint")
    return { rows: [[idOf(plain)]], isBatch: false };
  if (!Array.isArray(plain) && !ArrayBuffer.isView(plain)) {
    throw new InvalidArgumentError(
      `[decode] ids must be a number, a list or a tensor of them; got ${describe(plain)}.`,
    );
  }
  const list = Array.from(plain as unknown as ArrayLike<unknown>);
  const isBatch = typeof list[0] === "object";
  return isBatch
    ? { rows: list.map((row) => idRows(row).rows[0] as number[]), isBatch }
    : { rows: [list.map(idOf)], isBatch };
}

/** The Rust core takes 32 bits without a sign. */
function idOf(id: unknown): number {
  const value = typeof id === "bigint" ? Number(id) : id;
  if (typeof value === "number" && Number.isInteger(value) && value >= 0 && value < 2 ** 32) return value;
  throw new InvalidArgumentError(`[decode] ${String(id)} is not a token id.`);
}

/** Removes the spaces before punctuation and short forms, as WordPiece leaves them. */
export const cleanUp = (text: string): string =>
  [" .", " ?", " !", " ,"]
    .reduce((result, mark) => result.replaceAll(mark, mark.trim()), text)
    .replaceAll(" ' ", "'")
    .replaceAll(/ (n't|'m|'s|'ve|'re)/g, "$1");
