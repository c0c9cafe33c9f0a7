// Time that this thread spends to queue one operator on small tensors of a GPU, against Python torch.
import { torch } from "torchformers";
import { hasPython, median, PythonPeer } from "../support.mjs";

const TRIALS = [
  ["add", "a.add(b)", "a.add(b)"],
  ["mul_scalar", "a.mul(2.5)", "a.mul(2.5)"],
  ["matmul", "a.matmul(b)", "a.matmul(b)"],
  ["softmax", "a.softmax(-1)", "a.softmax(-1)"],
  ["cat", "torch.cat([a, b], 0)", "torch.cat([a, b], 0)"],
  ["view", "a.view(64)", "a.view(64)"],
];

const PEER = `
import sys, json, time, torch
torch.set_grad_enabled(False)
a, b = torch.randn(8, 8, device="cuda"), torch.randn(8, 8, device="cuda")
for line in sys.stdin:
    r = json.loads(line)
    scope = dict(torch=torch, a=a, b=b, clock=time.perf_counter)
    exec("def run(n):\\n torch.cuda.synchronize()\\n s = clock()\\n for _ in range(n): " + r["code"] + "\\n torch.cuda.synchronize()\\n return (clock() - s) / n", scope)
    scope["run"](r["n"] // 10)
    print(json.dumps(scope["run"](r["n"]) * 1e6))
`;

export async function measure(device, { rounds = 5, calls = 20000 } = {}) {
  const [a, b] = [torch.randn([8, 8], { device }), torch.randn([8, 8], { device })];
  const synchronize = () => device.startsWith("cuda") && torch.cuda.synchronize(device);
  const ours = (code, n) => {
    const body = `sync(); const s = performance.now(); for (let k = 0; k < n; k++) ${code}; sync(); return (performance.now() - s) / n * 1000;`;
    const run = new Function("torch", "a", "b", "sync", "n", body);
    run(torch, a, b, synchronize, n / 10);
    return run(torch, a, b, synchronize, n);
  };
  const peer = hasPython("torch") ? new PythonPeer(PEER) : undefined;
  const rows = [];
  for (const [name, js, py] of TRIALS) {
    const [mine, theirs] = [[], []];
    for (let round = 0; round < rounds; round++) {
      mine.push(torch.no_grad(() => ours(js, calls)));
      if (peer) theirs.push(await peer.ask({ code: py, n: calls }));
    }
    rows.push({
      name: `${name}, 8x8`,
      ours: median(mine),
      ...(peer ? { theirs: median(theirs) } : {}),
      unit: "µs",
    });
    console.log(rows.at(-1));
  }
  peer?.close();
  return rows;
}
