// Convolutions over one, two and three dimensions, and their transposes.

import { InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import type { Tensor } from "../torch/index.ts";
import { type Arguments, bind, ntuple, REQUIRED, type Sizes } from "./arguments.ts";
import { emptyParameter, FACTORY, type FactoryOptions } from "./factory.ts";
import * as F from "./functional.ts";
import * as init from "./init.ts";
import { Module } from "./module.ts";
import type { Parameter } from "./parameter.ts";
import { py } from "./repr.ts";

export type ConvPaddingMode = "zeros" | "reflect" | "replicate" | "circular";
const PADDING_MODES = ["zeros", "reflect", "replicate", "circular"] as const;

interface SharedOptions extends FactoryOptions {
  /** Step between windows. Default: 1. */
  stride?: Sizes | undefined;
  /** Step between the entries of a window. Default: 1. */
  dilation?: Sizes | undefined;
  /** Inputs and outputs are divided into so many groups that know nothing of each other. Default: 1. */
  groups?: number | undefined;
  /** Add a learned bias. Default: true. */
  bias?: boolean | undefined;
  /** What stands around the input. Default: "zeros". */
  padding_mode?: ConvPaddingMode | undefined;
}

export interface ConvOptions extends SharedOptions {
  /** Entries added on both sides; "same" keeps the size. Default: 0. */
  padding?: Sizes | "same" | "valid" | undefined;
}

export interface ConvTransposeOptions extends SharedOptions {
  /** How much of the result is cut off on both sides. Default: 0. */
  padding?: Sizes | undefined;
  /** How much longer the result is on one side. Default: 0. */
  output_padding?: Sizes | undefined;
}

type Channels = [in_channels: number, out_channels: number, kernel_size: Sizes];
type ChannelNames = ["in_channels", "out_channels", "kernel_size"];
type ConvArguments = Arguments<
  Channels,
  ChannelNames,
  [
    stride: Sizes,
    padding: Sizes | "same" | "valid",
    dilation: Sizes,
    groups: number,
    bias: boolean,
    padding_mode: ConvPaddingMode,
  ],
  ConvOptions
>;
type ConvTransposeArguments = Arguments<
  Channels,
  ChannelNames,
  [
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    groups: number,
    bias: boolean,
    dilation: Sizes,
    padding_mode: ConvPaddingMode,
  ],
  ConvTransposeOptions
>;

interface Settings extends FactoryOptions {
  in_channels: number;
  out_channels: number;
  kernel_size: Sizes;
  stride: Sizes;
  padding: Sizes | "same" | "valid";
  dilation: Sizes;
  output_padding?: Sizes;
  groups: number;
  bias: boolean;
  padding_mode: ConvPaddingMode;
}

/** What all convolutions have in common. */
export abstract class _ConvNd extends Module {
  readonly in_channels: number;
  readonly out_channels: number;
  readonly kernel_size: readonly number[];
  readonly stride: readonly number[];
  readonly padding: readonly number[] | "same" | "valid";
  readonly dilation: readonly number[];
  readonly transposed: boolean;
  readonly output_padding: readonly number[];
  readonly groups: number;
  readonly padding_mode: ConvPaddingMode;
  /** [out, in / groups, …kernel]; transposed [in, out / groups, …kernel] */
  weight: Parameter;
  /** [out] */
  bias: Parameter | null;

  constructor(dims: number, transposed: boolean, settings: Settings) {
    super();
    checkSettings(new.target.name, settings);
    const {
      in_channels,
      out_channels,
      kernel_size,
      stride,
      padding,
      dilation,
      output_padding = 0,
      groups,
      bias,
      padding_mode,
      ...options
    } = settings;
    this.in_channels = in_channels;
    this.out_channels = out_channels;
    this.kernel_size = ntuple(kernel_size, dims);
    this.stride = ntuple(stride, dims);
    this.padding = typeof padding === "string" ? padding : ntuple(padding, dims);
    this.dilation = ntuple(dilation, dims);
    this.transposed = transposed;
    this.output_padding = ntuple(output_padding, dims);
    this.groups = groups;
    this.padding_mode = padding_mode;
    const channels = transposed ? [in_channels, out_channels / groups] : [out_channels, in_channels / groups];
    this.weight = emptyParameter([...channels, ...this.kernel_size], options);
    this.bias = bias ? emptyParameter([out_channels], options) : null;
    this.reset_parameters();
  }

  reset_parameters(): void {
    init.kaiming_uniform_(this.weight, { a: Math.sqrt(5) });
    if (!this.bias) return;
    const [fanIn] = init._calculate_fan_in_and_fan_out(this.weight);
    if (fanIn === 0) return;
    const bound = 1 / Math.sqrt(fanIn);
    init.uniform_(this.bias, -bound, bound);
  }

  override extra_repr(): string {
    const zeros = (values: readonly number[] | string) =>
      typeof values !== "string" && values.every((n) => n === 0);
    let text = `${this.in_channels}, ${this.out_channels}, kernel_size=${py(this.kernel_size)}, stride=${py(this.stride)}`;
    if (!zeros(this.padding))
      text += `, padding=${typeof this.padding === "string" ? this.padding : py(this.padding)}`;
    if (this.dilation.some((n) => n !== 1)) text += `, dilation=${py(this.dilation)}`;
    if (!zeros(this.output_padding)) text += `, output_padding=${py(this.output_padding)}`;
    if (this.groups !== 1) text += `, groups=${this.groups}`;
    if (!this.bias) text += ", bias=False";
    if (this.padding_mode !== "zeros") text += `, padding_mode=${this.padding_mode}`;
    return text;
  }
}

function checkSettings(
  name: string,
  { in_channels, out_channels, groups, stride, padding, padding_mode }: Settings,
): void {
  if (groups <= 0) throw new InvalidArgumentError(`${name}: groups must be positive, got ${groups}.`);
  if (in_channels % groups !== 0)
    throw new InvalidArgumentError(
      `${name}: in_channels ${in_channels} must be divisible by groups ${groups}.`,
    );
  if (out_channels % groups !== 0)
    throw new InvalidArgumentError(
      `${name}: out_channels ${out_channels} must be divisible by groups ${groups}.`,
    );
  if (typeof padding === "string") {
    if (padding !== "same" && padding !== "valid") {
      throw new InvalidArgumentError(`${name}: padding must be "same", "valid" or sizes, got "${padding}".`);
    }
    if (padding === "same" && ntuple(stride, 1).some((n) => n !== 1)) {
      throw new InvalidArgumentError(`${name}: padding "same" goes with a stride of 1 only.`);
    }
  }
  if (!PADDING_MODES.includes(padding_mode)) {
    throw new InvalidArgumentError(
      `${name}: padding_mode must be one of ${PADDING_MODES.join(", ")}, got "${padding_mode}".`,
      {
        suggestion: suggest(padding_mode, PADDING_MODES),
      },
    );
  }
}

type Convolution = (
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  stride: readonly number[],
  padding: readonly number[] | string,
  dilation: readonly number[],
  groups: number,
) => Tensor;

const CHANNELS = {
  in_channels: REQUIRED as number,
  out_channels: REQUIRED as number,
  kernel_size: REQUIRED as Sizes,
};
const CONV = {
  ...CHANNELS,
  stride: 1 as Sizes,
  padding: 0 as Sizes | "same" | "valid",
  dilation: 1 as Sizes,
  groups: 1,
  bias: true,
  padding_mode: "zeros" as ConvPaddingMode,
  ...FACTORY,
};

/** A convolution: the padding modes other than zeros are a padding of its own. */
abstract class ForwardConv extends _ConvNd {
  protected abstract readonly convolve: Convolution;

  override forward(x: Tensor): Tensor {
    if (this.padding_mode === "zeros") {
      return this.convolve(x, this.weight, this.bias, this.stride, this.padding, this.dilation, this.groups);
    }
    const padded = F.pad(x, this.#sides(), this.padding_mode);
    const none = this.kernel_size.map(() => 0);
    return this.convolve(padded, this.weight, this.bias, this.stride, none, this.dilation, this.groups);
  }

  /** Entries before and after, the last dimension first. */
  #sides(): number[] {
    return this.kernel_size
      .map((size, i) => {
        if (this.padding === "valid") return [0, 0];
        if (this.padding !== "same") return [this.padding[i] as number, this.padding[i] as number];
        const total = (this.dilation[i] as number) * (size - 1);
        return [Math.floor(total / 2), Math.ceil(total / 2)];
      })
      .reverse()
      .flat();
  }
}

/**
 * Convolution over [batch, in_channels, length].
 *
 * @example new nn.Conv1d(16, 33, 3, { stride: 2 }).forward(torch.randn([20, 16, 50])).shape; // [20, 33, 24]
 */
export class Conv1d extends ForwardConv {
  constructor(...args: ConvArguments) {
    super(1, false, bind("Conv1d", args, CONV));
  }

  protected get convolve(): Convolution {
    return F.conv1d as Convolution;
  }
}

/**
 * Convolution over [batch, in_channels, height, width].
 *
 * @example new nn.Conv2d(3, 8, 3, { padding: "same" }).forward(torch.randn([1, 3, 20, 20])).shape; // [1, 8, 20, 20]
 */
export class Conv2d extends ForwardConv {
  constructor(...args: ConvArguments) {
    super(2, false, bind("Conv2d", args, CONV));
  }

  protected get convolve(): Convolution {
    return F.conv2d as Convolution;
  }
}

/** Convolution over [batch, in_channels, depth, height, width]. */
export class Conv3d extends ForwardConv {
  constructor(...args: ConvArguments) {
    super(3, false, bind("Conv3d", args, CONV));
  }

  protected get convolve(): Convolution {
    return F.conv3d as Convolution;
  }
}

type TransposedConvolution = (
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  stride: readonly number[],
  padding: readonly number[],
  output_padding: readonly number[],
  groups: number,
  dilation: readonly number[],
) => Tensor;

const CONV_TRANSPOSE = {
  ...CHANNELS,
  stride: 1 as Sizes,
  padding: 0 as Sizes,
  output_padding: 0 as Sizes,
  groups: 1,
  bias: true,
  dilation: 1 as Sizes,
  padding_mode: "zeros" as ConvPaddingMode,
  ...FACTORY,
};

/** A transposed convolution: `output_size` picks one of the sizes that would convolve to the input's. */
abstract class TransposedConv extends _ConvNd {
  protected abstract readonly convolve: TransposedConvolution;

  constructor(dims: number, settings: Settings) {
    super(dims, true, settings);
    if (this.padding_mode !== "zeros") {
      throw new InvalidArgumentError(`${this._get_name()}: only the padding_mode "zeros" is supported.`);
    }
  }

  override forward(x: Tensor, output_size: readonly number[] | null = null): Tensor {
    const padding = this.padding as readonly number[];
    const extra = output_size === null ? this.output_padding : this.#outputPadding(x, output_size);
    return this.convolve(x, this.weight, this.bias, this.stride, padding, extra, this.groups, this.dilation);
  }

  #outputPadding(x: Tensor, output_size: readonly number[]): number[] {
    const dims = this.kernel_size.length;
    const wanted = output_size.slice(-dims);
    const least = x.shape.slice(-dims).map((size, i) => {
      const at = (values: readonly number[]) => values[i] as number;
      return (
        (size - 1) * at(this.stride) -
        2 * at(this.padding as readonly number[]) +
        at(this.dilation) * (at(this.kernel_size) - 1) +
        1
      );
    });
    const extra = wanted.map((size, i) => size - (least[i] as number));
    if (wanted.length !== dims || extra.some((n, i) => n < 0 || n >= (this.stride[i] as number))) {
      const most = least.map((n, i) => n + (this.stride[i] as number) - 1);
      throw new InvalidArgumentError(
        `${this._get_name()}: the output size [${output_size.join(", ")}] is not between [${least.join(", ")}] and [${most.join(", ")}].`,
      );
    }
    return extra;
  }
}

/** Transposed convolution over [batch, in_channels, length]. */
export class ConvTranspose1d extends TransposedConv {
  constructor(...args: ConvTransposeArguments) {
    super(1, bind("ConvTranspose1d", args, CONV_TRANSPOSE));
  }

  protected get convolve(): TransposedConvolution {
    return F.conv_transpose1d as TransposedConvolution;
  }
}

/** Transposed convolution over [batch, in_channels, height, width]. */
export class ConvTranspose2d extends TransposedConv {
  constructor(...args: ConvTransposeArguments) {
    super(2, bind("ConvTranspose2d", args, CONV_TRANSPOSE));
  }

  protected get convolve(): TransposedConvolution {
    return F.conv_transpose2d as TransposedConvolution;
  }
}

/** Transposed convolution over [batch, in_channels, depth, height, width]. */
export class ConvTranspose3d extends TransposedConv {
  constructor(...args: ConvTransposeArguments) {
    super(3, bind("ConvTranspose3d", args, CONV_TRANSPOSE));
  }

  protected get convolve(): TransposedConvolution {
    return F.conv_transpose3d as TransposedConvolution;
  }
}
