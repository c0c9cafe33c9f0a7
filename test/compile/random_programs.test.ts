// Random programs of views, in-place writes and random numbers: a run gives what eager mode gives, bit for bit.
import t, { type Test } from "tap";
import { torch } from "torchformers";

type Tensor = torch.Tensor;

/** A generator of numbers that does not touch torch's. */
function random(seed: number): (below: number) => number {
  let state = seed * 2654435761 + 1;
  return (below) => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) | 0;
    return ((state >>> 0) % 1_000_003) % below;
  };
}

type Step = (pick: (n: number) => number, x: Tensor, y: Tensor) => Tensor;

const pointwise: Step[] = [
  (_, x) => x.mul(0.5),
  (_, x) => x.tanh(),
  (_, x) => x.neg(),
  (pick, x) => x.add(pick(5)),
  (pick, x) => x.softmax(pick(2)),
  (_, x) => x.sum(0, true).expand(x.shape).contiguous(),
  (_, x) => torch.where(x.gt(0), x, x.mul(0.1)),
  (_, x) => torch.cat([x, x], 0).narrow(0, 1, x.shape[0] as number),
];
const views: Step[] = [
  (_, x) => x.t().t(),
  (_, x) => x.view(-1).view(x.shape),
  (pick, x) => x.narrow(0, pick(2), 2),
  (pick, x) => x.select(1, pick(3)).unsqueeze(1).expand(x.shape),
  (_, x) => x.detach(),
];
const writes: Step[] = [
  (pick, x) => x.select(0, pick(2)).add_(1) && x,
  (_, x) => x.mul_(0.5),
  (_, x, y) => x.narrow(0, 0, 1).copy_(y.narrow(0, 0, 1)) && x,
  (pick, x) => x.index_fill_(0, torch.tensor([pick(2)]), 0.25),
  (_, x) => x.t().clamp_({ min: -2, max: 2 }).t(),
  (_, x) => x.zero_(),
];
const draws: Step[] = [
  (_, x) => x.add(torch.rand(x.shape)),
  (_, x) => (torch._nn ? x.mul(torch.bernoulli(torch.full(x.shape, 0.5))) : x),
  (_, x) => x.clone().normal_().mul(0.01),
  (_, x) => torch.randn_like(x),
];

/** What passes look for, and what must stop them: the same twice, constants, identities, dead ends. */
const rewritten: Step[] = [
  (_, x) =>
    x
      .exp()
      .clamp({ max: 3 })
      .sub(x.exp().clamp({ max: 3 }).mul(0.5)),
  (_, x) =>
    x.mul(
      torch
        .arange(3, { dtype: "float32" })
        .add(1)
        .unsqueeze(0)
        .expand([x.shape[0] as number, 3]),
    ),
  (_, x) => x.reshape(x.shape).contiguous().mul(2),
  (_, x) => [x.relu().sum(), x.neg()][1] as Tensor,
  (_, x) => x.mul(x.pow(2).mean(-1, true).add(0.5).rsqrt()),
  (_, x, y) => (String(x.shape) === String(y.shape) ? x.add(y).tanh().mul(0.5).neg() : x.tanh().neg()),
  (pick, x) => x.tanh().mul(0.25).select(0, pick(2)).unsqueeze(0).expand(x.shape),
  (pick, x) => {
    const zeros = torch.zeros(x.shape);
    return pick(2) ? zeros.add_(x) : zeros.add(x);
  },
  (_, x) => {
    const [a, b] = x.chunk(2, 0) as [Tensor, Tensor];
    a.mul_(0.5);
    return torch.cat([b.neg(), a], 0);
  },
];

/** The function of a seed: it writes its arguments too, and gives all, or some, of what it has made. */
function program(seed: number, inputs: readonly Tensor[], captured: Tensor, passes = false): Tensor[] {
  const pick = random(seed);
  const tensors = [...inputs, captured];
  const any = () => tensors[pick(tensors.length)] as Tensor;
  const kinds = [pointwise, views, writes, draws, ...(passes ? [rewritten, rewritten] : [])];
  for (let i = 0; i < 12; i++) {
    const kind = kinds[pick(kinds.length)] as Step[];
    const step = kind[pick(kind.length)] as Step;
    const x = any();
    if (kind === writes && x.stride().includes(0)) continue; // an expanded tensor cannot be written
    tensors.push(step(pick, x, any()));
  }
  const made = tensors.slice(inputs.length + 1);
  return passes ? made.filter(() => pick(3) === 0) : made;
}

/** `passes`: with operators that they look for; few results, so that there is something to rewrite. */
async function compare(t: Test, seeds: number, passes: boolean): Promise<void> {
  let failed = 0;
  for (let seed = 0; seed < seeds && failed < 3; seed++) {
    const make = () => {
      torch.manual_seed(seed);
      const base = torch.randn(6, 3);
      // Two arguments share memory.
      return {
        inputs: [torch.randn(4, 3), base.narrow(0, 0, 4), base.narrow(0, 2, 4)],
        captured: torch.randn(3, 3),
      };
    };
    const eager = make();
    const run = make();
    let expected: Tensor[];
    try {
      torch.manual_seed(seed);
      expected = torch.no_grad(() => program(seed, eager.inputs, eager.captured, passes));
    } catch (error) {
      // Shapes that do not fit fail in both modes.
      const compiled = torch.compile((inputs: Tensor[]) => program(seed, inputs, run.captured, passes), {
        passes,
      });
      const failed = await compiled(run.inputs).then(
        () => false,
        () => true,
      );
      t.ok(failed, `seed ${seed} fails in both modes: ${(error as Error).message.split("\n")[0]}`);
      continue;
    }
    const compiled = torch.compile(
      (inputs: Tensor[]) => torch.no_grad(() => program(seed, inputs, run.captured, passes)),
      { passes },
    );
    torch.manual_seed(seed);
    const actual = await compiled(run.inputs);
    // Our norms sum in another order; everything else is the same bit for bit.
    const near = String(compiled.programs()[0]).includes("rms_norm");
    const same = (a: Tensor, b: Tensor) =>
      (near ? torch.allclose(a, b, { rtol: 1e-4, atol: 1e-5 }) : torch.equal(a, b)) &&
      String(a.shape) === String(b.shape) &&
      String(a.stride()) === String(b.stride());
    const pairs = [...expected, ...eager.inputs, eager.captured].map(
      (tensor, i) => [tensor, [...actual, ...run.inputs, run.captured][i] as Tensor] as const,
    );
    const wrong = pairs.findIndex(([a, b]) => !same(a, b));
    if (wrong >= 0) {
      failed++;
      t.fail(`seed ${seed}: result ${wrong} of ${pairs.length} differs\n${compiled.programs()[0]}`);
    } else {
      t.pass(`seed ${seed}`);
    }
  }
}

t.test("random programs as recorded", (t) => compare(t, 150, false));
t.test("random programs with passes", (t) => compare(t, 600, true));
