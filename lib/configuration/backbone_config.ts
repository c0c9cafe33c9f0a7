// What configurations of backbones have besides: which of the model's stages give feature maps, by name and by index.

import { ConfigError } from "../errors/index.ts";
import type { PretrainedConfig } from "./configuration_utils.ts";
import { shown } from "./field_types.ts";

/** The stages of a backbone and those whose feature maps are wanted. */
export interface BackboneFields {
  /** Names of the stages, in order: "stem", "stage1", … */
  stage_names: string[];
  /** Stages that give a feature map. Setting it sets `out_indices` too. Default: the last stage. */
  get out_features(): readonly string[];
  set out_features(names: readonly string[] | null);
  /** The same by index; negative ones count from the end. Setting it sets `out_features` too. */
  get out_indices(): readonly number[];
  set out_indices(indices: readonly number[] | null);
  /** Sets both; what is null follows from the other. Needs `stage_names`. */
  set_output_features_output_indices(wanted: {
    readonly out_features?: readonly string[] | null | undefined;
    readonly out_indices?: readonly number[] | null | undefined;
  }): void;
  /** @throws ConfigError when the two are no stages, out of order, or not the same ones. */
  verify_out_features_out_indices(): void;
}

// biome-ignore lint/suspicious/noExplicitAny: TypeScript wants exactly this of a class that is extended by a function.
type AnyConfigClass = new (...args: any[]) => PretrainedConfig;

/** `Base` with the members of {@link BackboneFields}; its static members stay. */
export type WithBackboneFields<Base extends AnyConfigClass> = Omit<Base, "prototype"> & {
  new (...args: ConstructorParameters<Base>): InstanceType<Base> & BackboneFields;
  prototype: InstanceType<Base> & BackboneFields;
};

/**
 * A class of configurations that say which stages of a backbone give feature maps. Its constructor sets `stage_names`, then
 * calls `set_output_features_output_indices`.
 *
 * @example
 * class MyConfig extends BackboneConfigMixin(PretrainedConfig) {
 *   constructor({ out_features, out_indices, ...kwargs } = {}) {
 *     super(kwargs);
 *     this.stage_names = ["stem", "stage1", "stage2"];
 *     this.set_output_features_output_indices({ out_features, out_indices });
 *     this.post_init();
 *   }
 * }
 */
export function BackboneConfigMixin<Base extends AnyConfigClass>(Base: Base): WithBackboneFields<Base> {
  class BackboneConfig extends Base {
    declare stage_names: string[] | null;
    declare _out_features: readonly string[] | null;
    declare _out_indices: readonly number[] | null;

    get out_features(): readonly string[] | null {
      return this._out_features ?? null;
    }

    set out_features(out_features: readonly string[] | null) {
      this.set_output_features_output_indices({ out_features });
    }

    get out_indices(): readonly number[] | null {
      return this._out_indices ?? null;
    }

    set out_indices(out_indices: readonly number[] | null) {
      this.set_output_features_output_indices({ out_indices });
    }

    set_output_features_output_indices({
      out_features = null,
      out_indices = null,
    }: {
      readonly out_features?: readonly string[] | null | undefined;
      readonly out_indices?: readonly number[] | null | undefined;
    }): void {
      const name = this.constructor.name;
      const stages = stagesOf(name, this.stage_names);
      verify(name, stages, out_features, out_indices);
      const indices = out_indices ??
        out_features?.map((feature) => stages.indexOf(feature)) ?? [stages.length - 1];
      const features = out_features ?? indices.map((index) => stages.at(index) as string);
      verify(name, stages, features, indices);
      this._out_features = [...features];
      this._out_indices = [...indices];
    }

    verify_out_features_out_indices(): void {
      const name = this.constructor.name;
      verify(name, stagesOf(name, this.stage_names), this.out_features, this.out_indices);
    }

    override to_dict(): Record<string, unknown> {
      const output = super.to_dict();
      for (const field of ["out_features", "out_indices"]) {
        output[field] = output[`_${field}`] ?? null;
        delete output[`_${field}`];
      }
      return output;
    }
  }
  return BackboneConfig as unknown as WithBackboneFields<Base>;
}

function stagesOf(name: string, stages: readonly string[] | null | undefined): readonly string[] {
  if (stages) return stages;
  throw new ConfigError(`${name}: stage_names must be set before out_features and out_indices are.`);
}

const list = (values: readonly unknown[]) => `[${values.join(", ")}]`;

function verify(
  name: string,
  stages: readonly string[],
  features: readonly string[] | null,
  indices: readonly number[] | null,
): void {
  const refuse = (what: string): never => {
    throw new ConfigError(`${name}: ${what}`, { hint: `The stages are ${list(stages)}.` });
  };
  if (features !== null) {
    if (!Array.isArray(features)) refuse(`out_features must be a list, got ${shown(features)}.`);
    const unknown = features.find((feature) => !stages.includes(feature));
    if (unknown !== undefined) refuse(`out_features has '${unknown}', which is no stage.`);
    if (new Set(features).size < features.length) refuse(`out_features ${list(features)} has duplicates.`);
    const ordered = stages.filter((stage) => features.includes(stage));
    if (ordered.some((stage, i) => stage !== features[i]))
      refuse(`out_features must be in the order of the stages, ${list(ordered)}, got ${list(features)}.`);
  }
  if (indices !== null) {
    if (!Array.isArray(indices)) refuse(`out_indices must be a list, got ${shown(indices)}.`);
    const wrong = indices.find((index) => !Number.isInteger(index) || stages.at(index) === undefined);
    if (wrong !== undefined) refuse(`out_indices has ${wrong}, which is the index of no stage.`);
    const positive = indices.map((index) => (index < 0 ? index + stages.length : index));
    if (new Set(positive).size < positive.length) refuse(`out_indices ${list(indices)} has duplicates.`);
    if (positive.some((index, i) => i > 0 && index < (positive[i - 1] as number)))
      refuse(`out_indices must be in the order of the stages, got ${list(indices)}.`);
  }
  if (features !== null && indices !== null) {
    if (features.length !== indices.length)
      refuse(`out_features ${list(features)} and out_indices ${list(indices)} differ in length.`);
    if (features.some((feature, i) => feature !== stages.at(indices[i] as number)))
      refuse(`out_features ${list(features)} and out_indices ${list(indices)} name different stages.`);
  }
}
