// Sharing the code of a class: what is written beside the weights, and that it runs again with the very same classes of the
// library, from a folder and from a hub.
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import {
  AutoConfig,
  AutoModel,
  AutoModelForImageClassification,
  AutoTokenizer,
  LlamaForCausalLM,
  nn,
  PreTrainedModel,
  PretrainedConfig,
  type Tensor,
  torch,
} from "torchformers";
import { fixture, root } from "../support/fixtures.js";
import { HubServer } from "../support/hub_server.js";
import { TinyConfig } from "./shared/configuration_tiny.js";
import { TinyModel } from "./shared/modeling_tiny.js";
import { TinyTokenizerFast } from "./shared/tokenization_tiny.js";

const home = t.testdir();
process.env.HF_HOME = join(home, "huggingface");
const told: string[] = [];
process.on("warning", ({ message }) => told.push(message));
const warnings = async (): Promise<string[]> => {
  await new Promise((resolve) => setImmediate(resolve));
  return told.splice(0);
};
const json = (...parts: string[]) => JSON.parse(readFileSync(join(...parts), "utf8"));

t.test("what cannot be shared", async (t) => {
  t.throws(() => TinyModel.register_for_auto_class("AutoModelForImageClasification"), {
    code: "ERR_INVALID_ARGUMENT",
    suggestion: "AutoModelForImageClassification",
  });
  t.throws(() => TinyConfig.register_for_auto_class(null as never), { code: "ERR_INVALID_ARGUMENT" });

  // Evaluated: no file.
  const Typed = new Function("Base", "return class Typed extends Base {}")(TinyModel) as typeof TinyModel;
  Typed.register_for_auto_class();
  await t.rejects(new Typed(new TinyConfig()).save_pretrained(t.testdir()), {
    code: "ERR_CUSTOM_CODE",
    message: /Typed is defined in no file/,
  });
  class Library extends LlamaForCausalLM {}
  t.equal(Library._auto_class, null);
  LlamaForCausalLM.register_for_auto_class("AutoModelForCausalLM");
  const llama = await LlamaForCausalLM.from_pretrained(fixture("models/llama"));
  await t.rejects(llama.save_pretrained(t.testdir()), { code: "ERR_CUSTOM_CODE", message: /library itself/ });
  LlamaForCausalLM._auto_class = null;

  // The script that runs: saved without its code, as in the reference.
  class Here extends TinyModel {}
  Here.register_for_auto_class();
  const dir = t.testdir();
  await new Here(new TinyConfig()).save_pretrained(dir);
  t.match(await warnings(), [/code of Here is not saved.*sharing\.test\.js/]);
  t.notOk(existsSync(join(dir, "sharing.test.js")));
  t.same(json(dir, "config.json").auto_map, { AutoConfig: "configuration_tiny.TinyConfig" });
});

t.test("sources that break the rules are named", async (t) => {
  const dir = t.testdir({ inner: {} });
  writeFileSync(
    join(dir, "inner/outside.js"),
    'import { TinyModel } from "./base.js";\nimport "../elsewhere.js";\nexport class Outside extends TinyModel {}\n',
  );
  writeFileSync(
    join(dir, "inner/hidden.js"),
    'import { TinyModel } from "./base.js";\nclass Hidden extends TinyModel {}\nexport const other = Hidden;\n',
  );
  writeFileSync(
    join(dir, "inner/native.js"),
    'import { TinyModel } from "./base.js";\nexport class Native extends TinyModel {}\nexport const load = () => import("./addon.node");\n',
  );
  writeFileSync(join(dir, "inner/addon.node"), "");
  writeFileSync(join(dir, "elsewhere.js"), "");
  writeFileSync(
    join(dir, "inner/a.b.js"),
    'import { TinyModel } from "./base.js";\nexport class Dotted extends TinyModel {}\n',
  );
  writeFileSync(
    join(dir, "inner/base.js"),
    'import { PreTrainedModel } from "torchformers";\nexport class TinyModel extends PreTrainedModel {}\n',
  );
  const cases: [file: string, name: string, message: RegExp][] = [
    ["outside.js", "Outside", /imports '\.\.\/elsewhere\.js', which lies outside of/],
    ["hidden.js", "other", /does not export Hidden[\s\S]*export class Hidden/],
    ["native.js", "Native", /'\.\/addon\.node', which is no/],
    ["a.b.js", "Dotted", /cannot be named in auto_map/],
  ];
  for (const [file, name, message] of cases) {
    const module = (await import(join(dir, "inner", file))) as Record<string, typeof TinyModel>;
    const cls = module[name] as typeof TinyModel;
    cls.register_for_auto_class();
    const saved = new cls(new TinyConfig()).save_pretrained(join(dir, "out"));
    await t.rejects(saved, { code: "ERR_CUSTOM_CODE", message }, file);
  }
});

TinyConfig.register_for_auto_class();
TinyModel.register_for_auto_class("AutoModelForImageClassification");
TinyTokenizerFast.register_for_auto_class(AutoTokenizer);

async function share(dir: string): Promise<TinyModel> {
  const model = new TinyModel(new TinyConfig({ width: 4 }));
  await model.save_pretrained(dir);
  const tokenizer = await TinyTokenizerFast.from_pretrained(fixture("tokenizers/bert-uncased"));
  await tokenizer.save_pretrained(dir);
  return model;
}

t.test("saved with its code, and loaded with it", async (t) => {
  const dir = t.testdir();
  const model = await share(dir);
  t.same((readdirSync(dir, { recursive: true }) as string[]).filter((name) => /\.[jt]s$/.test(name)).sort(), [
    "configuration_tiny.js",
    "configuration_tiny.ts",
    "layers/scale.js",
    "layers/scale.ts",
    "modeling_tiny.js",
    "modeling_tiny.ts",
    "tokenization_tiny.js",
    "tokenization_tiny.ts",
  ]);
  t.equal(
    readFileSync(join(dir, "modeling_tiny.ts"), "utf8"),
    readFileSync(join(root, "test/custom_code/shared/modeling_tiny.ts"), "utf8"),
    "the source, found through the source map",
  );
  t.notMatch(readFileSync(join(dir, "modeling_tiny.js"), "utf8"), /sourceMappingURL/);
  t.same(json(dir, "config.json").auto_map, {
    AutoConfig: "configuration_tiny.TinyConfig",
    AutoModelForImageClassification: "modeling_tiny.TinyModel",
  });
  t.same(json(dir, "tokenizer_config.json").auto_map, {
    AutoTokenizer: [null, "tokenization_tiny.TinyTokenizerFast"],
  });

  for (const trust_remote_code of [undefined, false]) {
    await t.rejects(AutoModelForImageClassification.from_pretrained(dir, { trust_remote_code }), {
      code: "ERR_REMOTE_CODE",
      message:
        /AutoConfig \(configuration_tiny\.TinyConfig\), which is run only if you say so[\s\S]*inspect[\s\S]*trust_remote_code: true[\s\S]*AutoConfig\.register\("shared-tiny", MyConfig\)/,
    });
    await t.rejects(AutoConfig.from_pretrained(dir, { trust_remote_code }), { code: "ERR_REMOTE_CODE" });
  }
  for (const wrong of ["true", 1, {}])
    await t.rejects(AutoConfig.from_pretrained(dir, { trust_remote_code: wrong as never }), {
      code: "ERR_INVALID_ARGUMENT",
    });
  t.equal(
    existsSync(join(home, "huggingface/modules/torchformers_modules")),
    false,
    "nothing was even copied",
  );
  t.notMatch(
    await AutoTokenizer.from_pretrained(dir),
    { shout: Function },
    "the library's tokenizer will do",
  );

  const trust = { trust_remote_code: true };
  const loaded = await AutoModelForImageClassification.from_pretrained(dir, trust);
  t.ok(loaded instanceof PreTrainedModel && loaded instanceof nn.Module, "the classes are the program's own");
  t.ok(loaded.config instanceof PretrainedConfig);
  t.equal(loaded.constructor.name, "TinyModel");
  t.notOk(loaded instanceof TinyModel, "of the saved code, not of this test's");
  t.equal(
    loaded.config.constructor,
    (loaded.constructor as typeof TinyModel).config_class,
    "one module, one class",
  );
  const x = torch.ones([2, 4]);
  const out = (m: unknown) =>
    torch.no_grad(() => (m as TinyModel).forward(x, torch.tensor([0, 1]))) as {
      logits: Tensor;
      loss: Tensor;
    };
  t.ok(torch.equal(out(loaded).logits, out(model).logits));
  t.equal(out(loaded).loss.item(), out(model).loss.item());
  t.same((await (loaded as unknown as TinyModel).run(x)).logits.tolist(), out(model).logits.tolist());
  const again = await AutoModelForImageClassification.from_pretrained(dir, trust);
  t.equal(again.constructor, loaded.constructor, "the same content is the same module");
  const config = await AutoConfig.from_pretrained(dir, trust);
  t.equal(config.constructor, loaded.config.constructor);
  t.ok((await AutoModelForImageClassification.from_config(config, trust)) instanceof loaded.constructor);
  await t.rejects(AutoModelForImageClassification.from_config(config), { code: "ERR_REMOTE_CODE" });
  await t.rejects(AutoModel.from_pretrained(dir, trust), {
    code: "ERR_INVALID_ARGUMENT",
    message: /AutoModel/,
  });
  const tokenizer = (await AutoTokenizer.from_pretrained(dir, trust)) as unknown as TinyTokenizerFast;
  t.equal(tokenizer.shout("a"), "A");
  t.same(await warnings(), [], "a folder has no commit to pin");

  // Loaded code can be shared again, sources and all.
  const third = t.testdir();
  await loaded.save_pretrained(third);
  for (const name of ["modeling_tiny.ts", "modeling_tiny.js", "configuration_tiny.js", "layers/scale.ts"])
    t.equal(readFileSync(join(third, name), "utf8"), readFileSync(join(dir, name), "utf8"), name);
  t.same(json(third, "config.json").auto_map, json(dir, "config.json").auto_map);

  // What somebody changed in the cache is put right before it runs; changed code is other code.
  const [place] = readdirSync(join(home, "huggingface/modules/torchformers_modules"));
  const folders = readdirSync(join(home, "huggingface/modules/torchformers_modules", place as string)).filter(
    (name) => name.length === 64,
  );
  for (const name of folders) {
    const file = join(
      home,
      "huggingface/modules/torchformers_modules",
      place as string,
      name,
      "modeling_tiny.js",
    );
    if (existsSync(file)) writeFileSync(file, "throw new Error('changed in the cache');");
  }
  t.equal(
    (await AutoModelForImageClassification.from_pretrained(dir, trust)).constructor,
    loaded.constructor,
  );
  for (const name of folders) {
    const file = join(
      home,
      "huggingface/modules/torchformers_modules",
      place as string,
      name,
      "modeling_tiny.js",
    );
    if (existsSync(file)) t.notMatch(readFileSync(file, "utf8"), /changed in the cache/);
  }
  writeFileSync(
    join(dir, "layers/scale.js"),
    readFileSync(join(dir, "layers/scale.js"), "utf8").replace("2.5", "3.5"),
  );
  t.not((await AutoModelForImageClassification.from_pretrained(dir, trust)).constructor, loaded.constructor);

  // A class that the program registered wins, and one line says so.
  AutoConfig.register("shared-tiny", TinyConfig);
  AutoModelForImageClassification.register(TinyConfig, TinyModel);
  t.ok((await AutoModelForImageClassification.from_pretrained(dir, trust)) instanceof TinyModel);
  t.match(await warnings(), [
    /AutoConfig \(configuration_tiny\.TinyConfig\) is not run: TinyConfig was registered/,
    /AutoModelForImageClassification .* is not run: TinyModel was registered/,
  ]);
});

t.test("TypeScript alone runs too; code that does not load says why", async (t) => {
  const dir = t.testdir();
  await share(dir);
  for (const name of readdirSync(dir, { recursive: true }) as string[])
    if (name.endsWith(".js")) rmSync(join(dir, name));
  const config = json(dir, "config.json");
  writeFileSync(join(dir, "config.json"), JSON.stringify({ ...config, model_type: "typed-tiny" }));
  for (const name of ["configuration_tiny.ts"])
    writeFileSync(
      join(dir, name),
      readFileSync(join(dir, name), "utf8").replace("shared-tiny", "typed-tiny"),
    );
  const loaded = await AutoModelForImageClassification.from_pretrained(dir, { trust_remote_code: true });
  t.equal(loaded.config.model_type, "typed-tiny");
  t.ok(loaded instanceof PreTrainedModel);
  writeFileSync(join(dir, "configuration_tiny.ts"), "enum Kind { A }\nexport class TinyConfig {}\n");
  await t.rejects(AutoConfig.from_pretrained(dir, { trust_remote_code: true }), {
    code: "ERR_REMOTE_CODE",
    message: /configuration_tiny\.ts:1: .*enum/,
  });
  writeFileSync(join(dir, "configuration_tiny.ts"), "export class TinyConfig {}\n");
  await t.rejects(AutoConfig.from_pretrained(dir, { trust_remote_code: true }), {
    code: "ERR_REMOTE_CODE",
    message: /does not extend PretrainedConfig/,
  });
  writeFileSync(
    join(dir, "configuration_tiny.ts"),
    'import "a-package-that-is-not-here";\nexport class TinyConfig {}\n',
  );
  await t.rejects(AutoConfig.from_pretrained(dir, { trust_remote_code: true }), {
    code: "ERR_REMOTE_CODE",
    message: /not installed: a-package-that-is-not-here[\s\S]*npm install/,
  });
  writeFileSync(
    join(dir, "configuration_tiny.ts"),
    "throw new Error('at the top');\nexport class TinyConfig {}\n",
  );
  await t.rejects(AutoConfig.from_pretrained(dir, { trust_remote_code: true }), {
    code: "ERR_REMOTE_CODE",
    message: /at the top/,
  });
});

t.test("Python only", async (t) => {
  const dir = t.testdir({ "modeling_x.py": "", "configuration_x.py": "" });
  const auto_map = { AutoConfig: "configuration_x.XConfig", AutoModelForCausalLM: "modeling_x.XModel" };
  cpSync(fixture("models/llama"), dir, { recursive: true });
  writeFileSync(join(dir, "config.json"), JSON.stringify({ ...json(dir, "config.json"), auto_map }));
  t.ok((await AutoModel.from_pretrained(dir)).config, "native: nothing needs to be said");
  t.same(await warnings(), []);
  const { AutoModelForCausalLM } = await import("torchformers");
  const model = await AutoModelForCausalLM.from_pretrained(dir, { trust_remote_code: true });
  t.ok(model instanceof LlamaForCausalLM);
  t.match(await warnings(), [
    /AutoConfig \(configuration_x\.XConfig\) is not run: LlamaConfig is used/,
    /\(modeling_x\.XModel\) is not run: LlamaForCausalLM is used/,
  ]);
  writeFileSync(join(dir, "config.json"), JSON.stringify({ model_type: "python-x", auto_map }));
  await t.rejects(AutoConfig.from_pretrained(dir, { trust_remote_code: true }), {
    code: "ERR_REMOTE_CODE",
    message: /is Python \(configuration_x\.py\)[\s\S]*AutoConfig\.register\("python-x", MyConfig\)/,
  });
  await t.rejects(AutoConfig.from_pretrained(dir), {
    code: "ERR_REMOTE_CODE",
    message: /not JavaScript and cannot be run here[\s\S]*AutoConfig\.register/,
  });
});

t.test("from a hub: one commit, and a warning that names it", async (t) => {
  const hub = await new HubServer().start();
  t.teardown(() => hub.stop());
  process.env.HF_ENDPOINT = hub.url;
  const dir = t.testdir();
  await share(dir);
  const files: Record<string, Buffer | null> = {};
  for (const name of readdirSync(dir, { recursive: true }) as string[])
    if (/\.\w+$/.test(name)) files[name] = readFileSync(join(dir, name));
  const change = (text: Buffer | null | undefined) =>
    Buffer.from(String(text).replace("shared-tiny", "hub-tiny"));
  files["config.json"] = change(files["config.json"]);
  files["configuration_tiny.js"] = change(files["configuration_tiny.js"]);
  hub.create("org/tiny");
  const commit = hub.commit("org/tiny", files);
  const trust = { trust_remote_code: true };
  await t.rejects(AutoModelForImageClassification.from_pretrained("org/tiny"), {
    code: "ERR_REMOTE_CODE",
    message: new RegExp(`inspect org/tiny.*revision: "${commit}"`),
  });
  const loaded = await AutoModelForImageClassification.from_pretrained("org/tiny", trust);
  t.ok(loaded instanceof PreTrainedModel);
  t.match(await warnings(), [
    new RegExp(`'org/tiny' that runs is that of commit ${commit}.*pin it.*revision: "${commit}"`),
  ]);
  const pinned = await AutoModelForImageClassification.from_pretrained(`org/tiny@${commit}`, trust);
  t.equal(pinned.constructor, loaded.constructor);
  await AutoModelForImageClassification.from_pretrained("org/tiny", { ...trust, revision: commit });
  t.same(await warnings(), []);

  // Code that lies in another repository, at a commit of its own.
  const upstream = JSON.parse(String(files["config.json"]));
  upstream.auto_map = {
    AutoConfig: "org/tiny--configuration_tiny.TinyConfig",
    AutoModelForImageClassification: "org/tiny--modeling_tiny.TinyModel",
  };
  hub.create("org/elsewhere");
  hub.commit("org/elsewhere", {
    "config.json": JSON.stringify(upstream),
    "model.safetensors": files["model.safetensors"] as Buffer,
  });
  await t.rejects(AutoConfig.from_pretrained("org/elsewhere"), { message: /of the repository 'org\/tiny'/ });
  hub.commit("org/tiny", {
    "modeling_tiny.js": "throw new Error('the newer code');",
    "modeling_tiny.ts": null,
  });
  await t.rejects(AutoModelForImageClassification.from_pretrained("org/elsewhere", trust), {
    code: "ERR_REMOTE_CODE",
    message: /the newer code/,
  });
  t.match(await warnings(), [/'org\/tiny' that runs .*code_revision: "/]);
  const old = await AutoModelForImageClassification.from_pretrained("org/elsewhere", {
    ...trust,
    code_revision: commit,
  });
  t.equal(old.constructor, loaded.constructor);
  t.same(await warnings(), []);

  // A name that could be a folder of the caller's is refused, not followed.
  const work = t.testdir({
    org: { tiny: { "configuration_tiny.js": "throw new Error('a folder of mine')" } },
  });
  const before = process.cwd();
  process.chdir(work);
  try {
    await t.rejects(AutoConfig.from_pretrained("org/elsewhere", trust), {
      code: "ERR_REMOTE_CODE",
      message: /there is a directory of that name/,
    });
  } finally {
    process.chdir(before);
  }
});
