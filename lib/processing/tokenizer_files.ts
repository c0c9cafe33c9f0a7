// The files beside tokenizer.json: what they say is merged here, by the reference's rules of precedence.

import path from "node:path";
import { EntryNotFoundError, TokenizerError } from "../errors/index.ts";
import { filesIn, findFile, HUB_OPTIONS, hasFile, prefetch, readText } from "../hub/files.ts";
import { isRecord, parseJson } from "../json/json.ts";
import type { ChatTemplates } from "./chat_template.ts";
import { isAddedToken, isNamedToken, SPECIAL_TOKENS, type Token } from "./special_tokens.ts";
import type { AddedTokenData } from "./tokenizer_backend.ts";
import { TOKENIZER_CLASS_OF_MODEL, TOKENIZER_CLASSES } from "./tokenizer_classes.generated.ts";
import type { TokenizerLoadOptions } from "./tokenizer_options.ts";

/** The content of tokenizer_config.json; unknown fields are kept. */
export interface TokenizerConfig {
  tokenizer_class?: string;
  model_input_names?: string[];
  padding_side?: string;
  truncation_side?: string;
  model_max_length?: number | bigint | null;
  max_len?: number;
  clean_up_tokenization_spaces?: boolean;
  clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output?: boolean;
  [field: string]: unknown;
}

/** All that the files say, ready for the tokenizer. */
export interface TokenizerFiles {
  readonly name_or_path: string;
  readonly tokenizer_file: string;
  readonly tokenizer_class: string;
  readonly config: TokenizerConfig;
  readonly chat_template: ChatTemplates | null;
  /** Special tokens of the model's own, by attribute name. */
  readonly model_tokens: Readonly<Record<string, Token>>;
  readonly extra_special_tokens: readonly Token[];
  /** Tokens that the configuration lists beside the vocabulary, in the order of their ids. */
  readonly added_tokens: readonly AddedTokenData[];
}

const TOKENIZER_FILE = "tokenizer.json";
const TEMPLATES_FOLDER = "additional_chat_templates";
/** Vocabularies that need a conversion first; named in the error. */
const OTHER_VOCABULARIES = [
  "tokenizer.model",
  "spiece.model",
  "sentencepiece.bpe.model",
  "vocab.json",
  "vocab.txt",
  "tekken.json",
  "tiktoken.model",
];
/** Options that say where to look, and older ones that change nothing here. */
const PLACE_OPTIONS = [
  ...HUB_OPTIONS,
  "trust_remote_code",
  "code_revision",
  "use_fast",
  "legacy",
  "from_slow",
  "tokenizer_type",
  "config",
] as const;
const NOT_CONFIG = new Set<string>(PLACE_OPTIONS);

/** Options of `from_pretrained`; names that end in `_token` are accepted besides. */
export const LOADING_OPTIONS = [
  ...PLACE_OPTIONS,
  "padding_side",
  "truncation_side",
  "model_max_length",
  "model_input_names",
  "clean_up_tokenization_spaces",
  "chat_template",
  "extra_special_tokens",
  "additional_special_tokens",
  "add_bos_token",
  "add_eos_token",
] as const;

export async function readTokenizerFiles(
  dirOrRepo: string,
  given: TokenizerLoadOptions,
): Promise<TokenizerFiles> {
  const options = await prefetch(dirOrRepo, await usualFiles(dirOrRepo, given), given);
  const read = async (name: string): Promise<Record<string, unknown> | undefined> => {
    const file = await findFile(dirOrRepo, name, options);
    if (file === undefined) return undefined;
    const value = parseJson(await readText(file, TokenizerError), { file, error: TokenizerError });
    if (!isRecord(value)) throw new TokenizerError(`${file} must hold a JSON object.`);
    return value;
  };
  const config = (await read("tokenizer_config.json")) as TokenizerConfig | undefined;
  const tokenizer_file = await findTokenizerFile(dirOrRepo, config, options);
  const model = config?.tokenizer_class === undefined ? await read("config.json") : undefined;
  const merged: TokenizerConfig = { ...config };
  for (const [name, value] of Object.entries(options)) if (!NOT_CONFIG.has(name)) merged[name] = value;
  const chat_template = await readTemplates(dirOrRepo, merged, options);

  const listed = addedTokensOf(merged.added_tokens_decoder);
  if (merged.added_tokens_decoder === undefined) {
    mergeSpecialTokensMap(merged, (await read("special_tokens_map.json")) ?? {}, options);
    listed.push(...legacyAddedTokens((await read("added_tokens.json")) ?? {}, merged));
  }
  const extra = merged.extra_special_tokens ?? merged.additional_special_tokens;
  delete merged.additional_special_tokens;
  const rules = new Map(listed.map((token) => [token.content, token]));
  const token = (value: unknown): Token => {
    if (typeof value === "string") return rules.get(value) ?? value;
    if (isAddedToken(value)) return rules.get(value.content) ?? withoutType(value);
    throw new TokenizerError(`A special token of ${dirOrRepo} is neither a string nor an added token.`);
  };
  const model_tokens: Record<string, Token> = {};
  for (const [name, value] of Object.entries({ ...merged, ...(isRecord(extra) ? extra : {}) })) {
    const isToken = typeof value === "string" || isAddedToken(value);
    const isNamed = isToken && (name.endsWith("_token") || (isRecord(extra) && name in extra));
    if (!isNamed) continue;
    if (isNamedToken(name)) merged[name] = token(value);
    else model_tokens[name] = token(value);
  }
  return {
    name_or_path: dirOrRepo,
    tokenizer_file,
    tokenizer_class: classOf(config?.tokenizer_class ?? model?.tokenizer_class, model?.model_type),
    config: merged,
    chat_template,
    model_tokens,
    extra_special_tokens: Array.isArray(extra) ? extra.map(token) : [],
    added_tokens: listed,
  };
}

/** What most tokenizers consist of, to be downloaded side by side. */
async function usualFiles(dirOrRepo: string, options: TokenizerLoadOptions): Promise<string[]> {
  const templates = await filesIn(dirOrRepo, TEMPLATES_FOLDER, options);
  return [
    "tokenizer_config.json",
    TOKENIZER_FILE,
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    ...templates.filter((name) => name.endsWith(".jinja")).map((name) => `${TEMPLATES_FOLDER}/${name}`),
  ];
}

/** The name Python would use for the class: of the configuration if it is a known one, else by the model, else the base. */
function classOf(declared: unknown, model_type: unknown): string {
  const name =
    typeof declared === "string"
      ? declared.replace(/Fast$/, "")
      : TOKENIZER_CLASS_OF_MODEL[String(model_type)];
  return name !== undefined && name in TOKENIZER_CLASSES ? name : "TokenizersBackend";
}

async function findTokenizerFile(
  dirOrRepo: string,
  config: TokenizerConfig | undefined,
  options: TokenizerLoadOptions,
): Promise<string> {
  const file = await findFile(dirOrRepo, TOKENIZER_FILE, options);
  if (file !== undefined) return file;
  const others: string[] = [];
  for (const name of OTHER_VOCABULARIES) {
    if (await hasFile(dirOrRepo, name, options)) others.push(name);
  }
  const place = path.join(dirOrRepo, options.subfolder ?? "");
  const kind = config?.tokenizer_class === undefined ? "" : ` for ${config.tokenizer_class}`;
  throw new EntryNotFoundError(
    `${place} has no tokenizer${kind}: looked for ${TOKENIZER_FILE}` +
      (others.length === 0
        ? ` and, to explain its absence, for ${OTHER_VOCABULARIES.join(", ")}.`
        : `, found ${others.join(", ")}.`),
    others.length === 0
      ? {}
      : {
          hint: "These need a conversion: load them once with Python's AutoTokenizer and save_pretrained, which writes tokenizer.json.",
        },
  );
}

/** Template files take precedence over the configuration's entry. */
async function readTemplates(
  dirOrRepo: string,
  config: TokenizerConfig,
  options: TokenizerLoadOptions,
): Promise<ChatTemplates | null> {
  if (options.chat_template !== undefined) return options.chat_template;
  const files: Record<string, string> = {};
  const main = await findFile(dirOrRepo, "chat_template.jinja", options);
  if (main !== undefined) files.default = await readText(main, TokenizerError);
  for (const name of await filesIn(dirOrRepo, TEMPLATES_FOLDER, options)) {
    if (!name.endsWith(".jinja")) continue;
    const file = await findFile(dirOrRepo, `${TEMPLATES_FOLDER}/${name}`, options);
    if (file !== undefined) files[name.slice(0, -".jinja".length)] = await readText(file, TokenizerError);
  }
  const names = Object.keys(files);
  if (names.length === 1 && names[0] === "default") return files.default as string;
  if (names.length > 0) return files;
  const inConfig = config.chat_template;
  if (typeof inConfig === "string") return inConfig;
  if (!Array.isArray(inConfig)) return isRecord(inConfig) ? (inConfig as Record<string, string>) : null;
  return Object.fromEntries(
    inConfig.map(({ name, template }: { name: string; template: string }) => [name, template]),
  );
}

const withoutType = ({
  content,
  single_word,
  lstrip,
  rstrip,
  normalized,
  special,
}: AddedTokenData): AddedTokenData => {
  const rules = { single_word, lstrip, rstrip, normalized, special };
  const given = Object.entries(rules).filter(([, value]) => typeof value === "boolean");
  return { content, ...Object.fromEntries(given) };
};

function addedTokensOf(decoder: unknown): AddedTokenData[] {
  if (decoder === undefined || decoder === null) return [];
  if (!isRecord(decoder)) throw new TokenizerError("added_tokens_decoder must map ids to tokens.");
  const byId = Object.entries(decoder).sort(([a], [b]) => Number(a) - Number(b));
  return byId.map(([id, value]) => {
    if (isAddedToken(value)) return withoutType(value);
    throw new TokenizerError(`added_tokens_decoder['${id}'] must be an added token.`);
  });
}

/** Older checkpoints keep their special tokens in a file of their own. */
function mergeSpecialTokensMap(
  config: TokenizerConfig,
  map: Record<string, unknown>,
  options: TokenizerLoadOptions,
): void {
  for (const [name, value] of Object.entries(map)) {
    if (options[name]) continue;
    if (name === "extra_special_tokens" && Array.isArray(value)) {
      const existing = Array.isArray(config[name]) ? (config[name] as Token[]) : [];
      config[name] = [...existing, ...value.filter((token) => !existing.includes(token as Token))];
    } else {
      config[name] = isAddedToken(value) ? { ...value, special: true } : value;
    }
  }
}

/** added_tokens.json: token to id. */
function legacyAddedTokens(encoder: Record<string, unknown>, config: TokenizerConfig): AddedTokenData[] {
  const contents = SPECIAL_TOKENS.map((name) => config[name]);
  const extra = config.extra_special_tokens ?? config.additional_special_tokens;
  if (Array.isArray(extra)) contents.push(...extra);
  const special = new Set(contents.map((token) => (isAddedToken(token) ? token.content : token)));
  return Object.entries(encoder)
    .sort(([, a], [, b]) => Number(a) - Number(b))
    .map(([content]) => ({ content, special: special.has(content), normalized: !special.has(content) }));
}
