export * from "./configuration_timm_wrapper.ts";
export * from "./modeling_timm_wrapper.ts";
