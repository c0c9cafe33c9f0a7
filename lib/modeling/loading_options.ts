// What `from_pretrained` is told: its options, and what follows from them before any weight is read.

import type { DeviceMap, MaxMemory, Place } from "../big_modeling/devices.ts";
import type { PretrainedConfig } from "../configuration/index.ts";
import { InvalidArgumentError, UnsupportedQuantizationError } from "../errors/index.ts";
import type { CheckpointFiles } from "../hub/checkpoint.ts";
import { HUB_OPTIONS, type HubOptions, type ProgressEvent } from "../hub/files.ts";
import { asDtype, isFloatingDtype } from "../torch/dtype.ts";
import type { Dtype } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import type { Checkpoint } from "./checkpoint.ts";

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
  /**
   * Where weights go: one device ("cpu", "cuda:0", 0), a map from module names to devices, "cpu" or "disk", or a plan: "auto" (the
   * same as "balanced"), "balanced_low_0" (as little as possible on the first accelerator), "sequential". Default: the CPU.
   */
  readonly device_map?: Place | DeviceMap | null | undefined;
  /** Place → bytes or a size such as "10GiB": what a plan may use. Default: what is free. */
  readonly max_memory?: MaxMemory | null | undefined;
  /** Folder for weights that stay on the disk and that no file of the checkpoint holds as they are needed. */
  readonly offload_folder?: string | null | undefined;
  /** Offload buffers too. Default false. */
  readonly offload_buffers?: boolean | undefined;
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
  /** The name that the adapter of a folder or repository with an adapter_config.json gets. Default "default". */
  readonly adapter_name?: string | undefined;
  /** Options of the hub for the files of such an adapter. */
  readonly adapter_kwargs?: HubOptions | null | undefined;
  readonly quantization_config?: unknown;
  readonly [field: string]: unknown;
}

/** Read here; everything else goes to the hub, to the config, or is refused. */
export const OWN_OPTIONS = [
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
  "adapter_name",
  "adapter_kwargs",
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

type Split = { own: FromPretrainedOptions; hub: HubOptions; fields: Record<string, unknown> };

/** The options by whom they concern. */
export function splitOptions(options: FromPretrainedOptions): Split {
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

/** A checkpoint in packed numbers would load as nonsense: refused before any weight is read. */
export function refuseQuantization(config: PretrainedConfig, own: FromPretrainedOptions): void {
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

/** The dtype of the weights: as wanted, or with "auto" what config, index or file say. */
export function chooseDtype(
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

export type Report = (
  stage: ProgressEvent["stage"],
  file: string,
  loaded: number,
  total: number,
  total_loaded?: number,
  total_bytes?: number,
) => void;

/** At most ten events a second, and always the last one of a stage. */
export function progressReporter(callback: FromPretrainedOptions["progress_callback"]): Report {
  if (callback === undefined) return () => {};
  let last = 0;
  return (stage, file, loaded, total, total_loaded = loaded, total_bytes = total) => {
    const now = performance.now();
    if (total_loaded < total_bytes && now - last < 100) return;
    last = now;
    callback({ stage, file, loaded, total, total_loaded, total_bytes });
  };
}
