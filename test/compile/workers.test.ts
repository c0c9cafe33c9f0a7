// Programs in several threads at once, and threads that end while theirs run.
import { Worker } from "node:worker_threads";
import t from "tap";
import { torch } from "torchformers";
import { packageUrl, runProgram } from "../support/program.js";

const chain = `
  const chain = (x, steps) => {
    let y = x;
    for (let i = 0; i < steps; i++) y = y.matmul(x).tanh();
    return y;
  };`;

function worker(body: string): Worker {
  const program = `
    import { parentPort as port } from "node:worker_threads";
    import { torch } from ${JSON.stringify(packageUrl)};
    ${chain}
    ${body}`;
  return new Worker(new URL(`data:text/javascript,${encodeURIComponent(program)}`), {
    execArgv: [],
    env: process.env,
  });
}

const message = (from: Worker): Promise<unknown> =>
  new Promise((resolve, reject) => {
    from.once("message", resolve);
    from.once("error", reject);
  });

t.test("several threads take turns", async (t) => {
  const body = `
    const x = torch.eye(64);
    const y = await torch.compile(chain)(x, 100);
    port.postMessage(y.equal(chain(x, 100)));`;
  const results = await Promise.all([worker(body), worker(body), worker(body)].map(message));
  t.same(results, [true, true, true]);
});

t.test("a thread ends while its program runs", async (t) => {
  for (let i = 0; i < 4; i++) {
    const it = worker(`
      const data = new Float32Array(200 * 200).fill(0.001);
      const x = torch.from_buffer(data, { dtype: "float32" }).view(200, 200);
      torch.compile(chain)(x, 4000);
      port.postMessage("running");`);
    await message(it);
    await new Promise((resolve) => setTimeout(resolve, 5 * i));
    t.equal(await it.terminate(), 1);
  }
  const y = await torch.compile((x: torch.Tensor) => x.add(1))(torch.ones(2));
  t.same(y.tolist(), [2, 2], "the executor goes on");
});

t.test("a process ends while its program runs", async (t) => {
  const program = (end: string) => `
    import { torch } from ${JSON.stringify(packageUrl)};
    ${chain}
    const run = torch.compile(chain)(torch.eye(200), 4000);
    ${end}`;
  const exit = await runProgram(program("setTimeout(() => process.exit(3), 20);"), t.testdir());
  t.equal(exit.status, 3);
  const done = await runProgram(
    `
    import { torch } from ${JSON.stringify(packageUrl)};
    ${chain}
    torch.compile(chain)(torch.eye(64), 50).then((y) => console.log("done", y.shape.join()));`,
    t.testdir(),
  );
  t.equal(done.status, 0);
  t.match(done.stdout, "done 64,64", "a pending promise keeps the process");
});
