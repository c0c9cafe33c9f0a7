// AutoTokenizer: the tokenizer of a checkpoint, whatever its kind.

import { InvalidArgumentError, TorchformersError } from "../errors/index.ts";
import { findFile, type HubOptions, pin, readText } from "../hub/files.ts";
import { parseJson } from "../json/json.ts";
import { PreTrainedTokenizerFast } from "../processing/tokenization_utils.ts";
import type { TokenizerLoadOptions } from "../processing/tokenizer_options.ts";

/** A class of tokenizers: ours, or one that a program registers. */
export interface TokenizerClass {
  readonly name: string;
  from_pretrained(dirOrRepo: string, options?: TokenizerLoadOptions): Promise<PreTrainedTokenizerFast>;
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
  return own ?? registered.get((await fieldOf(dirOrRepo, "config.json", "model_type", options)) ?? "");
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
    const Class = (await registeredClass(name, pinned)) ?? PreTrainedTokenizerFast;
    return await Class.from_pretrained(name, pinned);
  }

  /**
   * Adds a class for checkpoints whose `tokenizer_class` is the class's name, or, given a configuration class, whose
   * `model_type` is that of the configuration.
   */
  static register(
    config_class: { readonly model_type: string } | null,
    tokenizer_class: TokenizerClass,
    { exist_ok = false }: { exist_ok?: boolean } = {},
  ): void {
    const keys = [tokenizer_class.name, ...(config_class === null ? [] : [config_class.model_type])];
    for (const key of keys) {
      if (registered.has(key) && registered.get(key) !== tokenizer_class && !exist_ok) {
        throw new InvalidArgumentError(
          `AutoTokenizer has a class for '${key}' already; pass { exist_ok: true } to replace it.`,
        );
      }
    }
    for (const key of keys) registered.set(key, tokenizer_class);
  }
}
