// Worker threads load the addon for themselves: they share what is the process's, hand tensors over, and may be ended at
// any moment. Other native packages live in the same process.
import { Worker } from "node:worker_threads";
import t from "tap";
import { InvalidArgumentError, torch } from "torchformers";
import { fixture } from "../support/fixtures.js";
import { packageUrl, runProgram } from "../support/program.js";

/** A worker that runs `body`, with `torch`, `safetensors` and `port` at hand. */
function worker(body: string, workerData: unknown = undefined): Worker {
  const program = `
    import { parentPort as port, workerData } from "node:worker_threads";
    import { torch, safetensors } from ${JSON.stringify(packageUrl)};
    ${body}`;
  return new Worker(new URL(`data:text/javascript,${encodeURIComponent(program)}`), {
    workerData,
    execArgv: [],
    env: process.env,
  });
}

const message = (from: Worker): Promise<unknown> =>
  new Promise((resolve, reject) => {
    from.once("message", resolve);
    from.once("error", reject);
  });
const end = (of: Worker): Promise<number> => new Promise((resolve) => of.once("exit", resolve));
const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

t.test("a tensor goes to a worker by token: the same memory, no history, one claim", async (t) => {
  const x = torch.ones([4]).requires_grad_();
  const token = x.share();
  const other = worker(
    `
    const x = torch.from_shared(workerData);
    port.postMessage({ values: x.tolist(), requires_grad: x.requires_grad, id: x.untyped_storage().id });
    x.mul_(3);
    port.once("message", () => { x.add_(1); port.postMessage("added"); });
    `,
    token,
  );
  t.same(await message(other), { values: [1, 1, 1, 1], requires_grad: false, id: x.untyped_storage().id });
  other.postMessage("go");
  t.equal(await message(other), "added");
  t.same(x.tolist(), [4, 4, 4, 4], "written there, seen here");
  t.throws(() => torch.from_shared(token), InvalidArgumentError);
  t.throws(() => torch.from_shared(123_456_789), InvalidArgumentError);
  await end(other);
  t.same(x.tolist(), [4, 4, 4, 4]);
});

t.test("a worker's result outlives the worker", async (t) => {
  const other = worker(`port.postMessage(torch.arange(5).mul(2).share());`);
  const ended = end(other); // Node delivers the last message and the exit in one turn
  const token = (await message(other)) as number;
  await ended;
  t.same(torch.from_shared(token).tolist(), [0, 2, 4, 6, 8]);
});

t.test("modes, scopes and live tensors are each thread's own", async (t) => {
  const mine = torch.memory_stats().live_tensors;
  const other = worker(`
    torch.set_grad_enabled(false);
    const x = torch.ones([3]);
    port.postMessage([torch.is_grad_enabled(), torch.memory_stats().live_tensors]);
    setInterval(() => {}, 1000);`);
  t.same(await message(other), [false, 1]);
  t.equal(torch.is_grad_enabled(), true);
  t.equal(torch.memory_stats().live_tensors, mine);
  await other.terminate();
  t.equal(torch.ones([3]).sum().item(), 3);
});

t.test("terminate() in the middle of work: the main thread goes on", async (t) => {
  const bodies: Record<string, string> = {
    "small operations": "const x = torch.ones([64, 64]); port.postMessage(0); for (;;) x.matmul(x);",
    "operations on the executor":
      "const x = torch.ones([700, 700]); port.postMessage(0); for (;;) x.matmul(x);",
    training: `
      const w = torch.ones([300, 300]).requires_grad_();
      port.postMessage(0);
      for (;;) { w.matmul(w).mean().backward(); w.grad = null; }`,
    "training with hooks": `
      const w = torch.ones([300, 300]).requires_grad_();
      port.postMessage(0);
      for (;;) { const y = w.matmul(w); y.register_hook((g) => g.mul(2)); y.mean().backward(); w.grad = null; }`,
    "a file being written": `
      port.postMessage(0);
      for (;;) await safetensors.save_file({ x: torch.ones([1 << 20]) }, workerData + "/x.safetensors");`,
  };
  const directory = t.testdir({});
  for (const [name, body] of Object.entries(bodies)) {
    for (let round = 0; round < 3; round++) {
      const other = worker(body, directory);
      await message(other);
      await pause(10 + 30 * Math.random());
      await other.terminate();
      t.equal(
        torch
          .ones([500, 500])
          .matmul(torch.ones([500, 500]))
          .min()
          .item(),
        500,
        name,
      );
    }
  }
});

t.test("the addon in workers only, one after the other and at once", async (t) => {
  const program = `
    import { Worker } from "node:worker_threads";
    const source = ${JSON.stringify(`
      import { torch } from ${JSON.stringify(packageUrl)};
      import { parentPort } from "node:worker_threads";
      const w = torch.ones([200, 200]).requires_grad_();
      w.matmul(w).sum().backward();
      parentPort.postMessage(w.grad.sum().item());`)};
    const run = () => new Promise((resolve, reject) => {
      const worker = new Worker(new URL("data:text/javascript," + encodeURIComponent(source)));
      let sum;
      worker.on("message", (value) => { sum = value; });
      worker.on("error", reject);
      worker.on("exit", () => resolve(sum));
    });
    const sums = [await run(), await run(), ...(await Promise.all([run(), run(), run()]))];
    await new Promise((resolve) => setTimeout(resolve, 100));
    process.stdout.write(JSON.stringify(sums));`;
  const { stdout, status, signal } = await runProgram(program, t.testdir({}));
  t.same([status, signal], [0, null]);
  t.same(JSON.parse(stdout), Array(5).fill(200 * 200 * 400));
});

t.test("a process ends by itself, with tensors, an open file and an idle executor", async (t) => {
  const program = `
    import { torch } from "torchformers";
    globalThis.x = torch.ones([1000, 1000]).requires_grad_();
    x.matmul(x).sum().backward();
    process.exitCode = 3;`;
  t.same(await runProgram(program, t.testdir({})), { stdout: "", status: 3, signal: null });
});

t.test("sharp and tokenizers in the same process, loaded before and after", async (t) => {
  const steps = {
    torch: `
      const { torch } = await import("torchformers");
      const w = torch.ones([400, 400]).requires_grad_();
      w.matmul(w).sum().backward();
      process.stdout.write("t" + w.grad.max().item() + " ");`,
    sharp: `
      const sharp = (await import(${JSON.stringify(import.meta.resolve("sharp"))})).default;
      const png = await sharp({ create: { width: 64, height: 64, channels: 3, background: "red" } }).resize(8).png().toBuffer();
      process.stdout.write("s" + (await sharp(png).metadata()).width + " ");`,
    tokenizers: `
      const { Tokenizer } = await import(${JSON.stringify(import.meta.resolve("tokenizers"))});
      const ids = (await Tokenizer.fromFile(${JSON.stringify(fixture("demo-llama/tokenizer.json"))}).encode("Once upon")).getIds();
      process.stdout.write("k" + (ids.length > 0) + " ");`,
  };
  const say = { torch: "t800 ", sharp: "s8 ", tokenizers: "ktrue " };
  const orders = [
    ["torch", "sharp", "tokenizers", "torch", "sharp"],
    ["sharp", "tokenizers", "torch", "sharp"],
    ["tokenizers", "torch", "sharp", "torch"],
  ] as const;
  for (const order of orders) {
    const program = order.map((name) => `{${steps[name]}}`).join("\n");
    const ended = await runProgram(program, t.testdir({}));
    t.same(
      ended,
      { stdout: order.map((name) => say[name]).join(""), status: 0, signal: null },
      order.join(", "),
    );
  }
});
