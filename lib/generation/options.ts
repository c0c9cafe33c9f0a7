// The arguments of `generate`, brought into one form: settings, model inputs, and what no file can hold.
import { GenerationConfig } from "../configuration/index.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import { nearest } from "../errors/suggest.ts";
import type { PreTrainedModel } from "../modeling/modeling_utils.ts";
import type { Generator, Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import type { LogitsProcessorLike, LogitsProcessorList } from "./logits_process/logits_processor.ts";
import type { StoppingCriteriaLike, StoppingCriteriaList } from "./stopping_criteria.ts";
import type { BaseStreamer, StreamerTokenizer } from "./streamers.ts";

/** Gets the tokens as they come: the prompt first, then one per row and step. */
export interface Streamer extends Pick<BaseStreamer, "put" | "end"> {
  /** Called instead of `end` when generation ends with an error. */
  fail?(error: Error): void | Promise<void>;
}

type Settings = {
  readonly [K in keyof GenerationConfig as GenerationConfig[K] extends (...args: never) => unknown
    ? never
    : K]?: GenerationConfig[K] | undefined;
};

/** Options of `generate`: any field of {@link GenerationConfig}, and these. */
export interface GenerateOptions extends Settings {
  /** Settings to start from instead of the model's. */
  readonly generation_config?: GenerationConfig | undefined;
  /** Run after the processors that the settings ask for. */
  readonly logits_processor?: LogitsProcessorList | readonly LogitsProcessorLike[] | undefined;
  /** Checked beside the criteria that the settings ask for. */
  readonly stopping_criteria?: StoppingCriteriaList | readonly StoppingCriteriaLike[] | undefined;
  /** The tokens that may come next in a row, given its tokens so far. */
  readonly prefix_allowed_tokens_fn?:
    | ((batch_id: number, input_ids: Tensor) => readonly number[])
    | undefined;
  /** With `guidance_scale`: the prompt to move away from [batch, length]. Default: the last token of the prompt. */
  readonly negative_prompt_ids?: Tensor | undefined;
  readonly negative_prompt_attention_mask?: Tensor | undefined;
  readonly streamer?: Streamer | null | undefined;
  /** Needed for `stop_strings`. */
  readonly tokenizer?: StreamerTokenizer | undefined;
  readonly assistant_model?: PreTrainedModel | null | undefined;
  /** Stops the work; the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Draws from a generator of its own, seeded with this. */
  readonly seed?: number | bigint | undefined;
  /** Draws from this generator instead of the default one. */
  readonly generator?: Generator | undefined;
  /**
   * "program": the steps are recorded and run off the event loop. "eager": they run one by one from JavaScript, as a
   * debugger wants to see them. Default: "program", and "eager", with one warning, for what cannot be recorded (a model
   * with hooks, a forward that reads values).
   */
  readonly mode?: "program" | "eager" | undefined;
  /** Generate although some weights were neither loaded nor trained. Default false. */
  readonly allow_uninitialized?: boolean | undefined;
  /** Inputs of the model's forward may stand here too. */
  readonly [input: string]: unknown;
}

/** Names that are neither settings nor inputs of a model. */
const ARGUMENTS = [
  "generation_config",
  "logits_processor",
  "stopping_criteria",
  "prefix_allowed_tokens_fn",
  "negative_prompt_ids",
  "negative_prompt_attention_mask",
  "streamer",
  "tokenizer",
  "assistant_model",
  "signal",
  "seed",
  "generator",
  "mode",
  "allow_uninitialized",
] as const;

/** Token ids, with whatever else the model's forward takes; or the ids alone. */
export type GenerateInputs =
  | Tensor
  | readonly number[]
  | readonly (readonly number[])[]
  | { readonly [input: string]: unknown };

/** Inputs of the model by name; absent ones are left out. */
export type ModelInputs = Record<string, unknown>;

export interface Request {
  readonly settings: GenerationConfig;
  readonly inputs: ModelInputs;
  readonly options: Pick<GenerateOptions, (typeof ARGUMENTS)[number]>;
  readonly hasDefaultMaxLength: boolean;
  /** Values that belong to the caller; other tensors among the inputs were made here. */
  readonly given: readonly unknown[];
}

/** Sorts arguments: settings over the model's own over the defaults, inputs by name. */
export function readRequest(
  model: PreTrainedModel,
  given: GenerateInputs | undefined,
  all: GenerateOptions,
): Request {
  const options: Record<string, unknown> = {};
  const values: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(all)) {
    if (value === undefined) continue;
    (ARGUMENTS.includes(name as never) ? options : values)[name] = value;
  }
  const own = model.generation_config;
  const base = options.generation_config as GenerationConfig | undefined;
  const settings = base ? base.clone() : new GenerationConfig();
  settings.update(own.to_dict(), { defaults_only: true, allow_custom_entries: true });
  settings.update(GenerationConfig.default_params, { defaults_only: true });
  const rest = settings.update(values);

  const inputs = { ...readInputs(given), ...rest };
  const known = (model.constructor as typeof PreTrainedModel).forward_inputs;
  for (const [name, value] of Object.entries(inputs)) {
    if (value === undefined || value === null) delete inputs[name];
    else if (known && !known.includes(name)) {
      throw new InvalidArgumentError(
        `generate: '${name}' is neither a setting nor an input of ${model.constructor.name}.`,
        {
          suggestion: nearest(name, [...known, ...ARGUMENTS, ...Object.keys(settings)], 1)[0],
        },
      );
    }
  }
  return {
    settings,
    inputs,
    options: options as Request["options"],
    given: [given, ...(Array.isArray(given) ? [] : Object.values(given ?? {})), ...Object.values(all)],
    hasDefaultMaxLength: (values.max_length ?? base?.max_length ?? own.max_length ?? null) === null,
  };
}

function readInputs(given: GenerateInputs | undefined): ModelInputs {
  if (given === undefined) return {};
  if (given instanceof torch.Tensor)
    return { input_ids: given.shape.length === 1 ? given.unsqueeze(0) : given };
  if (!Array.isArray(given)) {
    return Object.fromEntries(
      Object.entries(given).map(([name, value]) => [
        name,
        Array.isArray(value) ? idTensor(value as number[]) : value,
      ]),
    );
  }
  return { input_ids: idTensor(given as number[]) };
}

/** Token ids of one sequence, or of several of the same length: [batch, length]. */
function idTensor(ids: readonly number[] | readonly (readonly number[])[]): Tensor {
  const rows = (
    typeof ids[0] === "number" || ids.length === 0 ? [ids] : ids
  ) as readonly (readonly number[])[];
  if (rows.some((row) => row.length !== rows[0]?.length)) {
    throw new InvalidArgumentError(
      "generate: sequences of different lengths need padding: use a tokenizer with { padding: true }.",
    );
  }
  return torch.tensor(rows, { dtype: "int64" });
}

/** Refuses ways of decoding that are not part of this version. */
export function checkMode(
  settings: GenerationConfig,
  { assistant_model, mode: way }: Request["options"],
): void {
  if (way !== undefined && way !== "program" && way !== "eager") {
    throw new InvalidArgumentError(`generate: mode must be "program" or "eager", got ${String(way)}.`);
  }
  const chunk = settings.prefill_chunk_size;
  if (chunk !== null && !(Number.isInteger(chunk) && chunk >= 1)) {
    throw new InvalidArgumentError(`generate: prefill_chunk_size must be a positive integer, got ${chunk}.`);
  }
  if (chunk !== null && settings.use_cache === false)
    throw new InvalidArgumentError("generate: prefill_chunk_size needs a cache.");
  const mode = settings.get_generation_mode(assistant_model ?? undefined);
  const missing: Partial<Record<string, string>> = {
    beam_search: "num_beams > 1",
    beam_sample: "num_beams > 1",
    group_beam_search: "num_beam_groups",
    constrained_beam_search: "constraints",
    assisted_generation: "assisted generation (assistant_model, prompt_lookup_num_tokens)",
    contrastive_search: "penalty_alpha",
    dola_generation: "dola_layers",
  };
  const unsupported =
    missing[mode] ??
    (settings.watermarking_config !== null ? "watermarking_config" : undefined) ??
    (settings.token_healing ? "token_healing" : undefined) ??
    (["quantized", "paged", "offloaded", "offloaded_static"].includes(settings.cache_implementation ?? "")
      ? `cache_implementation '${settings.cache_implementation}'`
      : undefined);
  if (unsupported !== undefined) {
    throw new InvalidArgumentError(`generate: ${unsupported} is not implemented yet.`, {
      hint: "Greedy search and sampling are, with dynamic and static caches.",
    });
  }
}
