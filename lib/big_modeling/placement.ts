// Places as the hooks see them: where a place computes, and how a tensor comes to lie there.
import { addon } from "../addon/loader.ts";
import { PlacementDevice } from "../placement/index.ts";
import type { Device, Tensor } from "../torch/index.ts";

/** Name and free bytes of each limited device there is. */
export const limitedPlaces = (): [name: string, free: number][] =>
  addon()
    .limitedDevices()
    .map((_, i) => {
      const { name, free } = new PlacementDevice(`limited:${i}`);
      return [name, free];
    });

/** The device that libtorch computes on for a place. */
export const executionDevice = (place: string): Device =>
  place.startsWith("limited") || place === "disk" ? "cpu" : place;

/** A tensor's values in the memory of a place, as a tensor of its own; the tensor itself where it lies there already. */
export function bringTo(place: string, tensor: Tensor): Tensor {
  if (!place.startsWith("limited")) return tensor.device === place ? tensor : tensor.to({ device: place });
  const device = new PlacementDevice(place);
  if (tensor.device === "cpu") return device.copyIn(tensor);
  const host = tensor.to({ device: "cpu" });
  try {
    return device.copyIn(host);
  } finally {
    host.dispose();
  }
}
