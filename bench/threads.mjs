// What two settings of threads are worth: libgomp's spin (the loader shortens it), and from which size on an operator is handed
// to the executor's team. Each measurement is a process of its own, in turn.
import { spawn, spawnSync } from "node:child_process";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { describeMachine, median, table } from "./support.mjs";

const self = fileURLToPath(import.meta.url);
const folder = fileURLToPath(new URL("../test/fixtures/demo-llama", import.meta.url));
const ROUNDS = Number(process.env.ROUNDS ?? 3);
/** What libgomp takes when nobody says otherwise, about 15 ms. */
const USUAL = "300000";

/** Milliseconds per token of the demo model, eagerly. */
async function tokens() {
  const { AutoModelForCausalLM, torch } = await import("torchformers");
  const model = await AutoModelForCausalLM.from_pretrained(folder);
  const cache = { past_key_values: undefined };
  const step = () =>
    torch.no_grad(() => {
      const input_ids = torch.tensor([[5]]);
      cache.past_key_values = model.forward({ input_ids, ...cache }).past_key_values;
    });
  for (let i = 0; i < 10; i++) step();
  const start = performance.now();
  for (let i = 0; i < 50; i++) step();
  return (performance.now() - start) / 50;
}

/** Microseconds of an addition, by its size: on one thread in place, and as the library does it. */
async function sizes() {
  const { torch } = await import("torchformers");
  const threads = torch.get_num_threads();
  const time = (size, count) => {
    torch.set_num_threads(count);
    const [x, y] = [torch.ones([size]), torch.ones([size])];
    const out = [];
    for (let round = 0; round < 9; round++) {
      const start = performance.now();
      for (let i = 0; i < 50; i++) x.add(y).dispose();
      out.push(((performance.now() - start) / 50) * 1000);
    }
    return median(out);
  };
  return [32, 64, 128, 256, 512, 1024, 4096].map((k) => [k, time(k * 1024, 1), time(k * 1024, threads)]);
}

if (process.argv[2] === "child") {
  console.log(JSON.stringify(await { tokens, sizes }[process.argv[3]]()));
  process.exit();
}

function measure(what, env = {}) {
  const { status, stdout } = spawnSync(process.execPath, [self, "child", what], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, ...env },
  });
  if (status !== 0) process.exit(1);
  return JSON.parse(stdout);
}

/** Runs `body` while every core has other work. */
function beside(body) {
  const others = cpus().map(() => spawn(process.execPath, ["-e", "for (;;) ;"], { stdio: "ignore" }));
  try {
    return body();
  } finally {
    for (const other of others) other.kill("SIGKILL");
  }
}

describeMachine();
const cases = [
  ["quiet", (body) => body()],
  ["beside busy cores", beside],
];
const rows = cases.map(([name, within]) => {
  const [short, usual] = [[], []];
  for (let round = 0; round < ROUNDS; round++) {
    within(() => {
      short.push(measure("tokens"));
      usual.push(measure("tokens", { GOMP_SPINCOUNT: USUAL }));
    });
  }
  return [name, median(short), median(usual), median(short) / median(usual)];
});
console.log("Demo model, ms per token");
table(["", "short spin", "libgomp's own", "ratio"], rows);

console.log("\nAddition of float32, µs; the library hands over from 256 Ki elements on");
table(
  ["Ki elements", "one thread", "as it is", "ratio"],
  measure("sizes").map(([k, one, all]) => [k, one, all, all / one]),
);
