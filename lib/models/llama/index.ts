export * from "./configuration_llama.ts";
export * from "./modeling_llama.ts";
