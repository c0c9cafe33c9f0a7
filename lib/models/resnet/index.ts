export * from "./configuration_resnet.ts";
export * from "./modeling_resnet.ts";
