// Padding and truncation: what the options of a call mean, and padding of rows that were encoded before.

import { InvalidArgumentError } from "../errors/index.ts";
import { Tensor } from "../torch/index.ts";
import type { BatchEncoding } from "./batch_encoding.ts";
import { checkChoice, checkCount } from "./options.ts";
import type { Padding, Side, Truncation, TruncationStrategy } from "./tokenizer_backend.ts";
import type { TokenizerCallOptions } from "./tokenizer_options.ts";

/** Lengths from here on mean "none". */
export const LARGE_INTEGER = 1e20;

/** What a tokenizer itself says of padding and truncation. */
export interface PaddingDefaults {
  readonly padding_side: Side;
  readonly truncation_side: Side;
  readonly model_max_length: number;
  readonly pad_token: string | null;
  readonly pad_token_id: number | null;
  readonly pad_token_type_id: number;
}

export function sideOf(side: string, name: string): Side {
  // tokenizer.json writes "Left", the options "left".
  return checkChoice(side.toLowerCase(), ["left", "right"] as const, name, "tokenizer");
}

/** Padding and truncation out of the options, by the reference's rules. */
export function strategiesOf(
  options: TokenizerCallOptions,
  tokenizer: PaddingDefaults,
): { padding: Padding | null; truncation: Truncation | null } {
  const call = "tokenizer";
  const paddings = [false, true, "longest", "max_length", "do_not_pad"] as const;
  const truncations = [
    null,
    false,
    true,
    "longest_first",
    "only_first",
    "only_second",
    "do_not_truncate",
  ] as const;
  const padding = checkChoice(options.padding ?? false, paddings, "padding", call);
  let truncation = checkChoice(options.truncation ?? null, truncations, "truncation", call);
  const limit = options.max_length ?? null;
  if (limit !== null) checkCount(limit, 0, "max_length", call);
  const multiple_of = options.pad_to_multiple_of ?? null;
  if (multiple_of !== null) checkCount(multiple_of, 1, "pad_to_multiple_of", call);
  const stride = checkCount(options.stride ?? 0, 0, "stride", call);

  if (limit !== null && padding === false && truncation === null) truncation = "longest_first";
  const strategy: TruncationStrategy | null =
    truncation === true
      ? "longest_first"
      : truncation === false || truncation === "do_not_truncate"
        ? null
        : truncation;
  const modelLimit = tokenizer.model_max_length > LARGE_INTEGER ? null : tokenizer.model_max_length;
  const max_length = limit ?? modelLimit;
  const doesPad =
    padding === true || padding === "longest" || (padding === "max_length" && max_length !== null);
  const doesTruncate = strategy !== null && max_length !== null;
  if (doesPad && doesTruncate && multiple_of !== null && max_length % multiple_of !== 0) {
    throw new InvalidArgumentError(
      `[${call}] max_length ${max_length} is not a multiple of pad_to_multiple_of ${multiple_of}, but both are asked for.`,
    );
  }
  const side = sideOf(options.truncation_side ?? tokenizer.truncation_side, "truncation_side");
  return {
    padding: doesPad
      ? paddingOf(padding === "max_length" ? max_length : null, multiple_of, options.padding_side, tokenizer)
      : null,
    truncation: doesTruncate ? { strategy, max_length, stride, side } : null,
  };
}

function paddingOf(
  length: number | null,
  multiple_of: number | null,
  padding_side: Side | null | undefined,
  tokenizer: PaddingDefaults,
): Padding {
  const { pad_token, pad_token_id } = tokenizer;
  if (pad_token === null || pad_token_id === null) {
    throw new InvalidArgumentError(
      "[tokenizer] padding is asked for, but the tokenizer has no padding token.",
      {
        hint: 'Set one: `tokenizer.pad_token = tokenizer.eos_token`, or `await tokenizer.add_special_tokens({ pad_token: "[PAD]" })`.',
      },
    );
  }
  const side = sideOf(padding_side ?? tokenizer.padding_side, "padding_side");
  return {
    length,
    multiple_of,
    side,
    id: pad_token_id,
    type_id: tokenizer.pad_token_type_id,
    token: pad_token,
  };
}

export type PadInput = Readonly<Record<string, unknown>> | BatchEncoding;

/** One row's fields, filled to the length that `padding` wants. */
export function padRow(
  fields: Record<string, unknown>,
  row: number[],
  main: string,
  withMask: boolean,
  padding: Padding | null,
  longest: number,
): Record<string, unknown> {
  const mask = fields.attention_mask ?? (withMask ? new Array<number>(row.length).fill(1) : undefined);
  const out: Record<string, unknown> = { ...fields, ...(mask !== undefined && { attention_mask: mask }) };
  if (padding === null) return out;
  const length = padding.length ?? longest;
  const multiple = padding.multiple_of ?? 1;
  const missing = Math.max(0, Math.ceil(length / multiple) * multiple - row.length);
  const fills = {
    [main]: padding.id,
    attention_mask: 0,
    token_type_ids: padding.type_id,
    special_tokens_mask: 1,
  };
  for (const [name, value] of Object.entries(fills)) {
    if (!(name in out) || (name === "attention_mask" && !withMask)) continue;
    const fill = new Array<number>(missing).fill(value);
    const own = out[name] as number[];
    out[name] = padding.side === "right" ? [...own, ...fill] : [...fill, ...own];
  }
  return out;
}

/** A list of encodings as one, with a list per field. */
export function gather(rows: readonly Readonly<Record<string, unknown>>[]): Record<string, unknown[]> {
  const names = Object.keys(rows[0] ?? {});
  return Object.fromEntries(names.map((name) => [name, rows.map((row) => row[name])]));
}

export const asLists = (fields: Readonly<Record<string, unknown>>): Record<string, unknown[]> =>
  Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [
      name,
      value instanceof Tensor
        ? (value.tolist() as unknown[])
        : (value as unknown[]).map((item) => (item instanceof Tensor ? item.tolist() : item)),
    ]),
  );
