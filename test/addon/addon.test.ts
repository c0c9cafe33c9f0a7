// The addon driven raw, as lib/torch drives it: wrong input first, then values, lives of tensors, generators, threads.

import { readdirSync, readFileSync } from "node:fs";
import { Worker } from "node:worker_threads";
import t, { type Test } from "tap";
import type { Handle, TypedArray, Value } from "#lib/addon/addon.js";
import { addon, sizes } from "#lib/addon/loader.js";
import { fixture, root } from "../support/fixtures.ts";

const native = addon();

/** Stands for a Tensor: what the addon holds weakly. */
class Owner {
  handle: Handle = 0;
}

const held: Owner[] = [];

/** Calls an operator by "name.overload" and keeps its single result alive. */
function call(name: string, ...args: Value[]): Handle {
  const owner = new Owner();
  held.push(owner);
  owner.handle = native.call(op(name), owner, ...args) as Handle;
  return owner.handle;
}

const shapeOf = (handle: Handle) => [...sizes.subarray(0, native.shape(handle))];

const op = (name: string) => {
  const [base, overload = ""] = name.split(".") as [string, string?];
  return native.findOp(`aten::${base}`, overload);
};

function from(values: TypedArray, dtype: string, shape: readonly number[]): Handle {
  const owner = new Owner();
  held.push(owner);
  owner.handle = native.fromData(owner, values, dtype, shape);
  return owner.handle;
}

const floats = (values: number[], shape: number[] = [values.length]) =>
  from(new Float32Array(values), "float32", shape);
const values = (handle: Handle): (number | bigint)[] => [...native.toData(handle, false)];
const raw = native as unknown as Record<string, (...args: unknown[]) => unknown>;

function refuses(test: Test, code: string, message: RegExp, action: () => unknown) {
  test.throws(action, { code, message }, String(message));
}

t.test("wrong handles", async (t) => {
  const forged = [99_999_999, -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, 2 ** 60, 2 ** 24, 0];
  for (const handle of forged) refuses(t, "ERR_INVALID_ARGUMENT", /no handle/, () => native.shape(handle));
  for (const value of [undefined, null, "1", {}, [], true, 1n, Symbol("x"), () => 1]) {
    refuses(t, "ERR_INVALID_ARGUMENT", /\[shape\] argument 1 must be a Tensor, got /, () =>
      raw["shape"]?.(value),
    );
  }
  const handle = native.fromData(new Owner(), new Float32Array(1), "float32", [1]);
  native.dispose(handle);
  native.dispose(handle); // disposing twice is no error
  t.equal(native.isDisposed(handle), true);
  refuses(t, "ERR_DISPOSED", /was disposed/, () => native.shape(handle));
  const next = native.fromData(new Owner(), new Float32Array(1), "float32", [1]);
  t.not(next, handle, "a slot's next handle differs");
  refuses(t, "ERR_DISPOSED", /\[aten::neg\] argument 'self' \(position 1\) was disposed/, () =>
    call("neg", handle),
  );
  for (const owner of [undefined, null, 1, "x"]) {
    t.throws(() => raw["fromData"]?.(owner, new Float32Array(1), "float32", [1]), {
      code: "ERR_INVALID_ARGUMENT",
    });
  }
  refuses(t, "ERR_INVALID_ARGUMENT", /generator/, () => native.generatorInitialSeed(12345));
});

t.test("wrong arguments, one for every kind of a schema", async (t) => {
  const x = floats([1, 2, 3, 4], [2, 2]);
  const refused: [string, Value[], RegExp][] = [
    ["mm", [x, "weight"], /\[aten::mm\] argument 'mat2' \(position 2\) must be Tensor, got string/],
    ["mm", [x], /'mat2' \(position 2\) is missing/],
    ["mm", [x, null], /must be Tensor, got null/],
    ["mm", [x, x, x], /takes 2 arguments, got 3/],
    ["cat", [x], /'tensors' \(position 1\) must be Tensor\[\], got number/],
    ["cat", [[x, "y"]], /'tensors' .* must be Tensor\[\], got string/],
    ["index.Tensor", [x, ["y"]], /must be Tensor\?\[\], got string/],
    ["add.Scalar", [x, "1"], /'other' \(position 2\) must be Scalar, got string/],
    ["add.Scalar", [x, [1, 2, 3]], /must be Scalar, got array/],
    ["add.Scalar", [x, 2n ** 64n], /must fit in 64 bits/],
    ["clamp", [x, [null as never]], /'min' .* must be Scalar\?, got array/],
    ["softmax.int", [x, 0.5], /'dim' \(position 2\) must be int, got 0\.5/],
    ["softmax.int", [x, Number.NaN], /must be int/],
    ["softmax.int", [x, true], /must be int, got boolean/],
    ["softmax.int", [x, 0, "float33"], /must be a dtype, got 'float33'/],
    ["zeros", ["2"], /'size' \(position 1\) must be int\[\], got string/],
    ["zeros", [[2, "3"]], /must be int\[\], got string/],
    ["zeros", [[2], undefined, "dense"], /must be a layout, got 'dense'/],
    ["zeros", [[2], undefined, undefined, 3], /must be Device\?, got number/],
    ["zeros", [[2], undefined, undefined, "gpu"], /unknown device 'gpu'/],
    ["zeros", [[2], undefined, undefined, "cuda:x"], /unknown device 'cuda:x'/],
    ["dropout", [x, "0.5", true], /'p' \(position 2\) must be float, got string/],
    ["dropout", [x, 0.5, 1], /'train' \(position 3\) must be bool, got number/],
    ["upsample_nearest2d.vec", [x, null, ["a"]], /must be float\[\]\?, got string/],
    ["einsum", [1, [x]], /'equation' \(position 1\) must be str, got number/],
    ["contiguous", [x, "channels_first"], /must be a memory format, got 'channels_first'/],
    ["rand.generator", [[2], 77], /no generator's handle/],
    ["record_stream", [x, 1], /no counterpart in JavaScript/],
  ];
  for (const [name, args, message] of refused)
    t.throws(() => native.call(op(name), null, ...args), { message }, `${name} ${message}`);
  refuses(t, "ERR_OP", /no operator 'aten::nope'/, () => op("nope"));
  refuses(t, "ERR_OP", /no operator 'prim::TupleConstruct'/, () => native.findOp("prim::TupleConstruct", ""));
  for (const id of [-1, 1e9, Number.NaN, 0.5 + 1e5]) {
    refuses(t, "ERR_INVALID_ARGUMENT", /no operator's id/, () => native.call(id, null));
  }
  refuses(t, "ERR_INVALID_ARGUMENT", /\[call\] argument 2/, () => raw["call"]?.(op("neg"), 5, x));
});

t.test("what torch refuses names the operator, the shapes and the dtypes", async (t) => {
  const a = floats([1, 2, 3, 4, 5, 6], [2, 3]);
  const b = from(new BigInt64Array(4), "int64", [4]);
  refuses(
    t,
    "ERR_SHAPE",
    /^\[aten::mm\] mat1 and mat2 shapes cannot.*\n\(self: float32\[2, 3\], mat2: float32\[2, 3\]\)$/s,
    () => call("mm", a, a),
  );
  refuses(t, "ERR_SHAPE", /^\[aten::add\.Tensor\] .*\(self: float32\[2, 3\], other: int64\[4\]\)/s, () =>
    call("add.Tensor", a, b),
  );
  refuses(t, "ERR_SHAPE", /^\[aten::cat\] .*tensors: \[float32\[2, 3\], int64\[4\]\]/s, () =>
    call("cat", [a, b]),
  );
  refuses(t, "ERR_SHAPE", /Dimension out of range/, () => call("softmax.int", a, 5));
  refuses(t, "ERR_DTYPE", /^\[aten::mm\].*same dtype/s, () =>
    call("mm", a, from(new Float64Array(6), "float64", [3, 2])),
  );
  refuses(t, "ERR_DTYPE", /cast/, () => native.call(op("add_.Tensor"), null, b, floats([1, 2, 3, 4])));
  refuses(t, "ERR_OUT_OF_MEMORY", /alloc/, () => call("zeros", [2 ** 46]));
  refuses(t, "ERR_CUDA_UNAVAILABLE", /cuda:63/, () => call("zeros", [2], undefined, undefined, "cuda:63"));
  t.notMatch(error(() => call("mm", a, a)).message, /frame #|Exception raised from/, "no C++ backtrace");
  t.equal(error(() => call("mm", a, a)).constructor.name, "ShapeError");
});

function error(action: () => unknown): Error & { code?: string } {
  try {
    action();
  } catch (thrown) {
    return thrown as Error;
  }
  throw new Error("nothing was thrown");
}

t.test("numbers: whole ones are integers, the rest floats", async (t) => {
  const ints = from(new BigInt64Array([1n, 2n]), "int64", [2]);
  const dtype = (scalar: Value) => native.dtype(call("add.Scalar", ints, scalar));
  t.equal(dtype(2), "int64");
  t.equal(dtype(Number.MAX_SAFE_INTEGER), "int64");
  t.equal(dtype(2.5), "float32");
  for (const float of [Number.NaN, Number.POSITIVE_INFINITY, -0, 2 ** 53, 1e300])
    t.equal(dtype(float), "float32", String(float));
  t.equal(dtype([1]), "float32", "[x] is a float");
  t.equal(dtype([1, 2]), "complex64", "[re, im] is complex");
  t.equal(dtype(5n), "int64");
  t.equal(dtype(true), "int64");
  t.same(values(call("add.Scalar", ints, 2n ** 62n)), [2n ** 62n + 1n, 2n ** 62n + 2n]);
  t.same(values(call("add.Scalar", floats([1, 2]), [0.5])), [1.5, 2.5]);
});

t.test("lists, optionals, defaults", async (t) => {
  const image = call("arange", 16);
  const x = call("view", call("to.dtype", image, "float32"), [1, 1, 4, 4]);
  t.same(shapeOf(call("max_pool2d", x, 2)), [1, 1, 2, 2], "one number for int[2]");
  t.same(shapeOf(call("max_pool2d", x, [2, 1])), [1, 1, 2, 4]);
  t.same(values(call("sum.dim_IntList", x, null)), [120], "null where a list is optional");
  t.same(values(call("sum.dim_IntList", x, [3])), [6, 22, 38, 54]);
  const index = from(new BigInt64Array([3n, 0n]), "int64", [2]);
  t.same(values(call("index.Tensor", x, [null, null, index, index])), [15, 0], "Tensor?[]");
  t.same(values(call("clamp", floats([-2, 0.5, 9]), null, 1)), [-2, 0.5, 1]);
  t.same(shapeOf(call("linear", floats([1, 2]), floats([1, 2, 3, 4], [2, 2]), 0)), [2], "handle 0 is none");
  t.same(values(call("linear", floats([1, 2]), floats([1, 2, 3, 4], [2, 2]), null)), [5, 11]);
  t.same(native.call(op("equal"), null, x, x), true);
  t.same(native.call(op("result_type.Tensor"), null, x, index), "float32", "a dtype as result");
  t.same(native.call(op("result_type.Scalar"), null, index, 0.5), "float32");
  const parts = native.call(op("split.Tensor"), null, x, 2, 2) as Handle[];
  t.same(
    parts.map((part) => shapeOf(part)),
    [
      [1, 1, 2, 4],
      [1, 1, 2, 4],
    ],
  );
  const [top, where] = native.call(op("topk"), null, floats([3, 9, 5]), 2) as [Handle, Handle];
  t.same(
    [values(top), values(where)],
    [
      [9, 5],
      [1n, 2n],
    ],
  );
  for (const handle of [...parts, top, where]) native.dispose(handle);
  t.equal(native.call(op("add_.Tensor"), null, x, x), undefined, "written and returned: nothing");
  t.equal(native.item(call("sum", x)), 240);
});

t.test("every dtype in and out", async (t) => {
  const cases: [string, TypedArray, TypedArray][] = [
    ["float64", new Float64Array([1.5, -0, 1e-300]), new Float64Array([1.5, -0, 1e-300])],
    ["float32", new Float32Array([1.5, Number.NaN, 3]), new Float32Array([1.5, Number.NaN, 3])],
    [
      "int64",
      new BigInt64Array([-(2n ** 63n), 2n ** 63n - 1n]),
      new BigInt64Array([-(2n ** 63n), 2n ** 63n - 1n]),
    ],
    ["int32", new Int32Array([-(2 ** 31), 7]), new Int32Array([-(2 ** 31), 7])],
    ["int16", new Int16Array([-32768, 7]), new Int16Array([-32768, 7])],
    ["int8", new Int8Array([-128, 7]), new Int8Array([-128, 7])],
    ["uint8", new Uint8Array([255, 7]), new Uint8Array([255, 7])],
    ["uint16", new Uint16Array([65535, 7]), new Uint16Array([65535, 7])],
    ["uint32", new Uint32Array([2 ** 32 - 1, 7]), new Uint32Array([2 ** 32 - 1, 7])],
    ["uint64", new BigUint64Array([2n ** 64n - 1n]), new BigUint64Array([2n ** 64n - 1n])],
    ["bool", new Uint8Array([0, 1, 7]), new Uint8Array([0, 1, 1])],
    ["bfloat16", new Uint16Array([0x3f80, 0xc040]), new Float32Array([1, -3])],
    ["float16", new Uint16Array([0x3c00, 0xc200]), new Float32Array([1, -3])],
    ["complex64", new Float32Array([1, 2, 3, -4]), new Float32Array([1, 2, 3, -4])],
    ["complex128", new Float64Array([1, 2, 3, -4]), new Float64Array([1, 2, 3, -4])],
    ["complex32", new Uint16Array([0x3c00, 0xc200]), new Float32Array([1, -3])],
    ["float8_e4m3fn", new Uint8Array([0x38, 0xc4]), new Float32Array([1, -3])],
    ["float8_e5m2", new Uint8Array([0x3c, 0xc2]), new Float32Array([1, -3])],
    ["float8_e4m3fnuz", new Uint8Array([0x40, 0xcc]), new Float32Array([1, -3])],
    ["float8_e5m2fnuz", new Uint8Array([0x40, 0xc6]), new Float32Array([1, -3])],
    ["float8_e8m0fnu", new Uint8Array([127, 128]), new Float32Array([1, 2])],
  ];
  for (const [dtype, input, output] of cases) {
    const shape = [
      input.length / (dtype === "complex64" || dtype === "complex128" || dtype === "complex32" ? 2 : 1),
    ];
    const handle = from(input, dtype, shape);
    t.equal(native.dtype(handle), dtype);
    t.same(native.toData(handle, false), output, dtype);
    if (dtype !== "bool") t.same(native.toData(handle, true), input, `${dtype}, raw`);
    t.equal(native.toData(handle, false).constructor, output.constructor);
    t.same(shapeOf(call("zeros", [2, 0, 3], dtype)), [2, 0, 3]);
  }
  t.equal(native.item(from(new BigInt64Array([7n]), "int64", [])), 7);
  t.equal(native.item(from(new BigInt64Array([2n ** 60n]), "int64", [1, 1])), 2n ** 60n);
  t.equal(native.item(from(new BigUint64Array([2n ** 64n - 1n]), "uint64", [])), 2n ** 64n - 1n);
  t.equal(native.item(from(new Uint8Array([1]), "bool", [])), true);
  t.same(native.item(from(new Float32Array([1, 2]), "complex64", [])), [1, 2]);
  t.equal(native.item(from(new Uint16Array([0x3fc0]), "bfloat16", [])), 1.5);
  refuses(t, "ERR_SHAPE", /\[item\].*2 elements.*float32\[2\]/, () => native.item(floats([1, 2])));
  refuses(t, "ERR_SHAPE", /takes 24 bytes, got 8/, () => floats([1, 2], [2, 3]));
  refuses(t, "ERR_SHAPE", /negative/, () => floats([1], [-1]));
  refuses(t, "ERR_SHAPE", /too many elements/, () => floats([1], [2 ** 40, 2 ** 40]));
  refuses(t, "ERR_DTYPE", /float33/, () => from(new Float32Array(1), "float33", [1]));
  refuses(t, "ERR_INVALID_ARGUMENT", /typed array/, () =>
    raw["fromData"]?.(new Owner(), [1, 2], "float32", [2]),
  );
  refuses(t, "ERR_INVALID_ARGUMENT", /meta device/, () =>
    native.item(call("zeros", [], undefined, undefined, "meta")),
  );
  t.same(values(call("t", floats([1, 2, 3, 4], [2, 2]))), [1, 3, 2, 4], "strided values come contiguous");
  t.same(
    values(call("conj", from(new Float32Array([1, 2]), "complex64", [1]))),
    [1, -2],
    "lazy conjugates are resolved",
  );
});

t.test("shared buffers", async (t) => {
  const shared = new SharedArrayBuffer(32);
  new Float32Array(shared).set([1, 2, 3, 4, 5, 6, 7, 8]);
  const before = native.memoryStats();
  const owner = new Owner();
  const handle = native.fromBuffer(owner, shared, "float32", [3], 8);
  t.same(values(handle), [3, 4, 5]);
  new Float32Array(shared)[2] = 30;
  t.same(values(handle), [30, 4, 5], "the bytes are the buffer's");
  native.call(op("mul_.Scalar"), null, handle, 2);
  t.same([...new Float32Array(shared)].slice(0, 6), [1, 2, 60, 8, 10, 6]);
  t.equal(native.memoryStats().shared_bytes - before.shared_bytes, 12);
  t.equal(native.memoryStats().private_bytes, before.private_bytes);
  native.dispose(handle);
  t.equal(native.memoryStats().shared_bytes, before.shared_bytes);
  const plain = new Float64Array([1, 2]);
  t.same(values(native.fromBuffer(owner, plain, "float64", [2], 0)), [1, 2]);
  t.same(values(native.fromBuffer(owner, plain.buffer, "float64", [1], 8)), [2]);
  refuses(t, "ERR_SHAPE", /the buffer has 32/, () => native.fromBuffer(owner, shared, "float32", [8], 4));
  refuses(t, "ERR_SHAPE", /the buffer has 32/, () => native.fromBuffer(owner, shared, "float32", [1], 33));
  refuses(t, "ERR_INVALID_ARGUMENT", /multiple/, () => native.fromBuffer(owner, shared, "float32", [1], 2));
  refuses(t, "ERR_INVALID_ARGUMENT", /a typed array or a buffer, got object/, () =>
    raw["fromBuffer"]?.(owner, {}, "float32", [1], 0),
  );
  refuses(t, "ERR_INVALID_ARGUMENT", /got string/, () =>
    raw["fromBuffer"]?.(owner, "abcd", "float32", [1], 0),
  );
});

t.test("scopes", async (t) => {
  const x = floats([1, 2]);
  const live = native.memoryStats().live_tensors;
  refuses(t, "ERR_INVALID_ARGUMENT", /no scope is open/, () => native.closeScope([]));
  native.openScope("outer");
  const outer = call("neg", x);
  native.openScope("inner");
  const result = call("neg", x);
  const lost = call("neg", x);
  const kept = call("neg", x);
  native.keep(kept);
  native.closeScope([result, 0, x]);
  t.equal(native.isDisposed(lost), true);
  t.same(
    [outer, result, kept, x].map((handle) => native.isDisposed(handle)),
    [false, false, false, false],
  );
  refuses(
    t,
    "ERR_DISPOSED",
    /'self' \(position 1\) was freed when the scope 'inner' ended\n.*torch\.keep/s,
    () => call("neg", lost),
  );
  native.closeScope([]);
  t.same(
    [outer, result, kept, x].map((handle) => native.isDisposed(handle)),
    [true, true, false, false],
  );
  refuses(t, "ERR_DISPOSED", /scope 'outer'/, () => native.shape(result));
  native.dispose(kept);
  t.equal(native.memoryStats().live_tensors, live);

  native.openScope("long");
  for (let i = 0; i < 5000; i++) native.dispose(call("neg", x));
  native.openScope("nested");
  const inside = call("neg", x);
  for (let i = 0; i < 5000; i++) native.dispose(call("neg", x));
  native.closeScope([]);
  t.equal(native.isDisposed(inside), true, "a scope's beginning is right after the dead were forgotten");
  native.closeScope([]);
  t.equal(native.memoryStats().live_tensors, live);
});

t.test("identity: alias, rebind, variableData", async (t) => {
  const x = floats([1, 2]);
  const owner = new Owner();
  const alias = native.alias(owner, x);
  native.setRequiresGrad(x, true);
  t.equal(native.requiresGrad(alias), true, "one tensor under two handles");
  native.rebind(x, from(new Float64Array([3, 4, 5]), "float64", [3]));
  t.same([native.dtype(alias), values(alias), native.requiresGrad(alias)], ["float64", [3, 4, 5], true]);
  const plain = native.variableData(owner, x);
  t.same([native.requiresGrad(plain), native.storage(plain).id === native.storage(x).id], [false, true]);

  const skeleton = call("zeros", [3], undefined, undefined, "meta");
  native.setRequiresGrad(skeleton, true);
  const again = native.alias(owner, skeleton);
  native.rebind(skeleton, floats([7, 8, 9]));
  t.same(
    [native.device(again), values(again), native.requiresGrad(again)],
    ["cpu", [7, 8, 9], true],
    "from meta to values",
  );
  const stats = native.memoryStats();
  native.dispose(alias);
  native.dispose(plain);
  t.equal(native.memoryStats().private_bytes, stats.private_bytes, "a storage counts until its last handle");
  t.equal(native.memoryStats().live_tensors, stats.live_tensors - 2);
});

t.test("a synchronous loop stays flat", async (t) => {
  const anon = () => Number(/RssAnon:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))?.[1]) / 1024;
  const x = call("zeros", [50_000]); // 200 KB
  const add = op("add.Tensor");
  const start = anon();
  let most = 0;
  for (let i = 0; i < 4000; i++) {
    const owner = new Owner();
    owner.handle = native.call(add, owner, x, x) as Handle;
    if (i % 200 === 0) most = Math.max(most, anon());
  }
  t.ok(most - start < 300, `grew by ${Math.round(most - start)} MiB at most; all of them would be 763`);
  t.ok(native.memoryStats().sweeps > 0);
});

t.test("resized storages are counted as they are", async (t) => {
  const before = native.memoryStats().private_bytes;
  const x = native.call(op("empty.memory_format"), null, [0]) as Handle;
  native.call(op("resize_"), null, x, [1000]);
  t.equal(native.memoryStats().private_bytes - before, 4000);
  const view = native.call(op("slice.Tensor"), null, x, 0, 10, 20) as Handle;
  native.dispose(x);
  t.equal(native.memoryStats().private_bytes - before, 4000, "a view keeps its base's storage");
  native.dispose(view);
  t.equal(native.memoryStats().private_bytes, before);
});

t.test("generators draw Python's numbers", async (t) => {
  interface Case {
    draw: string;
    seed: string;
    size: number;
    values: number[];
    next: number;
  }
  const cases = JSON.parse(readFileSync(fixture("addon/random.json"), "utf8")) as Case[];
  const ramp = call("arange.start", 1, 9, "float32");
  const empty = (size: number) => call("empty.memory_format", [size], "float32");
  const filled = (handle: Handle, name: string, ...args: Value[]) => {
    native.call(op(name), null, handle, ...args);
    return handle;
  };
  const draws: Record<string, (size: number) => Handle> = {
    rand: (n) => call("rand", [n]),
    rand_float64: (n) => call("rand", [n], "float64"),
    randn: (n) => call("randn", [n]),
    randn_float64: (n) => call("randn", [n], "float64"),
    randn_bfloat16: (n) => call("randn", [n], "bfloat16"),
    randint: (n) => call("randint.low", -5, 100, [n]),
    randint_wide: (n) => call("randint.low", 0, 2 ** 40, [n]),
    randperm: (n) => call("randperm", n),
    bernoulli: (n) => call("bernoulli", call("full", [n], 0.3)),
    bernoulli_: (n) => filled(empty(n), "bernoulli_.float", 0.7),
    normal_: (n) => filled(empty(n), "normal_", 1.5, 0.02),
    uniform_: (n) => filled(empty(n), "uniform_", -0.1, 0.1),
    exponential_: (n) => filled(empty(n), "exponential_", 2),
    multinomial: (n) => call("multinomial", ramp, n, true),
    multinomial_one: (n) => call("flatten.using_ints", call("multinomial", call("repeat", ramp, [n, 1]), 1)),
    dropout: (n) => call("dropout", call("ones", [n]), 0.25, true),
  };
  for (const { draw, seed, size, values: expected, next } of cases) {
    native.manualSeed(BigInt(seed));
    const drawn = values((draws[draw] as (size: number) => Handle)(size)).map(Number);
    const shown =
      drawn.length <= 40
        ? drawn
        : [...drawn.slice(0, 8), ...drawn.slice(-8), drawn.reduce((a, b) => a + b, 0)];
    t.strictSame(shown, expected, `${draw}, seed ${seed}, ${size} values`);
    t.equal(native.item(call("rand", [1])), next, "and the generator stands where Python's stands");
  }
});

t.test("generators of one's own", async (t) => {
  const owner = new Owner();
  const generator = native.newGenerator(owner, "cpu");
  t.equal(native.generatorDevice(generator), "cpu");
  native.generatorSeed(generator, 5n);
  const first = values(call("rand.generator", [4], generator));
  native.generatorSeed(generator, 5n);
  t.equal(native.generatorInitialSeed(generator), 5n);
  t.same(values(call("rand.generator", [4], generator)), first);
  native.manualSeed(5n);
  t.same(values(call("rand", [4])), first, "the default one draws the same for the same seed");
  const state = native.generatorGetState(owner, generator);
  const after = values(call("rand.generator", [4], generator));
  native.generatorSetState(generator, state);
  t.same(values(call("rand.generator", [4], generator)), after);
  t.equal(native.defaultGenerator("cpu"), native.defaultGenerator("cpu"));
  native.generatorSeed(generator, -7n);
  t.equal(native.generatorInitialSeed(generator), 2n ** 64n - 7n);
  refuses(t, "ERR_INVALID_ARGUMENT", /meta device/, () => native.newGenerator(owner, "meta"));
  refuses(t, "ERR_INVALID_ARGUMENT", /64 bits/, () => native.manualSeed(2n ** 64n));
});

t.test("threads, devices, defaults", async (t) => {
  const threads = native.getNumThreads();
  t.ok(threads >= 1);
  const a = call("randn", [300, 300]);
  call("mm", a, a);
  const team = readdirSync("/proc/self/task")
    .map((id) => readFileSync(`/proc/self/task/${id}/comm`, "utf8").trim())
    .filter((name) => name === "tf-executor"); // threads inherit the name of the one that starts them
  t.equal(team.length, threads, "one team, the executor's");
  const expected = values(call("mm", a, a)) as number[];
  for (const count of [1, 3]) {
    native.setNumThreads(count);
    t.equal(native.getNumThreads(), count);
    const got = values(call("mm", a, a)) as number[];
    t.ok(
      got.every((value, i) => Math.abs(value - (expected[i] as number)) < 1e-3),
      `${count} threads`,
    );
  }
  native.setNumThreads(threads);
  for (const count of [0, -1, 1.5, 1e9])
    t.throws(() => native.setNumThreads(count), { code: "ERR_INVALID_ARGUMENT" });
  refuses(t, "ERR_SHAPE", /^\[aten::mm\]/, () => call("mm", a, floats([1, 2], [1, 2]))); // fails on the executor
  t.equal(native.deviceCount("cpu"), 1);
  t.equal(native.deviceCount("toaster"), 0);
  t.equal(native.deviceInfo()[0]?.type, "cpu");
  t.equal(native.torchVersion(), "2.11.0");
  native.synchronize("cpu");
  native.emptyCache();
  native.setDefaultDtype("float64");
  t.equal(native.dtype(call("ones", [1])), "float64");
  native.setDefaultDtype("float32");
  refuses(t, "ERR_DTYPE", /floating point/, () => native.setDefaultDtype("int64"));
  const meta = call("zeros", [1 << 20, 1 << 20], undefined, undefined, "meta");
  t.same([native.device(meta), shapeOf(call("mm", meta, meta))], ["meta", [1 << 20, 1 << 20]]);
});

t.test("grad mode holds on the executor too", async (t) => {
  const x = call("ones", [200, 200]);
  native.setRequiresGrad(x, true);
  const loss = call("sum", call("mm", x, x)); // large: handed over
  t.equal(native.gradFn(loss), "SumBackward0");
  native.setGradMode(false);
  t.equal(native.requiresGrad(call("mm", x, x)), false);
  native.setGradMode(true);
  native.pushInferenceMode(true);
  t.equal(native.requiresGrad(call("mm", x, x)), false);
  native.popInferenceMode();
});

t.test("schemas", async (t) => {
  const schemas = native.listOps();
  t.ok(schemas.length > 3000);
  t.ok(schemas.includes("aten::add_.Tensor(Tensor(a!) self, Tensor other, *, Scalar alpha=1) -> Tensor(a!)"));
});

t.test("a tensor goes to a worker by token, and workers come and go", async (t) => {
  const run = (code: string, workerData: unknown) =>
    new Promise<unknown>((resolve, reject) => {
      const worker = new Worker(
        `import { workerData, parentPort } from "node:worker_threads";
         const { addon } = await import(${JSON.stringify(`file://${root}/dist/addon/loader.js`)});
         const native = addon(); const owner = { handle: 0 };
         ${code}`,
        { eval: true, workerData, execArgv: ["--input-type=module"] },
      );
      worker.once("message", (message) => worker.once("exit", () => resolve(message)));
      worker.once("error", reject);
    });
  const x = floats([1, 2, 3]);
  const token = native.share(x);
  const answer = (await run(
    `const handle = native.fromShared(owner, workerData);
     native.call(native.findOp("aten::mul_", "Scalar"), null, handle, 10);
     const result = native.call(native.findOp("aten::neg", ""), null, handle);
     parentPort.postMessage({ token: native.share(result), stats: native.memoryStats() });`,
    token,
  )) as { token: number; stats: { shared_bytes: number } };
  t.same(values(x), [10, 20, 30], "no copy");
  t.equal(answer.stats.shared_bytes, 24, "counted as shared, on both sides");
  const back = native.fromShared(new Owner(), answer.token);
  t.same(values(back), [-10, -20, -30], "a worker's result outlives the worker");
  refuses(t, "ERR_INVALID_ARGUMENT", /claimed already/, () => native.fromShared(new Owner(), token));
  refuses(t, "ERR_INVALID_ARGUMENT", /not made by share/, () => native.fromShared(new Owner(), 1e6));

  const busy = new Worker(
    `const { addon } = await import(${JSON.stringify(`file://${root}/dist/addon/loader.js`)});
     const native = addon(); const mm = native.findOp("aten::mm", ""), randn = native.findOp("aten::randn", "");
     const x = native.call(randn, null, [700, 700]);
     (await import("node:worker_threads")).parentPort.postMessage("busy");
     for (;;) native.dispose(native.call(mm, null, x, x));`,
    { eval: true, execArgv: ["--input-type=module"] },
  );
  await new Promise((resolve) => busy.once("message", resolve));
  await busy.terminate();
  t.same(values(call("neg", x)), [-10, -20, -30], "a terminated worker leaves the others alone");
});
