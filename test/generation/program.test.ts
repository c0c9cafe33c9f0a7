// generate as a native loop over Programs: the same as eager mode, in every way that a caller can see.
import t, { type Test } from "tap";
import * as torchformers from "torchformers";
import {
  AutoModelForCausalLM,
  AutoTokenizer,
  DynamicCache,
  type GenerateDecoderOnlyOutput,
  LlamaConfig,
  LlamaForCausalLM,
  type LogitsProcessor,
  StaticCache,
  type Tensor,
  torch,
} from "torchformers";
import { PaddedSequence } from "#lib/generation/padded_sequence.js";
import { programsOf } from "#lib/generation/recorded_steps.js";
import { fixture } from "../support/fixtures.js";
import { live_tensors, settle } from "../support/memory.js";
import { runProgram } from "../support/program.js";

process.env.TORCHFORMERS_LOG = "silent";

const model = await AutoModelForCausalLM.from_pretrained(fixture("models/llama"), {
  attn_implementation: "eager",
});
const prompt = [5, 6, 7, 8];
const greedy = { max_new_tokens: 6, eos_token_id: null };
const padded = {
  input_ids: torch.tensor([prompt, [2, 2, 9, 10], [3, 4, 3, 4]]),
  attention_mask: torch.tensor([
    [1, 1, 1, 1],
    [0, 0, 1, 1],
    [1, 1, 1, 1],
  ]),
};

function tiny(): LlamaForCausalLM {
  torch.manual_seed(0);
  return new LlamaForCausalLM(
    new LlamaConfig({
      vocab_size: 32,
      hidden_size: 16,
      intermediate_size: 16,
      num_hidden_layers: 2,
      num_attention_heads: 2,
    }),
  ).eval();
}

function near(t: Test, a: Tensor, b: Tensor, message: string): void {
  t.same(a.shape, b.shape, `${message}: shape`);
  t.ok(torch.allclose(a, b, { atol: 1e-5, rtol: 1e-4 }), message);
}

t.test("wrong input", async (t) => {
  await t.rejects(model.generate(prompt, { ...greedy, mode: "fast" as never }), {
    code: "ERR_INVALID_ARGUMENT",
    message: /mode/,
  });
  await t.rejects(model.generate(prompt, { ...greedy, prefill_chunk_size: 0 }), {
    code: "ERR_INVALID_ARGUMENT",
    message: /prefill_chunk_size/,
  });
  const cache = new StaticCache({ config: model.config as never, max_cache_len: 6 });
  await t.rejects(model.generate({ input_ids: [prompt], past_key_values: cache }, greedy), {
    code: "ERR_INVALID_ARGUMENT",
    message: /holds 6 tokens/,
  });
});

t.test("prompts of all lengths, few recordings", async (t) => {
  const before = programsOf(model as never).recordings.size;
  for (const length of [1, 2, 15, 16, 17, 18, 31, 33, 40]) {
    const ids = Array.from({ length }, (_, i) => 3 + ((i * 7) % 40));
    for (const max_new_tokens of [1, 5]) {
      const [a, b] = await Promise.all(
        (["program", "eager"] as const).map((mode) =>
          model.generate(ids, { ...greedy, max_new_tokens, mode }),
        ),
      );
      t.same(a?.tolist(), b?.tolist(), `${length} and ${max_new_tokens}`);
    }
  }
  const made = programsOf(model as never).recordings.size - before;
  t.ok(made <= 14, `${made} recordings`);
  const size = programsOf(model as never).recordings.size;
  await model.generate(prompt.slice(1), { ...greedy, max_new_tokens: 3 });
  t.equal(programsOf(model as never).recordings.size, size, "another length in the same bucket");
});

t.test("settings: the same tokens and scores in both modes, with a seed too", async (t) => {
  const each: Record<string, object> = {
    greedy: {},
    sampled: { do_sample: true },
    warpers: { do_sample: true, temperature: 0.7, top_k: 20, top_p: 0.9, min_p: 0.01, typical_p: 0.9 },
    cutoffs: { do_sample: true, epsilon_cutoff: 0.005, eta_cutoff: 0.005 },
    "top h": { do_sample: true, top_h: 0.5 },
    repetition: { repetition_penalty: 1.4, no_repeat_ngram_size: 2 },
    encoder: { encoder_repetition_penalty: 1.5, encoder_no_repeat_ngram_size: 3 },
    "eos list": { eos_token_id: [35, 54], pad_token_id: 1 },
    lengths: { eos_token_id: 35, pad_token_id: 1, min_new_tokens: 4 },
    "min length": { eos_token_id: 35, pad_token_id: 1, min_length: 7 },
    forced: { forced_bos_token_id: 9, forced_eos_token_id: 11 },
    decay: { eos_token_id: 35, pad_token_id: 1, exponential_decay_length_penalty: [1, 1.5] },
    banned: {
      bad_words_ids: [[40], [54, 40]],
      sequence_bias: [
        [[11], 3],
        [[5, 12], 4],
      ],
    },
    suppressed: { suppress_tokens: [35], begin_suppress_tokens: [54, 40] },
    normalized: { renormalize_logits: true, remove_invalid_values: true },
    several: { do_sample: true, num_return_sequences: 2 },
  };
  for (const [name, settings] of Object.entries(each)) {
    for (const inputs of [{ input_ids: torch.tensor([prompt]) }, padded]) {
      const [a, b] = (await Promise.all(
        (["program", "eager"] as const).map((mode) =>
          model.generate(inputs, {
            max_new_tokens: 8,
            eos_token_id: null,
            seed: 3,
            return_dict_in_generate: true,
            output_scores: true,
            output_logits: true,
            ...settings,
            mode,
          }),
        ),
      )) as [GenerateDecoderOnlyOutput, GenerateDecoderOnlyOutput];
      t.same(a.sequences.tolist(), b.sequences.tolist(), name);
      near(t, torch.stack([...(a.scores ?? [])]), torch.stack([...(b.scores ?? [])]), `${name}: scores`);
      near(t, torch.stack([...(a.logits ?? [])]), torch.stack([...(b.logits ?? [])]), `${name}: logits`);
    }
  }
});

t.test("a processor over a sequence with room behind it gives what it gives on the exact one", (t) => {
  torch.manual_seed(1);
  const eos_token_id = [3, 5];
  const make = torchformers as unknown as Record<string, new (options: object) => LogitsProcessor>;
  const build = (name: string, options: object) => new (make[name] as (typeof make)[string])(options);
  for (const length of [1, 2, 5, 9]) {
    for (const content of [0, 1, 2]) {
      const room = 16;
      const ids = torch.randint(0, 6, [2, room], { dtype: "int64" });
      const exact = ids.narrow(1, 0, length);
      const prompt = Math.min(length, 2);
      const padding = torch.tensor([0, 1]);
      const encoder_input_ids = ids.narrow(1, 0, prompt);
      const scores = torch.randn(2, 12);
      const processors = {
        MinLengthLogitsProcessor: { min_length: 5, eos_token_id },
        MinNewTokensLengthLogitsProcessor: { prompt_length_to_skip: prompt, min_new_tokens: 3, eos_token_id },
        ForcedBOSTokenLogitsProcessor: { bos_token_id: 4 },
        ForcedEOSTokenLogitsProcessor: { max_length: 6, eos_token_id },
        ExponentialDecayLengthPenalty: {
          exponential_decay_length_penalty: [1, 1.3],
          eos_token_id,
          input_ids_seq_length: prompt,
        },
        SuppressTokensLogitsProcessor: { suppress_tokens: [1, 2] },
        SuppressTokensAtBeginLogitsProcessor: { begin_suppress_tokens: [1], begin_index: prompt },
        RepetitionPenaltyLogitsProcessor: { penalty: 1.3, prompt_ignore_length: padding },
        EncoderRepetitionPenaltyLogitsProcessor: { penalty: 1.3, encoder_input_ids },
        NoRepeatNGramLogitsProcessor: { ngram_size: content + 1 },
        EncoderNoRepeatNGramLogitsProcessor: { encoder_ngram_size: content + 1, encoder_input_ids },
        SequenceBiasLogitsProcessor: {
          sequence_bias: [
            [[1], 2],
            [[0, 2], 1],
            [[1, 2, 3], -1],
            [[3, 4, 5, 0], 5],
          ],
        },
        NoBadWordsLogitsProcessor: { bad_words_ids: [[1, 2], [4]] },
      };
      const number = (value: number) => torch.tensor(value, { dtype: "int64" });
      const sequence = new PaddedSequence(
        { ids, length: number(length), prompt_length: number(prompt), padding },
        prompt,
      );
      for (const [name, options] of Object.entries(processors)) {
        const expected = build(name, options).process(exact, scores);
        const actual = build(name, options).processPadded(sequence, scores);
        t.ok(actual.equal(expected), `${name}, ${length} tokens`);
      }
    }
  }
  t.end();
});

t.test("what is asked for beside the tokens", async (t) => {
  const options = {
    max_new_tokens: 4,
    eos_token_id: null,
    return_dict_in_generate: true,
    output_attentions: true,
    output_hidden_states: true,
  } as const;
  const processors: Record<string, object> = {
    "the loop by itself": {},
    "with a processor in JavaScript": { logits_processor: [(_ids: Tensor, scores: Tensor) => scores.mul(1)] },
    "in chunks": { prefill_chunk_size: 3 },
  };
  for (const [name, more] of Object.entries(processors)) {
    const [a, b] = await Promise.all(
      (["program", "eager"] as const).map((mode) => model.generate(padded, { ...options, ...more, mode })),
    );
    t.same(a?.sequences.tolist(), b?.sequences.tolist(), name);
    t.same(a?.keys(), b?.keys());
    for (const field of ["attentions", "hidden_states"] as const) {
      t.equal(a?.[field]?.length, 4);
      for (const [step, tensors] of (b?.[field] ?? []).entries()) {
        for (const [layer, tensor] of tensors.entries()) {
          // Rows of padding see nothing, and their numbers mean nothing.
          const actual = a?.[field]?.[step]?.[layer] as Tensor;
          t.same(actual.shape, tensor.shape, `${field} ${step} ${layer}: shape`);
          const real = (t: Tensor) => t.select(0, 0);
          near(t, real(actual), real(tensor), `${field} ${step} ${layer}`);
        }
      }
    }
    const [mine, its] = [a?.past_key_values, b?.past_key_values] as [DynamicCache, DynamicCache];
    t.ok(mine instanceof DynamicCache);
    t.equal(mine.get_seq_length(), 7);
    const [ours, theirs] = [mine, its].map(({ layers }) => layers.at(-1)?.keys as Tensor) as [Tensor, Tensor];
    near(t, ours.select(0, 2), theirs.select(0, 2), "cache");
  }
});

t.test("a prompt in chunks", async (t) => {
  const ids = Array.from({ length: 23 }, (_, i) => 3 + ((i * 11) % 50));
  const expected = (await model.generate(ids, { ...greedy, mode: "eager" })).tolist();
  for (const mode of ["program", "eager"] as const) {
    for (const prefill_chunk_size of [1, 7, 8, 23, 100])
      t.same(
        (await model.generate(ids, { ...greedy, prefill_chunk_size, mode })).tolist(),
        expected,
        `${mode} ${prefill_chunk_size}`,
      );
  }
});

t.test("a long answer outgrows its cache", async (t) => {
  const one = tiny();
  const options = { max_new_tokens: 1100, eos_token_id: null };
  const inputs = {
    input_ids: torch.tensor([
      [4, 5, 6],
      [2, 5, 6],
    ]),
    attention_mask: torch.tensor([
      [1, 1, 1],
      [0, 1, 1],
    ]),
  };
  const expected = (await one.generate(inputs, { ...options, mode: "eager" })).tolist();
  t.same((await one.generate(inputs, { ...options, mode: "program" })).tolist(), expected, "by itself");
  const same = (_ids: Tensor, scores: Tensor) => scores;
  const crossing = { ...options, max_new_tokens: 400, mode: "program", logits_processor: [same] } as const;
  const start = (expected as number[][]).map((row) => row.slice(0, 403));
  t.same((await one.generate(inputs, crossing)).tolist(), start, "with a processor");
  const rows: number[][] = [[], []];
  for await (const { ids } of one.stream(inputs, { ...options, mode: "program" }))
    for (const [row, id] of (ids.tolist() as number[]).entries()) rows[row]?.push(id);
  t.same(
    rows,
    (expected as number[][]).map((row) => row.slice(3)),
    "as a stream",
  );
});

t.test("a cache of the caller's goes on", async (t) => {
  const config = model.config as never;
  const whole = (await model.generate(prompt, { ...greedy, mode: "eager" })).tolist();
  const caches: Record<string, () => DynamicCache | StaticCache> = {
    dynamic: () => new DynamicCache({ config }),
    "dynamic without config": () => new DynamicCache(),
    static: () => new StaticCache({ config, max_cache_len: 20 }),
  };
  for (const [name, make] of Object.entries(caches)) {
    for (const mode of ["program", "eager"] as const) {
      const past_key_values = make();
      const input_ids = torch.tensor([prompt]);
      const first = await model.generate(
        { input_ids, past_key_values },
        { ...greedy, max_new_tokens: 3, mode },
      );
      const length = past_key_values.get_seq_length();
      t.equal(typeof length === "number" ? length : length.item(), 6, `${name}, ${mode}: its length`);
      const second = await model.generate(
        { input_ids: first, past_key_values },
        { ...greedy, max_new_tokens: 3, mode },
      );
      t.same(second.tolist(), whole, `${name}, ${mode}`);
    }
  }
});

t.test("what cannot be recorded runs eagerly, with one warning", async (t) => {
  const warnings: string[] = [];
  const listen = (warning: Error) => void warnings.push(warning.message);
  process.on("warning", listen);
  process.env.TORCHFORMERS_LOG = "";
  try {
    const hooked = tiny();
    const expected = (await hooked.generate(prompt, { ...greedy, mode: "program" })).tolist();
    let calls = 0;
    const hook = hooked.model.norm.register_forward_hook(() => void calls++);
    for (let i = 0; i < 2; i++) t.same((await hooked.generate(prompt, greedy)).tolist(), expected);
    t.equal(calls, 12, "the hook was called at each step");
    await t.rejects(hooked.generate(prompt, { ...greedy, mode: "program" }), {
      code: "ERR_TRACE",
      message: /model.norm has forward hooks/,
    });
    hook.remove();
    t.same((await hooked.generate(prompt, { ...greedy, mode: "program" })).tolist(), expected);

    class Reads extends LlamaForCausalLM {
      override forward(inputs: never) {
        const out = super.forward(inputs);
        out.logits.max().item();
        return out;
      }
    }
    const reads = new Reads(hooked.config);
    reads.load_state_dict(hooked.state_dict());
    t.same((await reads.eval().generate(prompt, greedy)).tolist(), expected);
    await new Promise((resolve) => setImmediate(resolve));
    t.match(
      warnings.filter((text) => /works eagerly/.test(text)),
      [/norm has forward hooks/, /\[item\][\s\S]*program\.test/],
    );
  } finally {
    process.env.TORCHFORMERS_LOG = "silent";
    process.off("warning", listen);
  }
});

t.test("weights may change between calls, and not while they are in use", async (t) => {
  const one = tiny();
  const run = async (mode: "program" | "eager") => (await one.generate(prompt, { ...greedy, mode })).tolist();
  t.same(await run("program"), await run("eager"));
  torch.no_grad(() => one.model.norm.weight?.mul_(-1));
  t.same(await run("program"), await run("eager"), "written in place");
  one.to("float64");
  t.same(await run("program"), await run("eager"), "another dtype");
  one.to("float32");
  one.load_state_dict(tiny().state_dict());
  t.same(await run("program"), await run("eager"), "loaded");

  const work = one.generate(prompt, { ...greedy, max_new_tokens: 300 });
  while (torch.no_grad(() => isFree(() => one.lm_head.weight.zero_().add_(1))))
    await new Promise((resolve) => setImmediate(resolve));
  t.pass("a write to what it uses is refused");
  await work;
  torch.no_grad(() => one.lm_head.weight.zero_());
});

/** Whether a write went through; false for a TensorBusyError. */
function isFree(write: () => unknown): boolean {
  try {
    write();
    return true;
  } catch (error) {
    if ((error as { code?: string }).code === "ERR_TENSOR_BUSY") return false;
    throw error;
  }
}

t.test("requests take turns, also of several models", async (t) => {
  const [one, other] = [tiny(), model];
  const options = { max_new_tokens: 40, eos_token_id: null };
  const alone = [
    (await one.generate(prompt, options)).tolist(),
    (await other.generate(prompt, options)).tolist(),
  ];
  const ended: number[] = [];
  const long = one.generate(prompt, { ...options, max_new_tokens: 900 }).then(() => ended.push(0));
  const results = await Promise.all(
    [one, other, one, other].map(async (m) => {
      const ids = (await m.generate(prompt, options)).tolist();
      ended.push(1);
      return ids;
    }),
  );
  t.same(results, [...alone, ...alone]);
  await long;
  t.same(ended, [1, 1, 1, 1, 0], "a long one does not hold up the others");
});

t.test("the default generator", async (t) => {
  const options = { max_new_tokens: 24, eos_token_id: null, do_sample: true };
  torch.manual_seed(11);
  const eager = (await model.generate(prompt, { ...options, mode: "eager" })).tolist();
  const next = torch.rand([1]).item();
  torch.manual_seed(11);
  t.same((await model.generate(prompt, options)).tolist(), eager);
  t.equal(torch.rand([1]).item(), next, "is where eager mode leaves it");

  torch.manual_seed(11);
  const [a, b] = await Promise.all([model.generate(prompt, options), model.generate(prompt, options)]);
  t.same(a.tolist(), eager, "the first of two");
  t.not(JSON.stringify(b.tolist()), JSON.stringify(eager), "the second draws other numbers");

  torch.manual_seed(11);
  const work = model.generate(prompt, options);
  await new Promise((resolve) => setImmediate(resolve));
  torch.manual_seed(12);
  const drawn = torch.rand([1]).item();
  await work;
  torch.manual_seed(12);
  torch.rand([1]);
  const after = torch.rand([1]).item();
  torch.manual_seed(12);
  t.equal(torch.rand([1]).item(), drawn);
  t.equal(torch.rand([1]).item(), after);

  const generator = new torch.Generator().manual_seed(11);
  t.same((await model.generate(prompt, { ...options, generator })).tolist(), eager, "one of the caller's");
});

t.test("every way to end frees everything", async (t) => {
  const one = tiny();
  const input_ids = torch.tensor([prompt]);
  const options = { max_new_tokens: 4000, eos_token_id: null };
  const tokenizer = await AutoTokenizer.from_pretrained(fixture("demo-llama"));
  const same = (_ids: Tensor, scores: Tensor) => scores;
  const fails = (after: number) => {
    let calls = 0;
    return (_ids: Tensor, scores: Tensor) => {
      if (++calls === after) throw new RangeError("no more");
      return scores;
    };
  };
  const ways: Record<string, () => Promise<void>> = {
    "a whole run": async () =>
      (await one.generate({ input_ids }, { ...options, max_new_tokens: 9 })).dispose(),
    "numbers as prompt": async () =>
      (await one.generate(prompt, { ...options, max_new_tokens: 9 })).dispose(),
    "numbers, eagerly": async () =>
      (await one.generate([prompt], { ...options, max_new_tokens: 9, mode: "eager" })).dispose(),
    break: async () => {
      for await (const { ids } of one.stream({ input_ids }, options)) {
        ids.dispose();
        break;
      }
    },
    "break later": async () => {
      let steps = 0;
      for await (const { ids } of one.stream({ input_ids }, options)) {
        ids.dispose();
        if (++steps === 70) break;
      }
    },
    "an exception of the consumer": async () => {
      await t.rejects(
        (async () => {
          for await (const { ids } of one.stream({ input_ids }, options)) {
            ids.dispose();
            throw new RangeError("mine");
          }
        })(),
        /mine/,
      );
    },
    "abort before": () =>
      t.rejects(one.generate({ input_ids }, { ...options, signal: AbortSignal.abort(new Error("early")) }), {
        message: "early",
      }) as never,
    "abort while it runs": async () => {
      const abort = new AbortController();
      const work = one.generate({ input_ids }, { ...options, signal: abort.signal });
      setTimeout(() => abort.abort(new Error("enough")), 15);
      await t.rejects(work, { message: "enough" });
    },
    "abort of a stream": async () => {
      const abort = new AbortController();
      await t.rejects(
        (async () => {
          for await (const { ids } of one.stream({ input_ids }, { ...options, signal: abort.signal })) {
            ids.dispose();
            abort.abort(new Error("enough"));
          }
        })(),
        { message: "enough" },
      );
    },
    "abort with a processor": async () => {
      const abort = new AbortController();
      const { signal } = abort;
      const work = one.generate(prompt, { ...options, signal, stop_strings: "zzz", tokenizer });
      setTimeout(() => abort.abort(new Error("enough")), 15);
      await t.rejects(work, { message: "enough" });
    },
    "a streamer that fails": async () => {
      const shown: Tensor[] = [];
      const put = (ids: Tensor) => {
        shown.push(ids);
        if (shown.length === 4) throw new RangeError("no");
      };
      await t.rejects(
        one.generate({ input_ids }, { ...options, streamer: { put, end() {} } as never }),
        /no/,
      );
      for (const ids of shown) if (ids !== input_ids) ids.dispose();
    },
    "a model that fails": async () => {
      await t.rejects(one.generate([[1, 2, 900]], options), /embedding[\s\S]*(index|range)/);
    },
  };
  for (const [name, way] of Object.entries(ways)) {
    await way();
    settle();
    const before = live_tensors();
    for (let i = 0; i < 3; i++) await way();
    t.equal(live_tensors(), before, name);
  }
  for (const after of [1, 5]) {
    const processors = [same, fails(after)];
    await t.rejects(one.generate({ input_ids }, { ...options, logits_processor: processors }), /no more/);
  }
  settle();
  const before = live_tensors();
  await t.rejects(one.generate({ input_ids }, { ...options, logits_processor: [fails(5)] }), /no more/);
  settle();
  t.equal(live_tensors(), before, "a processor that fails");
});

t.test("a consumer that stops asking stops the work", async (t) => {
  const one = tiny();
  const steps = one.stream(prompt, { max_new_tokens: 100_000, eos_token_id: null });
  await steps.next();
  await new Promise((resolve) => setTimeout(resolve, 50));
  const begin = performance.now();
  await torch.compile((x: Tensor) => x.add(1))(torch.ones(2));
  t.ok(performance.now() - begin < 1000);
  await steps.return(undefined);
});

t.test("a stream that is dropped halfway is garbage", async (t) => {
  const one = tiny();
  settle();
  const before = live_tensors();
  await (async () => {
    const steps = one.stream(prompt, { max_new_tokens: 100_000, eos_token_id: null });
    (await steps.next()).value?.ids.dispose();
  })();
  t.ok(live_tensors() > before);
  for (let i = 0; i < 100 && live_tensors() > before; i++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    settle();
  }
  t.equal(live_tensors(), before);
  // Its loop ends before its next operator, which the event loop hears of a moment later.
  const write = () => torch.no_grad(() => one.lm_head.weight.zero_());
  for (let i = 0; i < 100; i++) {
    try {
      write();
      break;
    } catch (error) {
      if ((error as { code?: string }).code !== "ERR_TENSOR_BUSY") throw error;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
  t.doesNotThrow(write, "the weights are free again");
});

t.test("out of memory is an error, and all goes on", async (t) => {
  const program = `
    import { LlamaConfig, LlamaForCausalLM, torch } from "torchformers";
    process.env.TORCHFORMERS_LOG = "silent";
    const config = new LlamaConfig({ vocab_size: 32, hidden_size: 16, intermediate_size: 16, num_hidden_layers: 2, num_attention_heads: 2 });
    class Hungry extends LlamaForCausalLM {
      forward(inputs) {
        const out = super.forward(inputs);
        if (this.hungry) out.logits.add_(torch.zeros([2 ** 38]).sum());
        return out;
      }
    }
    const model = new Hungry(config).eval();
    model.hungry = false;
    const options = { max_new_tokens: 5, eos_token_id: null };
    const run = async () => (await model.generate([3, 4, 5], options)).dispose();
    const fail = (options) => model.generate([3, 4, 5], options).then(() => "done", (error) => error.code);
    await run();
    const before = torch.memory_stats().live_tensors;
    const codes = [await fail({ ...options, max_new_tokens: 2 ** 32 })];
    model.hungry = true;
    codes.push(await fail(options));
    model.hungry = false;
    await run();
    console.log(JSON.stringify([codes, torch.memory_stats().live_tensors <= before]));`;
  const { stdout } = await runProgram(program, t.testdir({}), "ulimit -v 100000000; ");
  t.same(JSON.parse(stdout), [["ERR_OUT_OF_MEMORY", "ERR_OUT_OF_MEMORY"], true]);
});
