// Layers of timm that torch does not have: global pooling by name, dropped blocks and paths, "same" padding.
import { InvalidArgumentError } from "../errors/index.ts";
import { nearest } from "../errors/suggest.ts";
import * as nn from "../nn/index.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";

const F = nn.functional;

/** A class of activations, as `nn.ReLU`. */
export type ActLayer = new (options: { inplace: boolean }) => nn.Layer;
/** A class of norms over channels, as `nn.BatchNorm2d`. */
export type NormLayer = new (channels: number) => nn.Layer & { readonly weight: nn.Parameter | null };

/** Group norm with channels first in its arguments, in 32 groups. */
export class GroupNorm extends nn.GroupNorm {
  constructor(num_channels: number, { num_groups = 32 } = {}) {
    super(num_groups, num_channels);
  }
}

/** A class whose layers cannot work in place, and need not be told. */
function withoutInplace(Layer: new () => nn.Layer): ActLayer {
  const cls = class extends (Layer as new () => nn.Module) {
    constructor(_options: { inplace: boolean }) {
      super();
    }
  };
  Object.defineProperty(cls, "name", { value: Layer.name });
  return cls as unknown as ActLayer;
}

const ACT_LAYERS: Readonly<Record<string, ActLayer>> = {
  relu: nn.ReLU,
  relu6: nn.ReLU6,
  silu: nn.SiLU,
  swish: nn.SiLU,
  mish: nn.Mish,
  elu: nn.ELU as ActLayer,
  celu: nn.CELU as ActLayer,
  selu: nn.SELU as ActLayer,
  leaky_relu: class LeakyReLU extends nn.LeakyReLU {
    constructor({ inplace }: { inplace: boolean }) {
      super({ negative_slope: 0.01, inplace });
    }
  },
  gelu: withoutInplace(nn.GELU),
  sigmoid: withoutInplace(nn.Sigmoid),
  tanh: withoutInplace(nn.Tanh),
  hard_sigmoid: nn.Hardsigmoid as ActLayer,
  hard_swish: nn.Hardswish as ActLayer,
};

const NORM_LAYERS: Readonly<Record<string, NormLayer>> = {
  batchnorm: nn.BatchNorm2d,
  batchnorm2d: nn.BatchNorm2d,
  groupnorm: GroupNorm,
};

function named<T>(what: string, name: string | T, known: Readonly<Record<string, T>>): T {
  if (typeof name !== "string") return name;
  const found = Object.hasOwn(known, name) ? known[name] : undefined;
  if (found !== undefined) return found;
  throw new InvalidArgumentError(`Unknown ${what} '${name}'; known are ${Object.keys(known).join(", ")}.`, {
    suggestion: nearest(name, Object.keys(known), 1)[0],
  });
}

/** The class of activations of that name; a class is given back. */
export const get_act_layer = (name: string | ActLayer): ActLayer => named("act_layer", name, ACT_LAYERS);

/** The class of norms of that name; a class is given back. */
export const get_norm_layer = (name: string | NormLayer): NormLayer => named("norm_layer", name, NORM_LAYERS);

/** Average pooling whose output is as large as its input divided by the stride, rounded up. */
export class AvgPool2dSame extends nn.AvgPool2d {
  override forward(x: Tensor): Tensor {
    const [height, width] = x.shape.slice(-2) as [number, number];
    const missing = (size: number) => {
      const [kernel, stride] = [this.kernel_size as number, this.stride as number];
      return Math.max((Math.ceil(size / stride) - 1) * stride + kernel - size, 0);
    };
    const [right, bottom] = [missing(width), missing(height)];
    const [left, top] = [Math.floor(right / 2), Math.floor(bottom / 2)];
    return super.forward(F.pad(x, [left, right - left, top, bottom - top]));
  }
}

/** Drops squares of feature maps in training (arXiv 1810.12890). */
export class DropBlock2d extends nn.Module {
  readonly drop_prob: number;
  readonly block_size: number;
  readonly gamma_scale: number;

  constructor({ drop_prob = 0.1, block_size = 7, gamma_scale = 1 } = {}) {
    super();
    this.drop_prob = drop_prob;
    this.block_size = block_size;
    this.gamma_scale = gamma_scale;
  }

  override forward(x: Tensor): Tensor {
    if (!this.training || this.drop_prob === 0) return x;
    const [batch, , height, width] = x.shape as [number, number, number, number];
    const [kh, kw] = [Math.min(this.block_size, height), Math.min(this.block_size, width)];
    const places = (height - kh + 1) * (width - kw + 1);
    const gamma = (this.gamma_scale * this.drop_prob * height * width) / (kh * kw) / places;
    const keep = torch.no_grad(() => {
      const centres = x.new_empty([batch, 1, height, width]).bernoulli_(gamma);
      let dropped = F.max_pool2d(centres, [kh, kw], {
        stride: 1,
        padding: [Math.floor(kh / 2), Math.floor(kw / 2)],
      });
      // With an even kernel there is one row or column too many.
      dropped = dropped.narrow(2, (kh + 1) % 2, height).narrow(3, (kw + 1) % 2, width);
      const kept = torch.rsub(dropped, 1);
      const share = kept.to("float32").sum().add(1e-7);
      return kept.mul(torch.full([], kept.numel(), { device: x.device }).div(share).to(x.dtype));
    });
    return x.mul(keep);
  }
}

/** Drops whole residual branches, image by image, in training (arXiv 1603.09382). */
export class DropPath extends nn.Module {
  readonly drop_prob: number;
  readonly scale_by_keep: boolean;

  constructor({ drop_prob = 0, scale_by_keep = true } = {}) {
    super();
    this.drop_prob = drop_prob;
    this.scale_by_keep = scale_by_keep;
  }

  override forward(x: Tensor): Tensor {
    if (this.drop_prob === 0 || !this.training) return x;
    const keep = 1 - this.drop_prob;
    const kept = x.new_empty([x.shape[0] as number, ...Array(x.ndim - 1).fill(1)]).bernoulli_(keep);
    return x.mul(keep > 0 && this.scale_by_keep ? kept.div_(keep) : kept);
  }

  override extra_repr(): string {
    return `drop_prob=${this.drop_prob.toFixed(3)}`;
  }
}

/** How height and width become one value; "" leaves them. */
export type PoolType = "avg" | "max" | "avgmax" | "catavgmax" | "fast" | "";

/** The mean and the maximum of each channel, averaged or side by side. */
class AvgMaxPool2d extends nn.Module {
  readonly join: (mean: Tensor, max: Tensor) => Tensor;

  constructor(join: (mean: Tensor, max: Tensor) => Tensor) {
    super();
    this.join = join;
  }

  override forward(x: Tensor): Tensor {
    return this.join(F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1) as Tensor);
  }
}

const POOLS: Readonly<Record<PoolType, () => nn.Layer>> = {
  avg: () => new nn.AdaptiveAvgPool2d(1),
  fast: () => new nn.AdaptiveAvgPool2d(1),
  max: () => new nn.AdaptiveMaxPool2d(1) as unknown as nn.Layer,
  avgmax: () => new AvgMaxPool2d((mean, max) => mean.add(max).mul(0.5)),
  catavgmax: () => new AvgMaxPool2d((mean, max) => torch.cat([mean, max], 1)),
  "": () => new nn.Identity(),
};

/** Global pooling by name: [batch, channels, height, width] → [batch, channels] (or [batch, channels, 1, 1]). */
export class SelectAdaptivePool2d extends nn.Module {
  readonly pool_type: PoolType;
  readonly pool: nn.Layer;
  readonly flatten: nn.Layer;

  constructor({
    pool_type = "fast",
    flatten = false,
  }: { pool_type?: PoolType | null; flatten?: boolean } = {}) {
    super();
    this.pool_type = pool_type ?? "";
    this.pool = named<() => nn.Layer>("pool_type", this.pool_type, POOLS)();
    this.flatten = flatten ? new nn.Flatten(1) : new nn.Identity();
  }

  is_identity(): boolean {
    return this.pool_type === "";
  }

  /** How many values come of each channel. */
  feat_mult(): number {
    return this.pool_type === "catavgmax" ? 2 : 1;
  }

  override forward(x: Tensor): Tensor {
    return this.flatten.forward(this.pool.forward(x));
  }

  override extra_repr(): string {
    return `pool_type=${this.pool_type}`;
  }
}

/** Global pooling, and the linear layer after it; without classes that is the identity. */
export function create_classifier(
  num_features: number,
  num_classes: number,
  { pool_type = "avg" }: { pool_type?: PoolType | null } = {},
): [global_pool: SelectAdaptivePool2d, fc: nn.Layer] {
  const global_pool = new SelectAdaptivePool2d({ pool_type, flatten: Boolean(pool_type) });
  const fc =
    num_classes > 0 ? new nn.Linear(num_features * global_pool.feat_mult(), num_classes) : new nn.Identity();
  return [global_pool, fc];
}
