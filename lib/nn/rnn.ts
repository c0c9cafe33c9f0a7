// Recurrent layers, by libtorch's whole-sequence operators.

import { InvalidArgumentError, ShapeError } from "../errors/index.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { type Arguments, bind, REQUIRED } from "./arguments.ts";
import { emptyParameter, FACTORY, type FactoryOptions } from "./factory.ts";
import * as init from "./init.ts";
import { Module } from "./module.ts";
import type { Parameter } from "./parameter.ts";
import { py, pyFloat } from "./repr.ts";

export interface RNNOptions extends FactoryOptions {
  /** Layers on top of each other. Default: 1. */
  num_layers?: number | undefined;
  /** Default: true. */
  bias?: boolean | undefined;
  /** Sequences are [batch, length, width] and not [length, batch, width]. Default: false. */
  batch_first?: boolean | undefined;
  /** Dropout between the layers. Default: 0. */
  dropout?: number | undefined;
  /** Read the sequence from both ends. Default: false. */
  bidirectional?: boolean | undefined;
}

interface Settings extends FactoryOptions {
  input_size: number;
  hidden_size: number;
  num_layers: number;
  bias: boolean;
  batch_first: boolean;
  dropout: number;
  bidirectional: boolean;
}
const SETTINGS: Settings = {
  input_size: REQUIRED as number,
  hidden_size: REQUIRED as number,
  num_layers: 1,
  bias: true,
  batch_first: false,
  dropout: 0,
  bidirectional: false,
  ...FACTORY,
};
type RNNArguments<P extends readonly unknown[], O> = Arguments<
  [input_size: number, hidden_size: number],
  ["input_size", "hidden_size"],
  [num_layers: number, ...P],
  O
>;
type Usual = [bias: boolean, batch_first: boolean];

type WholeSequence = (
  input: Tensor,
  hidden: Tensor | readonly Tensor[],
  weights: readonly Tensor[],
  bias: boolean,
  num_layers: number,
  dropout: number,
  training: boolean,
  bidirectional: boolean,
  batch_first: boolean,
) => readonly Tensor[];

/**
 * What all recurrent layers have in common. Weights are `weight_ih_l0` [gates · hidden, input], `weight_hh_l0`
 * [gates · hidden, hidden], `bias_ih_l0`, `bias_hh_l0`, and so on for each layer, with `_reverse` for the way back.
 */
export abstract class RNNBase extends Module {
  readonly input_size: number;
  readonly hidden_size: number;
  readonly num_layers: number;
  readonly bias: boolean;
  readonly batch_first: boolean;
  readonly dropout: number;
  readonly bidirectional: boolean;
  readonly proj_size: number;
  readonly #weights: string[] = [];

  constructor(gates: number, settings: Settings & { proj_size?: number }) {
    super();
    const { input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional } = settings;
    const { proj_size = 0 } = settings;
    const name = new.target.name;
    for (const [key, value] of Object.entries({ input_size, hidden_size, num_layers })) {
      if (!Number.isInteger(value) || value <= 0) {
        throw new InvalidArgumentError(`${name}: ${key} must be a positive integer, got ${value}.`);
      }
    }
    if (!(dropout >= 0 && dropout <= 1)) {
      throw new InvalidArgumentError(`${name}: dropout must be between 0 and 1, got ${dropout}.`);
    }
    if (!(proj_size >= 0 && proj_size < hidden_size)) {
      throw new InvalidArgumentError(
        `${name}: proj_size must be below hidden_size ${hidden_size}, got ${proj_size}.`,
      );
    }
    this.input_size = input_size;
    this.hidden_size = hidden_size;
    this.num_layers = num_layers;
    this.bias = bias;
    this.batch_first = batch_first;
    this.dropout = dropout;
    this.bidirectional = bidirectional;
    this.proj_size = proj_size;

    const rows = gates * hidden_size;
    const out = proj_size || hidden_size;
    const ways = bidirectional ? ["", "_reverse"] : [""];
    const add = (weight: string, shape: readonly number[]) => {
      this.register_parameter(weight, emptyParameter(shape, settings));
      this.#weights.push(weight);
    };
    for (let layer = 0; layer < num_layers; layer++) {
      for (const way of ways) {
        const suffix = `_l${layer}${way}`;
        add(`weight_ih${suffix}`, [rows, layer === 0 ? input_size : out * ways.length]);
        add(`weight_hh${suffix}`, [rows, out]);
        if (bias) add(`bias_ih${suffix}`, [rows]);
        if (bias) add(`bias_hh${suffix}`, [rows]);
        if (proj_size > 0) add(`weight_hr${suffix}`, [proj_size, hidden_size]);
      }
    }
    this.reset_parameters();
  }

  reset_parameters(): void {
    const bound = 1 / Math.sqrt(this.hidden_size);
    for (const weight of this.parameters()) init.uniform_(weight, -bound, bound);
  }

  /** Runs over a sequence; one without the batch dimension gets it meanwhile. */
  protected run(
    operator: unknown,
    input: Tensor,
    given: readonly Tensor[] | null,
    widths: readonly number[],
  ): [output: Tensor, ...hidden: Tensor[]] {
    if (input.ndim !== 2 && input.ndim !== 3) {
      throw new ShapeError(
        `[${this._get_name()}] the input must have 3 dimensions, or 2 without batch; got ${input.ndim}.`,
      );
    }
    if (input.size(-1) !== this.input_size) {
      throw new ShapeError(
        `[${this._get_name()}] the input must be ${this.input_size} wide, got ${input.size(-1)}.`,
      );
    }
    const lone = input.ndim === 2;
    const batchDim = this.batch_first ? 0 : 1;
    const x = lone ? input.unsqueeze(batchDim) : input;
    const states = this.num_layers * (this.bidirectional ? 2 : 1);
    const hidden =
      given?.map((state) => (lone ? state.unsqueeze(1) : state)) ??
      widths.map((width) => x.new_zeros([states, x.size(batchDim), width]));
    const { bias, num_layers, dropout, training, bidirectional, batch_first } = this;
    const weights = this.#weights.map(
      (name) => (this as unknown as Record<string, Parameter>)[name] as Parameter,
    );
    const results = (operator as WholeSequence)(
      x,
      hidden.length === 1 ? (hidden[0] as Tensor) : hidden,
      weights,
      bias,
      num_layers,
      dropout,
      training,
      bidirectional,
      batch_first,
    );
    const [output, ...last] = results as [Tensor, ...Tensor[]];
    if (!lone) return [output, ...last];
    return [output.squeeze(batchDim), ...last.map((state) => state.squeeze(1))];
  }

  override extra_repr(): string {
    let text = `${this.input_size}, ${this.hidden_size}`;
    if (this.proj_size !== 0) text += `, proj_size=${this.proj_size}`;
    if (this.num_layers !== 1) text += `, num_layers=${this.num_layers}`;
    if (!this.bias) text += `, bias=${py(this.bias)}`;
    if (this.batch_first) text += `, batch_first=${py(this.batch_first)}`;
    if (this.dropout !== 0) text += `, dropout=${pyFloat(this.dropout)}`;
    if (this.bidirectional) text += `, bidirectional=${py(this.bidirectional)}`;
    return text;
  }
}

/**
 * h = tanh(W x + b + U h + c), or with relu.
 *
 * @example const [output, h] = new nn.RNN(10, 20).forward(torch.randn([5, 3, 10])); // [5, 3, 20], [1, 3, 20]
 */
export class RNN extends RNNBase {
  readonly nonlinearity: "tanh" | "relu";

  constructor(
    ...args: RNNArguments<
      [nonlinearity: "tanh" | "relu", ...Usual],
      RNNOptions & { nonlinearity?: "tanh" | "relu" | undefined }
    >
  ) {
    const { input_size, hidden_size, num_layers, ...others } = SETTINGS;
    const first = { input_size, hidden_size, num_layers, nonlinearity: "tanh" as "tanh" | "relu" };
    const { nonlinearity, ...settings } = bind("RNN", args, { ...first, ...others });
    if (nonlinearity !== "tanh" && nonlinearity !== "relu") {
      throw new InvalidArgumentError(`RNN: nonlinearity must be "tanh" or "relu", got "${nonlinearity}".`);
    }
    super(1, settings);
    this.nonlinearity = nonlinearity;
  }

  /** @returns the output of the last layer at each position, and the last state of each layer. */
  override forward(input: Tensor, h_0: Tensor | null = null): [output: Tensor, h_n: Tensor] {
    const operator = this.nonlinearity === "tanh" ? torch.rnn_tanh : torch.rnn_relu;
    return this.run(operator, input, h_0 && [h_0], [this.hidden_size]) as [Tensor, Tensor];
  }
}

/** The gated recurrent unit: an update gate between the former and the new state, and a reset gate before. */
export class GRU extends RNNBase {
  constructor(...args: RNNArguments<Usual, RNNOptions>) {
    super(3, bind("GRU", args, SETTINGS));
  }

  /** @returns the output of the last layer at each position, and the last state of each layer. */
  override forward(input: Tensor, h_0: Tensor | null = null): [output: Tensor, h_n: Tensor] {
    return this.run(torch.gru, input, h_0 && [h_0], [this.hidden_size]) as [Tensor, Tensor];
  }
}

/**
 * Long short-term memory. `proj_size` makes the outputs, not the cells, narrower.
 *
 * @example const [output, [h, c]] = new nn.LSTM(10, 20, { batch_first: true }).forward(torch.randn([3, 5, 10]));
 */
export class LSTM extends RNNBase {
  constructor(...args: RNNArguments<Usual, RNNOptions & { proj_size?: number | undefined }>) {
    const { device, dtype, ...others } = SETTINGS;
    super(4, bind("LSTM", args, { ...others, proj_size: 0, device, dtype }));
  }

  /** @returns the output of the last layer at each position, and the last state and cell of each layer. */
  override forward(
    input: Tensor,
    hx: readonly [h_0: Tensor, c_0: Tensor] | null = null,
  ): [output: Tensor, state: [h_n: Tensor, c_n: Tensor]] {
    const widths = [this.proj_size || this.hidden_size, this.hidden_size];
    const [output, h, c] = this.run(torch.lstm, input, hx, widths);
    return [output, [h as Tensor, c as Tensor]];
  }
}
