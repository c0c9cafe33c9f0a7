// CUDA where there is no GPU: each way to ask for a device says what is missing, and nothing runs on the CPU instead.
// What needs a GPU is in test/gpu, which `npm run test:gpu` runs.
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import t from "tap";
import { AutoModelForCausalLM, CudaUnavailableError, InvalidArgumentError, nn, torch } from "torchformers";
import { loadReport } from "#lib/addon/loader.js";
import { fixture, root } from "../support/fixtures.js";
import { packageUrl } from "../support/program.js";

const { cuda } = torch;
const without = { skip: cuda.is_available() ? "this machine has a GPU" : false };

/** Runs a file or a module's text with other variables; NODE_OPTIONS has the test runner's hooks. */
function node(args: readonly string[], env: Record<string, string> = {}) {
  const { NODE_OPTIONS: _, NODE_V8_COVERAGE: __, ...rest } = process.env;
  const given = { ...rest, ...env };
  return spawnSync(process.execPath, args, { encoding: "utf8", env: given, timeout: 120_000 });
}
const program = (text: string, env: Record<string, string> = {}) =>
  node(
    [
      "--input-type=module",
      "-e",
      `import * as tf from ${JSON.stringify(packageUrl)}; const { torch } = tf;\n${text}`,
    ],
    env,
  );

t.test("each way to ask for a device throws", without, async (t) => {
  const x = torch.ones([2]);
  const stream = () => new cuda.Stream();
  const ways: Record<string, () => unknown> = {
    "a factory": () => torch.zeros([2], { device: "cuda" }),
    "a factory, by index": () => torch.zeros([2], { device: "cuda:0" }),
    tensor: () => torch.tensor([1], { device: "cuda" }),
    "*_like": () => torch.ones_like(x, { device: "cuda" }),
    to: () => x.to("cuda"),
    "to, by name": () => x.to({ device: "cuda:1" }),
    cuda: () => x.cuda(),
    "cuda, by index": () => x.cuda(0),
    "from the meta device": () => torch.empty([2], { device: "meta" }).to("cuda"),
    "the default device": () => {
      torch.set_default_device("cuda");
      try {
        return torch.zeros([2]);
      } finally {
        torch.set_default_device("cpu");
      }
    },
    "a generator": () => new torch.Generator("cuda"),
    "Module.to": () => new nn.Linear(2, 2).to("cuda"),
    "Module.cuda": () => new nn.Linear(2, 2).cuda(),
    current_device: () => cuda.current_device(),
    set_device: () => cuda.set_device(0),
    synchronize: () => cuda.synchronize(),
    get_device_properties: () => cuda.get_device_properties(),
    get_device_name: () => cuda.get_device_name(0),
    mem_get_info: () => cuda.mem_get_info(),
    reset_peak_memory_stats: () => cuda.reset_peak_memory_stats(),
    set_per_process_memory_fraction: () => cuda.set_per_process_memory_fraction(0.5),
    get_rng_state: () => cuda.get_rng_state(),
    Stream: stream,
    Event: () => new cuda.Event(),
    current_stream: () => cuda.current_stream(),
  };
  for (const [name, way] of Object.entries(ways)) {
    t.throws(way, CudaUnavailableError, name);
    t.throws(way, /cannot be used: .*NVIDIA driver|does not exist/, `${name}: the reason`);
  }
});

t.test("a model does not load onto the CPU instead", without, async (t) => {
  for (const device_map of ["cuda", "cuda:0", { "": "cuda:0" }])
    await t.rejects(
      AutoModelForCausalLM.from_pretrained(fixture("demo-llama"), { device_map }),
      CudaUnavailableError,
    );
  const model = await AutoModelForCausalLM.from_pretrained(fixture("demo-llama"), { device_map: "auto" });
  t.equal(model.device, "cpu", "auto takes what there is");
  t.throws(() => model.to("cuda"), CudaUnavailableError);
  for (const parameter of model.parameters()) if (parameter.device !== "cpu") t.fail("a parameter has moved");
});

t.test("what only asks, answers", without, async (t) => {
  t.equal(cuda.is_available(), false);
  t.equal(cuda.device_count(), 0);
  t.equal(cuda.memory_allocated(), 0);
  t.equal(cuda.max_memory_allocated(), 0);
  t.same(cuda.memory_stats(), {});
  t.equal(cuda.is_bf16_supported(), false);
  cuda.empty_cache();
  cuda.manual_seed(1);
  cuda.manual_seed_all(1);
  t.ok(cuda.unavailable_reasons().every((reason) => reason.length > 0));
});

t.test("wrong devices", async (t) => {
  for (const device of ["gpu", "cpu", "cuda:", "cuda:x", 1.5, Number.NaN])
    t.throws(() => cuda.set_device(device), InvalidArgumentError, String(device));
  t.throws(() => cuda.set_per_process_memory_fraction(2), InvalidArgumentError);
  t.throws(() => cuda.set_per_process_memory_fraction("1" as never), InvalidArgumentError);
});

t.test("CUDA's libraries load without a driver, and the process works and ends", without, async (t) => {
  const has = loadReport().libtorch?.cuda === true;
  const text = `
    import { Worker } from "node:worker_threads";
    const codes = [() => torch.zeros([2], { device: "cuda" }), () => torch.ones([2]).cuda(), () => torch.ones([2]).pin_memory(), () => new torch.cuda.Stream()].map((way) => {
      try { way(); return "nothing"; } catch (error) { return error.code; }
    });
    const x = torch.ones([300, 300]).requires_grad_();
    x.matmul(x).sum().backward();
    const inWorker = await new Promise((resolve, reject) => {
      const body = 'import { parentPort } from "node:worker_threads"; import { torch } from ${JSON.stringify(packageUrl)}; parentPort.postMessage([torch.cuda.device_count(), torch.ones([3]).sum().item()]);';
      const worker = new Worker(new URL("data:text/javascript," + encodeURIComponent(body)));
      worker.once("message", resolve);
      worker.once("error", reject);
    });
    torch.manual_seed(3);
    torch.cuda.empty_cache();
    console.log(JSON.stringify({ codes, count: torch.cuda.device_count(), grad: x.grad.select(0, 0).select(0, 0).item(), inWorker, reasons: torch.cuda.unavailable_reasons() }));`;
  for (const mode of ["load", "off"]) {
    const { status, signal, stdout, stderr } = program(text, { TORCHFORMERS_CUDA: mode });
    t.equal(status, 0, `${mode}: ${signal ?? ""} ${stderr}`);
    const told = JSON.parse(stdout);
    t.same(told.count, 0);
    t.same(told.inWorker, [0, 3]);
    t.equal(told.grad, 600);
    t.same(new Set(told.codes), new Set(["ERR_CUDA_UNAVAILABLE"]), mode);
    t.match(told.reasons[0], /NVIDIA driver/);
    if (mode === "off") t.match(told.reasons.join(), /TORCHFORMERS_CUDA=off/);
    else if (has) t.notMatch(told.reasons.join(), /not loaded|no CUDA part/, "the library itself is there");
    else t.match(told.reasons.join(), /no CUDA part/);
  }
  const { status, stderr } = program("torch.ones([1]);", { TORCHFORMERS_CUDA: "yes" });
  t.equal(status, 1);
  t.match(stderr, /TORCHFORMERS_CUDA is "yes"/);
});

t.test("the command line says why", without, async (t) => {
  const cli = join(root, "dist/cli/main.js");
  const generate = node([cli, "generate", fixture("demo-llama"), "hello", "--device", "cuda", "-n", "2"]);
  t.notOk(generate.status === 0);
  t.match(generate.stderr, /device 'cuda:0' cannot be used: .*NVIDIA driver/);
  t.equal(generate.stdout, "", "and writes nothing");
  const doctor = node([cli, "doctor", "--cuda"]);
  t.equal(doctor.status, 1);
  t.match(doctor.stdout, /✗ CUDA: .*NVIDIA driver/);
});

t.test("npm run test:gpu says what is missing", without, async (t) => {
  const { status, stdout, stderr } = node([join(root, "scripts/test_gpu.mjs"), "--no-prepare"]);
  t.equal(status, 2);
  t.match(stderr, /No GPU can be used on this machine:\n {2}- .*NVIDIA driver/);
  t.match(stderr, /doctor --cuda/);
  t.equal(stdout, "");
});

t.test("the tests for a GPU load, and hold on the CPU", async (t) => {
  const folder = join(root, "build/test/gpu");
  for (const name of readdirSync(folder).filter(
    (name) => name.endsWith(".test.js") && !name.startsWith("goldens"),
  )) {
    const { status, stdout } = node([join(folder, name)], { TORCHFORMERS_TEST_DEVICE: "cpu" });
    t.equal(
      status,
      0,
      `${name}\n${stdout
        .split("\n")
        .filter((line) => /not ok/.test(line))
        .join("\n")}`,
    );
  }
});

t.test("the table of figures has what was measured, and nothing else", async (t) => {
  const { table, insert } = await import(pathToFileURL(join(root, "scripts/results_table.mjs")).href);
  t.equal(table([]), "");
  const rows = [
    { name: "add", ours: 2, theirs: 4, unit: "µs" },
    { name: "alone", ours: 1.23456, unit: "ms" },
    { name: "not measured", unit: "ms" },
  ];
  const lines = table([{ machine: "H200", rows }]).split("\n");
  t.same(lines.slice(2), ["| H200 | add | 2 µs | 4 µs | 0.50 |", "| H200 | alone | 1.23 ms |  |  |"]);
  const text = "a\n<!-- results -->\nold\n<!-- /results -->\nb\n";
  t.equal(insert(text, "new"), "a\n<!-- results -->\nnew\n<!-- /results -->\nb\n");
  t.equal(insert("no markers", "new"), undefined);
});
