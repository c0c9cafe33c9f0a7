// What decoder models share: the bag that layers receive, the inputs of a forward, and heads that a model gets by name.
import { ConfigError, InvalidArgumentError } from "../errors/index.ts";
import * as nn from "../nn/index.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import type { AttentionInputs } from "./attention.ts";
import type { Cache } from "./cache_utils.ts";
import {
  ForQuestionAnsweringLoss,
  ForSequenceClassificationLoss,
  ForTokenClassificationLoss,
  type LossOptions,
} from "./loss.ts";
import {
  type BaseModelOutputWithPast,
  QuestionAnsweringModelOutput,
  SequenceClassifierOutputWithPast,
  TokenClassifierOutput,
} from "./modeling_outputs.ts";
import type { PositionEmbeddings } from "./modeling_rope_utils.ts";
import type { PreTrainedModel } from "./modeling_utils.ts";

export { GradientCheckpointingLayer } from "./gradient_checkpointing.ts";

/** What every layer of a decoder gets beside its input. */
export interface LayerInputs extends AttentionInputs {
  readonly position_embeddings: PositionEmbeddings;
  readonly past_key_values?: Cache | undefined;
}

type Optional<T> = T | null | undefined;

/** Inputs of a decoder: `input_ids` or `inputs_embeds`, everything else has a default. */
export interface DecoderInputs {
  /** Token ids [batch, length]. */
  input_ids?: Optional<Tensor>;
  /** [batch, length so far], 1 for real tokens and 0 for padding. Default: all real. */
  attention_mask?: Optional<Tensor>;
  /** Positions [batch, length]. Default: they follow those in the cache. */
  position_ids?: Optional<Tensor>;
  /** Keys and values of earlier tokens; grows by this call. Default: a fresh cache when `use_cache`. */
  past_key_values?: Optional<Cache>;
  /** Embeddings [batch, length, hidden] instead of `input_ids`. */
  inputs_embeds?: Optional<Tensor>;
  /** Return a cache. Default: `config.use_cache`. */
  use_cache?: Optional<boolean>;
  /** Return attention weights; needs `attn_implementation: "eager"`. Default: `config.output_attentions`. */
  output_attentions?: Optional<boolean>;
  /** Return the input and the output of each layer. Default: `config.output_hidden_states`. */
  output_hidden_states?: Optional<boolean>;
}

/** The names in {@link DecoderInputs}. */
export const DECODER_INPUTS: readonly (keyof DecoderInputs)[] = [
  "input_ids",
  "attention_mask",
  "position_ids",
  "past_key_values",
  "inputs_embeds",
  "use_cache",
  "output_attentions",
  "output_hidden_states",
];

/** A base model as the heads below use it. */
type DecoderModel = PreTrainedModel & { forward(inputs: DecoderInputs): BaseModelOutputWithPast };

// biome-ignore lint/suspicious/noExplicitAny: TypeScript wants exactly this of a class that is extended by a function.
type AnyModelClass = new (...args: any[]) => PreTrainedModel;

/** `Base` with the members of `Head`; its static members stay. */
export type WithHead<Base extends AnyModelClass, Head> = Omit<Base, "prototype"> & {
  new (...args: ConstructorParameters<Base>): InstanceType<Base> & Head;
  prototype: InstanceType<Base> & Head;
};

/** The base model of a head, under the name that its checkpoints use. */
function backbone(model: PreTrainedModel): DecoderModel {
  return (model as unknown as Record<string, DecoderModel>)[prefixOf(model)] as DecoderModel;
}

const prefixOf = (model: PreTrainedModel) => (model.constructor as typeof PreTrainedModel).base_model_prefix;

/** A class built here goes by the name of the function that built it until it is extended. */
function addHead<Base extends AnyModelClass>(
  Base: Base,
  Model: new (config: never) => PreTrainedModel,
  build: (model: PreTrainedModel & { score?: nn.Module }) => void,
) {
  return class extends Base {
    // biome-ignore lint/suspicious/noExplicitAny: as above.
    constructor(...args: any[]) {
      super(...args);
      Object.assign(this, { [prefixOf(this)]: new Model(this.config as never) });
      build(this);
      this.post_init();
    }
  };
}

/** What a sequence classifier takes. */
export interface SequenceClassificationInputs extends DecoderInputs, LossOptions {
  /** Class indices [batch], class indicators [batch, labels], or numbers for regression. */
  labels?: Optional<Tensor>;
}

/** What a sequence classifier has beside its base. */
export interface SequenceClassificationHead {
  readonly num_labels: number;
  readonly score: nn.Linear;
  forward(inputs: SequenceClassificationInputs): SequenceClassifierOutputWithPast;
}

/** A score per label from the last token that is not padding. Needs `config.pad_token_id` for batches. */
export function GenericForSequenceClassification<Base extends AnyModelClass>(
  Base: Base,
  Model: new (config: never) => PreTrainedModel,
): WithHead<Base, SequenceClassificationHead> {
  class ForSequenceClassification extends addHead(Base, Model, (model) => {
    const num_labels = labelCount(model);
    Object.assign(model, { num_labels, score: new nn.Linear(textSize(model), num_labels, { bias: false }) });
  }) {
    static base_model_prefix = "model";
    static forward_inputs: readonly string[] = [
      ...DECODER_INPUTS,
      "labels",
      "num_items_in_batch",
      "ignore_index",
    ];
    declare readonly num_labels: number;
    declare readonly score: nn.Linear;

    override forward(inputs: SequenceClassificationInputs): SequenceClassifierOutputWithPast {
      this.check_inputs(inputs);
      const { labels, num_items_in_batch, ignore_index, ...rest } = inputs;
      const outputs = backbone(this).forward(rest);
      const logits = pool(
        this.score.forward(outputs.last_hidden_state),
        inputs.input_ids,
        textConfig(this).pad_token_id,
      );
      const loss = labels
        ? ForSequenceClassificationLoss(logits, labels, this.config, { num_items_in_batch, ignore_index })
        : undefined;
      return new SequenceClassifierOutputWithPast({ ...outputs, loss, logits });
    }
  }
  return ForSequenceClassification as unknown as WithHead<Base, SequenceClassificationHead>;
}

/** Scores [batch, length, labels] → those of each row's last token that is not padding [batch, labels]. */
function pool(scores: Tensor, input_ids: Optional<Tensor>, pad_token_id: Optional<number>): Tensor {
  const [batch, length] = scores.shape as [number, number];
  if (pad_token_id === undefined || pad_token_id === null) {
    if (batch === 1) return scores.select(1, -1);
    throw new InvalidArgumentError(
      `A batch of ${batch} sequences needs config.pad_token_id, to find where each one ends.`,
    );
  }
  if (!input_ids) return scores.select(1, -1);
  const real = input_ids.ne(pad_token_id).to({ device: scores.device, dtype: "int32" });
  const last = torch.arange(length, { dtype: "int32", device: scores.device }).mul(real).argmax(-1);
  return scores.index(torch.arange(batch, { device: scores.device }), last);
}

/** What a token classifier takes. */
export interface TokenClassificationInputs extends DecoderInputs, LossOptions {
  /** Class indices [batch, length]; -100 does not count. */
  labels?: Optional<Tensor>;
}

/** What a token classifier has beside its base. */
export interface TokenClassificationHead {
  readonly num_labels: number;
  readonly dropout: nn.Dropout;
  readonly score: nn.Linear;
  forward(inputs: TokenClassificationInputs): TokenClassifierOutput;
}

/** A score per label for each token. */
export function GenericForTokenClassification<Base extends AnyModelClass>(
  Base: Base,
  Model: new (config: never) => PreTrainedModel,
): WithHead<Base, TokenClassificationHead> {
  class ForTokenClassification extends addHead(Base, Model, (model) => {
    const config = model.config as typeof model.config &
      Record<"classifier_dropout" | "hidden_dropout", Optional<number>> & {
        token_classification_bias?: boolean;
      };
    const num_labels = labelCount(model);
    Object.assign(model, {
      num_labels,
      dropout: new nn.Dropout(config.classifier_dropout ?? config.hidden_dropout ?? 0.1),
      score: new nn.Linear(textSize(model), num_labels, { bias: config.token_classification_bias ?? true }),
    });
  }) {
    static base_model_prefix = "model";
    static forward_inputs: readonly string[] = [
      ...DECODER_INPUTS,
      "labels",
      "num_items_in_batch",
      "ignore_index",
    ];
    declare readonly num_labels: number;
    declare readonly dropout: nn.Dropout;
    declare readonly score: nn.Linear;

    override forward(inputs: TokenClassificationInputs): TokenClassifierOutput {
      this.check_inputs(inputs);
      const { labels, num_items_in_batch, ignore_index, ...rest } = inputs;
      const outputs = backbone(this).forward(rest);
      const logits = this.score.forward(this.dropout.forward(outputs.last_hidden_state));
      const loss = labels
        ? ForTokenClassificationLoss(logits, labels, this.config, { num_items_in_batch, ignore_index })
        : undefined;
      return new TokenClassifierOutput({ ...outputs, loss, logits });
    }
  }
  return ForTokenClassification as unknown as WithHead<Base, TokenClassificationHead>;
}

/** What a finder of answers takes. */
export interface QuestionAnsweringInputs extends DecoderInputs, Pick<LossOptions, "num_items_in_batch"> {
  /** Index of the answer's first token [batch]; outside the sequence it does not count. */
  start_positions?: Optional<Tensor>;
  /** Index of the answer's last token [batch]. */
  end_positions?: Optional<Tensor>;
}

/** What a finder of answers has beside its base. */
export interface QuestionAnsweringHead {
  readonly qa_outputs: nn.Linear;
  forward(inputs: QuestionAnsweringInputs): QuestionAnsweringModelOutput;
}

/** Scores for each token to be the start and the end of an answer. */
export function GenericForQuestionAnswering<Base extends AnyModelClass>(
  Base: Base,
  Model: new (config: never) => PreTrainedModel,
): WithHead<Base, QuestionAnsweringHead> {
  class ForQuestionAnswering extends addHead(Base, Model, (model) => {
    Object.assign(model, { qa_outputs: new nn.Linear(textSize(model), 2) });
  }) {
    static base_model_prefix = "model";
    static forward_inputs: readonly string[] = [
      ...DECODER_INPUTS,
      "start_positions",
      "end_positions",
      "num_items_in_batch",
    ];
    declare readonly qa_outputs: nn.Linear;

    override forward(inputs: QuestionAnsweringInputs): QuestionAnsweringModelOutput {
      this.check_inputs(inputs);
      const { start_positions, end_positions, num_items_in_batch, ...rest } = inputs;
      const outputs = backbone(this).forward(rest);
      const logits = this.qa_outputs.forward(outputs.last_hidden_state); // [batch, length, 2]
      const [start_logits, end_logits] = logits.unbind(-1).map((part) => part.contiguous()) as [
        Tensor,
        Tensor,
      ];
      const loss =
        start_positions && end_positions
          ? ForQuestionAnsweringLoss(start_logits, end_logits, start_positions, end_positions, {
              num_items_in_batch,
            })
          : undefined;
      return new QuestionAnsweringModelOutput({ ...outputs, loss, start_logits, end_logits });
    }
  }
  return ForQuestionAnswering as unknown as WithHead<Base, QuestionAnsweringHead>;
}

interface TextConfig {
  readonly hidden_size: number;
  readonly pad_token_id?: Optional<number>;
}

const textConfig = (model: PreTrainedModel) => model.config.get_text_config() as unknown as TextConfig;
/** The number of labels that a classifier scores. */
function labelCount(model: PreTrainedModel): number {
  const { num_labels } = model.config;
  if (num_labels === null)
    throw new ConfigError(`${model.constructor.name} needs config.id2label or config.num_labels.`);
  return num_labels;
}

const textSize = (model: PreTrainedModel) => textConfig(model).hidden_size;

/** The positions whose logits are wanted: the last `keep` ones, all for 0, or those of an index tensor. */
export function slice_logits_to_keep(hidden_states: Tensor, keep: number | Tensor): Tensor {
  if (typeof keep === "number") {
    const length = hidden_states.shape[1] as number;
    return keep === 0 || keep >= length ? hidden_states : hidden_states.narrow(1, length - keep, keep);
  }
  if (keep.shape.length === 1) return hidden_states.index_select(1, keep);
  if (keep.dtype === "bool") return hidden_states.index(keep);
  return torch.take_along_dim(hidden_states, keep.unsqueeze(-1), 1);
}
