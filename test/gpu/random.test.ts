// Seeded draws on a GPU equal Python's. Their goldens are made on a GPU, by scripts/goldens/cuda.py.
import { existsSync } from "node:fs";
import t from "tap";
import { safetensors, torch } from "torchformers";
import { device, near, onCuda } from "../support/device.js";
import { fixture, root } from "../support/fixtures.js";

const file = `${root}/test/fixtures/cuda/random.safetensors`;
const reason = !onCuda
  ? "needs a CUDA device"
  : existsSync(file)
    ? undefined
    : "no goldens: `python scripts/goldens/cuda.py` makes them on a machine with a GPU";

if (reason !== undefined) {
  t.pass("seeded draws", { skip: reason });
  process.exit(0);
}

const goldens = await safetensors.load_file(fixture("cuda/random.safetensors"));

/** The draws of scripts/goldens/cuda.py, under their names there. */
const draws: Record<string, () => torch.Tensor> = {
  rand: () => torch.rand([1000], { device }),
  randn: () => torch.randn([1000], { device }),
  randn_bfloat16: () => torch.randn([1000], { device, dtype: "bfloat16" }),
  randint: () => torch.randint(0, 1000, [1000], { device }),
  randperm: () => torch.randperm(1000, { device }),
  bernoulli: () => torch.full([1000], 0.3, { device }).bernoulli(),
  exponential: () => torch.empty([1000], { device }).exponential_(),
  multinomial: () => torch.multinomial(torch.arange(1, 101, { device, dtype: "float32" }), 50),
  multinomial_one: () => torch.multinomial(torch.ones([64, 100], { device }), 1),
  dropout: () => torch.dropout(torch.ones([1000], { device }), 0.4, true),
};

t.test("each draw after its seed, and in a row", async (t) => {
  for (const [name, draw] of Object.entries(draws)) {
    torch.manual_seed(1234);
    near(t, draw(), goldens[name] as torch.Tensor, name, { atol: 1e-6, rtol: 1e-6 });
  }
  torch.manual_seed(99);
  for (const [name, draw] of Object.entries(draws))
    near(t, draw(), goldens[`row.${name}`] as torch.Tensor, `${name}, in a row`, { atol: 1e-6, rtol: 1e-6 });
});
