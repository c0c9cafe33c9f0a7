"""Plans of the Python reference that the tests of lib/big_modeling compare with.

    python scripts/goldens/big_modeling.py test/fixtures/big_modeling/plans.json [count] [seed] [characters per tree]

Needs accelerate 1.15.0 and transformers 5.23.0. Each case is a tree of modules (random ones, and those of the fixture models),
what was asked, and what accelerate's and transformers' planners answered. With another count and seed: as many cases as wanted.
"""

import json
import random
import sys
import warnings
from pathlib import Path

import torch
from accelerate import init_empty_weights
from accelerate.utils import compute_module_sizes, find_tied_parameters, get_balanced_memory, infer_auto_device_map
from accelerate.utils.modeling import calculate_maximum_sizes, convert_file_size_to_int
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.integrations import accelerate as integration

out = Path(sys.argv[1])
count = int(sys.argv[2]) if len(sys.argv) > 2 else 60
rng = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 0)
largest = int(sys.argv[4]) if len(sys.argv) > 4 else 4000
warnings.simplefilter("ignore")

DTYPES = ["float32", "float32", "float16", "bfloat16", "int64", "bool"]
CLASSES = ["Block", "Layer", "Net", "Part"]


def shape():
    return [rng.randint(1, 12) for _ in range(rng.randint(1, 2))]


def tree(depth):
    """A module's class, own parameters and buffers, and children."""
    children = {}
    if depth > 0 and rng.random() < 0.85:
        if rng.random() < 0.5:
            one = tree(depth - 1)
            children = {str(i): one for i in range(rng.randint(2, 5))}
        else:
            children = {f"m{i}": tree(depth - 1) for i in range(rng.randint(1, 4))}
    parameters = {f"p{i}": [shape(), rng.choice(DTYPES)] for i in range(rng.choice([0, 0, 1, 1, 2]) if children else rng.randint(0, 3))}
    buffers = {f"b{i}": [shape(), rng.choice(DTYPES), rng.random() < 0.6] for i in range(rng.choice([0, 0, 0, 1]))}
    return {"class": rng.choice(CLASSES), "parameters": parameters, "buffers": buffers, "children": children}


def build(spec):
    module = type(spec["class"], (nn.Module,), {})()
    for name, (size, dtype) in spec["parameters"].items():
        kind = getattr(torch, dtype)
        module.register_parameter(name, nn.Parameter(torch.empty(size, dtype=kind, device="meta"), requires_grad=kind.is_floating_point))
    for name, (size, dtype, persistent) in spec["buffers"].items():
        module.register_buffer(name, torch.empty(size, dtype=getattr(torch, dtype), device="meta"), persistent=persistent)
    for name, child in spec["children"].items():
        module.add_module(name, build(child))
    return module


def tie(model, ties):
    for target, source in ties.items():
        path, _, name = target.rpartition(".")
        setattr(model.get_submodule(path), name, model.get_parameter(source))


def spec_of(module):
    short = lambda t: str(t.dtype).replace("torch.", "")
    return {
        "class": type(module).__name__,
        "parameters": {n: [list(p.shape), short(p)] for n, p in module.named_parameters(recurse=False)},
        "buffers": {n: [list(b.shape), short(b), n not in module._non_persistent_buffers_set] for n, b in module.named_buffers(recurse=False)},
        "children": {n: spec_of(c) for n, c in module.named_children()},
    }


def budget(total):
    places = list(range(rng.randint(0, 3))) + (["cpu"] if rng.random() < 0.9 else [])
    return {place: int(total * rng.choice([0, 0.1, 0.2, 0.4, 0.6, 1, 2]) * rng.uniform(0.7, 1.3)) for place in places} or {"cpu": total}


def answered(fn):
    try:
        found = fn()
        return {str(k): v for k, v in found.items()} if isinstance(found, dict) else found
    except Exception as error:  # the reference fails on some ties
        return {"error": type(error).__name__}


def case(spec, ties, options, small=True):
    model = build(spec)
    tie(model, ties)
    given, no_split, dtype, fallback = (options[k] for k in ("max_memory", "no_split", "dtype", "fallback"))
    common = dict(no_split_module_classes=no_split)
    accelerate = dict(common, dtype=dtype)
    # transformers plans before it ties.
    untied = build(spec)
    untied.all_tied_weights_keys = dict(ties)
    result = {
        "tree": spec,
        "ties": ties,
        **{**options, "max_memory": {str(k): v for k, v in given.items()}},
        **({"sizes": dict(compute_module_sizes(model, dtype=dtype))} if small else {}),
        "largest": list(calculate_maximum_sizes(model)),
        "tied": sorted(find_tied_parameters(model)),
        "accelerate": {"sequential": answered(lambda: infer_auto_device_map(model, dict(given), fallback_allocation=fallback, **accelerate))},
        "transformers": {"sequential": answered(lambda: integration.infer_auto_device_map(untied, dict(given), **common))},
        "balanced": {},
    }
    for kind in ["balanced", "balanced_low_0"]:
        low_zero = kind == "balanced_low_0"
        shared = answered(lambda: get_balanced_memory(model, dict(given), low_zero=low_zero, **accelerate))
        result["balanced"][kind] = shared
        if "error" not in shared:
            memory = {int(k) if k.isdigit() else k: v for k, v in shared.items()}
            result["accelerate"][kind] = answered(lambda: infer_auto_device_map(model, memory, fallback_allocation=fallback, **accelerate))
        result["transformers"][kind] = answered(
            lambda: integration.infer_auto_device_map(
                untied, integration.get_balanced_memory(untied, dict(given), low_zero=low_zero, **common), **common
            )
        )
    return result


def random_case():
    while True:
        spec = tree(3)
        if len(json.dumps(spec)) > largest:
            continue
        model = build(spec)
        names = {n: p for n, p in model.named_parameters() if p.dtype == torch.float32}
        if len(names) > 1:
            break
    ties = {}
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        a, b = rng.sample(sorted(names), 2)
        if a not in ties and b not in ties and a not in ties.values() and b not in ties.values():
            ties[a] = b
    total = int(compute_module_sizes(model)[""])
    classes = [c for c in CLASSES if any(type(m).__name__ == c for m in model.modules())]
    options = {
        "max_memory": budget(total),
        "no_split": rng.sample(classes, rng.randint(0, min(2, len(classes)))),
        "dtype": rng.choice([None, None, "float16", "float64"]),
        "fallback": rng.random() < 0.4,
    }
    return case(spec, ties, options, len(json.dumps(spec)) < 1500)


def model_cases():
    for layers, tied, hidden in [(2, False, 16), (4, True, 16), (5, False, 32)]:
        config = LlamaConfig(
            vocab_size=64, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers, num_attention_heads=4,
            num_key_value_heads=2, tie_word_embeddings=tied, max_position_embeddings=64,
        )
        with init_empty_weights(include_buffers=True):
            model = AutoModelForCausalLM.from_config(config)
        total = int(compute_module_sizes(model)[""])
        ties = {"lm_head.weight": "model.embed_tokens.weight"} if tied else {}
        for shares in [{0: 2}, {0: 0.6, 1: 0.6, "cpu": 1}, {0: 0.5, "cpu": 0.4}, {0: 0.4, 1: 0.4, 2: 0.4, "cpu": 0.1}, {"cpu": 0.5}]:
            options = {
                "max_memory": {k: int(v * total) for k, v in shares.items()},
                "no_split": ["LlamaDecoderLayer"], "dtype": None, "fallback": False,
            }
            yield case(spec_of(model), ties, options, False)


SIZES = ["10GiB", "1.5MiB", "3kib", "5GB", "5Gb", "500MB", "0.5KB", " 7 MB", "1e3KB", "1_000MB", "12", "GB", "-1GB", "ten GB", "", "5 TB", 17, 0, -1]
sizes = {}
for text in SIZES:
    try:
        sizes[str(text) if isinstance(text, str) else f"#{text}"] = convert_file_size_to_int(text)
    except Exception:
        sizes[str(text) if isinstance(text, str) else f"#{text}"] = None

cases = [*model_cases(), *(random_case() for _ in range(count))]
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(json.dumps({"sizes": sizes, "cases": cases}, separators=(",", ":")) + "\n")
print(len(cases), "cases,", out.stat().st_size, "bytes")
