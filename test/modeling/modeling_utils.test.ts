// PreTrainedModel: construction, loading, saving, and a user's own models.
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import {
  AutoConfig,
  AutoModel,
  AutoModelForCausalLM,
  AutoModelForSequenceClassification,
  type ConfigKwargs,
  DynamicCache,
  DynamicSlidingWindowLayer,
  LlamaConfig,
  LlamaForCausalLM,
  LlamaForSequenceClassification,
  LlamaModel,
  nn,
  PreTrainedModel,
  PretrainedConfig,
  register_attention,
  StaticCache,
  safetensors,
  sdpa_attention_forward,
  type Tensor,
  torch,
} from "torchformers";
import { foldKeys, loadingReport } from "#lib/modeling/loading_report.js";
import { fixture } from "../support/fixtures.js";

process.env.TORCHFORMERS_LOG = "silent";

const llama = fixture("models/llama");
const TINY = {
  vocab_size: 48,
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  pad_token_id: 1,
};
const tiny = (more: object = {}) => new LlamaConfig({ ...TINY, ...more });
const ids = () => torch.tensor([[3, 4, 5, 6, 7]]);

class TaggerConfig extends PretrainedConfig {
  static override readonly model_type: string = "test-tagger";
  static override readonly field_types = { size: "int" };
  declare size: number;
  constructor({ size = 4, ...kwargs }: ConfigKwargs & { size?: number } = {}) {
    super(kwargs);
    this.size = size;
    this.post_init();
  }
}

/** A user's model: another output, its own initialization, a part that is a library model. */
class Tagger extends PreTrainedModel {
  static override readonly config_class = TaggerConfig;
  static override base_model_prefix = "body";
  declare readonly config: TaggerConfig;
  readonly body: nn.Linear;
  readonly score: nn.Linear;
  readonly scale: nn.Parameter;

  constructor(config: TaggerConfig) {
    super(config);
    this.body = new nn.Linear(config.size, config.size);
    this.score = new nn.Linear(config.size, 2);
    this.scale = new nn.Parameter(torch.ones([1]));
    this.post_init();
  }

  override _init_weights(module: nn.Module): void {
    super._init_weights(module);
    if (module instanceof nn.Linear) module.weight.data.normal_({ mean: 3, std: 0 });
    if (module === this) this.scale.data.fill_(5);
  }

  override forward(x: Tensor): Tensor {
    return this.score.forward(this.body.forward(x)).mul(this.scale);
  }
}

t.test("wrong input", async (t) => {
  t.throws(() => new LlamaModel({} as LlamaConfig), {
    code: "ERR_INVALID_ARGUMENT",
    message: /PretrainedConfig/,
  });
  const model = new LlamaForCausalLM(tiny());
  t.throws(() => model.forward({ input_id: ids() } as object), {
    code: "ERR_INVALID_ARGUMENT",
    suggestion: "input_ids",
  });
  t.throws(() => model.forward({}), { code: "ERR_INVALID_ARGUMENT" });
  t.throws(() => model.forward({ input_ids: ids(), output_attentions: true }), {
    code: "ERR_INVALID_ARGUMENT",
    message: /eager/,
  });
  t.throws(() => model.set_attn_implementation("sdpaa"), {
    code: "ERR_INVALID_ARGUMENT",
    suggestion: "sdpa",
  });
  t.throws(() => new (AutoModel as unknown as new () => unknown)(), { code: "ERR_INVALID_ARGUMENT" });
  t.throws(
    () =>
      new LlamaForSequenceClassification(tiny({ pad_token_id: null })).forward({
        input_ids: torch.tensor([[1], [2]]),
      }),
    { message: /pad_token_id/ },
  );
  await t.rejects(LlamaForCausalLM.from_pretrained(llama, { dtyp: "float32" }), {
    code: "ERR_INVALID_ARGUMENT",
    suggestion: "dtype",
  });
  await t.rejects(LlamaForCausalLM.from_pretrained(llama, { dtype: "int64" }), {
    code: "ERR_INVALID_ARGUMENT",
  });
  await t.rejects(LlamaForCausalLM.from_pretrained(llama, { attn_implementation: "flash" }), {
    code: "ERR_INVALID_ARGUMENT",
  });
  await t.rejects(LlamaForCausalLM.from_pretrained(llama, { quantization_config: { quant_method: "awq" } }), {
    code: "ERR_UNSUPPORTED_QUANTIZATION",
    message: /awq/,
  });
  await t.rejects(
    LlamaForCausalLM.from_pretrained(llama, { signal: AbortSignal.abort(new Error("enough")) }),
    { message: "enough" },
  );
  await t.rejects(LlamaForCausalLM.from_pretrained("/no/such/folder"), { code: "ERR_ENTRY_NOT_FOUND" });
  await t.rejects(model.save_pretrained(t.testdir(), { max_shard_size: "5GiB" }), {
    code: "ERR_INVALID_ARGUMENT",
  });
});

t.test("a quantized checkpoint is refused before its weights are read", async (t) => {
  const dir = t.testdir();
  const config = JSON.parse(readFileSync(join(llama, "config.json"), "utf8"));
  writeFileSync(
    join(dir, "config.json"),
    JSON.stringify({ ...config, quantization_config: { quant_method: "gptq", bits: 4 } }),
  );
  await t.rejects(AutoModelForCausalLM.from_pretrained(dir), {
    code: "ERR_UNSUPPORTED_QUANTIZATION",
    message: /gptq/,
  });
});

t.test("options of from_pretrained", async (t) => {
  const stages: string[] = [];
  const [model, info] = await LlamaForCausalLM.from_pretrained(llama, {
    torch_dtype: "bfloat16",
    low_cpu_mem_usage: true,
    attention_dropout: 0.5,
    strict: true,
    output_loading_info: true,
    device_map: "auto",
    progress_callback: ({ stage, loaded, total }) => {
      if (loaded === total) stages.push(stage);
    },
  });
  t.equal(model.dtype, "bfloat16");
  t.equal(model.config.dtype, "bfloat16");
  t.equal(model.config.attention_dropout, 0.5);
  t.equal(model.training, false);
  t.same(model.hf_device_map, { "": torch.cuda.is_available() ? "cuda:0" : "cpu" });
  t.equal(model.model.rotary_emb.inv_freq.dtype, "float32");
  t.same([...info.missing_keys, ...info.unexpected_keys, ...info.mismatched_keys], []);
  t.same(stages, ["resolve", "read", "ready"]);
  t.equal(torch.get_default_dtype(), "float32", "the default dtype is as before");

  const mapped = await LlamaForCausalLM.from_pretrained(llama);
  t.ok(torch.memory_stats().mapped_bytes > 0, "weights of the file's dtype are the mapping");
  torch.no_grad(() => mapped.lm_head.weight.zero_());
  const again = await LlamaForCausalLM.from_pretrained(llama);
  t.not(again.lm_head.weight.abs().sum().item(), 0, "a write to a mapped weight stays private");
});

t.test("the base model's prefix is added and stripped", async (t) => {
  const dir = t.testdir();
  const whole = await LlamaForCausalLM.from_pretrained(llama);
  const [base, lost] = await LlamaModel.from_pretrained(llama, { output_loading_info: true });
  t.same([...lost.unexpected_keys], ["lm_head.weight"]);
  t.ok(torch.equal(base.norm.weight as Tensor, whole.model.norm.weight as Tensor));
  await base.save_pretrained(dir);
  const [back, info] = await AutoModelForCausalLM.from_pretrained(dir, { output_loading_info: true });
  t.same([...info.missing_keys], ["lm_head.weight"]);
  t.same([...info.unexpected_keys], []);
  t.same(back.uninitialized_weights(), ["lm_head.weight"]);
  t.throws(() => back.assert_initialized(), {
    code: "ERR_UNINITIALIZED_WEIGHTS",
    message: /lm_head\.weight/,
  });
  torch.no_grad(() => (back as unknown as LlamaForCausalLM).lm_head.weight.add_(1));
  t.same(back.uninitialized_weights(), [], "trained since");
});

t.test("tied weights", async (t) => {
  const dir = t.testdir();
  const model = new LlamaForCausalLM(tiny({ tie_word_embeddings: true }));
  t.equal(model.lm_head.weight, model.model.embed_tokens.weight, "one parameter");
  t.equal(model.num_parameters(), new LlamaForCausalLM(tiny()).num_parameters() - 48 * 16);
  await model.save_pretrained(dir);
  const file = join(dir, "model.safetensors");
  const saved = await safetensors.load_file(file);
  t.notOk("lm_head.weight" in saved, "saved once");
  const [loaded, info] = await LlamaForCausalLM.from_pretrained(dir, {
    strict: true,
    output_loading_info: true,
  });
  t.equal(loaded.lm_head.weight, loaded.model.embed_tokens.weight);
  t.same(info.missing_keys, new Set());

  const { "model.embed_tokens.weight": embeddings, ...rest } = saved as Record<string, Tensor>;
  await safetensors.save_file({ ...rest, "lm_head.weight": embeddings as Tensor }, file);
  const other = await LlamaForCausalLM.from_pretrained(dir, { strict: true });
  t.equal(other.lm_head.weight, other.model.embed_tokens.weight);
  t.ok(
    torch.equal(other.model.embed_tokens.weight, model.model.embed_tokens.weight),
    "the target may stand for the source",
  );

  await safetensors.save_file({ ...saved, "lm_head.weight": (embeddings as Tensor).add(1) }, file);
  const apart = await LlamaForCausalLM.from_pretrained(dir);
  t.not(apart.lm_head.weight, apart.model.embed_tokens.weight, "different values stay apart");

  const shared = new LlamaForCausalLM(tiny());
  (shared as { lm_head: { weight: nn.Parameter } }).lm_head.weight = shared.model.embed_tokens.weight;
  await t.rejects(shared.save_pretrained(dir), {
    code: "ERR_CHECKPOINT",
    message: /lm_head\.weight|embed_tokens/,
  });
});

t.test("renamed keys, sub-folders, variants", async (t) => {
  const dir = t.testdir();
  const model = new LlamaForCausalLM(tiny());
  await model.save_pretrained(join(dir, "inner"), { variant: "fp16" });
  const renamed = Object.fromEntries(
    Object.entries(model.state_dict()).map(([name, tensor]) => [`old.${name}`, tensor]),
  );
  await safetensors.save_file(renamed, join(dir, "inner", "model.safetensors"));
  const a = await LlamaForCausalLM.from_pretrained(dir, {
    subfolder: "inner",
    variant: "fp16",
    strict: true,
  });
  const b = await LlamaForCausalLM.from_pretrained(dir, {
    subfolder: "inner",
    key_mapping: { "^old\\.": "" },
    strict: true,
  });
  for (const each of [a, b]) t.ok(torch.equal(each.lm_head.weight, model.lm_head.weight));
});

t.test("a user's own model", async (t) => {
  const dir = t.testdir();
  const model = new Tagger(new TaggerConfig({ size: 3 }));
  t.equal(model.body.weight.mean().item(), 3, "initialized by its own rule");
  t.equal(model.scale.item(), 5);
  torch.no_grad(() => model.score.weight.fill_(2));
  await model.save_pretrained(dir);
  const loaded = await Tagger.from_pretrained(dir);
  const x = torch.ones([2, 3]);
  t.ok(torch.equal(loaded.forward(x), model.forward(x)));
  t.equal(loaded.config.size, 3);

  // Only what is missing is initialized, although the rule writes into everything.
  const file = join(dir, "model.safetensors");
  const { "score.bias": _bias, "body.weight": _weight, ...part } = await safetensors.load_file(file);
  await safetensors.save_file(part, file);
  const [partial, info] = await Tagger.from_pretrained(dir, { output_loading_info: true });
  t.same([...info.missing_keys].sort(), ["body.weight", "score.bias"]);
  t.equal(partial.score.weight.mean().item(), 2, "a loaded weight beside a missing bias is kept");
  t.equal(partial.body.weight.mean().item(), 3);

  AutoConfig.register("test-tagger", TaggerConfig);
  AutoModel.register(TaggerConfig, Tagger);
  t.ok((await AutoModel.from_pretrained(dir)) instanceof Tagger);
  t.ok((await AutoModel.from_config(new TaggerConfig())) instanceof Tagger);
  t.throws(() => AutoModelForCausalLM.register(TaggerConfig, LlamaForCausalLM), {
    code: "ERR_INVALID_ARGUMENT",
  });
  await t.rejects(AutoModelForSequenceClassification.from_pretrained(dir), {
    code: "ERR_INVALID_ARGUMENT",
    message: /test-tagger/,
  });
});

t.test("hooks, and outputs as objects", async (t) => {
  const model = new LlamaForCausalLM(tiny()).eval();
  const seen: string[] = [];
  const handle = model.model.layers[0]?.register_forward_hook(
    (module) => void seen.push(module.constructor.name),
  );
  const out = torch.no_grad(() => model.forward({ input_ids: ids(), use_cache: false }));
  handle?.remove();
  t.same(seen, ["LlamaDecoderLayer"]);
  t.same(out.keys(), ["logits"]);
  t.same(Object.keys(out), ["logits"]);
  t.equal(out.loss, undefined);
  t.equal(out.to_tuple().length, 1);
  t.same(
    torch.no_grad(() => model.forward({ input_ids: ids(), logits_to_keep: 2 })).logits.shape,
    [1, 2, 48],
  );
  t.same(
    torch.no_grad(() => model.forward({ input_ids: ids(), logits_to_keep: torch.tensor([0, 3]) })).logits
      .shape,
    [1, 2, 48],
  );
  t.same((await model.run({ input_ids: ids() })).logits.requires_grad, false);

  model.set_attn_implementation("eager");
  const eager = torch.no_grad(() =>
    model.forward({ input_ids: ids(), output_attentions: true, output_hidden_states: true }),
  );
  t.equal(eager.attentions?.length, 2);
  t.equal(eager.hidden_states?.length, 3);
  t.ok(torch.allclose(eager.logits, out.logits, { atol: 1e-5 }));

  let calls = 0;
  register_attention("counted", (...args) => {
    calls++;
    return sdpa_attention_forward(...args);
  });
  model.set_attn_implementation("counted");
  t.ok(
    torch.allclose(torch.no_grad(() => model.forward({ input_ids: ids() })).logits, out.logits, {
      atol: 1e-5,
    }),
  );
  t.equal(calls, 2);
});

t.test("nothing is left behind by a forward", async (t) => {
  const model = new LlamaForCausalLM(tiny()).eval();
  const input_ids = ids();
  const run = () => torch.no_grad(() => model.forward({ input_ids, use_cache: false }).logits.dispose());
  run();
  const before = torch.memory_stats().live_tensors;
  for (let i = 0; i < 200; i++) run();
  t.equal(torch.memory_stats().live_tensors, before);

  const cache = new DynamicCache({ config: model.config });
  torch.no_grad(() => model.forward({ input_ids, past_key_values: cache }).logits.dispose());
  t.equal(torch.memory_stats().live_tensors, before + 4, "keys and values of two layers stay");
  cache.dispose();
  t.equal(torch.memory_stats().live_tensors, before);

  const own = new LlamaForCausalLM(tiny());
  own.dispose();
  t.throws(() => own.forward({ input_ids }), { code: "ERR_DISPOSED" });

  const start = torch.memory_stats();
  for (const folder of ["models/llama", "models/llama-rope_llama3", "models/llama-sharded"]) {
    for (const dtype of ["float32", "bfloat16"] as const)
      (await LlamaForCausalLM.from_pretrained(fixture(folder), { dtype })).dispose();
  }
  t.equal(torch.memory_stats().live_tensors, start.live_tensors, "loaded and disposed");
  t.equal(torch.memory_stats().mapped_bytes, start.mapped_bytes);
});

t.test("caches", async (t) => {
  const model = new LlamaForCausalLM(tiny({ initializer_range: 0.5 })).eval();
  torch.no_grad(() => {
    const input_ids = torch.tensor([
      [3, 4, 5, 6, 7, 8],
      [9, 8, 7, 6, 5, 4],
    ]);
    const { logits } = model.forward({ input_ids, use_cache: false });
    const last = logits.narrow(1, 5, 1);
    for (const cache of [
      new DynamicCache({ config: model.config }),
      new DynamicCache(),
      new StaticCache({ config: model.config, max_cache_len: 10 }),
    ]) {
      const name = cache.constructor.name;
      model.forward({ input_ids: input_ids.narrow(1, 0, 4), past_key_values: cache });
      model.forward({
        input_ids: torch.tensor([
          [40, 41],
          [42, 43],
        ]),
        past_key_values: cache,
      });
      cache.crop(-2);
      const out = model.forward({ input_ids: input_ids.narrow(1, 4, 2), past_key_values: cache });
      t.ok(torch.allclose(out.logits.narrow(1, 1, 1), last, { atol: 1e-4 }), `${name}: after crop`);
      cache.reorder_cache(torch.tensor([1, 0]));
      const swapped = model.forward({ input_ids: torch.tensor([[10], [10]]), past_key_values: cache }).logits;
      const whole = torch.cat([input_ids.flip([0]), torch.tensor([[10], [10]])], 1);
      t.ok(
        torch.allclose(swapped, model.forward({ input_ids: whole }).logits.narrow(1, 6, 1), { atol: 1e-4 }),
        `${name}: after reorder`,
      );
      cache.reset();
      t.ok(
        torch.allclose(model.forward({ input_ids, past_key_values: cache }).logits, logits, { atol: 1e-4 }),
        `${name}: after reset`,
      );
    }
  });
});

t.test("a forward reads no value from a tensor, so that it can be recorded", async (t) => {
  const names = ["item", "tolist", Symbol.iterator] as const;
  const before = names.map(
    (name) => Object.getOwnPropertyDescriptor(torch.Tensor.prototype, name) as PropertyDescriptor,
  );
  const longrope = {
    rope_type: "longrope",
    factor: 2,
    original_max_position_embeddings: 8,
    short_factor: [1, 1],
    long_factor: [2, 2],
  };
  const input_ids = torch.tensor([
    [3, 4, 5, 6, 7],
    [1, 1, 5, 6, 7],
  ]);
  const attention_mask = torch.tensor([
    [1, 1, 1, 1, 1],
    [0, 0, 1, 1, 1],
  ]);
  const models = [
    {},
    { rope_parameters: { rope_type: "dynamic", factor: 2 } },
    { rope_parameters: longrope },
  ].map((more) => new LlamaForCausalLM(tiny(more)));
  const classifier = new LlamaForSequenceClassification(tiny());
  const read = () => t.fail("a value was read");
  for (const name of names)
    Object.defineProperty(torch.Tensor.prototype, name, { value: read, configurable: true });
  try {
    for (const model of models) {
      for (const attn of ["sdpa", "eager"]) {
        model.set_attn_implementation(attn);
        for (const cache of [
          undefined,
          new DynamicCache({ config: model.config }),
          new StaticCache({ config: model.config, max_cache_len: 8 }),
        ]) {
          torch.no_grad(() => {
            model.forward({ input_ids, attention_mask, labels: input_ids, past_key_values: cache });
            if (cache) model.forward({ input_ids: torch.tensor([[9], [9]]), past_key_values: cache });
          });
        }
      }
      model.forward({ input_ids, position_ids: torch.tensor([[0, 1, 0, 1, 2]]), use_cache: false });
    }
    classifier.forward({ input_ids, attention_mask, labels: torch.tensor([0, 1]) });
  } finally {
    for (const [i, name] of names.entries())
      Object.defineProperty(torch.Tensor.prototype, name, before[i] as PropertyDescriptor);
  }
  t.pass("nothing was read");
});

t.test("the loading report", async (t) => {
  const names = (form: (i: number) => string, count: number) =>
    Array.from({ length: count }, (_, i) => form(i));
  t.same(
    foldKeys(
      [...names((i) => `layers.${i}.norm.weight`, 12), "head.weight", "h.3.w", "h.5.w"].map((key) => [
        key,
        "",
      ]),
    ),
    [
      ["layers.{0...11}.norm.weight", ""],
      ["head.weight", ""],
      ["h.{3, 5}.w", ""],
    ],
  );
  const info = {
    missing_keys: new Set(["layers.0.a", "layers.1.a"]),
    unexpected_keys: new Set(["b"]),
    mismatched_keys: new Set([["c", [2, 3], [2, 4]] as const]),
    error_msgs: [],
  };
  const report = loadingReport(info, "Title", false) as string;
  t.match(report, /^Title\nKey +\| Status/);
  t.match(report, /^layers\.\{0, 1\}\.a +\| MISSING$/m);
  t.match(report, /^b +\| UNEXPECTED$/m);
  t.match(report, /^c +\| MISMATCH +\| checkpoint \[2, 3\], model \[2, 4\]$/m);
  t.notMatch(report, "\x1b");
  t.match(loadingReport(info, "Title", true), "\x1b[31m");
  t.equal(
    loadingReport(
      { ...info, missing_keys: new Set(), unexpected_keys: new Set(), mismatched_keys: new Set() },
      "Title",
      false,
    ),
    undefined,
  );
});

t.test("sliding caches hold what their mask says", async (t) => {
  const layer = new DynamicSlidingWindowLayer(4);
  const sizes: number[][] = [];
  for (const length of [2, 1, 3, 1, 5, 1]) {
    const { kv_length, kv_offset } = layer.get_mask_sizes(length);
    const [keys] = layer.update(torch.zeros([1, 1, length, 2]), torch.zeros([1, 1, length, 2]));
    t.equal(keys.shape[2], kv_length);
    sizes.push([kv_length, kv_offset, layer.keys?.shape[2] as number]);
  }
  // prettier-ignore
  t.same(sizes, [
    [2, 0, 2],
    [3, 0, 3],
    [6, 0, 3],
    [4, 3, 3],
    [8, 4, 3],
    [4, 9, 3],
  ]);
  t.throws(() => layer.crop(1), { code: "ERR_INVALID_ARGUMENT" });
});

t.test("training: gradients reach everything", async (t) => {
  const model = new LlamaForCausalLM(tiny());
  model.forward({ input_ids: ids(), labels: ids() }).loss?.backward();
  for (const [name, parameter] of model.named_parameters()) t.ok(parameter.grad, name);
  const sum = model.forward({ input_ids: ids(), labels: ids(), num_items_in_batch: 8 }).loss as Tensor;
  const mean = model.forward({ input_ids: ids(), labels: ids() }).loss as Tensor;
  t.ok(Math.abs(sum.item() - (mean.item() * 4) / 8) < 1e-6, "summed over the given count");
  model.zero_grad();
  model.requires_grad_(false);
  model.enable_input_require_grads();
  t.equal(model.forward({ input_ids: ids() }).logits.requires_grad, true);
  model.disable_input_require_grads();
  t.equal(model.forward({ input_ids: ids() }).logits.requires_grad, false);
});

t.test("facts", async (t) => {
  const model = await LlamaForCausalLM.from_pretrained(llama);
  t.equal(model.device, "cpu");
  t.equal(model.base_model, model.model);
  t.equal(model.get_input_embeddings(), model.model.embed_tokens);
  t.equal(model.get_output_embeddings(), model.lm_head);
  t.equal(
    model.num_parameters({ exclude_embeddings: true }),
    model.num_parameters() - model.model.embed_tokens.weight.numel(),
  );
  t.equal(model.get_memory_footprint({ return_buffers: false }), 4 * model.num_parameters());
  t.equal(model.can_generate(), true);
  t.equal(new LlamaModel(tiny()).can_generate(), false);
  const copy = t.testdir();
  cpSync(llama, copy, { recursive: true });
  await model.save_pretrained(copy);
  t.ok(
    torch.equal(
      (await LlamaForCausalLM.from_pretrained(copy, { strict: true })).lm_head.weight,
      model.lm_head.weight,
    ),
    "saved over what it was loaded from",
  );
});

t.test("gradient checkpointing", async (t) => {
  const sizes = { hidden_size: 32, intermediate_size: 48, num_hidden_layers: 4, num_attention_heads: 4 };
  const config = () => new LlamaConfig({ ...sizes, vocab_size: 40, attention_dropout: 0.2 });
  const input_ids = torch.tensor([
    [1, 2, 3, 4, 5],
    [6, 7, 8, 9, 10],
  ]);
  const attention_mask = torch.tensor([
    [1, 1, 1, 1, 1],
    [1, 1, 1, 0, 0],
  ]);

  class Plain extends PreTrainedModel {
    static override readonly config_class = LlamaConfig;
  }
  t.throws(() => new Plain(config()).gradient_checkpointing_enable(), /Plain does not support/);
  class Empty extends Plain {
    static override readonly supports_gradient_checkpointing = true;
  }
  t.throws(() => new Empty(config()).gradient_checkpointing_enable(), {
    code: "ERR_INVALID_ARGUMENT",
    hint: /GradientCheckpointingLayer/,
  });
  const model = new LlamaForCausalLM(config());
  t.throws(() => model.gradient_checkpointing_enable({ every_n_layers: 0 }), /every_n_layers/);
  const reentrant = { gradient_checkpointing_kwargs: { use_reentrant: true } };
  model.train().gradient_checkpointing_enable(reentrant);
  t.throws(() => model.forward({ input_ids }), /use_reentrant/);

  const train = (attn: string, prepare: (model: LlamaForCausalLM) => void) => {
    torch.manual_seed(0);
    const model = new LlamaForCausalLM(config());
    model.config._attn_implementation = attn;
    let forwards = 0;
    model.model.layers[1]?.register_forward_hook(() => void forwards++);
    let inner = 0;
    model.model.layers[1]?.mlp.register_forward_pre_hook(() => void inner++);
    prepare(model.train());
    torch.manual_seed(1);
    const { loss } = model.forward({
      input_ids,
      attention_mask,
      labels: input_ids,
      output_attentions: attn === "eager",
    });
    loss?.backward();
    const gradients = [...model.parameters()].map((parameter) => parameter.grad as Tensor);
    return { loss: loss?.item(), gradients, forwards, inner };
  };
  for (const attn of ["sdpa", "eager"]) {
    const plain = train(attn, () => {});
    for (const every_n_layers of [1, 2]) {
      const got = train(attn, (model) => model.gradient_checkpointing_enable({ every_n_layers }));
      t.equal(got.loss, plain.loss, `${attn}: loss`);
      t.ok(
        got.gradients.every((gradient, i) => torch.equal(gradient, plain.gradients[i] as Tensor)),
        `${attn}: gradients`,
      );
      t.equal(got.forwards, 1, "hooks on the layer stay outside");
      t.equal(got.inner, every_n_layers === 1 ? 2 : 1, "hooks in it run each time");
    }
    for (const off of [
      (model: LlamaForCausalLM) => model.gradient_checkpointing_disable(),
      (model: LlamaForCausalLM) => void model.eval(),
    ]) {
      const { inner } = train(attn, (model) => {
        model.gradient_checkpointing_enable();
        t.equal(model.is_gradient_checkpointing, true);
        off(model);
        if (model.training) t.equal(model.is_gradient_checkpointing, false);
      });
      t.equal(inner, 1, "switched off, or not in training");
    }
  }
  const frozen = new LlamaForCausalLM(config());
  frozen.requires_grad_(false);
  frozen.model.layers[3]?.mlp.requires_grad_(true);
  frozen.train().gradient_checkpointing_enable();
  frozen.forward({ input_ids, labels: input_ids }).loss?.backward();
  t.ok(frozen.model.layers[3]?.mlp.up_proj.weight.grad, "adapters in a frozen model get gradients");
});
