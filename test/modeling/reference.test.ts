// Compares with what the Python reference gave for the same seeds: see scripts/goldens/modeling.py.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import * as torchformers from "torchformers";
import {
  ACT2FN,
  create_bidirectional_mask,
  create_bidirectional_sliding_window_mask,
  create_causal_mask,
  create_chunked_causal_mask,
  create_sliding_window_causal_mask,
  DynamicCache,
  ForSequenceClassificationLoss,
  type GenerateOptions,
  LlamaConfig,
  LlamaForCausalLM,
  type PreTrainedModel,
  safetensors,
  type Tensor,
  torch,
} from "torchformers";
import { fixture } from "../support/fixtures.js";

const folder = fixture("modeling");
const cases = JSON.parse(readFileSync(join(folder, "cases.json"), "utf8"));
const golden = await safetensors.load_file(join(folder, "golden.safetensors"));

/** The golden tensors under a prefix. */
const under = (prefix: string): Record<string, Tensor> =>
  Object.fromEntries(
    Object.entries(golden)
      .filter(([name]) => name.startsWith(`${prefix}/`))
      .map(([name, tensor]) => [name.slice(prefix.length + 1), tensor]),
  );

const get = (name: string) => golden[name] as Tensor;

function close(t: Test, actual: Tensor, expected: Tensor, what: string, tolerance = 1e-4): void {
  t.same(actual.shape, expected.shape, `${what}: shape`);
  t.ok(
    torch.allclose(actual, expected, { atol: tolerance, rtol: tolerance }),
    `${what}: off by ${actual.sub(expected).abs().max().item()}`,
  );
}

/** The generator stands where Python's stood: as many numbers were drawn. */
const after = (t: Test, expected: number) =>
  t.ok(Math.abs(torch.rand([1]).item() - expected) < 1e-6, "as many draws");

t.test("a seed gives the reference's weights", async (t) => {
  for (const { name, class: cls, config, seed, after: next } of cases.seeded) {
    torch.manual_seed(seed);
    const Model = (torchformers as unknown as Record<string, new (config: LlamaConfig) => PreTrainedModel>)[
      cls
    ] as new (
      config: LlamaConfig,
    ) => PreTrainedModel;
    const model = new Model(new LlamaConfig(config));
    const expected = under(`seeded.${name}`);
    const state = model.state_dict();
    t.same(Object.keys(state).sort(), Object.keys(expected).sort(), `${name}: names`);
    for (const [key, tensor] of Object.entries(expected))
      t.ok(torch.equal(state[key] as Tensor, tensor), `${name}: ${key}`);
    after(t, next);
  }
});

t.test("rotary kinds", async (t) => {
  for (const { name, config, attention_scaling } of cases.rope) {
    torch.manual_seed(3);
    const model = new LlamaForCausalLM(new LlamaConfig(config)).eval();
    const { inv_freq, short, long } = under(`rope.${name}`) as Record<"inv_freq" | "short" | "long", Tensor>;
    const rotary = model.model.rotary_emb;
    t.ok(Math.abs(rotary.attention_scaling - attention_scaling) < 1e-9, `${name}: scaling`);
    close(t, rotary.inv_freq, inv_freq, `${name}: frequencies`, 1e-7);
    const input_ids = get("rope/ids");
    torch.no_grad(() => {
      close(t, model.forward({ input_ids: input_ids.narrow(1, 0, 6) }).logits, short, `${name}: short`);
      close(t, model.forward({ input_ids }).logits, long, `${name}: long`);
    });
  }
});

t.test("packed sequences", async (t) => {
  torch.manual_seed(3);
  const model = new LlamaForCausalLM(
    new LlamaConfig(cases.sample.length ? { ...cases.rope[0].config, rope_parameters: null } : {}),
  ).eval();
  const { logits } = torch.no_grad(() =>
    model.forward({ input_ids: get("packed/ids"), position_ids: get("packed/positions"), use_cache: false }),
  );
  close(t, logits, get("packed/logits"), "logits");
});

t.test("resizing the vocabulary", async (t) => {
  for (const {
    name,
    config,
    arguments: { new_num_tokens, ...options },
    vocab_size,
    after: next,
  } of cases.resize) {
    torch.manual_seed(9);
    const model = new LlamaForCausalLM(new LlamaConfig(config));
    model.resize_token_embeddings(new_num_tokens, options);
    t.equal(model.config.vocab_size, vocab_size);
    const state = model.state_dict();
    for (const [key, tensor] of Object.entries(under(`resize.${name}`)))
      close(t, state[key] as Tensor, tensor, `${name}: ${key}`, 1e-6);
    after(t, next);
  }
});

t.test("sampling with a seed", async (t) => {
  torch.manual_seed(3);
  const model = new LlamaForCausalLM(
    new LlamaConfig({ ...cases.seeded[0].config, initializer_range: 0.3 }),
  ).eval();
  const inputs = { input_ids: get("sample/ids"), attention_mask: get("sample/mask") };
  for (const { options, seed, sequences, after: next } of cases.sample) {
    torch.manual_seed(seed);
    t.same(
      (await model.generate(inputs, options as GenerateOptions)).tolist(),
      sequences,
      JSON.stringify(options),
    );
    after(t, next);
  }
});

t.test("guidance", async (t) => {
  torch.manual_seed(3);
  const model = new LlamaForCausalLM(
    new LlamaConfig({ ...cases.seeded[0].config, initializer_range: 0.3 }),
  ).eval();
  const inputs = { input_ids: get("sample/ids"), attention_mask: get("sample/mask") };
  for (const { options, negative, sequences } of cases.guidance) {
    const more = negative === null ? {} : { negative_prompt_ids: torch.tensor(negative) };
    const out = await model.generate(inputs, { max_new_tokens: 10, ...options, ...more } as GenerateOptions);
    t.same(out.tolist(), sequences, JSON.stringify(options));
  }
});

t.test("activations", async (t) => {
  const { x, ...expected } = under("activation") as Record<string, Tensor>;
  for (const [name, values] of Object.entries(expected))
    close(t, ACT2FN(name).forward(x as Tensor), values, name, 1e-5);
  t.throws(() => ACT2FN("sillu"), { code: "ERR_INVALID_ARGUMENT", suggestion: "silu" });
});

t.test("masks", async (t) => {
  const create = {
    causal: create_causal_mask,
    bidirectional: create_bidirectional_mask,
    sliding: create_sliding_window_causal_mask,
    bidirectional_sliding: create_bidirectional_sliding_window_mask,
    chunked: create_chunked_causal_mask,
  };
  const attention_mask = get("mask/padding");
  for (const { name, kind, past, queries, padded, none } of cases.mask) {
    const config = {
      _attn_implementation: "eager",
      num_hidden_layers: 2,
      sliding_window: kind.includes("sliding") ? 3 : null,
      attention_chunk_size: kind === "chunked" ? 4 : null,
    };
    const past_key_values = past > 0 ? new DynamicCache({ config }) : undefined;
    for (const layer of [0, 1])
      past_key_values?.update(torch.zeros([2, 2, past, 4]), torch.zeros([2, 2, past, 4]), layer);
    const inputs_embeds = torch.zeros([2, queries, 16]);
    const mask = create[kind as keyof typeof create]({
      config,
      inputs_embeds,
      past_key_values,
      ...(padded ? { attention_mask } : {}),
    });
    if (none) t.ok(mask === undefined || mask.eq(0).all().item(), `${name}: none`);
    else if (mask) t.ok(torch.equal(mask.eq(0), get(`mask/${name}`)), name);
    else t.ok(get(`mask/${name}`).all().item(), `${name}: left out where nothing is masked`);
  }
});

t.test("regression", async (t) => {
  const { logits, labels, loss, loss1 } = under("regression") as Record<string, Tensor>;
  const config = (fields: object) => new LlamaConfig({ ...cases.seeded[0].config, ...fields });
  const regression = config({ num_labels: 2, problem_type: "regression" });
  close(
    t,
    ForSequenceClassificationLoss(logits as Tensor, labels as Tensor, regression),
    loss as Tensor,
    "two numbers",
  );
  const one = config({ num_labels: 1 });
  close(
    t,
    ForSequenceClassificationLoss(
      (logits as Tensor).narrow(1, 0, 1),
      (labels as Tensor).narrow(1, 0, 1),
      one,
    ),
    loss1 as Tensor,
    "one number",
  );
  t.equal(one.problem_type, "regression");
});

/** Same files, byte for byte. */
function sameFiles(t: Test, actual: string, expected: string): void {
  t.same(readdirSync(actual).sort(), readdirSync(expected).sort(), "names");
  for (const name of readdirSync(expected)) {
    t.ok(readFileSync(join(actual, name)).equals(readFileSync(join(expected, name))), name);
  }
}

t.test("saved files are the reference's", async (t) => {
  const config = () => new LlamaConfig(cases.seeded[0].config);
  torch.manual_seed(0);
  const model = new LlamaForCausalLM(config());
  const dir = t.testdir();
  await model.save_pretrained(join(dir, "saved"));
  sameFiles(t, join(dir, "saved"), join(folder, "saved"));
  await model.save_pretrained(join(dir, "sharded"), { max_shard_size: "5KB" });
  sameFiles(t, join(dir, "sharded"), join(folder, "saved-sharded"));

  const again = await LlamaForCausalLM.from_pretrained(join(dir, "saved"));
  await again.save_pretrained(join(dir, "again"), { max_shard_size: "5KB" });
  sameFiles(t, join(dir, "again"), join(folder, "saved-again"));

  torch.manual_seed(7);
  const tied = new LlamaForCausalLM(
    new LlamaConfig({ ...cases.seeded[0].config, tie_word_embeddings: true }),
  ).to("bfloat16");
  await tied.save_pretrained(join(dir, "tied"));
  sameFiles(t, join(dir, "tied"), join(folder, "saved-tied"));

  // Fewer shards than before: the old ones go.
  await model.save_pretrained(join(dir, "sharded"), { max_shard_size: "1GB" });
  t.same(
    readdirSync(join(dir, "sharded")).filter((name) => /\d-of-/.test(name)),
    [],
  );
});
