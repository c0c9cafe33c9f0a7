// Activation functions by the names that configurations use.
import { InvalidArgumentError } from "../errors/index.ts";
import { nearest } from "../errors/suggest.ts";
import * as nn from "../nn/index.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";

const F = nn.functional;

/** A module that maps a tensor to one of the same shape. */
export type Activation = nn.Module & { forward(x: Tensor): Tensor };

/** A class of modules without parameters around a function, named so that a printed model shows it. */
function activation(name: string, fn: (x: Tensor) => Tensor): new () => Activation {
  const cls = class extends nn.Module {
    override forward(x: Tensor): Tensor {
      return fn(x);
    }
  };
  Object.defineProperty(cls, "name", { value: name });
  return cls;
}

/** 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))), step by step as the original checkpoints computed it. */
const tanhGelu = (x: Tensor) =>
  x.mul(0.5).mul(
    x
      .pow(3)
      .mul(0.044715)
      .add(x)
      .mul(Math.sqrt(2 / Math.PI))
      .tanh()
      .add(1),
  );

export const GELUActivation: new () => Activation = activation("GELUActivation", (x) => F.gelu(x));
export const GELUTanh: new () => Activation = activation("GELUTanh", (x) =>
  F.gelu(x, { approximate: "tanh" }),
);
export const NewGELUActivation: new () => Activation = activation("NewGELUActivation", tanhGelu);
export const FastGELUActivation: new () => Activation = activation("FastGELUActivation", (x) =>
  x.mul(0.5).mul(x.mul(0.7978845608).mul(x.mul(0.044715).mul(x).add(1)).tanh().add(1)),
);
export const QuickGELUActivation: new () => Activation = activation("QuickGELUActivation", (x) =>
  x.mul(x.mul(1.702).sigmoid()),
);
export const ClippedGELUActivation: new () => Activation = activation("ClippedGELUActivation", (x) =>
  F.gelu(x).clamp(-10, 10),
);
export const AccurateGELUActivation: new () => Activation = activation("AccurateGELUActivation", tanhGelu);
export const SiLUActivation: new () => Activation = activation("SiLUActivation", (x) => F.silu(x));
export const MishActivation: new () => Activation = activation("MishActivation", (x) => F.mish(x));
export const LinearActivation: new () => Activation = activation("LinearActivation", (x) => x);
export const LaplaceActivation: new () => Activation = activation("LaplaceActivation", (x) =>
  x
    // biome-ignore lint/suspicious/noApproximativeNumericConstant: the digits that checkpoints were trained with.
    .sub(0.707107)
    .div(0.282095 * Math.sqrt(2))
    .erf()
    .add(1)
    .mul(0.5),
);
export const ReLUSquaredActivation: new () => Activation = activation("ReLUSquaredActivation", (x) =>
  F.relu(x).square(),
);
export const SqrtSoftplusActivation: new () => Activation = activation("SqrtSoftplusActivation", (x) =>
  F.softplus(x).sqrt(),
);

const reluClass = activation("ReLU", (x) => F.relu(x));
const relu6Class = activation("ReLU6", (x) => x.clamp(0, 6));
const leakyReluClass = activation("LeakyReLU", (x) => F.leaky_relu(x));
const hardswishClass = activation("Hardswish", (x) => F.hardswish(x));
const sigmoidClass = activation("Sigmoid", (x) => torch.sigmoid(x));
const tanhClass = activation("Tanh", (x) => torch.tanh(x));

/** Configuration name → class of the module that computes it. */
export const ACT2CLS: Readonly<Record<string, new () => Activation>> = {
  gelu: GELUActivation,
  gelu_10: ClippedGELUActivation,
  gelu_fast: FastGELUActivation,
  gelu_new: NewGELUActivation,
  gelu_python: GELUActivation,
  gelu_pytorch_tanh: GELUTanh,
  gelu_python_tanh: GELUTanh,
  gelu_accurate: AccurateGELUActivation,
  hardswish: hardswishClass,
  laplace: LaplaceActivation,
  leaky_relu: leakyReluClass,
  linear: LinearActivation,
  mish: MishActivation,
  quick_gelu: QuickGELUActivation,
  relu: reluClass,
  relu2: ReLUSquaredActivation,
  relu6: relu6Class,
  sigmoid: sigmoidClass,
  silu: SiLUActivation,
  sqrtsoftplus: SqrtSoftplusActivation,
  swish: SiLUActivation,
  tanh: tanhClass,
};

/**
 * A fresh module for the activation of that name.
 *
 * @example
 * this.act_fn = ACT2FN(config.hidden_act);
 * @throws InvalidArgumentError for an unknown name, with the nearest known one.
 */
export function ACT2FN(name: string): Activation {
  const cls = Object.hasOwn(ACT2CLS, name) ? ACT2CLS[name] : undefined;
  if (cls === undefined) {
    throw new InvalidArgumentError(
      `Unknown activation '${name}'; known are ${Object.keys(ACT2CLS).join(", ")}.`,
      {
        suggestion: nearest(name, Object.keys(ACT2CLS), 1)[0],
      },
    );
  }
  return new cls();
}
