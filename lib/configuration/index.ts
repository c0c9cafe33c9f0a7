export { BackboneConfigMixin, type BackboneFields, type WithBackboneFields } from "./backbone_config.ts";
export { CONFIG_NAME, TRANSFORMERS_VERSION } from "./config_files.ts";
export {
  type ConfigClass,
  type ConfigKwargs,
  type FromPretrainedOptions,
  PreTrainedConfig,
  PretrainedConfig,
} from "./configuration_utils.ts";
export {
  GENERATION_CONFIG_NAME,
  GenerationConfig,
  type GenerationConfigOptions,
  type GenerationFromPretrainedOptions,
  type GenerationMode,
} from "./generation_config.ts";
export type { RopeParameters } from "./rope.ts";
export { registerConfigClass, type SubConfig, type SubConfigSpec } from "./sub_configs.ts";
export { SynthIDTextWatermarkingConfig, WatermarkingConfig } from "./watermarking_config.ts";
