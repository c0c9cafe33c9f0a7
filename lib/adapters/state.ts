// The tensors of an adapter by the names that PEFT gives them in files, and back into the model.
import { CheckpointError, InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { warn } from "../errors/warnings.ts";
import type * as nn from "../nn/index.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import type { LoraConfig } from "./config.ts";
import { type Adaptable, loraLayers, savedModules } from "./inject.ts";
import { LoraLayer } from "./lora_layer.ts";
import { fullPattern } from "./python_pattern.ts";

/** Before each name in a file: where the model stands in PEFT's own wrapper. */
export const FILE_PREFIX = "base_model.model.";

const EMBEDDINGS = ["embed_tokens", "lm_head"];

export interface AdapterStateOptions {
  /** Default: the model's own state. */
  readonly state_dict?: nn.StateDict | null | undefined;
  /** Default: "default". */
  readonly adapter_name?: string | undefined;
  /** Also the input and output embeddings. Default "auto": when they are targets of the adapter. */
  readonly save_embedding_layers?: boolean | "auto" | undefined;
}

/** A name in the model → the name in the file: without the adapter's own name. */
const withoutName = (full: string, adapter: string): string => {
  // What is a module here was a parameter in older releases of PEFT, whose names stayed in the files.
  const magnitude = `.lora_magnitude_vector.${adapter}.weight`;
  const key = full.endsWith(magnitude) ? full.slice(0, -".weight".length) : full;
  if (key.endsWith(`.${adapter}`)) return key.slice(0, -adapter.length - 1);
  const dot = key.lastIndexOf(".");
  const [owner, end] = [key.slice(0, dot), key.slice(dot)];
  return (owner.endsWith(`.${adapter}`) ? owner.slice(0, -adapter.length - 1) : owner) + end;
};

/** The names, in the state of a layer with adapters, that belong to one of them. */
function* ownKeys(model: nn.Module, adapter: string): Generator<string> {
  for (const [path, layer] of loraLayers(model)) {
    const prefix = path === "" ? "" : `${path}.`;
    for (const key of Object.keys(layer.state_dict())) {
      const [part, name] = key.split(".");
      if (part !== "base_layer" && name === adapter) yield prefix + key;
    }
  }
}

export function configOf(model: Adaptable, name: string): LoraConfig {
  const config = model.peft_config?.[name];
  if (config) return config;
  const known = Object.keys(model.peft_config ?? {});
  throw new InvalidArgumentError(
    `${model._get_name()} has no adapter '${name}'${known.length > 0 ? `; it has ${known.join(", ")}` : ""}.`,
    { suggestion: suggest(name, known) },
  );
}

/**
 * The tensors of one adapter, under the names that they have in PEFT's files: of its matrices, of modules that are saved as
 * a whole, and of biases that it trains.
 *
 * @throws InvalidArgumentError for an adapter that the model does not have.
 */
export function get_peft_model_state_dict(
  model: Adaptable,
  { state_dict, adapter_name = "default", save_embedding_layers = "auto" }: AdapterStateOptions = {},
): nn.StateDict {
  const config = configOf(model, adapter_name);
  const state = state_dict ?? model.state_dict();
  const taken: nn.StateDict = {};
  const take = (key: string, as = withoutName(key, adapter_name)) => {
    const tensor = state[key];
    if (tensor !== undefined) taken[as] = tensor;
  };
  for (const key of ownKeys(model, adapter_name)) take(key);
  for (const key of biasKeys(model, config, state)) take(key);
  for (const [path, wrapper] of savedModules(model)) {
    const copy = wrapper.modules_to_save;
    if (!copy.has(adapter_name)) continue;
    for (const key of Object.keys(copy.get(adapter_name).state_dict()))
      take(`${path}.modules_to_save.${adapter_name}.${key}`, `${path}.${key}`);
  }
  for (const key of embeddingKeys(model, config, state, save_embedding_layers)) take(key);
  return taken;
}

function biasKeys(model: Adaptable, { bias }: LoraConfig, state: nn.StateDict): string[] {
  if (bias === "none") return [];
  if (bias === "all") return Object.keys(state).filter((key) => key === "bias" || key.endsWith(".bias"));
  return [...loraLayers(model)].map(([path]) => `${path}.base_layer.bias`);
}

/** Whether the embeddings are among the targets of an adapter. */
function targetsEmbeddings(model: Adaptable, { target_modules }: LoraConfig): boolean {
  if (target_modules === null) return false;
  if (typeof target_modules !== "string") return EMBEDDINGS.some((name) => target_modules.includes(name));
  const pattern = fullPattern(target_modules);
  return [...model.named_modules()].some(
    ([key]) => EMBEDDINGS.some((name) => key === name || key.endsWith(`.${name}`)) && pattern.test(key),
  );
}

function embeddingKeys(
  model: Adaptable,
  config: LoraConfig,
  state: nn.StateDict,
  wanted: boolean | "auto",
): string[] {
  const targeted = targetsEmbeddings(model, config);
  const save = wanted === "auto" ? targeted : wanted;
  if (!save) return [];
  if (model.get_input_embeddings === undefined) {
    warn(`${model._get_name()} is no PreTrainedModel: its embeddings are not known, and not saved.`);
    return [];
  }
  const layers = [model.get_input_embeddings(), model.get_output_embeddings?.()];
  const found: string[] = [];
  for (const [path, module] of model.named_modules()) {
    const base = module instanceof LoraLayer ? `${path}.base_layer` : path;
    if (!layers.includes(module) || (targeted && base === path)) continue;
    found.push(...Object.keys(state).filter((key) => key.startsWith(`${targeted ? base : path}.`)));
  }
  return found;
}

/** What loading an adapter found, by the model's names. */
export interface AdapterLoadResult {
  /** Tensors of the adapter that the file lacks; they keep their first values. */
  readonly missing_keys: string[];
}

/** Where each tensor of a file goes: its name in the file, without prefix → its name in the model. */
function places(model: Adaptable, adapter: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const key of Object.keys(model.state_dict())) found.set(key, key);
  for (const [path, wrapper] of savedModules(model)) {
    if (!wrapper.modules_to_save.has(adapter)) continue;
    for (const key of Object.keys(wrapper.modules_to_save.get(adapter).state_dict()))
      found.set(`${path}.${key}`, `${path}.modules_to_save.${adapter}.${key}`);
  }
  for (const key of ownKeys(model, adapter)) found.set(withoutName(key, adapter), key);
  return found;
}

export interface SetAdapterStateOptions {
  /** Default: "default". */
  readonly adapter_name?: string | undefined;
  /** Renames names of an older layout of the model; tried where a name has no place. */
  readonly rename?: ((key: string) => string) | undefined;
  /** Named in errors. */
  readonly source?: string | undefined;
  /** Let shapes differ in the rank: what is missing is zero. For swapping adapters in place. */
  readonly padRanks?: boolean | undefined;
}

/**
 * Puts an adapter's tensors, by the names of a file, into an adapter that the model has already. Values are copied, and cast
 * to the dtype of the model's adapter.
 *
 * @throws CheckpointError for a name that has no place in the model, and for a shape that differs; then nothing is changed.
 */
export function set_peft_model_state_dict(
  model: Adaptable,
  state_dict: Readonly<nn.StateDict>,
  options: SetAdapterStateOptions = {},
): AdapterLoadResult {
  const {
    adapter_name = "default",
    rename = (key) => key,
    source = "the state dict",
    padRanks = false,
  } = options;
  configOf(model, adapter_name);
  const known = places(model, adapter_name);
  const own = model.state_dict({ keep_vars: true });
  const found: [target: Tensor, value: Tensor][] = [];
  const unexpected: string[] = [];
  const mismatched: [string, readonly number[], readonly number[]][] = [];
  const given = new Set<string>();
  for (const [name, value] of Object.entries(state_dict)) {
    const short = name.startsWith(FILE_PREFIX) ? name.slice(FILE_PREFIX.length) : name;
    const key = known.get(short) ?? known.get(rename(short));
    const target = key === undefined ? undefined : own[key];
    if (key === undefined || target === undefined) unexpected.push(name);
    else if (!fits(value, target, padRanks)) mismatched.push([key, value.shape, target.shape]);
    else {
      given.add(key);
      found.push([target, value]);
    }
  }
  if (unexpected.length > 0 || mismatched.length > 0)
    throw misfit(model, adapter_name, source, unexpected, mismatched);
  torch.no_grad(() => {
    for (const [target, value] of found) put(target, value);
  });
  const expected = [...ownKeys(model, adapter_name), ...savedKeys(model, adapter_name)];
  return { missing_keys: expected.filter((key) => !given.has(key)) };
}

function* savedKeys(model: Adaptable, adapter: string): Generator<string> {
  for (const [path, wrapper] of savedModules(model))
    if (wrapper.modules_to_save.has(adapter))
      for (const key of Object.keys(wrapper.modules_to_save.get(adapter).state_dict()))
        yield `${path}.modules_to_save.${adapter}.${key}`;
}

const sameShape = (a: readonly number[], b: readonly number[]) =>
  a.length === b.length && a.every((size, i) => size === b[i]);

function fits(value: Tensor, target: Tensor, pad: boolean): boolean {
  if (sameShape(value.shape, target.shape)) return true;
  return (
    pad &&
    value.ndim === target.ndim &&
    value.shape.every((size, i) => size <= (target.shape[i] as number)) &&
    value.shape.filter((size, i) => size !== target.shape[i]).length === 1
  );
}

function put(target: Tensor, value: Tensor): void {
  if (target.is_meta) {
    target.data = value.to({ dtype: target.dtype, copy: true });
  } else if (sameShape(value.shape, target.shape)) {
    target.copy_(value);
  } else {
    target.zero_();
    let part = target.view(target.shape);
    for (const [dim, size] of value.shape.entries()) part = part.narrow(dim, 0, size);
    part.copy_(value);
  }
}

function misfit(
  model: nn.Module,
  name: string,
  source: string,
  unexpected_keys: readonly string[],
  mismatched_keys: readonly (readonly [string, readonly number[], readonly number[]])[],
): CheckpointError {
  const some = (all: readonly string[]) =>
    `${all.slice(0, 5).join(", ")}${all.length > 5 ? ` and ${all.length - 5} more` : ""}`;
  const parts = [];
  if (unexpected_keys.length > 0)
    parts.push(`${unexpected_keys.length} of its tensors have no place: ${some(unexpected_keys)}`);
  if (mismatched_keys.length > 0) {
    const shapes = mismatched_keys.map(([key, a, b]) => `${key} [${a.join(", ")}] for [${b.join(", ")}]`);
    parts.push(`shapes differ: ${some(shapes)}`);
  }
  return new CheckpointError(
    `${source} does not fit the adapter '${name}' of ${model._get_name()}: ${parts.join("; ")}.`,
    {
      unexpected_keys,
      mismatched_keys,
      hint: "The adapter was made for another model, or its adapter_config.json is not the one it was trained with.",
    },
  );
}
