// Tokens per second of a bf16 Llama of 1.1B parameters after a prompt of 128 tokens: against a plain read of the same bytes
// with all threads, against Python transformers, and against node-llama-cpp with the same weights as BF16 GGUF (written by
// Python's `gguf`), interleaved round by round.
//
//   NODE_LLAMA_CPP=/folder/where/it/is/installed ROUNDS=3 TOKENS=16 node bench/decode_bf16.mjs
//
// node-llama-cpp is no dependency of ours: `npm install --ignore-scripts node-llama-cpp` in some folder outside.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { LlamaForCausalLM, torch } from "torchformers";
import { addon } from "../dist/addon/loader.js";
import { describeMachine, hasPython, median, Peer, PythonPeer, python, table } from "./support.mjs";
import { generateSeconds, LLAMA_1B, LLAMA_PEER, llamaFolder, multiplied } from "./support_llama.mjs";

const [rounds, tokens, length] = [Number(process.env.ROUNDS ?? 3), Number(process.env.TOKENS ?? 16), 128];
if (process.env.THREADS) torch.set_num_threads(Number(process.env.THREADS));
const threads = torch.get_num_threads();
const folder = await llamaFolder("llama-1.1b-bf16", LLAMA_1B);
const model = await LlamaForCausalLM.from_pretrained(folder);

const beside = (name) => fileURLToPath(new URL(`peers/${name}`, import.meta.url));

function llamaCpp() {
  const installed = process.env.NODE_LLAMA_CPP;
  if (!installed || !existsSync(join(installed, "node_modules/node-llama-cpp"))) {
    console.log("Without node-llama-cpp: NODE_LLAMA_CPP names no folder where it is installed.\n");
    return undefined;
  }
  const file = join(folder, "model.bf16.gguf");
  if (!existsSync(file)) {
    if (!hasPython("gguf", "safetensors")) {
      console.log("Without node-llama-cpp: Python has no `gguf` to write its weights with.\n");
      return undefined;
    }
    const { status } = spawnSync(python, [beside("write_gguf.py"), folder, file], { stdio: "inherit" });
    if (status !== 0) throw new Error("The GGUF file could not be written.");
  }
  return new Peer(process.execPath, [
    beside("node_llama_cpp.mjs"),
    installed,
    file,
    `${threads}`,
    `${length}`,
  ]);
}

const native = addon();
const read = native.findOp("torchformers::read_bytes", "");
const weights = multiplied(model).map((parameter) => parameter.detach());
const bytes = weights.reduce((sum, weight) => sum + weight.numel() * 2, 0);
function readSeconds() {
  const start = performance.now();
  for (const weight of weights) native.dispose(native.call(read, null, weight._handle));
  return (performance.now() - start) / 1000;
}

const hasPeer = hasPython("torch", "transformers");
if (!hasPeer) console.log("Without Python: it has no torch or transformers.\n");
const sides = {
  ours: async () => {
    const first = await generateSeconds(model, length, 1);
    return { first, rest: (await generateSeconds(model, length, 1 + tokens)) - first };
  },
};
const peers = [];
if (hasPeer) {
  const peer = new PythonPeer(LLAMA_PEER);
  peers.push(peer);
  await peer.ask({ folder, threads });
  sides.Python = async () => {
    const first = await peer.ask({ length, created: 1 });
    return { first, rest: (await peer.ask({ length, created: 1 + tokens })) - first };
  };
}
const cpp = llamaCpp();
if (cpp) {
  peers.push(cpp);
  sides["node-llama-cpp"] = () => cpp.ask({ created: tokens });
}

describeMachine({ threads, weights: `${(bytes / 2 ** 20).toFixed(0)} MiB`, tokens, rounds });
const times = { read: [] };
for (let round = -1; round < rounds; round++) {
  const reading = readSeconds();
  if (round >= 0) times.read.push(reading);
  for (const [name, run] of Object.entries(sides)) {
    const result = await run();
    times[name] ??= [];
    if (round >= 0) times[name].push(result);
  }
}
for (const peer of peers) peer.close();
const perToken = (name) => times[name].map(({ rest }) => rest / tokens);
const ours = perToken("ours");
const rows = [
  ["plain read of the weights", 1 / median(times.read), "", median(ours.map((s, i) => times.read[i] / s))],
];
for (const name of Object.keys(sides))
  rows.push([
    name,
    1 / median(perToken(name)),
    median(times[name].map(({ first }) => first)),
    name === "ours" ? "" : median(perToken(name).map((seconds, i) => seconds / ours[i])),
    name === "ours" ? "" : median(times[name].map(({ first }, i) => first / times.ours[i].first)),
  ]);
table(
  ["", "tokens/s", "first token s", "ours is times as fast", "to the first token"],
  rows.map((row) => [...row, "", ""].slice(0, 5)),
);
console.log(
  "\nwanted: 0.85 of the read, 1.0 of Python, 1.2 of node-llama-cpp, and 4 times to its first token",
);
process.exit(0);
