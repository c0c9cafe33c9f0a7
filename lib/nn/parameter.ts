// Tensors that belong to a module by their class: whatever property holds one, it is part of the module's state.

import { addon } from "../addon/loader.ts";
import { type Device, keep, no_grad, Tensor } from "../torch/index.ts";
import { type Arguments, bind, REQUIRED } from "./arguments.ts";

/** Where parameters go that are made now; undefined: where their data is. */
let parameterDevice: Device | undefined;

/** Runs `body`; the parameters that it makes lie on `device`. */
export function withParameterDevice<T>(device: Device, body: () => T): T {
  const outer = parameterDevice;
  parameterDevice = device;
  try {
    return body();
  } finally {
    parameterDevice = outer;
  }
}

/** Makes `owner` a second tensor over the memory of `data`, without history, that every memory scope spares. */
function holdData(owner: Tensor, data: Tensor): void {
  owner._handle = addon().variableData(owner, data._handle);
  keep(owner);
}

/**
 * A tensor that a module trains. Assigned to a property of a module, it is one of its parameters.
 *
 * It shares the memory of `data`, without its history, and outlives every memory scope.
 *
 * Arguments: `data`, the values; `requires_grad`, whether gradients are recorded; default true.
 *
 * @example this.scale = new nn.Parameter(torch.ones([hidden_size]), { requires_grad: false });
 */
export class Parameter extends Tensor {
  constructor(
    ...args: Arguments<
      [data: Tensor],
      ["data"],
      [requires_grad: boolean],
      { requires_grad?: boolean | undefined }
    >
  ) {
    super();
    const { data, requires_grad } = bind("Parameter", args, {
      data: REQUIRED as Tensor,
      requires_grad: true,
    });
    if (parameterDevice === undefined || data.device === parameterDevice) holdData(this, data);
    else {
      const moved = data.detach().to({ device: parameterDevice });
      holdData(this, moved);
      moved.dispose();
    }
    if (requires_grad) this.requires_grad = true;
  }

  override toString(): string {
    return `Parameter containing:\n${super.toString()}`;
  }
}

/** A tensor that is part of a module's state and is not trained: what `register_buffer` makes of a tensor. */
export class Buffer extends Tensor {
  /** Whether it is stored in the state dict. */
  readonly persistent: boolean;

  constructor(data: Tensor, { persistent = true }: { persistent?: boolean } = {}) {
    super();
    holdData(this, data);
    this.persistent = persistent;
  }
}

/** Drops a gradient, or empties it in place. */
export function clearGrad(tensor: Tensor, set_to_none: boolean): void {
  if (set_to_none) {
    tensor.grad = null;
    return;
  }
  const { grad } = tensor;
  if (!grad) return;
  grad.detach_();
  no_grad(() => grad.zero_());
}
