// What there is to know about dtypes.
import { DtypeError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import type { Dtype } from "./types.ts";

/** bool, integers, floats, complex: torch promotes from left to right. */
export type Category = 0 | 1 | 2 | 3;

interface Facts {
  readonly bytes: number;
  readonly category: Category;
}

const FACTS: Record<Dtype, Facts> = {
  bool: { bytes: 1, category: 0 },
  uint8: { bytes: 1, category: 1 },
  int8: { bytes: 1, category: 1 },
  int16: { bytes: 2, category: 1 },
  int32: { bytes: 4, category: 1 },
  int64: { bytes: 8, category: 1 },
  uint16: { bytes: 2, category: 1 },
  uint32: { bytes: 4, category: 1 },
  uint64: { bytes: 8, category: 1 },
  float8_e4m3fn: { bytes: 1, category: 2 },
  float8_e5m2: { bytes: 1, category: 2 },
  float8_e4m3fnuz: { bytes: 1, category: 2 },
  float8_e5m2fnuz: { bytes: 1, category: 2 },
  float8_e8m0fnu: { bytes: 1, category: 2 },
  float16: { bytes: 2, category: 2 },
  bfloat16: { bytes: 2, category: 2 },
  float32: { bytes: 4, category: 2 },
  float64: { bytes: 8, category: 2 },
  complex32: { bytes: 4, category: 3 },
  complex64: { bytes: 8, category: 3 },
  complex128: { bytes: 16, category: 3 },
};

const ALIASES: Record<string, Dtype> = {
  float: "float32",
  double: "float64",
  half: "float16",
  int: "int32",
  long: "int64",
  short: "int16",
  cfloat: "complex64",
  cdouble: "complex128",
};

/** Is this a dtype's name (and not, say, a device's)? */
export const isDtype = (name: unknown): name is Dtype =>
  typeof name === "string" && Object.hasOwn(FACTS, name);

/** Checks a dtype's name; takes torch's short names ("half", "long") too. */
export function asDtype(name: string): Dtype {
  if (isDtype(name)) return name;
  const plain = name.startsWith("torch.") ? name.slice(6) : name;
  const dtype = isDtype(plain) ? plain : ALIASES[plain];
  if (dtype !== undefined) return dtype;
  const near = suggest(name, Object.keys(FACTS));
  throw new DtypeError(`'${name}' is not a dtype.${near ? ` Did you mean '${near}'?` : ""}`);
}

export const dtypeCategory = (dtype: Dtype): Category => FACTS[dtype].category;
export const dtypeBytes = (dtype: Dtype): number => FACTS[dtype].bytes;
export const isFloatingDtype = (dtype: Dtype): boolean => FACTS[dtype].category === 2;
export const isComplexDtype = (dtype: Dtype): boolean => FACTS[dtype].category === 3;
export const isIntegralDtype = (dtype: Dtype): boolean => FACTS[dtype].category === 1;

// torch's dtypes are their names ------------------------------------------------------------------------------

export const float64 = "float64";
export const double = "float64";
export const float32 = "float32";
export const float16 = "float16";
export const half = "float16";
export const bfloat16 = "bfloat16";
export const float8_e4m3fn = "float8_e4m3fn";
export const float8_e5m2 = "float8_e5m2";
export const float8_e4m3fnuz = "float8_e4m3fnuz";
export const float8_e5m2fnuz = "float8_e5m2fnuz";
export const float8_e8m0fnu = "float8_e8m0fnu";
export const int64 = "int64";
export const long = "int64";
export const int32 = "int32";
export const int = "int32";
export const int16 = "int16";
export const short = "int16";
export const int8 = "int8";
export const uint8 = "uint8";
export const uint16 = "uint16";
export const uint32 = "uint32";
export const uint64 = "uint64";
export const bool = "bool";
export const complex32 = "complex32";
export const chalf = "complex32";
export const complex64 = "complex64";
export const cfloat = "complex64";
export const complex128 = "complex128";
export const cdouble = "complex128";

// Limits ------------------------------------------------------------------------------------------------------

/** What `finfo` tells. */
export interface FloatInfo {
  readonly dtype: Dtype;
  readonly bits: number;
  readonly eps: number;
  readonly max: number;
  readonly min: number;
  /** The smallest positive normal number. */
  readonly tiny: number;
  readonly smallest_normal: number;
  readonly resolution: number;
}

/** Bits of the fraction, the least and the greatest exponent of normal numbers, and the greatest number. */
const FLOATS: Partial<
  Record<Dtype, readonly [fraction: number, least: number, max: number, digits: number]>
> = {
  float64: [52, -1022, Number.MAX_VALUE, 15],
  float32: [23, -126, (2 - 2 ** -23) * 2 ** 127, 6],
  float16: [10, -14, 65504, 3],
  bfloat16: [7, -126, (2 - 2 ** -7) * 2 ** 127, 2],
  float8_e4m3fn: [3, -6, 448, 0],
  float8_e5m2: [2, -14, 57344, 0],
  float8_e4m3fnuz: [3, -7, 240, 0],
  float8_e5m2fnuz: [2, -15, 57344, 0],
};

/**
 * Limits of a floating dtype; of a complex one, those of its parts. Default: the default dtype's, by `torch.finfo()`.
 *
 * @example
 * torch.finfo("float16").max; // 65504
 */
export function finfo(dtype: Dtype): FloatInfo {
  const name = asDtype(dtype);
  const real =
    ({ complex32: "float16", complex64: "float32", complex128: "float64" } as Partial<Record<Dtype, Dtype>>)[
      name
    ] ?? name;
  const facts = FLOATS[real];
  if (facts === undefined) throw new DtypeError(`[finfo] ${name} is not a floating dtype; use iinfo.`);
  const [fraction, least, max, digits] = facts;
  const tiny = 2 ** least;
  return {
    dtype: real,
    bits: FACTS[real].bytes * 8,
    eps: 2 ** -fraction,
    max,
    min: -max,
    tiny,
    smallest_normal: tiny,
    resolution: Number(`1e-${digits}`),
  };
}

/** What `iinfo` tells; 64-bit limits are bigints. */
export interface IntegerInfo {
  readonly dtype: Dtype;
  readonly bits: number;
  readonly max: number | bigint;
  readonly min: number | bigint;
}

/** Limits of an integer dtype. */
export function iinfo(dtype: Dtype): IntegerInfo {
  const name = asDtype(dtype);
  if (!isIntegralDtype(name)) throw new DtypeError(`[iinfo] ${name} is not an integer dtype; use finfo.`);
  const bits = FACTS[name].bytes * 8;
  const signed = !name.startsWith("u");
  const max = 2n ** BigInt(signed ? bits - 1 : bits) - 1n;
  const min = signed ? -max - 1n : 0n;
  return { dtype: name, bits, max: bits === 64 ? max : Number(max), min: bits === 64 ? min : Number(min) };
}
