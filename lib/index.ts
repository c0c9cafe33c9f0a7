export * from "./errors/index.ts";

// tensors
export * as torch from "./torch/index.ts";
export type { Tensor } from "./torch/index.ts";

// layers
export * as nn from "./nn/index.ts";

// configuration
export * from "./configuration/index.ts";
export { AutoConfig } from "./auto/configuration_auto.ts";
export { LlamaConfig, type LlamaConfigOptions } from "./models/llama/configuration_llama.ts";

// files
export * as safetensors from "./safetensors/index.ts";

// tokenizers
export { AutoTokenizer, type TokenizerClass } from "./auto/tokenization_auto.ts";
export { BatchEncoding } from "./processing/batch_encoding.ts";
export type { ChatMessage, ChatTemplates } from "./processing/chat_template.ts";
export {
  type ChatTemplateOptions,
  type DecodeOptions,
  PreTrainedTokenizerBase,
  PreTrainedTokenizerFast,
  type TokenizerCallOptions,
  type TokenizerLoadOptions,
  TokenizersBackend,
} from "./processing/tokenization_utils.ts";
export type { AddedTokenData } from "./processing/tokenizer_backend.ts";
