// Models that the tests share with their code.
import { nn, PreTrainedModel, type Tensor } from "torchformers";
import { TinyConfig } from "./configuration_tiny.ts";
import { Scale } from "./layers/scale.ts";

export class TinyModel extends PreTrainedModel {
  static override readonly config_class = TinyConfig;
  readonly fc: nn.Linear;
  readonly scale: Scale;

  constructor(config: TinyConfig) {
    super(config);
    this.fc = new nn.Linear(config.width, 2);
    this.scale = new Scale(2);
    this.post_init();
  }

  override forward(x: Tensor, labels?: Tensor): { logits: Tensor; loss?: Tensor } {
    const logits = this.scale.forward(this.fc.forward(x));
    return labels === undefined ? { logits } : { logits, loss: nn.functional.cross_entropy(logits, labels) };
  }
}
