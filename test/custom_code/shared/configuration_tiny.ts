// A configuration that the tests share with its code.
import { type ConfigKwargs, PretrainedConfig } from "torchformers";

export class TinyConfig extends PretrainedConfig {
  static override readonly model_type: string = "shared-tiny";
  static override readonly field_types = { width: "int" };
  declare width: number;

  constructor({ width = 3, ...kwargs }: ConfigKwargs & { width?: number } = {}) {
    super(kwargs);
    this.width = width;
    this.post_init();
  }
}
