// Gradients, hooks and modes against Python torch (scripts/goldens/autograd.py has the same programs).
import { readFileSync } from "node:fs";
import t from "tap";
import { InvalidArgumentError, OpError, ShapeError, type Tensor, torch } from "torchformers";
import { fixture } from "../support/fixtures.js";

const golden = JSON.parse(readFileSync(fixture("autograd/golden.json"), "utf8"));
const F = torch._nn;

/** The reference's test values: a sine, in float32. */
function values(start: number, ...shape: number[]): Tensor {
  const count = shape.reduce((a, b) => a * b, 1);
  return torch.tensor(
    Float32Array.from({ length: count }, (_, i) => Math.sin(i * 0.7 + start)),
    { shape },
  );
}
const leaf = (start: number, ...shape: number[]): Tensor => values(start, ...shape).requires_grad_();
const flat = (x: Tensor | null | undefined): number[] => (x as Tensor).reshape([-1]).tolist<number[]>();

function near(
  t: { ok(value: unknown, name: string): unknown },
  actual: number[],
  expected: number[],
  name: string,
): void {
  const wrong = expected.findIndex(
    (value, i) => !(Math.abs(value - (actual[i] ?? Number.NaN)) <= 1e-5 + 1e-4 * Math.abs(value)),
  );
  t.ok(
    actual.length === expected.length && wrong < 0,
    `${name}${wrong < 0 ? "" : ` [${wrong}]: ${actual[wrong]}, expected ${expected[wrong]}`}`,
  );
}

t.test("double backward", (t) => {
  const x = leaf(0, 2, 3);
  const y = x.pow(3).mul(x.exp()).sum();
  const [first] = torch.autograd.grad(y, [x], { create_graph: true }) as [Tensor];
  const [second] = torch.autograd.grad(first.pow(2).sum(), [x]) as [Tensor];
  near(t, flat(first), golden.double_backward.first, "first");
  near(t, flat(second), golden.double_backward.second, "second");
  t.equal(first.requires_grad, true);
  t.equal(second.requires_grad, false);
  t.end();
});

t.test("a small network", (t) => {
  const [x, w1, b1, w2, g] = [leaf(0, 2, 4, 8), leaf(1, 16, 8), leaf(2, 16), leaf(3, 8, 16), leaf(4, 8)];
  const normal = torch.layer_norm(x, [8], { weight: g });
  const h = F.linear(F.gelu(F.linear(normal, w1, b1)), w2).add(x);
  const a = torch.softmax(torch.matmul(h, h.transpose(1, 2)).div(3), -1).matmul(h);
  const target = torch.tensor(new BigInt64Array([0n, 3n, -100n, 7n, 2n, 2n, 1n, 5n]));
  const loss = F.cross_entropy_loss(a.reshape([8, 8]), target);
  loss.backward();
  near(t, [loss.item()], [golden.block.loss], "loss");
  for (const [name, parameter] of Object.entries({ x, w1, b1, w2, g }))
    near(t, flat(parameter.grad), golden.block[name], name);
  t.end();
});

t.test("hooks: their order, what they replace, and their removal", (t) => {
  const log: string[] = [];
  const [x, w] = [leaf(0, 3), leaf(1, 3)];
  const h = x.mul(w);
  h.retain_grad();
  const y = h.exp();
  const say = (text: string) => void log.push(text);
  x.register_hook(() => say("x1"));
  h.register_hook((grad) => {
    say("h1");
    return grad.mul(2);
  });
  h.register_hook(() => say("h2"));
  y.register_hook(() => say("y"));
  x.register_hook((grad) => {
    say("x2");
    return grad.add(1);
  });
  x.register_post_accumulate_grad_hook((p) => say(p === x && p.grad ? "after x" : "wrong"));
  const removed = h.register_hook(() => say("removed"));
  removed.remove();
  removed.remove();
  w.register_post_accumulate_grad_hook(() => say("after w"));
  const dropped = w.register_post_accumulate_grad_hook(() => say("dropped"));
  dropped[Symbol.dispose]();
  y.sum().backward();
  t.same(log, golden.hooks.log);
  for (const [name, tensor] of Object.entries({ x, w, h }))
    near(t, flat(tensor.grad), golden.hooks[name], name);
  t.end();
});

t.test("hooks: what goes wrong in them", (t) => {
  const x = leaf(0, 3);
  const failing = (hook: (grad: Tensor) => Tensor | undefined) => {
    const y = x.mul(x);
    y.register_hook(hook);
    return () => y.sum().backward();
  };
  const mine = new RangeError("mine");
  let seen: unknown;
  try {
    failing(() => {
      throw mine;
    })();
  } catch (error) {
    seen = error;
  }
  t.equal(seen, mine, "the very object");
  for (const thrown of [null, undefined, 7]) {
    let caught: unknown = "nothing";
    try {
      failing(() => {
        throw thrown;
      })();
    } catch (error) {
      caught = error;
    }
    t.equal(caught, thrown);
  }
  t.throws(
    failing(() => torch.zeros([2])),
    ShapeError,
    "a gradient of another shape",
  );
  t.throws(() => torch.ones([2]).register_hook(() => undefined), OpError);
  t.throws(() => x.mul(2).register_post_accumulate_grad_hook(() => undefined), OpError);
  t.equal(x.grad, null, "none of them got to the leaf");
  x.mul(2).sum().backward();
  t.same(flat(x.grad), [2, 2, 2], "the engine goes on");
  t.end();
});

t.test("hooks: backward and large operations within", (t) => {
  // The large graph is run by the executor, which waits for the hook; the small one in place.
  for (const size of [3, 40_000]) {
    const x = torch.ones([size]).requires_grad_();
    let inner: number[] = [];
    const recording: boolean[] = [];
    const y = x.mul(3);
    y.register_hook((grad) => {
      recording.push(torch.is_grad_enabled());
      torch.enable_grad(() => {
        for (const n of [1, 50_000]) {
          const a = torch.full([n], 2.5).requires_grad_();
          const b = a.mul(a);
          b.register_hook((g) => g.mul(5));
          b.sum().backward();
          inner.push((a.grad as Tensor).max().item());
        }
      });
      const large = torch.ones([400, 400]).matmul(torch.ones([400, 400]));
      return grad.mul(large.select(0, 0).select(0, 0));
    });
    y.sum().backward({ retain_graph: true });
    t.same(inner, [25, 25]);
    t.equal((x.grad as Tensor).min().item(), 1200);
    inner = [];
    torch.autograd.grad(y.sum(), [x], { create_graph: true });
    t.same(recording, [false, true], "as the engine");
  }
  t.end();
});

t.test("accumulation, vectors, inputs, views written in place, complex numbers", (t) => {
  const a = leaf(0, 4);
  a.mul(a).sum().backward();
  a.mul(3).sum().backward();
  const y = a.exp().sum();
  y.backward({ retain_graph: true });
  y.backward();
  near(t, flat(a.grad), golden.accumulate.x, "accumulate");

  const [x, w] = [leaf(0, 2, 3), leaf(1, 3, 4)];
  torch.autograd.backward([x.matmul(w), x.sum([0])], {
    grad_tensors: [values(2, 2, 4), values(3, 3)],
    inputs: [x],
  });
  near(t, flat(x.grad), golden.vector.x, "vector");
  t.equal(w.grad, null);

  const v = leaf(0, 5);
  const z = v.mul(2);
  z.narrow(0, 1, 2).mul_(v.narrow(0, 3, 1).reshape([]));
  z.add_(v);
  z.pow(2).sum().backward();
  near(t, flat(v.grad), golden.inplace.x, "inplace");

  const c = torch.complex(values(0, 3), values(1, 3)).requires_grad_();
  c.mul(c.conj()).mul(c).abs().sum().backward();
  near(t, flat(torch.view_as_real(c.grad as Tensor)), golden.complex_numbers.x, "complex");
  t.end();
});

t.test("the graph: names, places, leaves", (t) => {
  const [x, w] = [leaf(0, 2, 2), leaf(1, 2, 2)];
  const made = [
    x.add(x),
    x.matmul(w),
    x.exp().sum(),
    F.linear(x, w),
    x.select(0, 0),
    x.view([4]),
    torch.cat([x, w]),
    x.to("float64"),
    torch.layer_norm(x, [2]),
  ];
  const names = [x, ...made].map((tensor) => tensor.grad_fn);
  const unbound = x.unbind(0)[1] as Tensor;
  t.same([...names, (made[6] as Tensor).output_nr, unbound.output_nr], golden.names);
  t.same(
    [x.is_leaf, x.add(1).is_leaf, x.detach().is_leaf, x.detach().requires_grad],
    [true, false, true, false],
  );
  t.end();
});

t.test("what autograd refuses", (t) => {
  const x = leaf(0, 3);
  t.throws(() => x.mul(2).backward(), /\[backward\].*scalar/);
  t.throws(() => torch.ones([]).backward(), /does not require grad/);
  t.throws(() => x.mul(2).backward(torch.ones([2])), { code: "ERR_SHAPE" });
  const y = x.mul(x).sum();
  y.backward();
  t.throws(() => y.backward(), /second time/);
  t.throws(() => torch.autograd.grad(x.sum(), [leaf(1, 2)]), /\[autograd.grad\].*not have been used/);
  t.same(torch.autograd.grad(x.sum(), [leaf(1, 2)], { allow_unused: true }), [null]);
  t.throws(
    () => torch.autograd.backward([x.sum()], { grad_tensors: [torch.ones([]), torch.ones([])] }),
    InvalidArgumentError,
  );
  t.throws(() => x.sum().backward({ inputs: [] }), /must not be empty/);
  t.throws(() => torch.ones([2], { dtype: "int64" }).requires_grad_(), /floating point/);
  t.throws(() => {
    x.mul(2).requires_grad = false;
  }, /leaf/);
  t.throws(() => {
    x.grad = torch.ones([2]);
  }, ShapeError);
  t.throws(
    () => {
      x.grad = torch.ones([3], { dtype: "float64" });
    },
    { code: "ERR_DTYPE" },
  );
  const z = x.mul(1);
  const squared = z.mul(z);
  z.add_(1);
  t.throws(() => squared.sum().backward(), /modified by an inplace operation/);
  t.throws(() => x.add_(1), /leaf/);
  x.grad = null;
  t.equal(x.grad, null);
  t.end();
});

t.test("modes belong to their callbacks, and go along to the executor", (t) => {
  const x = leaf(0, 3);
  t.equal(torch.no_grad(() => x.mul(2)).requires_grad, false);
  t.equal(torch.no_grad(() => torch.enable_grad(() => x.mul(2))).requires_grad, true);
  t.throws(
    () =>
      torch.no_grad(() => {
        throw new Error("out");
      }),
    /out/,
  );
  t.equal(torch.is_grad_enabled(), true);
  const inferred = torch.inference_mode(() =>
    torch.inference_mode(false, () => torch.is_inference_mode_enabled()),
  );
  t.equal(inferred, false);
  t.equal(torch.is_inference_mode_enabled(), false);
  t.throws(() => torch.inference_mode(() => torch.ones([3])).mul(x), /[Ii]nference/);
  const large = leaf(0, 300, 300);
  t.equal(torch.no_grad(() => large.matmul(large)).requires_grad, false);
  t.equal(large.matmul(large).requires_grad, true);

  const half = torch.autocast("cpu", () => large.matmul(large));
  t.equal(half.dtype, "bfloat16");
  half.sum().backward();
  t.equal(large.grad?.dtype, "float32");
  t.equal(torch.is_autocast_enabled("cpu"), false);

  const [second] = torch.autograd.grad(
    torch.autograd.grad(large.pow(3).sum(), [large], { create_graph: true })[0]?.sum() as Tensor,
    [large],
  );
  near(
    t,
    flat(second).slice(0, 9),
    flat(large.detach().mul(6)).slice(0, 9),
    "double backward across threads",
  );
  t.end();
});

t.test("anomaly detection names the operation", (t) => {
  torch.autograd.set_detect_anomaly(true);
  const x = torch.tensor(new Float32Array([0]), { requires_grad: true });
  t.throws(() => x.mul(0).div(x.mul(0)).sqrt().sum().backward(), /returned nan values/);
  torch.autograd.set_detect_anomaly(false);
  t.end();
});
