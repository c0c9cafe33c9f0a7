// What settings of generation can never work, and which have no effect together.

import { ConfigError } from "../errors/index.ts";
import { warnOnce } from "../errors/warnings.ts";
import { isPlain } from "../json/json.ts";
import { checkFields, shown } from "./field_types.ts";
import type { GenerationConfig } from "./generation_config.ts";
import { EXTRA_OUTPUTS, GENERATION_FIELDS as FIELDS } from "./generation_fields.ts";

type Fields = Record<string, unknown>;

const STATIC_CACHES: readonly string[] = [
  "static",
  "offloaded_static",
  "sliding_window",
  "hybrid",
  "hybrid_chunked",
  "offloaded_hybrid",
  "offloaded_hybrid_chunked",
];
const CACHES: readonly string[] = [...STATIC_CACHES, "dynamic", "offloaded", "quantized", "paged"];

/** Arguments of `generate` that no file can hold. */
const GENERATE_ARGUMENTS = [
  "logits_processor",
  "stopping_criteria",
  "prefix_allowed_tokens_fn",
  "synced_gpus",
  "assistant_model",
  "streamer",
  "negative_prompt_ids",
  "negative_prompt_attention_mask",
];

/** Generation has its own bounds, checked by `generate`. */
const NO_RANGES = Object.fromEntries(
  Object.keys(FIELDS).map((name) => [name, { min: Number.NEGATIVE_INFINITY }]),
);

/** Fields of sampling, with the value that changes nothing. */
const SAMPLING_ONLY: Readonly<Record<string, unknown>> = {
  temperature: 1,
  top_p: 1,
  min_p: null,
  top_h: null,
  typical_p: 1,
  top_k: 50,
  epsilon_cutoff: 0,
  eta_cutoff: 0,
};

/** What `GenerationConfig.validate` does. */
export function validateGeneration(
  config: GenerationConfig,
  strict: boolean,
  user_set_attributes: readonly string[] | undefined,
): void {
  checkFields("GenerationConfig", config, FIELDS, NO_RANGES);
  checkValues(config);
  checkSequences(config);
  checkSuppressed(config);
  const misplaced = GENERATE_ARGUMENTS.find((name) => name in config);
  if (misplaced !== undefined) {
    throw new ConfigError(`GenerationConfig: '${misplaced}' is an argument of generate(), not a field.`);
  }
  const issues = issuesOf(config, user_set_attributes);
  if (issues.size === 0) return;
  const list = [...issues].map(([name, reason]) => `- ${name}: ${reason}`).join("\n");
  if (strict) throw new ConfigError(`GenerationConfig is not consistent:\n${list}`);
  warnOnce(`Generation settings without effect: ${[...issues.keys()].join(", ")}.\n${list}`);
}

function checkValues(config: GenerationConfig): void {
  const refuse = (name: string, wanted: string) => {
    throw new ConfigError(
      `GenerationConfig: field '${name}' must be ${wanted}, got ${shown((config as unknown as Fields)[name])}.`,
    );
  };
  if (typeof config.early_stopping === "string" && config.early_stopping !== "never")
    refuse("early_stopping", "a bool or 'never'");
  if (config.max_new_tokens !== null && config.max_new_tokens <= 0)
    refuse("max_new_tokens", "greater than 0");
  const weight = config.assistant_ensemble_weight;
  if (weight !== null && !(weight > 0 && weight < 1))
    refuse("assistant_ensemble_weight", "between 0 and 1, both excluded");
  if (config.cache_implementation !== null && !CACHES.includes(config.cache_implementation)) {
    refuse("cache_implementation", `one of ${CACHES.join(", ")}`);
  }
  if (config.compile_config !== null && !isPlain(config.compile_config)) refuse("compile_config", "a dict");
  if (config.max_cache_len !== null && !STATIC_CACHES.includes(config.cache_implementation ?? "")) {
    warnOnce(
      `max_cache_len is used with static caches only, not with cache_implementation ${config.cache_implementation}.`,
    );
  }
  config.watermarking_config?.validate();
}

function checkSequences(config: GenerationConfig): void {
  const { num_return_sequences: count, num_beams } = config;
  if (count === null || count <= 1) return;
  if (num_beams === null || num_beams === 1) {
    if (config.do_sample) return;
    throw new ConfigError(
      `GenerationConfig: field 'num_return_sequences' is ${count}, but greedy search gives one sequence.`,
      {
        hint: "Set do_sample or num_beams.",
      },
    );
  }
  if (count > num_beams) {
    throw new ConfigError(
      `GenerationConfig: field 'num_return_sequences' (${count}) must not exceed num_beams (${num_beams}).`,
    );
  }
}

/** A token that is forced and suppressed would leave nothing to choose. */
function checkSuppressed(config: GenerationConfig): void {
  const { suppress_tokens } = config;
  if (suppress_tokens === null) return;
  for (const name of ["forced_bos_token_id", "forced_eos_token_id"] as const) {
    const forced = config[name] === null ? [] : [config[name]].flat();
    if (forced.length === 0 || !forced.every((token) => suppress_tokens.includes(token))) continue;
    throw new ConfigError(
      `GenerationConfig: every token of '${name}' (${forced.join(", ")}) is also in suppress_tokens.`,
      {
        hint: "To prevent an early end, use min_new_tokens.",
      },
    );
  }
}

/** Settings that have no effect, with the reason. */
function issuesOf(config: GenerationConfig, userSet: readonly string[] | undefined): Map<string, string> {
  const issues = new Map<string, string>();
  const isSet = (name: string) => userSet?.includes(name) ?? false;
  // Quiet only where the caller chose the mode and the setting came from a file.
  const counts = (mode: string, name: string) => !isSet(mode) || isSet(name);
  const differs = (name: string, neutral: unknown) => {
    const value = (config as unknown as Fields)[name];
    return value !== null && value !== neutral;
  };
  if (config.pad_token_id !== null && config.pad_token_id < 0) {
    issues.set("pad_token_id", `is ${config.pad_token_id}; batches cannot be padded with it`);
  }
  if (config.do_sample !== true) {
    for (const [name, neutral] of Object.entries(SAMPLING_ONLY)) {
      if (differs(name, neutral) && counts("do_sample", name))
        issues.set(name, "has an effect only with do_sample");
    }
  }
  if (config.num_beams === null || config.num_beams === 1) {
    for (const [name, neutral] of Object.entries({ early_stopping: false, length_penalty: 1 })) {
      if (differs(name, neutral) && counts("num_beams", name))
        issues.set(name, "has an effect only with num_beams > 1");
    }
  }
  if (config.use_cache === false) {
    for (const name of ["cache_implementation", "cache_config"] as const) {
      if (config[name] !== null) issues.set(name, "has no effect with use_cache false");
    }
  }
  if (config.return_dict_in_generate !== true) {
    for (const name of EXTRA_OUTPUTS)
      if (config[name] === true) issues.set(name, "has an effect only with return_dict_in_generate");
  }
  return issues;
}
