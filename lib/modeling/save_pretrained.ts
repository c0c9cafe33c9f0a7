// Writing a checkpoint: configuration, weights in one file or several, and their index.
import { mkdir, readdir, rm } from "node:fs/promises";
import path from "node:path";
import { CheckpointError, InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { writeFileAtomic } from "../hub/atomic.ts";
import { SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, withVariant } from "../hub/checkpoint.ts";
import { loadingCard } from "../hub/model_card.ts";
import type { Pushable, SaveAndPushOptions } from "../hub/push.ts";
import type { CommitInfo } from "../hub/upload.ts";
import { save_file } from "../safetensors/index.ts";
import type { Tensor } from "../torch/index.ts";
import type { PreTrainedModel } from "./modeling_utils.ts";
import { naturalOrder } from "./natural_order.ts";

/** Options of a model's `save_pretrained`; those of the hub need `push_to_hub: true`. */
export interface SavePretrainedOptions extends SaveAndPushOptions {
  /** The most bytes per file: a number, or a decimal size like "500MB" or "5GB". Default "50GB". */
  readonly max_shard_size?: number | string | undefined;
  /** "fp16" writes `model.fp16.safetensors`. */
  readonly variant?: string | undefined;
  /** What to write instead of the model's own state. */
  readonly state_dict?: Readonly<Record<string, Tensor>> | undefined;
}

const OPTIONS = ["max_shard_size", "variant", "state_dict", "sorted"];
const UNITS: Readonly<Record<string, number>> = { TB: 1e12, GB: 1e9, MB: 1e6, KB: 1e3 };

/** "5GB" → 5,000,000,000. */
export function parseSize(size: number | string): number {
  if (typeof size === "number") return size;
  const [, digits, unit] = size.trim().match(/^(\d+(?:\.\d+)?)\s*([KMGT]B)$/i) ?? [];
  if (digits === undefined || unit === undefined) {
    throw new InvalidArgumentError(
      `max_shard_size '${size}' is not a number of bytes or a size in KB, MB, GB or TB.`,
    );
  }
  return Math.trunc(Number(digits) * (UNITS[unit.toUpperCase()] as number));
}

type Sorted = { readonly sorted: boolean };

/** See `PreTrainedModel.save_pretrained`; `sorted` orders tensors by name instead of by the model's structure. */
export async function savePretrained(
  model: PreTrainedModel,
  directory: string,
  options: SavePretrainedOptions & Sorted,
): Promise<void> {
  const { push_to_hub, ...others } = options;
  if (push_to_hub !== true) return writePretrained(model, directory, others);
  const { saveAndPush, splitPushOptions } = await import("../hub/push.ts");
  const { push, rest } = splitPushOptions(options);
  checkOptions(rest);
  await saveAndPush(pushable(model, rest), directory, push);
}

/** See `PreTrainedModel.push_to_hub`. */
export async function pushModel(
  model: PreTrainedModel,
  repo_id: string,
  options: SavePretrainedOptions & Sorted,
): Promise<CommitInfo> {
  const { pushToHub, splitPushOptions } = await import("../hub/push.ts");
  const { push, rest } = splitPushOptions(options);
  checkOptions(rest);
  return pushToHub(pushable(model, rest), repo_id, push);
}

function checkOptions(options: object): void {
  const unknown = Object.keys(options).find((name) => !OPTIONS.includes(name));
  if (unknown === undefined) return;
  throw new InvalidArgumentError(`save_pretrained has no option '${unknown}'.`, {
    suggestion: suggest(unknown, [...OPTIONS.slice(0, -1), "push_to_hub", "commit_message", "private"]),
  });
}

/** What the hub calls the task of a class, by the end of its name. */
const TASKS: readonly (readonly [ending: string, task: string, auto: string])[] = [
  ["ForCausalLM", "text-generation", "AutoModelForCausalLM"],
  ["ForSequenceClassification", "text-classification", "AutoModelForSequenceClassification"],
  ["ForTokenClassification", "token-classification", "AutoModelForTokenClassification"],
  ["ForQuestionAnswering", "question-answering", "AutoModelForQuestionAnswering"],
  ["ForMaskedLM", "fill-mask", "AutoModelForMaskedLM"],
];

function pushable(model: PreTrainedModel, options: SavePretrainedOptions & Sorted): Pushable {
  const { name } = model.constructor;
  const [, pipeline_tag, auto = "AutoModel"] = TASKS.find(([ending]) => name.endsWith(ending)) ?? [];
  return {
    name,
    save: (folder) => writePretrained(model, folder, options),
    card: {
      ...loadingCard(
        `A ${name} model${model.config.model_type ? ` (\`${model.config.model_type}\`)` : ""}.`,
        auto,
        "model",
      ),
      pipeline_tag,
      base_model: model.config.name_or_path,
    },
  };
}

async function writePretrained(
  model: PreTrainedModel,
  directory: string,
  options: SavePretrainedOptions & Sorted,
): Promise<void> {
  checkOptions(options);
  const limit = parseSize(options.max_shard_size ?? "50GB");

  const state = stateToSave(model, options.state_dict);
  const names = options.sorted ? Object.keys(state).sort(naturalOrder) : Object.keys(state);
  const shards = splitIntoShards(names, state, limit);
  const stem = withVariant(SAFE_WEIGHTS_NAME, options.variant).slice(0, -".safetensors".length);
  const file = (i: number) =>
    shards.length === 1
      ? `${stem}.safetensors`
      : `${stem}-${pad(i + 1)}-of-${pad(shards.length)}.safetensors`;

  await mkdir(directory, { recursive: true });
  model.config.dtype = model.dtype;
  model.config.architectures = [model.constructor.name];
  await model.config.save_pretrained(directory);
  if (model.can_generate()) await model.generation_config.save_pretrained(directory);

  for (const [i, shard] of shards.entries()) {
    const tensors = Object.fromEntries(shard.map((name) => [name, state[name] as Tensor]));
    await save_file(tensors, path.join(directory, file(i)), { metadata: { format: "pt" } });
  }
  await removeStale(directory, stem, new Set(shards.map((_, i) => file(i))));
  if (shards.length === 1) return;
  const index = {
    metadata: {
      total_parameters: model.num_parameters(),
      total_size: names.reduce((total, name) => total + (state[name] as Tensor).nbytes, 0),
    },
    weight_map: Object.fromEntries(
      shards
        .flatMap((shard, i) => shard.map((name) => [name, file(i)] as const))
        .sort(([a], [b]) => (a < b ? -1 : 1)),
    ),
  };
  const indexFile = path.join(directory, withVariant(SAFE_WEIGHTS_INDEX_NAME, options.variant));
  await writeFileAtomic(indexFile, `${JSON.stringify(index, undefined, 2)}\n`);
}

const pad = (n: number) => String(n).padStart(5, "0");

/** The model's state, each tensor once: targets of ties are left out, since their sources bring them back. */
function stateToSave(
  model: PreTrainedModel,
  given: SavePretrainedOptions["state_dict"],
): Record<string, Tensor> {
  const state: Record<string, Tensor> = { ...(given ?? model.state_dict()) };
  for (const name of (model.constructor as typeof PreTrainedModel)._keys_to_ignore_on_save)
    delete state[name];

  const tied = model.all_tied_weights_keys;
  const owners = new Map<string, string>();
  // Declared targets first: they are what may go.
  for (const [name, tensor] of Object.entries(state).sort(
    ([a], [b]) => Number(a in tied) - Number(b in tied),
  )) {
    const { id } = tensor.untyped_storage();
    const key = `${id}:${tensor.storage_offset()}:${tensor.shape}:${tensor.stride()}`;
    const owner = owners.get(key);
    if (tensor.is_meta || tensor.numel() === 0 || owner === undefined) {
      owners.set(key, name);
    } else if (name in tied) {
      delete state[name];
    } else {
      throw new CheckpointError(
        `${name} and ${owner} are one tensor, and ${model.constructor.name} does not declare them as tied.`,
        {
          hint: "Name them in the class's _tied_weights_keys and set config.tie_word_embeddings, or copy one of them.",
        },
      );
    }
  }
  const meta = Object.entries(state).find(([, tensor]) => tensor.is_meta);
  if (meta) throw new CheckpointError(`${meta[0]} is on the meta device and has no values to save.`);
  return state;
}

/** Fills files in order; a tensor larger than the limit gets a file of its own. */
function splitIntoShards(
  names: readonly string[],
  state: Readonly<Record<string, Tensor>>,
  limit: number,
): string[][] {
  const shards: string[][] = [];
  let current: string[] = [];
  let size = 0;
  for (const name of names) {
    const bytes = (state[name] as Tensor).nbytes;
    if (bytes > limit) {
      shards.push([name]);
      continue;
    }
    if (size + bytes > limit) {
      shards.push(current);
      current = [];
      size = 0;
    }
    current.push(name);
    size += bytes;
  }
  if (current.length > 0) shards.push(current);
  return shards.length > 0 ? shards : [[]];
}

/** Removes shards of an earlier save that this one did not write. */
async function removeStale(directory: string, stem: string, written: ReadonlySet<string>): Promise<void> {
  for (const name of await readdir(directory)) {
    const isShard =
      name.startsWith(`${stem}-`) && /^-\d{5}-of-\d{5}\.safetensors$/.test(name.slice(stem.length));
    if (isShard && !written.has(name)) await rm(path.join(directory, name));
  }
}
