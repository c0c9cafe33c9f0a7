// torch.cuda: devices, the allocator, random numbers; streams and events lie beside it.
import type { DeviceMemory } from "../addon/addon.ts";
import { addon } from "../addon/loader.ts";
import { CudaUnavailableError, InvalidArgumentError } from "../errors/index.ts";
import { type CudaDevice, cudaIndex } from "./cuda_device.ts";
import { Generator } from "./generator.ts";
import type { Tensor } from "./tensor.ts";

export type { CudaDevice } from "./cuda_device.ts";
export {
  current_stream,
  default_stream,
  Event,
  type EventOptions,
  record_stream,
  Stream,
  type StreamOptions,
  set_stream,
  stream,
} from "./cuda_stream.ts";

// --- devices ------------------------------------------------------------------------------------------------------------

/** How many devices can be used: 0 without a driver, or without CUDA's part of libtorch. */
export const device_count = (): number => addon().deviceCount("cuda");
/** Whether there is a device that can be used. */
export const is_available = (): boolean => device_count() > 0;

/**
 * Why no device can be used, one sentence each; empty where one can. What a CudaUnavailableError says.
 *
 * @example
 * torch.cuda.unavailable_reasons(); // ["no NVIDIA driver was found (libcuda.so.1)", …]
 */
export const unavailable_reasons = (): string[] => addon().cudaReasons();

/**
 * The index of the device that `"cuda"` means in this thread.
 *
 * @throws CudaUnavailableError with the reasons, when there is none
 */
export const current_device = (): number => addon().currentDevice();

/**
 * Chooses the device that `"cuda"` means in this thread; a negative index changes nothing.
 *
 * @throws CudaUnavailableError when there is no such device
 */
export function set_device(device: CudaDevice): void {
  const index = cudaIndex(device, "set_device");
  if (typeof device === "number" && device < 0) return;
  addon().setDevice(index);
}

/** Waits until the work queued on a device is done. */
export function synchronize(device?: CudaDevice): void {
  const index = cudaIndex(device, "synchronize");
  addon().synchronize(index < 0 ? "cuda" : `cuda:${index}`);
}

/** What `get_device_properties` tells. */
export interface DeviceProperties {
  readonly name: string;
  /** Bytes. */
  readonly total_memory: number;
  readonly major: number;
  readonly minor: number;
}

function info(device?: CudaDevice) {
  const asked = cudaIndex(device, "get_device_properties");
  const index = asked < 0 ? current_device() : asked;
  const found = addon()
    .deviceInfo()
    .find((one) => one.type === "cuda" && one.index === index);
  if (found !== undefined) return found;
  const reasons = unavailable_reasons();
  throw new CudaUnavailableError(
    reasons.length > 0
      ? `device 'cuda:${index}' cannot be used: ${reasons.join("; ")}`
      : `device 'cuda:${index}' does not exist: there are ${device_count()} CUDA devices`,
  );
}

/** Name, bytes of memory and compute capability. Throws `CudaUnavailableError` where there is no such device. */
export function get_device_properties(device?: CudaDevice): DeviceProperties {
  const { name: title, total_memory, capability } = info(device);
  const [major = 0, minor = 0] = capability.split(".").map(Number);
  return { name: title, total_memory, major, minor };
}

/** The name that the driver gives. */
export const get_device_name = (device?: CudaDevice): string => info(device).name;

/** Compute capability, [major, minor]. */
export function get_device_capability(device?: CudaDevice): [number, number] {
  const { major, minor } = get_device_properties(device);
  return [major, minor];
}

/** Free and total bytes. */
export function mem_get_info(device?: CudaDevice): [number, number] {
  const { free_memory, total_memory } = info(device);
  return [free_memory, total_memory];
}

/** Whether the current device computes in bfloat16. */
export const is_bf16_supported = (): boolean => is_available() && get_device_properties().major >= 8;

// --- memory -------------------------------------------------------------------------------------------------------------

const POOLS = ["all", "small_pool", "large_pool"];
const NUMBERS = ["current", "peak", "allocated", "freed"];

/**
 * The caching allocator's counters under torch's names, such as `"allocated_bytes.all.peak"`. Empty without a device.
 *
 * @param device default: the current one
 */
export function memory_stats(device?: CudaDevice): Record<string, number> {
  const index = cudaIndex(device, "memory_stats");
  if (!is_available()) return {};
  const stats: Record<string, number> = {};
  for (const [name, value] of Object.entries(addon().deviceMemory(index) as DeviceMemory)) {
    if (typeof value === "number") {
      stats[name] = value;
      continue;
    }
    for (const [i, number] of (value as number[]).entries())
      stats[`${name}.${POOLS[Math.trunc(i / NUMBERS.length)]}.${NUMBERS[i % NUMBERS.length]}`] = number;
  }
  return stats;
}

const statistic = (name: string) => (device?: CudaDevice) => memory_stats(device)[name] ?? 0;

/** Bytes that tensors hold on a device; 0 without one. */
export const memory_allocated: (device?: CudaDevice) => number = statistic("allocated_bytes.all.current");
/** The most bytes that tensors held on a device since the start or `reset_peak_memory_stats`. */
export const max_memory_allocated: (device?: CudaDevice) => number = statistic("allocated_bytes.all.peak");
/** Bytes that the caching allocator holds of a device, used or not. */
export const memory_reserved: (device?: CudaDevice) => number = statistic("reserved_bytes.all.current");
/** The most bytes that the allocator held since the start or `reset_peak_memory_stats`. */
export const max_memory_reserved: (device?: CudaDevice) => number = statistic("reserved_bytes.all.peak");

/** From now on the peaks count from what is held now. */
export function reset_peak_memory_stats(device?: CudaDevice): void {
  addon().resetDeviceMemory(cudaIndex(device, "reset_peak_memory_stats"), false);
}

/** Sets what was allocated and freed in all to 0. */
export function reset_accumulated_memory_stats(device?: CudaDevice): void {
  addon().resetDeviceMemory(cudaIndex(device, "reset_accumulated_memory_stats"), true);
}

/** Frees garbage, and gives cached memory back to the driver. */
export const empty_cache = (): void => addon().emptyCache();

/**
 * Limits what this process may take of each device's memory. The allocator reads the limit when it starts, so this
 * comes before the first tensor on a device; Python's may come later, and takes one device.
 *
 * @param fraction above 0, at most 1
 * @throws CudaUnavailableError without a device; InvalidArgumentError when a device is in use already
 */
export function set_per_process_memory_fraction(fraction: number): void {
  if (typeof fraction !== "number")
    throw new InvalidArgumentError("[set_per_process_memory_fraction] fraction must be a number.");
  addon().setMemoryFraction(fraction);
}

// --- random numbers -----------------------------------------------------------------------------------------------------

function generator(device?: CudaDevice): Generator {
  const index = cudaIndex(device, "default_generator");
  const name = index < 0 ? "cuda" : `cuda:${index}`;
  return new Generator(name, addon().defaultGenerator(name));
}

/** Seeds the current device; does nothing without one. */
export const manual_seed = (seed: number | bigint): void => {
  if (is_available()) generator().manual_seed(seed);
};

/** Seeds the generators of all devices. */
export const manual_seed_all = (seed: number | bigint): void => {
  for (let i = 0; i < device_count(); i++) generator(i).manual_seed(seed);
};

/** What the current device was seeded with. */
export const initial_seed = (): bigint => generator().initial_seed();

/** The state of a device's generator. */
export const get_rng_state = (device?: CudaDevice): Tensor => generator(device).get_state();

/** Puts a device's generator into a state that `get_rng_state` gave. */
export const set_rng_state = (state: Tensor, device?: CudaDevice): void => {
  generator(device).set_state(state);
};
