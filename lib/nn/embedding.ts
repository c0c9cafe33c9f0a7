// Tables of vectors.

import { InvalidArgumentError } from "../errors/index.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { type Arguments, bind, REQUIRED, type Rest } from "./arguments.ts";
import { emptyParameter, FACTORY, type FactoryOptions } from "./factory.ts";
import * as F from "./functional.ts";
import * as init from "./init.ts";
import { markInitial } from "./initial_values.ts";
import { Module } from "./module.ts";
import { Parameter } from "./parameter.ts";
import { py, pyFloat } from "./repr.ts";

export interface EmbeddingOptions extends FactoryOptions {
  /** The row that begins as zeros and gets no gradient. Default: none. */
  padding_idx?: number | null | undefined;
  /** Rows in use that are longer are scaled down to it. Default: none. */
  max_norm?: number | null | undefined;
  /** Which norm. Default: 2. */
  norm_type?: number | undefined;
  /** Divide gradients by how often a row is used. Default: false. */
  scale_grad_by_freq?: boolean | undefined;
  /** Default: false. */
  sparse?: boolean | undefined;
  /** The table itself, in the place of random numbers. */
  _weight?: Tensor | null | undefined;
  /** Do not train the table. Default: false. */
  _freeze?: boolean | undefined;
}

type TableSize = [num_embeddings: number, embedding_dim: number];
type TableNames = ["num_embeddings", "embedding_dim"];
const SIZE = { num_embeddings: REQUIRED as number, embedding_dim: REQUIRED as number };
const TABLE = {
  max_norm: null as number | null,
  norm_type: 2,
  scale_grad_by_freq: false,
};

/** Row `padding_idx` of a table, counted from the front. */
function paddingRow(padding_idx: number | null, rows: number): number | null {
  if (padding_idx === null) return null;
  if (padding_idx >= rows || padding_idx < -rows) {
    throw new InvalidArgumentError(`Embedding: padding_idx ${padding_idx} is outside of the ${rows} rows.`);
  }
  return padding_idx < 0 ? padding_idx + rows : padding_idx;
}

function checkTable(name: string, weight: Tensor, rows: number, width: number): void {
  if (weight.ndim === 2 && weight.size(0) === rows && weight.size(1) === width) return;
  throw new InvalidArgumentError(
    `${name}: _weight must have the shape [${rows}, ${width}], got [${weight.shape.join(", ")}].`,
  );
}

/**
 * Rows of a table: int64 [...] to [..., embedding_dim]. The table begins with numbers of a normal distribution.
 *
 * @example new nn.Embedding(10, 3).forward(torch.tensor([[1, 2, 4, 5]])).shape; // [1, 4, 3]
 */
export class Embedding extends Module {
  readonly num_embeddings: number;
  readonly embedding_dim: number;
  readonly padding_idx: number | null;
  readonly max_norm: number | null;
  readonly norm_type: number;
  readonly scale_grad_by_freq: boolean;
  readonly sparse: boolean;
  /** [num_embeddings, embedding_dim] */
  weight: Parameter;

  constructor(
    ...args: Arguments<
      TableSize,
      TableNames,
      [padding_idx: number | null, max_norm: number | null, norm_type: number],
      EmbeddingOptions
    >
  ) {
    super();
    const o = bind("Embedding", args, {
      ...SIZE,
      padding_idx: null as number | null,
      ...TABLE,
      sparse: false,
      _weight: null as Tensor | null,
      _freeze: false,
      ...FACTORY,
    });
    this.num_embeddings = o.num_embeddings;
    this.embedding_dim = o.embedding_dim;
    this.padding_idx = paddingRow(o.padding_idx, o.num_embeddings);
    this.max_norm = o.max_norm;
    this.norm_type = o.norm_type;
    this.scale_grad_by_freq = o.scale_grad_by_freq;
    this.sparse = o.sparse;
    if (o._weight) {
      checkTable("Embedding", o._weight, o.num_embeddings, o.embedding_dim);
      this.weight = new Parameter(o._weight, !o._freeze);
    } else {
      this.weight = emptyParameter([o.num_embeddings, o.embedding_dim], o, !o._freeze);
      this.reset_parameters();
    }
  }

  /** An embedding over a table that is there already: [rows, width]. Frozen unless told otherwise. */
  static from_pretrained(
    embeddings: Tensor,
    ...rest: Rest<
      [freeze: boolean],
      Omit<EmbeddingOptions, "_weight" | "_freeze"> & { freeze?: boolean | undefined }
    >
  ): Embedding {
    const { freeze, ...options } = bind("Embedding.from_pretrained", rest, {
      freeze: true,
      padding_idx: null as number | null,
      ...TABLE,
      sparse: false,
    });
    if (embeddings.ndim !== 2)
      throw new InvalidArgumentError(`Embedding: a table has 2 dimensions, got ${embeddings.ndim}.`);
    const [rows, width] = embeddings.shape as [number, number];
    return new Embedding(rows, width, { ...options, _weight: embeddings, _freeze: freeze });
  }

  reset_parameters(): void {
    init.normal_(this.weight);
    const row = this.padding_idx;
    if (row === null || this.weight.is_meta) return;
    torch.no_grad(() => this.weight.select(0, row).fill_(0));
    markInitial(this.weight);
  }

  override forward(indices: Tensor): Tensor {
    const { weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse } = this;
    return F.embedding(indices, weight, { padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse });
  }

  override extra_repr(): string {
    let text = `${this.num_embeddings}, ${this.embedding_dim}`;
    if (this.padding_idx !== null) text += `, padding_idx=${this.padding_idx}`;
    return text + tableSettings(this) + (this.sparse ? ", sparse=True" : "");
  }
}

function tableSettings({
  max_norm,
  norm_type,
  scale_grad_by_freq,
}: Pick<Embedding, "max_norm" | "norm_type" | "scale_grad_by_freq">): string {
  let text = "";
  if (max_norm !== null) text += `, max_norm=${pyFloat(max_norm)}`;
  if (norm_type !== 2) text += `, norm_type=${pyFloat(norm_type)}`;
  if (scale_grad_by_freq) text += `, scale_grad_by_freq=${py(scale_grad_by_freq)}`;
  return text;
}

export interface EmbeddingBagOptions extends Omit<EmbeddingOptions, "_freeze"> {
  /** What becomes of the rows of a bag. Default: "mean". */
  mode?: "sum" | "mean" | "max" | undefined;
  /** The last offset is the end of the last bag. Default: false. */
  include_last_offset?: boolean | undefined;
}

/** Sums, means or maxima of rows of a table: one row per bag of indices. */
export class EmbeddingBag extends Module {
  readonly num_embeddings: number;
  readonly embedding_dim: number;
  readonly max_norm: number | null;
  readonly norm_type: number;
  readonly scale_grad_by_freq: boolean;
  readonly mode: "sum" | "mean" | "max";
  readonly sparse: boolean;
  readonly include_last_offset: boolean;
  readonly padding_idx: number | null;
  weight: Parameter;

  constructor(
    ...args: Arguments<
      TableSize,
      TableNames,
      [max_norm: number | null, norm_type: number],
      EmbeddingBagOptions
    >
  ) {
    super();
    const o = bind("EmbeddingBag", args, {
      ...SIZE,
      ...TABLE,
      mode: "mean" as "sum" | "mean" | "max",
      sparse: false,
      _weight: null as Tensor | null,
      include_last_offset: false,
      padding_idx: null as number | null,
      ...FACTORY,
    });
    this.num_embeddings = o.num_embeddings;
    this.embedding_dim = o.embedding_dim;
    this.max_norm = o.max_norm;
    this.norm_type = o.norm_type;
    this.scale_grad_by_freq = o.scale_grad_by_freq;
    this.mode = o.mode;
    this.sparse = o.sparse;
    this.include_last_offset = o.include_last_offset;
    this.padding_idx = paddingRow(o.padding_idx, o.num_embeddings);
    if (o._weight) {
      checkTable("EmbeddingBag", o._weight, o.num_embeddings, o.embedding_dim);
      this.weight = new Parameter(o._weight);
    } else {
      this.weight = emptyParameter([o.num_embeddings, o.embedding_dim], o);
      this.reset_parameters();
    }
  }

  reset_parameters(): void {
    init.normal_(this.weight);
    const row = this.padding_idx;
    if (row === null || this.weight.is_meta) return;
    torch.no_grad(() => this.weight.select(0, row).fill_(0));
    markInitial(this.weight);
  }

  override forward(
    indices: Tensor,
    offsets: Tensor | null = null,
    per_sample_weights: Tensor | null = null,
  ): Tensor {
    const {
      weight,
      max_norm,
      norm_type,
      scale_grad_by_freq,
      mode,
      sparse,
      include_last_offset,
      padding_idx,
    } = this;
    const settings = {
      max_norm,
      norm_type,
      scale_grad_by_freq,
      mode,
      sparse,
      include_last_offset,
      padding_idx,
    };
    return F.embedding_bag(indices, weight, { offsets, per_sample_weights, ...settings });
  }

  override extra_repr(): string {
    let text = `${this.num_embeddings}, ${this.embedding_dim}${tableSettings(this)}, mode=${py(this.mode)}`;
    if (this.padding_idx !== null) text += `, padding_idx=${this.padding_idx}`;
    return text;
  }
}
