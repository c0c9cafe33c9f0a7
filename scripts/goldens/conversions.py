"""What the Python reference makes of checkpoints that need conversions, and what it saves.

    python scripts/goldens/conversions.py test/fixtures/conversions

Needs transformers 5.23.0 and torch 2.11.0. Writes cases.json (transforms, shapes of the model, hashes of saved files),
one checkpoint per case, golden.safetensors (the loaded weights), and names.json (names through the reference's own tables).
"""

import hashlib
import inspect
import json
import re
import shutil
import sys
from copy import deepcopy
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers import conversion_mapping, initialization
from transformers.core_model_loading import (
    Chunk, Concatenate, Conv3dToLinear, GroupWeightRename, Interleave, MergeModulelist, PermuteForRope, PrefixChange,
    Split, Transpose, WeightConverter, WeightRenaming,
)

out = Path(sys.argv[1])
shutil.rmtree(out, ignore_errors=True)
out.mkdir(parents=True)
cases, golden = [], {}


def describe_op(op):
    names = [name for name in inspect.signature(type(op).__init__).parameters if name != "self"]
    return {"op": type(op).__name__, **{name: getattr(op, name) for name in names}}


def describe(transform):
    kind = type(transform).__name__
    if kind == "PrefixChange":
        return {"kind": kind, "prefix_to_add": transform.prefix_to_add, "prefix_to_remove": transform.prefix_to_remove,
                "model_prefix": transform.model_prefix}
    return {
        "kind": kind,
        "sources": list(transform._original_source_patterns),  # reversing a transform changes its lists
        "targets": list(transform._original_target_patterns),
        **({"operations": [describe_op(op) for op in transform.operations]} if kind == "WeightConverter" else {}),
    }


class ShellConfig(PreTrainedConfig):
    model_type = "shell"

    def __init__(self, shapes=None, num_attention_heads=2, num_parts=3, **kwargs):
        super().__init__(**kwargs)
        self.shapes, self.num_attention_heads, self.num_parts = shapes or {}, num_attention_heads, num_parts


class Shell(PreTrainedModel):
    """A model that is nothing but parameters of given names."""

    config_class = ShellConfig
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        for name, shape in config.shapes.items():
            *path, last = name.split(".")
            module = self
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, nn.Module())
                module = getattr(module, part)
            module.register_parameter(last, nn.Parameter(torch.zeros(shape)))
        self.post_init()

    def _init_weights(self, module):
        for parameter in module.parameters(recurse=False):
            initialization.zeros_(parameter)


def hashes(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir()) if "safetensors" in p.name}


def case(name, mapping, shapes, sources, limit="50GB", **fields):
    torch.manual_seed(len(cases))
    folder = out / name
    folder.mkdir()
    save_file({key: torch.randn(shape) for key, shape in sources.items()}, folder / "model.safetensors", {"format": "pt"})
    ShellConfig(shapes=shapes, dtype="float32", **fields).save_pretrained(folder)
    described = [describe(t) for t in mapping]
    conversion_mapping.register_checkpoint_conversion_mapping("Shell", mapping, overwrite=True)
    model, info = Shell.from_pretrained(folder, output_loading_info=True)
    for key, value in model.state_dict().items():
        golden[f"{name}/{key}"] = value.contiguous()
    model.save_pretrained(out / "saved", max_shard_size=limit)
    torch.manual_seed(99)
    conversion_mapping.register_checkpoint_conversion_mapping("Shell", mapping, overwrite=True)
    cases.append({
        "name": name, "transforms": described, "limit": limit,
        "missing": sorted(info["missing_keys"]), "unexpected": sorted(info["unexpected_keys"]),
        "saved": hashes(out / "saved"),
    })
    shutil.rmtree(out / "saved")


case("stacked",
     [WeightConverter(["mlp.experts.*.gate.weight", "mlp.experts.*.up.weight"], "mlp.experts.gate_up",
                      [MergeModulelist(dim=0), Concatenate(dim=1)]),
      WeightConverter("mlp.experts.*.down.weight", "mlp.experts.down", [MergeModulelist(dim=0)])],
     {f"layers.{i}.mlp.experts.{n}": s for i in (0, 1, 10) for n, s in {"gate_up": [12, 6, 4], "down": [12, 4, 3]}.items()}
     | {"norm.weight": [4]},
     {f"layers.{i}.mlp.experts.{e}.{n}.weight": s for i in (0, 1, 10) for e in range(12)
      for n, s in {"gate": [3, 4], "up": [3, 4], "down": [4, 3]}.items()} | {"norm.weight": [4]},
     limit="1KB")
case("chunked", [WeightConverter("qkv.weight", ["q.weight", "k.weight", "v.weight"], [Chunk(dim=0)]),
                 WeightConverter("w12", ["w1", "w2"], [Chunk(dim=1)])],
     {"a.q.weight": [2, 5], "a.k.weight": [2, 5], "a.v.weight": [2, 5], "a.w1": [3, 4], "a.w2": [3, 4]},
     {"a.qkv.weight": [6, 5], "a.w12": [3, 8]}, limit="100B".replace("B", "KB"))
case("split", [WeightConverter("fused.weight", ["q.weight", "kv.weight", "g.weight"], [Split(dim=0)])],
     {"a.q.weight": [4, 5], "a.kv.weight": [2, 5], "a.g.weight": [1, 5]}, {"a.fused.weight": [7, 5]})
case("joined", [WeightConverter(["q_conv.weight", "k_conv.weight"], "conv.weight", [Concatenate(dim=0)]),
                WeightConverter("parts.*.weight", "whole.weight", [Concatenate(dim=-1, num_shards_attribute="num_parts")])],
     {"a.conv.weight": [5, 1, 3], "b.whole.weight": [2, 6]},
     {"a.q_conv.weight": [3, 1, 3], "a.k_conv.weight": [2, 1, 3]} | {f"b.parts.{i}.weight": [2, 2] for i in range(3)})
case("transposed", [WeightConverter("experts.w", "experts.weight", [Transpose(1, 2)]),
                    WeightConverter("list.*.w", "list.weight", [MergeModulelist(dim=0), Transpose(1, 2)])],
     {"a.experts.weight": [3, 5, 4], "a.list.weight": [2, 4, 3]},
     {"a.experts.w": [3, 4, 5], "a.list.0.w": [3, 4], "a.list.1.w": [3, 4]})
case("interleaved", [WeightConverter("w13", ["gate_proj", "up_proj"], [Interleave(dim=1), Chunk(dim=1)]),
                     WeightConverter("fused", "unfused", [Interleave(dim=0)])],
     {"a.gate_proj": [2, 3, 4], "a.up_proj": [2, 3, 4], "a.unfused": [6, 2]}, {"a.w13": [2, 6, 4], "a.fused": [6, 2]})
case("rope", [WeightConverter("in_proj.weight", ["q.weight", "k.weight", "v.weight"],
                              [Chunk(dim=0), PermuteForRope(permute_layer_names=["q", "k"])]),
              WeightConverter("wq", "q_proj", [PermuteForRope()]),
              WeightConverter("bq", "q_bias", [PermuteForRope(inverse=True)])],
     {"a.q.weight": [8, 3], "a.k.weight": [8, 3], "a.v.weight": [8, 3], "a.q_proj": [8, 3], "a.q_bias": [8]},
     {"a.in_proj.weight": [24, 3], "a.wq": [8, 3], "a.bq": [8]})
case("patches", [WeightConverter("conv.weight", "linear.weight", [Conv3dToLinear(in_channels=3, kernel_size=(2, 2, 2))])],
     {"a.linear.weight": [4, 24]}, {"a.conv.weight": [4, 3, 2, 2, 2]})
case("renamed", [PrefixChange(prefix_to_remove="backbone"), WeightRenaming(r"blocks\.(\d+)\.", r"layers.\1."),
                 WeightRenaming(r"\.(att|ffn)\.w\.", r".\1.weight_"), GroupWeightRename([r"norm0\.", r"norm1\."], [r"norm1.", r"norm2."])],
     {"layers.0.norm1.weight": [2], "layers.0.norm2.weight": [2], "layers.11.att.weight_a": [3], "LayerNorm.weight": [4],
      "kept.weight": [2], "absent.weight": [1]},
     {"backbone.blocks.0.norm0.weight": [2], "backbone.blocks.0.norm1.weight": [2], "backbone.blocks.11.att.w.a": [3],
      "LayerNorm.gamma": [4], "kept.weight": [2], "strange.weight": [2]})

# A real model of the reference, with its own table.
torch.manual_seed(0)
model = MixtralForCausalLM(MixtralConfig(
    vocab_size=16, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
    num_local_experts=3, max_position_embeddings=16))
model.save_pretrained(out / "mixtral", max_shard_size="3KB")
(out / "mixtral" / "generation_config.json").unlink()
for key, value in model.state_dict().items():
    golden[f"mixtral/{key}"] = value
config = json.loads((out / "mixtral" / "config.json").read_text())
shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
ShellConfig(shapes=shapes, dtype="float32").save_pretrained(out / "mixtral")
cases.append({
    "name": "mixtral", "limit": "3KB", "missing": [], "unexpected": [], "saved": hashes(out / "mixtral"),
    "transforms": [describe(t) for t in conversion_mapping.get_checkpoint_conversion_mapping("mixtral")],
})

# Every renaming of the reference's tables, on names made of its patterns.
names = []
seen = set()
for table in conversion_mapping._build_checkpoint_conversion_mapping().values():
    for transform in map(deepcopy, table):
        described = describe(transform)
        key = json.dumps({k: v for k, v in described.items() if k != "operations"})
        if type(transform).__name__ not in ("WeightRenaming", "PrefixChange", "GroupWeightRename", "WeightConverter") or key in seen:
            continue
        seen.add(key)
        samples = []
        for source in transform.source_patterns:
            plain = re.sub(r"\(\?[^()]*(\([^()]*\))?[^()]*\)", "", source)
            plain = re.sub(r"\(([^()|]*)\|?[^()]*\)", r"\1", plain).replace(r"\d+", "3").replace(r"\.", ".").strip("^$")
            plain = plain.replace(".+", "foo").replace("*", "2")
            samples += [plain, f"model.layers.0{plain}", f"model.{plain}.weight", f"{plain}weight"]
        chain = []
        backward = transform.reverse_transform()
        for sample in samples:
            forward, pattern = transform.rename_source_key(sample)
            back, pattern_back = backward.rename_source_key(forward)
            chain.append([sample, forward, pattern, back, pattern_back])
        described.pop("operations", None)
        names.append({"transform": described, "names": chain})
names = names[:: max(1, len(names) // 160)]
(out / "names.json").write_text(json.dumps(names, separators=(",", ":")) + "\n")
(out / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
save_file(golden, out / "golden.safetensors")
