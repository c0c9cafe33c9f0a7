// Tokenizers: text to the ids that a model reads, and back. The rules are those of tokenizer.json, run by the Rust core
// (tokenizer_backend.ts); the names, defaults and results are those of the reference.

import { mkdir, stat } from "node:fs/promises";
import path from "node:path";
import { InvalidArgumentError, TokenizerError } from "../errors/index.ts";
import { warn } from "../errors/warnings.ts";
import { writeFileAtomic } from "../hub/atomic.ts";
import type { HubOptions } from "../hub/files.ts";
import { type Json, stringifyJson } from "../json/json.ts";
import { Tensor } from "../torch/index.ts";
import { BatchEncoding, type TensorEncoding } from "./batch_encoding.ts";
import { Callable } from "./callable.ts";
import {
  type ChatMessage,
  type ChatTemplates,
  pickTemplate,
  type RenderOptions,
  renderChats,
} from "./chat_template.ts";
import type { Encoding } from "./encoding.ts";
import { checkChoice, checkCount, checkOptions } from "./options.ts";
import {
  type AddedTokenData,
  complete,
  NativeBackend,
  type Padding,
  type Side,
  type Text,
  type TokenizerBackend,
  type Truncation,
  type TruncationStrategy,
} from "./tokenizer_backend.ts";
import { TOKENIZER_CLASSES } from "./tokenizer_classes.generated.ts";
import {
  isAddedToken,
  LOADING_OPTIONS,
  readTokenizerFiles,
  type TokenizerConfig,
  type TokenizerFiles,
} from "./tokenizer_files.ts";
import { ThreadBackend } from "./tokenizer_thread.ts";

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

const CALL_OPTIONS = [
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

export interface DecodeOptions {
  /** Leave special tokens out. Default false. */
  skip_special_tokens?: boolean;
  /** Remove the spaces before punctuation, as WordPiece wants; default by tokenizer_config.json. */
  clean_up_tokenization_spaces?: boolean | null;
}

/** Ids in any of the shapes that the library gives them. */
export type TokenIds = number | bigint | readonly (number | bigint)[] | BigInt64Array | Int32Array | Tensor;

export interface PadOptions {
  padding?: TokenizerCallOptions["padding"];
  max_length?: number | null;
  pad_to_multiple_of?: number | null;
  padding_side?: Side | null;
  return_attention_mask?: boolean | null;
  return_tensors?: "pt" | null;
  verbose?: boolean;
}

const PAD_OPTIONS = [
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

type AsTensors = { readonly return_tensors: "pt" };

/** Lengths from here on mean "none". */
const LARGE_INTEGER = 1e20;
const VERY_LARGE_INTEGER = 1e30;

/** Files above this size are parsed and run in a thread of their own. */
const THREAD_BYTES = 1_000_000;

const SPECIAL_TOKENS = [
  "bos_token",
  "eos_token",
  "unk_token",
  "sep_token",
  "pad_token",
  "cls_token",
  "mask_token",
] as const;

type NamedToken = (typeof SPECIAL_TOKENS)[number];
type Token = string | AddedTokenData;

const contentOf = (token: Token): string => (typeof token === "string" ? token : token.content);

/**
 * A tokenizer. Made by `AutoTokenizer.from_pretrained(directory)`; one class serves every kind, since
 * `tokenizer.json` says all there is to say.
 *
 * The object is itself a function, as in the reference. What touches the vocabulary is awaited: the Rust core works on
 * threads of its own. Offsets and character positions count Unicode code points, as the reference's do.
 *
 * @example
 * const tokenizer = await AutoTokenizer.from_pretrained("./model");
 * const inputs = await tokenizer(["Hello", "How are you?"], { padding: true, return_tensors: "pt" });
 * await tokenizer.batch_decode(inputs.input_ids, { skip_special_tokens: true });
 */
export interface PreTrainedTokenizerFast {
  /**
   * Encodes one text or a batch, alone or in pairs. A single text gives plain rows, a batch rows of rows;
   * `return_tensors: "pt"` gives tensors [batch, length] in either case.
   *
   * Throws `InvalidArgumentError` for options and values that make no sense, before anything is encoded.
   */
  (text: Text | readonly Text[] | null, options: AsTensors & TokenizerCallOptions): Promise<TensorEncoding>;
  (
    text: Text | readonly Text[] | null,
    text_pair: Text | readonly Text[] | null,
    options: AsTensors & TokenizerCallOptions,
  ): Promise<TensorEncoding>;
  (text: Text | readonly Text[] | null, options?: TokenizerCallOptions): Promise<BatchEncoding>;
  (
    text: Text | readonly Text[] | null,
    text_pair: Text | readonly Text[] | null,
    options?: TokenizerCallOptions,
  ): Promise<BatchEncoding>;

  bos_token: string | null;
  eos_token: string | null;
  unk_token: string | null;
  sep_token: string | null;
  pad_token: string | null;
  cls_token: string | null;
  mask_token: string | null;
  readonly bos_token_id: number | null;
  readonly eos_token_id: number | null;
  readonly unk_token_id: number | null;
  readonly sep_token_id: number | null;
  readonly pad_token_id: number | null;
  readonly cls_token_id: number | null;
  readonly mask_token_id: number | null;
}

// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: the call signature and the token attributes, made below
export class PreTrainedTokenizerFast extends Callable {
  static readonly SPECIAL_TOKENS_ATTRIBUTES: readonly string[] = SPECIAL_TOKENS;

  /** The class that Python would use: the one named in tokenizer_config.json, if it is known. */
  readonly tokenizer_class: string;
  readonly name_or_path: string;
  /** What tokenizer_config.json and the options of `from_pretrained` said. */
  readonly init_kwargs: TokenizerConfig;
  model_input_names: string[];
  padding_side: Side;
  truncation_side: Side;
  /** The longest input of the model, 1e30 where nothing limits it. */
  model_max_length: number;
  pad_token_type_id = 0;
  clean_up_tokenization_spaces: boolean;
  clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output: boolean;
  chat_template: ChatTemplates | null;

  readonly #backend: TokenizerBackend;
  readonly #special = new Map<string, Token>();
  #extra: Token[] = [];
  #warnedOfLength = false;

  /** Use `from_pretrained`, which reads the files. */
  constructor(backend: TokenizerBackend, files: TokenizerFiles) {
    super();
    const { config, tokenizer_class } = files;
    const presets: TokenizerPresets = TOKENIZER_CLASSES[tokenizer_class] ?? {};
    const inFile = { padding: backend.info.padding, truncation: backend.info.truncation };
    this.#backend = backend;
    this.tokenizer_class = tokenizer_class;
    this.name_or_path = files.name_or_path;
    this.init_kwargs = config;
    this.model_input_names = [
      ...(config.model_input_names ?? presets.model_input_names ?? ["input_ids", "attention_mask"]),
    ];
    this.padding_side = sideOf(
      config.padding_side ?? inFile.padding?.direction ?? presets.padding_side ?? "right",
      "padding_side",
    );
    this.truncation_side = sideOf(
      config.truncation_side ?? inFile.truncation?.direction ?? presets.truncation_side ?? "right",
      "truncation_side",
    );
    this.model_max_length = Number(config.model_max_length ?? config.max_len ?? VERY_LARGE_INTEGER);
    this.clean_up_tokenization_spaces =
      config.clean_up_tokenization_spaces ?? presets.clean_up_tokenization_spaces ?? false;
    this.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output =
      config.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output ?? false;
    this.chat_template = files.chat_template;
    for (const name of SPECIAL_TOKENS) {
      // A null in the file means "none"; where the file is silent, the class has its say.
      const fallback = name === "pad_token" ? (inFile.padding?.pad_token ?? presets[name]) : presets[name];
      const token = name in config ? config[name] : fallback;
      if (token !== null && token !== undefined) this.#special.set(name, token as Token);
    }
    for (const [name, token] of Object.entries(files.model_tokens)) this.#nameToken(name, token);
    this.#extra = [...files.extra_special_tokens];
  }

  /**
   * Loads a tokenizer from a directory, or from the hub's cache, that holds `tokenizer.json`.
   *
   * Further options override what tokenizer_config.json says: `padding_side`, `truncation_side`, `model_max_length`,
   * `pad_token`, `add_bos_token`, `chat_template`, …
   *
   * Throws `EntryNotFoundError` when there is no tokenizer.json, and `TokenizerError` when a file is not valid.
   *
   * @example
   * const tokenizer = await PreTrainedTokenizerFast.from_pretrained("./model", { padding_side: "left" });
   */
  static async from_pretrained<T extends typeof PreTrainedTokenizerFast>(
    this: T,
    dirOrRepo: string,
    options: TokenizerLoadOptions = {},
  ): Promise<InstanceType<T>> {
    checkOptions(withoutTokens(options), LOADING_OPTIONS, "from_pretrained");
    const files = await readTokenizerFiles(dirOrRepo, options);
    const { size } = await stat(files.tokenizer_file);
    const backend = await (size > THREAD_BYTES ? ThreadBackend : NativeBackend).load(files.tokenizer_file);
    const tokenizer = new this(backend, files) as InstanceType<T>;
    await tokenizer.#addMissing(files.added_tokens);
    if (options.add_bos_token !== undefined || options.add_eos_token !== undefined) {
      await tokenizer.#surround(options.add_bos_token ?? false, options.add_eos_token ?? false);
    }
    return tokenizer;
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Encoding

  /** What calling the tokenizer does. */
  async _call(
    text: Text | readonly Text[] | null,
    second?: Text | readonly Text[] | TokenizerCallOptions | null,
    third?: TokenizerCallOptions,
  ): Promise<BatchEncoding> {
    const isPair = typeof second === "string" || Array.isArray(second);
    if (isPair && third?.text_pair !== undefined) {
      throw new InvalidArgumentError(
        "[tokenizer] text_pair is given twice: as an argument and in the options.",
      );
    }
    const options: TokenizerCallOptions = isPair
      ? { ...third, text_pair: second as Text }
      : ((third ?? second ?? {}) as TokenizerCallOptions);
    checkOptions(options, CALL_OPTIONS, "tokenizer");
    const { text_pair = null, text_target = null, text_pair_target = null } = options;
    if (text_target === null) return await this.#encodeAll(text, text_pair, options);
    const target = await this.#encodeAll(text_target, text_pair_target, options);
    if (text === null || text === undefined) return target;
    const encoding = await this.#encodeAll(text, text_pair, options);
    encoding.labels = target.input_ids;
    return encoding;
  }

  /** The ids alone, of one text or pair. */
  async encode(
    text: Text,
    second?: Text | TokenizerCallOptions | null,
    third?: TokenizerCallOptions,
  ): Promise<number[]> {
    const encoding = await this._call(text, second, third);
    return encoding.input_ids as number[];
  }

  /** The tokens of a text, without special tokens unless asked for. */
  async tokenize(text: string, options: TokenizerCallOptions = {}): Promise<string[]> {
    return (await this._call(text, { add_special_tokens: false, ...options })).tokens();
  }

  async #encodeAll(
    text: Text | readonly Text[] | null,
    pair: Text | readonly Text[] | null,
    options: TokenizerCallOptions,
  ): Promise<BatchEncoding> {
    const {
      is_split_into_words = false,
      return_tensors,
      return_overflowing_tokens = false,
      add_special_tokens = true,
    } = options;
    const { texts, pairs, isBatch } = asBatch(text, pair, is_split_into_words);
    const { padding, truncation } = this.#strategies(options);
    const settings = { add_special_tokens, truncation, padding, overflow: return_overflowing_tokens };
    const encodings = texts.length === 0 ? [] : await this.#backend.encode(texts, pairs, settings);
    const rows = return_overflowing_tokens
      ? encodings.flatMap((encoding) => [encoding, ...encoding.overflowing])
      : encodings;
    const fields: Record<string, unknown[]> = {};
    for (const [name, column] of Object.entries(this.#columns(options))) fields[name] = rows.map(column);
    if (return_overflowing_tokens) {
      fields.overflow_to_sample_mapping = encodings.flatMap((encoding, i) =>
        new Array<number>(1 + encoding.overflowing.length).fill(i),
      );
    }
    this.#warnOfLength(rows, options);
    const isRow = !isBatch && (return_tensors ?? null) === null && !return_overflowing_tokens;
    if (!isRow) return new BatchEncoding(fields, rows).convert_to_tensors(return_tensors);
    const first = Object.entries(fields).map(([name, value]) => [
      name,
      Array.isArray(value[0]) ? value[0] : value,
    ]);
    return new BatchEncoding(Object.fromEntries(first), rows);
  }

  /** Which fields a call returns, in the reference's order. */
  #columns(options: TokenizerCallOptions): Record<string, (encoding: Encoding) => unknown> {
    const wants = (name: string, option: boolean | null | undefined) =>
      option ?? this.model_input_names.includes(name);
    return {
      input_ids: (encoding) => encoding.ids,
      ...(wants("token_type_ids", options.return_token_type_ids) && {
        token_type_ids: (encoding) => encoding.type_ids,
      }),
      ...(wants("attention_mask", options.return_attention_mask) && {
        attention_mask: (encoding) => encoding.attention_mask,
      }),
      ...(options.return_special_tokens_mask && {
        special_tokens_mask: (encoding) => encoding.special_tokens_mask,
      }),
      ...(options.return_offsets_mapping && { offset_mapping: (encoding) => encoding.offsets }),
      ...(options.return_length && { length: (encoding) => encoding.ids.length }),
    };
  }

  #warnOfLength(rows: readonly Encoding[], { max_length, verbose = true }: TokenizerCallOptions): void {
    if (
      this.#warnedOfLength ||
      !verbose ||
      (max_length ?? null) !== null ||
      this.model_max_length > LARGE_INTEGER
    )
      return;
    const longest = Math.max(0, ...rows.map(({ ids }) => ids.length));
    if (longest <= this.model_max_length) return;
    this.#warnedOfLength = true;
    warn(
      `A text of ${longest} tokens is longer than the ${this.model_max_length} that the model takes. ` +
        "Pass { truncation: true } to cut it.",
    );
  }

  /** Padding and truncation out of the options, by the reference's rules. */
  #strategies(options: TokenizerCallOptions): { padding: Padding | null; truncation: Truncation | null } {
    const call = "tokenizer";
    const paddings = [false, true, "longest", "max_length", "do_not_pad"] as const;
    const truncations = [
      null,
      false,
      true,
      "longest_first",
      "only_first",
      "only_second",
      "do_not_truncate",
    ] as const;
    const padding = checkChoice(options.padding ?? false, paddings, "padding", call);
    let truncation = checkChoice(options.truncation ?? null, truncations, "truncation", call);
    const limit = options.max_length ?? null;
    if (limit !== null) checkCount(limit, 0, "max_length", call);
    const multiple_of = options.pad_to_multiple_of ?? null;
    if (multiple_of !== null) checkCount(multiple_of, 1, "pad_to_multiple_of", call);
    const stride = checkCount(options.stride ?? 0, 0, "stride", call);

    if (limit !== null && padding === false && truncation === null) truncation = "longest_first";
    const strategy: TruncationStrategy | null =
      truncation === true
        ? "longest_first"
        : truncation === false || truncation === "do_not_truncate"
          ? null
          : truncation;
    const modelLimit = this.model_max_length > LARGE_INTEGER ? null : this.model_max_length;
    const max_length = limit ?? modelLimit;
    const doesPad =
      padding === true || padding === "longest" || (padding === "max_length" && max_length !== null);
    const doesTruncate = strategy !== null && max_length !== null;
    if (doesPad && doesTruncate && multiple_of !== null && max_length % multiple_of !== 0) {
      throw new InvalidArgumentError(
        `[${call}] max_length ${max_length} is not a multiple of pad_to_multiple_of ${multiple_of}, but both are asked for.`,
      );
    }
    const side = sideOf(options.truncation_side ?? this.truncation_side, "truncation_side");
    return {
      padding: doesPad
        ? this.#padding(padding === "max_length" ? max_length : null, multiple_of, options.padding_side)
        : null,
      truncation: doesTruncate ? { strategy, max_length, stride, side } : null,
    };
  }

  #padding(
    length: number | null,
    multiple_of: number | null,
    padding_side: Side | null | undefined,
  ): Padding {
    const { pad_token, pad_token_id } = this;
    if (pad_token === null || pad_token_id === null) {
      throw new InvalidArgumentError(
        "[tokenizer] padding is asked for, but the tokenizer has no padding token.",
        {
          hint: 'Set one: `tokenizer.pad_token = tokenizer.eos_token`, or `await tokenizer.add_special_tokens({ pad_token: "[PAD]" })`.',
        },
      );
    }
    const side = sideOf(padding_side ?? this.padding_side, "padding_side");
    return { length, multiple_of, side, id: pad_token_id, type_id: this.pad_token_type_id, token: pad_token };
  }

  /**
   * Pads encodings that were made apart: one, a list of them, or a batch of unequal rows. Pads `input_ids`,
   * `attention_mask` (made if absent), `token_type_ids` and `special_tokens_mask`; other fields are left as they are.
   *
   * @example
   * await tokenizer.pad([{ input_ids: [1, 2, 3] }, { input_ids: [4] }], { return_tensors: "pt" });
   */
  async pad(inputs: PadInput | readonly PadInput[], options: PadOptions = {}): Promise<BatchEncoding> {
    checkOptions(options, PAD_OPTIONS, "pad");
    const fields = asLists(
      Array.isArray(inputs) ? gather(inputs as readonly PadInput[]) : (inputs as PadInput),
    );
    const main = this.model_input_names[0] as string;
    const required = fields[main] as (number | number[])[] | undefined;
    if (required === undefined) {
      throw new InvalidArgumentError(
        `[pad] the inputs must have ${main}; they have ${Object.keys(fields).join(", ")}.`,
      );
    }
    const { padding = true, return_tensors } = options;
    const { padding: wanted } = this.#strategies({ ...options, padding, truncation: false });
    const withMask = options.return_attention_mask ?? this.model_input_names.includes("attention_mask");
    if (required.length === 0)
      return new BatchEncoding(withMask ? { ...fields, attention_mask: [] } : fields);
    const isBatch = Array.isArray(required[0]);
    const rows = (isBatch ? required : [required]) as number[][];
    const longest = Math.max(...rows.map((row) => row.length));
    const padded = rows.map((row, i) => {
      const own = isBatch
        ? Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, value[i]]))
        : fields;
      return this.#padRow(own, row, main, withMask, wanted, longest);
    });
    return new BatchEncoding(isBatch ? gather(padded) : padded[0]).convert_to_tensors(return_tensors);
  }

  #padRow(
    fields: Record<string, unknown>,
    row: number[],
    main: string,
    withMask: boolean,
    padding: Padding | null,
    longest: number,
  ): Record<string, unknown> {
    const mask = fields.attention_mask ?? (withMask ? new Array<number>(row.length).fill(1) : undefined);
    const out: Record<string, unknown> = { ...fields, ...(mask !== undefined && { attention_mask: mask }) };
    if (padding === null) return out;
    const length = padding.length ?? longest;
    const multiple = padding.multiple_of ?? 1;
    const missing = Math.max(0, Math.ceil(length / multiple) * multiple - row.length);
    const fills = {
      [main]: padding.id,
      attention_mask: 0,
      token_type_ids: padding.type_id,
      special_tokens_mask: 1,
    };
    for (const [name, value] of Object.entries(fills)) {
      if (!(name in out) || (name === "attention_mask" && !withMask)) continue;
      const fill = new Array<number>(missing).fill(value);
      const own = out[name] as number[];
      out[name] = padding.side === "right" ? [...own, ...fill] : [...fill, ...own];
    }
    return out;
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Decoding

  /**
   * The text of ids: of one row, or of each row of a batch (then a list of texts, also for a tensor of two dimensions;
   * `batch_decode` is typed for it).
   *
   * @example
   * await tokenizer.decode([15496, 995]); // "Hello world"
   */
  async decode(token_ids: TokenIds, options?: DecodeOptions): Promise<string>;
  async decode(
    token_ids: readonly (readonly (number | bigint)[])[],
    options?: DecodeOptions,
  ): Promise<string[]>;
  async decode(token_ids: unknown, options: DecodeOptions = {}): Promise<string | string[]> {
    checkOptions(options, ["skip_special_tokens", "clean_up_tokenization_spaces"], "decode");
    const { rows, isBatch } = idRows(token_ids);
    const texts = await this.#decodeRows(rows, options);
    return isBatch ? texts : (texts[0] as string);
  }

  /** The texts of a batch of ids; a single row gives a list of one. */
  async batch_decode(
    sequences: TokenIds | readonly TokenIds[],
    options: DecodeOptions = {},
  ): Promise<string[]> {
    checkOptions(options, ["skip_special_tokens", "clean_up_tokenization_spaces"], "batch_decode");
    return await this.#decodeRows(idRows(sequences).rows, options);
  }

  async #decodeRows(rows: number[][], options: DecodeOptions): Promise<string[]> {
    if (rows.length === 0) return [];
    const texts = await this.#backend.decode(rows, options.skip_special_tokens ?? false);
    const cleans = options.clean_up_tokenization_spaces ?? this.clean_up_tokenization_spaces;
    // The clean-up was made for WordPiece; in byte-pair texts the spaces are the author's.
    const spares =
      this.#backend.info.model_type === "BPE" &&
      !this.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output;
    return cleans && !spares ? texts.map(cleanUp) : texts;
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Vocabulary

  /** Size of the vocabulary without added tokens. */
  get vocab_size(): number {
    return this.#backend.info.vocab_size;
  }

  /** Size of the vocabulary with added tokens: the rows that the model's embedding needs. */
  get length(): number {
    return this.#backend.info.length;
  }

  /** Token to id, added tokens included. */
  async get_vocab(): Promise<Record<string, number>> {
    return await this.#backend.vocab();
  }

  /** Id of each added token, in the order of the ids. */
  get_added_vocab(): Record<string, number> {
    return Object.fromEntries(this.#backend.info.added_tokens.map(({ content, id }) => [content, id]));
  }

  /** Added tokens by id, with their matching rules. */
  get added_tokens_decoder(): Record<number, Required<AddedTokenData>> {
    return Object.fromEntries(this.#backend.info.added_tokens.map(({ id, ...token }) => [id, token]));
  }

  get added_tokens_encoder(): Record<string, number> {
    return this.get_added_vocab();
  }

  /** Ids of tokens; an unknown token has the id of `unk_token`, or null where there is none. */
  async convert_tokens_to_ids(tokens: string): Promise<number | null>;
  async convert_tokens_to_ids(tokens: readonly string[]): Promise<(number | null)[]>;
  async convert_tokens_to_ids(
    tokens: string | readonly string[],
  ): Promise<number | null | (number | null)[]> {
    const ids = await this.#backend.tokensToIds(typeof tokens === "string" ? [tokens] : tokens);
    const known = ids.map((id) => id ?? this.unk_token_id);
    return typeof tokens === "string" ? (known[0] as number | null) : known;
  }

  /** Tokens of ids, null for an id outside the vocabulary. */
  async convert_ids_to_tokens(
    ids: number | bigint,
    options?: { skip_special_tokens?: boolean },
  ): Promise<string | null>;
  async convert_ids_to_tokens(
    ids: Exclude<TokenIds, number | bigint>,
    options?: { skip_special_tokens?: boolean },
  ): Promise<(string | null)[]>;
  async convert_ids_to_tokens(
    ids: TokenIds,
    { skip_special_tokens = false }: { skip_special_tokens?: boolean } = {},
  ): Promise<string | null | (string | null)[]> {
    const row = idRows(ids).rows[0] ?? [];
    if (typeof ids === "number" || typeof ids === "bigint")
      return (await this.#backend.idsToTokens(row))[0] ?? null;
    const skipped = new Set(skip_special_tokens ? this.all_special_ids : []);
    return await this.#backend.idsToTokens(row.filter((id) => !skipped.has(id)));
  }

  /** The text that tokens stand for. */
  async convert_tokens_to_string(tokens: readonly string[]): Promise<string> {
    return await this.#backend.joinTokens(tokens);
  }

  /** How many special tokens are put around a text, or a pair. */
  async num_special_tokens_to_add(pair = false): Promise<number> {
    return await this.#backend.numSpecialTokens(pair);
  }

  /**
   * Adds tokens to the end of the vocabulary; resolves to how many were new. Tokens that the vocabulary has already
   * keep their id and are from now on matched whole. `model.resize_token_embeddings(tokenizer.length)` makes room.
   *
   * @example
   * await tokenizer.add_tokens(["<custom>", { content: "solo", single_word: true }]);
   */
  async add_tokens(
    new_tokens: Token | readonly Token[],
    options: boolean | { special_tokens?: boolean } = {},
  ): Promise<number> {
    const special = typeof options === "boolean" ? options : (options.special_tokens ?? false);
    if (typeof options !== "boolean") checkOptions(options, ["special_tokens"], "add_tokens");
    const tokens = (Array.isArray(new_tokens) ? new_tokens : [new_tokens]) as readonly Token[];
    const data = tokens.map((token) => tokenData(token, special));
    return data.length === 0 ? 0 : await this.#backend.addTokens(data);
  }

  /**
   * Names special tokens, and adds those that are not in the vocabulary; resolves to how many were added.
   *
   * @example
   * await tokenizer.add_special_tokens({ pad_token: "[PAD]", extra_special_tokens: ["<tool>"] });
   */
  async add_special_tokens(
    special_tokens: Partial<Record<NamedToken, Token>> & {
      extra_special_tokens?: readonly Token[];
      additional_special_tokens?: readonly Token[];
    },
    { replace_extra_special_tokens = true }: { replace_extra_special_tokens?: boolean } = {},
  ): Promise<number> {
    const {
      additional_special_tokens,
      extra_special_tokens = additional_special_tokens,
      ...named
    } = special_tokens;
    checkOptions(named, [...this.#special.keys(), ...SPECIAL_TOKENS], "add_special_tokens");
    const extra = (extra_special_tokens ?? [])
      .filter(
        (token) => replace_extra_special_tokens || !this.extra_special_tokens.includes(contentOf(token)),
      )
      .map((token) => tokenData(token, true));
    const tokens = Object.entries(named).map(([name, token]): [string, AddedTokenData] => [
      name,
      tokenData(token, true),
    ]);
    for (const [name, token] of tokens) this.#special.set(name, token);
    if (extra.length > 0) this.#extra = replace_extra_special_tokens ? extra : [...this.#extra, ...extra];
    const all = [...tokens.map(([, token]) => token), ...extra];
    return all.length === 0 ? 0 : await this.#backend.addTokens(all);
  }

  /** Named special tokens that are set: name to content. */
  get special_tokens_map(): Record<string, string> {
    const names = [...new Set([...SPECIAL_TOKENS, ...this.#special.keys()])].filter((name) =>
      this.#special.has(name),
    );
    return Object.fromEntries(names.map((name) => [name, contentOf(this.#special.get(name) as Token)]));
  }

  /** Special tokens beside the named ones. */
  get extra_special_tokens(): string[] {
    return this.#extra.map(contentOf);
  }

  /** Every special token once: the named ones, then the extra ones. */
  get all_special_tokens(): string[] {
    return [...new Set([...Object.values(this.special_tokens_map), ...this.extra_special_tokens])];
  }

  get all_special_ids(): number[] {
    return this.all_special_tokens.map((token) => this.#idOf(token)).filter((id) => id !== null);
  }

  /** The special token of that name, for the attributes below. */
  _namedToken(name: string): string | null {
    const token = this.#special.get(name);
    return token === undefined ? null : contentOf(token);
  }

  /** Names a token that the vocabulary has; null names none. */
  _setNamedToken(name: string, token: unknown): void {
    if (token === null || token === undefined) this.#special.delete(name);
    else if (typeof token === "string" || isAddedToken(token)) this.#special.set(name, token);
    else
      throw new InvalidArgumentError(
        `${name} must be a string, an added token or null; got ${typeof token}.`,
      );
  }

  _namedTokenId(name: string): number | null {
    const token = this._namedToken(name);
    return token === null ? null : this.#idOf(token);
  }

  #idOf(token: string): number | null {
    const added = this.#backend.info.added_tokens.find(({ content }) => content === token);
    return added?.id ?? this.#backend.tokenToIdNow(token) ?? this.#unknownId(token);
  }

  #unknownId(token: string): number | null {
    const unknown = this._namedToken("unk_token");
    return unknown === null || unknown === token ? null : this.#idOf(unknown);
  }

  /** A special token of the model's own, such as `image_token`: an attribute beside the usual ones. */
  #nameToken(name: string, token: Token): void {
    this.#special.set(name, token);
    defineToken(this, name);
  }

  /** Adds the special tokens that the configuration names and the file does not hold. */
  async #addMissing(listed: readonly AddedTokenData[]): Promise<void> {
    const known = new Set(this.#backend.info.added_tokens.map(({ content }) => content));
    const wanted = [...listed, ...this.#special.values(), ...this.#extra];
    const missing = new Map<string, AddedTokenData>();
    for (const token of wanted) {
      const content = contentOf(token);
      if (!known.has(content) && !missing.has(content))
        missing.set(content, tokenData(token, typeof token === "string"));
    }
    if (missing.size > 0) await this.#backend.addTokens([...missing.values()]);
  }

  async #surround(withBos: boolean, withEos: boolean): Promise<void> {
    const token = (name: NamedToken, wanted: boolean): [string, number] | null => {
      const [content, id] = [this[name], this[`${name}_id`]];
      return wanted && content !== null && id !== null ? [content, id] : null;
    };
    await this.#backend.surround(token("bos_token", withBos), token("eos_token", withEos));
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Chats

  /**
   * Writes a conversation, or a batch of them, in the form the model was trained on, and encodes it.
   *
   * Templates come with checkpoints and are programs: they run in a thread of their own with limits on time and memory.
   * Throws `TemplateError` when the template does not parse, fails, raises an error or exceeds a limit.
   *
   * @example
   * const inputs = await tokenizer.apply_chat_template([{ role: "user", content: "Hi!" }], {
   *   add_generation_prompt: true,
   *   return_tensors: "pt",
   * });
   */
  async apply_chat_template(
    conversation: readonly ChatMessage[] | readonly (readonly ChatMessage[])[],
    options: { tokenize: false } & ChatTemplateOptions,
  ): Promise<string>;
  async apply_chat_template(
    conversation: readonly ChatMessage[] | readonly (readonly ChatMessage[])[],
    options: ChatTemplateOptions & { return_dict: false },
  ): Promise<number[]>;
  async apply_chat_template(
    conversation: readonly ChatMessage[] | readonly (readonly ChatMessage[])[],
    options: AsTensors & ChatTemplateOptions,
  ): Promise<TensorEncoding>;
  async apply_chat_template(
    conversation: readonly ChatMessage[] | readonly (readonly ChatMessage[])[],
    options?: ChatTemplateOptions,
  ): Promise<BatchEncoding>;
  async apply_chat_template(
    conversation: readonly ChatMessage[] | readonly (readonly ChatMessage[])[],
    options: ChatTemplateOptions = {},
  ): Promise<unknown> {
    const {
      tools = null,
      documents = null,
      chat_template = null,
      add_generation_prompt = false,
      continue_final_message = false,
      tokenize = true,
      padding = false,
      truncation = false,
      max_length = null,
      return_tensors = null,
      return_dict = true,
      return_assistant_tokens_mask = false,
      tokenizer_kwargs,
      ...variables
    } = options;
    if (return_assistant_tokens_mask && !(return_dict && tokenize)) {
      throw new InvalidArgumentError(
        "return_assistant_tokens_mask needs return_dict and tokenize, which are the default.",
      );
    }
    const template = pickTemplate(this.chat_template, chat_template, tools !== null);
    const isBatch = Array.isArray(conversation[0]);
    const render: RenderOptions = {
      tools,
      documents,
      add_generation_prompt,
      continue_final_message,
      return_assistant_tokens_mask,
      variables: { ...this.special_tokens_map, ...variables },
    };
    const chats = (isBatch ? conversation : [conversation]) as readonly (readonly ChatMessage[])[];
    const rendered = await renderChats(template, chats, render);
    const texts = rendered.map(({ text }) => text);
    if (!tokenize) return isBatch ? texts : texts[0];
    const encoding = await this._call(isBatch ? texts : (texts[0] as string), {
      padding,
      truncation,
      max_length,
      add_special_tokens: false,
      ...tokenizer_kwargs,
    });
    if (return_assistant_tokens_mask) {
      const masks = rendered.map(({ generations }, i) => assistantMask(encoding, i, generations));
      encoding.assistant_masks = isBatch ? masks : (masks[0] as number[]);
    }
    encoding.convert_to_tensors(return_tensors, { prepend_batch_axis: !isBatch });
    return return_dict ? encoding : encoding.input_ids;
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Saving

  /**
   * Writes tokenizer.json, tokenizer_config.json and, if there is a chat template, chat_template.jinja (named ones in
   * `additional_chat_templates`), as the reference does; it loads them. Resolves to the paths.
   */
  async save_pretrained(save_directory: string): Promise<string[]> {
    await mkdir(save_directory, { recursive: true });
    const configFile = path.join(save_directory, "tokenizer_config.json");
    const tokenizerFile = path.join(save_directory, "tokenizer.json");
    const templates = await saveTemplates(save_directory, this.chat_template);
    await writeFileAtomic(configFile, `${readable(stringifyJson(this.#config()))}\n`);
    await this.#backend.save(tokenizerFile);
    return [configFile, ...templates, tokenizerFile];
  }

  /** The content of tokenizer_config.json: what was read, with the present values. */
  #config(): Json {
    const { chat_template, added_tokens_decoder, additional_special_tokens, ...read } = this.init_kwargs;
    const own = this as unknown as Record<string, unknown>;
    const config: Record<string, unknown> = { ...read };
    for (const name of Object.keys(read)) {
      if (name in PreTrainedTokenizerFast.prototype || !(name in this)) continue;
      config[name] = own[name];
    }
    for (const name of SPECIAL_TOKENS) if (name in config) config[name] = null;
    for (const [name, token] of this.#special)
      config[name] = typeof token === "string" ? token : token.content;
    if (this.#extra.length > 0) {
      config.extra_special_tokens = this.extra_special_tokens;
    }
    for (const name of UNSAVED) delete config[name];
    return {
      ...config,
      backend: "tokenizers",
      model_max_length: this.model_max_length,
      tokenizer_class: this.tokenizer_class,
    } as Json;
  }
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

type PadInput = Readonly<Record<string, unknown>> | BatchEncoding;

const UNSAVED = [
  "add_bos_token",
  "add_eos_token",
  "max_len",
  "name_or_path",
  "files_loaded",
  "special_tokens_map_file",
  "tokenizer_file",
  "device_map",
  "slow_tokenizer_class",
];

const withoutTokens = (options: object): object =>
  Object.fromEntries(
    Object.entries(options).filter(([name]) => !name.endsWith("_token") || name.startsWith("add_")),
  );

function sideOf(side: string, name: string): Side {
  // tokenizer.json writes "Left", the options "left".
  return checkChoice(side.toLowerCase(), ["left", "right"] as const, name, "tokenizer");
}

function tokenData(token: Token, special: boolean): AddedTokenData {
  if (typeof token === "string") return complete({ content: token, special });
  if (!isAddedToken(token))
    throw new InvalidArgumentError(`A token is a string or { content, … }; got ${JSON.stringify(token)}.`);
  return complete(special ? { ...token, special } : token);
}

/** A call's texts as a batch, by the reference's rules for what is one text and what is many. */
function asBatch(
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
function idRows(ids: unknown): { rows: number[][]; isBatch: boolean } {
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

const cleanUp = (text: string): string =>
  [" .", " ?", " !", " ,"]
    .reduce((result, mark) => result.replaceAll(mark, mark.trim()), text)
    .replaceAll(" ' ", "'")
    .replaceAll(/ (n't|'m|'s|'ve|'re)/g, "$1");

/** A list of encodings as one, with a list per field. */
function gather(rows: readonly Readonly<Record<string, unknown>>[]): Record<string, unknown[]> {
  const names = Object.keys(rows[0] ?? {});
  return Object.fromEntries(names.map((name) => [name, rows.map((row) => row[name])]));
}

const asLists = (fields: Readonly<Record<string, unknown>>): Record<string, unknown[]> =>
  Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [
      name,
      value instanceof Tensor
        ? (value.tolist() as unknown[])
        : (value as unknown[]).map((item) => (item instanceof Tensor ? item.tolist() : item)),
    ]),
  );

/** 1 for the tokens of the spans that the template marked as the assistant's. */
function assistantMask(
  encoding: BatchEncoding,
  row: number,
  generations: readonly (readonly [number, number])[],
): number[] {
  const mask = new Array<number>((encoding.encodings[row] as Encoding).ids.length).fill(0);
  for (const [start, end] of generations) {
    const first = encoding.char_to_token(row, start);
    if (first === null) break; // cut off
    const last = encoding.char_to_token(row, end - 1);
    mask.fill(1, first, last === null || last === 0 ? mask.length : last + 1);
  }
  return mask;
}

async function saveTemplates(folder: string, templates: ChatTemplates | null): Promise<string[]> {
  if (templates === null) return [];
  const named = typeof templates === "string" ? { default: templates } : templates;
  const files: string[] = [];
  for (const [name, template] of Object.entries(named)) {
    if (!/^[^\\/\0]+$/.test(name) || name === "." || name === "..") {
      throw new TokenizerError(`'${name}' cannot be the name of a chat template: it would be a file name.`);
    }
    const file =
      name === "default" ? "chat_template.jinja" : path.join("additional_chat_templates", `${name}.jinja`);
    files.push(path.join(folder, file));
    await writeFileAtomic(files.at(-1) as string, template);
  }
  return files;
}

/** Beyond ASCII the reference writes tokenizer_config.json as it is, not as escapes. */
const readable = (json: string): string =>
  json.replaceAll(/\\\\|\\u([0-9a-f]{4})/g, (whole, code: string | undefined) =>
    code === undefined || Number.parseInt(code, 16) < 0x80
      ? whole
      : String.fromCharCode(Number.parseInt(code, 16)),
  );

/** `name` and `name_id` as attributes of a tokenizer, or of all of them. */
function defineToken(target: object, name: string): void {
  Object.defineProperties(target, {
    [name]: {
      configurable: true,
      get(this: PreTrainedTokenizerFast) {
        return this._namedToken(name);
      },
      set(this: PreTrainedTokenizerFast, token: unknown) {
        this._setNamedToken(name, token);
      },
    },
    [`${name}_id`]: {
      configurable: true,
      get(this: PreTrainedTokenizerFast) {
        return this._namedTokenId(name);
      },
    },
  });
}

for (const name of SPECIAL_TOKENS) defineToken(PreTrainedTokenizerFast.prototype, name);

export { PreTrainedTokenizerFast as PreTrainedTokenizerBase, PreTrainedTokenizerFast as TokenizersBackend };
