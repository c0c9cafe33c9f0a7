// Writing a checkpoint: configuration, weights in one file or several, and their index; all of it in one step.
import { availableParallelism } from "node:os";
import path from "node:path";
import { writeAdapter } from "../adapters/files.ts";
import { folderTools } from "../addon/folder_tools.ts";
import { isOffloaded, offloadedValue } from "../big_modeling/residence.ts";
import type { PretrainedConfig } from "../configuration/index.ts";
import { gatherCode, writeCode } from "../custom_code/save_code.ts";
import { CheckpointError, InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { writeFileAtomic } from "../hub/atomic.ts";
import { SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, withVariant } from "../hub/checkpoint.ts";
import { assertSafeName } from "../hub/files.ts";
import { replaceInFolder } from "../hub/folder_transaction.ts";
import type { SaveAndPushOptions } from "../hub/push.ts";
import { save_file } from "../safetensors/index.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { transformsToUndo } from "./conversion_mapping.ts";
import type { Weights } from "./conversion_ops.ts";
import { type LazyWeight, type Memory, WeightPart } from "./lazy_weight.ts";
import type { PreTrainedModel } from "./modeling_utils.ts";
import { naturalOrder } from "./natural_order.ts";
import { Transforms, type WeightConverter, type WeightTransform } from "./weight_transforms.ts";

/** Options of a model's `save_pretrained`; those of the hub need `push_to_hub: true`. */
export interface SavePretrainedOptions extends SaveAndPushOptions {
  /** The most bytes per file: a number, or a decimal size like "500MB" or "5GB". Default "50GB". */
  readonly max_shard_size?: number | string | undefined;
  /** "fp16" writes `model.fp16.safetensors`. */
  readonly variant?: string | undefined;
  /** What to write instead of the model's own state. */
  readonly state_dict?: Readonly<Record<string, Tensor>> | undefined;
  /** Undo the conversions that loading made, so that names and shapes are the original checkpoint's. Default true. */
  readonly save_original_format?: boolean | undefined;
  /** Of a model with adapters: put "base_model.model." before names, as PEFT's files have it. Default true. */
  readonly save_peft_format?: boolean | undefined;
  /**
   * Gives the values of a tensor that the model has on the meta device, because they are elsewhere (offloaded). It is called
   * for one file after the other; what it gives is disposed when its file is written.
   */
  readonly tensor_of?: ((name: string) => Tensor | Promise<Tensor>) | undefined;
}

const OPTIONS = [
  "max_shard_size",
  "variant",
  "state_dict",
  "save_original_format",
  "save_peft_format",
  "tensor_of",
];
const UNITS: Readonly<Record<string, number>> = { TB: 1e12, GB: 1e9, MB: 1e6, KB: 1e3 };
/** Files written at once: each takes a thread of Node's pool, which has four. */
const WRITERS = Math.min(3, Math.max(2, availableParallelism()));

/** "5GB" → 5,000,000,000; the grammar of the reference: a Python float and a decimal unit. */
export function parseSize(size: number | string): number {
  if (typeof size === "number") {
    if (Number.isFinite(size)) return size;
  } else {
    const text = size.trim();
    const unit = UNITS[text.slice(-2).toUpperCase()];
    const digits = text.slice(0, -2).trim();
    const isFloat = /^[+-]?(\d+(_\d+)*\.?(\d+(_\d+)*)?|\.\d+(_\d+)*)([eE][+-]?\d+(_\d+)*)?$/.test(digits);
    if (unit !== undefined && isFloat) return Math.trunc(Number(digits.replaceAll("_", "")) * unit);
  }
  throw new InvalidArgumentError(
    `max_shard_size '${size}' is not a number of bytes or a size in KB, MB, GB or TB.`,
  );
}

/** Before anything is written or sent. */
export function checkOptions(options: object): void {
  const unknown = Object.keys(options).find((name) => !OPTIONS.includes(name));
  if (unknown === undefined) return;
  throw new InvalidArgumentError(`save_pretrained has no option '${unknown}'.`, {
    suggestion: suggest(unknown, [...OPTIONS, "push_to_hub", "commit_message", "private"]),
  });
}

/** Writes the files of `PreTrainedModel.save_pretrained`; nothing is sent anywhere. */
export async function writePretrained(
  model: PreTrainedModel,
  directory: string,
  options: SavePretrainedOptions,
): Promise<void> {
  if (typeof directory !== "string" || directory === "")
    throw new InvalidArgumentError("save_pretrained takes a folder first.");
  checkOptions(options);
  if (model._hf_peft_config_loaded) return writeActiveAdapter(model, directory, options);
  const { variant, save_original_format = true } = options;
  if (variant !== undefined) assertSafeName(variant, "The variant");
  const limit = parseSize(options.max_shard_size ?? "50GB");

  model._report_replacements();
  const tensor_of = options.tensor_of ?? offloadedTensors(model, options);
  const state = stateToSave(model, { ...options, tensor_of });
  const undo = save_original_format ? transformsToUndo(model, isPreTrainedModel) : undefined;
  const weights = undo === undefined ? asTheyAre(state) : unconverted(model, state, undo);
  const stem = withVariant(SAFE_WEIGHTS_NAME, variant).slice(0, -".safetensors".length);
  const index = withVariant(SAFE_WEIGHTS_INDEX_NAME, variant);
  const { shards, total_size } = splitIntoShards(weights, limit);
  const files = shards.map((_, i) =>
    shards.length === 1
      ? `${stem}.safetensors`
      : `${stem}-${pad(i + 1)}-of-${pad(shards.length)}.safetensors`,
  );
  model.config.dtype = model.dtype;
  model.config.architectures = [model.constructor.name];
  const cls = model.constructor as typeof PreTrainedModel;
  const codes = await Promise.all([
    gatherCode(cls),
    gatherCode(model.config.constructor as typeof PretrainedConfig),
  ]);
  if (codes[0] !== undefined) model.config._add_to_auto_map(cls._auto_class as string, codes[0].reference);

  const write = async (folder: string) => {
    await writeCode(folder, codes);
    await model.config.save_pretrained(folder);
    if (model.can_generate()) await model.generation_config.save_pretrained(folder);
    const writers = tensor_of === undefined ? WRITERS : 1;
    await inParallel(shards, writers, (names, i) =>
      writeShard(path.join(folder, files[i] as string), names, weights, state, tensor_of),
    );
    if (shards.length === 1) return;
    const place = shards.flatMap((names, i) => names.map((name) => [name, files[i] as string] as const));
    const content = {
      metadata: { total_parameters: model.num_parameters(), total_size },
      weight_map: Object.fromEntries(place.sort(([a], [b]) => (a < b ? -1 : 1))),
    };
    await writeFileAtomic(path.join(folder, index), `${JSON.stringify(content, undefined, 2)}\n`);
  };
  // Another set of weights under the same name goes: it would be taken for these, or mixed with them.
  const replaces = (name: string) =>
    name === `${stem}.safetensors` ||
    name === index ||
    (name.startsWith(`${stem}-`) && /^-\d{5}-of-\d{5}\.safetensors$/.test(name.slice(stem.length)));
  await replaceInFolder(directory, { write, replaces, tools: folderTools });
}

/** Of a model with adapters only the active one is saved, in PEFT's format. */
async function writeActiveAdapter(
  model: PreTrainedModel,
  directory: string,
  { state_dict, save_peft_format }: SavePretrainedOptions,
): Promise<void> {
  const [adapter_name, ...others] = model.active_adapters();
  if (adapter_name === undefined || others.length > 0)
    throw new InvalidArgumentError(
      `${model.constructor.name} has ${others.length > 0 ? `${others.length + 1} active adapters` : "no active adapter"}, and one is saved at a time.`,
      { hint: "Choose it with set_adapter(name)." },
    );
  const also = async (folder: string) => {
    if (model.can_generate()) await model.generation_config.save_pretrained(folder);
  };
  await writeAdapter(model, directory, { adapter_name, state_dict, save_peft_format, also });
}

const pad = (n: number) => String(n).padStart(5, "0");

const isPreTrainedModel = (module: unknown): module is PreTrainedModel =>
  typeof (module as Partial<PreTrainedModel>)._finish_loading === "function";

async function inParallel<T>(
  items: readonly T[],
  count: number,
  work: (item: T, i: number) => Promise<void>,
) {
  let next = 0;
  let failed = false;
  const worker = async () => {
    try {
      while (next < items.length && !failed) {
        const i = next++;
        await work(items[i] as T, i);
      }
    } catch (error) {
      failed = true;
      throw error;
    }
  };
  // All are waited for: none may write into the folder after it is given up.
  const ended = await Promise.allSettled(Array.from({ length: Math.min(count, items.length) }, worker));
  for (const each of ended) if (each.status === "rejected") throw each.reason;
}

// What is saved --------------------------------------------------------------------------------------------------

type Names = ReadonlyMap<string, LazyWeight<string>>;

/** The model's state, each tensor once: targets of ties are left out, since their sources bring them back. */
function stateToSave(
  model: PreTrainedModel,
  { state_dict, tensor_of }: SavePretrainedOptions,
): Record<string, Tensor> {
  const state: Record<string, Tensor> = { ...(state_dict ?? model.state_dict()) };
  for (const name of (model.constructor as typeof PreTrainedModel)._keys_to_ignore_on_save)
    delete state[name];
  // A tensor that is elsewhere has no memory to be known by: its parameter says which one it is.
  const own = state_dict === undefined ? model.state_dict({ keep_vars: true }) : {};
  const numbers = new Map<Tensor, number>();
  const identity = (name: string, tensor: Tensor) => {
    if (!tensor.is_meta) {
      const { id } = tensor.untyped_storage();
      return `${id}:${tensor.storage_offset()}:${tensor.shape}:${tensor.stride()}`;
    }
    const parameter = own[name] ?? tensor;
    if (!numbers.has(parameter)) numbers.set(parameter, numbers.size);
    return `meta:${numbers.get(parameter)}`;
  };

  const tied = model.all_tied_weights_keys;
  const owners = new Map<string, string>();
  // Declared targets last: they are what may go.
  for (const [name, tensor] of Object.entries(state).sort(
    ([a], [b]) => Number(a in tied) - Number(b in tied),
  )) {
    const key = identity(name, tensor);
    const owner = owners.get(key);
    if (tensor.numel() === 0 || owner === undefined) {
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
  if (meta && tensor_of === undefined)
    throw new CheckpointError(`${meta[0]} is on the meta device and has no values to save.`);
  return state;
}

/** Values of the weights that hooks keep elsewhere; undefined for a model that has all of its own. */
function offloadedTensors(
  model: PreTrainedModel,
  { state_dict }: SavePretrainedOptions,
): SavePretrainedOptions["tensor_of"] {
  const own = state_dict ?? model.state_dict({ keep_vars: true });
  const away = Object.values(own).filter(({ is_meta }) => is_meta);
  if (away.length === 0 || !away.every(isOffloaded)) return undefined;
  return (name) => offloadedValue(own[name] as Tensor) as Tensor;
}

/** Each tensor as a weight, with the memory that it shares with others. */
function parts(
  state: Readonly<Record<string, Tensor>>,
  order: readonly string[],
): Map<string, LazyWeight<string>> {
  const memories = new Map<number, Memory>();
  return new Map(
    order.map((name) => {
      const tensor = state[name] as Tensor;
      let memory: Memory | undefined;
      if (!tensor.is_meta) {
        const { id, nbytes } = tensor.untyped_storage();
        memory = memories.get(id) ?? { bytes: nbytes };
        memories.set(id, memory);
      }
      return [name, WeightPart.whole(name, tensor.dtype, tensor.shape, memory)];
    }),
  );
}

const asTheyAre = (state: Readonly<Record<string, Tensor>>): Names => parts(state, Object.keys(state));

/** The weights by the checkpoint's names, in the order of the model's. */
function unconverted(
  model: PreTrainedModel,
  state: Readonly<Record<string, Tensor>>,
  used: readonly WeightTransform[],
): Names {
  const all = new Transforms([...used].reverse().map((transform) => transform.reverse_transform()));
  const found = new Map<string, { converter: WeightConverter; weights: Weights } | LazyWeight<string>>();
  for (const [name, weight] of parts(state, Object.keys(state).sort(naturalOrder))) {
    const [target, converter, pattern] = all.convert(name);
    if (converter === undefined || pattern === undefined) {
      found.set(all.rename(name), weight);
      continue;
    }
    const known = found.get(target);
    const { weights } = known && "weights" in known ? known : { weights: new Map() };
    weights.set(pattern, [...(weights.get(pattern) ?? []), weight]);
    found.set(target, { converter, weights });
  }
  const result = new Map<string, LazyWeight<string>>();
  for (const [name, each] of found) {
    if (!("converter" in each)) result.set(name, each);
    else
      for (const [target, weight] of each.converter.convert(each.weights, name, {
        model,
        config: model.config,
      }))
        result.set(all.rename(target), weight);
  }
  return result;
}

/** Fills files in order; a tensor larger than the limit gets a file of its own, what shares memory goes together. */
function splitIntoShards(weights: Names, limit: number): { shards: string[][]; total_size: number } {
  const together = new Map<Memory, string[]>();
  const shards: string[][] = [];
  let current: string[] = [];
  let size = 0;
  let total_size = 0;
  for (const [name, { memory }] of weights) {
    const others = together.get(memory);
    if (others !== undefined) {
      others.push(name);
      continue;
    }
    together.set(memory, [name]);
    total_size += memory.bytes;
    if (memory.bytes > limit) {
      shards.push([name]);
      continue;
    }
    if (size + memory.bytes > limit) {
      shards.push(current);
      current = [];
      size = 0;
    }
    current.push(name);
    size += memory.bytes;
  }
  if (current.length > 0) shards.push(current);
  const first = new Map([...together.values()].map((names) => [names[0] as string, names]));
  const full = shards.map((names) => [...new Set(names.flatMap((name) => first.get(name) ?? [name]))]);
  return { shards: full.length > 0 ? full : [[]], total_size };
}

// Writing --------------------------------------------------------------------------------------------------------

/** Brings a file's tensors together, writes them, and lets go of what was made for it. */
async function writeShard(
  file: string,
  names: readonly string[],
  weights: Names,
  state: Readonly<Record<string, Tensor>>,
  tensor_of: SavePretrainedOptions["tensor_of"],
): Promise<void> {
  const made: Tensor[] = [];
  const brought = new Map<string, Tensor>();
  try {
    for (const name of names) {
      for (const { source } of (weights.get(name) as LazyWeight<string>).sources()) {
        const own = state[source] as Tensor;
        if (!own.is_meta) brought.set(source, own);
        else if (tensor_of !== undefined && !brought.has(source))
          brought.set(source, await tensor_of(source));
      }
    }
    const tensors = torch.no_grad(() =>
      names.map((name) => {
        const weight = weights.get(name) as LazyWeight<string>;
        const tensor = materialized(weight, (source) => brought.get(source) as Tensor);
        if (![...brought.values()].includes(tensor)) made.push(tensor);
        return [name, tensor] as const;
      }),
    );
    await save_file(new Map(tensors), file, { metadata: { format: "pt" } });
  } finally {
    for (const tensor of made) tensor.dispose();
    for (const [name, tensor] of brought)
      if (tensor !== state[name] && state[name]?.is_meta) tensor.dispose();
  }
}

/** The weight as a tensor: its source itself where that is all of it. */
function materialized(weight: LazyWeight<string>, source: (name: string) => Tensor): Tensor {
  const only = weight instanceof WeightPart ? (weight as WeightPart<string>) : undefined;
  if (only !== undefined) {
    const tensor = source(only.source);
    const { offset, sizes } = only.view;
    const isWhole =
      offset === 0 && sizes.length === tensor.shape.length && sizes.every((n, i) => n === tensor.shape[i]);
    if (isWhole && only.is_contiguous) return tensor;
    // Parts that lie between one another would look like overlapping ones.
    return torch.tidy(() => part(tensor, only.view).contiguous());
  }
  return torch.tidy(() => {
    const result = torch.empty([...weight.shape], { dtype: weight.dtype });
    for (const { source: name, view, into } of weight.copies(result)) into.copy_(part(source(name), view));
    return result;
  });
}

function part(
  tensor: Tensor,
  view: { readonly offset: number; readonly sizes: readonly number[]; readonly strides: readonly number[] },
): Tensor {
  const ordered = tensor.contiguous();
  return ordered.as_strided([...view.sizes], [...view.strides], ordered.storage_offset() + view.offset);
}
