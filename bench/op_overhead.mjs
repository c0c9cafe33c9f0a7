// Time of one operator call on small tensors against Python torch: 40 operators, our handle, its weak reference and its
// disposal included. Both sides run on one thread, in turn, in batches of some milliseconds, so that whatever else the
// machine does meets both. DISPOSAL says how our results end: as garbage (the default: collected within the timed loop, as a
// user's loop would), by `dispose`, or in a `tidy` scope of 50 calls.
import { torch } from "torchformers";
import { addon } from "../dist/addon/loader.js";
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

// name, our expression, Python's, the operator that it is in ATen. Operands: a, b [8, 8]; c [2, 8, 8]; w [8, 8]; v [8]; i int64 [8]; m bool [8, 8]; q [1, 2, 8, 8].
const trials = [
  ["add", "a.add(b)", "a.add(b)", "add.Tensor(a, b)"],
  ["add_scalar", "a.add(1)", "a.add(1)", "add.Scalar(a, 1)"],
  ["sub", "a.sub(b)", "a.sub(b)", "sub.Tensor(a, b)"],
  ["mul", "a.mul(b)", "a.mul(b)", "mul.Tensor(a, b)"],
  ["mul_scalar", "a.mul(2.5)", "a.mul(2.5)", "mul.Scalar(a, 2.5)"],
  ["div", "a.div(b)", "a.div(b)", "div.Tensor(a, b)"],
  ["add_", "a.add_(b)", "a.add_(b)", "add_.Tensor(a, b)"],
  ["neg", "a.neg()", "a.neg()", "neg(a)"],
  ["exp", "a.exp()", "a.exp()", "exp(a)"],
  ["sqrt", "p.sqrt()", "p.sqrt()", "sqrt(p)"],
  ["rsqrt", "p.rsqrt()", "p.rsqrt()", "rsqrt(p)"],
  ["pow", "a.pow(2)", "a.pow(2)", "pow.Tensor_Scalar(a, 2)"],
  ["tanh", "a.tanh()", "a.tanh()", "tanh(a)"],
  ["sigmoid", "a.sigmoid()", "a.sigmoid()", "sigmoid(a)"],
  ["relu", "a.relu()", "a.relu()", "relu(a)"],
  ["silu", "F.silu(a)", "F.silu(a)", "silu(a)"],
  ["gelu", "F.gelu(a)", "F.gelu(a)", "gelu(a)"],
  ["softmax", "a.softmax(-1)", "a.softmax(-1)", "softmax.int(a, -1)"],
  ["matmul", "a.matmul(b)", "a.matmul(b)", "matmul(a, b)"],
  ["mm", "a.mm(b)", "a.mm(b)", "mm(a, b)"],
  ["bmm", "c.bmm(c)", "c.bmm(c)", "bmm(c, c)"],
  ["linear", "F.linear(a, w)", "F.linear(a, w)", "linear(a, w)"],
  ["linear_bias", "F.linear(a, w, v)", "F.linear(a, w, v)", "linear(a, w, v)"],
  ["layer_norm", "F.layer_norm(a, [8], v, v)", "F.layer_norm(a, [8], v, v)", "layer_norm(a, [8], v, v)"],
  ["sum", "a.sum()", "a.sum()", "sum(a)"],
  ["sum_dim", "a.sum(-1)", "a.sum(-1)", "sum.dim_IntList(a, -1)"],
  ["mean_dim", "a.mean(-1, true)", "a.mean(-1, True)", "mean.dim(a, -1, true)"],
  ["argmax", "a.argmax(-1)", "a.argmax(-1)", "argmax(a, -1)"],
  ["cat", "torch.cat([a, b], 0)", "torch.cat([a, b], 0)", "cat([a, b], 0)"],
  ["view", "a.view(64)", "a.view(64)", "view(a, 64)"],
  ["reshape", "a.reshape(4, 16)", "a.reshape(4, 16)", "reshape(a, 4, 16)"],
  ["transpose", "a.transpose(0, 1)", "a.transpose(0, 1)", "transpose.int(a, 0, 1)"],
  ["unsqueeze", "a.unsqueeze(0)", "a.unsqueeze(0)", "unsqueeze(a, 0)"],
  ["expand", "v.expand(8, 8)", "v.expand(8, 8)", "expand(v, 8, 8)"],
  ["contiguous", "t.contiguous()", "t.contiguous()", "contiguous(t)"],
  ["select", "a.select(0, 1)", "a.select(0, 1)", "select.int(a, 0, 1)"],
  ["index_select", "a.index_select(0, i)", "a.index_select(0, i)", "index_select(a, 0, i)"],
  ["embedding", "F.embedding(i, w)", "F.embedding(i, w)", "embedding(w, i)"],
  ["where", "torch.where(m, a, b)", "torch.where(m, a, b)", "where.self(m, a, b)"],
  ["masked_fill", "a.masked_fill(m, 0)", "a.masked_fill(m, 0)", "masked_fill.Scalar(a, m, 0)"],
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

/** Microseconds of ATen's operator alone, called from C++ in a loop; NaN where the addon can't. */
function operatorTime(direct) {
  const [, name, overload = "", values] = /^(\w+?)(?:\.(\w+))?\((.*)\)$/.exec(direct);
  const cross = (value) =>
    value instanceof torch.Tensor ? value._handle : Array.isArray(value) ? value.map(cross) : value;
  const given = new Function(...Object.keys(scope), `return [${values}]`)(...Object.values(scope)).map(cross);
  const op = addon().findOp(`aten::${name}`, overload);
  const times = Array.from({ length: 15 }, () => addon().timeCall(op, 2000, ...given));
  return median(times) < 0 ? Number.NaN : median(times);
}

const rounds = Number(process.env.ROUNDS ?? 11);
const batch = Number(process.env.BATCH_MS ?? 20);
describeMachine({ python, ...requirePython("torch"), rounds, "batch ms": batch, disposal });
const peer = new PythonPeer(peerScript, { OMP_NUM_THREADS: "1" });
const wanted = process.argv.slice(2);
const rows = [];
for (const [name, js, py, direct] of trials) {
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
  rows.push([
    hot.has(name) ? `${name} *` : name,
    ours,
    theirs,
    ours / theirs,
    ...least,
    least[0] / least[1],
    operatorTime(direct),
  ]);
}
peer.close();
table(
  [
    "operator (* = hot)",
    "ours µs",
    "Python µs",
    "ratio",
    "ours min",
    "Python min",
    "ratio of minima",
    "ATen µs",
  ],
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
const LIGHT = 0.35;
const light = rows.filter((row) => row[7] < LIGHT);
if (light.length > 0)
  report(
    `the ${light.length} of which ATen takes less than ${LIGHT} µs (${light.map(([name]) => name).join(", ")})`,
    light,
    0.6,
  );
