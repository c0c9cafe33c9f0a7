// torch.cuda.
import { addon } from "../addon/loader.ts";
import { CudaUnavailableError } from "../errors/index.ts";
import { Generator } from "./generator.ts";
import type { Tensor } from "./tensor.ts";

/** How many devices are visible. */
export const device_count = (): number => addon().deviceCount("cuda");
/** Whether there is a device and libtorch's CUDA part can be loaded. */
export const is_available = (): boolean => device_count() > 0;

const name = (device: string | number | undefined) =>
  typeof device === "number" ? `cuda:${device}` : (device ?? "cuda");
const index = (device: string | number | undefined) => Number(name(device).split(":")[1] ?? 0);

/** The device that `"cuda"` means. */
export const current_device = (): number => 0;

/** Waits until the work queued on a device is done. */
export const synchronize = (device?: string | number): void => addon().synchronize(name(device));

/** Gives cached memory back to the driver. */
export const empty_cache = (): void => addon().emptyCache();

/** What `get_device_properties` tells. */
export interface DeviceProperties {
  readonly name: string;
  /** Bytes. */
  readonly total_memory: number;
  readonly major: number;
  readonly minor: number;
}

function info(device?: string | number) {
  const found = addon()
    .deviceInfo()
    .find((one) => one.type === "cuda" && one.index === index(device));
  if (found === undefined)
    throw new CudaUnavailableError(
      `[cuda] there is no device ${name(device)}; ${device_count()} are visible.`,
    );
  return found;
}

/** Name, bytes of memory and compute capability. Throws `CudaUnavailableError` where there is no such device. */
export function get_device_properties(device?: string | number): DeviceProperties {
  const { name: title, total_memory, capability } = info(device);
  const [major = 0, minor = 0] = capability.split(".").map(Number);
  return { name: title, total_memory, major, minor };
}

/** The name that the driver gives. */
export const get_device_name = (device?: string | number): string => info(device).name;

/** Compute capability, [major, minor]. */
export function get_device_capability(device?: string | number): [number, number] {
  const { major, minor } = get_device_properties(device);
  return [major, minor];
}

/** Free and total bytes. */
export function mem_get_info(device?: string | number): [number, number] {
  const { free_memory, total_memory } = info(device);
  return [free_memory, total_memory];
}

export const is_bf16_supported = (): boolean => is_available() && get_device_properties().major >= 8;

/** Bytes that tensors of this process hold on devices. */
export const memory_allocated = (): number => addon().memoryStats().device_bytes;

const generator = (device?: string | number) =>
  new Generator(name(device), addon().defaultGenerator(name(device)));

/** Seeds the generator of the current device. */
export const manual_seed = (seed: number | bigint): void => {
  if (is_available()) generator().manual_seed(seed);
};

/** Seeds the generators of all devices. */
export const manual_seed_all = (seed: number | bigint): void => {
  for (let i = 0; i < device_count(); i++) generator(i).manual_seed(seed);
};

export const get_rng_state = (device?: string | number): Tensor => generator(device).get_state();

export const set_rng_state = (state: Tensor, device?: string | number): void => {
  generator(device).set_state(state);
};
