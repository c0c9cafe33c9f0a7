export * from "./configuration_vit.ts";
export * from "./image_processing_vit.ts";
export * from "./modeling_vit.ts";
