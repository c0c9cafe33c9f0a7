// Modules whose stored weights are not laid out as their own: hooks that were registered to turn one into the other before
// loading (`register_load_state_dict_pre_hook`) do it for a checkpoint too. A module that has one gets the tensors of its
// own part of the checkpoint, mapped from the file, as a state dict; what the hooks leave there is what is loaded.
import { CheckpointError } from "../errors/index.ts";
import type * as nn from "../nn/index.ts";
import type { LoadContext, StateDict } from "../nn/state_dict.ts";
import { isFloatingDtype } from "../torch/dtype.ts";
import type { Device, Dtype } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import type { Entry } from "./checkpoint.ts";
import { mark_loaded } from "./initialization.ts";
import type { LazyWeight } from "./lazy_weight.ts";
import type { LoadingInfo } from "./loading_report.ts";

/** The modules of a model that have such hooks, the outermost ones: what lies in one of them goes through it. */
export class HookedModules {
  readonly #roots: (readonly [prefix: string, module: nn.Module])[] = [];
  readonly #collected = new Map<string, LazyWeight<Entry>>();

  constructor(model: nn.Module) {
    for (const [path, module] of model.named_modules()) {
      const prefix = path === "" ? "" : `${path}.`;
      if (module._has_load_hooks() && !this.has(prefix)) this.#roots.push([prefix, module]);
    }
  }

  get size(): number {
    return this.#roots.length;
  }

  /** Whether a name lies in one of them, be it a name of the model or not. */
  has(name: string): boolean {
    return this.#roots.some(([prefix]) => name.startsWith(prefix));
  }

  add(name: string, weight: LazyWeight<Entry>): void {
    this.#collected.set(name, weight);
  }

  /** Runs the hooks; `read` gives the tensors of weights as the checkpoint has them. */
  async run(
    read: (weights: readonly LazyWeight<Entry>[]) => Promise<torch.Tensor[]>,
    info: LoadingInfo,
    source: string,
  ): Promise<Ready[]> {
    if (this.#roots.length === 0) return [];
    const names = [...this.#collected.keys()];
    const tensors = await read([...this.#collected.values()]);
    const all: StateDict = Object.fromEntries(names.map((name, i) => [name, tensors[i] as torch.Tensor]));
    const ready: Ready[] = [];
    const error_msgs: string[] = [];
    torch.no_grad(() => {
      for (const [prefix, module] of this.#roots)
        ready.push(...passThrough(module, under(all, prefix), prefix, info, error_msgs));
    });
    if (error_msgs.length === 0) return ready;
    info.error_msgs.push(...error_msgs);
    throw new CheckpointError(
      `Hooks of modules could not take the weights of ${source}: ${error_msgs.join("; ")}`,
    );
  }
}

/** A tensor of the model and the value that hooks made for it. */
export interface Ready {
  readonly name: string;
  readonly tensor: torch.Tensor;
  readonly value: torch.Tensor;
}

function under(state_dict: StateDict, prefix: string): StateDict {
  return Object.fromEntries(Object.entries(state_dict).filter(([key]) => key.startsWith(prefix)));
}

/** One module and those in it, in torch's order: its hooks first, then each child with what is left for it. */
function passThrough(
  module: nn.Module,
  state_dict: StateDict,
  prefix: string,
  info: LoadingInfo,
  error_msgs: string[],
): Ready[] {
  const missing: string[] = [];
  const unexpected: string[] = [];
  const context: LoadContext = [state_dict, prefix, {}, true, missing, unexpected, error_msgs];
  for (const hook of module._state_dict_hooks().preLoad) hook(...context);
  for (const key of missing) info.missing_keys.add(key);
  for (const key of unexpected) info.unexpected_keys.add(key);

  const { parameters, buffers, children } = module._own_state();
  const own = new Map<string, torch.Tensor>([
    ...parameters,
    ...buffers.filter(([name]) => module._is_persistent(name)),
  ]);
  const ready: Ready[] = [];
  for (const [key, value] of Object.entries(state_dict)) {
    const name = key.slice(prefix.length);
    const tensor = own.get(name);
    if (!(value instanceof torch.Tensor)) error_msgs.push(`${key} is no tensor after the hooks.`);
    else if (!key.startsWith(prefix)) info.unexpected_keys.add(key);
    else if (tensor !== undefined) {
      info.missing_keys.delete(key);
      const fits = `${value.shape}` === `${tensor.shape}`;
      if (fits) ready.push({ name: key, tensor, value });
      else info.mismatched_keys.add([key, value.shape, tensor.shape]);
    } else if (!children.some(([child]) => name.startsWith(`${child}.`))) info.unexpected_keys.add(key);
  }
  for (const [name, child] of children) {
    const inner = `${prefix}${name}.`;
    ready.push(...passThrough(child, under(state_dict, inner), inner, info, error_msgs));
  }
  return ready;
}

/** Lets the model's tensors hold what the hooks made, in the model's dtype and at its place. */
export function placeReady(
  ready: readonly Ready[],
  options: { readonly device: (name: string) => Device; readonly keepsFloat32: (name: string) => boolean },
): void {
  const owners = new Set<string>();
  torch.no_grad(() => {
    for (const { name, tensor, value } of ready) {
      const dtype: Dtype =
        isFloatingDtype(tensor.dtype) && options.keepsFloat32(name) ? "float32" : tensor.dtype;
      let own = value
        .detach()
        .to({ device: options.device(name), dtype })
        .contiguous();
      // One tensor under two names would be a tie that nobody declared.
      const place = `${own.untyped_storage().id}:${own.storage_offset()}`;
      if (owners.has(place)) own = own.clone();
      owners.add(place);
      tensor.data = own;
      mark_loaded(tensor);
    }
  });
}
