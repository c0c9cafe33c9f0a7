// Forward of a prompt through a bf16 Llama of 1.1B parameters, logits of the last token, against Python transformers.
//
//   LENGTHS=128,1024 ROUNDS=3 THREADS=2 node bench/prefill.mjs
import { LlamaForCausalLM, torch } from "torchformers";
import { describeMachine, median, PythonPeer, python, requirePython, table } from "./support.mjs";
import { LLAMA_1B, LLAMA_PEER, llamaFolder, multiplied, promptOf } from "./support_llama.mjs";

const versions = requirePython("torch", "transformers");
if (process.env.THREADS) torch.set_num_threads(Number(process.env.THREADS));
const rounds = Number(process.env.ROUNDS ?? 3);
const lengths = (process.env.LENGTHS ?? "128,1024").split(",").map(Number);
const folder = await llamaFolder("llama-1.1b-bf16", LLAMA_1B);
const model = await LlamaForCausalLM.from_pretrained(folder);
const peer = new PythonPeer(LLAMA_PEER);
await peer.ask({ folder, threads: torch.get_num_threads() });

// Products of the layers; the head sees one token.
const head = LLAMA_1B.vocab_size * LLAMA_1B.hidden_size;
const weights = multiplied(model).reduce((sum, parameter) => sum + parameter.numel(), 0) - head;
const operations = (length) =>
  2 * weights * length + 2 * head + 2 * LLAMA_1B.num_hidden_layers * LLAMA_1B.hidden_size * length * length;

async function forward(length) {
  const input_ids = promptOf(length);
  const start = performance.now();
  const { logits } = await model.run({ input_ids, logits_to_keep: 1 });
  const seconds = (performance.now() - start) / 1000;
  logits.dispose();
  return seconds;
}

describeMachine({ threads: torch.get_num_threads(), python, ...versions, rounds });
const rows = [];
for (const length of lengths) {
  const [ours, theirs] = [[], []];
  for (let round = -1; round < rounds; round++) {
    const mine = await forward(length);
    const their = await peer.ask({ length });
    if (round < 0) continue; // records, and warms up
    ours.push(mine);
    theirs.push(their);
  }
  const speed = (seconds) => operations(length) / median(seconds) / 1e12;
  rows.push([
    `${length} tokens`,
    median(ours),
    median(theirs),
    speed(ours),
    speed(theirs),
    median(theirs.map((seconds, i) => seconds / ours[i])),
  ]);
}
peer.close();
table(["", "ours s", "Python s", "ours TFLOP/s", "Python TFLOP/s", "times Python's speed"], rows);
console.log("\nwanted: at least 1.2 times Python's speed");
