// node-llama-cpp's side of decode_bf16: seconds to the first token of a prompt, and for so many more.
//
//   node node_llama_cpp.mjs FOLDER_WHERE_IT_IS_INSTALLED FILE.gguf THREADS LENGTH
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

const [installed, modelPath, threads, length] = process.argv.slice(2);
const { getLlama } = await import(createRequire(join(installed, "index.js")).resolve("node-llama-cpp"));
const llama = await getLlama({ gpu: false, build: "never", maxThreads: Number(threads) });
const model = await llama.loadModel({ modelPath });
const context = await model.createContext({ contextSize: 512, threads: Number(threads) });
const prompt = Array.from({ length: Number(length) }, (_, i) => ((i + 1) % 900) + 300);

for await (const line of createInterface({ input: process.stdin })) {
  const { created } = JSON.parse(line);
  const sequence = context.getSequence();
  const start = performance.now();
  let [first, count] = [start, 0];
  for await (const _ of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
    if (count++ === 0) first = performance.now();
    if (count > created) break;
  }
  const end = performance.now();
  await sequence.dispose();
  console.log(JSON.stringify({ first: (first - start) / 1000, rest: (end - first) / 1000 }));
}
process.exit(0);
