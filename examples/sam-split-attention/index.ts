// Splits SAM's fused query, key and value into three layers, in two ways: built so, and changed after loading. Then trains
// a LoRA adapter beside two of them.
//   node build/examples/sam-split-attention/index.js [folder or repository] [folder for the adapter]
import { LoraConfig, nn, optim, SamModel, torch } from "torchformers";
import { SplitSamModel, splitAttention } from "./split_attention.js";

const [source = "test/fixtures/models/sam", output = "build/sam-adapter"] = process.argv.slice(2);

const fused = await SamModel.from_pretrained(source, { dtype: "float32" });
const { image_size, num_channels } = fused.config.vision_config;
torch.manual_seed(0);
const inputs = {
  pixel_values: torch.randn([1, num_channels, image_size, image_size]),
  input_points: torch.tensor([[[[image_size / 2, image_size / 3]]]], { dtype: "float32" }),
};
const masks = (model: SamModel) => torch.no_grad(() => model.forward(inputs)).pred_masks;
const expected = masks(fused);
const same = (model: SamModel) => torch.allclose(masks(model), expected, { atol: 1e-4 });

// 1. Built with the split attention: its hook takes the file's weights apart while they are loaded.
const [built, report] = await SplitSamModel.from_pretrained(source, {
  dtype: "float32",
  output_loading_info: true,
});
const left = report.missing_keys.size + report.unexpected_keys.size + report.mismatched_keys.size;
console.log(`built:    ${left} weights without a place, the same masks: ${same(built)}`);

// 2. Replaced after loading: the new layers get the weights of the old ones.
const changed = await SamModel.from_pretrained(source, { dtype: "float32" });
splitAttention(changed, (split, old) => split.load_state_dict(old.state_dict()));
console.log(`replaced: the same masks: ${same(changed)}`);

// Replaced and forgotten: the new layers hold values by chance, which is told of once, by name.
const forgotten = await SamModel.from_pretrained(source, { dtype: "float32" });
splitAttention(forgotten);
console.log(
  `forgotten: the same masks: ${same(forgotten)}, ${forgotten.uninitialized_weights().length} weights by chance`,
);

// 3. LoRA beside the new layers of the image encoder: nothing else trains.
built.add_adapter(new LoraConfig({ r: 4, target_modules: ["q", "v"], lora_alpha: 8 }));
const trained = [...built.named_parameters()].filter(([, parameter]) => parameter.requires_grad);
console.log(
  `trained:  ${trained.length} matrices, all of the adapter: ${trained.every(([name]) => name.includes(".lora_"))}`,
);
console.log(`          nothing changes before training: ${same(built)}`);
const optimizer = new optim.AdamW(
  trained.map(([, parameter]) => parameter),
  { lr: 1e-2 },
);
const wanted = torch.zeros(expected.shape);
wanted.narrow(-1, 0, Math.floor((expected.shape.at(-1) as number) / 2)).fill_(1); // the left half of the image
const losses: number[] = [];
built.train();
for (let step = 0; step < 10; step++) {
  torch.tidy(() => {
    const loss = nn.F.binary_cross_entropy_with_logits(built.forward(inputs).pred_masks, wanted);
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
    losses.push(loss.item<number>());
  });
}
built.eval();
console.log(`          loss ${losses[0]?.toFixed(4)} -> ${losses.at(-1)?.toFixed(4)}`);

// PEFT's files: saved, loaded into another model, put into its weights and taken out again.
await built.save_pretrained(output);
const other = await SplitSamModel.from_pretrained(source, { dtype: "float32" });
await other.load_adapter(output);
const adapted = masks(built);
const alike = () => torch.allclose(masks(other), adapted, { atol: 1e-4 });
console.log(`loaded:   as trained: ${alike()}, as before: ${same(other)}`);
other.merge_adapter();
console.log(`merged:   as trained: ${alike()}`);
other.unmerge_adapter();
other.delete_adapter("default");
console.log(`deleted:  as before: ${same(other)}`);
