// Every generated function is called once on small inputs; those that cannot be are listed with the reason.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { torch } from "torchformers";
import { addon } from "#lib/addon/loader.js";
import { parseSchema } from "#lib/torch/schema.js";
import { SCHEMAS } from "#lib/torch/schemas.generated.js";
import { root } from "../support/fixtures.js";

// biome-ignore lint/suspicious/noExplicitAny: functions are called by name
type Any = any;
type Schema = ReturnType<typeof parseSchema>;

const registered = new Map(
  addon()
    .listOps()
    .filter((text) => text.startsWith("aten::"))
    .map((text) => [text.slice(6, text.indexOf("(")), parseSchema(text)]),
);
const schemas = SCHEMAS.trim().split("\n").map(parseSchema);

t.test("the distilled schemas are those of the registry", (test) => {
  const facts = ({ parameters, results }: Schema) =>
    JSON.stringify([
      parameters.map(({ name, type, list, nullable, nullableItems, written }) => [
        name,
        type,
        list,
        nullable,
        nullableItems,
        written,
      ]),
      results.map(({ type, list, written }) => [type, list, written]),
    ]);
  const different = schemas.filter((schema) => {
    const known = registered.get(schema.overload ? `${schema.name}.${schema.overload}` : schema.name);
    return known === undefined || facts(known) !== facts(schema);
  });
  test.same(
    different.map(({ text }) => text),
    [],
  );
  test.end();
});

/** What an operator is called with when nothing special is known of it. */
function sample(type: string, list: boolean, size: number): Any {
  const one: Record<string, () => Any> = {
    Tensor: () => torch.rand(3, 3).add(0.1),
    Scalar: () => 1,
    int: () => 1,
    float: () => 0.5,
    bool: () => false,
    str: () => "mean",
    ScalarType: () => "float32",
    Layout: () => "strided",
    Device: () => "cpu",
    MemoryFormat: () => "contiguous_format",
    Generator: () => new torch.Generator(),
  };
  const make = one[type] as () => Any;
  return list ? Array.from({ length: size || 2 }, make) : make();
}

const f = (...shape: number[]) => torch.rand(...shape);
const long = (...values: number[]) => torch.tensor(values);
const square = () =>
  torch.tensor(
    [
      [2, 0.5],
      [0.5, 1],
    ],
    { dtype: "float64" },
  );
const image = (n: number) => f(...[1, 2, 6, 6, 6].slice(0, n + 2));
const mask = () =>
  torch.tensor([
    [true, false, true],
    [false, true, true],
    [true, true, false],
  ]);

/** Arguments of operators whose inputs are particular; by name, or by name and overload. */
const ARGUMENTS: Record<string, () => Any[]> = particular();

function particular(): Record<string, () => Any[]> {
  const integers = () => [torch.tensor([[1, 2, 3]]), torch.tensor([[3, 2, 1]])];
  const table: Record<string, () => Any[]> = {
    addbmm: () => [f(3, 3), f(2, 3, 3), f(2, 3, 3)],
    baddbmm: () => [f(2, 3, 3), f(2, 3, 3), f(2, 3, 3)],
    bmm: () => [f(2, 3, 3), f(2, 3, 3)],
    addmv: () => [f(3), f(3, 3), f(3)],
    addr: () => [f(3, 3), f(3), f(3)],
    mv: () => [f(3, 3), f(3)],
    dot: () => [f(3), f(3)],
    vdot: () => [f(3), f(3)],
    ger: () => [f(3), f(3)],
    outer: () => [f(3), f(3)],
    batch_norm: () => [image(2), null, null, null, null, true, 0.1, 1e-5, false],
    native_batch_norm: () => [image(2), null, null, null, null, true, 0.1, 1e-5],
    instance_norm: () => [image(2), null, null, null, null, true, 0.1, 1e-5, false],
    group_norm: () => [image(2), 2],
    native_group_norm: () => [image(2), null, null, 1, 2, 36, 2, 1e-5],
    layer_norm: () => [f(2, 3), [3]],
    native_layer_norm: () => [f(2, 3), [3], null, null, 1e-5],
    rms_norm: () => [f(2, 3), [3]],
    bilinear: () => [f(2, 3), f(2, 3), f(4, 3, 3)],
    bincount: () => [long(1, 2)],
    bucketize: () => [f(3), f(3)],
    cat: () => [[f(3), f(3)]],
    channel_shuffle: () => [image(2), 2],
    native_channel_shuffle: () => [image(2), 2],
    cholesky: () => [square()],
    cholesky_inverse: () => [square()],
    cholesky_solve: () => [square(), square()],
    col2im: () => [f(1, 8, 4), [3, 3], [2, 2], [1, 1], [0, 0], [1, 1]],
    im2col: () => [image(2), [2, 2], [1, 1], [0, 0], [1, 1]],
    combinations: () => [f(3)],
    conv1d: () => [image(1), f(3, 2, 3)],
    conv2d: () => [image(2), f(3, 2, 3, 3)],
    conv3d: () => [image(3), f(3, 2, 3, 3, 3)],
    conv_transpose1d: () => [image(1), f(2, 3, 3)],
    conv_transpose2d: () => [image(2), f(2, 3, 3, 3)],
    conv_transpose3d: () => [image(3), f(2, 3, 3, 3, 3)],
    convolution: () => [image(2), f(3, 2, 3, 3), null, [1, 1], [0, 0], [1, 1], false, [0, 0], 1],
    conv_tbc: () => [f(5, 1, 2), f(3, 2, 4), f(4)],
    cosine_embedding_loss: () => [f(2, 3), f(2, 3), long(1, -1)],
    cross: () => [f(3), f(3)],
    ctc_loss: () => [f(5, 1, 4).log_softmax(2), long(1, 2).view(1, 2), [5], [2]],
    cumulative_trapezoid: () => [f(3)],
    trapezoid: () => [f(3)],
    trapz: () => [f(3)],
    det: () => [square()],
    logdet: () => [square()],
    slogdet: () => [square()],
    diag_embed: () => [f(3)],
    diagonal_scatter: () => [f(3, 3), f(3)],
    select_scatter: () => [f(3, 3), f(3), 0, 0],
    slice_scatter: () => [f(3, 3), f(3, 3)],
    as_strided: () => [f(3, 3), [2], [1]],
    as_strided_scatter: () => [f(3, 3), f(2), [2], [1]],
    as_strided_: () => [f(3, 3), [2], [1]],
    dsplit: () => [f(2, 2, 2), 2],
    hsplit: () => [f(2, 2), 2],
    vsplit: () => [f(2, 2), 2],
    split_with_sizes: () => [f(3), [1, 2]],
    unsafe_split_with_sizes: () => [f(3), [1, 2]],
    embedding: () => [f(3, 3), long(0, 1)],
    embedding_bag: () => [f(3, 3), long(0, 1), long(0)],
    embedding_renorm_: () => [f(3, 3), long(0, 1), 1, 2],
    expand: () => [f(3), [2, 3]],
    view: () => [f(4), [2, 2]],
    reshape: () => [f(4), [2, 2]],
    broadcast_to: () => [f(3), [2, 3]],
    sum_to_size: () => [f(2, 3), [1, 3]],
    resize_: () => [f(4), [2, 2]],
    permute: () => [f(2, 3), [1, 0]],
    flip: () => [f(3, 3), [0, 1]],
    frobenius_norm: () => [f(3, 3), [0, 1]],
    gather: () => [f(3), 0, long(0)],
    gcd: integers,
    lcm: integers,
    bitwise_and: integers,
    geqrf: () => [square()],
    index_add: () => [f(3), 0, long(0), f(1)],
    index_copy: () => [f(3), 0, long(0), f(1)],
    index_fill: () => [f(3), 0, long(0), 1],
    index_reduce: () => [f(3), 0, long(0), f(1), "mean"],
    index_select: () => [f(3), 0, long(0)],
    index_put: () => [f(3), [long(0)], f(1)],
    inverse: () => [square()],
    isin: () => [f(3), f(3)],
    istft: () => [
      torch.stft(f(16), 4, { return_complex: true, window: torch.ones(4) }),
      4,
      { window: torch.ones(4) },
    ],
    kthvalue: () => [f(3), 1],
    linear: () => [f(2, 3), f(4, 3)],
    lu_solve: () => [square(), ...torch.linalg.lu_factor(square())],
    lu_unpack: () => [...torch.linalg.lu_factor(square())],
    masked_fill: () => [f(3, 3), mask(), 1],
    masked_scatter: () => [f(3, 3), mask(), f(3, 3)],
    masked_select: () => [f(3, 3), mask()],
    matrix_power: () => [square(), 2],
    matrix_exp: () => [square()],
    multinomial: () => [f(3), 1],
    nll_loss: () => [f(2, 3), long(0, 1)],
    nll_loss_nd: () => [f(2, 3), long(0, 1)],
    cross_entropy_loss: () => [f(2, 3), long(0, 1)],
    nll_loss2d: () => [f(1, 3, 2, 2), torch.zeros([1, 2, 2], { dtype: "int64" })],
    one_hot: () => [long(0, 2), 3],
    orgqr: () => [f(3, 3), f(3)],
    ormqr: () => [f(3, 3), f(3), f(3, 3)],
    pad: () => [f(3), [1, 1]],
    constant_pad_nd: () => [f(3), [1, 1]],
    pad_sequence: () => [[f(2), f(3)]],
    pixel_shuffle: () => [f(1, 4, 2, 2), 2],
    pixel_unshuffle: () => [f(1, 1, 4, 4), 2],
    polygamma: () => [1, f(3)],
    polar: () => [f(3), f(3)],
    complex: () => [f(3), f(3)],
    prelu: () => [f(3), f(1)],
    put: () => [f(3), long(0), f(1)],
    take: () => [f(3), long(0)],
    take_along_dim: () => [f(3), long(0), 0],
    qr: () => [square()],
    quantile: () => [f(3), 0.5],
    nanquantile: () => [f(3), 0.5],
    randperm: () => [3],
    repeat: () => [f(2), [2]],
    tile: () => [f(2), [2]],
    repeat_interleave: () => [f(2), 2],
    roll: () => [f(3), 1],
    rot90: () => [f(2, 2)],
    scaled_dot_product_attention: () => [f(1, 2, 3, 4), f(1, 2, 3, 4), f(1, 2, 3, 4)],
    scatter: () => [f(3), 0, long(0), 1],
    scatter_add: () => [f(3), 0, long(0), f(1)],
    scatter_reduce: () => [f(3), 0, long(0), f(1), "sum"],
    searchsorted: () => [f(3), f(2)],
    segment_reduce: () => [f(3), "sum", { lengths: long(1, 2) }],
    select: () => [f(3), 0, 0],
    svd: () => [square()],
    t: () => [f(2, 3)],
    tensor_split: () => [f(4), 2],
    triangular_solve: () => [square(), square()],
    tril_indices: () => [3, 3],
    triu_indices: () => [3, 3],
    unflatten: () => [f(4), 0, [2, 2]],
    unfold: () => [f(5), 0, 2, 1],
    vander: () => [f(3)],
    view_as_complex: () => [f(3, 2)],
    view_as_real: () => [torch.complex(f(3), f(3))],
    imag: () => [torch.complex(f(3), f(3))],
    where: () => [mask(), f(3, 3), f(3, 3)],
    arange: () => [3],
    eye: () => [3],
    full: () => [[2], 1],
    linspace: () => [0, 1, 3],
    logspace: () => [0, 1, 3],
    range: () => [0, 3],
    empty_permuted: () => [
      [2, 3],
      [1, 0],
    ],
    empty_strided: () => [
      [2, 3],
      [3, 1],
    ],
    new_empty_strided: () => [f(2), [2, 3], [3, 1]],
    new_full: () => [f(2), [2], 1],
    normal: () => [f(3), f(3)],
    randint: () => [5, [2]],
    randint_like: () => [f(2), 5],
    affine_grid_generator: () => [f(1, 2, 3), [1, 1, 2, 2], false],
    grid_sampler: () => [image(2), f(1, 2, 2, 2), 0, 0, false],
    grid_sampler_2d: () => [image(2), f(1, 2, 2, 2), 0, 0, false],
    grid_sampler_3d: () => [image(3), f(1, 2, 2, 2, 3), 0, 0, false],
    glu: () => [f(4)],
    gru_cell: () => [f(1, 2), f(1, 3), f(9, 2), f(9, 3)],
    lstm_cell: () => [f(1, 2), [f(1, 3), f(1, 3)], f(12, 2), f(12, 3)],
    rnn_relu_cell: () => [f(1, 2), f(1, 3), f(3, 2), f(3, 3)],
    rnn_tanh_cell: () => [f(1, 2), f(1, 3), f(3, 2), f(3, 3)],
    lstm: () => [
      f(4, 1, 2),
      [f(1, 1, 3), f(1, 1, 3)],
      [f(12, 2), f(12, 3)],
      false,
      1,
      0,
      false,
      false,
      false,
    ],
    gru: () => [f(4, 1, 2), f(1, 1, 3), [f(9, 2), f(9, 3)], false, 1, 0, false, false, false],
    rnn_relu: () => [f(4, 1, 2), f(1, 1, 3), [f(3, 2), f(3, 3)], false, 1, 0, false, false, false],
    rnn_tanh: () => [f(4, 1, 2), f(1, 1, 3), [f(3, 2), f(3, 3)], false, 1, 0, false, false, false],
    histogram: () => [f(5), 3],
    histogramdd: () => [f(4, 2), [2, 2]],
    nonzero_static: () => [f(3), { size: 3 }],
    norm_except_dim: () => [f(3, 3)],
    nuclear_norm: () => [f(3, 3)],
    pdist: () => [f(3, 2)],
    gradient: () => [f(3)],
    kron: () => [f(2, 2), f(2, 2)],
    threshold: () => [f(3), 0.5, 0],
    triplet_margin_loss: () => [f(2, 3), f(2, 3), f(2, 3)],
    margin_ranking_loss: () => [f(3), f(3), f(3)],
    multi_margin_loss: () => [f(2, 3), long(0, 1)],
    multilabel_margin_loss: () => [f(3), long(0, 1, -1)],
    bernoulli: () => [f(3)],
    binomial: () => [f(3), f(3)],
    clamp: () => [f(3), 0, 1],
    clip: () => [f(3), 0, 1],
    flatten_dense_tensors: () => [[f(2), f(3)]],
    unflatten_dense_tensors: () => [f(5), [f(2), f(3)]],
    bitwise_not: () => [long(1)],
    logit: () => [f(3)],
    scalar_tensor: () => [1],
    set_: () => [f(3), f(3)],
    max_pool1d: () => [image(1), 2],
    max_pool2d: () => [image(2), 2],
    max_pool3d: () => [image(3), 2],
    max_pool1d_with_indices: () => [image(1), 2],
    max_pool2d_with_indices: () => [image(2), 2],
    max_pool3d_with_indices: () => [image(3), 2],
    avg_pool1d: () => [image(1), 2],
    avg_pool2d: () => [image(2), 2],
    avg_pool3d: () => [image(3), 2],
    adaptive_avg_pool1d: () => [image(1), 2],
    adaptive_avg_pool2d: () => [image(2), 2],
    adaptive_avg_pool3d: () => [image(3), 2],
    adaptive_max_pool1d: () => [image(1), 2],
    adaptive_max_pool2d: () => [image(2), 2],
    adaptive_max_pool3d: () => [image(3), 2],
    fractional_max_pool2d: () => [image(2), [2, 2], [3, 3], f(1, 2, 2)],
    fractional_max_pool3d: () => [image(3), [2, 2, 2], [3, 3, 3], f(1, 2, 3)],
    max_unpool2d: () => [...torch._nn.max_pool2d_with_indices(image(2), 2), [6, 6]],
    max_unpool3d: () => [...torch._nn.max_pool3d_with_indices(image(3), 2), [6, 6, 6], [2, 2, 2], [0, 0, 0]],
    upsample_linear1d: () => [image(1), [4], false],
    upsample_bilinear2d: () => [image(2), [4, 4], false],
    upsample_bicubic2d: () => [image(2), [4, 4], false],
    upsample_trilinear3d: () => [image(3), [4, 4, 4], false],
    upsample_nearest1d: () => [image(1), [4]],
    upsample_nearest2d: () => [image(2), [4, 4]],
    upsample_nearest3d: () => [image(3), [4, 4, 4]],
    slow_conv3d: () => [image(3), f(3, 2, 3, 3, 3), [3, 3, 3]],
    slow_conv_dilated2d: () => [image(2), f(3, 2, 3, 3), [3, 3]],
    slow_conv_dilated3d: () => [image(3), f(3, 2, 3, 3, 3), [3, 3, 3]],
    slow_conv_transpose2d: () => [image(2), f(2, 3, 3, 3), [3, 3]],
    slow_conv_transpose3d: () => [image(3), f(2, 3, 3, 3, 3), [3, 3, 3]],
    thnn_conv2d: () => [image(2), f(3, 2, 3, 3), [3, 3]],
    reflection_pad1d: () => [image(1), [1, 1]],
    reflection_pad2d: () => [image(2), [1, 1, 1, 1]],
    reflection_pad3d: () => [image(3), [1, 1, 1, 1, 1, 1]],
    replication_pad1d: () => [image(1), [1, 1]],
    replication_pad2d: () => [image(2), [1, 1, 1, 1]],
    replication_pad3d: () => [image(3), [1, 1, 1, 1, 1, 1]],
    rrelu_with_noise: () => [f(3), f(3)],
    feature_dropout: () => [image(2), 0.5, true],
    feature_alpha_dropout: () => [image(2), 0.5, true],
    linalg_multi_dot: () => [[f(2, 3), f(3, 2)]],
    linalg_householder_product: () => [f(3, 3), f(3)],
    linalg_solve: () => [square(), square()],
    linalg_solve_ex: () => [square(), square()],
    linalg_tensorinv: () => [f(4, 2, 2), 1],
    linalg_tensorsolve: () => [f(2, 2, 4), f(2, 2)],
    linalg_solve_triangular: () => [square(), square(), { upper: true }],
    linalg_lu_solve: () => [...torch.linalg.lu_factor(square()), square()],
    linalg_ldl_solve: () => [...torch.linalg.ldl_factor(square()), square()],
    linalg_matrix_norm: () => [f(3, 3)],
    linalg_cross: () => [f(3), f(3)],
    linalg_lstsq: () => [square(), square()],
    linalg_vander: () => [f(3)],
    linalg_vecdot: () => [f(3), f(3)],
    linalg_matrix_power: () => [square(), 2],
    fft_fftfreq: () => [4],
    fft_rfftfreq: () => [4],
    special_polygamma: () => [1, f(3)],
    hash_tensor: () => [f(3), [0]],
    slow_conv3d_forward: () => [image(3), f(3, 2, 3, 3, 3), [3, 3, 3], null, [1, 1, 1], [0, 0, 0]],
    choose_qparams_optimized: () => [f(100), 100, 10, 0.16, 8],
    index_put_: () => [f(3), [long(0)], f(1)],
    multilabel_margin_loss_forward: () => [f(3), long(0, 1, -1), 1],
    nll_loss_forward: () => [f(2, 3), long(0, 1), null, 1, -100],
    nll_loss2d_forward: () => [f(1, 3, 2, 2), torch.zeros([1, 2, 2], { dtype: "int64" }), null, 1, -100],
    conv_depthwise3d: () => [image(3), f(2, 1, 3, 3, 3), [3, 3, 3], null, [1, 1, 1], [0, 0, 0], [1, 1, 1]],
    glu_jvp: () => [f(2), f(4), f(4), 0],
    linalg_ldl_factor: () => [square()],
    linalg_ldl_factor_ex: () => [square()],
    unsqueeze: () => [f(3), 0],
    normal_: () => [f(3)],
    count_nonzero: () => [f(3, 3)],
    float_power_: () => [square(), 2],
    mvlgamma: () => [f(3).add(3), 1],
    special_multigammaln: () => [f(3).add(3), 1],
    chunk: () => [f(4), 2],
    pairwise_distance: () => [f(2, 3), f(2, 3)],
    moveaxis: () => [f(2, 3), 0, 1],
    movedim: () => [f(2, 3), 0, 1],
    binary_cross_entropy: () => [f(3), f(3)],
    copysign: () => [f(3), f(3)],
    random_: () => [f(3)],
    geometric_: () => [f(3), 0.5],
    cauchy_: () => [f(3)],
    fill_diagonal_: () => [f(3, 3), 1],
    empty: () => [[2]],
    ldexp: () => [f(3), f(3)],
    dropout: () => [f(3), 0.5, true],
    native_dropout: () => [f(3), 0.5, true],
    celu: () => [f(3)],
    native_norm: () => [f(3)],
    is_nonzero: () => [f(1)],
    pow: () => [f(3), 2],
    std: () => [f(3)],
    hann_window: () => [4],
    hamming_window: () => [4],
    bartlett_window: () => [4],
    blackman_window: () => [4],
    kaiser_window: () => [4],
  };
  for (const name of ["bitwise_or", "bitwise_xor", "bitwise_left_shift", "bitwise_right_shift"])
    table[name] = integers;
  for (const name of [
    "cholesky",
    "cholesky_ex",
    "det",
    "eig",
    "eigh",
    "eigvals",
    "eigvalsh",
    "inv",
    "inv_ex",
    "slogdet",
    "matrix_exp",
  ])
    table[`linalg_${name}`] ??= () => [square()];
  return table;
}

/** Public operators that cannot run here, and why. */
const LEFT_OUT: Record<string, string> = JSON.parse(
  readFileSync(join(root, "test/fixtures/torch/left_out.json"), "utf8"),
);

const PREFIXES: [string, Any][] = [
  ["linalg_", torch.linalg],
  ["fft_", torch.fft],
  ["special_", torch.special],
];

function find(name: string): ((...args: Any[]) => Any) | undefined {
  for (const [prefix, space] of PREFIXES)
    if (name.startsWith(prefix)) return space[name.slice(prefix.length)];
  return (torch as Any)[name] ?? (torch._nn as Any)[name];
}

function argumentsOf(name: string, schema: Schema): Any[] {
  const known =
    ARGUMENTS[name] ?? ARGUMENTS[name.replace(/_$/, "")] ?? ARGUMENTS[name.replace(/^special_/, "")];
  if (known) return known();
  const needed = schema.parameters.filter((parameter) => parameter.default === undefined);
  const args = needed
    .filter(({ keywordOnly }) => !keywordOnly)
    .map(({ type, list, size }) => sample(type, list, size));
  const named = needed
    .filter(({ keywordOnly }) => keywordOnly)
    .map(({ name: key, type, list, size }) => [key, sample(type, list, size)]);
  return named.length > 0 ? [...args, Object.fromEntries(named)] : args;
}

t.test("every generated function runs", (test) => {
  const names = [...new Set(schemas.map(({ name }) => name))];
  const failures: Record<string, string> = {};
  let called = 0;
  for (const name of names) {
    const schema = schemas.find((one) => one.name === name) as Schema;
    try {
      torch.tidy(() => {
        const args = argumentsOf(name, schema);
        const as = find(name);
        if (as) as(...args);
        // A method's receiver is the argument named self, wherever the function has it.
        const descriptor = Object.getOwnPropertyDescriptor(torch.Tensor.prototype, name);
        if (descriptor?.value) {
          const again = argumentsOf(name, schema);
          const [self] = again.splice(
            Math.max(
              0,
              schema.parameters.findIndex((parameter) => parameter.name === "self"),
            ),
            1,
          );
          if (self instanceof torch.Tensor) (self as Any)[name](...again);
        }
        if (!as && !descriptor) throw new Error("is neither a function nor a method");
      });
      called++;
    } catch (error) {
      failures[name] = (error as Error).message.split("\n")[0] as string;
    }
  }
  const unexpected = Object.entries(failures).filter(([name]) => !(name in LEFT_OUT));
  test.same(unexpected, [], `${called} of ${names.length} operators run`);
  if (!torch.cuda.is_available())
    test.same(
      Object.keys(LEFT_OUT).filter((name) => !(name in failures)),
      [],
      "what is left out does fail",
    );
  test.end();
});
