// Devices made of host memory, of a certain size, behind a link of a certain speed: what a real one runs out of can be tried
// without it.
import { addon } from "../addon/loader.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";

/** What a limited device is to be. */
export interface LimitedDeviceOptions {
  /** Bytes of its memory. */
  readonly capacity: number;
  /** Bytes per second that its link brings. Default: as fast as memory is. */
  readonly bandwidth?: number | undefined;
}

const KEYS = ["capacity", "bandwidth"];

/**
 * Sets up the devices `"limited:0"`, `"limited:1"`, …, in the place of those that there were, and returns their names. They
 * are targets of a `device_map`, not devices of tensors: what lies on one is a CPU tensor whose bytes are in the device's
 * memory, and it is computed with by the CPU. Bytes that lie on earlier devices stay until their tensors are gone.
 *
 * @example
 * torch.limited_devices([{ capacity: 2 ** 30, bandwidth: 12e9 }]); // ["limited:0"]
 */
export function limited_devices(devices: readonly LimitedDeviceOptions[]): string[] {
  if (!Array.isArray(devices))
    throw new InvalidArgumentError("[limited_devices] takes a list of { capacity, bandwidth }.");
  for (const [i, device] of devices.entries()) {
    for (const key of Object.keys(device)) {
      if (!KEYS.includes(key))
        throw new InvalidArgumentError(`[limited_devices] unknown option '${key}'.`, {
          suggestion: suggest(key, KEYS),
        });
    }
    const { capacity, bandwidth } = device;
    if (!(Number.isSafeInteger(capacity) && capacity >= 0))
      throw new InvalidArgumentError(
        `[limited_devices] capacity of device ${i} must be a number of bytes, got ${capacity}.`,
      );
    if (bandwidth !== undefined && !(typeof bandwidth === "number" && bandwidth > 0))
      throw new InvalidArgumentError(
        `[limited_devices] bandwidth of device ${i} must be bytes per second above 0, got ${bandwidth}.`,
      );
  }
  addon().setLimitedDevices(
    devices.map(({ capacity }) => capacity),
    devices.map(({ bandwidth }) => (bandwidth === undefined || bandwidth === Infinity ? 0 : bandwidth)),
  );
  return devices.map((_, i) => `limited:${i}`);
}
