// Loading a checkpoint into a model: a skeleton on the meta device, then the file's tensors put into its parameters.
import { type AdapterSource, findAdapter } from "../adapters/files.ts";
import { GenerationConfig, PretrainedConfig } from "../configuration/index.ts";
import { CheckpointError, InvalidArgumentError } from "../errors/index.ts";
import { nearest } from "../errors/suggest.ts";
import { warn } from "../errors/warnings.ts";
import { findCheckpoint } from "../hub/checkpoint.ts";
import { HUB_OPTIONS, type HubOptions, pin } from "../hub/files.ts";
import { readSteadily } from "../hub/steady.ts";
import type * as nn from "../nn/index.ts";
import type { Device, Dtype } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { assertPlausible, Checkpoint } from "./checkpoint.ts";
import { get_model_conversion_mapping } from "./conversion_mapping.ts";
import { is_loaded } from "./initialization.ts";
import { placeReady } from "./load_hooks.ts";
import { placeWeights, planWeights, readWeights } from "./load_weights.ts";
import {
  chooseDtype,
  type FromPretrainedOptions,
  OWN_OPTIONS,
  progressReporter,
  type Report,
  refuseQuantization,
  splitOptions,
} from "./loading_options.ts";
import { keyLists, type LoadingInfo, lists, mismatch, printLoadingReport } from "./loading_report.ts";
import type { ModelClass, PreTrainedModel } from "./modeling_utils.ts";
import { Placing, parseDeviceMap } from "./placing.ts";
import type { WeightTransform } from "./weight_transforms.ts";

export type { ProgressEvent } from "../hub/files.ts";
export type { FromPretrainedOptions } from "./loading_options.ts";
export type { LoadingInfo } from "./loading_report.ts";

let loading = 0;

/** True while a skeleton is built: constructors leave weights alone then. */
export const isLoading = (): boolean => loading > 0;

/** See `PreTrainedModel.from_pretrained`. What holds an adapter is loaded as its base model with the adapter in it. */
export async function loadPretrained(
  cls: ModelClass & typeof PreTrainedModel,
  source: string,
  { adapter_name, adapter_kwargs, ...options }: FromPretrainedOptions,
): Promise<[PreTrainedModel, LoadingInfo]> {
  if (typeof source !== "string" || source === "") {
    throw new InvalidArgumentError(
      `${cls.name}.from_pretrained takes a directory or a repository name first.`,
    );
  }
  options.signal?.throwIfAborted();
  // One commit for all files.
  const { name, options: pinned } = await pin(source, options);
  const found = await withAdapter(name, pinned, adapter_kwargs);
  if (found === undefined) return loadModel(cls, name, pinned);
  const [model, info] = await loadModel(cls, found.base, found.options);
  try {
    await model.load_adapter(name, { adapter_name, ...found.hub });
  } catch (error) {
    model.dispose();
    throw error;
  }
  return [model, info];
}

/** What is loaded for a folder or repository that holds an adapter. */
export interface WithAdapter extends AdapterSource {
  /** The options for the base model. */
  readonly options: FromPretrainedOptions;
  /** Those for the files of the adapter. */
  readonly hub: HubOptions;
}

/** Where the base model of an adapter is, and with which options both are loaded; undefined for what holds no adapter. */
export async function withAdapter(
  name: string,
  options: FromPretrainedOptions,
  adapter_kwargs: HubOptions | null | undefined,
): Promise<WithAdapter | undefined> {
  const { hub: given } = splitOptions(options);
  const hub = { ...given, ...adapter_kwargs, progress_callback: undefined };
  const found = await findAdapter(name, hub);
  if (found === undefined) return undefined;
  // The revision is one of the adapter's repository; that of the base model is its own.
  const { revision: _adapters, subfolder: _folder, ...others } = options;
  return { ...found, options: found.isEmbedded ? options : others, hub };
}

async function loadModel(
  cls: ModelClass & typeof PreTrainedModel,
  source: string,
  options: FromPretrainedOptions,
): Promise<[PreTrainedModel, LoadingInfo]> {
  const { own, hub: given, fields } = splitOptions(options);
  const { signal } = given;
  signal?.throwIfAborted();
  const report = progressReporter(given.progress_callback);

  // One commit for all files. The weights are what is worth telling of while it is downloaded.
  const { name: dirOrRepo, options: pinned } = await pin(source, given);
  const hub = { ...pinned, progress_callback: undefined };
  const device_map = parseDeviceMap(own.device_map);
  const read = async () => {
    const config = await loadConfig(cls, dirOrRepo, own, hub, fields);
    refuseQuantization(config, own);
    const transformers_weights = (config as { transformers_weights?: string }).transformers_weights;
    const files = await findCheckpoint(dirOrRepo, {
      ...pinned,
      variant: own.variant,
      ...(transformers_weights ? { transformers_weights } : {}),
    });
    report("resolve", dirOrRepo, 1, 1);
    signal?.throwIfAborted();
    return { config, files, checkpoint: await Checkpoint.open(files) };
  };
  const { config, files, checkpoint } = await readSteadily(dirOrRepo, read, (found) =>
    found.checkpoint.close(),
  );
  let model: PreTrainedModel | undefined;
  try {
    signal?.throwIfAborted();
    const dtype = chooseDtype(own.dtype ?? own.torch_dtype ?? "auto", config, files, checkpoint);
    config.dtype = dtype;
    for (const key of Object.keys((config.constructor as typeof PretrainedConfig).sub_configs)) {
      const sub = (config as unknown as Record<string, unknown>)[key];
      if (sub instanceof PretrainedConfig) sub.dtype = dtype;
    }
    assertPlausible(config, checkpoint, dirOrRepo);
    model = skeleton(cls, config, dtype);
    const info = await fill(model, checkpoint, {
      dtype,
      own,
      device_map,
      strict: own.strict ?? false,
      ignore: own.ignore_mismatched_sizes ?? false,
      key_mapping: own.key_mapping ?? {},
      source: dirOrRepo,
      report,
      signal,
    });
    model.eval();
    if (model.can_generate()) model.generation_config = await loadGenerationConfig(config, dirOrRepo, hub);
    report("ready", dirOrRepo, 1, 1);
    return [model, info];
  } catch (error) {
    model?.dispose();
    throw error;
  } finally {
    checkpoint.close();
  }
}

// Configuration -------------------------------------------------------------------------------------------------

async function loadConfig(
  cls: ModelClass & typeof PreTrainedModel,
  dirOrRepo: string,
  own: FromPretrainedOptions,
  hub: HubOptions,
  fields: Record<string, unknown>,
): Promise<PretrainedConfig> {
  const given = own.config;
  let config: PretrainedConfig;
  let unused: Record<string, unknown>;
  if (given instanceof PretrainedConfig) {
    config = given.clone();
    config._attn_implementation = given._attn_implementation;
    unused = {};
    for (const [name, value] of Object.entries(fields)) {
      const isField = Object.hasOwn(config, name) || ["num_labels", "output_attentions"].includes(name);
      if (isField) (config as unknown as Record<string, unknown>)[name] = value;
      else unused[name] = value;
    }
    config.validate();
  } else {
    [config, unused] = (await PretrainedConfig.from_pretrained.call(cls.config_class, given ?? dirOrRepo, {
      ...hub,
      ...fields,
      return_unused_kwargs: true,
    })) as unknown as [PretrainedConfig, Record<string, unknown>];
  }
  const [stranger] = Object.keys(unused);
  if (stranger !== undefined) {
    const known = [...OWN_OPTIONS, ...HUB_OPTIONS, ...Object.keys(config)];
    throw new InvalidArgumentError(
      `${cls.name}.from_pretrained: '${stranger}' is neither an option nor a field of ${config.constructor.name}.`,
      {
        suggestion: nearest(stranger, known, 1)[0],
      },
    );
  }
  config.name_or_path = dirOrRepo;
  if (own.attn_implementation) config._attn_implementation = own.attn_implementation;
  return config;
}

async function loadGenerationConfig(
  config: PretrainedConfig,
  dirOrRepo: string,
  hub: HubOptions,
): Promise<GenerationConfig> {
  try {
    const found = await GenerationConfig.from_pretrained(dirOrRepo, { ...hub });
    return found;
  } catch (error) {
    hub.signal?.throwIfAborted();
    if ((error as { code?: string }).code !== "ERR_ENTRY_NOT_FOUND") {
      warn(`${(error as Error).message} Default generation settings are used instead.`);
    }
    // A configuration drops generation settings; those of an older checkpoint stand in its config.json.
    const older = { ...hub, config_file_name: "config.json", _from_model_config: true };
    return GenerationConfig.from_pretrained(dirOrRepo, older).catch(() =>
      GenerationConfig.from_model_config(config),
    );
  }
}

// The model ------------------------------------------------------------------------------------------------------

/** Without gradients, and freeing what is made on the way: only the model's own tensors stay. */
const tidily = (body: () => void): void => torch.no_grad(() => torch.tidy(body));

/** The model without memory behind its tensors. */
function skeleton(cls: ModelClass, config: PretrainedConfig, dtype: Dtype): PreTrainedModel {
  const [device, before] = [torch.get_default_device(), torch.get_default_dtype()];
  loading++;
  torch.set_default_device("meta");
  torch.set_default_dtype(dtype);
  try {
    return torch.tidy(() => new cls(config as never));
  } finally {
    torch.set_default_dtype(before);
    torch.set_default_device(device);
    loading--;
  }
}

interface FillOptions {
  readonly dtype: Dtype;
  readonly own: FromPretrainedOptions;
  readonly device_map: ReturnType<typeof parseDeviceMap>;
  readonly strict: boolean;
  readonly ignore: boolean;
  readonly key_mapping: Readonly<Record<string, string>>;
  readonly source: string;
  readonly report: Report;
  readonly signal: AbortSignal | undefined;
}

/** Puts the checkpoint's tensors into the model, and initializes the rest. */
async function fill(
  model: PreTrainedModel,
  checkpoint: Checkpoint,
  options: FillOptions,
): Promise<LoadingInfo> {
  const cls = model.constructor as typeof PreTrainedModel;
  const transforms = get_model_conversion_mapping(model, isPreTrainedModel, {
    key_mapping: options.key_mapping,
  });
  const plan = await planWeights(model, checkpoint, transforms, options.signal);
  const { info } = plan;
  const ready = await plan.hooked.run(readWeights, info, options.source);
  if (info.mismatched_keys.size > 0 && !options.ignore) throw mismatch(info, options.source);
  const keepsFloat32 = float32Filter(cls, options.dtype);
  const placing =
    options.device_map === undefined
      ? undefined
      : new Placing(model, options.device_map, options.own, keepsFloat32);
  const device = (name: string) => placing?.device(name) ?? "cpu";
  const placement = { ...options, device, keepsFloat32, placing };
  await placeWeights(plan, placement, options.source);
  placeReady(ready, placement);
  tidily(() => finish(model, info, transforms, { ...options, device }));
  await placing?.finish();
  return info;
}

/** By what models have in common: this file cannot know the class without a circle of imports. */
const isPreTrainedModel = (module: unknown): module is PreTrainedModel =>
  typeof (module as Partial<PreTrainedModel>)._finish_loading === "function";

/** Which parameters stay float32 although the model is loaded in less. */
function float32Filter(cls: typeof PreTrainedModel, dtype: Dtype): (name: string) => boolean {
  const parts = [
    ...(dtype === "float16" ? cls._keep_in_fp32_modules : []),
    ...(dtype === "float16" || dtype === "bfloat16" ? cls._keep_in_fp32_modules_strict : []),
  ];
  if (parts.length === 0) return () => false;
  const pattern = new RegExp(parts.map((part) => part.replaceAll("*", ".*")).join("|"));
  return (name) => pattern.test(name);
}

/** Gives memory and first values to what the checkpoint lacks, ties, and reports. */
function finish(
  model: PreTrainedModel,
  info: LoadingInfo,
  transforms: readonly WeightTransform[],
  options: FillOptions & { readonly device: (name: string) => Device },
): void {
  const cls = model.constructor as typeof PreTrainedModel;
  const fresh = new Set([...info.missing_keys, ...[...info.mismatched_keys].map(([name]) => name)]);
  const tied = model.all_tied_weights_keys;
  torch.no_grad(() => {
    for (const [path, module] of model.named_modules())
      allocate(path, module, new Set(Object.keys(tied)), options.device);
  });
  model._tie_loaded_weights(info.missing_keys);
  for (const name of fresh) if (!info.missing_keys.has(name) && name in tied) fresh.delete(name);
  model.init_weights();

  const hasBuffer = (suffix: RegExp) => [...model.named_buffers()].some(([name]) => suffix.test(name));
  drop(info.missing_keys, cls._keys_to_ignore_on_load_missing);
  drop(info.unexpected_keys, [
    ...cls._keys_to_ignore_on_load_unexpected,
    ...(hasBuffer(/rotary_emb\.inv_freq$/) ? ["rotary_emb\\.inv_freq"] : []),
    ...(hasBuffer(/(^|\.)position_ids$/) ? ["(^|\\.)position_ids$"] : []),
  ]);
  model._finish_loading(
    [...info.missing_keys, ...[...info.mismatched_keys].map(([name]) => name)],
    transforms.filter((transform) => transform.was_used()),
  );
  if (options.strict && info.missing_keys.size + info.unexpected_keys.size + info.mismatched_keys.size > 0) {
    throw new CheckpointError(
      `strict: ${options.source} does not have exactly the tensors of ${cls.name}. ${lists(info)}`,
      keyLists(info),
    );
  }
  printLoadingReport(info, `${cls.name} loading report, from ${options.source}`);
}

/** Puts memory under what is still on the meta device; a tied target waits for its source. */
function allocate(
  path: string,
  module: nn.Module,
  tied: ReadonlySet<string>,
  device: (name: string) => Device,
): void {
  const { parameters, buffers } = module._own_state();
  for (const [name, tensor] of [...parameters, ...buffers]) {
    if (is_loaded(tensor) || !tensor.is_meta) continue;
    const full = path === "" ? name : `${path}.${name}`;
    if (tied.has(full)) continue;
    tensor.data = torch.empty(tensor.shape, { dtype: tensor.dtype, device: device(full) });
  }
}

function drop(keys: Set<string>, patterns: readonly string[]): void {
  for (const key of keys) if (patterns.some((pattern) => new RegExp(pattern).test(key))) keys.delete(key);
}
