// The Tensor class and what is written by hand around it.

import { inspect } from "node:util";
import { MessageChannel, receiveMessageOnPort } from "node:worker_threads";
import t from "tap";
import { DisposedError, DtypeError, InvalidArgumentError, OpError, ShapeError, torch } from "torchformers";

// biome-ignore lint/suspicious/noExplicitAny: wrong calls are made on purpose
type Any = any;
const live = () => torch.memory_stats().live_tensors;

t.test("wrong calls say what is wrong", (test) => {
  const x = torch.ones(2, 3);
  const fails = (call: () => unknown, type: Any, pattern: RegExp) => {
    try {
      call();
      test.fail(`no error: ${pattern}`);
    } catch (error) {
      test.type(error, type);
      test.match((error as Error).message, pattern);
    }
  };
  fails(
    () => x.sum([1], { keepdims: true } as Any),
    InvalidArgumentError,
    /unknown option 'keepdims'.*Did you mean 'keepdim'/s,
  );
  fails(
    () => (torch as Any).sum(x, [1], { dim: 1 }),
    InvalidArgumentError,
    /'dim' is given by position and by name/,
  );
  fails(
    () => torch.zeros([2], { dtpye: "int64" } as Any),
    InvalidArgumentError,
    /'dtpye'.*Did you mean 'dtype'/s,
  );
  fails(
    () => torch.tensor([1], { requires_gard: true } as Any),
    InvalidArgumentError,
    /Did you mean 'requires_grad'/,
  );
  fails(() => x.to("flaot32" as Any), Error, /flaot32/);
  fails(() => x.to({ dtpe: "int64" } as Any), InvalidArgumentError, /Did you mean 'dtype'/);
  fails(
    () => torch.matmul(x, "y" as Any),
    InvalidArgumentError,
    /\[matmul\] no form takes \(Tensor, string\)/,
  );
  fails(() => x.matmul(x), ShapeError, /matmul.*\[2, 3\]/s);
  fails(() => x.add(torch.ones(4)), ShapeError, /add.*\[2, 3\].*\[4\]/s);
  fails(() => torch.tensor([[1, 2], [3]]), ShapeError, /expected 2 entries at \[1\], got 1/);
  fails(() => torch.tensor([[1, 2], 3] as Any), ShapeError, /expected an array of 2 at \[1\]/);
  fails(() => torch.tensor([1, "a"] as Any), InvalidArgumentError, /string a/);
  fails(() => torch.tensor([300], { dtype: "uint8" }), InvalidArgumentError, /300 does not fit into uint8/);
  fails(() => torch.tensor([1], { dtype: "float33" as Any }), DtypeError, /Did you mean 'float32'/);
  fails(() => torch.tensor(new Float32Array(5), { shape: [2, 3] }), ShapeError, /5 values do not fill/);
  fails(() => x.index(5), ShapeError, /5 is out of bounds for dimension 0 of size 2/);
  fails(() => x.index(0, 0, 0), ShapeError, /3 indices for a tensor of 2 dimensions/);
  fails(() => x.index(torch.slice(null, null, -1)), InvalidArgumentError, /step of a slice/);
  fails(() => torch.no_grad((async () => 1) as Any), InvalidArgumentError, /returned a promise/);
  fails(() => torch.tidy((async () => 1) as Any), InvalidArgumentError, /returned a promise/);
  fails(() => torch.finfo("int64"), DtypeError, /iinfo/);
  fails(() => torch.ops.aten.add?.Tensor?.(x), Error, /add/);
  fails(() => x.item(), Error, /item|2, 3/);
  const gone = torch.ones(1);
  gone.dispose();
  fails(() => gone.add(1), DisposedError, /dispos/);
  test.equal(gone.is_disposed, true);
  test.match(String(gone), /disposed/);
  test.ok(OpError);
  test.end();
});

t.test("tensors from values", (test) => {
  const dtype = (values: Any) => torch.tensor(values).dtype;
  test.equal(dtype([1, 2]), "int64");
  test.equal(dtype([1, 2.5]), "float32");
  test.equal(dtype([true, false]), "bool");
  test.equal(dtype([true, 2]), "int64");
  test.equal(dtype([1n, 2]), "int64");
  test.equal(dtype([-0]), "float32");
  test.equal(dtype([2 ** 60]), "float32");
  test.equal(dtype([]), "float32");
  test.equal(dtype(torch.float(1)), "float32");
  test.equal(dtype(new Float64Array(2)), "float64");
  test.equal(dtype(new BigInt64Array(2)), "int64");
  test.equal(dtype(Buffer.from("ab")), "uint8");
  test.equal(dtype([torch.tensor(1.5), torch.tensor(2)]), "float32");
  test.same(torch.tensor([torch.tensor(1.5), torch.tensor(2)]).tolist(), [1.5, 2]);
  test.same(torch.tensor([[[]], [[]]]).shape, [2, 1, 0]);
  test.same(torch.tensor(new Float32Array(6), { shape: [2, 3] }).shape, [2, 3]);
  test.same(torch.tensor([1.7, -1.7], { dtype: "int64" }).tolist(), [1, -1]);
  test.same(torch.tensor([9007199254740993n]).tolist(), [9007199254740993n]);
  test.same(torch.tensor([1, 2], { dtype: "bfloat16" }).dtype, "bfloat16");
  test.same(torch.tensor([1.5], { requires_grad: true }).requires_grad, true);
  test.same(
    torch
      .tensor(
        [
          [1, 0],
          [0, 2],
        ],
        { dtype: "bool" },
      )
      .tolist(),
    [
      [true, false],
      [false, true],
    ],
  );
  test.same(
    torch.with_default_dtype("float64", () => torch.tensor([0.5]).dtype),
    "float64",
  );
  test.same(
    torch.with_device("meta", () => [
      torch.zeros(2).device,
      torch.tensor([1]).device,
      torch.empty([2]).device,
    ]),
    ["meta", "meta", "meta"],
  );
  test.equal(torch.zeros(2).device, "cpu");
  const shared = new SharedArrayBuffer(16);
  const view = torch.from_buffer(shared, { dtype: "float32", offset: 4 });
  test.same(view.shape, [3]);
  view.fill_(2);
  test.same([...new Float32Array(shared)], [0, 2, 2, 2]);
  test.throws(() => torch.from_buffer(shared, { dtype: "float32", shape: [5] }), ShapeError);
  test.end();
});

t.test("values out of tensors", async (test) => {
  test.same(await torch.tensor([1, 2]).data(), new BigInt64Array([1n, 2n]));
  test.same(await torch.tensor([1.5], { dtype: "bfloat16" }).data(), new Float32Array([1.5]));
  test.same(await torch.tensor([1], { dtype: "bfloat16" }).data({ raw: true }), new Uint16Array([0x3f80]));
  test.same(await torch.tensor([true, false]).data(), new Uint8Array([1, 0]));
  test.same(
    await torch
      .tensor([
        [1.5, 2.5],
        [3.5, 4.5],
      ])
      .t()
      .data(),
    new Float32Array([1.5, 3.5, 2.5, 4.5]),
    "contiguous",
  );
  test.equal(torch.tensor(5).item(), 5);
  test.equal(torch.tensor(2n ** 60n).item(), 2n ** 60n);
  test.same(torch.complex(torch.tensor(1.5), torch.tensor(2.5)).item<[number, number]>(), [1.5, 2.5]);
  test.same(
    [
      ...torch.tensor([
        [1, 2],
        [3, 4],
      ]),
    ].map((row) => row.tolist()),
    [
      [1, 2],
      [3, 4],
    ],
  );
  test.equal(inspect(torch.tensor([1, 2])), "tensor([1, 2])");
  test.equal(inspect({ x: torch.tensor([1]) }), "{ x: tensor([1]) }");
});

t.test("facts", (test) => {
  const x = torch.zeros(2, 3, 4);
  test.same(
    [x.shape, x.size(-1), x.stride(), x.stride(0), x.ndim, x.dim(), x.numel()],
    [[2, 3, 4], 4, [12, 4, 1], 12, 3, 3, 24],
  );
  test.throws(() => x.size(3), RangeError);
  test.same(
    [x.itemsize, x.nbytes, x.is_contiguous(), x.transpose(0, 1).is_contiguous()],
    [4, 96, true, false],
  );
  test.same([x.device, x.dtype, x.is_cpu, x.is_meta, x.layout], ["cpu", "float32", true, false, "strided"]);
  test.equal(x.index(1).storage_offset(), 12);
  test.equal(x.view(24).untyped_storage().id, x.untyped_storage().id);
  test.same(
    [x.mT.shape, torch.ones(2, 3).T.shape, torch.ones(2, 3).H.shape],
    [
      [2, 4, 3],
      [3, 2],
      [3, 2],
    ],
  );
  test.equal(torch.is_tensor(x), true);
  test.equal(torch.float32, "float32");
  test.end();
});

t.test("to", (test) => {
  const x = torch.tensor([1.5, 2]);
  test.equal(x.to("float32"), x, "itself when nothing changes");
  test.equal(x.to("cpu"), x);
  test.not(x.to("float32", { copy: true }), x);
  test.not(x.to("float32", false, true), x);
  test.equal(x.to("cpu", "int64").dtype, "int64");
  test.equal(x.to({ dtype: "float16" }).dtype, "float16");
  test.equal(x.to(torch.tensor([1])).dtype, "int64");
  test.equal(x.to("meta").device, "meta");
  test.equal(x.half().dtype, "float16");
  test.equal(x.type(), "torch.FloatTensor");
  test.equal(x.type("float64").dtype, "float64");
  test.equal(x.cpu(), x);
  test.throws(() => x.to("float32", { dtype: "int64" }));
  test.end();
});

t.test("arguments", (test) => {
  const x = torch.tensor(
    [
      [1, 2, 3],
      [4, 5, 6],
    ],
    { dtype: "float32" },
  );
  test.same(x.sum({ dim: 1, keepdim: true }).tolist(), [[6], [15]]);
  test.same(torch.sum({ input: x, dim: 0 }).tolist(), [5, 7, 9]);
  test.same(x.sum(null, { dtype: "float64" }).dtype, "float64");
  test.same(x.sum(null).tolist(), 21);
  test.same(x.sum([1], undefined as Any).tolist(), [6, 15]);
  const [values, indices] = x.topk(2, { largest: false });
  test.same(
    [values.tolist(), indices.tolist()],
    [
      [
        [1, 2],
        [4, 5],
      ],
      [
        [0, 1],
        [0, 1],
      ],
    ],
  );
  test.same(x.topk(1).values.tolist(), [[3], [6]]);
  test.same(torch.sub(1, x).tolist(), [
    [0, -1, -2],
    [-3, -4, -5],
  ]);
  test.same(torch.add(1, torch.tensor([1.5], { dtype: "bfloat16" })).dtype, "bfloat16");
  test.equal(x.add_(1), x, "in place: the same object");
  test.same(torch.full([2], 1n).dtype, "int64");
  test.same(x.clamp({ min: 3 }).tolist(), [
    [3, 3, 4],
    [5, 6, 7],
  ]);
  test.same(torch.ops.aten.add?.Tensor?.(x, x) instanceof torch.Tensor, true);
  test.end();
});

t.test("gradients", (test) => {
  const x = torch.tensor([1, 2, 3], { dtype: "float32", requires_grad: true });
  const y = x.mul(x).sum();
  test.equal(y.grad_fn, "SumBackward0");
  test.same([x.is_leaf, y.is_leaf, x.grad], [true, false, null]);
  y.backward();
  test.same(x.grad?.tolist(), [2, 4, 6]);
  x.mul(2)
    .sum()
    .backward({ gradient: torch.tensor(3, { dtype: "float32" }) });
  test.same(x.grad?.tolist(), [8, 10, 12]);
  x.grad = null;
  test.equal(x.grad, null);
  const z = x.mul(3);
  z.retain_grad();
  using hook = x.register_hook((grad) => grad.mul(10));
  z.sum().backward();
  test.same(z.grad?.tolist(), [1, 1, 1]);
  test.same((x.grad as Any).tolist(), [30, 30, 30]);
  hook.remove();
  const seen: number[] = [];
  const after = x.register_post_accumulate_grad_hook((parameter) =>
    seen.push((parameter.grad as Any).index(0).item()),
  );
  x.grad = null;
  x.sum().backward();
  after.remove();
  test.same(seen, [1]);
  const [dx] = torch.autograd.grad(x.pow(2).sum(), [x], { create_graph: true });
  const [ddx] = torch.autograd.grad((dx as Any).sum(), x);
  test.same(ddx?.tolist(), [2, 2, 2]);
  const other = torch.ones(1, { requires_grad: true });
  test.same(torch.autograd.grad(x.sum(), [x, other], { allow_unused: true })[1], null);
  test.same(torch.autograd.grad(x.sum(), [x, other], { materialize_grads: true })[1]?.tolist(), [0]);
  test.equal(
    torch.no_grad(() => x.mul(2).requires_grad),
    false,
  );
  test.equal(
    torch.no_grad(() => torch.enable_grad(() => x.mul(2).requires_grad)),
    true,
  );
  test.equal(torch.is_grad_enabled(), true);
  test.throws(
    () =>
      torch.no_grad(() => {
        throw new Error("out");
      }),
    /out/,
  );
  test.equal(torch.is_grad_enabled(), true, "also after an error");
  test.equal(
    torch.inference_mode(() => torch.is_inference_mode_enabled()),
    true,
  );
  test.equal(
    torch.autocast("cpu", () => torch.ones(2, 2).matmul(torch.ones(2, 2)).dtype),
    "bfloat16",
  );
  test.equal(torch.ones(2, 2).matmul(torch.ones(2, 2)).dtype, "float32");
  test.equal(x.detach().requires_grad, false);
  x.data.fill_(7);
  test.same(x.tolist(), [7, 7, 7]);
  x.data = torch.zeros(3);
  test.same([x.tolist(), x.requires_grad], [[0, 0, 0], true]);
  test.equal(x.data instanceof torch.Tensor, true);
  test.same(torch.add(x.data, 1).tolist(), [1, 1, 1]);
  test.throws(() => x.add_(1), "a leaf that requires grad is not changed in place");
  test.end();
});

t.test("scopes", (test) => {
  const before = live();
  const kept = torch.tidy(() => {
    const a = torch.ones(2);
    const b = a.add(1);
    return { list: [b.mul(2)], map: new Map([["k", b]]), n: 1 };
  });
  test.equal(live(), before + 2);
  test.same(kept.list[0]?.tolist(), [4, 4]);
  let outer: torch.Tensor | undefined;
  let lost: torch.Tensor | undefined;
  torch.tidy("step", () => {
    outer = torch.keep(torch.ones(1));
    lost = torch.ones(1);
  });
  test.same(outer?.tolist(), [1]);
  test.throws(() => lost?.add(1), /step/);
  test.throws(
    () =>
      torch.tidy(() => {
        torch.ones(1);
        throw new Error("out");
      }),
    /out/,
  );
  test.equal(live(), before + 3);
  {
    using x = torch.ones(1);
    test.equal(x.is_disposed, false);
  }
  test.equal(live(), before + 3);
  test.end();
});

t.test("sharing, random numbers, settings", (test) => {
  const x = torch.tensor([1, 2, 3]);
  const { port1, port2 } = new MessageChannel();
  port1.postMessage(x.share());
  const { message } = receiveMessageOnPort(port2) as { message: number };
  const same = torch.from_shared(message);
  same.fill_(9);
  test.same(x.tolist(), [9, 9, 9]);
  test.throws(() => torch.from_shared(message), "one claim");
  port1.close();
  const generator = new torch.Generator().manual_seed(3);
  const state = generator.get_state();
  const first = torch.rand([3], { generator }).tolist();
  generator.set_state(state);
  test.same(torch.rand([3], { generator }).tolist(), first);
  test.equal(generator.initial_seed(), 3n);
  torch.manual_seed(5);
  const rng = torch.get_rng_state();
  const numbers = torch.randn(4).tolist();
  torch.set_rng_state(rng);
  test.same(torch.randn(4).tolist(), numbers);
  test.equal(torch.initial_seed(), 5n);
  test.same([torch.get_default_dtype(), torch.get_default_device()], ["float32", "cpu"]);
  test.throws(() => torch.set_default_dtype("int64"));
  test.ok(torch.get_num_threads() >= 1);
  test.same(torch.finfo("float32"), {
    dtype: "float32",
    bits: 32,
    eps: 1.1920928955078125e-7,
    max: 3.4028234663852886e38,
    min: -3.4028234663852886e38,
    tiny: 1.1754943508222875e-38,
    smallest_normal: 1.1754943508222875e-38,
    resolution: 1e-6,
  });
  test.same([torch.iinfo("int64").max, torch.iinfo("uint8").max], [2n ** 63n - 1n, 255]);
  test.type(torch.cuda.device_count(), "number");
  test.match(torch.version(), /^2\.11/);
  test.end();
});
