// Parameters between uses.
import { addon } from "../addon/loader.ts";
import type { Device, Tensor } from "../torch/index.ts";
import { adopt } from "../torch/tensor.ts";

/** Whether a tensor is without memory because a streamer brings its values when they are needed. */
export const is_resting = (tensor: Tensor): boolean => addon().isResting(tensor._handle);

/** The device where a tensor is computed with: its own, unless it rests. */
export const home_device = (tensor: Tensor): Device => addon().homeDevice(tensor._handle);

/** The tensor that a resting one's values come from, in memory or in a mapped file; undefined for any other. */
export function resting_source(tensor: Tensor): Tensor | undefined {
  const handle = addon().restingSource(tensor._handle);
  return handle === null ? undefined : adopt(handle);
}
