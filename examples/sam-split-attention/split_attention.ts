// SAM's attention with query, key and value as three layers instead of one, so that each can be treated on its own.
import {
  nn,
  type SamConfig,
  SamModel,
  SamVisionAttention,
  type SamVisionConfig,
  type Tensor,
} from "torchformers";

const F = nn.functional;

export class SamVisionAttentionSplit extends SamVisionAttention {
  q: nn.Linear;
  k: nn.Linear;
  v: nn.Linear;

  constructor(config: SamVisionConfig, window_size: number) {
    super(config, window_size);
    const { hidden_size, qkv_bias: bias } = config;
    delete (this as { qkv?: nn.Linear }).qkv;
    this.q = new nn.Linear(hidden_size, hidden_size, { bias });
    this.k = new nn.Linear(hidden_size, hidden_size, { bias });
    this.v = new nn.Linear(hidden_size, hidden_size, { bias });
    // Files have the three as one: this hook takes them apart, in load_state_dict and in from_pretrained alike.
    this._register_load_state_dict_pre_hook((state_dict, prefix) => {
      for (const kind of ["weight", "bias"]) {
        const fused = state_dict[`${prefix}qkv.${kind}`];
        if (fused === undefined) continue;
        const [q, k, v] = fused.chunk(3, 0) as [Tensor, Tensor, Tensor];
        Object.assign(state_dict, {
          [`${prefix}q.${kind}`]: q,
          [`${prefix}k.${kind}`]: k,
          [`${prefix}v.${kind}`]: v,
        });
        delete state_dict[`${prefix}qkv.${kind}`];
      }
    });
  }

  /** @param x [batch, rows, columns, hidden] */
  override forward(x: Tensor): Tensor {
    const [batch, height, width] = x.shape as [number, number, number];
    const [heads, patches] = [this.num_attention_heads, height * width];
    const split = (h: Tensor) => h.reshape([batch, patches, heads, -1]).transpose(1, 2); // [batch, heads, patches, head_dim]
    const [q, k, v] = [split(this.q.forward(x)), split(this.k.forward(x)), split(this.v.forward(x))];
    const { rel_pos_h, rel_pos_w } = this;
    const size = [height, width] as const;
    const attn_mask =
      rel_pos_h && rel_pos_w
        ? this.get_decomposed_rel_pos(q.flatten(0, 1), rel_pos_h, rel_pos_w, size, size).reshape([
            batch,
            heads,
            patches,
            patches,
          ])
        : undefined;
    const out = F.scaled_dot_product_attention(q, k, v, { attn_mask, scale: this.scale });
    return this.proj.forward(out.transpose(1, 2).reshape([batch, height, width, -1]));
  }
}

/** Puts the split attention into every layer of the image encoder; the layers that it replaces are handed to `keep`. */
export function splitAttention(
  model: SamModel,
  keep: (split: SamVisionAttentionSplit, old: SamVisionAttention) => void = () => {},
): void {
  for (const layer of model.vision_encoder.layers) {
    const old = layer.attn;
    layer.attn = new SamVisionAttentionSplit(model.config.vision_config, layer.window_size);
    keep(layer.attn as SamVisionAttentionSplit, old);
  }
}

/** SAM built with the split attention: it loads the files of any SAM. */
export class SplitSamModel extends SamModel {
  constructor(config: SamConfig) {
    super(config);
    splitAttention(this);
    this.post_init();
  }
}
