// A layer with adapters: the layer itself, and per adapter two small matrices whose product is added to its result.
// Names of parts and methods are PEFT's, so that state dicts carry over.
import { announceOwner } from "../compile/owners.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import { warn } from "../errors/warnings.ts";
import * as nn from "../nn/index.ts";
import type { Device, Dtype, Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import type { LoraConfig } from "./config.ts";

/** A layer that can have adapters. */
export type BaseLayer = nn.Module & { weight: nn.Parameter; bias?: nn.Parameter | null };

/** Values by adapter. A recording of the layer watches them, as it watches the fields of modules. */
function byAdapter<T>(): Record<string, T> {
  const values: Record<string, T> = Object.create(null);
  announceOwner(values);
  return values;
}

/** What an adapter is made of in one layer. */
export interface AdapterSettings {
  readonly r: number;
  readonly lora_alpha: number;
  readonly config: LoraConfig;
  /** Make the matrices on the meta device: their values come from a file. */
  readonly empty?: boolean | undefined;
}

/** What all layers with LoRA adapters have in common. */
export abstract class LoraLayer extends nn.Module {
  readonly base_layer: BaseLayer;
  readonly lora_dropout: nn.ModuleDict;
  readonly lora_A: nn.ModuleDict<BaseLayer>;
  readonly lora_B: nn.ModuleDict<BaseLayer>;
  readonly lora_embedding_A: nn.ParameterDict;
  readonly lora_embedding_B: nn.ParameterDict;
  /** Per adapter. */
  readonly r: Record<string, number>;
  readonly lora_alpha: Record<string, number>;
  /** By what an adapter's result is multiplied; a tensor while adapters are swapped in place. */
  readonly scaling: Record<string, number | Tensor>;
  readonly use_rslora: Record<string, boolean>;
  /** Names of the adapters whose product is part of the base layer's weight now. */
  merged_adapters: readonly string[];
  /** Plain fields: a recording is made anew when one of them changes. */
  protected _active: string;
  protected _merged: string;
  protected _disabled: boolean;
  readonly #lora_bias = new Map<string, boolean>();

  constructor(base_layer: BaseLayer, adapter_name: string) {
    super();
    this.base_layer = base_layer;
    this.lora_dropout = new nn.ModuleDict();
    this.lora_A = new nn.ModuleDict();
    this.lora_B = new nn.ModuleDict();
    this.lora_embedding_A = new nn.ParameterDict();
    this.lora_embedding_B = new nn.ParameterDict();
    this.r = byAdapter();
    this.lora_alpha = byAdapter();
    this.scaling = byAdapter();
    this.use_rslora = byAdapter();
    this.merged_adapters = [];
    this._active = JSON.stringify([adapter_name]);
    this._merged = "";
    this._disabled = false;
    this.training = base_layer.training;
  }

  /** The weight of the layer that the adapters are beside. */
  get weight(): nn.Parameter {
    return this.base_layer.weight;
  }

  set weight(weight: nn.Parameter) {
    this.base_layer.weight = weight;
  }

  get bias(): nn.Parameter | null | undefined {
    return this.base_layer.bias;
  }

  set bias(bias: nn.Parameter | null) {
    this.base_layer.bias = bias;
  }

  get_base_layer(): BaseLayer {
    return this.base_layer;
  }

  get active_adapters(): string[] {
    return JSON.parse(this._active) as string[];
  }

  /** Whether the adapters are switched off. */
  get disable_adapters(): boolean {
    return this._disabled;
  }

  get merged(): boolean {
    return this.merged_adapters.length > 0;
  }

  /** Names of all adapters that this layer has. */
  adapter_names(): string[] {
    return Object.keys(this.r);
  }

  // making --------------------------------------------------------------------------------------------------

  /** Adds an adapter, or makes one of the same name anew. */
  update_layer(name: string, settings: AdapterSettings): void {
    const { r, lora_alpha, config, empty = false } = settings;
    this.r[name] = r;
    this.lora_alpha[name] = lora_alpha;
    this.use_rslora[name] = config.use_rslora;
    this.#lora_bias.set(name, config.lora_bias);
    this.scaling[name] = lora_alpha / (config.use_rslora ? Math.sqrt(r) : r);
    this.lora_dropout.set(
      name,
      config.lora_dropout > 0 ? new nn.Dropout(config.lora_dropout) : new nn.Identity(),
    );
    if (config.lora_bias && !this.base_layer.bias)
      warn(`lora_bias: a layer of type ${this.base_layer._get_name()} has no bias, so it cannot be merged.`);
    const before = torch.get_default_device();
    if (empty) torch.set_default_device("meta");
    try {
      this.makeMatrices(name, r, config.lora_bias);
    } finally {
      if (empty) torch.set_default_device(before);
    }
    if (!empty) {
      if (config.init_lora_weights !== false) this.reset_lora_parameters(name, config.init_lora_weights);
      this.#moveToBase(name);
    }
    for (const part of this.#parts(name)) if (part instanceof nn.Module) part.train(this.training);
    this.set_adapter(this.active_adapters, config.inference_mode);
  }

  /** Makes the two matrices with the values that their layers begin with, in the default dtype. */
  protected abstract makeMatrices(name: string, r: number, bias: boolean): void;

  /** Gives the matrices the values of `init_lora_weights`. */
  reset_lora_parameters(name: string, init: boolean | string): void {
    if (init === false) return;
    const [a, b] = [this.lora_A.get(name), this.lora_B.get(name)];
    if (init === true) nn.init.kaiming_uniform_(a.weight, { a: Math.sqrt(5) });
    else nn.init.normal_(a.weight, 0, 1 / (this.r[name] as number));
    nn.init.zeros_(b.weight);
    if (b.bias) nn.init.zeros_(b.bias);
  }

  /** Everything that belongs to one adapter. */
  #parts(name: string): (nn.Module | nn.Parameter)[] {
    const dicts = [this.lora_dropout, this.lora_A, this.lora_B, this.lora_embedding_A, this.lora_embedding_B];
    return dicts.flatMap((dict) => (dict.has(name) ? [dict.get(name)] : []));
  }

  /** The parameters of one adapter. */
  adapter_parameters(name: string): nn.Parameter[] {
    return this.#parts(name).flatMap((part) => (part instanceof nn.Module ? [...part.parameters()] : [part]));
  }

  #moveToBase(name: string): void {
    const { device, dtype } = this.base_layer.weight;
    const floating = this.base_layer.weight.is_floating_point();
    this.cast_adapter(name, floating ? { device, dtype } : { device });
  }

  /** Moves or casts the matrices of one adapter. */
  cast_adapter(name: string, to: { device?: Device; dtype?: Dtype }): void {
    torch.no_grad(() => {
      for (const parameter of this.adapter_parameters(name)) {
        const moved = parameter.to(to);
        if (moved !== parameter) parameter.data = moved;
      }
    });
  }

  // choosing ------------------------------------------------------------------------------------------------

  /** Chooses the adapters that are used, and lets exactly these be trained (none with `inference_mode`). */
  set_adapter(names: string | readonly string[], inference_mode = false): void {
    const active = [names].flat() as string[];
    for (const name of this.adapter_names())
      for (const parameter of this.adapter_parameters(name))
        parameter.requires_grad_(active.includes(name) && !inference_mode);
    this._active = JSON.stringify(active);
  }

  /** Switches all adapters off, or on again. Switching off takes merged ones out of the weight. */
  enable_adapters(enabled: boolean): void {
    if (enabled) {
      this.set_adapter(this.active_adapters);
    } else {
      if (this.merged) this.unmerge();
      for (const name of this.adapter_names())
        for (const parameter of this.adapter_parameters(name)) parameter.requires_grad_(false);
    }
    this._disabled = !enabled;
  }

  /** Takes an adapter out; when it was the only active one, the first of the others (by name) becomes active. */
  delete_adapter(name: string): void {
    for (const dict of [this.lora_dropout, this.lora_A, this.lora_B, this.lora_embedding_A, this.lora_embedding_B])
      if (dict.has(name)) dict.pop(name);
    for (const values of [this.r, this.lora_alpha, this.scaling, this.use_rslora]) delete values[name];
    this.#lora_bias.delete(name);
    const active = this.active_adapters;
    if (!active.includes(name)) return;
    const others = active.filter((other) => other !== name);
    const first = this.adapter_names().sort()[0];
    this.set_adapter(others.length > 0 ? others : first === undefined ? [] : [first]);
  }

  /** Gives an adapter `scale` times the weight that its config says. */
  set_scale(name: string, scale: number): void {
    if (!(name in this.scaling)) return;
    const r = this.r[name] as number;
    this.scaling[name] = (scale * (this.lora_alpha[name] as number)) / (this.use_rslora[name] ? Math.sqrt(r) : r);
  }

  // merging -------------------------------------------------------------------------------------------------

  /** What an adapter adds to the weight, in the weight's shape. */
  abstract get_delta_weight(name: string): Tensor;

  /** Whether an adapter has matrices in this layer. */
  has_adapter(name: string): boolean {
    return this.lora_A.has(name) || this.lora_embedding_A.has(name);
  }

  /**
   * Adds the product of adapters to the layer's weight, so that they cost nothing any more.
   *
   * @param safe_merge leave the weight as it is, and throw, where the sum is not finite.
   * @param adapter_names default: the active ones.
   */
  merge(safe_merge = false, adapter_names?: readonly string[] | null): void {
    const wanted = (adapter_names ?? this.active_adapters).filter((name) => !this.merged_adapters.includes(name));
    for (const name of wanted) {
      if (!this.has_adapter(name)) continue;
      torch.no_grad(() => torch.tidy(() => this.#mergeOne(name, safe_merge)));
      this.#setMerged([...this.merged_adapters, name]);
    }
  }

  #mergeOne(name: string, safe: boolean): void {
    const { weight, bias } = this.base_layer;
    const sums: [nn.Parameter, Tensor][] = [[weight, this.get_delta_weight(name).to(weight.dtype)]];
    if (this.#lora_bias.get(name)) {
      if (!bias)
        throw new InvalidArgumentError(
          `An adapter with lora_bias cannot be merged into a layer of type ${this.base_layer._get_name()} without a bias.`,
        );
      sums.push([bias, this.#biasDelta(name)]);
    }
    if (safe)
      for (const [parameter, delta] of sums)
        if (!parameter.add(delta).isfinite().all().item())
          throw new InvalidArgumentError(
            `Merging '${name}' would make a weight that is not finite; the adapter seems to be broken.`,
          );
    for (const [parameter, delta] of sums) parameter.add_(delta);
  }

  #biasDelta(name: string): Tensor {
    const { dtype } = this.base_layer.weight;
    return (this.lora_B.get(name).bias as Tensor).mul(this.scaling[name] as number).to(dtype);
  }

  /** Takes all merged adapters out of the weight again. */
  unmerge(): void {
    torch.no_grad(() =>
      torch.tidy(() => {
        for (const name of [...this.merged_adapters].reverse()) {
          const { weight, bias } = this.base_layer;
          weight.sub_(this.get_delta_weight(name).to(weight.dtype));
          if (this.#lora_bias.get(name) && bias) bias.sub_(this.#biasDelta(name));
          this.#setMerged(this.merged_adapters.filter((other) => other !== name));
        }
      }),
    );
  }

  #setMerged(names: readonly string[]): void {
    this.merged_adapters = names;
    this._merged = names.join();
  }

  // forward -------------------------------------------------------------------------------------------------

  override forward(x: Tensor, ...rest: unknown[]): Tensor {
    let result = (this.base_layer as nn.Layer & { forward(...args: unknown[]): Tensor }).forward(x, ...rest);
    if (this._disabled || this.merged) return result;
    const { dtype } = result;
    for (const name of this.active_adapters)
      if (this.has_adapter(name)) result = this.addAdapter(name, x, result);
    return result.to(dtype);
  }

  /** The result with what an adapter adds to it. */
  protected addAdapter(name: string, x: Tensor, result: Tensor): Tensor {
    const [a, b] = [this.lora_A.get(name), this.lora_B.get(name)] as unknown as [nn.Layer, nn.Layer];
    const dropout = this.lora_dropout.get(name) as nn.Layer;
    const input = x.to((a as unknown as BaseLayer).weight.dtype);
    return result.add(b.forward(a.forward(dropout.forward(input))).mul(this.scaling[name] as number));
  }

  override _get_name(): string {
    return `lora.${super._get_name().replace(/^Lora/, "")}`;
  }
}

/**
 * Two matrices with float32 numbers where a CPU would multiply short ones slowly, as PEFT does it; the result has their
 * dtype again.
 */
export function wide(a: Tensor, b: Tensor, product: (a: Tensor, b: Tensor) => Tensor): Tensor {
  const { dtype, device } = b;
  if (device !== "cpu" || (dtype !== "float16" && dtype !== "bfloat16")) return product(a, b);
  return product(a.to("float32"), b.to("float32")).to(dtype);
}
