// The Auto model classes: one per task. What a task's models take and give is an interface, so that the compiler knows
// `out.logits` without knowing the model.
import type { Generates } from "../generation/generation_mixin.ts";
import type {
  DecoderInputs,
  QuestionAnsweringInputs,
  SequenceClassificationInputs,
  TokenClassificationInputs,
} from "../modeling/modeling_layers.ts";
import type { ModelOutput } from "../modeling/modeling_outputs.ts";
import type { PreTrainedModel } from "../modeling/modeling_utils.ts";
import type { Tensor } from "../torch/index.ts";
import { type AutoModelClass, autoModel } from "./auto_factory.ts";

type Optional<T> = T | null | undefined;

/** Inputs that a model of a task may have beyond those that all of them have. */
type MoreInputs = { [input: string]: unknown };

type Traces = {
  readonly hidden_states?: readonly Tensor[] | undefined;
  readonly attentions?: readonly Tensor[] | undefined;
};

/** A model without a head. */
export interface BaseModel extends PreTrainedModel {
  forward(inputs: DecoderInputs & MoreInputs): ModelOutput & Traces & { readonly last_hidden_state: Tensor };
}

/** A model that scores the next token. */
export interface CausalLM extends PreTrainedModel, Generates {
  generation_config: Generates["generation_config"];
  can_generate(): boolean;
  forward(
    inputs: DecoderInputs & {
      labels?: Optional<Tensor>;
      logits_to_keep?: number | Tensor | undefined;
    } & MoreInputs,
  ): ModelOutput & Traces & { readonly logits: Tensor; readonly loss?: Tensor | undefined };
}

/** A model that scores labels for a whole sequence. */
export interface SequenceClassifier extends PreTrainedModel {
  forward(
    inputs: SequenceClassificationInputs & MoreInputs,
  ): ModelOutput & Traces & { readonly logits: Tensor; readonly loss?: Tensor | undefined };
}

/** A model that scores labels for each token. */
export interface TokenClassifier extends PreTrainedModel {
  forward(
    inputs: TokenClassificationInputs & MoreInputs,
  ): ModelOutput & Traces & { readonly logits: Tensor; readonly loss?: Tensor | undefined };
}

/** A model that finds the start and the end of an answer. */
export interface QuestionAnswerer extends PreTrainedModel {
  forward(inputs: QuestionAnsweringInputs & MoreInputs): ModelOutput &
    Traces & {
      readonly start_logits: Tensor;
      readonly end_logits: Tensor;
      readonly loss?: Tensor | undefined;
    };
}

/** A model that scores something else: its logits. */
export interface Scorer extends PreTrainedModel {
  forward(
    inputs: MoreInputs,
  ): ModelOutput & Traces & { readonly logits: Tensor; readonly loss?: Tensor | undefined };
}

/** A model whose output is its own. */
export interface AnyModel extends PreTrainedModel {
  forward(inputs: MoreInputs): ModelOutput & Record<string, unknown>;
}

/** The model without a head. */
export const AutoModel: AutoModelClass<BaseModel> = autoModel("AutoModel");
export const AutoBackbone: AutoModelClass<AnyModel> = autoModel("AutoBackbone");
export const AutoModelForPreTraining: AutoModelClass<AnyModel> = autoModel("AutoModelForPreTraining");

/**
 * Language models.
 *
 * @example
 * const model = await AutoModelForCausalLM.from_pretrained("./llama", { dtype: "bfloat16" });
 * const ids = await model.generate({ input_ids }, { max_new_tokens: 20 });
 */
export const AutoModelForCausalLM: AutoModelClass<CausalLM> = autoModel("AutoModelForCausalLM");
export const AutoModelForMaskedLM: AutoModelClass<Scorer> = autoModel("AutoModelForMaskedLM");
export const AutoModelForSeq2SeqLM: AutoModelClass<CausalLM> = autoModel("AutoModelForSeq2SeqLM");

export const AutoModelForSequenceClassification: AutoModelClass<SequenceClassifier> = autoModel(
  "AutoModelForSequenceClassification",
);
export const AutoModelForTokenClassification: AutoModelClass<TokenClassifier> = autoModel(
  "AutoModelForTokenClassification",
);
export const AutoModelForQuestionAnswering: AutoModelClass<QuestionAnswerer> = autoModel(
  "AutoModelForQuestionAnswering",
);
export const AutoModelForMultipleChoice: AutoModelClass<Scorer> = autoModel("AutoModelForMultipleChoice");
export const AutoModelForNextSentencePrediction: AutoModelClass<Scorer> = autoModel(
  "AutoModelForNextSentencePrediction",
);
export const AutoModelForTextEncoding: AutoModelClass<BaseModel> = autoModel("AutoModelForTextEncoding");

export const AutoModelForImageClassification: AutoModelClass<Scorer> = autoModel(
  "AutoModelForImageClassification",
);
export const AutoModelForZeroShotImageClassification: AutoModelClass<AnyModel> = autoModel(
  "AutoModelForZeroShotImageClassification",
);
export const AutoModelForImageSegmentation: AutoModelClass<AnyModel> = autoModel(
  "AutoModelForImageSegmentation",
);
export const AutoModelForSemanticSegmentation: AutoModelClass<Scorer> = autoModel(
  "AutoModelForSemanticSegmentation",
);
export const AutoModelForInstanceSegmentation: AutoModelClass<AnyModel> = autoModel(
  "AutoModelForInstanceSegmentation",
);
export const AutoModelForUniversalSegmentation: AutoModelClass<AnyModel> = autoModel(
  "AutoModelForUniversalSegmentation",
);
export const AutoModelForObjectDetection: AutoModelClass<Scorer> = autoModel("AutoModelForObjectDetection");
export const AutoModelForZeroShotObjectDetection: AutoModelClass<AnyModel> = autoModel(
  "AutoModelForZeroShotObjectDetection",
);
export const AutoModelForDepthEstimation: AutoModelClass<AnyModel> = autoModel("AutoModelForDepthEstimation");
export const AutoModelForMaskGeneration: AutoModelClass<AnyModel> = autoModel("AutoModelForMaskGeneration");
export const AutoModelForMaskedImageModeling: AutoModelClass<AnyModel> = autoModel(
  "AutoModelForMaskedImageModeling",
);
export const AutoModelForVideoClassification: AutoModelClass<Scorer> = autoModel(
  "AutoModelForVideoClassification",
);
export const AutoModelForImageTextToText: AutoModelClass<CausalLM> = autoModel("AutoModelForImageTextToText");

export const AutoModelForAudioClassification: AutoModelClass<Scorer> = autoModel(
  "AutoModelForAudioClassification",
);
export const AutoModelForAudioFrameClassification: AutoModelClass<Scorer> = autoModel(
  "AutoModelForAudioFrameClassification",
);
export const AutoModelForAudioXVector: AutoModelClass<Scorer> = autoModel("AutoModelForAudioXVector");
export const AutoModelForCTC: AutoModelClass<Scorer> = autoModel("AutoModelForCTC");
export const AutoModelForSpeechSeq2Seq: AutoModelClass<CausalLM> = autoModel("AutoModelForSpeechSeq2Seq");
