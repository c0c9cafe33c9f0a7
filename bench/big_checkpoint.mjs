// A 1.1B Llama with random weights on the disk, for benchmarks of loading and saving: made once, 2.2 GB in bfloat16.
import { existsSync, mkdirSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LlamaConfig, LlamaForCausalLM, torch } from "torchformers";

export const SIZES = {
  hidden_size: 2048,
  intermediate_size: 5632,
  num_hidden_layers: 22,
  num_attention_heads: 32,
  num_key_value_heads: 4,
  vocab_size: 32000,
  max_position_embeddings: 2048,
};

/** The folder that benchmarks may fill; `BENCH_FOLDER` names another one. */
export const workFolder = () => {
  const folder = process.env.BENCH_FOLDER ?? join(tmpdir(), "torchformers-bench");
  mkdirSync(folder, { recursive: true });
  return folder;
};

/** The checkpoint's folder; `BENCH_LAYERS` makes a smaller one. */
export async function bigCheckpoint() {
  const num_hidden_layers = Number(process.env.BENCH_LAYERS ?? SIZES.num_hidden_layers);
  const folder = join(workFolder(), `llama-${num_hidden_layers}`);
  if (existsSync(join(folder, "config.json"))) return folder;
  const { bavail, bsize } = statfsSync(workFolder());
  if (bavail * bsize < 8e9) throw new Error(`${workFolder()} has less than 8 GB left: set BENCH_FOLDER.`);
  console.error(`Making a checkpoint in ${folder} …`);
  const config = new LlamaConfig({ ...SIZES, num_hidden_layers, dtype: "bfloat16" });
  torch.set_default_device("meta");
  const model = LlamaForCausalLM._from_config(config, { dtype: "bfloat16" });
  torch.set_default_device("cpu");
  // Values do not matter, but they must not be pages of zeros, which some disks do not store.
  torch.no_grad(() => {
    const noise = torch.randn([1 << 20], { dtype: "bfloat16" }).mul(0.02);
    for (const parameter of model.parameters()) {
      const count = parameter.numel();
      const repeated = noise.repeat([Math.ceil(count / noise.numel())]).narrow(0, 0, count);
      parameter.data =
        count < 1e4 ? torch.ones(parameter.shape, { dtype: "bfloat16" }) : repeated.reshape(parameter.shape);
    }
  });
  await model.save_pretrained(folder);
  model.dispose();
  return folder;
}
