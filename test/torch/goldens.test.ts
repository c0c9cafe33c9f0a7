// Operators, indexing, printing and random numbers against Python torch (scripts/goldens/tensor.py).
import { readFileSync } from "node:fs";
import t, { type Test } from "tap";
import { type Tensor, torch } from "torchformers";
import { parseSchema } from "#lib/torch/schema.js";
import { SCHEMAS } from "#lib/torch/schemas.generated.js";
import { fixture } from "../support/fixtures.js";

// biome-ignore lint/suspicious/noExplicitAny: recorded calls are untyped
type Any = any;

const cases = (name: string): Any[] => JSON.parse(readFileSync(fixture(`torch/${name}.json`), "utf8"));

const number = (value: Any): Any =>
  typeof value === "string"
    ? Number(value.replace("inf", "Infinity"))
    : Array.isArray(value)
      ? value.map(number)
      : value;

/** {"t": [dtype, shape, values]} and so on, to what the call takes. */
function decode(value: Any): Any {
  if (Array.isArray(value)) return value.map(decode);
  if (typeof value !== "object" || value === null) return value;
  if (value.t) return decodeTensor(value.t);
  if (value.d) return value.d;
  if ("f" in value) return torch.float(number(value.f));
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, decode(item)]));
}

function decodeTensor([dtype, shape, values]: [Any, number[], Any[]]): Tensor {
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

/** What differs, or nothing. */
function difference(actual: Any, expected: Any): string | undefined {
  if (expected?.t) {
    const [dtype, shape, values] = expected.t;
    if (!(actual instanceof torch.Tensor)) return `expected a tensor, got ${String(actual)}`;
    if (actual.dtype !== dtype) return `dtype ${actual.dtype}, expected ${dtype}`;
    if (String(actual.shape) !== String(shape)) return `shape [${actual.shape}], expected [${shape}]`;
    const flat = [actual.reshape(-1).tolist()].flat();
    const good = close(flat, number(values), TOLERANCE[dtype] ?? 0);
    return good ? undefined : `values ${JSON.stringify(flat)}, expected ${JSON.stringify(values)}`;
  }
  if (expected?.d) return actual === expected.d ? undefined : `${actual}, expected ${expected.d}`;
  if (expected !== null && typeof expected === "object" && "f" in expected)
    return close(actual, number(expected.f), 1e-6) ? undefined : `${actual}, expected ${expected.f}`;
  if (Array.isArray(expected)) {
    if (actual?.length !== expected.length) return `${actual?.length} results, expected ${expected.length}`;
    for (const [i, item] of expected.entries()) {
      const found = difference(actual[i], item);
      if (found) return `result ${i}: ${found}`;
    }
    return undefined;
  }
  return close(actual, expected, 1e-6) ? undefined : `${String(actual)}, expected ${String(expected)}`;
}

/** A tap case per thousand comparisons would drown the report: failures are collected and shown together. */
function compare(test: Test, name: string, check: (item: Any) => string | undefined) {
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

function run(path: string, args: Any[], options: Any): Any {
  const dot = path.lastIndexOf(".");
  const [head, name] = [path.slice(0, Math.max(dot, 0)), path.slice(dot + 1)];
  const given = options && Object.keys(options).length > 0 ? [options] : [];
  if (head === "Tensor") return args[0][name](...args.slice(1), ...given);
  return NAMESPACES[head][name](...args, ...given);
}

t.test("operators", (test) => {
  compare(test, "ops", ({ op, a, o, r }) => difference(run(op, decode(a), o && decode(o)), r));
  test.end();
});

const PREFIXES: Record<string, string> = {
  "": "",
  _nn: "",
  linalg: "linalg_",
  fft: "fft_",
  special: "special_",
};

/** The names of an operator's places, when it has one overload only. */
function placesOf(path: string): string[] | undefined {
  const dot = path.lastIndexOf(".");
  const prefix = PREFIXES[path.slice(0, Math.max(dot, 0))];
  if (prefix === undefined) return undefined;
  const schemas = SCHEMAS.split("\n").filter(
    (line) =>
      line.startsWith(`${prefix}${path.slice(dot + 1)}(`) ||
      line.startsWith(`${prefix}${path.slice(dot + 1)}.`),
  );
  if (schemas.length !== 1) return undefined;
  return parseSchema(schemas[0] as string)
    .parameters.filter(({ keywordOnly }) => !keywordOnly)
    .map(({ name }) => (name === "self" ? "input" : name));
}

t.test("operators, everything by name", (test) => {
  let checked = 0;
  compare(test, "ops", ({ op, a, o, r }) => {
    const places = placesOf(op);
    if (!places || a.length > places.length) return undefined;
    checked++;
    const named = Object.fromEntries(decode(a).map((value: Any, i: number) => [places[i], value]));
    return difference(run(op, [], { ...named, ...(o && decode(o)) }), r);
  });
  test.ok(checked > 100, `${checked} cases by name`);
  test.end();
});

t.test("random numbers of a seed", (test) => {
  compare(test, "random", ({ seed, op, a, o, r }) => {
    torch.manual_seed(seed);
    return difference(run(op, decode(a), decode(o)), r);
  });
  test.end();
});

const readIndex = (index: Any): Any => {
  if (index === null || typeof index !== "object") return index;
  if (index.s) return torch.slice(index.s[0], index.s[1], index.s[2]);
  return index.l ?? decodeTensor(index.t);
};

const arange = (shape: number[]) => torch.arange(shape.reduce((a, b) => a * b, 1)).reshape(shape);

t.test("indexing", (test) => {
  compare(test, "index_get", ({ x, i, s, v, view, e }) => {
    const base = arange(x);
    let out: Tensor;
    try {
      out = base.index(...i.map(readIndex));
    } catch (error) {
      return e ? undefined : (error as Error).message;
    }
    if (e) return `gave [${out.shape}], expected an error`;
    if (String(out.shape) !== String(s)) return `shape [${out.shape}], expected [${s}]`;
    if (String([out.reshape(-1).tolist()].flat()) !== String(v))
      return `values ${out.reshape(-1).tolist()}, expected ${v}`;
    const isView = out.numel() > 0 && out.untyped_storage().id === base.untyped_storage().id;
    return isView === view ? undefined : `view: ${isView}, expected ${view}`;
  });
  test.end();
});

t.test("assigning by index", (test) => {
  compare(test, "index_put", ({ x, i, w, v }) => {
    const base = torch.zeros(x, { dtype: "int64" });
    base.index_put_(i.map(readIndex), decode(w));
    const flat = [base.reshape(-1).tolist()].flat();
    return String(flat) === String(v) ? undefined : `values ${flat}, expected ${v}`;
  });
  test.end();
});

t.test("printing", (test) => {
  test.teardown(() => torch.set_printoptions({ profile: "default" }));
  compare(test, "print", ({ x, p, o, mod, dtype, grad, mul, meta }) => {
    torch.set_printoptions({ profile: "default", ...o });
    let value: Tensor;
    if (mod) {
      const count = mod.reduce((a: number, b: number) => a * b, 1);
      value = torch.arange(count).remainder(97).to(dtype);
      if (dtype === "float32") value = value.div(8);
      value = value.reshape(mod);
    } else if (meta) value = torch.empty(meta, { dtype, device: "meta" });
    else value = decodeTensor(x.t);
    if (grad) value.requires_grad_();
    if (mul) value = value.mul(mul);
    const text = value.toString();
    return text === p ? undefined : `\n${text}\n    expected\n${p}`;
  });
  test.end();
});
