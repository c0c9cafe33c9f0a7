// Activation functions.

import type { Dtype, Tensor } from "../../torch/index.ts";
import * as torch from "../../torch/index.ts";
import * as ops from "../../torch/nn.generated.ts";
import { bind, byName, type Rest } from "../arguments.ts";

/** `true` or `{ inplace: true }`: write the result into the input. Default: false. */
type Inplace = Rest<[inplace: boolean], { inplace?: boolean | undefined }>;
type WithInplace<O> = O & { inplace?: boolean | undefined };

const inPlace = (name: string, rest: Inplace) =>
  rest.length > 0 && bind(name, rest, { inplace: false }).inplace;

const anyRelu = byName(["input"], function relu(input: Tensor, ...rest: Inplace): Tensor {
  return inPlace("relu", rest) ? torch.relu_(input) : torch.relu(input);
});

// The hottest calls are told apart in the function itself: byName is one for all, and adds a closure that cannot be inlined.
/** max(0, x) */
export const relu = ((...args: [Tensor]) =>
  args.length === 1 && args[0] instanceof torch.Tensor
    ? torch.relu(args[0])
    : anyRelu(...args)) as typeof anyRelu;

/** min(max(0, x), 6) */
export const relu6 = byName(["input"], function relu6(input: Tensor, ...rest: Inplace): Tensor {
  return inPlace("relu6", rest) ? ops.relu6_(input) : ops.relu6(input);
});

/** x above `threshold`, else `value`. */
export const threshold = byName(
  ["input", "threshold", "value"],
  function threshold(input: Tensor, above: number, value: number, ...rest: Inplace): Tensor {
    return inPlace("threshold", rest)
      ? torch.threshold_(input, above, value)
      : torch.threshold(input, above, value);
  },
);

/** x cut to lie between `min_val` (default -1) and `max_val` (default 1). */
export const hardtanh = byName(
  ["input"],
  function hardtanh(
    input: Tensor,
    ...rest: Rest<
      [min_val: number, max_val: number, inplace: boolean],
      WithInplace<{ min_val?: number; max_val?: number }>
    >
  ): Tensor {
    const { min_val, max_val, inplace } = bind("hardtanh", rest, { min_val: -1, max_val: 1, inplace: false });
    return inplace ? ops.hardtanh_(input, min_val, max_val) : ops.hardtanh(input, min_val, max_val);
  },
);

/** x above 0, else alpha (exp(x) - 1). Default alpha: 1. */
export const elu = byName(
  ["input"],
  function elu(
    input: Tensor,
    ...rest: Rest<[alpha: number, inplace: boolean], WithInplace<{ alpha?: number }>>
  ): Tensor {
    const { alpha, inplace } = bind("elu", rest, { alpha: 1, inplace: false });
    return inplace ? ops.elu_(input, alpha) : ops.elu(input, alpha);
  },
);

/** Scaled ELU, which keeps mean 0 and variance 1 from layer to layer. */
export const selu = byName(["input"], function selu(input: Tensor, ...rest: Inplace): Tensor {
  return inPlace("selu", rest) ? torch.selu_(input) : torch.selu(input);
});

/** max(0, x) + min(0, alpha (exp(x / alpha) - 1)). Default alpha: 1. */
export const celu = byName(
  ["input"],
  function celu(
    input: Tensor,
    ...rest: Rest<[alpha: number, inplace: boolean], WithInplace<{ alpha?: number }>>
  ): Tensor {
    const { alpha, inplace } = bind("celu", rest, { alpha: 1, inplace: false });
    return inplace ? torch.celu_(input, alpha) : torch.celu(input, alpha);
  },
);

/** x above 0, else negative_slope x. Default slope: 0.01. */
export const leaky_relu = byName(
  ["input"],
  function leaky_relu(
    input: Tensor,
    ...rest: Rest<[negative_slope: number, inplace: boolean], WithInplace<{ negative_slope?: number }>>
  ): Tensor {
    const { negative_slope, inplace } = bind("leaky_relu", rest, { negative_slope: 0.01, inplace: false });
    return inplace ? ops.leaky_relu_(input, negative_slope) : ops.leaky_relu(input, negative_slope);
  },
);

/** leaky_relu with a slope drawn between `lower` (default 1/8) and `upper` (default 1/3) while training, else their mean. */
export const rrelu = byName(
  ["input"],
  function rrelu(
    input: Tensor,
    ...rest: Rest<
      [lower: number, upper: number, training: boolean, inplace: boolean],
      WithInplace<{ lower?: number; upper?: number; training?: boolean }>
    >
  ): Tensor {
    const defaults = { lower: 1 / 8, upper: 1 / 3, training: false, inplace: false };
    const { lower, upper, training, inplace } = bind("rrelu", rest, defaults);
    return inplace ? torch.rrelu_(input, lower, upper, training) : torch.rrelu(input, lower, upper, training);
  },
);

/** leaky_relu with a learned slope: one number, or one per channel. */
export const prelu: (input: Tensor, weight: Tensor) => Tensor = torch.prelu;

/** The first half of dimension `dim` (default -1), gated by the sigmoid of the second. */
export const glu = byName(
  ["input"],
  function glu(input: Tensor, ...rest: Rest<[dim: number], { dim?: number }>): Tensor {
    return ops.glu(input, bind("glu", rest, { dim: -1 }).dim);
  },
);

const anyGelu = byName(
  ["input"],
  function gelu(
    input: Tensor,
    ...rest: Rest<[approximate: "none" | "tanh"], { approximate?: "none" | "tanh" | undefined }>
  ): Tensor {
    if (rest.length === 0) return ops.gelu(input);
    const { approximate } = bind("gelu", rest, { approximate: "none" as "none" | "tanh" });
    return ops.gelu(input, { approximate });
  },
);

/**
 * x Φ(x), the Gaussian error linear unit.
 *
 * @param options.approximate "none" (default) or "tanh".
 * @example F.gelu(x, { approximate: "tanh" });
 */
export const gelu = ((...args: [Tensor]) =>
  args.length === 1 && args[0] instanceof torch.Tensor
    ? ops.gelu(args[0])
    : anyGelu(...args)) as typeof anyGelu;

/** log(sigmoid(x)) */
export const logsigmoid: (input: Tensor) => Tensor = ops.log_sigmoid;

/** x beyond ±lambd, else 0. Default: 0.5. */
export const hardshrink = byName(
  ["input"],
  function hardshrink(input: Tensor, ...rest: Rest<[lambd: number], { lambd?: number }>): Tensor {
    return torch.hardshrink(input, bind("hardshrink", rest, { lambd: 0.5 }).lambd);
  },
);

/** x moved towards 0 by lambd, 0 within. Default: 0.5. */
export const softshrink = byName(
  ["input"],
  function softshrink(input: Tensor, ...rest: Rest<[lambd: number], { lambd?: number }>): Tensor {
    return ops.softshrink(input, bind("softshrink", rest, { lambd: 0.5 }).lambd);
  },
);

/** x - tanh(x) */
export const tanhshrink = (input: Tensor): Tensor => input.sub(input.tanh());

/** x / (1 + |x|) */
export const softsign = (input: Tensor): Tensor => input.div(input.abs().add(1));

/** log(1 + exp(beta x)) / beta, and x itself where beta x is above `threshold`. Default: 1 and 20. */
export const softplus = byName(
  ["input"],
  function softplus(
    input: Tensor,
    ...rest: Rest<[beta: number, threshold: number], { beta?: number; threshold?: number }>
  ): Tensor {
    const { beta, threshold } = bind("softplus", rest, { beta: 1, threshold: 20 });
    return ops.softplus(input, beta, threshold);
  },
);

/** Hyperbolic tangent. */
export const tanh: (input: Tensor) => Tensor = torch.tanh;
/** 1 / (1 + exp(-x)) */
export const sigmoid: (input: Tensor) => Tensor = torch.sigmoid;

/** relu6(x + 3) / 6 */
export const hardsigmoid = byName(["input"], function hardsigmoid(input: Tensor, ...rest: Inplace): Tensor {
  return inPlace("hardsigmoid", rest) ? ops.hardsigmoid_(input) : ops.hardsigmoid(input);
});

const anySilu = byName(["input"], function silu(input: Tensor, ...rest: Inplace): Tensor {
  return inPlace("silu", rest) ? ops.silu_(input) : ops.silu(input);
});

/** x sigmoid(x) */
export const silu = ((...args: [Tensor]) =>
  args.length === 1 && args[0] instanceof torch.Tensor
    ? ops.silu(args[0])
    : anySilu(...args)) as typeof anySilu;

/** x tanh(softplus(x)) */
export const mish = byName(["input"], function mish(input: Tensor, ...rest: Inplace): Tensor {
  return inPlace("mish", rest) ? ops.mish_(input) : ops.mish(input);
});

/** x relu6(x + 3) / 6 */
export const hardswish = byName(["input"], function hardswish(input: Tensor, ...rest: Inplace): Tensor {
  return inPlace("hardswish", rest) ? ops.hardswish_(input) : ops.hardswish(input);
});

interface SoftmaxOptions {
  /** The dimension whose entries sum to 1. */
  dim?: number | null | undefined;
  /** The input is cast to it first; default the input's own. */
  dtype?: Dtype | null | undefined;
}
type Softmax = Rest<[dim: number | null], SoftmaxOptions>;

/** The dimension that torch takes when none is given. */
const implicitDim = (input: Tensor) => ([0, 1, 3].includes(input.ndim) ? 0 : 1);

function softmaxOptions(
  name: string,
  input: Tensor,
  rest: Softmax,
): [dim: number, options: { dtype?: Dtype }] {
  const defaults = { dim: null as number | null | undefined, dtype: null as Dtype | null | undefined };
  const { dim, dtype } = bind(name, rest, defaults);
  return [dim ?? implicitDim(input), dtype ? { dtype } : {}];
}

/** exp(x) / sum(exp(x)) along a dimension. @example F.softmax(scores, -1, { dtype: "float32" }); */
export const softmax = byName(["input"], function softmax(input: Tensor, ...rest: Softmax): Tensor {
  const [dim, options] = softmaxOptions("softmax", input, rest);
  return torch.softmax(input, dim, options);
});

/** softmax(-x) along a dimension. */
export const softmin = byName(["input"], function softmin(input: Tensor, ...rest: Softmax): Tensor {
  const [dim, options] = softmaxOptions("softmin", input, rest);
  return torch.softmax(input.neg(), dim, options);
});

/** log(softmax(x)) along a dimension. */
export const log_softmax = byName(["input"], function log_softmax(input: Tensor, ...rest: Softmax): Tensor {
  const [dim, options] = softmaxOptions("log_softmax", input, rest);
  return torch.log_softmax(input, dim, options);
});

/**
 * A sample of the Gumbel-softmax distribution.
 *
 * @param options.tau temperature; default 1. @param options.hard one-hot results, with the gradient of the soft ones;
 * default false. @param options.dim default -1.
 */
export const gumbel_softmax = byName(
  ["logits"],
  function gumbel_softmax(
    logits: Tensor,
    ...rest: Rest<[tau: number, hard: boolean], { tau?: number; hard?: boolean; dim?: number }>
  ): Tensor {
    const { tau, hard, dim } = bind("gumbel_softmax", rest, { tau: 1, hard: false, dim: -1 });
    const noise = torch.empty_like(logits).exponential_().log().neg();
    const soft = logits.add(noise).div(tau).softmax(dim);
    if (!hard) return soft;
    const index = soft.argmax(dim, true);
    const oneHot = torch.zeros_like(logits).scatter_(dim, index, 1);
    return oneHot.sub(soft.detach()).add(soft);
  },
);
