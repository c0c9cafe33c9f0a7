// Adapters in PEFT's format.
export { type LoadAdapterOptions, type MergeOptions, PeftAdapterMixin } from "./adapter_mixin.ts";
export { LoraConfig, type LoraConfigFields, PeftConfig, type TaskType } from "./config.ts";
export { LoraLayer } from "./lora_layer.ts";
export { LoraConv, LoraEmbedding, LoraLinear } from "./lora_layers.ts";
export { ModulesToSaveWrapper } from "./modules_to_save.ts";
export { get_peft_model, inject_adapter_in_model, PeftModel } from "./peft_model.ts";
export {
  type AdapterLoadResult,
  type AdapterStateOptions,
  get_peft_model_state_dict,
  set_peft_model_state_dict,
} from "./state.ts";
