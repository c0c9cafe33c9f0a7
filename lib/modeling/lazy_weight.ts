// Weights that are not read yet: what a conversion makes of them is a shape and a list of copies, so that a tensor that is
// stacked from hundreds of others is filled piece by piece where it will stay.
import { CheckpointError } from "../errors/index.ts";
import { dtypeBytes } from "../torch/dtype.ts";
import type { Dtype, Tensor } from "../torch/index.ts";

/** A strided part of a contiguous tensor, in elements. */
export interface View {
  readonly offset: number;
  readonly sizes: readonly number[];
  readonly strides: readonly number[];
}

/** One copy: a part of `source` goes into `into`. */
export interface Copy<Source> {
  readonly source: Source;
  readonly view: View;
  readonly into: Tensor;
}

/** Which memory a weight would share with others, were it read and converted as the reference does it; for sizes of files. */
export interface Memory {
  readonly bytes: number;
}

const product = (sizes: readonly number[]) => sizes.reduce((a, b) => a * b, 1);

/** The strides of a tensor whose elements lie one after the other. */
export function contiguousStrides(sizes: readonly number[]): number[] {
  const strides: number[] = new Array(sizes.length);
  let stride = 1;
  for (let i = sizes.length - 1; i >= 0; i--) {
    strides[i] = stride;
    stride *= sizes[i] as number;
  }
  return strides;
}

const replaced = <T>(list: readonly T[], at: number, ...values: T[]) => [
  ...list.slice(0, at),
  ...values,
  ...list.slice(at + 1),
];

const swapped = <T>(list: readonly T[], a: number, b: number) => {
  const copy = [...list];
  [copy[a], copy[b]] = [list[b] as T, list[a] as T];
  return copy;
};

/**
 * A weight made of parts of sources, unread. The operations mirror tensors' and give new weights; dimensions may count
 * from the end.
 */
export abstract class LazyWeight<Source> {
  abstract readonly shape: readonly number[];
  abstract readonly dtype: Dtype;
  abstract readonly memory: Memory;

  abstract narrow(dim: number, start: number, length: number): LazyWeight<Source>;
  abstract transpose(a: number, b: number): LazyWeight<Source>;
  abstract unsqueeze(dim: number): LazyWeight<Source>;
  /** Takes away a dimension of size 1. */
  abstract squeeze(dim: number): LazyWeight<Source>;
  /** Splits one dimension into several whose product it is. */
  abstract unflatten(dim: number, sizes: readonly number[]): LazyWeight<Source>;
  /** The same weight in memory of its own, unless it lies in order as it is. */
  abstract contiguous(): LazyWeight<Source>;
  /** The copies that fill `into`, a tensor of this shape. */
  abstract copies(into: Tensor): Copy<Source>[];

  /** The parts of sources that it is made of. */
  abstract sources(): Pick<Copy<Source>, "source" | "view">[];

  /** The source and the view when nothing but a view of one source is meant. */
  asView(): { readonly source: Source; readonly view: View } | undefined {
    return undefined;
  }

  /** As dimension `dim` counts here; one past the end is allowed for `unsqueeze`. */
  protected dim(dim: number, count: number = this.shape.length): number {
    const at = dim < 0 ? dim + count : dim;
    if (!(Number.isInteger(at) && at >= 0 && at < count)) {
      throw new CheckpointError(`Dimension ${dim} does not exist in a weight of shape [${this.shape}].`);
    }
    return at;
  }

  /** As torch.chunk: `count` parts, the last ones smaller or absent. */
  chunk(count: number, dim = 0): LazyWeight<Source>[] {
    const at = this.dim(dim);
    const size = this.shape[at] as number;
    const length = Math.ceil(size / count);
    const parts: LazyWeight<Source>[] = [];
    for (let start = 0; start < size; start += length)
      parts.push(this.narrow(at, start, Math.min(length, size - start)));
    return parts.length > 0 ? parts : [this];
  }

  split(sizes: readonly number[], dim = 0): LazyWeight<Source>[] {
    const at = this.dim(dim);
    const total = sizes.reduce((a, b) => a + b, 0);
    if (total !== this.shape[at]) {
      throw new CheckpointError(
        `A weight of shape [${this.shape}] does not split into ${sizes} along ${dim}.`,
      );
    }
    let start = 0;
    return sizes.map((size) => {
      const part = this.narrow(at, start, size);
      start += size;
      return part;
    });
  }

  /** Dimensions `dim` to `dim + count - 1` as one. */
  flatten(dim: number, count: number): LazyWeight<Source> {
    const at = this.dim(dim);
    return count === 1 ? this : new Flattened(this, at, count);
  }
}

/** A view of one source. */
export class WeightPart<Source> extends LazyWeight<Source> {
  readonly source: Source;
  readonly dtype: Dtype;
  readonly view: View;
  readonly memory: Memory;

  constructor(source: Source, dtype: Dtype, view: View, memory: Memory) {
    super();
    this.source = source;
    this.dtype = dtype;
    this.view = view;
    this.memory = memory;
  }

  /** All of a source. */
  static whole<Source>(
    source: Source,
    dtype: Dtype,
    shape: readonly number[],
    memory: Memory = { bytes: product(shape) * dtypeBytes(dtype) },
  ): WeightPart<Source> {
    const view = { offset: 0, sizes: shape, strides: contiguousStrides(shape) };
    return new WeightPart(source, dtype, view, memory);
  }

  /** Whether its elements lie one after the other. */
  get is_contiguous(): boolean {
    const { sizes, strides } = this.view;
    const wanted = contiguousStrides(sizes);
    return sizes.every((size, i) => size === 1 || strides[i] === wanted[i]);
  }

  override contiguous(): LazyWeight<Source> {
    if (this.is_contiguous) return this;
    const memory = { bytes: product(this.shape) * dtypeBytes(this.dtype) };
    return new WeightPart(this.source, this.dtype, this.view, memory);
  }

  override get shape(): readonly number[] {
    return this.view.sizes;
  }

  #with(offset: number, sizes: readonly number[], strides: readonly number[]): WeightPart<Source> {
    return new WeightPart(this.source, this.dtype, { offset, sizes, strides }, this.memory);
  }

  override narrow(dim: number, start: number, length: number): LazyWeight<Source> {
    const { offset, sizes, strides } = this.view;
    const at = this.dim(dim);
    return this.#with(offset + start * (strides[at] as number), replaced(sizes, at, length), strides);
  }

  override transpose(a: number, b: number): LazyWeight<Source> {
    const { offset, sizes, strides } = this.view;
    const [x, y] = [this.dim(a), this.dim(b)];
    return this.#with(offset, swapped(sizes, x, y), swapped(strides, x, y));
  }

  override unsqueeze(dim: number): LazyWeight<Source> {
    const { offset, sizes, strides } = this.view;
    const at = this.dim(dim, sizes.length + 1);
    const insert = (list: readonly number[]) => [...list.slice(0, at), 1, ...list.slice(at)];
    return this.#with(offset, insert(sizes), insert(strides));
  }

  override squeeze(dim: number): LazyWeight<Source> {
    const { offset, sizes, strides } = this.view;
    const at = this.dim(dim);
    return this.#with(offset, replaced(sizes, at), replaced(strides, at));
  }

  override unflatten(dim: number, parts: readonly number[]): LazyWeight<Source> {
    const { offset, sizes, strides } = this.view;
    const at = this.dim(dim);
    const stride = strides[at] as number;
    const inner = contiguousStrides(parts).map((each) => each * stride);
    return this.#with(offset, replaced(sizes, at, ...parts), replaced(strides, at, ...inner));
  }

  override copies(into: Tensor): Copy<Source>[] {
    return [{ source: this.source, view: this.view, into }];
  }

  override sources() {
    return [{ source: this.source, view: this.view }];
  }

  override asView() {
    return { source: this.source, view: this.view };
  }
}

/** Several weights one after the other along a dimension. */
export class JoinedWeight<Source> extends LazyWeight<Source> {
  readonly parts: readonly LazyWeight<Source>[];
  readonly along: number;
  readonly shape: readonly number[];
  readonly memory: Memory;

  constructor(parts: readonly LazyWeight<Source>[], dim: number) {
    super();
    const [first] = parts;
    if (first === undefined) throw new CheckpointError("Nothing to join.");
    this.parts = parts;
    this.shape = first.shape;
    this.along = this.dim(dim);
    for (const { shape } of parts) {
      const fits =
        shape.length === first.shape.length &&
        shape.every((size, i) => i === this.along || size === first.shape[i]);
      if (!fits)
        throw new CheckpointError(
          `Weights of shapes [${first.shape}] and [${shape}] do not join along ${dim}.`,
        );
    }
    const total = parts.reduce((sum, { shape }) => sum + (shape[this.along] as number), 0);
    this.shape = replaced(first.shape, this.along, total);
    this.memory = { bytes: product(this.shape) * dtypeBytes(first.dtype) };
  }

  override get dtype(): Dtype {
    return (this.parts[0] as LazyWeight<Source>).dtype;
  }

  override contiguous(): LazyWeight<Source> {
    return this;
  }

  #each(change: (part: LazyWeight<Source>) => LazyWeight<Source>, along = this.along): LazyWeight<Source> {
    return new JoinedWeight(this.parts.map(change), along);
  }

  override narrow(dim: number, start: number, length: number): LazyWeight<Source> {
    const at = this.dim(dim);
    if (at !== this.along) return this.#each((part) => part.narrow(at, start, length));
    const kept: LazyWeight<Source>[] = [];
    let begin = 0;
    for (const part of this.parts) {
      const size = part.shape[at] as number;
      const from = Math.max(start - begin, 0);
      const to = Math.min(start + length - begin, size);
      if (from < to) kept.push(from === 0 && to === size ? part : part.narrow(at, from, to - from));
      begin += size;
    }
    if (kept.length === 0) kept.push((this.parts[0] as LazyWeight<Source>).narrow(at, 0, 0));
    return kept.length === 1 ? (kept[0] as LazyWeight<Source>) : new JoinedWeight(kept, at);
  }

  override transpose(a: number, b: number): LazyWeight<Source> {
    const [x, y] = [this.dim(a), this.dim(b)];
    const along = this.along === x ? y : this.along === y ? x : this.along;
    return this.#each((part) => part.transpose(x, y), along);
  }

  override unsqueeze(dim: number): LazyWeight<Source> {
    const at = this.dim(dim, this.shape.length + 1);
    return this.#each((part) => part.unsqueeze(at), this.along >= at ? this.along + 1 : this.along);
  }

  override squeeze(dim: number): LazyWeight<Source> {
    const at = this.dim(dim);
    if (at === this.along) {
      const part = this.parts.find(({ shape }) => shape[at] === 1) as LazyWeight<Source>;
      return part.squeeze(at);
    }
    return this.#each((part) => part.squeeze(at), this.along > at ? this.along - 1 : this.along);
  }

  override unflatten(dim: number, sizes: readonly number[]): LazyWeight<Source> {
    const at = this.dim(dim);
    if (at !== this.along) {
      const along = this.along > at ? this.along + sizes.length - 1 : this.along;
      return this.#each((part) => part.unflatten(at, sizes), along);
    }
    // Whole rows of what is split off must come from one part.
    const inner = product(sizes.slice(1));
    if (this.parts.some(({ shape }) => (shape[at] as number) % inner !== 0))
      throw new CheckpointError(`Weights joined to [${this.shape}] do not split into ${sizes}.`);
    return this.#each((part) => part.unflatten(at, [(part.shape[at] as number) / inner, ...sizes.slice(1)]));
  }

  override copies(into: Tensor): Copy<Source>[] {
    let start = 0;
    return this.parts.flatMap((part) => {
      const size = part.shape[this.along] as number;
      const region = into.narrow(this.along, start, size);
      start += size;
      return part.copies(region);
    });
  }

  override sources(): Pick<Copy<Source>, "source" | "view">[] {
    return this.parts.flatMap((part) => part.sources());
  }
}

/** Neighbouring dimensions of a weight as one, whose elements may lie in any order. */
class Flattened<Source> extends LazyWeight<Source> {
  readonly inner: LazyWeight<Source>;
  readonly at: number;
  readonly count: number;
  readonly shape: readonly number[];
  readonly memory: Memory;

  constructor(inner: LazyWeight<Source>, at: number, count: number) {
    super();
    this.inner = inner;
    this.at = at;
    this.count = count;
    const sizes = inner.shape.slice(at, at + count);
    this.shape = [...inner.shape.slice(0, at), product(sizes), ...inner.shape.slice(at + count)];
    this.memory = { bytes: product(this.shape) * dtypeBytes(inner.dtype) };
  }

  override get dtype(): Dtype {
    return this.inner.dtype;
  }

  override contiguous(): LazyWeight<Source> {
    return this;
  }

  /** Where a dimension outside of the flattened ones is in the inner weight. */
  #outer = (dim: number) => (dim < this.at ? dim : dim + this.count - 1);

  override narrow(dim: number, start: number, length: number): LazyWeight<Source> {
    const at = this.dim(dim);
    if (at !== this.at)
      return new Flattened(this.inner.narrow(this.#outer(at), start, length), this.at, this.count);
    const row = product(this.inner.shape.slice(this.at + 1, this.at + this.count));
    if (start % row !== 0 || length % row !== 0)
      throw new CheckpointError(`A rearranged weight of shape [${this.shape}] cannot be cut at ${start}.`);
    return new Flattened(this.inner.narrow(this.at, start / row, length / row), this.at, this.count);
  }

  override transpose(a: number, b: number): LazyWeight<Source> {
    const [x, y] = [this.dim(a), this.dim(b)];
    if (x === y) return this;
    if (x === this.at || y === this.at)
      throw new CheckpointError(
        `A rearranged dimension of a weight of shape [${this.shape}] cannot be moved.`,
      );
    return new Flattened(this.inner.transpose(this.#outer(x), this.#outer(y)), this.at, this.count);
  }

  override unsqueeze(dim: number): LazyWeight<Source> {
    const at = this.dim(dim, this.shape.length + 1);
    return at <= this.at
      ? new Flattened(this.inner.unsqueeze(at), this.at + 1, this.count)
      : new Flattened(this.inner.unsqueeze(at + this.count - 1), this.at, this.count);
  }

  override squeeze(dim: number): LazyWeight<Source> {
    const at = this.dim(dim);
    if (at === this.at)
      throw new CheckpointError(`A rearranged dimension of a weight of shape [${this.shape}] cannot go.`);
    return new Flattened(
      this.inner.squeeze(this.#outer(at)),
      at < this.at ? this.at - 1 : this.at,
      this.count,
    );
  }

  override unflatten(dim: number, sizes: readonly number[]): LazyWeight<Source> {
    const at = this.dim(dim);
    if (at !== this.at) {
      const inner = this.inner.unflatten(this.#outer(at), sizes);
      return new Flattened(inner, at < this.at ? this.at + sizes.length - 1 : this.at, this.count);
    }
    const before = this.inner.shape.slice(this.at, this.at + this.count);
    if (before.length === sizes.length && before.every((size, i) => size === sizes[i])) return this.inner;
    throw new CheckpointError(`A rearranged weight of shape [${this.shape}] does not split into ${sizes}.`);
  }

  override copies(into: Tensor): Copy<Source>[] {
    const sizes = this.inner.shape.slice(this.at, this.at + this.count);
    return this.inner.copies(into.unflatten(this.at, [...sizes]));
  }

  override sources(): Pick<Copy<Source>, "source" | "view">[] {
    return this.inner.sources();
  }
}
