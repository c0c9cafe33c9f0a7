// Loads a checkpoint folder and streams a continuation of a prompt.
//   node build/examples/text-generation/index.js [folder] [prompt]
import { AutoModelForCausalLM, AutoTokenizer } from "torchformers";

const [folder = "test/fixtures/demo-llama", prompt = "The file must be"] = process.argv.slice(2);

const tokenizer = await AutoTokenizer.from_pretrained(folder);
const model = await AutoModelForCausalLM.from_pretrained(folder);
const inputs = await tokenizer(prompt, { return_tensors: "pt" });

process.stdout.write(prompt);
for await (const text of model.stream(inputs, { tokenizer, max_new_tokens: 40 })) process.stdout.write(text);
process.stdout.write("\n");
