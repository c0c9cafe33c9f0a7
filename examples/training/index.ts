// Trains a small network on y = sin(x) with AdamW and a cosine schedule, and draws the loss curve.
//   node build/examples/training/index.js
import { nn, optim, torch } from "torchformers";

torch.manual_seed(0);
const model = new nn.Sequential(
  new nn.Linear(1, 32),
  new nn.Tanh(),
  new nn.Linear(32, 32),
  new nn.Tanh(),
  new nn.Linear(32, 1),
);
const steps = 300;
const optimizer = new optim.AdamW(model.parameters(), { lr: 0.01 });
const scheduler = new optim.lr_scheduler.CosineAnnealingLR(optimizer, steps);

const x = torch.linspace(-3, 3, 256).unsqueeze(1); // [256, 1]
const y = x.sin();
const losses: number[] = [];
for (let step = 0; step < steps; step++) {
  losses.push(
    torch.tidy(() => {
      const loss = nn.functional.mse_loss(model.forward(x), y);
      optimizer.zero_grad();
      loss.backward();
      optimizer.step();
      scheduler.step();
      return loss.item() as number;
    }),
  );
}

console.log(curve(losses));
console.log(`loss ${losses[0]?.toFixed(4)} -> ${losses.at(-1)?.toFixed(6)} in ${steps} steps`);

/** A line of bars on a logarithmic scale. */
function curve(values: readonly number[], width = 60): string {
  const bars = "▁▂▃▄▅▆▇█";
  const points = Array.from({ length: width }, (_, i) =>
    Math.log(values[Math.floor((i * values.length) / width)] as number),
  );
  const [low, high] = [Math.min(...points), Math.max(...points)];
  return points.map((point) => bars[Math.round(((point - low) / (high - low)) * (bars.length - 1))]).join("");
}
