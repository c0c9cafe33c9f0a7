// PEFT's files: adapter_config.json and adapter_model.safetensors in a folder or on the hub.
import path from "node:path";
import { folderTools } from "../addon/folder_tools.ts";
import { readConfigFile } from "../configuration/config_files.ts";
import { CheckpointError, ConfigError, EntryNotFoundError, InvalidArgumentError } from "../errors/index.ts";
import { findFile, type HubOptions, kindOf, missing } from "../hub/files.ts";
import { replaceInFolder } from "../hub/folder_transaction.ts";
import { assertInside } from "../hub/links.ts";
import { load_file, save_file } from "../safetensors/index.ts";
import type { Tensor } from "../torch/index.ts";
import { ADAPTER_CONFIG_NAME, LoraConfig } from "./config.ts";
import type { Adaptable } from "./inject.ts";
import { type AdapterStateOptions, configOf, FILE_PREFIX, get_peft_model_state_dict } from "./state.ts";

export const ADAPTER_WEIGHTS_NAME = "adapter_model.safetensors";
const PICKLED_WEIGHTS_NAME = "adapter_model.bin";

/** An adapter in a folder or repository, and the model that it is for. */
export interface AdapterSource {
  /** Where the base model is: the folder itself, when it holds a config.json too. */
  readonly base: string;
  readonly isEmbedded: boolean;
}

/**
 * Whether a folder or repository holds an adapter, and where its base model is.
 *
 * @throws ConfigError when the adapter names no base model.
 */
export async function findAdapter(
  dirOrRepo: string,
  options: HubOptions,
): Promise<AdapterSource | undefined> {
  let file: string | undefined;
  try {
    file = await findFile(dirOrRepo, ADAPTER_CONFIG_NAME, options);
  } catch (error) {
    // What is not there at all is told of by whoever looks for the model.
    if (!(error instanceof EntryNotFoundError)) throw error;
  }
  if (file === undefined) return undefined;
  // A whole model in the same folder is meant, with the adapter that lies in it.
  if ((await kindOf(path.join(dirOrRepo, "config.json"))) === "file")
    return { base: dirOrRepo, isEmbedded: true };
  const { base_model_name_or_path: base } = await readConfigFile(file);
  if (typeof base !== "string" || base === "")
    throw new ConfigError(`${file} does not say which model the adapter is for (base_model_name_or_path).`, {
      hint: "Load the model first, then call model.load_adapter(directory).",
    });
  return { base, isEmbedded: false };
}

/** Reads the tensors of an adapter. They are the mapped file. */
export async function readAdapterWeights(
  dirOrRepo: string,
  options: HubOptions,
): Promise<Record<string, Tensor>> {
  const file = await findFile(dirOrRepo, ADAPTER_WEIGHTS_NAME, options);
  if (file !== undefined) {
    await assertInside(file);
    return load_file(file);
  }
  if ((await findFile(dirOrRepo, PICKLED_WEIGHTS_NAME, options)) !== undefined)
    throw new CheckpointError(
      `${dirOrRepo} has its adapter as a pickle (${PICKLED_WEIGHTS_NAME}), which can run code.`,
      {
        hint: `Turn it into ${ADAPTER_WEIGHTS_NAME} first: npx torchformers convert`,
      },
    );
  throw await missing(dirOrRepo, ADAPTER_WEIGHTS_NAME, options);
}

/** The config of an adapter in a folder or repository. */
export const readAdapterConfig = (dirOrRepo: string, options: HubOptions): Promise<LoraConfig> =>
  LoraConfig.from_pretrained(dirOrRepo, options);

/**
 * Writes one adapter of a model, as PEFT does: its config and its tensors, in one step.
 *
 * @param options.inference_mode what the file says; PEFT's own wrapper writes true.
 */
export async function writeAdapter(
  model: Adaptable,
  directory: string,
  options: AdapterStateOptions & {
    readonly inference_mode?: boolean | undefined;
    readonly auto_mapping?: unknown;
    readonly save_peft_format?: boolean | undefined;
    /** Writes what else belongs into the folder, in the same step. */
    readonly also?: ((folder: string) => Promise<void>) | undefined;
  },
): Promise<void> {
  const {
    adapter_name = "default",
    inference_mode,
    auto_mapping,
    save_peft_format = true,
    also,
    ...state
  } = options;
  if (typeof directory !== "string" || directory === "")
    throw new InvalidArgumentError("save_pretrained takes a folder first.");
  const config = configOf(model, adapter_name).clone();
  if (inference_mode !== undefined) config.inference_mode = inference_mode;
  if (auto_mapping !== undefined) config.auto_mapping = auto_mapping;
  const save_embedding_layers = await embeddingsToSave(model, config, state.save_embedding_layers ?? "auto");
  const tensors = get_peft_model_state_dict(model, { ...state, adapter_name, save_embedding_layers });
  const named = new Map<string, Tensor>();
  const copies: Tensor[] = [];
  const storages = new Set<number>();
  for (const [key, tensor] of Object.entries(tensors)) {
    if (tensor.is_meta) throw new CheckpointError(`${key} is on the meta device and has no values to save.`);
    // Tied layers would share memory, which the format cannot say.
    const { id } = tensor.untyped_storage();
    const kept = storages.has(id) ? tensor.clone() : tensor;
    if (kept !== tensor) copies.push(kept);
    storages.add(id);
    named.set(save_peft_format ? FILE_PREFIX + key : key, kept);
  }
  try {
    await replaceInFolder(directory, {
      write: async (folder) => {
        await config.save_pretrained(folder);
        await also?.(folder);
        await save_file(named, path.join(folder, ADAPTER_WEIGHTS_NAME), { metadata: { format: "pt" } });
      },
      replaces: (name) => name === ADAPTER_WEIGHTS_NAME,
      tools: folderTools,
    });
  } finally {
    for (const copy of copies) copy.dispose();
  }
}

/** Embeddings that were given another number of rows are no longer the base model's: they go into the file. */
async function embeddingsToSave(
  model: Adaptable,
  { base_model_name_or_path: base, target_modules }: LoraConfig,
  wanted: boolean | "auto",
): Promise<boolean | "auto"> {
  const rows = model.config?.vocab_size;
  const targeted =
    Array.isArray(target_modules) && target_modules.some((name) => /^(embed_tokens|lm_head)$/.test(name));
  if (wanted !== "auto" || targeted || typeof rows !== "number" || !base) return wanted;
  try {
    const file = await findFile(base, "config.json", { local_files_only: true });
    const vocab_size = file === undefined ? undefined : (await readConfigFile(file)).vocab_size;
    return typeof vocab_size === "number" && vocab_size !== rows ? true : "auto";
  } catch (error) {
    if (error instanceof EntryNotFoundError) return "auto";
    const { code } = error as { code?: string };
    if (code === "ERR_OFFLINE_MODE" || code === "ERR_ENTRY_NOT_FOUND") return "auto";
    throw error;
  }
}
