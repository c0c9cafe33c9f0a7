// What logits processors are made of: the base class, lists of them, how they read their arguments.
import { constant } from "../../compile/constant.ts";
import { InvalidArgumentError } from "../../errors/index.ts";
import type { Tensor } from "../../torch/index.ts";
import * as torch from "../../torch/index.ts";
import { readOptions } from "../../torch/options.ts";
import type { PaddedSequence } from "../padded_sequence.ts";

/** Changes scores [batch, vocabulary], given the tokens so far [batch, length]. */
export abstract class LogitsProcessor {
  readonly #owned: { dispose(): void }[] = [];

  /** Gives new scores; the given ones are left as they are. */
  abstract process(input_ids: Tensor, scores: Tensor): Tensor;

  /**
   * The same over a sequence with room behind it, in operators of fixed shape: what a Program records. For processors that
   * do not look at the ids it is `process`; the others override it.
   */
  processPadded(sequence: PaddedSequence, scores: Tensor): Tensor {
    return this.process(sequence.ids, scores);
  }

  /** Frees what was prepared for this vocabulary and device; it is prepared again when it is needed. */
  dispose(): void {
    for (const item of this.#owned) item.dispose();
  }

  /** Lets `dispose` free this too. */
  own<T extends { dispose(): void }>(item: T): T {
    this.#owned.push(item);
    return item;
  }
}

/** A processor, or a plain function that does the same. */
export type LogitsProcessorLike = LogitsProcessor | ((input_ids: Tensor, scores: Tensor) => Tensor);

/**
 * Processors that run one after another.
 *
 * @example
 * await model.generate(inputs, { logits_processor: new LogitsProcessorList([(ids, scores) => scores.mul(2)]) });
 */
export class LogitsProcessorList extends LogitsProcessor {
  readonly items: LogitsProcessorLike[];

  constructor(items: Iterable<LogitsProcessorLike> = []) {
    super();
    this.items = [...items];
  }

  get length(): number {
    return this.items.length;
  }

  push(...items: LogitsProcessorLike[]): number {
    return this.items.push(...items);
  }

  [Symbol.iterator](): IterableIterator<LogitsProcessorLike> {
    return this.items[Symbol.iterator]();
  }

  override process(input_ids: Tensor, scores: Tensor): Tensor {
    let result = scores;
    for (const item of this.items) {
      result = typeof item === "function" ? item(input_ids, result) : item.process(input_ids, result);
    }
    return result;
  }
}

/** Token ids, as one, as a list, or as a tensor [n]. */
export type TokenIds = number | readonly number[] | Tensor;

/** Arguments by position, by name in one object, or both. */
export type Arguments<O> = readonly [O] | readonly unknown[];

/** Filters share these: what a removed score becomes, and how many tokens must stay. */
export interface FilterOptions {
  /** Default -Infinity. */
  readonly filter_value?: number;
  /** Default 1. */
  readonly min_tokens_to_keep?: number;
}

// Arguments ------------------------------------------------------------------------------------------------------

export function read<O extends object>(
  cls: { readonly name: string },
  args: Arguments<O>,
  names: readonly (keyof O & string)[],
): O {
  return readOptions(cls.name, args, names) as O;
}

export function check(
  ok: boolean,
  cls: { readonly name: string },
  name: string,
  expected: string,
  value: unknown,
): void {
  if (!ok) throw new InvalidArgumentError(`${cls.name}: ${name} must be ${expected}, got ${String(value)}.`);
}

export const isCount = (value: unknown, least: number): value is number =>
  Number.isSafeInteger(value) && (value as number) >= least;

export function tokenList(ids: TokenIds): number[] {
  return ids instanceof torch.Tensor
    ? (ids.reshape([-1]).tolist() as number[])
    : typeof ids === "number"
      ? [ids]
      : [...ids];
}

/** A set of tokens, as a tensor on whatever device it is asked for. */
export class TokenSet {
  readonly ids: readonly number[];
  #tensor: Tensor | undefined;
  #mask: Tensor | undefined;

  constructor(ids: TokenIds, cls: { readonly name: string }, name: string) {
    this.ids = tokenList(ids);
    check(
      this.ids.every((id) => isCount(id, 0)),
      cls,
      name,
      "token ids",
      this.ids,
    );
  }

  dispose(): void {
    this.#tensor?.dispose();
    this.#mask?.dispose();
    this.#tensor = this.#mask = undefined;
  }

  tensor(like: Tensor): Tensor {
    if (this.#tensor?.device !== like.device) {
      this.#tensor = torch.keep(torch.tensor(this.ids, { dtype: "int64", device: like.device }));
    }
    return this.#tensor as Tensor;
  }

  /** [vocabulary], true for the tokens of the set. */
  mask(scores: Tensor): Tensor {
    const size = scores.shape.at(-1) as number;
    if (this.#mask?.device !== scores.device || this.#mask.shape[0] !== size) {
      this.#mask = constant(() =>
        torch.keep(torch.isin(torch.arange(size, { device: scores.device }), this.tensor(scores))),
      );
    }
    return this.#mask as Tensor;
  }
}
