// Types only: no JavaScript needs this file.
import type { Tensor } from "torchformers";

export interface Scaled {
  forward(x: Tensor): Tensor;
}
