export * from "./configuration_sam.ts";
export * from "./modeling_sam.ts";
