// Other dtypes and devices: Tensor.to and its short forms.
import { addon } from "../addon/loader.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { asDtype, isDtype } from "./dtype.ts";
import { tensorOp } from "./native_op.ts";
import { extendTensor, Tensor } from "./tensor.ts";
import type { Device, Dtype, MemoryFormat } from "./types.ts";

export interface ToOptions {
  dtype?: Dtype | null | undefined;
  device?: Device | number | null | undefined;
  /** Allow a copy between pinned host memory and a device to run on by itself. Default false. */
  non_blocking?: boolean | undefined;
  /** Copy even when nothing changes. Default false. */
  copy?: boolean | undefined;
  memory_format?: MemoryFormat | null | undefined;
}

export interface ConversionMethods {
  /**
   * This tensor with another dtype, on another device, or as `other` is; itself when nothing changes.
   *
   * @example
   * x.to("bfloat16"); x.to("cuda:0", "float16"); x.to(y); x.to({ dtype: "float64", copy: true });
   */
  to(dtype: Dtype, non_blocking?: boolean, copy?: boolean, options?: Omit<ToOptions, "dtype">): Tensor;
  to(
    device: Device | number,
    dtype?: Dtype | null,
    non_blocking?: boolean,
    copy?: boolean,
    options?: ToOptions,
  ): Tensor;
  to(other: Tensor, non_blocking?: boolean, copy?: boolean, options?: ToOptions): Tensor;
  to(target: Device | Dtype | Tensor, options?: ToOptions): Tensor;
  to(options: ToOptions & { other?: Tensor | undefined }): Tensor;
  /** The dtype of `other`. */
  type_as(other: Tensor): Tensor;
  /** torch's name of the type ("torch.FloatTensor"), or the tensor in another dtype. */
  type(): string;
  type(dtype: Dtype): Tensor;
  cpu(): Tensor;
  /** Default device: `"cuda"`. */
  cuda(device?: Device | number, options?: { non_blocking?: boolean }): Tensor;
  float(): Tensor;
  double(): Tensor;
  half(): Tensor;
  bfloat16(): Tensor;
  long(): Tensor;
  int(): Tensor;
  short(): Tensor;
  char(): Tensor;
  byte(): Tensor;
  bool(): Tensor;
  cfloat(): Tensor;
  cdouble(): Tensor;
}

const OPTIONS = ["dtype", "device", "non_blocking", "copy", "memory_format", "other"];

interface Target {
  dtype?: Dtype | undefined;
  device?: string | undefined;
  non_blocking: boolean;
  copy: boolean;
  memory_format: MemoryFormat | null;
}

const deviceName = (device: Device | number) => (typeof device === "number" ? `cuda:${device}` : device);
/** `"cuda"` is this thread's current device; asking for it fails where there is none. */
const withIndex = (device: string) => (device === "cuda" ? `cuda:${addon().currentDevice()}` : device);

/** Reads the many forms of `to`. */
function readTarget(args: readonly unknown[]): Target {
  const rest = [...args];
  const target: Target = { non_blocking: false, copy: false, memory_format: null };
  const last = rest.at(-1);
  const options: Record<string, unknown> = {};
  if (typeof last === "object" && last !== null && !(last instanceof Tensor))
    Object.assign(options, rest.pop());
  for (const name of Object.keys(options)) {
    if (!OPTIONS.includes(name)) {
      throw new InvalidArgumentError(`[to] unknown option '${name}'.`, {
        suggestion: suggest(name, OPTIONS),
      });
    }
  }
  const names: ("dtype" | "device" | "non_blocking" | "copy")[] = ["non_blocking", "copy"];
  const like = rest[0] instanceof Tensor ? (rest.shift() as Tensor) : (options.other as Tensor | undefined);
  if (like !== undefined) Object.assign(target, { dtype: like.dtype, device: like.device });
  else if (isDtype(rest[0])) names.unshift("dtype");
  else if (rest[0] !== undefined && typeof rest[0] !== "boolean") names.unshift("device", "dtype");
  for (const [i, value] of rest.entries()) {
    const name = names[i];
    if (name === undefined) throw new InvalidArgumentError("[to] too many arguments.");
    if (value !== undefined && options[name] !== undefined) {
      throw new InvalidArgumentError(`[to] '${name}' is given by position and by name.`);
    }
    if (value !== undefined) options[name] = value;
  }
  if (options.dtype != null) target.dtype = asDtype(options.dtype as string);
  if (options.device != null) target.device = deviceName(options.device as Device | number);
  target.non_blocking = Boolean(options.non_blocking ?? false);
  target.copy = Boolean(options.copy ?? false);
  target.memory_format = (options.memory_format as MemoryFormat | undefined) ?? null;
  return target;
}

function convert(tensor: Tensor, { dtype, device, non_blocking, copy, memory_format }: Target): Tensor {
  const same =
    (dtype === undefined || dtype === tensor.dtype) &&
    (device === undefined || withIndex(device) === withIndex(tensor.device));
  if (same && !copy && memory_format === null) return tensor;
  return tensorOp(
    "to",
    "dtype_layout",
    tensor._handle,
    dtype,
    undefined,
    device,
    undefined,
    non_blocking,
    copy,
    memory_format,
  );
}

const cast = (dtype: Dtype) =>
  function (this: Tensor): Tensor {
    return this.dtype === dtype ? this : tensorOp("to", "dtype", this._handle, dtype);
  };

const TYPE_NAMES: Partial<Record<Dtype, string>> = {
  float32: "Float",
  float64: "Double",
  float16: "Half",
  bfloat16: "BFloat16",
  int64: "Long",
  int32: "Int",
  int16: "Short",
  int8: "Char",
  uint8: "Byte",
  bool: "Bool",
  complex64: "ComplexFloat",
  complex128: "ComplexDouble",
};

extendTensor({
  to(this: Tensor, ...args: unknown[]): Tensor {
    return convert(this, readTarget(args));
  },
  type_as(this: Tensor, other: Tensor): Tensor {
    return convert(this, readTarget([other]));
  },
  type(this: Tensor, dtype?: Dtype): Tensor | string {
    if (dtype !== undefined) return convert(this, readTarget([asDtype(dtype)]));
    return `torch.${this.is_cuda ? "cuda." : ""}${TYPE_NAMES[this.dtype] ?? this.dtype}Tensor`;
  },
  cpu(this: Tensor): Tensor {
    return convert(this, readTarget(["cpu"]));
  },
  cuda(this: Tensor, device: Device | number = "cuda", { non_blocking = false } = {}): Tensor {
    return convert(this, readTarget([{ device, non_blocking }]));
  },
  float: cast("float32"),
  double: cast("float64"),
  half: cast("float16"),
  bfloat16: cast("bfloat16"),
  long: cast("int64"),
  int: cast("int32"),
  short: cast("int16"),
  char: cast("int8"),
  byte: cast("uint8"),
  bool: cast("bool"),
  cfloat: cast("complex64"),
  cdouble: cast("complex128"),
});
