// Stopping criteria: when a sequence is finished, under Python's class names.
import { InvalidArgumentError } from "../errors/index.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { readOptions } from "../torch/options.ts";
import type { TokenIds } from "./logits_process/logits_processor.ts";
import type { StreamerTokenizer } from "./streamers.ts";

/** Says for each row whether it is finished. */
export abstract class StoppingCriteria {
  /**
   * @param input_ids tokens so far [batch, length]. @param scores those of each step, when they are collected.
   * @returns bool [batch], or one boolean for all rows.
   */
  abstract check(input_ids: Tensor, scores: readonly Tensor[] | undefined): Tensor | boolean;

  /** Frees what the criterion made for itself; it is not used afterwards. */
  dispose(): void {}
}

/** A criterion, or a plain function that does the same. */
export type StoppingCriteriaLike =
  | StoppingCriteria
  | ((input_ids: Tensor, scores: readonly Tensor[] | undefined) => Tensor | boolean);

/** A row is finished when one of the criteria says so. */
export class StoppingCriteriaList extends StoppingCriteria {
  readonly items: StoppingCriteriaLike[];

  constructor(items: Iterable<StoppingCriteriaLike> = []) {
    super();
    this.items = [...items];
  }

  get length(): number {
    return this.items.length;
  }

  push(...items: StoppingCriteriaLike[]): number {
    return this.items.push(...items);
  }

  [Symbol.iterator](): IterableIterator<StoppingCriteriaLike> {
    return this.items[Symbol.iterator]();
  }

  /** The limit of the first criterion that has one. */
  get max_length(): number | undefined {
    return this.items.find((item) => item instanceof MaxLengthCriteria)?.max_length;
  }

  override check(input_ids: Tensor, scores: readonly Tensor[] | undefined): Tensor {
    let done = allRows(input_ids, false);
    for (const item of this.items) {
      const result = typeof item === "function" ? item(input_ids, scores) : item.check(input_ids, scores);
      done = done.bitwise_or(
        typeof result === "boolean"
          ? allRows(input_ids, result)
          : result.to({ device: done.device, dtype: "bool" }),
      );
    }
    return done;
  }
}

function allRows(input_ids: Tensor, value: boolean): Tensor {
  return torch.full([input_ids.shape[0] as number], value, { dtype: "bool", device: input_ids.device });
}

/** Finished at `max_length` tokens, the prompt included. */
export class MaxLengthCriteria extends StoppingCriteria {
  readonly max_length: number;

  constructor(
    ...args:
      | readonly [max_length: number]
      | readonly [{ max_length: number; max_position_embeddings?: number }]
  ) {
    super();
    const { max_length } = readOptions("MaxLengthCriteria", args, ["max_length", "max_position_embeddings"]);
    this.max_length = max_length as number;
  }

  override check(input_ids: Tensor): boolean {
    return (input_ids.shape[1] as number) >= this.max_length;
  }
}

/** Finished after `max_time` seconds. */
export class MaxTimeCriteria extends StoppingCriteria {
  readonly max_time: number;
  readonly #start: number;

  constructor(
    ...args: readonly [max_time: number] | readonly [{ max_time: number; initial_timestamp?: number }]
  ) {
    super();
    const { max_time, initial_timestamp } = readOptions("MaxTimeCriteria", args, [
      "max_time",
      "initial_timestamp",
    ]);
    this.max_time = max_time as number;
    this.#start = (initial_timestamp as number | undefined) ?? performance.now() / 1000;
  }

  /** Until it is over; for those who look at another clock. */
  get milliseconds_left(): number {
    return (this.#start + this.max_time) * 1000 - performance.now();
  }

  override check(): boolean {
    return performance.now() / 1000 - this.#start > this.max_time;
  }
}

/** Finished when the last token is one of `eos_token_id`. */
export class EosTokenCriteria extends StoppingCriteria {
  readonly eos_token_id: Tensor;
  readonly #isOwn: boolean;

  constructor(...args: readonly [eos_token_id: TokenIds] | readonly [{ eos_token_id: TokenIds }]) {
    super();
    const { eos_token_id } = readOptions("EosTokenCriteria", args, ["eos_token_id"]) as {
      eos_token_id: TokenIds;
    };
    this.#isOwn = !(eos_token_id instanceof torch.Tensor);
    this.eos_token_id = torch.keep(
      eos_token_id instanceof torch.Tensor
        ? eos_token_id
        : torch.tensor(typeof eos_token_id === "number" ? [eos_token_id] : [...eos_token_id], {
            dtype: "int64",
          }),
    );
  }

  override dispose(): void {
    if (this.#isOwn) this.eos_token_id.dispose();
  }

  override check(input_ids: Tensor): Tensor {
    const last = input_ids.select(1, (input_ids.shape[1] as number) - 1);
    return torch.isin(last, this.eos_token_id.to(last.device));
  }
}

/**
 * Finished when the text ends with, or the last token completes, one of the strings.
 *
 * The strings are looked for in the decoded text of the last tokens, which is where a tokenizer works asynchronously:
 * `prepare` is awaited before each `check`.
 */
export class StopStringCriteria extends StoppingCriteria {
  readonly stop_strings: readonly string[];
  readonly #tokenizer: StreamerTokenizer;
  readonly #longest: number;
  #found: boolean[] = [];

  constructor(
    ...args:
      | readonly [tokenizer: StreamerTokenizer, stop_strings: string | readonly string[]]
      | readonly [{ tokenizer: StreamerTokenizer; stop_strings: string | readonly string[] }]
  ) {
    super();
    const bag = args.length === 1 ? args[0] : { tokenizer: args[0], stop_strings: args[1] };
    const strings = typeof bag.stop_strings === "string" ? [bag.stop_strings] : [...bag.stop_strings];
    if (strings.length === 0 || strings.some((text) => typeof text !== "string" || text === "")) {
      throw new InvalidArgumentError("StopStringCriteria: stop_strings must be strings that are not empty.");
    }
    this.stop_strings = strings;
    this.#tokenizer = bag.tokenizer;
    this.#longest = Math.max(...strings.map((text) => Buffer.byteLength(text)));
  }

  /** Decodes the end of each row and looks for the strings in it. */
  async prepare(input_ids: Tensor): Promise<void> {
    const length = input_ids.shape[1] as number;
    // A token stands for at least one byte, so a string that ends in the last token begins in these.
    const count = Math.min(length, this.#longest + 1);
    const rows = torch.tidy(() => input_ids.narrow(1, length - count, count).tolist()) as number[][];
    this.#found = await Promise.all(rows.map((ids) => this.#endsIn(ids)));
  }

  async #endsIn(ids: number[]): Promise<boolean> {
    const options = { skip_special_tokens: false };
    const [text, before] = [
      await this.#tokenizer.decode(ids, options),
      await this.#tokenizer.decode(ids.slice(0, -1), options),
    ];
    return this.stop_strings.some((stop) => {
      const at = text.lastIndexOf(stop);
      return at >= 0 && at + stop.length > before.replace(/\uFFFD+$/, "").length;
    });
  }

  override check(input_ids: Tensor): Tensor {
    return torch.tensor(this.#found, { dtype: "bool", device: input_ids.device });
  }
}
