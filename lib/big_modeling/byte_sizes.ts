// Sizes in bytes: of texts such as "10GiB", and of dtypes as the reference's planner counts them.
import { InvalidArgumentError } from "../errors/index.ts";
import { dtypeBytes } from "../torch/dtype.ts";
import type { Dtype } from "../torch/index.ts";

const UNITS: Readonly<Record<string, number>> = {
  GIB: 2 ** 30,
  MIB: 2 ** 20,
  KIB: 2 ** 10,
  GB: 1e9,
  MB: 1e6,
  KB: 1e3,
};
const FLOAT = /^[+-]?(\d+(_\d+)*\.?(\d+(_\d+)*)?|\.\d+(_\d+)*)([eE][+-]?\d+(_\d+)*)?$/;

/**
 * Bytes of a size. Units are "KiB", "MiB", "GiB" (powers of 1024) and "KB", "MB", "GB" (powers of 1000); a small "b" at the end of
 * the latter means bits.
 *
 * @throws InvalidArgumentError for anything else, and for what is negative.
 * @example convert_file_size_to_int("1MiB"); // 1048576
 */
export function convert_file_size_to_int(size: number | string): number {
  let bytes = -1;
  if (typeof size === "number") bytes = Number.isInteger(size) ? size : -1;
  else if (typeof size === "string") {
    const found = /^(.*?)(gib|mib|kib|gb|mb|kb)$/is.exec(size);
    const digits = found?.[1]?.trim() ?? "";
    if (found !== null && FLOAT.test(digits)) {
      const unit = found[2] as string;
      bytes = Math.trunc(Number(digits.replaceAll("_", "")) * (UNITS[unit.toUpperCase()] as number));
      if (unit.length === 2 && unit.endsWith("b")) bytes = Math.floor(bytes / 8);
    }
  }
  if (bytes >= 0 && Number.isFinite(bytes)) return bytes;
  throw new InvalidArgumentError(
    `'${size}' is not a size: give a whole number of bytes, or a number with a unit, such as "10GiB" or "500MB".`,
  );
}

/** Bytes of one element. A bool counts as one bit, as in the reference's plans. */
export const dtype_byte_size = (dtype: Dtype): number => (dtype === "bool" ? 1 / 8 : dtypeBytes(dtype));

/** Bytes for people, in powers of 1024: "1.5 GiB". */
export function formatSize(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? Math.round(value) : value.toFixed(value < 10 ? 2 : 1)} ${units[unit]}`;
}
