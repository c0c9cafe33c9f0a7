// Time of one operator call on small tensors against Python torch: 40 operators, our handle, its weak reference and its
// disposal included. Both sides run on one thread, in turn, in batches of some milliseconds, so that whatever else the
// machine does meets both. DISPOSAL says how our results end: as garbage (the default: collected within the timed loop, as a
// user's loop would), by `dispose`, or in a `tidy` scope of 50 calls.
import { torch } from "torchformers";
import { describeMachine, median, PythonPeer, python, requirePython, table } from "./support.mjs";

const hot = new Set([
  "add",
  "mul",
  "matmul",
  "linear",
  "view",
  "transpose",
  "softmax",
  "cat",
  "silu",
  "embedding",
]);

// name, our expression, Python's. Operands: a, b [8, 8]; c [2, 8, 8]; w [8, 8]; v [8]; i int64 [8]; m bool [8, 8]; q [1, 2, 8, 8].
const trials = [
  ["add", "a.add(b)", "a.add(b)"],
  ["add_scalar", "a.add(1)", "a.add(1)"],
  ["sub", "a.sub(b)", "a.sub(b)"],
  ["mul", "a.mul(b)", "a.mul(b)"],
  ["mul_scalar", "a.mul(2.5)", "a.mul(2.5)"],
  ["div", "a.div(b)", "a.div(b)"],
  ["add_", "a.add_(b)", "a.add_(b)"],
  ["neg", "a.neg()", "a.neg()"],
  ["exp", "a.exp()", "a.exp()"],
  ["sqrt", "p.sqrt()", "p.sqrt()"],
  ["rsqrt", "p.rsqrt()", "p.rsqrt()"],
  ["pow", "a.pow(2)", "a.pow(2)"],
  ["tanh", "a.tanh()", "a.tanh()"],
  ["sigmoid", "a.sigmoid()", "a.sigmoid()"],
  ["relu", "a.relu()", "a.relu()"],
  ["silu", "F.silu(a)", "F.silu(a)"],
  ["gelu", "F.gelu(a)", "F.gelu(a)"],
  ["softmax", "a.softmax(-1)", "a.softmax(-1)"],
  ["matmul", "a.matmul(b)", "a.matmul(b)"],
  ["mm", "a.mm(b)", "a.mm(b)"],
  ["bmm", "c.bmm(c)", "c.bmm(c)"],
  ["linear", "F.linear(a, w)", "F.linear(a, w)"],
  ["linear_bias", "F.linear(a, w, v)", "F.linear(a, w, v)"],
  ["layer_norm", "F.layer_norm(a, [8], v, v)", "F.layer_norm(a, [8], v, v)"],
  ["sum", "a.sum()", "a.sum()"],
  ["sum_dim", "a.sum(-1)", "a.sum(-1)"],
  ["mean_dim", "a.mean(-1, true)", "a.mean(-1, True)"],
  ["argmax", "a.argmax(-1)", "a.argmax(-1)"],
  ["cat", "torch.cat([a, b], 0)", "torch.cat([a, b], 0)"],
  ["view", "a.view(64)", "a.view(64)"],
  ["reshape", "a.reshape(4, 16)", "a.reshape(4, 16)"],
  ["transpose", "a.transpose(0, 1)", "a.transpose(0, 1)"],
  ["unsqueeze", "a.unsqueeze(0)", "a.unsqueeze(0)"],
  ["expand", "v.expand(8, 8)", "v.expand(8, 8)"],
  ["contiguous", "t.contiguous()", "t.contiguous()"],
  ["select", "a.select(0, 1)", "a.select(0, 1)"],
  ["index_select", "a.index_select(0, i)", "a.index_select(0, i)"],
  ["embedding", "F.embedding(i, w)", "F.embedding(i, w)"],
  ["where", "torch.where(m, a, b)", "torch.where(m, a, b)"],
  ["masked_fill", "a.masked_fill(m, 0)", "a.masked_fill(m, 0)"],
];

const peerScript = `
import sys, json, time, torch, torch.nn.functional as F
torch.set_num_threads(1); torch.set_grad_enabled(False); torch.manual_seed(0)
a, b, w = torch.randn(8, 8), torch.randn(8, 8), torch.randn(8, 8)
p, v, c = torch.rand(8, 8) + 0.5, torch.randn(8), torch.randn(2, 8, 8)
i, m, t = torch.arange(8), torch.rand(8, 8) > 0.5, torch.randn(8, 8).t()
scope = dict(torch=torch, F=F, a=a, b=b, w=w, p=p, v=v, c=c, i=i, m=m, t=t, clock=time.perf_counter)
runs = {}
for line in sys.stdin:
    r = json.loads(line)
    if r["code"] not in runs:
        exec("def run(n):\\n s = clock()\\n for _ in range(n): " + r["code"] + "\\n return (clock() - s) / n", scope)
        runs[r["code"]] = scope["run"]
    print(json.dumps(runs[r["code"]](r["n"]) * 1e6))
`;

const F = (await import("torchformers")).nn.functional;
torch.set_num_threads(1);
torch.set_grad_enabled(false);
torch.manual_seed(0);
const [a, b, w] = [torch.randn([8, 8]), torch.randn([8, 8]), torch.randn([8, 8])];
const [p, v, c] = [torch.rand([8, 8]).add(0.5), torch.randn([8]), torch.randn([2, 8, 8])];
const [i, m, t] = [torch.arange(8), torch.rand([8, 8]).gt(0.5), torch.randn([8, 8]).t()];
const scope = { torch, F, a, b, w, p, v, c, i, m, t };

const loops = {
  garbage: (code) => `for (let k = 0; k < n; k++) ${code};`,
  dispose: (code) => `for (let k = 0; k < n; k++) ${/\b\w+_\(/.test(code) ? code : `${code}.dispose()`};`,
  tidy: (code) =>
    `for (let k = 0; k < n; k += 50) torch.tidy(() => { for (let j = 0; j < 50; j++) ${code}; });`,
};
const disposal = process.env.DISPOSAL ?? "garbage";
const loop = loops[disposal];
if (!loop) throw new Error(`DISPOSAL is one of ${Object.keys(loops).join(", ")}, not ${disposal}`);

/** Our side: a function that runs the expression n times and says how many microseconds one call took. */
function compile(code) {
  const run = new Function(
    ...Object.keys(scope),
    "n",
    `const s = performance.now(); ${loop(code)} return (performance.now() - s) / n * 1000;`,
  );
  return (n) => run(...Object.values(scope), n);
}

const rounds = Number(process.env.ROUNDS ?? 11);
const batch = Number(process.env.BATCH_MS ?? 20);
describeMachine({ python, ...requirePython("torch"), rounds, "batch ms": batch, disposal });
const peer = new PythonPeer(peerScript, { OMP_NUM_THREADS: "1" });
const wanted = process.argv.slice(2);
const rows = [];
for (const [name, js, py] of trials) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  const run = compile(js);
  // The batch is sized by Python's time, so both sides do the same work; enough calls first that ours is compiled.
  const n = Math.ceil((batch * 1000) / (await peer.ask({ code: py, n: 2000 })) / 50) * 50;
  run(Math.max(n, 20_000));
  await peer.ask({ code: py, n });
  const times = { ours: [], theirs: [] };
  for (let round = 0; round < rounds; round++) {
    times.ours.push(run(n));
    times.theirs.push(await peer.ask({ code: py, n }));
  }
  const [ours, theirs] = [median(times.ours), median(times.theirs)];
  const least = [Math.min(...times.ours), Math.min(...times.theirs)];
  rows.push([hot.has(name) ? `${name} *` : name, ours, theirs, ours / theirs, ...least, least[0] / least[1]]);
}
peer.close();
table(
  ["operator (* = hot)", "ours µs", "Python µs", "ratio", "ours min", "Python min", "ratio of minima"],
  rows,
);
const report = (title, chosen, limit) => {
  const [medians, minima] = [3, 6].map((column) => chosen.map((row) => row[column]));
  const figures = (ratios) => `median ${median(ratios).toFixed(3)}, worst ${Math.max(...ratios).toFixed(3)}`;
  console.log(`${title}: ${figures(medians)}; of minima: ${figures(minima)} (wanted: at most ${limit})`);
};
console.log();
report(`all ${rows.length}`, rows, 0.8);
const hottest = rows.filter((row) => row[0].endsWith("*"));
if (hottest.length > 0) report(`the ${hottest.length} hottest`, hottest, 0.7);
