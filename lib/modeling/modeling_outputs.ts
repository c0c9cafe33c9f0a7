// What models return: one class per kind of output, with Python's field names.
import { TREE } from "../compile/tree.ts";
import type { Tensor } from "../torch/index.ts";
import type { Cache } from "./cache_utils.ts";

/**
 * Base class of all outputs. Fields that were computed are own enumerable properties, so that `{ ...out }`,
 * `Object.entries(out)` and `console.log(out)` show them; the others read as `undefined` and are not listed.
 *
 * @example
 * const out = model.forward({ input_ids });
 * out.keys(); // ["logits", "past_key_values"]
 */
export class ModelOutput {
  /** Every field of the class, in the order of `to_tuple`. */
  static readonly fields: readonly string[] = [];
  static readonly [TREE] = true;

  constructor(values: object = {}) {
    for (const name of (this.constructor as typeof ModelOutput).fields) {
      const value = (values as Record<string, unknown>)[name] ?? undefined;
      Object.defineProperty(this, name, {
        value,
        enumerable: value !== undefined,
        writable: true,
        configurable: true,
      });
    }
  }

  /** Names of the fields that are present. */
  keys(): string[] {
    return Object.keys(this);
  }

  /** Values of the fields that are present, in the order of the class. */
  to_tuple(): unknown[] {
    return Object.values(this);
  }
}

/** A base class whose instances have the fields of `F`, listed once more by name because types leave no trace. */
function output<F extends object>(...fields: readonly (keyof F & string)[]) {
  return class extends ModelOutput {
    static override readonly fields: readonly string[] = fields;
  } as unknown as { new (values: F): ModelOutput & Readonly<F>; readonly fields: readonly string[] };
}

type Maybe<T> = { [K in keyof T]?: T[K] | undefined };

interface Trace {
  /** Embedding output and the output of each layer, each [batch, length, hidden]. */
  hidden_states: readonly Tensor[];
  /** Attention weights of each layer, each [batch, heads, queries, keys]. */
  attentions: readonly Tensor[];
}
interface Past {
  past_key_values: Cache;
}
interface Loss {
  /** A scalar; present when labels were given. */
  loss: Tensor;
}

/** The last hidden states [batch, length, hidden] of an encoder. */
export class BaseModelOutput extends output<{ last_hidden_state: Tensor } & Maybe<Trace>>(
  "last_hidden_state",
  "hidden_states",
  "attentions",
) {}

/** The last hidden states [batch, length, hidden], and the cache for the next call. */
export class BaseModelOutputWithPast extends output<{ last_hidden_state: Tensor } & Maybe<Past & Trace>>(
  "last_hidden_state",
  "past_key_values",
  "hidden_states",
  "attentions",
) {}

/** The last hidden states, and one vector [batch, hidden] for the whole sequence. */
export class BaseModelOutputWithPooling extends output<
  { last_hidden_state: Tensor } & Maybe<{ pooler_output: Tensor } & Trace>
>("last_hidden_state", "pooler_output", "hidden_states", "attentions") {}

/** Scores over the vocabulary [batch, length, vocabulary] for each position. */
export class CausalLMOutputWithPast extends output<{ logits: Tensor } & Maybe<Loss & Past & Trace>>(
  "loss",
  "logits",
  "past_key_values",
  "hidden_states",
  "attentions",
) {}

/** Scores over the vocabulary [batch, length, vocabulary] for masked positions. */
export class MaskedLMOutput extends output<{ logits: Tensor } & Maybe<Loss & Trace>>(
  "loss",
  "logits",
  "hidden_states",
  "attentions",
) {}

/** Scores over the labels [batch, labels], one row per sequence. */
export class SequenceClassifierOutput extends output<{ logits: Tensor } & Maybe<Loss & Trace>>(
  "loss",
  "logits",
  "hidden_states",
  "attentions",
) {}

/** Scores over the labels [batch, labels], one row per sequence, and the cache. */
export class SequenceClassifierOutputWithPast extends output<{ logits: Tensor } & Maybe<Loss & Past & Trace>>(
  "loss",
  "logits",
  "past_key_values",
  "hidden_states",
  "attentions",
) {}

/** Scores over the labels [batch, length, labels] for each token. */
export class TokenClassifierOutput extends output<{ logits: Tensor } & Maybe<Loss & Trace>>(
  "loss",
  "logits",
  "hidden_states",
  "attentions",
) {}

/** Scores over the choices [batch, choices]. */
export class MultipleChoiceModelOutput extends output<{ logits: Tensor } & Maybe<Loss & Trace>>(
  "loss",
  "logits",
  "hidden_states",
  "attentions",
) {}

/** Scores for the start and for the end of the answer, each [batch, length]. */
export class QuestionAnsweringModelOutput extends output<
  { start_logits: Tensor; end_logits: Tensor } & Maybe<Loss & Trace>
>("loss", "start_logits", "end_logits", "hidden_states", "attentions") {}

/** The last hidden states of a model of images without attention, [batch, channels, height, width]. */
export class BaseModelOutputWithNoAttention extends output<
  { last_hidden_state: Tensor } & Maybe<Pick<Trace, "hidden_states">>
>("last_hidden_state", "hidden_states") {}

/** The same, and their mean over each image, [batch, channels, 1, 1]. */
export class BaseModelOutputWithPoolingAndNoAttention extends output<
  { last_hidden_state: Tensor; pooler_output: Tensor } & Maybe<Pick<Trace, "hidden_states">>
>("last_hidden_state", "pooler_output", "hidden_states") {}

/** Scores over the labels [batch, labels], one row per image. */
export class ImageClassifierOutput extends output<{ logits: Tensor } & Maybe<Loss & Trace>>(
  "loss",
  "logits",
  "hidden_states",
  "attentions",
) {}

/** Scores over the labels [batch, labels], one row per image, of a model without attention. */
export class ImageClassifierOutputWithNoAttention extends output<
  { logits: Tensor } & Maybe<Loss & Pick<Trace, "hidden_states">>
>("loss", "logits", "hidden_states") {}

/** Images [batch, channels, height, width] with their hidden patches filled. */
export class MaskedImageModelingOutput extends output<{ reconstruction: Tensor } & Maybe<Loss & Trace>>(
  "loss",
  "reconstruction",
  "hidden_states",
  "attentions",
) {}

/** Outputs of the chosen stages of a backbone, each [batch, channels, height, width]. */
export class BackboneOutput extends output<{ feature_maps: readonly Tensor[] } & Maybe<Trace>>(
  "feature_maps",
  "hidden_states",
  "attentions",
) {}

export { output as defineOutput };
