// The Rust core behind a tokenizer: one tokenizer.json, loaded by the `tokenizers` addon.
// Truncation is state of the addon's object and its work runs on other threads, so calls take turns here (see Turns);
// and where the Rust core would panic, which ends the process, the inputs are refused before they reach it.

import { randomBytes } from "node:crypto";
import { rm } from "node:fs/promises";
import { Tokenizer, templateProcessing } from "tokenizers";
import { InvalidArgumentError, TokenizerError, TorchformersError } from "../errors/index.ts";
import { writeFileAtomic } from "../hub/atomic.ts";
import { type Encoding, LazyEncoding } from "./encoding.ts";
import { nativeToken, type Result, readText, setTruncation } from "./native_tokenizer.ts";
import { PartsEncoder } from "./parts_encoder.ts";
import {
  type AddedTokenData,
  complete,
  type EncodeSettings,
  type Padding,
  type PaddingJson,
  type Text,
  type TokenizerBackend,
  type TokenizerInfo,
  type Truncation,
} from "./tokenizer_backend.ts";

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

const NO_TRUNCATION = "none";
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

  /** Writes tokenizer.json whole or not at all, with the truncation and padding that the loaded file had. */
  async save(path: string): Promise<void> {
    const { truncation, padding } = this.info;
    // The addon writes in place, so it writes beside.
    const draft = `${path}.${randomBytes(6).toString("hex")}.tmp`;
    try {
      await this.#turn(null, async () => this.#native.save(draft, true));
      const text = await readText(draft);
      const asLoaded = () =>
        JSON.stringify({ ...(JSON.parse(text) as TokenizerJson), truncation, padding }, null, 2);
      await writeFileAtomic(path, truncation === null && padding === null ? text : asLoaded());
    } finally {
      await rm(draft, { force: true });
    }
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
