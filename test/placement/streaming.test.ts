// Limited devices and the streaming of blocks to them: by hand, and under functions that are compiled.
import { renameSync, truncateSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import {
  BlockStreamer,
  DisposedError,
  FileError,
  InvalidArgumentError,
  limited_devices,
  nn,
  OutOfMemoryError,
  PlacementDevice,
  safetensors,
  type Tensor,
  torch,
} from "torchformers";

const MB = 2 ** 20;
const rejects = (promise: Promise<unknown>) =>
  promise.then(
    () => t.fail("resolved"),
    (error: unknown) => error,
  );

/** Layers of one shape, in blocks. */
function stack(layers: number, size: number) {
  torch.manual_seed(1);
  const model = new nn.Sequential(...Array.from({ length: layers }, () => new nn.Linear(size, size)));
  model.requires_grad_(false);
  const blocks = [...model.children()].map((layer, i) => ({
    name: `layer ${i}`,
    tensors: new Map<string, Tensor>([...layer.named_parameters()]),
  }));
  return { model, blocks };
}

const pick = ({ name, capacity, bandwidth, used }: PlacementDevice) => ({ name, capacity, bandwidth, used });

t.test("invalid input", (t) => {
  for (const devices of [{}, [{}], [{ capacity: -1 }], [{ capacity: 1.5 }], [{ capacity: 1, bandwidth: 0 }]])
    t.throws(() => limited_devices(devices as never), InvalidArgumentError);
  t.throws(() => limited_devices([{ capacity: 1, bandwith: 3 } as never]), /Did you mean .bandwidth./);
  t.same(limited_devices([{ capacity: 1000 }]), ["limited:0"]);
  t.throws(() => new PlacementDevice("cuda:0"), InvalidArgumentError);
  t.throws(() => new PlacementDevice("limited:1"), /1 were set up/);
  const blocks = [{ tensors: { a: torch.ones(2) } }];
  t.throws(() => new BlockStreamer("limited:0", []), InvalidArgumentError);
  t.throws(() => new BlockStreamer("limited:0", blocks, { slot: 1 } as never), /Did you mean .slots./);
  for (const options of [{ slots: 0 }, { depth: 0.5 }, { memory: -1 }])
    t.throws(() => new BlockStreamer("limited:0", blocks, options), InvalidArgumentError);
  t.throws(
    () => new BlockStreamer("limited:0", [{ tensors: { a: torch.ones(2, { device: "meta" }) } }]),
    InvalidArgumentError,
  );
  const streamer = new BlockStreamer("limited:0", blocks);
  t.throws(() => streamer.acquire(1), InvalidArgumentError);
  t.throws(() => streamer.acquire({ tensors: {} }), InvalidArgumentError);
  t.throws(() => streamer.release(0), /had not been acquired/);
  streamer.dispose();
  t.throws(() => streamer.acquire(0), DisposedError);
  t.end();
});

t.test("a limited device counts what lies on it, and says what is missing", (t) => {
  torch.limited_devices([{ capacity: 4096 }, { capacity: MB, bandwidth: 1e9 }]);
  const device = new PlacementDevice("limited");
  torch.tidy(() => {
    const x = torch.arange(200, { dtype: "float32" }).reshape(10, 20);
    const there = device.copyIn(x);
    t.ok(torch.equal(there, x));
    t.equal(there.device, "cpu");
    t.equal(device.used, 1024, "800 bytes, in units of 256");
    const turned = device.copyIn(x.t());
    t.same(turned.stride(), [1, 20], "as it lies");
    t.ok(torch.equal(turned, x.t()));
    t.ok(torch.equal(device.copyIn(x.select(1, 3)), x.select(1, 3)), "with gaps");
    t.equal(device.used, 2304);
  });
  t.equal(device.used, 0);
  const error = (() => {
    try {
      device.copyIn(torch.zeros(2000));
    } catch (error) {
      return error as Error;
    }
    return undefined;
  })();
  t.type(error, OutOfMemoryError);
  t.match(error?.message, /limited:0 has no room for 8192 bytes: \d+ of 4096 are free/);
  t.throws(() => device.copyIn(torch.ones(2, { device: "meta" })), InvalidArgumentError);
  const other = new PlacementDevice("limited:1");
  t.match({ ...pick(other) }, { name: "limited:1", capacity: MB, bandwidth: 1e9, used: 0 });

  for (let i = 0; i < 40; i++) device.copyIn(torch.ones(256));
  t.pass("garbage makes room");
  t.end();
});

/** A copy that was given up keeps its slot for some microseconds. */
const empty = async () => {
  while (new PlacementDevice("limited:0").used > 0) await new Promise((resolve) => setTimeout(resolve, 1));
};

t.test("blocks come in their order, token after token", async (t) => {
  limited_devices([{ capacity: MB, bandwidth: 1e9 }]);
  const blocks = Array.from({ length: 5 }, (_, i) => ({
    tensors: { a: torch.full([100], i), b: torch.full([3, 5], -i, { dtype: "int64" }), c: torch.tensor(i) },
  }));
  for (const options of [
    {},
    { slots: 1 },
    { slots: 4 },
    { slots: 9, depth: 3 },
    { memory: 5000 },
    { synchronous: true },
  ]) {
    const streamer = new BlockStreamer("limited:0", blocks, options);
    for (let token = 0; token < 3; token++) {
      for (const [i, block] of blocks.entries()) {
        const tensors = streamer.acquire(block);
        t.same([...tensors.keys()], ["a", "b", "c"]);
        t.ok(torch.equal(tensors.get("a") as Tensor, block.tensors.a));
        t.ok(torch.equal(tensors.get("b") as Tensor, block.tensors.b));
        t.equal(tensors.get("c")?.item(), i);
        t.equal(streamer.acquire(i), tensors, "calls nest");
        streamer.release(i);
        t.ok(torch.equal(tensors.get("a") as Tensor, block.tensors.a), "still there");
        streamer.release(block);
        t.throws(() => tensors.get("a")?.sum(), DisposedError);
      }
    }
    const stats = streamer.stats();
    t.equal(stats.uses, 15);
    if (options.synchronous) t.match(stats, { waits: 15, hidden_ms: 0, loads: 15 });
    if (options.slots === 9) t.match(stats, { loads: 5, resident_blocks: 5, slots: 0 });
    if (options.slots === 4) t.match(stats, { resident_blocks: 2, slots: 2 });
    streamer.dispose();
  }
  await empty();

  const small = new BlockStreamer("limited:0", blocks, { slots: 2 });
  small.acquire(0);
  small.acquire(3);
  t.throws(() => small.acquire(1), { code: "ERR_OUT_OF_MEMORY", message: /2 are in use at once/ });
  small.release(0);
  t.ok(small.acquire(1));
  t.throws(() => new BlockStreamer("limited:0", [{ tensors: { x: torch.zeros(MB) } }]), OutOfMemoryError);
});

t.test("a compiled function waits for the blocks of parameters that rest", async (t) => {
  limited_devices([{ capacity: 8 * MB, bandwidth: 4e8 }]);
  const x = torch.randn(4, 256);
  for (const options of [
    { slots: 1, synchronous: true },
    { slots: 2 },
    { slots: 4 },
    { slots: 4, depth: 3 },
    { slots: 9 },
  ]) {
    const { model, blocks } = stack(6, 256);
    let wanted = model.forward(x) as Tensor;
    const fn = torch.compile((x: Tensor) => model.forward(x) as Tensor);
    wanted = await fn(x);
    const streamer = new BlockStreamer("limited:0", blocks, options);
    streamer.rest();
    t.equal(blocks[0]?.tensors.get("weight")?.device, "meta");
    t.throws(
      () => model.forward(x),
      /an offloaded parameter .* is used while its block is not on the device/,
    );
    for (let token = 0; token < 3; token++) t.ok(torch.equal(await fn(x), wanted), JSON.stringify(options));
    t.equal(fn.counters.recordings, 1, "where its parameters lie is no matter to a recording");
    t.ok(
      (await Promise.all([fn(x), fn(x), fn(x)])).every((y) => torch.equal(y as Tensor, wanted)),
      "at once",
    );
    t.equal(streamer.stats().uses, 36);

    streamer.fill(0);
    t.equal(blocks[0]?.tensors.get("weight")?.device, "cpu");
    t.ok(model[0]?.forward(x));
    streamer.drain(0);
    t.ok(torch.equal(await fn(x), wanted), "after eager use");
    streamer.dispose();
    t.match(await rejects(fn(x)), { code: "ERR_DISPOSED" });
  }
});

t.test("blocks that come again, views, and what cannot be", async (t) => {
  limited_devices([{ capacity: 8 * MB }]);
  const { model, blocks } = stack(3, 64);
  const [a, b, c] = blocks.map(({ tensors }) => tensors.get("weight") as Tensor) as [Tensor, Tensor, Tensor];
  const bias = blocks[0]?.tensors.get("bias") as Tensor;
  const x = torch.randn(2, 64);
  const functions: [string, (x: Tensor) => unknown][] = [
    ["first and last", (x) => x.matmul(a).matmul(b).matmul(c).matmul(a)],
    ["to and fro", (x) => x.matmul(a).matmul(b).matmul(a.t()).matmul(b.t()).add(bias)],
    [
      "a view over other blocks",
      (x) => ((v) => x.matmul(v).matmul(b).matmul(c).matmul(v))(a.narrow(0, 0, 64).t()),
    ],
    ["two at once", (x) => x.matmul(a.mul(b)).matmul(c)],
    ["a result that is a view", (x) => [x.matmul(a), b.narrow(1, 2, 3), x.matmul(c)]],
    ["an expression of weights", () => torch.stack([a, b, c]).sum([1])],
  ];
  const wanted = functions.map(([, fn]) => fn(x));
  const turned = a.t().tolist();
  const streamer = new BlockStreamer("limited:0", blocks, { slots: 2 });
  streamer.rest();
  for (const passes of [true, false]) {
    for (const [i, [name, fn]] of functions.entries()) {
      if (name === "an expression of weights") {
        t.match(
          await rejects(torch.compile(fn, { passes })(x)),
          { code: "ERR_OUT_OF_MEMORY" },
          "three at once",
        );
        continue;
      }
      const compiled = torch.compile(fn, { passes });
      for (let run = 0; run < 2; run++) {
        const got = await compiled(x);
        const pairs = Array.isArray(got)
          ? got.map((y, k) => [y, (wanted[i] as Tensor[])[k]])
          : [[got, wanted[i]]];
        for (const [y, z] of pairs) t.ok(torch.allclose(y as Tensor, z as Tensor, { atol: 1e-5 }), name);
      }
    }
  }
  t.match(await rejects(torch.compile(() => a.add_(1))()), { message: /writes to an offloaded parameter/ });
  t.equal(await torch.compile(() => a)(), a, "what a function passes on is passed on");
  t.same((await torch.compile(() => a.t())()).tolist(), turned);
  const graded = torch.randn(2, 64, { requires_grad: true });
  t.match(await rejects(torch.compile((x: Tensor) => x.matmul(a))(graded)), { message: /no_grad/ });
  t.ok(await torch.no_grad(() => torch.compile((x: Tensor) => x.matmul(a)))(x));
  t.type(model.forward, "function");
});

t.test("an abort and the end in the middle", async (t) => {
  limited_devices([{ capacity: 8 * MB, bandwidth: 2e7 }]); // a block takes 13 ms
  const { model, blocks } = stack(6, 256);
  const x = torch.randn(4, 256);
  const fn = torch.compile((x: Tensor) => model.forward(x) as Tensor);
  const wanted = await fn(x);
  const streamer = new BlockStreamer("limited:0", blocks);
  streamer.rest();
  const control = new AbortController();
  const run = fn.run([x], { signal: control.signal });
  setTimeout(() => control.abort(new Error("enough")), 20);
  t.match(await rejects(run), { message: "enough" });
  t.ok(torch.equal(await fn(x), wanted), "and goes on afterwards");

  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  const other = torch.ones(8).add(1).sum().item();
  await fn(x);
  clearInterval(timer);
  t.equal(other, 16);
  t.ok(turns > 3, "the event loop was free while blocks were on their way");

  const last = rejects(fn(x));
  setTimeout(() => streamer.dispose(), 20);
  t.match(await last, { code: "ERR_DISPOSED" });
});

t.test("blocks out of files", async (t) => {
  const folder = t.testdir();
  const { model, blocks } = stack(4, 512);
  const path = join(folder, "model.safetensors");
  await safetensors.save_file({ ...model.state_dict() } as Record<string, Tensor>, path);
  const x = torch.randn(2, 512);
  const wanted = model.forward(x) as Tensor;
  const load = async () => {
    const file = await safetensors.load_file(path);
    return blocks.map((_, i) => ({
      tensors: { weight: file[`${i}.weight`] as Tensor, bias: file[`${i}.bias`] as Tensor },
    }));
  };
  limited_devices([{ capacity: 8 * MB }]);
  for (const [device, options] of [
    ["limited:0", { slots: 2 }],
    ["cpu", { slots: 2 }],
    ["cpu", { memory: 2.5 * MB }],
    ["cpu", {}],
  ] as const) {
    const files = await load();
    const streamer = new BlockStreamer(device, files, options);
    for (let token = 0; token < 3; token++) {
      let y = x;
      for (const [i, block] of files.entries()) {
        const weights = streamer.acquire(block);
        y = nn.F.linear(y, weights.get("weight") as Tensor, weights.get("bias"));
        streamer.release(i);
      }
      t.ok(torch.equal(y, wanted), `${device} ${JSON.stringify(options)}`);
    }
    streamer.rest();
    const run = torch.compile((x: Tensor) =>
      files.reduce((y, { tensors }) => nn.F.linear(y, tensors.weight, tensors.bias), x),
    );
    t.ok(torch.allclose(await run(x), wanted, { atol: 1e-5 }), "compiled");
    streamer.dispose();
  }

  // A file that is gone is still there for those who have it open.
  const files = await load();
  renameSync(path, join(folder, "away"));
  const streamer = new BlockStreamer("limited:0", files, { slots: 1 });
  t.ok(torch.equal(streamer.acquire(0).get("bias") as Tensor, model.state_dict()["0.bias"] as Tensor));
  streamer.release(0);
  streamer.rest();
  const run = torch.compile((x: Tensor) => nn.F.linear(x, (files[3] as (typeof files)[0]).tensors.weight));
  truncateSync(join(folder, "away"), 4096);
  for (const again of [1, 2])
    t.match(
      await rejects(run(x)),
      { code: "ERR_FILE", message: /model\.safetensors' became shorter/ },
      `${again}`,
    );
  t.throws(() => streamer.acquire(2), FileError);
});
