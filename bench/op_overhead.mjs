// Time of one operator call on small tensors against Python torch: 40 operators, our handle, its weak reference and its
// disposal included, both sides on one thread, interleaved round by round.
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
for line in sys.stdin:
    r = json.loads(line)
    scope = dict(torch=torch, F=F, a=a, b=b, w=w, p=p, v=v, c=c, i=i, m=m, t=t, clock=time.perf_counter)
    exec("def run(n):\\n s = clock()\\n for _ in range(n): " + r["code"] + "\\n return (clock() - s) / n", scope)
    scope["run"](r["n"] // 10)
    print(json.dumps(scope["run"](r["n"]) * 1e6))
`;

const F = (await import("torchformers")).nn.functional;
torch.set_num_threads(1);
torch.set_grad_enabled(false);
torch.manual_seed(0);
const [a, b, w] = [torch.randn([8, 8]), torch.randn([8, 8]), torch.randn([8, 8])];
const [p, v, c] = [torch.rand([8, 8]).add(0.5), torch.randn([8]), torch.randn([2, 8, 8])];
const [i, m, t] = [torch.arange(8), torch.rand([8, 8]).gt(0.5), torch.randn([8, 8]).t()];
const scope = { torch, F, a, b, w, p, v, c, i, m, t };

/** Microseconds per call over `n` calls; what the loop leaves as garbage is swept inside it. */
function ours(code, n) {
  const run = new Function(
    ...Object.keys(scope),
    "n",
    `const s = performance.now(); for (let k = 0; k < n; k++) ${code}; return (performance.now() - s) / n * 1000;`,
  );
  run(...Object.values(scope), n / 10);
  return run(...Object.values(scope), n);
}

const rounds = Number(process.env.ROUNDS ?? 5);
const n = Number(process.env.CALLS ?? 20000);
describeMachine({ python, ...requirePython("torch"), rounds, calls: n });
const peer = new PythonPeer(peerScript, { OMP_NUM_THREADS: "1" });
const rows = [];
for (const [name, js, py] of trials) {
  const times = { ours: [], theirs: [] };
  for (let round = 0; round < rounds; round++) {
    times.ours.push(ours(js, n));
    times.theirs.push(await peer.ask({ code: py, n }));
  }
  rows.push([
    hot.has(name) ? `${name} *` : name,
    median(times.ours),
    median(times.theirs),
    median(times.ours.map((x, k) => x / times.theirs[k])),
  ]);
}
peer.close();
table(["operator (* = hot)", "ours µs", "Python µs", "ratio"], rows);
const ratios = rows.map((row) => row[3]);
const hotRatios = rows.filter((row) => row[0].endsWith("*")).map((row) => row[3]);
console.log(
  `\nmedian of ${rows.length}: ${median(ratios).toFixed(3)} (wanted: at most 0.8)   worst: ${Math.max(...ratios).toFixed(3)}`,
);
console.log(
  `the ten hottest: median ${median(hotRatios).toFixed(3)}, worst ${Math.max(...hotRatios).toFixed(3)} (wanted: at most 0.7)`,
);
