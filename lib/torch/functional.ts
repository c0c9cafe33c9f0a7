// Functions that Python torch writes in Python, over operators: einsum, split, norm, unique, stft and so on.
import type { Value } from "../addon/addon.ts";
import { addon } from "../addon/loader.ts";
import { InvalidArgumentError, ShapeError } from "../errors/index.ts";
import { isComplexDtype } from "./dtype.ts";
import * as linalg from "./linalg.generated.ts";
import { findOp, tensorOp } from "./native_op.ts";
import { isOptions, readOptions } from "./options.ts";
import { adopt, extendTensor, Tensor } from "./tensor.ts";
import type { Dtype } from "./types.ts";

export interface UniqueOptions {
  /** Default true. */
  sorted?: boolean | undefined;
  /** Also where each element went. Default false. */
  return_inverse?: boolean | undefined;
  /** Also how often each value occurs. Default false. */
  return_counts?: boolean | undefined;
  /** Unique slices of this dimension. Default: unique elements. */
  dim?: number | null | undefined;
}

export interface NormOptions {
  p?: number | "fro" | "nuc" | null | undefined;
  dim?: number | readonly number[] | null | undefined;
  keepdim?: boolean | undefined;
  dtype?: Dtype | null | undefined;
}

export interface StftOptions {
  hop_length?: number | null | undefined;
  win_length?: number | null | undefined;
  window?: Tensor | null | undefined;
  /** Pad so that frame t is centred at t * hop_length. Default true. */
  center?: boolean | undefined;
  pad_mode?: string | undefined;
  normalized?: boolean | undefined;
  onesided?: boolean | null | undefined;
  return_complex?: boolean | null | undefined;
  align_to_window?: boolean | null | undefined;
}

export interface FunctionalMethods {
  /** Parts of `split_size` along a dimension, or parts of the sizes given. Views. */
  split(split_size: number | readonly number[], dim?: number | { dim?: number }): Tensor[];
  norm(p?: NormOptions["p"], dim?: NormOptions["dim"], keepdim?: boolean, dtype?: Dtype | null): Tensor;
  norm(options: NormOptions): Tensor;
  norm(p: NormOptions["p"], options: NormOptions): Tensor;
  norm(p: NormOptions["p"], dim: NormOptions["dim"], options: NormOptions): Tensor;
  unique(options?: UniqueOptions & { return_inverse?: false; return_counts?: false }): Tensor;
  unique(options: UniqueOptions): Tensor[];
  unique_consecutive(
    options?: Omit<UniqueOptions, "sorted"> & { return_inverse?: false; return_counts?: false },
  ): Tensor;
  unique_consecutive(options: Omit<UniqueOptions, "sorted">): Tensor[];
  stft(n_fft: number, options?: StftOptions): Tensor;
  readonly retains_grad: boolean;
  readonly is_sparse: false;
  readonly is_quantized: false;
  readonly is_nested: false;
  /** The transpose of a matrix; all dimensions reversed. */
  readonly T: Tensor;
  /** The last two dimensions exchanged. */
  readonly mT: Tensor;
  /** The conjugate transpose of a matrix. */
  readonly H: Tensor;
  readonly mH: Tensor;
  readonly real: Tensor;
  readonly imag: Tensor;
}

/** Runs an overload whose results are tensors in a list or a tuple. */
function tensorsOp(name: string, overload: string, ...args: Value[]): Tensor[] {
  return (addon().call(findOp(name, overload), null, ...args) as number[]).map(adopt);
}

const handles = (tensors: readonly Tensor[]) => tensors.map(({ _handle }) => _handle);

/** `f(a, b, c)` or `f([a, b, c])`. */
const listOf = (args: readonly (Tensor | readonly Tensor[])[]): readonly Tensor[] =>
  args.length === 1 && Array.isArray(args[0]) ? args[0] : (args as readonly Tensor[]);

// Shapes ------------------------------------------------------------------------------------------------------

/** Cuts `dim` into views of `split_size`, the last one shorter, or of each of several sizes. */
export function split(
  input: Tensor,
  split_size: number | readonly number[],
  dim: number | { dim?: number } = 0,
): Tensor[] {
  const at = typeof dim === "number" ? dim : (dim.dim ?? 0);
  if (typeof split_size === "number") return tensorsOp("split", "Tensor", input._handle, split_size, at);
  return tensorsOp("split_with_sizes", "", input._handle, split_size, at);
}

/** The shape that all of the given ones broadcast to. */
export function broadcast_shapes(...shapes: (readonly number[] | number)[]): number[] {
  const lists = shapes.map((shape) => (typeof shape === "number" ? [shape] : shape));
  const length = Math.max(0, ...lists.map((shape) => shape.length));
  const out = new Array<number>(length).fill(1);
  for (const shape of lists) {
    for (const [i, size] of shape.entries()) {
      const at = length - shape.length + i;
      if (size === 1 || size === out[at]) continue;
      if (out[at] !== 1)
        throw new ShapeError(
          `[broadcast_shapes] shapes do not fit: ${lists.map((one) => `[${one.join(", ")}]`).join(", ")}.`,
        );
      out[at] = size;
    }
  }
  return out;
}

/** All tensors expanded to their common shape, as views. */
export const broadcast_tensors = (...tensors: (Tensor | readonly Tensor[])[]): Tensor[] =>
  tensorsOp("broadcast_tensors", "", handles(listOf(tensors)));

function atLeast(name: string) {
  function apply(input: Tensor): Tensor;
  function apply(...tensors: (Tensor | readonly Tensor[])[]): Tensor[];
  function apply(...tensors: (Tensor | readonly Tensor[])[]): Tensor | Tensor[] {
    const [first] = tensors;
    if (tensors.length === 1 && first instanceof Tensor) return tensorOp(name, "", first._handle);
    return tensorsOp(name, "Sequence", handles(listOf(tensors)));
  }
  return apply;
}

/** A number as [1]; of several tensors a list. */
export const atleast_1d = atLeast("atleast_1d");
/** With dimensions of 1 put before, so that there are two. */
export const atleast_2d = atLeast("atleast_2d");
/** With dimensions of 1 put around, so that there are three. */
export const atleast_3d = atLeast("atleast_3d");

/** Grids of coordinates. `indexing` is `"ij"` (default) or `"xy"`. */
export function meshgrid(...args: (Tensor | readonly Tensor[] | { indexing?: "ij" | "xy" })[]): Tensor[] {
  const last = args.at(-1);
  const { indexing = "ij" } = isOptions(last) ? (args.pop() as { indexing?: "ij" | "xy" }) : {};
  return tensorsOp("meshgrid", "indexing", handles(listOf(args as Tensor[])), indexing);
}

/** Every combination of the elements of vectors, one per row. */
export const cartesian_prod = (...tensors: (Tensor | readonly Tensor[])[]): Tensor =>
  tensorOp("cartesian_prod", "", handles(listOf(tensors)));

/** The matrices along the diagonal of one, zeros elsewhere. */
export const block_diag = (...tensors: (Tensor | readonly Tensor[])[]): Tensor =>
  tensorOp("block_diag", "", handles(listOf(tensors)));

/** Coordinates of flat indices in a shape: one tensor per dimension. */
export function unravel_index(indices: Tensor, shape: number | readonly number[]): Tensor[] {
  const sizes = typeof shape === "number" ? [shape] : shape;
  const strides = sizes.map((_, i) => sizes.slice(i + 1).reduce((product, size) => product * size, 1));
  return sizes.map((size, i) => indices.floor_divide(strides[i] as number).remainder(size));
}

// Products ----------------------------------------------------------------------------------------------------

/**
 * Sums of products by Einstein's convention.
 *
 * @example
 * torch.einsum("bij,bjk->bik", a, b);
 */
export const einsum = (equation: string, ...operands: (Tensor | readonly Tensor[])[]): Tensor =>
  tensorOp("einsum", "", equation, handles(listOf(operands)));

type Pairs = readonly [readonly number[], readonly number[]];

/** Contracts the last `dims` dimensions of `a` with the first of `b`, or the pairs of lists given. */
export function tensordot(
  a: Tensor,
  b: Tensor,
  dims: number | Pairs | { dims?: number | Pairs } = 2,
): Tensor {
  const pairs =
    typeof dims === "number" || Array.isArray(dims)
      ? (dims as number | Pairs)
      : ((dims as { dims?: number | Pairs }).dims ?? 2);
  if (typeof pairs !== "number") return tensorOp("tensordot", "", a._handle, b._handle, pairs[0], pairs[1]);
  if (pairs < 0) throw new InvalidArgumentError(`[tensordot] dims must not be negative, got ${pairs}.`);
  const count = Array.from({ length: pairs }, (_, i) => i);
  return tensorOp(
    "tensordot",
    "",
    a._handle,
    b._handle,
    count.map((i) => i - pairs),
    count,
  );
}

/** The product of matrices, in the order that costs least. */
export const chain_matmul = (...matrices: Tensor[]): Tensor =>
  tensorOp("chain_matmul", "", handles(matrices));

const CDIST_MODES: Record<string, number | null> = {
  use_mm_for_euclid_dist_if_necessary: null,
  use_mm_for_euclid_dist: 1,
  donot_use_mm_for_euclid_dist: 2,
};

/** Distances between all rows of `x1` [..., P, M] and `x2` [..., R, M]: [..., P, R]. */
export function cdist(
  x1: Tensor,
  x2: Tensor,
  ...args: (number | string | { p?: number; compute_mode?: string })[]
): Tensor {
  const { p = 2, compute_mode = "use_mm_for_euclid_dist_if_necessary" } = readOptions("cdist", args, [
    "p",
    "compute_mode",
  ]) as {
    p?: number;
    compute_mode?: string;
  };
  const mode = CDIST_MODES[compute_mode];
  if (mode === undefined) throw new InvalidArgumentError(`[cdist] unknown compute_mode '${compute_mode}'.`);
  return tensorOp("cdist", "", x1._handle, x2._handle, p, mode);
}

// As functions ------------------------------------------------------------------------------------------------

/** The number of elements. */
export const numel = (input: Tensor): number => input.numel();

export const index_put_ = (input: Tensor, ...args: Parameters<Tensor["index_put_"]>): Tensor =>
  input.index_put_(...args);

// Reductions --------------------------------------------------------------------------------------------------

/** torch.norm: the Frobenius norm, or the `p`-norm over all or some dimensions; `"nuc"` of matrices. */
export function norm(input: Tensor, ...args: unknown[]): Tensor {
  const {
    p = "fro",
    dim = null,
    keepdim = false,
    dtype = null,
  } = readOptions("norm", args, ["p", "dim", "keepdim", "dtype"]) as NormOptions;
  const dims = typeof dim === "number" ? [dim] : dim;
  if (typeof p === "string") {
    if (p === "fro" && (dims === null || dims.length <= 2))
      return linalg.vector_norm(input, 2, dims, keepdim, { dtype });
    return linalg.matrix_norm(input, p, dims ?? input.shape.map((_, i) => i), keepdim, { dtype });
  }
  return linalg.vector_norm(input, p ?? 2, dims ?? input.shape.map((_, i) => i), keepdim, { dtype });
}

function uniqueResult(
  parts: Tensor[],
  { return_inverse = false, return_counts = false }: UniqueOptions,
): Tensor | Tensor[] {
  const [values, inverse, counts] = parts as [Tensor, Tensor, Tensor];
  if (!return_inverse && !return_counts) return values;
  return [values, ...(return_inverse ? [inverse] : []), ...(return_counts ? [counts] : [])];
}

const UNIQUE = ["sorted", "return_inverse", "return_counts", "dim"];

/** The distinct values (flat), or slices of `dim`; with the inverse and the counts when asked for. */
export function unique(
  input: Tensor,
  options?: UniqueOptions & { return_inverse?: false; return_counts?: false },
): Tensor;
export function unique(input: Tensor, options: UniqueOptions): Tensor[];
export function unique(input: Tensor, ...args: unknown[]): Tensor | Tensor[] {
  const options = readOptions("unique", args, UNIQUE) as UniqueOptions;
  const { sorted = true, return_inverse = false, return_counts = false, dim = null } = options;
  if (dim === null)
    return uniqueResult(
      tensorsOp("_unique2", "", input._handle, sorted, return_inverse, return_counts),
      options,
    );
  return uniqueResult(
    tensorsOp("unique_dim", "", input._handle, dim, sorted, return_inverse, return_counts),
    options,
  );
}

/** Like `unique`, but merges equal neighbours only. */
export function unique_consecutive(
  input: Tensor,
  options?: Omit<UniqueOptions, "sorted"> & { return_inverse?: false; return_counts?: false },
): Tensor;
export function unique_consecutive(input: Tensor, options: Omit<UniqueOptions, "sorted">): Tensor[];
export function unique_consecutive(input: Tensor, ...args: unknown[]): Tensor | Tensor[] {
  const options = readOptions("unique_consecutive", args, UNIQUE.slice(1)) as UniqueOptions;
  const { return_inverse = false, return_counts = false, dim = null } = options;
  return uniqueResult(
    tensorsOp("unique_consecutive", "", input._handle, return_inverse, return_counts, dim),
    options,
  );
}

// Signals -----------------------------------------------------------------------------------------------------

/**
 * Short-time Fourier transform of [length] or [batch, length]: [(batch,) n_fft / 2 + 1, frames], complex.
 *
 * @throws when `return_complex` is not given for real input, as in Python
 */
export function stft(input: Tensor, n_fft: number, options: StftOptions = {}): Tensor {
  const {
    hop_length = null,
    win_length = null,
    window = null,
    center = true,
    pad_mode = "reflect",
    normalized = false,
  } = options;
  const { onesided = null, return_complex = null, align_to_window = null } = options;
  if (align_to_window != null && center)
    throw new InvalidArgumentError("[stft] align_to_window only works with center: false.");
  if (return_complex == null && !isComplexDtype(input.dtype) && !(window && isComplexDtype(window.dtype))) {
    throw new InvalidArgumentError("[stft] return_complex must be given for real input.");
  }
  let signal = input;
  if (center) {
    const batched = input.ndim === 1 ? input.view(1, 1, -1) : input.unsqueeze(1);
    const pad = Math.floor(n_fft / 2);
    const padded = tensorOp("pad", "", batched._handle, [pad, pad], pad_mode, null);
    signal = input.ndim === 1 ? padded.view(-1) : padded.squeeze(1);
  }
  return tensorOp(
    "stft",
    "",
    signal._handle,
    n_fft,
    hop_length,
    win_length,
    window?._handle ?? null,
    normalized,
    onesided,
    return_complex,
    align_to_window,
  );
}

// Methods -----------------------------------------------------------------------------------------------------

const handleOf = (self: unknown) => (self as Tensor)._handle;

extendTensor({
  split(this: Tensor, split_size: number | readonly number[], dim?: number): Tensor[] {
    return split(this, split_size, dim);
  },
  norm(this: Tensor, ...args: unknown[]): Tensor {
    return norm(this, ...args);
  },
  unique(this: Tensor, ...args: never[]): Tensor {
    return unique(this, ...args);
  },
  unique_consecutive(this: Tensor, ...args: never[]): Tensor {
    return unique_consecutive(this, ...args);
  },
  stft(this: Tensor, n_fft: number, options?: StftOptions): Tensor {
    return stft(this, n_fft, options);
  },
  get retains_grad(): boolean {
    return addon().call(findOp("retains_grad", ""), null, handleOf(this)) as boolean;
  },
  is_sparse: false,
  is_quantized: false,
  is_nested: false,
  get T(): Tensor {
    return tensorOp("numpy_T", "", handleOf(this));
  },
  get mT(): Tensor {
    return tensorOp("mT", "", handleOf(this));
  },
  get H(): Tensor {
    return tensorOp("matrix_H", "", handleOf(this));
  },
  get mH(): Tensor {
    return tensorOp("mH", "", handleOf(this));
  },
  get real(): Tensor {
    const self = this as unknown as Tensor;
    return isComplexDtype(self.dtype) ? tensorOp("real", "", self._handle) : self;
  },
  get imag(): Tensor {
    return tensorOp("imag", "", handleOf(this));
  },
});
