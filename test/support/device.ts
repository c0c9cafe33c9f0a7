// The device of test/gpu. Another one, `TORCHFORMERS_TEST_DEVICE=cpu`, shows that the tests themselves are right.
import type { Test } from "tap";
import { torch } from "torchformers";

export const device: string = process.env["TORCHFORMERS_TEST_DEVICE"] ?? "cuda:0";
export const onCuda: boolean = device.startsWith("cuda");

/** For tests of what only a CUDA device has. */
export const cudaOnly = { skip: onCuda ? false : "needs a CUDA device" };

/**
 * How far float32 results may be from the goldens of a CPU: sums run in another order. Larger where a check says so.
 * TF32 stays off: torch's default for matrix products; for convolutions `npm run test:gpu` says so to the driver.
 */
export const TOLERANCE = { atol: 1e-4, rtol: 1e-3 } as const;

/** Same dtype, shape and, within the tolerance, values; on whichever device each lies. */
export function near(
  t: Test,
  actual: torch.Tensor | null | undefined,
  expected: torch.Tensor,
  message: string,
  { atol, rtol }: { readonly atol: number; readonly rtol: number } = TOLERANCE,
): void {
  if (!actual) {
    t.fail(`${message}: nothing there`);
    return;
  }
  const [a, b] = [actual.cpu(), expected.cpu()];
  const same = a.dtype === b.dtype && a.shape.join() === b.shape.join();
  t.ok(same && torch.allclose(a, b, { atol, rtol, equal_nan: true }), message, {
    ...(same ? {} : { dtypes: [a.dtype, b.dtype], shapes: [a.shape, b.shape] }),
  });
}
