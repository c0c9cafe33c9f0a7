// JavaScript values into tensors and back.
import type { TypedArray } from "../addon/addon.ts";
import { addon } from "../addon/loader.ts";
import { DtypeError, InvalidArgumentError, ShapeError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { defaultDevice } from "./default_device.ts";
import { asDtype, dtypeBytes, dtypeCategory, isComplexDtype, isIntegralDtype } from "./dtype.ts";
import { extendTensor, Tensor } from "./tensor.ts";
import {
  type Device,
  type Dtype,
  FloatScalar,
  type NestedArray,
  type TensorList,
  type TensorOptions,
} from "./types.ts";

export interface DataMethods {
  /**
   * The single value of a tensor: a number (bigint where int64 is beyond 2^53), a boolean, or `[re, im]`.
   *
   * @throws when there is more than one element
   */
  item(): number;
  item<T extends number | bigint | boolean | [number, number]>(): T;
  /** Nested arrays; int64 as numbers where safe, else bigint; bool as booleans. */
  tolist(): TensorList;
  tolist<T>(): T;
  /** A tensor of `values` with this one's dtype and device. */
  new_tensor(values: TensorInput, options?: TensorOptions): Tensor;
  /** Goes over the first dimension. */
  [Symbol.iterator](): IterableIterator<Tensor>;
}

/** What `torch.tensor` takes. */
export type TensorInput = NestedArray<number | bigint | boolean | FloatScalar | Tensor | TypedArray>;

const OPTIONS = ["dtype", "device", "requires_grad", "shape", "pin_memory", "layout"];

// Typed arrays ------------------------------------------------------------------------------------------------

const TYPED: Record<string, Dtype> = {
  Float64Array: "float64",
  Float32Array: "float32",
  Float16Array: "float16",
  BigInt64Array: "int64",
  BigUint64Array: "uint64",
  Int32Array: "int32",
  Uint32Array: "uint32",
  Int16Array: "int16",
  Uint16Array: "uint16",
  Int8Array: "int8",
  Uint8Array: "uint8",
  Uint8ClampedArray: "uint8",
  Buffer: "uint8",
};

const isTypedArray = (value: unknown): value is TypedArray =>
  ArrayBuffer.isView(value) && !(value instanceof DataView);

function typedDtype(array: TypedArray): Dtype {
  const dtype = TYPED[Object.prototype.toString.call(array).slice(8, -1)];
  if (dtype === undefined) throw new DtypeError(`[tensor] no dtype for ${array.constructor.name}.`);
  return dtype;
}

/** float16 arrays cross as their bits. */
const bitsOf = (array: TypedArray, dtype: Dtype): TypedArray =>
  dtype === "float16" && !(array instanceof Uint16Array)
    ? new Uint16Array(array.buffer, array.byteOffset, array.length)
    : array;

// Nested arrays -----------------------------------------------------------------------------------------------

type Nest = readonly unknown[] | TypedArray;
const isNest = (value: unknown): value is Nest => Array.isArray(value) || isTypedArray(value);

function shapeOf(values: unknown): number[] {
  const shape: number[] = [];
  for (let level = values; isNest(level); level = level[0]) {
    shape.push(level.length);
    if (level.length === 0) break;
  }
  return shape;
}

/** All values in order; names the place where the nest is ragged. */
function flatten(
  values: unknown,
  shape: readonly number[],
  depth: number,
  place: string,
  flat: unknown[],
): void {
  if (depth === shape.length) {
    if (isNest(values))
      throw new ShapeError(
        `[tensor] expected a value at ${place || "the top"}, got an array of ${values.length}.`,
      );
    flat.push(values);
    return;
  }
  if (!isNest(values)) {
    throw new ShapeError(
      `[tensor] expected an array of ${shape[depth]} at ${place || "the top"}, got ${describe(values)}.`,
    );
  }
  if (values.length !== shape[depth]) {
    throw new ShapeError(
      `[tensor] expected ${shape[depth]} entries at ${place || "the top"}, got ${values.length}.`,
    );
  }
  if (depth === shape.length - 1 && isTypedArray(values)) {
    const floats = dtypeCategory(typedDtype(values)) === 2;
    for (const value of values) flat.push(floats ? new FloatScalar(value as number) : value);
    return;
  }
  for (let i = 0; i < values.length; i++) flatten(values[i], shape, depth + 1, `${place}[${i}]`, flat);
}

const describe = (value: unknown) =>
  value === null
    ? "null"
    : typeof value === "object"
      ? value.constructor?.name
      : `${typeof value} ${String(value)}`;

/** Python's rule over the whole nest: any float makes floats, else any integer int64, else bool. */
function inferDtype(flat: readonly unknown[]): Dtype {
  let category = -1;
  let complex = false;
  for (const value of flat) {
    let own = 0;
    if (typeof value === "number") own = Number.isSafeInteger(value) && !Object.is(value, -0) ? 1 : 2;
    else if (typeof value === "bigint") own = 1;
    else if (value instanceof FloatScalar) own = 2;
    else if (value instanceof Tensor) own = dtypeCategory(value.dtype);
    else if (typeof value !== "boolean")
      throw new InvalidArgumentError(`[tensor] ${describe(value)} is not a number, bigint or boolean.`);
    if (own === 3) complex = true;
    if (own > category) category = own;
  }
  if (complex) return addon().defaultDtype() === "float64" ? "complex128" : "complex64";
  return category === 0 ? "bool" : category === 1 ? "int64" : (addon().defaultDtype() as Dtype);
}

const plainValue = (value: unknown): number | bigint | boolean => {
  if (value instanceof FloatScalar) return value.value;
  if (value instanceof Tensor) return value.item<number>();
  return value as number | bigint | boolean;
};

const RANGES: Partial<Record<Dtype, readonly [number, number]>> = {
  int32: [-(2 ** 31), 2 ** 31 - 1],
  int16: [-32768, 32767],
  int8: [-128, 127],
  uint8: [0, 255],
  uint16: [0, 65535],
  uint32: [0, 2 ** 32 - 1],
};

const ARRAYS = {
  int32: Int32Array,
  int16: Int16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
};

/** The values as an array of `dtype`, or of one that casts to it without loss; says which. */
function encode(flat: readonly unknown[], dtype: Dtype): [TypedArray, Dtype] {
  if (dtype === "bool")
    return [Uint8Array.from(flat, (value) => (Number(plainValue(value)) !== 0 ? 1 : 0)), "bool"];
  if (dtype === "int64" || dtype === "uint64") {
    const whole = (value: unknown) => {
      const plain = plainValue(value);
      if (typeof plain === "number" && !Number.isFinite(plain))
        throw new InvalidArgumentError(`[tensor] cannot convert ${plain} to ${dtype}.`);
      return typeof plain === "number" ? BigInt(Math.trunc(plain)) : BigInt(plain);
    };
    return dtype === "int64"
      ? [BigInt64Array.from(flat, whole), dtype]
      : [BigUint64Array.from(flat, whole), dtype];
  }
  if (isIntegralDtype(dtype)) {
    const [low, high] = RANGES[dtype] as readonly [number, number];
    const whole = (value: unknown) => {
      const number = Math.trunc(Number(plainValue(value)));
      if (!(number >= low && number <= high))
        throw new InvalidArgumentError(`[tensor] ${number} does not fit into ${dtype}.`);
      return number;
    };
    return [(ARRAYS[dtype as keyof typeof ARRAYS] as Int32ArrayConstructor).from(flat, whole), dtype];
  }
  const wide = dtype === "float64" || dtype === "complex128";
  const numbers = (value: unknown) => Number(plainValue(value));
  return wide ? [Float64Array.from(flat, numbers), "float64"] : [Float32Array.from(flat, numbers), "float32"];
}

// torch.tensor and its kin ------------------------------------------------------------------------------------

export interface TensorFromOptions extends TensorOptions {
  /** Sizes of a tensor made from a flat array. */
  shape?: readonly number[] | undefined;
}

function fromTyped(data: TypedArray, dtype: Dtype, shape: readonly number[]): Tensor {
  const count = shape.reduce((product, size) => product * size, 1);
  const entries = isComplexDtype(dtype) ? data.length / 2 : data.length;
  if (count !== entries)
    throw new ShapeError(`[tensor] ${entries} values do not fill the shape [${shape.join(", ")}].`);
  const out = new Tensor();
  out._handle = addon().fromData(out, data, dtype, shape);
  return out;
}

/**
 * A new tensor with a copy of the values.
 *
 * Whole numbers make int64, others the default dtype, booleans bool, bigints int64 (over the whole nest, as in Python);
 * a typed array gives its own dtype.
 *
 * @throws ShapeError when the nest is ragged, naming the place
 * @example
 * torch.tensor([[1, 2], [3, 4]]);                                  // int64, shape [2, 2]
 * torch.tensor(new Float32Array(6), { shape: [2, 3] });
 * torch.tensor([1, 2], { dtype: "bfloat16", requires_grad: true });
 */
export function tensor(values: TensorInput, options: TensorFromOptions = {}): Tensor {
  for (const name of Object.keys(options)) {
    if (!OPTIONS.includes(name))
      throw new InvalidArgumentError(`[tensor] unknown option '${name}'.`, {
        suggestion: suggest(name, OPTIONS),
      });
  }
  const { requires_grad = false, shape } = options;
  const device = options.device ?? defaultDevice.name;
  const dtype = options.dtype == null ? undefined : asDtype(options.dtype);
  let out: Tensor;
  if (values instanceof Tensor) {
    out = values.detach().clone();
  } else if (isTypedArray(values)) {
    const own = typedDtype(values);
    out = fromTyped(bitsOf(values, own), own, shape ?? [values.length]);
  } else {
    const nest = shapeOf(values);
    const flat: unknown[] = [];
    flatten(values, nest, 0, "", flat);
    const wanted = dtype ?? inferDtype(flat);
    const [data, own] = encode(flat, wanted);
    out = fromTyped(data, own, shape ?? nest);
    if (own !== wanted) out = out.to(wanted);
  }
  if (dtype !== undefined || device !== undefined) out = out.to({ dtype, device });
  if (requires_grad) out.requires_grad = true;
  return out;
}

/** The tensor itself where dtype and device fit already; else like `torch.tensor`. */
export function as_tensor(
  values: TensorInput,
  options: Pick<TensorOptions, "dtype" | "device"> = {},
): Tensor {
  return values instanceof Tensor ? values.to(options) : tensor(values, options);
}

/** Like `as_tensor`; `copy: true` always copies. */
export function asarray(
  values: TensorInput,
  { copy = false, requires_grad = false, ...options }: TensorOptions & { copy?: boolean | null } = {},
): Tensor {
  const out =
    values instanceof Tensor
      ? values.to({ dtype: options.dtype, device: options.device, copy: copy ?? false })
      : tensor(values, options);
  if (requires_grad) out.requires_grad = true;
  return out;
}

export interface FromBufferOptions {
  dtype: Dtype;
  /** Default: one dimension with all that is there. */
  shape?: readonly number[] | undefined;
  /** Bytes to skip. Default 0. */
  offset?: number | undefined;
  requires_grad?: boolean | undefined;
}

/**
 * A tensor over the bytes of a buffer, without a copy: changes of one are seen in the other. The buffer is kept alive.
 *
 * @example
 * torch.from_buffer(new SharedArrayBuffer(24), { dtype: "float32", shape: [2, 3] });
 */
export function from_buffer(
  buffer: ArrayBuffer | SharedArrayBuffer | TypedArray,
  { dtype, shape, offset = 0, requires_grad = false }: FromBufferOptions,
): Tensor {
  const name = asDtype(dtype);
  const bytes = dtypeBytes(name);
  const there = Math.floor((buffer.byteLength - offset) / bytes);
  const sizes = shape ?? [there];
  const count = sizes.reduce((product, size) => product * size, 1);
  if (offset < 0 || !Number.isSafeInteger(offset) || count > there) {
    throw new ShapeError(
      `[from_buffer] ${count} values of ${name} from byte ${offset} on do not fit into ${buffer.byteLength} bytes.`,
    );
  }
  const out = new Tensor();
  out._handle = addon().fromBuffer(out, buffer, name, sizes, offset);
  if (requires_grad) out.requires_grad = true;
  return out;
}

/** Claims a token that `tensor.share()` gave in another thread of this process: the same memory, without history. */
export function from_shared(token: number): Tensor {
  const out = new Tensor();
  out._handle = addon().fromShared(out, token);
  return out;
}

// Back to JavaScript ------------------------------------------------------------------------------------------

function leaves(tensor: Tensor): unknown[] {
  const data = addon().toData(tensor._handle, false);
  const { dtype } = tensor;
  if (dtype === "bool") return Array.from(data as Uint8Array, (value) => value !== 0);
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) {
    return Array.from(data, (value) => (Number.isSafeInteger(Number(value)) ? Number(value) : value));
  }
  const numbers = data as Float64Array;
  if (!isComplexDtype(dtype)) return Array.from(numbers);
  return Array.from({ length: numbers.length / 2 }, (_, i) => [numbers[2 * i], numbers[2 * i + 1]]);
}

/** Cuts a flat list along the shape, from the inside out. */
function nest(flat: unknown[], shape: readonly number[]): unknown {
  let level = flat;
  for (let dim = shape.length - 1; dim > 0; dim--) {
    const size = shape[dim] as number;
    const count = shape.slice(0, dim).reduce((product, n) => product * n, 1);
    const rows = level;
    level = Array.from({ length: count }, (_, i) => rows.slice(i * size, (i + 1) * size));
  }
  return shape.length === 0 ? level[0] : level;
}

extendTensor({
  item(this: Tensor): number | bigint | boolean | [number, number] {
    return addon().item(this._handle);
  },
  tolist(this: Tensor): unknown {
    return nest(leaves(this), this.shape);
  },
  new_tensor(this: Tensor, values: TensorInput, options: TensorOptions = {}): Tensor {
    return tensor(values, { dtype: this.dtype, device: this.device as Device, ...options });
  },
  *[Symbol.iterator](this: Tensor): IterableIterator<Tensor> {
    if (this.ndim === 0)
      throw new ShapeError("[iterate] a tensor without dimensions has nothing to go over.");
    for (const part of this.unbind(0)) yield part;
  },
});
