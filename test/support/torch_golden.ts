// Reads test/fixtures/torch: recorded calls of operators with what Python torch gave for them. See
// scripts/goldens/tensor.py.
import { readFileSync } from "node:fs";
import type { Test } from "tap";
import { type Tensor, torch } from "torchformers";
import { fixture } from "./fixtures.js";

// biome-ignore lint/suspicious/noExplicitAny: recorded calls are untyped
export type Any = any;

export const cases = (name: string): Any[] => JSON.parse(readFileSync(fixture(`torch/${name}.json`), "utf8"));

export const number = (value: Any): Any =>
  typeof value === "string"
    ? Number(value.replace("inf", "Infinity"))
    : Array.isArray(value)
      ? value.map(number)
      : value;

/** {"t": [dtype, shape, values]} and so on, to what the call takes. */
export function decode(value: Any, device = "cpu"): Any {
  if (Array.isArray(value)) return value.map((item) => decode(item, device));
  if (typeof value !== "object" || value === null) return value;
  if (value.t) return decodeTensor(value.t).to(device);
  if (value.d) return value.d;
  if ("f" in value) return torch.float(number(value.f));
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, decode(item, device)]));
}

export function decodeTensor([dtype, shape, values]: [Any, number[], Any[]]): Tensor {
  if (dtype.startsWith("complex")) {
    const parts = torch.tensor(number(values).flat() as number[], {
      dtype: dtype === "complex128" ? "float64" : "float32",
      shape: [...shape, 2],
    });
    return torch.view_as_complex(parts).to(dtype);
  }
  return torch.tensor(number(values) as number[], { dtype, shape });
}

const TOLERANCE: Record<string, number> = {
  bfloat16: 1e-2,
  float16: 2e-3,
  float32: 2e-6,
  complex64: 5e-6,
  float64: 1e-8,
  complex128: 1e-8,
};

function close(actual: Any, expected: Any, tolerance: number): boolean {
  if (Array.isArray(expected)) return expected.every((value, i) => close(actual[i], value, tolerance));
  if (typeof expected === "boolean" || Number.isInteger(actual) !== Number.isInteger(expected)) {
    if (typeof expected === "boolean") return actual === expected;
  }
  if (Object.is(actual, expected) || actual === expected) return true;
  return Math.abs(Number(actual) - Number(expected)) <= tolerance + tolerance * Math.abs(Number(expected));
}

/** What differs, or nothing; `factor` widens the tolerances. */
export function difference(actual: Any, expected: Any, factor = 1): string | undefined {
  if (expected?.t) {
    const [dtype, shape, values] = expected.t;
    if (!(actual instanceof torch.Tensor)) return `expected a tensor, got ${String(actual)}`;
    if (actual.dtype !== dtype) return `dtype ${actual.dtype}, expected ${dtype}`;
    if (String(actual.shape) !== String(shape)) return `shape [${actual.shape}], expected [${shape}]`;
    const flat = [actual.reshape(-1).tolist()].flat();
    const good = close(flat, number(values), factor * (TOLERANCE[dtype] ?? 0));
    return good ? undefined : `values ${JSON.stringify(flat)}, expected ${JSON.stringify(values)}`;
  }
  if (expected?.d) return actual === expected.d ? undefined : `${actual}, expected ${expected.d}`;
  if (expected !== null && typeof expected === "object" && "f" in expected)
    return close(actual, number(expected.f), factor * 1e-6) ? undefined : `${actual}, expected ${expected.f}`;
  if (Array.isArray(expected)) {
    if (actual?.length !== expected.length) return `${actual?.length} results, expected ${expected.length}`;
    for (const [i, item] of expected.entries()) {
      const found = difference(actual[i], item, factor);
      if (found) return `result ${i}: ${found}`;
    }
    return undefined;
  }
  return close(actual, expected, factor * 1e-6)
    ? undefined
    : `${String(actual)}, expected ${String(expected)}`;
}

/** A tap case per thousand comparisons would drown the report: failures are collected and shown together. */
export function compare(test: Test, name: string, check: (item: Any) => string | undefined): void {
  const all = cases(name);
  const failures: string[] = [];
  for (const item of all) {
    let found: string | undefined;
    try {
      found = torch.tidy(() => check(item));
    } catch (error) {
      found = (error as Error).message;
    }
    if (found) failures.push(`${JSON.stringify(item).slice(0, 300)}\n    ${found}`);
  }
  test.equal(
    failures.length,
    0,
    `${all.length - failures.length} of ${all.length} ${name} cases\n${failures.slice(0, Number(process.env.SHOW ?? 8)).join("\n")}`,
  );
}

const NAMESPACES: Record<string, Any> = {
  "": torch,
  _nn: torch._nn,
  linalg: torch.linalg,
  fft: torch.fft,
  special: torch.special,
};

export function run(path: string, args: Any[], options: Any): Any {
  const dot = path.lastIndexOf(".");
  const [head, name] = [path.slice(0, Math.max(dot, 0)), path.slice(dot + 1)];
  const given = options && Object.keys(options).length > 0 ? [options] : [];
  if (head === "Tensor") return args[0][name](...args.slice(1), ...given);
  return NAMESPACES[head][name](...args, ...given);
}
