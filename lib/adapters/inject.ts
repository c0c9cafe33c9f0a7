// Putting adapters into a model, choosing among them, merging them and taking them out. Order of work, and with it the
// order of random numbers, is PEFT's.
import { InvalidArgumentError } from "../errors/index.ts";
import { warn } from "../errors/warnings.ts";
import * as nn from "../nn/index.ts";
import type { LoraConfig } from "./config.ts";
import { LoraLayer } from "./lora_layer.ts";
import { adapted, assertFits, canAdapt } from "./lora_layers.ts";
import { assertSavable, ModulesToSaveWrapper } from "./modules_to_save.ts";
import { type ModelLike, matcher, patternValue, resolveTargets, unmatchedPatterns } from "./targets.ts";

/** A model's adapters by name; kept on the model itself, under PEFT's name. */
export type PeftConfigs = Record<string, LoraConfig>;
export type Adaptable = ModelLike & { peft_config?: PeftConfigs };

type Part = nn.Module & Record<string, unknown>;

export interface InjectOptions {
  /** Make the matrices without values: they come from a file. Default: false. */
  readonly empty?: boolean;
  /** Which adapters are active afterwards. Default: the new one. */
  readonly active?: readonly string[];
}

/** Layers with adapters, by their names. */
export function* loraLayers(model: nn.Module): Generator<[string, LoraLayer]> {
  for (const [name, module] of model.named_modules()) if (module instanceof LoraLayer) yield [name, module];
}

/** Modules that are saved as a whole, by their names. */
export function* savedModules(model: nn.Module): Generator<[string, ModulesToSaveWrapper]> {
  for (const [name, module] of model.named_modules())
    if (module instanceof ModulesToSaveWrapper) yield [name, module];
}

function assertName(name: string): void {
  if (typeof name === "string" && name !== "" && !name.includes(".") && !(name in nn.ModuleDict.prototype))
    return;
  throw new InvalidArgumentError(`'${String(name)}' cannot be the name of an adapter.`, {
    hint: "A name has no dots, and is no method of nn.ModuleDict.",
  });
}

function placeOf(model: nn.Module, key: string): { parent: Part; name: string } {
  const dot = key.lastIndexOf(".");
  return { parent: model.get_submodule(key.slice(0, Math.max(dot, 0))) as Part, name: key.slice(dot + 1) };
}

/**
 * Puts a new adapter into a model, which is changed in place: layers that the config means are replaced by layers with the
 * adapter beside them. Afterwards only adapters can be trained. Nothing is changed where it throws.
 *
 * `config` is completed: `target_modules` names what was found.
 *
 * @throws InvalidArgumentError when no module is meant, or one that cannot have an adapter.
 */
export function injectAdapter(
  model: Adaptable,
  config: LoraConfig,
  name: string,
  { empty = false, active = [name] }: InjectOptions = {},
): void {
  assertName(name);
  const others = model.peft_config ?? {};
  if (config.bias !== "none" && Object.values(others).some(({ bias }) => bias !== "none"))
    throw new InvalidArgumentError("Only one adapter of a model may train biases; set bias to 'none'.");
  config.target_modules = resolveTargets(model, config);
  const places = findTargets(model, config).map((key) => {
    const { parent, name: place } = placeOf(model, key);
    const r = patternValue(config.rank_pattern, key, config.r);
    const lora_alpha = patternValue(config.alpha_pattern, key, config.lora_alpha);
    return { parent, place, key, settings: { r, lora_alpha, config, empty } };
  });
  for (const { parent, place, key, settings } of places)
    assertFits(parent[place] as nn.Module, key, settings);
  for (const key of keysToSave(model, config)) assertSavable(model.get_submodule(key), key);

  const before = [...loraLayers(model)].length > 0 ? trainability(model, name) : [];
  for (const { parent, place, settings } of places) {
    const target = parent[place] as nn.Module;
    if (target instanceof LoraLayer) target.update_layer(name, settings);
    else parent[place] = adapted(target, name, settings);
  }
  model.peft_config = { ...others, [name]: config };
  setActive(model, active, config.inference_mode);
  freezeBase(model, active);
  wrapModulesToSave(model, config, name, active.includes(name));
  for (const [parameter, requires_grad] of before) parameter.requires_grad_(requires_grad);
}

/** The names of the modules that get the adapter. */
function findTargets(model: ModelLike, config: LoraConfig): string[] {
  const found: string[] = [];
  const refused: string[] = [];
  let excluded = 0;
  let inside = "";
  const match = matcher(config);
  for (const [key, module] of model.named_modules()) {
    if (key === "") continue;
    if (inside !== "" && key.startsWith(inside)) continue;
    inside = module instanceof LoraLayer ? `${key}.` : "";
    const answer = match(key);
    if (answer === "excluded") excluded++;
    if (answer !== "yes") continue;
    found.push(key);
    if (!canAdapt(module) && !(module instanceof LoraLayer)) refused.push(`${key} (${module._get_name()})`);
  }
  const { target_modules, rank_pattern, alpha_pattern, exclude_modules } = config;
  if (refused.length > 0)
    throw new InvalidArgumentError(
      `target_modules: ${refused.slice(0, 5).join(", ")} cannot have an adapter.`,
      {
        hint: "Layers of type Linear, Embedding, Conv1d, Conv2d, Conv3d and Conv1D can.",
      },
    );
  if (found.length === 0) {
    const wanted = typeof target_modules === "string" ? `'${target_modules}'` : target_modules?.join(", ");
    throw new InvalidArgumentError(
      `No module of ${model._get_name()} is meant by target_modules: ${wanted}${excluded > 0 ? "; what is was excluded" : ""}.`,
      { hint: "Print the model to see the names of its modules." },
    );
  }
  if (exclude_modules !== null && exclude_modules.length > 0 && excluded === 0)
    warn(`exclude_modules excludes nothing: ${String(exclude_modules)}.`);
  for (const [field, patterns] of Object.entries({ rank_pattern, alpha_pattern })) {
    const unmatched = unmatchedPatterns(patterns, found);
    if (unmatched.length > 0) warn(`${field}: no adapted module matches ${unmatched.join(", ")}.`);
  }
  const tied = (model.config as { tie_word_embeddings?: boolean } | undefined)?.tie_word_embeddings;
  const ends = found.map((key) => key.slice(key.lastIndexOf(".") + 1));
  if (tied && ends.some((end) => end === "embed_tokens" || end === "lm_head"))
    warn("A tied layer is part of the adapter: merging would change both of its places.");
  return found;
}

/** Which parameters, of those that are not the new adapter's, can be trained. */
function trainability(model: nn.Module, name: string): [nn.Parameter, boolean][] {
  return [...model.named_parameters()]
    .filter(([key]) => !key.includes(`.${name}.`) && !key.endsWith(`.${name}`))
    .map(([, parameter]) => [parameter, parameter.requires_grad]);
}

/** Lets nothing be trained but adapters, and what is saved as a whole, and the biases that active adapters ask for. */
function freezeBase(model: Adaptable, active: readonly string[]): void {
  const own = new Set<nn.Parameter>();
  for (const [, layer] of loraLayers(model))
    for (const name of layer.adapter_names())
      for (const parameter of layer.adapter_parameters(name)) own.add(parameter);
  for (const [, wrapper] of savedModules(model)) for (const each of wrapper.parameters()) own.add(each);
  for (const parameter of model.parameters()) if (!own.has(parameter)) parameter.requires_grad_(false);
  for (const name of active) {
    const bias = model.peft_config?.[name]?.bias ?? "none";
    if (bias === "all") {
      for (const [key, parameter] of model.named_parameters())
        if (key === "bias" || key.endsWith(".bias")) parameter.requires_grad_(true);
    } else if (bias === "lora_only") {
      for (const [, layer] of loraLayers(model)) layer.bias?.requires_grad_(true);
    }
  }
}

/** The names of the modules that `modules_to_save` means: those that end like one of its names. */
function keysToSave(model: nn.Module, { modules_to_save }: LoraConfig): string[] {
  const found: string[] = [];
  for (const [key] of model.named_modules({ remove_duplicate: false })) {
    if (key === "" || !modules_to_save?.some((end) => key.endsWith(end))) continue;
    // What lies inside a module that is saved is saved with it.
    if (found.some((above) => key.startsWith(`${above}.`))) continue;
    found.push(key);
  }
  return found;
}

/** Wraps the modules that are saved as a whole, or gives their wrappers one more copy. */
export function wrapModulesToSave(
  model: nn.Module,
  config: LoraConfig,
  name: string,
  activate: boolean,
): void {
  for (const key of keysToSave(model, config)) {
    const { parent, name: place } = placeOf(model, key);
    const target = parent[place] as nn.Module;
    if (target instanceof ModulesToSaveWrapper) {
      target.update(name);
      target.set_adapter(activate ? name : target.active_adapters, config.inference_mode);
    } else {
      const wrapper = new ModulesToSaveWrapper(target, name);
      wrapper.set_adapter(activate ? name : [], config.inference_mode);
      parent[place] = wrapper;
    }
  }
}

/** Chooses the active adapters everywhere. */
export function setActive(model: nn.Module, names: readonly string[], inference_mode = false): void {
  for (const [, wrapper] of savedModules(model)) wrapper.set_adapter(names, inference_mode);
  for (const [, layer] of loraLayers(model)) {
    if (layer.merged) {
      warn("The adapters were merged into the weights, and are taken out before others are chosen.");
      unmergeAdapters(model);
    }
    layer.set_adapter(names, inference_mode);
  }
}

export function enableAdapters(model: nn.Module, enabled: boolean): void {
  for (const [, wrapper] of savedModules(model)) wrapper.enable_adapters(enabled);
  for (const [, layer] of loraLayers(model)) layer.enable_adapters(enabled);
}

/** Takes an adapter out of all layers. Gives the adapters that are active then: the others, or the first (by name). */
export function deleteAdapter(model: Adaptable, name: string): string[] {
  const layers = [...loraLayers(model)].map(([, layer]) => layer);
  if (layers.some((layer) => layer.merged_adapters.includes(name)))
    throw new InvalidArgumentError(`The adapter '${name}' is merged into the weights.`, {
      hint: "Unmerge it first.",
    });
  const { [name]: _gone, ...others } = model.peft_config ?? {};
  const before = layers[0]?.active_adapters ?? [];
  const left = before.filter((other) => other !== name);
  const first = Object.keys(others).sort().slice(0, 1);
  const active = !before.includes(name) || left.length > 0 ? left : first;
  for (const layer of layers) layer.delete_adapter(name);
  for (const [, wrapper] of savedModules(model)) wrapper.delete_adapter(name);
  if (before.includes(name)) setActive(model, active);
  model.peft_config = others;
  return active;
}

/** Merges adapters into the weights of all layers; where one fails, none is merged. */
export function mergeAdapters(
  model: nn.Module,
  names: readonly string[] | null | undefined,
  safe: boolean,
): void {
  const layers = [...loraLayers(model)].map(([, layer]) => layer);
  const before = layers.map((layer) => layer.merged_adapters);
  try {
    for (const layer of layers) layer.merge(safe, names);
  } catch (error) {
    for (const [i, layer] of layers.entries()) {
      if (layer.merged_adapters === before[i]) continue;
      layer.unmerge();
      layer.merge(false, before[i]);
    }
    throw error;
  }
}

export function unmergeAdapters(model: nn.Module): void {
  for (const [, layer] of loraLayers(model)) layer.unmerge();
}

/** Puts the original layers back into their places, and the active copies of what was saved as a whole. */
export function unloadAdapters(model: Adaptable): void {
  for (const [key, layer] of [...loraLayers(model)]) {
    const { parent, name } = placeOf(model, key);
    parent[name] = layer.get_base_layer();
  }
  for (const [key, wrapper] of [...savedModules(model)]) {
    const { parent, name } = placeOf(model, key);
    parent[name] = wrapper.active_module;
  }
  delete model.peft_config;
}
