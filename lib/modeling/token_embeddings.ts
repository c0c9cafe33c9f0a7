// Resizing the vocabulary of a model: its embedding table, and the layer that scores tokens.
import { InvalidArgumentError } from "../errors/index.ts";
import * as nn from "../nn/index.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import type { PreTrainedModel } from "./modeling_utils.ts";

export interface ResizeOptions {
  /** Round the number of rows up to a multiple of this. */
  readonly pad_to_multiple_of?: number | null | undefined;
  /** Draw new rows around the mean of the old ones; default true. */
  readonly mean_resizing?: boolean | undefined;
}

/** See `PreTrainedModel.resize_token_embeddings`. */
export function resizeTokenEmbeddings(
  model: PreTrainedModel,
  new_num_tokens: number | undefined,
  { pad_to_multiple_of, mean_resizing = true }: ResizeOptions,
): nn.Embedding {
  const embeddings = model.get_input_embeddings();
  if (new_num_tokens === undefined && !pad_to_multiple_of) return embeddings;
  const rows = roundUp(new_num_tokens ?? (embeddings.weight.shape[0] as number), pad_to_multiple_of ?? 1);

  torch.no_grad(() => {
    resizeEmbedding(model, embeddings, rows, mean_resizing);
    const head = model.get_output_embeddings();
    if (head instanceof nn.Embedding) resizeEmbedding(model, head, rows, mean_resizing);
    else if (head) model.set_output_embeddings(resizedHead(model, head, rows, mean_resizing));
  });
  model.config.get_text_config().vocab_size = rows;
  model.tie_weights();
  return model.get_input_embeddings();
}

function roundUp(count: number, multiple: number): number {
  for (const [name, value] of [
    ["new_num_tokens", count],
    ["pad_to_multiple_of", multiple],
  ] as const) {
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new InvalidArgumentError(
        `resize_token_embeddings: ${name} must be a positive integer, got ${value}.`,
      );
    }
  }
  return Math.ceil(count / multiple) * multiple;
}

/** In place: the table stays the same parameter, so that optimizers and ties keep hold of it. */
function resizeEmbedding(
  model: PreTrainedModel,
  old: nn.Embedding,
  rows: number,
  mean_resizing: boolean,
): void {
  const [before, dim] = old.weight.shape as [number, number];
  if (before !== rows) {
    const { dtype, device } = old.weight;
    const fresh = new nn.Embedding(rows, dim, { dtype, device });
    if (rows > before) {
      if (mean_resizing) drawAroundMean(fresh.weight, old.weight, rows - before);
      else model._init_weights(fresh);
    }
    const kept = Math.min(before, rows);
    fresh.weight.narrow(0, 0, kept).copy_(old.weight.narrow(0, 0, kept));
    old.weight.data = fresh.weight.detach();
  }
  const table = old as { num_embeddings: number; padding_idx: number | null };
  table.num_embeddings = rows;
  if (table.padding_idx !== null && rows - 1 < table.padding_idx) table.padding_idx = null;
}

function resizedHead(
  model: PreTrainedModel,
  old: nn.Linear,
  rows: number,
  mean_resizing: boolean,
): nn.Linear {
  const [before, dim] = old.weight.shape as [number, number];
  if (before === rows) {
    (old as { out_features: number }).out_features = rows;
    return old;
  }
  const { dtype, device, requires_grad } = old.weight;
  const fresh = new nn.Linear(dim, rows, { bias: old.bias !== null, dtype, device });
  if (rows > before) {
    if (mean_resizing) {
      drawAroundMean(fresh.weight, old.weight, rows - before);
      if (old.bias && fresh.bias) {
        const mean = old.bias.mean({ dtype: "float32" }).item() as number;
        const std = old.bias.std().to("float32").item() as number;
        fresh.bias.narrow(0, before, rows - before).normal_(mean, 1e-9 * std);
      }
    } else model._init_weights(fresh);
  }
  const kept = Math.min(before, rows);
  fresh.weight.narrow(0, 0, kept).copy_(old.weight.narrow(0, 0, kept));
  if (old.bias && fresh.bias) fresh.bias.narrow(0, 0, kept).copy_(old.bias.narrow(0, 0, kept));
  fresh.requires_grad_(requires_grad);
  return fresh;
}

/**
 * Fills the last `count` rows of `target` from a normal distribution with the mean of the rows of `old` and 1e-9 times
 * their covariance; with the mean alone where that is not positive definite.
 * See https://nlp.stanford.edu/~johnhew/vocab-expansion.html.
 */
function drawAroundMean(target: Tensor, old: Tensor, count: number): void {
  const rows = old.detach().to("float32");
  const mean = rows.mean(0);
  const centered = rows.sub(mean);
  const covariance = centered
    .t()
    .matmul(centered)
    .div(old.shape[0] as number)
    .mul(1e-9);
  const [factor, info] = torch.linalg.cholesky_ex(covariance);
  const dim = old.shape[1] as number;
  const sample =
    info.item() === 0
      ? torch
          .empty([count, dim], { dtype: "float32", device: old.device })
          .normal_()
          .unsqueeze(1)
          .matmul(factor.t())
          .squeeze(1)
          .add(mean)
      : mean.unsqueeze(0).expand([count, dim]);
  target.narrow(0, (target.shape[0] as number) - count, count).copy_(sample.to(target.dtype));
}
