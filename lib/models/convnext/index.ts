export * from "./image_processing_convnext.ts";
