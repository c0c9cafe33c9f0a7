// What a tokenizer knows of its vocabulary: tokens and ids, added tokens, special tokens.

import { InvalidArgumentError } from "../errors/index.ts";
import { Callable } from "./callable.ts";
import { checkOptions } from "./options.ts";
import {
  contentOf,
  isAddedToken,
  type NamedToken,
  SPECIAL_TOKENS,
  type Token,
  tokenData,
} from "./special_tokens.ts";
import { idRows } from "./token_ids.ts";
import type { AddedTokenData, TokenizerBackend } from "./tokenizer_backend.ts";
import { TOKENIZER_CLASSES } from "./tokenizer_classes.generated.ts";
import type { TokenizerConfig, TokenizerFiles } from "./tokenizer_files.ts";
import type { TokenIds, TokenizerPresets } from "./tokenizer_options.ts";

/** The attributes of the usual special tokens. */
export interface TokenizerVocabulary {
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

/** Base class of tokenizers: the vocabulary that they share with a model, and which of its tokens are special. */
// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: the attributes are made below
export abstract class TokenizerVocabulary extends Callable {
  static readonly SPECIAL_TOKENS_ATTRIBUTES: readonly string[] = SPECIAL_TOKENS;

  /** The class that Python would use: the one named in tokenizer_config.json, if it is known. */
  readonly tokenizer_class: string;
  readonly name_or_path: string;
  /** What tokenizer_config.json and the options of `from_pretrained` said. */
  readonly init_kwargs: TokenizerConfig;

  readonly #backend: TokenizerBackend;
  readonly #special = new Map<string, Token>();
  #extra: Token[] = [];

  constructor(backend: TokenizerBackend, files: TokenizerFiles) {
    super();
    const { config, tokenizer_class } = files;
    this.#backend = backend;
    this.tokenizer_class = tokenizer_class;
    this.name_or_path = files.name_or_path;
    this.init_kwargs = config;
    const presets: TokenizerPresets = TOKENIZER_CLASSES[tokenizer_class] ?? {};
    for (const name of SPECIAL_TOKENS) {
      // A null in the file means "none"; where the file is silent, the class has its say.
      const fallback =
        name === "pad_token" ? (backend.info.padding?.pad_token ?? presets[name]) : presets[name];
      const token = name in config ? config[name] : fallback;
      if (token !== null && token !== undefined) this.#special.set(name, token as Token);
    }
    for (const [name, token] of Object.entries(files.model_tokens)) this.#nameToken(name, token);
    this.#extra = [...files.extra_special_tokens];
  }

  protected get _backend(): TokenizerBackend {
    return this.#backend;
  }

  /** Special tokens by name, as they were given. */
  protected get _named_tokens(): ReadonlyMap<string, Token> {
    return this.#special;
  }

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

  /** The special token of that name, for the attributes of that name. */
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
  protected async _addMissing(listed: readonly AddedTokenData[]): Promise<void> {
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

  /** Puts these tokens around every text from now on. */
  protected async _surround(withBos: boolean, withEos: boolean): Promise<void> {
    const token = (name: NamedToken, wanted: boolean): [string, number] | null => {
      const [content, id] = [this[name], this[`${name}_id`]];
      return wanted && content !== null && id !== null ? [content, id] : null;
    };
    await this.#backend.surround(token("bos_token", withBos), token("eos_token", withEos));
  }
}

/** `name` and `name_id` as attributes of a tokenizer, or of all of them. */
function defineToken(target: object, name: string): void {
  Object.defineProperties(target, {
    [name]: {
      configurable: true,
      get(this: TokenizerVocabulary) {
        return this._namedToken(name);
      },
      set(this: TokenizerVocabulary, token: unknown) {
        this._setNamedToken(name, token);
      },
    },
    [`${name}_id`]: {
      configurable: true,
      get(this: TokenizerVocabulary) {
        return this._namedTokenId(name);
      },
    },
  });
}

for (const name of SPECIAL_TOKENS) defineToken(TokenizerVocabulary.prototype, name);
