// Checkpoints put into any module, part by part where a device map says; for models of the library there is from_pretrained.
import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { CheckpointError, EntryNotFoundError, InvalidArgumentError } from "../errors/index.ts";
import { warn } from "../errors/warnings.ts";
import { findCheckpoint } from "../hub/checkpoint.ts";
import { bind } from "../nn/arguments.ts";
import type { Module } from "../nn/index.ts";
import { type SafeOpen, safe_open } from "../safetensors/index.ts";
import { isFloatingDtype } from "../torch/dtype.ts";
import type { Dtype, Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { infer_auto_device_map, placeOf, warnOfSplitTies } from "./device_map.ts";
import { type DeviceMap, type MaxMemory, placesOf } from "./devices.ts";
import { type DispatchOptions, dispatch_model } from "./dispatch.ts";
import { get_balanced_memory } from "./max_memory.ts";
import { find_tied_parameters } from "./module_sizes.ts";
import { type OffloadIndex, save_offload_index } from "./offload_folder.ts";
import { PLAN_KINDS, type PlanKind } from "./plan_model.ts";
import { letRest, settle } from "./residence.ts";
import { fileSource } from "./weights_map.ts";

export interface LoadOptions {
  /** Module name → place. Without it values are copied to where the parameters are. */
  readonly device_map?: DeviceMap | null | undefined;
  /** Gets an index of what stays on the disk, for `dispatch_model`. Nothing is copied: it names the checkpoint's files. */
  readonly offload_folder?: string | null | undefined;
  /** Cast floating point weights. Default: to what the parameters are. */
  readonly dtype?: Dtype | null | undefined;
  /** Leave buffers of modules on the disk there too. Default false. */
  readonly offload_buffers?: boolean | undefined;
  /** Names of modules whose weights are float32 although `dtype` is float16. */
  readonly keep_in_fp32_modules?: readonly string[] | undefined;
  /** Throw unless checkpoint and model have the same tensors. Default false. */
  readonly strict?: boolean | undefined;
}

const DEFAULTS = {
  device_map: undefined as LoadOptions["device_map"],
  offload_folder: undefined as LoadOptions["offload_folder"],
  dtype: undefined as LoadOptions["dtype"],
  offload_buffers: false,
  keep_in_fp32_modules: [] as readonly string[],
  strict: false,
};

/** The safetensors files of a checkpoint: a file, an index of several, or a folder with either. */
async function checkpointFiles(
  checkpoint: string,
): Promise<{ files: readonly string[]; of?: ReadonlyMap<string, string> }> {
  const found = await stat(checkpoint).catch(() => undefined);
  if (found === undefined)
    throw new EntryNotFoundError(
      `There is no checkpoint ${checkpoint}: give a safetensors file, its index, or a folder.`,
    );
  const indexed = async (folder: string, name: string) => {
    const { files, weight_map } = await findCheckpoint(folder, { transformers_weights: name });
    return { files, ...(weight_map ? { of: weight_map } : {}) };
  };
  if (found.isFile())
    return checkpoint.endsWith(".json")
      ? indexed(path.dirname(checkpoint), path.basename(checkpoint))
      : { files: [checkpoint] };
  const names = await readdir(checkpoint);
  const indices = names.filter((name) => name.endsWith(".safetensors.index.json"));
  if (!names.includes("model.safetensors") && indices.length > 1)
    throw new CheckpointError(
      `${checkpoint} holds several indices: ${indices.join(", ")}. Name one of them.`,
    );
  if (!names.includes("model.safetensors") && indices[0] !== undefined)
    return indexed(checkpoint, indices[0]);
  return findCheckpoint(checkpoint);
}

/**
 * Loads safetensors into a module. With a device map each weight goes where the map says, and those on the disk stay in the
 * checkpoint's own files. `dispatch_model` makes a model that is spread run.
 *
 * @param checkpoint a safetensors file, an index of several, or a folder.
 * @throws CheckpointError for shapes that differ, and with `strict` for names that do.
 * @example await load_checkpoint_in_model(model, "./checkpoint", { device_map: { "": "cpu" } });
 */
export async function load_checkpoint_in_model(
  model: Module,
  checkpoint: string,
  options: LoadOptions = {},
): Promise<void> {
  const bound = bind("load_checkpoint_in_model", [options], DEFAULTS);
  const map = bound.device_map ? placesOf(bound.device_map) : undefined;
  if (map !== undefined) warnOfSplitTies(find_tied_parameters(model), map);
  const state = model.state_dict({ keep_vars: true });
  const buffers = new Set([...model.named_buffers({ remove_duplicate: false })].map(([name]) => name));
  const { files, of } = await checkpointFiles(checkpoint);
  const missing = new Set(Object.keys(state));
  const unexpected: string[] = [];
  const mismatched: [string, readonly number[], readonly number[]][] = [];
  const index: OffloadIndex = {};
  const opened: SafeOpen[] = [];
  const kept = new Set<SafeOpen>();
  try {
    for (const file of files) opened.push(await safe_open(file));
    for (const file of opened) {
      for (const name of file.keys()) {
        if (of !== undefined && of.get(name) !== file.path) continue;
        const tensor = Object.hasOwn(state, name) ? (state[name] as Tensor) : undefined;
        if (tensor === undefined) {
          unexpected.push(name);
          continue;
        }
        missing.delete(name);
        const { shape } = file.get_info(name);
        if (String(shape) !== String(tensor.shape)) mismatched.push([name, shape, tensor.shape]);
        else place(file, name, tensor);
        await nextTurn();
      }
    }
  } finally {
    for (const file of opened) if (!kept.has(file)) file.close();
  }
  // One tensor under several names needs one of them.
  const there = new Set(
    Object.keys(state)
      .filter((name) => !missing.has(name))
      .map((name) => state[name]),
  );
  for (const name of missing) if (there.has(state[name])) missing.delete(name);
  report(model, checkpoint, { missing, unexpected, mismatched }, bound.strict);
  if (bound.offload_folder) await save_offload_index(index, bound.offload_folder);

  function place(file: SafeOpen, name: string, tensor: Tensor): void {
    const stored = file.get_info(name).dtype;
    const wanted = isFloatingDtype(tensor.dtype) ? wantedDtype(name, tensor, bound) : tensor.dtype;
    const where = map === undefined ? undefined : placeOf(map, name);
    if (map !== undefined && where === undefined)
      throw new InvalidArgumentError(`The device_map gives no place for ${name}.`);
    torch.no_grad(() =>
      torch.tidy(() => {
        if (where === "disk" && (bound.offload_buffers || !buffers.has(name))) {
          if (wanted !== tensor.dtype)
            tensor.data = torch.empty(tensor.shape, { dtype: wanted, device: "meta" });
          const source = fileSource(file, name, wanted);
          if (source.tensor === undefined) kept.add(file);
          else torch.keep(source.tensor);
          letRest(tensor, source);
          index[name] = { safetensors_file: path.resolve(file.path), weight_name: name, dtype: wanted };
          return;
        }
        const value = file.get_tensor(name);
        const cast = stored === wanted ? value : value.to({ dtype: wanted });
        if (where === undefined && !tensor.is_meta) tensor.copy_(cast);
        else {
          tensor.data = cast;
          if (where !== undefined && where !== "disk") settle(tensor, String(where), name);
        }
      }),
    );
  }
}

/** As it is given, as it is in the model, or float32 for those that keep it. */
function wantedDtype(name: string, tensor: Tensor, { dtype, keep_in_fp32_modules = [] }: LoadOptions): Dtype {
  if (dtype === undefined || dtype === null) return tensor.dtype;
  const keeps = keep_in_fp32_modules.some((key) => name === key || name.includes(`${key}.`));
  return dtype === "float16" && keeps ? "float32" : dtype;
}

function report(
  model: Module,
  checkpoint: string,
  found: {
    missing: Set<string>;
    unexpected: string[];
    mismatched: [string, readonly number[], readonly number[]][];
  },
  strict: boolean,
): void {
  const { missing, unexpected, mismatched } = found;
  const lists = { missing_keys: [...missing], unexpected_keys: unexpected, mismatched_keys: mismatched };
  if (mismatched.length > 0) {
    const [[name, shape, wanted]] = mismatched as [[string, number[], number[]]];
    throw new CheckpointError(
      `${checkpoint}: '${name}' has the shape [${shape}], and ${model.constructor.name} wants [${wanted}].`,
      lists,
    );
  }
  const short = (names: readonly string[]) =>
    names.slice(0, 10).join(", ") + (names.length > 10 ? ", …" : "");
  if (strict && (missing.size > 0 || unexpected.length > 0))
    throw new CheckpointError(
      `strict: ${checkpoint} does not have exactly the tensors of ${model.constructor.name}. Missing: ${short([...missing]) || "none"}. Unexpected: ${short(unexpected) || "none"}.`,
      lists,
    );
  if (unexpected.length > 0)
    warn(`${model.constructor.name} has no use for some weights of ${checkpoint}: ${short(unexpected)}.`);
}

export interface LoadAndDispatchOptions
  extends Omit<LoadOptions, "device_map" | "keep_in_fp32_modules">,
    Pick<DispatchOptions, "skip_keys" | "preload_module_classes" | "force_hooks"> {
  /** A map, or "auto", "balanced", "balanced_low_0", "sequential". Without it the model is loaded and not spread. */
  readonly device_map?: PlanKind | DeviceMap | null | undefined;
  readonly max_memory?: MaxMemory | null | undefined;
  readonly no_split_module_classes?: string | Iterable<string> | null | undefined;
}

/**
 * Loads a checkpoint into a model and spreads it: `load_checkpoint_in_model`, then `dispatch_model`.
 *
 * @example
 * const model = init_empty_weights(() => new Net());
 * await load_checkpoint_and_dispatch(model, "./net.safetensors", { device_map: "auto", no_split_module_classes: ["Block"] });
 */
export async function load_checkpoint_and_dispatch<M extends Module>(
  model: M,
  checkpoint: string,
  options: LoadAndDispatchOptions = {},
): Promise<M> {
  const bound = bind("load_checkpoint_and_dispatch", [options], {
    ...DEFAULTS,
    device_map: undefined as LoadAndDispatchOptions["device_map"],
    max_memory: undefined as LoadAndDispatchOptions["max_memory"],
    no_split_module_classes: undefined as LoadAndDispatchOptions["no_split_module_classes"],
    skip_keys: undefined as DispatchOptions["skip_keys"],
    preload_module_classes: undefined as DispatchOptions["preload_module_classes"],
    force_hooks: false,
  });
  const { dtype, offload_buffers, strict, offload_folder } = bound;
  const device_map = planned(model, bound);
  await load_checkpoint_in_model(model, checkpoint, {
    device_map,
    dtype,
    offload_buffers,
    strict,
    offload_folder,
  });
  if (!device_map) return model;
  const { skip_keys, force_hooks } = bound;
  const preload_module_classes = bound.preload_module_classes ?? bound.no_split_module_classes;
  return dispatch_model(model, device_map, {
    offload_buffers,
    skip_keys,
    preload_module_classes,
    force_hooks,
  });
}

/** The map itself, or the one that a kind of plan gives. */
function planned(model: Module, options: LoadAndDispatchOptions): DeviceMap | null | undefined {
  const { device_map, no_split_module_classes, offload_buffers } = options;
  if (typeof device_map !== "string") return device_map;
  if (!PLAN_KINDS.includes(device_map))
    throw new InvalidArgumentError(
      `device_map is one of ${PLAN_KINDS.join(", ")}, or a map, got '${device_map}'.`,
    );
  const shared = { no_split_module_classes, dtype: options.dtype ?? undefined };
  const max_memory =
    device_map === "sequential"
      ? options.max_memory
      : get_balanced_memory(model, {
          max_memory: options.max_memory,
          low_zero: device_map === "balanced_low_0",
          ...shared,
        });
  return infer_auto_device_map(model, { max_memory, offload_buffers, ...shared });
}
