// The processors and criteria that settings ask for, in the reference's order, which matters.
import type { GenerationConfig } from "../configuration/index.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import { warnOnce } from "../errors/warnings.ts";
import type { PreTrainedModel } from "../modeling/modeling_utils.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { UnbatchedClassifierFreeGuidanceLogitsProcessor } from "./classifier_free_guidance.ts";
import * as p from "./logits_process/constraints.ts";
import {
  type LogitsProcessor,
  type LogitsProcessorLike,
  LogitsProcessorList,
} from "./logits_process/logits_processor.ts";
import * as repetition from "./logits_process/repetition.ts";
import * as warpers from "./logits_process/warpers.ts";
import type { Request } from "./options.ts";
import * as stop from "./stopping_criteria.ts";
import type { StreamerTokenizer } from "./streamers.ts";

export interface Facts {
  readonly eos_token_id: readonly number[] | undefined;
  readonly length: number;
  readonly prompt: Tensor;
  readonly mask: Tensor | undefined;
}

/** The processors of a request; the caller's own are among them. */
export function makeProcessors(
  model: PreTrainedModel,
  { settings: s, options }: Request,
  { eos_token_id: eos, length, prompt, mask }: Facts,
): LogitsProcessorList {
  const list = new LogitsProcessorList();
  const isSet = (value: number | null, neutral: number) => value !== null && value !== neutral;
  const encoder = () => (length > 0 ? prompt : undefined);
  if (s.guidance_scale !== null && s.guidance_scale !== 1) {
    const {
      negative_prompt_ids: unconditional_ids,
      negative_prompt_attention_mask: unconditional_attention_mask,
    } = options;
    const { guidance_scale, use_cache } = s;
    list.push(
      new UnbatchedClassifierFreeGuidanceLogitsProcessor({
        guidance_scale,
        model,
        unconditional_ids,
        unconditional_attention_mask,
        use_cache,
      }),
    );
  }
  if (s.sequence_bias !== null)
    list.push(new repetition.SequenceBiasLogitsProcessor({ sequence_bias: s.sequence_bias }));
  if (isSet(s.encoder_repetition_penalty, 1)) {
    const encoder_input_ids = encoder();
    if (encoder_input_ids)
      list.push(
        new repetition.EncoderRepetitionPenaltyLogitsProcessor({
          penalty: s.encoder_repetition_penalty as number,
          encoder_input_ids,
        }),
      );
    else warnOnce("generate: encoder_repetition_penalty needs input_ids, so it has no effect.");
  }
  if (isSet(s.repetition_penalty, 1)) {
    const prompt_ignore_length = mask && torch.keep(mask.ne(0).to("int32").argmax(1));
    const processor = new repetition.RepetitionPenaltyLogitsProcessor({
      penalty: s.repetition_penalty as number,
      ...(prompt_ignore_length ? { prompt_ignore_length } : {}),
    });
    list.push(processor);
    if (prompt_ignore_length) processor.own(prompt_ignore_length);
  }
  if (s.no_repeat_ngram_size)
    list.push(new repetition.NoRepeatNGramLogitsProcessor({ ngram_size: s.no_repeat_ngram_size }));
  if (s.encoder_no_repeat_ngram_size) {
    const encoder_input_ids = encoder();
    if (encoder_input_ids)
      list.push(
        new repetition.EncoderNoRepeatNGramLogitsProcessor({
          encoder_ngram_size: s.encoder_no_repeat_ngram_size,
          encoder_input_ids,
        }),
      );
    else warnOnce("generate: encoder_no_repeat_ngram_size needs input_ids, so it has no effect.");
  }
  if (s.bad_words_ids !== null)
    list.push(
      new repetition.NoBadWordsLogitsProcessor({
        bad_words_ids: s.bad_words_ids,
        ...(eos ? { eos_token_id: eos } : {}),
      }),
    );
  if (s.min_length && eos)
    list.push(new p.MinLengthLogitsProcessor({ min_length: s.min_length, eos_token_id: eos }));
  if (s.min_new_tokens && eos) {
    list.push(
      new p.MinNewTokensLengthLogitsProcessor({
        prompt_length_to_skip: length,
        min_new_tokens: s.min_new_tokens,
        eos_token_id: eos,
      }),
    );
  }
  if (options.prefix_allowed_tokens_fn)
    list.push(
      new repetition.PrefixConstrainedLogitsProcessor(options.prefix_allowed_tokens_fn, s.num_beams ?? 1),
    );
  if (s.forced_bos_token_id !== null)
    list.push(new p.ForcedBOSTokenLogitsProcessor({ bos_token_id: s.forced_bos_token_id }));
  if (s.forced_eos_token_id !== null) {
    list.push(
      new p.ForcedEOSTokenLogitsProcessor({
        max_length: s.max_length as number,
        eos_token_id: s.forced_eos_token_id,
      }),
    );
  }
  if (s.remove_invalid_values) list.push(new p.InfNanRemoveLogitsProcessor());
  if (s.exponential_decay_length_penalty !== null && eos) {
    const exponential_decay_length_penalty = s.exponential_decay_length_penalty;
    list.push(
      new p.ExponentialDecayLengthPenalty({
        exponential_decay_length_penalty,
        eos_token_id: eos,
        input_ids_seq_length: length,
      }),
    );
  }
  if (s.suppress_tokens !== null)
    list.push(new p.SuppressTokensLogitsProcessor({ suppress_tokens: s.suppress_tokens }));
  if (s.begin_suppress_tokens !== null) {
    const begin_index = length > 1 || s.forced_bos_token_id === null ? length : length + 1;
    list.push(
      new p.SuppressTokensAtBeginLogitsProcessor({
        begin_suppress_tokens: s.begin_suppress_tokens,
        begin_index,
      }),
    );
  }
  for (const own of options.logits_processor ?? []) list.push(kept(own));
  if (s.do_sample) list.push(...makeWarpers(s));
  if (s.renormalize_logits) list.push(new p.LogitNormalization());
  return list;
}

/** A caller's processor may store what it is given: that outlives the step. */
const kept = (processor: LogitsProcessorLike) => (input_ids: Tensor, scores: Tensor) => {
  const [ids, given] = [torch.keep(input_ids), torch.keep(scores)];
  return typeof processor === "function" ? processor(ids, given) : processor.process(ids, given);
};

function makeWarpers(s: GenerationConfig): LogitsProcessor[] {
  const list: LogitsProcessor[] = [];
  if (s.temperature !== null && s.temperature !== 1)
    list.push(new warpers.TemperatureLogitsWarper({ temperature: s.temperature }));
  if (s.top_h !== null) list.push(new warpers.TopHLogitsWarper({ top_h: s.top_h }));
  if (s.top_k) list.push(new warpers.TopKLogitsWarper({ top_k: s.top_k }));
  if (s.top_p !== null && s.top_p < 1) list.push(new warpers.TopPLogitsWarper({ top_p: s.top_p }));
  if (s.min_p !== null) list.push(new warpers.MinPLogitsWarper({ min_p: s.min_p }));
  if (s.typical_p !== null && s.typical_p < 1)
    list.push(new warpers.TypicalLogitsWarper({ mass: s.typical_p }));
  if (s.epsilon_cutoff && s.epsilon_cutoff < 1)
    list.push(new warpers.EpsilonLogitsWarper({ epsilon: s.epsilon_cutoff }));
  if (s.eta_cutoff && s.eta_cutoff < 1) list.push(new warpers.EtaLogitsWarper({ epsilon: s.eta_cutoff }));
  return list;
}

export function makeCriteria(
  model: PreTrainedModel,
  s: GenerationConfig,
  eos: readonly number[] | undefined,
  tokenizer: StreamerTokenizer | undefined,
): stop.StoppingCriteriaList {
  const list = new stop.StoppingCriteriaList([new stop.MaxLengthCriteria(s.max_length as number)]);
  const limit = (model.config as { max_position_embeddings?: number }).max_position_embeddings;
  if (limit !== undefined && (s.max_length as number) > limit) {
    warnOnce(
      `generate: max_length ${s.max_length} is beyond the ${limit} positions that the model was made for.`,
    );
  }
  if (s.max_time !== null) list.push(new stop.MaxTimeCriteria(s.max_time));
  if (s.stop_strings !== null) {
    if (!tokenizer)
      throw new InvalidArgumentError("generate: stop_strings need a tokenizer: pass { tokenizer }.");
    list.push(new stop.StopStringCriteria(tokenizer, s.stop_strings));
  }
  if (eos) list.push(new stop.EosTokenCriteria(eos));
  return list;
}

/** Why a request's choice of tokens needs JavaScript at each step; undefined: it can be recorded. */
export function needsHost({ settings, options }: Pick<Request, "settings" | "options">): string | undefined {
  const any = (list: Iterable<unknown> | undefined) => list !== undefined && [...list].length > 0;
  if (any(options.logits_processor)) return "logits_processor";
  if (any(options.stopping_criteria)) return "stopping_criteria";
  if (options.prefix_allowed_tokens_fn) return "prefix_allowed_tokens_fn";
  if (settings.stop_strings !== null) return "stop_strings";
  if (settings.guidance_scale !== null && settings.guidance_scale !== 1) return "guidance_scale";
  return undefined;
}

/** Settings that the choice of a token depends on. */
const CHOICE = [
  "do_sample",
  "sequence_bias",
  "encoder_repetition_penalty",
  "repetition_penalty",
  "no_repeat_ngram_size",
  "encoder_no_repeat_ngram_size",
  "bad_words_ids",
  "min_new_tokens",
  "forced_bos_token_id",
  "forced_eos_token_id",
  "remove_invalid_values",
  "exponential_decay_length_penalty",
  "suppress_tokens",
  "begin_suppress_tokens",
  "temperature",
  "top_h",
  "top_k",
  "top_p",
  "min_p",
  "typical_p",
  "epsilon_cutoff",
  "eta_cutoff",
  "renormalize_logits",
] as const;

/** Equal texts mean equal processors. Lengths count from the prompt, so that prompts of all lengths share a recording. */
export function choiceKey(
  settings: GenerationConfig,
  { eos_token_id, length }: Pick<Facts, "eos_token_id" | "length">,
  pad_token_id: number | undefined,
): string {
  const values: unknown[] = CHOICE.map((name) => settings[name]);
  const least = settings.min_length && eos_token_id ? settings.min_length - length : null;
  const most = settings.forced_eos_token_id === null ? null : (settings.max_length as number) - length;
  values.push(eos_token_id ?? null, pad_token_id ?? null, least, most);
  // The first token may be forced, and what begins then is one later.
  if (settings.begin_suppress_tokens !== null) values.push(length > 1);
  return JSON.stringify(values, (_key, value) =>
    value instanceof Map ? [...value] : typeof value === "number" ? String(value) : value,
  );
}
