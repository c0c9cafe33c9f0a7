// CUDA devices by name or index.
import { InvalidArgumentError } from "../errors/index.ts";

/** `"cuda"`, `"cuda:1"` or an index. */
export type CudaDevice = string | number;

/** The index of a device; -1 is the current one. */
export function cudaIndex(device: CudaDevice | undefined, caller: string): number {
  if (device === undefined) return -1;
  const index =
    typeof device === "number" ? device : Number(/^cuda:(\d{1,3})$/.exec(device)?.[1] ?? Number.NaN);
  if (device === "cuda" || (index < 0 && Number.isInteger(index))) return -1;
  if (!Number.isInteger(index) || index > 127)
    throw new InvalidArgumentError(
      `[${caller}] expected a CUDA device such as "cuda:0" or 0, got ${JSON.stringify(device)}.`,
    );
  return index;
}
