// What the compiler knows of models, layers, training, generation and tokenizers: this file checks types, so most of it
// never runs. Tensors have test/torch/types.test.ts.
import t from "tap";
import {
  AutoModel,
  AutoModelForCausalLM,
  AutoModelForSequenceClassification,
  AutoTokenizer,
  type BatchEncoding,
  GenerationMixin,
  type LlamaConfig,
  LlamaForCausalLM,
  LlamaPreTrainedModel,
  nn,
  optim,
  PreTrainedModel,
  PretrainedConfig,
  safetensors,
  type Tensor,
  torch,
} from "torchformers";

export async function models(signal: AbortSignal): Promise<unknown[]> {
  const model = await AutoModelForCausalLM.from_pretrained("x", {
    dtype: "bfloat16",
    device_map: "cuda:0",
    signal,
  });
  const base = await AutoModel.from_pretrained("x");
  const classifier = await AutoModelForSequenceClassification.from_pretrained("x", { num_labels: 3 });
  const [again, info] = await AutoModelForCausalLM.from_pretrained("x", { output_loading_info: true });
  const llama: LlamaForCausalLM = await LlamaForCausalLM.from_pretrained("x", { torch_dtype: "auto" });
  const config: LlamaConfig = llama.config;
  const hidden: number | undefined = model.config.hidden_size;
  const logits: Tensor = model.forward({ input_ids: torch.ones([1, 2], { dtype: "int64" }) }).logits;
  const loss: Tensor | undefined = model.forward({ labels: logits }).loss;
  const last: Tensor = base.forward({}).last_hidden_state;
  const state: Readonly<Record<string, Tensor>> = model.state_dict();
  const missing: readonly string[] = [...info.missing_keys];
  await model.save_pretrained("y", { max_shard_size: "5GB" });

  // @ts-expect-error unknown dtype
  AutoModelForCausalLM.from_pretrained("x", { dtype: "float17" });
  // @ts-expect-error a callback is wanted
  AutoModelForCausalLM.from_pretrained("x", { progress_callback: true });
  // @ts-expect-error a number or a text is wanted
  model.save_pretrained("y", { max_shard_size: true });
  // @ts-expect-error unknown option
  model.save_pretrained("y", { shard_size: 5 });
  // @ts-expect-error a causal model has no such output
  model.forward({}).last_hidden_state;
  // @ts-expect-error a base model has no logits
  base.forward({}).logits;
  // @ts-expect-error ids are tensors here
  model.forward({ input_ids: [1, 2] });
  // @ts-expect-error llama takes no such input
  llama.forward({ pixel_values: logits });
  // @ts-expect-error Auto classes are not constructed with a config
  new AutoModelForCausalLM(config);
  return [again, classifier.forward({}).logits, hidden, loss, last, state, missing];
}

export async function generation(model: LlamaForCausalLM): Promise<unknown[]> {
  const tokenizer = await AutoTokenizer.from_pretrained("x");
  const plain: BatchEncoding = await tokenizer("a", "b", { padding: "max_length", truncation: true });
  const inputs = await tokenizer(["a"], { return_tensors: "pt" });
  const logits: Tensor = model.forward({ ...inputs }).logits;
  const ids: Tensor = await model.generate(inputs, { max_new_tokens: 2 });
  const { sequences } = await model.generate([1, 2], { return_dict_in_generate: true });
  for await (const text of model.stream(inputs, { tokenizer })) text.toUpperCase();
  for await (const step of model.stream(inputs)) step.ids.tolist();
  const text: string = await tokenizer.apply_chat_template([{ role: "user", content: "hi" }], {
    tokenize: false,
  });
  const decoded: string = await tokenizer.decode(ids.index(0), { skip_special_tokens: true });

  // @ts-expect-error a number is wanted
  model.generate(inputs, { max_new_tokens: "2" });
  // @ts-expect-error unknown option
  tokenizer("a", { paddding: true });
  // @ts-expect-error only torch tensors
  tokenizer("a", { return_tensors: "np" });
  // @ts-expect-error texts, not numbers
  tokenizer(1);
  return [plain, logits, sequences, text, decoded];
}

class Gated extends nn.Module {
  readonly up: nn.Linear;
  readonly layers: nn.ModuleList<nn.Linear>;

  constructor() {
    super();
    this.up = new nn.Linear(2, 2, { bias: false });
    this.layers = new nn.ModuleList([new nn.Linear(2, 2)]);
  }

  override forward(x: Tensor): Tensor {
    for (const layer of this.layers) x = layer.forward(x);
    return this.up.forward(x).sigmoid();
  }
}

export class Narrowed extends LlamaForCausalLM {
  declare readonly lm_head: nn.Linear;
  // @ts-expect-error not what the parent calls
  override post_init: number;
}

export class MyModel extends GenerationMixin(LlamaPreTrainedModel) {
  readonly gate: Gated;

  constructor(config: LlamaConfig) {
    super(config);
    this.gate = new Gated();
    this.post_init();
  }

  override forward({ input_ids }: { input_ids: Tensor }): { logits: Tensor } {
    return { logits: this.gate.forward(input_ids) };
  }
}

export class MyConfig extends PretrainedConfig {
  declare depth: number;

  constructor({ depth = 2, ...kwargs }: { depth?: number } & Record<string, unknown> = {}) {
    super(kwargs);
    this.depth = depth;
  }
}

export class Plain extends PreTrainedModel {
  static override config_class = MyConfig;
  declare readonly config: MyConfig;

  override forward(x: Tensor): Tensor {
    return x.mul(this.config.depth);
  }
}

export async function training(): Promise<unknown[]> {
  const gated = new Gated();
  const optimizer = new optim.AdamW(gated.parameters(), { lr: 1e-3, betas: [0.9, 0.95], weight_decay: 0.1 });
  const groups = new optim.SGD([{ params: gated.parameters(), lr: 0.1 }], { lr: 0.2, momentum: 0.9 });
  const scheduler = new optim.lr_scheduler.CosineAnnealingLR(optimizer, 10);
  const grad: Tensor | null | undefined = gated.up.weight.grad;
  const name: [string, nn.Parameter] | undefined = [...gated.named_parameters()][0];
  const weight: Tensor = gated.layers[0]?.weight as Tensor;
  const file: Record<string, Tensor> = await safetensors.load_file("x");
  gated.to("cuda:0").train().eval();
  using handle = gated.register_forward_hook(() => undefined);
  handle.remove();
  const mine: MyModel = await MyModel.from_pretrained("x");
  const plain: Plain = await Plain.from_pretrained("x");
  const depth: number = plain.config.depth;

  new nn.Linear({ in_features: 2, out_features: 2, dtype: "bfloat16" });
  new nn.Linear(2, { out_features: 2, bias: false });
  new nn.Conv2d(3, 8, { kernel_size: 3, stride: 2, padding: "same" });
  new nn.PixelShuffle({ upscale_factor: 2 });
  new nn.Parameter(weight, { requires_grad: false });

  nn.functional.max_pool2d(weight, { kernel_size: 2, stride: 2 });
  nn.functional.cross_entropy({ input: weight, target: weight, ignore_index: 0 });
  nn.functional.zero_pad2d(weight, { padding: [1, 1, 1, 1] });
  nn.functional.softmax(weight, -1, { dtype: "float64" });
  nn.init.normal_(weight, { std: 0.02 });

  // @ts-expect-error it is needed
  nn.functional.max_pool2d(weight, { stride: 2 });
  // @ts-expect-error unknown option
  nn.functional.cross_entropy({ input: weight, target: weight, ignore: 0 });
  // @ts-expect-error a text is wanted
  nn.functional.cross_entropy(weight, { target: weight, reduction: 1 });

  // @ts-expect-error unknown option
  new nn.Linear(2, 2, { biases: false });
  // @ts-expect-error the second size is needed
  new nn.Linear(2);
  // @ts-expect-error by name it is needed, too
  new nn.Linear(2, { bias: false });
  // @ts-expect-error by name it is needed, too
  new nn.Linear({ in_features: 2 });
  // @ts-expect-error unknown name beside the needed ones
  new nn.Linear({ in_features: 2, out_features: 2, biases: false });
  // @ts-expect-error by position and by name
  new nn.Linear(2, 2, { in_features: 2 });
  // @ts-expect-error a number is wanted
  new nn.PixelShuffle({ upscale_factor: "2" });
  // @ts-expect-error this layer takes nothing else
  new nn.PixelShuffle(2, { factor: 2 });
  // @ts-expect-error unknown option
  new optim.AdamW(gated.parameters(), { learning_rate: 1e-3 });
  // @ts-expect-error parameters, not a module
  new optim.AdamW(gated);
  // @ts-expect-error two values
  new optim.AdamW(gated.parameters(), { betas: [0.9] });
  return [groups, scheduler, grad, name, weight, file, mine, depth];
}

t.pass("compiled");
