// Training steps as Programs: the losses, gradients and parameters of eager mode, bit for bit.
import { readFileSync } from "node:fs";
import t from "tap";
import {
  LlamaConfig,
  LlamaForCausalLM,
  nn,
  optim,
  ShapeError,
  TensorBusyError,
  TraceError,
  torch,
} from "torchformers";
import { fixture } from "../support/fixtures.js";

type Tensor = torch.Tensor;

torch.set_num_threads(1);

const rejects = (promise: Promise<unknown>): Promise<Error> =>
  promise.then(
    () => {
      throw new Error("resolved");
    },
    (error: Error) => error,
  );

const configuration = JSON.parse(readFileSync(fixture("models/llama/config.json"), "utf8")) as object;

/** A tiny Llama, always with the same weights. */
function llama(overrides: object = {}): LlamaForCausalLM {
  torch.manual_seed(1);
  const model = new LlamaForCausalLM(new LlamaConfig({ ...configuration, ...overrides }));
  model.train();
  return model;
}

const batch = (seed: number): Tensor => {
  const generator = new torch.Generator().manual_seed(seed);
  return torch.randint(0, 64, [2, 12], { generator });
};

/** Runs both sides the same number of steps, from the same seed, and compares all that they leave. */
async function both(
  name: string,
  {
    steps = 50,
    overrides = {},
    optimizer,
    step,
    between = () => {},
    recordings,
  }: {
    steps?: number;
    overrides?: object;
    optimizer: (model: LlamaForCausalLM) => optim.Optimizer;
    /** The step: gets a batch, gives numbers to compare. */
    step: (model: LlamaForCausalLM, optimizer: optim.Optimizer, ids: Tensor) => Tensor[];
    between?: (optimizer: optim.Optimizer, step: number) => void;
    recordings: number;
  },
) {
  await t.test(name, async (t) => {
    const eager = llama(overrides);
    const eagerOptimizer = optimizer(eager);
    torch.manual_seed(7);
    const expected: unknown[] = [];
    for (let i = 0; i < steps; i++) {
      expected.push(step(eager, eagerOptimizer, batch(i)).map((each) => each.tolist()));
      between(eagerOptimizer, i);
    }
    const model = llama(overrides);
    const itsOptimizer = optimizer(model);
    const compiled = torch.compile((ids: Tensor) => step(model, itsOptimizer, ids));
    torch.manual_seed(7);
    const actual: unknown[] = [];
    for (let i = 0; i < steps; i++) {
      actual.push((await compiled(batch(i))).map((each) => each.tolist()));
      between(itsOptimizer, i);
    }
    t.same(actual, expected, "the same numbers in each step");
    const other = new Map(eager.named_parameters());
    for (const [name, parameter] of model.named_parameters()) {
      const twin = other.get(name) as Tensor;
      t.ok(torch.equal(parameter, twin), name);
      t.equal(parameter.grad === null, twin.grad === null, `${name}: a gradient or none`);
      if (parameter.grad && twin.grad) t.ok(torch.equal(parameter.grad, twin.grad), `${name}: the gradient`);
    }
    const [state, twin] = [itsOptimizer.state_dict(), eagerOptimizer.state_dict()];
    t.same(Object.keys(state.state), Object.keys(twin.state));
    for (const [key, values] of Object.entries(state.state)) {
      for (const [name, value] of Object.entries(values))
        t.same(
          (value as Tensor).tolist(),
          (twin.state[Number(key)]?.[name] as Tensor | undefined)?.tolist(),
          `${key} ${name}`,
        );
    }
    t.equal(compiled.counters.recordings, recordings, "recordings");
  });
}

const lossOf = (model: LlamaForCausalLM, input_ids: Tensor): Tensor =>
  model.forward({ input_ids, labels: input_ids, use_cache: false }).loss as Tensor;

t.test("what cannot be part of a recording", async (t) => {
  const p = new nn.Parameter(torch.ones(3));
  const cases: [string, (x: Tensor) => unknown, RegExp, unknown][] = [
    ["not a scalar", () => p.mul(2).backward(), /scalar outputs/, undefined],
    ["no graph", (x) => x.sum().backward(), /does not require grad/, undefined],
    ["a gradient of another shape", () => p.mul(2).backward(torch.ones(2)), /shape/, ShapeError],
    ["a hook", () => void p.mul(2).register_hook(() => null), /register_hook/, TraceError],
    [
      "a hook on a leaf",
      () => void p.register_post_accumulate_grad_hook(() => {}),
      /register_post_accumulate_grad_hook/,
      TraceError,
    ],
    ["freezing", () => void p.requires_grad_(false), /requires_grad/, TraceError],
    [
      "an unused input",
      () => torch.autograd.grad(p.sum(), [new nn.Parameter(torch.ones(1))]),
      /not have been/,
      undefined,
    ],
  ];
  for (const [name, body, message, type] of cases) {
    const error = await rejects(torch.compile(body)(torch.ones(3)));
    t.match(error.message, message, name);
    if (type) t.type(error, type as never, name);
  }
  const outside = p.mul(2);
  const reaches = torch.compile(() => outside.sum().backward());
  t.match((await rejects(reaches())).message, /computed before/);
  const given = torch.compile((x: Tensor) => x.sum().backward());
  t.match((await rejects(given(outside))).message, /computed before/, "an argument with a graph");

  const hook = p.register_hook((grad) => grad);
  const step = torch.compile(() => p.pow(2).sum().backward());
  t.type(await rejects(step()), TraceError, "a hook that is there");
  hook.remove();
  await step();
  t.same(p.grad?.tolist(), [2, 2, 2]);
  p.register_post_accumulate_grad_hook(() => {});
  t.type(await rejects(step()), TraceError, "a hook that came later");

  const q = new nn.Parameter(torch.ones(2));
  const sgd = new optim.SGD([q], { lr: 1 });
  const scheduler = new optim.lr_scheduler.StepLR(sgd, 1);
  q.grad = torch.ones(2);
  sgd.step();
  t.match((await rejects(torch.compile(() => scheduler.step())())).message, /lr_scheduler\.step/);
  const adam = new optim.Adam([q], { fused: false });
  t.type(await rejects(torch.compile(() => adam.step())()), TraceError, "a step that reads its counter");
  sgd.register_step_post_hook(() => {});
  t.match((await rejects(torch.compile(() => sgd.step())())).message, /hooks around a step/);
});

await both("AdamW, 50 steps", {
  optimizer: (model) => new optim.AdamW(model.parameters(), { lr: 1e-3 }),
  step: (model, optimizer, ids) => {
    optimizer.zero_grad();
    const loss = lossOf(model, ids);
    loss.backward();
    optimizer.step();
    return [loss];
  },
  recordings: 2,
});

await both("dropout under a seed", {
  steps: 12,
  overrides: { attention_dropout: 0.25 },
  optimizer: (model) => new optim.AdamW(model.parameters(), { lr: 1e-3 }),
  step: (model, optimizer, ids) => {
    const loss = lossOf(model, ids);
    loss.backward();
    optimizer.step();
    optimizer.zero_grad();
    return [loss, torch.rand(2)];
  },
  recordings: 2,
});

await both("SGD with momentum, clipping and a schedule", {
  steps: 20,
  optimizer: (model) => new optim.SGD(model.parameters(), { lr: 0.5, momentum: 0.9, weight_decay: 0.01 }),
  step: (model, optimizer, ids) => {
    optimizer.zero_grad();
    const loss = lossOf(model, ids);
    loss.backward();
    const norm = nn.utils.clip_grad_norm_(model.parameters(), 0.7);
    optimizer.step();
    return [loss, norm];
  },
  between: (optimizer, i) => {
    for (const group of optimizer.param_groups) {
      group.lr = 0.5 / (i + 2);
      (group as { momentum?: number }).momentum = 0.9 - i / 100;
    }
  },
  recordings: 2,
});

await both("accumulated gradients in one call", {
  steps: 6,
  optimizer: (model) => new optim.RMSprop(model.parameters(), { lr: 1e-3, momentum: 0.5, centered: true }),
  step: (model, optimizer, ids) => {
    optimizer.zero_grad({ set_to_none: false });
    const losses = ids.split(1).map((part) => lossOf(model, part).div(2));
    for (const loss of losses) loss.backward();
    nn.utils.clip_grad_value_(model.parameters(), 0.01);
    optimizer.step();
    return losses;
  },
  recordings: 2,
});

await both("autocast", {
  steps: 10,
  optimizer: (model) => new optim.AdamW(model.parameters(), { lr: 1e-3, amsgrad: true }),
  step: (model, optimizer, ids) => {
    const losses = [ids, ids.flip([0])].map((part) => {
      optimizer.zero_grad();
      const loss = torch.autocast("cpu", () => lossOf(model, part));
      loss.backward();
      optimizer.step();
      return loss;
    });
    return losses;
  },
  recordings: 2,
});

t.test("accumulation over several calls", async (t) => {
  const [eager, model] = [llama(), llama()];
  const micro = torch.compile((ids: Tensor) => {
    const loss = lossOf(model, ids);
    loss.backward();
    return loss;
  });
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 3; i++) {
      lossOf(eager, batch(i)).backward();
      await micro(batch(i));
    }
    const other = new Map(eager.named_parameters());
    for (const [name, parameter] of model.named_parameters())
      t.ok(torch.equal(parameter.grad as Tensor, other.get(name)?.grad as Tensor), name);
    const kept = model.model.norm.weight?.grad as Tensor;
    const before = kept.clone();
    await micro(batch(9));
    t.notOk(torch.equal(kept, before), "an existing gradient is added to in place");
    lossOf(eager, batch(9)).backward();
    eager.zero_grad();
    model.zero_grad();
  }
  t.equal(micro.counters.recordings, 2, "with gradients and without");
  t.equal(micro.counters.outdated, 0);
});

t.test("calls in a row need not be awaited", async (t) => {
  const [eager, model] = [llama(), llama()];
  const make = (model: LlamaForCausalLM) => new optim.AdamW(model.parameters(), { lr: 1e-2 });
  const [eagerOptimizer, optimizer] = [make(eager), make(model)];
  const step = (model: LlamaForCausalLM, optimizer: optim.Optimizer, ids: Tensor) => {
    const loss = lossOf(model, ids);
    loss.backward();
    optimizer.step();
    return loss;
  };
  const compiled = torch.compile((ids: Tensor) => step(model, optimizer, ids));
  // Gradients are never emptied: the second call finds them, the first one not.
  const expected = [0, 1, 2, 3].map((i) => step(eager, eagerOptimizer, batch(i)).item());
  const actual = await Promise.all([0, 1, 2, 3].map((i) => compiled(batch(i))));
  t.same(
    actual.map((loss) => loss.item()),
    expected,
  );
});

t.test("the first calls of all need not be awaited", async (t) => {
  const w = new nn.Parameter(torch.ones(2));
  const step = torch.compile((x: Tensor) => x.mul(w).sum().backward());
  await Promise.all([1, 2, 3].map((i) => step(torch.full([2], i, { dtype: "float32" }))));
  t.same(w.grad?.tolist(), [6, 6]);
  t.equal(step.counters.recordings, 2);
});

t.test("gradients of inputs, of what is between, and of gradients", async (t) => {
  const w = new nn.Parameter(torch.tensor([1, 2, 3], { dtype: "float32" }));
  const body = (x: Tensor) => {
    const h = x.mul(w);
    h.retain_grad();
    h.pow(3).sum().backward();
    return [h.grad as Tensor, x.grad as Tensor];
  };
  const make = () => torch.tensor([1, -1, 2], { dtype: "float32", requires_grad: true });
  const [a, b] = [make(), make()];
  const expected = body(a).map((each) => each.tolist());
  const gradOf = (tensor: Tensor) => tensor.grad?.tolist() ?? null;
  const grads = gradOf(w);
  w.grad = null;
  t.same(
    (await torch.compile(body)(b)).map((each) => each.tolist()),
    expected,
  );
  t.same(gradOf(b), gradOf(a), "the caller's tensor has its gradient");
  t.same(gradOf(w), grads);

  const penalty = (x: Tensor) => {
    const y = x.mul(w).tanh().sum();
    const [dx] = torch.autograd.grad(y, [x], { create_graph: true });
    const loss = (dx as Tensor).pow(2).sum().add(y);
    const [dw, none] = torch.autograd.grad(loss, [w, v], { allow_unused: true });
    return [dx, dw, none];
  };
  const v = new nn.Parameter(torch.ones(1));
  const lists = (all: readonly (Tensor | null | undefined)[]) => all.map((each) => each?.tolist() ?? null);
  t.same(lists(await torch.compile(penalty)(make())), lists(penalty(make())), "a gradient of a gradient");

  const inner = (x: Tensor) => {
    const leaf = x.detach().requires_grad_();
    leaf.sin().sum().backward();
    return leaf.grad as Tensor;
  };
  t.ok(torch.equal(await torch.compile(inner)(w), inner(w)), "a leaf made inside");

  const same = (x: Tensor) => {
    x.mul(w).sum().backward();
  };
  w.grad = null;
  const twice = torch.compile(same);
  await twice(w);
  t.same(gradOf(w), [2, 4, 6], "an argument that is captured too");
  w.grad = null;
  const x = make();
  await twice(x);
  t.same([w, x].map(gradOf), [x.tolist(), w.tolist()]);
});

t.test("a graph that leaves the run", async (t) => {
  const model = llama();
  const compiled = torch.compile((ids: Tensor) => lossOf(model, ids));
  const loss = await compiled(batch(0));
  t.ok(loss.requires_grad);
  loss.backward();
  const grads = [...model.parameters()].map((parameter) => (parameter.grad as Tensor).clone());
  model.zero_grad();
  lossOf(model, batch(0)).backward();
  t.ok(
    [...model.parameters()].every((parameter, i) =>
      torch.equal(parameter.grad as Tensor, grads[i] as Tensor),
    ),
  );
});

t.test("while a step runs", async (t) => {
  const model = llama();
  const optimizer = new optim.SGD(model.parameters(), { lr: 0.1 });
  const step = torch.compile((ids: Tensor) => {
    optimizer.zero_grad();
    const loss = lossOf(model, ids);
    loss.backward();
    optimizer.step();
    return loss;
  });
  const loss = lossOf(model, batch(0));
  const run = step(batch(0));
  t.throws(() => torch.no_grad(() => model.lm_head.weight.zero_()), TensorBusyError);
  t.throws(() => optimizer.zero_grad(), TensorBusyError);
  t.throws(() => loss.backward(), TensorBusyError);
  await run;
  t.throws(() => loss.backward(), /modified by an inplace operation/, "as in eager mode");
  const reason = new Error("enough");
  t.equal(await rejects(step.run([batch(1)], { signal: AbortSignal.abort(reason) })), reason);
  const controller = new AbortController();
  // Each step writes what the next reads, so the last of these has not begun when it is given up.
  const earlier = [step(batch(0)), step(batch(0)), step(batch(0))];
  const aborted = step.run([batch(1)], { signal: controller.signal });
  const next = step(batch(2));
  controller.abort(reason);
  t.equal(await rejects(aborted), reason);
  await Promise.all(earlier);
  t.ok((await next).isfinite().item(), "the next call goes on");
});

t.test("a learning rate is no reason to record again, other settings are", async (t) => {
  const p = new nn.Parameter(torch.ones(1));
  const optimizer = new optim.SGD([p], { lr: 1 });
  const scheduler = new optim.lr_scheduler.ExponentialLR(optimizer, 0.5);
  const step = torch.compile(() => {
    optimizer.zero_grad();
    p.sum().backward();
    optimizer.step();
  });
  const values: unknown[] = [];
  for (let i = 0; i < 3; i++) {
    await step();
    scheduler.step();
    values.push(p.item());
  }
  t.same(values, [0, -0.5, -0.75]);
  t.equal(step.counters.recordings, 1);
  (optimizer.param_groups[0] as { maximize: boolean }).maximize = true;
  await step();
  t.equal(p.item(), -0.625);
  t.equal(step.counters.recordings, 2);
  optimizer.load_state_dict(optimizer.state_dict());
  await step();
  t.equal(p.item(), -0.5, "other groups");
  optimizer.add_param_group({ params: new nn.Parameter(torch.ones(1)) });
  await step();
  t.equal(step.counters.recordings, 4);
});

t.test("nothing is left of a step", async (t) => {
  const model = llama();
  const optimizer = new optim.AdamW(model.parameters());
  const step = torch.compile((ids: Tensor) => {
    const loss = lossOf(model, ids);
    loss.backward();
    optimizer.step();
    optimizer.zero_grad();
    return loss;
  });
  const run = async () => {
    using ids = batch(0);
    using loss = await step(ids);
    t.ok(torch.tidy(() => loss.isfinite().item()));
  };
  await run();
  await run();
  torch.memory_stats();
  const before = torch.tidy(() => torch.memory_stats().live_tensors);
  for (let i = 0; i < 5; i++) await run();
  t.ok(torch.memory_stats().live_tensors <= before + 10);
});
