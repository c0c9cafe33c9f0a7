// What `generate` makes ready before its first step: ids, masks, positions, lengths, cache, processors, criteria.
import type { GenerationConfig } from "../configuration/index.ts";
import { InvalidArgumentError } from "../errors/index.ts";
import { warn, warnOnce } from "../errors/warnings.ts";
import { type Cache, type CacheConfig, DynamicCache, StaticCache } from "../modeling/cache_utils.ts";
import type { PreTrainedModel } from "../modeling/modeling_utils.ts";
import type { Device, Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import type { LogitsProcessorList } from "./logits_process/logits_processor.ts";
import type { ModelInputs, Request } from "./options.ts";
import { type Facts, makeCriteria, makeProcessors } from "./processors.ts";
import type { StoppingCriteriaList } from "./stopping_criteria.ts";

/** What a run of `generate` carries from step to step. */
export interface State {
  /** Tokens so far [batch, length]. */
  input_ids: Tensor;
  /** [batch, length so far], or undefined when nothing is masked. */
  attention_mask: Tensor | undefined;
  /** [batch or 1, length so far] */
  position_ids: Tensor | undefined;
  /** Embeddings instead of ids, for the first step. */
  inputs_embeds: Tensor | undefined;
  readonly cache: Cache | undefined;
  /** Whether the cache was made here, and is to be freed here. */
  readonly ownsCache: boolean;
  /** Other inputs of the model, the same in each step. */
  readonly extra: ModelInputs;
}

export interface Run {
  readonly settings: GenerationConfig;
  readonly state: State;
  readonly processors: LogitsProcessorList;
  readonly criteria: StoppingCriteriaList;
  readonly pad_token_id: number | undefined;
  /** What processors are made from. */
  readonly facts: Facts;
  /** Frees the tensors of a state that a step has replaced. */
  release(replaced: State): void;
  /** Frees what was made for this run, except `kept`, which the caller gets. */
  free(kept: readonly unknown[]): void;
}

/** Makes a run ready; the tensors of its state belong to it. */
export function prepare(model: PreTrainedModel, request: Request): Run {
  const { settings, options } = request;
  const { device } = model;
  const eos_token_id = settings.eos_token_id === null ? undefined : [settings.eos_token_id].flat();
  const pad_token_id = settings.pad_token_id ?? eos_token_id?.[0];

  const { input_ids, attention_mask, position_ids, inputs_embeds, past_key_values, ...extra } =
    request.inputs as ModelInputs & {
      input_ids?: Tensor;
      attention_mask?: Tensor;
      position_ids?: Tensor;
      inputs_embeds?: Tensor;
      past_key_values?: Cache;
    };
  const ids = startIds(input_ids, inputs_embeds, settings, device);
  const prompt = inputs_embeds ?? ids;
  let mask = attention_mask?.to(device);
  if (mask && mask.shape.length !== 2)
    throw new InvalidArgumentError("generate: attention_mask must be [batch, length].");
  if (mask === undefined) mask = inferMask(prompt, pad_token_id, eos_token_id, settings);
  warnOfRightPadding(ids, mask, pad_token_id);
  const positions =
    position_ids ??
    (accepts(model, "position_ids") ? startPositions(mask, prompt, past_key_values) : undefined);
  // A mask of ones says nothing: without it, attention need not build one.
  if (mask && torch.all(mask.eq(1)).item<boolean>()) mask = undefined;

  const copies = settings.num_return_sequences ?? 1;
  const expand = <T extends Tensor | undefined>(t: T): T =>
    (t && copies > 1 ? t.repeat_interleave(copies, 0) : t) as T;
  const length = ids.shape[1] as number;
  setLengths(model, request, length, inputs_embeds);
  const embedded =
    inputs_embeds && length !== inputs_embeds.shape[1] ? (inputs_embeds.shape[1] as number) : 0;
  checkRoom(past_key_values, inputs_embeds ?? ids, (settings.max_length as number) - length);
  const cache = past_key_values ?? makeCache(model, settings, (settings.max_length as number) - 1 + embedded);
  if (accepts(model, "logits_to_keep")) extra.logits_to_keep ??= 1;
  for (const [name, value] of Object.entries(extra)) {
    if (value instanceof torch.Tensor)
      extra[name] = value.shape[0] === ids.shape[0] ? expand(value.to(device)) : value.to(device);
  }
  const state: State = {
    input_ids: expand(ids),
    attention_mask: expand(mask),
    position_ids: positions && (positions.shape[0] === 1 ? positions : expand(positions.to(device))),
    inputs_embeds: expand(inputs_embeds?.to(device)),
    cache,
    ownsCache: cache !== undefined && past_key_values === undefined,
    extra,
  };
  const facts: Facts = { eos_token_id, length, prompt: ids, mask: state.attention_mask };
  const processors = makeProcessors(model, request, facts);
  const criteria = makeCriteria(model, settings, eos_token_id, options.tokenizer);
  const own = [...processors, ...criteria].filter((item) => typeof item === "object");
  criteria.push(...(options.stopping_criteria ?? []));
  // Not ours to free: what the caller gave, and ids that were shown to processors and criteria of the caller's.
  const { given } = request;
  const shows = Boolean(
    options.logits_processor ?? options.stopping_criteria ?? options.prefix_allowed_tokens_fn,
  );
  // A streamer is given the prompt for good.
  const kept = [...given, options.streamer ? state.input_ids : undefined];
  const release = (from: State, also: readonly unknown[] = []) => {
    for (const tensor of [shows ? undefined : from.input_ids, from.attention_mask, from.position_ids]) {
      if (tensor && tensor !== ids && !kept.includes(tensor) && !also.includes(tensor)) tensor.dispose();
    }
  };
  const free = (also: readonly unknown[]) => {
    for (const item of own) item.dispose();
    release(state, also);
    // Processors may have looked at it until now.
    if (!shows && !kept.includes(ids) && !also.includes(ids)) ids.dispose();
  };
  return { settings, state, pad_token_id, facts, processors, criteria, release, free };
}

/** Whether a model's forward takes an input of that name. */
export const accepts = (model: PreTrainedModel, name: string) =>
  (model.constructor as typeof PreTrainedModel).forward_inputs?.includes(name) ?? false;

// Inputs ---------------------------------------------------------------------------------------------------------

function startIds(
  input_ids: Tensor | undefined,
  embeds: Tensor | undefined,
  settings: GenerationConfig,
  device: Device,
): Tensor {
  if (input_ids) {
    if (input_ids.shape.length !== 2)
      throw new InvalidArgumentError(
        `generate: input_ids must be [batch, length], got [${input_ids.shape.join(", ")}].`,
      );
    return input_ids.to({ device, dtype: "int64" });
  }
  if (embeds) return torch.zeros([embeds.shape[0] as number, 0], { dtype: "int64", device });
  if (settings.bos_token_id === null)
    throw new InvalidArgumentError("generate: give input_ids; there is no bos_token_id to begin with.");
  return torch.full([1, 1], settings.bos_token_id, { dtype: "int64", device });
}

/** Without a mask: padding tokens are masked, unless padding and end of sequence are one. */
function inferMask(
  prompt: Tensor,
  pad: number | undefined,
  eos: readonly number[] | undefined,
  settings: GenerationConfig,
): Tensor | undefined {
  if (
    prompt.shape.length !== 2 ||
    pad === undefined ||
    eos?.includes(pad) ||
    (prompt.shape[1] as number) === 0
  ) {
    const ambiguous = settings.pad_token_id !== null && eos?.includes(settings.pad_token_id) === true;
    if (ambiguous && prompt.shape.length === 2 && (prompt.shape[0] as number) > 1) {
      warnOnce(
        "generate: a batch without attention_mask, where padding and end of sequence are the same token; give the mask.",
      );
    }
    return undefined;
  }
  return prompt.ne(pad).to("int64");
}

function warnOfRightPadding(ids: Tensor, mask: Tensor | undefined, pad: number | undefined): void {
  const [batch, length] = ids.shape as [number, number];
  if (pad === undefined || batch < 2 || length === 0) return;
  const last =
    mask && mask.shape[1] === length ? mask.select(1, length - 1).eq(0) : ids.select(1, length - 1).eq(pad);
  if (!torch.any(last).item<boolean>()) return;
  warn(
    "generate: the batch is padded on the right, after which nothing sensible can follow. Set padding_side 'left' in the tokenizer.",
  );
}

/** Positions count real tokens only. */
function startPositions(mask: Tensor | undefined, prompt: Tensor, cache: Cache | undefined): Tensor {
  if (mask) return mask.to("int64").cumsum(-1).sub(1).masked_fill(mask.eq(0), 0);
  const positions = torch.arange(prompt.shape[1] as number, { device: prompt.device });
  return positions.unsqueeze(0).add(prompt.shape.length === 3 ? (cache?.get_seq_length() ?? 0) : 0);
}

// Lengths and cache -------------------------------------------------------------------------------------------------

function setLengths(
  model: PreTrainedModel,
  { settings, hasDefaultMaxLength }: Request,
  length: number,
  embeds: Tensor | undefined,
): void {
  const embedded = embeds !== undefined && length !== embeds.shape[1] ? (embeds.shape[1] as number) : 0;
  const limit = (model.config as { max_position_embeddings?: number }).max_position_embeddings;
  if (settings.max_new_tokens !== null) {
    settings.max_length = settings.max_new_tokens + length;
  } else if (embedded > 0 && !hasDefaultMaxLength) {
    settings.max_length = (settings.max_length as number) - embedded;
  } else if (hasDefaultMaxLength) {
    warnOnce(
      `generate: no max_new_tokens was given, so ${settings.max_length} tokens are generated at most.`,
    );
    settings.max_length = Math.min((settings.max_length as number) + length, limit ?? Infinity);
  }
  if (settings.min_new_tokens !== null) settings.min_length = settings.min_new_tokens + length;
  else if (embedded > 0) settings.min_length = Math.max((settings.min_length ?? 0) - embedded, 0);

  const max_length = settings.max_length as number;
  if (length >= max_length) {
    throw new InvalidArgumentError(
      `generate: the prompt has ${length} tokens, and max_length is ${max_length}.`,
      {
        hint: "Give max_new_tokens instead.",
      },
    );
  }
  if ((settings.min_length ?? 0) > max_length) {
    warn(
      `generate: min_length (${settings.min_length}) is greater than max_length (${max_length}), where generation ends.`,
    );
  }
}

/** Tokens that a cache holds already. */
export function seenBy(cache: Cache): number {
  const known = cache.get_seq_length();
  return typeof known === "number" ? known : torch.tidy(() => known.item<number>());
}

/** A cache of the caller's that does not grow must be large enough from the beginning. */
function checkRoom(cache: Cache | undefined, prompt: Tensor, most: number): void {
  if (!(cache instanceof StaticCache)) return;
  const [room, seen, total] = [cache.get_max_length(), seenBy(cache), prompt.shape[1] as number];
  const need = seen + total - (total > seen ? seen : 0) + most - 1;
  if (need <= room) return;
  throw new InvalidArgumentError(
    `generate: the cache holds ${room} tokens, and up to ${need} may be generated.`,
    { hint: "Give a larger cache, or a smaller max_new_tokens." },
  );
}

function makeCache(model: PreTrainedModel, settings: GenerationConfig, length: number): Cache | undefined {
  if (settings.use_cache === false) return undefined;
  const config = model.config.get_text_config({ decoder: true }) as unknown as CacheConfig;
  const cache =
    settings.cache_implementation === "static"
      ? new StaticCache({ config, max_cache_len: Math.max(length, settings.max_cache_len ?? 0) })
      : new DynamicCache({ config });
  if (!settings.return_dict_in_generate) cache.exclusive = true;
  return cache;
}
