// The device itself: properties, the current one, streams and events, random numbers, worker threads, models.
import { Worker } from "node:worker_threads";
import t from "tap";
import { AutoModelForCausalLM, CudaUnavailableError, torch } from "torchformers";
import { device, near, onCuda } from "../support/device.js";
import { fixture } from "../support/fixtures.js";
import { packageUrl } from "../support/program.js";

const { cuda } = torch;

if (!onCuda) {
  t.pass("the device", { skip: "needs a CUDA device" });
  process.exit(0);
}

t.test("properties", async (t) => {
  t.ok(cuda.is_available());
  t.same(cuda.unavailable_reasons(), []);
  const { name, total_memory, major } = cuda.get_device_properties(device);
  t.comment(`${name}, compute capability ${cuda.get_device_capability(device).join(".")}`);
  t.ok(name.length > 0 && total_memory > 0 && major >= 5);
  t.throws(() => cuda.get_device_properties(63), CudaUnavailableError);
});

t.test("the current device", async (t) => {
  t.equal(torch.zeros([1], { device: "cuda" }).device, `cuda:${cuda.current_device()}`);
  t.throws(() => cuda.set_device(63), CudaUnavailableError);
  const last = cuda.device_count() - 1;
  const before = cuda.current_device();
  cuda.set_device(last);
  t.equal(cuda.current_device(), last);
  t.equal(torch.zeros([1]).cuda().device, `cuda:${last}`);
  cuda.set_device(before);
});

t.test("streams and events order work", async (t) => {
  const side = new cuda.Stream({ device });
  const before = cuda.current_stream(device);
  const x = torch.randn([2048, 2048], { device });
  side.wait_stream(before);
  const y = cuda.stream(side, () => {
    t.equal(cuda.current_stream(device).stream_id, side.stream_id);
    return x.matmul(x);
  });
  cuda.record_stream(x, side);
  t.equal(cuda.current_stream(device).stream_id, before.stream_id, "as before afterwards");
  before.wait_stream(side);
  near(t, y, x.matmul(x), "one result on both streams");
  side.synchronize();
  t.equal(side.query(), true);
  t.throws(() => cuda.stream(side, async () => 1), /promise/);
  t.equal(cuda.current_stream(device).stream_id, before.stream_id, "also after an error");
});

t.test("events measure time", async (t) => {
  const [start, end] = [new cuda.Event({ enable_timing: true }), new cuda.Event({ enable_timing: true })];
  start.record();
  let x = torch.randn([1024, 1024], { device });
  for (let i = 0; i < 20; i++) x = x.matmul(x).tanh();
  end.record();
  end.synchronize();
  t.equal(end.query(), true);
  t.ok(start.elapsed_time(end) > 0);
});

t.test("seeds repeat, states come back, and generators are apart", async (t) => {
  torch.manual_seed(7);
  const first = torch.rand([1000], { device });
  const state = cuda.get_rng_state(device);
  const second = torch.rand([1000], { device });
  torch.manual_seed(7);
  t.ok(torch.rand([1000], { device }).equal(first), "manual_seed");
  cuda.set_rng_state(state, device);
  t.ok(torch.rand([1000], { device }).equal(second), "set_rng_state");
  const own = () => torch.randn([1000], { device, generator: new torch.Generator(device).manual_seed(3) });
  t.ok(own().equal(own()), "a generator of its own");
  t.ok(own().std().item() > 0.8);
  const probabilities = torch.tensor([0.1, 0, 0.9], { device });
  const drawn = torch.multinomial(probabilities, 200, { replacement: true });
  t.equal(drawn.eq(1).any().item(), false, "multinomial draws nothing impossible");
});

t.test("models load onto the device, and generate as on the CPU", async (t) => {
  for (const device_map of [device, "cuda", "auto"]) {
    const model = await AutoModelForCausalLM.from_pretrained(fixture("demo-llama"), { device_map });
    t.match(model.device, /^cuda/, device_map);
    for (const parameter of model.parameters())
      if (!parameter.is_cuda) t.fail("a parameter stayed on the CPU");
    model.dispose();
  }
  const model = await AutoModelForCausalLM.from_pretrained(fixture("demo-llama"));
  const input_ids = torch.tensor([[1, 5, 9, 12]]);
  const options = { max_new_tokens: 12, do_sample: false };
  const expected = ((await model.generate({ input_ids }, options)) as torch.Tensor).tolist();
  model.to(device);
  const there = (await model.generate({ input_ids: input_ids.to(device) }, options)) as torch.Tensor;
  t.same(there.tolist(), expected);
  const ids: number[] = [];
  for await (const id of model.stream({ input_ids: input_ids.to(device) }, options)) ids.push(Number(id));
  t.ok(ids.length > 0);
});

t.test("worker threads use the device side by side, and tensors cross without a copy", async (t) => {
  const program = `
    import { parentPort as port, workerData } from "node:worker_threads";
    import { torch } from ${JSON.stringify(packageUrl)};
    const shared = torch.from_shared(workerData.token);
    let x = torch.full([256, 256], workerData.value, { device: shared.device });
    for (let i = 0; i < 50; i++) x = x.matmul(shared).div(256);
    shared.select(0, workerData.row).fill_(2);
    torch.cuda.synchronize();
    port.postMessage(x.mean().item());`;
  const shared = torch.ones([256, 256], { device });
  const results = await Promise.all(
    [1, 2, 3].map((value) => {
      const url = new URL(`data:text/javascript,${encodeURIComponent(program)}`);
      const worker = new Worker(url, { workerData: { token: shared.share(), value, row: 0 }, execArgv: [] });
      return new Promise((resolve, reject) => {
        worker.once("message", resolve);
        worker.once("error", reject);
      });
    }),
  );
  t.equal(results.length, 3);
  t.equal(shared.select(0, 0).sum().item(), 512, "what a worker wrote is seen");
});
