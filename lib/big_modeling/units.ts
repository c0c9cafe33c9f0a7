// A model as a row of units in the order of its forward: what a plan for a workload places, from a skeleton or from the headers of
// a checkpoint alone.
import type { Module } from "../nn/index.ts";
import { dtypeBytes } from "../torch/dtype.ts";
import type { Dtype } from "../torch/index.ts";
import { noSplitClasses, type Part, partsOf, uniqueTensors } from "./module_sizes.ts";

/** A block, or a part outside of blocks, that stays on one place. */
export interface Unit {
  readonly name: string;
  readonly bytes: number;
  readonly parameters: number;
  /** Of the parameters, those that a token needs: the experts that are chosen, and rows of a table that are looked up. */
  readonly active: number;
  readonly activeBytes: number;
  readonly isBlock: boolean;
  /** Bytes of keys and values that it keeps. */
  readonly cache: number;
  /** The unit that holds its weights: a tied head. */
  readonly tiedTo?: string | undefined;
}

/** What a model is asked to do. */
export interface Workload {
  /** Sequences at once. Default 1. */
  readonly batch?: number | undefined;
  /** Tokens of each, prompt and answer. Default 2048. */
  readonly length?: number | undefined;
}

/** Fields of a config, as far as they say what caches and activations take. */
export interface Shape {
  readonly layers: number;
  readonly hidden: number;
  readonly intermediate: number;
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headSize: number;
  readonly vocabulary: number;
  readonly window: number | undefined;
  readonly layerTypes: readonly string[] | undefined;
  readonly experts: number;
  readonly chosenExperts: number;
  readonly isTied: boolean;
}

/** The shape that a config's fields describe, under the names that model families give them. */
export function shapeOf(config: object): Shape {
  const text = (config as Record<string, unknown>).text_config;
  const fields = (typeof text === "object" && text !== null ? { ...config, ...text } : config) as Record<
    string,
    unknown
  >;
  const number = (names: readonly string[], otherwise: number): number => {
    for (const name of names) if (typeof fields[name] === "number") return fields[name];
    return otherwise;
  };
  const hidden = number(["hidden_size", "n_embd", "d_model", "dim"], 0);
  const heads = number(["num_attention_heads", "n_head", "num_heads"], 1);
  const types = fields.layer_types;
  const window = fields.sliding_window;
  return {
    layers: number(["num_hidden_layers", "n_layer", "num_layers"], 0),
    hidden,
    heads,
    intermediate: number(["intermediate_size", "n_inner", "d_ff", "ffn_dim"], 4 * hidden),
    keyValueHeads: number(["num_key_value_heads", "num_kv_heads"], heads),
    headSize: number(["head_dim", "d_kv"], Math.floor(hidden / heads)),
    vocabulary: number(["vocab_size"], 0),
    window: typeof window === "number" && fields.use_sliding_window !== false ? window : undefined,
    layerTypes: Array.isArray(types) ? (types as string[]) : undefined,
    experts: number(["num_local_experts", "num_experts", "n_routed_experts"], 0),
    chosenExperts: number(["num_experts_per_tok", "num_experts_per_token"], 0),
    isTied: fields.tie_word_embeddings === true,
  };
}

/** Bytes of keys and values of one layer. */
function cacheBytes(
  shape: Shape,
  layer: number,
  { batch = 1, length = 2048 }: Workload,
  bytes: number,
): number {
  const type = shape.layerTypes?.[layer];
  if (type?.includes("linear") || type === "conv" || type === "mamba") return 0;
  const isWindowed = shape.window !== undefined && (type === undefined || type.includes("sliding"));
  const kept = isWindowed ? Math.min(length, shape.window as number) : length;
  return 2 * batch * kept * shape.keyValueHeads * shape.headSize * bytes;
}

/** Bytes that a forward of so many tokens needs beside weights and caches, at its widest point. */
export function activationBytes(shape: Shape, { batch = 1, length = 2048 }: Workload, bytes: number): number {
  const perToken = 4 * shape.hidden + 3 * Math.max(shape.intermediate, shape.heads * shape.headSize);
  // Scores of the last position, once in the model's dtype and once in float32.
  return batch * length * perToken * bytes + batch * shape.vocabulary * (bytes + 4);
}

/** A tensor of a model by its name. */
export interface NamedWeight {
  readonly name: string;
  readonly parameters: number;
  readonly bytes: number;
}

const BLOCK = /^(.*?\.)?(?:layers?|h|blocks?)\.(\d+)(?=\.)/;
const TABLE = /(embed|wte|wpe|shared|position)/;
const HEAD = /(head|score|classifier)$/;

/** Share of the experts that a step reads: each token of a batch chooses some. */
const usedExperts = ({ experts, chosenExperts }: Shape, batch: number): number =>
  experts > 0 && chosenExperts > 0 ? 1 - (1 - chosenExperts / experts) ** batch : 1;

/** Units from names and sizes alone, such as the headers of a checkpoint. */
export function unitsOfWeights(
  weights: readonly NamedWeight[],
  shape: Shape,
  workload: Workload,
  cacheDtype: Dtype,
): Unit[] {
  const rows = new Map<string, { layer: number | undefined; weights: NamedWeight[] }>();
  for (const weight of weights) {
    const block = BLOCK.exec(weight.name);
    const name = block?.[0] ?? weight.name.slice(0, Math.max(0, weight.name.lastIndexOf(".")));
    const row = rows.get(name) ?? { layer: block ? Number(block[2]) : undefined, weights: [] };
    row.weights.push(weight);
    rows.set(name, row);
  }
  const batch = workload.batch ?? 1;
  const share = usedExperts(shape, batch);
  const units = [...rows].map(([name, { layer, weights }]): Unit & { layer: number | undefined } => {
    const isTable = layer === undefined && TABLE.test(name);
    const sum = (count: (weight: NamedWeight) => number) =>
      weights.reduce((total, each) => total + count(each), 0);
    const part = ({ name }: NamedWeight) =>
      isTable ? 0 : /experts\./.test(name) && !/shared_expert/.test(name) ? share : 1;
    return {
      name,
      layer,
      isBlock: layer !== undefined,
      bytes: sum(({ bytes }) => bytes),
      parameters: sum(({ parameters }) => parameters),
      active: sum((each) => each.parameters * part(each)),
      activeBytes: sum((each) => each.bytes * part(each)),
      cache:
        layer !== undefined && layer < shape.layers
          ? cacheBytes(shape, layer, workload, dtypeBytes(cacheDtype))
          : 0,
    };
  });
  const first = units.filter(({ isBlock, name }) => !isBlock && TABLE.test(name));
  const blocks = units.filter(({ isBlock }) => isBlock).sort((a, b) => blockOrder(a, b));
  const rest = units
    .filter((unit) => !unit.isBlock && !first.includes(unit))
    .sort((a, b) => Number(HEAD.test(a.name)) - Number(HEAD.test(b.name)));
  const result: Unit[] = [...first, ...blocks, ...rest];
  // A tied head has no tensor of its own, and reads the table.
  const table = first.find(({ parameters }) => parameters === shape.vocabulary * shape.hidden) ?? first[0];
  if (shape.isTied && table && !units.some(({ name }) => /lm_head/.test(name)))
    result.push({
      name: "lm_head",
      bytes: 0,
      parameters: 0,
      active: table.parameters,
      activeBytes: table.bytes,
      isBlock: false,
      cache: 0,
      tiedTo: table.name,
    });
  return result;
}

interface Row {
  readonly name: string;
  readonly layer: number | undefined;
}

/** Stacks one after the other as they came, layers by number. */
function blockOrder(a: Row, b: Row): number {
  const stack = ({ name }: Row) => name.replace(/\d+$/, "");
  return stack(a) === stack(b) ? (a.layer as number) - (b.layer as number) : 0;
}

/** The same from a model's skeleton: blocks are the classes that it does not split. */
export function unitsOfModel(
  model: Module,
  shape: Shape,
  workload: Workload,
  dtypeOf: (name: string, dtype: Dtype) => Dtype = (_name, dtype) => dtype,
  tied: ReadonlySet<string> = new Set(),
): Unit[] {
  const root = partsOf(model);
  const noSplit = new Set(noSplitClasses(model));
  const owners: Part[] = [];
  const walk = (part: Part) => {
    const isWhole = noSplit.has(part.className) || part.children.length === 0;
    if (isWhole) owners.push(part);
    else {
      owners.push(...part.parameters, ...part.buffers);
      for (const child of part.children) walk(child);
    }
  };
  walk(root);
  const weights = [...uniqueTensors(root, ["parameters", "buffers"], tied)].map(([name, tensor]) => {
    const parameters = tensor.numel();
    return { name, parameters, bytes: parameters * dtypeBytes(dtypeOf(name, tensor.dtype)) };
  });
  const units = unitsOfWeights(weights, shape, workload, dtypeOfModel(model));
  const known = new Map(units.map((unit) => [unit.name, unit]));
  // Names of the plan are the model's own: each owner with what it weighs, in the order of the modules.
  return owners.map(({ name, className }): Unit => {
    const own = weights.filter((weight) => weight.name === name || weight.name.startsWith(`${name}.`));
    const bytes = own.reduce((sum, each) => sum + each.bytes, 0);
    const parameters = own.reduce((sum, each) => sum + each.parameters, 0);
    const alike = known.get(name);
    const isTied = bytes === 0 && /lm_head/.test(name) && shape.isTied;
    const table = units.find((unit) => unit.parameters === shape.vocabulary * shape.hidden);
    return {
      name,
      bytes,
      parameters,
      isBlock: noSplit.has(className),
      active: isTied ? (table?.parameters ?? 0) : (alike?.active ?? parameters),
      activeBytes: isTied ? (table?.bytes ?? 0) : (alike?.activeBytes ?? bytes),
      cache: alike?.cache ?? 0,
      ...(isTied && table ? { tiedTo: table.name } : {}),
    };
  });
}

const dtypeOfModel = (model: Module): Dtype => {
  for (const parameter of model.parameters()) if (parameter.is_floating_point()) return parameter.dtype;
  return "float32";
};
