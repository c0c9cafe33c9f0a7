// Models of timm as models of this library: loaded from timm's repositories, saved, trained, found by Auto classes.
import { InvalidArgumentError } from "../../errors/index.ts";
import { register_checkpoint_conversion_mapping } from "../../modeling/conversion_mapping.ts";
import { ForSequenceClassificationLoss } from "../../modeling/loss.ts";
import { defineOutput, ImageClassifierOutput } from "../../modeling/modeling_outputs.ts";
import { PreTrainedModel } from "../../modeling/modeling_utils.ts";
import { PrefixChange } from "../../modeling/weight_transforms.ts";
import type { ResNet } from "../../timm/index.ts";
import { buildModel } from "../../timm/index.ts";
import type { Tensor } from "../../torch/index.ts";
import { TimmWrapperConfig } from "./configuration_timm_wrapper.ts";

/** Features of a model of timm, and their pooled vector [batch, channels] where it was asked for. */
export class TimmWrapperModelOutput extends defineOutput<{
  last_hidden_state: Tensor;
  pooler_output?: Tensor | undefined;
  hidden_states?: readonly Tensor[] | undefined;
}>("last_hidden_state", "pooler_output", "hidden_states") {}

/** What models of timm take. */
export interface TimmWrapperInputs {
  /** Images [batch, channels, height, width]. */
  pixel_values: Tensor;
  /** Return the feature maps of all stages, or of those of these indices. Default: `config.output_hidden_states`. */
  output_hidden_states?: boolean | readonly number[] | null | undefined;
  /** Models of timm have none to give: true is refused. */
  output_attentions?: boolean | null | undefined;
}

const INPUTS: readonly (keyof TimmWrapperInputs)[] = [
  "pixel_values",
  "output_hidden_states",
  "output_attentions",
];

/** What both models share. */
export class TimmWrapperPreTrainedModel extends PreTrainedModel {
  static override readonly config_class = TimmWrapperConfig;
  static override base_model_prefix = "timm_model";
  static override readonly main_input_name: string = "pixel_values";
  static override readonly _no_split_modules: readonly string[] = ["TimmWrapperModel"];
  static override readonly _supports_sdpa: boolean = true;
  static override readonly supports_gradient_checkpointing: boolean = true;

  declare readonly config: TimmWrapperConfig;
  declare readonly timm_model: ResNet;

  constructor(config: TimmWrapperConfig) {
    super(config);
  }

  override activation_checkpointing_enable(): void {
    this.timm_model.set_grad_checkpointing({ enable: true });
  }

  override activation_checkpointing_disable(): void {
    this.timm_model.set_grad_checkpointing({ enable: false });
  }

  override get is_activation_checkpointing(): boolean {
    return this.timm_model.grad_checkpointing;
  }

  /** The image as the model takes it, and which feature maps are wanted; undefined for none. */
  protected prepare(inputs: TimmWrapperInputs): { x: Tensor; indices: readonly number[] | null | undefined } {
    this.check_inputs(inputs);
    if (inputs.output_attentions ?? this.config.output_attentions)
      throw new InvalidArgumentError("output_attentions: models of timm do not give attention weights.");
    const wanted = inputs.output_hidden_states ?? this.config.output_hidden_states ?? false;
    return {
      x: inputs.pixel_values.to(this.device, this.dtype),
      indices: wanted === false ? undefined : wanted === true ? null : wanted,
    };
  }
}

/** A model of timm without its classifier. */
export class TimmWrapperModel extends TimmWrapperPreTrainedModel {
  static override readonly forward_inputs: readonly string[] = [...INPUTS, "do_pooling"];

  override readonly timm_model: ResNet;

  constructor(config: TimmWrapperConfig) {
    super(config);
    this.timm_model = buildModel(config.architecture, { ...config.model_args, num_classes: 0 });
    this.post_init();
  }

  /** `do_pooling`: give `pooler_output` too. Default: `config.do_pooling`. */
  override forward(
    inputs: TimmWrapperInputs & { do_pooling?: boolean | null | undefined },
  ): TimmWrapperModelOutput {
    const { x, indices } = this.prepare(inputs);
    const [last_hidden_state, hidden_states] =
      indices === undefined
        ? [this.timm_model.forward_features(x), undefined]
        : this.timm_model.forward_intermediates(x, { indices });
    const pooler_output =
      (inputs.do_pooling ?? this.config.do_pooling)
        ? this.timm_model.forward_head(last_hidden_state)
        : undefined;
    return new TimmWrapperModelOutput({ last_hidden_state, pooler_output, hidden_states });
  }
}

/** A model of timm that scores labels. */
export class TimmWrapperForImageClassification extends TimmWrapperPreTrainedModel {
  static override readonly forward_inputs: readonly string[] = [...INPUTS, "labels"];

  readonly num_labels: number;
  override readonly timm_model: ResNet;

  constructor(config: TimmWrapperConfig) {
    super(config);
    this.num_labels = config.num_labels ?? 0;
    if (this.num_labels === 0) {
      throw new InvalidArgumentError("TimmWrapperForImageClassification needs labels, and config has none.", {
        hint: "Pass num_labels, or use TimmWrapperModel for features.",
      });
    }
    const args = { ...config.model_args, num_classes: this.num_labels };
    this.timm_model = buildModel(config.architecture, args);
    this.post_init();
  }

  /** Scores of the labels, and the loss when `labels` are given. */
  override forward(
    inputs: TimmWrapperInputs & { labels?: Tensor | null | undefined },
  ): ImageClassifierOutput {
    const { x, indices } = this.prepare(inputs);
    const [last, hidden_states] =
      indices === undefined
        ? [this.timm_model.forward_features(x), undefined]
        : this.timm_model.forward_intermediates(x, { indices });
    const logits = this.timm_model.forward_head(last);
    const loss = inputs.labels
      ? ForSequenceClassificationLoss(logits, inputs.labels, this.config)
      : undefined;
    return new ImageClassifierOutput({ loss, logits, hidden_states });
  }
}

// timm's own files do not know of the wrapper.
register_checkpoint_conversion_mapping("timm_wrapper", [new PrefixChange({ prefix_to_add: "timm_model" })]);
