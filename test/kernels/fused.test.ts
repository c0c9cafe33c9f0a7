// The operators that we add, against the operators that they stand for: values within the dtype's last places, and each
// instruction set of this processor against the others.
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import t, { type Test } from "tap";
import { nn, torch } from "torchformers";
import { addon } from "#lib/addon/loader.js";

type Tensor = torch.Tensor;
type Dtype = "float32" | "bfloat16";

const LEVELS = ["generic", "avx2", "avx512", "avx512_bf16", "neon"];
const F = nn.functional;

/** Calls an operator of ours; tensors in and out. */
// biome-ignore lint/suspicious/noExplicitAny: arguments go by the operator's schema
function ours(name: string, ...args: any[]): Tensor[] {
  // biome-ignore lint/suspicious/noExplicitAny: as above
  const plain = (value: any): any =>
    value instanceof torch.Tensor ? value._handle : Array.isArray(value) ? value.map(plain) : value;
  const result = addon().call(addon().findOp(`torchformers::${name}`, ""), null, ...args.map(plain));
  return [result].flat().map((handle) => {
    const tensor = Object.create(torch.Tensor.prototype) as Tensor & { _handle: number };
    addon().adopt(handle as number, tensor);
    tensor._handle = handle as number;
    return tensor;
  });
}
const one = (name: string, ...args: unknown[]): Tensor => ours(name, ...args)[0] as Tensor;

/** The largest difference, in units of what the dtype resolves at the largest value of `expected`, or at `least`. */
function distance(actual: Tensor, expected: Tensor, least = 1e-6): number {
  if (`${actual.shape}` !== `${expected.shape}` || actual.dtype !== expected.dtype)
    return Number.POSITIVE_INFINITY;
  if (expected.numel() === 0) return 0;
  const scale = expected.to("float32").abs().max().item() as number;
  const unit = (expected.dtype === "float32" ? 2 ** -23 : 2 ** -8) * Math.max(scale, least);
  return (actual.to("float32").sub(expected.to("float32")).abs().max().item() as number) / unit;
}

function sameOnMeta(test: Test, name: string, args: unknown[]) {
  const onMeta = (value: unknown): unknown =>
    value instanceof torch.Tensor
      ? torch.empty_strided(value.shape, value.stride(), { dtype: value.dtype, device: "meta" })
      : Array.isArray(value)
        ? value.map(onMeta)
        : value;
  const facts = (tensors: Tensor[]) => tensors.map((x) => `${x.dtype} [${x.shape}] (${x.stride()})`);
  test.same(facts(ours(name, ...args.map(onMeta))), facts(ours(name, ...args)), `${name} on meta`);
}

const child = process.env.TORCHFORMERS_TEST_CHECKSUM; // where a child writes its results: too much for a pipe
const randn = (dtype: Dtype, ...shape: number[]) => torch.randn(shape).to(dtype);

/** Results on seeded inputs, to be compared between instruction sets. */
function checksums(): Record<string, number[]> {
  torch.manual_seed(3);
  const list = (x: Tensor) => Array.from(x.to("float32").flatten().tolist() as number[]);
  const results: Record<string, number[]> = {};
  for (const dtype of ["float32", "bfloat16"] as const) {
    for (const [rows, k, n] of [
      [1, 64, 33],
      [3, 100, 7],
      [8, 257, 40],
      [5, 31, 3],
      [9, 65, 50],
      [33, 128, 70],
    ] as const)
      results[`linear ${dtype} ${rows} ${k} ${n}`] = list(
        one("linear_group", randn(dtype, rows, k), [randn(dtype, n, k)], [randn(dtype, n)]),
      );
    results[`norm ${dtype}`] = list(one("rms_norm", randn(dtype, 3, 100), randn(dtype, 100), 1e-6));
    results[`swiglu ${dtype}`] = list(one("swiglu", randn(dtype, 1000), randn(dtype, 1000)));
    const [key, value] = [randn(dtype, 1, 2, 700, 24), randn(dtype, 1, 2, 700, 24)];
    const mask = torch.rand([1, 1, 1, 700]).gt(0.3);
    results[`attention ${dtype}`] = list(
      one("attend_one", randn(dtype, 1, 4, 1, 24), key, value, mask, null, null),
    );
    for (const [queries, width] of [
      [5, 24],
      [150, 33],
    ] as const) {
      const rows = [randn(dtype, 1, 4, queries, width), randn(dtype, 1, 2, 300, width)] as const;
      results[`products of attention ${dtype} ${queries}`] = list(
        one("attend", ...rows, randn(dtype, 1, 2, 300, 20), mask.narrow(3, 0, 300), true, null),
      );
    }
  }
  return results;
}

if (child !== undefined) {
  writeFileSync(child, JSON.stringify(checksums()));
  process.exit(0);
}

t.before(() => torch.set_grad_enabled(false));

t.test("linear_group", (test) => {
  torch.manual_seed(1);
  for (const dtype of ["float32", "bfloat16"] as const) {
    let worst = 0;
    for (const rows of [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 33])
      for (const k of [1, 16, 33, 256, 300, 1031])
        for (const outputs of [[1], [5, 32, 67], [64, 64]]) {
          const x = randn(dtype, rows, k);
          const weights = outputs.map((n) => randn(dtype, n, k));
          const biases = outputs.map((n, i) => (i % 2 ? null : randn(dtype, n)));
          for (const some of [biases, []]) {
            const results = ours("linear_group", x, weights, some);
            results.forEach((result, i) => {
              const bias = some[i]?.to("float64");
              const exact = F.linear(x.to("float64"), (weights[i] as Tensor).to("float64"), bias).to(dtype);
              worst = Math.max(worst, distance(result, exact, Math.sqrt(k))); // a sum of k terms about 1
            });
          }
        }
    test.ok(worst <= (dtype === "float32" ? 8 : 1), `${dtype}: ${worst} units apart at most`);
  }

  const weight = randn("bfloat16", 6, 16);
  const x = randn("bfloat16", 2, 1, 16);
  test.same(one("linear_group", x, [weight], []).shape, [2, 1, 6], "leading dimensions stay");
  const wide = randn("bfloat16", 6, 20).narrow(1, 2, 16);
  test.ok(distance(one("linear_group", x, [wide], []), F.linear(x, wide)) <= 1, "rows with gaps");
  const turned = randn("bfloat16", 16, 6).t();
  test.ok(distance(one("linear_group", x, [turned], []), F.linear(x, turned)) <= 1, "columns first");
  const many = randn("bfloat16", 20, 16);
  test.ok(distance(one("linear_group", many, [wide], []), F.linear(many, wide)) <= 1, "many rows with gaps");
  test.ok(distance(one("linear_group", many, [turned], []), F.linear(many, turned)) <= 1, "many, turned");
  const half = one("linear_group", x.to("float16"), [weight.to("float16")], []);
  test.ok(torch.equal(half, F.linear(x.to("float16"), weight.to("float16"))), "fp16 is ATen's");
  test.same(one("linear_group", randn("bfloat16", 0, 16), [weight], []).shape, [0, 6], "no rows");
  const large = [randn("bfloat16", 4000, 512), randn("bfloat16", 1000, 512)];
  for (const rows of [1, 40, 1100]) {
    const input = randn("bfloat16", rows, 512);
    for (const [i, result] of ours("linear_group", input, large, []).entries())
      test.ok(distance(result, F.linear(input, large[i] as Tensor)) <= 1, `${rows} rows, all threads`);
  }
  sameOnMeta(test, "linear_group", [x, [weight, weight], [randn("bfloat16", 6), null]]);
  test.throws(() => ours("linear_group", x, [randn("bfloat16", 6, 15)], []), { message: /does not go with/ });
  test.throws(() => ours("linear_group", x, [weight, weight], [null]), { message: /2 weights but 1 biases/ });
  test.throws(() => ours("linear_group", x, [weight.to("float32")], []), { code: "ERR_DTYPE" });
  test.end();
});

/** The norm as the models write it. */
function norm(x: Tensor, weight: Tensor | null, eps: number) {
  const wide = x.to("float32");
  const scaled = wide.mul(torch.rsqrt(wide.pow(2).mean(-1, true).add(eps))).to(x.dtype);
  return weight ? weight.mul(scaled) : scaled;
}

t.test("rms_norm and add_rms_norm", (test) => {
  torch.manual_seed(2);
  for (const dtype of ["float32", "bfloat16"] as const) {
    let worst = 0;
    for (const shape of [[1], [7], [2, 64], [3, 2, 100], [1, 1, 2048], [0, 8], [65, 513]]) {
      const x = randn(dtype, ...shape).mul(3);
      const residual = randn(dtype, ...shape);
      const weight = randn(dtype, shape.at(-1) as number);
      for (const w of [weight, null]) {
        worst = Math.max(worst, distance(one("rms_norm", x, w, 1e-5), norm(x, w, 1e-5)));
        const [output, sum] = ours("add_rms_norm", x, residual, w, 1e-5) as [Tensor, Tensor];
        test.ok(torch.equal(sum, x.add(residual)), "the sum is add's");
        worst = Math.max(worst, distance(output, norm(sum, w, 1e-5)));
      }
      sameOnMeta(test, "rms_norm", [x, weight, 1e-5]);
      sameOnMeta(test, "add_rms_norm", [x, residual, weight, 1e-5]);
    }
    test.ok(worst <= (dtype === "float32" ? 4 : 1), `${dtype}: ${worst} units apart at most`);
  }
  const turned = randn("float32", 8, 4).t();
  test.ok(distance(one("rms_norm", turned, null, 1e-5), norm(turned, null, 1e-5)) <= 4, "transposed input");
  test.throws(() => ours("rms_norm", randn("float32", 4), randn("float32", 5), 1e-5), {
    message: /does not go with/,
  });
  test.throws(() => ours("rms_norm", torch.zeros([4], { dtype: "int64" }), null, 1e-5), {
    code: "ERR_DTYPE",
  });
  test.end();
});

t.test("rotary", (test) => {
  torch.manual_seed(4);
  const rotate = (x: Tensor) => {
    const half = (x.shape.at(-1) as number) / 2;
    return torch.cat([x.narrow(-1, half, half).neg(), x.narrow(-1, 0, half)], -1);
  };
  for (const dtype of ["float32", "bfloat16"] as const)
    for (const [batch, length, width, turned, rows] of [
      [1, 1, 64, 64, 1],
      [2, 5, 16, 16, 2],
      [2, 3, 10, 4, 1],
    ] as const)
      for (const layout of ["heads first", "length first"]) {
        const make = (heads: number) =>
          layout === "heads first"
            ? randn(dtype, batch, heads, length, width)
            : randn(dtype, batch, length, heads, width).transpose(1, 2);
        const [query, key, cos, sin] = [
          make(4),
          make(2),
          randn(dtype, rows, length, turned),
          randn(dtype, rows, length, turned),
        ];
        const results = ours("rotary", query, key, cos, sin);
        [query, key].forEach((x, i) => {
          const part = x.narrow(-1, 0, turned);
          const moved = part.mul(cos.unsqueeze(1)).add(rotate(part).mul(sin.unsqueeze(1)));
          const expected = torch.cat([moved, x.narrow(-1, turned, width - turned)], -1);
          test.ok(torch.equal(results[i] as Tensor, expected), `${dtype} ${layout} ${width}: the same bits`);
          test.same((results[i] as Tensor).stride(), torch.empty_like(x).stride());
        });
        sameOnMeta(test, "rotary", [query, key, cos, sin]);
      }
  const x = randn("float32", 1, 2, 3, 8);
  test.throws(() => ours("rotary", x, x, randn("float32", 1, 3, 5), randn("float32", 1, 3, 5)), {
    message: /does not go with/,
  });
  test.end();
});

t.test("swiglu", (test) => {
  torch.manual_seed(5);
  for (const dtype of ["float32", "bfloat16"] as const) {
    for (const shape of [[1], [3, 5], [1, 1, 5632], [9, 4000]]) {
      const [gate, up] = [randn(dtype, ...shape).mul(5), randn(dtype, ...shape)];
      const expected = F.silu(gate).mul(up);
      test.ok(
        distance(one("swiglu", gate, up), expected) <= (dtype === "float32" ? 2 : 1),
        `${dtype} [${shape}]`,
      );
      sameOnMeta(test, "swiglu", [gate, up]);
    }
    const extremes = torch.tensor([-1000, -100, -88, -1e-30, 0, 1e-30, 88, 100, 1000]).to(dtype);
    const ones = torch.ones_like(extremes);
    test.ok(distance(one("swiglu", extremes, ones), F.silu(extremes)) <= 1, `${dtype} extremes`);
    const nan = one("swiglu", torch.tensor([Number.NaN]).to(dtype), torch.ones([1]).to(dtype));
    test.ok(Number.isNaN(nan.item() as number), "NaN stays");
  }
  test.end();
});

t.test("attend_one", (test) => {
  torch.manual_seed(6);
  const worst = { float32: 0, bfloat16: 0 };
  for (const dtype of ["float32", "bfloat16"] as const)
    for (const [batch, heads, kv, capacity, width] of [
      [1, 4, 4, 9, 8],
      [2, 4, 2, 130, 64],
      [1, 8, 1, 1300, 40],
      [3, 6, 3, 600, 17],
    ] as const) {
      const query = randn(dtype, batch, heads, 1, width);
      const key = randn(dtype, batch, kv, capacity, width);
      const value = randn(dtype, batch, capacity, kv, width).transpose(1, 2);
      const wide = (x: Tensor) => x.to("float32");
      const check = (
        mask: Tensor | null,
        length: Tensor | null,
        lookAt: Tensor | null,
        scale: number | null,
      ) => {
        const expected = F.scaled_dot_product_attention(wide(query), wide(key), wide(value), {
          attn_mask: lookAt && (lookAt.dtype === "bool" ? lookAt : wide(lookAt)),
          enable_gqa: true,
          ...(scale === null ? {} : { scale }),
        }).to(dtype);
        const actual = one("attend_one", query, key, value, mask, length, scale);
        worst[dtype] = Math.max(worst[dtype], distance(actual, expected));
        sameOnMeta(test, "attend_one", [query, key, value, mask, length, scale]);
      };
      const positions = torch.arange(capacity);
      check(null, null, null, null);
      check(null, null, null, 0.3);
      const filled = torch.tensor(capacity - 3);
      check(null, filled, positions.lt(filled).expand([batch, 1, 1, capacity]), null);
      const each = torch.arange(batch).mul(3).add(2);
      check(null, each, positions.lt(each.view([batch, 1, 1, 1])), null);
      const some = torch.rand([batch, 1, 1, capacity]).gt(0.5).logical_or(positions.eq(0));
      check(some, null, some, null);
      const added = torch.randn([1, heads, 1, capacity]).to(dtype);
      check(added, null, added, null);
      check(some, each, some.logical_and(positions.lt(each.view([batch, 1, 1, 1]))), null);
    }
  test.ok(worst.float32 <= 16, `float32: ${worst.float32} units apart at most`);
  test.ok(worst.bfloat16 <= 1, `bfloat16: ${worst.bfloat16} units apart at most`);
  const [query, cache] = [randn("float32", 1, 2, 1, 4), randn("float32", 1, 1, 5, 4)];
  const nothing = torch.zeros([1, 1, 1, 5]).gt(0);
  for (const mask of [nothing, torch.full([1, 1, 1, 5], Number.NEGATIVE_INFINITY)])
    test.ok(
      torch.equal(one("attend_one", query, cache, cache, mask), torch.zeros_like(query)),
      "nothing to see",
    );
  test.throws(() => ours("attend_one", query, cache, cache, null, torch.tensor(6)), {
    message: /out of range/,
  });
  test.throws(() => ours("attend_one", randn("float32", 1, 2, 2, 4), cache, cache), {
    message: /\[batch, heads, 1, width\]/,
  });
  test.throws(() => ours("attend_one", randn("float32", 1, 3, 1, 4), randn("float32", 1, 2, 5, 4), cache), {
    message: /do not go with/,
  });
  test.end();
});

t.test("attend_one reads only what the mask allows", (test) => {
  torch.manual_seed(8);
  const [query, key, value] = [1, 300, 300].map((n) => torch.randn([2, 2, n, 16])) as [
    Tensor,
    Tensor,
    Tensor,
  ];
  const positions = torch.arange(300);
  const seen = positions.ge(70).logical_and(positions.lt(140));
  const expected = F.scaled_dot_product_attention(query, key, value, {
    attn_mask: seen.view([1, 1, 1, 300]),
  });
  // What must not be read would turn results into NaN, were it read and multiplied by zero.
  const poisoned = [key, value].map((x) => x.masked_fill(seen.logical_not().view([300, 1]), Number.NaN));
  const actual = one("attend_one", query, ...poisoned, seen.view([1, 1, 1, 300]), null, null);
  test.ok(distance(actual, expected) <= 16);
  test.end();
});

t.test("attend", (test) => {
  torch.manual_seed(7);
  const worst = { float32: 0, bfloat16: 0 };
  for (const dtype of ["float32", "bfloat16"] as const)
    for (const [batch, heads, kv, queries, keys, width, valueWidth] of [
      [1, 2, 2, 1, 1, 8, 8],
      [2, 4, 2, 7, 7, 64, 64],
      [1, 8, 2, 130, 130, 40, 40],
      [1, 2, 1, 33, 300, 17, 24],
      [3, 6, 3, 20, 150, 128, 128],
      [1, 3, 1, 260, 129, 5, 7],
    ] as const) {
      const query = randn(dtype, batch, queries, heads, width).transpose(1, 2);
      const key = randn(dtype, batch, kv, keys, width);
      const value = randn(dtype, batch, keys, kv, valueWidth).transpose(1, 2);
      const wide = (x: Tensor) => x.to("float64");
      const check = (mask: Tensor | null, causal: boolean, scale: number | null) => {
        const both =
          causal && mask?.dtype === "bool"
            ? mask.logical_and(torch.ones([queries, keys]).tril().gt(0))
            : causal
              ? torch.ones([queries, keys]).tril().gt(0)
              : mask;
        if (causal && mask && mask.dtype !== "bool") return;
        const repeated = (x: Tensor) => wide(x).repeat_interleave(heads / kv, 1);
        const expected = F.scaled_dot_product_attention(wide(query), repeated(key), repeated(value), {
          attn_mask: both && (both.dtype === "bool" ? both : wide(both)),
          ...(scale === null ? {} : { scale }),
        }).to(dtype);
        const actual = one("attend", query, key, value, mask, causal, scale);
        worst[dtype] = Math.max(worst[dtype], distance(actual, expected));
        sameOnMeta(test, "attend", [query, key, value, mask, causal, scale]);
      };
      check(null, false, null);
      check(null, true, 0.3);
      const padding = torch.rand([batch, 1, 1, keys]).gt(0.4);
      check(padding, false, null);
      check(padding, true, null); // some rows may look at nothing
      check(torch.rand([batch, heads, queries, keys]).gt(0.5), false, null);
      check(
        torch
          .ones([queries, keys])
          .tril(keys - queries)
          .gt(0),
        false,
        null,
      );
      check(torch.randn([1, heads, queries, keys]).to(dtype), false, null);
      check(torch.zeros([1, 1, queries, keys]).gt(0), false, null);
    }
  test.ok(worst.float32 <= 16, `float32: ${worst.float32} units apart at most`);
  // Shares of values are rounded to bfloat16 before they are multiplied, as in ATen's kernel.
  test.ok(worst.bfloat16 <= 2, `bfloat16: ${worst.bfloat16} units apart at most`);

  const x = randn("float32", 1, 2, 5, 4);
  const nan = x.clone();
  nan.select(2, 1).fill_(Number.NaN);
  const spread = one("attend", x, nan, x, null, true, null).isnan().any(-1).tolist();
  test.same(spread, [[Array(5).fill(false).fill(true, 1), Array(5).fill(false).fill(true, 1)]], "NaN stays");
  test.throws(() => ours("attend", x, randn("float32", 1, 3, 5, 4), x), { message: /do not go with/ });
  test.throws(() => ours("attend", x, x, x, torch.zeros([5, 4]).gt(0)), { code: /ERR_/ });
  test.throws(() => ours("attend", x, x, x.to("bfloat16")), { code: "ERR_DTYPE" });
  test.end();
});

t.test("no derivative is an error, not a wrong gradient", (test) => {
  torch.set_grad_enabled(true);
  const x = torch.randn([2, 8], { requires_grad: true });
  const y = one("rms_norm", x, null, 1e-5);
  torch.set_grad_enabled(false);
  test.throws(() => y.sum().backward());
  test.end();
});

t.test("instruction sets agree", (test) => {
  const file = join(test.testdir(), "results.json");
  const run = (level: string): [results: Record<string, number[]>, stderr: string] => {
    writeFileSync(file, "{}");
    const { stderr } = spawnSync(process.execPath, [...process.execArgv, fileURLToPath(import.meta.url)], {
      encoding: "utf8",
      env: { ...process.env, TORCHFORMERS_TEST_CHECKSUM: file, TORCHFORMERS_CPU_LEVEL: level },
    });
    return [JSON.parse(readFileSync(file, "utf8")), stderr];
  };
  const [base] = run("generic");
  test.ok(Object.keys(base).length > 0);
  for (const level of LEVELS.slice(1)) {
    const [results, stderr] = run(level);
    if (/which this processor lacks/.test(stderr)) continue;
    for (const [name, expected] of Object.entries(base)) {
      const actual = results[name] as number[];
      const scale = Math.max(...expected.map(Math.abs));
      const apart = Math.max(...expected.map((x, i) => Math.abs(x - (actual[i] as number)))) / scale;
      // The products add up in another order and are rounded to bf16; the loops over rows give the same bits.
      const bits = /bfloat16/.test(name) ? 8 : 20;
      const limit = /^(linear|products)/.test(name) ? 2 ** -bits : 0;
      test.ok(apart <= limit, `${level}: ${name} ${apart}`);
    }
  }
  test.match(run("sse")[1], /may be generic, avx2/);
  test.end();
});
