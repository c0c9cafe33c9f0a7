// Logits processors: what changes the scores of the next token before one is chosen, under Python's class names.
// Over 500 lines because they are many and small; each is a few operations on tensors.
import { InvalidArgumentError } from "../errors/index.ts";
import * as nn from "../nn/index.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { readOptions } from "../torch/options.ts";

const F = nn.functional;

/** Changes scores [batch, vocabulary], given the tokens so far [batch, length]. */
export abstract class LogitsProcessor {
  readonly #owned: { dispose(): void }[] = [];

  /** Gives new scores; the given ones are left as they are. */
  abstract process(input_ids: Tensor, scores: Tensor): Tensor;

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
type Arguments<O> = readonly [O] | readonly unknown[];

/** Filters share these: what a removed score becomes, and how many tokens must stay. */
interface FilterOptions {
  /** Default -Infinity. */
  readonly filter_value?: number;
  /** Default 1. */
  readonly min_tokens_to_keep?: number;
}

// Arguments ------------------------------------------------------------------------------------------------------

function read<O extends object>(
  cls: { readonly name: string },
  args: Arguments<O>,
  names: readonly (keyof O & string)[],
): O {
  return readOptions(cls.name, args, names) as O;
}

function check(
  ok: boolean,
  cls: { readonly name: string },
  name: string,
  expected: string,
  value: unknown,
): void {
  if (!ok) throw new InvalidArgumentError(`${cls.name}: ${name} must be ${expected}, got ${String(value)}.`);
}

const isCount = (value: unknown, least: number): value is number =>
  Number.isSafeInteger(value) && (value as number) >= least;

function tokenList(ids: TokenIds): number[] {
  return ids instanceof torch.Tensor
    ? (ids.reshape([-1]).tolist() as number[])
    : typeof ids === "number"
      ? [ids]
      : [...ids];
}

/** A set of tokens, as a tensor on whatever device it is asked for. */
class TokenSet {
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
      this.#mask = torch.keep(torch.isin(torch.arange(size, { device: scores.device }), this.tensor(scores)));
    }
    return this.#mask as Tensor;
  }
}

// Lengths and special tokens -----------------------------------------------------------------------------------------

/** No end of sequence before `min_length` tokens, the prompt included. */
export class MinLengthLogitsProcessor extends LogitsProcessor {
  readonly min_length: number;
  readonly #eos: TokenSet;

  constructor(...args: Arguments<{ min_length: number; eos_token_id: TokenIds }>) {
    super();
    const { min_length, eos_token_id } = read<{ min_length: number; eos_token_id: TokenIds }>(
      MinLengthLogitsProcessor,
      args,
      ["min_length", "eos_token_id"],
    );
    check(isCount(min_length, 0), MinLengthLogitsProcessor, "min_length", "a count", min_length);
    this.min_length = min_length;
    this.#eos = this.own(new TokenSet(eos_token_id, MinLengthLogitsProcessor, "eos_token_id"));
  }

  override process(input_ids: Tensor, scores: Tensor): Tensor {
    if ((input_ids.shape[1] as number) >= this.min_length) return scores;
    return scores.masked_fill(this.#eos.mask(scores), -Infinity);
  }
}

/** No end of sequence before `min_new_tokens` tokens after the prompt. */
export class MinNewTokensLengthLogitsProcessor extends LogitsProcessor {
  readonly prompt_length_to_skip: number;
  readonly min_new_tokens: number;
  readonly #eos: TokenSet;

  constructor(
    ...args: Arguments<{ prompt_length_to_skip: number; min_new_tokens: number; eos_token_id: TokenIds }>
  ) {
    super();
    const cls = MinNewTokensLengthLogitsProcessor;
    const options = read<{ prompt_length_to_skip: number; min_new_tokens: number; eos_token_id: TokenIds }>(
      cls,
      args,
      ["prompt_length_to_skip", "min_new_tokens", "eos_token_id"],
    );
    check(
      isCount(options.prompt_length_to_skip, 0),
      cls,
      "prompt_length_to_skip",
      "a count",
      options.prompt_length_to_skip,
    );
    check(isCount(options.min_new_tokens, 0), cls, "min_new_tokens", "a count", options.min_new_tokens);
    this.prompt_length_to_skip = options.prompt_length_to_skip;
    this.min_new_tokens = options.min_new_tokens;
    this.#eos = this.own(new TokenSet(options.eos_token_id, cls, "eos_token_id"));
  }

  override process(input_ids: Tensor, scores: Tensor): Tensor {
    if ((input_ids.shape[1] as number) - this.prompt_length_to_skip >= this.min_new_tokens) return scores;
    return scores.masked_fill(this.#eos.mask(scores), -Infinity);
  }
}

/** Only `tokens` can come next: their score is 0, all others are impossible. */
function force(tokens: TokenSet, scores: Tensor): Tensor {
  return torch.full_like(scores, -Infinity).masked_fill(tokens.mask(scores), 0);
}

/** The first token after a prompt of one token is `bos_token_id`. */
export class ForcedBOSTokenLogitsProcessor extends LogitsProcessor {
  readonly #bos: TokenSet;

  constructor(...args: Arguments<{ bos_token_id: number }>) {
    super();
    const { bos_token_id } = read<{ bos_token_id: number }>(ForcedBOSTokenLogitsProcessor, args, [
      "bos_token_id",
    ]);
    this.#bos = this.own(new TokenSet(bos_token_id, ForcedBOSTokenLogitsProcessor, "bos_token_id"));
  }

  override process(input_ids: Tensor, scores: Tensor): Tensor {
    return input_ids.shape[1] === 1 ? force(this.#bos, scores) : scores;
  }
}

/** The last token that `max_length` leaves room for is one of `eos_token_id`. */
export class ForcedEOSTokenLogitsProcessor extends LogitsProcessor {
  readonly max_length: number;
  readonly #eos: TokenSet;

  constructor(...args: Arguments<{ max_length: number; eos_token_id: TokenIds }>) {
    super();
    const { max_length, eos_token_id } = read<{ max_length: number; eos_token_id: TokenIds }>(
      ForcedEOSTokenLogitsProcessor,
      args,
      ["max_length", "eos_token_id"],
    );
    this.max_length = max_length;
    this.#eos = this.own(new TokenSet(eos_token_id, ForcedEOSTokenLogitsProcessor, "eos_token_id"));
  }

  override process(input_ids: Tensor, scores: Tensor): Tensor {
    return input_ids.shape[1] === this.max_length - 1 ? force(this.#eos, scores) : scores;
  }
}

/** From `start` new tokens on, the end of sequence gains weight by a power of `factor`. */
export class ExponentialDecayLengthPenalty extends LogitsProcessor {
  readonly regulation_start: number;
  readonly regulation_factor: number;
  readonly #eos: TokenSet;

  constructor(
    ...args: Arguments<{
      exponential_decay_length_penalty: readonly [number, number];
      eos_token_id: TokenIds;
      input_ids_seq_length: number;
    }>
  ) {
    super();
    const cls = ExponentialDecayLengthPenalty;
    const {
      exponential_decay_length_penalty: penalty,
      eos_token_id,
      input_ids_seq_length,
    } = read<{
      exponential_decay_length_penalty: readonly [number, number];
      eos_token_id: TokenIds;
      input_ids_seq_length: number;
    }>(cls, args, ["exponential_decay_length_penalty", "eos_token_id", "input_ids_seq_length"]);
    check(
      Array.isArray(penalty) && penalty.length === 2,
      cls,
      "exponential_decay_length_penalty",
      "[start, factor]",
      penalty,
    );
    this.regulation_start = penalty[0] + input_ids_seq_length;
    this.regulation_factor = penalty[1];
    this.#eos = this.own(new TokenSet(eos_token_id, cls, "eos_token_id"));
  }

  override process(input_ids: Tensor, scores: Tensor): Tensor {
    const steps = (input_ids.shape[1] as number) - this.regulation_start;
    if (steps <= 0) return scores;
    const penalty = scores.abs().mul(this.regulation_factor ** steps - 1);
    const applies = this.#eos.mask(scores).bitwise_and(scores.isfinite());
    return scores.add(penalty.masked_fill(applies.bitwise_not(), 0));
  }
}

/** These tokens never come. */
export class SuppressTokensLogitsProcessor extends LogitsProcessor {
  readonly #tokens: TokenSet;

  constructor(...args: Arguments<{ suppress_tokens: readonly number[] }>) {
    super();
    const { suppress_tokens } = read<{ suppress_tokens: readonly number[] }>(
      SuppressTokensLogitsProcessor,
      args,
      ["suppress_tokens"],
    );
    this.#tokens = this.own(new TokenSet(suppress_tokens, SuppressTokensLogitsProcessor, "suppress_tokens"));
  }

  override process(_input_ids: Tensor, scores: Tensor): Tensor {
    return scores.masked_fill(this.#tokens.mask(scores), -Infinity);
  }
}

/** These tokens do not come first, at `begin_index`. */
export class SuppressTokensAtBeginLogitsProcessor extends LogitsProcessor {
  begin_index: number;
  readonly #tokens: TokenSet;

  constructor(...args: Arguments<{ begin_suppress_tokens: readonly number[]; begin_index: number }>) {
    super();
    const cls = SuppressTokensAtBeginLogitsProcessor;
    const { begin_suppress_tokens, begin_index } = read<{
      begin_suppress_tokens: readonly number[];
      begin_index: number;
    }>(cls, args, ["begin_suppress_tokens", "begin_index"]);
    this.begin_index = begin_index;
    this.#tokens = this.own(new TokenSet(begin_suppress_tokens, cls, "begin_suppress_tokens"));
  }

  set_begin_index(begin_index: number): void {
    this.begin_index = begin_index;
  }

  override process(input_ids: Tensor, scores: Tensor): Tensor {
    if (input_ids.shape[1] !== this.begin_index) return scores;
    return scores.masked_fill(this.#tokens.mask(scores), -Infinity);
  }
}

// Repetition -----------------------------------------------------------------------------------------------------

/** Multiplies negative scores and divides positive ones of the tokens `ids` [batch, n] by `penalty`. */
function penalize(scores: Tensor, ids: Tensor, penalty: number): Tensor {
  const score = torch.gather(scores, 1, ids);
  return scores.scatter(1, ids, torch.where(score.lt(0), score.mul(penalty), score.div(penalty)));
}

/** Tokens that have come already get lower scores for a penalty above 1. */
export class RepetitionPenaltyLogitsProcessor extends LogitsProcessor {
  readonly penalty: number;
  /** Tokens at the start that do not count: one number, or one per row [batch]. */
  readonly prompt_ignore_length: number | Tensor | undefined;

  constructor(...args: Arguments<{ penalty: number; prompt_ignore_length?: number | Tensor }>) {
    super();
    const cls = RepetitionPenaltyLogitsProcessor;
    const { penalty, prompt_ignore_length } = read<{
      penalty: number;
      prompt_ignore_length?: number | Tensor | null;
    }>(cls, args, ["penalty", "prompt_ignore_length"]);
    check(typeof penalty === "number" && penalty > 0, cls, "penalty", "a number above 0", penalty);
    const ignored = prompt_ignore_length ?? undefined;
    check(
      ignored === undefined || ignored instanceof torch.Tensor || isCount(ignored, 0),
      cls,
      "prompt_ignore_length",
      "a count",
      ignored,
    );
    this.penalty = penalty;
    this.prompt_ignore_length = ignored;
  }

  override process(input_ids: Tensor, scores: Tensor): Tensor {
    const size = scores.shape.at(-1) as number;
    const length = input_ids.shape[1] as number;
    const ignored = this.prompt_ignore_length;
    let ids = input_ids;
    if (typeof ignored === "number")
      ids = ids.narrow(1, Math.min(ignored, length), Math.max(length - ignored, 0));
    else if (ignored) {
      const positions = torch.arange(length, { device: ids.device }).unsqueeze(0);
      ids = ids.masked_fill(positions.lt(ignored.to(ids.device).unsqueeze(1)), size);
    }
    // One column more takes what does not count and what is no token.
    return penalize(F.pad(scores, [0, 1]), ids.clamp({ max: size }), this.penalty).narrow(-1, 0, size);
  }
}

/** Tokens of the encoder's input get higher scores for a penalty above 1. */
export class EncoderRepetitionPenaltyLogitsProcessor extends LogitsProcessor {
  readonly penalty: number;
  readonly encoder_input_ids: Tensor;

  constructor(...args: Arguments<{ penalty: number; encoder_input_ids: Tensor }>) {
    super();
    const cls = EncoderRepetitionPenaltyLogitsProcessor;
    const { penalty, encoder_input_ids } = read<{ penalty: number; encoder_input_ids: Tensor }>(cls, args, [
      "penalty",
      "encoder_input_ids",
    ]);
    check(typeof penalty === "number" && penalty > 0, cls, "penalty", "a number above 0", penalty);
    this.penalty = 1 / penalty;
    this.encoder_input_ids = encoder_input_ids;
  }

  override process(_input_ids: Tensor, scores: Tensor): Tensor {
    return penalize(scores, perRow(this.encoder_input_ids, scores), this.penalty);
  }
}

/** Encoder inputs [batch, n] repeated for each beam. */
function perRow(encoder_input_ids: Tensor, scores: Tensor): Tensor {
  const beams = Math.trunc((scores.shape[0] as number) / (encoder_input_ids.shape[0] as number));
  return beams > 1 ? encoder_input_ids.repeat_interleave(beams, 0) : encoder_input_ids;
}

/** Bans the tokens that followed `prefix` [batch, n - 1] wherever it stands in `ids` [batch, length]. */
function banFollowers(scores: Tensor, ids: Tensor, prefix: Tensor, n: number): Tensor {
  const size = scores.shape.at(-1) as number;
  const windows = ids.unfold(1, n, 1); // [batch, windows, n]
  const matches = windows
    .narrow(-1, 0, n - 1)
    .eq(prefix.unsqueeze(1))
    .all(-1);
  const followers = torch.where(matches, windows.select(-1, n - 1).clamp({ max: size }), size);
  const banned = torch.zeros([scores.shape[0] as number, size + 1], { dtype: "bool", device: scores.device });
  return scores.masked_fill(banned.scatter_(1, followers, true).narrow(1, 0, size), -Infinity);
}

/** No sequence of `ngram_size` tokens comes twice. */
export class NoRepeatNGramLogitsProcessor extends LogitsProcessor {
  readonly ngram_size: number;

  constructor(...args: Arguments<{ ngram_size: number }>) {
    super();
    const { ngram_size } = read<{ ngram_size: number }>(NoRepeatNGramLogitsProcessor, args, ["ngram_size"]);
    check(
      isCount(ngram_size, 1),
      NoRepeatNGramLogitsProcessor,
      "ngram_size",
      "a positive integer",
      ngram_size,
    );
    this.ngram_size = ngram_size;
  }

  override process(input_ids: Tensor, scores: Tensor): Tensor {
    const length = input_ids.shape[1] as number;
    const n = this.ngram_size;
    if (length < n) return scores;
    return banFollowers(scores, input_ids, input_ids.narrow(1, length + 1 - n, n - 1), n);
  }
}

/** No sequence of `encoder_ngram_size` tokens of the encoder's input comes. */
export class EncoderNoRepeatNGramLogitsProcessor extends LogitsProcessor {
  readonly ngram_size: number;
  readonly encoder_input_ids: Tensor;

  constructor(...args: Arguments<{ encoder_ngram_size: number; encoder_input_ids: Tensor }>) {
    super();
    const cls = EncoderNoRepeatNGramLogitsProcessor;
    const { encoder_ngram_size, encoder_input_ids } = read<{
      encoder_ngram_size: number;
      encoder_input_ids: Tensor;
    }>(cls, args, ["encoder_ngram_size", "encoder_input_ids"]);
    check(
      isCount(encoder_ngram_size, 1),
      cls,
      "encoder_ngram_size",
      "a positive integer",
      encoder_ngram_size,
    );
    this.ngram_size = encoder_ngram_size;
    this.encoder_input_ids =
      encoder_input_ids.shape.length === 1 ? encoder_input_ids.unsqueeze(0) : encoder_input_ids;
  }

  override process(input_ids: Tensor, scores: Tensor): Tensor {
    const length = input_ids.shape[1] as number;
    const n = this.ngram_size;
    if (length + 1 < n || (this.encoder_input_ids.shape[1] as number) < n) return scores;
    return banFollowers(
      scores,
      perRow(this.encoder_input_ids, scores),
      input_ids.narrow(1, length + 1 - n, n - 1),
      n,
    );
  }
}

/** Sequences of token ids and what is added to the score of their last token when the others have just come. */
export type SequenceBias =
  | readonly (readonly [ids: readonly number[], bias: number])[]
  | ReadonlyMap<readonly number[], number>;

interface BiasGroup {
  /** [sequences, length - 1] */
  readonly prefixes: Tensor;
  readonly last: Tensor;
  readonly bias: Tensor;
}

/** Adds a bias to sequences. */
export class SequenceBiasLogitsProcessor extends LogitsProcessor {
  readonly #sequences: readonly (readonly [ids: readonly number[], bias: number])[];
  #single: Tensor | undefined;
  #groups: BiasGroup[] = [];

  constructor(...args: Arguments<{ sequence_bias: SequenceBias }>) {
    super();
    const { sequence_bias } = read<{ sequence_bias: SequenceBias }>(SequenceBiasLogitsProcessor, args, [
      "sequence_bias",
    ]);
    const sequences = [...(sequence_bias ?? [])].map(([ids, bias]) => [ids, Number(bias)] as const);
    const ok =
      sequences.length > 0 &&
      sequences.every(
        ([ids, bias]) => ids.length > 0 && ids.every((id) => isCount(id, 0)) && !Number.isNaN(bias),
      );
    check(
      ok,
      SequenceBiasLogitsProcessor,
      "sequence_bias",
      "a list of [token ids, bias]",
      JSON.stringify(sequence_bias),
    );
    // The last entry for a sequence counts, as in a dictionary.
    this.#sequences = [...new Map(sequences.map((sequence) => [sequence[0].join(), sequence])).values()];
  }

  override process(input_ids: Tensor, scores: Tensor): Tensor {
    const single = this.#prepare(scores);
    let bias = single.to(scores.dtype).expand(scores.shape);
    for (const { prefixes, last, bias: biases } of this.#groups) {
      const [, length] = prefixes.shape as [number, number];
      const seen = input_ids.shape[1] as number;
      if (length > seen) continue;
      const matches = input_ids
        .narrow(1, seen - length, length)
        .unsqueeze(1)
        .eq(prefixes)
        .all(-1); // [batch, sequences]
      bias = bias.index_add(1, last, torch.where(matches, biases, 0).to(scores.dtype));
    }
    return scores.add(bias);
  }

  override dispose(): void {
    super.dispose();
    for (const tensor of [
      this.#single,
      ...this.#groups.flatMap(({ prefixes, last, bias }) => [prefixes, last, bias]),
    ])
      tensor?.dispose();
    this.#single = undefined;
    this.#groups = [];
  }

  /** Brings the biases into tensors for this vocabulary and device; gives those of single tokens. */
  #prepare(scores: Tensor): Tensor {
    const size = scores.shape.at(-1) as number;
    const { device } = scores;
    if (this.#single?.device === device && this.#single.shape[0] === size) return this.#single;
    const outside = this.#sequences.flatMap(([ids]) => ids.filter((id) => id >= size));
    check(
      outside.length === 0,
      SequenceBiasLogitsProcessor,
      "sequence_bias",
      `tokens below the vocabulary size ${size}`,
      outside,
    );

    const single = new Float32Array(size);
    const byLength = new Map<number, (readonly [ids: readonly number[], bias: number])[]>();
    for (const sequence of this.#sequences) {
      const [ids, bias] = sequence;
      if (ids.length === 1) single[ids[0] as number] = bias;
      else byLength.set(ids.length, [...(byLength.get(ids.length) ?? []), sequence]);
    }
    const made = (values: number[] | number[][], dtype: "int64" | "float32") =>
      torch.keep(torch.tensor(values, { dtype, device }));
    this.#groups = [...byLength.values()].map((group) => ({
      prefixes: made(
        group.map(([ids]) => ids.slice(0, -1)),
        "int64",
      ),
      last: made(
        group.map(([ids]) => ids.at(-1) as number),
        "int64",
      ),
      bias: made(
        group.map(([, bias]) => bias),
        "float32",
      ),
    }));
    this.#single = torch.keep(torch.tensor(single, { device }));
    return this.#single;
  }
}

/** These sequences never come. */
export class NoBadWordsLogitsProcessor extends SequenceBiasLogitsProcessor {
  constructor(
    ...args: Arguments<{ bad_words_ids: readonly (readonly number[])[]; eos_token_id?: TokenIds }>
  ) {
    const { bad_words_ids, eos_token_id } = read<{
      bad_words_ids: readonly (readonly number[])[];
      eos_token_id?: TokenIds | null;
    }>(NoBadWordsLogitsProcessor, args, ["bad_words_ids", "eos_token_id"]);
    check(
      Array.isArray(bad_words_ids) && bad_words_ids.length > 0 && bad_words_ids.every(Array.isArray),
      NoBadWordsLogitsProcessor,
      "bad_words_ids",
      "a list of lists of token ids",
      JSON.stringify(bad_words_ids),
    );
    // The end of sequence is not a word to be banned.
    const eos = eos_token_id === undefined || eos_token_id === null ? [] : tokenList(eos_token_id);
    const words = bad_words_ids.filter((word) => word.length !== 1 || !eos.includes(word[0] as number));
    super({ sequence_bias: words.map((word) => [word, -Infinity] as const) });
  }
}

/** Only the tokens that `prefix_allowed_tokens_fn(row, ids)` allows come next. */
export class PrefixConstrainedLogitsProcessor extends LogitsProcessor {
  readonly #allowed: (batch_id: number, input_ids: Tensor) => readonly number[];
  readonly #beams: number;

  constructor(
    prefix_allowed_tokens_fn: (batch_id: number, input_ids: Tensor) => readonly number[],
    num_beams = 1,
  ) {
    super();
    this.#allowed = prefix_allowed_tokens_fn;
    this.#beams = num_beams;
  }

  override process(input_ids: Tensor, scores: Tensor): Tensor {
    const mask = torch.full_like(scores, -Infinity);
    for (let row = 0; row < (input_ids.shape[0] as number); row++) {
      const batch = Math.trunc(row / this.#beams);
      const allowed = this.#allowed(batch, input_ids.select(0, row));
      check(
        allowed.length > 0,
        PrefixConstrainedLogitsProcessor,
        "prefix_allowed_tokens_fn",
        "a function that allows a token",
        `none for row ${batch}`,
      );
      mask
        .select(0, row)
        .index_fill_(0, torch.tensor([...allowed], { dtype: "int64", device: scores.device }), 0);
    }
    return scores.add(mask);
  }
}

// Numbers --------------------------------------------------------------------------------------------------------

/** NaN becomes 0, infinities the largest and smallest finite numbers. */
export class InfNanRemoveLogitsProcessor extends LogitsProcessor {
  override process(_input_ids: Tensor, scores: Tensor): Tensor {
    const { min, max } = torch.finfo(scores.dtype);
    return torch.nan_to_num(scores, { nan: 0, posinf: max, neginf: min });
  }
}

/** Scores become logarithms of probabilities. */
export class LogitNormalization extends LogitsProcessor {
  override process(_input_ids: Tensor, scores: Tensor): Tensor {
    return scores.log_softmax(-1);
  }
}

/** Scores of 2·batch rows, conditional then unconditional: moves away from the unconditional ones. */
export class ClassifierFreeGuidanceLogitsProcessor extends LogitsProcessor {
  readonly guidance_scale: number;

  constructor(...args: Arguments<{ guidance_scale: number }>) {
    super();
    const { guidance_scale } = read<{ guidance_scale: number }>(ClassifierFreeGuidanceLogitsProcessor, args, [
      "guidance_scale",
    ]);
    check(
      guidance_scale > 1,
      ClassifierFreeGuidanceLogitsProcessor,
      "guidance_scale",
      "above 1",
      guidance_scale,
    );
    this.guidance_scale = guidance_scale;
  }

  override process(input_ids: Tensor, scores: Tensor): Tensor {
    const rows = input_ids.shape[0] as number;
    check(
      scores.shape[0] === 2 * rows,
      ClassifierFreeGuidanceLogitsProcessor,
      "scores",
      `of ${2 * rows} rows`,
      scores.shape[0],
    );
    const [conditional, unconditional] = [scores.narrow(0, 0, rows), scores.narrow(0, rows, rows)];
    return unconditional.add(conditional.sub(unconditional).mul(this.guidance_scale));
  }
}

// Warpers: they shape the distribution that is sampled from -------------------------------------------------------------

/** Divides scores by the temperature: below 1 sharper, above 1 flatter. */
export class TemperatureLogitsWarper extends LogitsProcessor {
  readonly temperature: number;

  constructor(...args: Arguments<{ temperature: number }>) {
    super();
    const { temperature } = read<{ temperature: number }>(TemperatureLogitsWarper, args, ["temperature"]);
    if (!(typeof temperature === "number" && temperature > 0)) {
      throw new InvalidArgumentError(
        `TemperatureLogitsWarper: temperature must be a number above 0, got ${String(temperature)}.`,
        {
          ...(temperature === 0 ? { hint: "For greedy decoding set do_sample: false." } : {}),
        },
      );
    }
    this.temperature = temperature;
  }

  override process(_input_ids: Tensor, scores: Tensor): Tensor {
    return scores.div(this.temperature);
  }
}

abstract class Filter extends LogitsProcessor {
  readonly filter_value: number;
  readonly min_tokens_to_keep: number;

  constructor(
    cls: { readonly name: string },
    { filter_value = -Infinity, min_tokens_to_keep = 1 }: FilterOptions,
  ) {
    super();
    check(
      isCount(min_tokens_to_keep, 1),
      cls,
      "min_tokens_to_keep",
      "a positive integer",
      min_tokens_to_keep,
    );
    this.filter_value = filter_value;
    this.min_tokens_to_keep = min_tokens_to_keep;
  }

  override process(_input_ids: Tensor, scores: Tensor): Tensor {
    return scores.masked_fill(this.removed(scores), this.filter_value);
  }

  /** [batch, vocabulary], true for what goes. */
  protected abstract removed(scores: Tensor): Tensor;
}

/** The k-th largest score of each row [batch, 1]; fewer where the vocabulary is smaller. */
function kthLargest(scores: Tensor, k: number): Tensor {
  const [values] = scores.topk(Math.min(k, scores.shape.at(-1) as number));
  return values.narrow(-1, (values.shape.at(-1) as number) - 1, 1);
}

/** Keeps the `top_k` best tokens. */
export class TopKLogitsWarper extends Filter {
  readonly top_k: number;

  constructor(...args: Arguments<{ top_k: number } & FilterOptions>) {
    const options = read<{ top_k: number } & FilterOptions>(TopKLogitsWarper, args, [
      "top_k",
      "filter_value",
      "min_tokens_to_keep",
    ]);
    super(TopKLogitsWarper, options);
    check(isCount(options.top_k, 1), TopKLogitsWarper, "top_k", "a positive integer", options.top_k);
    this.top_k = Math.max(options.top_k, this.min_tokens_to_keep);
  }

  protected override removed(scores: Tensor): Tensor {
    return scores.lt(kthLargest(scores, this.top_k));
  }
}

/** Keeps the best tokens whose probabilities add up to `top_p`. */
export class TopPLogitsWarper extends Filter {
  readonly top_p: number;

  constructor(...args: Arguments<{ top_p: number } & FilterOptions>) {
    const options = read<{ top_p: number } & FilterOptions>(TopPLogitsWarper, args, [
      "top_p",
      "filter_value",
      "min_tokens_to_keep",
    ]);
    super(TopPLogitsWarper, options);
    check(options.top_p >= 0 && options.top_p <= 1, TopPLogitsWarper, "top_p", "from 0 to 1", options.top_p);
    this.top_p = options.top_p;
  }

  protected override removed(scores: Tensor): Tensor {
    const [sorted, order] = torch.sort(scores, { descending: false });
    const small = sorted
      .softmax(-1)
      .cumsum(-1)
      .le(1 - this.top_p);
    const size = small.shape.at(-1) as number;
    const kept = Math.min(this.min_tokens_to_keep, size);
    small.narrow(-1, size - kept, kept).fill_(false);
    return small.scatter(1, order, small);
  }
}

/** Keeps the best tokens within a share `top_h` of the entropy of the 100 best. */
export class TopHLogitsWarper extends LogitsProcessor {
  readonly top_n: number = 100;
  readonly top_h: number;
  readonly filter_value: number;

  constructor(...args: Arguments<{ top_h: number; filter_value?: number }>) {
    super();
    const { top_h, filter_value = -Infinity } = read<{ top_h: number; filter_value?: number }>(
      TopHLogitsWarper,
      args,
      ["top_h", "filter_value"],
    );
    check(top_h > 0 && top_h <= 1, TopHLogitsWarper, "top_h", "above 0 and at most 1", top_h);
    this.top_h = top_h;
    this.filter_value = filter_value;
  }

  override process(_input_ids: Tensor, scores: Tensor): Tensor {
    const [best, order] = scores.topk(Math.min(this.top_n, scores.shape.at(-1) as number));
    const probabilities = best.softmax(-1);
    const limit = entropy(best).mul(this.top_h).unsqueeze(-1);
    const kept = probabilities.mul(probabilities.log()).neg().cumsum(-1).le(limit);
    kept.narrow(-1, 0, 1).fill_(true);
    const keep = torch.zeros_like(scores, { dtype: "bool" }).scatter_(1, order, kept);
    return scores.masked_fill(keep.bitwise_not(), this.filter_value);
  }
}

/** Entropy of the distribution that scores [batch, n] stand for [batch]. */
function entropy(scores: Tensor): Tensor {
  const logarithms = scores.log_softmax(-1);
  return logarithms
    .clamp({ min: torch.finfo(scores.dtype).min })
    .mul(logarithms.exp())
    .sum(-1)
    .neg();
}

/** Keeps tokens at least `min_p` times as probable as the best. */
export class MinPLogitsWarper extends Filter {
  readonly min_p: number;

  constructor(...args: Arguments<{ min_p: number } & FilterOptions>) {
    const options = read<{ min_p: number } & FilterOptions>(MinPLogitsWarper, args, [
      "min_p",
      "filter_value",
      "min_tokens_to_keep",
    ]);
    super(MinPLogitsWarper, options);
    check(options.min_p >= 0 && options.min_p <= 1, MinPLogitsWarper, "min_p", "from 0 to 1", options.min_p);
    this.min_p = options.min_p;
  }

  protected override removed(scores: Tensor): Tensor {
    const probabilities = scores.softmax(-1);
    const small = probabilities.lt(probabilities.amax(-1, true).mul(this.min_p));
    const [, best] = probabilities.topk(
      Math.min(this.min_tokens_to_keep, probabilities.shape.at(-1) as number),
    );
    return small.scatter_(-1, best, false);
  }
}

/** Keeps the tokens whose surprise is nearest to the expected one, up to a probability of `mass`. */
export class TypicalLogitsWarper extends Filter {
  readonly mass: number;

  constructor(...args: Arguments<{ mass?: number } & FilterOptions>) {
    const options = read<{ mass?: number } & FilterOptions>(TypicalLogitsWarper, args, [
      "mass",
      "filter_value",
      "min_tokens_to_keep",
    ]);
    super(TypicalLogitsWarper, options);
    this.mass = options.mass ?? 0.9;
    check(this.mass > 0 && this.mass < 1, TypicalLogitsWarper, "typical_p", "between 0 and 1", this.mass);
  }

  protected override removed(scores: Tensor): Tensor {
    const logarithms = scores.log_softmax(-1);
    const expected = logarithms.mul(logarithms.exp()).nansum(-1, true).neg();
    const [distance, order] = torch.sort(logarithms.neg().sub(expected).abs(), { descending: false });
    const size = distance.shape.at(-1) as number;
    const last = scores
      .gather(-1, order)
      .softmax(-1)
      .cumsum(-1)
      .lt(this.mass)
      .sum(1)
      .clamp({ max: size - 1 });
    const far = distance.gt(distance.gather(1, last.view([-1, 1])));
    far.narrow(-1, 0, Math.min(this.min_tokens_to_keep, size)).fill_(false);
    return far.scatter(1, order, far);
  }
}

/** Removes tokens less probable than `epsilon`. */
export class EpsilonLogitsWarper extends Filter {
  readonly epsilon: number;

  constructor(...args: Arguments<{ epsilon: number } & FilterOptions>) {
    const options = read<{ epsilon: number } & FilterOptions>(EpsilonLogitsWarper, args, [
      "epsilon",
      "filter_value",
      "min_tokens_to_keep",
    ]);
    super(EpsilonLogitsWarper, options);
    check(
      options.epsilon > 0 && options.epsilon < 1,
      EpsilonLogitsWarper,
      "epsilon_cutoff",
      "between 0 and 1",
      options.epsilon,
    );
    this.epsilon = options.epsilon;
  }

  protected override removed(scores: Tensor): Tensor {
    return scores
      .softmax(-1)
      .lt(this.epsilon)
      .bitwise_and(scores.lt(kthLargest(scores, this.min_tokens_to_keep)));
  }
}

/** Removes tokens less probable than `epsilon`, or less where the distribution is flat. */
export class EtaLogitsWarper extends Filter {
  readonly epsilon: number;

  constructor(...args: Arguments<{ epsilon: number } & FilterOptions>) {
    const options = read<{ epsilon: number } & FilterOptions>(EtaLogitsWarper, args, [
      "epsilon",
      "filter_value",
      "min_tokens_to_keep",
    ]);
    super(EtaLogitsWarper, options);
    check(
      options.epsilon > 0 && options.epsilon < 1,
      EtaLogitsWarper,
      "eta_cutoff",
      "between 0 and 1",
      options.epsilon,
    );
    this.epsilon = options.epsilon;
  }

  protected override removed(scores: Tensor): Tensor {
    const eta = entropy(scores)
      .neg()
      .exp()
      .mul(Math.sqrt(this.epsilon))
      .clamp({ max: this.epsilon })
      .unsqueeze(-1);
    return scores
      .softmax(-1)
      .lt(eta)
      .bitwise_and(scores.lt(kthLargest(scores, this.min_tokens_to_keep)));
  }
}
