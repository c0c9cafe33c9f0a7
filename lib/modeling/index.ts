// What models are made of: `torchformers/modeling`. Copies of models (`torchformers eject`) import from here, so that
// everything a model's file imports from this room must be found here; scripts/check.mjs holds it.
export * from "./activations.ts";
export * from "./attention.ts";
export * from "./backbone_utils.ts";
export * from "./cache_utils.ts";
export { register_checkpoint_conversion_mapping } from "./conversion_mapping.ts";
export * from "./conversion_ops.ts";
export type { FromPretrainedOptions, LoadingInfo } from "./from_pretrained.ts";
export * as initialization from "./initialization.ts";
export * from "./loss.ts";
export * from "./masking_utils.ts";
export * from "./modeling_layers.ts";
export * from "./modeling_outputs.ts";
export * from "./modeling_rope_utils.ts";
export * from "./modeling_utils.ts";
export type { SavePretrainedOptions } from "./save_pretrained.ts";
export {
  GroupWeightRename,
  PrefixChange,
  WeightConverter,
  WeightRenaming,
  WeightTransform,
} from "./weight_transforms.ts";
