// Initial weights: the in-place functions of nn.init that leave loaded tensors alone, and the walk that applies them.
import * as nn from "../nn/index.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import type { PreTrainedModel } from "./modeling_utils.ts";

/** Tensors whose values came from a checkpoint. */
const loaded = new WeakSet<Tensor>();
/** Modules that have had their turn, so that an outer model does not repeat it. */
const finished = new WeakSet<nn.Module>();

/** Says that a tensor holds values from a checkpoint: initialization passes over it. */
export function mark_loaded(tensor: Tensor): void {
  loaded.add(tensor);
}

export const is_loaded = (tensor: Tensor): boolean => loaded.has(tensor);

const guarded =
  <A extends unknown[]>(fn: (tensor: Tensor, ...args: A) => Tensor) =>
  (tensor: Tensor, ...args: A): Tensor =>
    loaded.has(tensor) ? tensor : fn(tensor, ...args);

export const normal_: (tensor: Tensor, mean?: number, std?: number) => Tensor = guarded(
  (t, mean = 0, std = 1) => nn.init.normal_(t, mean, std),
);
export const uniform_: (tensor: Tensor, a?: number, b?: number) => Tensor = guarded((t, a = 0, b = 1) =>
  nn.init.uniform_(t, a, b),
);
export const trunc_normal_: (tensor: Tensor, mean?: number, std?: number) => Tensor = guarded(
  (t, mean = 0, std = 1) => nn.init.trunc_normal_(t, mean, std),
);
export const kaiming_normal_: (tensor: Tensor, options?: nn.init.KaimingOptions) => Tensor = guarded(
  (t, options = {}) => nn.init.kaiming_normal_(t, options),
);
export const kaiming_uniform_: (tensor: Tensor, options?: nn.init.KaimingOptions) => Tensor = guarded(
  (t, options = {}) => nn.init.kaiming_uniform_(t, options),
);
export const constant_: (tensor: Tensor, value: number) => Tensor = guarded((t, value) =>
  nn.init.constant_(t, value),
);
export const zeros_: (tensor: Tensor) => Tensor = guarded((t) => nn.init.zeros_(t));
export const ones_: (tensor: Tensor) => Tensor = guarded((t) => nn.init.ones_(t));
export const copy_: (tensor: Tensor, other: Tensor) => Tensor = guarded((t, other) =>
  torch.no_grad(() => t.copy_(other)),
);

/**
 * Initializes what is neither loaded nor initialized yet, children before parents; a model inside a model initializes
 * its own part.
 */
export function initialize_weights(
  model: PreTrainedModel,
  isModel: (module: nn.Module) => module is PreTrainedModel,
): void {
  const visit = (module: nn.Module, owner: PreTrainedModel) => {
    for (const child of module.children()) visit(child, isModel(child) ? child : owner);
    initializeModule(module, owner);
  };
  torch.no_grad(() => visit(model, model));
}

function initializeModule(module: nn.Module, owner: PreTrainedModel): void {
  if (finished.has(module)) return;
  finished.add(module);
  const { parameters, buffers } = module._own_state();
  const own = [...parameters, ...buffers].map(([, tensor]) => tensor);
  const kept = own.filter((tensor) => loaded.has(tensor));
  if (kept.length > 0 && kept.length === own.length) return;

  // A user's _init_weights may write into loaded tensors too: it gets others to write into.
  const values = kept.map((tensor) => tensor.detach());
  for (const tensor of kept) tensor.data = torch.empty_like(tensor);
  try {
    owner._init_weights(module);
  } finally {
    for (const [i, tensor] of kept.entries()) tensor.data = values[i] as Tensor;
  }
}
