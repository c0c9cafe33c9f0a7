// Padding, in torch's order: the pairs (before, after) of the last dimension first.

import { InvalidArgumentError } from "../../errors/index.ts";
import type { Tensor } from "../../torch/index.ts";
import * as ops from "../../torch/nn.generated.ts";
import { bind, byName, type Rest } from "../arguments.ts";

export type PaddingMode = "constant" | "reflect" | "replicate" | "circular";

/**
 * Puts entries around a tensor.
 *
 * @param counts pairs of counts before and after, the last dimension first; negative ones cut off.
 * @param options.mode "constant" (default), "reflect", "replicate" or "circular". @param options.value for "constant"; default 0.
 * @example F.pad(torch.ones([2, 3]), [1, 2]).shape; // [2, 6]
 */
export const pad = byName(
  ["input", "pad"],
  function pad(
    input: Tensor,
    counts: readonly number[],
    ...rest: Rest<
      [mode: PaddingMode, value: number | null],
      { mode?: PaddingMode | undefined; value?: number | null | undefined }
    >
  ): Tensor {
    const { mode, value } = bind("pad", rest, {
      mode: "constant" as PaddingMode,
      value: null as number | null,
    });
    if (counts.length % 2 !== 0)
      throw new InvalidArgumentError(`pad: the counts must come in pairs, got ${counts.length}.`);
    return ops.pad(input, counts, mode, value);
  },
);

/** Zeros around the last two dimensions: left, right, top, bottom. */
export const zero_pad2d = byName(
  ["input", "padding"],
  function zero_pad2d(input: Tensor, padding: readonly number[]): Tensor {
    return pad(input, padding);
  },
);
