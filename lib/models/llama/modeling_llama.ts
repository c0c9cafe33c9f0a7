// Llama: a decoder with rotary positions, grouped-query attention, RMS norms and a gated feed-forward.
// Papers: arXiv 2302.13971, 2307.09288, 2407.21783.
import { InvalidArgumentError } from "../../errors/index.ts";
import { GenerationMixin } from "../../generation/generation_mixin.ts";
import { ACT2FN, type Activation } from "../../modeling/activations.ts";
import { attention } from "../../modeling/attention.ts";
import { DynamicCache } from "../../modeling/cache_utils.ts";
import { type CausalLMLossOptions, ForCausalLMLoss } from "../../modeling/loss.ts";
import { create_causal_mask } from "../../modeling/masking_utils.ts";
import {
  DECODER_INPUTS,
  type DecoderInputs,
  GenericForQuestionAnswering,
  GenericForSequenceClassification,
  GenericForTokenClassification,
  GradientCheckpointingLayer,
  type LayerInputs,
  slice_logits_to_keep,
} from "../../modeling/modeling_layers.ts";
import { BaseModelOutputWithPast, CausalLMOutputWithPast } from "../../modeling/modeling_outputs.ts";
import { apply_rotary_pos_emb, RotaryEmbedding } from "../../modeling/modeling_rope_utils.ts";
import { PreTrainedModel } from "../../modeling/modeling_utils.ts";
import * as nn from "../../nn/index.ts";
import type { Tensor } from "../../torch/index.ts";
import * as torch from "../../torch/index.ts";
import { LlamaConfig } from "./configuration_llama.ts";

/** Root mean square norm: computed in float32, rounded to the input's dtype, then scaled. */
export class LlamaRMSNorm extends nn.RMSNorm {
  override forward(x: Tensor): Tensor {
    // One kernel, and the same numbers. In lower precision it would round after the scaling, other than checkpoints expect.
    if (x.dtype === "float32") return super.forward(x);
    const h = x.to("float32");
    const scale = h
      .pow(2)
      .mean(-1, true)
      .add(this.eps ?? 0)
      .rsqrt();
    return (this.weight as Tensor).mul(h.mul(scale).to(x.dtype));
  }
}

/** Rotary positions of any kind that `config.rope_parameters` names. */
export class LlamaRotaryEmbedding extends RotaryEmbedding {}

/** Gated feed-forward: down(act(gate(x)) · up(x)). */
export class LlamaMLP extends nn.Module {
  gate_proj: nn.Linear;
  up_proj: nn.Linear;
  down_proj: nn.Linear;
  act_fn: Activation;

  constructor({ hidden_size, intermediate_size, mlp_bias, hidden_act }: LlamaConfig) {
    super();
    this.gate_proj = new nn.Linear(hidden_size, intermediate_size, { bias: mlp_bias });
    this.up_proj = new nn.Linear(hidden_size, intermediate_size, { bias: mlp_bias });
    this.down_proj = new nn.Linear(intermediate_size, hidden_size, { bias: mlp_bias });
    this.act_fn = ACT2FN(hidden_act);
  }

  override forward(x: Tensor): Tensor {
    return this.down_proj.forward(
      this.act_fn.forward(this.gate_proj.forward(x)).mul(this.up_proj.forward(x)),
    );
  }
}

/** Multi-head attention; several query heads share one key/value head. */
export class LlamaAttention extends nn.Module {
  readonly config: LlamaConfig;
  readonly layer_idx: number;
  readonly head_dim: number;
  readonly num_key_value_groups: number;
  readonly scaling: number;
  readonly is_causal: boolean;
  q_proj: nn.Linear;
  k_proj: nn.Linear;
  v_proj: nn.Linear;
  o_proj: nn.Linear;

  constructor(config: LlamaConfig, layer_idx: number) {
    super();
    const { hidden_size, num_attention_heads, num_key_value_heads, attention_bias: bias } = config;
    this.config = config;
    this.layer_idx = layer_idx;
    this.head_dim = config.head_dim ?? Math.trunc(hidden_size / num_attention_heads);
    this.num_key_value_groups = Math.trunc(num_attention_heads / num_key_value_heads);
    this.scaling = this.head_dim ** -0.5;
    this.is_causal = true;
    this.q_proj = new nn.Linear(hidden_size, num_attention_heads * this.head_dim, { bias });
    this.k_proj = new nn.Linear(hidden_size, num_key_value_heads * this.head_dim, { bias });
    this.v_proj = new nn.Linear(hidden_size, num_key_value_heads * this.head_dim, { bias });
    this.o_proj = new nn.Linear(num_attention_heads * this.head_dim, hidden_size, { bias });
  }

  override forward(x: Tensor, inputs: LayerInputs): Tensor {
    const [batch, length] = x.shape as [number, number];
    const heads = (h: Tensor) => h.view([batch, length, -1, this.head_dim]).transpose(1, 2); // [batch, heads, length, head_dim]
    let [q, k] = apply_rotary_pos_emb(
      heads(this.q_proj.forward(x)),
      heads(this.k_proj.forward(x)),
      inputs.position_embeddings,
    );
    let v = heads(this.v_proj.forward(x));
    if (inputs.past_key_values) [k, v] = inputs.past_key_values.update(k, v, this.layer_idx);

    const dropout = this.training ? (this.config.attention_dropout ?? 0) : 0;
    const out = attention(this, q, k, v, inputs, { dropout, scaling: this.scaling });
    return this.o_proj.forward(out.reshape([batch, length, -1]));
  }
}

/** Pre-norm decoder layer: attention, then feed-forward, each added to its input. */
export class LlamaDecoderLayer extends GradientCheckpointingLayer {
  self_attn: LlamaAttention;
  mlp: LlamaMLP;
  input_layernorm: LlamaRMSNorm;
  post_attention_layernorm: LlamaRMSNorm;

  constructor(config: LlamaConfig, layer_idx: number) {
    super();
    this.self_attn = new LlamaAttention(config, layer_idx);
    this.mlp = new LlamaMLP(config);
    this.input_layernorm = new LlamaRMSNorm(config.hidden_size, { eps: config.rms_norm_eps });
    this.post_attention_layernorm = new LlamaRMSNorm(config.hidden_size, { eps: config.rms_norm_eps });
  }

  override forward(x: Tensor, inputs: LayerInputs): Tensor {
    const h = x.add(this.self_attn.forward(this.input_layernorm.forward(x), inputs)); // [batch, length, hidden]
    return h.add(this.mlp.forward(this.post_attention_layernorm.forward(h)));
  }
}

/** What all Llama models share. */
export class LlamaPreTrainedModel extends PreTrainedModel {
  static override readonly config_class = LlamaConfig;
  static override base_model_prefix = "model";
  static override readonly _no_split_modules: readonly string[] = ["LlamaDecoderLayer"];
  static override readonly _supports_sdpa: boolean = true;
  static override readonly supports_gradient_checkpointing: boolean = true;

  declare readonly config: LlamaConfig;

  constructor(config: LlamaConfig) {
    super(config);
  }
}

/** The decoder without a head. */
export class LlamaModel extends LlamaPreTrainedModel {
  static override readonly forward_inputs: readonly string[] = DECODER_INPUTS;

  embed_tokens: nn.Embedding;
  layers: nn.ModuleList<LlamaDecoderLayer>;
  norm: LlamaRMSNorm;
  rotary_emb: LlamaRotaryEmbedding;

  constructor(config: LlamaConfig) {
    super(config);
    this.embed_tokens = new nn.Embedding(config.vocab_size, config.hidden_size, {
      padding_idx: config.pad_token_id,
    });
    this.layers = new nn.ModuleList(
      Array.from(
        { length: config.num_hidden_layers },
        (_, layer_idx) => new LlamaDecoderLayer(config, layer_idx),
      ),
    );
    this.norm = new LlamaRMSNorm(config.hidden_size, { eps: config.rms_norm_eps });
    this.rotary_emb = new LlamaRotaryEmbedding(config);
    this.post_init();
  }

  override forward(inputs: DecoderInputs): BaseModelOutputWithPast {
    this.check_inputs(inputs);
    const { config } = this;
    const { input_ids, attention_mask } = inputs;
    if (!input_ids === !inputs.inputs_embeds) {
      throw new InvalidArgumentError("Give exactly one of input_ids and inputs_embeds.");
    }
    const inputs_embeds = inputs.inputs_embeds ?? this.embed_tokens.forward(input_ids as Tensor); // [batch, length, hidden]
    const past_key_values =
      inputs.past_key_values ??
      ((inputs.use_cache ?? config.use_cache) ? new DynamicCache({ config }) : undefined);

    const past = past_key_values?.get_seq_length() ?? 0;
    const position_ids =
      inputs.position_ids ??
      torch
        .arange(inputs_embeds.shape[1] as number, { device: inputs_embeds.device })
        .add(past)
        .unsqueeze(0);
    const layerInputs: LayerInputs = {
      attention_mask: create_causal_mask({
        config,
        inputs_embeds,
        attention_mask,
        past_key_values,
        position_ids: inputs.position_ids ?? undefined,
      }),
      position_embeddings: this.rotary_emb.forward(inputs_embeds, position_ids),
      past_key_values,
      attentions: this.wants_attentions(inputs) ? [] : undefined,
    };

    const hidden_states: Tensor[] | undefined = this.wants_hidden_states(inputs) ? [] : undefined;
    let h = inputs_embeds;
    for (const layer of this.layers) {
      hidden_states?.push(h);
      h = layer.forward(h, layerInputs);
    }
    h = this.norm.forward(h);
    hidden_states?.push(h);
    return new BaseModelOutputWithPast({
      last_hidden_state: h,
      past_key_values,
      hidden_states,
      attentions: layerInputs.attentions,
    });
  }
}

/** What the language model takes beside what the bare one does. */
export interface LlamaForCausalLMInputs extends DecoderInputs, CausalLMLossOptions {
  /** Token ids [batch, length] to predict; -100 does not count. Give the input ids: they are moved by one here. */
  labels?: Tensor | null | undefined;
  /** Compute logits of the last so many positions, of an index tensor's positions, or of all: 0, the default. */
  logits_to_keep?: number | Tensor | undefined;
}

/** Llama with a language modeling head. */
export class LlamaForCausalLM extends GenerationMixin(LlamaPreTrainedModel) {
  static override readonly _tied_weights_keys: Readonly<Record<string, string>> = {
    "lm_head.weight": "model.embed_tokens.weight",
  };
  static override readonly forward_inputs: readonly string[] = [
    ...DECODER_INPUTS,
    "labels",
    "logits_to_keep",
    "num_items_in_batch",
    "ignore_index",
    "shift_labels",
  ];

  model: LlamaModel;
  lm_head: nn.Linear;

  constructor(config: LlamaConfig) {
    super(config);
    this.model = new LlamaModel(config);
    this.lm_head = new nn.Linear(config.hidden_size, config.vocab_size, { bias: false });
    this.post_init();
  }

  /**
   * Scores of the next token at each position, and the loss when `labels` are given.
   *
   * @example
   * const { logits, loss } = model.forward({ input_ids, labels: input_ids });
   */
  override forward(inputs: LlamaForCausalLMInputs): CausalLMOutputWithPast {
    this.check_inputs(inputs);
    const { labels, logits_to_keep = 0, num_items_in_batch, ignore_index, shift_labels, ...rest } = inputs;
    const outputs = this.model.forward(rest);
    const logits = this.lm_head.forward(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep));
    const loss = labels
      ? ForCausalLMLoss(logits, labels, this.config.vocab_size, {
          num_items_in_batch,
          ignore_index,
          shift_labels,
        })
      : undefined;
    return new CausalLMOutputWithPast({ ...outputs, loss, logits });
  }
}

/** Llama with a score per label for the whole sequence. */
export class LlamaForSequenceClassification extends GenericForSequenceClassification(
  LlamaPreTrainedModel,
  LlamaModel,
) {}

/** Llama with a score per label for each token. */
export class LlamaForTokenClassification extends GenericForTokenClassification(
  LlamaPreTrainedModel,
  LlamaModel,
) {}

/** Llama with scores for the start and the end of an answer. */
export class LlamaForQuestionAnswering extends GenericForQuestionAnswering(LlamaPreTrainedModel, LlamaModel) {
  static override base_model_prefix = "transformer"; // the name in checkpoints of this head
}
