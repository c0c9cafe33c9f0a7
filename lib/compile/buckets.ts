// Lengths of arguments, padded to a few sizes, so that few recordings serve many lengths.
import { InvalidArgumentError, TraceError } from "../errors/index.ts";
import { constant_pad_nd, Tensor } from "../torch/index.ts";
import type { Program } from "./program.ts";
import { describe } from "./tree.ts";

/** Where a length is. */
export interface PaddedDim {
  /** Which dimension; negative ones count from the end. */
  dim: number;
  /** What the padding holds. Default: 0. */
  value?: number | boolean | undefined;
}

/** One length that differs between calls (of sequences, of a batch), and the sizes that it is padded to. */
export interface Bucket {
  /**
   * The tensors that have it, by path: the position of the argument, then keys ("0", "0.input_ids", "1.batch.0"). All that a
   * call has must agree; what it leaves out (undefined, null) is passed over.
   */
  args: Readonly<Record<string, PaddedDim>>;
  /** The sizes, or a function from a length to a size that is not smaller. */
  sizes: readonly number[] | ((length: number) => number);
  /** Where the padding is. Default: "right". */
  side?: "left" | "right" | undefined;
}

/** One bucket in one call. */
interface Fill {
  readonly bucket: Bucket;
  readonly length: number;
  readonly size: number;
}

/** What has to be taken off an output: everything beyond the length of a bucket, in one dimension. */
interface Cut {
  readonly bucket: Bucket;
  readonly dim: number;
}

/** The arguments of one call, padded. */
export interface Filled {
  readonly fills: readonly Fill[];
  /** What takes the place of the arguments' tensors. */
  readonly padded: ReadonlyMap<Tensor, Tensor>;
}

export function checkBuckets(given: Bucket | readonly Bucket[]): readonly Bucket[] {
  const buckets = Array.isArray(given) ? (given as readonly Bucket[]) : [given as Bucket];
  for (const [i, bucket] of buckets.entries()) {
    const fail = (text: string): never => {
      throw new InvalidArgumentError(`[compile] buckets[${i}]: ${text}`);
    };
    if (typeof bucket !== "object" || bucket === null) fail("must be an object.");
    for (const name of Object.keys(bucket))
      if (!["args", "sizes", "side"].includes(name)) fail(`unknown option '${name}'.`);
    const { args, sizes, side = "right" } = bucket;
    if (typeof args !== "object" || args === null || Object.keys(args).length === 0)
      fail("args must name at least one tensor.");
    for (const [path, { dim }] of Object.entries(args)) {
      if (!/^\d+(\.|$)/.test(path)) fail(`'${path}' must begin with the position of an argument.`);
      if (!Number.isInteger(dim)) fail(`the dim of '${path}' must be an integer, got ${dim}.`);
    }
    const isSize = (size: unknown) => Number.isInteger(size) && (size as number) > 0;
    if (typeof sizes !== "function" && !(Array.isArray(sizes) && sizes.length > 0 && sizes.every(isSize)))
      fail("sizes must be positive integers, or a function.");
    if (!["left", "right"].includes(side)) fail(`side must be "left" or "right", got ${String(side)}.`);
  }
  return buckets;
}

/** Pads the tensors of a call that are shorter than their bucket's size. */
export function fill(buckets: readonly Bucket[], args: readonly unknown[]): Filled {
  const padded = new Map<Tensor, Tensor>();
  const fills = buckets.map((bucket): Fill => {
    const found = Object.entries(bucket.args).flatMap(([path, where]) => {
      const tensor = at(args, path);
      if (tensor === undefined || tensor === null) return [];
      if (!(tensor instanceof Tensor))
        throw new InvalidArgumentError(`[compile] buckets: '${path}' is no tensor.`);
      const dim = where.dim < 0 ? where.dim + tensor.dim() : where.dim;
      const length = tensor.shape[dim];
      if (length === undefined)
        throw new InvalidArgumentError(
          `[compile] buckets: '${path}' of shape [${tensor.shape.join(", ")}] has no dimension ${where.dim}.`,
        );
      return [{ path, tensor, dim, length, value: Number(where.value ?? 0) }];
    });
    const [first] = found;
    const paths = Object.keys(bucket.args).join("', '");
    if (first === undefined)
      throw new InvalidArgumentError(`[compile] buckets: none of '${paths}' is among the arguments.`);
    const { length } = first;
    const other = found.find((each) => each.length !== length);
    if (other)
      throw new InvalidArgumentError(
        `[compile] buckets: '${first.path}' has length ${length}, '${other.path}' has ${other.length}.`,
      );
    const size = sizeFor(bucket, length, paths);
    if (size > length) {
      for (const { tensor, dim, value } of found) {
        const before = padded.get(tensor) ?? tensor;
        const amount = new Array<number>(2 * (tensor.dim() - dim)).fill(0);
        amount[amount.length - (bucket.side === "left" ? 2 : 1)] = size - length;
        padded.set(tensor, constant_pad_nd(before, amount, value));
      }
    }
    return { bucket, length, size };
  });
  return { fills, padded };
}

function at(value: unknown, path: string): unknown {
  return path
    .split(".")
    .reduce<unknown>((inner, key) => (inner as Record<string, unknown> | null | undefined)?.[key], value);
}

function sizeFor({ sizes }: Bucket, length: number, paths: string): number {
  const size =
    typeof sizes === "function"
      ? sizes(length)
      : [...sizes].sort((a, b) => a - b).find((each) => each >= length);
  if (size === undefined)
    throw new InvalidArgumentError(
      `[compile] buckets: '${paths}' has length ${length}, the largest size is ${Math.max(...(sizes as number[]))}.`,
      { hint: "Add a larger size, or give `sizes` as a function." },
    );
  if (!Number.isInteger(size) || size < length)
    throw new InvalidArgumentError(
      `[compile] buckets: sizes(${length}) must be at least ${length}, got ${size}.`,
    );
  return size;
}

/**
 * Which dimensions of a Program's outputs are as long as a padded length: found by comparing it with a recording for the
 * arguments as they are, since a size of 64 may as well be that of a layer.
 *
 * @throws TraceError where results depend on a length in another way
 */
export function findCuts(
  padded: Program,
  exact: Program,
  fills: readonly Fill[],
): readonly (readonly Cut[])[] {
  const texts = [padded, exact].map((program) => describe(program._result, program._mutations));
  if (texts[0] !== texts[1])
    throw new TraceError("[compile] buckets: the result depends on a length by more than its shapes.", {
      hint: "Return tensors only, or leave `buckets` out.",
    });
  return padded._shapes.map((shape, i) => {
    const short = exact._shapes[i] as readonly number[];
    const refuse = (reason: string): never => {
      throw new TraceError(
        `[compile] buckets: output ${i} has shape [${short.join(", ")}] for the arguments as they are, [${shape.join(", ")}] when they are padded: ${reason}.`,
        { hint: "Only dimensions that are as long as a padded argument's can be cut back." },
      );
    };
    if (short.length !== shape.length) refuse("the number of dimensions differs");
    return shape.flatMap((size, dim): Cut[] => {
      if (size === short[dim]) return [];
      const owners = fills.filter((fill) => fill.size === size && fill.length === short[dim]);
      const [owner] = owners;
      if (owner === undefined) return refuse(`dimension ${dim} is not a padded length`);
      if (owners.length > 1)
        return refuse(
          `dimension ${dim} may be one of ${owners.length} lengths; call it with different ones first`,
        );
      return [{ bucket: owner.bucket, dim }];
    });
  });
}

/** The part of an output that is not padding; a view. */
export function cut(output: Tensor, cuts: readonly Cut[], fills: readonly Fill[]): Tensor {
  let tensor = output;
  for (const { bucket, dim } of cuts) {
    const { length, size } = fills.find((fill) => fill.bucket === bucket) as Fill;
    if (length < size) tensor = tensor.narrow(dim, bucket.side === "left" ? size - length : 0, length);
  }
  return tensor;
}
