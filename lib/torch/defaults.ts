// Settings of this thread or process, type promotion, numbers.
import type { MemoryStats } from "../addon/addon.ts";
import { addon } from "../addon/loader.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import { scoped } from "./autograd.ts";
import { defaultDevice } from "./default_device.ts";
import { asDtype, dtypeBytes, dtypeCategory, isFloatingDtype } from "./dtype.ts";
import { Tensor } from "./tensor.ts";
import { type Device, type Dtype, FloatScalar, type Scalar } from "./types.ts";

/**
 * Marks a number as a float although it is whole.
 *
 * @example
 * torch.full([2], torch.float(1)); // float32; torch.full([2], 1) is int64
 */
export const float = (value: number): FloatScalar => new FloatScalar(value);

/** The dtype of new tensors that are made of floats. */
export const get_default_dtype = (): Dtype => addon().defaultDtype() as Dtype;

/** Sets the dtype of new tensors that are made of floats: a floating one, float32 at first. */
export function set_default_dtype(dtype: Dtype): void {
  const name = asDtype(dtype);
  if (!isFloatingDtype(name))
    throw new InvalidArgumentError(`[set_default_dtype] ${name} is not a floating dtype.`);
  addon().setDefaultDtype(name);
}

/** Runs a callback with another default dtype, and returns its result. */
export function with_default_dtype<T>(dtype: Dtype, body: () => T): T {
  const before = get_default_dtype();
  return scoped(
    "with_default_dtype",
    () => set_default_dtype(dtype),
    () => set_default_dtype(before),
    body,
  );
}

/** Where tensors are made when no device is given. */
export const get_default_device = (): Device => defaultDevice.name ?? "cpu";

/** Sets where tensors are made when no device is given; null is the CPU. */
export function set_default_device(device: Device | null): void {
  defaultDevice.name = device === null || device === "cpu" ? undefined : device;
}

/**
 * Runs a callback with another default device, and returns its result.
 *
 * @example
 * const skeleton = torch.with_device("meta", () => new LlamaForCausalLM(config));
 */
export function with_device<T>(device: Device, body: () => T): T {
  const before = defaultDevice.name;
  return scoped(
    "with_device",
    () => set_default_device(device),
    () => set_default_device(before ?? null),
    body,
  );
}

/** Threads that operators may use. */
export const get_num_threads = (): number => addon().getNumThreads();
/** Sets how many threads an operator may use; the process has one team, shared by all environments. */
export const set_num_threads = (count: number): void => addon().setNumThreads(count);

/** Refuse (or warn about) operators that may give different results for the same input. */
export const use_deterministic_algorithms = (
  enabled: boolean,
  { warn_only = false }: { warn_only?: boolean } = {},
): void => addon().setDeterministic(enabled, warn_only);

/** Live tensors, bytes by kind of memory, and sweeps of this environment. */
export const memory_stats = (): MemoryStats => addon().memoryStats();

/**
 * Limits what CPU tensors may hold in the whole process, in bytes: an operator that would go beyond is an OutOfMemoryError,
 * in eager mode (after garbage was collected) and in Programs. `null` takes the limit away. Mapped weights and tensors of up
 * to 1 KiB do not count. Returns the limit before.
 *
 * @example
 * torch.set_memory_limit(torch.memory_in_use() + 2 ** 30); // one more GiB
 */
export function set_memory_limit(bytes: number | null): number | null {
  if (bytes !== null && !(Number.isSafeInteger(bytes) && bytes >= 0))
    throw new InvalidArgumentError(`[set_memory_limit] must be a number of bytes, or null, got ${bytes}.`);
  const native = addon();
  const before = native.memoryLimit();
  native.setMemoryLimit(bytes ?? -1);
  return before < 0 ? null : before;
}

/** Bytes of CPU tensors (those that `set_memory_limit` counts) in the whole process. */
export const memory_in_use = (): number => addon().hostMemory();

/** libtorch's version. */
export const version = (): string => addon().torchVersion();

// Type promotion ----------------------------------------------------------------------------------------------

const COMPLEX_OF: Partial<Record<Dtype, Dtype>> = {
  float16: "complex32",
  bfloat16: "complex64",
  float32: "complex64",
  float64: "complex128",
};
const UNSIGNED = new Set<Dtype>(["uint16", "uint32", "uint64"]);

/**
 * The smallest dtype of the higher category that holds both.
 *
 * @example
 * torch.promote_types("int32", "float16"); // "float16"
 */
export function promote_types(type1: Dtype, type2: Dtype): Dtype {
  const a = asDtype(type1);
  const b = asDtype(type2);
  if (a === b) return a;
  const [low, high] = dtypeCategory(a) <= dtypeCategory(b) ? [a, b] : [b, a];
  if (dtypeCategory(low) === dtypeCategory(high)) return promoteWithin(low, high);
  if (dtypeCategory(high) < 3) return high;
  const complex = COMPLEX_OF[low];
  return complex === undefined ? high : promoteWithin(complex, high);
}

function promoteWithin(a: Dtype, b: Dtype): Dtype {
  if (a === b) return a;
  const [small, large] = dtypeBytes(a) <= dtypeBytes(b) ? [a, b] : [b, a];
  const category = dtypeCategory(a);
  if (category === 1) {
    if (UNSIGNED.has(a) || UNSIGNED.has(b))
      throw new InvalidArgumentError(`[promote_types] ${a} and ${b} have no common dtype.`);
    return dtypeBytes(a) === 1 && dtypeBytes(b) === 1 ? "int16" : large;
  }
  if (category === 2 && dtypeBytes(large) === dtypeBytes(small)) {
    if (dtypeBytes(a) === 1)
      throw new InvalidArgumentError(`[promote_types] ${a} and ${b} have no common dtype.`);
    return "float32"; // float16 with bfloat16
  }
  return large;
}

/** Whether torch would cast from one dtype to the other in place: never to a lower category. */
export function can_cast(from: Dtype, to: Dtype): boolean {
  const [source, target] = [dtypeCategory(asDtype(from)), dtypeCategory(asDtype(to))];
  return source <= target || (source === 1 && target === 1);
}

const numberDtype = (value: Scalar): Dtype => {
  if (typeof value === "boolean") return "bool";
  if (
    typeof value === "bigint" ||
    (typeof value === "number" && Number.isSafeInteger(value) && !Object.is(value, -0))
  )
    return "int64";
  return get_default_dtype();
};

/** The dtype that an operation on the two gives: tensors with dimensions go before those without, these before numbers. */
export function result_type(a: Tensor | Scalar, b: Tensor | Scalar): Dtype {
  const rank = (value: Tensor | Scalar) => (value instanceof Tensor ? (value.ndim > 0 ? 2 : 1) : 0);
  const dtypeOf = (value: Tensor | Scalar) => (value instanceof Tensor ? value.dtype : numberDtype(value));
  const [high, low] = rank(a) >= rank(b) ? [a, b] : [b, a];
  const [strong, weak] = [dtypeOf(high), dtypeOf(low)];
  if (rank(a) === rank(b)) return promote_types(strong, weak);
  // What yields counts only when its category is higher.
  if (dtypeCategory(weak) <= dtypeCategory(strong)) return strong;
  return dtypeCategory(strong) === 2 ? (COMPLEX_OF[strong] ?? weak) : promote_types(strong, weak);
}
