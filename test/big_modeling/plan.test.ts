// Plans: sizes, limits and device maps, compared with those of the Python reference.
import { readFileSync } from "node:fs";
import process from "node:process";
import t, { type Test } from "tap";
import {
  calculate_maximum_sizes,
  check_device_map,
  compute_module_sizes,
  convert_file_size_to_int,
  find_tied_parameters,
  get_balanced_memory,
  get_max_memory,
  InvalidArgumentError,
  infer_auto_device_map,
  nn,
  type torch,
} from "torchformers";
import { placeOf } from "#lib/big_modeling/device_map.js";
import { type PlanKind, planLoading } from "#lib/big_modeling/plan_model.js";
import { fixture } from "../support/fixtures.js";
import { build, type Spec, tied } from "../support/trees.js";

process.env.TORCHFORMERS_LOG = "silent";

type Answer = Readonly<Record<string, string | number>> & { readonly error?: string };
interface Case {
  readonly tree: Spec;
  readonly ties: Readonly<Record<string, string>>;
  readonly max_memory: Readonly<Record<string, number>>;
  readonly no_split: readonly string[];
  readonly dtype: torch.Dtype | null;
  readonly fallback: boolean;
  readonly sizes?: Readonly<Record<string, number>>;
  readonly largest: readonly [number, readonly [number, readonly string[]]];
  readonly tied: readonly (readonly string[])[];
  readonly accelerate: Readonly<Record<string, Answer>>;
  readonly transformers: Readonly<Record<string, Answer>>;
  readonly balanced: Readonly<Record<string, Answer>>;
}

const golden: { sizes: Record<string, number | null>; cases: Case[] } = JSON.parse(
  readFileSync(process.env.TORCHFORMERS_PLANS ?? fixture("big_modeling/plans.json"), "utf8"),
);

/** The reference's name of a place as ours. */
const place = (name: string | number) => (typeof name === "number" ? `cuda:${name}` : name);

/** Entry by entry; beside them ours may name buffers that the reference forgets. */
function sameMap(t: Test, found: Record<string, string>, wanted: Answer, model: nn.Module, what: string) {
  if (wanted.error !== undefined) return everyTensor(t, found, model, what);
  for (const [name, where] of Object.entries(wanted))
    if (found[name] !== place(where)) return t.same(found, wanted, what);
  for (const name of Object.keys(found)) {
    if (Object.hasOwn(wanted, name)) continue;
    const isForgotten = placeOf(wanted, name) === undefined;
    if (!isForgotten) return t.same(found, wanted, what);
  }
  return everyTensor(t, found, model, what);
}

function everyTensor(t: Test, found: Record<string, string>, model: nn.Module, what: string) {
  const names = [...model.named_parameters(), ...model.named_buffers()].map(([name]) => name);
  return t.same(
    names.filter((name) => placeOf(found, name) === undefined),
    [],
    `${what}: every tensor has a place`,
  );
}

t.test("wrong input", async (t) => {
  for (const [text, bytes] of Object.entries(golden.sizes)) {
    const size = text.startsWith("#") ? Number(text.slice(1)) : text;
    if (bytes === null) t.throws(() => convert_file_size_to_int(size), InvalidArgumentError, `'${text}'`);
    else t.equal(convert_file_size_to_int(size), bytes, `'${text}'`);
  }
  t.throws(() => convert_file_size_to_int(1.5), InvalidArgumentError);
  t.throws(() => get_max_memory({ gpu: "1GB" }), /gpu/);
  t.throws(() => get_max_memory({ 0: "1GB", "cuda:0": "1GB" }), /twice/);
  t.throws(() => get_max_memory({ cpu: "lots" }), /lots/);
  const model = new nn.Sequential(new nn.Linear(2, 2), new nn.Linear(2, 2));
  t.throws(() => infer_auto_device_map(model, { max_memry: {} } as never), /max_memory/);
  t.throws(() => check_device_map(model, { 0: "cpu" }), /1\.weight, 1\.bias/);
  t.throws(() => check_device_map(model, { "": "gpu" }), /gpu/);
  t.doesNotThrow(() => check_device_map(model, { "0": "cpu", "1": "disk" }));
});

t.test("max_memory", async (t) => {
  t.same(get_max_memory({ cpu: "1GiB", 1: "1GB", 0: "500MB", disk: "1TiB".replace("T", "G") }), {
    "cuda:0": 5e8,
    "cuda:1": 1e9,
    cpu: 2 ** 30,
    disk: 2 ** 30,
  });
  t.same(Object.keys(get_max_memory({ cpu: 1, "limited:1": 1, "limited:0": 1, 0: 1 })), [
    "cuda:0",
    "limited:0",
    "limited:1",
    "cpu",
  ]);
  const free = get_max_memory();
  t.ok((free.cpu as number) > 0 && (free.cpu as number) <= process.availableMemory() * 2);
});

t.test("a weight's bytes", async (t) => {
  const model = new nn.Linear(3, 2, { dtype: "float32" });
  t.same(compute_module_sizes(model, { dtype: "float16" }), { "": 16, weight: 12, bias: 4 });
  t.same(compute_module_sizes(model, { special_dtypes: { bias: "float64" } }), {
    "": 40,
    weight: 24,
    bias: 16,
  });
});

for (const [i, each] of golden.cases.entries()) {
  t.test(`plan ${i}`, async (t) => {
    const model = tied(build(each.tree), each.ties);
    const { max_memory, no_split: no_split_module_classes, fallback: fallback_allocation } = each;
    const dtype = each.dtype ?? undefined;
    if (each.sizes) t.same(compute_module_sizes(model, { dtype }), each.sizes, "sizes");
    t.same(calculate_maximum_sizes(model), each.largest, "largest layers");
    t.same(find_tied_parameters(model).sort(), each.tied, "ties");

    const options = { no_split_module_classes, dtype };
    for (const [kind, wanted] of Object.entries(each.accelerate)) {
      let limits: Record<string, number> = max_memory;
      if (kind !== "sequential") {
        limits = get_balanced_memory(model, { max_memory, low_zero: kind === "balanced_low_0", ...options });
        const given = each.balanced[kind] as Answer;
        t.same(
          limits,
          Object.fromEntries(
            Object.entries(given).map(([name, bytes]) => [/^\d/.test(name) ? `cuda:${name}` : name, bytes]),
          ),
          `${kind}: limits`,
        );
      }
      const found = infer_auto_device_map(model, { max_memory: limits, fallback_allocation, ...options });
      sameMap(t, found, wanted, model, `accelerate, ${kind}`);
    }
    for (const [kind, wanted] of Object.entries(each.transformers))
      sameMap(
        t,
        planLoading(model, kind as PlanKind, { max_memory, no_split_module_classes }),
        wanted,
        model,
        `transformers, ${kind}`,
      );
  });
}
