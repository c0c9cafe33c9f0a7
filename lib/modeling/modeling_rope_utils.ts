// Rotary position embeddings: every kind of frequency schedule, and the module that turns positions into cos and sin.
//
// Nothing is read from a tensor here: kinds that depend on the length of the sequence choose with `where`, so that a
// forward can be recorded. "dynamic" scaling remembers the longest sequence, as the reference does, in a buffer.
import { ConfigError } from "../errors/index.ts";
import { nearest } from "../errors/suggest.ts";
import * as nn from "../nn/index.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";

/** The fields of `config.rope_parameters`, of which each kind reads its own. */
export interface RopeParameters {
  readonly rope_type?: string;
  readonly rope_theta?: number;
  readonly partial_rotary_factor?: number;
  readonly factor?: number | null;
  readonly attention_factor?: number | null;
  readonly original_max_position_embeddings?: number;
  readonly beta_fast?: number | null;
  readonly beta_slow?: number | null;
  readonly mscale?: number | null;
  readonly mscale_all_dim?: number | null;
  readonly truncate?: boolean;
  readonly short_factor?: readonly number[];
  readonly long_factor?: readonly number[];
  readonly low_freq_factor?: number;
  readonly high_freq_factor?: number;
}

/** What a schedule reads from a configuration. */
export interface RopeConfig {
  readonly hidden_size: number;
  readonly num_attention_heads: number;
  readonly head_dim?: number | null | undefined;
  readonly max_position_embeddings: number;
  /** One set of parameters, or one per kind of layer. */
  readonly rope_parameters?: unknown;
}

export interface RopeOptions {
  /** Length that a "longrope" schedule is computed for: above the original length its long factors hold. */
  readonly seq_len?: number | undefined;
  /** Which entry of `rope_parameters` to use when it has one per kind of layer. */
  readonly layer_type?: string | undefined;
}

/** Inverse frequencies [head_dim / 2] (fewer for partial rotary), and the factor on cos and sin. */
export type RopeSchedule = (
  config: RopeConfig,
  options?: RopeOptions,
) => [inv_freq: Tensor, attention_factor: number];

function ropeParameters(config: RopeConfig, layer_type?: string): RopeParameters {
  const all = (config.rope_parameters ?? {}) as Record<string, unknown>;
  return (layer_type === undefined ? all : all[layer_type]) as RopeParameters;
}

/** A parameter that a schedule cannot do without. */
function required(parameters: RopeParameters, name: keyof RopeParameters): number {
  const value = parameters[name];
  if (typeof value !== "number") {
    throw new ConfigError(
      `rope_parameters.${name} must be a number for rope_type '${parameters.rope_type ?? "default"}', got ${String(value)}.`,
    );
  }
  return value;
}

function headDim(config: RopeConfig): number {
  const dim = config.head_dim ?? Math.trunc(config.hidden_size / config.num_attention_heads);
  // Frequencies are real numbers even in a skeleton without memory, so a config must not ask for terabytes of them.
  if (!(dim > 0 && dim <= 1_000_000))
    throw new ConfigError(`head_dim ${dim} (hidden_size / num_attention_heads) is out of range.`);
  return dim;
}

const rotaryDim = (config: RopeConfig, p: RopeParameters) =>
  Math.trunc(headDim(config) * (p.partial_rotary_factor ?? 1));

/** [0, 2, 4, …] / dim, the exponents of the base. On the CPU, where the numbers are the same for every device. */
const exponents = (dim: number, end = dim) =>
  torch.arange(0, end, 2, { dtype: "int64", device: "cpu" }).to("float32").div(dim);

/** base ** -([0, 2, 4, …] / dim) */
const frequencies = (base: number, dim: number) => torch.pow(base, exponents(dim)).reciprocal();

const defaultSchedule: RopeSchedule = (config, { layer_type } = {}) => {
  const p = ropeParameters(config, layer_type);
  return [frequencies(required(p, "rope_theta"), rotaryDim(config, p)), 1];
};

const linearSchedule: RopeSchedule = (config, { layer_type } = {}) => {
  const p = ropeParameters(config, layer_type);
  return [frequencies(required(p, "rope_theta"), rotaryDim(config, p)).div(required(p, "factor")), 1];
};

/** Rotates the first part of the head only: the other frequencies are zero. */
const proportionalSchedule: RopeSchedule = (config, { layer_type } = {}) => {
  const p = ropeParameters(config, layer_type);
  const dim = headDim(config);
  const rotated = Math.trunc(Math.floor(((p.partial_rotary_factor ?? 1) * dim) / 2));
  const still = Math.trunc(dim / 2) - rotated;
  const inv_freq = torch.pow(required(p, "rope_theta"), exponents(dim, 2 * rotated)).reciprocal();
  const all =
    still > 0 ? torch.cat([inv_freq, torch.zeros([still], { dtype: "float32", device: "cpu" })]) : inv_freq;
  return [all.div(p.factor ?? 1), 1];
};

/** At construction the sequence is as long as the model was made for, where scaling has no effect. */
const dynamicSchedule: RopeSchedule = (config, { layer_type } = {}) => {
  const p = ropeParameters(config, layer_type);
  required(p, "factor");
  return [frequencies(required(p, "rope_theta"), rotaryDim(config, p)), 1];
};

/** YaRN (arXiv 2309.00071): between interpolated and original frequencies, by a ramp over the dimensions. */
const yarnSchedule: RopeSchedule = (config, { layer_type } = {}) => {
  const p = ropeParameters(config, layer_type);
  const base = required(p, "rope_theta");
  const dim = rotaryDim(config, p);
  const original = required(p, "original_max_position_embeddings");
  const factor = p.factor ?? config.max_position_embeddings / original;
  const scale = (mscale: number) => (factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1);
  const attention_factor =
    p.attention_factor ??
    (p.mscale && p.mscale_all_dim ? scale(p.mscale) / scale(p.mscale_all_dim) : scale(1));

  // The dimension that makes so many rotations over the original length.
  const dimensionOf = (rotations: number) =>
    (dim * Math.log(original / (rotations * 2 * Math.PI))) / (2 * Math.log(base));
  const truncate = ropeParameters(config).truncate ?? true;
  const [floor, ceil] = truncate ? [Math.floor, Math.ceil] : [(x: number) => x, (x: number) => x];
  const low = Math.max(floor(dimensionOf(p.beta_fast || 32)), 0);
  let high = Math.min(ceil(dimensionOf(p.beta_slow || 1)), dim - 1);
  if (low === high) high += 0.001; // a ramp of no width would divide by zero

  const ramp = torch
    .arange(Math.trunc(dim / 2), { dtype: "float32", device: "cpu" })
    .sub(low)
    .div(high - low)
    .clamp(0, 1);
  const extrapolated = torch.sub(1, ramp);
  const positions = torch.pow(base, exponents(dim));
  const inv_freq = positions
    .mul(factor)
    .reciprocal()
    .mul(torch.sub(1, extrapolated))
    .add(positions.reciprocal().mul(extrapolated));
  return [inv_freq, attention_factor];
};

/** LongRoPE (arXiv 2402.13753): one factor per dimension, from one list for short and another for long sequences. */
const longropeSchedule: RopeSchedule = (config, { layer_type, seq_len } = {}) => {
  const p = ropeParameters(config, layer_type);
  const dim = rotaryDim(config, p);
  const original = required(p, "original_max_position_embeddings");
  const factor = p.factor ?? config.max_position_embeddings / original;
  const attention_factor =
    p.attention_factor ?? (factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original)));
  const factors = (seq_len ?? 0) > original ? p.long_factor : p.short_factor;
  if (factors?.length !== Math.ceil(dim / 2)) {
    throw new ConfigError(
      `rope_parameters of type 'longrope' need ${Math.ceil(dim / 2)} long_factor and short_factor entries, got ${factors?.length ?? "none"}.`,
    );
  }
  const positions = torch.pow(required(p, "rope_theta"), exponents(dim));
  return [
    torch.tensor(factors, { dtype: "float32", device: "cpu" }).mul(positions).reciprocal(),
    attention_factor,
  ];
};

/** Llama 3.1: low frequencies are divided by `factor`, high ones stay, those between are blended. */
const llama3Schedule: RopeSchedule = (config, { layer_type } = {}) => {
  const p = ropeParameters(config, layer_type);
  const inv_freq = frequencies(required(p, "rope_theta"), rotaryDim(config, p));
  const factor = required(p, "factor");
  const low = required(p, "low_freq_factor");
  const high = required(p, "high_freq_factor");
  const original = required(p, "original_max_position_embeddings");

  const wavelength = torch.div(2 * Math.PI, inv_freq);
  const isLow = wavelength.gt(original / low);
  const isMedium = wavelength
    .lt(original / high)
    .bitwise_or(isLow)
    .bitwise_not();
  const scaled = torch.where(isLow, inv_freq.div(factor), inv_freq);
  const smooth = torch
    .div(original, wavelength)
    .sub(low)
    .div(high - low);
  const blended = torch.sub(1, smooth).mul(scaled).div(factor).add(smooth.mul(scaled));
  return [torch.where(isMedium, blended, scaled), 1];
};

/** `rope_type` → schedule. Models and users may add their own. */
export const ROPE_INIT_FUNCTIONS: Record<string, RopeSchedule> = {
  default: defaultSchedule,
  linear: linearSchedule,
  dynamic: dynamicSchedule,
  yarn: yarnSchedule,
  longrope: longropeSchedule,
  llama3: llama3Schedule,
  proportional: proportionalSchedule,
};

function schedule(rope_type: string): RopeSchedule {
  const fn = Object.hasOwn(ROPE_INIT_FUNCTIONS, rope_type) ? ROPE_INIT_FUNCTIONS[rope_type] : undefined;
  if (fn === undefined) {
    const known = Object.keys(ROPE_INIT_FUNCTIONS);
    const [near] = nearest(rope_type, known, 1);
    throw new ConfigError(
      `rope_parameters.rope_type '${rope_type}' is not known; known are ${known.join(", ")}.${near ? ` Did you mean '${near}'?` : ""}`,
    );
  }
  return fn;
}

/** cos and sin of the rotation angles, each [batch, length, rotary dimensions]. */
export type PositionEmbeddings = readonly [cos: Tensor, sin: Tensor];

/** Turns positions into the cos and sin that {@link apply_rotary_pos_emb} wants, by the schedule of the config. */
export class RotaryEmbedding extends nn.Module {
  readonly config: RopeConfig;
  readonly rope_type: string;
  attention_scaling: number;
  declare readonly inv_freq: Tensor;
  declare readonly original_inv_freq: Tensor;
  /** "dynamic" only: the longest sequence seen since the last short one, a scalar. */
  declare readonly max_seq_len_cached?: Tensor;

  constructor(config: RopeConfig) {
    super();
    this.config = config;
    this.rope_type = ropeParameters(config).rope_type ?? "default";
    const [inv_freq, attention_scaling] = schedule(this.rope_type)(config);
    this.attention_scaling = attention_scaling;
    const device = torch.get_default_device();
    this.register_buffer("inv_freq", inv_freq.to(device), { persistent: false });
    this.register_buffer("original_inv_freq", inv_freq.clone().to(device), { persistent: false });
    if (this.rope_type === "dynamic") {
      const longest = torch.full([], config.max_position_embeddings, { dtype: "int64" });
      this.register_buffer("max_seq_len_cached", longest, { persistent: false });
    }
  }

  /** Computes the buffers again: they are in no checkpoint. */
  reset_buffers(): void {
    const [inv_freq] = schedule(this.rope_type)(this.config);
    this.inv_freq.copy_(inv_freq);
    this.original_inv_freq.copy_(inv_freq);
    this.max_seq_len_cached?.fill_(this.config.max_position_embeddings);
  }

  /** `x` gives dtype and device, `position_ids` [batch, length] the positions. */
  override forward(x: Tensor, position_ids: Tensor): PositionEmbeddings {
    return torch.no_grad(() => {
      const inv_freq = this.#frequencies(position_ids).to({ device: x.device, dtype: "float32" });
      const angles = position_ids.unsqueeze(-1).to("float32").mul(inv_freq); // [batch, length, dim / 2]
      const both = torch.cat([angles, angles], -1);
      const scaled = (t: Tensor) =>
        (this.attention_scaling === 1 ? t : t.mul(this.attention_scaling)).to(x.dtype);
      return [scaled(both.cos()), scaled(both.sin())] as const;
    });
  }

  /** The inverse frequencies for a sequence that reaches the last of these positions. */
  #frequencies(position_ids: Tensor): Tensor {
    const p = ropeParameters(this.config);
    if (this.rope_type === "longrope") {
      const original = required(p, "original_max_position_embeddings");
      const [long] = longropeSchedule(this.config, { seq_len: original + 1 });
      return torch.where(
        position_ids.max().add(1).gt(original),
        long.to(this.inv_freq.device),
        this.inv_freq,
      );
    }
    return this.max_seq_len_cached ? this.#stretched(position_ids, this.max_seq_len_cached) : this.inv_freq;
  }

  /** NTK scaling: the base grows with the longest sequence, until one within the original length comes. */
  #stretched(position_ids: Tensor, longest: Tensor): Tensor {
    const p = ropeParameters(this.config);
    const factor = required(p, "factor");
    const dim = rotaryDim(this.config, p);
    const original = this.config.max_position_embeddings;
    const length = position_ids.max().add(1);
    longest.copy_(torch.where(length.lt(original), original, torch.maximum(longest, length)));

    const stretch = longest
      .to("float32")
      .mul(factor)
      .div(original)
      .sub(factor - 1);
    const base = stretch.pow(dim / (dim - 2)).mul(required(p, "rope_theta"));
    const inv_freq = torch.pow(base, exponents(dim).to(position_ids.device)).reciprocal();
    return torch.where(longest.gt(original), inv_freq, this.inv_freq);
  }
}

/** (a, b) → (-b, a) over the two halves of the last dimension. */
export function rotate_half(x: Tensor): Tensor {
  const [a, b] = x.chunk(2, -1) as [Tensor, Tensor];
  return torch.cat([b.neg(), a], -1);
}

/** Rotates queries and keys [batch, heads, length, head_dim] by the angles of their positions. */
export function apply_rotary_pos_emb(
  q: Tensor,
  k: Tensor,
  [cos, sin]: PositionEmbeddings,
  unsqueeze_dim = 1,
): [Tensor, Tensor] {
  const c = cos.unsqueeze(unsqueeze_dim);
  const s = sin.unsqueeze(unsqueeze_dim);
  const rotate = (x: Tensor) => x.mul(c).add(rotate_half(x).mul(s));
  return [rotate(q), rotate(k)];
}
