// torch.nn: modules, layers, losses; `functional`, `init` and `utils`.

export * from "./activation.ts";
export type { Rest } from "./arguments.ts";
export { type AttendOptions, MultiheadAttention, type MultiheadAttentionOptions } from "./attention.ts";
export {
  BatchNorm1d,
  BatchNorm2d,
  BatchNorm3d,
  InstanceNorm1d,
  InstanceNorm2d,
  InstanceNorm3d,
  type NormOptions,
} from "./batchnorm.ts";
export * from "./containers.ts";
export {
  Conv1d,
  Conv2d,
  Conv3d,
  type ConvOptions,
  type ConvPaddingMode,
  ConvTranspose1d,
  ConvTranspose2d,
  ConvTranspose3d,
  type ConvTransposeOptions,
} from "./conv.ts";
export * from "./distance.ts";
export * from "./dropout.ts";
export * from "./embedding.ts";
export type { FactoryOptions } from "./factory.ts";
export * as F from "./functional.ts";
export * as functional from "./functional.ts";
export type { Around, Gradients } from "./hooks.ts";
export * from "./identity.ts";
export * as init from "./init.ts";
export { Bilinear, Linear, type LinearOptions } from "./linear.ts";
export * from "./loss.ts";
export { Module } from "./module.ts";
export type { ToOptions } from "./module_to.ts";
export type { NamedOptions } from "./module_walk.ts";
export * from "./normalization.ts";
export * from "./padding.ts";
export { Buffer, Parameter } from "./parameter.ts";
export * from "./pooling.ts";
export { GRU, LSTM, RNN, type RNNOptions } from "./rnn.ts";
export type { IncompatibleKeys, LoadContext, LocalMetadata, StateDict } from "./state_dict.ts";
export * from "./upsampling.ts";
export * as utils from "./utils.ts";
