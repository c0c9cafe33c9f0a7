// The public names, used as a program would: what the package promises to keep.

import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import * as torchformers from "torchformers";
import {
  AutoConfig,
  AutoModel,
  AutoModelForCausalLM,
  AutoTokenizer,
  LlamaForCausalLM,
  nn,
  optim,
  safetensors,
  type Tensor,
  torch,
} from "torchformers";
import { fixture } from "../support/fixtures.js";
import { runProgram } from "../support/program.js";

const demo = fixture("demo-llama");
const code = (name: string) => ({ code: name });

t.test("every error class, with its code", async (t) => {
  const names = [
    ..."LibtorchNotFound NativeBindingNotFound CudaUnavailable OutOfMemory Shape Dtype Op Trace Disposed".split(
      " ",
    ),
    ..."InvalidArgument Config UnknownModelType Checkpoint SafetensorsFormat UnsupportedQuantization".split(
      " ",
    ),
    ..."UninitializedWeights RemoteCode Hub GatedRepo OfflineMode EntryNotFound Template".split(" "),
  ];
  for (const name of names) {
    const Class = (torchformers as unknown as Record<string, typeof torchformers.ShapeError>)[`${name}Error`];
    if (!Class) {
      t.fail(`${name}Error is not exported`);
      continue;
    }
    const cause = new Error("why");
    const error = new Class("what", { cause, hint: "do this" });
    t.match(error, { name: `${name}Error`, cause, hint: "do this", message: /^what/ });
    t.match(error.code, /^ERR_[A-Z_]+$/);
    t.ok(error instanceof torchformers.TorchformersError);
  }
});

t.test("loading: options, older names, overrides, progress", async (t) => {
  const config = await AutoConfig.from_pretrained(demo);
  t.match(config, { model_type: "llama", hidden_size: 256 });
  t.equal(torchformers.PreTrainedConfig, torchformers.PretrainedConfig);

  const events: torchformers.ProgressEvent[] = [];
  const model = await AutoModelForCausalLM.from_pretrained(demo, {
    dtype: "auto",
    device_map: "cpu",
    attn_implementation: "sdpa",
    local_files_only: true,
    trust_remote_code: false,
    strict: true,
    progress_callback: (event) => events.push(event),
    signal: new AbortController().signal,
  });
  t.ok(model instanceof LlamaForCausalLM);
  t.match(model, { dtype: "bfloat16", device: "cpu", config: { hidden_size: 256 } });
  t.same(Object.keys(events[0] ?? {}).sort(), [
    "file",
    "loaded",
    "stage",
    "total",
    "total_bytes",
    "total_loaded",
  ]);
  t.ok(events.length <= 12, "ten a second and one more per stage at most");
  for (const stage of ["resolve", "read", "ready"]) {
    const last = events.filter((event) => event.stage === stage).at(-1);
    t.ok(last && last.loaded === last.total, `the last event of ${stage} is complete`);
  }
  t.equal(events.at(-1)?.stage, "ready");

  t.equal((await AutoModelForCausalLM.from_pretrained(demo, { torch_dtype: "float32" })).dtype, "float32");
  const older = { low_cpu_mem_usage: true, _fast_init: true, use_safetensors: true, rms_norm_eps: 1e-3 };
  t.equal((await LlamaForCausalLM.from_pretrained(demo, older)).config.rms_norm_eps, 1e-3);
  await t.rejects(AutoModelForCausalLM.from_pretrained(demo, { dtyp: "auto" }), {
    ...code("ERR_INVALID_ARGUMENT"),
    suggestion: "dtype",
  });
  const [, info] = await AutoModel.from_pretrained(demo, { output_loading_info: true });
  t.same([...info.missing_keys], []);

  const abort = AbortSignal.abort(new Error("enough"));
  await t.rejects(AutoModelForCausalLM.from_pretrained(demo, { signal: abort }), /enough/);
  await t.rejects(AutoModelForCausalLM.from_pretrained("/nowhere"), code("ERR_ENTRY_NOT_FOUND"));
});

t.test("saving and loading again", async (t) => {
  const folder = t.testdir();
  const model = await AutoModelForCausalLM.from_pretrained(demo);
  await model.save_pretrained(folder, { max_shard_size: "1MB" });
  const index = JSON.parse(readFileSync(join(folder, "model.safetensors.index.json"), "utf8"));
  t.ok(new Set(Object.values(index.weight_map)).size > 1, "several shards");
  const again = await AutoModelForCausalLM.from_pretrained(folder);
  for (const [name, tensor] of Object.entries(model.state_dict())) {
    t.ok(torch.equal(tensor, again.state_dict()[name] as Tensor), name);
  }
});

t.test("forward, generate, stream", async (t) => {
  const tokenizer = await AutoTokenizer.from_pretrained(demo);
  const model = await AutoModelForCausalLM.from_pretrained(demo, { dtype: "float32" });
  const enc = await tokenizer(["This class is used to", "The file"], {
    padding: true,
    padding_side: "left",
    truncation: true,
    return_tensors: "pt",
  });
  const out = model.forward({ ...enc, labels: enc.input_ids });
  t.same(out.logits.shape.length, 3);
  t.equal(typeof out.loss?.item(), "number");
  t.same(out.keys().slice(0, 2), ["loss", "logits"]);
  t.equal(out.to_tuple()[1], out.logits);
  t.notOk(Object.keys(out).includes("hidden_states"), "what is absent is not enumerable");
  t.throws(() => model.forward({ input_id: enc.input_ids } as never), {
    ...code("ERR_INVALID_ARGUMENT"),
    suggestion: "input_ids",
  });

  const options = { max_new_tokens: 5, num_beams: 1 };
  const ids = await model.generate({ ...enc }, options);
  t.same(ids.shape[0], 2);
  const one = await model.generate([1, 2, 3], options);
  t.same((await model.generate([[1, 2, 3]], options)).tolist(), one.tolist());
  t.same((await model.generate(torch.tensor([[1, 2, 3]]), options)).tolist(), one.tolist());
  const dict = await model.generate([1, 2, 3], { ...options, return_dict_in_generate: true });
  t.same(dict.sequences.tolist(), one.tolist());

  const inputs = await tokenizer("This class is used to", { return_tensors: "pt" });
  let text = "";
  for await (const piece of model.stream({ ...inputs }, { tokenizer, max_new_tokens: 20 })) text += piece;
  t.equal(text, " create a `torch.nn.Module` object.");
  const steps: unknown[] = [];
  for await (const { ids } of model.stream([1, 2, 3], options)) steps.push(ids.tolist());
  t.same(steps.flat(), (one.tolist() as number[][])[0]?.slice(3));

  const live = torch.memory_stats().live_tensors;
  for await (const step of model.stream([1, 2, 3], { max_new_tokens: 50 })) {
    step.ids.dispose();
    break;
  }
  t.ok(torch.memory_stats().live_tensors <= live + 1, "a break frees the cache");

  const controller = new AbortController();
  const reason = new Error("enough");
  setTimeout(() => controller.abort(reason), 20);
  await t.rejects(
    model.generate([1, 2, 3], { max_new_tokens: 400, min_new_tokens: 400, signal: controller.signal }),
    reason,
  );

  const seen: number[][] = [];
  const processor = (input_ids: Tensor, scores: Tensor) => {
    seen.push([...input_ids.shape]);
    return scores;
  };
  const stop = (input_ids: Tensor) => torch.ones([input_ids.shape[0] as number], { dtype: "bool" });
  const cut = await model.generate([1, 2, 3], {
    ...options,
    logits_processor: [processor],
    stopping_criteria: [stop],
  });
  t.same(cut.shape, [1, 4]);
  t.same(seen, [[1, 3]]);
});

t.test("tensors: numbers in and out", async (t) => {
  t.match(torch.tensor([1, 2]), { dtype: "int64", shape: [2], device: "cpu" });
  t.equal(torch.tensor([1, 2.5]).dtype, "float32");
  t.equal(torch.tensor([1, -0]).dtype, "float32", "-0 is a float");
  t.equal(torch.tensor([2 ** 60]).dtype, "float32", "beyond 2^53 is a float");
  t.equal(torch.tensor([torch.float(1), 2]).dtype, "float32");
  t.equal(torch.full([2], 1).dtype, "int64");
  t.equal(torch.tensor(new Int8Array([1])).dtype, "int8");
  t.equal(torch.tensor(new Float64Array([1])).dtype, "float64");
  t.same(torch.tensor(new Float32Array(6), { shape: [2, 3] }).shape, [2, 3]);
  t.equal(torch.tensor([[1]], { dtype: "bfloat16", requires_grad: true }).requires_grad, true);

  t.same(torch.tensor([1n, 2n ** 62n]).tolist(), [1, 2n ** 62n], "bigint only where a number is not safe");
  t.same(torch.tensor([true, false]).tolist(), [true, false]);
  t.ok((await torch.tensor([true]).data()) instanceof Uint8Array);
  t.ok((await torch.tensor([1]).data()) instanceof BigInt64Array);
  t.ok((await torch.ones([2], { dtype: "bfloat16" }).data()) instanceof Float32Array);
  t.same([...(await torch.ones([1], { dtype: "bfloat16" }).data({ raw: true }))], [0x3f80]);
});

t.test("arguments: by place, by name, not both", async (t) => {
  const x = torch.arange(6).view(2, 3);
  t.same(x.sum([1], { keepdim: true }).tolist(), [[3], [12]]);
  t.same(x.sum({ dim: [1] }).tolist(), [3, 12]);
  t.throws(() => (x.sum as (...args: unknown[]) => unknown)([1], { dim: [1] }), code("ERR_INVALID_ARGUMENT"));
  t.throws(
    () => (x.sum as (...args: unknown[]) => unknown)([1], { keepdims: true, keepdin: true }),
    code("ERR_INVALID_ARGUMENT"),
  );
  const [values, indices] = x.topk(2);
  t.same(
    [values.tolist(), indices.tolist()],
    [
      [
        [2, 1],
        [5, 4],
      ],
      [
        [2, 1],
        [2, 1],
      ],
    ],
  );
  t.same(x.topk(2).values.tolist(), values.tolist());
  t.same(torch.sub(1, x).tolist(), [
    [1, 0, -1],
    [-2, -3, -4],
  ]);
  t.ok(torch.allclose(x.to("float32"), x.add(1e-9), { atol: 1e-6, rtol: 0 }));
  torch.manual_seed(0);
  const first = torch.rand([3]);
  torch.manual_seed(0);
  t.ok(torch.equal(first, torch.rand([3])));
  torch.no_grad(() => t.notOk(torch.ones([1], { requires_grad: true }).mul(2).requires_grad));
  t.throws(() => torch.no_grad(async () => {}), code("ERR_INVALID_ARGUMENT"));
  t.throws(() => torch.tidy(async () => {}), code("ERR_INVALID_ARGUMENT"));
});

t.test("scopes, disposal, sharing", async (t) => {
  const before = torch.memory_stats().live_tensors;
  let inner: Tensor | undefined;
  const [result, kept] = torch.tidy(() => {
    inner = torch.ones([2]);
    return [inner.add(1), torch.keep(torch.zeros([1]))] as const;
  });
  t.same(result.tolist(), [2, 2]);
  t.same(kept.tolist(), [0]);
  t.throws(() => inner?.tolist(), { ...code("ERR_DISPOSED"), message: /tidy|scope/ });
  result.dispose();
  kept.dispose();
  t.equal(torch.memory_stats().live_tensors, before);
  t.throws(() => result.add(1), code("ERR_DISPOSED"));

  const shared = torch.ones([3]);
  const token = shared.share();
  const same = torch.from_shared(token);
  same.add_(1);
  t.same(shared.tolist(), [2, 2, 2], "the same memory");
  t.throws(() => torch.from_shared(token), code("ERR_INVALID_ARGUMENT"), "one claim");
});

t.test("training and hooks", async (t) => {
  const layer = new nn.Linear(2, 1);
  const seen: string[] = [];
  const handles = [
    layer.register_forward_pre_hook((_module, args) => {
      seen.push(`pre ${args.length}`);
      return undefined;
    }),
    layer.register_forward_hook((_module, _args, output) => {
      seen.push("after");
      return (output as Tensor).mul(2);
    }),
    layer.register_full_backward_hook((_module, _grad_input, grad_output) => {
      seen.push(`backward ${(grad_output as readonly Tensor[])[0]?.shape}`);
      return undefined;
    }),
  ];
  const optimizer = new optim.AdamW(layer.parameters(), { lr: 0.1 });
  const loss = layer.forward(torch.ones([4, 2])).sum();
  loss.backward();
  t.same(layer.weight.grad?.shape, [1, 2]);
  optimizer.step();
  t.same(seen, ["pre 1", "after", "backward 4,1"]);
  for (const handle of handles) handle.remove();
  layer.forward(torch.ones([4, 2]));
  t.equal(seen.length, 3);
  t.type(handles[0]?.[Symbol.dispose], "function");
});

t.test("safetensors", async (t) => {
  const path = join(t.testdir(), "a.safetensors");
  await safetensors.save_file({ a: torch.ones([2]) }, path, { metadata: { format: "pt" } });
  const { a } = await safetensors.load_file(path);
  t.same(a?.tolist(), [1, 1]);
});

t.test("tokenizers", async (t) => {
  const tokenizer = await AutoTokenizer.from_pretrained(demo);
  const plain = await tokenizer("This class", "is used", { return_offsets_mapping: true });
  t.ok(Array.isArray(plain.input_ids));
  t.same((await tokenizer("This class", { text_pair: "is used" })).input_ids, plain.input_ids);
  t.equal(
    await tokenizer.decode(plain.input_ids as number[], { skip_special_tokens: true }),
    "This classis used",
  );
  t.ok(tokenizer.length >= tokenizer.vocab_size);
  t.type(plain.word_ids, "function");
  t.notOk(Object.keys(plain).includes("word_ids"));
  const chat_template =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
  const text = await tokenizer.apply_chat_template([{ role: "user", content: "hi" }], {
    chat_template,
    add_generation_prompt: true,
    tokenize: false,
  });
  t.equal(text, "<user>hi<assistant>");
});

t.test("a program ends by itself", async (t) => {
  const folder = t.testdir();
  mkdirSync(folder, { recursive: true });
  const program = `
    import { AutoModelForCausalLM, torch } from "torchformers";
    const model = await AutoModelForCausalLM.from_pretrained(${JSON.stringify(demo)});
    const ids = await model.generate([1, 2, 3], { max_new_tokens: 2 });
    torch.rand([600, 600]).matmul(torch.rand([600, 600]));
    console.log(ids.shape[0]);`;
  t.match(await runProgram(program, folder), { stdout: "1\n", status: 0, signal: null });
});
