// Synchronous loops that never yield to the event loop must not gather memory: live tensors come back exactly, and used
// memory and private memory grow by less than 2 % after warm-up.
import { fileURLToPath } from "node:url";
import t, { type Test } from "tap";
import { AutoModelForCausalLM, safetensors, type Tensor, torch } from "torchformers";
import { addon } from "#lib/addon/loader.js";
import { fixture } from "../support/fixtures.js";
import { live_tensors, privateMemory, SMALL_YOUNG, settle, soak, usedMemory } from "../support/memory.js";

const STEPS = soak ? 20_000 : 400;
const ALLOWED = 1.02;

/** What is in use and held once all garbage is gone. */
function measure(): { tensors: number; used: number; held: number } {
  settle();
  return { tensors: live_tensors(), used: usedMemory(), held: privateMemory() };
}

/**
 * Compares what is left after rounds of the same work; the first ones are warm-up. What is used is told exactly. What is held
 * has blocks of long life scattered over it by the collector, which ends only when they have been everywhere: of two short
 * rounds the better one counts; of long ones (`strict`) each.
 */
function compare(t: Test, rounds: ReturnType<typeof measure>[], strict = false): void {
  const [warm, first, ...later] = rounds as [ReturnType<typeof measure>, ReturnType<typeof measure>];
  for (const { tensors } of rounds) t.equal(tensors, warm.tensors, "live tensors");
  for (const name of ["used", "held"] as const) {
    const growth = (later as typeof rounds).map((round) => round[name] / first[name]);
    const counted = strict ? Math.max(...growth) : Math.min(...growth);
    const percent = growth.map((ratio) => `${((ratio - 1) * 100).toFixed(2)} %`).join(", ");
    t.ok(counted < ALLOWED, `memory ${name}: ${percent} of ${(first[name] / 1e6).toFixed(0)} MB`);
  }
}

const ROUNDS = 4;

/** Two layers of attention and feed-forward, small enough that the loops take seconds. */
class Tiny {
  readonly parameters: Tensor[] = [];

  constructor() {
    torch.manual_seed(0);
    for (let layer = 0; layer < 2; layer++) {
      for (const shape of [
        [96, 32],
        [32, 32],
        [64, 32],
        [32, 64],
      ]) {
        const weight = torch.randn(shape).mul(0.1).requires_grad_();
        this.parameters.push(weight);
      }
    }
  }

  forward(x: Tensor): Tensor {
    let h = x;
    for (let layer = 0; layer < 2; layer++) {
      const [qkv, out, up, down] = this.parameters.slice(4 * layer, 4 * layer + 4) as [
        Tensor,
        Tensor,
        Tensor,
        Tensor,
      ];
      const [q, k, v] = torch.matmul(h, qkv.t()).chunk(3, -1) as [Tensor, Tensor, Tensor];
      const weights = q.matmul(k.transpose(1, 2)).div(Math.sqrt(32)).softmax(-1);
      h = h.add(weights.matmul(v).matmul(out.t()));
      h = h.add(torch.matmul(torch.matmul(h, up.t()).relu(), down.t()));
    }
    return h;
  }

  /** One step of gradient descent; the loss. */
  train(x: Tensor): number {
    const loss = this.forward(x).pow(2).mean();
    loss.backward();
    torch.no_grad(() => {
      for (const parameter of this.parameters) {
        parameter.add_(parameter.grad as Tensor, { alpha: -0.01 });
        parameter.grad = null;
      }
    });
    return loss.item();
  }
}

/** Runs `step` without a break. */
function loop(t: Test, step: (i: number) => void): void {
  settle();
  const tensors = live_tensors();
  const { sweeps } = addon().memoryStats();
  const rounds = Array.from({ length: ROUNDS }, () => {
    for (let i = 0; i < STEPS; i++) step(i);
    return measure();
  });
  t.equal(rounds[0]?.tensors, tensors, "live tensors after warm-up");
  t.ok(addon().memoryStats().sweeps >= sweeps);
  compare(t, rounds, soak);
  t.end();
}

function tests(): void {
  const model = new Tiny();
  const x = torch.randn([2, 8, 32]);

  t.test("forwards", (t) => loop(t, () => void torch.no_grad(() => model.forward(x))));
  t.test("forwards within tidy", (t) => {
    const tensors = live_tensors();
    torch.tidy(() => void torch.no_grad(() => model.forward(x)));
    t.equal(live_tensors(), tensors, "freed at the end of the scope");
    loop(t, () => torch.tidy(() => void torch.no_grad(() => model.forward(x))));
  });
  t.test("forwards that record gradients", (t) => loop(t, () => void model.forward(x)));
  t.test("training", (t) => loop(t, () => void model.train(x)));
  t.test("training within tidy", (t) => loop(t, () => void torch.tidy(() => model.train(x))));
  t.test("training with hooks", (t) =>
    loop(t, (i) => {
      const hidden = model.forward(x);
      hidden.register_hook((grad) => (i % 2 ? grad.mul(0.5) : undefined));
      const handle = (model.parameters[0] as Tensor).register_post_accumulate_grad_hook(() => undefined);
      hidden.pow(2).mean().backward();
      handle.remove();
      for (const parameter of model.parameters) parameter.grad = null;
    }),
  );

  t.test("large tensors are freed without a break, though nothing is disposed", (t) => {
    settle();
    const before = privateMemory();
    let most = 0;
    for (let i = 0; i < 400; i++) {
      torch.ones([1024, 1024]).add(1); // 8 MB of garbage
      if (i % 20 === 0) most = Math.max(most, privateMemory() - before);
    }
    t.ok(most < 1.5e9, `${(most / 1e6).toFixed(0)} MB at most, of 3,200 made`);
    t.end();
  });

  t.test("files: opened, used and let go", async (t) => {
    const path = fixture("demo-llama/model.safetensors");
    const once = async () => {
      for (const tensor of Object.values(await safetensors.load_file(path))) {
        tensor.sum();
        tensor.dispose();
      }
    };
    const rounds = [];
    for (let round = 0; round < ROUNDS; round++) {
      for (let i = 0; i < (soak ? 50 : 15); i++) await once();
      rounds.push(measure());
    }
    compare(t, rounds);
    t.equal(addon().memoryStats().mapped_bytes, 0);
  });

  t.test("models: loaded, run and disposed", async (t) => {
    const once = async (dispose: boolean) => {
      const model = await AutoModelForCausalLM.from_pretrained(fixture("demo-llama"));
      const forward = () => model.forward({ input_ids: torch.tensor([[1, 2, 3, 4]]) });
      torch.tidy(() => void torch.no_grad(forward));
      if (dispose) model.dispose();
    };
    const several = async () => {
      for (let i = 0; i < (soak ? 50 : 8); i++) await once(true);
      for (let i = 0; i < (soak ? 50 : 4); i++) await once(false);
      await new Promise((resolve) => setImmediate(resolve)); // what a promise held is let go on the next turn
      settle();
      t.equal(addon().memoryStats().mapped_bytes, 0, "the files are let go");
    };
    const rounds = [];
    for (let round = 0; round < ROUNDS; round++) {
      await several();
      rounds.push(measure());
    }
    compare(t, rounds);
  });
}

// This file again, with a young generation of one size: see privateMemory.
if (process.execArgv.includes(SMALL_YOUNG)) tests();
else t.spawn(process.execPath, [SMALL_YOUNG, fileURLToPath(import.meta.url)], {}, "in a process of its own");
