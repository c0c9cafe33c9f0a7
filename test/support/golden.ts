// Replays golden.json: each check names a class, what to load, what to call, and what must come out. Knows no model;
// the format is described in test/fixtures/README.md.
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import type { Test } from "tap";
import * as torchformers from "torchformers";
import { type Tensor, torch } from "torchformers";
import { fixture } from "./fixtures.js";
import { PREPROCESSING } from "./preprocessing_golden.js";

/** One line of a golden.json. */
export interface Check {
  readonly name: string;
  readonly class: string;
  readonly auto_class?: string;
  readonly method: string;
  readonly checkpoint: string;
  readonly load?: Readonly<Record<string, unknown>>;
  readonly init?: Readonly<Record<string, unknown>>;
  readonly inputs: Readonly<Record<string, unknown>>;
  readonly options: Readonly<Record<string, unknown>>;
  readonly outputs: Readonly<Record<string, unknown>>;
  readonly where?: Readonly<Record<string, unknown>>;
  readonly atol: number;
  readonly rtol: number;
}

/** How a model is run: eagerly, or as a recorded program. */
export interface Mode {
  readonly name: string;
  // biome-ignore lint/suspicious/noExplicitAny: checks are data, models are found by name.
  forward(model: any, inputs: Record<string, unknown>): any;
  /** The `mode` of generate. */
  readonly generate: "eager" | "program";
}

export const eager: Mode = {
  name: "eager",
  forward: (model, inputs) => torch.no_grad(() => model.forward(inputs)),
  generate: "eager",
};

const programs = new WeakMap<object, (inputs: Record<string, unknown>) => Promise<unknown>>();

/** Not `model.run`: that would work eagerly where a forward cannot be recorded. */
export const compiled: Mode = {
  name: "compiled",
  generate: "program",
  forward(model, inputs) {
    let program = programs.get(model);
    if (program === undefined) {
      program = torch.compile((inputs: Record<string, unknown>): unknown => eager.forward(model, inputs));
      programs.set(model, program);
    }
    return program(inputs);
  },
};

export interface GoldenOptions {
  readonly mode?: Mode;
  /** Where models and inputs lie; the CPU, where the goldens were made, unless told. */
  readonly device?: string;
  /** The least tolerances: a device adds up in another order than the one that made the goldens. */
  readonly atLeast?: { readonly atol: number; readonly rtol: number };
  /** Checks that are not run, with the reason. */
  readonly skip?: (check: Check) => string | undefined;
}

type Values = Record<string, unknown>;
// biome-ignore lint/suspicious/noExplicitAny: as above.
type AnyModel = any;

/** Runs every check of `test/fixtures/<folder>` as a subtest. */
export async function replay(
  t: Test,
  folder: string,
  { mode = eager, device = "cpu", atLeast, skip }: GoldenOptions = {},
): Promise<void> {
  const root = fixture(folder);
  const checks: Check[] = JSON.parse(readFileSync(join(root, "golden.json"), "utf8"));
  const file = join(root, "golden.safetensors");
  const tensors = existsSync(file) ? await torchformers.safetensors.load_file(file) : undefined;
  const models = new Map<string, Promise<AnyModel>>();

  const about = [mode === eager ? [] : mode.name, device === "cpu" ? [] : device].flat().join(", ");
  await t.test(about === "" ? folder : `${folder} (${about})`, async (t) => {
    for (const given of checks) {
      const check = {
        ...given,
        atol: Math.max(given.atol, atLeast?.atol ?? 0),
        rtol: Math.max(given.rtol, atLeast?.rtol ?? 0),
      };
      const reason = skip?.(check);
      if (reason !== undefined) {
        t.pass(check.name, { skip: reason });
        continue;
      }
      await t.test(check.name, async (t) => {
        const values = <T>(given: T): T => substitute(given, tensors) as T;
        const placed = <T>(given: T): T => substitute(given, tensors, device) as T;
        const run = METHODS[check.method] ?? (check.method.startsWith("get_") ? callMethod : undefined);
        if (run === undefined) throw new Error(`no such method: ${check.method}`);
        const actual = await run({
          check,
          root,
          mode,
          device,
          inputs: placed(check.inputs),
          options: placed(check.options),
          init: placed(check.init ?? {}),
          models,
        });
        for (const [field, expected] of Object.entries(values(check.outputs))) {
          const where = check.where?.[field];
          compare(
            t,
            field,
            pick(actual, field),
            expected,
            check,
            where === undefined ? undefined : (values(where) as Tensor),
          );
        }
      });
    }
  });
}

// Values ---------------------------------------------------------------------------------------------------------

/** "@name" becomes that tensor, at any depth, on a device. */
function substitute(
  value: unknown,
  tensors: Readonly<Record<string, Tensor>> | undefined,
  device = "cpu",
): unknown {
  if (typeof value === "string" && value.startsWith("@") && tensors) {
    const tensor = tensors[value.slice(1)];
    if (tensor === undefined) throw new Error(`golden.safetensors has no '${value.slice(1)}'`);
    return tensor.to(device);
  }
  if (Array.isArray(value)) return value.map((item) => substitute(item, tensors, device));
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, substitute(item, tensors, device)]),
    );
  }
  return value;
}

/** The field at a path: "hidden_states.2"; a name with dots of its own is taken whole first. */
function pick(value: unknown, path: string): unknown {
  const object = value as Values;
  if (object !== null && typeof object === "object" && path in object) return object[path];
  const dot = path.indexOf(".");
  if (dot < 0) return undefined;
  return pick((object as Values)?.[path.slice(0, dot)], path.slice(dot + 1));
}

function compare(
  t: Test,
  field: string,
  actual: unknown,
  expected: unknown,
  check: Check,
  where: Tensor | undefined,
): void {
  if (!(expected instanceof torch.Tensor)) {
    const plain = actual instanceof torch.Tensor ? actual.tolist() : actual;
    if (typeof expected === "number" && !Number.isInteger(expected))
      t.ok(Math.abs((plain as number) - expected) <= check.atol + check.rtol * Math.abs(expected), field);
    else t.same(plain, expected, field);
    return;
  }
  const tensor = Array.isArray(actual) ? torch.stack(actual as Tensor[]) : (actual as Tensor | undefined);
  if (!(tensor instanceof torch.Tensor)) {
    t.fail(`${field} is missing`);
    return;
  }
  t.same(tensor.shape, expected.shape, `${field}: shape`);
  if (!tensor.is_floating_point()) {
    t.same(tensor.tolist(), expected.tolist(), field);
    return;
  }
  const [a, b] = [tensor.to("cpu", "float64"), expected.to("float64")];
  // Equal infinities differ by NaN, which counts as equal.
  let wrong = a
    .sub(b)
    .abs()
    .gt(b.abs().mul(check.rtol).add(check.atol))
    .logical_or(a.isnan().ne(b.isnan()))
    .logical_or(a.isinf().ne(b.isinf()));
  wrong = wrong.logical_and(a.eq(b).logical_not());
  if (where) {
    const mask = where.to("bool");
    wrong = wrong.logical_and(mask.reshape([...mask.shape, ...Array(wrong.ndim - mask.ndim).fill(1)]));
  }
  const count = wrong.sum().item();
  const worst = a.sub(b).abs().nan_to_num().masked_fill(wrong.logical_not(), 0).max().item();
  t.equal(
    count,
    0,
    `${field}${count === 0 ? "" : `: ${count} of ${a.numel()} values differ, by up to ${worst}`}`,
  );
}

// Methods --------------------------------------------------------------------------------------------------------

interface Context {
  readonly check: Check;
  readonly root: string;
  readonly mode: Mode;
  readonly device: string;
  readonly inputs: Values;
  readonly options: Values;
  readonly init: Values;
  readonly models: Map<string, Promise<AnyModel>>;
}

/** The model of a check, loaded once per class and way of loading. */
function load({ check, root, models, device }: Context): Promise<AnyModel> {
  const key = JSON.stringify([check.class, check.auto_class, check.checkpoint, check.load]);
  const found = models.get(key);
  if (found) return found;
  const loading = loadClass(check, resolve(root, check.checkpoint), device);
  models.set(key, loading);
  return loading;
}

async function loadClass(check: Check, folder: string, device: string): Promise<AnyModel> {
  const classes = torchformers as unknown as Record<
    string,
    { from_pretrained(folder: string, options: object): Promise<AnyModel> }
  >;
  const cls = classes[check.auto_class ?? check.class];
  if (cls === undefined) throw new Error(`torchformers has no ${check.auto_class ?? check.class}`);
  const model = await cls.from_pretrained(folder, { device_map: device, ...check.load });
  if (model.constructor.name !== check.class)
    throw new Error(`${check.auto_class} gave ${model.constructor.name}, not ${check.class}`);
  return model;
}

/** `get_…` of the model; `output` is what it gives, or the pooled vector where that is an object. */
async function callMethod(context: Context): Promise<unknown> {
  const model = await load(context);
  const out = torch.no_grad(() => model[context.check.method]({ ...context.inputs, ...context.options }));
  return { output: out instanceof torch.Tensor ? out : out.pooler_output };
}

const METHODS: Record<string, (context: Context) => Promise<unknown>> = {
  ...PREPROCESSING,

  async forward(context) {
    return await context.mode.forward(await load(context), { ...context.inputs, ...context.options });
  },

  async last_logits(context) {
    const { logits } = await context.mode.forward(await load(context), {
      ...context.inputs,
      ...context.options,
    });
    return { logits: logits.select(1, logits.shape[1] - 1) };
  },

  async backward(context) {
    const model = await load(context);
    model.zero_grad();
    const out = model.forward({ ...context.inputs, ...context.options });
    out.loss.backward();
    const gradients = Object.keys(context.check.outputs)
      .filter((field) => field.startsWith("grad:"))
      .map((field) => [field, model.get_parameter(field.slice("grad:".length)).grad]);
    return { ...out, ...Object.fromEntries(gradients) };
  },

  async incremental(context) {
    const model = await load(context);
    const { splits, ...options } = context.options as { splits: number[] };
    const decoder = "decoder_input_ids" in context.inputs ? "decoder_input_ids" : "input_ids";
    const ids = context.inputs[decoder] as Tensor;
    const mask = decoder === "input_ids" ? (context.inputs.attention_mask as Tensor | undefined) : undefined;
    let past_key_values: unknown;
    const logits: Tensor[] = [];
    let seen = 0;
    for (const size of splits) {
      const out = await context.mode.forward(model, {
        ...(seen === 0 ? context.inputs : {}),
        ...options,
        [decoder]: ids.narrow(1, seen, size),
        ...(mask ? { attention_mask: mask.narrow(1, 0, seen + size) } : {}),
        use_cache: true,
        past_key_values,
      });
      ({ past_key_values } = out);
      logits.push(out.logits);
      seen += size;
    }
    return { logits: torch.cat(logits, 1) };
  },

  async generate(context) {
    const model = await load(context);
    const { assistant, ...options } = context.options;
    if (assistant !== undefined) {
      const folder = resolve(context.root, String(assistant));
      options.assistant_model = await torchformers.AutoModelForCausalLM.from_pretrained(folder, {
        device_map: context.device,
      });
    }
    if ("stop_strings" in options) {
      options.tokenizer = await torchformers.AutoTokenizer.from_pretrained(
        resolve(context.root, context.check.checkpoint),
      );
    }
    // Without a cache each step has another shape: that runs eagerly, and says so.
    if (options.use_cache !== false) options.mode = context.mode.generate;
    const out = await model.generate(context.inputs, options);
    return out instanceof torch.Tensor ? { sequences: out } : out;
  },

  async timm_forward({ check, root, inputs, mode }) {
    const folder = resolve(root, check.checkpoint);
    const { model_args } = JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));
    const { block, layers, ...options } = model_args;
    const model = new torchformers.timm.ResNet(block, layers, options).eval();
    model.load_state_dict(await torchformers.safetensors.load_file(join(folder, "model.safetensors")));
    const run = (forward: (x: Tensor) => Tensor) => mode.forward({ forward }, inputs.pixel_values as Values);
    return {
      features: await run((x) => model.forward_features(x)),
      pooled: await run((x) => model.forward_head(model.forward_features(x), { pre_logits: true })),
      logits: await run((x) => model.forward(x)),
    };
  },

  async logits_processor({ check, init, inputs }) {
    const classes = torchformers as unknown as Record<
      string,
      new (
        init: object,
      ) => { process(ids: Tensor, scores: Tensor): Tensor }
    >;
    const cls = classes[check.class];
    if (cls === undefined) throw new Error(`torchformers has no ${check.class}`);
    return { scores: new cls(init).process(inputs.input_ids as Tensor, inputs.scores as Tensor) };
  },
};
