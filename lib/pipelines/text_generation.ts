// Texts and conversations, continued.

import type { GenerationConfig } from "../configuration/index.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import type { Generates } from "../generation/generation_mixin.ts";
import type { GenerateOptions } from "../generation/options.ts";
import { isRecord } from "../json/json.ts";
import type { BatchEncoding } from "../processing/batch_encoding.ts";
import type { ChatMessage } from "../processing/chat_template.ts";
import type { PreTrainedTokenizerFast } from "../processing/tokenization_utils.ts";
import type { ChatTemplateOptions, TokenizerCallOptions } from "../processing/tokenizer_options.ts";
import { narrow, stack, Tensor } from "../torch/index.ts";
import { type CallOptions, Pipeline, type PipelineParts, type StepParameters, type Values } from "./base.ts";

/** Options of a call: these, and every option of `generate`. */
export interface TextGenerationOptions extends CallOptions, Omit<GenerateOptions, "tokenizer"> {
  /** Give prompt and answer (the default), or the answer alone. */
  readonly return_full_text?: boolean | null | undefined;
  /** Give `generated_token_ids` instead of a text. */
  readonly return_tensors?: boolean | null | undefined;
  readonly return_text?: boolean | null | undefined;
  readonly clean_up_tokenization_spaces?: boolean | null | undefined;
  /** Leave special tokens out of the text. Default true. */
  readonly skip_special_tokens?: boolean | null | undefined;
  /** A text before every prompt. */
  readonly prefix?: string | null | undefined;
  /** Texts at which the answer ends; they belong to it. */
  readonly stop_sequence?: string | readonly string[] | null | undefined;
  /** `"hole"` cuts the beginning of a prompt that leaves no room for the answer. */
  readonly handle_long_generation?: "hole" | null | undefined;
  readonly add_special_tokens?: boolean | null | undefined;
  readonly padding?: TokenizerCallOptions["padding"];
  readonly truncation?: TokenizerCallOptions["truncation"];
  /** Of a conversation: go on with its last message. Default: when that is the assistant's. */
  readonly continue_final_message?: boolean | null | undefined;
  /** More options of the tokenizer's call, or of `apply_chat_template`. */
  readonly tokenizer_encode_kwargs?: Readonly<Record<string, unknown>> | null | undefined;
  /** Functions that the model may call, for the chat template. */
  readonly tools?: ChatTemplateOptions["tools"];
  readonly documents?: ChatTemplateOptions["documents"];
}

export interface GeneratedText {
  readonly generated_text: string;
}

/** With `return_full_text` (the default) the conversation with the answer; without it the answer's text. */
export interface GeneratedChat {
  readonly generated_text: ChatMessage[];
}

export interface GeneratedIds {
  readonly generated_token_ids: number[];
}

type Chat = readonly ChatMessage[];
type Stream<T> = Iterable<T> | AsyncIterable<T>;
type Ids = { readonly return_tensors: true };
type Answer = { readonly return_full_text: false };

/**
 * Continues texts and conversations. Made by `pipeline("text-generation", model)`.
 *
 * Where neither the call nor the model's generation_config.json says otherwise, it samples up to 256 tokens at temperature 0.7,
 * as the reference does; `do_sample: false` is the likeliest continuation.
 *
 * @example
 * const generate = await pipeline("text-generation", "./model");
 * await generate("Once upon a time", { max_new_tokens: 20 }); // [{ generated_text: "Once upon a time …" }]
 * await generate([{ role: "user", content: "Hello!" }]); // [{ generated_text: [{ role: "user", … }, { role: "assistant", … }] }]
 */
export interface TextGenerationPipeline {
  (text_inputs: string, options: TextGenerationOptions & Ids): Promise<GeneratedIds[]>;
  (text_inputs: readonly string[], options: TextGenerationOptions & Ids): Promise<GeneratedIds[][]>;
  (text_inputs: string, options?: TextGenerationOptions): Promise<GeneratedText[]>;
  (text_inputs: readonly string[], options?: TextGenerationOptions): Promise<GeneratedText[][]>;
  (text_inputs: Chat, options: TextGenerationOptions & Ids): Promise<GeneratedIds[]>;
  (text_inputs: Chat, options: TextGenerationOptions & Answer): Promise<GeneratedText[]>;
  (text_inputs: Chat, options?: TextGenerationOptions): Promise<GeneratedChat[]>;
  (text_inputs: readonly Chat[], options: TextGenerationOptions & Answer): Promise<GeneratedText[][]>;
  (text_inputs: readonly Chat[], options?: TextGenerationOptions): Promise<GeneratedChat[][]>;
  (text_inputs: Stream<string>, options?: TextGenerationOptions): AsyncGenerator<GeneratedText[], void, void>;
  (text_inputs: Stream<Chat>, options?: TextGenerationOptions): AsyncGenerator<GeneratedChat[], void, void>;
}

/** What is set where nobody says otherwise. */
const DEFAULTS = { max_new_tokens: 256, do_sample: true, temperature: 0.7 };
/** Of these only when there is sampling. */
const SAMPLING = [
  "temperature",
  "top_k",
  "top_p",
  "min_p",
  "top_h",
  "typical_p",
  "epsilon_cutoff",
  "eta_cutoff",
];
/** The pipeline's own options; every other one is `generate`'s, which refuses those it does not know. */
const TOKENIZER_OPTIONS = ["add_special_tokens", "padding", "truncation", "max_length"];

type ReturnType = "tensors" | "new" | "full";

const isMessage = (value: unknown): value is ChatMessage =>
  isRecord(value) && !(value instanceof Tensor) && "role" in value && "content" in value;
const isChat = (value: unknown): value is Chat =>
  Array.isArray(value) && value.length > 0 && value.every(isMessage);

// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: the call signatures, made by Callable
export class TextGenerationPipeline extends Pipeline {
  static override readonly _load_tokenizer = true;

  /** @throws InvalidArgumentError for a model that does not generate. */
  constructor(parts: PipelineParts) {
    super(parts);
    const able = this.model as Partial<Generates>;
    if (typeof able.generate !== "function" || able.can_generate?.() === false)
      throw new InvalidArgumentError(`${this.model.constructor.name} does not generate texts.`, {
        hint: "Load it with AutoModelForCausalLM, or give its class GenerationMixin.",
      });
    if (this.tokenizer === undefined) throw new InvalidArgumentError("text-generation needs a tokenizer.");
    // What is generated stands behind the prompt, so a batch is filled up in front.
    if (this.tokenizer.padding_side === "right") this.tokenizer.padding_side = "left";
  }

  get #tokenizer(): PreTrainedTokenizerFast {
    return this.tokenizer as PreTrainedTokenizerFast;
  }

  async _sanitize_parameters(options: Values): Promise<StepParameters> {
    const {
      return_full_text,
      return_tensors,
      return_text,
      clean_up_tokenization_spaces,
      prefix,
      handle_long_generation,
      stop_sequence,
      continue_final_message,
      skip_special_tokens,
      tokenizer_encode_kwargs,
      tools,
      documents,
      ...rest
    } = options;
    const given = (value: unknown) => value !== undefined && value !== null;
    if (given(return_full_text) && given(return_text))
      throw new InvalidArgumentError("return_text and return_full_text cannot be given together.");
    if (given(return_full_text) && given(return_tensors))
      throw new InvalidArgumentError("return_full_text and return_tensors cannot be given together.");
    if (given(return_tensors) && given(return_text))
      throw new InvalidArgumentError("return_text and return_tensors cannot be given together.");
    if (given(handle_long_generation) && handle_long_generation !== "hole")
      throw new InvalidArgumentError(
        `handle_long_generation is 'hole' or absent; got ${JSON.stringify(handle_long_generation)}.`,
      );

    const forward = Object.fromEntries(
      Object.entries(rest).filter(
        ([key, value]) =>
          value !== undefined &&
          !["add_special_tokens", "padding", "truncation"].includes(key) &&
          !(key === "max_length" && value === null),
      ),
    );
    const encode = Object.fromEntries(
      TOKENIZER_OPTIONS.flatMap((key) => (given(rest[key]) ? [[key, rest[key]]] : [])),
    );
    const text = (prefix ?? (this.model.config as { prefix?: unknown }).prefix ?? "") as string;
    if (text !== "") {
      const { input_ids } = await this.#tokenizer(text, {
        padding: false,
        add_special_tokens: Boolean(rest.add_special_tokens ?? false),
      });
      forward.prefix_length = (input_ids as number[]).length;
    }
    const stops = typeof stop_sequence === "string" ? [stop_sequence] : stop_sequence;
    const settings = { ...forward };
    if (given(stops)) Object.assign(forward, { stop_strings: stops, tokenizer: this.#tokenizer });
    const type: ReturnType = given(return_full_text)
      ? return_full_text
        ? "full"
        : "new"
      : given(return_tensors)
        ? "tensors"
        : "full";
    return {
      preprocess: {
        encode: { ...encode, ...(tokenizer_encode_kwargs as Values | undefined) },
        prefix: text,
        handle_long_generation,
        continue_final_message,
        tools,
        documents,
        settings,
      },
      forward,
      postprocess: {
        type,
        clean_up_tokenization_spaces,
        continue_final_message,
        skip_special_tokens,
      },
    };
  }

  protected override isSingle(input: unknown): boolean {
    return typeof input === "string" || isChat(input);
  }

  async preprocess(input: unknown, parameters: Values): Promise<Values> {
    const { prefix, handle_long_generation, continue_final_message, tools, documents } = parameters;
    const options = { ...(parameters.encode as Values) };
    let encoding: BatchEncoding;
    if (isChat(input)) {
      // Templates write the special tokens themselves.
      delete options.add_special_tokens;
      const goesOn = (continue_final_message ?? input.at(-1)?.role === "assistant") as boolean;
      encoding = await this.#tokenizer.apply_chat_template(input, {
        add_generation_prompt: !goesOn,
        continue_final_message: goesOn,
        ...(tools === undefined ? {} : { tools: tools as ChatTemplateOptions["tools"] }),
        ...(documents === undefined ? {} : { documents: documents as ChatTemplateOptions["documents"] }),
        ...options,
        return_dict: true,
        return_tensors: "pt",
      } as ChatTemplateOptions);
    } else if (typeof input === "string") {
      encoding = await this.#tokenizer(`${prefix as string}${input}`, { ...options, return_tensors: "pt" });
    } else {
      throw new InvalidArgumentError(
        "text-generation takes texts, or conversations: lists of messages with 'role' and 'content'.",
      );
    }
    const { input_ids, attention_mask } = encoding as unknown as {
      input_ids: Tensor;
      attention_mask?: Tensor;
    };
    const inputs: Values = attention_mask === undefined ? { input_ids } : { input_ids, attention_mask };
    if (handle_long_generation === "hole") this.#cut(inputs, parameters.settings as Values);
    return { ...inputs, prompt_text: input };
  }

  /** Keeps the end of a prompt that leaves no room for the answer. */
  #cut(inputs: Values, given: Values): void {
    const length = (inputs.input_ids as Tensor).shape[1] as number;
    const settings = this.#settings(this.#generateOptions(given));
    const wanted = settings.max_new_tokens ?? Number(settings.max_length) - length;
    const new_tokens = wanted as number;
    const limit = this.#tokenizer.model_max_length;
    if (!(new_tokens >= 0))
      throw new InvalidArgumentError("handle_long_generation: the number of new tokens is not known.");
    if (length + new_tokens <= limit) return;
    const kept = limit - new_tokens;
    if (kept <= 0)
      throw new InvalidArgumentError(
        `handle_long_generation: ${new_tokens} new tokens are more than the ${limit} that the model takes.`,
      );
    for (const name of ["input_ids", "attention_mask"]) {
      const value = inputs[name] as Tensor | undefined;
      if (value !== undefined) inputs[name] = narrow(value, 1, length - kept, kept);
    }
  }

  /** All that is set: by the call, by its generation_config, by the model's. */
  #settings(options: Values): Values {
    const { generation_config } = this.model as unknown as Generates;
    const own = options.generation_config as GenerationConfig | undefined;
    return { ...generation_config.to_diff_dict(), ...own?.to_diff_dict(), ...options };
  }

  /** The options of `generate`: those given, and the pipeline's defaults for what nobody has set. */
  #generateOptions(given: Values): Values {
    const set = this.#settings(given);
    const pad = this.#tokenizer.pad_token_id;
    const defaults: Values = {
      ...DEFAULTS,
      ...(pad === null || pad === undefined ? {} : { pad_token_id: pad }),
    };
    let added = Object.entries(defaults).filter(
      ([key]) =>
        (set[key] ?? null) === null && !(key === "max_new_tokens" && (set.max_length ?? null) !== null),
    );
    const samples = set.do_sample ?? Object.fromEntries(added).do_sample;
    if (!samples) added = added.filter(([key]) => !SAMPLING.includes(key));
    const more = Object.fromEntries(added);
    const own = given.generation_config as GenerationConfig | undefined;
    if (own === undefined) return { ...given, ...more };
    const config = own.clone();
    config.update(more);
    return { ...given, generation_config: config };
  }

  async _forward(inputs: Values, parameters: Values, signal?: AbortSignal): Promise<Values> {
    const { input_ids, attention_mask, prompt_text } = inputs as {
      input_ids: Tensor;
      attention_mask?: Tensor;
      prompt_text: unknown;
    };
    const { prefix_length, ...given } = parameters;
    const options = this.#generateOptions(given);
    if (prefix_length !== undefined) {
      // Lengths are of prompt and answer; the prefix comes on top.
      const set = this.#settings(options);
      for (const [length, tokens] of [
        ["max_length", "max_new_tokens"],
        ["min_length", "min_new_tokens"],
      ] as const) {
        if ((set[length] ?? null) !== null && (set[tokens] ?? null) === null)
          options[length] = (set[length] as number) + (prefix_length as number);
      }
    }
    const [rows, length] = input_ids.shape as [number, number];
    const prompt = length === 0 ? undefined : { input_ids, attention_mask };
    const generate = (this.model as unknown as Generates).generate.bind(this.model);
    const output = await generate(prompt, { ...options, signal } as GenerateOptions);
    const sequences = output instanceof Tensor ? output : (output as { sequences: Tensor }).sequences;
    const count = sequences.shape[0] as number;
    const perPrompt = (tensor: Tensor) => tensor.reshape([rows, count / rows, ...tensor.shape.slice(1)]);
    const outputs: Values = {
      generated_sequence: perPrompt(sequences),
      prompt_length: length,
      // Of one prompt it is the prompt itself, of a batch a list.
      prompt_text,
    };
    if (!(output instanceof Tensor)) {
      for (const [name, value] of Object.entries(output)) {
        if (name === "sequences" || name === "past_key_values") continue;
        if (value instanceof Tensor && value.shape[0] === count) outputs[name] = perPrompt(value);
        else if (
          Array.isArray(value) &&
          value.every((step) => step instanceof Tensor && step.shape[0] === count)
        )
          outputs[name] = perPrompt(stack(value as Tensor[], 1));
      }
    }
    return outputs;
  }

  async postprocess(outputs: Values, parameters: Values): Promise<Values[]> {
    const { generated_sequence, prompt_length, prompt_text, ...others } = outputs as {
      generated_sequence: Tensor;
      prompt_length: number;
      prompt_text: string | Chat;
    };
    const { type, clean_up_tokenization_spaces, continue_final_message } = parameters;
    const options = {
      skip_special_tokens: (parameters.skip_special_tokens ?? true) as boolean,
      ...(clean_up_tokenization_spaces === undefined || clean_up_tokenization_spaces === null
        ? {}
        : { clean_up_tokenization_spaces: clean_up_tokenization_spaces as boolean }),
    };
    const sequences = generated_sequence.select(0, 0).tolist<number[][]>();
    const columns = Object.entries(others as Values).flatMap(([name, value]) =>
      value instanceof Tensor ? [[name, value.select(0, 0).tolist<unknown[]>()] as const] : [],
    );
    return Promise.all(
      sequences.map(async (sequence, i) => {
        if (type === "tensors") return { generated_token_ids: sequence };
        const text = await this.#tokenizer.decode(sequence.slice(prompt_length), options);
        const generated_text =
          type === "new"
            ? text
            : typeof prompt_text === "string"
              ? `${prompt_text}${text}`
              : answered(prompt_text, text, continue_final_message as boolean | undefined);
        return { generated_text, ...Object.fromEntries(columns.map(([name, values]) => [name, values[i]])) };
      }),
    );
  }
}

/** The conversation with the answer: a message of its own, or the rest of the last one. */
function answered(chat: Chat, text: string, goesOn: boolean | null | undefined): ChatMessage[] {
  const last = chat.at(-1) as ChatMessage;
  if (!(goesOn ?? last.role === "assistant")) return [...chat, { role: "assistant", content: text }];
  return [
    ...chat.slice(0, -1),
    { role: last.role, content: `${last.content as string}${text}` } as ChatMessage,
  ];
}
