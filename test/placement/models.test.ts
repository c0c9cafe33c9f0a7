// Models whose layers take turns on a device give what they give undivided: eager, as a Program, and while they generate.
import t from "tap";
import {
  AutoModelForCausalLM,
  BlockStreamer,
  type LlamaForCausalLM,
  limited_devices,
  type Tensor,
  torch,
} from "torchformers";
import { attachStreamer, isRecording } from "#lib/placement/index.js";
import { fixture } from "../support/fixtures.js";

process.env.TORCHFORMERS_LOG = "silent";

/** Embedding, layers, norm and head; a tied head is one tensor with the embedding, and in its block. */
function blocksOf(model: LlamaForCausalLM) {
  const seen = new Set<Tensor>();
  return [model.model.embed_tokens, ...model.model.layers, model.model.norm, model.lm_head].flatMap(
    (module, i) => {
      const tensors = new Map([...module.named_parameters()].filter(([, tensor]) => !seen.has(tensor)));
      for (const tensor of tensors.values()) seen.add(tensor);
      return tensors.size === 0 ? [] : [{ name: `${i}`, module, tensors: tensors as Map<string, Tensor> }];
    },
  );
}

/** Eager code brings a module's block by hand. */
function wrap(model: LlamaForCausalLM, streamer: BlockStreamer, blocks: ReturnType<typeof blocksOf>): void {
  const around = (module: { forward: unknown }, block: (typeof blocks)[0]) => {
    const forward = (module.forward as (...args: unknown[]) => unknown).bind(module);
    module.forward = (...args: unknown[]) => {
      if (isRecording()) return forward(...args);
      streamer.fill(block);
      try {
        return forward(...args);
      } finally {
        streamer.drain(block);
      }
    };
  };
  for (const block of blocks) around(block.module, block);
  const [embedding] = blocks;
  if (embedding && model.config.tie_word_embeddings) around(model.lm_head, embedding);
}

const input_ids = torch.tensor([[1, 5, 9, 2, 7, 3, 11, 4]]);
const greedy = { max_new_tokens: 6, do_sample: false, mode: "program" } as const;

for (const name of ["llama", "llama-bf16", "llama-rope_llama3", "llama-sharded"]) {
  t.test(name, async (t) => {
    const load = async () =>
      (await AutoModelForCausalLM.from_pretrained(fixture(`models/${name}`))) as LlamaForCausalLM;
    const whole = await load();
    const eager = torch.no_grad(() => whole.forward({ input_ids }).logits);
    const program = (await whole.run({ input_ids })).logits;
    const tokens = ((await whole.generate({ input_ids }, greedy)) as Tensor).tolist();

    for (const [device, options] of [
      ["limited:0", { slots: 1, synchronous: true }],
      ["limited:0", { slots: 2 }],
      ["limited:0", { slots: 3 }],
      ["limited:0", { slots: 4, depth: 3 }],
      ["limited:0", { slots: 64 }],
      ["cpu", { slots: 2 }],
    ] as const) {
      const what = `${device} ${JSON.stringify(options)}`;
      limited_devices([{ capacity: 2 ** 27, bandwidth: 2e9 }]);
      const model = await load();
      const blocks = blocksOf(model);
      const streamer = new BlockStreamer(device, blocks, options);
      attachStreamer(model, streamer);
      streamer.rest();
      wrap(model, streamer, blocks);
      const again = torch.no_grad(() => model.forward({ input_ids }).logits);
      t.ok(torch.equal(again, eager), `${what}: eager`);
      t.ok(torch.equal((await model.run({ input_ids })).logits, program), `${what}: run`);
      const made = await Promise.all([1, 2].map(() => model.generate({ input_ids }, greedy)));
      for (const ids of made) t.same((ids as Tensor).tolist(), tokens, `${what}: generate`);
      t.ok(
        torch.equal(
          torch.no_grad(() => model.forward({ input_ids }).logits),
          eager,
        ),
        `${what}: eager again`,
      );
      const stats = model.offload_stats();
      t.ok(stats.uses >= blocks.length * 8 && stats.bytes_moved > 0);
      streamer.dispose();
    }
  });
}
