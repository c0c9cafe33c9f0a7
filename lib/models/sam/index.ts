export * from "./configuration_sam.ts";
export {
  type PostProcessMasksOptions,
  SamImageProcessor,
  SamImageProcessorPil,
} from "./image_processing_sam.ts";
export * from "./modeling_sam.ts";
export * from "./processing_sam.ts";
