// The matrix-vector product against a plain read of the same bytes and against ATen's linear, all three on all threads,
// interleaved round by round over one set of weights that no cache holds (or that one does: BYTES=16777216).
//
//   DTYPE=bfloat16 BYTES=1073741824 ROUNDS=7 THREADS=2 node bench/matvec.mjs
import { torch } from "torchformers";
import { addon } from "../dist/addon/loader.js";
import { describeMachine, median, table } from "./support.mjs";

const rounds = Number(process.env.ROUNDS ?? 7);
const dtype = process.env.DTYPE ?? "bfloat16";
const bytesEach = dtype === "float32" ? 4 : 2;
const bytes = Number(process.env.BYTES ?? 2 ** 30);
if (process.env.THREADS) torch.set_num_threads(Number(process.env.THREADS));
torch.set_grad_enabled(false);

const native = addon();
const read = native.findOp("torchformers::read_bytes", "");
const linearGroup = native.findOp("torchformers::linear_group", "");
const linear = native.findOp("aten::linear", "");

/** Runs an operator and frees what it gives. */
function call(op, ...args) {
  for (const handle of [native.call(op, null, ...args)].flat()) native.dispose(handle);
}

// The layers of a Llama of 1.1B parameters, as often as the bytes allow; of one of 4M where they are few.
const [width, inner, keys] = bytes < 2 ** 28 ? [256, 704, 128] : [2048, 5632, 256];
const shapes = [
  [width, width],
  [keys, width],
  [keys, width],
  [width, width],
  [inner, width],
  [inner, width],
  [width, inner],
];
const layerBytes = shapes.reduce((sum, [n, k]) => sum + bytesEach * n * k, 0);
const layers = Array.from({ length: Math.max(1, Math.round(bytes / layerBytes)) }, () =>
  shapes.map(([n, k]) => torch.empty([n, k], { dtype }).uniform_(-0.05, 0.05)),
);
const total = layers.length * layerBytes;

/** Seconds for one pass over all weights. */
function time(visit) {
  const start = performance.now();
  for (const layer of layers) visit(layer);
  return (performance.now() - start) / 1000;
}

describeMachine({
  dtype,
  threads: torch.get_num_threads(),
  weights: `${(total / 2 ** 20).toFixed(0)} MiB`,
  rounds,
});
const rows = [];
for (const count of [1, 2, 4, 8]) {
  const [narrow, wide] = [width, inner].map((k) => torch.randn([count, k]).to(dtype));
  const inputOf = (weight) => (weight.shape[1] === width ? narrow : wide)._handle;
  const trials = {
    read: (layer) => {
      for (const weight of layer) call(read, weight._handle);
    },
    aten: (layer) => {
      for (const weight of layer) call(linear, inputOf(weight), weight._handle);
    },
    single: (layer) => {
      for (const weight of layer) call(linearGroup, inputOf(weight), [weight._handle], []);
    },
    grouped: ([q, k, v, o, gate, up, down]) => {
      for (const group of [[q, k, v], [o], [gate, up], [down]])
        call(
          linearGroup,
          inputOf(group[0]),
          group.map((weight) => weight._handle),
          [],
        );
    },
  };
  const times = Object.fromEntries(Object.keys(trials).map((name) => [name, []]));
  for (let round = 0; round <= rounds; round++)
    for (const [name, visit] of Object.entries(trials)) {
      const seconds = time(visit);
      if (round > 0) times[name].push(seconds); // the first round warms up
    }
  const speed = (name) => total / median(times[name]) / 1e9;
  const ratio = (name, other) => median(times[name].map((seconds, i) => times[other][i] / seconds));
  rows.push([
    `${count}`,
    speed("read"),
    speed("aten"),
    speed("single"),
    speed("grouped"),
    ratio("grouped", "read"),
    ratio("grouped", "aten"),
  ]);
}
table(["rows", "read GB/s", "ATen GB/s", "ours GB/s", "ours grouped GB/s", "of the read", "of ATen"], rows);
console.log(`\none row: ${rows[0][5].toFixed(3)} of the read (wanted: at least 0.85)`);
