"""Writes test/fixtures/nn/: layers, functions, initial values, optimizers and schedulers of Python torch.

    python scripts/goldens/nn.py   (needs torch 2.11.0 and safetensors; the output is committed)

A case names a class or function, its arguments and options, and what must come out. A string that starts with "@" is a
tensor in the .safetensors file beside it. The order of the lists is that of the test, which draws from the same seeds.
"""

import inspect
import json
import math
import pathlib
import warnings

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn, optim
from torch.optim import lr_scheduler

warnings.filterwarnings("ignore")
OUT = pathlib.Path(__file__).resolve().parents[2] / "test" / "fixtures" / "nn"
INF = float("inf")


class Store:
    """Tensors of one fixture file; equal ones are kept once."""

    def __init__(self):
        self.tensors = {}

    def put(self, tensor):
        tensor = tensor.detach().clone().contiguous()
        for name, known in self.tensors.items():
            if known.dtype == tensor.dtype and known.shape == tensor.shape and torch.equal(known, tensor):
                return "@" + name
        name = str(len(self.tensors))
        self.tensors[name] = tensor
        return "@" + name

    def encode(self, value):
        if isinstance(value, torch.Tensor):
            return self.put(value)
        if isinstance(value, (list, tuple)):
            return [self.encode(item) for item in value]
        if isinstance(value, dict):
            return {key: self.encode(item) for key, item in value.items()}
        if isinstance(value, float) and math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        return value


def write(name, cases, store=None):
    lines = ",\n".join(json.dumps(case, separators=(",", ":"), ensure_ascii=False) for case in cases)
    (OUT / f"{name}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    if store:
        save_file(store.tensors, OUT / f"{name}.safetensors")


def randn(*shape):
    return ("randn", shape)


def ints(high, *shape):
    return ("ints", high, shape)


def probs(*shape):
    return ("probs", shape)


def make(spec):
    """The input that a spec stands for; anything else is itself."""
    match spec:
        case ("randn", shape):
            return torch.randn(shape)
        case ("ints", high, shape):
            return torch.randint(high, shape)
        case ("probs", shape):
            return torch.rand(shape) * 0.9 + 0.05
        case [*specs] if specs and isinstance(specs[0], tuple):
            return [make(item) for item in specs]
        case _:
            return spec


def tensors_of(value):
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for item in value if item is not None for t in tensors_of(item)] if isinstance(value, (list, tuple)) else []


def weighted_sum(outputs):
    """A loss in which each entry of the outputs has a weight of its own."""
    total = 0
    for out in outputs:
        if out.is_floating_point() and out.requires_grad:
            total = total + (out * torch.cos(torch.arange(out.numel(), dtype=out.dtype).reshape(out.shape))).sum()
    return total


# Layers -------------------------------------------------------------------------------------------------------

X2, X3, X4, X5 = randn(3, 6), randn(2, 4, 9), randn(2, 4, 7, 6), randn(2, 4, 4, 5, 3)
LAYERS = [
    ("Identity", [], {}, [X2]),
    ("Linear", [6, 5], {}, [X2]),
    ("Linear", [6, 5, False], {}, [randn(2, 3, 6)]),
    ("Linear", [6, 1], {"dtype": "float64"}, []),
    ("Bilinear", [6, 4, 3], {}, [X2, randn(3, 4)]),
    ("Bilinear", [6, 4, 3], {"bias": False}, [X2, randn(3, 4)]),
    ("Embedding", [10, 4], {}, [ints(10, 2, 5)]),
    ("Embedding", [10, 4], {"padding_idx": -1}, [torch.tensor([[9, 1, 2], [3, 9, 9]])]),
    ("Embedding", [10, 4], {"padding_idx": 0, "max_norm": 0.7, "norm_type": 1.0, "scale_grad_by_freq": True}, [ints(10, 2, 5)]),
    ("EmbeddingBag", [10, 4], {}, [ints(10, 3, 5)]),
    ("EmbeddingBag", [10, 4], {"mode": "sum", "padding_idx": 2}, [ints(10, 8), torch.tensor([0, 3, 5])]),
    ("EmbeddingBag", [10, 4], {"mode": "max"}, [ints(10, 8), torch.tensor([0, 4])]),
    ("Conv1d", [4, 6, 3], {}, [X3]),
    ("Conv1d", [4, 6, 3], {"stride": 2, "padding": 2, "dilation": 2, "groups": 2, "bias": False}, [X3]),
    ("Conv1d", [4, 6, 4], {"padding": "same", "padding_mode": "circular"}, [X3]),
    ("Conv2d", [4, 6, 3], {}, [X4]),
    ("Conv2d", [4, 6, [3, 2], [2, 1], [1, 0]], {"groups": 2}, [X4]),
    ("Conv2d", [4, 6, 3], {"padding": 2, "padding_mode": "reflect"}, [X4]),
    ("Conv2d", [4, 6, [2, 3]], {"padding": [1, 2], "padding_mode": "replicate"}, [X4]),
    ("Conv2d", [4, 6, [4, 3]], {"padding": "same", "dilation": [1, 2]}, [X4]),
    ("Conv2d", [4, 6, 3], {"padding": "valid", "padding_mode": "circular"}, [X4]),
    ("Conv2d", [4, 4, 3], {"groups": 4, "padding": 1}, [randn(4, 7, 6)]),
    ("Conv3d", [4, 2, 2], {"padding": 1}, [X5]),
    ("Conv3d", [4, 2, [2, 3, 1]], {"padding": [1, 1, 0], "padding_mode": "replicate", "stride": [1, 2, 1]}, [X5]),
    ("ConvTranspose1d", [4, 6, 3], {"stride": 2, "padding": 1, "output_padding": 1}, [X3]),
    ("ConvTranspose2d", [4, 6, 3], {"stride": 2, "groups": 2, "dilation": 2, "bias": False}, [X4]),
    ("ConvTranspose2d", [4, 6, 3], {"stride": 3}, [randn(2, 4, 3, 3), [10, 11]]),
    ("ConvTranspose3d", [4, 2, 2], {"stride": [1, 2, 1]}, [X5]),
    ("LayerNorm", [6], {}, [X2]),
    ("LayerNorm", [[3, 6]], {"eps": 1e-3, "bias": False}, [randn(2, 3, 6)]),
    ("LayerNorm", [6], {"elementwise_affine": False}, [X2]),
    ("RMSNorm", [6], {}, [X2]),
    ("RMSNorm", [[2, 6], 1e-6], {}, [randn(3, 2, 6)]),
    ("RMSNorm", [6], {"elementwise_affine": False, "eps": 1e-5}, [X2]),
    ("GroupNorm", [2, 4], {}, [X4]),
    ("GroupNorm", [4, 4, 1e-6], {"affine": False}, [X4]),
    ("LocalResponseNorm", [3], {}, [X4]),
    ("LocalResponseNorm", [2], {"alpha": 0.1, "beta": 0.5, "k": 2.0}, [X3]),
    ("BatchNorm1d", [6], {}, [X2]),
    ("BatchNorm1d", [4], {"momentum": 0.3, "eps": 1e-3}, [X3]),
    ("BatchNorm2d", [4], {}, [X4]),
    ("BatchNorm2d", [4], {"affine": False, "momentum": None}, [X4]),
    ("BatchNorm2d", [4], {"track_running_stats": False}, [X4]),
    ("BatchNorm3d", [4], {}, [X5]),
    ("InstanceNorm1d", [4], {}, [X3]),
    ("InstanceNorm2d", [4], {"affine": True, "track_running_stats": True}, [X4]),
    ("InstanceNorm2d", [4], {}, [randn(4, 7, 6)]),
    ("InstanceNorm3d", [4], {}, [X5]),
    ("Dropout", [], {"p": 0.3}, [X4]),
    ("Dropout", [0.0], {}, [X4]),
    ("Dropout1d", [0.5], {}, [X3]),
    ("Dropout2d", [0.5], {}, [X4]),
    ("Dropout3d", [0.5], {}, [X5]),
    ("AlphaDropout", [0.3], {}, [X4]),
    ("FeatureAlphaDropout", [0.3], {}, [X4]),
    ("ReLU", [], {}, [X2]),
    ("ReLU", [True], {}, []),
    ("ReLU6", [], {}, [X2]),
    ("SiLU", [], {}, [X2]),
    ("Mish", [], {}, [X2]),
    ("Hardsigmoid", [], {}, [X2]),
    ("Hardswish", [], {}, [X2]),
    ("SELU", [], {}, [X2]),
    ("Sigmoid", [], {}, [X2]),
    ("Tanh", [], {}, [X2]),
    ("LogSigmoid", [], {}, [X2]),
    ("Softsign", [], {}, [X2]),
    ("Tanhshrink", [], {}, [X2]),
    ("Threshold", [0.1, 20], {}, [X2]),
    ("RReLU", [], {}, [X2]),
    ("Hardtanh", [], {}, [X2]),
    ("Hardtanh", [-0.5, 0.25], {}, [X2]),
    ("ELU", [], {"alpha": 0.5}, [X2]),
    ("CELU", [], {}, [X2]),
    ("GLU", [], {}, [X2]),
    ("GLU", [1], {}, [X3]),
    ("GELU", [], {}, [X2]),
    ("GELU", [], {"approximate": "tanh"}, [X2]),
    ("Hardshrink", [], {}, [X2]),
    ("Softshrink", [0.25], {}, [X2]),
    ("LeakyReLU", [0.2], {}, [X2]),
    ("Softplus", [], {"beta": 2.0}, [X2]),
    ("PReLU", [], {}, [X2]),
    ("PReLU", [4], {"init": 0.1}, [X4]),
    ("Softmax", [-1], {}, [X2]),
    ("Softmin", [1], {}, [X3]),
    ("LogSoftmax", [], {"dim": 0}, [X2]),
    ("Softmax2d", [], {}, [X4]),
    ("MultiheadAttention", [8, 2], {}, [randn(5, 3, 8)] * 3),
    ("MultiheadAttention", [8, 2], {"batch_first": True, "bias": False}, [randn(3, 5, 8), randn(3, 4, 8), randn(3, 4, 8)]),
    ("MultiheadAttention", [8, 4], {"kdim": 6, "vdim": 5, "add_bias_kv": True, "add_zero_attn": True}, [randn(5, 3, 8), randn(4, 3, 6), randn(4, 3, 5)]),
    ("MultiheadAttention", [8, 2], {"dropout": 0.25}, [randn(5, 8), randn(4, 8), randn(4, 8)]),
    ("MaxPool1d", [3], {}, [X3]),
    ("MaxPool1d", [2], {"stride": 1, "return_indices": True}, [X3]),
    ("MaxPool2d", [3, 2, 1], {"ceil_mode": True}, [X4]),
    ("MaxPool2d", [[3, 2]], {"dilation": [1, 2], "return_indices": True}, [X4]),
    ("MaxPool3d", [2], {}, [X5]),
    ("AvgPool1d", [3], {"padding": 1, "count_include_pad": False}, [X3]),
    ("AvgPool2d", [[3, 2]], {"stride": 2, "divisor_override": 5}, [X4]),
    ("AvgPool3d", [2], {"padding": 1}, [X5]),
    ("LPPool1d", [2, 3], {}, [probs(2, 4, 9)]),
    ("LPPool2d", [1.5, 2], {"stride": 1}, [probs(2, 4, 7, 6)]),
    ("AdaptiveAvgPool1d", [4], {}, [X3]),
    ("AdaptiveAvgPool2d", [[3, None]], {}, [X4]),
    ("AdaptiveAvgPool3d", [2], {}, [X5]),
    ("AdaptiveMaxPool1d", [4], {}, [X3]),
    ("AdaptiveMaxPool2d", [[3, 2]], {"return_indices": True}, [X4]),
    ("AdaptiveMaxPool3d", [2], {}, [X5]),
    ("ConstantPad1d", [2, 3.5], {}, [X3]),
    ("ConstantPad2d", [[1, 0, 2, -1], 1.5], {}, [X4]),
    ("ConstantPad3d", [1, 0.5], {}, [X5]),
    ("ZeroPad1d", [[1, 2]], {}, [X3]),
    ("ZeroPad2d", [1], {}, [X4]),
    ("ZeroPad3d", [1], {}, [X5]),
    ("ReflectionPad1d", [2], {}, [X3]),
    ("ReflectionPad2d", [[1, 2, 0, 1]], {}, [X4]),
    ("ReflectionPad3d", [1], {}, [X5]),
    ("ReplicationPad1d", [2], {}, [X3]),
    ("ReplicationPad2d", [1], {}, [X4]),
    ("ReplicationPad3d", [1], {}, [X5]),
    ("CircularPad1d", [2], {}, [X3]),
    ("CircularPad2d", [[1, 2, 0, 1]], {}, [X4]),
    ("CircularPad3d", [1], {}, [X5]),
    ("Upsample", [], {"scale_factor": 2.0}, [X3]),
    ("Upsample", [], {"size": [5, 9], "mode": "bilinear", "align_corners": True}, [X4]),
    ("UpsamplingNearest2d", [], {"scale_factor": 2.0}, [X4]),
    ("UpsamplingBilinear2d", [9], {}, [X4]),
    ("PixelShuffle", [2], {}, [X4]),
    ("PixelUnshuffle", [2], {}, [randn(1, 2, 4, 6)]),
    ("ChannelShuffle", [2], {}, [X4]),
    ("Flatten", [], {}, [X4]),
    ("Flatten", [0, 1], {}, [X4]),
    ("Unflatten", [1, [2, 3]], {}, [X2]),
    ("Fold", [[4, 5], [2, 2]], {}, [randn(2, 12, 12)]),
    ("Unfold", [[2, 3]], {"padding": 1, "stride": [2, 1]}, [X4]),
    ("CosineSimilarity", [], {}, [X2, X2]),
    ("PairwiseDistance", [], {"p": 1.0, "keepdim": True}, [X2, X2]),
]
T2, CLASSES = randn(3, 6), ints(6, 3)
SIGNS = torch.tensor([1.0, -1.0, 1.0])
for reduction in ["mean", "sum", "none"]:
    LAYERS += [
        ("L1Loss", [], {"reduction": reduction}, [X2, T2]),
        ("MSELoss", [], {"reduction": reduction}, [X2, T2]),
        ("SmoothL1Loss", [], {"reduction": reduction, "beta": 0.5}, [X2, T2]),
        ("HuberLoss", [], {"reduction": reduction, "delta": 0.7}, [X2, T2]),
        ("CrossEntropyLoss", [], {"reduction": reduction}, [X2, CLASSES]),
        ("NLLLoss", [], {"reduction": reduction}, [X2, CLASSES]),
        ("BCELoss", [], {"reduction": reduction}, [probs(3, 6), probs(3, 6)]),
        ("BCEWithLogitsLoss", [], {"reduction": reduction}, [X2, probs(3, 6)]),
        ("KLDivLoss", [], {"reduction": reduction}, [X2, probs(3, 6)]),
        ("PoissonNLLLoss", [], {"reduction": reduction}, [X2, probs(3, 6)]),
        ("GaussianNLLLoss", [], {"reduction": reduction, "full": True}, [X2, T2, probs(3, 1)]),
        ("MarginRankingLoss", [0.2], {"reduction": reduction}, [randn(3), randn(3), SIGNS]),
        ("HingeEmbeddingLoss", [], {"reduction": reduction}, [randn(3), SIGNS]),
        ("CosineEmbeddingLoss", [0.1], {"reduction": reduction}, [X2, T2, SIGNS]),
        ("TripletMarginLoss", [], {"reduction": reduction, "swap": True}, [X2, T2, randn(3, 6)]),
        ("TripletMarginWithDistanceLoss", [], {"reduction": reduction}, [X2, T2, randn(3, 6)]),
        ("SoftMarginLoss", [], {"reduction": reduction}, [randn(3), SIGNS]),
        ("MultiMarginLoss", [2], {"reduction": reduction}, [X2, CLASSES]),
        ("MultiLabelMarginLoss", [], {"reduction": reduction}, [X2, torch.tensor([[0, 3, -1, 1, 1, 1], [2, -1, 0, 0, 0, 0], [5, 4, 3, -1, 0, 0]])]),
        ("MultiLabelSoftMarginLoss", [], {"reduction": reduction}, [X2, ints(2, 3, 6)]),
        ("CTCLoss", [], {"reduction": reduction, "zero_infinity": True}, ["ctc"]),
    ]
LAYERS += [
    ("CrossEntropyLoss", [torch.tensor([0.5, 1, 2, 1, 1, 3])], {"label_smoothing": 0.1, "ignore_index": 2}, [X2, torch.tensor([1, 2, 5])]),
    ("CrossEntropyLoss", [], {"label_smoothing": 0.2}, [X2, probs(3, 6)]),
    ("CrossEntropyLoss", [], {}, [randn(2, 4, 3), ints(4, 2, 3)]),
    ("NLLLoss", [torch.tensor([0.5, 1, 2, 1, 1, 3])], {"ignore_index": 1}, [X2, torch.tensor([1, 2, 5])]),
    ("BCELoss", [torch.tensor([0.5, 1, 2, 1, 1, 3])], {}, [probs(3, 6), probs(3, 6)]),
    ("BCEWithLogitsLoss", [], {"pos_weight": torch.tensor([0.5, 1, 2, 1, 1, 3])}, [X2, probs(3, 6)]),
    ("KLDivLoss", [], {"reduction": "batchmean", "log_target": True}, [X2, T2]),
    ("PoissonNLLLoss", [False, True], {}, [probs(3, 6), probs(3, 6)]),
    ("GaussianNLLLoss", [], {}, [X2, T2, probs(3, 6)]),
    ("TripletMarginLoss", [0.5, 1.0], {}, [X2, T2, randn(3, 6)]),
    ("MultiMarginLoss", [], {"margin": 0.5, "weight": torch.tensor([0.5, 1, 2, 1, 1, 3])}, [X2, CLASSES]),
    ("SmoothL1Loss", [], {"beta": 0}, [X2, T2]),
    ("RNN", [4, 5], {}, [randn(6, 2, 4)]),
    ("RNN", [4, 5, 2, "relu"], {"batch_first": True, "bias": False, "dropout": 0.3}, [randn(2, 6, 4)]),
    ("GRU", [4, 5, 2], {"bidirectional": True}, [randn(6, 2, 4), randn(4, 2, 5)]),
    ("GRU", [4, 5], {"batch_first": True}, [randn(6, 4)]),
    ("LSTM", [4, 5], {}, [randn(6, 2, 4), [randn(1, 2, 5), randn(1, 2, 5)]]),
    ("LSTM", [4, 5, 2], {"batch_first": True, "bidirectional": True}, [randn(2, 6, 4)]),
    ("LSTM", [4, 5], {"proj_size": 3}, [randn(6, 4)]),
]


def python_options(options):
    fixed = {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}
    if "dtype" in fixed:
        fixed["dtype"] = getattr(torch, fixed["dtype"])
    return fixed


def positions(cls, count):
    """The names of a layer's first arguments. Recurrent layers take theirs as *args."""
    if issubclass(cls, nn.RNNBase):
        names = ["input_size", "hidden_size", "num_layers", *(["nonlinearity"] if cls is nn.RNN else []), "bias"]
    else:
        names = [name for name in inspect.signature(cls.__init__).parameters if name != "self"]
    return names[:count]


def layers():
    store, cases = Store(), []
    for seed, (cls, args, options, specs) in enumerate(LAYERS):
        torch.manual_seed(1000 + seed)
        if specs == ["ctc"]:
            inputs = [torch.randn(8, 2, 5).log_softmax(-1), torch.randint(1, 5, (2, 3)), torch.tensor([8, 7]), torch.tensor([3, 2])]
        else:
            made = {}
            # The same spec object stands for the same tensor: key and value of attention.
            inputs = [made.setdefault(id(spec), make(spec)) for spec in specs]
        if cls == "KLDivLoss":
            inputs[0] = inputs[0].log_softmax(-1)
        # Targets of losses need no gradient, and some cannot have one.
        trained = inputs[:1] if cls.endswith("Loss") else inputs
        grads = {id(x): x.requires_grad_() for x in trained if isinstance(x, torch.Tensor) and x.is_floating_point()}
        torch.manual_seed(seed)
        python_args = [tuple(a) if isinstance(a, list) else a for a in args]
        module = getattr(nn, cls)(*python_args, **python_options(options))
        names = positions(getattr(nn, cls), len(args))
        case = {"class": cls, "args": store.encode(args), "names": names, "options": store.encode(options), "seed": seed, "repr": repr(module)}
        case["state"] = {key: store.put(value) for key, value in module.state_dict().items()}
        case["inputs"] = store.encode(inputs)
        case["same"] = [next(j for j, y in enumerate(inputs) if y is x) for x in inputs]
        if inputs:
            for mode in ["train", "eval"]:
                module.train(mode == "train")
                module.zero_grad()
                for x in inputs:
                    if id(x) in grads:
                        x.grad = None
                torch.manual_seed(seed)
                try:
                    outputs = tensors_of(module(*inputs))
                except RuntimeError as error:
                    raise RuntimeError(f"{cls} {args} {options}") from error
                loss = weighted_sum(outputs)
                if isinstance(loss, torch.Tensor):
                    loss.backward()
                case[mode] = {
                    "outputs": store.encode(outputs),
                    "grads": {k: store.put(p.grad) for k, p in module.named_parameters() if p.grad is not None},
                    "input_grads": [store.put(x.grad) if id(x) in grads and x.grad is not None else None for x in inputs],
                    "buffers": {k: store.put(b) for k, b in module.named_buffers()},
                }
        cases.append(case)
    write("layers", cases, store)


# Functions ----------------------------------------------------------------------------------------------------

def functions():
    torch.manual_seed(5)
    store, cases = Store(), []
    img, vol, seq = torch.randn(2, 3, 6, 5), torch.randn(1, 2, 4, 3, 5), torch.randn(2, 3, 7)
    q, k = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 6, 8)
    grid = torch.rand(2, 4, 3, 2) * 2.4 - 1.2
    mask = torch.rand(2, 1, 5, 6) > 0.3
    mask[..., 0] = True
    scores = torch.randn(4, 7)
    table = [
        ("softmax", [scores], {"dim": -1, "dtype": "float64"}),
        ("softmax", [scores, 0], {}),
        ("softmax", [scores.bfloat16(), -1], {"dtype": "float32"}),
        ("log_softmax", [scores, 1], {}),
        ("softmin", [scores, 1], {}),
        ("gelu", [scores], {"approximate": "tanh"}),
        ("relu", [scores], {"inplace": False}),
        ("leaky_relu", [scores, 0.3], {}),
        ("glu", [torch.randn(4, 8)], {"dim": 1}),
        ("normalize", [scores], {}),
        ("normalize", [img], {"p": 1.0, "dim": [2, 3][0]}),
        ("cosine_similarity", [scores, scores.flip(0)], {"dim": 0}),
        ("pairwise_distance", [scores, scores.flip(0)], {"p": 3.0}),
        ("pdist", [scores], {}),
        ("one_hot", [torch.tensor([[0, 2], [1, 0]])], {}),
        ("one_hot", [torch.tensor([0, 2]), 5], {}),
        ("layer_norm", [scores, [7]], {"weight": torch.randn(7), "eps": 1e-3}),
        ("rms_norm", [scores, [7], torch.randn(7)], {"eps": 1e-6}),
        ("group_norm", [img, 3], {}),
        ("local_response_norm", [img, 2], {"alpha": 0.5}),
        ("cross_entropy", [scores, torch.tensor([1, -100, 6, 0])], {}),
        ("cross_entropy", [scores, torch.tensor([1, -100, 6, 0])], {"reduction": "sum", "label_smoothing": 0.1}),
        ("cross_entropy", [scores, torch.tensor([1, 3, 6, 0])], {"reduction": "none", "weight": torch.rand(7)}),
        ("mse_loss", [scores, scores.flip(0)], {"weight": torch.rand(4, 7)}),
        ("l1_loss", [scores, scores.flip(0)], {"weight": torch.rand(4, 7), "reduction": "sum"}),
        ("huber_loss", [scores, scores.flip(0)], {"weight": torch.rand(4, 7)}),
        ("pad", [img, [1, 2]], {}),
        ("pad", [img, [1, 2, 0, -1]], {"value": 3.5}),
        ("pad", [img, [1, 2, 3, 1]], {"mode": "reflect"}),
        ("pad", [seq, [1, 2], "replicate"], {}),
        ("pad", [seq, [3, 2]], {"mode": "circular"}),
        ("pad", [vol, [1, 1, 2, 0, 1, 1]], {"mode": "replicate"}),
        ("interpolate", [seq], {"scale_factor": 1.7, "mode": "linear"}),
        ("interpolate", [seq], {"size": 5, "mode": "nearest-exact"}),
        ("interpolate", [seq], {"size": 5, "mode": "area"}),
        ("interpolate", [img], {"scale_factor": [1.5, 2.3]}),
        ("interpolate", [img], {"scale_factor": [1.5, 2.3], "mode": "bilinear", "recompute_scale_factor": True}),
        ("interpolate", [img, [4, 9]], {"mode": "bicubic", "align_corners": True}),
        ("interpolate", [img, [4, 3]], {"mode": "bicubic", "antialias": True}),
        ("interpolate", [img, [4, 3]], {"mode": "bilinear", "antialias": True, "align_corners": False}),
        ("interpolate", [img], {"scale_factor": 0.5, "mode": "area"}),
        ("interpolate", [img], {"scale_factor": 2.0, "mode": "nearest-exact"}),
        ("interpolate", [vol, [5, 6, 4]], {"mode": "trilinear"}),
        ("interpolate", [vol, 4], {}),
        ("grid_sample", [img, grid], {"align_corners": False}),
        ("grid_sample", [img, grid], {"mode": "nearest", "padding_mode": "border", "align_corners": True}),
        ("grid_sample", [img, grid, "bicubic", "reflection"], {"align_corners": False}),
        ("affine_grid", [torch.randn(2, 2, 3), [2, 3, 4, 5]], {"align_corners": False}),
        ("scaled_dot_product_attention", [q, torch.randn(2, 4, 6, 8), torch.randn(2, 4, 6, 3)], {}),
        ("scaled_dot_product_attention", [q, k, torch.randn(2, 2, 6, 8)], {"enable_gqa": True, "attn_mask": mask}),
        ("scaled_dot_product_attention", [q, q, q], {"is_causal": True, "scale": 0.2}),
        ("unfold", [img, 3], {"padding": 1, "stride": 2}),
        ("fold", [torch.randn(2, 8, 12), [4, 5], 2], {}),
        ("pixel_shuffle", [torch.randn(1, 8, 2, 3), 2], {}),
        ("conv2d", [img, torch.randn(4, 3, 3, 3)], {"padding": "same"}),
        ("conv1d", [seq, torch.randn(4, 3, 3), torch.randn(4), 2, 1], {}),
        ("conv_transpose2d", [img, torch.randn(3, 2, 3, 3)], {"stride": 2, "output_padding": 1}),
        ("max_pool2d", [img, 2], {"stride": 1, "ceil_mode": True}),
        ("avg_pool2d", [img, 3], {"padding": 1, "count_include_pad": False}),
        ("adaptive_avg_pool2d", [img, [None, 2]], {}),
        ("adaptive_max_pool2d", [img, 2], {}),
        ("lp_pool2d", [img.abs(), 2.0, 2], {}),
        ("embedding", [torch.tensor([[1, 2], [3, 0]]), torch.randn(5, 3)], {"padding_idx": -2}),
        ("kl_div", [scores.log_softmax(-1), scores.flip(0).softmax(-1)], {"reduction": "batchmean"}),
        ("ctc_loss", [torch.randn(6, 2, 4).log_softmax(-1), torch.tensor([1, 2, 3, 1]), [6, 5], [3, 1]], {}),
        ("triplet_margin_with_distance_loss", [scores, scores.flip(0), scores.roll(1)], {"margin": 2.0, "swap": True}),
    ]
    for name, args, options in table:
        python_args = [tuple(a) if isinstance(a, list) else a for a in args]
        result = getattr(F, name)(*python_args, **python_options(options))
        cases.append({"function": name, "args": store.encode(args), "options": store.encode(options), "output": store.put(result)})
    write("functions", cases, store)


def random_functions():
    store, cases = Store(), []
    torch.manual_seed(6)
    x, image = torch.randn(4, 6), torch.randn(2, 5, 4, 3)
    table = [
        ("dropout", [x], {"p": 0.4}),
        ("dropout", [x, 0.4, False], {}),
        ("dropout1d", [torch.randn(5, 3)], {}),
        ("dropout2d", [image, 0.3], {}),
        ("dropout3d", [torch.randn(2, 3, 2, 2, 2)], {"p": 0.6}),
        ("alpha_dropout", [x], {"p": 0.3, "training": True}),
        ("feature_alpha_dropout", [image], {"p": 0.3, "training": True}),
        ("rrelu", [x], {"training": True}),
        ("gumbel_softmax", [x], {"tau": 0.5}),
        ("gumbel_softmax", [x], {"hard": True, "dim": 0}),
        ("scaled_dot_product_attention", [image, image, image], {"dropout_p": 0.25}),
    ]
    for seed, (name, args, options) in enumerate(table):
        torch.manual_seed(seed)
        output = getattr(F, name)(*args, **options)
        cases.append({"function": name, "args": store.encode(args), "options": options, "seed": seed, "output": store.put(output)})
    write("random", cases, store)


# Initial values -----------------------------------------------------------------------------------------------

def inits():
    store, cases = Store(), []
    table = [
        ("uniform_", [5, 4], [], {}),
        ("uniform_", [5, 4], [-2.0, 3.0], {}),
        ("normal_", [5, 7], [0.5, 2.0], {}),
        ("normal_", [4, 8], [], {"std": 0.02}),
        ("trunc_normal_", [5, 4], [], {}),
        ("trunc_normal_", [40], [], {"std": 0.02}),
        ("trunc_normal_", [40], [0.1, 0.3, -0.2, 0.5], {}),
        ("constant_", [2, 3], [0.3], {}),
        ("ones_", [3], [], {}),
        ("zeros_", [3], [], {}),
        ("eye_", [3, 5], [], {}),
        ("dirac_", [4, 2, 3], [], {}),
        ("dirac_", [6, 2, 3, 3], [3], {}),
        ("dirac_", [3, 24, 5, 5, 5], [], {}),
        ("xavier_uniform_", [5, 4], [], {}),
        ("xavier_uniform_", [5, 4, 3], [], {"gain": 1.5}),
        ("xavier_normal_", [5, 4], [5 / 3], {}),
        ("kaiming_uniform_", [5, 4, 2], [], {}),
        ("kaiming_uniform_", [5, 4], [], {"mode": "fan_out", "nonlinearity": "relu"}),
        ("kaiming_normal_", [5, 4, 3, 3], [], {"mode": "fan_out", "nonlinearity": "relu"}),
        ("kaiming_normal_", [5, 4], [0.2], {}),
        ("orthogonal_", [5, 3], [], {}),
        ("orthogonal_", [3, 2, 4], [], {"gain": 2.0}),
        ("sparse_", [6, 4], [0.3], {}),
    ]
    for seed, (name, shape, args, options) in enumerate(table):
        torch.manual_seed(seed)
        tensor = getattr(nn.init, name)(torch.empty(shape), *args, **options)
        cases.append({"function": name, "shape": shape, "args": args, "options": options, "seed": seed, "tensor": store.put(tensor)})
    gains = ["linear", "conv2d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]
    cases.append({"gains": {name: nn.init.calculate_gain(name) for name in gains}, "leaky": nn.init.calculate_gain("leaky_relu", 0.3)})
    write("init", cases, store)


# Optimizers ---------------------------------------------------------------------------------------------------

OPTIMIZERS = [
    ("AdamW", {}),
    ("AdamW", {"fused": True}),
    ("AdamW", {"fused": False, "lr": 0.01, "betas": [0.8, 0.95], "eps": 1e-6, "weight_decay": 0.1}),
    ("AdamW", {"fused": True, "lr": 0.01, "betas": [0.8, 0.95], "eps": 1e-6, "weight_decay": 0.1, "amsgrad": True}),
    ("AdamW", {"fused": False, "lr": 0.01, "amsgrad": True, "maximize": True}),
    ("Adam", {"fused": True, "lr": 0.01, "weight_decay": 0.1}),
    ("Adam", {"fused": False, "lr": 0.01, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "fused": True}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.1, "fused": True}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.01, "weight_decay": 0.01, "initial_accumulator_value": 0.1}),
    ("RMSprop", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.5, "centered": True, "weight_decay": 0.01, "alpha": 0.9}),
]


def optimizers():
    store, cases = Store(), []
    for cls, options in OPTIMIZERS:
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
        x, y = torch.randn(8, 4), torch.randn(8, 2)
        decay, rest = [p for p in model.parameters() if p.ndim > 1], [p for p in model.parameters() if p.ndim == 1]
        groups = [{"params": decay}, {"params": rest, "weight_decay": 0.0, "lr": 0.02}]
        optimizer = getattr(optim, cls)(groups, **python_options(options))
        losses = []
        for step in range(6):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            if step == 2:
                # One parameter without a gradient for one step.
                model[2].bias.grad = None
            nn.utils.clip_grad_norm_(model.parameters(), 0.8)
            optimizer.step()
            losses.append(loss.item())
        saved = optimizer.state_dict()
        cases.append({
            "class": cls,
            "options": options,
            "losses": losses,
            "weights": {k: store.put(v) for k, v in model.state_dict().items()},
            "state": {str(i): {k: store.encode(v) for k, v in s.items()} for i, s in saved["state"].items()},
            "param_groups": json.loads(json.dumps(saved["param_groups"])),
            "repr": repr(optimizer),
        })
    write("optimizers", cases, store)


# Schedulers ---------------------------------------------------------------------------------------------------

FACTORS = {"inverse": lambda n: 1 / (1 + n), "wave": lambda n: 0.5 + 0.25 * (n % 3)}
SCHEDULERS = [
    ["LambdaLR", ["inverse"], {}],
    ["LambdaLR", [["inverse", "wave"]], {}],
    ["MultiplicativeLR", ["wave"], {}],
    ["StepLR", [4], {"gamma": 0.5}],
    ["MultiStepLR", [[3, 7, 7, 12]], {}],
    ["ConstantLR", [], {}],
    ["ConstantLR", [0.5, 3], {}],
    ["LinearLR", [], {}],
    ["LinearLR", [], {"start_factor": 1.0, "end_factor": 0.25, "total_iters": 8}],
    ["ExponentialLR", [0.9], {}],
    ["PolynomialLR", [], {"total_iters": 9, "power": 2.0}],
    ["CosineAnnealingLR", [6], {"eta_min": 0.01}],
    ["CosineAnnealingWarmRestarts", [3], {"T_mult": 2, "eta_min": 0.001}],
    ["CosineAnnealingWarmRestarts", [4], {}],
    ["CyclicLR", [0.01, 0.1], {"step_size_up": 4}],
    ["CyclicLR", [0.01, [0.1, 0.2]], {"step_size_up": 3, "step_size_down": 5, "mode": "triangular2"}],
    ["CyclicLR", [0.01, 0.1], {"step_size_up": 4, "mode": "exp_range", "gamma": 0.95, "cycle_momentum": False}],
    ["OneCycleLR", [0.5], {"total_steps": 21}],
    ["OneCycleLR", [[0.5, 1.0]], {"epochs": 3, "steps_per_epoch": 7, "anneal_strategy": "linear", "three_phase": True}],
    ["OneCycleLR", [0.5, 21], {"pct_start": 0.2, "div_factor": 10.0, "final_div_factor": 100.0, "cycle_momentum": False}],
    ["SequentialLR", [[["LinearLR", [0.1], {"total_iters": 4}], ["ExponentialLR", [0.8], {}], ["ConstantLR", [0.5], {}]], [4, 11]], {}],
    ["SequentialLR", [[["ConstantLR", [0.1, 20], {}], ["CosineAnnealingLR", [8], {}]], [3]], {}],
    ["ChainedScheduler", [[["ConstantLR", [0.1, 4], {}], ["ExponentialLR", [0.9], {}]]], {}],
    ["ReduceLROnPlateau", [], {"patience": 1, "factor": 0.5, "cooldown": 1}],
    ["ReduceLROnPlateau", ["max"], {"patience": 0, "threshold": 0.1, "threshold_mode": "abs", "min_lr": [0.01, 0.02]}],
]
METRICS = [1, 0.9, 0.9, 0.95, 0.9, 0.8, 0.8, 0.81, 0.8, 0.8, 0.85, 0.7, 0.7, 0.7, 0.9, 1.2, 1.3, 1.3, 1.3, 1.2]


def scheduler(optimizer, spec):
    cls, args, options = spec
    if cls == "SequentialLR":
        return lr_scheduler.SequentialLR(optimizer, [scheduler(optimizer, part) for part in args[0]], args[1])
    if cls == "ChainedScheduler":
        return lr_scheduler.ChainedScheduler([scheduler(optimizer, part) for part in args[0]])
    if cls in ("LambdaLR", "MultiplicativeLR"):
        args = [[FACTORS[f] for f in a] if isinstance(a, list) else FACTORS[a] for a in args]
    return getattr(lr_scheduler, cls)(optimizer, *args, **options)


def schedulers():
    cases = []
    for spec in SCHEDULERS:
        parameters = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))]
        kind = "AdamW" if spec[0] == "OneCycleLR" else "SGD"
        make = (lambda g: optim.AdamW(g, lr=0.1)) if kind == "AdamW" else (lambda g: optim.SGD(g, lr=0.1, momentum=0.9))
        optimizer = make([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.03}])
        schedule = scheduler(optimizer, spec)
        rates, momenta = [], []
        for step in range(20):
            rates.append([g["lr"] for g in optimizer.param_groups])
            momenta.append([g["momentum"] if "momentum" in g else g["betas"][0] for g in optimizer.param_groups])
            optimizer.step()
            schedule.step(*([METRICS[step]] if spec[0] == "ReduceLROnPlateau" else []))
        moved = any(m != momenta[0] for m in momenta)
        case = {"spec": spec, "optimizer": kind, "rates": rates, "last": schedule.get_last_lr() if hasattr(schedule, "_last_lr") else None}
        case["keys"] = sorted(schedule.state_dict())
        if moved:
            case["momenta"] = momenta
        cases.append(case)
    cases.append({"metrics": METRICS})
    write("schedulers", cases)


# Modules ------------------------------------------------------------------------------------------------------

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.fc = nn.Linear(width, width, bias=False)
        self.register_buffer("scale", torch.ones(1))
        self.gain = nn.Parameter(torch.ones(width))
        self.register_buffer("cache", torch.zeros(2), persistent=False)

    def forward(self, x):
        return x + self.fc(self.norm(x)) * self.gain * self.scale


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 4, padding_idx=0)
        self.blocks = nn.ModuleList([Block(4) for _ in range(3)])
        self.extra = nn.ModuleDict({"a": nn.Linear(4, 2), "b": nn.Identity()})
        self.mix = nn.ParameterList([torch.ones(2), torch.zeros(3)])
        self.named = nn.ParameterDict({"left": torch.ones(2)})
        self.head = nn.Linear(4, 9, bias=False)
        self.head.weight = self.embed.weight
        self.alpha = nn.Parameter(torch.tensor(0.5))
        self.missing = None

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x) * self.alpha


def modules():
    store = Store()
    torch.manual_seed(11)
    net = Net()
    ids = torch.tensor([[1, 2, 3], [0, 4, 8]])
    events = []
    handles = []
    for name, module in net.named_modules():
        handles.append(module.register_forward_pre_hook(lambda m, args, name=name: events.append(f"pre {name}")))
        handles.append(module.register_forward_hook(lambda m, args, out, name=name: events.append(f"post {name}")))
        handles.append(module.register_full_backward_hook(lambda m, gi, go, name=name: events.append(f"backward {name}")))
    out = net(ids)
    out.sum().backward()
    for handle in handles:
        handle.remove()
    gi = []
    linear = nn.Linear(3, 2)
    handle = linear.register_full_backward_hook(lambda m, grad_input, grad_output: gi.extend([*grad_input, *grad_output]))
    x = torch.randn(4, 3, requires_grad=True)
    linear(x).pow(2).sum().backward()
    case = {
        "repr": repr(net),
        "state": {key: store.put(value) for key, value in net.state_dict().items()},
        "parameters": [name for name, _ in net.named_parameters()],
        "all_parameters": [name for name, _ in net.named_parameters(remove_duplicate=False)],
        "buffers": [name for name, _ in net.named_buffers()],
        "modules": [name for name, _ in net.named_modules()],
        "children": [name for name, _ in net.named_children()],
        "metadata": {key: value for key, value in net.state_dict()._metadata.items()},
        "events": events,
        "ids": store.put(ids),
        "output": store.put(out),
        "grads": {name: store.put(p.grad) for name, p in net.named_parameters() if p.grad is not None},
        "linear": {"x": store.put(x), "weight": store.put(linear.weight), "bias": store.put(linear.bias), "hooked": [store.put(g) for g in gi], "grad": store.put(x.grad)},
        "sequential": repr(nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(), nn.Flatten()))),
        "lists": [repr(nn.ModuleList()), repr(nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU()])), repr(nn.ModuleDict({"x": nn.Tanh()}))],
    }
    torch.manual_seed(2)
    case["total_norm"] = [nn.utils.get_total_norm([torch.randn(3), torch.randn(2, 2)], p).item() for p in (1.0, 2.0, INF)]
    write("modules", [case], store)


OUT.mkdir(parents=True, exist_ok=True)
for part in (layers, functions, random_functions, inits, optimizers, schedulers, modules):
    part()
