import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { AutoConfig } from "#lib/auto/configuration_auto.js";
import { type ConfigKwargs, PreTrainedConfig, PretrainedConfig } from "#lib/configuration/index.js";
import { parseJson } from "#lib/json/json.js";
import { LlamaConfig } from "#lib/models/llama/configuration_llama.js";
import { fixture } from "../support/fixtures.js";

process.env.TORCHFORMERS_LOG = "silent";

interface Case {
  readonly name: string;
  readonly file: string;
  readonly kwargs: ConfigKwargs;
  readonly saved?: string;
  readonly error?: string;
}

const golden = parseJson(readFileSync(fixture("configuration/golden.json"), "utf8")) as unknown as {
  readonly llama_files: readonly Case[];
  readonly llama_kwargs: readonly Case[];
  readonly full: { readonly llama: string };
};

/** A directory that holds one config.json. */
const folderOf = (test: Pick<typeof t, "testdir">, text: string) => test.testdir({ "config.json": text });

t.test("refuses bad checkpoints, by file and field", async (t) => {
  const refused: [string, string, RegExp][] = [
    ["config-garbage", "ERR_CONFIG", /config\.json is not valid JSON: line 1/],
    ["config-array", "ERR_CONFIG", /config\.json must hold a JSON object/],
    ["config-deep_nesting", "ERR_CONFIG", /config\.json is not valid JSON: .* deeper than/],
    ["config-missing", "ERR_ENTRY_NOT_FOUND", /config\.json is missing/],
    ["config-missing_model_type", "ERR_CONFIG", /'model_type' is missing/],
    ["config-unknown_model_type", "ERR_UNKNOWN_MODEL_TYPE", /'no_such_model'.*not known[\s\S]*Known: llama/],
    ["config-negative_sizes", "ERR_CONFIG", /config\.json: .*'hidden_size' must be at least 0, got -8/],
    ["config-zero_heads", "ERR_CONFIG", /'num_attention_heads' must be at least 1, got 0/],
    ["config-wrong_types", "ERR_CONFIG", /'hidden_size' must be int, got str 'eight'/],
    [
      "config-indivisible_heads",
      "ERR_CONFIG",
      /'hidden_size' \(8\) must be a multiple of num_attention_heads \(3\)/,
    ],
  ];
  for (const [name, code, message] of refused) {
    await t.rejects(AutoConfig.from_pretrained(fixture(`bad/${name}`)), { code, message }, name);
  }
});

t.test("survives what does no harm", async (t) => {
  const unknown = await AutoConfig.from_pretrained(fixture("bad/config-unknown_fields"));
  t.equal(unknown.model_type, "llama");
  const nan = await AutoConfig.from_pretrained(fixture("bad/config-bom_and_nan"));
  t.equal(nan.model_type, "llama");
  const remote = await AutoConfig.from_pretrained(fixture("bad/config-remote_code"));
  t.ok(remote instanceof LlamaConfig, "auto_map of a native type is only data");
  const written = remote.to_diff_dict().auto_map;
  t.same(written, { AutoModelForCausalLM: "modeling_evil.EvilForCausalLM" });
});

t.test("saves what the reference saves, byte for byte, and refuses what it refuses", async (t) => {
  for (const { name, file, saved, error } of golden.llama_files) {
    const folder = folderOf(t, file);
    const load = async () => {
      const config = await AutoConfig.from_pretrained(folder);
      await config.save_pretrained(path.join(folder, "out"));
      return readFileSync(path.join(folder, "out", "config.json"), "utf8");
    };
    if (error === undefined) t.equal(await load(), saved, name);
    else await t.rejects(load(), { code: "ERR_CONFIG" }, `${name}: ${error} in Python`);
  }
});

t.test("configurations made in a program are written as Python's", async (t) => {
  for (const { name, kwargs, saved, error } of golden.llama_kwargs) {
    const data = JSON.parse(JSON.stringify(kwargs)) as ConfigKwargs;
    if (error === undefined) t.equal(new LlamaConfig(data).to_json_string(), saved, name);
    else t.throws(() => new LlamaConfig(data), { code: "ERR_CONFIG" }, name);
  }
  t.equal(new LlamaConfig().to_json_string({ use_diff: false }), golden.full.llama);
});

t.test("a file saved twice is the same, and nothing is left beside it", async (t) => {
  const folder = t.testdir();
  const config = new LlamaConfig({ rms_norm_eps: 1, my_field: { a: 1.5 } });
  await config.save_pretrained(folder);
  const first = readFileSync(path.join(folder, "config.json"), "utf8");
  const again = await LlamaConfig.from_pretrained(folder);
  await again.save_pretrained(folder);
  t.equal(readFileSync(path.join(folder, "config.json"), "utf8"), first);
  t.match(first, '"rms_norm_eps": 1.0');
  t.same(readdirSync(folder), ["config.json"]);
  writeFileSync(path.join(folder, "file"), "");
  await t.rejects(config.save_pretrained(path.join(folder, "file")), { code: "ERR_CONFIG" });
  Object.assign(config, { temperature: 0.5 });
  await t.rejects(config.save_pretrained(folder), {
    code: "ERR_CONFIG",
    message: /generation parameters: temperature/,
  });
});

t.test("from_pretrained: overrides, unused options, single files, parts", async (t) => {
  const folder = folderOf(
    t,
    '{"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "torch_dtype": "float16"}',
  );
  const config = await LlamaConfig.from_pretrained(folder, {
    num_hidden_layers: 3,
    num_labels: 5,
    dtype: "auto",
    revision: "main",
  });
  t.equal(config.num_hidden_layers, 3);
  t.equal(config.num_labels, 5);
  t.equal(config.dtype, "float16");
  t.equal((await AutoConfig.from_pretrained(folder, { dtype: "bfloat16" })).dtype, "bfloat16");
  t.equal((await AutoConfig.from_pretrained(folder)).name_or_path, folder);
  const [same, unused] = await LlamaConfig.from_pretrained(folder, {
    colour: "red",
    vocab_size: 7,
    return_unused_kwargs: true,
  });
  t.same([same.vocab_size, unused], [7, { colour: "red" }]);
  await t.rejects(LlamaConfig.from_pretrained(folder, { hiden_size: 3 }), {
    code: "ERR_INVALID_ARGUMENT",
    suggestion: "hidden_size",
  });
  await t.rejects(LlamaConfig.from_pretrained(folder, { vocab_size: "7" }), {
    code: "ERR_CONFIG",
    message: /vocab_size/,
  });
  t.equal((await LlamaConfig.from_json_file(path.join(folder, "config.json"))).hidden_size, 64);
  t.equal((await LlamaConfig.from_pretrained(path.join(folder, "config.json"))).hidden_size, 64);
  mkdirSync(path.join(folder, "sub"));
  writeFileSync(
    path.join(folder, "sub", "config.json"),
    '{"model_type": "llama", "text": {"model_type": "llama"}, "vocab_size": 3}',
  );
  t.equal((await AutoConfig.from_pretrained(folder, { subfolder: "sub" })).vocab_size, 3);
  await t.rejects(AutoConfig.from_pretrained(folder, { subfolder: "../x" }), {
    code: "ERR_INVALID_ARGUMENT",
  });
  writeFileSync(path.join(folder, "sub", "config.json"), Buffer.from([0x7b, 0xff, 0x7d]));
  await t.rejects(AutoConfig.from_pretrained(folder, { subfolder: "sub" }), {
    code: "ERR_CONFIG",
    message: /UTF-8/,
  });
});

t.test("labels", async (t) => {
  const config = new LlamaConfig({ id2label: { "0": "no", "1": "yes" }, label2id: { no: 0, yes: 1 } });
  t.equal(config.num_labels, 2);
  config.num_labels = 2;
  t.same(config.id2label, { 0: "no", 1: "yes" }, "the same number changes nothing");
  config.num_labels = 3;
  t.same(config.label2id, { LABEL_0: 0, LABEL_1: 1, LABEL_2: 2 });
  config.id2label = Object.fromEntries(Array.from({ length: 11 }, (_, i) => [i, `L${i}`]));
  t.match(config.to_json_string(), /"9": "L9",\s+"10": "L10"/, "ids are written in the order of integers");
  t.throws(() => new LlamaConfig({ id2label: { a: "x" } }), { code: "ERR_CONFIG" });
  t.throws(() => new LlamaConfig({ num_labels: 1e12 }), { code: "ERR_CONFIG" });
  t.throws(() => new LlamaConfig({ problem_type: "guessing" }), { code: "ERR_CONFIG" });
});

t.test("names that are members of the class stay data", async (t) => {
  const folder = folderOf(
    t,
    '{"model_type": "llama", "to_dict": 1, "validate": 2, "constructor": 3, "__proto__": {"x": 1}, "use_return_dict": true}',
  );
  const config = await AutoConfig.from_pretrained(folder);
  const written = config.to_diff_dict();
  t.match(written, { to_dict: 1, validate: 2, use_return_dict: true });
  t.equal(written.constructor, 3);
  t.equal(({} as Record<string, unknown>).x, undefined);
});

t.test("attention implementation", async (t) => {
  const config = new LlamaConfig({ attn_implementation: "sdpa" });
  t.equal(config._attn_implementation, "sdpa");
  t.notMatch(Object.keys(config.to_dict()), ["_attn_implementation"]);
  t.throws(
    () => {
      config.output_attentions = true;
    },
    { code: "ERR_CONFIG", message: /eager/ },
  );
  const free = new LlamaConfig();
  free.output_attentions = true;
  t.equal(free._attn_implementation, "eager");
  t.equal(config.clone()._attn_implementation, "sdpa");
});

class GptLikeConfig extends PretrainedConfig {
  static override readonly model_type: string = "gpt-like";
  static override readonly attribute_map = { hidden_size: "n_embd", num_hidden_layers: "n_layer" };
  static override readonly field_types: Readonly<Record<string, string>> = {
    n_embd: "int",
    n_layer: "int",
    dropout: "float",
  };
  declare n_embd: number;
  declare n_layer: number;
  declare dropout: number;

  constructor({
    n_embd = 8,
    n_layer = 2,
    dropout = 0,
    ...kwargs
  }: ConfigKwargs & { n_embd?: number; n_layer?: number; dropout?: number } = {}) {
    super(kwargs);
    this.n_embd = n_embd;
    this.n_layer = n_layer;
    this.dropout = dropout;
    this.post_init();
  }
}

class PairConfig extends PretrainedConfig {
  static override readonly model_type: string = "pair";
  static override readonly sub_configs = {
    text_config: LlamaConfig,
    other_config: { model_type: "llama", optional: true },
  };
  declare text_config: LlamaConfig;
  declare other_config: PretrainedConfig | null;

  constructor({ text_config = null, other_config = null, ...kwargs }: ConfigKwargs = {}) {
    super(kwargs);
    this.text_config = text_config as LlamaConfig;
    this.other_config = other_config as PretrainedConfig | null;
    this.post_init();
  }
}

t.test("attribute_map: other names read, write and construct", async (t) => {
  const config = new GptLikeConfig({ hidden_size: 16 });
  t.equal(config.n_embd, 16);
  t.equal(config.hidden_size, 16);
  config.hidden_size = 32;
  t.equal(config.n_embd, 32);
  const written = config.to_diff_dict();
  t.equal(written.n_embd, 32);
  t.notOk("hidden_size" in written);
  t.match(config.to_json_string(), '"dropout": 0.0');
  t.equal(GptLikeConfig.from_dict({ num_hidden_layers: 5 }).n_layer, 5);
});

t.test("configurations inside configurations", async (t) => {
  const config = PairConfig.from_dict(
    parseJson(
      '{"text_config": {"vocab_size": 9, "rope_theta": 7, "extra": 1.0}, "model_type": "pair"}',
    ) as ConfigKwargs,
  );
  t.ok(config.text_config instanceof LlamaConfig);
  t.equal(config.other_config, null);
  t.equal(config.get_text_config(), config.text_config);
  t.equal(config.get_text_config({ encoder: true }), config);
  const text = config.to_json_string();
  t.match(text, '"extra": 1.0');
  t.match(text, '"rope_theta": 7,');
  t.match(text, '"model_type": "llama"');
  t.equal(PairConfig.from_dict(parseJson(text) as ConfigKwargs).to_json_string(), text);
  config._attn_implementation = { "": "eager", text_config: "sdpa" };
  t.same([config._attn_implementation, config.text_config._attn_implementation], ["eager", "sdpa"]);
  const nested = PairConfig.from_dict(
    { text_config: { vocab_size: 9 } },
    { text_config: { hidden_size: 64, num_attention_heads: 4 } },
  );
  t.same([nested.text_config.vocab_size, nested.text_config.hidden_size], [9, 64]);
  t.throws(() => new PairConfig({ text_config: 3 }), { code: "ERR_CONFIG", message: /text_config/ });
});

t.test("classes of parts are imported before the whole is made", async (t) => {
  AutoConfig.register("pair", PairConfig);
  const text = '{"model_type": "pair", "other_config": {"vocab_size": 5}}';
  const config = await AutoConfig.from_pretrained(folderOf(t, text));
  t.ok((config as PairConfig).other_config instanceof LlamaConfig, "the default model_type of a part");
  t.equal((await PairConfig.from_pretrained(folderOf(t, text))).other_config?.vocab_size, 5);
  t.throws(() => new PairConfig({ other_config: { model_type: "bert" } }), {
    code: "ERR_CONFIG",
    message: /'PairConfig\.other_config' is of model_type 'bert'/,
  });
});

t.test("subclasses of a model's configuration", async (t) => {
  class WideConfig extends LlamaConfig {
    static override readonly model_type: string = "wide";
    static override readonly field_types: Readonly<Record<string, string>> = { factor: "float" };
    declare factor: number;

    constructor({ factor = 2, ...kwargs }: ConfigKwargs & { factor?: number } = {}) {
      super(kwargs);
      this.factor = factor;
      this.post_init();
    }

    override validate_architecture(): void {
      super.validate_architecture();
      if (!(this.factor > 0)) throw new TypeError("the factor is set when this runs");
    }
  }
  const config = new WideConfig({ rope_theta: 5, hidden_size: 64 });
  t.same([config.rope_parameters.rope_theta, config.head_dim, config.factor], [5, 2, 2]);
  t.match(config.to_json_string(), '"factor": 2.0');
  t.match(WideConfig.from_dict({ factor: 3 }), { factor: 3, model_type: "wide" });
  t.throws(() => new WideConfig({ hidden_size: "x" }), {
    code: "ERR_CONFIG",
    message: /WideConfig: field 'hidden_size'/,
  });

  class LooseConfig extends PretrainedConfig {
    declare layers: number[];

    constructor({ layers = [3, 4], ...kwargs }: ConfigKwargs & { layers?: number[] } = {}) {
      super(kwargs);
      this.layers = layers;
    }
  }
  t.same(new LooseConfig({ other: 1 }).to_diff_dict().layers, [3, 4]);
  t.match(LooseConfig.from_dict({ layers: [1], other: 1 }).to_diff_dict(), { layers: [1], other: 1 });
});

t.test("a class field that overwrites a given value is found", async (t) => {
  class Initialized extends LlamaConfig {
    override hidden_size = 64;
  }
  t.throws(() => Initialized.from_dict({ hidden_size: 128 }), {
    code: "ERR_CONFIG_FIELD",
    message: /'hidden_size'.*class field[\s\S]*declare hidden_size/,
  });
  class Redeclared extends LlamaConfig {
    override vocab_size: number;
    // A narrowed field without `declare` resets what the parent stored.
    constructor(kwargs: ConfigKwargs = {}) {
      super(kwargs);
      this.vocab_size ??= undefined as unknown as number;
    }
  }
  t.throws(() => Redeclared.from_dict({}), { code: "ERR_CONFIG_FIELD", message: /'vocab_size'/ });
  t.throws(() => new Redeclared().validate(), { code: "ERR_CONFIG_FIELD", message: /'vocab_size'/ });
});

t.test("the base class reads anything", async (t) => {
  t.equal(PreTrainedConfig, PretrainedConfig);
  const folder = folderOf(
    t,
    '{"model_type": "unheard", "depth": 3.0, "rope_scaling": {"a": 1.0}, "rope_theta": 2.0}',
  );
  const config = await PretrainedConfig.from_pretrained(folder);
  t.equal(config.model_type, "unheard");
  const written = config.to_json_string();
  for (const part of ['"depth": 3.0', '"model_type": "unheard"', '"a": 1.0', '"rope_theta": 2.0'])
    t.match(written, part);
  config.update({ depth: 4 });
  t.equal((config as unknown as { depth: number }).depth, 4);
  t.equal(JSON.parse(JSON.stringify(config)).depth, 4);
});

t.test("older encoder-decoder configurations give one side", async (t) => {
  const config = new PretrainedConfig({
    is_encoder_decoder: true,
    encoder_layers: 3,
    decoder_layers: 5,
    decoder_attention_heads: 2,
    decoder_ffn_dim: 7,
  });
  t.match(config.get_text_config({ decoder: true }), {
    num_hidden_layers: 5,
    num_attention_heads: 2,
    ffn_dim: 7,
  });
  t.equal(
    (config.get_text_config({ encoder: true }) as unknown as { num_hidden_layers: number }).num_hidden_layers,
    3,
  );
  t.equal(config.get_text_config(), config);
});
