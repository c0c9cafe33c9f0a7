// Fine-tunes a language model on two sentences and draws the loss curve: bars on the terminal, and loss.svg.
//   node build/examples/fine-tuning/index.js [folder] [output folder]
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { AutoModelForCausalLM, AutoTokenizer, optim, torch } from "torchformers";

const [folder = "test/fixtures/demo-llama", output = "build/fine-tuned"] = process.argv.slice(2);
const texts = ["The tensor said hello to the gradient.", "The gradient flowed back and was glad."];
const steps = 20;

torch.manual_seed(0);
const tokenizer = await AutoTokenizer.from_pretrained(folder);
const model = await AutoModelForCausalLM.from_pretrained(folder, { dtype: "float32" });
const { input_ids, attention_mask } = await tokenizer(texts, { padding: true, return_tensors: "pt" });
const labels = input_ids.masked_fill(attention_mask.eq(0), -100); // padding does not count

model.train();
const optimizer = new optim.AdamW(model.parameters(), { lr: 5e-4 });
const scheduler = new optim.lr_scheduler.CosineAnnealingLR(optimizer, steps);
const losses = Array.from({ length: steps }, () =>
  torch.tidy(() => {
    const { loss } = model.forward({ input_ids, attention_mask, labels });
    if (!loss) throw new Error("A model without a loss cannot be trained.");
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
    scheduler.step();
    return loss.item<number>();
  }),
);
model.eval();

await mkdir(output, { recursive: true });
await model.save_pretrained(output);
await tokenizer.save_pretrained(output);
await writeFile(join(output, "loss.svg"), svg(losses));

console.log(bars(losses));
console.log(`loss ${losses[0]?.toFixed(3)} -> ${losses.at(-1)?.toFixed(3)} in ${steps} steps`);
const ids = await model.generate(await tokenizer("The tensor said", { return_tensors: "pt" }), {
  max_new_tokens: 8,
});
console.log(await tokenizer.decode(ids.index(0), { skip_special_tokens: true }));

/** One bar per value. */
function bars(values: readonly number[]): string {
  const high = Math.max(...values);
  return values.map((value) => "▁▂▃▄▅▆▇█"[Math.round((value / high) * 7)]).join("");
}

/** A line from left to right, the largest value at the top and zero at the bottom. */
function svg(values: readonly number[], width = 640, height = 240): string {
  const high = Math.max(...values);
  const points = values.map((value, i) => {
    const [x, y] = [(i / (values.length - 1)) * width, height - (value / high) * height];
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 -8 ${width + 16} ${height + 16}" width="${width}">
<path d="M0 0V${height}H${width}" fill="none" stroke="#999"/>
<polyline points="${points.join(" ")}" fill="none" stroke="#d62" stroke-width="3"/>
</svg>
`;
}
