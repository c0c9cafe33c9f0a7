// timm's ResNet family: ResNet, ResNeXt and wide ResNet, with the stems and shortcuts of the "bag of tricks" variants.
// Papers: arXiv 1512.03385, 1611.05431, 1605.07146, 1812.01187. Names are those of timm's checkpoints.
import { InvalidArgumentError } from "../errors/index.ts";
import * as nn from "../nn/index.ts";
import { checkpoint } from "../torch/checkpoint.ts";
import type { Tensor } from "../torch/index.ts";
import {
  type ActLayer,
  create_classifier,
  DropBlock2d,
  DropPath,
  get_act_layer,
  get_norm_layer,
  type NormLayer,
  type PoolType,
  type SelectAdaptivePool2d,
} from "./layers.ts";
import {
  type BlockClass,
  type BlockName,
  blockClass,
  downsample_avg,
  downsample_conv,
  type ResidualBlock,
} from "./resnet_blocks.ts";

const F = nn.functional;

/** Where a feature map comes from: its channels, how much smaller than the image it is, and its module. */
export interface FeatureInfo {
  readonly num_chs: number;
  readonly reduction: number;
  readonly module: string;
}

/** Options of a ResNet, as of timm. */
export interface ResNetOptions {
  /** Classes; 0 for none: `forward` then gives the pooled features. Default: 1000. */
  readonly num_classes?: number;
  /** Channels of the image. Default: 3. */
  readonly in_chans?: number;
  /** How much smaller the last feature maps are: 32, 16 or 8. Default: 32. */
  readonly output_stride?: number;
  /** How the last feature maps become a vector. Default: "avg". */
  readonly global_pool?: PoolType;
  /** Groups of the 3×3 convolutions of bottlenecks. Default: 1. */
  readonly cardinality?: number;
  /** Their width per 64 planes. Default: 64. */
  readonly base_width?: number;
  /** Channels of the stem's first convolution. Default: 64. */
  readonly stem_width?: number;
  /** "": one 7×7 convolution; "deep": three 3×3; "deep_tiered": three, of growing width. Default: "". */
  readonly stem_type?: "" | "deep" | "deep_tiered" | (string & {});
  /** A convolution in the place of the stem's max pool. Default: false. */
  readonly replace_stem_pool?: boolean;
  /** How much narrower the first convolution of each block is. Default: 1. */
  readonly block_reduce_first?: number;
  /** Kernel of the shortcuts' convolutions. Default: 1. */
  readonly down_kernel_size?: number;
  /** Shortcuts pool before they convolve. Default: false. */
  readonly avg_down?: boolean;
  /** Planes of each stage. Default: [64, 128, 256, 512]. */
  readonly channels?: readonly number[];
  readonly act_layer?: string | ActLayer;
  readonly norm_layer?: string | NormLayer;
  /** Dropout before the classifier. Default: 0. */
  readonly drop_rate?: number;
  /** Chance that the last block's branch is dropped; it grows from 0 at the first. Default: 0. */
  readonly drop_path_rate?: number;
  /** Chance that squares of the later stages' feature maps are dropped. Default: 0. */
  readonly drop_block_rate?: number;
  /** Blocks begin as their shortcuts. Default: true. */
  readonly zero_init_last?: boolean;
}

const STAGES = ["layer1", "layer2", "layer3", "layer4"] as const;

/**
 * A ResNet, as timm builds it; its state dict is timm's.
 *
 * @param block the class of its blocks, or one per stage.
 * @param layers blocks of each stage.
 *
 * @example
 * const model = new timm.ResNet(timm.Bottleneck, [3, 4, 6, 3], { stem_type: "deep", stem_width: 32, avg_down: true });
 * model.forward(torch.randn([1, 3, 224, 224])).shape; // [1, 1000]
 */
export class ResNet extends nn.Module {
  num_classes: number;
  readonly in_chans: number;
  readonly drop_rate: number;
  grad_checkpointing: boolean;
  readonly conv1: nn.Layer;
  readonly bn1: nn.Layer;
  readonly act1: nn.Layer;
  /** Where feature maps come from: the stem, then each stage. */
  readonly feature_info: readonly FeatureInfo[];
  readonly maxpool: nn.Layer;
  declare readonly layer1: nn.Sequential;
  declare readonly layer2: nn.Sequential;
  declare readonly layer3: nn.Sequential;
  declare readonly layer4: nn.Sequential;
  readonly num_features: number;
  // Declared only: as properties they would stand before the stages, in state dicts too.
  declare global_pool: SelectAdaptivePool2d;
  declare fc: nn.Layer;
  head_hidden_size: number;

  constructor(
    block: BlockName | readonly BlockName[],
    layers: readonly number[],
    options: ResNetOptions = {},
  ) {
    super();
    const { num_classes = 1000, in_chans = 3, output_stride = 32, global_pool = "avg" } = options;
    const { stem_width = 64, stem_type = "", channels = [64, 128, 256, 512] } = options;
    if (![8, 16, 32].includes(output_stride)) {
      throw new InvalidArgumentError(`output_stride must be 8, 16 or 32, got ${output_stride}.`);
    }
    const act_layer = get_act_layer(options.act_layer ?? nn.ReLU);
    const norm_layer = get_norm_layer(options.norm_layer ?? nn.BatchNorm2d);
    this.num_classes = num_classes;
    this.in_chans = in_chans;
    this.drop_rate = options.drop_rate ?? 0;
    this.grad_checkpointing = false;

    const deep = stem_type.includes("deep");
    const inplanes = deep ? stem_width * 2 : 64;
    if (deep) {
      const first = stem_type.includes("tiered") ? 3 * Math.floor(stem_width / 4) : stem_width;
      const conv = (from: number, to: number, stride: number) =>
        new nn.Conv2d(from, to, 3, { stride, padding: 1, bias: false });
      this.conv1 = new nn.Sequential(
        conv(in_chans, first, 2),
        new norm_layer(first),
        new act_layer({ inplace: true }),
        conv(first, stem_width, 1),
        new norm_layer(stem_width),
        new act_layer({ inplace: true }),
        conv(stem_width, inplanes, 1),
      );
    } else {
      this.conv1 = new nn.Conv2d(in_chans, inplanes, 7, { stride: 2, padding: 3, bias: false });
    }
    this.bn1 = new norm_layer(inplanes);
    this.act1 = new act_layer({ inplace: true });
    const feature_info: FeatureInfo[] = [{ num_chs: inplanes, reduction: 2, module: "act1" }];
    this.feature_info = feature_info;
    this.maxpool = options.replace_stem_pool
      ? new nn.Sequential(
          new nn.Conv2d(inplanes, inplanes, 3, { stride: 2, padding: 1, bias: false }),
          new norm_layer(inplanes),
          new act_layer({ inplace: true }),
        )
      : new nn.MaxPool2d(3, { stride: 2, padding: 1 });

    const blocks = channels.map((_, i) => blockClass(Array.isArray(block) ? block[i] : block));
    const stages = makeStages(blocks, channels, layers, inplanes, { ...options, act_layer, norm_layer });
    for (const { name, module, info } of stages) {
      this.add_module(name, module);
      feature_info.push(info);
    }

    this.num_features = (channels.at(-1) as number) * (blocks.at(-1) as BlockClass).expansion;
    [this.global_pool, this.fc] = create_classifier(this.num_features, num_classes, {
      pool_type: global_pool,
    });
    this.head_hidden_size = this.num_features * this.global_pool.feat_mult();
    this.init_weights({ zero_init_last: options.zero_init_last ?? true });
  }

  /** Draws the convolutions' weights; with `zero_init_last` each block begins as its shortcut. */
  init_weights({ zero_init_last = true } = {}): void {
    for (const module of this.modules()) {
      if (module instanceof nn.Conv2d)
        nn.init.kaiming_normal_(module.weight, { mode: "fan_out", nonlinearity: "relu" });
    }
    if (!zero_init_last) return;
    for (const module of this.modules()) {
      const block = module as unknown as Partial<ResidualBlock>;
      block.zero_init_last?.();
    }
  }

  /** In training, compute the activations of each block again in backward instead of keeping them. */
  set_grad_checkpointing({ enable = true } = {}): void {
    this.grad_checkpointing = enable;
  }

  get_classifier(): nn.Layer {
    return this.fc;
  }

  /** A fresh classifier for so many classes; 0 for none. */
  reset_classifier(num_classes: number, global_pool: PoolType = this.global_pool.pool_type): void {
    this.num_classes = num_classes;
    const [pool, fc] = create_classifier(this.num_features, num_classes, { pool_type: global_pool });
    for (const parameter of this.parameters()) {
      fc.to({ device: parameter.device, dtype: parameter.dtype });
      break;
    }
    this.global_pool = pool.train(this.training);
    this.fc = fc.train(this.training);
    this.head_hidden_size = this.num_features * pool.feat_mult();
  }

  #stem(x: Tensor): Tensor {
    return this.act1.forward(this.bn1.forward(this.conv1.forward(x)));
  }

  #stage(stage: nn.Sequential, x: Tensor): Tensor {
    if (!this.grad_checkpointing) return stage.forward(x);
    let h = x;
    for (const block of stage) h = checkpoint((x) => (block as nn.Layer).forward(x), [h]);
    return h;
  }

  get #stages(): nn.Sequential[] {
    return this.feature_info.slice(1).map(({ module }) => this.get_submodule(module) as nn.Sequential);
  }

  /** The last feature maps [batch, num_features, height, width]. */
  forward_features(x: Tensor): Tensor {
    let h = this.maxpool.forward(this.#stem(x));
    for (const stage of this.#stages) h = this.#stage(stage, h);
    return h;
  }

  /**
   * The last feature maps and those on the way.
   *
   * @param options.indices which: 0 is the stem, then the stages; a number for the last so many. Default: all.
   * @param options.stop_early compute nothing after the last one that is wanted. Default: false.
   */
  forward_intermediates(
    x: Tensor,
    {
      indices,
      stop_early = false,
    }: { indices?: number | readonly number[] | null | undefined; stop_early?: boolean } = {},
  ): [x: Tensor, intermediates: Tensor[]] {
    const stages = this.#stages;
    const wanted = featureIndices(stages.length + 1, indices);
    const last = stop_early ? Math.max(...wanted) : stages.length;
    let h = this.#stem(x);
    const intermediates = wanted.includes(0) ? [h] : [];
    h = this.maxpool.forward(h);
    for (const [i, stage] of stages.slice(0, last).entries()) {
      h = this.#stage(stage, h);
      if (wanted.includes(i + 1)) intermediates.push(h);
    }
    return [h, intermediates];
  }

  /** Feature maps → scores [batch, num_classes]; with `pre_logits` the vectors before the classifier. */
  forward_head(x: Tensor, { pre_logits = false } = {}): Tensor {
    let h = this.global_pool.forward(x);
    if (this.drop_rate > 0) h = F.dropout(h, { p: this.drop_rate, training: this.training });
    return pre_logits ? h : this.fc.forward(h);
  }

  /** Images [batch, in_chans, height, width] → scores [batch, num_classes]. */
  override forward(x: Tensor): Tensor {
    return this.forward_head(this.forward_features(x));
  }
}

function featureIndices(count: number, indices: number | readonly number[] | null | undefined): number[] {
  const all = Array.from({ length: count }, (_, i) => i);
  if (indices === null || indices === undefined) return all;
  const wanted = typeof indices === "number" ? all.slice(-indices) : indices.map((i) => all.at(i));
  if (typeof indices === "number" ? indices < 1 || indices > count : wanted.includes(undefined)) {
    throw new InvalidArgumentError(
      `There are ${count} feature maps, got indices ${JSON.stringify(indices)}.`,
    );
  }
  return wanted as number[];
}

interface Stage {
  readonly name: string;
  readonly module: nn.Sequential;
  readonly info: FeatureInfo;
}

/** Stages of blocks; where the stride is used up they are dilated instead. */
function makeStages(
  blocks: readonly BlockClass[],
  channels: readonly number[],
  layers: readonly number[],
  stem: number,
  options: ResNetOptions & { readonly act_layer: ActLayer; readonly norm_layer: NormLayer },
): Stage[] {
  const { act_layer, norm_layer, output_stride = 32, drop_path_rate = 0, drop_block_rate = 0 } = options;
  const { down_kernel_size: kernel_size = 1, block_reduce_first: reduce_first = 1 } = options;
  const { cardinality = 1, base_width = 64, avg_down = false } = options;
  if (layers.length !== channels.length || channels.length > STAGES.length) {
    throw new InvalidArgumentError(
      `layers and channels must have one entry per stage, at most ${STAGES.length}, got ${layers.length} and ${channels.length}.`,
    );
  }
  const total = layers.reduce((sum, count) => sum + count, 0);
  const stages: Stage[] = [];
  let [inplanes, done, reduction, dilation, first_dilation] = [stem, 0, 4, 1, 1];
  for (const [i, planes] of channels.entries()) {
    const Block = blocks[i] as BlockClass;
    let stride = i === 0 ? 1 : 2;
    if (reduction >= output_stride) {
      dilation *= stride;
      stride = 1;
    } else {
      reduction *= stride;
    }
    const outplanes = planes * Block.expansion;
    const downOptions = { kernel_size, stride, dilation, first_dilation, norm_layer };
    const down = () => (avg_down ? downsample_avg : downsample_conv)(inplanes, outplanes, downOptions);
    const needed = stride !== 1 || inplanes !== outplanes;
    const downsample = needed ? down() : null;
    const module = new nn.Sequential();
    for (let at = 0; at < (layers[i] as number); at++, done++) {
      const rate = total > 1 ? (drop_path_rate * done) / (total - 1) : 0;
      module.append(
        new Block(inplanes, planes, {
          stride: at === 0 ? stride : 1,
          downsample: at === 0 ? downsample : null,
          cardinality,
          base_width,
          reduce_first,
          dilation,
          first_dilation,
          act_layer,
          norm_layer,
          drop_block: dropBlock(i, drop_block_rate),
          drop_path: rate > 0 ? new DropPath({ drop_prob: rate }) : null,
        }),
      );
      first_dilation = dilation;
      inplanes = outplanes;
    }
    const name = STAGES[i] as string;
    stages.push({ name, module, info: { num_chs: inplanes, reduction, module: name } });
  }
  return stages;
}

/** Squares are dropped in the third and fourth stage only. */
function dropBlock(stage: number, drop_prob: number): (() => nn.Layer) | null {
  if (drop_prob === 0 || stage < 2) return null;
  return () =>
    stage === 2
      ? new DropBlock2d({ drop_prob, block_size: 5, gamma_scale: 0.25 })
      : new DropBlock2d({ drop_prob, block_size: 3, gamma_scale: 1 });
}
