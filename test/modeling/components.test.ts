// Changing the parts of a model: hooks that rearrange weights run while a checkpoint is loaded, modules are replaced after
// it, and one that never got weights is told of.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import {
  type LlamaConfig,
  LlamaForCausalLM,
  LlamaMLP,
  LlamaModel,
  nn,
  type Tensor,
  torch,
} from "torchformers";
import { fixture } from "../support/fixtures.js";

const llama = fixture("models/llama");
const ids = torch.tensor([[3, 4, 5, 6, 7]]);
const logits = (model: LlamaForCausalLM) => torch.no_grad(() => model.forward({ input_ids: ids })).logits;

/** The two products of the gated feed-forward as one. */
class FusedMLP extends nn.Module {
  readonly gate_up: nn.Linear;
  readonly down_proj: nn.Linear;
  readonly act_fn: nn.Module;
  constructor(config: LlamaConfig) {
    super();
    const { hidden_size, intermediate_size, mlp_bias: bias } = config;
    this.gate_up = new nn.Linear(hidden_size, 2 * intermediate_size, { bias });
    this.down_proj = new nn.Linear(intermediate_size, hidden_size, { bias });
    this.act_fn = new LlamaMLP(config).act_fn;
    this._register_load_state_dict_pre_hook((state_dict, prefix) => {
      for (const kind of ["weight", "bias"]) {
        const [gate, up] = [`${prefix}gate_proj.${kind}`, `${prefix}up_proj.${kind}`];
        if (!(gate in state_dict)) continue;
        state_dict[`${prefix}gate_up.${kind}`] = torch.cat([
          state_dict[gate] as Tensor,
          state_dict[up] as Tensor,
        ]);
        delete state_dict[gate];
        delete state_dict[up];
      }
    });
  }
  override forward(x: Tensor): Tensor {
    const [gate, up] = this.gate_up.forward(x).chunk(2, -1) as [Tensor, Tensor];
    return this.down_proj.forward((this.act_fn.forward as (x: Tensor) => Tensor)(gate).mul(up));
  }
}

/** The other way round: the layers of llama, from weights that are stored as one. */
class SplitMLP extends LlamaMLP {
  constructor(config: LlamaConfig) {
    super(config);
    this.register_load_state_dict_pre_hook((module, state_dict, prefix) => {
      if (module !== this) throw new Error("the module comes first");
      for (const key of Object.keys(state_dict)) {
        if (!key.includes("gate_up.")) continue;
        const [gate, up] = (state_dict[key] as Tensor).chunk(2, 0) as [Tensor, Tensor];
        state_dict[key.replace("gate_up.", "gate_proj.")] = gate;
        state_dict[key.replace("gate_up.", "up_proj.")] = up;
        delete state_dict[key];
      }
      state_dict[`${prefix}extra`] = torch.ones([1]);
    });
  }
}

/** A llama that is built with another feed-forward. */
const builtWith = (Mlp: new (config: LlamaConfig) => nn.Module) =>
  class LlamaForCausalLMBuilt extends LlamaForCausalLM {
    constructor(config: LlamaConfig) {
      super(config);
      for (const layer of this.model.layers) layer.set_submodule("mlp", new Mlp(config));
      this.post_init();
    }
  };
const Fused = builtWith(FusedMLP);
const Split = builtWith(SplitMLP);

const told: string[] = [];
process.on("warning", ({ message }) => told.push(message));
const warnings = async (): Promise<string[]> => {
  await new Promise((resolve) => setImmediate(resolve));
  return told.splice(0);
};

t.test("set_submodule refuses what torch refuses", (t) => {
  const model = new nn.Sequential(new nn.Linear(2, 2), new nn.ReLU());
  const code = { code: "ERR_INVALID_ARGUMENT" };
  t.throws(() => model.set_submodule("", new nn.ReLU()), code);
  t.throws(() => model.set_submodule("0", {} as never), { ...code, message: /must be a Module/ });
  t.throws(() => model.set_submodule("7.x", new nn.ReLU()), code);
  t.throws(() => model.set_submodule("0.weight", new nn.ReLU()), { ...code, message: /no module 'weight'/ });
  t.throws(() => model.set_submodule("2", new nn.ReLU(), { strict: true }), code);
  model.set_submodule("0", new nn.Identity(), true);
  model.set_submodule("2", new nn.Tanh());
  t.equal(`${model}`, "Sequential(\n  (0): Identity()\n  (1): ReLU()\n  (2): Tanh()\n)");
  t.end();
});

t.test("hooks run while a checkpoint is loaded", async (t) => {
  const plain = await LlamaForCausalLM.from_pretrained(llama, { dtype: "float32" });
  for (const source of [llama, fixture("models/llama-sharded")]) {
    const reference = await LlamaForCausalLM.from_pretrained(source, { dtype: "float32" });
    const [fused, info] = await Fused.from_pretrained(source, {
      dtype: "float32",
      output_loading_info: true,
      strict: true,
    });
    t.same([info.missing_keys.size, info.unexpected_keys.size, info.mismatched_keys.size], [0, 0, 0]);
    t.same(fused.uninitialized_weights(), []);
    t.ok(torch.allclose(logits(fused), logits(reference), { atol: 1e-5 }));
  }
  const fused = await Fused.from_pretrained(llama, { dtype: "bfloat16" });
  t.equal(fused.model.layers[0]?.get_parameter("mlp.gate_up.weight").dtype, "bfloat16", "cast afterwards");

  // What was saved fused goes apart again: views of one mapped tensor, each with its own place in the next file.
  const dir = t.testdir();
  await (await Fused.from_pretrained(llama, { dtype: "float32" })).save_pretrained(dir);
  const [split, info] = await Split.from_pretrained(dir, { output_loading_info: true });
  t.same([...info.missing_keys], []);
  t.same(
    [...info.unexpected_keys],
    split.model.layers.length === 2 ? ["model.layers.0.mlp.extra", "model.layers.1.mlp.extra"] : [],
    "what a hook adds and nobody takes",
  );
  t.ok(torch.allclose(logits(split), logits(plain), { atol: 1e-5 }));
  const again = t.testdir();
  await split.save_pretrained(again);
  const back = await LlamaForCausalLM.from_pretrained(again, { strict: true });
  t.ok(torch.equal(logits(back), logits(split)));
});

t.test("hooks of a base model, of the root, and hooks that fail", async (t) => {
  const plain = await LlamaForCausalLM.from_pretrained(llama, { dtype: "float32" });
  const body = t.testdir();
  await plain.model.save_pretrained(body);
  // The file has the names of the base model.
  const [fused, info] = await Fused.from_pretrained(body, { dtype: "float32", output_loading_info: true });
  t.same([...info.missing_keys], ["lm_head.weight"]);
  t.same([...info.unexpected_keys], []);
  t.ok(fused.get_parameter("model.layers.0.mlp.gate_up.weight"));

  class Root extends LlamaModel {
    constructor(config: LlamaConfig) {
      super(config);
      this._register_load_state_dict_pre_hook(
        (state_dict, prefix, metadata, strict, missing, unexpected, errors) => {
          t.same([prefix, metadata, strict, missing, unexpected, errors], ["", {}, true, [], [], []]);
          state_dict["norm.weight"] = (state_dict["norm.weight"] as Tensor).mul(2);
        },
      );
      this.post_init();
    }
  }
  const [doubled, rootInfo] = await Root.from_pretrained(body, { output_loading_info: true });
  t.same([...rootInfo.missing_keys, ...rootInfo.unexpected_keys], []);
  t.ok(torch.equal(doubled.norm.weight as Tensor, (plain.model.norm.weight as Tensor).mul(2)));

  class Failing extends LlamaModel {
    constructor(config: LlamaConfig) {
      super(config);
      this.norm._register_load_state_dict_pre_hook(
        (...context) => void context[6].push("norm: no such layout"),
      );
      this.post_init();
    }
  }
  await t.rejects(Failing.from_pretrained(body), { code: "ERR_CHECKPOINT", message: /norm: no such layout/ });
  class Reshaping extends LlamaModel {
    constructor(config: LlamaConfig) {
      super(config);
      this.norm._register_load_state_dict_pre_hook((state_dict, prefix) => {
        state_dict[`${prefix}weight`] = torch.ones([3]);
      });
      this.post_init();
    }
  }
  await t.rejects(Reshaping.from_pretrained(body), {
    code: "ERR_CHECKPOINT",
    mismatched_keys: [["norm.weight", [3], [plain.config.hidden_size as number]]],
  });
});

t.test("replaced after loading", async (t) => {
  const model = await LlamaForCausalLM.from_pretrained(llama, { dtype: "float32" });
  const before = logits(model);
  const recorded = (await model.run({ input_ids: ids })).logits;
  t.ok(torch.allclose(recorded, before, { atol: 1e-5 }));
  for (const layer of model.model.layers) {
    const old = layer.mlp;
    layer.set_submodule("mlp", new FusedMLP(model.config as LlamaConfig));
    t.same(layer.get_submodule("mlp").load_state_dict(old.state_dict()), {
      missing_keys: [],
      unexpected_keys: [],
    });
  }
  t.ok(torch.allclose(logits(model), before, { atol: 1e-5 }));
  t.ok(
    torch.allclose((await model.run({ input_ids: ids })).logits, before, { atol: 1e-5 }),
    "recorded again",
  );
  const { sequences } = (await model.generate(
    { input_ids: ids },
    { max_new_tokens: 2, do_sample: false, return_dict_in_generate: true },
  )) as { sequences: Tensor };
  t.same(sequences.shape, [1, 7]);
  t.same(await warnings(), []);

  // Without weights: told of once, by name, and `generate` refuses it.
  for (const layer of model.model.layers)
    layer.set_submodule("mlp", new FusedMLP(model.config as LlamaConfig).to("float32"));
  logits(model);
  logits(model);
  const [warning, ...more] = await warnings();
  t.match(warning, /model\.layers\.\{0, 1\}\.mlp\.gate_up\.weight.*load_state_dict/);
  t.same(more, []);
  await t.rejects(model.generate({ input_ids: ids }, { max_new_tokens: 1 }), {
    code: "ERR_UNINITIALIZED_WEIGHTS",
    message: /model\.layers\.0\.mlp\.gate_up\.weight/,
  });
  const dir = t.testdir();
  await model.save_pretrained(dir);
  t.same(await warnings(), []);
  torch.no_grad(() => {
    for (const name of model.uninitialized_weights()) model.get_parameter(name).mul_(0.5);
  });
  t.same(model.uninitialized_weights(), [], "trained, or written to");

  // Parts that hold weights already, from elsewhere in the model or computed, are no case of it.
  const [first, second] = [...model.model.layers] as [LlamaModel["layers"][0], LlamaModel["layers"][0]];
  const shared = new nn.Linear(2, 2);
  torch.no_grad(() => shared.weight.copy_(torch.ones([2, 2])));
  shared.bias = new nn.Parameter(torch.zeros([2]));
  first.set_submodule("mlp", second.mlp);
  second.set_submodule("self_attn", shared);
  t.same(model.uninitialized_weights(), []);
  t.same(await warnings(), []);
  t.match(readFileSync(join(dir, "config.json"), "utf8"), /"model_type": "llama"/);
});
