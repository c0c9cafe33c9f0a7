// Attention of prompts, and of chunks of a prompt over a static cache, against ATen's scaled_dot_product_attention as models
// call it (keys repeated where there is a mask), on all threads, interleaved.
//
//   ROUNDS=3 THREADS=2 node bench/attention.mjs
import { nn, torch } from "torchformers";
import { addon } from "../dist/addon/loader.js";
import { describeMachine, median, table } from "./support.mjs";

const rounds = Number(process.env.ROUNDS ?? 3);
if (process.env.THREADS) torch.set_num_threads(Number(process.env.THREADS));
torch.set_grad_enabled(false);
const native = addon();
const attend = native.findOp("torchformers::attend", "");
const attendOne = native.findOp("torchformers::attend_one", "");

function seconds(run) {
  const start = performance.now();
  run();
  return (performance.now() - start) / 1000;
}

const [heads, kvHeads, width] = [32, 4, 64];
const trials = [
  ["prompt of 128, causal", 128, 128, false],
  ["prompt of 1024, causal", 1024, 1024, false],
  ["prompt of 1024, mask", 1024, 1024, true],
  ["128 at 256 of 1024, mask", 128, 1024, true],
  ["1024 at 0 of 4096, mask", 1024, 4096, true],
  ["1 at 512 of 4096, mask", 1, 4096, true],
];

describeMachine({ threads: torch.get_num_threads(), heads, kvHeads, width, rounds });
const rows = [];
for (const dtype of ["bfloat16", "float32"])
  for (const [name, queries, keys, masked] of trials) {
    const query = torch.randn([1, queries, heads, width]).to(dtype).transpose(1, 2);
    const [key, value] = [0, 1].map(() => torch.randn([1, kvHeads, keys, width]).to(dtype));
    const offset = queries === 1 ? 512 : queries === 128 && keys > 128 ? 256 : 0;
    const mask = masked ? torch.ones([1, 1, queries, keys]).tril(offset).gt(0) : undefined;
    const ours = () => {
      const arguments_ = [query._handle, key._handle, value._handle, mask?._handle ?? null];
      native.dispose(
        queries === 1
          ? native.call(attendOne, null, ...arguments_, null, null)
          : native.call(attend, null, ...arguments_, !masked, null),
      );
    };
    const aten = () =>
      torch.tidy(() => {
        const repeated = (x) => (masked ? x.repeat_interleave(heads / kvHeads, 1) : x);
        nn.functional.scaled_dot_product_attention(query, repeated(key), repeated(value), {
          attn_mask: mask,
          is_causal: !masked,
          enable_gqa: !masked,
        });
      });
    const times = { ours: [], aten: [] };
    for (let round = -1; round < rounds; round++) {
      const pair = [seconds(ours), seconds(aten)];
      if (round < 0) continue;
      times.ours.push(pair[0]);
      times.aten.push(pair[1]);
    }
    rows.push([
      `${dtype} ${name}`,
      median(times.ours) * 1000,
      median(times.aten) * 1000,
      median(times.aten.map((s, i) => s / times.ours[i])),
    ]);
  }
table(["", "ours ms", "ATen ms", "times ATen's speed"], rows);
const worst = Math.min(...rows.map((row) => row[3]));
console.log(`\nworst: ${worst.toFixed(2)} times ATen's speed (wanted: at least 1.0)`);
