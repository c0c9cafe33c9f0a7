import { readFileSync } from "node:fs";
import path from "node:path";
import t from "tap";
import { type ConfigKwargs, GenerationConfig, WatermarkingConfig } from "#lib/configuration/index.js";
import { parseJson } from "#lib/json/json.js";
import { LlamaConfig } from "#lib/models/llama/configuration_llama.js";
import { fixture } from "../support/fixtures.js";

process.env.TORCHFORMERS_LOG = "silent";

interface Case {
  readonly name: string;
  readonly file: string;
  readonly saved?: string;
  readonly error?: string;
}

const golden = parseJson(readFileSync(fixture("configuration/golden.json"), "utf8")) as unknown as {
  readonly generation_files: readonly Case[];
  readonly from_model: readonly Case[];
  readonly full: { readonly generation: string };
};

t.test("refuses what can never work", async (t) => {
  await t.rejects(GenerationConfig.from_pretrained(fixture("bad/generation_config-garbage")), {
    code: "ERR_CONFIG",
    message: /generation_config\.json is not valid JSON/,
  });
  await t.rejects(GenerationConfig.from_pretrained(t.testdir()), { code: "ERR_ENTRY_NOT_FOUND" });
  const wrong: [ConfigKwargs, RegExp][] = [
    [{ temperature: "hot" }, /'temperature' must be int \| float/],
    [{ do_sample: 1 }, /'do_sample'/],
    [{ assistant_ensemble_weight: 1 }, /'assistant_ensemble_weight'/],
    [{ streamer: {} }, /'streamer' is an argument of generate/],
    [{ watermarking_config: { seeding_scheme: "x" } }, /seeding_scheme/],
    [{ watermarking_config: { greenlist_ratio: 2 } }, /greenlist_ratio/],
    [{ watermarking_config: { colour: 2 } }, /colour/],
  ];
  for (const [fields, message] of wrong)
    t.throws(() => new GenerationConfig(fields), { code: "ERR_CONFIG", message });
});

t.test("saves what the reference saves, byte for byte", async (t) => {
  for (const { name, file, saved, error } of golden.generation_files) {
    const folder = t.testdir({ "generation_config.json": file });
    const load = async () => {
      const config = await GenerationConfig.from_pretrained(folder);
      await config.save_pretrained(path.join(folder, "out"));
      return readFileSync(path.join(folder, "out", "generation_config.json"), "utf8");
    };
    if (error === undefined) t.equal(await load(), saved, name);
    else await t.rejects(load(), { code: "ERR_CONFIG" }, name);
  }
  t.equal(new GenerationConfig().to_json_string({ use_diff: false }), golden.full.generation);
});

t.test("from_model_config", async (t) => {
  for (const { name, file, saved } of golden.from_model) {
    t.equal(
      GenerationConfig.from_model_config(parseJson(file) as ConfigKwargs).to_json_string(),
      saved,
      name,
    );
  }
  t.same(GenerationConfig.from_model_config(new LlamaConfig({ eos_token_id: [1, 2] })).eos_token_id, [1, 2]);
});

t.test("settings without effect are refused when saved, unless they were loaded so", async (t) => {
  const folder = t.testdir({ "generation_config.json": '{"temperature": 0.5}' });
  const loaded = await GenerationConfig.from_pretrained(folder);
  await loaded.save_pretrained(folder);
  await loaded.clone().save_pretrained(folder);
  loaded.top_p = 0.5;
  await t.rejects(loaded.save_pretrained(folder), { code: "ERR_CONFIG", message: /temperature[\s\S]*top_p/ });
});

t.test("update and overrides", async (t) => {
  const config = new GenerationConfig({ top_k: 5, do_sample: true });
  t.same(config.update({ top_k: 7, colour: "red", validate: 1 }), { colour: "red", validate: 1 });
  t.equal(config.top_k, 7);
  t.same(config.update({ top_k: 9, top_p: 0.5 }, { defaults_only: true }), { top_k: 9 });
  t.equal(config.top_p, 0.5);
  t.same(config.update({ colour: "red" }, { allow_custom_entries: true }), {});
  t.throws(() => config.update({ max_new_tokens: -1 }), { code: "ERR_CONFIG" });
  const folder = t.testdir({ "generation_config.json": '{"do_sample": true, "top_k": 3}' });
  const [loaded, unused] = await GenerationConfig.from_pretrained(folder, {
    top_k: 4,
    foo: false,
    return_unused_kwargs: true,
  });
  t.same([loaded.top_k, unused], [4, { foo: false }]);
  await t.rejects(GenerationConfig.from_pretrained(folder, { topk: 4 }), {
    code: "ERR_INVALID_ARGUMENT",
    suggestion: "top_k",
  });
});

t.test("equality, copies, modes", async (t) => {
  const config = new GenerationConfig({ num_beams: 4, watermarking_config: { bias: 3 } });
  t.ok(config.watermarking_config instanceof WatermarkingConfig);
  t.ok(config.clone().equals(config));
  t.notOk(new GenerationConfig().equals(config));
  const modes: [ConfigKwargs, string][] = [
    [{}, "greedy_search"],
    [{ do_sample: true }, "sample"],
    [{ num_beams: 2 }, "beam_search"],
    [{ num_beams: 2, do_sample: true }, "beam_sample"],
    [{ num_beams: 4, num_beam_groups: 2 }, "group_beam_search"],
    [{ penalty_alpha: 0.5, top_k: 4 }, "contrastive_search"],
    [{ prompt_lookup_num_tokens: 3 }, "assisted_generation"],
    [{ dola_layers: "low" }, "dola_generation"],
    [{ num_beams: 2, prompt_lookup_num_tokens: 3 }, "beam_search"],
    [{ constraints: [] }, "constrained_beam_search"],
  ];
  for (const [fields, mode] of modes)
    t.equal(new GenerationConfig(fields).get_generation_mode(), mode, JSON.stringify(fields));
});
