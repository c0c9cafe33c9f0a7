// Normalization.

import { InvalidArgumentError } from "../../errors/index.ts";
import type { Tensor } from "../../torch/index.ts";
import * as torch from "../../torch/index.ts";
import * as ops from "../../torch/nn.generated.ts";
import { bind, byName, type Rest } from "../arguments.ts";

interface Affine {
  weight?: Tensor | null | undefined;
  bias?: Tensor | null | undefined;
  /** Default: 1e-5. */
  eps?: number | undefined;
}
type AffineRest = Rest<[weight: Tensor | null, bias: Tensor | null, eps: number], Affine>;
const AFFINE = { weight: null as Tensor | null, bias: null as Tensor | null, eps: 1e-5 };

/** Zero mean and unit variance over the last dimensions, which have the shape `normalized_shape`. */
export const layer_norm = byName(
  ["input", "normalized_shape"],
  function layer_norm(input: Tensor, normalized_shape: readonly number[], ...rest: AffineRest): Tensor {
    const { weight, bias, eps } = bind("layer_norm", rest, AFFINE);
    return torch.layer_norm(input, normalized_shape, weight, bias, eps);
  },
);

/** Unit mean square over the last dimensions. Default eps: the dtype's own. */
export const rms_norm = byName(
  ["input", "normalized_shape"],
  function rms_norm(
    input: Tensor,
    normalized_shape: readonly number[],
    ...rest: Rest<
      [weight: Tensor | null, eps: number | null],
      { weight?: Tensor | null; eps?: number | null }
    >
  ): Tensor {
    const { weight, eps } = bind("rms_norm", rest, {
      weight: null as Tensor | null,
      eps: null as number | null,
    });
    return torch.rms_norm(input, normalized_shape, weight, eps);
  },
);

/** Zero mean and unit variance over groups of the channels of [batch, channels, …]. */
export const group_norm = byName(
  ["input", "num_groups"],
  function group_norm(input: Tensor, num_groups: number, ...rest: AffineRest): Tensor {
    const { weight, bias, eps } = bind("group_norm", rest, AFFINE);
    return torch.group_norm(input, num_groups, weight, bias, eps);
  },
);

interface BatchNormFunctionOptions extends Affine {
  /** Use, and fold into the running values, the statistics of this batch. Default: false. */
  training?: boolean | undefined;
  /** The share of the new statistics in the running ones. Default: 0.1. */
  momentum?: number | undefined;
}

/** Zero mean and unit variance per channel of [batch, channels, …], by this batch or by the running statistics. */
export const batch_norm = byName(
  ["input", "running_mean", "running_var"],
  function batch_norm(
    input: Tensor,
    running_mean: Tensor | null,
    running_var: Tensor | null,
    ...rest: Rest<
      [weight: Tensor | null, bias: Tensor | null, training: boolean, momentum: number, eps: number],
      BatchNormFunctionOptions
    >
  ): Tensor {
    const { weight, bias, training, momentum, eps } = bind("batch_norm", rest, {
      weight: null as Tensor | null,
      bias: null as Tensor | null,
      training: false,
      momentum: 0.1,
      eps: 1e-5,
    });
    if (training) {
      const { shape } = input;
      const values = shape.reduce((product, size) => product * size, 1) / (shape[1] ?? 1);
      if (values === 1) {
        throw new InvalidArgumentError(
          `batch_norm: more than 1 value per channel is needed to train, got the shape [${shape.join(", ")}].`,
        );
      }
    }
    return torch.batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps, true);
  },
);

interface InstanceNormFunctionOptions extends Affine {
  running_mean?: Tensor | null | undefined;
  running_var?: Tensor | null | undefined;
  /** Default: true. */
  use_input_stats?: boolean | undefined;
  /** Default: 0.1. */
  momentum?: number | undefined;
}

/** Zero mean and unit variance per channel and sample of [batch, channels, …]. */
export const instance_norm = byName(
  ["input"],
  function instance_norm(
    input: Tensor,
    ...rest: Rest<[running_mean: Tensor | null, running_var: Tensor | null], InstanceNormFunctionOptions>
  ): Tensor {
    const { running_mean, running_var, weight, bias, use_input_stats, momentum, eps } = bind(
      "instance_norm",
      rest,
      {
        running_mean: null as Tensor | null,
        running_var: null as Tensor | null,
        weight: null as Tensor | null,
        bias: null as Tensor | null,
        use_input_stats: true,
        momentum: 0.1,
        eps: 1e-5,
      },
    );
    if (use_input_stats && input.shape.slice(2).reduce((product, size) => product * size, 1) === 1) {
      throw new InvalidArgumentError(
        `instance_norm: more than 1 position per channel is needed, got the shape [${input.shape.join(", ")}].`,
      );
    }
    return torch.instance_norm(
      input,
      weight,
      bias,
      running_mean,
      running_var,
      use_input_stats,
      momentum,
      eps,
      true,
    );
  },
);

/** Divides by a power of the mean square of `size` neighbouring channels. Default: alpha 1e-4, beta 0.75, k 1. */
export const local_response_norm = byName(
  ["input", "size"],
  function local_response_norm(
    input: Tensor,
    size: number,
    ...rest: Rest<[alpha: number, beta: number, k: number], { alpha?: number; beta?: number; k?: number }>
  ): Tensor {
    const { alpha, beta, k } = bind("local_response_norm", rest, { alpha: 1e-4, beta: 0.75, k: 1 });
    const squares = input.mul(input).flatten(2, -1).unsqueeze(1); // [batch, 1, channels, positions]
    const padded = torch.constant_pad_nd(
      squares,
      [0, 0, Math.floor(size / 2), Math.floor((size - 1) / 2)],
      0,
    );
    const mean = ops.avg_pool2d(padded, [size, 1], 1).reshape(input.shape);
    return input.div(mean.mul(alpha).add(k).pow(beta));
  },
);

/** Divides by the length along a dimension: x / max(‖x‖, eps). Default: p 2, dim 1, eps 1e-12. */
export const normalize = byName(
  ["input"],
  function normalize(
    input: Tensor,
    ...rest: Rest<[p: number, dim: number, eps: number], { p?: number; dim?: number; eps?: number }>
  ): Tensor {
    const { p, dim, eps } = bind("normalize", rest, { p: 2, dim: 1, eps: 1e-12 });
    const length = input.norm(p, dim, { keepdim: true }).clamp_min(eps).expand_as(input);
    return input.div(length);
  },
);
