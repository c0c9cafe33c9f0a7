// pipeline(task, model) against the results of Python's, and what is ours: streams of inputs, signals, the event loop.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import * as torchformers from "torchformers";
import { pipeline, type TextGenerationPipeline, torch } from "torchformers";
import { fixture } from "../support/fixtures.js";

interface Case {
  readonly name: string;
  readonly inputs: unknown;
  readonly options: object;
  readonly output?: unknown;
  readonly error?: string;
}

const demo = fixture("demo-llama");

// biome-ignore lint/suspicious/noExplicitAny: cases are data.
type Any = any;

t.test("wrong input", async (t) => {
  const any = pipeline as Any;
  await t.rejects(any("text-generaton", demo), {
    code: "ERR_INVALID_ARGUMENT",
    suggestion: "text-generation",
  });
  await t.rejects(any("text-generation"), { message: /needs a model/ });
  await t.rejects(any("text-generation", "/no/such/folder"), { code: "ERR_ENTRY_NOT_FOUND" });
  await t.rejects(any("text-generation", demo, { device: "cpu", device_map: "cpu" }), {
    message: /together/,
  });
  await t.rejects(pipeline("text-generation", demo, { signal: AbortSignal.abort(new Error("stop")) }), {
    message: "stop",
  });
  const generate = await pipeline("text-generation", demo);
  await t.rejects((generate as Any)("x", { max_new_token: 3 }), {
    code: "ERR_INVALID_ARGUMENT",
    suggestion: "max_new_tokens",
  });
  await t.rejects(generate(["x"], { batch_size: 0 }), { message: /batch_size/ });
  await t.rejects((generate as Any)([{ role: "user" }]), { message: /messages/ });
  await t.rejects(generate([{ role: "user", content: "Hi" }]), { message: /template/ });
  const unfinished = await torchformers.LlamaForSequenceClassification.from_pretrained(demo);
  t.throws(() => new torchformers.TextGenerationPipeline({ model: unfinished }), {
    code: "ERR_UNINITIALIZED_WEIGHTS",
  });
});

t.test("text-generation, as Python's", async (t) => {
  const { chat_template, cases } = JSON.parse(
    readFileSync(join(fixture("pipelines"), "text_generation.json"), "utf8"),
  ) as { chat_template: string; cases: Case[] };
  const tokenizer = await torchformers.AutoTokenizer.from_pretrained(demo, { chat_template });
  const generate = await pipeline("text-generation", demo, { tokenizer, dtype: "float32", device: "cpu" });
  for (const { name, inputs, options, output, error } of cases) {
    torch.manual_seed(0);
    const call = (generate as Any)(inputs, options);
    if (error !== undefined) await t.rejects(call, { code: "ERR_INVALID_ARGUMENT" }, name);
    else t.same(await call, output, name);
  }
});

t.test("image-classification, as Python's", async (t) => {
  interface ImageCase extends Case {
    readonly model: string;
    readonly processor: string;
    readonly pictures: string[];
    readonly config: object;
  }
  const cases = JSON.parse(
    readFileSync(join(fixture("pipelines"), "image_classification.json"), "utf8"),
  ) as ImageCase[];
  for (const { name, model: folder, processor, pictures, options, config, output } of cases) {
    const model = await torchformers.AutoModelForImageClassification.from_pretrained(fixture(folder));
    Object.assign(model.config, config);
    const classify = await pipeline("image-classification", model, {
      image_processor: fixture(processor),
      device: "cpu",
    });
    const files = pictures.map((picture) => join(fixture("preprocessing/assets"), picture));
    const actual = await (classify as Any)(files.length > 1 ? files : files[0], options);
    const expected = output as Any;
    const labels = (results: Any): Any =>
      results.map((result: Any) => (Array.isArray(result) ? labels(result) : result.label));
    const scores = (results: Any): number[] => results.flat().map((result: Any) => result.score);
    t.same(labels(actual), labels(expected), `${folder}, ${name}: labels`);
    const differences = scores(actual).map((score, i) => Math.abs(score - (scores(expected)[i] as number)));
    // Lossy pictures are decoded to the same bytes; what is left is the order of sums.
    t.ok(Math.max(...differences) < 1e-5, `${folder}, ${name}: scores`);
  }
  const model = await torchformers.ResNetForImageClassification.from_pretrained(fixture("models/resnet"));
  const bare = await pipeline("image-classification", model);
  await t.rejects(bare(join(fixture("preprocessing/assets"), "wide.jpg")), { message: /image processor/ });
  const classify = await pipeline("image-classification", model, {
    image_processor: fixture("preprocessing/image-convnext"),
  });
  await t.rejects((classify as Any)("no such file.png"), { code: "ERR_INVALID_ARGUMENT" });
  await t.rejects((classify as Any)("x.png", { function_to_apply: "softmin" }), { message: /softmax/ });
  await t.rejects((classify as Any)(7), { code: "ERR_INVALID_ARGUMENT" });
  const bytes = readFileSync(join(fixture("preprocessing/assets"), "wide.jpg"));
  const decoded = await torchformers.load_image(bytes);
  const ways = [
    bytes,
    `data:image/jpeg;base64,${bytes.toString("base64")}`,
    bytes.toString("base64"),
    decoded,
  ];
  const results = await classify(ways);
  for (const result of results) t.same(result, results[0], "whatever a picture comes as");
});

t.test("classes of a user", async (t) => {
  class PatchConfig extends torchformers.PretrainedConfig {
    static override readonly model_type = "patch-classifier";
    declare channels: number;
    constructor({ channels = 3, ...kwargs }: Record<string, unknown> = {}) {
      super(kwargs);
      this.channels = channels as number;
    }
  }
  class PatchProcessor extends torchformers.TorchvisionBackend {
    static override readonly size = { height: 8, width: 8 };
    static override readonly resample = torchformers.PILImageResampling.BILINEAR;
    static override readonly do_resize = true;
    static override readonly do_rescale = true;
  }
  // One model takes a tensor and gives a tensor, the other one takes its inputs by name and gives an object.
  class TensorModel extends torchformers.PreTrainedModel {
    static override readonly config_class = PatchConfig;
    readonly head: torchformers.nn.Linear;
    constructor(config: PatchConfig) {
      super(config);
      this.head = new torchformers.nn.Linear(config.channels, config.num_labels as number);
      this.post_init();
    }
    override forward(tensor: Any): Any {
      return this.head.forward(tensor.mean([2, 3]));
    }
  }
  class NamedModel extends TensorModel {
    override forward({ pixel_values }: Any): Any {
      return { logits: super.forward(pixel_values) };
    }
  }
  torchformers.AutoConfig.register("patch-classifier", PatchConfig as Any);
  torchformers.AutoImageProcessor.register(PatchConfig, PatchProcessor);
  const folder = t.testdir();
  torch.manual_seed(1);
  await new TensorModel(new PatchConfig({ num_labels: 3 })).save_pretrained(folder);
  await new PatchProcessor().save_pretrained(folder);
  const picture = join(fixture("preprocessing/assets"), "square.png");
  const results = [];
  for (const Model of [TensorModel, NamedModel]) {
    torchformers.AutoModelForImageClassification.register(PatchConfig, Model as Any, { exist_ok: true });
    const classify = await pipeline("image-classification", folder);
    t.equal(classify.model.constructor, Model);
    t.equal(classify.image_processor?.constructor, PatchProcessor);
    results.push(await classify(picture));
    t.same(await classify([picture, picture], { batch_size: 2 }), [results.at(-1), results.at(-1)]);
  }
  t.equal(results[0]?.length, 3);
  t.same(results[0], results[1]);

  class Count extends torchformers.Pipeline {
    _sanitize_parameters(options: Any): Any {
      return { preprocess: {}, forward: {}, postprocess: options };
    }
    async preprocess(input: Any): Promise<Any> {
      return { pixel_values: torch.ones([1, 3, 2, 2]), input };
    }
    async _forward({ pixel_values, input }: Any): Promise<Any> {
      return { logits: (this.model as Any).forward(pixel_values), input };
    }
    postprocess({ logits, input }: Any, { unit }: Any): string {
      return `${input}: ${logits.shape[1]} ${unit}`;
    }
  }
  t.throws(() =>
    torchformers.PIPELINE_REGISTRY.register_pipeline("count", { pipeline_class: Date as Any, pt_model: [] }),
  );
  torchformers.AutoModelForImageClassification.register(PatchConfig, TensorModel as Any, { exist_ok: true });
  torchformers.PIPELINE_REGISTRY.register_pipeline("count", {
    pipeline_class: Count as Any,
    pt_model: torchformers.AutoModelForImageClassification,
  });
  const count = (await pipeline("count", folder, { unit: "labels" })) as Any;
  t.equal(await count("a"), "a: 3 labels");
  t.same(await count(["a", "b"], { unit: "x", batch_size: 2 }), ["a: 3 x", "b: 3 x"]);
});

t.test("streams", async (t) => {
  const generate: TextGenerationPipeline = await pipeline("text-generation", demo, {
    dtype: "float32",
    do_sample: false,
    max_new_tokens: 4,
    return_full_text: false,
  });
  let taken = 0;
  let ended = false;
  async function* prompts() {
    try {
      for (const prompt of ["This class", "The file", "A", "Return", "The"]) {
        taken++;
        yield prompt;
      }
    } finally {
      ended = true;
    }
  }
  const alone = await generate(["This class", "The file", "A"]);
  const texts = [];
  for await (const result of generate(prompts())) {
    texts.push(result);
    if (texts.length === 2) break;
  }
  t.same(texts, alone.slice(0, 2), "results in order, options of the constructor hold");
  t.ok(taken <= 4, "inputs are taken as results are asked for");
  t.ok(ended, "a break ends the source");
  const all = [];
  for await (const result of generate(new Set(["This class", "The file", "A"]), { batch_size: 2 }))
    all.push(result);
  t.same(all, alone, "batches give the same");

  const controller = new AbortController();
  const late = generate(["This class", "The file"], { max_new_tokens: 400, signal: controller.signal });
  setTimeout(() => controller.abort(new Error("enough")), 20);
  await t.rejects(late, { message: "enough" });
});
