// generate and stream: inputs, endings, what they leave behind.
import t from "tap";
import {
  AutoModelForCausalLM,
  AutoTokenizer,
  GenerationConfig,
  LlamaConfig,
  LlamaForCausalLM,
  LogitsProcessor,
  MaxLengthCriteria,
  StopStringCriteria,
  TemperatureLogitsWarper,
  type Tensor,
  torch,
} from "torchformers";
import { fixture } from "../support/fixtures.js";

process.env.TORCHFORMERS_LOG = "silent";

const model = await AutoModelForCausalLM.from_pretrained(fixture("models/llama"));
const demo = await AutoModelForCausalLM.from_pretrained(fixture("demo-llama"), { dtype: "float32" });
const tokenizer = await AutoTokenizer.from_pretrained(fixture("demo-llama"));
const prompt = [5, 6, 7, 8];
const greedy = { max_new_tokens: 6, eos_token_id: null };
const expected = (await model.generate([prompt], greedy)).tolist();

t.test("wrong input", async (t) => {
  await t.rejects(model.generate([prompt], { max_new_token: 3 }), {
    code: "ERR_INVALID_ARGUMENT",
    suggestion: "max_new_tokens",
  });
  await t.rejects(model.generate({ input_idss: torch.tensor([prompt]) }), {
    code: "ERR_INVALID_ARGUMENT",
    suggestion: "input_ids",
  });
  await t.rejects(model.generate([[1, 2], [3]], greedy), {
    code: "ERR_INVALID_ARGUMENT",
    message: /padding/,
  });
  await t.rejects(model.generate([prompt], { num_beams: 2 }), {
    code: "ERR_INVALID_ARGUMENT",
    message: /not implemented/,
  });
  await t.rejects(model.generate([prompt], { max_new_tokens: null, max_length: 4 }), {
    code: "ERR_INVALID_ARGUMENT",
    message: /max_length/,
  });
  await t.rejects(model.generate([prompt], { stop_strings: "x", max_new_tokens: 1 }), {
    code: "ERR_INVALID_ARGUMENT",
    message: /tokenizer/,
  });
  t.throws(() => new TemperatureLogitsWarper(0), { code: "ERR_INVALID_ARGUMENT", message: /do_sample/ });
  t.throws(() => new TemperatureLogitsWarper({ temprature: 1 } as never), {
    code: "ERR_INVALID_ARGUMENT",
    suggestion: "temperature",
  });
});

t.test("ids in every form", async (t) => {
  const tensor = torch.tensor([prompt]);
  for (const given of [
    prompt,
    [prompt],
    tensor,
    tensor.squeeze(0),
    { input_ids: tensor },
    { input_ids: [prompt] },
  ]) {
    t.same((await model.generate(given, greedy)).tolist(), expected);
  }
  t.same(
    (await model.generate(undefined, { ...greedy, max_new_tokens: 1 })).shape,
    [1, 2],
    "from the beginning of sequence",
  );
  const settings = new GenerationConfig({ max_new_tokens: 6 });
  t.same(
    (await model.generate(prompt, { generation_config: settings, eos_token_id: null })).tolist(),
    expected,
  );
});

t.test("processors and criteria of a caller", async (t) => {
  class Only extends LogitsProcessor {
    override process(_ids: Tensor, scores: Tensor): Tensor {
      return scores.index_fill(1, torch.tensor([9]), 1e4);
    }
  }
  const kept: Tensor[] = [];
  const keep = (_ids: Tensor, scores: Tensor) => {
    kept.push(scores);
    return scores;
  };
  t.same((await model.generate(prompt, { ...greedy, logits_processor: [new Only(), keep] })).tolist(), [
    [...prompt, 9, 9, 9, 9, 9, 9],
  ]);
  t.equal(kept[0]?.shape[0], 1, "what a processor was given can be used later");
  const short = await model.generate(prompt, {
    ...greedy,
    stopping_criteria: [new MaxLengthCriteria(6), () => false],
  });
  t.same(short.shape, [1, 6]);
  t.same((await model.generate(prompt, { ...greedy, prefix_allowed_tokens_fn: () => [3] })).tolist(), [
    [...prompt, 3, 3, 3, 3, 3, 3],
  ]);
  t.ok(
    ((await model.generate(prompt, { max_new_tokens: 400, eos_token_id: null, max_time: 0.05 }))
      .shape[1] as number) < 400,
  );
});

t.test("a seed of its own leaves the default generator alone", async (t) => {
  const options = { ...greedy, do_sample: true, seed: 5 };
  torch.manual_seed(1);
  const first = (await model.generate(prompt, options)).tolist();
  const next = torch.rand([1]).item();
  torch.manual_seed(1);
  t.equal(torch.rand([1]).item(), next);
  t.same((await model.generate(prompt, options)).tolist(), first);
  torch.manual_seed(5);
  t.same(
    (await model.generate(prompt, { ...greedy, do_sample: true })).tolist(),
    first,
    "the same numbers as the default one with that seed",
  );
});

t.test("a batch with padding gives what each row gives alone", async (t) => {
  const other = [9, 10];
  const alone = await Promise.all(
    [prompt, other].map(async (ids) =>
      ((await model.generate(ids, greedy)).tolist() as number[][])[0]?.slice(ids.length),
    ),
  );
  for (const cache_implementation of [undefined, "static"]) {
    const batch = await model.generate(
      {
        input_ids: torch.tensor([prompt, [2, 2, ...other]]),
        attention_mask: torch.tensor([
          [1, 1, 1, 1],
          [0, 0, 1, 1],
        ]),
      },
      { ...greedy, ...(cache_implementation ? { cache_implementation } : {}) },
    );
    t.same(batch.narrow(1, 4, 6).tolist(), alone, cache_implementation ?? "dynamic");
  }
});

t.test("stop strings", async (t) => {
  const text = "This class is used to";
  const { input_ids } = (await tokenizer(text, { return_tensors: "pt" })) as unknown as { input_ids: Tensor };
  const out = await demo.generate(
    { input_ids },
    { max_new_tokens: 40, tokenizer, stop_strings: ["torch.nn", "zzz"] },
  );
  const written = await tokenizer.decode(out.select(0, 0).tolist() as number[], {
    skip_special_tokens: true,
  });
  t.match(written, /torch\.nn/);
  t.notMatch(written, /Module` object/, "stopped there");
  t.throws(() => new StopStringCriteria(tokenizer, []), { code: "ERR_INVALID_ARGUMENT" });
});

t.test("streams", async (t) => {
  const steps: unknown[] = [];
  for await (const { ids } of model.stream(prompt, greedy)) steps.push(...(ids.tolist() as number[]));
  t.same([[...prompt, ...steps]], expected);

  const { input_ids } = (await tokenizer("This class is used to", { return_tensors: "pt" })) as unknown as {
    input_ids: Tensor;
  };
  const pieces: string[] = [];
  for await (const text of demo.stream({ input_ids }, { tokenizer, max_new_tokens: 32 })) pieces.push(text);
  t.ok(pieces.length > 3, "in pieces");
  t.equal(pieces.join("").trim(), "create a `torch.nn.Module` object.");

  const put: number[][] = [];
  let ended = 0;
  const streamer = { put: (ids: Tensor) => void put.push(ids.tolist() as number[]), end: () => void ended++ };
  await model.generate(prompt, { ...greedy, streamer: streamer as never });
  t.equal(put.length, 7, "the prompt and each step");
  t.equal(ended, 1);
});

t.test("break, abort and errors end the work and free the cache", async (t) => {
  torch.manual_seed(0);
  const tiny = new LlamaForCausalLM(
    new LlamaConfig({
      vocab_size: 32,
      hidden_size: 16,
      intermediate_size: 16,
      num_hidden_layers: 2,
      num_attention_heads: 2,
    }),
  ).eval();
  const input_ids = torch.tensor([[3, 4, 5]]);
  const options = { max_new_tokens: 1000, eos_token_id: null };
  const run = async () => {
    for await (const { ids } of tiny.stream({ input_ids }, options)) {
      ids.dispose();
      break;
    }
  };
  await run();
  const before = torch.memory_stats().live_tensors;
  for (let i = 0; i < 5; i++) await run();
  t.equal(torch.memory_stats().live_tensors, before, "after break");

  const abort = new AbortController();
  const work = tiny.generate({ input_ids }, { ...options, signal: abort.signal });
  setTimeout(() => abort.abort(new Error("enough")), 20);
  await t.rejects(work, { message: "enough" });
  t.equal(torch.memory_stats().live_tensors, before, "after abort");

  let puts = 0;
  const put = () => {
    if (++puts === 4) throw new Error("no");
  };
  const dead = torch.memory_stats().live_tensors;
  await t.rejects(tiny.generate({ input_ids }, { ...options, streamer: { put, end: () => {} } }), {
    message: "no",
  });
  // The ids that the streamer was shown are its own.
  t.equal(torch.memory_stats().live_tensors - dead, 2, "after an error");

  const start = torch.memory_stats().live_tensors;
  (await tiny.generate({ input_ids }, { ...options, max_new_tokens: 20 })).dispose();
  t.equal(torch.memory_stats().live_tensors, start, "after a whole run");

  let turns = 0;
  const timer = setInterval(() => turns++, 0);
  await tiny.generate({ input_ids }, { ...options, max_new_tokens: 200 });
  clearInterval(timer);
  t.ok(turns > 3, "the event loop got its turns");
});
