import t from "tap";
import { InvalidArgumentError, nn, ShapeError, TensorBusyError, TraceError, torch } from "torchformers";

type Tensor = torch.Tensor;
const rejects = (promise: Promise<unknown>) =>
  promise.then(
    () => t.fail("resolved"),
    (error: unknown) => error,
  );

t.test("invalid input", async (t) => {
  t.throws(() => torch.compile(3 as never), InvalidArgumentError);
  t.throws(() => torch.compile(() => {}, { cache_sise: 3 } as never), InvalidArgumentError);
  t.throws(() => torch.compile(() => {}, { cache_size: 0 }), InvalidArgumentError);
  const id = torch.compile((x: unknown) => x);
  t.type(await rejects(id(Symbol("s"))), InvalidArgumentError);
  t.type(await rejects(id(new Map([["a", torch.ones(2)]]))), InvalidArgumentError, "tensors out of sight");
  const disposed = torch.ones(2);
  disposed.dispose();
  t.match(await rejects(id(disposed)), { code: "ERR_DISPOSED" });
});

t.test("values cannot be read while a function is recorded", async (t) => {
  const bodies: [string, (x: Tensor) => unknown][] = [
    ["item", (x) => x.sum().item()],
    ["tolist", (x) => x.tolist()],
    ["nonzero", (x) => x.nonzero()],
    ["a mask as index", (x) => x.index(x.gt(0))],
    ["promise", async (x) => x],
  ];
  for (const [name, body] of bodies) {
    const error = (await rejects(torch.compile(body)(torch.ones(3)))) as Error;
    t.type(error, TraceError, name);
    if (name !== "promise") t.match(error.message, /compile\.test\.[jt]s:\d+/, `${name}: the line`);
  }
  t.equal(torch.ones(2).sum().item(), 2, "recording ends with a failure");
});

t.test("a tensor that a recording leaves behind is an error", async (t) => {
  let kept: Tensor | undefined;
  const fn = torch.compile((x: Tensor) => {
    kept = x.add(1);
    return kept.mul(2);
  });
  t.same((await fn(torch.ones(2))).tolist(), [4, 4]);
  const left = kept as unknown as Tensor;
  const uses: [string, () => unknown][] = [
    ["by a call with boxed arguments", () => left.kthvalue(1)],
    ["by one without", () => left.add(1)],
    ["as second argument", () => torch.ones(2).mul(left)],
    ["in a list", () => torch.cat([torch.ones(2), left])],
    ["in a list of optional tensors", () => torch.ones(2).index(left)],
    ["written", () => left.add_(1)],
    ["read", () => left.tolist()],
  ];
  for (const [name, use] of uses) t.throws(use, TraceError, name);
  t.same(torch.ones(2).add(1).tolist(), [2, 2], "others are computed");
  const other = torch.compile((x: Tensor) => x.add(kept as Tensor));
  t.type(await rejects(other(torch.ones(2))), TraceError);
});

t.test("numbers are those of eager mode", async (t) => {
  const fn = (x: Tensor, scale: number) =>
    torch.cat([x.mul(scale).add(1).softmax(-1), torch.arange(4, { dtype: "float32" }).unsqueeze(0)]).relu();
  const compiled = torch.compile(fn);
  const x = torch.randn(3, 4);
  for (const scale of [1, 2.5, 2.5, 1])
    t.ok(torch.equal(await compiled(x, scale), fn(x, scale)), `scale ${scale}`);
  t.match(compiled.counters, { calls: 4, recordings: 2, outdated: 0, evicted: 0 });
});

t.test("signature", async (t) => {
  const fn = torch.compile((x: Tensor, options: object) => [x.add(1), options]);
  const x = torch.ones(4, 4);
  const recordings = async (...args: [Tensor, object]) => {
    await fn(...args);
    return fn.counters.recordings;
  };
  t.equal(await recordings(x, { a: 1 }), 1);
  t.equal(await recordings(torch.zeros(4, 4), { a: 1 }), 1, "other values");
  t.equal(await recordings(x, { a: 2 }), 2, "a number");
  t.equal(await recordings(x, { a: "2" }), 3, "a string");
  t.equal(await recordings(x.t(), { a: 1 }), 4, "strides");
  t.equal(await recordings(x.double(), { a: 1 }), 5, "dtype");
  t.equal(await recordings(torch.ones(4, 5), { a: 1 }), 6, "shape");
  t.equal(await recordings(x, { a: x }), 7, "a tensor given twice");
  t.equal(await recordings(torch.ones(4, 4, { requires_grad: true }), { a: 1 }), 8, "requires_grad");
  let pending: Promise<unknown> | undefined;
  torch.no_grad(() => {
    pending = fn(x, { a: 1 });
  });
  await pending;
  t.equal(fn.counters.recordings, 9, "grad mode");
  fn.recompile();
  t.equal(await recordings(x, { a: 1 }), 10, "recompile");
});

t.test("a bounded cache", async (t) => {
  const fn = torch.compile((x: Tensor) => x.add(1), { cache_size: 2 });
  for (const size of [1, 2, 1, 3, 1, 2]) await fn(torch.ones(size));
  t.match(fn.counters, { recordings: 4, evicted: 2 });
  t.equal(fn.programs().length, 2);
});

t.test("results keep their structure", async (t) => {
  const fn = torch.compile((x: Tensor, bag: { list: Tensor[]; name: string }) => {
    const y = x.add(1);
    return { y, same: [y, y.view(-1)], bag, x, nothing: null, text: "t", n: 3 };
  });
  const x = torch.zeros(2, 2);
  const bag = { list: [torch.ones(1)], name: "bag" };
  for (let i = 0; i < 2; i++) {
    const out = await fn(x, bag);
    t.same(out.y.tolist(), [
      [1, 1],
      [1, 1],
    ]);
    t.equal(out.same[0], out.y, "one tensor stays one");
    out.y.add_(1);
    t.same(out.same[1]?.tolist(), [2, 2, 2, 2], "a view stays a view");
    t.equal(out.bag, bag, "an object of the arguments");
    t.equal(out.x, x, "a tensor of the arguments");
    t.match(out, { nothing: null, text: "t", n: 3 });
  }
});

t.test("what a function does to its arguments, its run does", async (t) => {
  const fn = torch.compile((state: { h: Tensor; log: Tensor[]; n: number; gone?: number }, x: Tensor) => {
    state.h = state.h.add(x);
    state.log.push(state.h.mul(2));
    state.n += 1;
    delete state.gone;
    x.add_(10);
  });
  const state: { h: Tensor; log: Tensor[]; n: number; gone?: number } = {
    h: torch.zeros(2),
    log: [],
    n: 5,
    gone: 1,
  };
  const x = torch.ones(2);
  const { h, log } = state;
  await fn(state, x);
  t.same(state.h.tolist(), [1, 1]);
  t.same(h.tolist(), [0, 0]);
  t.equal(state.log, log);
  t.same(
    log.map((each) => each.tolist()),
    [[2, 2]],
  );
  t.equal(state.n, 6);
  t.notOk("gone" in state);
  t.same(x.tolist(), [11, 11], "written in place");
  await fn(state, x);
  t.same(state.log[1]?.tolist(), [24, 24]);
});

t.test("captured tensors", async (t) => {
  const w = torch.ones(2);
  const fn = torch.compile((x: Tensor) => x.mul(w).add(torch.tensor([1, 2])));
  const x = torch.full([2], 3);
  t.same((await fn(x)).tolist(), [4, 5]);
  w.add_(1);
  t.same((await fn(x)).tolist(), [7, 8], "another value");
  w.data = torch.full([2], 5, { dtype: "float32" });
  t.same((await fn(x)).tolist(), [16, 17], "other memory");
  t.equal(fn.counters.recordings, 1);
  w.data = torch.full([2], 0.5, { dtype: "float64" });
  t.equal((await fn(x.double())).dtype, "float64");
  t.same((await fn(x)).tolist(), [2.5, 3.5], "another dtype");
  const both = torch.compile((x: Tensor) => x.mul(w));
  t.same((await both(w)).tolist(), [0.25, 0.25], "captured and given");
  t.same((await both(torch.full([2], 4, { dtype: "float64" }))).tolist(), [2, 2]);
});

class Net extends nn.Module {
  fc = new nn.Linear(2, 2);
  drop = new nn.Dropout(0.5);
  scale = 1;
  override forward(x: Tensor): Tensor {
    return this.drop.forward(this.fc.forward(x)).mul(this.scale);
  }
}

t.test("modules may change", async (t) => {
  const net = new Net().eval();
  const compiled = torch.compile((x: Tensor) => net.forward(x));
  const x = torch.randn(3, 2);
  const check = async (name: string) => t.ok(torch.allclose(await compiled(x), net.forward(x)), name);
  await check("first");
  await check("again");
  t.equal(compiled.counters.recordings, 1);
  net.load_state_dict({ "fc.weight": torch.randn(2, 2), "fc.bias": torch.randn(2) });
  await check("loaded weights");
  t.equal(compiled.counters.recordings, 1, "weights are no part of a recording");
  Object.assign(net.fc, { weight: new nn.Parameter(torch.randn(2, 2)) });
  await check("another parameter");
  net.fc = new nn.Linear(2, 2);
  await check("another module");
  net.scale = 3;
  await check("a setting");
  t.equal(compiled.counters.recordings, 4);
  net.train();
  torch.manual_seed(0);
  const y = await compiled(x);
  torch.manual_seed(0);
  t.ok(torch.allclose(y, net.forward(x)), "training mode, and the same random numbers");
  net.eval();
  net.double();
  t.equal((await compiled(x.double())).dtype, "float64", "to()");
  const drop = new nn.Dropout(0.5);
  const alone = torch.compile((x: Tensor) => drop.forward(x));
  await alone(torch.ones(8));
  drop.eval();
  t.same((await alone(torch.ones(8))).tolist(), Array(8).fill(1), "a module without tensors");
  const direct = torch.compile(net);
  t.ok(torch.allclose(await direct(x.double()), net.forward(x.double())), "a module as such");
});

t.test("a module that keeps a tensor of a recording", async (t) => {
  class Keeps extends nn.Module {
    fc = new nn.Linear(2, 2);
    last: Tensor = torch.zeros(2);
    override forward(x: Tensor): Tensor {
      this.last = this.fc.forward(x);
      return this.last.relu();
    }
  }
  const error = (await rejects(torch.compile(new Keeps())(torch.ones(2)))) as Error;
  t.type(error, TraceError);
  t.match(error.message, /Keeps\.last/);
  const norm = new nn.BatchNorm1d(3);
  const twin = new nn.BatchNorm1d(3);
  const x = torch.randn(5, 3);
  const y = await torch.compile(norm)(x);
  t.ok(torch.allclose(y, twin.forward(x)));
  t.ok(torch.allclose(norm.running_mean as Tensor, twin.running_mean as Tensor), "written buffers");
});

t.test("gradients flow through a run", async (t) => {
  const net = new nn.Linear(3, 1);
  const fn = torch.compile((x: Tensor) => net.forward(x).pow(2).sum());
  const x = torch.randn(4, 3);
  const grads = (loss: Tensor) => {
    net.zero_grad();
    loss.backward();
    return net.weight.grad as Tensor;
  };
  const loss = await fn(x);
  t.ok(loss.requires_grad);
  t.ok(torch.equal(grads(loss).clone(), grads(net.forward(x).pow(2).sum())));
  const quiet = torch.compile((x: Tensor) => torch.no_grad(() => net.forward(x)));
  const y = await quiet(x);
  t.notOk(y.requires_grad, "no_grad inside");
  t.ok(y.mul(net.weight.sum()).requires_grad, "an output takes part in later recording");
});

t.test("autocast", async (t) => {
  const net = new nn.Linear(4, 4);
  const eager = () => torch.autocast("cpu", () => net.forward(x).float().add(net.forward(x)));
  const x = torch.randn(2, 4);
  const fn = torch.compile((x: Tensor) =>
    torch.autocast("cpu", () => {
      const y = net.forward(x);
      return [y, torch.tensor(y.dtype === "bfloat16" ? 1 : 0), y.float().add(net.forward(x))] as const;
    }),
  );
  const [y, seen, sum] = await fn(x);
  t.equal(y.dtype, "bfloat16");
  t.equal(seen.item(), 1, "the recording knew");
  t.ok(torch.equal(sum, eager()));
  t.notOk(torch.is_autocast_enabled("cpu"));
});

t.test("a failure names operator and line, and leaves all usable", async (t) => {
  const table = torch.randn(4, 2);
  const fn = torch.compile((i: Tensor) => table.index_select(0, i));
  const error = (await rejects(fn(torch.tensor([9])))) as Error;
  t.match(error.message, /index_select/);
  t.match(error.message, /compile\.test\.[jt]s:\d+/);
  t.ok(torch.equal(await fn(torch.tensor([1])), table.index_select(0, torch.tensor([1]))));
  const shapes = (await rejects(torch.compile((x: Tensor) => x.matmul(x))(torch.ones(2, 3)))) as Error;
  t.type(shapes, ShapeError, "shapes fail when the function is recorded");
});

t.test("abort", async (t) => {
  const x = torch.randn(300, 300);
  const fn = torch.compile((x: Tensor) => {
    let y = x;
    for (let i = 0; i < 400; i++) y = y.matmul(x).tanh();
    return y;
  });
  const reason = new Error("enough");
  t.equal(await rejects(fn.run([x], { signal: AbortSignal.abort(reason) })), reason);
  const controller = new AbortController();
  const run = fn.run([x], { signal: controller.signal });
  const other = fn.run([x.mul(0)]);
  setImmediate(() => controller.abort(reason));
  t.equal(await rejects(run), reason);
  t.equal((await other).sum().item(), 0, "others go on");
});

t.test("the event loop is free, and calls take turns", async (t) => {
  const x = torch.randn(200, 200);
  const fn = torch.compile((x: Tensor, steps: number) => {
    let y = x;
    for (let i = 0; i < steps; i++) y = y.matmul(x).tanh();
    return y;
  });
  await fn(x, 1);
  const order: string[] = [];
  let ticks = 0;
  const timer = setInterval(() => ticks++, 1);
  const long = fn(x, 600).then(() => order.push("long"));
  const short = fn(x, 1).then(() => order.push("short"));
  await Promise.all([long, short]);
  clearInterval(timer);
  t.same(order, ["short", "long"], "a short call does not wait for a long one");
  t.ok(ticks > 0, "timers fire meanwhile");
});

t.test("a tensor in use cannot be written", async (t) => {
  const x = torch.randn(200, 200);
  const fn = torch.compile((x: Tensor) => {
    let y = x;
    for (let i = 0; i < 50; i++) y = y.matmul(x).tanh();
    return y;
  });
  const run = fn(x);
  t.throws(() => x.add_(1), TensorBusyError);
  t.throws(() => x.view(-1).zero_(), TensorBusyError, "nor through a view");
  t.doesNotThrow(() => torch.ones(200, 200).add_(x).mul_(x), "reading it is fine");
  t.throws(() => {
    x.data = torch.zeros(200, 200);
  }, TensorBusyError);
  x.dispose();
  t.ok((await run).isfinite().all().item(), "disposing is fine");
  t.doesNotThrow(() => torch.ones(2).add_(1));
});

t.test("runs that write keep their order", async (t) => {
  const state = torch.zeros(120, 120);
  const step = torch.compile((x: Tensor) => {
    for (let i = 0; i < 40; i++) state.mul_(0.5).add_(x.matmul(x).sum().mul(0).add(1));
    return state.clone();
  });
  const x = torch.randn(120, 120);
  await step(x);
  const results = await Promise.all([step(x), step(x), step(x)]);
  let expected = state.zero_();
  for (let k = 0; k < 4; k++) {
    for (let i = 0; i < 40; i++) expected = expected.mul(0.5).add(1);
    if (k > 0) t.ok(torch.equal(results[k - 1] as Tensor, expected), `run ${k}`);
  }
  const reason = new Error("no more");
  const controller = new AbortController();
  const first = step(x);
  const second = step.run([x], { signal: controller.signal });
  controller.abort(reason);
  t.equal(await rejects(second), reason, "a run that waits can be aborted");
  await first;
});

t.test("a program prints and profiles", async (t) => {
  const fn = torch.compile((x: Tensor) => torch.cat([x.mul(2), x]).sum());
  await fn(torch.ones(2, 3));
  const [program] = fn.programs();
  t.equal(program?.length, 3);
  t.match(
    String(program),
    /^%1: float32\[2, 3\] = aten::mul\.Tensor\(%0, 2\) {2}\/\/ .*compile\.test\.[jt]s:\d+/,
  );
  t.match(String(program), /%2: float32\[4, 3\] = aten::cat\(\[%1, %0\], 0\)/);
  const profile = await fn.profile(torch.ones(2, 3));
  t.same(
    profile.map(({ op }) => op),
    ["aten::mul.Tensor", "aten::cat", "aten::sum"],
  );
  t.ok(profile.every(({ milliseconds }) => milliseconds >= 0));
});

t.test("nothing leaks", async (t) => {
  const net = new nn.Linear(8, 8);
  const fn = torch.compile((x: Tensor) => net.forward(x).relu());
  const step = async () => {
    using x = torch.ones(2, 8);
    using y = await fn(x);
    t.ok(y.numel() > 0);
  };
  await step();
  const before = torch.memory_stats().live_tensors;
  for (let i = 0; i < 20; i++) await step();
  t.equal(torch.memory_stats().live_tensors, before);
});
