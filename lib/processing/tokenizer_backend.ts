// The Rust core behind a tokenizer: one tokenizer.json, loaded by the `tokenizers` addon.
// Truncation is state of the addon's object and its work runs on other threads, so calls take turns here (see Turns);
// and where the Rust core would panic, which ends the process, the inputs are refused before they reach it.

import { readFile, writeFile } from "node:fs/promises";
import { AddedToken as NativeAddedToken, mergeEncodings, Tokenizer, templateProcessing } from "tokenizers";
import {
  EntryNotFoundError,
  InvalidArgumentError,
  TokenizerError,
  TorchformersError,
} from "../errors/index.ts";
import { type Encoding, LazyEncoding, type Replaced } from "./encoding.ts";

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

interface PaddingJson {
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

interface TokenizerJson {
  added_tokens?: (AddedTokenData & { id: number })[];
  truncation?: TokenizerInfo["truncation"];
  padding?: PaddingJson | null;
  post_processor?: unknown;
  model?: { type?: string; vocab?: unknown; merges?: unknown; unk_id?: unknown };
}

/** Tells the model kinds apart in files from before `type` was written. */
function modelType({ type, vocab, merges }: NonNullable<TokenizerJson["model"]>): string {
  if (type !== undefined) return type;
  if (merges !== undefined) return "BPE";
  return Array.isArray(vocab) ? "Unigram" : "WordPiece";
}

/**
 * Lets calls with the same setting run together and makes others wait for them, in order of arrival: the addon reads
 * its truncation when a pool thread starts the work, not when the call is made.
 */
class Turns {
  #setting: string | null = null;
  #running = 0;
  readonly #waiting: { setting: string; start: () => void }[] = [];

  async take<T>(setting: string, change: () => void, work: () => Promise<T>): Promise<T> {
    if (this.#running > 0 && (setting !== this.#setting || this.#waiting.length > 0)) {
      await new Promise<void>((start) => this.#waiting.push({ setting, start }));
    } else {
      this.#running++;
    }
    try {
      if (setting !== this.#setting) change();
      this.#setting = setting;
      return await work();
    } finally {
      this.#running--;
      this.#wake();
    }
  }

  #wake(): void {
    if (this.#running > 0) return;
    const setting = this.#waiting[0]?.setting;
    while (this.#waiting[0] !== undefined && this.#waiting[0].setting === setting) {
      this.#running++;
      this.#waiting.shift()?.start();
    }
  }
}

const STRATEGIES = {
  longest_first: "LongestFirst",
  only_first: "OnlyFirst",
  only_second: "OnlySecond",
} as const;
const NO_TRUNCATION = "none";
const PLAIN = { addSpecialTokens: false };
const ONLY_SPECIAL: EncodeSettings = {
  add_special_tokens: true,
  truncation: null,
  padding: null,
  overflow: false,
};

/** The addon's own messages are short of the file; a name and a hint are added here. */
function refuse(path: string, cause: unknown): TokenizerError {
  const reason = (cause instanceof Error ? cause.message : String(cause)).replace(
    /^Error loading from file/,
    "",
  );
  return new TokenizerError(`${path} is not a valid tokenizer.json: ${reason}.`, { cause });
}

export class NativeBackend implements TokenizerBackend {
  info: TokenizerInfo;
  readonly #path: string;
  readonly #native: Tokenizer;
  readonly #turns = new Turns();
  readonly #later: AddedTokenData[] = [];
  /** Special tokens around a text (false) and a pair (true). */
  readonly #specialTokens = new Map<boolean, number>();
  #parts: Promise<PartsEncoder> | undefined;

  private constructor(path: string, native: Tokenizer, json: TokenizerJson) {
    this.#path = path;
    this.#native = native;
    this.info = {
      model_type: modelType(json.model ?? {}),
      vocab_size: native.getVocabSize(false),
      length: native.getVocabSize(true),
      added_tokens: (json.added_tokens ?? []).map(({ id, ...token }) => ({ id, ...complete(token) })),
      truncation: json.truncation ?? null,
      padding: json.padding ?? null,
    };
    native.disableTruncation();
    native.disablePadding();
  }

  static async load(path: string): Promise<NativeBackend> {
    const text = await readText(path);
    try {
      return new NativeBackend(path, Tokenizer.fromString(text), JSON.parse(text) as TokenizerJson);
    } catch (cause) {
      throw refuse(path, cause);
    }
  }

  async encode(
    texts: readonly Text[],
    pairs: readonly Text[] | null,
    settings: EncodeSettings,
  ): Promise<Encoding[]> {
    const { add_special_tokens, truncation, padding, overflow } = settings;
    if (truncation !== null) await this.#checkRoom(pairs !== null, add_special_tokens, truncation);
    const isSplit = typeof texts[0] === "object";
    // The addon encodes no further than truncation can keep. What is cut off is then lost, words are numbered from the
    // wrong end, and of a pair it is not known which text is the longer.
    const needsWhole = truncation !== null && (overflow || truncation.side === "left" || pairs !== null);
    const results = await (isSplit || needsWhole
      ? this.#encodeInParts(texts, pairs, settings)
      : this.#encodeTexts(texts as string[], pairs as string[] | null, settings)
    ).catch((cause: Error) => {
      if (cause instanceof TorchformersError) throw cause;
      throw new InvalidArgumentError(`[tokenizer] ${cause.message}`, { cause });
    });
    if (padding !== null) {
      const longest = Math.max(...results.map(({ encoding }) => encoding.getLength()));
      for (const result of results)
        pad(result, padding, roundUp(padding.length ?? longest, padding.multiple_of));
    }
    return results.map(
      ({ encoding, word_ids, type_ids }) => new LazyEncoding(encoding, { word_ids, type_ids }),
    );
  }

  async decode(batch: readonly (readonly number[])[], skip_special_tokens: boolean): Promise<string[]> {
    return await this.#native.decodeBatch(batch as number[][], skip_special_tokens);
  }

  async tokensToIds(tokens: readonly string[]): Promise<(number | null)[]> {
    return tokens.map((token) => this.#native.tokenToId(token));
  }

  async idsToTokens(ids: readonly number[]): Promise<(string | null)[]> {
    return ids.map((id) => this.#native.idToToken(id));
  }

  tokenToIdNow(token: string): number | null {
    return this.#native.tokenToId(token);
  }

  async joinTokens(tokens: readonly string[]): Promise<string> {
    return this.#native.getDecoder()?.decode(tokens as string[]) ?? tokens.join(" ");
  }

  async vocab(): Promise<Record<string, number>> {
    return this.#native.getVocab(true);
  }

  async addTokens(tokens: readonly AddedTokenData[]): Promise<number> {
    const count = this.#native.addAddedTokens(tokens.map(nativeToken));
    this.#later.push(...tokens);
    const known = new Map(this.info.added_tokens.map((token) => [token.content, token]));
    for (const token of tokens) {
      const id = this.#native.tokenToId(token.content);
      if (id !== null && !known.has(token.content)) known.set(token.content, { id, ...complete(token) });
    }
    this.info = {
      ...this.info,
      vocab_size: this.#native.getVocabSize(false),
      length: this.#native.getVocabSize(true),
      added_tokens: [...known.values()].sort((a, b) => a.id - b.id),
    };
    return count;
  }

  async surround(
    bos: readonly [string, number] | null,
    eos: readonly [string, number] | null,
  ): Promise<void> {
    const before = (type: number) => (bos === null ? "" : `${bos[0]}:${type} `);
    const after = (type: number) => (eos === null ? "" : ` ${eos[0]}:${type}`);
    const single = `${before(0)}$A:0${after(0)}`;
    const pair = `${single} ${before(1)}$B:1${after(1)}`;
    const special = [bos, eos]
      .filter((token) => token !== null)
      .map(([token, id]): [string, number] => [token, id]);
    this.#specialTokens.clear();
    await this.#turn(null, async () =>
      this.#native.setPostProcessor(templateProcessing(single, pair, special)),
    );
  }

  async numSpecialTokens(pair: boolean): Promise<number> {
    const known = this.#specialTokens.get(pair);
    if (known !== undefined) return known;
    const [encoding] = await this.encode([""], pair ? [""] : null, ONLY_SPECIAL);
    const count = (encoding as Encoding).sequence_ids.filter((id) => id === null).length;
    this.#specialTokens.set(pair, count);
    return count;
  }

  /** Writes tokenizer.json, with the truncation and padding that the loaded file had. */
  async save(path: string): Promise<void> {
    await this.#turn(null, async () => this.#native.save(path, true));
    const { truncation, padding } = this.info;
    if (truncation === null && padding === null) return;
    const json = JSON.parse(await readText(path)) as TokenizerJson;
    await writeFile(path, `${JSON.stringify({ ...json, truncation, padding }, null, 2)}`);
  }

  async #encodeTexts(texts: string[], pairs: string[] | null, settings: EncodeSettings): Promise<Result[]> {
    const options = { addSpecialTokens: settings.add_special_tokens };
    // Without overflowing pieces a stride means nothing, and to the Rust core it could be fatal.
    const truncation = settings.truncation && { ...settings.truncation, stride: 0 };
    const encodings = await this.#turn(truncation, () =>
      pairs === null
        ? this.#native.encodeBatch(texts, options)
        : Promise.all(texts.map((text, i) => this.#native.encode(text, pairs[i] as string, options))),
    );
    return encodings.map((encoding) => ({ encoding, word_ids: [], type_ids: [] }));
  }

  async #encodeInParts(
    texts: readonly Text[],
    pairs: readonly Text[] | null,
    settings: EncodeSettings,
  ): Promise<Result[]> {
    this.#parts ??= PartsEncoder.load(this.#path);
    const encoder = await this.#parts;
    encoder.follow(this.#later);
    const room =
      settings.truncation === null
        ? Number.POSITIVE_INFINITY
        : settings.truncation.max_length -
          (settings.add_special_tokens ? await this.numSpecialTokens(pairs !== null) : 0);
    const parts = await encoder.encode(texts, pairs);
    return await this.#turn(settings.truncation, async () =>
      parts.map((sequences) => encoder.finish(this.#native, sequences, settings, room)),
    );
  }

  #turn<T>(truncation: Truncation | null, work: () => Promise<T>): Promise<T> {
    const change = () => setTruncation(this.#native, truncation);
    return this.#turns.take(truncation === null ? NO_TRUNCATION : JSON.stringify(truncation), change, work);
  }

  /** Refuses a length that the special tokens alone exceed: the Rust core would not truncate at all. */
  async #checkRoom(isPair: boolean, withSpecial: boolean, { max_length }: Truncation): Promise<void> {
    const special = withSpecial ? await this.numSpecialTokens(isPair) : 0;
    if (max_length >= special) return;
    throw new InvalidArgumentError(`max_length ${max_length} is less than the ${special} special tokens.`);
  }
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

/** A native encoding, and lists that replace its own: first, then those of its overflowing ones. */
interface Result extends Replaced {
  readonly encoding: NativeEncoding;
}

type NativeEncoding = Awaited<ReturnType<Tokenizer["encode"]>>;

/**
 * Encodes texts without post-processing, then post-processes the tokens: in one piece the addon cannot take texts that
 * are already split into words, and loses what truncation cuts off.
 *
 * Words are encoded one by one and merged, as the Rust core does. The addon keeps no word indices through this, so they
 * are found again: a twin of each encoding, whose offsets grow over the words, goes through the same post-processing,
 * and its offsets say where in the text the tokens that survived truncation had been.
 */
class PartsEncoder {
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

function setTruncation(tokenizer: Tokenizer, truncation: Truncation | null): void {
  if (truncation === null) {
    tokenizer.disableTruncation();
    return;
  }
  const { strategy, max_length, stride, side } = truncation;
  tokenizer.setTruncation(max_length, { strategy: STRATEGIES[strategy] as never, stride, direction: side });
}

const roundUp = (length: number, multiple: number | null): number =>
  multiple === null || multiple === 0 ? length : Math.ceil(length / multiple) * multiple;

function pad(
  { encoding, word_ids, type_ids }: Result,
  { side, id, type_id, token }: Padding,
  length: number,
): void {
  encoding.pad(length, { direction: side, padId: id, padTypeId: type_id, padToken: token });
  const fill = <T>(lists: T[][], value: T) => {
    for (const list of lists) {
      const missing = new Array<T>(Math.max(0, length - list.length)).fill(value);
      if (side === "right") list.push(...missing);
      else list.unshift(...missing);
    }
  };
  fill(word_ids, null);
  fill(type_ids, type_id);
}

const nativeToken = (token: AddedTokenData): NativeAddedToken => {
  const { content, special, single_word, lstrip, rstrip, normalized } = complete(token);
  return new NativeAddedToken(content, special, {
    singleWord: single_word,
    leftStrip: lstrip,
    rightStrip: rstrip,
    normalized,
  });
};

/** Fills in the defaults, as the Rust core has them. */
export function complete(token: AddedTokenData): Required<AddedTokenData> {
  const { content, single_word = false, lstrip = false, rstrip = false, special = false } = token;
  return { content, single_word, lstrip, rstrip, normalized: token.normalized ?? !special, special };
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new EntryNotFoundError(`${path} cannot be read: ${(cause as Error).message}.`, { cause });
  }
}
