// The result of encoding one text, as the Rust core gives it, and in a form that crosses threads cheaply.

/** Half-open range [start, end) of Unicode code points, or of tokens. */
export type Span = readonly [start: number, end: number];

/** One text, or one pair, as tokens. All lists have one entry per token. */
export interface Encoding {
  readonly ids: number[];
  readonly type_ids: number[];
  readonly tokens: string[];
  /** Unicode code points of the text that the token came from, [0, 0] for special tokens. */
  readonly offsets: Span[];
  readonly attention_mask: number[];
  readonly special_tokens_mask: number[];
  /** Index of the word, null for special tokens. */
  readonly word_ids: (number | null)[];
  /** 0 for the text, 1 for its pair, null for special tokens. */
  readonly sequence_ids: (number | null)[];
  /** What truncation cut off, in pieces of the same length. */
  readonly overflowing: Encoding[];
}

/** The getters of the native object; each call copies the whole list. */
export interface EncodingSource {
  getIds(): number[];
  getTypeIds(): number[];
  getTokens(): string[];
  getOffsets(): number[][];
  getAttentionMask(): number[];
  getSpecialTokensMask(): number[];
  getWordIds(): (number | undefined | null)[];
  getSequenceIds(): (number | undefined | null)[];
  getOverflowing(): EncodingSource[];
}

const orNull = (value: number | undefined | null): number | null => value ?? null;

/** Lists that replace a source's own: first for the encoding, then for each overflowing one. */
export interface Replaced {
  readonly word_ids: (number | null)[][];
  readonly type_ids: number[][];
}

const NOTHING: Replaced = { word_ids: [], type_ids: [] };

/** Reads each list once, when it is first asked for: most calls want the ids and the mask alone. */
export class LazyEncoding implements Encoding {
  readonly #source: EncodingSource;
  readonly #replaced: Replaced;
  readonly #read = new Map<string, unknown>();

  constructor(source: EncodingSource, replaced = NOTHING) {
    this.#source = source;
    this.#replaced = replaced;
  }

  #once<T>(name: string, read: () => T): T {
    if (!this.#read.has(name)) this.#read.set(name, read());
    return this.#read.get(name) as T;
  }

  get ids(): number[] {
    return this.#once("ids", () => this.#source.getIds());
  }
  get type_ids(): number[] {
    return this.#once("type_ids", () => this.#replaced.type_ids[0] ?? this.#source.getTypeIds());
  }
  get tokens(): string[] {
    return this.#once("tokens", () => this.#source.getTokens());
  }
  get offsets(): Span[] {
    return this.#once("offsets", () => this.#source.getOffsets() as unknown as Span[]);
  }
  get attention_mask(): number[] {
    return this.#once("attention_mask", () => this.#source.getAttentionMask());
  }
  get special_tokens_mask(): number[] {
    return this.#once("special_tokens_mask", () => this.#source.getSpecialTokensMask());
  }
  get word_ids(): (number | null)[] {
    return this.#once("word_ids", () => this.#replaced.word_ids[0] ?? this.#source.getWordIds().map(orNull));
  }
  get sequence_ids(): (number | null)[] {
    return this.#once("sequence_ids", () => this.#source.getSequenceIds().map(orNull));
  }
  get overflowing(): Encoding[] {
    return this.#once("overflowing", () =>
      this.#source.getOverflowing().map((part, i) => {
        const { word_ids, type_ids } = this.#replaced;
        return new LazyEncoding(part, {
          word_ids: word_ids.slice(i + 1, i + 2),
          type_ids: type_ids.slice(i + 1, i + 2),
        });
      }),
    );
  }
}

/** An encoding as a few typed arrays and one string, to be transferred to another thread. */
export interface PackedEncoding {
  readonly size: number;
  /** ids, type_ids, attention_mask, special_tokens_mask, offsets (two each), word_ids, sequence_ids; -1 is null. */
  readonly numbers: Int32Array;
  readonly text: string;
  /** UTF-16 lengths of the tokens in `text`. */
  readonly lengths: Int32Array;
  readonly overflowing: PackedEncoding[];
}

const COLUMNS = 8;

export function packEncoding(encoding: Encoding): PackedEncoding {
  const size = encoding.ids.length;
  const numbers = new Int32Array(COLUMNS * size);
  numbers.set(encoding.ids, 0);
  numbers.set(encoding.type_ids, size);
  numbers.set(encoding.attention_mask, 2 * size);
  numbers.set(encoding.special_tokens_mask, 3 * size);
  encoding.offsets.forEach((span, i) => {
    numbers.set(span, 4 * size + 2 * i);
  });
  encoding.word_ids.forEach((id, i) => {
    numbers[6 * size + i] = id ?? -1;
  });
  encoding.sequence_ids.forEach((id, i) => {
    numbers[7 * size + i] = id ?? -1;
  });
  const lengths = Int32Array.from(encoding.tokens, (token) => token.length);
  return {
    size,
    numbers,
    text: encoding.tokens.join(""),
    lengths,
    overflowing: encoding.overflowing.map(packEncoding),
  };
}

/** The buffers of a packed encoding, for the transfer list of `postMessage`. */
export function packedBuffers(packed: PackedEncoding): ArrayBuffer[] {
  const own = [packed.numbers.buffer, packed.lengths.buffer] as ArrayBuffer[];
  return own.concat(...packed.overflowing.map(packedBuffers));
}

function packedSource({ size, numbers, text, lengths, overflowing }: PackedEncoding): EncodingSource {
  const column = (index: number, width = 1) =>
    Array.from(numbers.subarray(index * size, (index + width) * size));
  const nullable = (index: number) => column(index).map((id) => (id < 0 ? null : id));
  return {
    getIds: () => column(0),
    getTypeIds: () => column(1),
    getAttentionMask: () => column(2),
    getSpecialTokensMask: () => column(3),
    getOffsets: () => {
      const flat = column(4, 2);
      return Array.from({ length: size }, (_, i) => flat.slice(2 * i, 2 * i + 2));
    },
    getWordIds: () => nullable(6),
    getSequenceIds: () => nullable(7),
    getTokens: () => {
      let start = 0;
      return Array.from(lengths, (length) => {
        start += length;
        return text.slice(start - length, start);
      });
    },
    getOverflowing: () => overflowing.map(packedSource),
  };
}

export const unpackEncoding = (packed: PackedEncoding): Encoding => new LazyEncoding(packedSource(packed));
