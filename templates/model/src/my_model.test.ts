import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { AutoModelForImageClassification, torch } from "torchformers";
import { MyModelConfig, type MyModelFields, MyModelForImageClassification } from "./index.ts";

const small = (fields: MyModelFields = {}) =>
  new MyModelConfig({ block_type: "basic", layers: [1, 1], num_classes: 4, ...fields });
const images = () => torch.randn([2, 3, 32, 32]);
const folder = mkdtempSync(join(tmpdir(), "my-model-"));
after(() => rmSync(folder, { recursive: true }));

test("a configuration that cannot be is refused", () => {
  assert.throws(() => small({ block_type: "wide" as never }), /block_type/);
  assert.throws(() => small({ layers: [0] }), /layers/);
});

test("scores, a loss, and gradients everywhere", () => {
  for (const fields of [{}, { block_type: "bottleneck", stem_type: "deep", avg_down: true, cardinality: 2 }] as const) {
    const model = new MyModelForImageClassification(small(fields)).train();
    const { loss, logits } = model.forward({ pixel_values: images(), labels: torch.tensor([0, 3]) });
    assert.deepEqual(logits.shape, [2, 4]);
    loss?.backward();
    for (const [name, parameter] of model.named_parameters()) assert.ok(parameter.grad, name);
  }
});

test("saved, and loaded again through an Auto class", async () => {
  const model = new MyModelForImageClassification(small()).eval();
  const pixel_values = images();
  await model.save_pretrained(folder);
  const again: object = await AutoModelForImageClassification.from_pretrained(folder);
  assert.ok(again instanceof MyModelForImageClassification);
  const logits = (each: MyModelForImageClassification) => torch.no_grad(() => each.forward({ pixel_values }).logits);
  assert.ok(torch.equal(logits(again), logits(model)));
});
