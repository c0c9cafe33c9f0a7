// Loading a checkpoint into a model: a skeleton on the meta device, then the file's tensors put into its parameters.
import { setImmediate as nextTurn } from "node:timers/promises";
import { GenerationConfig, PretrainedConfig } from "../configuration/index.ts";
import { CheckpointError, InvalidArgumentError, UnsupportedQuantizationError } from "../errors/index.ts";
import { nearest } from "../errors/suggest.ts";
import { warn } from "../errors/warnings.ts";
import { type CheckpointFiles, findCheckpoint } from "../hub/checkpoint.ts";
import type { HubOptions } from "../hub/files.ts";
import type * as nn from "../nn/index.ts";
import { asDtype, isFloatingDtype } from "../torch/dtype.ts";
import type { Device, Dtype, Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { assertPlausible, Checkpoint, type Entry } from "./checkpoint.ts";
import { is_loaded, mark_loaded } from "./initialization.ts";
import { type LoadingInfo, printLoadingReport } from "./loading_report.ts";
import type { ModelClass, PreTrainedModel } from "./modeling_utils.ts";

export type { LoadingInfo } from "./loading_report.ts";

/** One step of loading; each stage ends with one event whose `loaded` is `total`. */
export interface ProgressEvent {
  readonly stage: "resolve" | "download" | "read" | "place" | "ready";
  readonly file: string;
  readonly loaded: number;
  readonly total: number;
  readonly total_loaded: number;
  readonly total_bytes: number;
}

/** Options of `from_pretrained`. Any field of the config may be given too, to replace its value. */
export interface FromPretrainedOptions extends HubOptions {
  /** "auto" (default): what config or file say; else a floating point dtype to which weights are cast. */
  readonly dtype?: Dtype | "auto" | null | undefined;
  /** The older name of `dtype`. */
  readonly torch_dtype?: Dtype | "auto" | null | undefined;
  /** A config to use instead of the checkpoint's, or the directory of one. */
  readonly config?: PretrainedConfig | string | null | undefined;
  /** "sdpa" (default where the model has it), "eager", or a registered name. */
  readonly attn_implementation?: string | null | undefined;
  /** One device for all weights: "cpu" (default), "cuda:0"; or "auto". */
  readonly device_map?: Device | Readonly<Record<string, Device>> | null | undefined;
  readonly max_memory?: unknown;
  readonly offload_folder?: string | null | undefined;
  readonly variant?: string | undefined;
  /** Throw unless checkpoint and model have the same tensors. Default false. */
  readonly strict?: boolean | undefined;
  /** Initialize weights whose shape differs instead of throwing. Default false. */
  readonly ignore_mismatched_sizes?: boolean | undefined;
  /** Resolve to `[model, info]`. Default false. */
  readonly output_loading_info?: boolean | undefined;
  /** Pattern → replacement, applied to the checkpoint's names before anything else. */
  readonly key_mapping?: Readonly<Record<string, string>> | undefined;
  readonly trust_remote_code?: boolean | undefined;
  readonly progress_callback?: ((event: ProgressEvent) => void) | undefined;
  readonly quantization_config?: unknown;
  readonly [field: string]: unknown;
}

/** Read here; everything else goes to the hub, to the config, or is refused. */
const OWN_OPTIONS = [
  "dtype",
  "torch_dtype",
  "config",
  "attn_implementation",
  "device_map",
  "max_memory",
  "offload_folder",
  "offload_buffers",
  "variant",
  "strict",
  "ignore_mismatched_sizes",
  "output_loading_info",
  "key_mapping",
  "trust_remote_code",
  "progress_callback",
  "quantization_config",
] as const;

/** Options of the reference that ask for what is always so here. */
const WITHOUT_EFFECT = [
  "low_cpu_mem_usage",
  "_fast_init",
  "offload_state_dict",
  "mirror",
  "from_tf",
  "from_flax",
  "use_safetensors",
  "weights_only",
  "disable_mmap",
  "code_revision",
  "_from_auto",
  "_from_pipeline",
] as const;

const HUB_OPTIONS = [
  "revision",
  "subfolder",
  "cache_dir",
  "token",
  "local_files_only",
  "force_download",
  "signal",
] as const;

let loading = 0;

/** True while a skeleton is built: constructors leave weights alone then. */
export const isLoading = (): boolean => loading > 0;

type Split = { own: FromPretrainedOptions; hub: HubOptions; fields: Record<string, unknown> };

function splitOptions(options: FromPretrainedOptions): Split {
  const own: Record<string, unknown> = {};
  const hub: Record<string, unknown> = {};
  const fields: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || WITHOUT_EFFECT.includes(name as never)) continue;
    if (HUB_OPTIONS.includes(name as never)) hub[name] = value;
    else if (OWN_OPTIONS.includes(name as never)) own[name] = value;
    else fields[name] = value;
  }
  return { own: own as FromPretrainedOptions, hub: hub as HubOptions, fields };
}

/** See `PreTrainedModel.from_pretrained`. */
export async function loadPretrained(
  cls: ModelClass & typeof PreTrainedModel,
  dirOrRepo: string,
  options: FromPretrainedOptions,
): Promise<[PreTrainedModel, LoadingInfo]> {
  if (typeof dirOrRepo !== "string" || dirOrRepo === "") {
    throw new InvalidArgumentError(
      `${cls.name}.from_pretrained takes a directory or a repository name first.`,
    );
  }
  const { own, hub, fields } = splitOptions(options);
  const { signal } = hub;
  signal?.throwIfAborted();
  const report = progressReporter(own.progress_callback);

  const config = await loadConfig(cls, dirOrRepo, own, hub, fields);
  refuseQuantization(config, own);
  const device = oneDevice(own.device_map);
  const transformers_weights = (config as { transformers_weights?: string }).transformers_weights;
  const files = await findCheckpoint(dirOrRepo, {
    ...hub,
    variant: own.variant,
    ...(transformers_weights ? { transformers_weights } : {}),
  });
  report("resolve", dirOrRepo, 1, 1);
  signal?.throwIfAborted();

  const checkpoint = await Checkpoint.open(files, own.key_mapping);
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
      device,
      strict: own.strict ?? false,
      ignore: own.ignore_mismatched_sizes ?? false,
      source: dirOrRepo,
      report,
      signal,
    });
    model.eval();
    if (own.device_map) model.hf_device_map = { "": device };
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

/** A checkpoint in packed numbers would load as nonsense: refused before any weight is read. */
function refuseQuantization(config: PretrainedConfig, own: FromPretrainedOptions): void {
  const quantization = (own.quantization_config ?? config.quantization_config) as
    | { quant_method?: unknown }
    | null
    | undefined;
  if (quantization === null || quantization === undefined) return;
  throw new UnsupportedQuantizationError(
    `The checkpoint is quantized by '${String(quantization.quant_method ?? "an unnamed method")}', which is not implemented.`,
    { hint: "Use a checkpoint in float32, float16 or bfloat16." },
  );
}

/** The device of all weights; placing over several devices is not part of this version. */
function oneDevice(device_map: FromPretrainedOptions["device_map"]): Device {
  if (device_map === null || device_map === undefined) return "cpu";
  const devices = typeof device_map === "string" ? [device_map] : [...new Set(Object.values(device_map))];
  const [device] = devices;
  if (devices.length !== 1 || device === undefined || device === "disk") {
    throw new InvalidArgumentError(
      "device_map: only one device for the whole model is possible in this version.",
    );
  }
  if (["auto", "balanced", "balanced_low_0", "sequential"].includes(device))
    return torch.cuda.is_available() ? "cuda:0" : "cpu";
  return device;
}

function chooseDtype(
  wanted: string,
  config: PretrainedConfig,
  files: CheckpointFiles,
  checkpoint: Checkpoint,
): Dtype {
  const auto = () => {
    const inIndex = files.metadata.dtype;
    const inFile = [...checkpoint.entries.values()].find(
      ({ dtype }) => isFloatingDtype(dtype) && !dtype.startsWith("float8"),
    );
    return (
      config.dtype ??
      (typeof inIndex === "string" ? inIndex : undefined) ??
      inFile?.dtype ??
      torch.get_default_dtype()
    );
  };
  const dtype = asDtype(wanted === "auto" ? auto() : wanted);
  if (!isFloatingDtype(dtype))
    throw new InvalidArgumentError(`dtype must be a floating point dtype, got '${dtype}'.`);
  return dtype;
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
  readonly device: Device;
  readonly strict: boolean;
  readonly ignore: boolean;
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
  const state = model.state_dict({ keep_vars: true });
  const nameOf = keyMatcher(state, cls.base_model_prefix);
  const info: LoadingInfo = {
    missing_keys: new Set(Object.keys(state)),
    unexpected_keys: new Set(),
    mismatched_keys: new Set(),
    error_msgs: [],
  };
  const plan: [name: string, tensor: Tensor, entry: Entry][] = [];
  for (const [key, entry] of checkpoint.entries) {
    const name = nameOf(key);
    const tensor = name === undefined ? undefined : state[name];
    if (name === undefined || tensor === undefined) {
      info.unexpected_keys.add(key);
      continue;
    }
    info.missing_keys.delete(name);
    const wanted = tensor.shape;
    if (entry.shape.length === wanted.length && entry.shape.every((size, i) => size === wanted[i]))
      plan.push([name, tensor, entry]);
    else info.mismatched_keys.add([name, entry.shape, wanted]);
  }
  if (info.mismatched_keys.size > 0 && !options.ignore) throw mismatch(info, options.source);

  const keepsFloat32 = float32Filter(cls, options.dtype);
  const bytes = plan.reduce((total, [, , entry]) => total + entry.file.get_info(entry.name).nbytes, 0);
  let done = 0;
  let turn = performance.now();
  for (const [name, tensor, entry] of plan) {
    options.signal?.throwIfAborted();
    const dtype = isFloatingDtype(tensor.dtype)
      ? keepsFloat32(name)
        ? "float32"
        : options.dtype
      : tensor.dtype;
    tidily(() => {
      tensor.data = entry.file.get_tensor(entry.name).to({ dtype, device: options.device });
    });
    mark_loaded(tensor);
    done += entry.file.get_info(entry.name).nbytes;
    options.report("read", entry.file.path, done, bytes);
    // Casts and copies take their time: the event loop gets its turn in between.
    if (performance.now() - turn > 10) {
      await nextTurn();
      turn = performance.now();
    }
  }
  tidily(() => finish(model, info, options));
  return info;
}

/** Checkpoint name → model name: as it is, or with the base model's prefix added or taken off. */
function keyMatcher(
  state: Readonly<Record<string, Tensor>>,
  prefix: string,
): (key: string) => string | undefined {
  return (key) => {
    if (Object.hasOwn(state, key)) return key;
    if (prefix === "") return undefined;
    if (Object.hasOwn(state, `${prefix}.${key}`)) return `${prefix}.${key}`;
    const stripped = key.startsWith(`${prefix}.`) ? key.slice(prefix.length + 1) : undefined;
    return stripped !== undefined && Object.hasOwn(state, stripped) ? stripped : undefined;
  };
}

/** Which parameters stay float32 although the model is loaded in less. */
function float32Filter(cls: typeof PreTrainedModel, dtype: Dtype): (name: string) => boolean {
  const parts = [
    ...(dtype === "float16" ? cls._keep_in_fp32_modules : []),
    ...(dtype === "float16" || dtype === "bfloat16" ? cls._keep_in_fp32_modules_strict : []),
  ];
  return (name) =>
    parts.some((part) =>
      new RegExp(`(^|\\.)${part.replaceAll(".", "\\.").replaceAll("*", ".*")}(\\.|$)`).test(name),
    );
}

/** Gives memory and first values to what the checkpoint lacks, ties, and reports. */
function finish(model: PreTrainedModel, info: LoadingInfo, options: FillOptions): void {
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
  model._finish_loading([...info.missing_keys, ...[...info.mismatched_keys].map(([name]) => name)]);
  if (options.strict && info.missing_keys.size + info.unexpected_keys.size + info.mismatched_keys.size > 0) {
    throw new CheckpointError(
      `strict: ${options.source} does not have exactly the tensors of ${cls.name}. ${lists(info)}`,
      keyLists(info),
    );
  }
  printLoadingReport(info, `${cls.name} loading report, from ${options.source}`);
}

/** Puts memory under what is still on the meta device; a tied target waits for its source. */
function allocate(path: string, module: nn.Module, tied: ReadonlySet<string>, device: Device): void {
  const { parameters, buffers } = module._own_state();
  for (const [name, tensor] of [...parameters, ...buffers]) {
    if (is_loaded(tensor) || !tensor.is_meta) continue;
    const full = path === "" ? name : `${path}.${name}`;
    if (tied.has(full)) continue;
    tensor.data = torch.empty(tensor.shape, { dtype: tensor.dtype, device });
  }
}

function drop(keys: Set<string>, patterns: readonly string[]): void {
  for (const key of keys) if (patterns.some((pattern) => new RegExp(pattern).test(key))) keys.delete(key);
}

function mismatch(info: LoadingInfo, source: string): CheckpointError {
  const each = [...info.mismatched_keys].map(
    ([name, found, wanted]) => `${name} is [${found.join(", ")}], the model has [${wanted.join(", ")}]`,
  );
  return new CheckpointError(`Shapes in ${source} differ from the model's: ${some(each, "; ")}.`, {
    ...keyLists(info),
    hint: "Check the config, or pass { ignore_mismatched_sizes: true } to initialize these weights anew.",
  });
}

const keyLists = (info: LoadingInfo) => ({
  missing_keys: [...info.missing_keys],
  unexpected_keys: [...info.unexpected_keys],
  mismatched_keys: [...info.mismatched_keys],
});

const some = (items: readonly string[], separator = ", ") =>
  items.length > 5
    ? `${items.slice(0, 5).join(separator)}${separator}and ${items.length - 5} more`
    : items.join(separator);

function lists(info: LoadingInfo): string {
  const { missing_keys, unexpected_keys, mismatched_keys } = keyLists(info);
  const part = (what: string, names: readonly string[]) =>
    names.length > 0 ? [`${what}: ${some(names)}.`] : [];
  return [
    ...part("Missing", missing_keys),
    ...part("Unexpected", unexpected_keys),
    ...part(
      "Mismatched",
      mismatched_keys.map(([name]) => name),
    ),
  ].join(" ");
}

// Progress -------------------------------------------------------------------------------------------------------

type Report = (stage: ProgressEvent["stage"], file: string, loaded: number, total: number) => void;

/** At most ten events a second, and always the last one of a stage. */
function progressReporter(callback: FromPretrainedOptions["progress_callback"]): Report {
  if (callback === undefined) return () => {};
  let last = 0;
  return (stage, file, loaded, total) => {
    const now = performance.now();
    if (loaded < total && now - last < 100) return;
    last = now;
    callback({ stage, file, loaded, total, total_loaded: loaded, total_bytes: total });
  };
}
