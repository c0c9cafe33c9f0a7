export * from "./errors/index.ts";

// tensors
export * as torch from "./torch/index.ts";
export type { Tensor } from "./torch/index.ts";
