// Hooks with accelerate's semantics, on plain modules.
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import t, { type Test } from "tap";
import {
  AlignDevicesHook,
  add_hook_to_module,
  attach_align_device_hook,
  attach_align_device_hook_on_blocks,
  cpu_offload,
  cpu_offload_with_hook,
  disk_offload,
  dispatch_model,
  init_empty_weights,
  init_on_device,
  load_checkpoint_and_dispatch,
  load_checkpoint_in_model,
  ModelHook,
  nn,
  OffloadedWeightsLoader,
  offload_state_dict,
  remove_hook_from_module,
  remove_hook_from_submodules,
  SequentialHook,
  safetensors,
  type Tensor,
  torch,
} from "torchformers";

process.env.TORCHFORMERS_LOG = "silent";
torch.limited_devices([{ capacity: 2 ** 24 }, { capacity: 2 ** 24 }]);

const folders: string[] = [];
const folder = () => {
  const made = mkdtempSync(join(tmpdir(), "torchformers-hooks-"));
  folders.push(made);
  return made;
};
t.teardown(() => {
  for (const made of folders) rmSync(made, { recursive: true, force: true });
});

class Net extends nn.Module {
  readonly linear1: nn.Linear;
  readonly batchnorm: nn.BatchNorm1d;
  readonly linear2: nn.Linear;
  constructor() {
    super();
    this.linear1 = new nn.Linear(3, 4);
    this.batchnorm = new nn.BatchNorm1d(4);
    this.linear2 = new nn.Linear(4, 5);
  }
  override forward(x: Tensor): Tensor {
    return this.linear2.forward(this.batchnorm.forward(this.linear1.forward(x)));
  }
}

/** Uses a weight of a module inside, which is never called. */
class Direct extends nn.Module {
  readonly dense: nn.Linear;
  constructor() {
    super();
    this.dense = new nn.Linear(3, 3);
  }
  override forward(x: Tensor): Tensor {
    return x.matmul(this.dense.weight.t()).add(this.dense.bias as Tensor);
  }
}

class Plus extends ModelHook {
  readonly by: number;
  readonly seen: string[];
  constructor(by: number, seen: string[] = []) {
    super();
    this.by = by;
    this.seen = seen;
  }
  override init_hook<M extends nn.Module>(module: M): M {
    this.seen.push(`init ${this.by}`);
    return module;
  }
  override pre_forward(_module: nn.Module, x: Tensor, ...rest: unknown[]): readonly unknown[] {
    this.seen.push(`pre ${this.by}`);
    return [x.add(this.by), ...rest];
  }
  override post_forward(_module: nn.Module, output: Tensor): Tensor {
    this.seen.push(`post ${this.by}`);
    return output.mul(this.by + 1);
  }
  override cancel_forward(): void {
    this.seen.push(`cancel ${this.by}`);
  }
  override detach_hook<M extends nn.Module>(module: M): M {
    this.seen.push(`detach ${this.by}`);
    return module;
  }
}

const same = (t: Test, a: Tensor, b: Tensor, what = "the same numbers") =>
  t.ok(torch.equal(a.detach(), b.detach()), what);

t.test("wrong input", async (t) => {
  t.throws(() => add_hook_to_module(new Net(), {} as ModelHook), /ModelHook/);
  t.throws(() => new AlignDevicesHook({ ofload: true } as never), /offload/);
  t.throws(() => new AlignDevicesHook({ execution_device: "gpu" }), /gpu/);
  const model = new Net();
  await t.rejects(dispatch_model(model, { linear1: "cpu" }), /batchnorm/);
  await t.rejects(
    dispatch_model(model, { linear1: "cpu", batchnorm: "cpu", linear2: "disk" }),
    /offload_dir/,
  );
  await t.rejects(dispatch_model(model, { "": "limited:7" }), /limited:7/);
  await t.rejects(OffloadedWeightsLoader.open({}), /state_dict/);
  const empty = init_empty_weights(() => new Net());
  await t.rejects(dispatch_model(empty, { linear1: "limited:0", batchnorm: "cpu", linear2: "cpu" }), /meta/);
});

t.test("hooks around a forward", async (t) => {
  const model = new Net().eval();
  // Whole numbers: x + 1 + 2 is x + 3 to the bit.
  const x = torch.arange(6, { dtype: "float32" }).reshape([2, 3]);
  const plain = torch.no_grad(() => model.forward(x));
  const shifted = torch.no_grad(() => model.forward(x.add(1)));
  const seen: string[] = [];

  const old = model.forward;
  add_hook_to_module(model, new Plus(1, seen));
  same(
    t,
    torch.no_grad(() => model.forward(x)),
    shifted.mul(2),
    "arguments and output are the hook's",
  );
  t.same(seen, ["init 1", "pre 1", "post 1"]);
  t.ok((model as unknown as { _hf_hook: ModelHook })._hf_hook instanceof Plus);
  same(
    t,
    torch.no_grad(() => (model as unknown as { _old_forward: typeof old })._old_forward(x)),
    plain,
  );

  add_hook_to_module(model, new Plus(2));
  const twice = torch.no_grad(() => model.forward(x));
  same(
    t,
    twice,
    torch.no_grad(() => old.call(model, x.add(2)) as Tensor).mul(3),
    "a second one replaces the first",
  );
  remove_hook_from_module(model);
  same(
    t,
    torch.no_grad(() => model.forward(x)),
    plain,
    "as before",
  );
  t.notOk(Object.hasOwn(model, "forward"));
  t.equal((model as unknown as Record<string, unknown>)["_hf_hook"], undefined);

  seen.length = 0;
  add_hook_to_module(model, new Plus(1, seen));
  add_hook_to_module(model, new Plus(2, seen), { append: true });
  t.ok((model as unknown as { _hf_hook: ModelHook })._hf_hook instanceof SequentialHook);
  seen.length = 0;
  same(
    t,
    torch.no_grad(() => model.forward(x)),
    torch
      .no_grad(() => old.call(model, x.add(3)) as Tensor)
      .mul(2)
      .mul(3),
  );
  t.same(seen, ["pre 1", "pre 2", "post 1", "post 2"]);
  seen.length = 0;
  t.throws(() => model.forward(torch.ones([2, 9])));
  t.same(seen, ["pre 1", "pre 2", "cancel 1", "cancel 2"], "hooks hear of a forward that threw");

  let outer = 0;
  const handle = model.register_forward_hook(() => void outer++);
  model.forward(x);
  t.equal(outer, 1, "torch's hooks stand around");
  handle.remove();
  remove_hook_from_submodules(model);
  same(
    t,
    torch.no_grad(() => model.forward(x)),
    plain,
  );

  class Frozen extends ModelHook {
    override readonly no_grad = true;
  }
  add_hook_to_module(model, new Frozen());
  t.equal(model.forward(x).requires_grad, false);
});

t.test("weights that rest", async (t) => {
  const model = new Net().eval();
  const x = torch.randn([2, 3]);
  const want = torch.no_grad(() => model.forward(x));
  attach_align_device_hook(model, { execution_device: "cpu", offload: true });
  t.ok(model.linear1.weight.is_meta && model.batchnorm.weight?.is_meta, "parameters are on the meta device");
  t.equal(model.batchnorm.running_mean?.device, "cpu", "buffers are not");
  const { weight } = model.linear1;
  same(
    t,
    torch.no_grad(() => model.forward(x)),
    want,
  );
  t.equal(model.linear1.weight, weight, "a parameter is one object");
  t.ok(weight.is_meta);
  await t.rejects(async () => await weight.data(), "outside of its forward it has no values");
  t.throws(() => model.linear1.forward(torch.ones([2, 9])), "a forward that fails");
  t.ok(weight.is_meta, "gives the weights back");
  remove_hook_from_submodules(model);
  t.equal(model.linear1.weight.device, "cpu");
  same(
    t,
    torch.no_grad(() => model.forward(x)),
    want,
  );

  attach_align_device_hook(model, { execution_device: "limited:0", offload: true, offload_buffers: true });
  t.ok(model.batchnorm.running_mean?.is_meta, "buffers too, when asked for");
  same(
    t,
    torch.no_grad(() => model.forward(x)),
    want,
  );
  remove_hook_from_submodules(model);
});

t.test("weights that are used outside of their module's forward", async (t) => {
  const model = new Direct();
  const x = torch.randn([2, 3]);
  const want = torch.no_grad(() => model.forward(x));
  attach_align_device_hook(model, { execution_device: "cpu", offload: true });
  let output: Tensor | undefined;
  try {
    output = torch.no_grad(() => model.forward(x));
    await output.data();
    t.fail("numbers came out of weights that are not there");
  } catch (error) {
    t.ok(error, "are an error, or without values");
  }
  remove_hook_from_submodules(model);
  attach_align_device_hook(model, {
    execution_device: "cpu",
    offload: true,
    preload_module_classes: ["Direct"],
  });
  same(
    t,
    torch.no_grad(() => model.forward(x)),
    want,
    "preload_module_classes brings them",
  );
});

t.test("gradients", async (t) => {
  const make = () => {
    torch.manual_seed(3);
    return new Net();
  };
  const [plain, model] = [make(), make()];
  const x = torch.randn([4, 3]);
  plain.forward(x).pow(2).sum().backward();
  await dispatch_model(model, { linear1: "limited:0", batchnorm: "limited:0", linear2: "cpu" });
  model.forward(x).pow(2).sum().backward();
  t.ok(model.linear2.weight.is_meta);
  for (const name of ["linear1.weight", "linear1.bias", "batchnorm.weight", "batchnorm.bias"])
    t.ok(
      torch.allclose(model.get_parameter(name).grad as Tensor, plain.get_parameter(name).grad as Tensor),
      name,
    );
  t.equal(model.linear2.weight.grad ?? null, null, "none for a weight that is offloaded");
});

t.test("blocks by name", async (t) => {
  const model = new Net().eval();
  const x = torch.randn([2, 3]);
  const want = torch.no_grad(() => model.forward(x));
  attach_align_device_hook_on_blocks(model, {
    execution_device: { linear1: "limited:0", batchnorm: "limited:1", linear2: "limited:0" },
    offload: { linear1: true, batchnorm: false, linear2: true },
  });
  same(
    t,
    torch.no_grad(() => model.forward(x)),
    want,
  );
  t.ok(model.linear1.weight.is_meta);
  t.notOk(model.batchnorm.weight?.is_meta);
});

t.test("whole models", async (t) => {
  const x = torch.randn([2, 3]);
  const model = new Net().eval();
  const want = torch.no_grad(() => model.forward(x));
  cpu_offload(model, { execution_device: "limited:0" });
  t.ok([...model.parameters()].every(({ is_meta }) => is_meta));
  same(
    t,
    torch.no_grad(() => model.forward(x)),
    want,
    "cpu_offload",
  );
  remove_hook_from_submodules(model);

  const place = folder();
  await disk_offload(model, place, { execution_device: "cpu" });
  t.ok(readdirSync(place).includes("linear1.weight.dat") && readdirSync(place).includes("index.json"));
  same(
    t,
    torch.no_grad(() => model.forward(x)),
    want,
    "disk_offload",
  );
  const index = JSON.parse(readFileSync(join(place, "index.json"), "utf8"));
  t.same(index["linear1.weight"], { dtype: "float32", shape: [4, 3] });

  const [first, hook1] = cpu_offload_with_hook(new Net().eval(), { execution_device: "limited:0" });
  const [second, hook2] = cpu_offload_with_hook(new Net().eval(), {
    execution_device: "limited:0",
    prev_module_hook: hook1,
  });
  torch.no_grad(() => second.forward(first.forward(x).narrow(1, 0, 3)));
  torch.no_grad(() => second.forward(x));
  hook2.offload();
  hook2.remove();
  t.notOk(Object.hasOwn(second, "forward"));
});

t.test("files of offloaded weights", async (t) => {
  const place = folder();
  const state = {
    a: torch.randn([3, 2], { dtype: "bfloat16" }),
    "b.c": torch.tensor(5, { dtype: "int64" }),
    d: torch.tensor([true, false]),
  };
  await offload_state_dict(place, state);
  const weights = await OffloadedWeightsLoader.open({ save_folder: place });
  for (const [name, tensor] of Object.entries(state)) {
    t.ok(torch.equal(weights.get(name), tensor), name);
    t.equal(weights.get(name).dtype, tensor.dtype);
  }
  truncateSync(join(place, "a.dat"), 4);
  t.throws(() => weights.get("a"), /a\.dat has 4 bytes/);
  unlinkSync(join(place, "a.dat"));
  t.throws(() => weights.get("a"), /cannot be read/);

  const bad = folder();
  for (const [index, message] of [
    ["[]", /not an index/],
    ["{", /cannot be read/],
    ['{"a":{"shape":[1]}}', /dtype/],
    ['{"../a":{"shape":[1],"dtype":"float32"}}', /\.\.\/a/],
    ['{"a":{"safetensors_file":"../../x.safetensors"}}', /leads out/],
  ] as const) {
    writeFileSync(join(bad, "index.json"), index);
    await t.rejects(OffloadedWeightsLoader.open({ save_folder: bad }), message, index);
  }
  await t.rejects(
    offload_state_dict(join(bad, "index.json", "below"), { a: torch.ones(1) }),
    { code: "ERR_FILE" },
    "a folder that cannot be written",
  );
});

t.test("checkpoints in plain modules", async (t) => {
  const place = folder();
  const model = new Net().eval();
  const x = torch.randn([2, 3]);
  const want = torch.no_grad(() => model.forward(x));
  const file = join(place, "model.safetensors");
  await safetensors.save_file(model.state_dict(), file);

  const empty = init_empty_weights(() => new Net()).eval();
  t.ok(
    empty.linear1.weight.is_meta && !empty.batchnorm.running_mean?.is_meta,
    "parameters are empty, buffers are not",
  );
  t.ok(init_empty_weights(() => new Net(), { include_buffers: true }).batchnorm.running_mean?.is_meta);
  t.equal(init_on_device("cpu", () => new Net()).linear1.weight.device, "cpu");

  await load_checkpoint_in_model(empty, file);
  same(
    t,
    torch.no_grad(() => empty.forward(x)),
    want,
    "into an empty model",
  );

  for (const device_map of [
    "auto",
    "sequential",
    { "": "cpu" },
    { linear1: "limited:0", batchnorm: "cpu", linear2: "disk" },
    { linear1: "disk", batchnorm: "disk", linear2: "disk" },
  ] as const) {
    const loaded = init_empty_weights(() => new Net()).eval();
    await load_checkpoint_and_dispatch(loaded, place, { device_map });
    same(
      t,
      torch.no_grad(() => loaded.forward(x)),
      want,
      JSON.stringify(device_map),
    );
    loaded.dispose();
  }

  const indexed = folder();
  const spread = init_empty_weights(() => new Net()).eval();
  const device_map = { linear1: "cpu", batchnorm: "cpu", linear2: "disk" };
  await load_checkpoint_in_model(spread, file, { device_map, offload_folder: indexed });
  t.same(readdirSync(indexed), ["index.json"], "the disk is the checkpoint's own file");
  await dispatch_model(spread, device_map, { offload_dir: indexed });
  same(
    t,
    torch.no_grad(() => spread.forward(x)),
    want,
  );

  await t.rejects(load_checkpoint_in_model(new Net(), join(place, "none")), { code: "ERR_ENTRY_NOT_FOUND" });
  await t.rejects(load_checkpoint_in_model(new Direct(), place, { strict: true }), {
    code: "ERR_CHECKPOINT",
  });
  await t.rejects(load_checkpoint_and_dispatch(new Net(), place, { device_map: "atuo" as never }), /atuo/);
  const wrong = new Net();
  wrong.linear2.weight.data = torch.ones([5, 5]);
  await t.rejects(load_checkpoint_in_model(wrong, place), /linear2\.weight/);

  const linked = folder();
  symlinkSync(file, join(linked, "model.safetensors"));
  await t.rejects(load_checkpoint_in_model(new Net(), linked), /leads out/, "a link out of the folder");
});
