// Tied weights: one parameter under several names.
import { warn } from "../errors/warnings.ts";
import type { Parameter } from "../nn/index.ts";
import * as nn from "../nn/index.ts";
import * as torch from "../torch/index.ts";
import type { PreTrainedModel } from "./modeling_utils.ts";

/** Target name → source name, the full names of one model and of the models inside it. */
export type TiedKeys = Map<string, string>;

/** A plain name; anything else in `_tied_weights_keys` is a pattern. */
const PLAIN = /^[A-Za-z0-9_.]+$/;

/** The ties that a model's class declares and its config switches on. */
export function ownTiedKeys(model: PreTrainedModel): TiedKeys {
  const declared = (model.constructor as typeof PreTrainedModel)._tied_weights_keys;
  const tied: TiedKeys = new Map();
  if (!(model.config as { tie_word_embeddings?: boolean }).tie_word_embeddings || !declared) return tied;
  if (
    Object.entries(declared)
      .flat()
      .every((name) => PLAIN.test(name) && /(weight|bias)$/.test(name))
  ) {
    return new Map(Object.entries(declared));
  }
  const names = [
    ...model.named_parameters({ remove_duplicate: false }),
    ...model.named_buffers({ remove_duplicate: false }),
  ].map(([name]) => name);
  for (const [target, source] of Object.entries(declared)) {
    const matching = (pattern: string) =>
      names.filter((name) => new RegExp(`^(?:${pattern})`).test(name)).sort();
    const sources = matching(source);
    for (const [i, name] of matching(target).entries()) {
      const from = sources[i % sources.length];
      if (from !== undefined) tied.set(name, tied.get(from) ?? from);
    }
  }
  return tied;
}

/** The ties of a model and of all models in it. */
export function allTiedKeys(
  model: PreTrainedModel,
  isModel: (module: nn.Module) => module is PreTrainedModel,
): TiedKeys {
  const tied: TiedKeys = new Map();
  for (const [path, module] of model.named_modules({ remove_duplicate: false })) {
    if (!isModel(module)) continue;
    const full = (name: string) => (path === "" ? name : `${path}.${name}`);
    for (const [target, source] of ownTiedKeys(module)) tied.set(full(target), full(source));
  }
  return tied;
}

export interface TieOptions {
  /** Names that the checkpoint lacked. */
  readonly missing?: Set<string>;
  /** Free what a tie replaces: nobody else can hold it yet. Default false. */
  readonly free?: boolean;
}

/**
 * Lets each target be its source. After loading, `missing` says which names the checkpoint lacked: a missing source
 * takes the target's values, two different values are not tied, and names that a tie provides leave `missing`.
 */
export function tieWeights(
  model: PreTrainedModel,
  tied: TiedKeys,
  { missing, free = false }: TieOptions = {},
): void {
  const pairs = [...tied];
  for (const [i, pair] of pairs.entries()) {
    let [target, source] = pair;
    let provided = true;
    if (missing) {
      const hasSource = !missing.has(source);
      const hasTarget = !missing.has(target);
      if (hasSource && hasTarget && !sameValues(model, source, target)) {
        warn(
          `${target} should be tied to ${source}, but the checkpoint has different values for them, so they stay apart. Set tie_word_embeddings to false in the config.`,
        );
        tied.delete(target);
        continue;
      }
      if (!hasSource && hasTarget) [target, source] = [source, target];
      if (!hasSource && !hasTarget) {
        const other = pairs.slice(i + 1).find(([t, s]) => s === pair[1] && !missing.has(t));
        if (other) source = other[0];
        else provided = false;
      }
    }
    const replaced = tie(model, target, source);
    if (free) replaced?.dispose();
    if (provided) missing?.delete(target);
  }
}

function sameValues(model: PreTrainedModel, a: string, b: string): boolean {
  const [x, y] = [model.get_parameter(a), model.get_parameter(b)];
  if (x === y || (x.is_meta && y.is_meta)) return true;
  return x.device === y.device && x.dtype === y.dtype && torch.equal(x, y);
}

/** Gives what stood in the target's place, if that was something else. */
function tie(model: PreTrainedModel, target: string, source: string): Parameter | undefined {
  const parameter = model.get_parameter(source);
  const dot = target.lastIndexOf(".");
  const parent = model.get_submodule(target.slice(0, Math.max(dot, 0))) as nn.Module &
    Record<string, unknown>;
  const name = target.slice(dot + 1);
  const before = parent[name];
  (parent as Record<string, unknown>)[name] = parameter;
  adjustBias(parent, parameter);
  return before instanceof nn.Parameter && before !== parameter ? before : undefined;
}

/** An output layer whose weight was replaced by one with more rows gets zeros at the end of its bias. */
function adjustBias(layer: nn.Module & { bias?: unknown }, weight: Parameter): void {
  const bias = layer.bias;
  if (!(bias instanceof nn.Parameter) || bias.is_meta || weight.is_meta) return;
  const more = (weight.shape[0] as number) - (bias.shape[0] as number);
  if (more > 0) bias.data = torch.cat([bias.detach(), bias.new_zeros([more])]);
}
