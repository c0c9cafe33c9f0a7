// Renaming and converting weights between a checkpoint and a model, and back. Patterns, their order and what is done to
// them when a transform is reversed follow the reference's core_model_loading.py, so that its tables carry over.
import { CheckpointError, InvalidArgumentError } from "../errors/index.ts";
import type { AnyWeight, ConversionContext, ConversionOps, Weights } from "./conversion_ops.ts";

/** A Python pattern as JavaScript's: named groups are written another way. */
const regex = (pattern: string) => new RegExp(pattern.replaceAll("(?P<", "(?<"));

const groupsIn = (pattern: string) => (regex(`${pattern}|`).exec("")?.length ?? 1) - 1;

/** A pattern as the text that replaces a match, and the group that it had. */
function asReplacement(pattern: string): [text: string, group: string | undefined] {
  let text = pattern.startsWith("^") ? pattern.slice(1) : pattern;
  text = text.replaceAll(/\(\?.+?\)?\)/g, "");
  const group = /\(.+?\)/.exec(text)?.[0];
  if (group !== undefined) text = text.replace(group, () => "\\1");
  return [text.replaceAll("\\.", "."), group];
}

interface Match {
  readonly prefix: string;
  readonly key: string;
  readonly text: string;
  /** Which source pattern. */
  readonly index: number;
  /** The groups inside that pattern. */
  readonly groups: readonly (string | undefined)[];
}

/** What renamings and converters have in common: patterns of names, and what they become. */
export abstract class WeightTransform {
  readonly source_patterns: readonly string[];
  readonly target_patterns: readonly string[];
  /** With a scope, only names below it match: a model inside a model. */
  scope_prefix: string | undefined;
  base_model_prefix = "";
  protected readonly original_sources: readonly string[];
  protected readonly original_targets: readonly string[];
  readonly #sources: RegExp;
  /** Number of the group of each branch, with its pattern's index. */
  readonly #branches: readonly (readonly [group: number, index: number])[];
  #used = false;

  constructor(source_patterns: string | readonly string[], target_patterns: string | readonly string[]) {
    this.original_sources = [source_patterns].flat() as string[];
    this.original_targets = [target_patterns].flat() as string[];
    const replacements = this.original_targets.map(asReplacement);
    this.target_patterns = replacements.map(([text]) => text);
    const groups = new Set(replacements.flatMap(([, group]) => group ?? []));
    if (groups.size > 1)
      throw new InvalidArgumentError(
        `All target patterns must have the same group, got ${[...groups].join(", ")}.`,
      );
    const [group] = groups;
    const paired = this.original_sources.length === this.original_targets.length;
    this.source_patterns = this.original_sources.map((pattern, i) => {
      let source = pattern;
      if (source.includes("\\1")) {
        if (group === undefined)
          throw new InvalidArgumentError(
            `The source pattern '${pattern}' has \\1, and no target pattern has a group.`,
          );
        source = source.replace("\\1", () => group);
      }
      const fromStart = paired && this.original_targets[i]?.startsWith("^") && !source.startsWith("^");
      return fromStart ? `^${source}` : source;
    });
    // Longest first: `weight.scale` before `weight`.
    const order = this.source_patterns
      .map((pattern, index) => ({ pattern, index }))
      .sort((a, b) => b.pattern.length - a.pattern.length);
    let before = 1;
    const branches: [number, number][] = [];
    const text = order.map(({ pattern, index }) => {
      let branch = pattern.replaceAll("*.", ".*\\.");
      // A pattern that ends in a letter or digit ends at the end of a word.
      if (/[a-zA-Z0-9]$/.test(branch)) branch += "(?!\\w)";
      branches.push([before, index]);
      before += 1 + groupsIn(branch);
      return `(${branch})`;
    });
    this.#sources = regex(text.join("|"));
    this.#branches = branches;
  }

  /** Whether it matched a name since it was made. */
  was_used(): boolean {
    return this.#used;
  }

  /** The name that a name becomes, and the source pattern that matched; several targets stand under the first one. */
  rename_source_key(key: string): [key: string, pattern: string | undefined] {
    const match = this.match(key);
    if (match === undefined) return [key, undefined];
    return this.renamed(match, this.target_patterns[0] as string, (text) =>
      text.includes("\\1") ? text.replaceAll("\\1", () => match.groups[0] ?? "") : text,
    );
  }

  protected match(key: string): Match | undefined {
    let prefix = "";
    if (this.scope_prefix !== undefined) {
      const scope = this.scope_prefix === "" ? "" : `${this.scope_prefix}.`;
      const base = this.base_model_prefix === "" ? "" : `${this.base_model_prefix}.`;
      if (key.startsWith(base + scope)) prefix = base + scope;
      else if (key.startsWith(scope)) prefix = scope;
      else return undefined;
    }
    const rest = key.slice(prefix.length);
    const found = this.#sources.exec(rest);
    if (found === null) return undefined;
    const branch = this.#branches.findIndex(([group]) => found[group] !== undefined);
    const [group, index] = this.#branches[branch] as readonly [number, number];
    const end = this.#branches[branch + 1]?.[0] ?? found.length;
    return { prefix, key: rest, text: found[0], index, groups: found.slice(group + 1, end) };
  }

  protected renamed(match: Match, target: string, fill: (text: string) => string): [string, string] {
    this.#used = true;
    const replacement = fill(target);
    return [
      match.prefix + match.key.replace(match.text, () => replacement),
      this.source_patterns[match.index] as string,
    ];
  }

  /** The transform that undoes this one. */
  abstract reverse_transform(): WeightTransform;

  protected scoped<T extends WeightTransform>(transform: T): T {
    transform.scope_prefix = this.scope_prefix;
    transform.base_model_prefix = this.base_model_prefix;
    return transform;
  }

  /** The same transform, unused and without a scope. */
  abstract fresh(): WeightTransform;
}

/**
 * Renames what matches: `new WeightRenaming("LayerNorm.gamma", "LayerNorm.weight")`. Patterns are regular expressions; a
 * group of the source is `\1` in the target.
 */
export class WeightRenaming extends WeightTransform {
  override reverse_transform(): WeightTransform {
    return this.scoped(new WeightRenaming(this.original_targets, this.original_sources));
  }

  override fresh(): WeightTransform {
    return new WeightRenaming(this.original_sources, this.original_targets);
  }
}

/** Renamings that belong together; none is done before the first one has matched, since a file may be renamed already. */
export class GroupWeightRename extends WeightRenaming {
  #active = false;

  constructor(source_patterns: readonly string[], target_patterns: readonly string[]) {
    if (source_patterns.length !== target_patterns.length)
      throw new InvalidArgumentError("GroupWeightRename takes as many target patterns as source patterns.");
    super(source_patterns, target_patterns);
  }

  override rename_source_key(key: string): [string, string | undefined] {
    const match = this.match(key);
    if (match === undefined) return [key, undefined];
    if (match.index === 0) this.#active = true;
    else if (!this.#active) return [key, undefined];
    return this.renamed(match, this.target_patterns[match.index] as string, (text) =>
      text.replaceAll(/\\(\d+)/g, (_, number) => match.groups[Number(number) - 1] ?? ""),
    );
  }

  override reverse_transform(): WeightTransform {
    // The first in the order of names stays the one that the others wait for.
    const pairs = this.original_targets
      .map((target, i) => [target, this.original_sources[i] as string] as const)
      .sort(([a, x], [b, y]) => (a < b ? -1 : a > b ? 1 : x < y ? -1 : x > y ? 1 : 0));
    return this.scoped(
      new GroupWeightRename(
        pairs.map(([source]) => source),
        pairs.map(([, target]) => target),
      ),
    );
  }

  override fresh(): WeightTransform {
    return new GroupWeightRename(this.original_sources, this.original_targets);
  }
}

/** Adds or removes a part at the start of names (after `model_prefix`). */
export class PrefixChange extends WeightRenaming {
  readonly #change: {
    prefix_to_add?: string | undefined;
    prefix_to_remove?: string | undefined;
    model_prefix: string;
  };

  constructor({
    prefix_to_add,
    prefix_to_remove,
    model_prefix = "",
  }: {
    prefix_to_add?: string | undefined;
    prefix_to_remove?: string | undefined;
    model_prefix?: string | undefined;
  }) {
    if ((prefix_to_add === undefined) === (prefix_to_remove === undefined))
      throw new InvalidArgumentError("PrefixChange takes one of prefix_to_add and prefix_to_remove.");
    const before = model_prefix === "" ? "" : `${model_prefix}\\.`;
    if (prefix_to_add !== undefined)
      super(`^${before}(?:(?!${prefix_to_add}\\.))(.+)`, `${before}${prefix_to_add}\\.\\1`);
    else super(`^${before}${prefix_to_remove}\\.(.+)`, `${before}\\1`);
    this.#change = { prefix_to_add, prefix_to_remove, model_prefix };
  }

  override reverse_transform(): WeightTransform {
    const { prefix_to_add, prefix_to_remove, model_prefix } = this.#change;
    return this.scoped(
      new PrefixChange({ prefix_to_add: prefix_to_remove, prefix_to_remove: prefix_to_add, model_prefix }),
    );
  }

  override fresh(): WeightTransform {
    return new PrefixChange(this.#change);
  }
}

/**
 * Makes weights of a model of those in a checkpoint, by operations that can be undone: one from one, several from one, or
 * one from several.
 *
 * @example
 * new WeightConverter(
 *   ["mlp.experts.*.gate_proj.weight", "mlp.experts.*.up_proj.weight"],
 *   "mlp.experts.gate_up_proj",
 *   [new MergeModulelist({ dim: 0 }), new Concatenate({ dim: 1 })],
 * );
 */
export class WeightConverter extends WeightTransform {
  readonly operations: readonly ConversionOps[];

  constructor(
    source_patterns: string | readonly string[],
    target_patterns: string | readonly string[],
    operations: readonly ConversionOps[],
  ) {
    super(source_patterns, target_patterns);
    if (operations.length === 0)
      throw new InvalidArgumentError("WeightConverter needs at least one operation.");
    const manyToMany = this.source_patterns.length > 1 && this.target_patterns.length > 1;
    if (manyToMany && !operations.some(({ supports_many_to_many }) => supports_many_to_many))
      throw new InvalidArgumentError("WeightConverter makes one of one, several of one, or one of several.");
    this.operations = operations;
  }

  /** The weights that the collected ones become, by the model's names; `name` is that of the first target. */
  convert(
    collected: Weights,
    name: string,
    context: Pick<ConversionContext, "model" | "config">,
  ): Map<string, AnyWeight> {
    let weights = collected;
    for (const op of this.operations) {
      weights = op.convert(weights, {
        source_patterns: this.source_patterns,
        target_patterns: this.target_patterns,
        full_layer_name: name,
        ...context,
      });
    }
    const full = name.replaceAll("*.", "0.");
    const key = [...weights.keys()].find((pattern) => full.includes(pattern));
    const at = key === undefined ? 0 : full.indexOf(key);
    const [before, after] = key === undefined ? ["", ""] : [full.slice(0, at), full.slice(at + key.length)];
    return new Map(
      [...weights].map(([pattern, [weight]]) => {
        if (weight === undefined) throw new CheckpointError(`Nothing was found for ${pattern}.`);
        return [before + pattern + after, weight];
      }),
    );
  }

  override reverse_transform(): WeightTransform {
    const operations = this.operations.map((op) => op.reverse_op).reverse();
    return this.scoped(new WeightConverter(this.original_targets, this.original_sources, operations));
  }

  override fresh(): WeightTransform {
    return new WeightConverter(this.original_sources, this.original_targets, this.operations);
  }
}

const isConverter = (transform: WeightTransform): transform is WeightConverter =>
  transform instanceof WeightConverter;

/** A list of transforms in the order in which they act: all renamings, then at most one converter; reversed, the other way round. */
export class Transforms {
  readonly renamings: readonly WeightTransform[];
  readonly converters: readonly WeightConverter[];

  constructor(transforms: readonly WeightTransform[]) {
    this.renamings = transforms.filter((transform) => !isConverter(transform));
    this.converters = transforms.filter(isConverter);
  }

  rename(key: string): string {
    return this.renamings.reduce((name, renaming) => renaming.rename_source_key(name)[0], key);
  }

  /** The name after the first converter that matches, with it and its pattern. */
  convert(key: string): [key: string, converter?: WeightConverter, pattern?: string] {
    for (const converter of this.converters) {
      const [name, pattern] = converter.rename_source_key(key);
      if (pattern !== undefined) return [name, converter, pattern];
    }
    return [key];
  }
}
