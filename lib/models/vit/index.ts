export * from "./configuration_vit.ts";
export * from "./modeling_vit.ts";
