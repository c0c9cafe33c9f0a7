// The small vocabulary of the torch room: dtype and device names, scalars, options.
import type { Tensor } from "./tensor.ts";

/** torch's dtype names. `torch.float32 === "float32"`. */
export type Dtype =
  | "float64"
  | "float32"
  | "float16"
  | "bfloat16"
  | "float8_e4m3fn"
  | "float8_e5m2"
  | "float8_e4m3fnuz"
  | "float8_e5m2fnuz"
  | "float8_e8m0fnu"
  | "int64"
  | "int32"
  | "int16"
  | "int8"
  | "uint8"
  | "uint16"
  | "uint32"
  | "uint64"
  | "bool"
  | "complex32"
  | "complex64"
  | "complex128";

/** `"cpu"`, `"meta"`, `"cuda"` or `"cuda:1"`. */
export type Device = string;

export type Layout = "strided" | "sparse_coo" | "sparse_csr";

export type MemoryFormat = "contiguous_format" | "preserve_format" | "channels_last" | "channels_last_3d";

/** A number that counts as a float although it is whole; made by `torch.float(1)`. */
export class FloatScalar {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }

  valueOf(): number {
    return this.value;
  }
}

/** A number where torch takes one: whole numbers act as integers, others as floats. */
export type Scalar = number | bigint | boolean | FloatScalar;

/** How a new tensor is made. */
export interface TensorOptions {
  /** Default: `torch.get_default_dtype()`, or what the values say. */
  dtype?: Dtype | null | undefined;
  /** Default: the device of `torch.set_default_device`, else `"cpu"`. */
  device?: Device | number | null | undefined;
  layout?: Layout | null | undefined;
  pin_memory?: boolean | null | undefined;
  requires_grad?: boolean | undefined;
}

/** Nested arrays as deep as the tensor has dimensions; a bare value for none. */
export type NestedArray<T> = T | readonly NestedArray<T>[];

/** What `tolist` gives: complex numbers are `[re, im]`. */
export type TensorList = NestedArray<number | bigint | boolean>;

/** Several results: an array whose entries also have names. */
export type Named<Items extends readonly unknown[], Names> = Items & Names;

/** What a hook registration returns: `remove()` it, or bind it with `using`. */
export interface RemovableHandle extends Disposable {
  remove(): void;
}

/** A tensor or a number, where torch takes both. */
export type TensorLike = Tensor | Scalar;
