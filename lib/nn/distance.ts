// Distances and similarities as modules.

import type { Tensor } from "../torch/index.ts";
import { bind, type Rest } from "./arguments.ts";
import * as F from "./functional.ts";
import { Module } from "./module.ts";

/** The cosine of the angle along a dimension. Default: dim 1, eps 1e-8. */
export class CosineSimilarity extends Module {
  readonly dim: number;
  readonly eps: number;

  constructor(
    ...rest: Rest<[dim: number, eps: number], { dim?: number | undefined; eps?: number | undefined }>
  ) {
    super();
    const { dim, eps } = bind("CosineSimilarity", rest, { dim: 1, eps: 1e-8 });
    this.dim = dim;
    this.eps = eps;
  }

  override forward(x1: Tensor, x2: Tensor): Tensor {
    return F.cosine_similarity(x1, x2, this.dim, this.eps);
  }
}

/** The p-norm of the difference along the last dimension. Default: p 2, eps 1e-6, keepdim false. */
export class PairwiseDistance extends Module {
  readonly norm: number;
  readonly eps: number;
  readonly keepdim: boolean;

  constructor(
    ...rest: Rest<
      [p: number, eps: number, keepdim: boolean],
      { p?: number | undefined; eps?: number | undefined; keepdim?: boolean | undefined }
    >
  ) {
    super();
    const { p, eps, keepdim } = bind("PairwiseDistance", rest, { p: 2, eps: 1e-6, keepdim: false });
    this.norm = p;
    this.eps = eps;
    this.keepdim = keepdim;
  }

  override forward(x1: Tensor, x2: Tensor): Tensor {
    return F.pairwise_distance(x1, x2, this.norm, this.eps, this.keepdim);
  }
}
