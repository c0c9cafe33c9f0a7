import { readFileSync } from "node:fs";
import t from "tap";
import { AutoConfig, NATIVE_CONFIGS } from "#lib/auto/configuration_auto.js";
import { LazyClassMapping, LazyMapping } from "#lib/auto/lazy_mapping.js";
import { type ConfigKwargs, PretrainedConfig } from "#lib/configuration/index.js";
import { LlamaConfig } from "#lib/models/llama/configuration_llama.js";

class OwnConfig extends PretrainedConfig {
  static override readonly model_type: string = "own-model";
  declare width: number;

  constructor({ width = 3, ...kwargs }: ConfigKwargs & { width?: number } = {}) {
    super(kwargs);
    this.width = width;
    this.post_init();
  }
}

t.test("refusals", async (t) => {
  t.throws(() => new AutoConfig(), { code: "ERR_INVALID_ARGUMENT", message: /AutoConfig\.from_pretrained/ });
  t.throws(() => AutoConfig.register("other", OwnConfig), {
    code: "ERR_INVALID_ARGUMENT",
    message: /'own-model'.*'other'/,
  });
  t.throws(() => AutoConfig.register("llama", LlamaConfig), {
    code: "ERR_INVALID_ARGUMENT",
    message: /already known/,
  });
  await t.rejects(AutoConfig.for_model("lama"), { code: "ERR_UNKNOWN_MODEL_TYPE", nearest: ["llama"] });
  await t.rejects(AutoConfig.for_model("bert"), {
    code: "ERR_UNKNOWN_MODEL_TYPE",
    message: /transformers has 'bert', but it is not implemented/,
  });
  const remote = t.testdir({
    "config.json": '{"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig"}}',
  });
  await t.rejects(AutoConfig.from_pretrained(remote, { trust_remote_code: true }), {
    code: "ERR_REMOTE_CODE",
    message: /evil\.EvilConfig/,
  });
  const folder = t.testdir({ "config.json": '{"model_type": 3}' });
  await t.rejects(AutoConfig.from_pretrained(folder), { code: "ERR_CONFIG", message: /model_type/ });
});

t.test("own configurations are found once registered", async (t) => {
  const folder = t.testdir({ "config.json": '{"model_type": "own-model", "width": 7}' });
  await t.rejects(AutoConfig.from_pretrained(folder), {
    code: "ERR_UNKNOWN_MODEL_TYPE",
    message: /AutoConfig\.register\("own-model"/,
  });
  AutoConfig.register("own-model", OwnConfig);
  t.match(await AutoConfig.from_pretrained(folder), { width: 7 });
  t.throws(() => AutoConfig.register("own-model", OwnConfig), { code: "ERR_INVALID_ARGUMENT" });
  AutoConfig.register("own-model", OwnConfig, { exist_ok: true });
  t.ok((await AutoConfig.for_model("own-model", { width: 4 })) instanceof OwnConfig);
});

t.test("lazy mappings import when asked, and registered values win", async (t) => {
  let imports = 0;
  const mapping = new LazyMapping<string>("Test", { a: async () => `a${++imports}` });
  t.ok(mapping.has("a"));
  t.equal(imports, 0);
  t.equal(await mapping.get("a"), "a1");
  t.equal(await mapping.get("b"), undefined);
  t.throws(() => mapping.register("a", "x"), { code: "ERR_INVALID_ARGUMENT" });
  mapping.register("a", "x", { exist_ok: true });
  mapping.register("b", "y");
  t.same([await mapping.get("a"), await mapping.get("b"), mapping.keys()], ["x", "y", ["a", "b"]]);
});

t.test("mappings by class tell native configurations from borrowed names", async (t) => {
  class Borrowed extends LlamaConfig {}
  const models = new LazyClassMapping<string>(
    "AutoModelForTest",
    { llama: async () => "native" },
    NATIVE_CONFIGS,
  );
  t.equal(await models.get(LlamaConfig), "native");
  t.equal(await models.get(Borrowed), undefined);
  t.throws(() => models.register(LlamaConfig, "mine"), {
    code: "ERR_INVALID_ARGUMENT",
    message: /AutoModelForTest\.register.*LlamaConfig/,
  });
  models.register(Borrowed, "mine");
  t.equal(await models.get(Borrowed), "mine");
  models.register(LlamaConfig, "mine", { exist_ok: true });
  t.equal(await models.get(LlamaConfig), "mine");
  t.same(models.modelTypes(), ["llama"]);
});

t.test("the generated mappings are up to date", async (t) => {
  const root = new URL("../../../", import.meta.url);
  const { mappingsModule } = (await import(new URL("scripts/auto/mappings.mjs", root).href)) as {
    mappingsModule: () => string;
  };
  t.equal(readFileSync(new URL("lib/auto/mappings.generated.ts", root), "utf8"), mappingsModule());
});
