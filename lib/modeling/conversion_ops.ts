// What a conversion does with weights on their way from a checkpoint into a model. Each operation has an inverse, which
// saving uses; none of them reads a weight: see lazy_weight.ts.
import type { PretrainedConfig } from "../configuration/index.ts";
import { CheckpointError, InvalidArgumentError } from "../errors/index.ts";
import { JoinedWeight, type LazyWeight } from "./lazy_weight.ts";
import type { PreTrainedModel } from "./modeling_utils.ts";

// biome-ignore lint/suspicious/noExplicitAny: conversions do not look at where a weight is read from
export type AnyWeight = LazyWeight<any>;

/** Unread weights by pattern or, at the end of a conversion, by target: one each, or the list that a pattern with `*` found. */
export type Weights = Map<string, AnyWeight[]>;

/** What an operation may look at beside the weights. */
export interface ConversionContext {
  readonly source_patterns: readonly string[];
  readonly target_patterns: readonly string[];
  /** The model's name of the first target. */
  readonly full_layer_name: string;
  readonly model: PreTrainedModel;
  readonly config: PretrainedConfig;
}

const undefinedOperation = (op: ConversionOps) =>
  new CheckpointError(`${op.constructor.name} does not apply to these source and target patterns.`);

const same = (a: readonly number[], b: readonly number[]) =>
  a.length === b.length && a.every((size, i) => size === b[i]);

function shapeIn(model: PreTrainedModel, name: string): readonly number[] | undefined {
  try {
    return model.get_parameter(name).shape;
  } catch {
    return undefined;
  }
}

/** One step of a `WeightConverter`. */
export abstract class ConversionOps {
  /** Whether several sources may become several targets. */
  readonly supports_many_to_many: boolean = false;

  abstract convert(weights: Weights, context: ConversionContext): Weights;
  /** The operation that undoes this one. */
  abstract get reverse_op(): ConversionOps;

  /** The only weight there is. */
  protected single(weights: Weights): Weights extends Map<string, (infer W)[]> ? W : never {
    const [list] = [...weights.values()];
    if (weights.size !== 1 || list?.[0] === undefined) throw undefinedOperation(this);
    return list[0];
  }

  /** The target of an operation with one result: first in a chain that ends in several targets, it keeps the source's. */
  protected oneTarget(weights: Weights, { source_patterns, target_patterns }: ConversionContext): string {
    const [source, target] = [source_patterns[0], target_patterns[0]];
    if (weights.size !== 1 || source === undefined || target === undefined) throw undefinedOperation(this);
    if (target_patterns.length === 1) return target;
    if (source_patterns.length === 1) return source;
    throw undefinedOperation(this);
  }
}

/** One weight into equal parts along `dim`, one per target; or as many as a field of the config says, named by `*`. */
export class Chunk extends ConversionOps {
  readonly dim: number;
  readonly num_shards_attribute: string | null;

  constructor({
    dim = 0,
    num_shards_attribute = null,
  }: { dim?: number; num_shards_attribute?: string | null } = {}) {
    super();
    this.dim = dim;
    this.num_shards_attribute = num_shards_attribute;
  }

  override convert(weights: Weights, context: ConversionContext): Weights {
    const targets = this.#targets(context);
    const parts = this.single(weights).chunk(targets.length, this.dim);
    return new Map(targets.flatMap((target, i) => (parts[i] ? [[target, [parts[i].contiguous()]]] : [])));
  }

  #targets({ target_patterns, config }: ConversionContext): readonly string[] {
    if (this.num_shards_attribute === null) return target_patterns;
    const [target] = target_patterns;
    if (target_patterns.length !== 1 || target === undefined) throw undefinedOperation(this);
    const count = (config.get_text_config() as unknown as Record<string, unknown>)[this.num_shards_attribute];
    if (typeof count !== "number")
      throw new CheckpointError(`config.${this.num_shards_attribute} is to be a number, for Chunk.`);
    return Array.from({ length: count }, (_, i) => target.replaceAll("*", String(i)));
  }

  override get reverse_op(): ConversionOps {
    return new Concatenate({ dim: this.dim, num_shards_attribute: this.num_shards_attribute });
  }
}

/** One weight into parts along `dim`, as large as the targets are in the model. */
export class Split extends ConversionOps {
  readonly dim: number;

  constructor({ dim = 0 }: { dim?: number } = {}) {
    super();
    this.dim = dim;
  }

  override convert(
    weights: Weights,
    { target_patterns, full_layer_name, model }: ConversionContext,
  ): Weights {
    const sizes = target_patterns.map((target) => {
      const name = full_layer_name.replace(target_patterns[0] as string, () => target);
      return model.get_parameter(name).shape.at(this.dim) as number;
    });
    const parts = this.single(weights).split(sizes, this.dim);
    return new Map(
      target_patterns.map((target, i) => [target, [(parts[i] as (typeof parts)[0]).contiguous()]]),
    );
  }

  override get reverse_op(): ConversionOps {
    return new Concatenate({ dim: this.dim });
  }
}

/** All weights one after the other along `dim`, in the order of the source patterns. */
export class Concatenate extends ConversionOps {
  readonly dim: number;
  readonly num_shards_attribute: string | null;

  constructor({
    dim = 0,
    num_shards_attribute = null,
  }: { dim?: number; num_shards_attribute?: string | null } = {}) {
    super();
    this.dim = dim;
    this.num_shards_attribute = num_shards_attribute;
  }

  override convert(weights: Weights, { source_patterns, target_patterns }: ConversionContext): Weights {
    const [target] = target_patterns;
    if (target_patterns.length !== 1 || target === undefined) throw undefinedOperation(this);
    const parts = source_patterns.flatMap((pattern) => weights.get(pattern) ?? []);
    return new Map([[target, [new JoinedWeight(parts, this.dim)]]]);
  }

  override get reverse_op(): ConversionOps {
    return new Chunk({ dim: this.dim, num_shards_attribute: this.num_shards_attribute });
  }
}

/** The weights that a pattern with `*` found, stacked along a new dimension: the experts of a layer. */
export class MergeModulelist extends ConversionOps {
  readonly dim: number;

  constructor({ dim = 0 }: { dim?: number } = {}) {
    super();
    this.dim = dim;
  }

  override convert(weights: Weights, { target_patterns }: ConversionContext): Weights {
    const merged: Weights = new Map();
    for (const [pattern, list] of weights) {
      if (weights.size === 1 && target_patterns.length !== 1) throw undefinedOperation(this);
      const target = weights.size === 1 ? (target_patterns[0] as string) : pattern;
      merged.set(target, [
        new JoinedWeight(
          list.map((weight) => weight.unsqueeze(this.dim)),
          this.dim < 0 ? this.dim + (list[0]?.shape.length ?? 0) + 1 : this.dim,
        ),
      ]);
    }
    return merged;
  }

  override get reverse_op(): ConversionOps {
    return new SplitModulelist({ dim: this.dim });
  }
}

/** Undoes `MergeModulelist`: one weight per index of `dim`. */
export class SplitModulelist extends ConversionOps {
  readonly dim: number;

  constructor({ dim = 0 }: { dim?: number } = {}) {
    super();
    this.dim = dim;
  }

  override convert(weights: Weights, { target_patterns }: ConversionContext): Weights {
    const parts: Weights = new Map();
    for (const [pattern, [weight]] of weights) {
      if (weight === undefined || (weights.size === 1 && target_patterns.length !== 1))
        throw undefinedOperation(this);
      const target = weights.size === 1 ? (target_patterns[0] as string) : pattern;
      const count = weight.shape.at(this.dim) as number;
      for (let i = 0; i < count; i++)
        parts.set(target.replaceAll("*", String(i)), [weight.narrow(this.dim, i, 1).squeeze(this.dim)]);
    }
    return parts;
  }

  override get reverse_op(): ConversionOps {
    return new MergeModulelist({ dim: this.dim });
  }
}

/** Exchanges two dimensions; with `check_dims` only where the model's shape asks for it. */
export class Transpose extends ConversionOps {
  readonly dim0: number;
  readonly dim1: number;
  readonly check_dims: boolean;

  constructor(dim0 = 0, dim1 = 1, { check_dims = false }: { check_dims?: boolean } = {}) {
    super();
    this.dim0 = dim0;
    this.dim1 = dim1;
    this.check_dims = check_dims;
  }

  override convert(weights: Weights, context: ConversionContext): Weights {
    const target = this.oneTarget(weights, context);
    const weight = this.single(weights);
    if (this.check_dims) {
      const shape = shapeIn(context.model, context.full_layer_name);
      // On the way back there is no such name in the model; a file in the model's own layout is as good.
      if (shape === undefined || same(shape, weight.shape)) return new Map([[target, [weight]]]);
    }
    return new Map([[target, [weight.transpose(this.dim0, this.dim1).contiguous()]]]);
  }

  override get reverse_op(): ConversionOps {
    return new Transpose(this.dim1, this.dim0, { check_dims: this.check_dims });
  }
}

/** Rows that alternate between two halves, into one half after the other; the inverse with `inverse`. */
export class Interleave extends ConversionOps {
  readonly dim: number;
  readonly inverse: boolean;

  constructor({ dim = 0, inverse = false }: { dim?: number; inverse?: boolean } = {}) {
    super();
    this.dim = dim;
    this.inverse = inverse;
  }

  override convert(weights: Weights, { target_patterns }: ConversionContext): Weights {
    const weight = this.single(weights);
    const dim = this.dim < 0 ? this.dim + weight.shape.length : this.dim;
    const half = Math.floor((weight.shape[dim] as number) / 2);
    const apart = weight.unflatten(dim, this.inverse ? [2, half] : [half, 2]).transpose(dim, dim + 1);
    return new Map([[target_patterns[0] as string, [apart.flatten(dim, 2)]]]);
  }

  override get reverse_op(): ConversionOps {
    return new Interleave({ dim: this.dim, inverse: !this.inverse });
  }
}

/** Rows of query and key projections from the complex form of rotary embeddings to the one in halves. */
export class PermuteForRope extends ConversionOps {
  readonly subconfig_key: string | null;
  readonly permute_layer_names: readonly string[] | null;
  readonly inverse: boolean;

  constructor({
    subconfig_key = null,
    permute_layer_names = null,
    inverse = false,
  }: {
    subconfig_key?: string | null;
    permute_layer_names?: readonly string[] | null;
    inverse?: boolean;
  } = {}) {
    super();
    this.subconfig_key = subconfig_key;
    this.permute_layer_names = permute_layer_names;
    this.inverse = inverse;
  }

  override convert(weights: Weights, context: ConversionContext): Weights {
    const output: Weights = new Map();
    for (const [pattern, list] of weights) {
      const permutes = this.permute_layer_names?.some((name) => pattern.includes(name)) ?? true;
      if (permutes && list.length > 1) throw undefinedOperation(this);
      output.set(
        this.#target(pattern, context),
        permutes ? list.map((weight) => this.#permuted(weight, context.config)) : list,
      );
    }
    return output;
  }

  #permuted(weight: AnyWeight, config: PretrainedConfig): AnyWeight {
    const { subconfig_key: key } = this;
    const fields = config as unknown as Record<string, unknown>;
    const from = key === null ? fields : ((fields[key] as Record<string, unknown> | undefined) ?? fields);
    const heads = (from.num_attention_heads as number | undefined) ?? 1;
    if (weight.shape.length > 2) return weight;
    const half = Math.floor((weight.shape[0] as number) / heads / 2);
    return weight
      .unflatten(0, this.inverse ? [heads, 2, half] : [heads, half, 2])
      .transpose(1, 2)
      .flatten(0, 3);
  }

  #target(pattern: string, { source_patterns, target_patterns }: ConversionContext): string {
    const [sources, targets] = [source_patterns.length, target_patterns.length];
    if ((targets > 1 && sources === 1) || (targets === 1 && sources > 1)) return pattern;
    if (targets === 1 && sources === 1) return target_patterns[0] as string;
    throw undefinedOperation(this);
  }

  override get reverse_op(): ConversionOps {
    const { subconfig_key, permute_layer_names, inverse } = this;
    return new PermuteForRope({ subconfig_key, permute_layer_names, inverse: !inverse });
  }
}

/** Between the weight of a convolution over whole patches and that of a linear layer. */
abstract class PatchOps extends ConversionOps {
  readonly in_channels: number;
  readonly kernel_size: readonly [number, number, number];

  constructor({
    in_channels,
    kernel_size,
  }: { in_channels: number; kernel_size: readonly [number, number, number] }) {
    super();
    this.in_channels = in_channels;
    this.kernel_size = kernel_size;
  }
}

/** The weight of a convolution over whole patches as that of a linear layer. */
export class Conv3dToLinear extends PatchOps {
  override convert(weights: Weights, context: ConversionContext): Weights {
    const target = this.oneTarget(weights, context);
    const weight = this.single(weights);
    if (weight.shape.length !== 5 && weight.shape.length !== 2)
      throw new InvalidArgumentError(`Conv3dToLinear takes 5 or 2 dimensions, got [${weight.shape}].`);
    return new Map([[target, [weight.shape.length === 5 ? weight.flatten(1, 4) : weight]]]);
  }

  override get reverse_op(): ConversionOps {
    return new LinearToConv3d(this);
  }
}

/** Undoes `Conv3dToLinear`. */
export class LinearToConv3d extends PatchOps {
  override convert(weights: Weights, context: ConversionContext): Weights {
    const target = this.oneTarget(weights, context);
    const weight = this.single(weights);
    const sizes = [this.in_channels, ...this.kernel_size];
    if (weight.shape.length !== 2 || weight.shape[1] !== sizes.reduce((a, b) => a * b, 1))
      throw new InvalidArgumentError(`LinearToConv3d cannot make [${sizes}] of [${weight.shape}].`);
    return new Map([[target, [weight.unflatten(1, sizes)]]]);
  }

  override get reverse_op(): ConversionOps {
    return new Conv3dToLinear(this);
  }
}
