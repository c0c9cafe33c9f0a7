// torch.nn.functional: layers without state.

export * from "./functional/activation.ts";
export * from "./functional/attention.ts";
export * from "./functional/convolution.ts";
export * from "./functional/distance.ts";
export * from "./functional/dropout.ts";
export * from "./functional/linear.ts";
export * from "./functional/loss.ts";
export * from "./functional/normalization.ts";
export * from "./functional/padding.ts";
export {
  adaptive_avg_pool1d,
  adaptive_avg_pool2d,
  adaptive_avg_pool3d,
  adaptive_max_pool1d,
  adaptive_max_pool2d,
  adaptive_max_pool3d,
  avg_pool1d,
  avg_pool2d,
  avg_pool3d,
  lp_pool1d,
  lp_pool2d,
  lp_pool3d,
  max_pool1d,
  max_pool2d,
  max_pool3d,
  max_unpool1d,
  max_unpool2d,
  max_unpool3d,
  type OutputSizes,
} from "./functional/pooling.ts";
export * from "./functional/vision.ts";
