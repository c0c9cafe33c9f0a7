// timm.create_model: a model by its name, with weights from the hub, from a folder, or by chance.
import { CheckpointError, EntryNotFoundError, InvalidArgumentError } from "../errors/index.ts";
import { nearest } from "../errors/suggest.ts";
import { findFile, HUB_OPTIONS, type HubOptions, missing, pin, readText, resolveFile } from "../hub/files.ts";
import { parseJson } from "../json/json.ts";
import type { StateDict } from "../nn/index.ts";
import * as nn from "../nn/index.ts";
import { load_file } from "../safetensors/index.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { get_pretrained_cfg, modelEntry, type PretrainedCfg, split_model_name_tag } from "./registry.ts";
import { ResNet, type ResNetOptions } from "./resnet.ts";
import { BASE_CFG } from "./resnet_cfgs.ts";

/** Options of {@link create_model}: those of the model, where its weights are, and which. */
export interface CreateModelOptions extends ResNetOptions, HubOptions {
  /** Load weights. Default: false, weights by chance. */
  readonly pretrained?: boolean;
  /** A tag, or all that is known of weights of your own. */
  readonly pretrained_cfg?: string | Partial<PretrainedCfg> | undefined;
  /** Fields of the pretrained_cfg to replace. */
  readonly pretrained_cfg_overlay?: Partial<PretrainedCfg> | undefined;
  /** A safetensors file to load after everything else. */
  readonly checkpoint_path?: string | undefined;
}

/** A model that says where its weights come from. */
export type TimmModel = ResNet & { readonly pretrained_cfg: PretrainedCfg };

const MODEL_OPTIONS = [
  "num_classes",
  "in_chans",
  "output_stride",
  "global_pool",
  "cardinality",
  "base_width",
  "stem_width",
  "stem_type",
  "replace_stem_pool",
  "block_reduce_first",
  "down_kernel_size",
  "avg_down",
  "channels",
  "act_layer",
  "norm_layer",
  "drop_rate",
  "drop_path_rate",
  "drop_block_rate",
  "zero_init_last",
  // Of stored model_args, and of models that change how many blocks there are.
  "block",
  "layers",
] as const;
const OWN_OPTIONS = ["pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path"] as const;

type Fields = Record<string, unknown>;

/**
 * A model of timm's ResNet family by its name.
 *
 * @param model_name "resnet50d"; with a tag "resnet50d.ra2_in1k" to say which weights; "hf-hub:timm/resnet50d.ra2_in1k" or
 *   "local-dir:./resnet" for a repository or a folder with timm's config.json and model.safetensors.
 * @param options.pretrained load the weights: of the tag, else timm's default ones, from the hub.
 * @param options.num_classes another number of classes than the weights have gets a fresh classifier; 0 gets none.
 * @throws InvalidArgumentError for unknown names, tags and options, CheckpointError for weights that do not fit.
 *
 * @example
 * const model = await timm.create_model("resnet50d", { pretrained: true, num_classes: 10 });
 * model.eval().forward(torch.randn([1, 3, 224, 224])).shape; // [1, 10]
 */
export async function create_model(model_name: string, options: CreateModelOptions = {}): Promise<TimmModel> {
  refuseUnknown("timm.create_model", options, [...OWN_OPTIONS, ...MODEL_OPTIONS, ...HUB_OPTIONS]);
  const given = options as unknown as Fields;
  const hub = chosen(given, HUB_OPTIONS) as HubOptions;
  const source = await resolveSource(model_name, options, hub);
  const { cfg } = source;
  const args: Fields = { ...source.model_args, ...chosen(given, MODEL_OPTIONS) };
  args.num_classes ??= cfg.num_classes;
  args.in_chans ??= cfg.input_size[0];
  if (cfg.global_pool) args.global_pool ??= cfg.global_pool;
  const model = buildModel(source.architecture, args);
  Object.defineProperty(model, "pretrained_cfg", { value: cfg, enumerable: false, configurable: true });
  if (options.pretrained) await loadPretrained(model, cfg, source.hub);
  if (options.checkpoint_path !== undefined) model.load_state_dict(await load_file(options.checkpoint_path));
  return model as TimmModel;
}

/**
 * A model with weights by chance, at once: what `create_model` does without `pretrained`.
 *
 * @param args options of the model, and `block` and `layers` to replace those of the name.
 */
export function buildModel(architecture: string, args: Readonly<Record<string, unknown>> = {}): ResNet {
  const entry = modelEntry(architecture);
  refuseUnknown(`timm ${architecture}`, args, MODEL_OPTIONS);
  const { block = entry.block, layers = entry.layers, ...options } = { ...entry.args, ...args } as Fields;
  return new ResNet(block as never, layers as number[], options as ResNetOptions);
}

function refuseUnknown(where: string, options: object, known: readonly string[]): void {
  const unknown = Object.keys(options).find((key) => !known.includes(key));
  if (unknown === undefined) return;
  throw new InvalidArgumentError(`[${where}] '${unknown}' is no option.`, {
    suggestion: nearest(unknown, known, 1)[0],
  });
}

/** Those of the options that are set; null means the default, as in timm. */
const chosen = (options: Fields, names: readonly string[]): Fields =>
  Object.fromEntries(
    names
      .map((name) => [name, options[name]] as const)
      .filter(([, value]) => value !== undefined && value !== null),
  );

interface Source {
  readonly architecture: string;
  readonly cfg: PretrainedCfg;
  /** How the stored weights' model was built. */
  readonly model_args: Fields;
  /** Options that lead to the very commit whose config was read. */
  readonly hub: HubOptions;
}

/** What a name means: the model, what is known of its weights, and where they are. */
async function resolveSource(
  model_name: string,
  { pretrained_cfg, pretrained_cfg_overlay = {} }: CreateModelOptions,
  hub: HubOptions,
): Promise<Source> {
  const colon = model_name.indexOf(":");
  if (colon < 0) {
    const [name, tag] = split_model_name_tag(model_name);
    modelEntry(name);
    const named = typeof pretrained_cfg === "string" ? pretrained_cfg : tag;
    const own =
      typeof pretrained_cfg === "object" ? { ...BASE_CFG, architecture: name, ...pretrained_cfg } : undefined;
    const cfg = own ?? get_pretrained_cfg(named === "" ? name : `${name}.${named}`);
    return { architecture: name, cfg: { ...cfg, ...pretrained_cfg_overlay }, model_args: {}, hub };
  }
  const [kind, place] = [model_name.slice(0, colon), model_name.slice(colon + 1)];
  if (!["hf-hub", "hf_hub", "local-dir"].includes(kind) || place === "") {
    throw new InvalidArgumentError(`'${model_name}' names no model.`, {
      hint: 'It is a name, "hf-hub:org/name" or "local-dir:folder".',
    });
  }
  if (pretrained_cfg !== undefined) {
    throw new InvalidArgumentError(`'${model_name}' brings its own pretrained_cfg; none may be given.`);
  }
  const local = kind === "local-dir";
  const { name: where, options } = local ? { name: place, options: hub } : await pin(place, hub);
  const file = await resolveFile(where, "config.json", options);
  const stored = parseJson(await readText(file), { file }) as Fields;
  const { architecture, model_args, cfg } = readStored(stored, file);
  const from = local ? { file: where } : { hf_hub_id: where };
  return {
    architecture,
    cfg: { ...cfg, ...from, ...pretrained_cfg_overlay },
    model_args,
    hub: options,
  };
}

/** timm's config.json: today's form, and the older one that is a pretrained_cfg alone. */
function readStored(
  stored: Fields,
  file: string,
): { architecture: string; model_args: Fields; cfg: PretrainedCfg } {
  const { architecture } = stored;
  if (typeof architecture !== "string") {
    throw new CheckpointError(`${file} has no 'architecture': it is no config.json of timm.`);
  }
  const inner = (stored.pretrained_cfg ?? stored) as Fields;
  const model_args = (stored.model_args ?? {}) as Fields;
  const cfg: Fields = { ...BASE_CFG, ...inner, architecture };
  if (stored.num_classes !== undefined) cfg.num_classes = stored.num_classes;
  const label_names = stored.label_names ?? inner.labels;
  if (label_names !== undefined) cfg.label_names = label_names;
  const { in_chans } = model_args;
  if (in_chans !== undefined) cfg.input_size = [in_chans, ...(cfg.input_size as number[]).slice(1)];
  if (stored.pretrained_cfg === undefined && model_args.num_classes !== undefined)
    cfg.num_classes = model_args.num_classes;
  return { architecture, model_args, cfg: cfg as unknown as PretrainedCfg };
}

/** Loads what fits: the first convolution is adapted to other channels, a classifier for other classes is left out. */
async function loadPretrained(model: ResNet, cfg: PretrainedCfg, hub: HubOptions): Promise<void> {
  const state: StateDict = await load_file(await weightsFile(cfg, hub));
  let strict = true;
  const source_chans = cfg.input_size[0] as number;
  for (const name of [cfg.first_conv ?? []].flat() as string[]) {
    const [key, conv] = [`${name}.weight`, model.get_submodule(name)];
    const weight = state[key];
    if (weight === undefined || !(conv instanceof nn.Conv2d) || weight.shape[1] === conv.weight.shape[1])
      continue;
    if (weight.shape[1] !== source_chans) {
      throw new CheckpointError(
        `${key} has ${weight.shape[1]} input channels, but input_size[0] of its pretrained_cfg is ${source_chans}.`,
      );
    }
    state[key] = adapt_input_conv(model.in_chans, weight);
  }
  const offset = cfg.label_offset ?? 0;
  for (const name of [cfg.classifier ?? []].flat() as string[]) {
    for (const key of [`${name}.weight`, `${name}.bias`]) {
      if (model.num_classes !== cfg.num_classes) delete state[key];
      else if (offset > 0 && state[key]) state[key] = state[key].narrow(0, offset, cfg.num_classes);
    }
    if (model.num_classes !== cfg.num_classes) strict = false;
  }
  model.load_state_dict(state, { strict });
}

async function weightsFile(
  { file, hf_hub_id, architecture }: PretrainedCfg,
  hub: HubOptions,
): Promise<string> {
  const where = file ?? hf_hub_id;
  if (where === undefined) {
    throw new InvalidArgumentError(`There are no pretrained weights for ${architecture ?? "this model"}.`, {
      hint: "Use { pretrained: false } for weights by chance, or name a tag that has weights.",
    });
  }
  const { name, options } = file === undefined ? await pin(where, hub) : { name: where, options: hub };
  const found = await findFile(name, "model.safetensors", options);
  if (found !== undefined) return found;
  if ((await findFile(name, "pytorch_model.bin", options)) === undefined)
    throw await missing(name, "model.safetensors", options);
  throw new EntryNotFoundError(`'${where}' has its weights as pytorch_model.bin only.`, {
    hint: "Make a safetensors file of it: torchformers convert pytorch_model.bin.",
  });
}

/** Weights of a first convolution [out, channels, height, width] for images with another number of channels. */
export function adapt_input_conv(in_chans: number, weight: Tensor): Tensor {
  const channels = weight.shape[1] as number;
  const w = weight.to("float32");
  if (in_chans === 1) return w.sum(1, true).to(weight.dtype);
  const repeated = torch.cat(Array(Math.ceil(in_chans / channels)).fill(w), 1).narrow(1, 0, in_chans);
  return repeated.mul(channels / in_chans).to(weight.dtype);
}
