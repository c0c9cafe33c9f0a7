// ViT: an image as a sequence of patches, read by a transformer encoder. Paper: arXiv 2010.11929.
import { InvalidArgumentError } from "../../errors/index.ts";
import { ACT2FN, type Activation } from "../../modeling/activations.ts";
import { type AttentionInputs, attention } from "../../modeling/attention.ts";
import { register_checkpoint_conversion_mapping } from "../../modeling/conversion_mapping.ts";
import * as init from "../../modeling/initialization.ts";
import { ForSequenceClassificationLoss, type LossOptions } from "../../modeling/loss.ts";
import { create_bidirectional_mask } from "../../modeling/masking_utils.ts";
import { GradientCheckpointingLayer } from "../../modeling/modeling_layers.ts";
import {
  BaseModelOutputWithPooling,
  ImageClassifierOutput,
  MaskedImageModelingOutput,
} from "../../modeling/modeling_outputs.ts";
import { PreTrainedModel } from "../../modeling/modeling_utils.ts";
import { WeightRenaming } from "../../modeling/weight_transforms.ts";
import * as nn from "../../nn/index.ts";
import type { Tensor } from "../../torch/index.ts";
import * as torch from "../../torch/index.ts";
import { ViTConfig } from "./configuration_vit.ts";

const F = nn.functional;

const pair = (size: number | readonly number[]): readonly [height: number, width: number] =>
  typeof size === "number" ? [size, size] : (size as readonly [number, number]);

/** Cuts images into patches and gives each a vector: [batch, channels, height, width] → [batch, patches, hidden]. */
export class ViTPatchEmbeddings extends nn.Module {
  readonly image_size: readonly [height: number, width: number];
  readonly patch_size: readonly [height: number, width: number];
  readonly num_channels: number;
  readonly num_patches: number;
  projection: nn.Conv2d;

  constructor({ image_size, patch_size, num_channels, hidden_size }: ViTConfig) {
    super();
    this.image_size = pair(image_size);
    this.patch_size = pair(patch_size);
    this.num_channels = num_channels;
    this.num_patches =
      Math.floor(this.image_size[0] / this.patch_size[0]) *
      Math.floor(this.image_size[1] / this.patch_size[1]);
    this.projection = new nn.Conv2d(num_channels, hidden_size, this.patch_size, { stride: this.patch_size });
  }

  override forward(pixel_values: Tensor): Tensor {
    const num_channels = pixel_values.shape[1];
    if (num_channels !== this.num_channels) {
      throw new InvalidArgumentError(
        `pixel_values have ${num_channels} channels, but config.num_channels is ${this.num_channels}.`,
      );
    }
    return this.projection.forward(pixel_values).flatten(2).transpose(1, 2);
  }
}

interface EmbeddingOptions {
  readonly bool_masked_pos?: Tensor | null | undefined;
  readonly interpolate_pos_encoding?: boolean | null | undefined;
}

/** Patches with a [CLS] token before them and positions added; masked patches are replaced. */
export class ViTEmbeddings extends nn.Module {
  cls_token: nn.Parameter;
  mask_token: nn.Parameter | null;
  patch_embeddings: ViTPatchEmbeddings;
  position_embeddings: nn.Parameter;
  dropout: nn.Dropout;

  constructor(config: ViTConfig, { use_mask_token = false } = {}) {
    super();
    const { hidden_size } = config;
    this.cls_token = new nn.Parameter(torch.randn([1, 1, hidden_size]));
    this.mask_token = use_mask_token ? new nn.Parameter(torch.zeros([1, 1, hidden_size])) : null;
    this.patch_embeddings = new ViTPatchEmbeddings(config);
    const positions = this.patch_embeddings.num_patches + 1;
    this.position_embeddings = new nn.Parameter(torch.randn([1, positions, hidden_size]));
    this.dropout = new nn.Dropout(config.hidden_dropout_prob);
  }

  /** The positions of the model's own images, brought to the patch grid of an image of this size by bicubic resizing. */
  interpolate_pos_encoding(embeddings: Tensor, height: number, width: number): Tensor {
    const [, length, dim] = embeddings.shape as [number, number, number];
    const positions = (this.position_embeddings.shape[1] as number) - 1;
    if (length - 1 === positions && height === width) return this.position_embeddings;
    const [patchHeight, patchWidth] = this.patch_embeddings.patch_size;
    const side = Math.trunc(Math.sqrt(positions));
    const grid = this.position_embeddings
      .narrow(1, 1, positions)
      .reshape([1, side, side, dim])
      .permute([0, 3, 1, 2]);
    const resized = F.interpolate(grid, {
      size: [Math.floor(height / patchHeight), Math.floor(width / patchWidth)],
      mode: "bicubic",
      align_corners: false,
    });
    const patches = resized.permute([0, 2, 3, 1]).reshape([1, -1, dim]);
    return torch.cat([this.position_embeddings.narrow(1, 0, 1), patches], 1);
  }

  override forward(pixel_values: Tensor, options: EmbeddingOptions = {}): Tensor {
    const [batch, , height, width] = pixel_values.shape as [number, number, number, number];
    const { bool_masked_pos, interpolate_pos_encoding } = options;
    let h = this.patch_embeddings.forward(pixel_values); // [batch, patches, hidden]
    if (bool_masked_pos) {
      if (!this.mask_token) {
        throw new InvalidArgumentError("bool_masked_pos needs a model with a mask token.", {
          hint: "Use ViTForMaskedImageModeling, or new ViTModel(config, { use_mask_token: true }).",
        });
      }
      const mask = bool_masked_pos.unsqueeze(-1).to(this.mask_token.dtype);
      h = h.mul(torch.rsub(mask, 1)).add(this.mask_token.mul(mask));
    }
    h = torch.cat([this.cls_token.expand([batch, -1, -1]), h], 1);

    const [ownHeight, ownWidth] = this.patch_embeddings.image_size;
    if (!interpolate_pos_encoding && (height !== ownHeight || width !== ownWidth)) {
      throw new InvalidArgumentError(
        `pixel_values are ${height} × ${width} images; the model takes ${ownHeight} × ${ownWidth}.`,
        { hint: "Resize them, or pass interpolate_pos_encoding: true." },
      );
    }
    const positions = interpolate_pos_encoding
      ? this.interpolate_pos_encoding(h, height, width)
      : this.position_embeddings;
    return this.dropout.forward(h.add(positions));
  }
}

/** Multi-head attention of every patch to all patches. */
export class ViTAttention extends nn.Module {
  readonly config: ViTConfig;
  readonly head_dim: number;
  readonly scaling: number;
  readonly is_causal: boolean;
  q_proj: nn.Linear;
  k_proj: nn.Linear;
  v_proj: nn.Linear;
  o_proj: nn.Linear;

  constructor(config: ViTConfig) {
    super();
    const { hidden_size, num_attention_heads, qkv_bias: bias } = config;
    this.config = config;
    this.head_dim =
      (config as { head_dim?: number }).head_dim ?? Math.trunc(hidden_size / num_attention_heads);
    this.scaling = this.head_dim ** -0.5;
    this.is_causal = false;
    this.q_proj = new nn.Linear(hidden_size, num_attention_heads * this.head_dim, { bias });
    this.k_proj = new nn.Linear(hidden_size, num_attention_heads * this.head_dim, { bias });
    this.v_proj = new nn.Linear(hidden_size, num_attention_heads * this.head_dim, { bias });
    this.o_proj = new nn.Linear(num_attention_heads * this.head_dim, hidden_size);
  }

  override forward(x: Tensor, inputs: AttentionInputs): Tensor {
    const [batch, length] = x.shape as [number, number];
    const heads = (h: Tensor) => h.view([batch, length, -1, this.head_dim]).transpose(1, 2); // [batch, heads, length, head_dim]
    const q = heads(this.q_proj.forward(x));
    const k = heads(this.k_proj.forward(x));
    const v = heads(this.v_proj.forward(x));
    const dropout = this.training ? this.config.attention_probs_dropout_prob : 0;
    const out = attention(this, q, k, v, inputs, { dropout, scaling: this.scaling });
    return this.o_proj.forward(out.reshape([batch, length, -1]));
  }
}

/** Feed-forward: fc2(act(fc1(x))). */
export class ViTMLP extends nn.Module {
  activation_fn: Activation;
  fc1: nn.Linear;
  fc2: nn.Linear;

  constructor({ hidden_act, hidden_size, intermediate_size }: ViTConfig) {
    super();
    this.activation_fn = ACT2FN(hidden_act);
    this.fc1 = new nn.Linear(hidden_size, intermediate_size);
    this.fc2 = new nn.Linear(intermediate_size, hidden_size);
  }

  override forward(x: Tensor): Tensor {
    return this.fc2.forward(this.activation_fn.forward(this.fc1.forward(x)));
  }
}

/** Pre-norm encoder layer: attention, then feed-forward, each added to its input. */
export class ViTLayer extends GradientCheckpointingLayer {
  attention: ViTAttention;
  layernorm_before: nn.LayerNorm;
  layernorm_after: nn.LayerNorm;
  mlp: ViTMLP;
  dropout: nn.Dropout;

  constructor(config: ViTConfig) {
    super();
    this.attention = new ViTAttention(config);
    this.layernorm_before = new nn.LayerNorm(config.hidden_size, { eps: config.layer_norm_eps });
    this.layernorm_after = new nn.LayerNorm(config.hidden_size, { eps: config.layer_norm_eps });
    this.mlp = new ViTMLP(config);
    this.dropout = new nn.Dropout(config.hidden_dropout_prob);
  }

  override forward(x: Tensor, inputs: AttentionInputs): Tensor {
    const attended = this.attention.forward(this.layernorm_before.forward(x), inputs);
    const h = this.dropout.forward(attended).add(x); // [batch, length, hidden]
    return this.dropout.forward(this.mlp.forward(this.layernorm_after.forward(h))).add(h);
  }
}

/** One vector for the image, from its [CLS] token. */
export class ViTPooler extends nn.Module {
  dense: nn.Linear;
  activation: Activation;

  constructor({ hidden_size, pooler_output_size, pooler_act }: ViTConfig) {
    super();
    this.dense = new nn.Linear(hidden_size, pooler_output_size);
    this.activation = ACT2FN(pooler_act);
  }

  override forward(x: Tensor): Tensor {
    return this.activation.forward(this.dense.forward(x.select(1, 0)));
  }
}

/** What all ViT models share. */
export class ViTPreTrainedModel extends PreTrainedModel {
  static override readonly config_class = ViTConfig;
  static override base_model_prefix = "vit";
  static override readonly main_input_name: string = "pixel_values";
  static override readonly _no_split_modules: readonly string[] = ["ViTEmbeddings", "ViTLayer"];
  static override readonly _supports_sdpa: boolean = true;
  static override readonly supports_gradient_checkpointing: boolean = true;
  static override readonly _input_embed_layer: string = "patch_embeddings";

  declare readonly config: ViTConfig;

  constructor(config: ViTConfig) {
    super(config);
  }

  override _init_weights(module: nn.Module): void {
    super._init_weights(module);
    if (!(module instanceof ViTEmbeddings)) return;
    init.trunc_normal_(module.position_embeddings, 0, this.config.initializer_range);
    init.trunc_normal_(module.cls_token, 0, this.config.initializer_range);
    if (module.mask_token) init.zeros_(module.mask_token);
  }
}

/** What a ViT takes. */
export interface ViTInputs {
  /** Images [batch, channels, height, width]. */
  pixel_values: Tensor;
  /** Resize the positions to images of another size than `config.image_size`. Default: refuse such images. */
  interpolate_pos_encoding?: boolean | null | undefined;
  /** [batch, patches + 1], 1 for what may be seen. Default: everything. */
  attention_mask?: Tensor | null | undefined;
  /** Return attention weights; needs `attn_implementation: "eager"`. Default: `config.output_attentions`. */
  output_attentions?: boolean | null | undefined;
  /** Return the input and the output of each layer. Default: `config.output_hidden_states`. */
  output_hidden_states?: boolean | null | undefined;
}

/** What models with masked patches take besides. */
export interface ViTMaskedInputs extends ViTInputs {
  /** [batch, patches], true where a patch is hidden from the model. */
  bool_masked_pos?: Tensor | null | undefined;
}

const VIT_INPUTS: readonly (keyof ViTInputs)[] = [
  "pixel_values",
  "interpolate_pos_encoding",
  "attention_mask",
  "output_attentions",
  "output_hidden_states",
];

/** ViT without a head. */
export class ViTModel extends ViTPreTrainedModel {
  static override readonly forward_inputs: readonly string[] = [...VIT_INPUTS, "bool_masked_pos"];

  embeddings: ViTEmbeddings;
  layers: nn.ModuleList<ViTLayer>;
  layernorm: nn.LayerNorm;
  pooler: ViTPooler | null;

  /** @param options.add_pooling_layer default true. @param options.use_mask_token for masked images; default false. */
  constructor(config: ViTConfig, { add_pooling_layer = true, use_mask_token = false } = {}) {
    super(config);
    this.embeddings = new ViTEmbeddings(config, { use_mask_token });
    this.layers = new nn.ModuleList(
      Array.from({ length: config.num_hidden_layers }, () => new ViTLayer(config)),
    );
    this.layernorm = new nn.LayerNorm(config.hidden_size, { eps: config.layer_norm_eps });
    this.pooler = add_pooling_layer ? new ViTPooler(config) : null;
    this.post_init();
  }

  override forward(inputs: ViTMaskedInputs): BaseModelOutputWithPooling {
    this.check_inputs(inputs);
    const { dtype } = this.embeddings.patch_embeddings.projection.weight;
    const embedded = this.embeddings.forward(inputs.pixel_values.to(dtype), inputs); // [batch, length, hidden]
    const layerInputs: AttentionInputs = {
      attention_mask: create_bidirectional_mask({
        config: this.config,
        inputs_embeds: embedded,
        attention_mask: inputs.attention_mask,
      }),
      attentions: this.wants_attentions(inputs) ? [] : undefined,
    };

    const hidden_states: Tensor[] | undefined = this.wants_hidden_states(inputs) ? [embedded] : undefined;
    let h = embedded;
    for (const layer of this.layers) {
      h = layer.forward(h, layerInputs);
      hidden_states?.push(h);
    }
    h = this.layernorm.forward(h);
    return new BaseModelOutputWithPooling({
      last_hidden_state: h,
      pooler_output: this.pooler?.forward(h),
      hidden_states,
      attentions: layerInputs.attentions,
    });
  }
}

/** ViT that fills hidden patches (SimMIM, arXiv 2111.09886). */
export class ViTForMaskedImageModeling extends ViTPreTrainedModel {
  static override readonly forward_inputs: readonly string[] = [...VIT_INPUTS, "bool_masked_pos"];

  vit: ViTModel;
  decoder: nn.Sequential;

  constructor(config: ViTConfig) {
    super(config);
    this.vit = new ViTModel(config, { add_pooling_layer: false, use_mask_token: true });
    this.decoder = new nn.Sequential(
      new nn.Conv2d(config.hidden_size, config.encoder_stride ** 2 * config.num_channels, 1),
      new nn.PixelShuffle(config.encoder_stride),
    );
    this.post_init();
  }

  /** Images as the model makes them of the patches that it sees; with `bool_masked_pos` the mean error over the hidden ones. */
  override forward(inputs: ViTMaskedInputs): MaskedImageModelingOutput {
    this.check_inputs(inputs);
    const { patch_size, encoder_stride, num_channels, image_size } = this.config;
    const { pixel_values, bool_masked_pos } = inputs;
    if (bool_masked_pos && patch_size !== encoder_stride) {
      throw new InvalidArgumentError(
        `With bool_masked_pos, config.patch_size (${patch_size}) and config.encoder_stride (${encoder_stride}) must be equal.`,
        { hint: "Else the reconstruction has another size than the image." },
      );
    }
    const { last_hidden_state, hidden_states, attentions } = this.vit.forward(inputs);
    const [batch, length, channels] = last_hidden_state.shape as [number, number, number];
    const side = Math.floor(Math.sqrt(length - 1));
    const grid = last_hidden_state
      .narrow(1, 1, length - 1)
      .permute([0, 2, 1])
      .reshape([batch, channels, side, side]);
    const reconstruction = this.decoder.forward(grid); // [batch, channels, height, width]

    let loss: Tensor | undefined;
    if (bool_masked_pos) {
      const patch = patch_size as number;
      const patches = Math.floor(pair(image_size)[0] / patch);
      const mask = bool_masked_pos
        .reshape([-1, patches, patches])
        .repeat_interleave(patch, 1)
        .repeat_interleave(patch, 2)
        .unsqueeze(1);
      const error = F.l1_loss(pixel_values, reconstruction, { reduction: "none" });
      loss = error.mul(mask).sum().div(mask.sum().add(1e-5)).div(num_channels);
    }
    return new MaskedImageModelingOutput({ loss, reconstruction, hidden_states, attentions });
  }
}

/** What the classifier takes beside the image. */
export interface ViTForImageClassificationInputs extends ViTInputs, LossOptions {
  /** Class indices [batch], class indicators [batch, labels], or numbers for regression. */
  labels?: Tensor | null | undefined;
}

/** ViT with a score per label, from the [CLS] token. */
export class ViTForImageClassification extends ViTPreTrainedModel {
  static override readonly forward_inputs: readonly string[] = [
    ...VIT_INPUTS,
    "labels",
    "num_items_in_batch",
    "ignore_index",
  ];

  readonly num_labels: number;
  vit: ViTModel;
  classifier: nn.Layer;

  constructor(config: ViTConfig) {
    super(config);
    this.num_labels = config.num_labels ?? 0;
    this.vit = new ViTModel(config, { add_pooling_layer: false });
    this.classifier =
      this.num_labels > 0 ? new nn.Linear(config.hidden_size, this.num_labels) : new nn.Identity();
    this.post_init();
  }

  /**
   * Scores of the labels, and the loss when `labels` are given.
   *
   * @example
   * const { logits, loss } = model.forward({ pixel_values, labels });
   */
  override forward(inputs: ViTForImageClassificationInputs): ImageClassifierOutput {
    this.check_inputs(inputs);
    const { labels, num_items_in_batch, ignore_index, ...rest } = inputs;
    const { last_hidden_state, hidden_states, attentions } = this.vit.forward(rest);
    const logits = this.classifier.forward(last_hidden_state.select(1, 0));
    const loss = labels
      ? ForSequenceClassificationLoss(logits, labels, this.config, { num_items_in_batch, ignore_index })
      : undefined;
    return new ImageClassifierOutput({ loss, logits, hidden_states, attentions });
  }
}

// Checkpoints from before version 5 have other names for the parts of a layer.
register_checkpoint_conversion_mapping("ViTModel", [
  new WeightRenaming("encoder\\.layer\\.", "layers."),
  new WeightRenaming("attention.query", "q_proj"),
  new WeightRenaming("attention.key", "k_proj"),
  new WeightRenaming("attention.value", "v_proj"),
  new WeightRenaming("attention.output.dense", "attention.o_proj"),
  new WeightRenaming("intermediate.dense", "mlp.fc1"),
  new WeightRenaming("output.dense", "mlp.fc2"),
]);
