// Operators on the device: the recorded calls of Python torch, and properties of what has no goldens.
import t from "tap";
import { CudaUnavailableError, ShapeError, torch } from "torchformers";
import { cudaOnly, device, near, onCuda } from "../support/device.js";
import { type Any, compare, decode, difference, number, run } from "../support/torch_golden.js";

/** A device's sums and transcendental functions differ from a CPU's by some units in the last place. */
const FACTOR = onCuda ? 50 : 1;

/** Recorded calls that only a CPU answers as it did. */
const CPU_ONLY = new Map<string, string>([]);

const onCpu = (value: Any): Any =>
  value instanceof torch.Tensor ? value.cpu() : Array.isArray(value) ? value.map(onCpu) : value;

t.test("recorded calls", (t) => {
  compare(t, "ops", ({ op, a, o, r }) => {
    if (onCuda && CPU_ONLY.has(op)) return undefined;
    const options = o && decode(o, device);
    return difference(onCpu(run(op, decode(a, device), options)), r, FACTOR);
  });
  t.end();
});

t.test("factories make tensors on the device", async (t) => {
  for (const made of [
    torch.zeros([2, 3], { device }),
    torch.ones(2, { device }),
    torch.full([2], 3, { device }),
    torch.arange(5, { device }),
    torch.eye(3, { device }),
    torch.tensor([1, 2], { device }),
    torch.rand([2], { device }),
    torch.empty([2], { device }),
    torch.linspace(0, 1, 5, { device }),
  ])
    t.equal(made.device, device);
});

t.test("values go to the device and back, for every dtype", async (t) => {
  for (const dtype of [
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "complex64",
  ] as const) {
    const x = torch.tensor([0, 1, 1, 0]).to(dtype);
    const there = x.to(device);
    t.same(there.tolist(), x.tolist(), dtype);
    t.equal(there.cpu().equal(x), true, `${dtype}: back`);
  }
});

t.test("views share the device's memory", async (t) => {
  const x = torch.zeros([4, 4], { device });
  x.select(0, 1).add_(2);
  t.equal(x.sum().item(), 8);
  t.equal(x.t().untyped_storage().id, x.untyped_storage().id);
});

t.test("tensors on two devices do not mix", cudaOnly, async (t) => {
  const x = torch.ones([3], { device });
  t.throws(() => x.add(torch.ones([3])), /same device/);
  t.throws(() => x.matmul(torch.ones([4], { device })), ShapeError);
  t.throws(() => torch.zeros([2], { device: "cuda:63" }), CudaUnavailableError);
});

t.test("bfloat16 and float16 products are near the exact ones", async (t) => {
  torch.manual_seed(1);
  const [a, b] = [torch.randn([64, 256]), torch.randn([256, 32])];
  for (const [dtype, rtol] of [
    ["bfloat16", 2e-2],
    ["float16", 4e-3],
  ] as const) {
    const [x, y] = [a.to(dtype), b.to(dtype)];
    const exact = x.to("float64").matmul(y.to("float64"));
    near(t, x.to(device).matmul(y.to(device)).to("float64"), exact, dtype, { atol: 16 * rtol, rtol });
  }
});

t.test("attention agrees with the CPU, masked and causal, with grouped heads", async (t) => {
  torch.manual_seed(2);
  const [q, k, v] = [torch.randn([2, 4, 7, 16]), torch.randn([2, 2, 7, 16]), torch.randn([2, 2, 7, 16])];
  const mask = torch
    .rand([2, 1, 7, 7])
    .gt(0.3)
    .logical_or(torch.eye(7, { dtype: "bool" }));
  for (const options of [{ is_causal: true }, { attn_mask: mask }, {}] as Any[]) {
    const given = { ...options, enable_gqa: true };
    const expected = torch._nn.scaled_dot_product_attention(q, k, v, given);
    const there = { ...given, ...(given.attn_mask ? { attn_mask: given.attn_mask.to(device) } : {}) };
    near(
      t,
      torch._nn.scaled_dot_product_attention(q.to(device), k.to(device), v.to(device), there),
      expected,
      JSON.stringify(Object.keys(options)),
    );
  }
});

t.test("numbers", async (t) => {
  t.same(number("inf"), Number.POSITIVE_INFINITY);
  t.equal(torch.tensor(7, { device }).item(), 7);
});
