// Brings a model by its name, shows what arrives, lets it write, and tells what the cache holds.
//   node build/examples/hub/index.js HuggingFaceTB/SmolLM2-135M
// With a second name, and a token in HF_TOKEN or from `npx torchformers login`, it also sends the model there.
import { AutoModelForCausalLM, AutoTokenizer, hub } from "torchformers";

const [name = "HuggingFaceTB/SmolLM2-135M", target] = process.argv.slice(2);

const model = await AutoModelForCausalLM.from_pretrained(name, {
  progress_callback: ({ stage, file, total_loaded, total_bytes }) => {
    if (stage === "download") console.error(`${file}: ${total_loaded} of ${total_bytes} bytes`);
  },
});
const tokenizer = await AutoTokenizer.from_pretrained(name);
const inputs = await tokenizer("Once upon a time", { return_tensors: "pt" });
const ids = await model.generate(inputs, { max_new_tokens: 12, do_sample: false });
console.log(await tokenizer.decode(ids.index(0), { skip_special_tokens: true }));

const { repos } = await hub.scan_cache_dir();
const brought = repos.find((repo) => repo.name === name);
console.log(`${name}: ${brought?.revisions.length} revision in the cache`);

if (target !== undefined) {
  const { repo, url } = await model.push_to_hub(target, { private: true });
  await tokenizer.push_to_hub(repo);
  console.log(`sent: ${url}`);
}
