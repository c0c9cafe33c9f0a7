// t.index(...) and t.index_put_(...): Python's square brackets, as calls.
import { addon } from "../addon/loader.ts";
import { InvalidArgumentError, ShapeError } from "../errors/index.ts";
import { tensor as makeTensor } from "./data.ts";
import { isIntegralDtype } from "./dtype.ts";
import { findOp, tensorOp } from "./native_op.ts";
import { extendTensor, Tensor } from "./tensor.ts";
import { FloatScalar, type NestedArray, type Scalar } from "./types.ts";

/** A range of one dimension; made by `slice(start, stop, step)`. */
export class Slice {
  readonly start: number | null;
  readonly stop: number | null;
  readonly step: number | null;

  constructor(start: number | null, stop: number | null, step: number | null) {
    this.start = start;
    this.stop = stop;
    this.step = step;
  }
}

/**
 * A range of one dimension, as Python's `slice`: `slice(stop)`, `slice(start, stop, step)`; null is an open end.
 *
 * @example
 * x.index("...", slice(1, null)); // x[..., 1:]
 */
export function slice(stop?: number | null): Slice;
export function slice(start: number | null, stop: number | null, step?: number | null): Slice;
export function slice(...args: (number | null | undefined)[]): Slice {
  const [start, stop, step] = args.length < 2 ? [null, args[0], null] : args;
  return new Slice(start ?? null, stop ?? null, step ?? null);
}

/**
 * One place of an index: an integer, `null` (a new dimension), `"..."`, a `slice`, a boolean, an integer or boolean
 * tensor, or nested arrays for one.
 */
export type Index =
  | number
  | bigint
  | null
  | "..."
  | Slice
  | boolean
  | Tensor
  | readonly NestedArray<number | boolean>[];

export interface IndexingMethods {
  /**
   * What `t[...]` gives in Python: a view for integers, slices, `null` and `"..."`; a copy as soon as a boolean or a
   * tensor takes part.
   *
   * @example
   * x.index(0, slice(1, 3)); x.index("...", null); x.index(mask); x.index(torch.tensor([0, 2]), 1);
   */
  index(...indices: Index[]): Tensor;
  /**
   * `t[indices] = values` in Python; with `accumulate`, adds instead (tensor indices only, as torch's own).
   *
   * @example
   * x.index_put_([slice(0, 2), 1], 0); x.index_put_([rows], torch.ones(2), { accumulate: true });
   */
  index_put_(
    indices: Index | readonly Index[],
    values: Tensor | Scalar,
    accumulate?: boolean | { accumulate?: boolean },
  ): this;
}

/** What one pass over the places gives: a view, and the tensors that index it (null where they leave a dimension alone). */
interface Sliced {
  view: Tensor;
  readonly tensors: (Tensor | null)[];
}

const isMask = (tensor: Tensor) => tensor.dtype === "bool" || tensor.dtype === "uint8";

function readIndex(index: Index | Index[]): Index {
  if (Array.isArray(index))
    return makeTensor(index as number[], index.length === 0 ? { dtype: "int64" } : {});
  if (index === null || index instanceof Tensor || index instanceof Slice || index === "...") return index;
  if (typeof index === "boolean" || typeof index === "bigint") return index;
  if (typeof index === "number" && Number.isInteger(index)) return index;
  throw new InvalidArgumentError(
    `[index] ${typeof index === "string" ? `"${index}"` : String(index)} is not an index: integers, null, "...", slice(a, b, c), booleans and tensors are.`,
  );
}

const specified = (index: Index) => {
  if (index instanceof Tensor) return isMask(index) ? index.ndim : 1;
  return index === null || index === "..." || typeof index === "boolean" ? 0 : 1;
};

/** A boolean adds a dimension of one: kept when true, emptied when false. */
const booleanIndex = (self: Tensor, value: boolean) =>
  tensorOp("zeros", "", [value ? 1 : 0], "int64", undefined, self.device);

function select(view: Tensor, dim: number, index: number | bigint, place: number): Tensor {
  const at = Number(index);
  try {
    return tensorOp("select", "int", view._handle, dim, at);
  } catch (error) {
    // Sizes are looked up only for the message: the usual index is a good one.
    const size = view.shape[dim];
    if (size === undefined) {
      const hint = "item() gives the value of a tensor without dimensions.";
      throw new ShapeError("[index] a tensor without dimensions cannot be indexed by an integer.", {
        cause: error,
        hint,
      });
    }
    if (at < size && at >= -size) throw error;
    throw new ShapeError(`[index] ${at} is out of bounds for dimension ${place} of size ${size}.`, {
      cause: error,
    });
  }
}

function applySlice(view: Tensor, dim: number, { start, stop, step }: Slice): Tensor {
  if (step !== null && step <= 0)
    throw new InvalidArgumentError(`[index] the step of a slice must be positive, got ${step}.`);
  return tensorOp("slice", "Tensor", view._handle, dim, start, stop, step ?? 1);
}

/** Applies everything but the tensors, which are collected beside the dimensions that they index. */
function applyIndices(self: Tensor, indices: readonly Index[]): Sliced {
  const wanted = indices.reduce<number>((count, index) => count + specified(index), 0);
  const { ndim } = self;
  if (wanted > ndim) throw new ShapeError(`[index] ${wanted} indices for a tensor of ${ndim} dimensions.`);
  const tensors: (Tensor | null)[] = [];
  let view = self;
  let dim = 0;
  // Once a tensor has been seen, every dimension passed leaves a gap.
  const pass = (dimensions: number) => {
    dim += dimensions;
    if (tensors.length > 0) for (let i = 0; i < dimensions; i++) tensors.push(null);
  };
  const record = (tensor: Tensor) => {
    if (tensors.length === 0) for (let i = 0; i < dim; i++) tensors.push(null);
    tensors.push(tensor);
    dim += isMask(tensor) ? tensor.ndim : 1;
  };
  for (const [place, index] of indices.entries()) {
    if (index === "...") pass(ndim - wanted);
    else if (index === null) {
      view = view.unsqueeze(dim);
      pass(1);
    } else if (index instanceof Slice) {
      view = applySlice(view, dim, index);
      pass(1);
    } else if (typeof index === "boolean") {
      view = view.unsqueeze(dim);
      record(booleanIndex(view, index));
    } else if (!(index instanceof Tensor)) {
      view = select(view, dim, index as number | bigint, place);
    } else if (index.ndim > 0 || index.is_meta || (!isIntegralDtype(index.dtype) && index.dtype !== "bool")) {
      record(index);
    } else if (isMask(index)) {
      view = view.unsqueeze(dim);
      record(booleanIndex(view, Boolean(index.item())));
    } else {
      view = select(view, dim, index.item<number>(), place);
    }
  }
  return { view, tensors };
}

function indexTensor(self: Tensor, given: readonly Index[]): Tensor {
  const { view, tensors } = applyIndices(self, given.map(readIndex));
  if (tensors.length === 0) return view === self ? tensorOp("alias", "", self._handle) : view;
  return tensorOp(
    "index",
    "Tensor",
    view._handle,
    tensors.map((tensor) => tensor?._handle ?? null),
  );
}

/** Leading dimensions of one are dropped from a value that is assigned, as NumPy does. */
function withoutLeadingOnes(values: Tensor): Tensor {
  const { shape } = values;
  const first = shape.findIndex((size) => size !== 1);
  return first === 0 || shape.length === 0 ? values : values.view(first < 0 ? [] : shape.slice(first));
}

function assign(target: Tensor, values: Tensor): void {
  const same = values.ndim === 0 || String(values.shape) === String(target.shape);
  target.copy_(same ? values : withoutLeadingOnes(values));
}

function valueTensor(self: Tensor, values: Tensor | Scalar): Tensor {
  if (values instanceof Tensor) return values;
  return tensorOp(
    "scalar_tensor",
    "",
    values instanceof FloatScalar ? [values.value] : values,
    self.dtype,
    undefined,
    self.is_meta ? "meta" : "cpu",
  );
}

function indexPut(self: Tensor, given: readonly Index[], values: Tensor | Scalar, accumulate: boolean): void {
  const indices = given.map(readIndex);
  const source = valueTensor(self, values);
  if (indices.length === 1 && indices[0] === false) return;
  if (accumulate && !indices.every((index) => index === null || index instanceof Tensor)) {
    throw new InvalidArgumentError("[index_put_] accumulate takes tensors only.");
  }
  // Indices of torch's own form: null leaves a dimension alone, instead of adding one.
  const plain = accumulate
    ? { view: self, tensors: indices as (Tensor | null)[] }
    : applyIndices(self, indices);
  if (plain.tensors.length === 0) {
    assign(plain.view, source);
    return;
  }
  const value = accumulate ? source : withoutLeadingOnes(source);
  const handles = plain.tensors.map((tensor) => tensor?._handle ?? null);
  addon().call(findOp("index_put_", ""), null, plain.view._handle, handles, value._handle, accumulate);
}

extendTensor({
  index(this: Tensor, ...indices: Index[]): Tensor {
    return indexTensor(this, indices);
  },
  index_put_(
    this: Tensor,
    indices: Index | readonly Index[],
    values: Tensor | Scalar,
    options: boolean | { accumulate?: boolean } = {},
  ): Tensor {
    const accumulate = typeof options === "boolean" ? options : (options.accumulate ?? false);
    indexPut(this, Array.isArray(indices) ? indices : [indices as Index], values, accumulate);
    return this;
  },
});
