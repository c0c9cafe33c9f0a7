// Loss functions that heads share. Labels equal to `ignore_index` do not count.
import { InvalidArgumentError } from "../errors/index.ts";
import * as nn from "../nn/index.ts";
import type { Tensor } from "../torch/index.ts";

const F = nn.functional;

/** What every loss takes beside logits and labels. */
export interface LossOptions {
  /** Divide the summed loss by this count instead of taking the mean: for gradient accumulation. */
  readonly num_items_in_batch?: Tensor | number | null | undefined;
  /** Label that does not count; -100 by default. */
  readonly ignore_index?: number | undefined;
}

interface LabelConfig {
  readonly num_labels: number | null;
  problem_type: "regression" | "single_label_classification" | "multi_label_classification" | null;
}

/** Cross-entropy of scores [n, classes] against labels [n]: the mean, or the sum over `num_items_in_batch`. */
export function fixed_cross_entropy(
  scores: Tensor,
  labels: Tensor,
  { num_items_in_batch, ignore_index = -100 }: LossOptions = {},
): Tensor {
  if (num_items_in_batch === undefined || num_items_in_batch === null) {
    return F.cross_entropy(scores, labels, { ignore_index });
  }
  const sum = F.cross_entropy(scores, labels, { ignore_index, reduction: "sum" });
  return sum.div(
    typeof num_items_in_batch === "number" ? num_items_in_batch : num_items_in_batch.to(sum.device),
  );
}

/** What the loss of language models takes besides. */
export interface CausalLMLossOptions extends LossOptions {
  /** Labels that are already moved by one position, [batch, length]. */
  readonly shift_labels?: Tensor | undefined;
}

/**
 * Next-token loss of `logits` [batch, length, vocabulary] against `labels` [batch, length]: position i predicts
 * label i + 1. Computed in float32.
 */
export function ForCausalLMLoss(
  logits: Tensor,
  labels: Tensor,
  vocab_size: number,
  { shift_labels, ...options }: CausalLMLossOptions = {},
): Tensor {
  const target =
    shift_labels ??
    F.pad(labels, [0, 1], { value: options.ignore_index ?? -100 }).narrow(
      -1,
      1,
      labels.shape.at(-1) as number,
    );
  return fixed_cross_entropy(
    logits.to("float32").reshape([-1, vocab_size]),
    target.reshape([-1]).to(logits.device),
    options,
  );
}

/** Loss of `logits` [batch, length, vocabulary] against `labels` [batch, length] of the same positions. */
export function ForMaskedLMLoss(
  logits: Tensor,
  labels: Tensor,
  vocab_size: number,
  options: LossOptions = {},
): Tensor {
  return fixed_cross_entropy(
    logits.to("float32").reshape([-1, vocab_size]),
    labels.reshape([-1]).to(logits.device),
    options,
  );
}

/**
 * Regression, single-label or multi-label loss of `logits` [batch, labels]. The kind is `config.problem_type`; when
 * that is not set it is found from the number of labels and the dtype of `labels`, and written to the config.
 */
export function ForSequenceClassificationLoss(
  logits: Tensor,
  labels: Tensor,
  config: LabelConfig,
  options: LossOptions = {},
): Tensor {
  const num_labels = config.num_labels ?? 0;
  config.problem_type ??=
    num_labels === 1
      ? "regression"
      : labels.dtype === "int64" || labels.dtype === "int32"
        ? "single_label_classification"
        : "multi_label_classification";
  const target = labels.to(logits.device);
  switch (config.problem_type) {
    case "regression":
      return num_labels === 1 ? F.mse_loss(logits.squeeze(), target.squeeze()) : F.mse_loss(logits, target);
    case "single_label_classification":
      return fixed_cross_entropy(logits.reshape([-1, num_labels]), target.reshape([-1]), options);
    case "multi_label_classification":
      return F.binary_cross_entropy_with_logits(logits, target);
    default:
      throw new InvalidArgumentError(
        `config.problem_type is '${config.problem_type}'; it must be 'regression', 'single_label_classification' or 'multi_label_classification'.`,
      );
  }
}

/** Loss of `logits` [batch, length, labels] against `labels` [batch, length]. Computed in float32. */
export function ForTokenClassificationLoss(
  logits: Tensor,
  labels: Tensor,
  config: LabelConfig,
  options: LossOptions = {},
): Tensor {
  return fixed_cross_entropy(
    logits.reshape([-1, config.num_labels ?? 0]).to("float32"),
    labels.reshape([-1]).to(logits.device),
    options,
  );
}

/** Mean of the losses of start and end positions [batch] (or [batch, 1]); positions outside the sequence do not count. */
export function ForQuestionAnsweringLoss(
  start_logits: Tensor,
  end_logits: Tensor,
  start_positions: Tensor,
  end_positions: Tensor,
  options: Pick<LossOptions, "num_items_in_batch"> = {},
): Tensor {
  const length = start_logits.shape[1] as number;
  const position = (p: Tensor) =>
    (p.shape.length > 1 ? p.squeeze(-1) : p).to(start_logits.device).clamp(0, length);
  const loss = (logits: Tensor, positions: Tensor) =>
    fixed_cross_entropy(logits, position(positions), { ...options, ignore_index: length });
  return loss(start_logits, start_positions).add(loss(end_logits, end_positions)).div(2);
}
