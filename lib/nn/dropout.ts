// Dropout, active while training.

import { InvalidArgumentError } from "../errors/index.ts";
import type { Tensor } from "../torch/index.ts";
import { bind, type Rest } from "./arguments.ts";
import * as F from "./functional.ts";
import { Module } from "./module.ts";
import { py, pyFloat } from "./repr.ts";

export interface DropoutOptions {
  /** The share of entries to drop. Default: 0.5. */
  p?: number | undefined;
  /** Write the result into the input. Default: false. */
  inplace?: boolean | undefined;
}

abstract class _Dropout extends Module {
  readonly p: number;
  readonly inplace: boolean;

  constructor(...rest: Rest<[p: number, inplace: boolean], DropoutOptions>) {
    super();
    const { p, inplace } = bind(new.target.name, rest, { p: 0.5, inplace: false });
    if (!(p >= 0 && p <= 1)) {
      throw new InvalidArgumentError(
        `${new.target.name}: the probability must be between 0 and 1, got ${p}.`,
      );
    }
    this.p = p;
    this.inplace = inplace;
  }

  override extra_repr(): string {
    return `p=${pyFloat(this.p)}, inplace=${py(this.inplace)}`;
  }
}

/** Zeros some entries and scales up the rest. @example new nn.Dropout(0.2).forward(torch.randn([20, 16])); */
export class Dropout extends _Dropout {
  override forward(x: Tensor): Tensor {
    return F.dropout(x, this.p, this.training, this.inplace);
  }
}

/** Drops whole channels of [batch, channels, length]. */
export class Dropout1d extends _Dropout {
  override forward(x: Tensor): Tensor {
    return F.dropout1d(x, this.p, this.training, this.inplace);
  }
}

/** Drops whole channels of [batch, channels, height, width]. */
export class Dropout2d extends _Dropout {
  override forward(x: Tensor): Tensor {
    return F.dropout2d(x, this.p, this.training, this.inplace);
  }
}

/** Drops whole channels of [batch, channels, depth, height, width]. */
export class Dropout3d extends _Dropout {
  override forward(x: Tensor): Tensor {
    return F.dropout3d(x, this.p, this.training, this.inplace);
  }
}

/** Dropout that keeps mean and variance, for SELU. */
export class AlphaDropout extends _Dropout {
  override forward(x: Tensor): Tensor {
    return F.alpha_dropout(x, this.p, this.training);
  }
}

/** AlphaDropout of whole channels. */
export class FeatureAlphaDropout extends _Dropout {
  override forward(x: Tensor): Tensor {
    return F.feature_alpha_dropout(x, this.p, this.training);
  }
}
