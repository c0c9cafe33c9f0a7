// Who shares memory with whom, stale weights, and files of profiles.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { DynamicCache, nn, torch } from "torchformers";

type Tensor = torch.Tensor;

t.test("memory that is shared in another way", async (t) => {
  const w = torch.zeros(3);
  const fn = torch.compile((x: Tensor, y: Tensor) => {
    x.add_(1);
    w.mul_(2);
    return [y.mul(10), w.add(x)];
  });
  const eager = (x: Tensor, y: Tensor) => {
    x.add_(1);
    w.mul_(2);
    return [y.mul(10), w.add(x)];
  };
  const base = () => torch.arange(6, { dtype: "float32" });
  const pairs: [string, () => [Tensor, Tensor]][] = [
    ["apart", () => [torch.ones(3), torch.ones(3)]],
    ["one tensor", () => [w, w]],
    ["the captured one first", () => [w, torch.ones(3)]],
    ["the captured one second", () => [torch.ones(3), w]],
    ["views that overlap", () => pair(base(), 0, 1)],
    ["views that do not", () => pair(base(), 0, 3)],
    ["views that overlap elsewhere", () => pair(base(), 2, 1)],
    ["apart again", () => [torch.ones(3), torch.ones(3)]],
  ];
  const pair = (from: Tensor, a: number, b: number): [Tensor, Tensor] => [
    from.narrow(0, a, 3),
    from.narrow(0, b, 3),
  ];
  for (const [name, make] of pairs) {
    const results = [];
    for (const side of [eager, fn]) {
      w.copy_(torch.tensor([1, 2, 3]));
      const args = make();
      const out = await side(...args);
      results.push([...out, ...args, w].map((each) => each.tolist()));
    }
    t.same(results[1], results[0], name);
  }
});

t.test("views leave a run as views", async (t) => {
  const w = torch.zeros(4);
  const fn = torch.compile((x: Tensor) => ({
    row: x.select(0, 1),
    captured: w.narrow(0, 1, 2),
    fresh: x.add(1).t(),
  }));
  for (let i = 0; i < 2; i++) {
    const x = torch.zeros(2, 3);
    const out = await fn(x);
    out.row.fill_(7);
    t.same(x.tolist(), [
      [0, 0, 0],
      [7, 7, 7],
    ]);
    out.captured.add_(1);
    out.fresh.fill_(0);
  }
  t.same(w.tolist(), [0, 2, 2, 0]);
});

t.test("a cache among the arguments", async (t) => {
  const fn = torch.compile((cache: DynamicCache, k: Tensor) => {
    const [keys] = cache.update(k, k.mul(2), 0);
    return { keys, cache };
  });
  const [mine, eager] = [new DynamicCache(), new DynamicCache()];
  for (let i = 1; i < 4; i++) {
    const k = torch.full([1, 2, i, 4], i, { dtype: "float32" });
    const out = await fn(mine, k);
    t.equal(out.cache, mine);
    const [keys] = eager.update(k, k.mul(2), 0);
    t.ok(torch.equal(out.keys, keys));
    t.equal(mine.get_seq_length(), eager.get_seq_length());
  }
});

t.test("stale weights", async (t) => {
  class Net extends nn.Module {
    inner = new nn.Sequential(new nn.Linear(2, 2), new nn.Tanh());
    tied = (this.inner[0] as nn.Linear).weight;
    override forward(x: Tensor): Tensor {
      return this.inner.forward(x).matmul(this.tied);
    }
  }
  const net = new Net();
  const compiled = torch.compile(net);
  const x = torch.randn(3, 2);
  const check = async (name: string, recordings: number) => {
    t.ok(torch.equal(await compiled(x), net.forward(x)), name);
    t.equal(compiled.counters.recordings, recordings, `${name}: recordings`);
  };
  await check("first", 1);
  const state = () => ({
    "inner.0.weight": torch.randn(2, 2),
    "inner.0.bias": torch.randn(2),
    tied: torch.randn(2, 2),
  });
  net.load_state_dict(state());
  await check("load_state_dict", 1);
  net.load_state_dict(state(), { assign: true });
  await check("load_state_dict, assigned", 1);
  (net.inner[0] as nn.Linear).weight.data = torch.randn(2, 2);
  await check(".data of a parameter", 1);
  Object.assign(net, { tied: new nn.Parameter(torch.randn(2, 2)) });
  await check("another parameter", 2);
  net.inner = new nn.Sequential(new nn.Linear(2, 2));
  await check("another module", 3);
  net.double();
  t.equal((await compiled(x.double())).dtype, "float64");
  net.float();
  t.ok(torch.equal(await compiled(x), net.forward(x)), "to() and back");
  net.requires_grad_(false);
  t.notOk((await compiled(x)).requires_grad, "frozen");
});

t.test("a profile as a file", async (t) => {
  const layer = new nn.Linear(4, 4);
  const fn = torch.compile((x: Tensor) => layer.forward(x).relu().sum().backward());
  const folder = t.testdir();
  const file = join(folder, "trace.json");
  const entries = await fn.trace(file, torch.ones(2, 4));
  const { traceEvents } = JSON.parse(readFileSync(file, "utf8"));
  t.same(
    traceEvents.map(({ name }: { name: string }) => name),
    entries.map(({ op }) => op),
  );
  t.ok(entries.some(({ op }) => op === "torchformers::gradients"));
  t.ok(
    entries.every(({ line }) => line.includes("memory_and_state.test")),
    "each has its line",
  );
  t.ok(
    traceEvents.every(
      ({ ph, ts, dur }: { ph: string; ts: number; dur: number }) => ph === "X" && ts >= 0 && dur >= 0,
    ),
  );
  t.same(readdirSync(folder), ["trace.json"], "nothing else is left");
  await t.rejects(fn.trace(join(file, "no folder"), torch.ones(2, 4)), { code: /EEXIST|ENOTDIR/ });
  t.same(readdirSync(folder), ["trace.json"]);
});

t.test("an error in a backward names operator and line", async (t) => {
  const p = new nn.Parameter(torch.ones(2));
  const fn = torch.compile(() => {
    const y = p.exp();
    y.detach().mul_(2);
    y.sum().backward();
  });
  const error = (await fn().then(
    () => new Error("resolved"),
    (error: Error) => error,
  )) as Error;
  t.match(error.message, /\[torchformers::gradients\].*modified by an inplace operation/);
  t.match(error.message, /memory_and_state\.test\.[jt]s:\d+/);
});
