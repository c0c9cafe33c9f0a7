"""Makes test/fixtures/torch/*.json with Python torch 2.11: what operators, indexing, printing and random numbers give.

Run: python scripts/goldens/tensor.py   (needs torch 2.11.0; the output is committed)

A tensor is {"t": [dtype, shape, values]}; complex values are [re, im] pairs; "nan", "inf", "-inf" are strings.
"""
import itertools
import json
import math
import pathlib
import random

import torch

OUT = pathlib.Path(__file__).resolve().parents[2] / "test" / "fixtures" / "torch"


def number(x):
    if isinstance(x, bool) or isinstance(x, int):
        return x
    if isinstance(x, complex):
        return [number(x.real), number(x.imag)]
    if math.isnan(x) or math.isinf(x):
        return str(x)
    return float(f"{x:.9g}")


def encode(x):
    if isinstance(x, torch.Tensor):
        return {"t": [str(x.dtype)[6:], list(x.shape), [number(v) for v in x.detach().reshape(-1).tolist()]]}
    if isinstance(x, torch.dtype):
        return {"d": str(x)[6:]}
    if isinstance(x, (tuple, list)):
        return [encode(v) for v in x]
    if isinstance(x, dict):
        return {k: encode(v) for k, v in x.items()}
    if isinstance(x, float):
        return {"f": number(x)} if not math.isfinite(x) or x == int(x) else number(x)
    return x


def write(name, cases):
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    (OUT / name).write_text("[\n" + lines + "\n]\n")
    print(name, len(cases))


rng = random.Random(7)


def make(*shape, dtype="float32", low=-3, high=3):
    count = math.prod(shape)
    dt = getattr(torch, dtype)
    if dtype == "bool":
        return torch.tensor([rng.random() < 0.5 for _ in range(count)]).reshape(shape)
    if dt.is_complex:
        return torch.tensor([complex(rng.randint(-8, 8) / 4, rng.randint(-8, 8) / 4) for _ in range(count)], dtype=dt).reshape(shape)
    if not dt.is_floating_point:
        return torch.tensor([rng.randint(max(low, 0) if dtype.startswith("u") else low, high) for _ in range(count)], dtype=dt).reshape(shape)
    return torch.tensor([rng.randint(int(low * 8), int(high * 8)) / 8 for _ in range(count)], dtype=dt).reshape(shape)


# operators ------------------------------------------------------------------------------------------------------

ops = []


def case(path, *args, **options):
    """`path` is "add", "Tensor.add" (a method), "linalg.norm", "_nn.gelu"."""
    head, _, name = path.rpartition(".")
    owner = {"": torch, "_nn": torch._C._nn, "linalg": torch.linalg, "fft": torch.fft, "special": torch.special}.get(head)
    # In-place operators change their inputs: write these down first.
    record = {"op": path, "a": encode(list(args))}
    if options:
        record["o"] = encode(options)
    call = getattr(args[0], name) if head == "Tensor" else getattr(owner, name)
    result = call(*(args[1:] if head == "Tensor" else args), **options)
    record["r"] = encode(result)
    ops.append(record)


def both(name, *args, **options):
    case(name, *args, **options)
    case("Tensor." + name, *args, **options)


def op_cases():
    x, y = make(2, 3), make(2, 3)
    pos = make(2, 3, low=0.25)
    for name in ("abs neg exp expm1 sin cos tan tanh sigmoid relu floor ceil round trunc frac sign square reciprocal "
                 "erf sinh cosh atan asinh isnan isfinite isinf exp2 logical_not positive deg2rad rad2deg sinc signbit "
                 "nan_to_num absolute arctan negative softmax_none digamma lgamma i0").split():
        if name != "softmax_none":
            both(name, x)
    for name in "sqrt rsqrt log log2 log10 log1p".split():
        both(name, pos)
    # type promotion: all pairs of kinds, with dimensions, without, and with numbers
    dtypes = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64"]
    for a, b in itertools.product(dtypes, dtypes):
        case("add", make(2, dtype=a), make(2, dtype=b))
        case("mul", make(2, dtype=a), make(dtype=b))
        case("result_type", make(2, dtype=a), make(dtype=b))
        case("promote_types", getattr(torch, a), getattr(torch, b))
        case("can_cast", getattr(torch, a), getattr(torch, b))
    for a in dtypes:
        for n in (2, 2.5, True, 3.0):
            case("mul", make(2, dtype=a), n)
            case("Tensor.add", make(2, dtype=a), n)
            case("mul", make(dtype=a), n)
            case("result_type", make(2, dtype=a), n)
            if a != "bool":
                case("sub", n if n is not True else 4, make(2, dtype=a))
            case("div", make(2, dtype=a, low=1), n)
            case("div", n, make(2, dtype=a, low=1) if a != "bool" else torch.tensor([True, True]))
            if not (a == "bool" and n is True):
                case("pow", make(2, dtype=a, low=1), n)
            case("eq", make(2, dtype=a), n)
        case("sum", make(2, 2, dtype=a))
        case("prod", make(2, 2, dtype=a))
        case("cumsum", make(2, 2, dtype=a), 0)
        case("where", torch.tensor([True, False]), make(2, dtype=a), 1.5)
        case("where", torch.tensor([True, False]), 2, make(2, dtype=a))
        case("full_like", make(2, dtype=a), 1)
    for name in "add sub mul div".split():
        both(name, x, y)
        both(name, x, 2)
        both(name, 2, y) if False else case(name, 2, y)
        case("Tensor." + name + "_", make(2, 3), y)
        case("Tensor." + name + "_", make(2, 3), 2)
    both("add", x, y, alpha=3)
    both("sub", x, 2, alpha=3)
    for mode in (None, "floor", "trunc"):
        both("div", x, make(2, 3, low=1), rounding_mode=mode)
        both("div", make(3, dtype="int64"), 2, rounding_mode=mode)
    for name in "maximum minimum atan2 fmod remainder floor_divide hypot logaddexp copysign eq ne lt le gt ge logical_and logical_or logical_xor".split():
        both(name, x, make(2, 3, low=1))
    for name in "fmod remainder floor_divide lt le gt ge ne".split():
        both(name, x, 2)
        both(name, make(3, dtype="int64"), 2.5)
    for name in "bitwise_and bitwise_or bitwise_xor".split():
        both(name, make(4, dtype="int64"), make(4, dtype="int64"))
        both(name, make(4, dtype="int64"), 3)
    both("pow", pos, y)
    both("pow", x, 2)
    case("pow", 2, x)
    both("lerp", x, y, 0.25)
    both("lerp", x, y, pos)
    both("clamp", x, -1, 1)
    both("clamp", x, min=0)
    both("clamp", x, max=0.5)
    both("clamp", x, None, 1)
    both("clamp", x, torch.zeros(3), torch.ones(3))
    both("addcmul", x, y, y, value=0.5)
    both("addcdiv", x, y, make(2, 3, low=1))
    # reductions
    for name in "sum mean amax amin any all logsumexp".split():
        if name != "logsumexp":
            if name not in ("amax", "amin"):
                both(name, x)
        both(name, x, 1)
        both(name, x, -1, True)
        both(name, x, dim=0, keepdim=True)
    both("amax", x)
    both("amax", x, (0, 1))
    both("sum", x, (0, 1))
    both("sum", x, [1], keepdim=True, dtype=torch.float64)
    both("sum", x, dtype=torch.float64)
    both("mean", x, (0, 1), keepdim=True)
    both("mean", make(3, dtype="int64"), dtype=torch.float32)
    for name in "std var".split():
        both(name, x)
        both(name, x, False)
        both(name, x, 1)
        both(name, x, 1, correction=0)
        both(name, x, dim=0, unbiased=False, keepdim=True)
        both(name, x, dim=1, correction=2, keepdim=True)
    case("var_mean", x, 1)
    case("std_mean", x, dim=0, keepdim=True)
    for name in "max min median".split():
        both(name, x)
        both(name, make(5), 0)
        both(name, make(2, 5), 1, True)
        both(name, make(2, 5), dim=1, keepdim=True)
    both("max", x, y)
    both("argmax", x)
    both("argmax", make(2, 5), 1)
    both("argmin", make(2, 5), dim=1, keepdim=True)
    both("topk", torch.tensor([[1.0, 5, 2, 4], [3, 9, 0, 7]]), 2)
    both("topk", torch.tensor([1.0, 5, 2, 4]), 2, largest=False)
    both("topk", torch.tensor([1.0, 5, 2, 4]), 3, 0, True, True)
    both("sort", torch.tensor([3.0, 1, 2]))
    both("sort", torch.tensor([[3.0, 1, 2], [6, 5, 4]]), 1, True)
    both("sort", torch.tensor([3.0, 1, 2]), descending=True)
    both("sort", torch.tensor([1, 0, 1, 0]), stable=True)
    both("argsort", torch.tensor([3.0, 1, 2]), descending=True)
    both("kthvalue", torch.tensor([3.0, 1, 2]), 2)
    both("cumsum", x, 1)
    both("cumsum", x, dim=0, dtype=torch.float64)
    both("cumprod", x, 1)
    both("cummax", make(5), 0)
    both("prod", x, 1, True)
    both("norm", x)
    both("norm", x, 1)
    both("norm", x, dim=1)
    both("norm", x, 2, 1, True)
    both("norm", x, "nuc")
    both("count_nonzero", torch.tensor([1, 0, 2]))
    both("unique", torch.tensor([3, 1, 3, 2, 1]))
    both("unique", torch.tensor([3, 1, 3, 2, 1]), return_inverse=True, return_counts=True)
    both("unique", torch.tensor([[1, 2], [1, 2], [0, 1]]), dim=0)
    both("unique_consecutive", torch.tensor([1, 1, 2, 1]), return_counts=True)
    both("quantile", x, 0.5)
    both("diff", make(4))
    both("histc", make(6), bins=3)
    both("bincount", torch.tensor([1, 2, 2, 5]))
    # shapes
    z = make(2, 3, 4)
    for args in [(6, 4), ((6, 4),), (-1,), ((2, -1),)]:
        case("Tensor.view", z, *args)
        case("Tensor.reshape", z, *args)
    case("reshape", z, (4, 6))
    case("Tensor.permute", z, 2, 0, 1)
    case("Tensor.permute", z, (1, 0, 2))
    case("permute", z, (2, 1, 0))
    both("transpose", z, 0, 2)
    both("transpose", z, dim0=1, dim1=2)
    both("unsqueeze", x, -1)
    both("squeeze", make(1, 3, 1))
    both("squeeze", make(1, 3, 1), 0)
    both("squeeze", make(1, 3, 1), (0, 2))
    case("Tensor.expand", make(1, 3), 2, 3)
    case("Tensor.expand", make(3), (2, -1))
    case("Tensor.repeat", make(3), 2, 2)
    both("tile", make(3), (2, 1))
    both("flip", z, (0, 2))
    case("Tensor.flip", z, 0, 1)
    both("roll", z, 1)
    both("roll", z, (1, 2), (0, 1))
    both("flatten", z)
    both("flatten", z, 1)
    both("flatten", z, start_dim=0, end_dim=1)
    both("unflatten", z, 2, (2, 2))
    both("chunk", make(5), 2)
    both("split", make(5), 2)
    both("split", make(2, 5), [1, 4], dim=1)
    both("tensor_split", make(5), 2)
    both("tensor_split", make(5), (1, 3))
    both("unbind", x)
    both("unbind", x, 1)
    both("narrow", z, 1, 1, 2)
    both("select", z, 1, -1)
    both("movedim", z, 0, 2)
    both("movedim", z, (0, 1), (1, 0))
    both("swapaxes", z, 0, 1)
    both("t", x)
    both("tril", make(3, 3))
    both("triu", make(3, 3), 1)
    both("tril", make(3, 3), diagonal=-1)
    both("diag", make(3))
    both("diagonal", make(3, 3), 1)
    both("diag_embed", make(3))
    both("rot90", x)
    both("take", x, torch.tensor([0, 4]))
    both("repeat_interleave", make(3), 2)
    both("repeat_interleave", make(2, 2), torch.tensor([1, 2]), dim=0)
    both("broadcast_to", make(3), (2, 3))
    case("Tensor.expand_as", make(3), x)
    case("Tensor.unfold", make(7), 0, 3, 2)
    case("cat", [x, y])
    case("cat", (x, y), 1)
    case("cat", [x, make(2, 3, dtype="float64")], dim=-1)
    case("stack", [x, y])
    case("stack", [x, y], dim=1)
    for name in "hstack vstack dstack column_stack".split():
        case(name, [x, y])
    case("meshgrid", make(2), make(3), indexing="ij")
    case("meshgrid", make(2), make(3), indexing="xy")
    case("cartesian_prod", make(2), make(3))
    case("block_diag", x, make(2, 2))
    case("broadcast_tensors", make(3), make(2, 1))
    case("atleast_2d", make(3))
    case("combinations", make(4), 2)
    # indexing operators
    idx = torch.tensor([[0, 2, 1], [1, 1, 0]])
    both("index_select", x, 1, torch.tensor([2, 0]))
    both("gather", x, 1, idx)
    both("scatter", torch.zeros(2, 3), 1, idx, y)
    both("scatter", torch.zeros(2, 3), 1, idx, 5)
    both("scatter", torch.ones(2, 3), 1, idx, 5, reduce="add")
    both("scatter_add", torch.zeros(2, 3), 1, idx, y)
    both("scatter_reduce", torch.zeros(2, 3), 1, idx, y, reduce="amax")
    both("index_add", torch.zeros(3, 2), 0, torch.tensor([0, 2]), make(2, 2))
    both("index_fill", make(3, 2), 0, torch.tensor([0, 2]), 7)
    both("index_copy", make(3, 2), 0, torch.tensor([0, 2]), make(2, 2))
    both("masked_fill", x, x > 0, 9)
    both("masked_fill", x, x > 0, -math.inf)
    both("masked_select", x, x > 0)
    both("masked_scatter", x, x > 0, y)
    both("nonzero", torch.tensor([[1, 0], [0, 2]]))
    both("argwhere", torch.tensor([[1, 0], [0, 2]]))
    case("where", torch.tensor([[1, 0], [0, 2]]))
    case("where", x > 0, x, y)
    case("where", x > 0, 1, 0)
    case("where", x > 0, 1.5, 0)
    case("where", x > 0, x, -math.inf)
    case("Tensor.where", x, x > 0, y)
    both("take_along_dim", x, idx, 1)
    both("isin", torch.tensor([1, 2, 3]), torch.tensor([2])) if False else case("isin", torch.tensor([1, 2, 3]), torch.tensor([2]))
    case("isin", torch.tensor([1, 2, 3]), 2)
    case("searchsorted", torch.tensor([1.0, 3, 5]), torch.tensor([2.0, 5]))
    case("searchsorted", torch.tensor([1.0, 3, 5]), 5, right=True)
    case("bucketize", torch.tensor([2.0, 5]), torch.tensor([1.0, 3, 5]))
    # products
    both("matmul", x, make(3, 2))
    both("matmul", make(2, 2, 3), make(3, 2))
    both("mm", x, make(3, 2))
    both("bmm", make(2, 2, 3), make(2, 3, 2))
    both("mv", x, make(3))
    both("dot", make(3), make(3))
    both("outer", make(2), make(3))
    both("addmm", make(2, 2), x, make(3, 2))
    both("addmm", make(2, 2), x, make(3, 2), beta=0.5, alpha=2)
    both("baddbmm", make(2, 2, 2), make(2, 2, 3), make(2, 3, 2))
    both("kron", make(2, 2), make(1, 2))
    both("cross", make(2, 3), make(2, 3), dim=1)
    case("einsum", "ij,jk->ik", x, make(3, 2))
    case("einsum", "bij,bjk,k->bi", make(2, 2, 3), make(2, 3, 2), make(2))
    case("tensordot", make(2, 3), make(3, 2), 1)
    case("tensordot", make(2, 3, 4), make(4, 3), ([1, 2], [1, 0]))
    case("cdist", make(2, 3), make(4, 3))
    case("cdist", make(2, 3), make(4, 3), 1.0)
    case("_nn.linear", x, make(4, 3), make(4))
    case("_nn.linear", x, make(4, 3))
    case("bilinear", make(2, 3), make(2, 2), make(4, 3, 2), None)
    case("linalg.norm", x)
    case("linalg.norm", x, 1, 1)
    case("linalg.vector_norm", x, 3, dim=1, keepdim=True)
    case("linalg.inv", torch.tensor([[2.0, 1], [1, 3]]))
    case("linalg.det", torch.tensor([[2.0, 1], [1, 3]]))
    case("linalg.solve", torch.tensor([[2.0, 1], [1, 3]]), torch.tensor([1.0, 2]))
    case("linalg.cholesky", torch.tensor([[2.0, 1], [1, 3]]))
    case("linalg.eigvalsh", torch.tensor([[2.0, 1], [1, 3]]))
    case("linalg.svdvals", x)
    case("linalg.matrix_power", make(2, 2), 3)
    case("fft.fft", make(4))
    case("fft.rfft", make(6))
    case("fft.irfft", torch.fft.rfft(make(6)))
    case("fft.fftfreq", 4)
    case("fft.fftshift", make(5))
    case("special.expit", x)
    case("special.log_softmax", x, 1)
    case("special.xlogy", pos, pos)
    case("stft", make(16), 4, hop_length=2, window=torch.ones(4), return_complex=True)
    # layers
    both("softmax", x, 1)
    both("softmax", x, -1, dtype=torch.float64)
    both("log_softmax", x, dim=0)
    w = make(5, 3)
    case("embedding", w, torch.tensor([[0, 4], [2, 2]]))
    case("embedding", w, torch.tensor([[0, 4], [2, 2]]), padding_idx=0)
    case("layer_norm", x, [3], make(3), make(3), 1e-5)
    case("layer_norm", x, (3,))
    case("rms_norm", x, (3,), make(3), 1e-6)
    case("rms_norm", x, [3], eps=1e-6)
    case("group_norm", make(2, 4, 3), 2)
    case("conv1d", make(1, 2, 6), make(3, 2, 3), make(3), 1, 1)
    case("conv1d", make(1, 2, 6), make(3, 2, 3), padding="same")
    case("conv2d", make(1, 2, 5, 5), make(3, 2, 3, 3), stride=2)
    case("conv2d", make(1, 2, 5, 5), make(2, 1, 3, 3), padding=(1, 0), groups=2)
    case("conv_transpose1d", make(1, 2, 4), make(2, 3, 3), stride=2)
    case("max_pool1d", make(1, 2, 6), 2)
    case("_nn.avg_pool2d", make(1, 1, 4, 4), 2)
    case("_nn.adaptive_avg_pool2d", make(1, 1, 4, 4), (2, 2))
    case("_nn.gelu", x)
    case("_nn.gelu", x, approximate="tanh")
    case("_nn.silu", x)
    case("_nn.leaky_relu", x, 0.1)
    case("_nn.softplus", x)
    case("_nn.hardtanh", x)
    case("_nn.elu", x)
    case("_nn.glu", make(2, 4))
    case("_nn.one_hot", torch.tensor([0, 2]), 3)
    case("_nn.pad", x, (1, 1), value=9)
    case("_nn.pad", make(1, 2, 3), (1, 1), mode="reflect")
    case("_nn.cross_entropy_loss", make(2, 3), torch.tensor([0, 2]), reduction=1)
    case("_nn.cross_entropy_loss", make(2, 3), torch.tensor([0, -100]), reduction=1, label_smoothing=0.1)
    case("_nn.mse_loss", x, y, 1)
    case("_nn.nll_loss_nd", make(2, 3), torch.tensor([0, 2]), reduction=2)
    case("_nn.scaled_dot_product_attention", make(1, 2, 3, 4), make(1, 2, 3, 4), make(1, 2, 3, 4))
    case("_nn.scaled_dot_product_attention", make(1, 2, 3, 4), make(1, 2, 3, 4), make(1, 2, 3, 4), is_causal=True)
    case("_nn.scaled_dot_product_attention", make(1, 2, 3, 4), make(1, 2, 3, 4), make(1, 2, 3, 4), torch.ones(3, 3).tril().bool(), scale=0.5)
    case("_nn.upsample_nearest1d", make(1, 1, 3), [6], None)
    case("_nn.upsample_bilinear2d", make(1, 1, 2, 2), (4, 4), False, None)
    case("prelu", x, torch.tensor([0.25]))
    case("pixel_shuffle", make(1, 4, 2, 2), 2)
    case("cosine_similarity", x, y)
    case("pairwise_distance", x, y)
    # creation
    case("zeros", 2, 3)
    case("zeros", (2, 3), dtype=torch.int64)
    case("ones", [2], dtype=torch.bfloat16)
    case("full", (2,), 1)
    case("full", (2,), 1.5)
    case("full", [2], True)
    case("full", [2], 3.0)
    case("full", (2,), 1, dtype=torch.float16)
    case("arange", 5)
    case("arange", 1, 2.5, 0.5)
    case("arange", 0, 10, 3)
    case("arange", 5.0)
    case("arange", start=1, end=4)
    case("arange", 3, dtype=torch.float32)
    case("linspace", 0, 1, 5)
    case("logspace", 0, 2, 3)
    case("eye", 3)
    case("eye", 2, 3, dtype=torch.int32)
    case("tril_indices", 3, 3)
    case("zeros_like", x, dtype=torch.int8)
    case("ones_like", x)
    case("full_like", x, 7)
    case("scalar_tensor", 3)
    case("hann_window", 6)
    case("hamming_window", 5, periodic=False)
    case("complex", make(2), make(2))
    case("polar", pos, x)
    case("view_as_real", make(2, dtype="complex64"))
    for m in ("new_zeros", "new_ones", "new_full"):
        case("Tensor." + m, make(2, dtype="float64"), (2, 2), *([5] if m == "new_full" else []))
    # conversion
    for dt in dtypes:
        case("Tensor.to", make(3), getattr(torch, dt))
    case("Tensor.type_as", make(3), make(1, dtype="int64"))
    case("Tensor.float", make(3, dtype="int64"))
    case("Tensor.half", make(3))
    case("allclose", x, x + 1e-9)
    case("equal", x, x)
    case("isclose", x, y, rtol=1)
    case("is_floating_point", x)
    case("is_complex", x)
    case("Tensor.item", torch.tensor(3))
    case("Tensor.item", torch.tensor(True))
    case("Tensor.tolist", make(2, 2, dtype="int64"))
    case("Tensor.fill_", make(2), 3)
    case("Tensor.zero_", make(2))
    case("Tensor.copy_", make(2), make(2, dtype="int64"))
    case("Tensor.masked_fill_", make(2, 3), x > 0, 0.0)
    case("broadcast_shapes", (2, 1), (3,))


# indexing -------------------------------------------------------------------------------------------------------

def random_index(shape):
    """An index of Python and the same in JSON; not always a valid one."""
    python, written = [], []
    dim = 0
    ellipsis = False
    advanced = rng.random() < 0.5
    common = rng.choice([(), (1,), (2,), (2, 2), (3, 1)])
    for _ in range(rng.randint(0, len(shape) + 2)):
        kind = rng.choice(["int", "slice", "slice", "none", "..."] + (["ints", "ints", "mask", "bool", "zero", "list"] if advanced else []))
        if kind == "..." and ellipsis:
            continue
        size = shape[dim] if dim < len(shape) else 1
        if kind == "int":
            i = rng.randint(-size, max(size - 1, 0)) if rng.random() < 0.97 else size + 1
            python.append(i), written.append(i)
            dim += 1
        elif kind == "slice":
            a, b, c = rng.choice([None, rng.randint(-size - 1, size + 1)]), rng.choice([None, rng.randint(-size - 1, size + 1)]), rng.choice([None, 1, 2, 3])
            python.append(slice(a, b, c)), written.append({"s": [a, b, c]})
            dim += 1
        elif kind == "none":
            python.append(None), written.append(None)
        elif kind == "...":
            python.append(Ellipsis), written.append("...")
            ellipsis = True
            dim = max(dim, len(shape) - rng.randint(0, 2))
        elif kind == "ints":
            t = torch.tensor([rng.randint(-size, max(size - 1, 0)) for _ in range(math.prod(common))]).reshape(common)
            python.append(t), written.append(encode(t))
            dim += 1
        elif kind == "zero":
            t = torch.tensor(rng.randint(-size, max(size - 1, 0)), dtype=rng.choice([torch.int64, torch.int32]))
            python.append(t), written.append(encode(t))
            dim += 1
        elif kind == "list":
            t = [rng.randint(0, max(size - 1, 0)) for _ in range(common[0] if common else 1)]
            python.append(torch.tensor(t)), written.append({"l": t})
            dim += 1
        elif kind == "mask":
            n = rng.randint(0, 2)
            dims = shape[dim:dim + n]
            t = torch.tensor([rng.random() < 0.6 for _ in range(math.prod(dims))]).reshape(dims)
            python.append(t), written.append(encode(t))
            dim += len(dims)
        else:
            b = rng.random() < 0.7
            python.append(b), written.append(b)
    return tuple(python), written


def index_cases():
    get, put = [], []
    shapes = [(), (5,), (3, 4), (2, 3, 4), (2, 1, 3, 2), (0, 3)]
    while len(get) < 600:
        shape = rng.choice(shapes)
        x = torch.arange(math.prod(shape)).reshape(shape)
        index, written = random_index(shape)
        if not written:
            continue
        try:
            out = x[index]
            view = out.numel() > 0 and out.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
            get.append({"x": list(shape), "i": written, "s": list(out.shape), "v": out.reshape(-1).tolist(), "view": view})
        except Exception:
            if sum("e" in g for g in get) < 60:
                get.append({"x": list(shape), "i": written, "e": 1})
    while len(put) < 300:
        shape = rng.choice(shapes[1:])
        x = torch.zeros(shape, dtype=torch.int64)
        index, written = random_index(shape)
        if not written:
            continue
        try:
            target = torch.zeros(shape, dtype=torch.int64)[index]
            kind = rng.choice(["number", "tensor", "tensor", "row", "ones"])
            if kind == "number":
                value = 7
            elif kind == "row":
                value = torch.arange(target.shape[-1] if target.dim() else 1) + 1
            elif kind == "ones":
                value = (torch.arange(target.numel()) + 1).reshape((1, 1) + tuple(target.shape))
            else:
                value = (torch.arange(target.numel()) + 1).reshape(target.shape)
            x[index] = value
            # With repeated positions the order of writes is not defined.
            if any(isinstance(i, torch.Tensor) and i.dtype != torch.bool for i in index) and kind != "number":
                seen = torch.arange(math.prod(shape)).reshape(shape)[index].reshape(-1).tolist()
                if len(set(seen)) != len(seen):
                    continue
            put.append({"x": list(shape), "i": written, "w": encode(value), "v": x.reshape(-1).tolist()})
        except Exception:
            pass
    return {"get": get, "put": put}


# printing -------------------------------------------------------------------------------------------------------

def print_cases():
    cases = []

    def show(t, options=None, **flags):
        torch.set_printoptions(profile="default", sci_mode=None)
        if options:
            torch.set_printoptions(**options)
        record = {"x": encode(t), "p": str(t)}
        if options:
            record["o"] = options
        record.update(flags)
        cases.append(record)

    for dt in ["float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool", "complex64", "complex128"]:
        for shape in [(), (1,), (5,), (30,), (3, 4), (2, 3, 4), (0,), (0, 3), (2, 0)]:
            show(make(*shape, dtype=dt))
    specials = [0.0, -0.0, math.nan, math.inf, -math.inf]
    for values in [[0.0], [0.0, -0.0], [math.nan], [math.inf, 1.0], [-math.inf, 0.5], specials, specials + [1.5], specials + [1e10],
                   [1e-5, 1.0], [1e-4, 1.0], [1e5, 1.0], [1e4, 1.5], [1e8, 1e8], [2e8], [123456.0, 1.0], [1000.0, 1.0], [1001.0, 1.0],
                   [0.1, 0.2], [1 / 3, -2 / 3], [0.00001], [3e38, 1.0], [1e-40], [0.03125, 0.09375, 0.5], [2.5, 3.5], [1.00005, 7.0],
                   [1e22, 3e22], [12345678.0], [-1.0, 10.0, 100.0], [0.5, 100.0, 999.0], [1e-3, 1e-1], [0.99999, 1.99999], [1e300, 1e-300],
                   [100000000.0], [99999999.0], [16777216.0, 2.0], [1.5, math.nan, -math.inf]]:
        for dt in (torch.float32, torch.float64):
            show(torch.tensor(values, dtype=dt))
        show(torch.tensor(values)[0])
    for options in [{"precision": 2}, {"precision": 8}, {"sci_mode": True}, {"sci_mode": False}, {"threshold": 5}, {"threshold": 5, "edgeitems": 1},
                    {"linewidth": 40}, {"profile": "short"}, {"profile": "full"}, {"precision": 0}, {"precision": 3, "sci_mode": True}]:
        for t in (make(12), make(4, 7), make(3, 3, 8), torch.tensor([1e-6, 1.0, 3.25]), make(9, dtype="int64"), make(7, dtype="complex64"),
                  torch.tensor([1.0, 2.0]), torch.tensor([0.0625, 0.1875, 0.3125])):
            show(t, options)
    for shape in [(1001,), (50, 50), (7, 200), (200, 7), (11, 11, 11), (2, 2, 300), (1, 1, 1, 1200), (6, 6, 40)]:
        n = math.prod(shape)
        torch.set_printoptions(profile="default", sci_mode=None)
        for dt in ("float32", "int64"):
            t = (torch.arange(n).remainder(97).to(getattr(torch, dt)) / (8 if dt == "float32" else 1)).to(getattr(torch, dt)).reshape(shape)
            cases.append({"mod": list(shape), "dtype": dt, "p": str(t)})
    torch.set_printoptions(profile="default", sci_mode=None)
    for t in (make(2), make(2, 3), make(20)):
        record = {"x": encode(t), "grad": True, "p": str(t.clone().requires_grad_())}
        cases.append(record)
        cases.append({"x": encode(t), "grad": True, "mul": 2, "p": str(t.clone().requires_grad_() * 2)})
    for shape in [(), (3,), (2, 3)]:
        for dt in ("float32", "float16", "int64"):
            cases.append({"meta": list(shape), "dtype": dt, "p": str(torch.empty(shape, dtype=getattr(torch, dt), device="meta"))})
    return cases


# random numbers -------------------------------------------------------------------------------------------------

def random_cases():
    cases = []

    def draw(seed, op, *args, **options):
        torch.manual_seed(seed)
        head, _, name = op.rpartition(".")
        call = getattr(args[0].clone(), name) if head else getattr(torch, name)
        record = {"seed": seed, "op": op, "a": encode(list(args)), "o": encode(options)}
        record["r"] = encode(call(*(args[1:] if head else args), **options))
        cases.append(record)

    for seed in (0, 1, 42, 2**40 + 7):
        for size in ([3], [4, 5], [20], [2, 3, 11]):
            for op in ("rand", "randn"):
                for dt in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
                    if math.prod(size) < 25 or dt == torch.float32:
                        draw(seed, op, size, dtype=dt)
            draw(seed, "randint", 10, size)
            draw(seed, "randint", -5, 2**40, size)
        draw(seed, "randperm", 12)
        draw(seed, "Tensor.normal_", torch.zeros(18), mean=1.5, std=0.25)
        draw(seed, "Tensor.uniform_", torch.zeros(5), -2, 2.5)
        draw(seed, "Tensor.bernoulli_", torch.zeros(9), 0.3)
        draw(seed, "Tensor.exponential_", torch.zeros(9))
        draw(seed, "bernoulli", torch.full([7], 0.4))
        draw(seed, "multinomial", torch.tensor([0.1, 0.2, 0.3, 0.4]), 3)
        draw(seed, "multinomial", torch.tensor([[0.1, 0.9], [0.5, 0.5]]), 6, True)
        draw(seed, "multinomial", torch.tensor([[0.1, 0.9], [0.5, 0.5]]), 1)
        draw(seed, "normal", 0.5, 2.0, [6])
        draw(seed, "poisson", torch.full([5], 3.0))
        draw(seed, "dropout", torch.ones(12), 0.5, True)
        draw(seed, "rand_like", torch.zeros(3))
        draw(seed, "randn_like", torch.zeros(3, dtype=torch.float64))
    return cases


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    op_cases()
    write("ops.json", ops)
    cases = index_cases()
    write("index_get.json", cases["get"])
    write("index_put.json", cases["put"])
    write("print.json", print_cases())
    write("random.json", random_cases())
