// Optimizers and schedulers against Python torch.

import t from "tap";
import { nn, optim, type Tensor, torch } from "torchformers";
import { type Any, cases, close } from "../support/nn_golden.js";

const parameter = () => new nn.Parameter(torch.ones([2]));

t.test("wrong input", async (t) => {
  t.throws(() => new optim.AdamW([]), /empty list/);
  t.throws(() => new optim.AdamW(parameter() as Any), /single Tensor/);
  t.throws(() => new optim.AdamW([3] as Any), /takes Tensors|parameter group|iterable/);
  t.throws(() => new optim.AdamW([parameter()], { learning_rate: 1 } as Any), {
    code: "ERR_INVALID_ARGUMENT",
  });
  t.throws(() => new optim.AdamW([parameter()], { weight_deacy: 1 } as Any), {
    suggestion: "weight_decay",
  } as Any);
  t.throws(() => new optim.SGD([{ params: [parameter()], momentun: 0.9 } as Any]), {
    suggestion: "momentum",
  } as Any);
  t.throws(() => new optim.AdamW([parameter()], { lr: -1 }), /lr must be a number of at least 0, got -1/);
  t.throws(() => new optim.AdamW([parameter()], { betas: [1, 0.9] }), /betas/);
  t.throws(() => new optim.AdamW([parameter()], { capturable: true }), /capturable is not supported/);
  t.throws(() => new optim.SGD([parameter()], { nesterov: true }), /nesterov needs a momentum/);
  const p = parameter();
  t.throws(() => new optim.SGD([p, p]), /more than one place/);
  t.throws(() => new optim.SGD([p.mul(2)]), /computed from others/);
  t.throws(() => new optim.lr_scheduler.StepLR({} as Any, 3), /takes an Optimizer/);
  t.throws(() => new optim.lr_scheduler.LinearLR(new optim.SGD([p]), { start_factor: 0 }), /start_factor/);
  t.throws(() => new optim.lr_scheduler.StepLR(new optim.SGD([p]), 3, { last_epoch: 4 }), /initial_lr/);
  const two = new optim.SGD([p]);
  t.throws(() => two.load_state_dict({ state: {}, param_groups: [] }), /0 parameter groups, the optimizer 1/);
});

t.test("trained steps", async (t) => {
  const { list, decode } = await cases("optimizers");
  for (const given of list) {
    const name = `${given.class} ${JSON.stringify(given.options)}`;
    torch.manual_seed(3);
    const model = new nn.Sequential(new nn.Linear(4, 6), new nn.Tanh(), new nn.Linear(6, 2));
    const x = torch.randn([8, 4]);
    const y = torch.randn([8, 2]);
    const weights = [...model.parameters()];
    const groups = [
      { params: weights.filter((p) => p.ndim > 1) },
      { params: weights.filter((p) => p.ndim === 1), weight_decay: 0, lr: 0.02 },
    ];
    const optimizer = new (optim as Any)[given.class](groups, given.options);
    for (const [step, expected] of given.losses.entries()) {
      // In a scope, which what the optimizer remembers must survive.
      const loss = torch.tidy(() => {
        optimizer.zero_grad();
        const loss = nn.functional.mse_loss(model.forward(x), y);
        loss.backward();
        if (step === 2) (weights[3] as Tensor).grad = null;
        nn.utils.clip_grad_norm_(model.parameters(), 0.8);
        optimizer.step();
        return Number(loss.item());
      });
      if (Math.abs(loss - expected) > 1e-5) t.fail(`${name}: loss ${step}`, { loss, expected });
    }
    for (const [key, value] of Object.entries(model.state_dict()))
      close(t, value, decode(given.weights[key]), `${name}: ${key}`);

    const saved = optimizer.state_dict();
    t.same(Object.keys(saved.state), Object.keys(given.state), `${name}: parameters with state`);
    for (const [i, values] of Object.entries<Any>(given.state)) {
      t.same(Object.keys(saved.state[i]), Object.keys(values), `${name}: state of ${i}`);
      for (const key in values) {
        const expected = decode(values[key]);
        if (expected) close(t, saved.state[i][key], expected, `${name}: ${key} of ${i}`);
        else t.equal(saved.state[i][key], expected);
      }
    }
    t.same(saved.param_groups, given.param_groups, `${name}: groups`);
    t.equal(
      String(optimizer).replaceAll(/: (\d+)\n/g, ": $1.0\n"),
      given.repr.replaceAll(/: (\d+)\n/g, ": $1.0\n"),
      `${name}: text`,
    );
  }
});

t.test("going on from a state", async (t) => {
  for (const make of [
    (p: Any) => new optim.AdamW(p, { lr: 0.1, amsgrad: true }),
    (p: Any) => new optim.AdamW(p, { lr: 0.1, fused: false }),
    (p: Any) => new optim.SGD(p, { lr: 0.1, momentum: 0.9 }),
  ]) {
    const train = (p: Tensor, optimizer: optim.Optimizer<Any>, steps: number) => {
      for (let i = 0; i < steps; i++) {
        optimizer.zero_grad();
        p.pow(2).sum().backward();
        optimizer.step();
      }
    };
    const p = new nn.Parameter(torch.tensor([1, -2], { dtype: "float32" }));
    const whole = make([p]);
    train(p, whole, 3);
    const state = whole.state_dict();
    const q = new nn.Parameter(p.detach().clone());
    const resumed = make([q]);
    resumed.load_state_dict(structuredCloneState(state));
    train(p, whole, 2);
    train(q, resumed, 2);
    t.ok(torch.equal(p, q), whole.constructor.name);
  }
});

/** A copy of a state with tensors of its own, as if read from a file. */
function structuredCloneState({ state, param_groups }: optim.OptimizerStateDict): optim.OptimizerStateDict {
  const copy = Object.entries(state).map(([i, values]) => [
    i,
    Object.fromEntries(
      Object.entries(values).map(([key, v]) => [key, v instanceof torch.Tensor ? v.clone() : v]),
    ),
  ]);
  return { state: Object.fromEntries(copy), param_groups: structuredClone(param_groups) };
}

t.test("steps", async (t) => {
  const p = parameter();
  const optimizer = new optim.SGD([p], { lr: 0.5 });
  const events: string[] = [];
  const pre = optimizer.register_step_pre_hook(() => void events.push("pre"));
  optimizer.register_step_post_hook(() => void events.push("post"));
  const loss = optimizer.step(() => {
    optimizer.zero_grad();
    const loss = p.sum();
    loss.backward();
    return loss;
  });
  t.equal(loss.item(), 2);
  t.same(p.tolist(), [0.5, 0.5]);
  pre.remove();
  optimizer.step();
  t.same(events, ["pre", "post", "post"]);
  optimizer.zero_grad({ set_to_none: false });
  t.same(p.grad?.tolist(), [0, 0]);

  const named = new optim.SGD(new nn.Linear(1, 1).named_parameters(), { lr: 0.1 });
  t.same(named.param_groups[0]?.param_names, ["weight", "bias"]);
  t.throws(() => named.add_param_group({ params: [parameter()] }), /names/);
  optimizer.add_param_group({ params: [parameter()], lr: 1 });
  t.same(optimizer.state_dict().param_groups[1]?.params, [1]);
});

t.test("half precision", async (t) => {
  const p = new nn.Parameter(torch.ones([3], { dtype: "bfloat16" }));
  const q = parameter();
  const optimizer = new optim.AdamW([p, q], { lr: 0.125, weight_decay: 0 });
  p.sum().backward();
  q.sum().backward();
  optimizer.step();
  t.same(p.tolist(), [0.875, 0.875, 0.875]);
  t.ok(torch.allclose(q, torch.full([2], 0.875)));
});

t.test("memory", async (t) => {
  const model = new nn.Linear(3, 3);
  const optimizer = new optim.AdamW(model.parameters());
  const x = torch.ones([2, 3]);
  const step = () =>
    torch.tidy(() => {
      optimizer.zero_grad();
      model.forward(x).sum().backward();
      optimizer.step();
    });
  step();
  const before = torch.memory_stats().live_tensors;
  for (let i = 0; i < 50; i++) step();
  t.equal(torch.memory_stats().live_tensors, before);
});

const FACTORS: Record<string, (n: number) => number> = {
  inverse: (n) => 1 / (1 + n),
  wave: (n) => 0.5 + 0.25 * (n % 3),
};

function scheduler(optimizer: optim.Optimizer<Any>, [name, args, options]: Any): Any {
  const make = (parts: Any[]) => parts.map((part) => scheduler(optimizer, part));
  if (name === "SequentialLR") return new optim.lr_scheduler.SequentialLR(optimizer, make(args[0]), args[1]);
  if (name === "ChainedScheduler") return new optim.lr_scheduler.ChainedScheduler(make(args[0]));
  const lambdas = name === "LambdaLR" || name === "MultiplicativeLR";
  const factor = (f: string) => FACTORS[f];
  const real = lambdas ? args.map((a: Any) => (Array.isArray(a) ? a.map(factor) : factor(a))) : args;
  return new (optim.lr_scheduler as Any)[name](optimizer, ...real, options);
}

t.test("schedulers", async (t) => {
  const { list } = await cases("schedulers");
  const { metrics } = list.at(-1);
  for (const { spec, optimizer: kind, rates, momenta, last, keys } of list.slice(0, -1)) {
    const name = JSON.stringify(spec);
    const setUp = () => {
      const groups = [{ params: [parameter()] }, { params: [parameter()], lr: 0.03 }];
      const optimizer: optim.Optimizer<Any> =
        kind === "AdamW"
          ? new optim.AdamW(groups, { lr: 0.1 })
          : new optim.SGD(groups, { lr: 0.1, momentum: 0.9 });
      return { optimizer, schedule: scheduler(optimizer, spec) };
    };
    let { optimizer, schedule } = setUp();
    for (const [step, expected] of rates.entries()) {
      for (const [i, group] of optimizer.param_groups.entries()) {
        const momentum = "momentum" in group ? group.momentum : group.betas[0];
        const near = (a: number, b: number) => Math.abs(a - b) <= 1e-12 + 1e-9 * Math.abs(b);
        if (!near(group.lr, expected[i]))
          t.fail(`${name}: step ${step}, group ${i}`, { actual: group.lr, expected: expected[i] });
        if (momenta && !near(momentum, momenta[step][i]))
          t.fail(`${name}: momentum at ${step}`, { momentum, expected: momenta[step][i] });
      }
      optimizer.step();
      if (spec[0] === "ReduceLROnPlateau") schedule.step(metrics[step]);
      else schedule.step();
      if (step === 8) {
        // Everything goes on from what was saved.
        const saved = [optimizer.state_dict(), JSON.parse(JSON.stringify(schedule.state_dict()))] as const;
        ({ optimizer, schedule } = setUp());
        optimizer.load_state_dict(saved[0]);
        schedule.load_state_dict(saved[1]);
      }
    }
    t.same(Object.keys(schedule.state_dict()).sort(), keys, `${name}: keys of the state`);
    if (last)
      for (const [i, lr] of schedule.get_last_lr().entries())
        t.ok(Math.abs(lr - last[i]) < 1e-9, `${name}: last ${i}`);
  }
});

t.test("a scheduler before the optimizer's first step is warned of", async (t) => {
  const warnings: string[] = [];
  const listen = (warning: Error) => void warnings.push(warning.message);
  process.on("warning", listen);
  t.teardown(() => process.off("warning", listen));
  new optim.lr_scheduler.StepLR(new optim.SGD([parameter()]), 3).step();
  await new Promise(setImmediate);
  t.match(warnings, [/before optimizer\.step/]);
});

t.test("schedulers take what they need by position or by name", async (t) => {
  const { lr_scheduler } = optim;
  const optimizer = () => new optim.SGD([parameter()], { lr: 1 });
  const rates = (make: (o: ReturnType<typeof optimizer>) => { step(): void; get_last_lr(): number[] }) => {
    const one = optimizer();
    const schedule = make(one);
    return Array.from({ length: 5 }, () => {
      one.step();
      schedule.step();
      return schedule.get_last_lr()[0];
    });
  };
  const same: [Parameters<typeof rates>[0], Parameters<typeof rates>[0]][] = [
    [
      (o) => new lr_scheduler.StepLR(o, 2, 0.5),
      (o) => new lr_scheduler.StepLR(o, { step_size: 2, gamma: 0.5 }),
    ],
    [
      (o) => new lr_scheduler.MultiStepLR(o, [1, 3]),
      (o) => new lr_scheduler.MultiStepLR(o, { milestones: [1, 3] }),
    ],
    [(o) => new lr_scheduler.ExponentialLR(o, 0.9), (o) => new lr_scheduler.ExponentialLR(o, { gamma: 0.9 })],
    [
      (o) => new lr_scheduler.LambdaLR(o, (i) => 1 / (i + 1)),
      (o) => new lr_scheduler.LambdaLR(o, { lr_lambda: (i) => 1 / (i + 1) }),
    ],
    [
      (o) => new lr_scheduler.CosineAnnealingLR(o, 4),
      (o) => new lr_scheduler.CosineAnnealingLR(o, { T_max: 4 }),
    ],
    [
      (o) => new lr_scheduler.CosineAnnealingWarmRestarts(o, 2, 2),
      (o) => new lr_scheduler.CosineAnnealingWarmRestarts(o, { T_0: 2, T_mult: 2 }),
    ],
    [
      (o) => new lr_scheduler.OneCycleLR(o, 0.1, 9, { cycle_momentum: false }),
      (o) => new lr_scheduler.OneCycleLR(o, { max_lr: 0.1, total_steps: 9, cycle_momentum: false }),
    ],
    [
      (o) => new lr_scheduler.CyclicLR(o, 0.01, 0.1, 2, { cycle_momentum: false }),
      (o) =>
        new lr_scheduler.CyclicLR(o, { base_lr: 0.01, max_lr: 0.1, step_size_up: 2, cycle_momentum: false }),
    ],
  ];
  for (const [i, [byPosition, byName]] of same.entries()) t.same(rates(byName), rates(byPosition), String(i));
  t.throws(
    () => new lr_scheduler.StepLR(optimizer(), { gamma: 0.5 } as never),
    /StepLR\(\) needs the argument 'step_size'/,
  );
  t.throws(() => new lr_scheduler.StepLR(optimizer(), { steps_size: 2 } as never), /unknown option .steps_size/);
  t.throws(
    () => new lr_scheduler.StepLR(optimizer(), 2, { step_size: 2 } as never),
    /by position and by name/,
  );
});
