// Threads and processes that end while a generation is under way.
import { Worker } from "node:worker_threads";
import t from "tap";
import { fixture } from "../support/fixtures.js";
import { live_tensors, soak } from "../support/memory.js";
import { packageUrl, runProgram } from "../support/program.js";

const head = `
  import { AutoModelForCausalLM, torch } from ${JSON.stringify(packageUrl)};
  process.env.TORCHFORMERS_LOG = "silent";
  const model = await AutoModelForCausalLM.from_pretrained(${JSON.stringify(fixture("models/llama"))});
  const options = { max_new_tokens: 100000, eos_token_id: null };`;

function worker(body: string): Worker {
  const program = `import { parentPort as port } from "node:worker_threads";${head}${body}`;
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

t.test("two threads at once give what each gives alone", async (t) => {
  const body = `port.postMessage((await model.generate([5, 6, 7], { ...options, max_new_tokens: 30, seed: 1, do_sample: true })).tolist());`;
  const [alone] = await Promise.all([worker(body)].map(message));
  t.same(await Promise.all([worker(body), worker(body)].map(message)), [alone, alone]);
});

t.test("a thread ends while it generates", async (t) => {
  const ways = {
    generate: `model.generate([5, 6, 7], options); port.postMessage("running");`,
    stream: `for await (const { ids } of model.stream([5, 6, 7], options)) port.postMessage("running");`,
    "with a processor": `model.generate([5, 6, 7], { ...options, logits_processor: [(ids, scores) => (port.postMessage("running"), scores)] });`,
  };
  for (const [name, body] of Object.entries(ways)) {
    for (let i = 0; i < 2; i++) {
      const it = worker(body);
      await message(it);
      await new Promise((resolve) => setTimeout(resolve, 10 * i));
      t.equal(await it.terminate(), 1, name);
    }
  }
});

t.test("a process ends while it generates", async (t) => {
  const exit = (end: string) =>
    runProgram(
      `${head}
      const work = model.generate([5, 6, 7], options);
      work.catch(() => {});
      setTimeout(() => { ${end} }, 60);`,
      t.testdir(),
    );
  t.match(await exit("process.exit(3);"), { status: 3, signal: null });
  t.match(await exit(`throw new Error("uncaught");`), { status: 1, signal: null });
  t.match(await exit(`process.kill(process.pid, "SIGINT");`), { status: null, signal: "SIGINT" });
});

t.test("a pending promise keeps the process, a stream that is left does not", async (t) => {
  const done = await runProgram(
    `${head}
    model.generate([5, 6, 7], { ...options, max_new_tokens: 60 }).then((ids) => console.log("done", ids.shape.join()));
    const steps = model.stream([5, 6, 7], options);
    await steps.next();`,
    t.testdir(),
  );
  t.equal(done.status, 0);
  t.match(done.stdout, "done 1,63");
});

t.test("random endings", { timeout: 3_600_000 }, async (t) => {
  const count = soak ? 5_000 / 4 : 15;
  const body = `
    const random = (n) => Math.floor(Math.random() * n);
    const prompt = () => Array.from({ length: 1 + random(40) }, () => 3 + random(50));
    await model.generate(prompt(), { ...options, max_new_tokens: 2 });
    const ways = [
      async (o) => (await model.generate(prompt(), { ...o, max_new_tokens: 1 + random(30) })).dispose(),
      async (o) => {
        const signal = AbortSignal.timeout(random(20));
        try { (await model.generate(prompt(), { ...o, signal })).dispose(); } catch (error) { if (error !== signal.reason) throw error; }
      },
      async (o) => {
        let left = 1 + random(50);
        for await (const { ids } of model.stream(prompt(), o)) { ids.dispose(); if (--left === 0) break; }
      },
      async (o) => {
        let left = 1 + random(20);
        const input_ids = torch.tensor([prompt()]);
        // The steps are the streamer's own; the prompt is ours.
        const put = (ids) => {
          if (ids !== input_ids) ids.dispose();
          if (--left === 0) throw new RangeError("mine");
        };
        try {
          (await model.generate({ input_ids }, { ...o, streamer: { put, end() {} } })).dispose();
        } catch (error) {
          if (!(error instanceof RangeError)) throw error;
        } finally {
          input_ids.dispose();
        }
      },
    ];
    const before = torch.memory_stats().live_tensors;
    for (let i = 0; i < ${count}; i += 3) {
      const some = () => ways[random(ways.length)]({ ...options, do_sample: random(2) === 1, seed: i });
      await Promise.all([some(), some(), some()]);
    }
    port.postMessage(torch.memory_stats().live_tensors - before);`;
  const workers = Array.from({ length: soak ? 4 : 2 }, () => worker(body));
  const before = live_tensors();
  for (const leaked of await Promise.all(workers.map(message)))
    t.ok(Number(leaked) <= 0, `${leaked} tensors`);
  t.equal(live_tensors(), before);
});
