// Checks that all configurations share, whatever the model.

import { ConfigError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import { warnOnce } from "../errors/warnings.ts";
import { shown } from "./field_types.ts";

const DTYPES: ReadonlySet<string> = new Set(
  (
    "float64 float32 float16 bfloat16 double float half int64 int32 int16 int8 uint8 uint16 uint32 uint64 long int short bool " +
    "complex32 complex64 complex128 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn_x2"
  ).split(" "),
);

const ATTENTION_LAYER_TYPES: readonly string[] = [
  "full_attention",
  "sliding_attention",
  "chunked_attention",
  "window_attention",
  "indexed_attention",
  "compressed_sparse_attention",
  "heavily_compressed_attention",
  "minimax_m3_sparse",
  "conv",
  "moe",
  "hybrid",
  "hybrid_sliding",
  "reference_sliding_attention",
  "linear_attention",
];

/** Older names of layer types. */
const LEGACY_LAYER_TYPES: Readonly<Record<string, string>> = {
  mamba: "linear_attention",
  attention: "full_attention",
  deepseek_sparse_attention: "indexed_attention",
  qwen_sparse_attention: "indexed_attention",
};

/** What these checks look at. */
interface Checked {
  readonly constructor: { readonly name: string };
  readonly dtype: string | null;
  readonly problem_type: string | null;
  readonly num_labels: number | null;
  readonly vocab_size?: number;
  readonly num_hidden_layers?: number;
}

/** The dtype and the problem type must be known ones. */
export function checkCommon(config: Checked): void {
  if (config.dtype !== null && !DTYPES.has(config.dtype)) {
    const near = suggest(config.dtype, DTYPES);
    throw new ConfigError(
      `${config.constructor.name}: field 'dtype' is '${config.dtype}', which is no dtype.${near ? ` Did you mean '${near}'?` : ""}`,
    );
  }
  const problems = ["regression", "single_label_classification", "multi_label_classification"];
  if (config.problem_type !== null && !problems.includes(config.problem_type)) {
    throw new ConfigError(
      `${config.constructor.name}: field 'problem_type' must be one of ${problems.join(", ")}, got ${shown(config.problem_type)}.`,
    );
  }
  if (config.problem_type === "single_label_classification" && config.num_labels === 1) {
    throw new ConfigError(
      `${config.constructor.name}: problem_type 'single_label_classification' needs num_labels > 1.`,
      {
        hint: "Use num_labels 2 for a binary classifier, or problem_type 'regression' for one output.",
      },
    );
  }
}

/** Warns of special tokens outside the vocabulary: several published checkpoints have `pad_token_id: -1`. */
export function checkTokenIds(config: Checked): void {
  const { vocab_size } = config;
  if (typeof vocab_size !== "number") return;
  for (const [name, value] of Object.entries(config)) {
    if (!name.endsWith("_token_id") || typeof value !== "number" || (value >= 0 && value < vocab_size))
      continue;
    warnOnce(
      `${config.constructor.name}: ${name} should be None or lie in [0, ${vocab_size - 1}], got ${value}.`,
    );
  }
}

/** Layer types must be known, and one per layer. */
export function checkLayerTypes(config: Checked): void {
  const { num_hidden_layers } = config;
  const allowed = { layer_types: ATTENTION_LAYER_TYPES, mlp_layer_types: ["sparse", "dense"] };
  for (const [name, types] of Object.entries(allowed)) {
    const layers = (config as unknown as Record<string, unknown>)[name];
    if (!Array.isArray(layers) || num_hidden_layers === undefined) return;
    const unknown = layers.find((layer) => !types.includes(layer));
    if (unknown !== undefined) {
      throw new ConfigError(
        `${config.constructor.name}: field '${name}' has ${shown(unknown)}; it knows ${types.join(", ")}.`,
      );
    }
    if (layers.length !== num_hidden_layers) {
      throw new ConfigError(
        `${config.constructor.name}: field '${name}' has ${layers.length} entries for num_hidden_layers ${num_hidden_layers}.`,
      );
    }
  }
}

/** Gives layer types their present names. */
export function renameLayerTypes(fields: Record<string, unknown>): void {
  for (const name of ["layer_types", "mtp_layer_types"]) {
    const layers = fields[name];
    if (!Array.isArray(layers) || !layers.some((layer) => Object.hasOwn(LEGACY_LAYER_TYPES, layer))) continue;
    fields[name] = layers.map((layer) => LEGACY_LAYER_TYPES[layer] ?? layer);
  }
}
