// Reads test/fixtures/nn: cases as JSON, and the tensors that they name beside it. See scripts/goldens/nn.py.

import { readFileSync } from "node:fs";
import type { Test } from "tap";
import { safetensors, type Tensor, torch } from "torchformers";
import { fixture } from "./fixtures.js";

// biome-ignore lint/suspicious/noExplicitAny: cases are data; layers and functions are found by name.
export type Any = any;

/** The cases of a file, and a function that puts tensors and infinities in the place of their names. */
export async function cases(name: string): Promise<{ list: Any[]; decode: (value: unknown) => Any }> {
  const list = JSON.parse(readFileSync(fixture(`nn/${name}.json`), "utf8"));
  const tensors: Record<string, Tensor> =
    name === "schedulers" ? {} : await safetensors.load_file(fixture(`nn/${name}.safetensors`));
  const decode = (value: unknown): unknown => {
    if (typeof value === "string") {
      if (value.startsWith("@")) return tensors[value.slice(1)];
      return value === "Infinity" || value === "-Infinity" ? Number(value) : value;
    }
    if (Array.isArray(value)) return value.map(decode);
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, decode(item)]));
  };
  return { list, decode };
}

/** Same dtype, shape and, within the tolerance, values. */
export function close(
  t: Test,
  actual: Tensor | null | undefined,
  expected: Tensor,
  message: string,
  tolerance = 1e-5,
): void {
  if (!actual) {
    t.fail(`${message}: nothing there`);
    return;
  }
  const same = actual.dtype === expected.dtype && actual.shape.join() === expected.shape.join();
  if (same && torch.allclose(actual, expected, { atol: tolerance, rtol: tolerance, equal_nan: true })) return;
  t.fail(message, { actual: String(actual), expected: String(expected) });
}

/** Bit by bit the same. */
export function identical(
  t: Test,
  actual: Tensor | null | undefined,
  expected: Tensor,
  message: string,
): void {
  if (actual && actual.dtype === expected.dtype && torch.equal(actual, expected)) return;
  t.fail(message, { actual: String(actual), expected: String(expected) });
}

/** A loss in which each entry of the outputs has a weight of its own. */
export function weightedSum(outputs: readonly Tensor[]): Tensor | null {
  let total: Tensor | null = null;
  for (const out of outputs) {
    if (!out.requires_grad) continue;
    const weights = torch.arange(out.numel(), { dtype: out.dtype }).reshape(out.shape).cos();
    const part = out.mul(weights).sum();
    total = total ? total.add(part) : part;
  }
  return total;
}
