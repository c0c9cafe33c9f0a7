export { convert_file_size_to_int, dtype_byte_size } from "./byte_sizes.ts";
export { type InferOptions, check_device_map, infer_auto_device_map } from "./device_map.ts";
export type { DeviceMap, MaxMemory, Place } from "./devices.ts";
export { type BalanceOptions, get_balanced_memory, get_max_memory } from "./max_memory.ts";
export { calculate_maximum_sizes, compute_module_sizes, find_tied_parameters, type SizeOptions } from "./module_sizes.ts";
