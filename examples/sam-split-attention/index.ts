// Splits SAM's fused query, key and value into three layers, in two ways: built so, and changed after loading.
//   node build/examples/sam-split-attention/index.js [folder or repository]
import { SamModel, torch } from "torchformers";
import { SplitSamModel, splitAttention } from "./split_attention.js";

const [source = "test/fixtures/models/sam"] = process.argv.slice(2);

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
