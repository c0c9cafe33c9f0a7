// Time per token with 128 to 4,096 tokens before it, for a Llama of two layers whose cache is what costs: against the bytes of
// weights and cache that a token has to read, and against a plain read of so many bytes in the same round.
//
//   CONTEXTS=128,1024,4096 ROUNDS=3 TOKENS=8 node bench/context.mjs
import { LlamaForCausalLM, torch } from "torchformers";
import { addon } from "../dist/addon/loader.js";
import { describeMachine, median, table } from "./support.mjs";
import { generateSeconds, LLAMA_CACHE, llamaFolder, multiplied } from "./support_llama.mjs";

const [rounds, tokens] = [Number(process.env.ROUNDS ?? 3), Number(process.env.TOKENS ?? 8)];
if (process.env.THREADS) torch.set_num_threads(Number(process.env.THREADS));
const contexts = (process.env.CONTEXTS ?? "128,512,1024,2048,4096").split(",").map(Number);
const model = await LlamaForCausalLM.from_pretrained(await llamaFolder("llama-cache-bf16", LLAMA_CACHE));
const weights = multiplied(model).reduce((sum, parameter) => sum + 2 * parameter.numel(), 0);
const { num_hidden_layers, num_key_value_heads, head_dim } = LLAMA_CACHE;
const bytesOf = (context) => weights + context * num_hidden_layers * 2 * num_key_value_heads * head_dim * 2;

const native = addon();
const read = native.findOp("torchformers::read_bytes", "");
const memory = torch.zeros([bytesOf(Math.max(...contexts)) / 2], { dtype: "bfloat16" });
function readSeconds(context) {
  const part = memory.narrow(0, 0, bytesOf(context) / 2);
  const start = performance.now();
  native.dispose(native.call(read, null, part._handle));
  return (performance.now() - start) / 1000;
}

describeMachine({ threads: torch.get_num_threads(), tokens, rounds });
const times = new Map(contexts.map((context) => [context, { token: [], read: [] }]));
for (let round = -1; round < rounds; round++)
  for (const context of contexts) {
    const first = await generateSeconds(model, context, 1);
    const all = await generateSeconds(model, context, 1 + tokens);
    const reading = readSeconds(context);
    if (round < 0) continue;
    times.get(context).token.push((all - first) / tokens);
    times.get(context).read.push(reading);
  }
const token = (context) => median(times.get(context).token);
const [least] = contexts;
const rows = contexts.map((context) => [
  `${context}`,
  bytesOf(context) / 2 ** 20,
  token(context) * 1000,
  bytesOf(context) / token(context) / 1e9,
  token(context) / token(least) / (bytesOf(context) / bytesOf(least)),
  median(times.get(context).token.map((seconds, i) => times.get(context).read[i] / seconds)),
]);
table(["tokens before", "MiB read", "ms per token", "GB/s", "of proportional", "of a plain read"], rows);
const worst = Math.max(...rows.map((row) => row[4]));
console.log(`\nworst: ${worst.toFixed(3)} times what is proportional to the bytes (wanted: at most 1.25)`);
