// Places as the hooks see them: where a place computes, and how a tensor comes to lie there.
import { InvalidArgumentError } from "../errors/index.ts";
import type { Device, Tensor } from "../torch/index.ts";

/** A device with memory of its own whose tensors the CPU computes on; see `torch.limited_devices`. */
export interface LimitedPlace {
  readonly name: string;
  readonly capacity: number;
  readonly used: number;
  /** The same values, in this device's memory. */
  copyIn(tensor: Tensor): Tensor;
}

let limited: () => readonly LimitedPlace[] = () => [];

/** Says where limited devices are found. */
export function useLimitedPlaces(list: () => readonly LimitedPlace[]): void {
  limited = list;
}

/** Name and free bytes of each limited device there is. */
export const limitedPlaces = (): [name: string, free: number][] =>
  limited().map(({ name, capacity, used }) => [name, capacity - used]);

/** The device that libtorch computes on for a place. */
export const executionDevice = (place: string): Device =>
  place.startsWith("limited") || place === "disk" ? "cpu" : place;

/** A tensor's values in the memory of a place, as a tensor of its own; the tensor itself where it lies there already. */
export function bringTo(place: string, tensor: Tensor): Tensor {
  if (!place.startsWith("limited")) return tensor.device === place ? tensor : tensor.to({ device: place });
  const found = limited().find(({ name }) => name === place);
  if (found !== undefined) return found.copyIn(tensor);
  throw new InvalidArgumentError(`There is no device '${place}'.`, {
    hint: "Set limited devices up first: torch.limited_devices([{ capacity, bandwidth }]).",
  });
}
