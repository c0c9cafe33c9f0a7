// A layer with adapters: the layer itself, and per adapter two small matrices whose product is added to its result.
// Names of parts and methods are PEFT's, so that state dicts carry over.
import { announceOwner } from "../compile/owners.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import { warn } from "../errors/warnings.ts";
import * as nn from "../nn/index.ts";
import { acceptInitial } from "../nn/initial_values.ts";
import type { Device, Dtype, Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import type { LoraConfig } from "./config.ts";

/** A layer that can have adapters. */
export type BaseLayer = nn.Module & { weight: nn.Parameter; bias?: nn.Parameter | null };

/** Values by adapter. */
const byAdapter = <T>(): Record<string, T> => Object.create(null);

/** A recording of the layer watches them, as it watches the fields of modules. */
function watched<T extends object>(values: T): T {
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

/** With DoRA: the length of each row of the weight, which is learned apart from its direction. */
export class DoraMagnitude extends nn.Module {
  readonly weight: nn.Parameter;

  constructor(norm: Tensor) {
    super();
    this.weight = new nn.Parameter(norm);
  }

  override _get_name(): string {
    return "lora.dora.DoraLinearLayer";
  }
}

/** What all layers with LoRA adapters have in common. */
export abstract class LoraLayer extends nn.Module {
  readonly base_layer: BaseLayer;
  readonly lora_dropout: nn.ModuleDict;
  readonly lora_A: nn.ModuleDict<BaseLayer>;
  readonly lora_B: nn.ModuleDict<BaseLayer>;
  readonly lora_embedding_A: nn.ParameterDict;
  readonly lora_embedding_B: nn.ParameterDict;
  readonly lora_magnitude_vector: nn.ModuleDict<DoraMagnitude>;
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
  /** With DoRA: the norms of the rows by which a merged weight was divided. */
  readonly #mergedNorms = new Map<string, Tensor>();

  constructor(base_layer: BaseLayer, adapter_name: string) {
    super();
    this.base_layer = base_layer;
    this.lora_dropout = new nn.ModuleDict();
    this.lora_A = new nn.ModuleDict();
    this.lora_B = new nn.ModuleDict();
    this.lora_embedding_A = new nn.ParameterDict();
    this.lora_embedding_B = new nn.ParameterDict();
    this.lora_magnitude_vector = new nn.ModuleDict();
    this.r = byAdapter();
    this.lora_alpha = byAdapter();
    this.scaling = watched(byAdapter<number | Tensor>());
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
    if (config.use_dora) this.#makeMagnitude(name, empty);
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
    acceptInitial(a.weight, b.weight, ...(b.bias ? [b.bias] : []));
  }

  #makeMagnitude(name: string, empty: boolean): void {
    torch.no_grad(() =>
      torch.tidy(() => {
        const { weight } = this.base_layer;
        // The values of a file come later, and with them the length.
        const added = empty ? weight : weight.add(this.lowRank(name).mul(this.scaling[name] as number));
        this.lora_magnitude_vector.set(name, new DoraMagnitude(this.rowNorms(added).to(weight.dtype)));
      }),
    );
  }

  get #dicts() {
    const { lora_dropout, lora_A, lora_B, lora_embedding_A, lora_embedding_B, lora_magnitude_vector } = this;
    return [lora_dropout, lora_A, lora_B, lora_embedding_A, lora_embedding_B, lora_magnitude_vector];
  }

  /** Everything that belongs to one adapter. */
  #parts(name: string): (nn.Module | nn.Parameter)[] {
    return this.#dicts.flatMap((dict) => (dict.has(name) ? [dict.get(name)] : []));
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

  /** Takes an adapter out. */
  delete_adapter(name: string): void {
    for (const dict of this.#dicts) if (dict.has(name)) dict.pop(name);
    for (const values of [this.r, this.lora_alpha, this.scaling, this.use_rslora]) delete values[name];
    this.#lora_bias.delete(name);
    this._active = JSON.stringify(this.active_adapters.filter((other) => other !== name));
  }

  /** Gives an adapter `scale` times the weight that its config says. */
  set_scale(name: string, scale: number): void {
    if (!(name in this.scaling)) return;
    const r = this.r[name] as number;
    this.scaling[name] =
      (scale * (this.lora_alpha[name] as number)) / (this.use_rslora[name] ? Math.sqrt(r) : r);
  }

  // merging -------------------------------------------------------------------------------------------------

  /** The product of two matrices, in the weight's shape. */
  protected abstract product(a: Tensor, b: Tensor): Tensor;

  /** With DoRA: the length of each row of a weight. */
  protected abstract rowNorms(weight: Tensor): Tensor;

  /** With DoRA: a factor for each row, in a shape that goes with the weight. */
  protected abstract perRow(factor: Tensor): Tensor;

  #matrices(name: string): [a: Tensor, b: Tensor] {
    return this.lora_embedding_A.has(name)
      ? [this.lora_embedding_A.get(name), this.lora_embedding_B.get(name)]
      : [this.lora_A.get(name).weight, this.lora_B.get(name).weight];
  }

  /** The product of an adapter's matrices, in the weight's shape. */
  protected lowRank(name: string): Tensor {
    const [a, b] = this.#matrices(name);
    if (b.dtype !== "float16") return this.product(a, b);
    return this.product(a.to("float32"), b.to("float32")).to("float16");
  }

  /** What an adapter adds to the weight, in the weight's shape. */
  get_delta_weight(name: string): Tensor {
    const [a, b] = this.#matrices(name);
    const { dtype, device } = b;
    const delta = (a: Tensor, b: Tensor) => this.product(a, b).mul(this.scaling[name] as number);
    // Short numbers are multiplied as long ones where a CPU would be slow with them, as PEFT does it.
    if (device !== "cpu" || (dtype !== "float16" && dtype !== "bfloat16")) return delta(a, b);
    return delta(a.to("float32"), b.to("float32")).to(dtype);
  }

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
    const wanted = (adapter_names ?? this.active_adapters).filter(
      (name) => !this.merged_adapters.includes(name),
    );
    for (const name of wanted) {
      if (!this.has_adapter(name)) continue;
      torch.no_grad(() => torch.tidy(() => this.#mergeOne(name, safe_merge)));
      this.#setMerged([...this.merged_adapters, name]);
    }
  }

  #mergeOne(name: string, safe: boolean): void {
    const { weight, bias } = this.base_layer;
    if (this.#lora_bias.get(name) && !bias)
      throw new InvalidArgumentError(
        `An adapter with lora_bias cannot be merged into a layer of type ${this.base_layer._get_name()} without a bias.`,
      );
    if (this.lora_magnitude_vector.has(name)) this.#keepNorms(name);
    const sum = this.#withAdapter(name, weight);
    const biasSum = this.#lora_bias.get(name) && bias ? bias.add(this.#biasDelta(name)) : undefined;
    if (safe)
      for (const tensor of biasSum ? [sum, biasSum] : [sum])
        if (!tensor.isfinite().all().item())
          throw new InvalidArgumentError(
            `Merging '${name}' would make a weight that is not finite; the adapter seems to be broken.`,
          );
    weight.copy_(sum);
    if (biasSum) bias?.copy_(biasSum);
  }

  /** Norms are those of the weight without any adapter, whatever is merged already. */
  #keepNorms(name: string): void {
    let base: Tensor = this.base_layer.weight;
    for (const merged of [...this.merged_adapters].reverse()) base = this.#withoutAdapter(merged, base);
    const norms = this.rowNorms(base.add(this.get_delta_weight(name))).to(base.dtype);
    this.#mergedNorms.set(name, torch.keep(norms));
  }

  /** A weight with an adapter in it. */
  #withAdapter(name: string, weight: Tensor): Tensor {
    const delta = this.get_delta_weight(name);
    if (!this.lora_magnitude_vector.has(name)) return weight.add(delta.to(weight.dtype));
    return this.#mergedFactor(name).mul(weight.add(delta)).to(weight.dtype);
  }

  #withoutAdapter(name: string, weight: Tensor): Tensor {
    const delta = this.get_delta_weight(name);
    if (!this.lora_magnitude_vector.has(name)) return weight.sub(delta.to(weight.dtype));
    return weight.div(this.#mergedFactor(name)).sub(delta).to(weight.dtype);
  }

  #mergedFactor(name: string): Tensor {
    const magnitude = this.lora_magnitude_vector.get(name).weight;
    return this.perRow(magnitude.div(this.#mergedNorms.get(name) as Tensor));
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
          weight.copy_(this.#withoutAdapter(name, weight));
          this.#mergedNorms.delete(name);
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
    const input = dropout.forward(x.to((a as unknown as BaseLayer).weight.dtype));
    const added = b.forward(a.forward(input));
    if (!this.lora_magnitude_vector.has(name)) return result.add(added.mul(this.scaling[name] as number));

    const factor = this.doraFactor(name, input.dtype);
    const dropped = this.training && dropout instanceof nn.Dropout;
    const base = dropped ? this.withoutBias(input) : this.lessBias(result);
    return result.add(factor.sub(1).mul(base)).add(factor.mul(added).mul(this.scaling[name] as number));
  }

  /** With DoRA: learned length by actual length. What the matrices do to the latter is taken as constant, as in the paper. */
  protected doraFactor(name: string, dtype: Dtype): Tensor {
    const product = this.lowRank(name).detach().to(dtype);
    const weight = this.base_layer.weight.to(dtype).add(product.mul(this.scaling[name] as number));
    const norms = this.rowNorms(weight).to(dtype).detach();
    return this.lora_magnitude_vector.get(name).weight.div(norms);
  }

  /** What the base layer makes of an input without its bias. */
  protected abstract withoutBias(x: Tensor): Tensor;

  /** A result of the base layer less its bias. */
  protected abstract lessBias(result: Tensor): Tensor;

  override _get_name(): string {
    return `lora.${super._get_name().replace(/^Lora/, "")}`;
  }
}
