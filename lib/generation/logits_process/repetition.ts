// Logits processors against, or for, what was said before: penalties, n-grams, biased and banned sequences.
import * as nn from "../../nn/index.ts";
import type { Tensor } from "../../torch/index.ts";
import * as torch from "../../torch/index.ts";
import type { PaddedSequence } from "../padded_sequence.ts";
import {
  type Arguments,
  check,
  isCount,
  LogitsProcessor,
  read,
  type TokenIds,
  tokenList,
} from "./logits_processor.ts";

const F = nn.functional;

/** Multiplies negative scores and divides positive ones of the tokens `ids` [batch, n] by `penalty`. */
function penalize(scores: Tensor, ids: Tensor, penalty: number): Tensor {
  const score = torch.gather(scores, 1, ids);
  return scores.scatter(1, ids, torch.where(score.lt(0), score.mul(penalty), score.div(penalty)));
}

/** As above, for ids of which those from the vocabulary's size on do not count: one column more takes them. */
function penalizeSome(scores: Tensor, ids: Tensor, penalty: number): Tensor {
  const size = scores.shape.at(-1) as number;
  return penalize(F.pad(scores, [0, 1]), ids.clamp({ max: size }), penalty).narrow(-1, 0, size);
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
    return penalizeSome(scores, ids, this.penalty);
  }

  override processPadded(sequence: PaddedSequence, scores: Tensor): Tensor {
    const size = scores.shape.at(-1) as number;
    const ignored = this.prompt_ignore_length === undefined ? undefined : sequence.padding;
    let ids = sequence.filled(size);
    if (ignored) ids = ids.masked_fill(sequence.positions.lt(ignored.unsqueeze(1)), size);
    return penalizeSome(scores, ids, this.penalty);
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

  override processPadded(sequence: PaddedSequence, scores: Tensor): Tensor {
    return penalizeSome(scores, sequence.promptFilled(scores.shape.at(-1) as number), this.penalty);
  }
}

/** Encoder inputs [batch, n] repeated for each beam. */
function perRow(encoder_input_ids: Tensor, scores: Tensor): Tensor {
  const beams = Math.trunc((scores.shape[0] as number) / (encoder_input_ids.shape[0] as number));
  return beams > 1 ? encoder_input_ids.repeat_interleave(beams, 0) : encoder_input_ids;
}

/**
 * Bans the tokens that followed `prefix` [batch, n - 1] wherever it stands in `ids` [batch, length]; of the windows of n
 * tokens, only where `counts` [windows] says so.
 */
function banFollowers(scores: Tensor, ids: Tensor, prefix: Tensor, n: number, counts?: Tensor): Tensor {
  const size = scores.shape.at(-1) as number;
  const windows = ids.unfold(1, n, 1); // [batch, windows, n]
  let matches = windows
    .narrow(-1, 0, n - 1)
    .eq(prefix.unsqueeze(1))
    .all(-1);
  if (counts) matches = matches.bitwise_and(counts);
  const followers = torch.where(matches, windows.select(-1, n - 1).clamp({ max: size }), size);
  const banned = torch.zeros([scores.shape[0] as number, size + 1], { dtype: "bool", device: scores.device });
  return scores.masked_fill(banned.scatter_(1, followers, true).narrow(1, 0, size), -Infinity);
}

/** Bans what followed the last n - 1 tokens within the first `end` (a scalar); nothing unless `applies`. */
function banPadded(
  sequence: PaddedSequence,
  scores: Tensor,
  n: number,
  end: Tensor,
  applies: Tensor,
): Tensor {
  const windows = (sequence.ids.shape[1] as number) + 1 - n;
  if (windows < 1) return scores;
  const counts = torch.arange(windows, { device: scores.device }).le(end.sub(n)).bitwise_and(applies);
  return banFollowers(scores, sequence.ids, sequence.last(n - 1), n, counts);
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

  override processPadded(sequence: PaddedSequence, scores: Tensor): Tensor {
    return banPadded(sequence, scores, this.ngram_size, sequence.length, sequence.length.ge(this.ngram_size));
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

  override processPadded(sequence: PaddedSequence, scores: Tensor): Tensor {
    const n = this.ngram_size;
    return banPadded(sequence, scores, n, sequence.prompt_length, sequence.length.ge(n - 1));
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

  override processPadded(sequence: PaddedSequence, scores: Tensor): Tensor {
    const single = this.#prepare(scores);
    let bias = single.to(scores.dtype).expand(scores.shape);
    for (const { prefixes, last, bias: biases } of this.#groups) {
      const [, length] = prefixes.shape as [number, number];
      const matches = sequence.last(length).unsqueeze(1).eq(prefixes).all(-1); // [batch, sequences]
      const applies = matches.bitwise_and(sequence.length.ge(length));
      bias = bias.index_add(1, last, torch.where(applies, biases, 0).to(scores.dtype));
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
