// Trains a small model on made-up images, whose class is their brightest colour, and saves it into ./model.
import { nn, optim, torch } from "torchformers";
import { MyModelConfig, MyModelForImageClassification } from "./index.ts";

torch.manual_seed(0);
const config = new MyModelConfig({ block_type: "basic", layers: [1, 1], num_classes: 3 });
const model = new MyModelForImageClassification(config).train();
const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-3 });
for (let step = 1; step <= 30; step++) {
  torch.tidy(() => {
    const labels = torch.randint(0, 3, [16]);
    const brighter = nn.F.one_hot(labels, 3).view([16, 3, 1, 1]);
    const pixel_values = torch.randn([16, 3, 32, 32]).add(brighter);
    const { loss } = model.forward({ pixel_values, labels });
    optimizer.zero_grad();
    loss?.backward();
    optimizer.step();
    if (step % 10 === 0) console.log(`step ${step}: loss ${Number(loss?.item()).toFixed(3)}`);
  });
}
await model.eval().save_pretrained("model");
console.log("saved into ./model");
