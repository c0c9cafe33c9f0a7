// Gradients, hooks, layers and optimizers on the device.
import t from "tap";
import { nn, optim, type Tensor, torch } from "torchformers";
import { cudaOnly, device, near, TOLERANCE } from "../support/device.js";
import { type Any, cases, weightedSum } from "../support/nn_golden.js";

const tensorsOf = (value: unknown): Tensor[] =>
  value instanceof torch.Tensor ? [value] : Array.isArray(value) ? value.flatMap(tensorsOf) : [];

t.test("layers: outputs and gradients of the goldens", async (t) => {
  const { list, decode } = await cases("layers");
  for (const given of list) {
    const expected = given.eval && decode(given.eval);
    if (!expected) continue;
    const name = `${given.class} ${JSON.stringify(given.args)} ${JSON.stringify(given.options)}`;
    const layer = new (nn as Any)[given.class](...decode(given.args), decode(given.options));
    // The evaluation came after the training: its running statistics are what that left.
    layer.load_state_dict({ ...decode(given.state), ...expected.buffers });
    layer.to(device).eval();
    const fresh = decode(given.inputs).map((x: unknown, i: number) => {
      if (!(x instanceof torch.Tensor)) return x;
      const copy = x.clone().to(device);
      return x.is_floating_point() ? copy.requires_grad_(expected.input_grads[i] !== null) : copy;
    });
    const inputs = given.same.map((at: number) => fresh[at]);
    const outputs = tensorsOf(layer.forward(...inputs));
    for (const [i, output] of outputs.entries()) near(t, output, expected.outputs[i], `${name}: output ${i}`);
    weightedSum(outputs.map((out) => out.cpu()))?.backward();
    for (const [key, parameter] of layer.named_parameters())
      if (expected.grads[key]) near(t, parameter.grad, expected.grads[key], `${name}: gradient of ${key}`);
    for (const [i, grad] of expected.input_grads.entries())
      if (grad) near(t, inputs[i].grad, grad, `${name}: gradient of input ${i}`);
  }
});

t.test("optimizers: the same losses as on the CPU", async (t) => {
  const { list } = await cases("optimizers");
  const losses = (given: Any, where: string): number[] => {
    torch.manual_seed(3);
    const model = new nn.Sequential(new nn.Linear(4, 6), new nn.Tanh(), new nn.Linear(6, 2));
    const [x, y] = [torch.randn([8, 4]).to(where), torch.randn([8, 2]).to(where)];
    model.to(where);
    const optimizer = new (optim as Any)[given.class](model.parameters(), given.options);
    return Array.from({ length: 6 }, () => {
      optimizer.zero_grad();
      const loss = nn.functional.mse_loss(model.forward(x), y);
      loss.backward();
      nn.utils.clip_grad_norm_(model.parameters(), 0.8);
      optimizer.step();
      return Number(loss.item());
    });
  };
  for (const given of list) {
    const [here, there] = [losses(given, "cpu"), losses(given, device)];
    const off = here.findIndex(
      (loss, i) => !(Math.abs(loss - (there[i] as number)) <= 1e-4 + 1e-3 * Math.abs(loss)),
    );
    t.ok(off < 0, `${given.class} ${JSON.stringify(given.options)}`, off < 0 ? {} : { here, there });
  }
});

/** A graph large enough to leave the thread that runs JavaScript. */
function large(): { x: Tensor; loss: () => Tensor } {
  torch.manual_seed(4);
  const x = torch.randn([256, 256]).to(device).requires_grad_();
  return { x, loss: () => x.matmul(x.t()).tanh().sum() };
}

t.test("hooks see gradients while the engine's device thread waits for them", async (t) => {
  const { x, loss } = large();
  const y = x.mul(2);
  const seen: string[] = [];
  const hook = y.register_hook((grad: Tensor) => {
    seen.push(`${grad.device} ${grad.shape}`);
    return grad.mul(3);
  });
  y.matmul(y.t()).tanh().sum().backward();
  t.same(seen, [`${device} 256,256`]);
  const tripled = x.grad as Tensor;
  hook.remove();
  x.grad = null;
  const z = x.mul(2);
  z.matmul(z.t()).tanh().sum().backward();
  near(t, tripled, (x.grad as unknown as Tensor).mul(3), "what the hook returned was used", {
    atol: 1e-3,
    rtol: 1e-3,
  });
  t.ok(Number.isFinite(loss().item()));
});

t.test("a hook may run a backward of its own", async (t) => {
  const { x, loss } = large();
  const inner = torch.randn([200, 200]).to(device).requires_grad_();
  let runs = 0;
  x.register_hook(() => {
    inner.grad = null;
    inner.register_hook(() => {
      runs++;
    });
    torch.enable_grad(() => inner.matmul(inner).sum().backward());
  });
  loss().backward();
  t.ok(runs > 0);
  t.equal((inner.grad as Tensor | null)?.device, device);
});

t.test("a hook that throws ends the backward, and the next one works", async (t) => {
  const { x, loss } = large();
  const hook = x.register_hook(() => {
    throw new RangeError("from a hook");
  });
  t.throws(() => loss().backward(), RangeError);
  hook.remove();
  x.grad = null;
  loss().backward();
  t.ok(x.grad);
});

t.test("hooks after accumulation, and gradients on two devices at once", async (t) => {
  const here = torch.randn([300, 300]).requires_grad_();
  const there = torch.randn([300, 300]).to(device).requires_grad_();
  const order: string[] = [];
  here.register_post_accumulate_grad_hook(() => void order.push("cpu"));
  there.register_post_accumulate_grad_hook(() => void order.push("device"));
  here.to(device).matmul(there).sum().backward();
  t.same(order.sort(), ["cpu", "device"]);
  t.equal(here.grad?.device, "cpu");
  t.equal(there.grad?.device, device);
});

t.test("autocast computes in the lower precision", async (t) => {
  const [type] = device.split(":") as [string];
  const linear = new nn.Linear(8, 8).to(device);
  const x = torch.randn([2, 8]).to(device);
  torch.autocast(type, { dtype: "bfloat16" }, () => {
    t.equal(linear.forward(x).dtype, "bfloat16");
    t.equal(nn.functional.softmax(linear.forward(x), -1).dtype, type === "cpu" ? "bfloat16" : "float32");
  });
  t.equal(linear.forward(x).dtype, "float32");
});

t.test("a fused optimizer agrees with the plain one", cudaOnly, async (t) => {
  const train = (fused: boolean) => {
    torch.manual_seed(5);
    const model = new nn.Linear(16, 16).to(device);
    const x = torch.ones([4, 16], { device });
    const optimizer = new optim.AdamW(model.parameters(), { lr: 0.01, fused });
    for (let i = 0; i < 5; i++) {
      optimizer.zero_grad();
      model.forward(x).pow(2).sum().backward();
      optimizer.step();
    }
    return model.weight;
  };
  near(t, train(true), train(false), "weights", TOLERANCE);
});
