// Devices as targets of a placement.
import type { LimitedDeviceInfo } from "../addon/addon.ts";
import { addon } from "../addon/loader.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import { Tensor } from "../torch/index.ts";

/** Whether a name is that of a limited device, set up or not. */
export const isLimitedDevice = (name: string): boolean => /^limited(:\d+)?$/.test(name);

/**
 * A limited device: see `torch.limited_devices`.
 *
 * @example
 * torch.limited_devices([{ capacity: 1000, bandwidth: 1e9 }]);
 * const device = new PlacementDevice("limited:0");
 * const there = device.copyIn(torch.ones(4)); // a CPU tensor in the device's memory
 * device.used; // 256
 */
export class PlacementDevice {
  readonly name: string;
  /** Its number. */
  readonly _index: number;

  /** @throws InvalidArgumentError for a device that was not set up. */
  constructor(name: string) {
    if (!isLimitedDevice(name))
      throw new InvalidArgumentError(`'${name}' is no device that blocks are placed on.`, {
        hint: 'Name a limited one, such as "limited:0".',
      });
    this._index = Number(name.split(":")[1] ?? 0);
    this.name = `limited:${this._index}`;
    this.#info();
  }

  /** Bytes in all. */
  get capacity(): number {
    return this.#info().capacity;
  }

  /** Bytes taken. */
  get used(): number {
    return this.#info().used;
  }

  /** Bytes that can be taken, if they fit in one piece. */
  get free(): number {
    const { capacity, used } = this.#info();
    return capacity - used;
  }

  /** Bytes per second; 0: as fast as memory is. */
  get bandwidth(): number {
    return this.#info().bandwidth;
  }

  /** Bytes that came over its link so far. */
  get bytes_copied(): number {
    return this.#info().bytes_copied;
  }

  /**
   * A copy of a CPU tensor in the device's memory, which is given back with the last tensor over it. Waits for the copy. What
   * it takes is rounded up to 256 bytes.
   *
   * @throws OutOfMemoryError that names the device, the bytes wanted and free.
   */
  copyIn(tensor: Tensor): Tensor {
    const copy = new Tensor();
    copy._handle = addon().copyToLimited(copy, this._index, tensor._handle);
    return copy;
  }

  #info(): LimitedDeviceInfo {
    const devices = addon().limitedDevices();
    const info = devices[this._index];
    if (info === undefined)
      throw new InvalidArgumentError(
        `There is no device '${this.name}': ${devices.length === 0 ? "none was" : `${devices.length} were`} set up.`,
        { hint: "Call torch.limited_devices([{ capacity, bandwidth }]) first." },
      );
    return info;
  }
}
