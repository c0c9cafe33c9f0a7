// Random numbers of runs: eager mode's, whatever the order in which runs end.
import t from "tap";
import { nn, torch } from "torchformers";

type Tensor = torch.Tensor;

const lists = (tensors: readonly Tensor[]) => tensors.map((each) => each.tolist());
/** Takes turns, so that runs that are queued together are under way together. */
const slow = (x: Tensor, steps: number): Tensor => {
  let y = x;
  for (let i = 0; i < steps; i++) y = y.matmul(x).tanh();
  return y;
};
const big = torch.eye(160);

t.test("every operator that draws", async (t) => {
  const drop = new nn.Dropout(0.3);
  const lstm = new nn.LSTM(4, 4, { num_layers: 2, dropout: 0.5 });
  const q = torch.randn(1, 2, 8, 4);
  const draws: [string, () => Tensor | readonly Tensor[]][] = [
    ["rand", () => torch.rand(3)],
    ["randn", () => torch.randn(3)],
    ["randn, many", () => torch.randn(40)],
    ["randint", () => torch.randint(0, 100, [5])],
    ["randperm", () => torch.randperm(7)],
    ["rand_like", () => torch.rand_like(q)],
    ["normal", () => torch.normal(torch.zeros(3), torch.ones(3))],
    ["bernoulli", () => torch.bernoulli(torch.full([9], 0.5))],
    ["multinomial", () => torch.multinomial(torch.ones(2, 5), 3)],
    ["exponential_", () => torch.empty(3).exponential_()],
    ["cauchy_", () => torch.empty(3).cauchy_()],
    ["geometric_", () => torch.empty(3).geometric_(0.5)],
    ["random_", () => torch.empty(3).random_(0, 10)],
    ["poisson", () => torch.poisson(torch.full([4], 3.5))],
    ["dropout", () => drop.forward(torch.ones(16))],
    ["feature_dropout", () => nn.functional.dropout2d(torch.ones(1, 4, 2, 2), 0.5)],
    ["alpha_dropout", () => nn.functional.alpha_dropout(torch.ones(8), 0.5, true)],
    ["rrelu", () => nn.functional.rrelu(torch.ones(8).neg(), 0.1, 0.3, true)],
    ["attention", () => nn.functional.scaled_dot_product_attention(q, q, q, { dropout_p: 0.5 })],
    ["lstm", () => lstm.forward(torch.ones(3, 4))[0]],
  ];
  const flat = (value: Tensor | readonly Tensor[]) => lists(value instanceof torch.Tensor ? [value] : value);
  for (const [name, draw] of draws) {
    const both = () => [draw(), torch.rand(1)].flat() as Tensor[];
    torch.manual_seed(5);
    const expected = flat(both());
    const after = torch.rand(2).tolist();
    torch.manual_seed(5);
    t.same(flat(await torch.compile(both)()), expected, name);
    t.same(torch.rand(2).tolist(), after, `${name}: the state is written back`);
  }
});

t.test("runs that are queued together", async (t) => {
  const draw = torch.compile((steps: number) => [torch.rand(4), slow(big, steps).sum(), torch.rand(4)]);
  const numbers = async (orders: readonly number[]) => {
    torch.manual_seed(11);
    const runs = await Promise.all(orders.map((steps) => draw(steps)));
    return [...runs.map(([a, , b]) => lists([a as Tensor, b as Tensor])), torch.rand(1).tolist()];
  };
  torch.manual_seed(11);
  const eager = [torch.rand(4).tolist(), torch.rand(4).tolist()];
  const next = torch.rand(1).tolist();
  const first = await numbers([200, 1, 1]);
  t.same(first[0], eager, "the first one has eager mode's numbers");
  t.same(first[3], next, "and gives its state back");
  t.same(await numbers([1, 100, 60]), first, "whichever ends first");
  const [a, b, c] = first.map(String);
  t.equal(new Set([a, b, c]).size, 3, "no two have the same numbers");
});

t.test("somebody draws, or seeds, in between", async (t) => {
  const draw = torch.compile(() => [torch.rand(3), slow(big, 100).sum()]);
  torch.manual_seed(3);
  const own = torch.rand(3).tolist();
  torch.manual_seed(3);
  const one = torch.rand(1).tolist();
  const two = torch.rand(1).tolist();
  torch.manual_seed(3);
  const run = draw();
  t.same(torch.rand(1).tolist(), one, "an eager draw does not wait");
  t.same((await run)[0]?.tolist(), own, "the run has the state of its call");
  t.same(torch.rand(1).tolist(), two, "what was drawn in between stands");

  torch.manual_seed(4);
  const seeded = draw();
  torch.manual_seed(3);
  const again = draw();
  await seeded;
  t.same((await again)[0]?.tolist(), own, "a seed holds, though a run is under way");
});

t.test("a run that is given up gives back where it stood", async (t) => {
  const draw = torch.compile(() => [torch.rand(3), slow(big, 100).sum(), torch.rand(3)]);
  torch.manual_seed(3);
  const state = torch.get_rng_state();
  const reason = new Error("enough");
  const controller = new AbortController();
  const run = draw.run([], { signal: controller.signal });
  controller.abort(reason);
  await t.rejects(run, reason);
  torch.manual_seed(3);
  t.same((await draw())[0]?.tolist(), torch.manual_seed(3) && torch.rand(3).tolist());
  torch.set_rng_state(state);
});

t.test("generators", async (t) => {
  const make = (seed: number) => new torch.Generator().manual_seed(seed);
  const fn = (generator: torch.Generator, n: number) => [
    torch.rand(n, { generator }),
    torch.randn([n], { generator }),
    torch.multinomial(torch.ones(9), n, false, { generator }),
    torch.rand(n),
  ];
  const compiled = torch.compile(fn);
  const [eager, mine] = [make(1), make(1)];
  for (let i = 0; i < 3; i++) {
    torch.manual_seed(0);
    const expected = lists(fn(eager, 4));
    torch.manual_seed(0);
    t.same(lists(await compiled(mine, 4)), expected, `call ${i}`);
  }
  t.ok(torch.equal(eager.get_state(), mine.get_state()), "its state goes on");
  await compiled(make(9), 4);
  t.equal(compiled.counters.recordings, 1, "another generator is no reason to record again");

  const captured = make(2);
  const closure = torch.compile(() => torch.rand(3, { generator: captured }));
  const expected = make(2);
  for (let i = 0; i < 2; i++)
    t.same((await closure()).tolist(), torch.rand(3, { generator: expected }).tolist(), "a captured one");

  const twice = torch.compile((a: torch.Generator, b: torch.Generator) => [
    torch.rand(2, { generator: a }),
    torch.rand(2, { generator: b }),
  ]);
  const [one, other] = [make(5), make(5)];
  t.same(
    lists(await twice(one, one)),
    [torch.rand(2, { generator: other }), torch.rand(2, { generator: other })].map((x) => x.tolist()),
  );
  const global = torch.compile((generator: torch.Generator) => [torch.rand(2), torch.rand(2, { generator })]);
  torch.manual_seed(8);
  const both = lists(await global(torch.default_generator()));
  torch.manual_seed(8);
  t.same(both, lists([torch.rand(2), torch.rand(2)]), "the default one, by name");

  const pair = await Promise.all([closure(), closure()]);
  t.notSame(pair[0]?.tolist(), pair[1]?.tolist(), "queued together");
  t.same(pair[0]?.tolist(), torch.rand(3, { generator: expected }).tolist());
  t.same(torch.rand(3, { generator: captured }).tolist(), torch.rand(3, { generator: expected }).tolist());
});
