// Convolutions, and the patches they look at.

import type { Tensor } from "../../torch/index.ts";
import * as torch from "../../torch/index.ts";
import * as ops from "../../torch/nn.generated.ts";
import { bind, byName, ntuple, type Rest, type Sizes } from "../arguments.ts";

// Inputs are [batch, in, …], weights [out, in / groups, …] ([in, out / groups, …] when transposed), a bias is [out].
/** Slides `weight` over [batch, in, length]. */
export const conv1d: typeof torch.conv1d = torch.conv1d;
/** Slides `weight` over [batch, in, height, width]. */
export const conv2d: typeof torch.conv2d = torch.conv2d;
/** Slides `weight` over [batch, in, depth, height, width]. */
export const conv3d: typeof torch.conv3d = torch.conv3d;
/** The gradient of conv1d with respect to its input: enlarges instead of shrinking. */
export const conv_transpose1d: typeof torch.conv_transpose1d = torch.conv_transpose1d;
/** The gradient of conv2d with respect to its input: enlarges instead of shrinking. */
export const conv_transpose2d: typeof torch.conv_transpose2d = torch.conv_transpose2d;
/** The gradient of conv3d with respect to its input: enlarges instead of shrinking. */
export const conv_transpose3d: typeof torch.conv_transpose3d = torch.conv_transpose3d;
/** conv1d over [length, batch, in]. */
export const conv_tbc: typeof torch.conv_tbc = torch.conv_tbc;

interface PatchOptions {
  dilation?: Sizes | undefined;
  padding?: Sizes | undefined;
  stride?: Sizes | undefined;
}
type Patches = Rest<[dilation: Sizes, padding: Sizes, stride: Sizes], PatchOptions>;
const PATCHES = { dilation: 1 as Sizes, padding: 0 as Sizes, stride: 1 as Sizes };

/** Patches as columns: [batch, channels, height, width] gives [batch, channels · kernel, positions]. */
export const unfold = byName(
  ["input", "kernel_size"],
  function unfold(input: Tensor, kernel_size: Sizes, ...rest: Patches): Tensor {
    const { dilation, padding, stride } = bind("unfold", rest, PATCHES);
    return ops.im2col(
      input,
      ntuple(kernel_size, 2),
      ntuple(dilation, 2),
      ntuple(padding, 2),
      ntuple(stride, 2),
    );
  },
);

/** The sum of patches in their places: undoes {@link unfold} up to how often each place was covered. */
export const fold = byName(
  ["input", "output_size", "kernel_size"],
  function fold(input: Tensor, output_size: Sizes, kernel_size: Sizes, ...rest: Patches): Tensor {
    const { dilation, padding, stride } = bind("fold", rest, PATCHES);
    return ops.col2im(
      input,
      ntuple(output_size, 2),
      ntuple(kernel_size, 2),
      ntuple(dilation, 2),
      ntuple(padding, 2),
      ntuple(stride, 2),
    );
  },
);
