// One team of threads however many models and workers compute, a limit of memory, and processes that end in the middle.
import { readdirSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { Worker } from "node:worker_threads";
import t from "tap";
import { InvalidArgumentError, nn, OutOfMemoryError, optim, torch } from "torchformers";
import { live_tensors, settle } from "../support/memory.js";
import { packageUrl, runProgram, startProgram } from "../support/program.js";

const THREADS = 3;
torch.set_num_threads(THREADS);

/** The names of this process's threads, and how many have each. */
function threads(): Map<string, number> {
  const counts = new Map<string, number>();
  for (const id of readdirSync("/proc/self/task")) {
    const name = readFileSync(`/proc/self/task/${id}/comm`, "utf8").trim();
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return counts;
}

const program = (body: string) => `
  import { torch, nn, optim } from ${JSON.stringify(packageUrl)};
  const chain = (x, steps) => {
    let y = x;
    for (let i = 0; i < steps; i++) y = y.matmul(x).tanh();
    return y;
  };
  ${body}`;

t.test("one owner of the OpenMP team", async (t) => {
  const big = torch.randn(400, 400);
  await readFile(new URL(import.meta.url)); // libuv's own threads
  big.matmul(big);
  await torch.compile((x: torch.Tensor) => x.matmul(x))(big);
  const before = threads();
  // libgomp's threads have the name of the thread that made them.
  t.equal(before.get("tf-executor"), THREADS, "the executor and its team");

  const source = program(`
    import { parentPort } from "node:worker_threads";
    const net = new nn.Sequential(new nn.Linear(400, 400), new nn.Dropout(0.1), new nn.Linear(400, 400));
    const optimizer = new optim.AdamW(net.parameters());
    const step = torch.compile((x) => {
      optimizer.zero_grad();
      const loss = net.forward(x).pow(2).mean();
      loss.backward();
      optimizer.step();
      return loss;
    });
    const x = torch.randn(300, 400);
    for (let i = 0; i < 5; i++) {
      await step(x);
      net.forward(x).pow(2).mean().backward(); // eagerly, handed over
      x.matmul(x.t());
    }
    parentPort.postMessage("trained");
    await new Promise((resolve) => parentPort.once("message", resolve));`);
  const workers = [0, 1, 2].map(
    () =>
      new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`), {
        execArgv: [],
        env: process.env,
      }),
  );
  const models = [0, 1].map(() => {
    const layer = new nn.Linear(400, 400);
    return torch.compile((x: torch.Tensor) => layer.forward(x).relu().matmul(x));
  });
  const trained = workers.map(
    (worker) =>
      new Promise((resolve, reject) => {
        worker.once("message", resolve);
        worker.once("error", reject);
      }),
  );
  for (let i = 0; i < 5; i++) await Promise.all(models.map((model) => model(big)));
  await Promise.all(trained);
  const during = threads();
  t.equal(during.get("tf-executor"), THREADS, "no second team beside it");
  await Promise.all(workers.map((worker) => worker.terminate()));
  const count = (map: Map<string, number>) => [...map.values()].reduce((sum, n) => sum + n, 0);
  t.equal(count(threads()), count(before), "and no thread is left of the workers");
});

t.test("the team is whole after a kernel of ours", async (t) => {
  // In a process of its own: what a thread's first parallel loop asks libtorch is what counts.
  const { stdout } = await runProgram(
    program(`
      import { readdirSync, readFileSync } from "node:fs";
      torch.set_num_threads(${THREADS});
      const layer = new nn.Linear(256, 256, { bias: false }).to({ dtype: torch.bfloat16 });
      await torch.compile((x) => torch.no_grad(() => layer.forward(x)))(torch.randn(1, 256, { dtype: torch.bfloat16 }));
      const big = torch.randn(400, 400);
      big.matmul(big);
      const names = readdirSync("/proc/self/task").map((id) => readFileSync("/proc/self/task/" + id + "/comm", "utf8").trim());
      console.log(names.filter((name) => name === "tf-executor").length);`),
    t.testdir(),
  );
  t.equal(stdout.trim(), String(THREADS));
});

t.test("a limit of memory", async (t) => {
  t.throws(() => torch.set_memory_limit(-1), InvalidArgumentError);
  t.throws(() => torch.set_memory_limit(0.5), InvalidArgumentError);
  const x = torch.randn(256, 256);
  const net = new nn.Sequential(new nn.Linear(256, 256), new nn.Linear(256, 256));
  const optimizer = new optim.SGD(net.parameters(), { lr: 0.1 });
  const step = torch.compile((x: torch.Tensor, copies: number) => {
    optimizer.zero_grad();
    const loss = torch
      .cat(new Array(copies).fill(net.forward(x)))
      .pow(2)
      .mean();
    loss.backward();
    optimizer.step();
    return loss;
  });
  for (const copies of [1, 200]) (await step(x, copies)).dispose();
  optimizer.zero_grad(); // a step that fails leaves none
  settle();
  const tensors = live_tensors();
  const bytes = torch.memory_in_use();
  t.equal(torch.set_memory_limit(bytes + 8 * 2 ** 20), null);
  t.throws(() => torch.zeros(2 ** 22), OutOfMemoryError, "in eager mode");
  await t.rejects(step(x, 200), OutOfMemoryError, "in a Program");
  settle();
  t.equal(live_tensors(), tensors, "nothing is left");
  t.equal(torch.memory_in_use(), bytes);
  t.ok(
    torch
      .zeros(2 ** 18)
      .sum()
      .item() === 0,
    "what fits is made",
  );
  t.ok((await step(x, 1)).isfinite().item(), "and runs");
  t.equal(torch.set_memory_limit(null), bytes + 8 * 2 ** 20);
  t.ok((await step(x, 200)).isfinite().item());
});

t.test("a process ends while an operator is under way", async (t) => {
  // Some seconds of one operator: longer than anybody waits.
  const long = `
    torch.set_num_threads(1);
    const run = torch.compile((x) => x.matmul(x).matmul(x))(torch.eye(5000));
    run.catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 300));`;
  const short = `
    const run = torch.compile(chain)(torch.eye(300), 2500);
    run.catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 50));`;
  const training = `
    const net = new nn.Linear(300, 300);
    const step = torch.compile((x) => { for (let i = 0; i < 100; i++) net.forward(x).pow(2).mean().backward(); });
    const run = step(torch.randn(300, 300));
    run.catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 50));`;
  const ends: [string, string, number][] = [
    ["process.exit", `process.on("exit", () => console.log("bye")); process.exit(7);`, 7],
    [
      "process.exitCode and an exception",
      `process.on("exit", () => console.log("bye")); setTimeout(() => { throw new Error("on purpose"); }); await run;`,
      1,
    ],
    [
      "an exception in a worker",
      `
      process.on("exit", () => console.log("bye"));
      const { Worker } = await import("node:worker_threads");
      new Worker("throw new Error('on purpose')", { eval: true }).once("error", () => process.exit(5));
      await run;`,
      5,
    ],
  ];
  for (const [kind, body] of [
    ["many operators", short],
    ["a long operator", long],
    ["a backward", training],
  ] as const) {
    for (const [name, end, status] of ends) {
      if (kind === "a long operator" && name !== "process.exit") continue;
      const ended = await runProgram(program(`${body}\n${end}`), t.testdir(), "exec 2>/dev/null; ");
      t.equal(ended.signal, null, `${kind}, ${name}: no signal`);
      t.equal(ended.status, status, `${kind}, ${name}: the status`);
      t.match(ended.stdout, "bye", `${kind}, ${name}: what was printed`);
    }
  }
});

t.test("signals", async (t) => {
  const body = program(`
    const run = torch.compile(chain)(torch.eye(300), 2500);
    run.catch(() => {});
    HANDLER
    console.log("running");
    await run;`);
  const ended = async (handler: string) => {
    const child = startProgram(body.replace("HANDLER", handler), t.testdir());
    await new Promise((resolve) => child.stdout?.once("data", resolve));
    child.kill("SIGINT");
    return new Promise<unknown>((resolve) =>
      child.once("close", (status, signal) => resolve({ status, signal })),
    );
  };
  t.same(await ended(""), { status: null, signal: "SIGINT" }, "Ctrl-C");
  t.same(await ended(`process.on("SIGINT", () => process.exit(130));`), { status: 130, signal: null });
});

t.test("a worker ends while it trains", async (t) => {
  for (let i = 0; i < 3; i++) {
    const source = program(`
      import { parentPort } from "node:worker_threads";
      const net = new nn.Linear(200, 200);
      const step = torch.compile((x) => {
        for (let i = 0; i < 100; i++) net.forward(x).pow(2).mean().backward();
        return torch.rand(2);
      });
      step(torch.randn(200, 200));
      step(torch.randn(200, 200));
      parentPort.postMessage("running");`);
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`), {
      execArgv: [],
      env: process.env,
    });
    await new Promise((resolve) => worker.once("message", resolve));
    await new Promise((resolve) => setTimeout(resolve, 10 * i));
    t.equal(await worker.terminate(), 1);
  }
  t.same(
    (await torch.compile((x: torch.Tensor) => x.add(1))(torch.ones(2))).tolist(),
    [2, 2],
    "the executor goes on",
  );
});
