// Which Auto class shall find a class that is shared with its code.
import { InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";

/** The reference's Auto classes, by name: what a file may name. Those that are not here yet are names all the same. */
export const AUTO_CLASSES: readonly string[] = [
  "AutoConfig",
  "AutoTokenizer",
  "AutoImageProcessor",
  "AutoVideoProcessor",
  "AutoFeatureExtractor",
  "AutoProcessor",
  "AutoModel",
  "AutoBackbone",
  ...`PreTraining CausalLM MaskedLM Seq2SeqLM SequenceClassification QuestionAnswering TableQuestionAnswering
  VisualQuestionAnswering DocumentQuestionAnswering TokenClassification MultipleChoice NextSentencePrediction TextEncoding
  ImageClassification ZeroShotImageClassification ImageSegmentation SemanticSegmentation InstanceSegmentation
  UniversalSegmentation ObjectDetection ZeroShotObjectDetection DepthEstimation NormalEstimation PointmapEstimation
  PoseEstimation ImageMatting ImageToImage MaskGeneration MaskedImageModeling KeypointDetection KeypointMatching
  TextRecognition TableRecognition VideoClassification ImageTextToText MultimodalLM AudioClassification
  AudioFrameClassification AudioXVector AudioTokenization CTC RNNT TDT SpeechSeq2Seq TextToSpectrogram TextToWaveform
  TimeSeriesPrediction Decision`
    .split(/\s+/)
    .map((task) => `AutoModelFor${task}`),
];

/** A class that can be shared. */
export interface Shareable {
  readonly name: string;
  readonly prototype: object;
  _auto_class: string | null;
}

/** What `register_for_auto_class` of every kind of class does. `auto_class` is a name or the Auto class itself. */
export function registerForAutoClass(cls: Shareable, auto_class: string | { readonly name: string }): void {
  const name = typeof auto_class === "string" ? auto_class : auto_class?.name;
  if (!AUTO_CLASSES.includes(name)) {
    throw new InvalidArgumentError(
      `${cls.name}.register_for_auto_class: ${name ? `'${name}'` : String(auto_class)} is no Auto class.`,
      { suggestion: suggest(String(name), AUTO_CLASSES) },
    );
  }
  cls._auto_class = name;
}
