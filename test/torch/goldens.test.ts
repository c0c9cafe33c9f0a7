// Operators, indexing, printing and random numbers against Python torch (scripts/goldens/tensor.py).
import t from "tap";
import { type Tensor, torch } from "torchformers";
import { parseSchema } from "#lib/torch/schema.js";
import { SCHEMAS } from "#lib/torch/schemas.generated.js";
import { type Any, compare, decode, decodeTensor, difference, run } from "../support/torch_golden.js";

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
