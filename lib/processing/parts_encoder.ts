// Encoding and post-processing apart, for what the Rust core cannot do in one piece.

import { mergeEncodings, Tokenizer } from "tokenizers";
import { InvalidArgumentError } from "../errors/index.ts";
import {
  type NativeEncoding,
  nativeToken,
  type Result,
  readText,
  setTruncation,
} from "./native_tokenizer.ts";
import type {
  AddedTokenData,
  EncodeSettings,
  Text,
  Truncation,
  TruncationStrategy,
} from "./tokenizer_backend.ts";

const PLAIN = { addSpecialTokens: false };

/**
 * Encodes texts without post-processing, then post-processes the tokens: in one piece the addon cannot take texts that
 * are already split into words, and loses what truncation cuts off.
 *
 * Words are encoded one by one and merged, as the Rust core does. The addon keeps no word indices through this, so they
 * are found again: a twin of each encoding, whose offsets grow over the words, goes through the same post-processing,
 * and its offsets say where in the text the tokens that survived truncation had been.
 */
export class PartsEncoder {
  readonly #parts: Tokenizer;
  readonly #twin: Tokenizer;
  #added = 0;

  private constructor(parts: Tokenizer, twin: Tokenizer) {
    this.#parts = parts;
    this.#twin = twin;
  }

  static async load(path: string): Promise<PartsEncoder> {
    const json = JSON.parse(await readText(path)) as Record<string, unknown>;
    const bare = { ...json, truncation: null, padding: null };
    // The twin only post-processes: it needs no vocabulary.
    const model = { type: "WordLevel", vocab: {}, unk_token: "" };
    const keepOffsets = (key: string, value: unknown) => (key === "trim_offsets" ? false : value);
    return new PartsEncoder(
      Tokenizer.fromString(JSON.stringify({ ...bare, post_processor: null })),
      Tokenizer.fromString(JSON.stringify({ ...bare, model, added_tokens: [] }, keepOffsets)),
    );
  }

  /** Adds the tokens that were added to the main tokenizer since. */
  follow(added: readonly AddedTokenData[]): void {
    if (this.#added < added.length) this.#parts.addAddedTokens(added.slice(this.#added).map(nativeToken));
    this.#added = added.length;
  }

  /** The sequences of each text, or pair, in full length. */
  async encode(texts: readonly Text[], pairs: readonly Text[] | null): Promise<Sequence[][]> {
    const first = texts.map((text) => this.#sequence(text, false));
    const second = pairs?.map((text) => this.#sequence(text, true)) ?? [];
    return await Promise.all(
      first.map((one, i) => Promise.all(second[i] === undefined ? [one] : [one, second[i]])),
    );
  }

  async #sequence(text: Text, isSecond: boolean): Promise<Sequence> {
    const words = typeof text === "string" ? [text] : text;
    const parts = await Promise.all(words.map((word) => this.#parts.encode(word, null, PLAIN)));
    // As the pair of nothing, tokens get the type of a second text, which some post-processors keep. Only their types
    // are used: as a text of their own they would count as the first of two.
    const typed = isSecond
      ? mergeEncodings(await Promise.all(words.map((word) => this.#parts.encode("", word, PLAIN))))
      : undefined;
    if (typeof text === "string") return { merged: parts[0] as NativeEncoding, typed };
    const twin = mergeEncodings(parts, true);
    const word_ids = parts.flatMap((part, word) => new Array<number>(part.getLength()).fill(word));
    return { merged: mergeEncodings(parts, false), typed, words: { twin, places: placesOf(twin), word_ids } };
  }

  /** Truncates and post-processes; `tokenizer` has the truncation set, and `room` is what it leaves for text. */
  finish(
    tokenizer: Tokenizer,
    [first, second]: readonly Sequence[],
    { add_special_tokens, truncation }: EncodeSettings,
    room: number,
  ): Result {
    const { merged, words } = first as Sequence;
    if (truncation !== null)
      checkStride([merged.getLength(), second?.merged.getLength() ?? 0], room, truncation);
    const encoding = tokenizer.postProcess(merged, second?.merged, add_special_tokens);
    const rows = (one: NativeEncoding) => [one, ...one.getOverflowing()];
    const typed = second?.typed && tokenizer.postProcess(merged, second.typed, add_special_tokens);
    const type_ids = typed === undefined ? [] : rows(typed).map((row) => row.getTypeIds());
    if (words === undefined) return { encoding, word_ids: [], type_ids };
    setTruncation(this.#twin, truncation);
    const twin = this.#twin.postProcess(words.twin, second?.words?.twin, add_special_tokens);
    const sequences = [words, ...(second?.words === undefined ? [] : [second.words])];
    return { encoding, word_ids: rows(twin).map((row) => findWords(row, sequences)), type_ids };
  }
}

/** Tokens of one text; `words` where it came as a list of them. */
interface Sequence {
  readonly merged: NativeEncoding;
  /** The same tokens with the type of a second text. */
  readonly typed: NativeEncoding | undefined;
  readonly words?: WordSequence;
}

/** Refuses a stride as long as what is kept of a text that is cut: the Rust core would end the process. */
function checkStride(
  lengths: [number, number],
  room: number,
  { strategy, stride, max_length }: Truncation,
): void {
  keptLengths(lengths, room, strategy).forEach((kept, sequence) => {
    if (stride === 0 || kept === 0 || kept >= (lengths[sequence] as number) || stride < kept) return;
    throw new InvalidArgumentError(
      `stride ${stride} must be less than the ${kept} tokens that max_length ${max_length} leaves of the ` +
        `${sequence === 0 ? "text" : "text_pair"}.`,
    );
  });
}

interface WordSequence {
  readonly twin: NativeEncoding;
  readonly places: string[];
  readonly word_ids: number[];
}

/** A name for each token's place: its id and its offsets. */
function placesOf(encoding: NativeEncoding): string[] {
  const offsets = encoding.getOffsets();
  return encoding.getIds().map((id, i) => `${id}@${offsets[i]}`);
}

function findWords(twin: NativeEncoding, sequences: readonly WordSequence[]): (number | null)[] {
  const places = placesOf(twin);
  const sequence_ids = twin.getSequenceIds();
  const word_ids = new Array<number | null>(places.length).fill(null);
  sequences.forEach((sequence, number) => {
    const positions = [...places.keys()].filter((position) => sequence_ids[position] === number);
    const found = positions.map((position) => places[position]);
    const start = sequence.places.findIndex((_, at) =>
      found.every((place, i) => sequence.places[at + i] === place),
    );
    positions.forEach((position, i) => {
      word_ids[position] = sequence.word_ids[start + i] ?? null;
    });
  });
  return word_ids;
}

/** How many tokens of each sequence the Rust core keeps. */
function keptLengths(
  [first, second]: [number, number],
  room: number,
  strategy: TruncationStrategy,
): [number, number] {
  const excess = first + second - room;
  if (excess <= 0) return [first, second];
  if (strategy === "only_first") return [first > excess ? first - excess : first, second];
  if (strategy === "only_second") return [first, second > excess ? second - excess : second];
  if (second === 0) return [room, 0];
  const short = Math.min(first, second);
  let [shortKept, longKept] = [short, short > room ? short : Math.max(short, room - short)];
  if (shortKept + longKept > room) [shortKept, longKept] = [Math.floor(room / 2), Math.ceil(room / 2)];
  return first <= second ? [shortKept, longKept] : [longKept, shortKept];
}
