// LoRA beside each kind of layer.
import { InvalidArgumentError, UnsupportedAdapterError } from "../errors/index.ts";
import { warn } from "../errors/warnings.ts";
import * as nn from "../nn/index.ts";
import { acceptInitial } from "../nn/initial_values.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import type { LoraConfig } from "./config.ts";
import { type AdapterSettings, type BaseLayer, LoraLayer } from "./lora_layer.ts";

/** Beside an `nn.Linear`, or a layer that stores its weight as [in, out]. */
export class LoraLinear extends LoraLayer {
  readonly in_features: number;
  readonly out_features: number;
  readonly fan_in_fan_out: boolean;

  constructor(base_layer: BaseLayer, name: string, settings: AdapterSettings, fan_in_fan_out: boolean) {
    super(base_layer, name);
    const [first, second] = base_layer.weight.shape as [number, number];
    this.in_features = fan_in_fan_out ? first : second;
    this.out_features = fan_in_fan_out ? second : first;
    this.fan_in_fan_out = fan_in_fan_out;
    this.update_layer(name, settings);
  }

  protected override makeMatrices(name: string, r: number, bias: boolean): void {
    this.lora_A.set(name, new nn.Linear(this.in_features, r, { bias: false }));
    this.lora_B.set(name, new nn.Linear(r, this.out_features, { bias }));
  }

  /** [out, in], whatever the layer stores. */
  #ordered(weight: Tensor): Tensor {
    return this.fan_in_fan_out ? weight.t() : weight;
  }

  protected override product(a: Tensor, b: Tensor): Tensor {
    return this.#ordered(b.matmul(a));
  }

  protected override rowNorms(weight: Tensor): Tensor {
    return torch.linalg.vector_norm(this.#ordered(weight), { dim: [1] });
  }

  protected override perRow(factor: Tensor): Tensor {
    return this.#ordered(factor.view([-1, 1]));
  }

  protected override withoutBias(x: Tensor): Tensor {
    return nn.F.linear(x, this.#ordered(this.base_layer.weight.to(x.dtype)));
  }

  protected override lessBias(result: Tensor): Tensor {
    return this.bias ? result.sub(this.bias) : result;
  }
}

/** Beside an `nn.Embedding`. */
export class LoraEmbedding extends LoraLayer {
  readonly num_embeddings: number;
  readonly embedding_dim: number;

  constructor(base_layer: nn.Embedding, name: string, settings: AdapterSettings) {
    super(base_layer as unknown as BaseLayer, name);
    this.num_embeddings = base_layer.num_embeddings;
    this.embedding_dim = base_layer.embedding_dim;
    this.update_layer(name, settings);
  }

  get padding_idx(): number | null {
    return (this.base_layer as unknown as nn.Embedding).padding_idx;
  }

  protected override makeMatrices(name: string, r: number): void {
    const a = torch.randn([r, this.num_embeddings]);
    const b = torch.randn([this.embedding_dim, r]);
    this.lora_embedding_A.set(name, new nn.Parameter(a));
    this.lora_embedding_B.set(name, new nn.Parameter(b));
  }

  override reset_lora_parameters(name: string, init: boolean | string): void {
    if (init === false) return;
    const [a, b] = [this.lora_embedding_A.get(name), this.lora_embedding_B.get(name)];
    nn.init.zeros_(a);
    nn.init.normal_(b);
    acceptInitial(a, b);
  }

  protected override product(a: Tensor, b: Tensor): Tensor {
    return b.matmul(a).t();
  }

  protected override rowNorms(weight: Tensor): Tensor {
    return torch.linalg.vector_norm(weight, { dim: [0] });
  }

  protected override perRow(factor: Tensor): Tensor {
    return factor.view([1, -1]);
  }

  protected override withoutBias(x: Tensor): Tensor {
    return this.base_layer.forward(x as never) as Tensor;
  }

  protected override lessBias(result: Tensor): Tensor {
    return result;
  }

  protected override addAdapter(name: string, x: Tensor, result: Tensor): Tensor {
    const { padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, embed_scale } = this
      .base_layer as unknown as nn.Embedding & { embed_scale?: number | Tensor };
    const table = this.lora_embedding_A.get(name).t();
    const options = { padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse };
    let part = nn.F.embedding(x, table, options)
      .matmul(this.lora_embedding_B.get(name).t())
      .mul(this.scaling[name] as number);
    if (typeof embed_scale === "number") part = part.mul(embed_scale);
    else if (embed_scale !== undefined) part = part.mul(embed_scale.to(part.dtype));
    if (!this.lora_magnitude_vector.has(name)) return result.add(part);
    const factor = this.doraFactor(name, this.base_layer.weight.dtype);
    return factor.mul(result).add(factor.mul(part));
  }
}

type Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d;
type ConvClass = new (
  inputs: number,
  outputs: number,
  kernel: readonly number[],
  options: nn.ConvOptions,
) => Conv;

/** Beside a convolution: the first matrix is one of the same window, the second one of a single point. */
export class LoraConv extends LoraLayer {
  constructor(base_layer: Conv, name: string, settings: AdapterSettings) {
    super(base_layer as unknown as BaseLayer, name);
    if (base_layer.groups > 1) warn("An adapter beside a convolution with groups cannot be merged.");
    this.update_layer(name, settings);
  }

  get #conv(): Conv {
    return this.base_layer as unknown as Conv;
  }

  protected override makeMatrices(name: string, r: number, bias: boolean): void {
    const { in_channels, out_channels, kernel_size, stride, padding, groups } = this.#conv;
    const cls = this.#conv.constructor as ConvClass;
    const point = kernel_size.map(() => 1);
    this.lora_A.set(
      name,
      new cls(in_channels, r, kernel_size, { stride, padding, bias: false }) as unknown as BaseLayer,
    );
    this.lora_B.set(name, new cls(r, out_channels, point, { groups, bias }) as unknown as BaseLayer);
  }

  get #convolve(): typeof nn.F.conv2d {
    return [nn.F.conv1d, nn.F.conv2d, nn.F.conv3d][this.#conv.kernel_size.length - 1] as typeof nn.F.conv2d;
  }

  override get_delta_weight(name: string): Tensor {
    if (this.#conv.groups > 1)
      throw new UnsupportedAdapterError("An adapter beside a convolution with groups cannot be merged.");
    return super.get_delta_weight(name);
  }

  protected override product(a: Tensor, b: Tensor): Tensor {
    return this.#convolve(a.transpose(0, 1), b).transpose(0, 1);
  }

  protected override rowNorms(weight: Tensor): Tensor {
    const dims = weight.shape.map((_, i) => i).slice(1);
    return torch.linalg.vector_norm(weight, { dim: dims, keepdim: true }).transpose(1, 0);
  }

  protected override perRow(factor: Tensor): Tensor {
    return factor.view([-1, 1, ...this.#conv.kernel_size.map(() => 1)]);
  }

  protected override withoutBias(x: Tensor): Tensor {
    const { weight, stride, padding, dilation, groups } = this.#conv;
    return this.#convolve(x, weight.to(x.dtype), null, stride, padding as number[], dilation, groups);
  }

  protected override lessBias(result: Tensor): Tensor {
    if (!this.bias) return result;
    return result.sub(this.bias.view([1, -1, ...this.#conv.kernel_size.map(() => 1)]));
  }

  override _get_name(): string {
    return `lora.${this.base_layer._get_name()}`;
  }
}

const isConv = (module: nn.Module): module is Conv =>
  module instanceof nn.Conv1d || module instanceof nn.Conv2d || module instanceof nn.Conv3d;

/** transformers' `Conv1D`, by whoever wrote it: a linear layer with its weight as [in, out]. */
export const isConv1D = (module: nn.Module): module is BaseLayer =>
  module._get_name() === "Conv1D" &&
  (module as { weight?: unknown } as { weight?: Tensor }).weight?.ndim === 2;

/** Whether a module can have an adapter. */
export const canAdapt = (module: nn.Module): boolean =>
  module instanceof nn.Linear || module instanceof nn.Embedding || isConv(module) || isConv1D(module);

/** Refuses settings that are not possible beside a layer; `key` is its name in the model. */
export function assertFits(module: nn.Module, key: string, { r, config }: AdapterSettings): void {
  const layer = module instanceof LoraLayer ? module.get_base_layer() : module;
  if (layer instanceof nn.Embedding && config.lora_bias)
    throw new InvalidArgumentError(`lora_bias is not possible for an embedding (${key}).`);
  if (isConv(layer) && r % layer.groups !== 0)
    throw new InvalidArgumentError(`${key}: the rank ${r} must be divisible by the ${layer.groups} groups.`, {
      hint: "Choose another rank, by rank_pattern too, or exclude the layer.",
    });
  if (isConv(layer) && layer.groups > 1 && config.use_dora)
    throw new UnsupportedAdapterError(`use_dora is not implemented for a convolution with groups (${key}).`);
}

/** The layer with an adapter beside it. `config` is corrected where it does not fit the layer, as PEFT does. */
export function adapted(module: nn.Module, name: string, settings: AdapterSettings): LoraLayer {
  const config = settings.config as { -readonly [K in keyof LoraConfig]: LoraConfig[K] };
  if (module instanceof nn.Embedding) return new LoraEmbedding(module, name, settings);
  if (isConv(module)) return new LoraConv(module, name, settings);
  const stored = isConv1D(module);
  if (config.fan_in_fan_out !== stored) {
    warn(`fan_in_fan_out is set to ${stored}, since the layers to adapt are of type ${module._get_name()}.`);
    config.fan_in_fan_out = stored;
  }
  return new LoraLinear(module as BaseLayer, name, settings, stored);
}
