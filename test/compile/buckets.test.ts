// Lengths that are padded to buckets give what the function gives without them.
import t from "tap";
import { InvalidArgumentError, LlamaForCausalLM, nn, TraceError, torch } from "torchformers";
import { fixture } from "../support/fixtures.js";

type Tensor = torch.Tensor;

const rejects = (promise: Promise<unknown>): Promise<Error> =>
  promise.then(
    () => {
      throw new Error("resolved");
    },
    (error: Error) => error,
  );
const id = (x: Tensor) => x.mul(1);

t.test("wrong input", async (t) => {
  for (const buckets of [
    3,
    {},
    { args: {}, sizes: [4] },
    { args: { x: { dim: 0 } }, sizes: [4] },
    { args: { 0: { dim: 0.5 } }, sizes: [4] },
    { args: { 0: { dim: 0 } }, sizes: [] },
    { args: { 0: { dim: 0 } }, sizes: [-1] },
    { args: { 0: { dim: 0 } }, sizes: [4], side: "both" },
    { args: { 0: { dim: 0 } }, sizes: [4], pad: 3 },
  ])
    t.throws(
      () => torch.compile(id, { buckets: buckets as never }),
      InvalidArgumentError,
      JSON.stringify(buckets),
    );
  const one = { args: { 0: { dim: 0 } }, sizes: [4, 8] };
  const fn = torch.compile(id, { buckets: one });
  t.match((await rejects(fn(torch.ones(9)))).message, /length 9, the largest size is 8/);
  t.match((await rejects(fn(3 as never))).message, /no tensor/);
  t.match((await rejects((fn as unknown as () => Promise<unknown>)())).message, /none of '0'/);
  t.match((await rejects(fn(torch.ones([])))).message, /no dimension 0/);
  const two = torch.compile((a: Tensor, b: Tensor) => a.add(b), {
    buckets: { args: { 0: { dim: 0 }, 1: { dim: 0 } }, sizes: [4] },
  });
  t.match((await rejects(two(torch.ones(3), torch.ones(2)))).message, /'0' has length 3, '1' has 2/);
  const short = torch.compile(id, { buckets: { args: { 0: { dim: 0 } }, sizes: (n) => n - 1 } });
  t.match((await rejects(short(torch.ones(3)))).message, /must be at least 3, got 2/);
});

t.test("what cannot be cut back", async (t) => {
  const buckets = { args: { 0: { dim: 0 } }, sizes: [4, 8] };
  const cases: [string, (x: Tensor) => unknown, RegExp][] = [
    [
      "another length",
      (x) => x.narrow(0, 1, (x.shape[0] as number) - 1).mul(2),
      /\[2\].*\[3\].*not a padded length/,
    ],
    ["a multiple", (x) => torch.cat([x, x]), /\[6\].*\[8\]/],
    ["a number", (x) => [x.sum(), x.shape[0]], /more than its shapes/],
    ["another structure", (x) => x.split(1), /more than its shapes/],
    ["a write", (x) => x.add_(1), /writes to an argument/],
  ];
  for (const [name, body, message] of cases) {
    const fn = torch.compile(body, { buckets });
    const error = await rejects(fn(torch.ones(3)));
    t.type(error, TraceError, name);
    t.match(error.message, message, name);
    t.match((await rejects(fn(torch.ones(3)))).message, message, `${name}, again`);
  }
  const two = torch.compile((a: Tensor, b: Tensor) => a.unsqueeze(1).mul(b), {
    buckets: [
      { args: { 0: { dim: 0 } }, sizes: [4] },
      { args: { 1: { dim: 0 } }, sizes: [4] },
    ],
  });
  t.match((await rejects(two(torch.ones(3), torch.ones(3)))).message, /may be one of 2 lengths/);
  const fresh = torch.compile((a: Tensor, b: Tensor) => a.unsqueeze(1).mul(b), {
    buckets: [
      { args: { 0: { dim: 0 } }, sizes: [4] },
      { args: { 1: { dim: 0 } }, sizes: [8], side: "left" },
    ],
  });
  for (const [n, m] of [
    [3, 5],
    [2, 2],
    [4, 8],
  ] as const) {
    const [a, b] = [torch.randn(n), torch.randn(m)];
    t.ok(torch.equal(await fresh(a, b), a.unsqueeze(1).mul(b)), `${n}, ${m}`);
  }
  t.equal(fresh.counters.recordings, 1);
});

t.test("a layer whose size is that of a bucket", async (t) => {
  const layer = new nn.Linear(8, 8);
  const fn = torch.compile((x: Tensor) => ({ y: layer.forward(x), norm: layer.weight.mul(2), x }), {
    buckets: { args: { 0: { dim: -2 } }, sizes: [4, 8] },
  });
  for (const n of [8, 3, 4, 6, 1]) {
    const x = torch.randn(2, n, 8);
    const out = await fn(x);
    t.ok(torch.allclose(out.y, layer.forward(x), { atol: 1e-6 }), `length ${n}`);
    t.same(out.norm.shape, [8, 8]);
    t.equal(out.x, x, "an argument that is passed through is the caller's");
  }
  t.equal(fn.counters.recordings, 2);
});

t.test("a model", async (t) => {
  const model = await LlamaForCausalLM.from_pretrained(fixture("models/llama"));
  const forward = (inputs: { input_ids: Tensor; attention_mask?: Tensor }) => model.forward(inputs);
  const dim = { dim: 1 };
  for (const side of ["right", "left"] as const) {
    const compiled = torch.compile(
      (inputs: { input_ids: Tensor; attention_mask?: Tensor }) => torch.no_grad(() => forward(inputs)),
      {
        buckets: {
          args: { "0.input_ids": { dim: 1, value: 1 }, "0.attention_mask": dim },
          sizes: [8, 16],
          side,
        },
      },
    );
    for (const n of [3, 5, 8, 11, 16, 7]) {
      const input_ids = torch.randint(2, 60, [2, n]);
      const attention_mask = torch.ones([2, n], { dtype: "int64" });
      const out = await compiled({ input_ids, attention_mask });
      const expected = torch.no_grad(() => forward({ input_ids, attention_mask }));
      t.same(out.logits.shape, expected.logits.shape);
      t.ok(torch.allclose(out.logits, expected.logits, { atol: 1e-5 }), `${side}, ${n}`);
      t.equal(out.past_key_values?.get_seq_length(), n, "the cache is cut too");
    }
    t.equal(compiled.counters.recordings, 2);
  }
});

t.test("gradients", async (t) => {
  const w = new nn.Parameter(torch.randn(4));
  const loss = torch.compile(
    (x: Tensor, mask: Tensor) => {
      const value = x.mul(w).pow(2).mul(mask.unsqueeze(1)).sum();
      value.backward();
      return value;
    },
    {
      buckets: {
        args: { 0: { dim: 0, value: 3 }, 1: { dim: 0 } },
        sizes: (n) => 2 ** Math.ceil(Math.log2(n)),
      },
    },
  );
  for (const n of [3, 4, 5, 7]) {
    const x = torch.randn(n, 4);
    w.grad = null;
    await loss(x, torch.ones(n));
    const actual = (w.grad as Tensor | null)?.clone() as Tensor;
    w.grad = null;
    x.mul(w).pow(2).sum().backward();
    t.ok(torch.allclose(actual, w.grad as unknown as Tensor), `length ${n}`);
  }
  t.equal(loss.counters.recordings, 2);
});
