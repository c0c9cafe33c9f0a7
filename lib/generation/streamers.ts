// Streamers: receive the ids that generation makes, and give out text as soon as it cannot change any more.

import { InvalidArgumentError } from "../errors/index.ts";
import type { DecodeOptions } from "../processing/tokenizer_options.ts";
import { Tensor } from "../torch/index.ts";

/** Ids as generation hands them over: of shape [length] or [1, length]. */
export type StreamedIds =
  | number
  | bigint
  | readonly (number | bigint)[]
  | readonly (readonly (number | bigint)[])[]
  | Tensor;

/**
 * What `generate({ streamer })` calls: `put` first with the prompt's ids, then with the new ids of each step, and `end`
 * when the generation is over, whatever ended it.
 *
 * Both may return a promise. A caller need not wait between steps: a streamer keeps the order of its calls itself. It
 * does wait for `end`, and an error of an earlier `put` comes out there.
 */
export abstract class BaseStreamer {
  abstract put(value: StreamedIds): void | Promise<void>;
  abstract end(): void | Promise<void>;
}

/** All that a text streamer needs of a tokenizer. */
export interface StreamerTokenizer {
  decode(token_ids: readonly number[], options?: DecodeOptions): Promise<string>;
}

/** Options of text streamers; those of `decode` too. */
export interface TextStreamerOptions extends DecodeOptions {
  /** Leave the prompt out. Default false. */
  skip_prompt?: boolean;
}

const rowOf = (value: StreamedIds): number[] => {
  const plain = value instanceof Tensor ? (value.tolist() as unknown) : value;
  const list = Array.isArray(plain) ? plain : [plain];
  if (!Array.isArray(list[0])) return list.map(Number);
  if (list.length > 1)
    throw new InvalidArgumentError(`A text streamer takes one sequence, not a batch of ${list.length}.`);
  return list[0].map(Number);
};

/** Ideographs stand for words: a text that ends in one is complete. The blocks are those the reference counts. */
function endsInIdeograph(text: string): boolean {
  const last = text.charCodeAt(text.length - 1);
  const isLow = last >= 0xdc00 && last <= 0xdfff;
  const code = (isLow ? text.codePointAt(text.length - 2) : last) ?? 0;
  const blocks = [
    [0x4e00, 0x9fff],
    [0x3400, 0x4dbf],
    [0x20000, 0x2a6df],
    [0x2a700, 0x2b73f],
    [0x2b740, 0x2b81f],
    [0x2b820, 0x2ceaf],
    [0xf900, 0xfaff],
    [0x2f800, 0x2fa1f],
  ] as const; // prettier-ignore
  return blocks.some(([first, end]) => first <= code && code <= end);
}

/**
 * Prints text word by word: up to the last space, at once after a line break or an ideograph, and the rest at the end.
 *
 * A word that is still growing is held back, and so are the bytes of a character whose other tokens are yet to come.
 * Subclasses override `on_finalized_text`.
 *
 * @example
 * await model.generate(inputs, { streamer: new TextStreamer(tokenizer, { skip_prompt: true }), max_new_tokens: 50 });
 */
export class TextStreamer extends BaseStreamer {
  readonly tokenizer: StreamerTokenizer;
  readonly skip_prompt: boolean;
  readonly decode_kwargs: DecodeOptions;

  /** Ids since the last line break. */
  #ids: number[] = [];
  /** How much of their text is given out. */
  #given = 0;
  #nextIsPrompt = true;
  #queue: Promise<void> = Promise.resolve();

  constructor(
    tokenizer: StreamerTokenizer,
    { skip_prompt = false, ...decode_kwargs }: TextStreamerOptions = {},
  ) {
    super();
    this.tokenizer = tokenizer;
    this.skip_prompt = skip_prompt;
    this.decode_kwargs = decode_kwargs;
  }

  put(value: StreamedIds): Promise<void> {
    const ids = rowOf(value);
    const isSkipped = this.skip_prompt && this.#nextIsPrompt;
    this.#nextIsPrompt = false;
    return isSkipped ? this.#queue : this.#inOrder(() => this.#add(ids));
  }

  end(): Promise<void> {
    this.#nextIsPrompt = true;
    return this.#inOrder(() => this.#flush());
  }

  /** Receives each piece of text, in order; `stream_end` marks the last, which may be empty. May be asynchronous. */
  on_finalized_text(text: string, stream_end = false): void | Promise<void> {
    process.stdout.write(stream_end ? `${text}\n` : text);
  }

  /** Decoding is asynchronous; a step waits for the one before it. After an error, none runs. */
  #inOrder(step: () => Promise<void>): Promise<void> {
    const done = this.#queue.then(step);
    this.#queue = done;
    // The error belongs to whoever waits for a step; that nobody waits for this one is no offence.
    done.catch(() => undefined);
    return done;
  }

  async #add(ids: number[]): Promise<void> {
    this.#ids.push(...ids);
    const text = await this.tokenizer.decode(this.#ids, this.decode_kwargs);
    if (text.endsWith("\n")) {
      const rest = text.slice(this.#given);
      this.#ids = [];
      this.#given = 0;
      await this.on_finalized_text(rest);
      return;
    }
    const end = endsInIdeograph(text) ? text.length : text.lastIndexOf(" ") + 1;
    const piece = text.slice(this.#given, end);
    this.#given += piece.length;
    await this.on_finalized_text(piece);
  }

  async #flush(): Promise<void> {
    const text = this.#ids.length === 0 ? "" : await this.tokenizer.decode(this.#ids, this.decode_kwargs);
    const rest = text.slice(this.#given);
    this.#ids = [];
    this.#given = 0;
    await this.on_finalized_text(rest, true);
  }
}

/** Options of text streamers that are iterated. */
export interface TextIteratorStreamerOptions extends TextStreamerOptions {
  /** Seconds to wait for the next piece before the iteration fails. Default: no limit. */
  timeout?: number | null;
}

/**
 * Gives the text as an async iterable, for a program that reads while the model writes. Pieces that are empty are left
 * out.
 *
 * `fail(error)` ends the iteration with an error, for a generation that does.
 *
 * @example
 * const streamer = new TextIteratorStreamer(tokenizer, { skip_prompt: true });
 * const done = model.generate(inputs, { streamer });
 * for await (const text of streamer) process.stdout.write(text);
 * await done;
 */
export class TextIteratorStreamer extends TextStreamer implements AsyncIterableIterator<string> {
  readonly timeout: number | null;
  readonly #pieces: string[] = [];
  #isOver = false;
  #error: unknown;
  #wake: (() => void) | undefined;

  constructor(
    tokenizer: StreamerTokenizer,
    { timeout = null, ...options }: TextIteratorStreamerOptions = {},
  ) {
    super(tokenizer, options);
    this.timeout = timeout;
  }

  override on_finalized_text(text: string, stream_end = false): void {
    if (text !== "") this.#pieces.push(text);
    this.#isOver = stream_end;
    this.#wake?.();
  }

  override async put(value: StreamedIds): Promise<void> {
    try {
      await super.put(value);
    } catch (error) {
      this.fail(error);
      throw error;
    }
  }

  /** Ends the iteration with an error. */
  fail(error: unknown): void {
    this.#error ??= error ?? new Error("The generation failed.");
    this.#isOver = true;
    this.#wake?.();
  }

  async next(): Promise<IteratorResult<string>> {
    while (this.#pieces.length === 0 && !this.#isOver) await this.#arrival();
    const value = this.#pieces.shift();
    if (value !== undefined) return { value, done: false };
    if (this.#error !== undefined) throw this.#error;
    return { value: undefined, done: true };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async #arrival(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        this.#wake = resolve;
        if (this.timeout === null) return;
        const expire = () => reject(new InvalidArgumentError(`No text came within ${this.timeout} s.`));
        timer = setTimeout(expire, this.timeout * 1000);
      });
    } finally {
      clearTimeout(timer);
      this.#wake = undefined;
    }
  }
}

/** In JavaScript every iterator that waits is asynchronous; the name is the reference's. */
export { TextIteratorStreamer as AsyncTextIteratorStreamer };
