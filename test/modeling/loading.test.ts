// from_pretrained: what is mapped, what is read, what is told meanwhile, and files that are not what they were.
import {
  closeSync,
  cpSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import t from "tap";
import {
  LlamaConfig,
  LlamaForCausalLM,
  type ProgressEvent,
  safetensors,
  type Tensor,
  torch,
} from "torchformers";
import { fixture } from "../support/fixtures.js";
import { privateMemory, settle } from "../support/memory.js";
import { runProgram } from "../support/program.js";

process.env.TORCHFORMERS_LOG = "silent";
const SIZES = {
  vocab_size: 512,
  hidden_size: 256,
  intermediate_size: 640,
  num_hidden_layers: 3,
  num_attention_heads: 4,
};

/** A model of 3 MB in shards. */
async function saved(folder: string, options = {}): Promise<LlamaForCausalLM> {
  torch.manual_seed(0);
  const model = new LlamaForCausalLM(new LlamaConfig({ ...SIZES, ...options }));
  await model.save_pretrained(folder, { max_shard_size: "2MB" });
  return model;
}

const shardsOf = (folder: string) => readdirSync(folder).filter((name) => name.endsWith(".safetensors"));

t.test("shards that are gone, or shorter than their index was written for", async (t) => {
  const out = t.testdir();
  await saved(out);
  const [first = "", second = ""] = shardsOf(out);
  t.not(second, "", "several");
  renameSync(join(out, second), join(out, "away"));
  await t.rejects(LlamaForCausalLM.from_pretrained(out), {
    code: "ERR_ENTRY_NOT_FOUND",
    message: new RegExp(second),
  });
  renameSync(join(out, "away"), join(out, second));
  const bytes = readFileSync(join(out, first));
  writeFileSync(join(out, first), bytes.subarray(0, bytes.length - 100));
  await t.rejects(LlamaForCausalLM.from_pretrained(out), {
    code: "ERR_SAFETENSORS_FORMAT",
    message: new RegExp(first),
  });
});

for (const dtype of ["auto", "bfloat16"]) {
  t.test(
    `${dtype}: a shard that shrinks while it is loaded is an error, not the end of the process`,
    async (t) => {
      const out = t.testdir({ m: {} });
      await saved(join(out, "m"));
      const program = `
import { LlamaForCausalLM, torch } from "torchformers";
import { readdirSync, truncateSync } from "node:fs";
const folder = ${JSON.stringify(join(out, "m"))};
let message;
try {
  const model = await LlamaForCausalLM.from_pretrained(folder, {
    dtype: ${JSON.stringify(dtype)},
    // The headers have been read, the weights have not.
    progress_callback: ({ stage }) => { if (stage === "open") for (const name of readdirSync(folder)) if (name.endsWith(".safetensors")) truncateSync(folder + "/" + name, 8192); },
  });
  torch.no_grad(() => model.forward({ input_ids: torch.tensor([[1, 2]]) }));
} catch (error) { message = error.code; }
console.log(message, torch.ones([2]).sum().item());`.replaceAll('stage === "open"', 'stage === "resolve"');
      const { stdout, status } = await runProgram(program, join(out, "program"));
      t.equal(status, 0);
      t.match(stdout, /^(ERR_FILE|ERR_SAFETENSORS_FORMAT) 2\n$/);
    },
  );
}

t.test("an index that leads elsewhere, and links", async (t) => {
  const out = t.testdir({ outside: {} });
  await saved(join(out, "m"));
  const folder = join(out, "m");
  const [first = ""] = shardsOf(folder);
  renameSync(join(folder, first), join(out, "outside", first));
  symlinkSync(join("..", "outside", first), join(folder, first));
  await t.rejects(LlamaForCausalLM.from_pretrained(folder), { code: "ERR_CHECKPOINT", message: /link/ });
  process.env.TORCHFORMERS_FOLLOW_LINKS = "1";
  await LlamaForCausalLM.from_pretrained(folder, { strict: true });
  delete process.env.TORCHFORMERS_FOLLOW_LINKS;

  // A link within the folder, a folder that is a link, and the hub's cache are as good as files.
  rmSync(join(folder, first));
  renameSync(join(out, "outside", first), join(folder, "real.safetensors"));
  symlinkSync("real.safetensors", join(folder, first));
  symlinkSync("m", join(out, "link"));
  await LlamaForCausalLM.from_pretrained(join(out, "link"), { strict: true });
  const repo = join(out, "hub", "models--a--b");
  mkdirSync(join(repo, "blobs"), { recursive: true });
  mkdirSync(join(repo, "snapshots", "0".repeat(40)), { recursive: true });
  mkdirSync(join(repo, "refs"));
  writeFileSync(join(repo, "refs", "main"), "0".repeat(40));
  for (const [i, name] of readdirSync(folder).entries()) {
    cpSync(join(folder, name), join(repo, "blobs", `hash${i}`), { dereference: true });
    symlinkSync(join("../../blobs", `hash${i}`), join(repo, "snapshots", "0".repeat(40), name));
  }
  await LlamaForCausalLM.from_pretrained("a/b", {
    cache_dir: join(out, "hub"),
    local_files_only: true,
    strict: true,
  });
});

t.test("the same dtype is the mapped file, another one is cast as torch casts", async (t) => {
  const out = t.testdir();
  const original = await saved(out);
  settle();
  const { mapped_bytes } = torch.memory_stats();
  const model = await LlamaForCausalLM.from_pretrained(out);
  t.ok(
    torch.memory_stats().mapped_bytes - mapped_bytes >= model.get_memory_footprint({ return_buffers: false }),
    "mapped",
  );
  for (const dtype of ["bfloat16", "float16", "float64"] as const) {
    const cast = await LlamaForCausalLM.from_pretrained(out, { dtype });
    for (const [name, tensor] of Object.entries(cast.state_dict())) {
      t.equal(tensor.dtype, dtype);
      t.ok(torch.equal(tensor, (original.state_dict()[name] as Tensor).to(dtype)), `${name} ${dtype}`);
    }
    cast.dispose();
  }
  model.dispose();
});

t.test("parts of names that stay float32", async (t) => {
  class Kept extends LlamaForCausalLM {
    static override readonly _keep_in_fp32_modules: readonly string[] = ["layernorm"];
    static override readonly _keep_in_fp32_modules_strict: readonly string[] = ["layers.*.o_proj"];
  }
  const out = t.testdir();
  await saved(out);
  const dtypes = async (dtype: "float16" | "bfloat16") => {
    const state = (await Kept.from_pretrained(out, { dtype })).state_dict();
    return ["input_layernorm", "self_attn.o_proj", "self_attn.q_proj"].map(
      (part) => state[`model.layers.1.${part}.weight`]?.dtype,
    );
  };
  t.same(await dtypes("float16"), ["float32", "float32", "float16"]);
  t.same(await dtypes("bfloat16"), ["bfloat16", "float32", "bfloat16"]);
});

t.test("ties both ways", async (t) => {
  const out = t.testdir();
  const model = await saved(out, { tie_word_embeddings: true });
  t.equal(model.lm_head.weight, model.model.embed_tokens.weight);
  const names = () =>
    Object.keys(JSON.parse(readFileSync(join(out, "model.safetensors.index.json"), "utf8")).weight_map);
  t.notOk(names().includes("lm_head.weight"), "written once");
  const again = await LlamaForCausalLM.from_pretrained(out, { strict: true });
  t.equal(again.lm_head.weight, again.model.embed_tokens.weight);
  // A file that has the target instead of the source.
  const other = join(out, "other");
  mkdirSync(other);
  cpSync(join(out, "config.json"), join(other, "config.json"));
  const { "model.embed_tokens.weight": embedding, ...rest } = model.state_dict();
  delete rest["lm_head.weight"];
  await safetensors.save_file(
    { ...rest, "lm_head.weight": embedding as Tensor },
    join(other, "model.safetensors"),
  );
  const swapped = await LlamaForCausalLM.from_pretrained(other, { strict: true });
  t.equal(swapped.lm_head.weight, swapped.model.embed_tokens.weight);
  t.ok(torch.equal(swapped.lm_head.weight, embedding as Tensor));
});

t.test("progress and abort", async (t) => {
  const out = t.testdir();
  await saved(out);
  for (const dtype of ["auto", "bfloat16"] as const) {
    const events: ProgressEvent[] = [];
    await LlamaForCausalLM.from_pretrained(out, { dtype, progress_callback: (event) => events.push(event) });
    t.same([...new Set(events.map(({ stage }) => stage))], ["resolve", "read", "ready"]);
    const last = events.filter(({ stage }) => stage === "read").at(-1) as ProgressEvent;
    t.equal(last.total_loaded, last.total_bytes);
    t.equal(last.loaded, last.total);
    t.ok(last.total < last.total_bytes, "a file is less than all");
    t.ok(last.total_bytes > 5e6);
  }
  const reason = new Error("enough");
  const early = AbortSignal.abort(reason);
  await t.rejects(LlamaForCausalLM.from_pretrained(out, { signal: early }), reason);
  const controller = new AbortController();
  await t.rejects(
    LlamaForCausalLM.from_pretrained(out, {
      dtype: "bfloat16",
      signal: controller.signal,
      progress_callback: ({ stage }) => {
        if (stage === "resolve") controller.abort(reason);
      },
    }),
    reason,
  );
  settle();
});

t.test("a model larger than memory is mapped: 20 GB in sparse files", async (t) => {
  const out = t.testdir();
  const layers = 24;
  const sizes = {
    vocab_size: 1000,
    hidden_size: 4096,
    intermediate_size: 65536,
    num_hidden_layers: layers,
    num_attention_heads: 32,
  };
  const shapes = torch.tidy(() => {
    torch.set_default_device("meta");
    try {
      const model = new LlamaForCausalLM(new LlamaConfig({ ...sizes, num_hidden_layers: 1 }));
      return Object.entries(model.state_dict()).map(([name, tensor]) => [name, tensor.shape] as const);
    } finally {
      torch.set_default_device("cpu");
    }
  });
  await new LlamaConfig({ ...sizes, dtype: "bfloat16", architectures: ["LlamaForCausalLM"] }).save_pretrained(
    out,
  );
  const weight_map: Record<string, string> = {};
  let bytes = 0;
  for (let layer = 0; layer < layers; layer++) {
    const file = `model-${String(layer + 1).padStart(5, "0")}-of-${String(layers).padStart(5, "0")}.safetensors`;
    const header: Record<string, unknown> = {};
    let at = 0;
    for (const [name, shape] of shapes) {
      if (!name.includes(".layers.") && layer > 0) continue;
      const own = name.replace(".layers.0.", `.layers.${layer}.`);
      const size = 2 * shape.reduce((a, b) => a * b, 1);
      header[own] = { dtype: "BF16", shape, data_offsets: [at, at + size] };
      weight_map[own] = file;
      at += size;
    }
    const text = Buffer.from(JSON.stringify(header).padEnd(Math.ceil(JSON.stringify(header).length / 8) * 8));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.length));
    const fd = openSync(join(out, file), "w");
    writeSync(fd, Buffer.concat([length, text]));
    ftruncateSync(fd, 8 + text.length + at);
    closeSync(fd);
    bytes += at;
  }
  writeFileSync(join(out, "model.safetensors.index.json"), JSON.stringify({ metadata: {}, weight_map }));
  t.ok(bytes > 20e9, `${bytes} bytes`);
  settle();
  const before = privateMemory();
  const model = await LlamaForCausalLM.from_pretrained(out, { strict: true });
  t.ok(privateMemory() - before < 50e6, `${privateMemory() - before} private bytes`);
  // One layer's worth of pages is touched, and no page becomes private by it.
  t.equal((model.state_dict()["model.layers.5.self_attn.q_proj.weight"] as Tensor).sum().item(), 0);
  t.ok(privateMemory() - before < 60e6);
  model.dispose();
  for (const name of shardsOf(out)) truncateSync(join(out, name), 0);
});

t.test("a fixture of the reference, through every way of reading", async (t) => {
  const llama = fixture("models/llama");
  const plain = await LlamaForCausalLM.from_pretrained(llama);
  const cast = await LlamaForCausalLM.from_pretrained(llama, { dtype: "float64" });
  const input_ids = torch.tensor([[3, 4, 5]]);
  const [a, b] = torch.no_grad(() => [
    plain.forward({ input_ids }).logits,
    cast.forward({ input_ids }).logits,
  ]) as [Tensor, Tensor];
  t.ok(torch.allclose(a.to("float64"), b, { atol: 1e-4 }));
});
