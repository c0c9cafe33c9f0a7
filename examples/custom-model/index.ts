// Changes a layer of a loaded llama: its feed-forward blocks get a low-rank adapter beside them, the only part that trains.
// Then registers the changed model, so that the Auto classes load it.
//   node build/examples/custom-model/index.js [folder] [output folder]
import {
  AutoConfig,
  AutoModelForCausalLM,
  LlamaConfig,
  LlamaForCausalLM,
  LlamaMLP,
  LlamaModel,
  nn,
  type Tensor,
  torch,
} from "torchformers";

const [folder = "test/fixtures/demo-llama", output = "build/adapted"] = process.argv.slice(2);

class AdapterConfig extends LlamaConfig {
  static override readonly model_type = "llama-with-adapters";
  declare rank: number;

  constructor({ rank = 4, ...kwargs }: { rank?: number } & Record<string, unknown> = {}) {
    super(kwargs);
    this.rank = rank;
  }
}

/** mlp(x) + up(down(x)), where `up` begins as zero: before training nothing changes. */
class AdapterMLP extends LlamaMLP {
  readonly adapter_down: nn.Linear;
  readonly adapter_up: nn.Linear;

  constructor(config: AdapterConfig) {
    super(config);
    this.adapter_down = new nn.Linear(config.hidden_size, config.rank, { bias: false });
    this.adapter_up = new nn.Linear(config.rank, config.hidden_size, { bias: false });
  }

  override forward(x: Tensor): Tensor {
    return super.forward(x).add(this.adapter_up.forward(this.adapter_down.forward(x)));
  }
}

/** Llama's body; as a model of its own it also says how its new layers begin. */
class AdapterLlamaModel extends LlamaModel {
  constructor(config: AdapterConfig) {
    super(config);
    for (const layer of this.layers) Object.assign(layer, { mlp: new AdapterMLP(config) });
    this.post_init();
  }

  override _init_weights(module: nn.Module): void {
    super._init_weights(module);
    if (module instanceof AdapterMLP) module.adapter_up.weight.data.zero_();
  }
}

class AdapterLlamaForCausalLM extends LlamaForCausalLM {
  static override readonly config_class = AdapterConfig;
  declare readonly model: AdapterLlamaModel;

  constructor(config: AdapterConfig) {
    super(config);
    this.model = new AdapterLlamaModel(config);
    this.post_init();
  }
}

AutoConfig.register("llama-with-adapters", AdapterConfig);
AutoModelForCausalLM.register(AdapterConfig, AdapterLlamaForCausalLM);

const plain = await AutoModelForCausalLM.from_pretrained(folder, { dtype: "float32" });
const [model, { missing_keys }] = await AdapterLlamaForCausalLM.from_pretrained(folder, {
  dtype: "float32",
  output_loading_info: true,
});
console.log(`${[...missing_keys].length} new weights, by chance or zero; the rest is the checkpoint's`);

const input_ids = torch.tensor([[1, 2, 3, 4]]);
console.log(
  "same logits before training:",
  torch.allclose(plain.forward({ input_ids }).logits, model.forward({ input_ids }).logits),
);

for (const [name, parameter] of model.named_parameters()) parameter.requires_grad_(name.includes("adapter"));
console.log(
  `${model.num_parameters({ only_trainable: true })} of ${model.num_parameters()} parameters train`,
);

await model.save_pretrained(output);
const again = await AutoModelForCausalLM.from_pretrained(output);
console.log("loaded again as", again.constructor.name);
