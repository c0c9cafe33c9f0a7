// torch.utils.checkpoint: gradients without it are the measure.
import t, { type Test } from "tap";
import { type Tensor, torch } from "torchformers";
import { live_tensors, settle } from "../support/memory.js";

const { checkpoint, checkpoint_sequential } = torch.utils.checkpoint;
type Step = (x: Tensor) => Tensor;
const plainly = <A extends readonly unknown[], R>(fn: (...args: A) => R, args: A): R => fn(...args);

/** Gradients of x and w of three steps, with and without. */
function both(t: Test, size: number, step: (w: Tensor) => Step, options = {}): void {
  torch.manual_seed(0);
  const x = torch.randn([size, size]).requires_grad_();
  const w = torch.randn([size, size]).requires_grad_();
  const run = (call: typeof checkpoint | typeof plainly) => {
    torch.manual_seed(1);
    let h: Tensor = x.mul(2);
    for (let i = 0; i < 3; i++) h = call(step(w), [h], options);
    const loss = h.pow(2).mean();
    loss.backward();
    const found = [loss.item(), x.grad?.clone() as Tensor, w.grad?.clone() as Tensor, torch.rand([1]).item()];
    x.grad = null;
    w.grad = null;
    return found as [number, Tensor, Tensor, number];
  };
  const [expected, got] = [run(plainly), run(checkpoint)];
  t.equal(got[0], expected[0], "loss");
  t.ok(torch.equal(got[1], expected[1]), "gradient of the input");
  t.ok(torch.equal(got[2], expected[2]), "gradient of a tensor from outside");
  t.equal(got[3], expected[3], "random numbers that follow");
}

t.test("wrong input", async (t) => {
  const x = torch.ones([2]);
  const invalid = { code: "ERR_INVALID_ARGUMENT" };
  t.throws(() => checkpoint("x" as never, [x]), invalid);
  t.throws(() => checkpoint((x: Tensor) => x, x as never), invalid);
  t.throws(() => checkpoint((x: Tensor) => x, [x], { use_reentrant: true }), { ...invalid, hint: /same/ });
  t.throws(() => checkpoint((x: Tensor) => x, [x], { determinism_check: "x" as never }), invalid);
  t.throws(() => checkpoint((x: Tensor) => x, [x], { preserve: true } as never), /unknown option 'preserve'/);
  t.throws(() => checkpoint_sequential([(x: Tensor) => x], 2, x), /1 to 1 segments/);
  t.throws(() => checkpoint(async (x: Tensor) => x, [x]), /promise/);
  t.equal(torch.ones([1]).requires_grad_().mul(2).grad_fn, "MulBackward0", "no frame is left open");
});

// A small graph runs in place, a large one on the executor, which then computes for the hook's thread.
for (const size of [4, 400]) {
  t.test(`the same gradients, ${size} wide`, async (t) => {
    both(t, size, (w) => (x) => torch.tanh(x.matmul(w)).mul(0.1).add(x));
    both(t, size, (w) => (x) => torch.dropout(x.matmul(w).relu(), 0.5, true).mul(0.1));
    both(t, size, (w) => (x) => checkpoint((h: Tensor) => h.matmul(w).sin(), [x.exp().mul(0.01)]).add(x));
    both(t, size, (w) => (x) => torch.tanh(x.matmul(w)), { early_stop: false, determinism_check: "none" });
    both(t, size, (w) => (x) => x.clone().mul_(2).add_(w).sigmoid_());
  });
}

t.test("autocast holds in the second run too", async (t) => {
  both(t, 8, (w) => (x) => x.matmul(w).to("float32").mul(0.1));
  const x = torch.randn([4, 4]).requires_grad_();
  const dtypes: string[] = [];
  const step = (x: Tensor) => {
    const y = x.matmul(x);
    dtypes.push(y.dtype);
    return y.sin();
  };
  const y = torch.autocast("cpu", () => checkpoint(step, [x]));
  y.sum().backward();
  t.same(dtypes, ["bfloat16", "bfloat16"]);
  t.equal(torch.is_autocast_enabled("cpu"), false);
});

t.test("how often the function runs, and on what", async (t) => {
  const x = torch.randn([3]).requires_grad_();
  let calls = 0;
  let ended = 0;
  const step = ({ h, list }: { h: Tensor; list: readonly Tensor[] }, factor: number) => {
    calls++;
    t.equal(torch.is_grad_enabled(), true);
    const y = h
      .sin()
      .mul(list[0] as Tensor)
      .mul(factor)
      .exp();
    ended++;
    return { y };
  };
  const args = (): Parameters<typeof step> => [{ h: x.mul(1), list: [torch.full([3], 0.5)] }, 3];
  checkpoint(step, args()).y.sum().backward();
  t.equal(calls, 2);
  t.equal(ended, 1, "the second run ends when it has what is needed");
  t.ok(torch.allclose(x.grad as Tensor, x.sin().mul(1.5).exp().mul(1.5).mul(x.cos())));

  const { y } = checkpoint(step, args());
  y.sum().backward({ retain_graph: true });
  y.sum().backward();
  t.equal(calls, 5, "once more for each backward");
  torch.no_grad(() => checkpoint((h: Tensor) => h.sin(), [x]));
  t.throws(() => y.sum().backward(), { code: "ERR_OP" }, "the graph is gone");
});

t.test("gradients of gradients", async (t) => {
  const x = torch.randn([3]).requires_grad_();
  const second = (call: typeof checkpoint | typeof plainly) => {
    const y = call((x: Tensor) => x.pow(3).sin(), [x]).sum();
    const [first] = torch.autograd.grad(y, x, { create_graph: true });
    return torch.autograd.grad((first as Tensor).pow(2).sum(), x)[0] as Tensor;
  };
  t.ok(torch.allclose(second(checkpoint), second(plainly)));
});

t.test("a function that does not do the same twice", async (t) => {
  const x = torch.randn([3]).requires_grad_();
  const changing = (...ways: Step[]): Step => {
    let call = 0;
    return (x) => (ways[call++] as Step)(x);
  };
  const backward =
    (fn: Step, options = {}) =>
    () =>
      checkpoint(fn, [x], options).sum().backward();
  const once: Step = (x) => x.sin();
  const twice: Step = (x) => x.sin().exp();
  t.throws(backward(changing(twice, (x) => x.add(1))), {
    code: "ERR_OP",
    message: /second computation saves 0 tensors, the first saved \d/,
  });
  t.throws(backward(changing(once, twice), { early_stop: false }), /more tensors than the first/);
  t.throws(
    backward(changing(once, (x) => x.reshape([3, 1]).sin())),
    /was Float\[3\] on cpu in the first computation and is Float\[3, 1\] on cpu/,
  );
  class Mine extends Error {}
  const failing = changing(once, () => {
    throw new Mine("no");
  });
  t.throws(backward(failing), new Mine("no"), "what it throws comes through");
  const y = x.mul(1);
  const out = checkpoint(once, [y]);
  y.add_(1);
  t.throws(() => out.sum().backward(), /modified by an inplace operation/);

  const noise: Step = (x) => torch.dropout(x, 0.5, true).sin();
  torch.manual_seed(0);
  const drawn = checkpoint(noise, [torch.ones([64]).requires_grad_()], { preserve_rng_state: false });
  const state = torch.get_rng_state();
  drawn.sum().backward();
  t.notOk(torch.equal(state, torch.get_rng_state()), "the second run draws for itself when told so");
});

t.test("what is kept, and when it goes", async (t) => {
  settle();
  const before = torch.memory_stats();
  const x = torch.randn([256, 256]).requires_grad_();
  const held = (call: typeof checkpoint | typeof plainly) => {
    const start = torch.memory_stats().heap_bytes;
    let h: Tensor = torch.tidy(() => x.mul(1));
    for (let i = 0; i < 10; i++) {
      const next = torch.tidy(() => call((h: Tensor) => h.exp().sin().exp().tanh(), [h]));
      h.dispose(); // the graph keeps it
      h = next;
    }
    const kept = torch.memory_stats().heap_bytes - start;
    h.sum().backward();
    h.dispose();
    x.grad = null;
    return kept;
  };
  const [plain, checkpointed] = [held(plainly), held(checkpoint)];
  t.ok(checkpointed < plain * 0.4, `${checkpointed} bytes instead of ${plain}`);
  // A result that holds what was given to it, and a graph that nobody ran: both are found by the collector.
  for (let i = 0; i < 5; i++) {
    const bag: { out: Tensor[] } = { out: [] };
    checkpoint(
      (h: Tensor, { out }: typeof bag) => {
        out.push(h.sin());
        return h.exp().sin();
      },
      [x, bag],
    );
    t.equal(bag.out[0]?.is_disposed, false, "what hangs on an argument outlives the scope");
  }
  x.dispose();
  await new Promise((resolve) => setImmediate(resolve));
  settle();
  t.equal(live_tensors(), before.live_tensors);
});

t.test("a chain of modules", async (t) => {
  const x = torch.randn([4]).requires_grad_();
  const steps: Step[] = [(x) => x.sin(), (x) => x.exp(), (x) => x.tanh(), (x) => x.mul(x), (x) => x.cos()];
  checkpoint_sequential(steps, 2, x).sum().backward();
  const expected = x.detach().requires_grad_();
  steps
    .reduce((h, step) => step(h), expected)
    .sum()
    .backward();
  t.ok(torch.equal(x.grad as Tensor, expected.grad as Tensor));
});
