// AutoTokenizer: the tokenizer of a checkpoint, whatever its kind.

import { registerForAutoClass } from "../custom_code/auto_classes.ts";
import { type Asked, remoteClass } from "../custom_code/load_class.ts";
import { InvalidArgumentError, TorchformersError } from "../errors/index.ts";
import { findFile, type HubOptions, pin, readText } from "../hub/files.ts";
import { parseJson } from "../json/json.ts";
import { PreTrainedTokenizerFast } from "../processing/tokenization_utils.ts";
import type { TokenizerLoadOptions } from "../processing/tokenizer_options.ts";
import { assertConfigClass, assertRemoteClass } from "./configuration_auto.ts";
import type { KeyClass } from "./lazy_mapping.ts";
import { CONFIG_CLASS_NAMES } from "./mappings.generated.ts";

/** A class of tokenizers: ours, or one that a program registers. */
export interface TokenizerClass {
  readonly name: string;
  from_pretrained(dirOrRepo: string, options?: TokenizerLoadOptions): Promise<PreTrainedTokenizerFast>;
}

/** The reference's form of a registration. */
export interface TokenizerRegisterOptions {
  readonly tokenizer_class?: TokenizerClass;
  readonly slow_tokenizer_class?: TokenizerClass;
  /** Taken before the slow one. */
  readonly fast_tokenizer_class?: TokenizerClass;
  readonly exist_ok?: boolean;
}

/** Keys: the `tokenizer_class` of tokenizer_config.json, or the `model_type` of config.json. */
const registered = new Map<string, TokenizerClass>();

/** The field of a JSON file of the checkpoint, undefined where either is absent or no string. */
async function fieldOf(
  dirOrRepo: string,
  file: string,
  field: string,
  options: HubOptions,
): Promise<string | undefined> {
  const found = await findFile(dirOrRepo, file, options);
  if (found === undefined) return undefined;
  const value = (parseJson(await readText(found), { file: found }) as Record<string, unknown> | null)?.[
    field
  ];
  return typeof value === "string" ? value : undefined;
}

async function registeredClass(dirOrRepo: string, options: HubOptions): Promise<TokenizerClass | undefined> {
  if (registered.size === 0) return undefined;
  const declared = await fieldOf(dirOrRepo, "tokenizer_config.json", "tokenizer_class", options);
  const own = registered.get(declared ?? "") ?? registered.get(`${declared}Fast`);
  if (own !== undefined) return own;
  const { config } = options as { config?: { readonly model_type?: string } };
  const model_type = config?.model_type ?? (await fieldOf(dirOrRepo, "config.json", "model_type", options));
  return registered.get(model_type ?? "");
}

/** The class that a repository brings along, if it is to be used. Without trust, tokenizer.json says all there is to say. */
async function remoteTokenizer(
  source: string,
  options: TokenizerLoadOptions,
  asked: Asked,
  own: TokenizerClass | undefined,
): Promise<TokenizerClass | undefined> {
  if (!options.trust_remote_code) return undefined;
  const file = await findFile(source, "tokenizer_config.json", options);
  if (file === undefined) return undefined;
  const { auto_map } = (parseJson(await readText(file), { file }) ?? {}) as { auto_map?: unknown };
  const remote = (await remoteClass({
    auto: "AutoTokenizer",
    auto_map,
    file,
    source,
    options,
    asked,
    model_type: undefined,
    known: { name: (own ?? PreTrainedTokenizerFast).name, isRegistered: own !== undefined },
  })) as typeof PreTrainedTokenizerFast | undefined;
  if (remote === undefined) return undefined;
  assertRemoteClass(remote, PreTrainedTokenizerFast, source);
  registerForAutoClass(remote, "AutoTokenizer");
  return remote;
}

/** Makes the tokenizer that goes with a checkpoint. */
export class AutoTokenizer {
  constructor() {
    throw new TorchformersError(
      "ERR_INVALID_ARGUMENT",
      "AutoTokenizer is not constructed: use AutoTokenizer.from_pretrained(directory).",
    );
  }

  /**
   * Loads the tokenizer of a directory, or of a repository on the hub ("org/name", "org/name@revision"); see
   * `PreTrainedTokenizerFast.from_pretrained` for the options and errors.
   *
   * @example
   * const tokenizer = await AutoTokenizer.from_pretrained("./model");
   * const { input_ids } = await tokenizer("Hello world", { return_tensors: "pt" });
   */
  static async from_pretrained(
    dirOrRepo: string,
    options: TokenizerLoadOptions = {},
  ): Promise<PreTrainedTokenizerFast> {
    const { name, options: pinned } = await pin(dirOrRepo, options);
    const asked = { dirOrRepo, revision: options.revision };
    const own = await registeredClass(name, pinned);
    const Class = (await remoteTokenizer(name, pinned, asked, own)) ?? own ?? PreTrainedTokenizerFast;
    return await Class.from_pretrained(name, pinned);
  }

  /**
   * Adds a class for checkpoints whose `tokenizer_class` is the class's name, or, given a configuration class, whose
   * `model_type` is that of the configuration. A model type of this library needs `exist_ok`.
   *
   * Throws `InvalidArgumentError` for a name that is taken, and for what is no class.
   *
   * @param tokenizer_class the class, or the reference's options with `slow_tokenizer_class`, `fast_tokenizer_class`.
   * @example AutoTokenizer.register(MyConfig, MyTokenizer);
   */
  static register(
    config_class: KeyClass | null,
    tokenizer_class: TokenizerClass | TokenizerRegisterOptions,
    options: { readonly exist_ok?: boolean } = {},
  ): void {
    const isClass = typeof tokenizer_class === "function";
    const given = (isClass ? { tokenizer_class } : tokenizer_class) as TokenizerRegisterOptions;
    const { slow_tokenizer_class, fast_tokenizer_class, exist_ok = options.exist_ok ?? false } = given;
    const chosen = given.tokenizer_class ?? fast_tokenizer_class ?? slow_tokenizer_class;
    if (typeof chosen?.from_pretrained !== "function") {
      throw new InvalidArgumentError("[AutoTokenizer.register] There is no class of tokenizers.", {
        hint: "The order is AutoTokenizer.register(MyConfig, MyTokenizer).",
      });
    }
    if (config_class !== null) assertConfigClass("AutoTokenizer.register", config_class);
    const entries = new Map<string, TokenizerClass>();
    // A file may name either; what loads is the same.
    for (const each of [slow_tokenizer_class, fast_tokenizer_class, chosen])
      if (each !== undefined) entries.set(each.name, chosen);
    if (config_class !== null) entries.set(config_class.model_type, chosen);
    for (const key of entries.keys()) {
      const isNative = key === config_class?.model_type && CONFIG_CLASS_NAMES[key] === config_class.name;
      const isTaken = isNative || (registered.has(key) && registered.get(key) !== chosen);
      if (!isTaken || exist_ok) continue;
      throw new InvalidArgumentError(`[AutoTokenizer.register] '${key}' has a class of tokenizers already.`, {
        hint: `To let ${chosen.name} win in this process: AutoTokenizer.register(${config_class?.name ?? "null"}, ${chosen.name}, { exist_ok: true });`,
      });
    }
    for (const [key, each] of entries) registered.set(key, each);
  }
}
