// SAM: masks of what points, boxes and masks show in an image. An image encoder with windows and relative positions, an
// encoder of prompts, and a small decoder in which prompts and image attend to each other. Paper: arXiv 2304.02643.
// Over 500 lines because it is three models, which checkpoints and configurations treat as one.
import { ConfigError, InvalidArgumentError } from "../../errors/index.ts";
import { ACT2FN, type Activation } from "../../modeling/activations.ts";
import { type AttentionInputs, attention } from "../../modeling/attention.ts";
import * as init from "../../modeling/initialization.ts";
import { GradientCheckpointingLayer } from "../../modeling/modeling_layers.ts";
import { defineOutput } from "../../modeling/modeling_outputs.ts";
import { PreTrainedModel } from "../../modeling/modeling_utils.ts";
import * as nn from "../../nn/index.ts";
import type { Tensor } from "../../torch/index.ts";
import * as torch from "../../torch/index.ts";
import {
  SamConfig,
  type SamMaskDecoderConfig,
  type SamPromptEncoderConfig,
  SamVisionConfig,
} from "./configuration_sam.ts";

const F = nn.functional;

type Optional<T> = T | null | undefined;

/** What the image encoder gives: image embeddings [batch, channels, height, width], and what was asked for besides. */
export class SamVisionEncoderOutput extends defineOutput<{
  last_hidden_state: Tensor;
  image_embeds?: Tensor | undefined;
  /** Each [batch, height, width, hidden]. */
  hidden_states?: readonly Tensor[] | undefined;
  /** Of each layer, [batch · windows · heads, patches, patches]. */
  attentions?: readonly Tensor[] | undefined;
}>("image_embeds", "last_hidden_state", "hidden_states", "attentions") {}

/** What SAM gives: masks of low resolution for each prompt, and how good it takes them to be. */
export class SamImageSegmentationOutput extends defineOutput<{
  /** [batch, prompts, masks] */
  iou_scores: Tensor;
  /** Scores [batch, prompts, masks, height, width]; above 0 is inside. */
  pred_masks: Tensor;
  vision_hidden_states?: readonly Tensor[] | undefined;
  vision_attentions?: readonly Tensor[] | undefined;
  mask_decoder_attentions?: readonly Tensor[] | undefined;
}>("iou_scores", "pred_masks", "vision_hidden_states", "vision_attentions", "mask_decoder_attentions") {}

// Shared parts -----------------------------------------------------------------------------------------------------

/** Cuts images into patches: [batch, channels, height, width] → [batch, rows, columns, hidden]. */
export class SamPatchEmbeddings extends nn.Module {
  readonly image_size: number;
  readonly num_channels: number;
  projection: nn.Conv2d;

  constructor({ image_size, patch_size, num_channels, hidden_size }: SamVisionConfig) {
    super();
    this.image_size = image_size;
    this.num_channels = num_channels;
    this.projection = new nn.Conv2d(num_channels, hidden_size, patch_size, { stride: patch_size });
  }

  override forward(pixel_values: Tensor): Tensor {
    const [, channels, height, width] = pixel_values.shape;
    if (channels !== this.num_channels) {
      throw new InvalidArgumentError(
        `pixel_values have ${channels} channels, but config.num_channels is ${this.num_channels}.`,
      );
    }
    if (height !== this.image_size || width !== this.image_size) {
      throw new InvalidArgumentError(
        `pixel_values are ${height} × ${width} images; the model takes ${this.image_size} × ${this.image_size}.`,
        { hint: "Resize the longer side and pad the rest, as the image processor does." },
      );
    }
    return this.projection.forward(pixel_values).permute([0, 2, 3, 1]);
  }
}

/** Feed-forward: lin2(act(lin1(x))). */
export class SamMLPBlock extends nn.Module {
  lin1: nn.Linear;
  lin2: nn.Linear;
  act: Activation;

  constructor({
    hidden_size,
    mlp_dim,
    hidden_act,
  }: Pick<SamMaskDecoderConfig, "hidden_size" | "mlp_dim" | "hidden_act">) {
    super();
    this.lin1 = new nn.Linear(hidden_size, mlp_dim);
    this.lin2 = new nn.Linear(mlp_dim, hidden_size);
    this.act = ACT2FN(hidden_act);
  }

  override forward(x: Tensor): Tensor {
    return this.lin2.forward(this.act.forward(this.lin1.forward(x)));
  }
}

/** Layer norm over channels, wherever these stand. */
export class SamLayerNorm extends nn.LayerNorm {
  readonly data_format: "channels_last" | "channels_first";

  constructor(
    channels: number,
    {
      eps = 1e-6,
      data_format = "channels_last",
    }: { eps?: number; data_format?: "channels_last" | "channels_first" } = {},
  ) {
    super(channels, { eps });
    this.data_format = data_format;
  }

  override forward(x: Tensor): Tensor {
    if (this.data_format === "channels_last") return super.forward(x);
    return super.forward(x.permute([0, 2, 3, 1])).permute([0, 3, 1, 2]);
  }
}

/** Positions of points, by sines and cosines of random directions; the frequencies are part of the checkpoint. */
export class SamPositionalEmbedding extends nn.Module {
  readonly scale: number;
  positional_embedding: nn.Parameter;

  constructor({ scale, num_pos_feats }: SamVisionConfig) {
    super();
    this.scale = scale;
    this.positional_embedding = new nn.Parameter(torch.randn([2, num_pos_feats]).mul(scale));
  }

  /** Coordinates […, 2] as shares of the image, or as pixels of an image of `input_shape` → […, 2 · num_pos_feats]. */
  override forward(coordinates: Tensor, input_shape?: readonly [height: number, width: number]): Tensor {
    let shares = coordinates;
    if (input_shape !== undefined) {
      const [height, width] = input_shape;
      shares = torch.stack([coordinates.select(-1, 0).div(width), coordinates.select(-1, 1).div(height)], -1);
    }
    const centred = shares.mul(2).sub(1).to(this.positional_embedding.dtype);
    const angles = torch.matmul(centred, this.positional_embedding).mul(2 * Math.PI);
    return torch.cat([angles.sin(), angles.cos()], -1);
  }
}

// Mask decoder -----------------------------------------------------------------------------------------------------

/** Attention between two sequences per prompt, [batch, prompts, tokens, hidden], in a space that may be narrower. */
export class SamAttention extends nn.Module {
  readonly config: SamMaskDecoderConfig;
  readonly internal_dim: number;
  readonly num_attention_heads: number;
  readonly scaling: number;
  readonly is_causal: boolean;
  q_proj: nn.Linear;
  k_proj: nn.Linear;
  v_proj: nn.Linear;
  out_proj: nn.Linear;

  constructor(config: SamMaskDecoderConfig, { downsample_rate = config.attention_downsample_rate } = {}) {
    super();
    const { hidden_size, num_attention_heads } = config;
    this.config = config;
    this.internal_dim = Math.floor(hidden_size / downsample_rate);
    this.num_attention_heads = num_attention_heads;
    if (this.internal_dim % num_attention_heads !== 0) {
      throw new ConfigError(
        `num_attention_heads (${num_attention_heads}) must divide hidden_size / downsample_rate (${this.internal_dim}).`,
      );
    }
    this.scaling = (this.internal_dim / num_attention_heads) ** -0.5;
    this.is_causal = false;
    this.q_proj = new nn.Linear(hidden_size, this.internal_dim);
    this.k_proj = new nn.Linear(hidden_size, this.internal_dim);
    this.v_proj = new nn.Linear(hidden_size, this.internal_dim);
    this.out_proj = new nn.Linear(this.internal_dim, hidden_size);
  }

  override forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    { attention_similarity }: { attention_similarity?: Optional<Tensor> } = {},
  ): Tensor {
    const [batch, prompts] = query.shape as [number, number];
    const heads = (h: Tensor) => {
      const [groups, perGroup, tokens] = h.shape as [number, number, number];
      return h.reshape([groups * perGroup, tokens, this.num_attention_heads, -1]).transpose(1, 2); // [·, heads, tokens, head_dim]
    };
    const q = heads(this.q_proj.forward(query));
    const k = heads(this.k_proj.forward(key));
    const v = heads(this.v_proj.forward(value));
    const inputs = { attention_mask: attention_similarity ?? undefined };
    const out = attention(this, q, k, v, inputs, { dropout: 0, scaling: this.scaling, is_causal: false });
    return this.out_proj.forward(out.reshape([batch, prompts, -1, this.internal_dim]));
  }
}

interface TwoWayInputs {
  readonly query_point_embedding: Tensor;
  readonly key_point_embedding: Tensor;
  readonly attention_similarity?: Optional<Tensor>;
}

/** Tokens attend to themselves and to the image, pass a feed-forward, and the image attends to them. */
export class SamTwoWayAttentionBlock extends nn.Module {
  self_attn: SamAttention;
  layer_norm1: nn.LayerNorm;
  cross_attn_token_to_image: SamAttention;
  layer_norm2: nn.LayerNorm;
  mlp: SamMLPBlock;
  layer_norm3: nn.LayerNorm;
  layer_norm4: nn.LayerNorm;
  cross_attn_image_to_token: SamAttention;
  readonly skip_first_layer_pe: boolean;

  constructor(
    config: SamMaskDecoderConfig,
    { attention_downsample_rate: downsample_rate = 2, skip_first_layer_pe = false } = {},
  ) {
    super();
    const { hidden_size, layer_norm_eps: eps } = config;
    this.self_attn = new SamAttention(config, { downsample_rate: 1 });
    this.layer_norm1 = new nn.LayerNorm(hidden_size, { eps });
    this.cross_attn_token_to_image = new SamAttention(config, { downsample_rate });
    this.layer_norm2 = new nn.LayerNorm(hidden_size, { eps });
    this.mlp = new SamMLPBlock(config);
    this.layer_norm3 = new nn.LayerNorm(hidden_size, { eps });
    this.layer_norm4 = new nn.LayerNorm(hidden_size, { eps });
    this.cross_attn_image_to_token = new SamAttention(config, { downsample_rate });
    this.skip_first_layer_pe = skip_first_layer_pe;
  }

  /** Tokens, image, and what the image took from the tokens. */
  override forward(
    tokens: Tensor,
    image: Tensor,
    { query_point_embedding, key_point_embedding, attention_similarity }: TwoWayInputs,
  ): [queries: Tensor, keys: Tensor, attended: Tensor] {
    let queries = tokens;
    if (this.skip_first_layer_pe) {
      queries = this.self_attn.forward(queries, queries, queries);
    } else {
      const query = queries.add(query_point_embedding);
      queries = queries.add(this.self_attn.forward(query, query, queries));
    }
    queries = this.layer_norm1.forward(queries);

    const key = image.add(key_point_embedding);
    const seen = this.cross_attn_token_to_image.forward(queries.add(query_point_embedding), key, image, {
      attention_similarity,
    });
    queries = this.layer_norm2.forward(queries.add(seen));
    queries = this.layer_norm3.forward(queries.add(this.mlp.forward(queries)));

    const attended = this.cross_attn_image_to_token.forward(key, queries.add(query_point_embedding), queries);
    return [queries, this.layer_norm4.forward(image.add(attended)), attended];
  }
}

interface DecoderTraces {
  /** Where blocks put what the image took from the tokens, when it was asked for. */
  readonly attentions?: Tensor[] | undefined;
  readonly attention_similarity?: Optional<Tensor>;
  readonly target_embedding?: Optional<Tensor>;
}

/** Blocks in which tokens and image attend to each other. */
export class SamTwoWayTransformer extends nn.Module {
  layers: nn.ModuleList<SamTwoWayAttentionBlock>;
  final_attn_token_to_image: SamAttention;
  layer_norm_final_attn: nn.LayerNorm;

  constructor(config: SamMaskDecoderConfig) {
    super();
    this.layers = new nn.ModuleList(
      Array.from(
        { length: config.num_hidden_layers },
        (_, i) => new SamTwoWayAttentionBlock(config, { skip_first_layer_pe: i === 0 }),
      ),
    );
    this.final_attn_token_to_image = new SamAttention(config);
    this.layer_norm_final_attn = new nn.LayerNorm(config.hidden_size);
  }

  /** Tokens [batch, prompts, tokens, hidden], image and its positions [batch, hidden, rows, columns]. */
  override forward(
    tokens: Tensor,
    image_embeddings: Tensor,
    image_positional_embeddings: Tensor,
    { attention_similarity, target_embedding, attentions }: DecoderTraces = {},
  ): [queries: Tensor, keys: Tensor] {
    const sequence = (grid: Tensor) => grid.flatten(2).transpose(1, 2).unsqueeze(1); // [batch, 1, patches, hidden]
    const key_point_embedding = sequence(image_positional_embeddings);
    let keys = sequence(image_embeddings);
    let queries = tokens;
    let query_point_embedding = tokens;
    for (const [i, layer] of this.layers.entries()) {
      if (target_embedding) {
        queries = queries.add(target_embedding);
        // The reference adds in place, and the first layer's queries are the prompt's positions too.
        if (i === 0) query_point_embedding = queries;
      }
      const inputs = { query_point_embedding, key_point_embedding, attention_similarity };
      const [nextQueries, nextKeys, attended] = layer.forward(queries, keys, inputs);
      [queries, keys] = [nextQueries, nextKeys];
      attentions?.push(attended);
    }
    const attended = this.final_attn_token_to_image.forward(
      queries.add(query_point_embedding),
      keys.add(key_point_embedding),
      keys,
    );
    return [this.layer_norm_final_attn.forward(queries.add(attended)), keys];
  }
}

/** Linear layers with ReLU between them. */
export class SamFeedForward extends nn.Module {
  activation: nn.ReLU;
  proj_in: nn.Linear;
  proj_out: nn.Linear;
  layers: nn.ModuleList<nn.Linear>;
  readonly sigmoid_output: boolean;

  constructor(
    input_dim: number,
    hidden_dim: number,
    output_dim: number,
    num_layers: number,
    { sigmoid_output = false } = {},
  ) {
    super();
    this.activation = new nn.ReLU();
    this.proj_in = new nn.Linear(input_dim, hidden_dim);
    this.proj_out = new nn.Linear(hidden_dim, output_dim);
    this.layers = new nn.ModuleList(
      Array.from({ length: Math.max(0, num_layers - 2) }, () => new nn.Linear(hidden_dim, hidden_dim)),
    );
    this.sigmoid_output = sigmoid_output;
  }

  override forward(x: Tensor): Tensor {
    let h = this.activation.forward(this.proj_in.forward(x));
    for (const layer of this.layers) h = this.activation.forward(layer.forward(h));
    h = this.proj_out.forward(h);
    return this.sigmoid_output ? h.sigmoid() : h;
  }
}

/** What the mask decoder takes. */
export interface SamMaskDecoderInputs extends DecoderTraces {
  /** [batch, hidden, rows, columns] */
  readonly image_embeddings: Tensor;
  /** Of the same shape. */
  readonly image_positional_embeddings: Tensor;
  /** Points and boxes [batch, prompts, tokens, hidden]. */
  readonly sparse_prompt_embeddings?: Optional<Tensor>;
  /** Masks [batch or 1, hidden, rows, columns]. */
  readonly dense_prompt_embeddings: Tensor;
  /** All masks but the first, or the first alone. */
  readonly multimask_output: boolean;
}

/** Masks and their ratings, from a token each that has attended to prompts and image. */
export class SamMaskDecoder extends nn.Module {
  readonly config: SamMaskDecoderConfig;
  readonly num_mask_tokens: number;
  iou_token: nn.Embedding;
  mask_tokens: nn.Embedding;
  transformer: SamTwoWayTransformer;
  upscale_conv1: nn.ConvTranspose2d;
  upscale_conv2: nn.ConvTranspose2d;
  upscale_layer_norm: SamLayerNorm;
  activation: nn.GELU;
  output_hypernetworks_mlps: nn.ModuleList<SamFeedForward>;
  iou_prediction_head: SamFeedForward;

  constructor(config: SamMaskDecoderConfig) {
    super();
    const { hidden_size: hidden, iou_head_hidden_dim, iou_head_depth } = config;
    const [quarter, eighth] = [Math.floor(hidden / 4), Math.floor(hidden / 8)];
    this.config = config;
    this.num_mask_tokens = config.num_multimask_outputs + 1;
    this.iou_token = new nn.Embedding(1, hidden);
    this.mask_tokens = new nn.Embedding(this.num_mask_tokens, hidden);
    this.transformer = new SamTwoWayTransformer(config);
    this.upscale_conv1 = new nn.ConvTranspose2d(hidden, quarter, 2, { stride: 2 });
    this.upscale_conv2 = new nn.ConvTranspose2d(quarter, eighth, 2, { stride: 2 });
    this.upscale_layer_norm = new SamLayerNorm(quarter, { data_format: "channels_first" });
    this.activation = new nn.GELU();
    this.output_hypernetworks_mlps = new nn.ModuleList(
      Array.from({ length: this.num_mask_tokens }, () => new SamFeedForward(hidden, hidden, eighth, 3)),
    );
    this.iou_prediction_head = new SamFeedForward(
      hidden,
      iou_head_hidden_dim,
      this.num_mask_tokens,
      iou_head_depth,
    );
  }

  /** Masks [batch, prompts, masks, 4 · rows, 4 · columns] and their ratings [batch, prompts, masks]. */
  override forward(inputs: SamMaskDecoderInputs): [masks: Tensor, iou_pred: Tensor] {
    const { sparse_prompt_embeddings: sparse, multimask_output, ...traces } = inputs;
    const [batch, channels, height, width] = inputs.image_embeddings.shape as [
      number,
      number,
      number,
      number,
    ];
    const prompts = sparse?.shape[1] ?? 1;
    const own = torch
      .cat([this.iou_token.weight, this.mask_tokens.weight], 0)
      .expand([batch, prompts, -1, -1]);
    const tokens = (sparse ? torch.cat([own, sparse], 2) : own).to(this.iou_token.weight.dtype);

    const perPrompt = (grid: Tensor) => grid.repeat_interleave(prompts, 0);
    const [queries, keys] = this.transformer.forward(
      tokens,
      perPrompt(inputs.image_embeddings.add(inputs.dense_prompt_embeddings)),
      perPrompt(inputs.image_positional_embeddings),
      traces,
    );

    const grid = keys.transpose(2, 3).reshape([batch * prompts, channels, height, width]);
    const larger = this.activation.forward(this.upscale_layer_norm.forward(this.upscale_conv1.forward(grid)));
    const upscaled = this.activation.forward(this.upscale_conv2.forward(larger));
    const [, depth, rows, columns] = upscaled.shape as [number, number, number, number];
    const weights = this.output_hypernetworks_mlps.map((mlp, i) => mlp.forward(queries.select(2, 1 + i)));
    const masks = torch
      .matmul(torch.stack(weights, 2), upscaled.reshape([batch, prompts, depth, rows * columns]))
      .reshape([batch, prompts, -1, rows, columns]);
    const iou = this.iou_prediction_head.forward(queries.select(2, 0));

    const [first, count] = multimask_output ? [1, this.num_mask_tokens - 1] : [0, 1];
    return [masks.narrow(2, first, count), iou.narrow(2, first, count)];
  }
}

// Prompt encoder ---------------------------------------------------------------------------------------------------

/** Brings mask prompts [batch, 1, 4 · rows, 4 · columns] to the image embeddings' shape. */
export class SamMaskEmbedding extends nn.Module {
  activation: Activation;
  conv1: nn.Conv2d;
  conv2: nn.Conv2d;
  conv3: nn.Conv2d;
  layer_norm1: SamLayerNorm;
  layer_norm2: SamLayerNorm;

  constructor(config: SamPromptEncoderConfig) {
    super();
    const { mask_input_channels: channels, hidden_size, hidden_act, layer_norm_eps: eps } = config;
    const quarter = Math.floor(channels / 4);
    this.activation = ACT2FN(hidden_act);
    this.conv1 = new nn.Conv2d(1, quarter, 2, { stride: 2 });
    this.conv2 = new nn.Conv2d(quarter, channels, 2, { stride: 2 });
    this.conv3 = new nn.Conv2d(channels, hidden_size, 1);
    this.layer_norm1 = new SamLayerNorm(quarter, { eps, data_format: "channels_first" });
    this.layer_norm2 = new SamLayerNorm(quarter * 4, { eps, data_format: "channels_first" });
  }

  override forward(masks: Tensor): Tensor {
    let h = this.activation.forward(this.layer_norm1.forward(this.conv1.forward(masks)));
    h = this.activation.forward(this.layer_norm2.forward(this.conv2.forward(h)));
    return this.conv3.forward(h);
  }
}

/** Prompts, all of which may be absent. */
export interface SamPrompts {
  /** Pixels (x, y) in the resized image [batch, prompts, points, 2]. */
  input_points?: Optional<Tensor>;
  /** [batch, prompts, points]: 1 inside, 0 outside, -1 no point, -10 padding. Default: all inside. */
  input_labels?: Optional<Tensor>;
  /** Two corners (x, y, x, y) [batch, boxes, 4]. */
  input_boxes?: Optional<Tensor>;
  /** Masks of low resolution [batch, 1, 4 · rows, 4 · columns]. */
  input_masks?: Optional<Tensor>;
}

/** Embeddings of points and boxes (sparse) and of masks (dense). */
export class SamPromptEncoder extends nn.Module {
  shared_embedding: SamPositionalEmbedding;
  mask_embed: SamMaskEmbedding;
  no_mask_embed: nn.Embedding;
  readonly image_embedding_size: readonly [height: number, width: number];
  readonly input_image_size: number;
  point_embed: nn.ModuleList<nn.Embedding>;
  readonly hidden_size: number;
  not_a_point_embed: nn.Embedding;

  constructor({ vision_config, prompt_encoder_config: config }: SamConfig) {
    super();
    const { hidden_size, image_embedding_size: side } = config;
    this.shared_embedding = new SamPositionalEmbedding(vision_config);
    this.mask_embed = new SamMaskEmbedding(config);
    this.no_mask_embed = new nn.Embedding(1, hidden_size);
    this.image_embedding_size = [side, side];
    this.input_image_size = config.image_size;
    this.point_embed = new nn.ModuleList(
      Array.from({ length: config.num_point_embeddings }, () => new nn.Embedding(1, hidden_size)),
    );
    this.hidden_size = hidden_size;
    this.not_a_point_embed = new nn.Embedding(1, hidden_size);
  }

  /** With `pad`, a point that is none is added: the checkpoints saw one wherever there was no box. */
  _embed_points(given_points: Tensor, given_labels: Tensor, { pad }: { pad: boolean }): Tensor {
    let points = given_points.add(0.5); // the centre of the pixel
    let labels = given_labels;
    if (pad) {
      const [batch, prompts, , coordinates] = points.shape as [number, number, number, number];
      const none = torch.zeros([batch, prompts, 1, coordinates], { device: points.device });
      const { dtype, device } = labels;
      points = torch.cat([points, none], 2);
      labels = torch.cat([labels, torch.full([batch, prompts, 1], -1, { dtype, device })], 2);
    }
    const kind = (label: number) => labels.eq(label).unsqueeze(-1);
    let h = this.shared_embedding.forward(points, [this.input_image_size, this.input_image_size]);
    h = torch.where(kind(-1), this.not_a_point_embed.weight, h);
    h = torch.where(kind(-10), torch.zeros_like(h), h);
    h = torch.where(kind(0), h.add(this.#corner(0)), h);
    return torch.where(kind(1), h.add(this.#corner(1)), h); // [batch, prompts, points, hidden]
  }

  _embed_boxes(boxes: Tensor): Tensor {
    const [batch, count] = boxes.shape as [number, number];
    const corners = boxes.add(0.5).reshape([batch, count, 2, 2]);
    const size = this.input_image_size;
    const h = this.shared_embedding.forward(corners, [size, size]);
    return h.add(torch.cat([this.#corner(2), this.#corner(3)], 0)); // [batch, boxes, 2, hidden]
  }

  #corner(index: number): Tensor {
    return this.point_embed.at(index).weight;
  }

  override forward(prompts: SamPrompts): [sparse: Tensor | undefined, dense: Tensor] {
    const { input_points, input_labels, input_boxes, input_masks } = prompts;
    const sparse: Tensor[] = [];
    if (input_points) {
      if (!input_labels) throw new InvalidArgumentError("input_points need input_labels.");
      sparse.push(this._embed_points(input_points, input_labels, { pad: !input_boxes }));
    }
    if (input_boxes) sparse.push(this._embed_boxes(input_boxes));
    const batch = (input_boxes ?? input_points)?.shape[0] ?? 1;
    const dense = input_masks
      ? this.mask_embed.forward(input_masks)
      : this.no_mask_embed.weight.reshape([1, -1, 1, 1]).expand([batch, -1, ...this.image_embedding_size]);
    return [sparse.length > 1 ? torch.cat(sparse, 2) : sparse[0], dense];
  }
}

// Image encoder ----------------------------------------------------------------------------------------------------

/** Attention of patches to patches, with scores that depend on how far apart they are. */
export class SamVisionAttention extends nn.Module {
  readonly config: SamVisionConfig;
  readonly num_attention_heads: number;
  readonly scale: number;
  readonly dropout: number;
  readonly is_causal: boolean;
  qkv: nn.Linear;
  proj: nn.Linear;
  readonly use_rel_pos: boolean;
  declare readonly rel_pos_h?: nn.Parameter;
  declare readonly rel_pos_w?: nn.Parameter;

  /** @param window_size side of the windows that come as images of their own; 0: whole images come. */
  constructor(config: SamVisionConfig, window_size: number) {
    super();
    const { hidden_size, num_attention_heads, image_size, patch_size } = config;
    const side = window_size === 0 ? Math.floor(image_size / patch_size) : window_size;
    const head_dim = Math.floor(hidden_size / num_attention_heads);
    this.config = config;
    this.num_attention_heads = num_attention_heads;
    this.scale = head_dim ** -0.5;
    this.dropout = config.attention_dropout;
    this.is_causal = false;
    this.qkv = new nn.Linear(hidden_size, hidden_size * 3, { bias: config.qkv_bias });
    this.proj = new nn.Linear(hidden_size, hidden_size);
    this.use_rel_pos = config.use_rel_pos;
    if (this.use_rel_pos) {
      const distances = () => new nn.Parameter(torch.zeros([2 * side - 1, head_dim]));
      this.rel_pos_h = distances();
      this.rel_pos_w = distances();
    }
  }

  /** The vectors of all distances between queries and keys, [queries, keys, head_dim], resized where there are more. */
  get_rel_pos(q_size: number, k_size: number, rel_pos: Tensor): Tensor {
    const distances = 2 * Math.max(q_size, k_size) - 1;
    const [known, dim] = rel_pos.shape as [number, number];
    const resized =
      known === distances
        ? rel_pos
        : F.interpolate(rel_pos.reshape([1, known, dim]).transpose(1, 2), { size: distances, mode: "linear" })
            .reshape([dim, distances])
            .permute([1, 0]);
    const [q_scale, k_scale] = [Math.max(k_size / q_size, 1), Math.max(q_size / k_size, 1)];
    const positions = (size: number, scale: number) =>
      torch.arange(size, { device: rel_pos.device }).mul(torch.float(scale));
    const relative = positions(q_size, q_scale)
      .unsqueeze(1)
      .sub(positions(k_size, k_scale))
      .add((k_size - 1) * k_scale)
      .to("int64");
    return resized.index(relative);
  }

  /**
   * What to add to the scores for where patches stand: a part for rows and one for columns.
   *
   * @param query [batch · heads, patches, head_dim]
   * @returns [batch · heads, rows, columns, rows, columns]
   */
  get_decomposed_rel_pos(
    query: Tensor,
    rel_pos_h: Tensor,
    rel_pos_w: Tensor,
    [query_height, query_width]: readonly [number, number],
    [key_height, key_width]: readonly [number, number],
  ): Tensor {
    const [batch, , dim] = query.shape as [number, number, number];
    const grid = query.reshape([batch, query_height, query_width, dim]);
    const rows = this.get_rel_pos(query_height, key_height, rel_pos_h);
    const columns = this.get_rel_pos(query_width, key_width, rel_pos_w);
    const rel_h = torch.einsum("bhwc,hkc->bhwk", grid, rows);
    const rel_w = torch.einsum("bhwc,wkc->bhwk", grid, columns);
    return rel_h.unsqueeze(-1).add(rel_w.unsqueeze(-2));
  }

  #positions(query: Tensor, size: readonly [number, number]): Tensor | undefined {
    if (!this.rel_pos_h || !this.rel_pos_w) return undefined;
    return this.get_decomposed_rel_pos(query, this.rel_pos_h, this.rel_pos_w, size, size);
  }

  /** Step by step. Unlike the shared kernel it returns weights from before dropout, and the fused one drops nothing out. */
  #attend(q: Tensor, k: Tensor, v: Tensor, { attention_mask, attentions }: AttentionInputs): Tensor {
    let scores = torch.matmul(q.mul(this.scale), k.transpose(-2, -1));
    if (attention_mask) scores = scores.add(attention_mask);
    const weights = scores.softmax(-1, { dtype: "float32" }).to(q.dtype);
    attentions?.push(weights.flatten(0, 1));
    const kept = F.dropout(weights, { p: this.dropout, training: this.training });
    return torch.matmul(kept, v).transpose(1, 2);
  }

  /** @param x [batch, rows, columns, hidden], windows as images of their own. */
  override forward(x: Tensor, { attentions }: AttentionInputs = {}): Tensor {
    const [batch, height, width] = x.shape as [number, number, number];
    const [heads, patches] = [this.num_attention_heads, height * width];
    const [q, k, v] = this.qkv
      .forward(x)
      .reshape([batch, patches, 3, heads, -1])
      .permute([2, 0, 3, 1, 4])
      .unbind(0) as [Tensor, Tensor, Tensor]; // [batch, heads, patches, head_dim]
    const attention_mask = this.#positions(q.flatten(0, 1), [height, width])?.reshape([
      batch,
      heads,
      patches,
      patches,
    ]);
    const inputs = { attention_mask };
    const out =
      this.config._attn_implementation === "eager"
        ? this.#attend(q, k, v, { ...inputs, attentions })
        : attention(this, q, k, v, inputs, { scaling: this.scale, is_causal: false });
    return this.proj.forward(out.reshape([batch, height, width, -1]));
  }
}

/** Pre-norm layer over patches; with a window size, attention stays within windows. */
export class SamVisionLayer extends GradientCheckpointingLayer {
  layer_norm1: nn.LayerNorm;
  attn: SamVisionAttention;
  layer_norm2: nn.LayerNorm;
  mlp: SamMLPBlock;
  readonly window_size: number;

  constructor(config: SamVisionConfig, window_size: number) {
    super();
    this.layer_norm1 = new nn.LayerNorm(config.hidden_size, { eps: config.layer_norm_eps });
    this.attn = new SamVisionAttention(config, window_size);
    this.layer_norm2 = new nn.LayerNorm(config.hidden_size, { eps: config.layer_norm_eps });
    this.mlp = new SamMLPBlock(config);
    this.window_size = window_size;
  }

  /** [batch, rows, columns, hidden], filled up with zeros → [batch · windows, window, window, hidden]. */
  window_partition(x: Tensor, size: number): [windows: Tensor, padded: readonly [number, number]] {
    const [batch, height, width, hidden] = x.shape as [number, number, number, number];
    const [right, bottom] = [(size - (width % size)) % size, (size - (height % size)) % size];
    const [rows, columns] = [height + bottom, width + right];
    const windows = F.pad(x, [0, 0, 0, right, 0, bottom])
      .reshape([batch, rows / size, size, columns / size, size, hidden])
      .permute([0, 1, 3, 2, 4, 5])
      .reshape([-1, size, size, hidden]);
    return [windows, [rows, columns]];
  }

  /** Undoes {@link window_partition}. */
  window_unpartition(
    windows: Tensor,
    size: number,
    [rows, columns]: readonly [number, number],
    [height, width]: readonly [number, number],
  ): Tensor {
    return windows
      .reshape([-1, rows / size, columns / size, size, size, windows.shape[3] as number])
      .permute([0, 1, 3, 2, 4, 5])
      .reshape([-1, rows, columns, windows.shape[3] as number])
      .narrow(1, 0, height)
      .narrow(2, 0, width)
      .contiguous();
  }

  override forward(x: Tensor, inputs: AttentionInputs = {}): Tensor {
    const [, height, width] = x.shape as [number, number, number];
    const normed = this.layer_norm1.forward(x);
    let attended: Tensor;
    if (this.window_size > 0) {
      const [windows, padded] = this.window_partition(normed, this.window_size);
      const out = this.attn.forward(windows, inputs);
      attended = this.window_unpartition(out, this.window_size, padded, [height, width]);
    } else {
      attended = this.attn.forward(normed, inputs);
    }
    const h = x.add(attended); // [batch, rows, columns, hidden]
    return h.add(this.mlp.forward(this.layer_norm2.forward(h)));
  }
}

/** Brings patches to the image embeddings' channels: [batch, rows, columns, hidden] → [batch, channels, rows, columns]. */
export class SamVisionNeck extends nn.Module {
  conv1: nn.Conv2d;
  layer_norm1: SamLayerNorm;
  conv2: nn.Conv2d;
  layer_norm2: SamLayerNorm;

  constructor({ hidden_size, output_channels }: SamVisionConfig) {
    super();
    this.conv1 = new nn.Conv2d(hidden_size, output_channels, 1, { bias: false });
    this.layer_norm1 = new SamLayerNorm(output_channels, { data_format: "channels_first" });
    this.conv2 = new nn.Conv2d(output_channels, output_channels, 3, { padding: 1, bias: false });
    this.layer_norm2 = new SamLayerNorm(output_channels, { data_format: "channels_first" });
  }

  override forward(x: Tensor): Tensor {
    const h = this.layer_norm1.forward(this.conv1.forward(x.permute([0, 3, 1, 2])));
    return this.layer_norm2.forward(this.conv2.forward(h));
  }
}

// Models -----------------------------------------------------------------------------------------------------------

/** What all SAM models share. */
export class SamPreTrainedModel extends PreTrainedModel {
  static override readonly config_class: typeof SamConfig | typeof SamVisionConfig = SamConfig;
  static override base_model_prefix = "sam";
  static override readonly main_input_name: string = "pixel_values";
  static override readonly _no_split_modules: readonly string[] = ["SamVisionLayer"];
  static override readonly _supports_sdpa: boolean = true;
  static override readonly supports_gradient_checkpointing: boolean = true;
  static override readonly _input_embed_layer: string = "patch_embed";

  constructor(config: SamConfig | SamVisionConfig) {
    super(config);
  }

  override _init_weights(module: nn.Module): void {
    super._init_weights(module);
    if (module instanceof SamVisionAttention) {
      if (module.rel_pos_h) init.zeros_(module.rel_pos_h);
      if (module.rel_pos_w) init.zeros_(module.rel_pos_w);
    } else if (module instanceof SamVisionEncoder) {
      if (module.pos_embed) init.zeros_(module.pos_embed);
    } else if (module instanceof SamPositionalEmbedding) {
      init.normal_(module.positional_embedding, 0, module.scale);
    }
  }
}

/** What the image encoder takes. */
export interface SamVisionInputs {
  /** Images [batch, channels, image_size, image_size]. */
  pixel_values: Tensor;
  /** Return attention weights; needs `attn_implementation: "eager"`. Default: `config.output_attentions`. */
  output_attentions?: Optional<boolean>;
  /** Return the input and the output of each layer. Default: `config.output_hidden_states`. */
  output_hidden_states?: Optional<boolean>;
}

const VISION_INPUTS: readonly (keyof SamVisionInputs)[] = [
  "pixel_values",
  "output_attentions",
  "output_hidden_states",
];

/** The image encoder, as part of the others. */
export class SamVisionEncoder extends SamPreTrainedModel {
  static override readonly config_class = SamVisionConfig;
  static override readonly forward_inputs: readonly string[] = VISION_INPUTS;

  declare readonly config: SamVisionConfig;
  patch_embed: SamPatchEmbeddings;
  pos_embed: nn.Parameter | null;
  layers: nn.ModuleList<SamVisionLayer>;
  neck: SamVisionNeck;

  constructor(config: SamVisionConfig) {
    super(config);
    const { use_abs_pos, window_size, global_attn_indexes } = config;
    const side = Math.floor(config.image_size / config.patch_size);
    this.patch_embed = new SamPatchEmbeddings(config);
    this.pos_embed = use_abs_pos ? new nn.Parameter(torch.zeros([1, side, side, config.hidden_size])) : null;
    this.layers = new nn.ModuleList(
      Array.from(
        { length: config.num_hidden_layers },
        (_, i) => new SamVisionLayer(config, global_attn_indexes.includes(i) ? 0 : window_size),
      ),
    );
    this.neck = new SamVisionNeck(config);
    this.post_init();
  }

  override forward(inputs: SamVisionInputs): SamVisionEncoderOutput {
    this.check_inputs(inputs);
    if (!inputs.pixel_values) throw new InvalidArgumentError("The image encoder needs pixel_values.");
    const attentions: Tensor[] | undefined = this.wants_attentions(inputs) ? [] : undefined;
    let h = this.patch_embed.forward(inputs.pixel_values); // [batch, rows, columns, hidden]
    if (this.pos_embed) h = h.add(this.pos_embed);
    const hidden_states: Tensor[] | undefined = this.wants_hidden_states(inputs) ? [h] : undefined;
    for (const layer of this.layers) {
      h = layer.forward(h, { attentions });
      hidden_states?.push(h);
    }
    return new SamVisionEncoderOutput({
      last_hidden_state: this.neck.forward(h),
      hidden_states,
      attentions,
    });
  }
}

/** SAM's image encoder as a model of its own. */
export class SamVisionModel extends SamPreTrainedModel {
  static override readonly config_class = SamVisionConfig;
  static override readonly forward_inputs: readonly string[] = VISION_INPUTS;

  declare readonly config: SamVisionConfig;
  vision_encoder: SamVisionEncoder;

  constructor(config: SamVisionConfig) {
    super(config);
    this.vision_encoder = new SamVisionEncoder(config);
    this.post_init();
  }

  override get_input_embeddings(): nn.Embedding {
    return this.vision_encoder.get_input_embeddings();
  }

  override forward(inputs: SamVisionInputs): SamVisionEncoderOutput {
    this.check_inputs(inputs);
    return this.vision_encoder.forward(inputs);
  }
}

/** What SAM takes: an image or its embeddings, and prompts. */
export interface SamInputs extends Omit<SamVisionInputs, "pixel_values">, SamPrompts {
  pixel_values?: Optional<Tensor>;
  /** What `get_image_embeddings` gave, instead of the image. */
  image_embeddings?: Optional<Tensor>;
  /** Three masks per prompt, or the one for prompts that leave no doubt. Default: true. */
  multimask_output?: boolean | undefined;
  /** Added to the scores of tokens for the image: PerSAM's guidance (arXiv 2305.03048). */
  attention_similarity?: Optional<Tensor>;
  /** Added to the tokens before each block: PerSAM's prompting. */
  target_embedding?: Optional<Tensor>;
}

/**
 * SAM, whole.
 *
 * @example
 * const image_embeddings = model.get_image_embeddings({ pixel_values });
 * const input_points = torch.tensor([[[[400, 650]]]]); // one prompt of one point
 * const { pred_masks, iou_scores } = model.forward({ image_embeddings, input_points });
 */
export class SamModel extends SamPreTrainedModel {
  static override readonly config_class = SamConfig;
  static override readonly _tied_weights_keys: Readonly<Record<string, string>> = {
    "prompt_encoder.shared_embedding.positional_embedding": "shared_image_embedding.positional_embedding",
  };
  static override readonly forward_inputs: readonly string[] = [
    ...VISION_INPUTS,
    "input_points",
    "input_labels",
    "input_boxes",
    "input_masks",
    "image_embeddings",
    "multimask_output",
    "attention_similarity",
    "target_embedding",
  ];

  declare readonly config: SamConfig;
  shared_image_embedding: SamPositionalEmbedding;
  vision_encoder: SamVisionEncoder;
  prompt_encoder: SamPromptEncoder;
  mask_decoder: SamMaskDecoder;

  constructor(config: SamConfig) {
    super(config);
    this.shared_image_embedding = new SamPositionalEmbedding(config.vision_config);
    this.vision_encoder = new SamVisionEncoder(config.vision_config);
    this.prompt_encoder = new SamPromptEncoder(config);
    this.mask_decoder = new SamMaskDecoder(config.mask_decoder_config);
    this.post_init();
  }

  override get_input_embeddings(): nn.Embedding {
    return this.vision_encoder.get_input_embeddings();
  }

  /** Positions of the image embeddings' cells, [1, channels, rows, columns]. */
  get_image_wide_positional_embeddings(): Tensor {
    const size = this.config.prompt_encoder_config.image_embedding_size;
    const { device, dtype } = this.shared_image_embedding.positional_embedding;
    const centres = torch.arange(size, { device, dtype }).add(0.5).div(size);
    const [y, x] = [centres.unsqueeze(1).expand([size, size]), centres.unsqueeze(0).expand([size, size])];
    return this.shared_image_embedding
      .forward(torch.stack([x, y], -1))
      .permute([2, 0, 1])
      .unsqueeze(0);
  }

  /** The image embeddings [batch, channels, rows, columns], for several calls with other prompts. Without gradients. */
  get_image_embeddings(inputs: SamVisionInputs): Tensor {
    return torch.no_grad(() => this.vision_encoder.forward(inputs).last_hidden_state);
  }

  /** Embeddings of points and boxes (undefined without any), and of masks. Without gradients. */
  get_prompt_embeddings(prompts: SamPrompts): [sparse: Tensor | undefined, dense: Tensor] {
    return torch.no_grad(() => this.prompt_encoder.forward(prompts));
  }

  override forward(inputs: SamInputs): SamImageSegmentationOutput {
    this.check_inputs(inputs);
    checkPrompts(inputs);
    const { pixel_values, input_points, output_attentions, output_hidden_states } = inputs;
    const vision = pixel_values
      ? this.vision_encoder.forward({ pixel_values, output_attentions, output_hidden_states })
      : undefined;
    const image_embeddings = vision?.last_hidden_state ?? (inputs.image_embeddings as Tensor);
    const batch = image_embeddings.shape[0] as number;
    if (input_points && input_points.shape[0] !== batch) {
      throw new InvalidArgumentError(
        `There are ${batch} images, but input_points for ${input_points.shape[0]}.`,
        { hint: "Several prompts of one image go into the second dimension of input_points." },
      );
    }

    const input_labels =
      inputs.input_labels ??
      (input_points
        ? torch.ones(input_points.shape.slice(0, 3), { dtype: "int32", device: input_points.device })
        : undefined);
    const [sparse, dense] = this.prompt_encoder.forward({ ...inputs, input_labels });
    const attentions: Tensor[] | undefined = this.wants_attentions(inputs) ? [] : undefined;
    const [pred_masks, iou_scores] = this.mask_decoder.forward({
      image_embeddings,
      image_positional_embeddings: this.get_image_wide_positional_embeddings().expand([batch, -1, -1, -1]),
      sparse_prompt_embeddings: sparse,
      dense_prompt_embeddings: dense,
      multimask_output: inputs.multimask_output ?? true,
      attention_similarity: inputs.attention_similarity,
      target_embedding: inputs.target_embedding,
      attentions,
    });
    return new SamImageSegmentationOutput({
      iou_scores,
      pred_masks,
      vision_hidden_states: vision?.hidden_states,
      vision_attentions: vision?.attentions,
      mask_decoder_attentions: attentions,
    });
  }
}

/** Refuses what does not fit together. */
function checkPrompts({ pixel_values, image_embeddings, input_points, input_boxes }: SamInputs): void {
  if (!pixel_values === !image_embeddings)
    throw new InvalidArgumentError("Give exactly one of pixel_values and image_embeddings.");
  if (input_points && input_points.ndim !== 4) {
    throw new InvalidArgumentError(
      `input_points must have the shape [batch, prompts, points, 2], got [${input_points.shape.join(", ")}].`,
    );
  }
  if (input_boxes && input_boxes.ndim !== 3) {
    throw new InvalidArgumentError(
      `input_boxes must have the shape [batch, boxes, 4], got [${input_boxes.shape.join(", ")}].`,
    );
  }
  if (input_points && input_boxes && input_points.shape[1] !== input_boxes.shape[1]) {
    throw new InvalidArgumentError(
      `There must be as many boxes as prompts of points, got ${input_boxes.shape[1]} and ${input_points.shape[1]}.`,
    );
  }
}
