// Generation on the device: its loop queues steps ahead of the host, and replays them as graphs.
import t from "tap";
import { AutoModelForCausalLM, torch } from "torchformers";
import { device } from "../support/device.js";
import { fixture } from "../support/fixtures.js";

const model = (await AutoModelForCausalLM.from_pretrained(fixture("demo-llama"))).to({ device });
const input_ids = torch.tensor([[1, 5, 9, 12]], { device });

t.test("greedy and sampled answers equal eager ones, many times over", async (t) => {
  for (const do_sample of [false, true]) {
    for (const max_new_tokens of [1, 3, 4, 40]) {
      const answer = async (mode: "eager" | "program") => {
        torch.manual_seed(3);
        const options = { max_new_tokens, do_sample, mode, pad_token_id: 0 };
        return (await model.generate({ input_ids }, options)) as torch.Tensor;
      };
      const expected = (await answer("eager")).tolist();
      for (let i = 0; i < 3; i++)
        t.same((await answer("program")).tolist(), expected, `${do_sample} ${max_new_tokens}`);
    }
  }
});

t.test("work queued by JavaScript comes first, results can be used at once", async (t) => {
  const square = torch.compile((x: torch.Tensor) => x.matmul(x).add(1));
  for (let i = 0; i < 20; i++) {
    const x = torch.full([512, 512], i / 512, { device });
    const y = (await square(x)) as torch.Tensor;
    t.equal(
      y
        .sub(1 + (i * i) / 512)
        .abs()
        .max()
        .item() < 1e-3,
      true,
      `run ${i}`,
    );
  }
});
