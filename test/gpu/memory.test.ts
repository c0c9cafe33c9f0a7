// Device memory: what the allocator tells, running out of it, and what is left when tensors are gone.
import t from "tap";
import { AutoModelForCausalLM, nn, OutOfMemoryError, optim, type Tensor, torch } from "torchformers";
import { device, onCuda } from "../support/device.js";
import { fixture } from "../support/fixtures.js";
import { settle, soak } from "../support/memory.js";
import { runProgram } from "../support/program.js";

const MB = 2 ** 20;
const { cuda } = torch;
const held = (): number => {
  settle();
  cuda.synchronize(device);
  return cuda.memory_allocated(device);
};

if (!onCuda) {
  t.pass("device memory", { skip: "needs a CUDA device" });
  process.exit(0);
}

t.test("statistics follow what is made and freed", async (t) => {
  const before = held();
  cuda.reset_peak_memory_stats(device);
  const x = torch.empty([MB], { device });
  t.equal(cuda.memory_allocated(device) - before, 4 * MB);
  t.ok(cuda.memory_reserved(device) >= cuda.memory_allocated(device));
  x.dispose();
  t.equal(cuda.memory_allocated(device), before);
  t.equal(cuda.max_memory_allocated(device) - before, 4 * MB, "the peak stays");
  cuda.reset_peak_memory_stats(device);
  t.equal(cuda.max_memory_allocated(device), before, "until it is reset");
  const stats = cuda.memory_stats(device);
  t.equal(stats["allocated_bytes.all.current"], before);
  t.ok((stats["num_device_alloc"] as number) > 0);
  const [free, total] = cuda.mem_get_info(device);
  t.ok(free > 0 && free <= total);
});

t.test("empty_cache gives unused memory back to the driver", async (t) => {
  torch.empty([64 * MB], { device }).dispose();
  const before = cuda.memory_reserved(device);
  cuda.empty_cache();
  t.ok(cuda.memory_reserved(device) <= before - 256 * MB);
});

t.test("what is garbage is found when memory runs out", async (t) => {
  const [free] = cuda.mem_get_info(device);
  const before = held();
  const elements = Math.floor(free / 4 / 5);
  // Six tensors of a fifth of what is free: the sixth fits only when earlier ones are swept.
  for (let i = 0; i < 12; i++) torch.empty([elements], { device });
  t.pass("twelve tensors went through the room of five");
  t.equal(held(), before);
});

t.test("more than there is: a typed error, and everything works on", async (t) => {
  const before = held();
  const [, total] = cuda.mem_get_info(device);
  for (let i = 0; i < 3; i++)
    t.throws(() => torch.empty([2 * total], { device, dtype: "uint8" }), OutOfMemoryError);
  t.throws(
    () =>
      torch
        .ones([1, 2 ** 20], { device })
        .expand(2 ** 21, 2 ** 20)
        .mul(2),
    OutOfMemoryError,
    "in an operator",
  );
  t.equal(torch.ones([8], { device }).sum().item(), 8);
  t.equal(held(), before);
});

t.test("live tensors that fill the device: the error leaves them as they were", async (t) => {
  const kept: Tensor[] = [];
  const [free] = cuda.mem_get_info(device);
  const elements = Math.floor(free / 4 / 4);
  t.throws(() => {
    for (let i = 0; i < 8; i++) kept.push(torch.full([elements], i, { device }));
  }, OutOfMemoryError);
  for (const [i, x] of kept.entries()) t.equal(x.select(0, elements - 1).item(), i);
  for (const x of kept) x.dispose();
  cuda.empty_cache();
});

t.test("a limit for the process", async (t) => {
  const { stdout, status } = await runProgram(
    `import { torch, OutOfMemoryError } from "torchformers";
    torch.cuda.set_per_process_memory_fraction(0.05);
    const { total_memory } = torch.cuda.get_device_properties();
    let found = "nothing was thrown";
    try { torch.empty([Math.floor(total_memory * 0.06)], { device: "cuda", dtype: "uint8" }); } catch (error) { found = error.code; }
    const small = torch.ones([10], { device: "cuda" }).sum().item();
    let late = "nothing was thrown";
    try { torch.cuda.set_per_process_memory_fraction(0.5); } catch (error) { late = error.code; }
    console.log(found, small, late);`,
    t.testdir(),
  );
  t.equal(status, 0);
  t.equal(stdout.trim(), "ERR_OUT_OF_MEMORY 10 ERR_INVALID_ARGUMENT");
});

t.test("loops leave nothing on the device", async (t) => {
  const rounds = soak ? 5000 : 200;
  const model = new nn.Sequential(new nn.Linear(64, 256), new nn.ReLU(), new nn.Linear(256, 1)).to(device);
  const optimizer = new optim.AdamW(model.parameters());
  const step = () => {
    optimizer.zero_grad();
    const x = torch.randn([32, 64], { device });
    model.forward(x).pow(2).mean().backward();
    optimizer.step();
  };
  for (let i = 0; i < 20; i++) step();
  const before = held();
  for (let i = 0; i < rounds; i++) step();
  t.equal(held(), before);
});

t.test("generating, and loading and disposing of models, leave nothing on the device", async (t) => {
  const load = () => AutoModelForCausalLM.from_pretrained(fixture("demo-llama"), { device_map: device });
  const input_ids = torch.tensor([[1, 2, 3]], { device });
  const model = await load();
  const generate = () => model.generate({ input_ids }, { max_new_tokens: 8, do_sample: false });
  for (let i = 0; i < 3; i++) await generate();
  const before = held();
  for (let i = 0; i < (soak ? 200 : 10); i++) await generate();
  t.equal(held(), before, "generate");
  const empty = held();
  for (let i = 0; i < 3; i++) (await load()).dispose();
  t.equal(held(), empty, "load and dispose");
});
