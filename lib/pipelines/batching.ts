// Inputs put together into a batch, and results taken apart again.

import { InvalidArgumentError, ShapeError } from "../errors/index.ts";
import type { PreTrainedTokenizerFast } from "../processing/tokenization_utils.ts";
import { cat, full, Tensor } from "../torch/index.ts";

type Values = Record<string, unknown>;

/** What fills up shorter rows of a tokenizer's field; undefined for a field that is not padded. */
function fillOf(
  name: string,
  tokenizer: PreTrainedTokenizerFast | undefined,
  owner: string,
): number | undefined {
  if (tokenizer === undefined) return undefined;
  if (name === "token_type_ids") return tokenizer.pad_token_type_id;
  if (name === "attention_mask") return 0;
  if (name === "special_tokens_mask") return 1;
  if (name !== "input_ids") return undefined;
  const pad = tokenizer.pad_token_id;
  if (pad === null || pad === undefined) {
    throw new InvalidArgumentError(
      `${owner}: inputs of different lengths make a batch only with a padding token.`,
      {
        hint: 'Set one: tokenizer.pad_token = tokenizer.eos_token, or load the tokenizer with { pad_token: "…" }.',
      },
    );
  }
  return pad;
}

/** One batch of several inputs: tensors are joined along the first dimension, other values are listed. */
export function collate(
  items: readonly Values[],
  tokenizer: PreTrainedTokenizerFast | undefined,
  owner: string,
): Values {
  const names = Object.keys(items[0] as Values);
  for (const item of items) {
    if (Object.keys(item).join() !== names.join())
      throw new InvalidArgumentError(
        `${owner}: inputs with different fields make no batch: ${names.join(", ")} and ${Object.keys(item).join(", ")}.`,
      );
  }
  const batch: Values = {};
  for (const name of names) {
    const values = items.map((item) => item[name]);
    batch[name] = values.every((value) => value instanceof Tensor)
      ? join(name, values as Tensor[], tokenizer, owner)
      : values;
  }
  return batch;
}

function join(
  name: string,
  tensors: readonly Tensor[],
  tokenizer: PreTrainedTokenizerFast | undefined,
  owner: string,
): Tensor {
  const rests = new Set(tensors.map(({ shape }) => shape.slice(1).join(" x ")));
  if (rests.size === 1) return cat([...tensors]);
  const fill = tensors.every(({ ndim }) => ndim === 2) ? fillOf(name, tokenizer, owner) : undefined;
  if (fill === undefined) {
    throw new ShapeError(`${owner}: ${name} of the sizes ${[...rests].join(" and ")} make no batch.`, {
      hint: "Use batch_size: 1, or let the processor bring all inputs to one size.",
    });
  }
  const longest = Math.max(...tensors.map(({ shape }) => shape[1] as number));
  const padded = tensors.map((row) => {
    const [count, length] = row.shape as [number, number];
    if (length === longest) return row;
    const filling = full([count, longest - length], fill, { dtype: row.dtype, device: row.device });
    return cat(tokenizer?.padding_side === "left" ? [filling, row] : [row, filling], 1);
  });
  return cat(padded);
}

/** The results of each input of a batch, as if it had been alone. */
export function splitOutputs(outputs: Values, count: number): Values[] {
  const part = (value: unknown, i: number): unknown => {
    if (value instanceof Tensor) return value.shape[0] === count ? value.narrow(0, i, 1) : value;
    if (!Array.isArray(value)) return value;
    // Lists of tensors are one tensor per layer; other lists have an entry per input.
    if (value[0] instanceof Tensor) return value.map((layer) => part(layer, i));
    return value.length === count ? value[i] : value;
  };
  return Array.from({ length: count }, (_, i) =>
    Object.fromEntries(
      Object.entries(outputs).flatMap(([name, value]) =>
        name === "past_key_values" ? [] : [[name, part(value, i)]],
      ),
    ),
  );
}
