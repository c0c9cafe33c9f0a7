// What `generate` resolves to with `return_dict_in_generate`.
import type { Cache } from "../modeling/cache_utils.ts";
import { defineOutput } from "../modeling/modeling_outputs.ts";
import type { Tensor } from "../torch/index.ts";

/** Sequences of a decoder, and what was asked for of each step. */
export class GenerateDecoderOnlyOutput extends defineOutput<{
  /** Prompt and answer [batch, length]; shorter rows are padded. */
  sequences: Tensor;
  /** Scores after the processors, one [batch, vocabulary] per step: with `output_scores`. */
  scores?: readonly Tensor[] | undefined;
  /** Scores of the model, one [batch, vocabulary] per step: with `output_logits`. */
  logits?: readonly Tensor[] | undefined;
  /** Attention weights of each layer, per step: with `output_attentions`. */
  attentions?: readonly (readonly Tensor[])[] | undefined;
  /** Hidden states of each layer, per step: with `output_hidden_states`. */
  hidden_states?: readonly (readonly Tensor[])[] | undefined;
  past_key_values?: Cache | undefined;
}>("sequences", "scores", "logits", "attentions", "hidden_states", "past_key_values") {}
