// Checkpoints to refuse or to survive: each as its manifest says.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import t from "tap";
import { AutoModelForCausalLM, TorchformersError, torch } from "torchformers";
import { fixture } from "../support/fixtures.js";

interface Case {
  readonly name: string;
  readonly call: string;
  readonly what: string;
  readonly outcome: "error" | "survive" | "either";
}

const PAYLOAD = "torchformers-pickle-payload-ran";
const manifest: Case[] = JSON.parse(readFileSync(fixture("bad/manifest.json"), "utf8"));

/** What an error must speak of. */
const NAMES: Readonly<Record<string, RegExp>> = {
  "config-garbage": /config\.json/,
  "config-array": /config\.json/,
  "config-unknown_model_type": /no_such_model/,
  "config-missing_model_type": /model_type/,
  "config-missing": /config\.json/,
  "config-negative_sizes": /hidden_size/,
  "config-wrong_types": /hidden_size/,
  "config-size_mismatch": /embed_tokens\.weight.*\[.*\].*\[.*\]/s,
  "index-missing_shard": /model-00002-of-00002\.safetensors/,
  "index-garbage": /index\.json/,
  "index-no_weight_map": /index\.json/,
  "pickle-payload": /safetensors/,
};

process.env.TORCHFORMERS_LOG = "silent";
for (const { name, call, what, outcome } of manifest) {
  if (call !== "AutoModelForCausalLM.from_pretrained") continue;
  t.test(`${name}: ${what}`, async (t) => {
    const started = performance.now();
    const folder = fixture(`bad/${name}`);
    let error: unknown;
    try {
      const model = await AutoModelForCausalLM.from_pretrained(folder);
      const { logits } = model.forward({ input_ids: torch.tensor([[3, 4, 5]]) });
      t.same(logits.shape.slice(0, 2), [1, 3]);
      model.dispose();
    } catch (caught) {
      error = caught;
    }
    if (outcome === "error") t.ok(error, "is refused");
    if (outcome === "survive") t.equal(error, undefined, "is loaded");
    if (error !== undefined) {
      t.ok(error instanceof TorchformersError, `an error of this package: ${error}`);
      const { message } = error as Error;
      t.ok(message.length < 2000, "a message that can be read");
      t.match(
        message,
        NAMES[name] ?? (name.startsWith("safetensors-") ? /model\.safetensors/ : /./),
        "says what it is about",
      );
    }
    t.ok(performance.now() - started < 5000, "quickly");
    t.notOk(existsSync(PAYLOAD) || existsSync(join(folder, PAYLOAD)), "no payload ran");
  });
}

t.test("what is missing and what is too much is told", async (t) => {
  const [model, info] = await AutoModelForCausalLM.from_pretrained(fixture("bad/weights-extra_and_missing"), {
    output_loading_info: true,
  });
  t.equal(info.missing_keys.size, 1);
  t.equal(info.unexpected_keys.size, 1);
  await t.rejects(model.generate([[3, 4]], { max_new_tokens: 1 }), { code: "ERR_UNINITIALIZED_WEIGHTS" });
  t.same((await model.generate([[3, 4]], { max_new_tokens: 1, allow_uninitialized: true })).shape, [1, 3]);
  await t.rejects(
    AutoModelForCausalLM.from_pretrained(fixture("bad/weights-extra_and_missing"), { strict: true }),
    { code: "ERR_CHECKPOINT" },
  );
  await AutoModelForCausalLM.from_pretrained(fixture("bad/config-size_mismatch"), {
    ignore_mismatched_sizes: true,
  });
});
