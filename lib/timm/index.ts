// timm's models: the ResNet family, by timm's names, with timm's weights.
export {
  adapt_input_conv,
  buildModel,
  type CreateModelOptions,
  create_model,
  type TimmModel,
} from "./create_model.ts";
export * from "./layers.ts";
export {
  get_pretrained_cfg,
  is_model,
  list_models,
  type PretrainedCfg,
  split_model_name_tag,
} from "./registry.ts";
export { type FeatureInfo, ResNet, type ResNetOptions } from "./resnet.ts";
export {
  BasicBlock,
  type BlockClass,
  type BlockName,
  type BlockOptions,
  Bottleneck,
  downsample_avg,
  downsample_conv,
} from "./resnet_blocks.ts";
