// Walking a tree of modules: by name, by kind, by dotted path.

import { InvalidArgumentError } from "../errors/index.ts";
import { suggest } from "../errors/suggest.ts";
import type { Tensor } from "../torch/index.ts";
import { bind, type Rest } from "./arguments.ts";
import type { Module } from "./module.ts";
import type { Parameter } from "./parameter.ts";

export interface NamedOptions {
  /** Put before each name, with a dot. Default: "". */
  prefix?: string | undefined;
  /** Walk submodules too. Default: true. */
  recurse?: boolean | undefined;
  /** Give a tensor that has several names only under the first. Default: true. */
  remove_duplicate?: boolean | undefined;
}

export type NamedRest = Rest<[prefix: string, recurse: boolean, remove_duplicate: boolean], NamedOptions>;
export type RecurseRest = Rest<[recurse: boolean], Pick<NamedOptions, "recurse">>;

/** What the walk found in the properties of one module, each kind in the order of assignment. */
export interface OwnState {
  readonly parameters: readonly (readonly [string, Parameter])[];
  readonly buffers: readonly (readonly [string, Tensor])[];
  readonly children: readonly (readonly [string, Module])[];
}

export function* walkModules(
  module: Module,
  prefix: string,
  met: Set<Module> | null,
): Generator<[string, Module]> {
  if (met?.has(module)) return;
  met?.add(module);
  yield [prefix, module];
  for (const [name, child] of module._own_state().children) {
    yield* walkModules(child, prefix === "" ? name : `${prefix}.${name}`, met);
  }
}

export function* namedTensors<T extends Tensor>(
  root: Module,
  method: string,
  rest: NamedRest,
  own: (module: Module) => readonly (readonly [string, T])[],
): Generator<[string, T]> {
  const { prefix, recurse, remove_duplicate } = bind(method, rest, {
    prefix: "",
    recurse: true,
    remove_duplicate: true,
  });
  const met = new Set<T>();
  const modules: Iterable<[string, Module]> = recurse
    ? root.named_modules({ prefix, remove_duplicate })
    : [[prefix, root]];
  for (const [path, module] of modules) {
    for (const [name, tensor] of own(module)) {
      if (met.has(tensor)) continue;
      if (remove_duplicate) met.add(tensor);
      yield [path === "" ? name : `${path}.${name}`, tensor];
    }
  }
}

export function lookUp<T>(
  root: Module,
  target: string,
  kind: string,
  own: (module: Module) => readonly (readonly [string, T])[],
): T {
  const dot = target.lastIndexOf(".");
  const module = root.get_submodule(dot < 0 ? "" : target.slice(0, dot));
  const name = target.slice(dot + 1);
  const entries = own(module);
  const found = entries.find(([key]) => key === name);
  if (found) return found[1];
  throw new InvalidArgumentError(
    `${module._get_name()} has no ${kind} '${name}' (looking for '${target}').`,
    {
      suggestion: suggest(
        name,
        entries.map(([key]) => key),
      ),
    },
  );
}
