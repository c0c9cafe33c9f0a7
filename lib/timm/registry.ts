// The models that timm knows by name, and the weights that it names for them.
import { InvalidArgumentError } from "../errors/index.ts";
import { nearest } from "../errors/suggest.ts";
import type { ResNetOptions } from "./resnet.ts";
import type { BlockName } from "./resnet_blocks.ts";
import { BASE_CFG, RESNETS } from "./resnet_cfgs.ts";

/** A row of the table. */
export interface ResNetEntry {
  readonly block: BlockName | readonly BlockName[];
  readonly layers: readonly number[];
  readonly args: ResNetOptions;
  readonly tags: Readonly<Record<string, Partial<PretrainedCfg> & { readonly untrained?: boolean }>>;
}

/** What is known of weights: what they were trained for, and what images they want. */
export interface PretrainedCfg {
  readonly architecture?: string;
  readonly tag?: string;
  /** The repository that has them; undefined where there are none. */
  readonly hf_hub_id?: string | undefined;
  /** The folder that has them. */
  readonly file?: string | undefined;
  readonly num_classes: number;
  /** Channels, height and width. */
  readonly input_size: readonly number[];
  readonly pool_size?: readonly number[] | null;
  readonly crop_pct?: number;
  readonly interpolation?: string;
  readonly mean?: readonly number[];
  readonly std?: readonly number[];
  readonly test_input_size?: readonly number[];
  readonly test_crop_pct?: number;
  /** Names of the first convolution and of the classifier, which depend on channels and classes. */
  readonly first_conv?: string | readonly string[] | null;
  readonly classifier?: string | readonly string[] | null;
  /** Classes before the first that counts. */
  readonly label_offset?: number;
  readonly license?: string;
  readonly label_names?: readonly string[];
  readonly global_pool?: ResNetOptions["global_pool"];
}

/** "resnet50d.ra2_in1k" → ["resnet50d", "ra2_in1k"]; the tag is "" where there is none. */
export function split_model_name_tag(model_name: string): [name: string, tag: string] {
  const dot = model_name.indexOf(".");
  return dot < 0 ? [model_name, ""] : [model_name.slice(0, dot), model_name.slice(dot + 1)];
}

const entryOf = (name: string) => (Object.hasOwn(RESNETS, name) ? RESNETS[name] : undefined);

/** Whether a model of that name is known; a tag does not count. */
export const is_model = (model_name: string): boolean =>
  entryOf(split_model_name_tag(model_name)[0]) !== undefined;

/** How a model is built. @throws InvalidArgumentError for an unknown name, with the nearest known ones. */
export function modelEntry(name: string): ResNetEntry {
  const entry = entryOf(name);
  if (entry !== undefined) return entry;
  const near = nearest(name, Object.keys(RESNETS), 3);
  throw new InvalidArgumentError(`Unknown timm model '${name}'.`, {
    suggestion: near[0],
    hint: `This is timm's ResNet family: ${Object.keys(RESNETS).join(", ")}.`,
  });
}

/** What is known of a model's weights: those of the tag, or the default ones. @throws InvalidArgumentError for an unknown tag. */
export function get_pretrained_cfg(model_name: string): PretrainedCfg {
  const [architecture, given] = split_model_name_tag(model_name);
  const { tags } = modelEntry(architecture);
  const tag = given || (Object.keys(tags)[0] as string);
  const own = Object.hasOwn(tags, tag) ? tags[tag] : undefined;
  if (own === undefined) {
    throw new InvalidArgumentError(
      `'${architecture}' has no weights '${tag}'; it has ${Object.keys(tags).join(", ")}.`,
      { suggestion: nearest(tag, Object.keys(tags), 1)[0] },
    );
  }
  const { untrained, ...fields } = own;
  const hf_hub_id = untrained ? undefined : `timm/${architecture}.${tag}`;
  return { ...BASE_CFG, ...fields, architecture, tag, hf_hub_id };
}

/**
 * Names of the models, in order.
 *
 * @param filter with `*` for any text. @param options.pretrained those that have weights, with their tags.
 * @example timm.list_models("resnet50d*", { pretrained: true }); // ["resnet50d.a1_in1k", …]
 */
export function list_models(filter = "*", { pretrained = false } = {}): string[] {
  const names = Object.entries(RESNETS).flatMap(([name, { tags }]) =>
    pretrained
      ? Object.entries(tags).flatMap(([tag, { untrained }]) => (untrained ? [] : `${name}.${tag}`))
      : name,
  );
  const pattern = new RegExp(
    `^${filter.replaceAll(/[.+?^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*")}(\\..*)?$`,
  );
  return names.filter((name) => pattern.test(name)).sort();
}
