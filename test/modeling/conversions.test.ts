// Weights that change their names and shapes between a file and a model: see scripts/goldens/conversions.py.
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import t from "tap";
import * as torchformers from "torchformers";
import {
  type ConversionOps,
  GroupWeightRename,
  nn,
  PrefixChange,
  PreTrainedModel,
  PretrainedConfig,
  register_checkpoint_conversion_mapping,
  safetensors,
  type Tensor,
  Transpose,
  torch,
  WeightConverter,
  WeightRenaming,
  type WeightTransform,
} from "torchformers";
import { fixture } from "../support/fixtures.js";

process.env.TORCHFORMERS_LOG = "silent";

class ShellConfig extends PretrainedConfig {
  static override readonly model_type: string = "shell";
  declare shapes: Readonly<Record<string, readonly number[]>>;
  declare num_attention_heads: number;
  declare num_parts: number;

  constructor({
    shapes = {},
    num_attention_heads = 2,
    num_parts = 3,
    ...kwargs
  }: Record<string, unknown> = {}) {
    super(kwargs);
    this.shapes = shapes as ShellConfig["shapes"];
    this.num_attention_heads = num_attention_heads as number;
    this.num_parts = num_parts as number;
  }
}

/** A model that is nothing but parameters of given names. */
class Shell extends PreTrainedModel {
  static override readonly config_class = ShellConfig as never;
  static override base_model_prefix = "model";
  declare readonly config: ShellConfig;

  constructor(config: ShellConfig) {
    super(config);
    for (const [name, shape] of Object.entries(config.shapes)) {
      const path = name.split(".");
      const last = path.pop() as string;
      let module = this as unknown as Record<string, unknown>;
      for (const part of path) {
        if (!(module[part] instanceof nn.Module)) module[part] = new nn.Module();
        module = module[part] as Record<string, unknown>;
      }
      module[last] = new nn.Parameter(torch.zeros([...shape]));
    }
    this.post_init();
  }

  override _init_weights(module: nn.Module): void {
    for (const parameter of module.parameters({ recurse: false })) nn.init.zeros_(parameter);
  }
}

interface Description {
  readonly kind: string;
  readonly sources?: readonly string[];
  readonly targets?: readonly string[];
  readonly operations?: readonly Record<string, unknown>[];
  readonly prefix_to_add?: string | null;
  readonly prefix_to_remove?: string | null;
  readonly model_prefix?: string;
}

function made({ kind, sources = [], targets = [], operations, ...rest }: Description): WeightTransform {
  if (kind === "PrefixChange") {
    const { prefix_to_add, prefix_to_remove, model_prefix } = rest;
    return new PrefixChange({
      prefix_to_add: prefix_to_add ?? undefined,
      prefix_to_remove: prefix_to_remove ?? undefined,
      model_prefix,
    });
  }
  if (kind === "GroupWeightRename") return new GroupWeightRename(sources, targets);
  if (operations === undefined) return new WeightRenaming(sources, targets);
  return new WeightConverter(
    sources,
    targets,
    operations.map(({ op, ...options }) => {
      if (op === "Transpose") return new Transpose(options.dim0 as number, options.dim1 as number);
      const Op = (torchformers as unknown as Record<string, new (options: unknown) => ConversionOps>)[
        op as string
      ];
      return new (Op as new (options: unknown) => ConversionOps)(options);
    }),
  );
}

const folder = fixture("conversions");
const read = (name: string) => JSON.parse(readFileSync(join(folder, name), "utf8"));
const golden = await safetensors.load_file(join(folder, "golden.safetensors"));
const hash = (file: string) => createHash("sha256").update(readFileSync(file)).digest("hex");

t.test("wrong transforms are refused", (t) => {
  const invalid = { code: "ERR_INVALID_ARGUMENT" };
  t.throws(() => new WeightConverter("a", "b", []), invalid);
  t.throws(() => new WeightConverter(["a", "b"], ["c", "d"], [new Transpose()]), invalid);
  t.throws(() => new WeightRenaming("a\\1", "b"), invalid);
  t.throws(() => new WeightRenaming(["a", "b"], ["(x)", "(y)"]), invalid);
  t.throws(() => new PrefixChange({}), invalid);
  t.throws(() => new PrefixChange({ prefix_to_add: "a", prefix_to_remove: "b" }), invalid);
  t.throws(() => new GroupWeightRename(["a"], ["b", "c"]), invalid);
  register_checkpoint_conversion_mapping("nobody", []);
  t.throws(() => register_checkpoint_conversion_mapping("nobody", []), invalid);
  t.end();
});

t.test("the reference's own tables give the reference's names, and back", (t) => {
  for (const { transform, names } of read("names.json") as {
    transform: Description;
    names: [string, string, string | null, string, string | null][];
  }[]) {
    const forward = made(transform);
    const backward = forward.reverse_transform();
    for (const [name, renamed, pattern, back, patternBack] of names) {
      const [gave, by] = forward.rename_source_key(name);
      const [gaveBack, byBack] = backward.rename_source_key(gave);
      t.same(
        [gave, by ?? null, gaveBack, byBack ?? null],
        [renamed, pattern, back, patternBack],
        `${name} by ${JSON.stringify(transform)}`,
      );
    }
  }
  t.end();
});

for (const { name, transforms, limit, missing, unexpected, saved } of read("cases.json")) {
  t.test(`${name}: loaded as the reference loads it, saved byte for byte`, async (t) => {
    register_checkpoint_conversion_mapping("Shell", transforms.map(made), { overwrite: true });
    for (const dtype of ["auto", "float64"] as const) {
      const [model, info] = await Shell.from_pretrained(join(folder, name), {
        output_loading_info: true,
        dtype,
      });
      t.same([...info.missing_keys].sort(), missing);
      t.same([...info.unexpected_keys].sort(), unexpected);
      const state = model.state_dict();
      const expected = Object.entries(golden).filter(([key]) => key.startsWith(`${name}/`));
      t.ok(expected.length > 0);
      for (const [key, tensor] of expected) {
        const own = state[key.slice(name.length + 1)] as Tensor;
        t.same(own.shape, tensor.shape, key);
        t.ok(torch.equal(own, dtype === "auto" ? tensor : tensor.to(dtype)), `${key} ${dtype}`);
      }
      if (dtype !== "auto") continue;
      const out = join(t.testdir(), "saved");
      await model.save_pretrained(out, { max_shard_size: limit });
      const files = readdirSync(out).filter((file) => file.includes("safetensors"));
      t.same(files.sort(), Object.keys(saved).sort());
      for (const file of files) t.equal(hash(join(out, file)), saved[file], file);
      // What was made from nothing is saved in the same names and shapes.
      const fresh = new Shell(model.config as ShellConfig);
      fresh.load_state_dict(model.state_dict());
      await fresh.save_pretrained(join(out, "fresh"));
      const again = await Shell.from_pretrained(join(out, "fresh"));
      for (const [key, tensor] of Object.entries(again.state_dict()))
        t.ok(torch.equal(tensor, state[key] as Tensor));
    }
  });
}

t.test("offloaded: weights come one file after the other", async (t) => {
  const { transforms } = read("cases.json").find(({ name }: { name: string }) => name === "stacked");
  register_checkpoint_conversion_mapping("Shell", transforms.map(made), { overwrite: true });
  const model = await Shell.from_pretrained(join(folder, "stacked"));
  const values = model.state_dict();
  const away = await Shell.from_pretrained(join(folder, "stacked"));
  for (const parameter of away.parameters()) parameter.data = parameter.to("meta");
  const out = t.testdir();
  await t.rejects(away.save_pretrained(join(out, "none")), { code: "ERR_CHECKPOINT" });
  let held = 0;
  let most = 0;
  await away.save_pretrained(join(out, "away"), {
    max_shard_size: "1KB",
    tensor_of: (name) => {
      held++;
      most = Math.max(most, held);
      const tensor = (values[name] as Tensor).clone();
      const dispose = tensor.dispose.bind(tensor);
      tensor.dispose = () => {
        held--;
        dispose();
      };
      return tensor;
    },
  });
  await model.save_pretrained(join(out, "own"), { max_shard_size: "1KB" });
  const names = readdirSync(join(out, "own"));
  t.ok(names.length > 3);
  t.same(readdirSync(join(out, "away")).sort(), names.sort());
  for (const name of names) t.equal(hash(join(out, "away", name)), hash(join(out, "own", name)), name);
  t.equal(held, 0, "all are let go");
  t.ok(most <= 2, "no more than a file's at a time");
});

t.test("a transpose that depends on the file", async (t) => {
  register_checkpoint_conversion_mapping(
    "Shell",
    [new WeightConverter("linear.w", "linear.weight", [new Transpose(0, 1, { check_dims: true })])],
    { overwrite: true },
  );
  const out = t.testdir();
  const config = new ShellConfig({ shapes: { "linear.weight": [2, 3] }, dtype: "float32" });
  const values = torch.arange(6, { dtype: "float32" }).reshape([2, 3]);
  for (const stored of [values, values.t()]) {
    await config.save_pretrained(out);
    await safetensors.save_file({ "linear.w": stored }, join(out, "model.safetensors"));
    const model = await Shell.from_pretrained(out, { strict: true });
    t.ok(torch.equal(model.state_dict()["linear.weight"] as Tensor, values));
    await model.save_pretrained(join(out, "again"));
    const again = await Shell.from_pretrained(join(out, "again"), { strict: true });
    t.ok(torch.equal(again.state_dict()["linear.weight"] as Tensor, values));
  }
});

t.test("a conversion that does not work out is an error that names the weight", async (t) => {
  register_checkpoint_conversion_mapping(
    "Shell",
    [new WeightConverter(["a.w", "b.w"], "c", [new torchformers.Concatenate({ dim: 0 })])],
    { overwrite: true },
  );
  const out = t.testdir();
  await new ShellConfig({ shapes: { c: [4, 3] }, dtype: "float32" }).save_pretrained(out);
  await safetensors.save_file(
    { "a.w": torch.ones([2, 3]), "b.w": torch.ones([2, 4]) },
    join(out, "model.safetensors"),
  );
  await t.rejects(Shell.from_pretrained(out), { code: "ERR_CHECKPOINT", message: /c: .*\[2,3\].*\[2,4\]/ });
});

t.test("key_mapping is a list of renamings, and undone on save", async (t) => {
  register_checkpoint_conversion_mapping("Shell", [], { overwrite: true });
  const out = t.testdir();
  await new ShellConfig({ shapes: { "layers.3.w": [2], "model.x": [1] }, dtype: "float32" }).save_pretrained(
    out,
  );
  await safetensors.save_file(
    { "h3.w": torch.ones([2]), x: torch.ones([1]) },
    join(out, "model.safetensors"),
  );
  const model = await Shell.from_pretrained(out, {
    strict: true,
    key_mapping: { "^h(\\d+)\\.": "layers.\\1." },
  });
  await model.save_pretrained(join(out, "again"));
  const names = Object.keys(await safetensors.load_file(join(out, "again", "model.safetensors")));
  t.same(names.sort(), ["h3.w", "model.x"]);
  await model.save_pretrained(join(out, "ours"), { save_original_format: false });
  t.same(Object.keys(await safetensors.load_file(join(out, "ours", "model.safetensors"))).sort(), [
    "layers.3.w",
    "model.x",
  ]);
});

t.test("a part of a file's tensor is the mapped file where it lies in order", async (t) => {
  register_checkpoint_conversion_mapping(
    "Shell",
    [new WeightConverter("qkv", ["q", "k", "v"], [new torchformers.Chunk({ dim: 0 })])],
    { overwrite: true },
  );
  const out = t.testdir();
  await new ShellConfig({
    shapes: { q: [400, 300], k: [400, 300], v: [400, 300] },
    dtype: "float32",
  }).save_pretrained(out);
  await safetensors.save_file({ qkv: torch.ones([1200, 300]) }, join(out, "model.safetensors"));
  const before = torch.memory_stats().mapped_bytes;
  const model = await Shell.from_pretrained(out);
  t.ok(torch.memory_stats().mapped_bytes - before >= 1200 * 300 * 4, "mapped");
  const { q, k } = model.state_dict() as Record<"q" | "k", Tensor>;
  torch.no_grad(() => q.zero_());
  t.equal(k.sum().item(), 400 * 300, "writes stay apart");
  // A file in another order, or unaligned, is read.
  const bytes = readFileSync(join(out, "model.safetensors"));
  const header = bytes.readBigUInt64LE(0);
  const shifted = Buffer.concat([
    Buffer.alloc(8),
    bytes.subarray(8, 8 + Number(header)),
    Buffer.from(" "),
    bytes.subarray(8 + Number(header)),
  ]);
  shifted.writeBigUInt64LE(header + 1n);
  mkdirSync(join(out, "unaligned"));
  cpSync(join(out, "config.json"), join(out, "unaligned", "config.json"));
  writeFileSync(join(out, "unaligned", "model.safetensors"), shifted);
  const read = await Shell.from_pretrained(join(out, "unaligned"));
  t.equal((read.state_dict().k as Tensor).sum().item(), 400 * 300);
});
