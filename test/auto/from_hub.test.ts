// Every from_pretrained by name: what a load may be told of the hub holds for each of them.

import { readdirSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import t from "tap";
import type { HubOptions } from "#lib/hub/options.js";
import {
  AutoConfig,
  AutoImageProcessor,
  AutoModel,
  AutoModelForCausalLM,
  AutoProcessor,
  AutoTokenizer,
  GenerationConfig,
  LlamaConfig,
  LlamaForCausalLM,
  LoraConfig,
  PeftModel,
  PreTrainedTokenizerFast,
} from "#lib/index.js";
import { fixture } from "../support/fixtures.js";
import { hubFor, TOKEN } from "../support/hub.js";

type Options = HubOptions;
type Loader = (name: string, options?: Options) => Promise<unknown>;

const base = await LlamaForCausalLM.from_pretrained(fixture("models/llama"));

const LOADERS: Record<string, Loader> = {
  AutoConfig: (name, options) => AutoConfig.from_pretrained(name, { ...options }),
  LlamaConfig: (name, options) => LlamaConfig.from_pretrained(name, { ...options }),
  GenerationConfig: (name, options) => GenerationConfig.from_pretrained(name, { ...options }),
  AutoTokenizer: (name, options) => AutoTokenizer.from_pretrained(name, { ...options }),
  PreTrainedTokenizerFast: (name, options) => PreTrainedTokenizerFast.from_pretrained(name, { ...options }),
  AutoModel: (name, options) => AutoModel.from_pretrained(name, { ...options }),
  AutoModelForCausalLM: (name, options) => AutoModelForCausalLM.from_pretrained(name, { ...options }),
  LlamaForCausalLM: (name, options) => LlamaForCausalLM.from_pretrained(name, { ...options }),
  AutoImageProcessor: (name, options) => AutoImageProcessor.from_pretrained(name, { ...options }),
  AutoProcessor: (name, options) => AutoProcessor.from_pretrained(name, { ...options }),
  LoraConfig: (name, options) => LoraConfig.from_pretrained(name, { ...options }),
  PeftModel: async (name, options) => {
    const adapted = await PeftModel.from_pretrained(base, name, { ...options });
    adapted.unload();
  },
};

/** What one repository for all of them holds; adapters have one of their own, since a model would load them too. */
function files(loader: string): Record<string, Buffer> {
  const from = (folder: string, names: readonly string[]) =>
    names.map((name) => [name, readFileSync(path.join(fixture(folder), name))] as const);
  return Object.fromEntries(
    /^(Lora|Peft)/.test(loader)
      ? from("adapters/all_linear", ["adapter_config.json", "adapter_model.safetensors"])
      : [
          ...from("models/llama", ["config.json", "generation_config.json", "model.safetensors"]),
          ...from("demo-llama", ["tokenizer.json", "tokenizer_config.json"]),
          ...from("preprocessing/image-vit", ["preprocessor_config.json"]),
        ],
  );
}

for (const [name, load] of Object.entries(LOADERS)) {
  t.test(name, async (t) => {
    const { server, cache } = await hubFor(t);
    server.create("org/empty");
    server.create("org/m", { private: true });
    const content = files(name);
    const below = Object.fromEntries(
      Object.entries(content).map(([file, bytes]) => [`sub/deep/${file}`, bytes]),
    );
    const commit = server.commit("org/m", { ...content, ...below }, { branch: "dev" });
    const token = TOKEN;

    await t.rejects(load("org/m", { revision: "dev" }), { code: "ERR_REPOSITORY_NOT_FOUND" }, "private");
    await t.rejects(load("org/m", { revision: "dev", token: "hf_wrong_token" }), {
      code: "ERR_HUB",
      status: 401,
    });
    await t.rejects(
      load("org/m", { token }),
      { code: /^ERR_(ENTRY_NOT_FOUND|CHECKPOINT|TOKENIZER|CONFIG|INVALID_ARGUMENT|UNKNOWN_MODEL_TYPE)$/ },
      "main is empty",
    );
    await t.rejects(load("org/m", { token, revision: "nowhere" }), { code: "ERR_REVISION_NOT_FOUND" });
    await t.rejects(load("org/m@dev", { token, revision: "other" }), { code: "ERR_INVALID_ARGUMENT" });
    await t.rejects(load("org/m@dev", { token, local_files_only: true }), { code: "ERR_OFFLINE_MODE" });
    const reason = new Error("enough");
    await t.rejects(load("org/m@dev", { token, signal: AbortSignal.abort(reason) }), reason);
    server.fault = ({ kind }) => (/resolve|storage/.test(kind) ? { hang: true } : undefined);
    const controller = new AbortController();
    const stopped = load("org/m@dev", { token, signal: controller.signal });
    stopped.catch(() => {});
    while (server.count("resolve") === 0) await sleep(5);
    controller.abort(reason);
    await t.rejects(stopped, reason, "while a server is silent");
    server.fault = () => undefined;

    server.seen.length = 0;
    const stages = new Set<string>();
    await load("org/m@dev", {
      token,
      progress_callback: ({ stage }) => stages.add(stage),
    });
    t.equal(server.count("revision"), 1, "the commit is asked for once");
    t.ok(stages.has("download"), "progress is told");
    const hub = server.seen.filter(({ kind }) => kind !== "storage");
    t.ok(hub.every(({ authorization }) => authorization === `Bearer ${TOKEN}`));
    t.ok(server.seen.every(({ kind, authorization }) => kind !== "storage" || authorization === undefined));

    server.seen.length = 0;
    await load("org/m", { token, revision: commit });
    await load("org/m", { revision: "dev", local_files_only: true });
    process.env.HF_HUB_OFFLINE = "1";
    await load("org/m@dev");
    delete process.env.HF_HUB_OFFLINE;
    t.equal(server.seen.length, 0, "from the cache, without a question");

    await load("org/m@dev", { token, subfolder: "sub/deep" });
    const brought = readdirSync(path.join(cache, "models--org--m/snapshots", commit, "sub/deep"));
    t.ok(brought.length > 0 && brought.every((file) => file in content), brought.join());
    await t.rejects(load("org/m@dev", { token, subfolder: "../sub" }), { code: "ERR_INVALID_ARGUMENT" });
    server.seen.length = 0;
    await load("org/m@dev", { token, force_download: true });
    t.ok(server.count("resolve") > 0, "brought again");
    t.ok(statSync(path.join(cache, "models--org--m/blobs")).isDirectory());
  });
}

t.test("a variant", async (t) => {
  const { server } = await hubFor(t);
  server.create("org/m");
  const { "config.json": config, "model.safetensors": weights } = files("AutoModel") as Record<
    string,
    Buffer
  >;
  server.commit("org/m", { "config.json": config as Buffer, "model.fp16.safetensors": weights as Buffer });
  await t.rejects(LlamaForCausalLM.from_pretrained("org/m"), { code: "ERR_ENTRY_NOT_FOUND" });
  const model = await LlamaForCausalLM.from_pretrained("org/m", { variant: "fp16" });
  t.ok(model.num_parameters() > 0);
  t.same(
    server.seen
      .filter(({ kind }) => kind === "resolve")
      .map(({ path: at }) => at.split("/").at(-1))
      .sort(),
    ["config.json", "model.fp16.safetensors"],
    "nothing else is brought",
  );
});
