// Every check of the models that exist, through Programs.
import t from "tap";
import { DynamicCache, LlamaForCausalLM, torch } from "torchformers";
import { fixture } from "../support/fixtures.js";
import { compiled, replay } from "../support/golden.js";

/** torch.testing's own for the dtype. Passes replace operators by some that sum in another order: no bit for bit here. */
const FLOAT32 = { rtol: 1.3e-6, atol: 1e-5 };

const METHODS = ["forward", "last_logits", "incremental"];

for (const folder of [
  "models/llama",
  "models/llama-bf16",
  "models/llama-rope_llama3",
  "models/llama-sharded",
  "demo-llama",
]) {
  await replay(t, folder, {
    mode: compiled,
    skip: ({ method }) => (METHODS.includes(method) ? undefined : "not a forward"),
  });
}

t.test("model.run", async (t) => {
  const model = await LlamaForCausalLM.from_pretrained(fixture("models/llama"));
  const input_ids = torch.tensor([[1, 5, 7, 2]]);
  const expected = torch.no_grad(() => model.forward({ input_ids }));
  const out = await model.run({ input_ids });
  t.equal(out.constructor, expected.constructor);
  t.same(out.keys(), expected.keys());
  t.ok(torch.allclose(out.logits, expected.logits, FLOAT32));
  t.ok(out.past_key_values instanceof DynamicCache);
  t.equal(out.past_key_values?.get_seq_length(), 4);

  const next = { input_ids: torch.tensor([[3]]), past_key_values: out.past_key_values };
  const after = await model.run(next);
  t.equal(after.past_key_values, out.past_key_values, "the cache of the caller");
  t.equal(out.past_key_values?.get_seq_length(), 5);
  const whole = torch.no_grad(() => model.forward({ input_ids: torch.tensor([[1, 5, 7, 2, 3]]) }));
  t.ok(torch.allclose(after.logits.select(1, 0), whole.logits.select(1, 4), { atol: 1e-5 }));

  const reason = new Error("enough");
  await t.rejects(model.run({ input_ids }, { signal: AbortSignal.abort(reason) }), reason);
  await t.rejects(model.run({ input_idz: input_ids } as never), { code: "ERR_INVALID_ARGUMENT" });

  const warned = new Promise<Error>((resolve) => process.once("warning", resolve));
  let calls = 0;
  const hook = model.model.norm.register_forward_hook(() => {
    calls++;
  });
  t.ok(torch.allclose((await model.run({ input_ids })).logits, expected.logits, FLOAT32));
  await model.run({ input_ids });
  t.equal(calls, 2, "a model with hooks runs eagerly");
  t.match((await warned).message, /model\.norm has forward hooks/);
  hook.remove();
  await model.run({ input_ids });
  t.equal(calls, 2);
});

t.ok(torch.is_grad_enabled());
