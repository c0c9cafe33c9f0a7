// Initial values, in place and without history. A seed gives the numbers of Python torch, which draws in the same order.
//
// On the meta device there is nothing to fill: the functions return at once.

import { InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { warn } from "../errors/warnings.ts";
import type { Generator, Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { type Arguments, bind, byName, REQUIRED, type Rest } from "./arguments.ts";
import { markInitial } from "./initial_values.ts";

interface Drawn {
  /** Where the random numbers come from; default the device's generator. */
  generator?: Generator | undefined;
}
const GENERATOR = { generator: undefined as Generator | undefined };
const drawn = ({ generator }: Drawn) => (generator ? { generator } : {});

export type FanMode = "fan_in" | "fan_out";
export type Nonlinearity =
  | "linear"
  | "conv1d"
  | "conv2d"
  | "conv3d"
  | "conv_transpose1d"
  | "conv_transpose2d"
  | "conv_transpose3d"
  | "sigmoid"
  | "tanh"
  | "relu"
  | "leaky_relu"
  | "selu";

const GAINS: Readonly<Record<string, (slope: number) => number>> = {
  linear: () => 1,
  conv1d: () => 1,
  conv2d: () => 1,
  conv3d: () => 1,
  conv_transpose1d: () => 1,
  conv_transpose2d: () => 1,
  conv_transpose3d: () => 1,
  sigmoid: () => 1,
  tanh: () => 5 / 3,
  relu: () => Math.sqrt(2),
  leaky_relu: (slope) => Math.sqrt(2 / (1 + slope ** 2)),
  selu: () => 3 / 4,
};

/**
 * The factor by which a nonlinearity asks weights to be scaled.
 *
 * @param param the negative slope of "leaky_relu"; default 0.01.
 * @example nn.init.calculate_gain("leaky_relu", 0.2);
 */
export function calculate_gain(nonlinearity: Nonlinearity, param: number | null = null): number {
  const gain = GAINS[nonlinearity];
  if (gain === undefined) {
    throw new InvalidArgumentError(`Unsupported nonlinearity ${nonlinearity}.`, {
      suggestion: suggest(nonlinearity, Object.keys(GAINS)),
    });
  }
  return gain(param ?? 0.01);
}

/** Runs `fill` without recording gradients, unless there is nothing to fill. */
function filled(tensor: Tensor, fill: () => void): Tensor {
  if (tensor.is_meta) return tensor;
  torch.no_grad(fill);
  markInitial(tensor);
  return tensor;
}

/** Numbers between `a` and `b`, all equally likely. Default: 0 and 1. */
export const uniform_ = byName(
  ["tensor"],
  function uniform_(
    tensor: Tensor,
    ...rest: Rest<[a: number, b: number], { a?: number; b?: number } & Drawn>
  ): Tensor {
    const { a, b, generator } = bind("uniform_", rest, { a: 0, b: 1, ...GENERATOR });
    return filled(tensor, () => tensor.uniform_(a, b, drawn({ generator })));
  },
);

/** Numbers of a normal distribution. Default: mean 0, standard deviation 1. */
export const normal_ = byName(
  ["tensor"],
  function normal_(
    tensor: Tensor,
    ...rest: Rest<[mean: number, std: number], { mean?: number; std?: number } & Drawn>
  ): Tensor {
    const { mean, std, generator } = bind("normal_", rest, { mean: 0, std: 1, ...GENERATOR });
    return filled(tensor, () => tensor.normal_(mean, std, drawn({ generator })));
  },
);

/** The share of a normal distribution below `x`. The error function is torch's: JavaScript has none. */
function normalCdf(x: number): number {
  return (
    (1 + Number(torch.erf(torch.tensor(x / Math.sqrt(2), { dtype: "float64", device: "cpu" })).item())) / 2
  );
}

/** Numbers of a normal distribution, cut to lie between `a` and `b`. Default: mean 0, standard deviation 1, from -2 to 2. */
export const trunc_normal_ = byName(
  ["tensor"],
  function trunc_normal_(
    tensor: Tensor,
    ...rest: Rest<
      [mean: number, std: number, a: number, b: number],
      { mean?: number; std?: number; a?: number; b?: number } & Drawn
    >
  ): Tensor {
    const { mean, std, a, b, generator } = bind("trunc_normal_", rest, {
      mean: 0,
      std: 1,
      a: -2,
      b: 2,
      ...GENERATOR,
    });
    if (mean < a - 2 * std || mean > b + 2 * std) {
      warn("trunc_normal_: the mean is more than two standard deviations outside of [a, b].");
    }
    return filled(tensor, () => {
      // Inverse transform: equally likely shares between the two ends, then the value below which each share lies.
      const low = normalCdf((a - mean) / std);
      const high = normalCdf((b - mean) / std);
      tensor.uniform_(2 * low - 1, 2 * high - 1, drawn({ generator }));
      tensor.erfinv_();
      tensor.mul_(std * Math.sqrt(2));
      tensor.add_(mean);
      tensor.clamp_({ min: a, max: b });
    });
  },
);

/** The same number everywhere. */
export const constant_ = byName(
  ["tensor"],
  function constant_(tensor: Tensor, ...args: Arguments<[val: number], ["val"]>): Tensor {
    const { val } = bind("constant_", args, { val: REQUIRED as number });
    return filled(tensor, () => tensor.fill_(val));
  },
);

/** Fills with 1. */
export const ones_ = byName(["tensor"], function ones_(tensor: Tensor): Tensor {
  return constant_(tensor, 1);
});

/** Fills with 0. */
export const zeros_ = byName(["tensor"], function zeros_(tensor: Tensor): Tensor {
  return filled(tensor, () => tensor.zero_());
});

/** Ones on the diagonal of a matrix, zeros elsewhere. */
export const eye_ = byName(["tensor"], function eye_(tensor: Tensor): Tensor {
  if (tensor.ndim !== 2) throw dimensions("eye_", "2", tensor);
  return filled(tensor, () => {
    const [rows, columns] = tensor.shape as [number, number];
    tensor.copy_(torch.eye(rows, columns, { dtype: tensor.dtype, device: tensor.device }));
  });
});

/** A convolution weight [out, in, …] that passes its input channels through; per group. */
export const dirac_ = byName(
  ["tensor"],
  function dirac_(tensor: Tensor, ...rest: Rest<[groups: number], { groups?: number }>): Tensor {
    const { groups } = bind("dirac_", rest, { groups: 1 });
    if (tensor.ndim < 3 || tensor.ndim > 5) throw dimensions("dirac_", "3, 4 or 5", tensor);
    const [outputs, inputs, ...kernel] = tensor.shape as [number, number, ...number[]];
    if (outputs % groups !== 0)
      throw new InvalidArgumentError("dirac_: the first size must be divisible by groups.");
    return filled(tensor, () => {
      tensor.zero_();
      const perGroup = outputs / groups;
      for (let group = 0; group < groups; group++) {
        for (let d = 0; d < Math.min(perGroup, inputs); d++) {
          let at: Tensor = tensor.select(0, group * perGroup + d).select(0, d);
          for (const size of kernel) at = at.select(0, Math.floor(size / 2));
          at.fill_(1);
        }
      }
    });
  },
);

/** How many inputs reach one output, and how many outputs one input, of a weight [out, in, …]. */
export function _calculate_fan_in_and_fan_out(tensor: Tensor): [number, number] {
  if (tensor.ndim < 2) throw dimensions("fan in and fan out", "2 or more", tensor);
  const [outputs, inputs, ...kernel] = tensor.shape as [number, number, ...number[]];
  const field = kernel.reduce((product, size) => product * size, 1);
  return [inputs * field, outputs * field];
}

type Gain = Rest<[gain: number], { gain?: number } & Drawn>;

/** Glorot and Bengio (2010), equally likely numbers. Default gain: 1. */
export const xavier_uniform_ = byName(
  ["tensor"],
  function xavier_uniform_(tensor: Tensor, ...rest: Gain): Tensor {
    const { gain, generator } = bind("xavier_uniform_", rest, { gain: 1, ...GENERATOR });
    const [fanIn, fanOut] = _calculate_fan_in_and_fan_out(tensor);
    const bound = Math.sqrt(3) * (gain * Math.sqrt(2 / (fanIn + fanOut)));
    return uniform_(tensor, -bound, bound, { generator });
  },
);

/** Glorot and Bengio (2010), normal distribution. Default gain: 1. */
export const xavier_normal_ = byName(
  ["tensor"],
  function xavier_normal_(tensor: Tensor, ...rest: Gain): Tensor {
    const { gain, generator } = bind("xavier_normal_", rest, { gain: 1, ...GENERATOR });
    const [fanIn, fanOut] = _calculate_fan_in_and_fan_out(tensor);
    return normal_(tensor, 0, gain * Math.sqrt(2 / (fanIn + fanOut)), { generator });
  },
);

export interface KaimingOptions extends Drawn {
  /** Negative slope of the leaky_relu that follows. Default: 0. */
  a?: number;
  /** Which variance to keep: forward "fan_in", backward "fan_out". Default: "fan_in". */
  mode?: FanMode;
  /** Default: "leaky_relu". */
  nonlinearity?: Nonlinearity;
}
type Kaiming = Rest<[a: number, mode: FanMode, nonlinearity: Nonlinearity], KaimingOptions>;

function kaimingStd(
  name: string,
  tensor: Tensor,
  rest: Kaiming,
): { std: number; generator: Generator | undefined } {
  const defaults = {
    a: 0,
    mode: "fan_in" as FanMode,
    nonlinearity: "leaky_relu" as Nonlinearity,
    ...GENERATOR,
  };
  const { a, mode, nonlinearity, generator } = bind(name, rest, defaults);
  const [fanIn, fanOut] = _calculate_fan_in_and_fan_out(tensor);
  if (mode !== "fan_in" && mode !== "fan_out") {
    throw new InvalidArgumentError(`${name}: mode must be 'fan_in' or 'fan_out', got '${mode}'.`);
  }
  return { std: calculate_gain(nonlinearity, a) / Math.sqrt(mode === "fan_in" ? fanIn : fanOut), generator };
}

/** He et al. (2015), equally likely numbers. */
export const kaiming_uniform_ = byName(
  ["tensor"],
  function kaiming_uniform_(tensor: Tensor, ...rest: Kaiming): Tensor {
    if (tensor.shape.includes(0)) return tensor;
    const { std, generator } = kaimingStd("kaiming_uniform_", tensor, rest);
    const bound = Math.sqrt(3) * std;
    return uniform_(tensor, -bound, bound, { generator });
  },
);

/** He et al. (2015), normal distribution. */
export const kaiming_normal_ = byName(
  ["tensor"],
  function kaiming_normal_(tensor: Tensor, ...rest: Kaiming): Tensor {
    if (tensor.shape.includes(0)) return tensor;
    const { std, generator } = kaimingStd("kaiming_normal_", tensor, rest);
    return normal_(tensor, 0, std, { generator });
  },
);

/** A (semi-)orthogonal matrix of the first size and all others, by QR decomposition. Default gain: 1. */
export const orthogonal_ = byName(["tensor"], function orthogonal_(tensor: Tensor, ...rest: Gain): Tensor {
  const { gain, generator } = bind("orthogonal_", rest, { gain: 1, ...GENERATOR });
  if (tensor.ndim < 2) throw dimensions("orthogonal_", "2 or more", tensor);
  if (tensor.numel() === 0) return tensor;
  return filled(tensor, () => {
    const rows = tensor.shape[0] as number;
    const columns = tensor.numel() / rows;
    let flattened = tensor.new_empty([rows, columns]).normal_(0, 1, drawn({ generator }));
    if (rows < columns) flattened = flattened.t();
    const [q, r] = torch.linalg.qr(flattened);
    // The decomposition is unique only up to signs; those of the diagonal make it uniformly distributed.
    let result = q.mul(torch.diag(r, 0).sign());
    if (rows < columns) result = result.t();
    tensor.view_as(result).copy_(result);
    tensor.mul_(gain);
  });
});

/** A matrix of normal numbers with the given share of zeros in each column. Default standard deviation: 0.01. */
export const sparse_ = byName(
  ["tensor"],
  function sparse_(
    tensor: Tensor,
    ...args: Arguments<[sparsity: number], ["sparsity"], [std: number], { std?: number } & Drawn>
  ): Tensor {
    const defaults = { sparsity: REQUIRED as number, std: 0.01, ...GENERATOR };
    const { sparsity, std, generator } = bind("sparse_", args, defaults);
    if (tensor.ndim !== 2) throw dimensions("sparse_", "2", tensor);
    const [rows, columns] = tensor.shape as [number, number];
    const zeros = Math.ceil(sparsity * rows);
    return filled(tensor, () => {
      tensor.normal_(0, std, drawn({ generator }));
      for (let column = 0; column < columns; column++) {
        const chosen = torch.randperm(rows).narrow(0, 0, zeros);
        tensor.select(1, column).index_fill_(0, chosen, 0);
      }
    });
  },
);

function dimensions(what: string, expected: string, tensor: Tensor): InvalidArgumentError {
  return new InvalidArgumentError(
    `${what} needs a tensor of ${expected} dimensions, got the shape [${tensor.shape.join(", ")}].`,
  );
}
