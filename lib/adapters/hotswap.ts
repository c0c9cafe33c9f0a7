// Putting another adapter's values into the place of one that is there: recordings of the model stay as they are.
import { CheckpointError, InvalidArgumentError } from "../errors/index.ts";
import type * as nn from "../nn/index.ts";
import * as torch from "../torch/index.ts";
import { Tensor } from "../torch/index.ts";
import type { LoraConfig } from "./config.ts";
import { type Adaptable, loraLayers } from "./inject.ts";
import type { LoraLayer } from "./lora_layer.ts";
import { set_peft_model_state_dict } from "./state.ts";
import { patternValue } from "./targets.ts";

/** The two matrices of an adapter, with the dimension of each that is the rank. */
function matrices(layer: LoraLayer, name: string): [nn.Parameter, dim: number][] {
  if (layer.lora_embedding_A.has(name))
    return [
      [layer.lora_embedding_A.get(name), 0],
      [layer.lora_embedding_B.get(name), 1],
    ];
  return [
    [layer.lora_A.get(name).weight, 0],
    [layer.lora_B.get(name).weight, 1],
  ];
}

/**
 * Makes an adapter's matrices as large as the largest rank that is to come, filled up with zeros, and its scaling a tensor:
 * swapping then changes values only.
 */
export function prepareHotswap(model: Adaptable, name: string, target_rank: number): void {
  torch.no_grad(() => {
    for (const [path, layer] of loraLayers(model)) {
      if (!layer.has_adapter(name)) continue;
      for (const [parameter, dim] of matrices(layer, name)) {
        const rank = parameter.shape[dim] as number;
        if (rank > target_rank)
          throw new InvalidArgumentError(
            `enable_peft_hotswap: the rank ${rank} of ${path} is larger than target_rank ${target_rank}.`,
          );
        const shape = parameter.shape.map((size, i) => (i === dim ? target_rank - rank : size));
        if (rank < target_rank)
          parameter.data = torch.cat([parameter.detach(), parameter.new_zeros(shape)], dim);
      }
      const scaling = layer.scaling[name];
      if (typeof scaling === "number")
        layer.scaling[name] = torch.keep(
          torch.tensor(scaling, { dtype: "float32", device: layer.weight.device }),
        );
    }
  });
}

/**
 * Puts an adapter's tensors into the place of the adapter `name`. Layers that the new one does not treat get zeros.
 *
 * @throws CheckpointError when it treats layers that the old one does not, InvalidArgumentError when it is of another kind.
 */
export function hotswap(
  model: Adaptable,
  name: string,
  config: LoraConfig,
  state_dict: Readonly<nn.StateDict>,
  options: { source: string; rename?: (key: string) => string },
): { missing_keys: string[] } {
  const old = model.peft_config?.[name] as LoraConfig;
  for (const field of ["use_dora", "lora_bias", "bias", "fan_in_fan_out"] as const) {
    if (old[field] === config[field]) continue;
    throw new InvalidArgumentError(
      `'${name}' cannot be swapped in place: ${field} is ${String(config[field])}, and was ${String(old[field])}.`,
      { hint: "Load it under another name, or pass { hotswap: false } after delete_adapter." },
    );
  }
  const layers = [...loraLayers(model)].filter(([, layer]) => layer.has_adapter(name));
  if (layers.some(([, layer]) => layer.merged_adapters.includes(name)))
    throw new InvalidArgumentError(`The adapter '${name}' is merged into the weights.`, {
      hint: "Unmerge it first.",
    });
  const padRanks = layers.some(([, layer]) => layer.scaling[name] instanceof Tensor);
  let result: { missing_keys: string[] };
  try {
    result = set_peft_model_state_dict(model, state_dict, { ...options, adapter_name: name, padRanks });
  } catch (error) {
    if (!(error instanceof CheckpointError) || padRanks || error.mismatched_keys.length === 0) throw error;
    throw new CheckpointError(error.message, {
      cause: error,
      mismatched_keys: error.mismatched_keys,
      unexpected_keys: error.unexpected_keys,
      hint: "For adapters of different ranks, call model.enable_peft_hotswap({ target_rank }) before the first is loaded.",
    });
  }
  const own = model.state_dict({ keep_vars: true });
  torch.no_grad(() => {
    for (const key of result.missing_keys) (own[key] as Tensor).zero_();
    for (const [path, layer] of layers) {
      const r = patternValue(config.rank_pattern, path, config.r);
      const alpha = patternValue(config.alpha_pattern, path, config.lora_alpha);
      const scaling = alpha / (config.use_rslora ? Math.sqrt(r) : r);
      const before = layer.scaling[name];
      layer.r[name] = r;
      layer.lora_alpha[name] = alpha;
      layer.use_rslora[name] = config.use_rslora;
      if (before instanceof Tensor) before.fill_(scaling);
      else layer.scaling[name] = scaling;
    }
  });
  (model.peft_config as Record<string, LoraConfig>)[name] = config;
  return result;
}
