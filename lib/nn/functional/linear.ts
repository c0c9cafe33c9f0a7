// Products with weights, and tables of vectors.

import { InvalidArgumentError } from "../../errors/index.ts";
import type { Tensor } from "../../torch/index.ts";
import * as torch from "../../torch/index.ts";
import * as ops from "../../torch/nn.generated.ts";
import { bind, byName, type Rest } from "../arguments.ts";

/** x Wᵀ + b: [..., in] with a weight [out, in] and a bias [out] gives [..., out]. */
export const linear: typeof ops.linear = ops.linear;

/** x1 W x2 + b: [..., in1], [..., in2] with a weight [out, in1, in2] gives [..., out]. */
export const bilinear: typeof torch.bilinear = torch.bilinear;

export interface EmbeddingFunctionOptions {
  /** The row that gets no gradient; negative ones count from the end. Default: none. */
  padding_idx?: number | null | undefined;
  /** Rows in use that are longer are scaled down to it, in place. Default: none. */
  max_norm?: number | null | undefined;
  /** Which norm. Default: 2. */
  norm_type?: number | undefined;
  /** Divide gradients by how often a row is used. Default: false. */
  scale_grad_by_freq?: boolean | undefined;
  /** Default: false. */
  sparse?: boolean | undefined;
}

/** Row `padding_idx` of a table of `rows`, as the operators want it: -1 is none. */
function paddingRow(name: string, padding_idx: number | null | undefined, rows: number): number {
  if (padding_idx === null || padding_idx === undefined) return -1;
  if (padding_idx >= rows || padding_idx < -rows) {
    throw new InvalidArgumentError(`${name}: padding_idx ${padding_idx} is outside of the ${rows} rows.`);
  }
  return padding_idx < 0 ? padding_idx + rows : padding_idx;
}

const anyEmbedding = byName(
  ["input", "weight"],
  function embedding(
    input: Tensor,
    weight: Tensor,
    ...rest: Rest<
      [padding_idx: number | null, max_norm: number | null, norm_type: number],
      EmbeddingFunctionOptions
    >
  ): Tensor {
    if (rest.length === 0) return torch.embedding(weight, input);
    const { padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse } = bind("embedding", rest, {
      padding_idx: null as number | null,
      max_norm: null as number | null,
      norm_type: 2,
      scale_grad_by_freq: false,
      sparse: false,
    });
    const row = paddingRow("embedding", padding_idx, weight.size(0));
    if (max_norm === null) return torch.embedding(weight, input, row, scale_grad_by_freq, sparse);
    const indices = input.contiguous();
    torch.no_grad(() => {
      torch.embedding_renorm_(weight.detach(), indices, max_norm, norm_type);
    });
    return torch.embedding(weight, indices, row, scale_grad_by_freq, sparse);
  },
);

/** Rows of a table: indices [...] with a weight [rows, width] give [..., width]. */
export const embedding = ((...args: [Tensor, Tensor]) =>
  args.length === 2 && args[1] instanceof torch.Tensor
    ? torch.embedding(args[1], args[0])
    : anyEmbedding(...args)) as typeof anyEmbedding;

export interface EmbeddingBagFunctionOptions extends EmbeddingFunctionOptions {
  /** Where each bag begins, for indices of one dimension. */
  offsets?: Tensor | null | undefined;
  /** Default: "mean". */
  mode?: "sum" | "mean" | "max" | undefined;
  /** A factor per index, for the mode "sum". */
  per_sample_weights?: Tensor | null | undefined;
  /** The last of `offsets` is the end of the last bag. Default: false. */
  include_last_offset?: boolean | undefined;
}

/** Sums, means or maxima of rows of a table: one row [width] per bag of indices. */
export const embedding_bag = byName(
  ["input", "weight"],
  function embedding_bag(
    input: Tensor,
    weight: Tensor,
    ...rest: Rest<[offsets: Tensor | null], EmbeddingBagFunctionOptions>
  ): Tensor {
    const o = bind("embedding_bag", rest, {
      offsets: null as Tensor | null,
      max_norm: null as number | null,
      norm_type: 2,
      scale_grad_by_freq: false,
      mode: "mean" as "sum" | "mean" | "max",
      sparse: false,
      per_sample_weights: null as Tensor | null,
      include_last_offset: false,
      padding_idx: null as number | null,
    });
    let { offsets, per_sample_weights } = o;
    let indices = input;
    if (input.ndim === 2) {
      if (offsets)
        throw new InvalidArgumentError("embedding_bag: offsets go with indices of one dimension only.");
      offsets = torch.arange(0, input.numel(), input.size(1), { dtype: input.dtype, device: input.device });
      indices = input.reshape([-1]);
      per_sample_weights = per_sample_weights?.reshape([-1]) ?? null;
    } else if (!offsets) {
      throw new InvalidArgumentError("embedding_bag: indices of one dimension need offsets.");
    }
    if (per_sample_weights && o.mode !== "sum") {
      throw new InvalidArgumentError(
        `embedding_bag: per_sample_weights go with the mode "sum", not "${o.mode}".`,
      );
    }
    const { max_norm } = o;
    if (max_norm !== null) {
      torch.no_grad(() => {
        torch.embedding_renorm_(weight.detach(), indices.contiguous(), max_norm, o.norm_type);
      });
    }
    const mode = { sum: 0, mean: 1, max: 2 }[o.mode];
    const row = o.padding_idx === null ? null : paddingRow("embedding_bag", o.padding_idx, weight.size(0));
    const bag = torch.embedding_bag as (...args: unknown[]) => readonly [Tensor, ...unknown[]];
    const [result] = bag(
      weight,
      indices,
      offsets,
      o.scale_grad_by_freq,
      mode,
      o.sparse,
      per_sample_weights,
      o.include_last_offset,
      row,
    );
    return result;
  },
);

/** Ones at the given indices: int64 [...] gives [..., num_classes]. Default: as many classes as the largest index asks for. */
export const one_hot = byName(
  ["tensor"],
  function one_hot(tensor: Tensor, ...rest: Rest<[num_classes: number], { num_classes?: number }>): Tensor {
    return ops.one_hot(tensor, bind("one_hot", rest, { num_classes: -1 }).num_classes);
  },
);
