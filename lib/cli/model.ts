// What generate, chat and repl share: the options of a model and of sampling, and loading a model with its tokenizer.

import { type Command, InvalidArgumentError, Option } from "commander";
import type { AutoTokenizer as Auto, AutoModelForCausalLM as AutoModel } from "../index.ts";
import { ProgressBar, showBytes } from "./progress.ts";

/** What weights can be cast to; "auto" is the checkpoint's own. */
const DTYPES = ["auto", "float32", "bfloat16", "float16", "float64"] as const;

export interface ModelFlags {
  readonly dtype: (typeof DTYPES)[number];
  readonly device?: string;
}

export interface SamplingFlags {
  readonly maxNewTokens: number;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly repetitionPenalty?: number;
  readonly seed?: number;
}

/** A commander parser for numbers within bounds. */
export function number({ integer = false, above = -Infinity, most = Infinity } = {}) {
  return (text: string): number => {
    const value = Number(text);
    if (text.trim() === "" || Number.isNaN(value)) throw new InvalidArgumentError("It is not a number.");
    if (integer && !Number.isSafeInteger(value)) throw new InvalidArgumentError("It is not a whole number.");
    if (!(value > above)) throw new InvalidArgumentError(`It must be above ${above}.`);
    if (!(value <= most)) throw new InvalidArgumentError(`It must be at most ${most}.`);
    return value;
  };
}

/** What the argument `model` may be. */
export const MODEL =
  "a folder with config.json, weights and tokenizer.json, or the name of one on the hub: org/name, org/name@revision";

export const withModel = (command: Command): Command =>
  command
    .addOption(
      new Option("--dtype <name>", "of the weights; auto is the checkpoint's own")
        .choices(DTYPES)
        .default("auto"),
    )
    .option("--device <name>", "cpu, cuda, cuda:1 …");

export const withSampling = (command: Command, maxNewTokens: number): Command =>
  command
    .option(
      "-n, --max-new-tokens <n>",
      "length of the answer",
      number({ integer: true, above: 0 }),
      maxNewTokens,
    )
    .option(
      "-t, --temperature <x>",
      "sample; higher is more varied (default: take the likeliest token)",
      number({ above: 0 }),
    )
    .option("--top-k <n>", "sample among the n likeliest", number({ integer: true, above: 0 }))
    .option(
      "--top-p <x>",
      "sample among the likeliest that have this probability together",
      number({ above: 0, most: 1 }),
    )
    .option("--repetition-penalty <x>", "above 1: avoid what was said", number({ above: 0 }))
    .option("--seed <n>", "the same text for the same number", number({ integer: true }));

/** The options of `generate` that the flags ask for; any sampling flag turns sampling on. */
export function generationOptions({
  maxNewTokens,
  temperature,
  topK,
  topP,
  repetitionPenalty,
}: SamplingFlags) {
  const sampling = { temperature, top_k: topK, top_p: topP };
  const given = Object.fromEntries(Object.entries(sampling).filter(([, value]) => value !== undefined));
  return {
    max_new_tokens: maxNewTokens,
    do_sample: Object.keys(given).length > 0,
    ...given,
    ...(repetitionPenalty === undefined ? {} : { repetition_penalty: repetitionPenalty }),
  };
}

export interface Loaded {
  readonly model: Awaited<ReturnType<typeof AutoModel.from_pretrained>>;
  readonly tokenizer: Awaited<ReturnType<typeof Auto.from_pretrained>>;
}

/**
 * Loads a model and its tokenizer side by side.
 *
 * @throws UninitializedWeightsError when the checkpoint lacks weights of the model: what it would write is noise.
 */
export async function load(
  name: string,
  { dtype, device }: ModelFlags,
  signal?: AbortSignal,
): Promise<Loaded> {
  const { AutoModelForCausalLM, AutoTokenizer } = await import("../index.ts");
  const loading = AutoTokenizer.from_pretrained(name, { signal });
  loading.catch(() => {}); // where both fail, it is the model's error that helps
  const bar = new ProgressBar();
  const model = await AutoModelForCausalLM.from_pretrained(name, {
    dtype,
    device_map: device,
    signal,
    progress_callback: (event) => {
      if (event.stage === "download") showBytes(bar, "Downloading")(event);
      else bar.finish();
    },
  }).finally(() => bar.finish());
  model.assert_initialized();
  return { model, tokenizer: await loading };
}
