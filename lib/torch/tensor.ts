// The tensor: a handle into the environment's table, facts about what it names, and its life.
// Methods that are operators are generated; the rest of them stand in the files that the interfaces below come from.
import { inspect } from "node:util";
import type { TypedArray } from "../addon/addon.ts";
import { addon, sizes } from "../addon/loader.ts";
import type { AutogradMethods } from "./autograd.ts";
import type { ConversionMethods } from "./conversion.ts";
import type { DataMethods } from "./data.ts";
import type { FunctionalMethods } from "./functional.ts";
import type { IndexingMethods } from "./indexing.ts";
import type { TensorMethods } from "./methods.generated.ts";
import type { PrintMethods } from "./print.ts";
import type { Device, Dtype, Layout, MemoryFormat } from "./types.ts";

/** The tensor without its history, which can be called for its values: see `Tensor.data`. */
export type TensorData = Tensor & ((options?: { raw?: boolean }) => Promise<TypedArray>);

export interface Tensor
  extends TensorMethods,
    IndexingMethods,
    ConversionMethods,
    DataMethods,
    AutogradMethods,
    FunctionalMethods,
    PrintMethods {}

/**
 * An n-dimensional array of one dtype on one device.
 *
 * Methods are torch's: positional arguments, then one options object (`x.sum([1], { keepdim: true })`). Memory is freed by
 * `dispose()`, by `using`, at the end of a `torch.tidy` scope, or once the object is garbage.
 *
 * @example
 * const x = torch.randn(2, 3, { requires_grad: true });
 * x.mul(2).sum().backward();
 * x.grad; // tensor of twos
 */
export class Tensor {
  /** Slot and generation in the environment's table; 0 before a result is stored. */
  _handle: number;

  constructor(handle = 0) {
    this._handle = handle;
  }

  // facts -------------------------------------------------------------------------------------------------

  /** Sizes, outermost first. A fresh array. */
  get shape(): number[] {
    return takeSizes(addon().shape(this._handle));
  }

  get dtype(): Dtype {
    return addon().dtype(this._handle) as Dtype;
  }

  get device(): Device {
    return addon().device(this._handle);
  }

  get layout(): Layout {
    return "strided";
  }

  get ndim(): number {
    return addon().dim(this._handle);
  }

  get is_cpu(): boolean {
    return this.device === "cpu";
  }

  get is_cuda(): boolean {
    return this.device.startsWith("cuda");
  }

  get is_meta(): boolean {
    return this.device === "meta";
  }

  /** Bytes per element. */
  get itemsize(): number {
    return addon().elementSize(this._handle);
  }

  /** Bytes of all elements, as if contiguous. */
  get nbytes(): number {
    return this.numel() * this.itemsize;
  }

  /** Counts in-place changes of the storage. */
  get _version(): number {
    return addon().version(this._handle);
  }

  /** All sizes, or one; negative dimensions count from the end. */
  size(): number[];
  size(dim: number): number;
  size(dim?: number): number | number[] {
    return dim === undefined ? this.shape : entry(this.shape, dim, "size");
  }

  /** Steps in elements between neighbours, of all dimensions or of one. */
  stride(): number[];
  stride(dim: number): number;
  stride(dim?: number): number | number[] {
    const strides = takeSizes(addon().stride(this._handle));
    return dim === undefined ? strides : entry(strides, dim, "stride");
  }

  /** The number of dimensions. */
  dim(): number {
    return addon().dim(this._handle);
  }

  ndimension(): number {
    return addon().dim(this._handle);
  }

  /** The number of elements. */
  numel(): number {
    return addon().numel(this._handle);
  }

  nelement(): number {
    return addon().numel(this._handle);
  }

  element_size(): number {
    return addon().elementSize(this._handle);
  }

  /** Elements between the storage's begin and the first element. */
  storage_offset(): number {
    return addon().storageOffset(this._handle);
  }

  /** Same `id` = same memory. */
  untyped_storage(): { id: number; nbytes: number } {
    return addon().storage(this._handle);
  }

  is_contiguous({ memory_format = "contiguous_format" }: { memory_format?: MemoryFormat } = {}): boolean {
    return addon().isContiguous(this._handle, memory_format);
  }

  /** The index of a CUDA device, -1 on others. */
  get_device(): number {
    return this.is_cuda ? Number(this.device.split(":")[1] ?? 0) : -1;
  }

  // life --------------------------------------------------------------------------------------------------

  /** Gives this tensor up: its memory is freed once no view or graph needs it. Later use is a DisposedError. */
  dispose(): void {
    addon().dispose(this._handle);
  }

  [Symbol.dispose](): void {
    addon().dispose(this._handle);
  }

  get is_disposed(): boolean {
    return addon().isDisposed(this._handle);
  }

  /** A token that one other thread turns into a tensor over the same memory with `torch.from_shared(token)`. */
  share(): number {
    return addon().share(this._handle);
  }

  [inspect.custom](): string {
    return this.toString();
  }
}

/** The first `count` of the values that the addon left. Array literals are several times as fast as a loop. */
function takeSizes(count: number): number[] {
  const [a, b, c, d] = [sizes[0] as number, sizes[1] as number, sizes[2] as number, sizes[3] as number];
  switch (count) {
    case 1:
      return [a];
    case 2:
      return [a, b];
    case 3:
      return [a, b, c];
    case 4:
      return [a, b, c, d];
    default:
      return Array.from(sizes.subarray(0, count));
  }
}

function entry(values: readonly number[], dim: number, what: string): number {
  const value = values.at(dim);
  if (value === undefined || dim < -values.length) {
    throw new RangeError(
      `[${what}] dimension ${dim} is out of range for a tensor of ${values.length} dimensions`,
    );
  }
  return value;
}

/** Adds methods and accessors to Tensor; not enumerable, as those of a class. */
export function extendTensor(methods: object): void {
  for (const name of Reflect.ownKeys(methods)) {
    const descriptor = Object.getOwnPropertyDescriptor(methods, name) as PropertyDescriptor;
    Object.defineProperty(Tensor.prototype, name, { ...descriptor, enumerable: false });
  }
}

/** A Tensor for a handle that has no owner yet. */
export function adopt(handle: number): Tensor {
  const tensor = new Tensor(handle);
  addon().adopt(handle, tensor);
  return tensor;
}
