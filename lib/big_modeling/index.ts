// Models larger than a device: plans, hooks, and what puts them together.
export {
  AlignDevicesHook,
  type AlignDevicesOptions,
  type AttachOnBlocksOptions,
  type AttachOptions,
  attach_align_device_hook,
  attach_align_device_hook_on_blocks,
  attach_execution_device_hook,
} from "./align_devices.ts";
export { convert_file_size_to_int, dtype_byte_size } from "./byte_sizes.ts";
export {
  CpuOffload,
  cpu_offload,
  cpu_offload_with_hook,
  disk_offload,
  type OffloadOptions,
  UserCpuOffloadHook,
} from "./cpu_offload.ts";
export { check_device_map, type InferOptions, infer_auto_device_map } from "./device_map.ts";
export type { DeviceMap, MaxMemory, Place } from "./devices.ts";
export { type DispatchOptions, dispatch_model } from "./dispatch.ts";
export {
  add_hook_to_module,
  ModelHook,
  remove_hook_from_module,
  remove_hook_from_submodules,
  SequentialHook,
} from "./hooks.ts";
export { type InitOptions, init_empty_weights, init_on_device } from "./init_empty.ts";
export {
  type LoadAndDispatchOptions,
  type LoadOptions,
  load_checkpoint_and_dispatch,
  load_checkpoint_in_model,
} from "./load_checkpoint.ts";
export { type BalanceOptions, get_balanced_memory, get_max_memory } from "./max_memory.ts";
export {
  calculate_maximum_sizes,
  compute_module_sizes,
  find_tied_parameters,
  type SizeOptions,
} from "./module_sizes.ts";
export {
  type OffloadEntry,
  type OffloadIndex,
  offload_state_dict,
  offload_weight,
  save_offload_index,
} from "./offload_folder.ts";
export { OffloadedWeightsLoader } from "./weights_map.ts";
