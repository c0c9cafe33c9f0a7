// A layer in a folder of its own.
import { nn, type Tensor, torch } from "torchformers";
import type { Scaled } from "../types.ts";

export class Scale extends nn.Module implements Scaled {
  readonly factor: nn.Parameter;
  constructor(width: number) {
    super();
    this.factor = new nn.Parameter(torch.full([width], 2.5));
  }
  override forward(x: Tensor): Tensor {
    return x.mul(this.factor);
  }
}
