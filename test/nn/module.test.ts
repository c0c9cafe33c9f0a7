// Module: state, walking, hooks, state dicts, printing; against Python torch where it has an answer.

import { inspect } from "node:util";
import t from "tap";
import { nn, type Tensor, torch } from "torchformers";
import { type Any, cases, close, identical } from "../support/nn_golden.js";

class Block extends nn.Module {
  readonly norm: nn.LayerNorm;
  readonly fc: nn.Linear;
  declare readonly scale: Tensor;
  readonly gain: nn.Parameter;
  declare readonly cache: Tensor;

  constructor(width: number) {
    super();
    this.norm = new nn.LayerNorm(width, { eps: 1e-6 });
    this.fc = new nn.Linear(width, width, { bias: false });
    this.register_buffer("scale", torch.ones([1]));
    this.gain = new nn.Parameter(torch.ones([width]));
    this.register_buffer("cache", torch.zeros([2]), { persistent: false });
  }

  override forward(x: Tensor): Tensor {
    return x.add(this.fc.forward(this.norm.forward(x)).mul(this.gain).mul(this.scale));
  }
}

class Net extends nn.Module {
  readonly embed: nn.Embedding;
  readonly blocks: nn.ModuleList<Block>;
  readonly extra: nn.ModuleDict;
  readonly mix: nn.ParameterList;
  readonly named: nn.ParameterDict;
  readonly head: nn.Linear;
  readonly alpha: nn.Parameter;
  readonly missing: nn.Linear | null;

  constructor() {
    super();
    this.embed = new nn.Embedding(9, 4, { padding_idx: 0 });
    this.blocks = new nn.ModuleList([new Block(4), new Block(4), new Block(4)]);
    this.extra = new nn.ModuleDict({ a: new nn.Linear(4, 2), b: new nn.Identity() });
    this.mix = new nn.ParameterList([torch.ones([2]), torch.zeros([3])]);
    this.named = new nn.ParameterDict({ left: torch.ones([2]) });
    this.head = new nn.Linear(4, 9, { bias: false });
    (this.head as Any).weight = this.embed.weight;
    this.alpha = new nn.Parameter(torch.tensor(0.5));
    this.missing = null;
  }

  override forward(ids: Tensor): Tensor {
    let x = this.embed.forward(ids);
    for (const block of this.blocks) x = block.forward(x);
    return this.head.forward(x).mul(this.alpha);
  }
}

const names = (pairs: Iterable<readonly [string, unknown]>) => [...pairs].map(([name]) => name);

t.test("wrong input", async (t) => {
  class Lost extends nn.Module {
    readonly layers = [new nn.Linear(2, 2)];
  }
  t.throws(() => [...new Lost().parameters()], /Lost\.layers is a plain array of modules.*nn\.ModuleList/);
  const lostParameters = new nn.Module();
  (lostParameters as Any).scales = [new nn.Parameter(torch.ones([1]))];
  t.throws(() => lostParameters.state_dict(), /nn\.ParameterList/);

  const module = new nn.Module();
  t.throws(() => module.register_buffer("a.b", torch.ones([1])), /can't contain/);
  t.throws(() => module.register_buffer("", null), /can't be empty/);
  t.throws(() => module.register_buffer("x", 3 as Any), /must be a Tensor or null, got number/);
  t.throws(
    () => module.register_parameter("x", torch.ones([1]) as Any),
    /must be a Parameter or null, got Tensor/,
  );
  t.throws(() => module.add_module("x", {} as Any), /must be a Module or null, got Object/);
  t.throws(() => module.register_buffer("forward", null), /already has a property 'forward'/);
  t.throws(() => module.register_buffer("x", null, { persist: true } as Any), {
    code: "ERR_INVALID_ARGUMENT",
  });
  t.throws(() => module.forward(), /missing the required "forward"/);
  t.throws(() => module.train("yes" as Any), /boolean/);
  t.throws(() => module.to("int64"), /floating point or complex/);

  const net = new Net();
  t.throws(() => net.get_submodule("blocks.7"), /ModuleList has no module '7'/);
  t.throws(() => net.get_parameter("embed.wieght"), { message: /Did you mean 'weight'/ });
  t.throws(() => net.get_buffer("blocks.0.sale"), { message: /Did you mean 'scale'/ });
  t.throws(() => net.blocks.at(3), /out of range/);
  t.throws(() => net.extra.get("c"), /no module 'c'/);
});

t.test("fields that overwrite what a constructor stored", async (t) => {
  class Base extends nn.Module {
    declare readonly scale: Tensor | null;
    readonly fc: nn.Linear;
    constructor() {
      super();
      this.register_buffer("scale", torch.ones([1]));
      this.fc = new nn.Linear(2, 2);
      this.assertFieldsIntact();
    }
  }
  class Narrower extends Base {
    // @ts-expect-error: what a user writes without `declare`; the field is never assigned
    override readonly fc: nn.Linear;
  }
  class Buffered extends Base {
    // @ts-expect-error: as above
    override readonly scale: Tensor;
  }
  t.doesNotThrow(() => new Base().assertFieldsIntact());
  t.throws(() => new Narrower().assertFieldsIntact(), {
    code: "ERR_CONFIG_FIELD",
    message: /declare readonly fc/,
  });
  t.throws(() => [...new Buffered().buffers()], {
    code: "ERR_CONFIG_FIELD",
    message: /Buffered\.scale held a buffer/,
  });
});

t.test("a net and its walks", async (t) => {
  const { list, decode } = await cases("modules");
  const expected = list[0];
  torch.manual_seed(11);
  const net = new Net();
  t.same(Object.keys(net.state_dict()), Object.keys(expected.state));
  for (const [key, value] of Object.entries(net.state_dict()))
    identical(t, value, decode(expected.state[key]), key);
  t.same(names(net.named_parameters()), expected.parameters);
  t.same(names(net.named_parameters({ remove_duplicate: false })), expected.all_parameters);
  t.same(names(net.named_buffers()), expected.buffers);
  t.same(names(net.named_modules()), expected.modules);
  t.same(names(net.named_children()), expected.children);
  t.same((net.state_dict() as Any)._metadata, expected.metadata);
  t.equal(String(net), expected.repr);
  t.same(names(net.named_parameters({ prefix: "net", recurse: false })), ["net.alpha"]);
  t.equal(net.get_submodule("blocks.1.fc"), net.blocks[1]?.fc);
  t.equal(net.get_parameter("blocks.1.fc.weight"), net.blocks[1]?.fc.weight);
  t.equal(net.get_submodule(""), net);

  const events: string[] = [];
  const handles = [...net.named_modules()].flatMap(([name, module]) => [
    module.register_forward_pre_hook(() => {
      events.push(`pre ${name}`);
    }),
    module.register_forward_hook(() => {
      events.push(`post ${name}`);
    }),
    module.register_full_backward_hook(() => {
      events.push(`backward ${name}`);
    }),
  ]);
  const output = net.forward(decode(expected.ids));
  close(t, output, decode(expected.output), "output");
  output.sum().backward();
  t.same(events, expected.events, "order of hooks");
  for (const handle of handles) handle.remove();
  t.notOk(Object.hasOwn(net, "forward"), "without hooks the instance has no forward of its own");
  const grads = Object.fromEntries([...net.named_parameters()].map(([name, p]) => [name, p.grad]));
  for (const name in expected.grads) close(t, grads[name], decode(expected.grads[name]), name);
});

t.test("backward hooks", async (t) => {
  const { list, decode } = await cases("modules");
  const given = decode(list[0].linear);
  const linear = new nn.Linear(3, 2);
  linear.load_state_dict({ weight: given.weight, bias: given.bias });
  const seen: Tensor[] = [];
  linear.register_full_backward_hook((module, grad_input, grad_output) => {
    t.equal(module, linear);
    seen.push(...([...grad_input, ...grad_output] as Tensor[]));
  });
  const x = given.x.clone().requires_grad_();
  linear.forward(x).pow(2).sum().backward();
  for (const [i, grad] of given.hooked.entries()) close(t, seen[i], grad, `seen ${i}`);
  close(t, x.grad, given.grad, "gradient of the input");

  class Two extends nn.Module {
    override forward({ a, b }: { a: Tensor; b: Tensor }): { sum: Tensor; double: Tensor } {
      return { sum: a.sum(), double: b.mul(2).to("float64") };
    }
  }
  const two = new Two();
  two.register_full_backward_pre_hook((_, grad_output) => grad_output.map((grad) => grad?.mul(10) ?? null));
  two.register_full_backward_hook((_, grad_input) => grad_input.map((grad) => grad?.neg() ?? null));
  const a = torch.ones([2], { requires_grad: true });
  const b = torch.ones([3], { requires_grad: true });
  const { sum, double } = two.forward({ a, b });
  t.equal(double.dtype, "float64");
  sum.add(double.sum()).backward();
  t.same(a.grad?.tolist(), [-10, -10]);
  t.same(b.grad?.tolist(), [-20, -20, -20]);
});

t.test("forward hooks", async (t) => {
  class Half extends nn.Module {
    override forward(x: Tensor): Tensor {
      return x.mul(0.5);
    }
  }
  class Quarter extends Half {
    override forward(x: Tensor): Tensor {
      return super.forward(x).mul(0.5);
    }
  }
  const layer = new Quarter();
  let calls = 0;
  const before = layer.register_forward_pre_hook((_, [x]) => {
    calls++;
    return [x.add(4)];
  });
  const after = layer.register_forward_hook((_, __, output) => output.add(1));
  t.equal(layer.forward(torch.tensor(4)).item(), 3);
  t.equal(calls, 1, "super.forward runs no hooks");
  after.remove();
  t.equal(layer.forward(torch.tensor(4)).item(), 2);
  (layer as Any).forward = (x: Tensor) => x;
  t.equal(layer.forward(torch.tensor(4)).item(), 8, "a forward assigned later is still hooked");
  before[Symbol.dispose]();
  t.equal(layer.forward(torch.tensor(4)).item(), 4);

  const order: number[] = [];
  layer.register_forward_pre_hook(() => void order.push(1));
  layer.register_forward_pre_hook(() => void order.push(0), { prepend: true });
  layer.forward(torch.tensor(1));
  t.same(order, [0, 1]);

  let kept: Tensor | undefined;
  const linear = new nn.Linear(2, 2);
  linear.register_forward_hook((_, __, output) => {
    kept = output;
  });
  torch.tidy(() =>
    linear
      .forward(torch.ones([1, 2]))
      .sum()
      .item(),
  );
  t.same(kept?.shape, [1, 2], "what a hook saw survives a memory scope");
  let gradient: Tensor | null | undefined;
  linear.register_full_backward_hook((_, __, [grad]) => {
    gradient = grad;
  });
  torch.tidy(() =>
    linear
      .forward(torch.ones([1, 2]))
      .sum()
      .backward(),
  );
  t.same(gradient?.tolist(), [[1, 1]]);
});

t.test("state dicts", async (t) => {
  const net = new Net();
  const other = new Net();
  const state = net.state_dict();
  t.same(other.load_state_dict(state), { missing_keys: [], unexpected_keys: [] });
  for (const [key, value] of Object.entries(other.state_dict()))
    identical(t, value, state[key] as Tensor, key);
  t.equal(other.head.weight, other.embed.weight, "ties are kept");

  const { alpha, ...less } = state;
  const more = { ...less, surplus: torch.ones([1]), "blocks.0.fc.bias": torch.ones([4]) };
  t.throws(() => other.load_state_dict(more), {
    code: "ERR_CHECKPOINT",
    message:
      /Unexpected key\(s\) in state_dict: "surplus", "blocks.0.fc.bias"\.\s+Missing key\(s\) in state_dict: "alpha"|Missing/,
    missing_keys: ["alpha"],
    unexpected_keys: ["surplus", "blocks.0.fc.bias"],
  } as Any);
  t.same(other.load_state_dict(more, { strict: false }), {
    missing_keys: ["alpha"],
    unexpected_keys: ["surplus", "blocks.0.fc.bias"],
  });
  t.throws(() => other.load_state_dict({ ...state, alpha: torch.ones([2]) }), {
    message: /size mismatch for alpha: copying a param with shape torch.Size\(\[2\]\) from checkpoint/,
    mismatched_keys: [["alpha", [2], []]],
  } as Any);
  t.same(
    other.load_state_dict({ ...state, alpha: torch.tensor([2]) }, { strict: false }).missing_keys,
    [],
    "an old scalar",
  );
  t.equal(other.alpha.item(), 2);
  t.ok(alpha);

  const empty = new nn.Linear(2, 3, { device: "meta" });
  const { weight, bias } = empty;
  const full = new nn.Linear(2, 3, { dtype: "float64" });
  t.throws(() => empty.load_state_dict(full.state_dict()), /meta device/);
  empty.load_state_dict(full.state_dict(), { assign: true });
  t.equal(empty.weight, weight, "the Parameter object stays");
  t.equal(empty.bias, bias);
  identical(t, weight, full.weight, "assigned");
  t.ok(weight.requires_grad);

  const events: unknown[] = [];
  const hooked = new nn.Linear(2, 1, { bias: false });
  hooked._register_load_state_dict_pre_hook((dict, prefix) => {
    dict[`${prefix}weight`] = dict[`${prefix}old`] as Tensor;
    delete dict[`${prefix}old`];
  });
  hooked.register_load_state_dict_pre_hook(
    (module, _dict, prefix) => void events.push(module === hooked, prefix),
  );
  hooked.register_load_state_dict_post_hook((_, keys) => void events.push(keys.missing_keys.length));
  hooked.register_state_dict_post_hook((_, dict, prefix) => {
    dict[`${prefix}extra`] = torch.ones([1]);
  });
  const outer = new nn.Sequential(hooked);
  outer.load_state_dict({ "0.old": torch.tensor([[1, 2]], { dtype: "float32" }) });
  t.same(hooked.weight.tolist(), [[1, 2]]);
  t.same(events, [true, "0.", 0]);
  t.same(Object.keys(outer.state_dict()), ["0.weight", "0.extra"]);

  const norm = new nn.BatchNorm1d(2);
  const { num_batches_tracked, ...old } = norm.state_dict();
  t.ok(num_batches_tracked);
  t.same(norm.load_state_dict(old), { missing_keys: [], unexpected_keys: [] }, "a state without version");
});

t.test("moving and modes", async (t) => {
  const net = new Net();
  const before = [...net.parameters()];
  net.bfloat16();
  t.same([...net.parameters()], before, "the same objects");
  t.ok(before.every((p) => p.dtype === "bfloat16"));
  t.ok(before.every((p) => p.requires_grad));
  t.equal(net.blocks[0]?.scale.dtype, "bfloat16");
  t.equal(net.head.weight, net.embed.weight);
  const norm = new nn.BatchNorm1d(2);
  norm.to("cpu", "float64");
  t.equal(norm.running_mean?.dtype, "float64");
  t.equal(norm.num_batches_tracked?.dtype, "int64", "integers keep their dtype");

  const linear = new nn.Linear(2, 2);
  linear
    .forward(torch.ones([1, 2]))
    .sum()
    .backward();
  linear.to({ dtype: "float64" });
  t.equal(linear.weight.grad?.dtype, "float64", "gradients move along");
  linear.zero_grad({ set_to_none: false });
  t.same(linear.weight.grad?.tolist(), [
    [0, 0],
    [0, 0],
  ]);
  linear.zero_grad();
  t.equal(linear.weight.grad, null);
  linear.to("meta");
  t.throws(() => linear.to("cpu"), /meta device/);
  linear.to_empty({ device: "cpu" });
  t.equal(linear.weight.device, "cpu");

  net.eval();
  t.ok([...net.modules()].every((module) => !module.training));
  net.train();
  t.ok(net.blocks[2]?.norm.training);
  net.requires_grad_(false);
  t.ok([...net.parameters()].every((p) => !p.requires_grad));
  const order: string[] = [];
  new nn.Sequential(new nn.ReLU(), new nn.Tanh()).apply((module) => void order.push(module._get_name()));
  t.same(order, ["ReLU", "Tanh", "Sequential"]);
});

t.test("dispose", async (t) => {
  const before = torch.memory_stats().live_tensors;
  const net = torch.tidy(
    () => new nn.Sequential(new Block(4), new nn.BatchNorm1d(2), new nn.Embedding(3, 4)),
  );
  const { weight } = net.at(2) as Any;
  net.dispose();
  t.equal(torch.memory_stats().live_tensors, before);
  t.throws(() => weight.sum(), { code: "ERR_DISPOSED" });
  net[Symbol.dispose]();
});

t.test("buffers", async (t) => {
  class Counter extends nn.Module {
    declare count: Tensor;
    constructor() {
      super();
      this.register_buffer("count", torch.zeros([1]));
    }
  }
  const counter = new Counter();
  torch.tidy(() => {
    counter.count = counter.count.add(1);
  });
  t.same(counter.count.tolist(), [1], "a tensor assigned in a scope survives it");
  t.same(Object.keys(counter.state_dict()), ["count"]);
  t.throws(() => {
    counter.count = 3 as Any;
  }, /must be a Tensor or null/);
});

t.test("containers", async (t) => {
  const list = new nn.ModuleList([new nn.ReLU(), new nn.Tanh()]);
  list.append(new nn.Sigmoid());
  list.insert(1, new nn.GELU());
  t.same(
    [...list].map((module) => module._get_name()),
    ["ReLU", "GELU", "Tanh", "Sigmoid"],
  );
  t.equal(list.length, 4);
  t.equal(list.at(-1), list[3]);
  t.equal(list.pop(0)._get_name(), "ReLU");
  t.same(
    Object.keys(list).filter((key) => /\d/.test(key)),
    ["0", "1", "2"],
  );
  t.equal(list.slice(1).length, 2);

  const chain = new nn.Sequential({ one: new nn.Linear(2, 3), two: new nn.ReLU() });
  t.same(names(chain.named_children()), ["one", "two"]);
  t.equal(chain.at(1)._get_name(), "ReLU");
  t.same(chain.forward(torch.ones([4, 2])).shape, [4, 3]);
  t.same(names(chain.slice(1).named_children()), ["two"]);

  const dict = new nn.ModuleDict<nn.Module>({ a: new nn.ReLU() });
  dict.set("b", new nn.Tanh());
  t.same([...dict], ["a", "b"]);
  t.ok(dict.has("b") && !dict.has("length"));
  t.throws(() => dict.set("type", new nn.ReLU()), /already has a property 'type'/);
  dict.pop("a");
  t.same([...dict.keys()], ["b"]);

  const { list: golden } = await cases("modules");
  t.equal(
    String(new nn.Sequential(new nn.Linear(2, 3), new nn.Sequential(new nn.ReLU(), new nn.Flatten()))),
    golden[0].sequential,
  );
  const made = [
    new nn.ModuleList(),
    new nn.ModuleList([new nn.Linear(2, 2), new nn.Linear(2, 2), new nn.ReLU()]),
    new nn.ModuleDict({ x: new nn.Tanh() }),
  ];
  t.same(made.map(String), golden[0].lists);
});

t.test("the tree", async (t) => {
  const net = new nn.Sequential(new nn.Linear(2, 3), new nn.ModuleList([new nn.ReLU(), new nn.ReLU()]));
  t.equal(
    net.summary(),
    [
      "Sequential  9 parameters · 36 B · float32 · cpu",
      "├─ 0: Linear(in_features=2, out_features=3, bias=True)",
      "│  ├─ weight: [3, 2] float32 cpu 24 B",
      "│  └─ bias: [3] float32 cpu 12 B",
      "└─ 1: ModuleList",
      "   └─ 0-1: 2 × ReLU",
    ].join("\n"),
  );
  t.equal(inspect(net), net.summary());
  t.equal(net.summary({ depth: 0 }), "Sequential  9 parameters · 36 B · float32 · cpu");
});

t.test("parameters", async (t) => {
  const source = torch.tensor([1, 2], { dtype: "float32" });
  const p = new nn.Parameter(source);
  t.equal(String(p), "Parameter containing:\ntensor([1., 2.], requires_grad=True)");
  t.ok(p instanceof torch.Tensor && p.is_leaf && p.requires_grad);
  t.equal(p.untyped_storage().id, source.untyped_storage().id, "shares the memory");
  const computed = source.clone().requires_grad_().mul(2);
  t.ok(new nn.Parameter(computed).is_leaf, "has no history");
  t.notOk(new nn.Parameter(torch.tensor([1]), false).requires_grad, "integers cannot be trained");
  const made = torch.tidy(() => ({ p: new nn.Parameter(torch.ones([3])) }));
  t.same(made.p.tolist(), [1, 1, 1]);
  const linear = new nn.Linear(2, 1);
  t.same(names(linear.named_parameters("a", false)), ["a.weight", "a.bias"]);

  class Norms extends nn.Module {
    readonly mean = new nn.Buffer(torch.zeros([2]));
    readonly cache = new nn.Buffer(torch.zeros([2]), { persistent: false });
  }
  const norms = new Norms();
  t.same(names(norms.named_buffers()), ["mean", "cache"]);
  t.same(Object.keys(norms.state_dict()), ["mean"]);
});

t.test("utils", async (t) => {
  const { list } = await cases("modules");
  torch.manual_seed(2);
  for (const [i, p] of [1, 2, Number.POSITIVE_INFINITY].entries()) {
    const norm = nn.utils.get_total_norm([torch.randn([3]), torch.randn([2, 2])], p);
    t.ok(Math.abs(Number(norm.item()) - list[0].total_norm[i]) < 1e-5, `norm ${p}`);
  }
  const p = new nn.Parameter(torch.zeros([2]));
  p.grad = torch.tensor([3, 4], { dtype: "float32" });
  t.equal(nn.utils.clip_grad_norm_([p], 1).item(), 5);
  t.ok(torch.allclose(p.grad as Tensor, torch.tensor([0.6, 0.8]), { atol: 1e-5 }));
  nn.utils.clip_grad_value_([p], 0.7);
  t.ok(torch.allclose(p.grad as Tensor, torch.tensor([0.6, 0.7]), { atol: 1e-5 }));
  p.grad = torch.tensor([Number.NaN, 1]);
  t.throws(() => nn.utils.clip_grad_norm_([p], 1, { error_if_nonfinite: true }), /NaN/);

  const linear = new nn.Linear(2, 2);
  const vector = nn.utils.parameters_to_vector(linear.parameters());
  t.same(vector.shape, [6]);
  nn.utils.vector_to_parameters(torch.arange(6, { dtype: "float32" }), linear.parameters());
  t.same(linear.bias?.tolist(), [4, 5]);
});
