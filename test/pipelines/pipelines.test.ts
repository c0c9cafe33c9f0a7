// pipeline(task, model) against the results of Python's, and what is ours: streams of inputs, signals, the event loop.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import * as torchformers from "torchformers";
import { pipeline, type TextGenerationPipeline, torch } from "torchformers";
import { fixture } from "../support/fixtures.js";

interface Case {
  readonly name: string;
  readonly inputs: unknown;
  readonly options: object;
  readonly output?: unknown;
  readonly error?: string;
}

const demo = fixture("demo-llama");

// biome-ignore lint/suspicious/noExplicitAny: cases are data.
type Any = any;

t.test("wrong input", async (t) => {
  const any = pipeline as Any;
  await t.rejects(any("text-generaton", demo), {
    code: "ERR_INVALID_ARGUMENT",
    suggestion: "text-generation",
  });
  await t.rejects(any("text-generation"), { message: /needs a model/ });
  await t.rejects(any("text-generation", "/no/such/folder"), { code: "ERR_ENTRY_NOT_FOUND" });
  await t.rejects(any("text-generation", demo, { device: "cpu", device_map: "cpu" }), {
    message: /together/,
  });
  await t.rejects(pipeline("text-generation", demo, { signal: AbortSignal.abort(new Error("stop")) }), {
    message: "stop",
  });
  const generate = await pipeline("text-generation", demo);
  await t.rejects((generate as Any)("x", { max_new_token: 3 }), {
    code: "ERR_INVALID_ARGUMENT",
    suggestion: "max_new_tokens",
  });
  await t.rejects(generate(["x"], { batch_size: 0 }), { message: /batch_size/ });
  await t.rejects((generate as Any)([{ role: "user" }]), { message: /messages/ });
  await t.rejects(generate([{ role: "user", content: "Hi" }]), { message: /template/ });
  const unfinished = await torchformers.LlamaForSequenceClassification.from_pretrained(demo);
  t.throws(() => new torchformers.TextGenerationPipeline({ model: unfinished }), {
    code: "ERR_UNINITIALIZED_WEIGHTS",
  });
});

t.test("text-generation, as Python's", async (t) => {
  const { chat_template, cases } = JSON.parse(
    readFileSync(join(fixture("pipelines"), "text_generation.json"), "utf8"),
  ) as { chat_template: string; cases: Case[] };
  const tokenizer = await torchformers.AutoTokenizer.from_pretrained(demo, { chat_template });
  const generate = await pipeline("text-generation", demo, { tokenizer, dtype: "float32", device: "cpu" });
  for (const { name, inputs, options, output, error } of cases) {
    torch.manual_seed(0);
    const call = (generate as Any)(inputs, options);
    if (error !== undefined) await t.rejects(call, { code: "ERR_INVALID_ARGUMENT" }, name);
    else t.same(await call, output, name);
  }
});

t.test("streams", async (t) => {
  const generate: TextGenerationPipeline = await pipeline("text-generation", demo, {
    dtype: "float32",
    do_sample: false,
    max_new_tokens: 4,
    return_full_text: false,
  });
  let taken = 0;
  let ended = false;
  async function* prompts() {
    try {
      for (const prompt of ["This class", "The file", "A", "Return", "The"]) {
        taken++;
        yield prompt;
      }
    } finally {
      ended = true;
    }
  }
  const alone = await generate(["This class", "The file", "A"]);
  const texts = [];
  for await (const result of generate(prompts())) {
    texts.push(result);
    if (texts.length === 2) break;
  }
  t.same(texts, alone.slice(0, 2), "results in order, options of the constructor hold");
  t.ok(taken <= 4, "inputs are taken as results are asked for");
  t.ok(ended, "a break ends the source");
  const all = [];
  for await (const result of generate(new Set(["This class", "The file", "A"]), { batch_size: 2 }))
    all.push(result);
  t.same(all, alone, "batches give the same");

  const controller = new AbortController();
  const late = generate(["This class", "The file"], { max_new_tokens: 400, signal: controller.signal });
  setTimeout(() => controller.abort(new Error("enough")), 20);
  await t.rejects(late, { message: "enough" });
});
