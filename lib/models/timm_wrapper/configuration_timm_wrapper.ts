// The configuration of models that timm builds, as timm's repositories and transformers write it.
import { type ConfigKwargs, PretrainedConfig } from "../../configuration/index.ts";

/**
 * Configuration of a model of timm. timm's own config.json is read too.
 *
 * ```ts
 * const config = new TimmWrapperConfig({ architecture: "resnet18", num_labels: 10, model_args: { in_chans: 1 } });
 * ```
 */
export class TimmWrapperConfig extends PretrainedConfig {
  static override readonly model_type: string = "timm_wrapper";
  static override readonly field_types: Readonly<Record<string, string>> = {
    architecture: "str",
    initializer_range: "float",
    do_pooling: "bool",
    model_args: "dict | None",
  };

  /** Name of the model in timm. */
  declare architecture: string;
  declare initializer_range: number;
  /** Whether the model without a head pools its features. */
  declare do_pooling: boolean;
  /** More options of the model. */
  declare model_args: Record<string, unknown> | null;
  /** Names of the classes as timm writes them. */
  declare label_names?: string[];

  constructor({
    architecture = "resnet50",
    initializer_range = 0.02,
    do_pooling = true,
    model_args = null,
    num_classes,
    label_names,
    pretrained_cfg,
    ...kwargs
  }: TimmWrapperConfigOptions = {}) {
    super({ ...kwargs, ...labels(kwargs, label_names, num_classes) });
    this.architecture = architecture;
    this.initializer_range = initializer_range;
    this.do_pooling = do_pooling;
    this.model_args = model_args;
    if (label_names !== undefined) this.label_names = label_names;
    if (pretrained_cfg !== undefined) {
      const { num_classes: _, ...others } = pretrained_cfg;
      Object.assign(this, { pretrained_cfg: others });
    }
    this.post_init();
  }

  override to_dict(): Record<string, unknown> {
    const output = super.to_dict();
    output.num_classes ??= this.num_labels;
    output.label_names ??= Object.values(this.id2label ?? {});
    delete output.id2label;
    delete output.label2id;
    return output;
  }
}

/** timm's names for what configurations call labels; labels that are given go first. */
function labels(
  kwargs: ConfigKwargs,
  label_names: readonly string[] | undefined,
  num_classes: number | undefined,
): ConfigKwargs {
  if (kwargs.num_labels !== undefined || kwargs.id2label !== undefined) return {};
  if (label_names === undefined) return num_classes === undefined ? {} : { num_labels: num_classes };
  const unique = new Set(label_names).size === label_names.length;
  return {
    id2label: Object.fromEntries(label_names.entries()),
    label2id: unique ? Object.fromEntries(label_names.map((name, id) => [name, id])) : null,
  };
}

/** Fields of `TimmWrapperConfig`, each with a default, and those that every configuration has. */
export interface TimmWrapperConfigOptions extends ConfigKwargs {
  readonly architecture?: string;
  readonly initializer_range?: number;
  readonly do_pooling?: boolean;
  readonly model_args?: Record<string, unknown> | null;
  /** The number of labels, as timm writes it. */
  readonly num_classes?: number;
  readonly label_names?: string[];
  /** What timm knows of the weights. */
  readonly pretrained_cfg?: Record<string, unknown>;
}
