// The blocks of timm's ResNets, and their shortcuts. Names are those of timm's checkpoints.
import { InvalidArgumentError } from "../errors/index.ts";
import * as nn from "../nn/index.ts";
import type { Tensor } from "../torch/index.ts";
import { type ActLayer, AvgPool2dSame, type NormLayer } from "./layers.ts";

/** What both kinds of block take beside their channels. */
export interface BlockOptions {
  readonly stride?: number;
  /** Brings the input to the size of the output; null where it has that already. */
  readonly downsample?: nn.Layer | null;
  /** Groups of the 3×3 convolution. Default: 1. */
  readonly cardinality?: number;
  /** Width of the 3×3 convolution's groups per 64 planes. Default: 64. */
  readonly base_width?: number;
  /** How much narrower the first convolution is. Default: 1. */
  readonly reduce_first?: number;
  readonly dilation?: number;
  readonly first_dilation?: number | null;
  readonly act_layer?: ActLayer;
  readonly norm_layer?: NormLayer;
  /** Makes a layer that drops squares of the feature maps in training. */
  readonly drop_block?: (() => nn.Layer) | null;
  /** Drops the whole branch in training. */
  readonly drop_path?: nn.Layer | null;
}

/** The fields of a block after its convolutions, and what it does with their result. */
export abstract class ResidualBlock extends nn.Module {
  declare readonly downsample: nn.Layer | null;
  declare readonly drop_path: nn.Layer | null;

  protected add(branch: Tensor, x: Tensor): Tensor {
    const kept = this.drop_path?.forward(branch) ?? branch;
    return kept.add_(this.downsample?.forward(x) ?? x);
  }

  /** Makes the block begin as its shortcut: the last norm's factors become zero. */
  abstract zero_init_last(): void;
}

const zeroWeight = (norm: { readonly weight: nn.Parameter | null }) => {
  if (norm.weight) nn.init.zeros_(norm.weight);
};

type Norm = InstanceType<NormLayer>;

/** Two 3×3 convolutions, for ResNet-18 and -34. */
export class BasicBlock extends ResidualBlock {
  static readonly expansion: number = 1;

  readonly conv1: nn.Conv2d;
  readonly bn1: Norm;
  readonly drop_block: nn.Layer;
  readonly act1: nn.Layer;
  readonly conv2: nn.Conv2d;
  readonly bn2: Norm;
  readonly act2: nn.Layer;
  override readonly downsample: nn.Layer | null;
  readonly stride: number;
  readonly dilation: number;
  override readonly drop_path: nn.Layer | null;

  constructor(inplanes: number, planes: number, options: BlockOptions = {}) {
    super();
    const { stride = 1, dilation = 1, act_layer = nn.ReLU, norm_layer = nn.BatchNorm2d } = options;
    const { cardinality = 1, base_width = 64, reduce_first = 1 } = options;
    if (cardinality !== 1 || base_width !== 64) {
      throw new InvalidArgumentError(
        `BasicBlock has cardinality 1 and base_width 64, got ${cardinality} and ${base_width}.`,
        { hint: "Use Bottleneck for ResNeXt and wide ResNets." },
      );
    }
    const first_planes = Math.floor(planes / reduce_first);
    const first = options.first_dilation || dilation;
    this.conv1 = new nn.Conv2d(inplanes, first_planes, 3, {
      stride,
      padding: first,
      dilation: first,
      bias: false,
    });
    this.bn1 = new norm_layer(first_planes);
    this.drop_block = options.drop_block?.() ?? new nn.Identity();
    this.act1 = new act_layer({ inplace: true });
    this.conv2 = new nn.Conv2d(first_planes, planes, 3, { padding: dilation, dilation, bias: false });
    this.bn2 = new norm_layer(planes);
    this.act2 = new act_layer({ inplace: true });
    this.downsample = options.downsample ?? null;
    this.stride = stride;
    this.dilation = dilation;
    this.drop_path = options.drop_path ?? null;
  }

  override zero_init_last(): void {
    zeroWeight(this.bn2);
  }

  override forward(x: Tensor): Tensor {
    let h = this.drop_block.forward(this.bn1.forward(this.conv1.forward(x)));
    h = this.bn2.forward(this.conv2.forward(this.act1.forward(h)));
    return this.act2.forward(this.add(h, x));
  }
}

/** 1×1, 3×3, 1×1, for ResNet-26 and up; the 3×3 convolution has the stride and may be grouped. */
export class Bottleneck extends ResidualBlock {
  static readonly expansion: number = 4;

  readonly conv1: nn.Conv2d;
  readonly bn1: Norm;
  readonly act1: nn.Layer;
  readonly conv2: nn.Conv2d;
  readonly bn2: Norm;
  readonly drop_block: nn.Layer;
  readonly act2: nn.Layer;
  readonly conv3: nn.Conv2d;
  readonly bn3: Norm;
  readonly act3: nn.Layer;
  override readonly downsample: nn.Layer | null;
  readonly stride: number;
  readonly dilation: number;
  override readonly drop_path: nn.Layer | null;

  constructor(inplanes: number, planes: number, options: BlockOptions = {}) {
    super();
    const { stride = 1, dilation = 1, act_layer = nn.ReLU, norm_layer = nn.BatchNorm2d } = options;
    const { cardinality = 1, base_width = 64, reduce_first = 1 } = options;
    const width = Math.floor(planes * (base_width / 64)) * cardinality;
    const first_planes = Math.floor(width / reduce_first);
    const outplanes = planes * Bottleneck.expansion;
    const first = options.first_dilation || dilation;
    this.conv1 = new nn.Conv2d(inplanes, first_planes, 1, { bias: false });
    this.bn1 = new norm_layer(first_planes);
    this.act1 = new act_layer({ inplace: true });
    this.conv2 = new nn.Conv2d(first_planes, width, 3, {
      stride,
      padding: first,
      dilation: first,
      groups: cardinality,
      bias: false,
    });
    this.bn2 = new norm_layer(width);
    this.drop_block = options.drop_block?.() ?? new nn.Identity();
    this.act2 = new act_layer({ inplace: true });
    this.conv3 = new nn.Conv2d(width, outplanes, 1, { bias: false });
    this.bn3 = new norm_layer(outplanes);
    this.act3 = new act_layer({ inplace: true });
    this.downsample = options.downsample ?? null;
    this.stride = stride;
    this.dilation = dilation;
    this.drop_path = options.drop_path ?? null;
  }

  override zero_init_last(): void {
    zeroWeight(this.bn3);
  }

  override forward(x: Tensor): Tensor {
    let h = this.act1.forward(this.bn1.forward(this.conv1.forward(x)));
    h = this.act2.forward(this.drop_block.forward(this.bn2.forward(this.conv2.forward(h))));
    h = this.bn3.forward(this.conv3.forward(h));
    return this.act3.forward(this.add(h, x));
  }
}

interface DownsampleOptions {
  readonly kernel_size: number;
  readonly stride: number;
  readonly dilation: number;
  readonly first_dilation: number;
  readonly norm_layer: NormLayer;
}

/** The shortcut as a convolution with the stride. */
export function downsample_conv(
  in_channels: number,
  out_channels: number,
  { kernel_size, stride, dilation, first_dilation, norm_layer }: DownsampleOptions,
): nn.Sequential {
  const kernel = stride === 1 && dilation === 1 ? 1 : kernel_size;
  const rate = kernel > 1 ? first_dilation || dilation : 1;
  const padding = Math.floor((stride - 1 + rate * (kernel - 1)) / 2);
  const options = { stride, padding, dilation: rate, bias: false };
  return new nn.Sequential(
    new nn.Conv2d(in_channels, out_channels, kernel, options),
    new norm_layer(out_channels),
  );
}

/** The shortcut as average pooling with the stride, then a 1×1 convolution. */
export function downsample_avg(
  in_channels: number,
  out_channels: number,
  { stride, dilation, norm_layer }: DownsampleOptions,
): nn.Sequential {
  const avg_stride = dilation === 1 ? stride : 1;
  const Pool = avg_stride === 1 && dilation > 1 ? AvgPool2dSame : nn.AvgPool2d;
  const pool =
    stride === 1 && dilation === 1
      ? new nn.Identity()
      : new Pool(2, { stride: avg_stride, ceil_mode: true, count_include_pad: false });
  return new nn.Sequential(
    pool,
    new nn.Conv2d(in_channels, out_channels, 1, { bias: false }),
    new norm_layer(out_channels),
  );
}

/** A class of blocks: {@link BasicBlock}, {@link Bottleneck}, or one of your own. */
export interface BlockClass {
  new (inplanes: number, planes: number, options?: BlockOptions): nn.Layer;
  /** Channels of the output, per plane. */
  readonly expansion: number;
}

const BLOCKS: Readonly<Record<string, BlockClass>> = { BasicBlock, Bottleneck };

/** A class, or its name as stored settings have it. */
export type BlockName = BlockClass | "BasicBlock" | "Bottleneck";

/** The class of that name; a class is given back. */
export function blockClass(block: BlockName): BlockClass {
  const found = typeof block === "string" ? BLOCKS[block] : block;
  if (found !== undefined) return found;
  throw new InvalidArgumentError(`Unknown block '${block}'; known are ${Object.keys(BLOCKS).join(", ")}.`);
}
