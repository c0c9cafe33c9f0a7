// Which modules of a model an adapter is for.
import { InvalidArgumentError } from "../errors/index.ts";
import * as nn from "../nn/index.ts";
import type { LoraConfig } from "./config.ts";
import { LoraLayer } from "./lora_layer.ts";
import { isConv1D, LoraLinear } from "./lora_layers.ts";
import { fullPattern, layerPattern, partPattern, suffixPattern } from "./python_pattern.ts";

/** What a model may have beside its modules; a PreTrainedModel has all of it. */
export type ModelLike = nn.Module & {
  readonly config?: { readonly model_type?: string; readonly vocab_size?: unknown; name_or_path?: string };
  get_input_embeddings?(): nn.Module;
  get_output_embeddings?(): nn.Module | undefined;
};

const QV = ["q_proj", "v_proj"];

/** The reference's choice of targets by `model_type`, for a config that names none. */
const DEFAULT_TARGETS: Readonly<Record<string, readonly string[] | string>> = {
  t5: ["q", "v"],
  mt5: ["q", "v"],
  bart: QV,
  gpt2: ["c_attn"],
  bloom: ["query_key_value"],
  "blip-2": ["q", "v", "q_proj", "v_proj"],
  opt: QV,
  gptj: QV,
  gpt_neox: ["query_key_value"],
  gpt_neo: QV,
  bert: ["query", "value"],
  roberta: ["query", "value"],
  "xlm-roberta": ["query", "value"],
  electra: ["query", "value"],
  "deberta-v2": ["query_proj", "value_proj"],
  deberta: ["in_proj"],
  layoutlm: ["query", "value"],
  llama: QV,
  llama4: QV,
  chatglm: ["query_key_value"],
  gpt_bigcode: ["c_attn"],
  mpt: ["Wqkv"],
  RefinedWebModel: ["query_key_value"],
  RefinedWeb: ["query_key_value"],
  falcon: ["query_key_value"],
  btlm: ["c_proj", "c_attn"],
  codegen: ["qkv_proj"],
  mistral: QV,
  mixtral: QV,
  stablelm: QV,
  phi: [...QV, "fc1", "fc2"],
  gemma: QV,
  gemma2: QV,
  gemma3_text: QV,
  gemma4: ".*language_model\\..*\\.(q_proj|v_proj)",
  qwen2: QV,
  qwen3: QV,
  nemotron_h: ["q_proj", "k_proj", "v_proj", "o_proj"],
  rwkv: ["key", "value", "receptance", "output"],
  rwkv7: ["r_proj", "k_proj", "v_proj", "o_proj", "key", "value"],
};

/** From so many names on, names that end alike are brought together: fewer to compare, and a shorter file. */
const MANY_TARGETS = 20;

const ALL_LINEAR = "all-linear";

export const isOneOf = (key: string, names: readonly string[]): boolean =>
  names.some((name) => key === name || key.endsWith(`.${name}`));

/**
 * The targets that a config means for a model: what "all-linear" and no targets at all stand for is written out.
 *
 * @throws InvalidArgumentError for a model without a default choice.
 */
export function resolveTargets(model: ModelLike, config: LoraConfig): readonly string[] | string {
  const given = config.target_modules ?? DEFAULT_TARGETS[model.config?.model_type ?? ""];
  if (given === undefined)
    throw new InvalidArgumentError(
      `${model._get_name()} has no modules that are adapted by default: name them in target_modules.`,
      { hint: 'For example target_modules: "all-linear".' },
    );
  const targets =
    typeof given === "string" && given.toLowerCase() === ALL_LINEAR ? allLinear(model, config) : given;
  if (typeof targets === "string" || targets.length < MANY_TARGETS) return targets;
  const others = [...model.named_modules()].map(([name]) => name).filter((name) => !isOneOf(name, targets));
  const fewer = fewestTargets(targets, others);
  return fewer.length < new Set(targets).size ? fewer : targets;
}

/** The names of all linear layers but the output layer, and of none that belong to an adapter. */
function allLinear(model: ModelLike, config: LoraConfig): string[] {
  const named = [...model.named_modules()];
  const inside = named.filter(([, module]) => module instanceof LoraLayer).map(([name]) => `${name}.`);
  const output = model.get_output_embeddings?.();
  const parts = model as unknown as Record<string, unknown>;
  const classifier =
    model.get_output_embeddings !== undefined && output === undefined && config.task_type === "SEQ_CLS"
      ? (parts.score ?? parts.classifier)
      : undefined;
  return named
    .filter(([, module]) => module instanceof nn.Linear || isConv1D(module) || module instanceof LoraLinear)
    .filter(([, module]) => module !== output && module !== classifier)
    .map(([name]) => name)
    .filter((name) => !inside.some((prefix) => name.startsWith(prefix)));
}

/** The shortest ends of names that tell the targets from the other modules. */
function fewestTargets(targets: readonly string[], others: readonly string[]): string[] {
  const ends = (name: string) => {
    const parts = name.split(".");
    return parts.map((_, i) => parts.slice(parts.length - 1 - i).join("."));
  };
  const taken = new Set(others.flatMap(ends));
  const found = new Set<string>();
  const sorted = [...new Set(targets)].map((name) => ({ name, ends: ends(name) }));
  sorted.sort((a, b) => compare(a.ends, b.ends));
  for (const { name, ends: candidates } of sorted) {
    for (const end of candidates) {
      if (found.has(end) || taken.has(end)) continue;
      if ([...found].some((other) => name.endsWith(`.${other}`))) continue;
      found.add(end);
      break;
    }
  }
  return found.size > 0 ? [...found] : [...targets];
}

/** Python's order of lists of strings. */
function compare(a: readonly string[], b: readonly string[]): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    if (a[i] !== b[i]) return (a[i] as string) < (b[i] as string) ? -1 : 1;
  }
  return a.length - b.length;
}

export type Match = "yes" | "no" | "excluded";

/** A function that says of a module's name whether a config means it. */
export function matcher(config: LoraConfig): (key: string) => Match {
  const { exclude_modules, modules_to_save, target_modules } = config;
  const matches = (names: readonly string[] | string | null): ((key: string) => boolean) => {
    if (names === null || names.length === 0) return () => false;
    if (typeof names !== "string") return (key) => isOneOf(key, names);
    const pattern = fullPattern(names);
    return (key) => pattern.test(key);
  };
  const excluded = matches(exclude_modules);
  const saved = (modules_to_save ?? []).map(partPattern);
  const target = matches(target_modules);
  const inLayers = layerFilter(config);
  return (key) => {
    if (excluded(key) || saved.some((pattern) => pattern.test(key))) return "excluded";
    if (!target(key)) return "no";
    // A module that is named in full is meant whatever its layer.
    if (typeof target_modules !== "string" && target_modules?.includes(key)) return "yes";
    return inLayers(key) ? "yes" : "no";
  };
}

function layerFilter({ layers_to_transform, layers_pattern }: LoraConfig): (key: string) => boolean {
  const wanted = layers_to_transform === null ? [] : ([layers_to_transform].flat() as number[]);
  if (wanted.length === 0) return () => true;
  const lists = layers_pattern === null ? [] : ([layers_pattern].flat() as string[]);
  // Without the name of a list: the first number that stands behind a list's name.
  const patterns = lists.length === 0 ? [/^.*?\.[^.]*\.(?<idx>\d+)\./] : lists.map(layerPattern);
  return (key) => {
    const found = patterns.map((pattern) => pattern.exec(key)).find((match) => match !== null);
    return found !== undefined && wanted.includes(Number(found?.groups?.idx));
  };
}

/** The value of the first pattern that a name matches. */
export function patternValue(
  patterns: Readonly<Record<string, number>>,
  key: string,
  fallback: number,
): number {
  const found = Object.keys(patterns).find((pattern) => suffixPattern(pattern).test(key));
  return found === undefined ? fallback : (patterns[found] as number);
}

/** The patterns that no name matches. */
export const unmatchedPatterns = (
  patterns: Readonly<Record<string, number>>,
  keys: readonly string[],
): string[] =>
  Object.keys(patterns).filter((pattern) => !keys.some((key) => suffixPattern(pattern).test(key)));
