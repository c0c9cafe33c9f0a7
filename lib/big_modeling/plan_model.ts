// The plan behind `from_pretrained(…, { device_map: "auto" })`: transformers' planner over the ties that a model declares.
import type { Module } from "../nn/index.ts";
import type { Dtype, Tensor } from "../torch/index.ts";
import { finishMap, planParts, warnOfBuffers, warnOfSplitTies } from "./device_map.ts";
import type { MaxMemory } from "./devices.ts";
import { availableMemory, type Budget, balanced, classNames, roomAsTransformers } from "./max_memory.ts";
import { noSplitClasses, partsOf, sizesAsTransformers } from "./module_sizes.ts";
import type { PlanInput } from "./plan_parts.ts";

export const PLAN_KINDS = ["auto", "balanced", "balanced_low_0", "sequential"] as const;
export type PlanKind = (typeof PLAN_KINDS)[number];

/** What a model may declare for its plan. */
export interface Plannable extends Module {
  /** Target name → source name. */
  readonly all_tied_weights_keys?: Readonly<Record<string, string>>;
}

export interface LoadingPlanOptions {
  readonly max_memory?: MaxMemory | null | undefined;
  /** Default: what the model's class names. */
  readonly no_split_module_classes?: Iterable<string> | undefined;
  readonly offload_buffers?: boolean | undefined;
  /** The dtype that a tensor will have. Default: what it has. */
  readonly dtypeOf?: ((name: string, tensor: Tensor) => Dtype) | undefined;
}

/** What transformers' planner works on. */
export function loadingInput(
  model: Plannable,
  kind: PlanKind,
  { max_memory, no_split_module_classes, dtypeOf }: LoadingPlanOptions,
): PlanInput & { readonly budget: Budget } {
  const root = partsOf(model);
  const ties = model.all_tied_weights_keys ?? {};
  const sizes = sizesAsTransformers(root, {
    tied: new Set(Object.keys(ties)),
    ...(dtypeOf ? { dtypeOf } : {}),
  });
  const noSplit = classNames(no_split_module_classes ?? noSplitClasses(model));
  const groups = new Map<string, string[]>();
  for (const [target, source] of Object.entries(ties))
    groups.set(source, [...(groups.get(source) ?? [source]), target].sort());
  const budget = availableMemory(max_memory);
  if (kind !== "sequential") {
    const isFree = max_memory === undefined || max_memory === null;
    balanced(budget, sizes, roomAsTransformers(root, sizes, noSplit), kind === "balanced_low_0", isFree);
  }
  const declared = (model.constructor as { _no_placement_params?: Iterable<string> })._no_placement_params;
  const noPlacement = declared === undefined ? undefined : new Set(declared);
  return { root, sizes, budget, noSplit, tied: [...groups.values()], rules: "transformers", noPlacement };
}

/** Module name → place, as transformers plans a load. */
export function planLoading(
  model: Plannable,
  kind: PlanKind,
  options: LoadingPlanOptions = {},
): Record<string, string> {
  const input = loadingInput(model, kind, options);
  const plan = planParts(input);
  if (!options.offload_buffers) warnOfBuffers(plan, input.budget);
  const map = finishMap(input.root, plan.map, input.noPlacement === undefined);
  warnOfSplitTies(input.tied, map);
  return map;
}
