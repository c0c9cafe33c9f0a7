// Which conversions a model's checkpoints need: by the name of its class, else by its `model_type`. A family adds its table
// with `register_checkpoint_conversion_mapping` beside its classes.
import { InvalidArgumentError } from "../errors/index.ts";
import type { PreTrainedModel } from "./modeling_utils.ts";
import { PrefixChange, WeightRenaming, type WeightTransform } from "./weight_transforms.ts";

const registry = new Map<string, readonly WeightTransform[]>();

/** Names of old checkpoints of any family; tried last, and not made again by saving unless loading met them. */
const LEGACY: readonly WeightTransform[] = [
  new WeightRenaming("LayerNorm.gamma", "LayerNorm.weight"),
  new WeightRenaming("LayerNorm.beta", "LayerNorm.bias"),
  new WeightRenaming(".weight_g", ".parametrizations.weight.original0"),
  new WeightRenaming(".weight_v", ".parametrizations.weight.original1"),
  new WeightRenaming(
    ["^model\\.language_model\\.model", "^language_model\\.model\\.model"],
    "model.language_model",
  ),
];

/**
 * Says how the checkpoints of a class or `model_type` are converted on load, and back on save.
 *
 * @param name a class's name, which goes first, or a `model_type`.
 * @param options.overwrite replace what is registered; default false: an error.
 * @example
 * register_checkpoint_conversion_mapping("my_moe", [
 *   new WeightConverter("experts.*.down.weight", "experts.down", [new MergeModulelist()]),
 * ]);
 */
export function register_checkpoint_conversion_mapping(
  name: string,
  mapping: readonly WeightTransform[],
  { overwrite = false }: { overwrite?: boolean } = {},
): void {
  if (registry.has(name) && !overwrite)
    throw new InvalidArgumentError(
      `A conversion mapping for '${name}' exists; pass { overwrite: true } to replace it.`,
    );
  registry.set(name, mapping);
}

/** What is registered under a name, ready to be used once; undefined when nothing is. */
export const get_checkpoint_conversion_mapping = (name: string): WeightTransform[] | undefined =>
  registry.get(name)?.map((transform) => transform.fresh());

/** The transforms for a model and the models in it, in the order in which they act. */
export function get_model_conversion_mapping(
  model: PreTrainedModel,
  isModel: (module: unknown) => module is PreTrainedModel,
  {
    key_mapping = {},
    add_legacy = true,
  }: { key_mapping?: Readonly<Record<string, string>>; add_legacy?: boolean } = {},
): WeightTransform[] {
  const transforms: WeightTransform[] = Object.entries(key_mapping).map(
    ([source, target]) => new WeightRenaming(source, target),
  );
  // Where a name was used already: a model below that place is covered by it.
  const seen = new Map<string, string[]>();
  const covered = (name: string, path: string) =>
    (seen.get(name) ?? []).some((above) => above === "" || path.startsWith(`${above}.`));
  const base = (model.constructor as typeof PreTrainedModel).base_model_prefix;

  for (const [path, module] of model.named_modules()) {
    if (!isModel(module)) continue;
    const className = module.constructor.name;
    const { model_type } = module.config.constructor as unknown as { model_type?: string };
    if (covered(className, path)) continue;
    const byClass = get_checkpoint_conversion_mapping(className);
    if (byClass === undefined && model_type && covered(model_type, path)) continue;
    const found = byClass ?? (model_type ? get_checkpoint_conversion_mapping(model_type) : undefined);
    if (found === undefined) continue;
    if (path !== "") {
      const below = path.startsWith(base) ? path.slice(base.length) : path;
      for (const transform of found) {
        transform.scope_prefix = below.startsWith(".") ? below.slice(1) : below;
        transform.base_model_prefix = base;
      }
    }
    transforms.push(...found);
    const names = byClass === undefined && model_type ? [className, model_type] : [className];
    for (const name of names) seen.set(name, [...(seen.get(name) ?? []), path]);
  }
  if (add_legacy) transforms.push(...LEGACY.map((transform) => transform.fresh()));
  return transforms;
}

/**
 * What saving undoes: the transforms that loading used, or for a model that was not loaded what is registered for it.
 * Undefined: names and order stay the model's.
 */
export function transformsToUndo(
  model: PreTrainedModel,
  isModel: (module: unknown) => module is PreTrainedModel,
): WeightTransform[] | undefined {
  if (model._weight_conversions !== undefined) return model._weight_conversions;
  // Whether a prefix stood in the file is not known of a model that comes from none.
  const found = get_model_conversion_mapping(model, isModel, { add_legacy: false }).filter(
    (transform) => !(transform instanceof PrefixChange),
  );
  return found.length > 0 ? found : undefined;
}
