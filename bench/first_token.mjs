// Process start to the first token of the demo model: a fresh process on each side, in turn.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describeMachine, median, python, requirePython, table } from "./support.mjs";

const model = process.env.MODEL ?? fileURLToPath(new URL("../test/fixtures/demo-llama", import.meta.url));
const prompt = "This class is used to";

const ours = `
import { AutoModelForCausalLM, AutoTokenizer } from "torchformers";
const [tokenizer, model] = await Promise.all([AutoTokenizer.from_pretrained(${JSON.stringify(model)}), AutoModelForCausalLM.from_pretrained(${JSON.stringify(model)})]);
const inputs = await tokenizer(${JSON.stringify(prompt)}, { return_tensors: "pt" });
for await (const _ of model.stream({ ...inputs }, { max_new_tokens: 1, do_sample: false })) break;
`;
const theirs = `
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer, model = AutoTokenizer.from_pretrained(${JSON.stringify(model)}), AutoModelForCausalLM.from_pretrained(${JSON.stringify(model)})
model.generate(**tokenizer(${JSON.stringify(prompt)}, return_tensors="pt"), max_new_tokens=1, do_sample=False)
`;

function time(command, args) {
  const start = performance.now();
  const { status, stderr } = spawnSync(command, args, {
    encoding: "utf8",
    env: { ...process.env, HF_HUB_OFFLINE: "1" },
  });
  if (status !== 0) throw new Error(`${command} failed: ${stderr}`);
  return (performance.now() - start) / 1000;
}

describeMachine({ python, ...requirePython("torch", "transformers") });
const rounds = Number(process.env.ROUNDS ?? 5);
const sides = { ours: [], theirs: [] };
for (let round = -1; round < rounds; round++) {
  const node = time(process.execPath, ["--input-type=module", "-e", ours]);
  const peer = time(python, ["-c", theirs]);
  if (round < 0) continue; // warms the page cache of both
  sides.ours.push(node);
  sides.theirs.push(peer);
}
table(
  ["process start to first token", "ours s", "Python s", "ratio"],
  [
    [
      "demo-llama",
      median(sides.ours),
      median(sides.theirs),
      median(sides.ours.map((x, k) => x / sides.theirs[k])),
    ],
  ],
);
console.log("wanted: at most 0.35");
