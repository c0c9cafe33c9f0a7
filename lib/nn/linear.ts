// Fully connected layers.

import type { Tensor } from "../torch/index.ts";
import { type Arguments, bind, REQUIRED } from "./arguments.ts";
import { emptyParameter, FACTORY, type FactoryOptions } from "./factory.ts";
import * as F from "./functional.ts";
import * as init from "./init.ts";
import { Module } from "./module.ts";
import type { Parameter } from "./parameter.ts";
import { py } from "./repr.ts";

export interface LinearOptions extends FactoryOptions {
  /** Add a learned bias. Default: true. */
  bias?: boolean | undefined;
}

/**
 * x Wᵀ + b: [..., in_features] to [..., out_features].
 *
 * Weight and bias begin between ±1/√in_features.
 *
 * @example new nn.Linear(20, 30, { bias: false }).forward(torch.randn([128, 20])).shape; // [128, 30]
 */
export class Linear extends Module {
  readonly in_features: number;
  readonly out_features: number;
  /** [out_features, in_features] */
  weight: Parameter;
  /** [out_features] */
  bias: Parameter | null;

  constructor(
    ...args: Arguments<
      [in_features: number, out_features: number],
      ["in_features", "out_features"],
      [bias: boolean],
      LinearOptions
    >
  ) {
    super();
    const { in_features, out_features, bias, ...options } = bind("Linear", args, {
      in_features: REQUIRED as number,
      out_features: REQUIRED as number,
      bias: true,
      ...FACTORY,
    });
    this.in_features = in_features;
    this.out_features = out_features;
    this.weight = emptyParameter([out_features, in_features], options);
    this.bias = bias ? emptyParameter([out_features], options) : null;
    this.reset_parameters();
  }

  reset_parameters(): void {
    init.kaiming_uniform_(this.weight, { a: Math.sqrt(5) });
    if (!this.bias) return;
    const [fanIn] = init._calculate_fan_in_and_fan_out(this.weight);
    const bound = fanIn > 0 ? 1 / Math.sqrt(fanIn) : 0;
    init.uniform_(this.bias, -bound, bound);
  }

  override forward(x: Tensor): Tensor {
    return F.linear(x, this.weight, this.bias);
  }

  override extra_repr(): string {
    return `in_features=${this.in_features}, out_features=${this.out_features}, bias=${py(this.bias !== null)}`;
  }
}

/** x1 W x2 + b: [..., in1_features] and [..., in2_features] to [..., out_features]. */
export class Bilinear extends Module {
  readonly in1_features: number;
  readonly in2_features: number;
  readonly out_features: number;
  /** [out_features, in1_features, in2_features] */
  weight: Parameter;
  bias: Parameter | null;

  constructor(
    ...args: Arguments<
      [in1_features: number, in2_features: number, out_features: number],
      ["in1_features", "in2_features", "out_features"],
      [bias: boolean],
      LinearOptions
    >
  ) {
    super();
    const { in1_features, in2_features, out_features, bias, ...options } = bind("Bilinear", args, {
      in1_features: REQUIRED as number,
      in2_features: REQUIRED as number,
      out_features: REQUIRED as number,
      bias: true,
      ...FACTORY,
    });
    this.in1_features = in1_features;
    this.in2_features = in2_features;
    this.out_features = out_features;
    this.weight = emptyParameter([out_features, in1_features, in2_features], options);
    this.bias = bias ? emptyParameter([out_features], options) : null;
    this.reset_parameters();
  }

  reset_parameters(): void {
    const bound = 1 / Math.sqrt(this.in1_features);
    init.uniform_(this.weight, -bound, bound);
    if (this.bias) init.uniform_(this.bias, -bound, bound);
  }

  override forward(x1: Tensor, x2: Tensor): Tensor {
    return F.bilinear(x1, x2, this.weight, this.bias);
  }

  override extra_repr(): string {
    const { in1_features, in2_features, out_features, bias } = this;
    return `in1_features=${in1_features}, in2_features=${in2_features}, out_features=${out_features}, bias=${py(bias !== null)}`;
  }
}
