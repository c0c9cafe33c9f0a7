// Generating with a model: `torchformers/generation`. As of lib/modeling/index.ts: what models import must be found here.
export * from "./classifier_free_guidance.ts";
export type { Step } from "./generate.ts";
export { type Generates, GenerationMixin } from "./generation_mixin.ts";
export * from "./generation_outputs.ts";
export * from "./logits_process/constraints.ts";
export {
  LogitsProcessor,
  type LogitsProcessorLike,
  LogitsProcessorList,
  type TokenIds,
} from "./logits_process/logits_processor.ts";
export * from "./logits_process/repetition.ts";
export * from "./logits_process/warpers.ts";
export type { GenerateInputs, GenerateOptions, Streamer } from "./options.ts";
export * from "./stopping_criteria.ts";
export type { TextStreamOptions } from "./stream_text.ts";
export {
  AsyncTextIteratorStreamer,
  BaseStreamer,
  type StreamedIds,
  type StreamerTokenizer,
  TextIteratorStreamer,
  type TextIteratorStreamerOptions,
  TextStreamer,
  type TextStreamerOptions,
} from "./streamers.ts";
