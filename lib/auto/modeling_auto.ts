// The Auto model classes: one per task. What a task's models take and give is an interface, so that the compiler knows
// `out.logits` without knowing the model.
import type { Generates } from "../generation/generation_mixin.ts";
import type { Backbone } from "../modeling/backbone_utils.ts";
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

/** What models of images take. */
interface ImageInputs {
  /** Images [batch, channels, height, width]. */
  pixel_values?: Optional<Tensor>;
  labels?: Optional<Tensor>;
}

/** A model that scores labels for images. */
export interface ImageClassifier extends PreTrainedModel {
  forward(
    inputs: ImageInputs & MoreInputs,
  ): ModelOutput & Traces & { readonly logits: Tensor; readonly loss?: Tensor | undefined };
}

/** A model that fills hidden patches of images. */
export interface MaskedImageModel extends PreTrainedModel {
  forward(
    inputs: ImageInputs & { bool_masked_pos?: Optional<Tensor> } & MoreInputs,
  ): ModelOutput & Traces & { readonly reconstruction: Tensor; readonly loss?: Tensor | undefined };
}

/** A model that gives masks for points and boxes. */
export interface MaskGenerator extends PreTrainedModel {
  forward(
    inputs: ImageInputs & MoreInputs,
  ): ModelOutput & { readonly pred_masks: Tensor; readonly iou_scores: Tensor };
}

/** A model whose stages give feature maps. */
export interface BackboneModel extends PreTrainedModel, Omit<Backbone, "forward"> {
  forward(
    inputs: ImageInputs & MoreInputs,
  ): ModelOutput & Traces & { readonly feature_maps: readonly Tensor[] };
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
/**
 * Models that give feature maps to others.
 *
 * @example
 * const backbone = await AutoBackbone.from_pretrained("microsoft/resnet-50", { out_features: ["stage2", "stage4"] });
 * backbone.channels; // [512, 2048]
 */
export const AutoBackbone: AutoModelClass<BackboneModel> = autoModel("AutoBackbone");
/** Models with the heads that they were trained with. */
export const AutoModelForPreTraining: AutoModelClass<AnyModel> = autoModel("AutoModelForPreTraining");

/**
 * Language models.
 *
 * @example
 * const model = await AutoModelForCausalLM.from_pretrained("./llama", { dtype: "bfloat16" });
 * const ids = await model.generate({ input_ids }, { max_new_tokens: 20 });
 */
export const AutoModelForCausalLM: AutoModelClass<CausalLM> = autoModel("AutoModelForCausalLM");
/** Models that fill gaps: logits [batch, length, vocabulary]. */
export const AutoModelForMaskedLM: AutoModelClass<Scorer> = autoModel("AutoModelForMaskedLM");
/** Encoder-decoder language models, for translating and summing up. */
export const AutoModelForSeq2SeqLM: AutoModelClass<CausalLM> = autoModel("AutoModelForSeq2SeqLM");

/**
 * One class or number per text: logits [batch, labels].
 *
 * @example
 * const model = await AutoModelForSequenceClassification.from_pretrained("./llama", { num_labels: 3 });
 */
export const AutoModelForSequenceClassification: AutoModelClass<SequenceClassifier> = autoModel(
  "AutoModelForSequenceClassification",
);
/** One class per token: logits [batch, length, labels]. */
export const AutoModelForTokenClassification: AutoModelClass<TokenClassifier> = autoModel(
  "AutoModelForTokenClassification",
);
/** Where in a text the answer begins and ends: `start_logits`, `end_logits` [batch, length]. */
export const AutoModelForQuestionAnswering: AutoModelClass<QuestionAnswerer> = autoModel(
  "AutoModelForQuestionAnswering",
);
/** Which of several continuations fits: logits [batch, choices]. */
export const AutoModelForMultipleChoice: AutoModelClass<Scorer> = autoModel("AutoModelForMultipleChoice");
/** Whether a text follows another: logits [batch, 2]. */
export const AutoModelForNextSentencePrediction: AutoModelClass<Scorer> = autoModel(
  "AutoModelForNextSentencePrediction",
);
/** Text encoders, as other models use them. */
export const AutoModelForTextEncoding: AutoModelClass<BaseModel> = autoModel("AutoModelForTextEncoding");

/**
 * One class per image: logits [batch, labels].
 *
 * @example
 * const model = await AutoModelForImageClassification.from_pretrained("google/vit-base-patch16-224");
 * const { logits } = await model.run({ pixel_values });
 */
export const AutoModelForImageClassification: AutoModelClass<ImageClassifier> = autoModel(
  "AutoModelForImageClassification",
);
/** Images against texts that are given with them. */
export const AutoModelForZeroShotImageClassification: AutoModelClass<AnyModel> = autoModel(
  "AutoModelForZeroShotImageClassification",
);
/** Masks of an image, of any kind. */
export const AutoModelForImageSegmentation: AutoModelClass<AnyModel> = autoModel(
  "AutoModelForImageSegmentation",
);
/** One class per pixel: logits [batch, labels, height, width]. */
export const AutoModelForSemanticSegmentation: AutoModelClass<Scorer> = autoModel(
  "AutoModelForSemanticSegmentation",
);
/** One mask per object. */
export const AutoModelForInstanceSegmentation: AutoModelClass<AnyModel> = autoModel(
  "AutoModelForInstanceSegmentation",
);
/** Semantic, instance and panoptic masks by one model. */
export const AutoModelForUniversalSegmentation: AutoModelClass<AnyModel> = autoModel(
  "AutoModelForUniversalSegmentation",
);
/** Boxes and classes of objects. */
export const AutoModelForObjectDetection: AutoModelClass<Scorer> = autoModel("AutoModelForObjectDetection");
/** Boxes of what texts describe. */
export const AutoModelForZeroShotObjectDetection: AutoModelClass<AnyModel> = autoModel(
  "AutoModelForZeroShotObjectDetection",
);
/** One depth per pixel. */
export const AutoModelForDepthEstimation: AutoModelClass<AnyModel> = autoModel("AutoModelForDepthEstimation");
/** Masks for points and boxes that are given. */
export const AutoModelForMaskGeneration: AutoModelClass<MaskGenerator> = autoModel(
  "AutoModelForMaskGeneration",
);
/** Models that fill hidden patches of images. */
export const AutoModelForMaskedImageModeling: AutoModelClass<MaskedImageModel> = autoModel(
  "AutoModelForMaskedImageModeling",
);
/** One class per video: logits [batch, labels]. */
export const AutoModelForVideoClassification: AutoModelClass<Scorer> = autoModel(
  "AutoModelForVideoClassification",
);
/** Language models that see images. */
export const AutoModelForImageTextToText: AutoModelClass<CausalLM> = autoModel("AutoModelForImageTextToText");

/** One class per recording: logits [batch, labels]. */
export const AutoModelForAudioClassification: AutoModelClass<Scorer> = autoModel(
  "AutoModelForAudioClassification",
);
/** Classes per frame: logits [batch, frames, labels]. */
export const AutoModelForAudioFrameClassification: AutoModelClass<Scorer> = autoModel(
  "AutoModelForAudioFrameClassification",
);
/** One vector per speaker. */
export const AutoModelForAudioXVector: AutoModelClass<Scorer> = autoModel("AutoModelForAudioXVector");
/** Speech to characters, frame by frame: logits [batch, frames, vocabulary]. */
export const AutoModelForCTC: AutoModelClass<Scorer> = autoModel("AutoModelForCTC");
/** Speech to text by an encoder-decoder. */
export const AutoModelForSpeechSeq2Seq: AutoModelClass<CausalLM> = autoModel("AutoModelForSpeechSeq2Seq");
