// Backbones: models whose stages give feature maps to other models.
import type { PretrainedConfig } from "../configuration/index.ts";
import type { Tensor } from "../torch/index.ts";
import type { BackboneOutput } from "./modeling_outputs.ts";
import type { PreTrainedModel } from "./modeling_utils.ts";

// biome-ignore lint/suspicious/noExplicitAny: TypeScript wants exactly this of a class that is extended by a function.
type AnyModelClass = new (...args: any[]) => PreTrainedModel;

/** What a backbone's config says; `BackboneConfigMixin` makes one. */
interface BackboneConfig extends PretrainedConfig {
  readonly stage_names: readonly string[];
  out_features: readonly string[];
  out_indices: readonly number[];
  verify_out_features_out_indices(): void;
}

/** What a backbone has beside its base. */
export interface Backbone {
  /** Whether it has attention weights to return. */
  readonly has_attentions: boolean;
  /** Names of all stages, in order. */
  readonly stage_names: readonly string[];
  /** Channels of each stage's output, in the order of `stage_names`. */
  readonly num_features: readonly number[];
  /** Stages that give a feature map; setting it sets the indices too. */
  out_features: readonly string[];
  /** The same by index. */
  out_indices: readonly number[];
  /** Stage name → channels of its output, for all stages. */
  readonly out_feature_channels: Readonly<Record<string, number>>;
  /** Channels of each feature map. */
  readonly channels: readonly number[];
  /** `forward` without `output_attentions` where there are no attention weights: for models that use any backbone. */
  forward_with_filtered_kwargs(inputs: BackboneInputs): BackboneOutput;
  forward(inputs: BackboneInputs): BackboneOutput;
}

/** What a backbone takes. */
export interface BackboneInputs {
  /** [batch, channels, height, width] */
  pixel_values: Tensor;
  /** Return the output of all stages too. Default: `config.output_hidden_states`. */
  output_hidden_states?: boolean | null | undefined;
  /** Return attention weights, where there are some. Default: `config.output_attentions`. */
  output_attentions?: boolean | null | undefined;
}

/** `Base` with the members of {@link Backbone}; its static members stay. */
export type WithBackbone<Base extends AnyModelClass> = Omit<Base, "prototype"> & {
  new (...args: ConstructorParameters<Base>): InstanceType<Base> & Omit<Backbone, "forward">;
  prototype: InstanceType<Base> & Omit<Backbone, "forward">;
};

/**
 * A model class that is a backbone. Its constructor sets `num_features`.
 *
 * @example
 * class MyBackbone extends BackboneMixin(MyPreTrainedModel) { … }
 */
export function BackboneMixin<Base extends AnyModelClass>(Base: Base): WithBackbone<Base> {
  class BackboneModel extends Base {
    declare readonly num_features: readonly number[];

    // biome-ignore lint/suspicious/noExplicitAny: as above.
    constructor(...args: any[]) {
      super(...args);
      configOf(this).verify_out_features_out_indices();
    }

    get has_attentions(): boolean {
      return true;
    }

    get stage_names(): readonly string[] {
      return configOf(this).stage_names;
    }

    get out_features(): readonly string[] {
      return configOf(this).out_features;
    }

    set out_features(out_features: readonly string[]) {
      configOf(this).out_features = out_features;
    }

    get out_indices(): readonly number[] {
      return configOf(this).out_indices;
    }

    set out_indices(out_indices: readonly number[]) {
      configOf(this).out_indices = out_indices;
    }

    get out_feature_channels(): Readonly<Record<string, number>> {
      return Object.fromEntries(this.stage_names.map((name, i) => [name, this.num_features[i] as number]));
    }

    get channels(): readonly number[] {
      const channels = this.out_feature_channels;
      return this.out_features.map((name) => channels[name] as number);
    }

    forward_with_filtered_kwargs({ output_attentions, ...inputs }: BackboneInputs): BackboneOutput {
      return (this as unknown as Backbone).forward(
        this.has_attentions ? { ...inputs, output_attentions } : inputs,
      );
    }
  }
  return BackboneModel as unknown as WithBackbone<Base>;
}

const configOf = (model: PreTrainedModel) => model.config as BackboneConfig;
