// MyModel. Importing this package makes the Auto classes know it.
import { AutoConfig, AutoModel, AutoModelForImageClassification } from "torchformers";
import { MyModelConfig } from "./configuration_my_model.ts";
import { MyModelForImageClassification, MyModelModel } from "./modeling_my_model.ts";

AutoConfig.register("my-model", MyModelConfig);
AutoModel.register(MyModelConfig, MyModelModel);
AutoModelForImageClassification.register(MyModelConfig, MyModelForImageClassification);

export * from "./configuration_my_model.ts";
export * from "./modeling_my_model.ts";
