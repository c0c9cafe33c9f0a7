// Distances and similarities.

import type { Tensor } from "../../torch/index.ts";
import * as torch from "../../torch/index.ts";
import { bind, byName, type Rest } from "../arguments.ts";

/** The cosine of the angle along a dimension. Default: dim 1, eps 1e-8. */
export const cosine_similarity = byName(
  ["x1", "x2"],
  function cosine_similarity(
    x1: Tensor,
    x2: Tensor,
    ...rest: Rest<[dim: number, eps: number], { dim?: number; eps?: number }>
  ): Tensor {
    const { dim, eps } = bind("cosine_similarity", rest, { dim: 1, eps: 1e-8 });
    return torch.cosine_similarity(x1, x2, dim, eps);
  },
);

/** The p-norm of the difference along the last dimension. Default: p 2, eps 1e-6, added to the difference. */
export const pairwise_distance = byName(
  ["x1", "x2"],
  function pairwise_distance(
    x1: Tensor,
    x2: Tensor,
    ...rest: Rest<[p: number, eps: number, keepdim: boolean], { p?: number; eps?: number; keepdim?: boolean }>
  ): Tensor {
    const { p, eps, keepdim } = bind("pairwise_distance", rest, { p: 2, eps: 1e-6, keepdim: false });
    return torch.pairwise_distance(x1, x2, p, eps, keepdim);
  },
);

/** The p-norms of all differences between two rows. Default: p 2. */
export const pdist: typeof torch.pdist = torch.pdist;
