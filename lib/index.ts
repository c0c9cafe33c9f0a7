// Everything that a program may import, grouped by what it is for.
// biome-ignore-all assist/source/organizeImports: the groups are for people

// errors
export * from "./errors/index.ts";

// tensors
export type { Tensor } from "./torch/index.ts";
export * as torch from "./compile/torch.ts";
export { chromeTrace } from "./compile/program.ts";

// models larger than a device
export * from "./big_modeling/index.ts";

// layers
export * as nn from "./nn/index.ts";

// training
export * as optim from "./optim/index.ts";

// files
export * as safetensors from "./safetensors/index.ts";
export * as hub from "./hub/index.ts";
export type { PushToHubOptions } from "./hub/push.ts";
export { type Inspection, inspect_repo } from "./custom_code/inspect_repo.ts";

// placement
export {
  type Block,
  BlockStreamer,
  type BlockStreamerOptions,
  is_resting,
  type LimitedDeviceOptions,
  limited_devices,
  type OffloadStats,
  PlacementDevice,
} from "./placement/index.ts";

// configuration
export { AutoConfig } from "./auto/configuration_auto.ts";
export * from "./configuration/index.ts";

// tokenizers
export { AutoTokenizer, type TokenizerClass } from "./auto/tokenization_auto.ts";
export { BatchEncoding, type TensorEncoding } from "./processing/batch_encoding.ts";
export type { ChatMessage, ChatTemplates } from "./processing/chat_template.ts";
export {
  PreTrainedTokenizerBase,
  PreTrainedTokenizerFast,
  TokenizersBackend,
} from "./processing/tokenization_utils.ts";
export type { AddedTokenData } from "./processing/tokenizer_backend.ts";
export type {
  ChatTemplateOptions,
  DecodeOptions,
  TokenizerCallOptions,
  TokenizerLoadOptions,
} from "./processing/tokenizer_options.ts";

// images and processors
export {
  type AnyProcessor,
  AutoFeatureExtractor,
  AutoImageProcessor,
  AutoProcessor,
  type AutoProcessorOptions,
  AutoVideoProcessor,
} from "./auto/processing_auto.ts";
export { BatchFeature, type TensorType } from "./processing/batch_feature.ts";
export {
  BaseImageProcessorFast,
  PilBackend,
  TorchvisionBackend,
} from "./processing/image/image_processing_backends.ts";
export {
  BaseImageProcessor,
  type ImageCallOptions,
  type ImageInput,
  type ImagesKwargs,
  type PadOptions,
  type PreparedKwargs,
  type ResizeOptions,
} from "./processing/image/image_processing_utils.ts";
export {
  ChannelDimension,
  get_size_dict,
  IMAGENET_DEFAULT_MEAN,
  IMAGENET_DEFAULT_STD,
  IMAGENET_STANDARD_MEAN,
  IMAGENET_STANDARD_STD,
  OPENAI_CLIP_MEAN,
  OPENAI_CLIP_STD,
  PILImageResampling,
  type SizeDict,
  type SizeInput,
} from "./processing/image/image_utils.ts";
export {
  type ImageSource,
  load_image,
  load_images,
  type LoadImageOptions,
  type RawImage,
} from "./processing/image/load_image.ts";
export {
  BaseVideoProcessor,
  FeatureExtractionMixin,
  type PreprocessorLoadOptions,
} from "./processing/preprocessor.ts";
export { type ProcessorCallOptions, ProcessorMixin } from "./processing/processing_utils.ts";

// models
export type { AutoModelClass } from "./auto/auto_factory.ts";
export * from "./auto/modeling_auto.ts";
export type {
  FromPretrainedOptions as ModelFromPretrainedOptions,
  LoadingInfo,
  ProgressEvent,
} from "./modeling/from_pretrained.ts";
export { type ModelClass, PreTrainedModel } from "./modeling/modeling_utils.ts";
export type { SavePretrainedOptions } from "./modeling/save_pretrained.ts";
export * from "./models/convnext/index.ts";
export * from "./models/llama/index.ts";
export * from "./models/resnet/index.ts";
export * from "./models/sam/index.ts";
export * from "./models/timm_wrapper/index.ts";
export * from "./models/vit/index.ts";

// adapters
export * from "./adapters/index.ts";

// models of timm
export * as timm from "./timm/index.ts";

// conversions of checkpoints
export * from "./modeling/conversion_ops.ts";
export { register_checkpoint_conversion_mapping } from "./modeling/conversion_mapping.ts";
export {
  GroupWeightRename,
  PrefixChange,
  WeightConverter,
  WeightRenaming,
  WeightTransform,
} from "./modeling/weight_transforms.ts";

// what models are made of
export { ACT2CLS, ACT2FN, type Activation } from "./modeling/activations.ts";
export {
  ALL_ATTENTION_FUNCTIONS,
  type AttentionFunction,
  type AttentionOptions,
  attention,
  eager_attention_forward,
  register_attention,
  repeat_kv,
  sdpa_attention_forward,
} from "./modeling/attention.ts";
export {
  type Backbone,
  type BackboneInputs,
  BackboneMixin,
  type WithBackbone,
} from "./modeling/backbone_utils.ts";
export {
  Cache,
  CacheLayer,
  DynamicCache,
  DynamicLayer,
  DynamicSlidingWindowLayer,
  EncoderDecoderCache,
  StaticCache,
  StaticLayer,
} from "./modeling/cache_utils.ts";
export * from "./modeling/loss.ts";
export {
  and_masks,
  create_bidirectional_mask,
  create_bidirectional_sliding_window_mask,
  create_causal_mask,
  create_chunked_causal_mask,
  create_sliding_window_causal_mask,
  type MaskFunction,
  or_masks,
} from "./modeling/masking_utils.ts";
export * from "./modeling/modeling_layers.ts";
export * from "./modeling/modeling_outputs.ts";
export {
  apply_rotary_pos_emb,
  ROPE_INIT_FUNCTIONS,
  RotaryEmbedding,
  rotate_half,
} from "./modeling/modeling_rope_utils.ts";

// generation
export * from "./generation/classifier_free_guidance.ts";
export type { Step } from "./generation/generate.ts";
export { type Generates, GenerationMixin } from "./generation/generation_mixin.ts";
export * from "./generation/generation_outputs.ts";
export * from "./generation/logits_process/constraints.ts";
export {
  LogitsProcessor,
  type LogitsProcessorLike,
  LogitsProcessorList,
  type TokenIds,
} from "./generation/logits_process/logits_processor.ts";
export * from "./generation/logits_process/repetition.ts";
export * from "./generation/logits_process/warpers.ts";
export type { GenerateInputs, GenerateOptions, Streamer } from "./generation/options.ts";
export * from "./generation/stopping_criteria.ts";
export type { TextStreamOptions } from "./generation/stream_text.ts";
export {
  AsyncTextIteratorStreamer,
  BaseStreamer,
  type StreamedIds,
  type StreamerTokenizer,
  TextIteratorStreamer,
  type TextIteratorStreamerOptions,
  TextStreamer,
  type TextStreamerOptions,
} from "./generation/streamers.ts";

// pipelines
export * from "./pipelines/index.ts";
