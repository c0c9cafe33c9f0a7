export * from "./errors/index.ts";

// tensors
export * as torch from "./torch/index.ts";
export type { Tensor } from "./torch/index.ts";

// configuration
export * from "./configuration/index.ts";
export { AutoConfig } from "./auto/configuration_auto.ts";
export { LlamaConfig, type LlamaConfigOptions } from "./models/llama/configuration_llama.ts";

// files
export * as safetensors from "./safetensors/index.ts";
