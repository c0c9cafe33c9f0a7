// Tokenizers: text to the ids that a model reads, and back. The rules are those of tokenizer.json, run by the Rust core
// (native_backend.ts); the names, defaults and results are those of the reference.

import { mkdir, stat } from "node:fs/promises";
import path from "node:path";
import { registerForAutoClass } from "../custom_code/auto_classes.ts";
import { gatherCode, writeCode } from "../custom_code/save_code.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import { warn } from "../errors/warnings.ts";
import { writeFileAtomic } from "../hub/atomic.ts";
import { pin } from "../hub/files.ts";
import { loadingCard } from "../hub/model_card.ts";
import type { Pushable, PushToHubOptions, SaveAndPushOptions } from "../hub/push.ts";
import type { CommitInfo } from "../hub/upload.ts";
import { isRecord, type Json, stringifyJson } from "../json/json.ts";
import { BatchEncoding, type TensorEncoding } from "./batch_encoding.ts";
import {
  assistantMask,
  type ChatMessage,
  type ChatTemplates,
  pickTemplate,
  type RenderOptions,
  renderChats,
} from "./chat_template.ts";
import type { Encoding } from "./encoding.ts";
import { NativeBackend } from "./native_backend.ts";
import { checkOptions } from "./options.ts";
import { SPECIAL_TOKENS } from "./special_tokens.ts";
import { asBatch, cleanUp, idRows } from "./token_ids.ts";
import type { Side, Text, TokenizerBackend } from "./tokenizer_backend.ts";
import { TOKENIZER_CLASSES } from "./tokenizer_classes.generated.ts";
import { LOADING_OPTIONS, readTokenizerFiles, type TokenizerFiles } from "./tokenizer_files.ts";
import {
  CALL_OPTIONS,
  type ChatTemplateOptions,
  type DecodeOptions,
  PAD_OPTIONS,
  type PadOptions,
  type TokenIds,
  type TokenizerCallOptions,
  type TokenizerLoadOptions,
  type TokenizerPresets,
} from "./tokenizer_options.ts";
import {
  asLists,
  gather,
  LARGE_INTEGER,
  type PadInput,
  padRow,
  sideOf,
  strategiesOf,
} from "./tokenizer_padding.ts";
import { readable, saveTemplates, UNSAVED } from "./tokenizer_saving.ts";
import { ThreadBackend } from "./tokenizer_thread.ts";
import { TokenizerVocabulary } from "./tokenizer_vocabulary.ts";

type AsTensors = { readonly return_tensors: "pt" };

const VERY_LARGE_INTEGER = 1e30;

/** Files above this size are parsed and run in a thread of their own. */
const THREAD_BYTES = 1_000_000;

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
}

// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: the call signature, made by Callable
export class PreTrainedTokenizerFast extends TokenizerVocabulary {
  /** The Auto class that finds this one where its code is shared; see {@link register_for_auto_class}. */
  static _auto_class: string | null = null;

  /**
   * Says that the code of this class is to be saved beside the tokenizer's files, for `AutoTokenizer.from_pretrained` with
   * `trust_remote_code: true`.
   *
   * @example
   * MyTokenizer.register_for_auto_class();
   */
  static register_for_auto_class(auto_class: string | { readonly name: string } = "AutoTokenizer"): void {
    // biome-ignore lint/complexity/noThisInStatic: the subclass is what is registered.
    registerForAutoClass(this, auto_class);
  }

  model_input_names: string[];
  padding_side: Side;
  truncation_side: Side;
  /** The longest input of the model, 1e30 where nothing limits it. */
  model_max_length: number;
  pad_token_type_id = 0;
  clean_up_tokenization_spaces: boolean;
  clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output: boolean;
  chat_template: ChatTemplates | null;

  #warnedOfLength = false;

  /** Use `from_pretrained`, which reads the files. */
  constructor(backend: TokenizerBackend, files: TokenizerFiles) {
    super(backend, files);
    const { config, tokenizer_class } = files;
    const presets: TokenizerPresets = TOKENIZER_CLASSES[tokenizer_class] ?? {};
    const inFile = { padding: backend.info.padding, truncation: backend.info.truncation };
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
  }

  /**
   * Loads a tokenizer from a directory or a repository on the hub that holds `tokenizer.json`.
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
    const { name, options: pinned } = await pin(dirOrRepo, options);
    const files = await readTokenizerFiles(name, pinned);
    const { size } = await stat(files.tokenizer_file);
    const backend = await (size > THREAD_BYTES ? ThreadBackend : NativeBackend).load(files.tokenizer_file);
    const tokenizer = new this(backend, files) as InstanceType<T>;
    await tokenizer._addMissing(files.added_tokens);
    if (options.add_bos_token !== undefined || options.add_eos_token !== undefined) {
      await tokenizer._surround(options.add_bos_token ?? false, options.add_eos_token ?? false);
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
    const { padding, truncation } = strategiesOf(options, this);
    const settings = { add_special_tokens, truncation, padding, overflow: return_overflowing_tokens };
    const encodings = texts.length === 0 ? [] : await this._backend.encode(texts, pairs, settings);
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
    const { padding: wanted } = strategiesOf({ ...options, padding, truncation: false }, this);
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
      return padRow(own, row, main, withMask, wanted, longest);
    });
    return new BatchEncoding(isBatch ? gather(padded) : padded[0]).convert_to_tensors(return_tensors);
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
    const texts = await this._backend.decode(rows, options.skip_special_tokens ?? false);
    const cleans = options.clean_up_tokenization_spaces ?? this.clean_up_tokenization_spaces;
    // The clean-up was made for WordPiece; in byte-pair texts the spaces are the author's.
    const spares =
      this._backend.info.model_type === "BPE" &&
      !this.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output;
    return cleans && !spares ? texts.map(cleanUp) : texts;
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
   * `additional_chat_templates`), as the reference does; it loads them. With `push_to_hub` they are sent to the hub too, to
   * `repo_id` (default: the name of the directory). Resolves to the paths.
   */
  async save_pretrained(save_directory: string, options: SaveAndPushOptions = {}): Promise<string[]> {
    if (options.push_to_hub !== true) return this.#write(save_directory);
    const { saveAndPush } = await import("../hub/push.ts");
    let files: string[] = [];
    const save = async (folder: string) => {
      files = await this.#write(folder);
    };
    await saveAndPush({ ...this.#pushable(), save }, save_directory, options);
    return files;
  }

  /**
   * Sends the tokenizer's files to the hub, into a repository that is made if need be. Resolves to the commit.
   *
   * @example
   * await tokenizer.push_to_hub("user/my-model");
   */
  async push_to_hub(repo_id: string, options: PushToHubOptions = {}): Promise<CommitInfo> {
    const { pushToHub } = await import("../hub/push.ts");
    return pushToHub(this.#pushable(), repo_id, options);
  }

  #pushable(): Pushable {
    return {
      name: "tokenizer",
      save: (folder) => this.#write(folder),
      card: loadingCard(`A tokenizer (\`${this.tokenizer_class}\`).`, "AutoTokenizer", "tokenizer"),
    };
  }

  async #write(save_directory: string): Promise<string[]> {
    await mkdir(save_directory, { recursive: true });
    const configFile = path.join(save_directory, "tokenizer_config.json");
    const tokenizerFile = path.join(save_directory, "tokenizer.json");
    const templates = await saveTemplates(save_directory, this.chat_template);
    const cls = this.constructor as typeof PreTrainedTokenizerFast;
    const code = await gatherCode(cls);
    await writeCode(save_directory, [code]);
    const config = { ...(this.#config() as Record<string, Json>) };
    if (code !== undefined) {
      // The slow class and the fast one, as the reference writes them.
      const pair = cls.name.endsWith("Fast") ? [null, code.reference] : [code.reference, null];
      const present = isRecord(config.auto_map) ? config.auto_map : {};
      config.auto_map = { ...present, [cls._auto_class as string]: pair } as Json;
    }
    await writeFileAtomic(configFile, `${readable(stringifyJson(config))}\n`);
    await this._backend.save(tokenizerFile);
    const sources = [...(code?.files.keys() ?? [])].map((name) => path.join(save_directory, name));
    return [configFile, ...templates, tokenizerFile, ...sources];
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
    for (const [name, token] of this._named_tokens)
      config[name] = typeof token === "string" ? token : token.content;
    if (this.extra_special_tokens.length > 0) {
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

const withoutTokens = (options: object): object =>
  Object.fromEntries(
    Object.entries(options).filter(([name]) => !name.endsWith("_token") || name.startsWith("add_")),
  );

export { PreTrainedTokenizerFast as PreTrainedTokenizerBase, PreTrainedTokenizerFast as TokenizersBackend };
