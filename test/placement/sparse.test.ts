// A model far larger than the memory that it may have runs from its files. Whole (20 GB in 2 GB) in `npm run test:soak`.
import { closeSync, ftruncateSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { BlockStreamer, LlamaConfig, LlamaForCausalLM, type Tensor, torch } from "torchformers";
import { attachStreamer } from "#lib/placement/index.js";
import { soak } from "../support/memory.js";

process.env.TORCHFORMERS_LOG = "silent";
const [LAYERS, ALLOWED] = soak ? [50, 2e9] : [10, 300e6];

const status = (name: string): number => {
  const [, kilobytes] =
    new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(readFileSync("/proc/self/status", "utf8")) ?? [];
  return Number(kilobytes) * 1024;
};

/** A checkpoint of zeros that takes no room on the disk; norms are ones. Returns its bytes. */
function sparse(folder: string, config: LlamaConfig): number {
  torch.set_default_device("meta");
  const model = LlamaForCausalLM._from_config(config, { dtype: "bfloat16" });
  torch.set_default_device("cpu");
  const header: Record<string, unknown> = {};
  let end = 0;
  const ones: [at: number, count: number][] = [];
  for (const [name, { shape, nbytes }] of model.named_parameters()) {
    header[name] = { dtype: "BF16", shape, data_offsets: [end, end + nbytes] };
    if (name.includes("norm")) ones.push([end, nbytes / 2]);
    end += nbytes;
  }
  model.dispose();
  const text = Buffer.from(JSON.stringify(header).padEnd(Math.ceil(JSON.stringify(header).length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const fd = openSync(join(folder, "model.safetensors"), "w");
  writeSync(fd, Buffer.concat([length, text]));
  for (const [at, count] of ones)
    writeSync(
      fd,
      Buffer.from(new Uint16Array(count).fill(0x3f80).buffer),
      0,
      count * 2,
      8 + text.length + at,
    );
  ftruncateSync(fd, 8 + text.length + end);
  closeSync(fd);
  writeFileSync(join(folder, "config.json"), JSON.stringify(config.to_dict()));
  return end;
}

t.test("a model many times as large as its memory", { timeout: 600_000 }, async (t) => {
  const folder = t.testdir();
  const size = soak
    ? { hidden_size: 4096, intermediate_size: 11008 }
    : { hidden_size: 2048, intermediate_size: 5632 };
  const config = new LlamaConfig({
    ...size,
    vocab_size: 2000,
    num_hidden_layers: LAYERS,
    num_attention_heads: 16,
    dtype: "bfloat16",
  });
  config.architectures = ["LlamaForCausalLM"];
  const bytes = sparse(folder, config);
  t.ok(bytes > 3 * ALLOWED, `${(bytes / 1e9).toFixed(1)} GB`);

  const model = await LlamaForCausalLM.from_pretrained(folder);
  const { embed_tokens, layers, norm } = model.model;
  const blocks = [embed_tokens, ...layers, norm, model.lm_head].map((module) => ({
    tensors: new Map<string, Tensor>(module.named_parameters()),
  }));
  const streamer = new BlockStreamer("cpu", blocks, { memory: ALLOWED });
  attachStreamer(model, streamer);
  streamer.rest();
  const [anonymous, all] = [status("RssAnon"), status("VmRSS")];
  let peak = 0;
  let most = 0;
  const watch = setInterval(() => {
    peak = Math.max(peak, status("RssAnon"));
    most = Math.max(most, status("VmRSS"));
  }, 5);
  const ids = (await model
    .generate(
      { input_ids: torch.tensor([[1, 2, 3]]) },
      { max_new_tokens: 2, do_sample: false, mode: "program" },
    )
    .finally(() => clearInterval(watch))) as Tensor;
  t.same(ids.shape, [1, 5]);
  t.same(ids.tolist(), [[1, 2, 3, 0, 0]], "all scores are zero");
  t.ok(peak - anonymous < 150e6, `private memory grew by ${((peak - anonymous) / 1e6).toFixed(0)} MB`);
  t.ok(
    most - all < ALLOWED + 150e6,
    `memory grew by ${((most - all) / 1e6).toFixed(0)} MB, allowed ${ALLOWED / 1e6}`,
  );
  const stats = model.offload_stats();
  t.ok(stats.bytes_moved > bytes, "files were read more than once");
  t.ok(stats.room <= ALLOWED);
  streamer.dispose();
});
