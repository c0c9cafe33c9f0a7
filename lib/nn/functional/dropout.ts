// Dropout of entries and of whole channels.

import { InvalidArgumentError } from "../../errors/index.ts";
import type { Tensor } from "../../torch/index.ts";
import * as torch from "../../torch/index.ts";
import { bind, byName, type Rest } from "../arguments.ts";

export interface DropoutFunctionOptions {
  /** The share of entries to drop. Default: 0.5. */
  p?: number | undefined;
  training?: boolean | undefined;
  /** Default: false. */
  inplace?: boolean | undefined;
}
type Dropout = Rest<[p: number, training: boolean, inplace: boolean], DropoutFunctionOptions>;

function dropoutOptions(
  name: string,
  rest: Dropout,
  training: boolean,
): { p: number; training: boolean; inplace: boolean } {
  const options = bind(name, rest, { p: 0.5, training, inplace: false });
  if (!(options.p >= 0 && options.p <= 1)) {
    throw new InvalidArgumentError(`${name}: the probability must be between 0 and 1, got ${options.p}.`);
  }
  return options;
}

/** Zeros some entries and scales up the rest, while training. Default: p 0.5, training. */
export const dropout = byName(["input"], function dropout(input: Tensor, ...rest: Dropout): Tensor {
  const { p, training, inplace } = dropoutOptions("dropout", rest, true);
  return inplace ? torch.dropout_(input, p, training) : torch.dropout(input, p, training);
});

/** Dropout that keeps mean and variance, for SELU. Default: p 0.5, not training. */
export const alpha_dropout = byName(
  ["input"],
  function alpha_dropout(input: Tensor, ...rest: Dropout): Tensor {
    const { p, training, inplace } = dropoutOptions("alpha_dropout", rest, false);
    return inplace ? torch.alpha_dropout_(input, p, training) : torch.alpha_dropout(input, p, training);
  },
);

/** alpha_dropout of whole channels. Default: p 0.5, not training. */
export const feature_alpha_dropout = byName(
  ["input"],
  function feature_alpha_dropout(input: Tensor, ...rest: Dropout): Tensor {
    const { p, training, inplace } = dropoutOptions("feature_alpha_dropout", rest, false);
    return inplace
      ? torch.feature_alpha_dropout_(input, p, training)
      : torch.feature_alpha_dropout(input, p, training);
  },
);

/** Drops channels; an input without batch dimension gets one meanwhile. */
function channelDropout(name: string, input: Tensor, batched: number, rest: Dropout): Tensor {
  const { p, training, inplace } = dropoutOptions(name, rest, true);
  if (input.ndim !== batched && input.ndim !== batched - 1) {
    throw new InvalidArgumentError(
      `${name} takes ${batched - 1} or ${batched} dimensions, got ${input.ndim}.`,
    );
  }
  const lone = input.ndim === batched - 1;
  const x = lone ? (inplace ? input.unsqueeze_(0) : input.unsqueeze(0)) : input;
  const result = inplace ? torch.feature_dropout_(x, p, training) : torch.feature_dropout(x, p, training);
  if (!lone) return result;
  return inplace ? result.squeeze_(0) : result.squeeze(0);
}

/** Drops whole channels of [batch, channels, length]. */
export const dropout1d = byName(["input"], function dropout1d(input: Tensor, ...rest: Dropout): Tensor {
  return channelDropout("dropout1d", input, 3, rest);
});

/** Drops whole channels of [batch, channels, height, width]. */
export const dropout2d = byName(["input"], function dropout2d(input: Tensor, ...rest: Dropout): Tensor {
  const { p, training, inplace } = dropoutOptions("dropout2d", rest, true);
  // Inputs of three dimensions are taken as [batch, channels, length], as torch does for old programs.
  return inplace ? torch.feature_dropout_(input, p, training) : torch.feature_dropout(input, p, training);
});

/** Drops whole channels of [batch, channels, depth, height, width]. */
export const dropout3d = byName(["input"], function dropout3d(input: Tensor, ...rest: Dropout): Tensor {
  return channelDropout("dropout3d", input, 5, rest);
});
