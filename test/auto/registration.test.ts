// Classes of a program's own: what `register` refuses and says, and that they work through the Auto classes, `run` and
// `save_pretrained`, whatever their forward takes and gives.
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import {
  AutoConfig,
  AutoModel,
  AutoModelForCausalLM,
  AutoModelForImageClassification,
  AutoTokenizer,
  type ConfigKwargs,
  LlamaConfig,
  LlamaForCausalLM,
  LlamaModel,
  nn,
  PreTrainedModel,
  PreTrainedTokenizerFast,
  PretrainedConfig,
  type Tensor,
  torch,
} from "torchformers";
import { fixture } from "../support/fixtures.js";

type Widths = ConfigKwargs & { width?: number };

function configClass(model_type: string, name = "OwnConfig") {
  class OwnConfig extends PretrainedConfig {
    static override readonly model_type: string = model_type;
    declare width: number;
    constructor({ width = 3, ...kwargs }: Widths = {}) {
      super(kwargs);
      this.width = width;
      this.post_init();
    }
  }
  Object.defineProperty(OwnConfig, "name", { value: name });
  return OwnConfig;
}
type OwnConfig = InstanceType<ReturnType<typeof configClass>>;

const codes = { code: "ERR_INVALID_ARGUMENT" };

t.test("refusals name both sides and the line to write", (t) => {
  const A = configClass("reg-a", "AConfig");
  const B = configClass("reg-b", "BConfig");
  class AModel extends PreTrainedModel {
    static override readonly config_class = A;
  }
  class Bare extends PreTrainedModel {}
  t.throws(() => AutoConfig.register("reg-x", A), {
    ...codes,
    message: /AConfig\.model_type is 'reg-a', but .* 'reg-x'[\s\S]*AutoConfig\.register\("reg-a", AConfig\);/,
  });
  t.throws(() => AutoConfig.register("", configClass("")), { ...codes, message: /model_type/ });
  t.throws(() => AutoConfig.register("reg-n", configClass("", "NoType")), {
    message: /static override readonly model_type = "reg-n";/,
  });
  t.throws(() => AutoConfig.register("reg-a", AModel as never), { ...codes, message: /AModel is no class/ });
  t.throws(() => AutoConfig.register("reg-a", new A() as never), { message: /an instance of AConfig/ });
  t.throws(() => AutoConfig.register("llama", LlamaConfig), {
    message:
      /'llama'.*of this library\.\n.*AutoConfig\.register\("llama", LlamaConfig, \{ exist_ok: true \}\);/,
  });

  t.throws(() => AutoModel.register(A, AModel), {
    ...codes,
    message: /AConfig for 'reg-a', so AModel.*\nFirst: AutoConfig\.register\("reg-a", AConfig\);/,
  });
  AutoConfig.register("reg-a", A);
  AutoConfig.register("reg-b", B);
  t.throws(() => AutoModel.register(B, AModel), {
    message:
      /AModel\.config_class is AConfig \('reg-a'\).* BConfig \('reg-b'\)\.\n.*AutoModel\.register\(AConfig, AModel\);/,
  });
  t.throws(() => AutoModel.register(A, Bare), {
    message: /Bare does not say.*\nWrite in Bare: static override readonly config_class = AConfig;/,
  });
  t.throws(() => AutoModel.register(AModel as never, A as never), {
    ...codes,
    message: /AModel is no class/,
  });
  t.throws(() => AutoModel.register(A, class {} as never), {
    message: /AutoModel\.register\(MyConfig, MyModel\)/,
  });
  t.throws(() => AutoModelForCausalLM.register(LlamaConfig, LlamaForCausalLM), {
    message:
      /LlamaConfig \('llama'\) already has.*\n.*AutoModelForCausalLM\.register\(LlamaConfig, LlamaForCausalLM, \{ exist_ok: true \}\);/,
  });
  AutoModel.register(A, AModel);
  t.throws(() => AutoModel.register(A, AModel), codes);
  AutoModel.register(A, AModel, { exist_ok: true });

  class MyTokenizer extends PreTrainedTokenizerFast {}
  t.throws(() => AutoTokenizer.register(LlamaConfig, MyTokenizer), {
    message:
      /'llama' has a class.*\n.*AutoTokenizer\.register\(LlamaConfig, MyTokenizer, \{ exist_ok: true \}\);/,
  });
  t.throws(() => AutoTokenizer.register(A, {}), { ...codes, message: /no class of tokenizers/ });
  t.throws(() => AutoTokenizer.register(AModel as never, MyTokenizer), codes);
  t.end();
});

t.test("whatever forward takes and gives", async (t) => {
  const x = torch.ones([2, 3]);
  type Own = PreTrainedModel & { fc: nn.Linear };
  const cases: [name: string, forward: unknown, given: unknown[], check: (out: never) => void][] = [
    [
      "a tensor",
      function (this: Own, x: Tensor) {
        return this.fc.forward(x);
      },
      [x],
      (out: Tensor) => t.same(out.shape, [2, 2]),
    ],
    [
      "a plain object, of two positional tensors and a flag",
      function (this: Own, x: Tensor, y: Tensor | null, twice: boolean) {
        const z = this.fc.forward(y ? x.add(y) : x);
        return { features: [z, z.relu()], twice: twice ? z.mul(2) : null };
      },
      [x, x, true],
      (out: { features: Tensor[]; twice: Tensor }) => {
        t.equal(out.features.length, 2);
        t.same(out.twice.shape, [2, 2]);
      },
    ],
    [
      "nested inputs, an array",
      function (this: Own, { images: [a], scale }: { images: Tensor[]; scale: number }) {
        return [this.fc.forward(a as Tensor).mul(scale), "kept"];
      },
      [{ images: [x], scale: 2 }],
      (out: [Tensor, string]) => t.equal(out[1], "kept"),
    ],
  ];
  for (const [i, [name, forward, given, check]] of cases.entries()) {
    await t.test(name, async (t) => {
      const type = `reg-forward-${i}`;
      const Config = configClass(type);
      class Model extends PreTrainedModel {
        static override readonly config_class = Config;
        readonly fc: nn.Linear;
        constructor(config: OwnConfig) {
          super(config);
          this.fc = new nn.Linear(config.width, 2);
          this.post_init();
        }
        override forward(...args: never[]): unknown {
          return (forward as (...args: never[]) => unknown).apply(this, args);
        }
      }
      AutoConfig.register(type, Config);
      AutoModel.register(Config, Model);
      AutoModelForImageClassification.register(Config, Model);
      const dir = t.testdir();
      const model = new Model(new Config({ width: 3 }));
      await model.save_pretrained(dir);
      t.match(JSON.parse(readFileSync(join(dir, "config.json"), "utf8")), {
        model_type: type,
        architectures: ["Model"],
        width: 3,
      });
      for (const Auto of [AutoModel, AutoModelForImageClassification]) {
        const loaded = await Auto.from_pretrained(dir);
        t.ok(loaded instanceof Model);
        const eager = torch.no_grad(() => (loaded.forward as (...a: unknown[]) => never)(...given));
        const program = (await (loaded.run as (...a: unknown[]) => Promise<never>)(...given, {
          signal: new AbortController().signal,
        })) as never;
        check(eager);
        check(program);
        t.same(tensors(program), tensors(eager));
      }
      const made = await AutoModel.from_config(new Config({ width: 3 }));
      t.ok(made instanceof Model);
    });
  }
  t.end();
});

function tensors(value: unknown): unknown {
  if (value instanceof torch.Tensor) return value.tolist();
  if (Array.isArray(value)) return value.map(tensors);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, tensors(each)]));
}

t.test("a run that is stopped before it begins", async (t) => {
  const Config = configClass("reg-run");
  class Model extends PreTrainedModel {
    static override readonly config_class = Config;
    override forward(x: Tensor, options: { signal?: AbortSignal; scale?: number } = {}): Tensor {
      return x.mul(options.scale ?? 1);
    }
  }
  const model = new Model(new Config());
  const x = torch.ones([2]);
  await t.rejects(model.run(x, { signal: AbortSignal.abort(new Error("stop")) }), { message: "stop" });
  t.same((await model.run(x, { scale: 3 })).tolist(), [3, 3], "what is more than a signal is an input");
});

// Last, since it stays in force.
t.test("with exist_ok the user's classes win for a native type, everywhere in this process", async (t) => {
  const dir = t.testdir();
  cpSync(fixture("models/llama"), dir, { recursive: true });
  class MineConfig extends LlamaConfig {}
  class Mine extends LlamaForCausalLM {
    static override readonly config_class = MineConfig;
  }
  class MyTokenizer extends PreTrainedTokenizerFast {}

  class Named extends LlamaForCausalLM {}
  AutoModelForCausalLM.register(LlamaConfig, Named, { exist_ok: true });
  t.ok((await AutoModelForCausalLM.from_pretrained(dir)) instanceof Named, "a model for the native config");

  AutoConfig.register("llama", MineConfig, { exist_ok: true });
  t.ok((await AutoConfig.from_pretrained(dir)) instanceof MineConfig);
  t.ok((await AutoConfig.for_model("llama")) instanceof MineConfig);
  await t.rejects(AutoModelForCausalLM.from_pretrained(dir), {
    ...codes,
    message: /no class for model_type 'llama'/,
  });
  AutoModelForCausalLM.register(MineConfig, Mine);
  t.ok((await AutoModelForCausalLM.from_pretrained(dir)) instanceof Mine);
  t.ok((await AutoModelForCausalLM.from_config(new MineConfig({ num_hidden_layers: 1 }))) instanceof Mine);
  t.ok((await LlamaModel.from_pretrained(dir)) instanceof LlamaModel, "a class named outright is that class");

  cpSync(fixture("tokenizers/llama2"), dir, { recursive: true });
  writeFileSync(join(dir, "config.json"), readFileSync(join(fixture("models/llama"), "config.json")));
  AutoTokenizer.register(MineConfig, {
    slow_tokenizer_class: PreTrainedTokenizerFast,
    fast_tokenizer_class: MyTokenizer,
  });
  t.ok((await AutoTokenizer.from_pretrained(dir)) instanceof MyTokenizer);
});

t.test("a copy of a native class that AutoConfig does not know is found out", async (t) => {
  const Twin = configClass("own-twin", "OwnTwin");
  AutoConfig.register("own-twin", Twin);
  const Copy = configClass("llama", "LlamaConfig");
  class Model extends PreTrainedModel {
    static override readonly config_class = Copy;
  }
  AutoModel.register(Copy, Model, { exist_ok: true });
  await t.rejects(AutoModel.from_config(new LlamaConfig({ num_hidden_layers: 1 })), {
    ...codes,
    message:
      /LlamaConfig of your own.*\n.*AutoConfig\.register\("llama", LlamaConfig, \{ exist_ok: true \}\)/,
  });
});
