// Settings of the two kinds of watermark that generated text can carry.

import { ConfigError } from "../errors/index.ts";
import { adoptNumberForms, type FieldTypes, markFloatFields } from "./field_types.ts";

type Data = Readonly<Record<string, unknown>>;

const WATERMARKING: FieldTypes = { greenlist_ratio: "int | float", bias: "int | float" };

/**
 * Watermark by a list of "green" tokens whose logits are raised.
 *
 * `greenlist_ratio` (default 0.25) of the vocabulary gets `bias` (default 2) added; which tokens, follows from
 * `hashing_key` and the last `context_width` (default 1) tokens, by the `seeding_scheme` "lefthash" or "selfhash".
 */
export class WatermarkingConfig {
  readonly greenlist_ratio: number;
  readonly bias: number;
  readonly hashing_key: number;
  readonly seeding_scheme: "lefthash" | "selfhash";
  readonly context_width: number;

  constructor({
    greenlist_ratio = 0.25,
    bias = 2,
    hashing_key = 15485863,
    seeding_scheme = "lefthash",
    context_width = 1,
  }: Partial<
    Pick<WatermarkingConfig, "greenlist_ratio" | "bias" | "hashing_key" | "seeding_scheme" | "context_width">
  > = {}) {
    this.greenlist_ratio = greenlist_ratio;
    this.bias = bias;
    this.hashing_key = hashing_key;
    this.seeding_scheme = seeding_scheme;
    this.context_width = context_width;
  }

  /** Makes the settings of plain data; numbers are written back as they were. */
  static from_dict(data: Data): WatermarkingConfig {
    refuseUnknown("watermarking_config", data, [
      "greenlist_ratio",
      "bias",
      "hashing_key",
      "seeding_scheme",
      "context_width",
    ]);
    const config = new WatermarkingConfig(data);
    adoptNumberForms(config, data);
    return config;
  }

  to_dict(): Record<string, unknown> {
    return plain(this, WATERMARKING);
  }

  /** Throws `ConfigError` for a value out of range. */
  validate(): void {
    if (!["lefthash", "selfhash"].includes(this.seeding_scheme))
      refuse("watermarking_config.seeding_scheme", "'lefthash' or 'selfhash'", this.seeding_scheme);
    if (!(this.greenlist_ratio >= 0 && this.greenlist_ratio <= 1))
      refuse("watermarking_config.greenlist_ratio", "between 0 and 1", this.greenlist_ratio);
    if (!(this.context_width >= 1))
      refuse("watermarking_config.context_width", "at least 1", this.context_width);
  }
}

/** SynthID's watermark: a tournament between candidates, keyed per depth. */
export class SynthIDTextWatermarkingConfig {
  readonly ngram_len: number;
  /** One key per depth. */
  readonly keys: readonly number[];
  readonly context_history_size: number;
  readonly sampling_table_seed: number;
  readonly sampling_table_size: number;
  readonly skip_first_ngram_calls: boolean;
  readonly debug_mode: boolean;

  constructor({
    ngram_len,
    keys,
    context_history_size = 1024,
    sampling_table_seed = 0,
    sampling_table_size = 65536,
    skip_first_ngram_calls = false,
    debug_mode = false,
  }: Pick<SynthIDTextWatermarkingConfig, "ngram_len" | "keys"> &
    Partial<
      Pick<
        SynthIDTextWatermarkingConfig,
        | "context_history_size"
        | "sampling_table_seed"
        | "sampling_table_size"
        | "skip_first_ngram_calls"
        | "debug_mode"
      >
    >) {
    this.ngram_len = ngram_len;
    this.keys = keys;
    this.sampling_table_size = sampling_table_size;
    this.sampling_table_seed = sampling_table_seed;
    this.context_history_size = context_history_size;
    this.skip_first_ngram_calls = skip_first_ngram_calls;
    this.debug_mode = debug_mode;
  }

  to_dict(): Record<string, unknown> {
    return plain(this, {});
  }

  /** Throws `ConfigError` for a value out of range. */
  validate(): void {
    if (this.sampling_table_size > 2 ** 24)
      refuse("watermarking_config.sampling_table_size", "at most 2^24", this.sampling_table_size);
  }
}

function plain(config: object, types: FieldTypes): Record<string, unknown> {
  const output: Record<string, unknown> = { ...config };
  adoptNumberForms(output, config);
  markFloatFields(output, types);
  return output;
}

function refuse(field: string, wanted: string, value: unknown): never {
  throw new ConfigError(`GenerationConfig: field '${field}' must be ${wanted}, got ${String(value)}.`);
}

function refuseUnknown(field: string, data: Data, known: readonly string[]): void {
  const unknown = Object.keys(data).find((name) => !known.includes(name));
  if (unknown !== undefined)
    throw new ConfigError(
      `GenerationConfig: field '${field}' knows no '${unknown}', only ${known.join(", ")}.`,
    );
}
