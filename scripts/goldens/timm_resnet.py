"""What timm computes with ResNets of many kinds.

    python scripts/goldens/timm_resnet.py test/fixtures/timm

Needs timm 1.0.31 and torch 2.11.0. Weights and inputs are those of a seed and are not stored. Writes cases.json and
golden.safetensors.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from timm.models import get_pretrained_cfg
from timm.models._manipulate import adapt_input_conv
from timm.models.resnet import BasicBlock, Bottleneck, ResNet

out = Path(sys.argv[1])
shutil.rmtree(out, ignore_errors=True)
out.mkdir(parents=True)
tensors, cases = {}, {"models": [], "names": {}}
BLOCKS = {"BasicBlock": BasicBlock, "Bottleneck": Bottleneck}


def store(name, value):
    tensors[name] = value.detach().clone().contiguous()


def case(name, block, layers, *, image=(2, 3, 48, 40), train=False, grads=None, **args):
    seed = 5
    torch.manual_seed(seed)
    blocks = [BLOCKS[each] for each in block] if isinstance(block, list) else BLOCKS[block]
    planes = args.pop("channels", (6, 8, 10, 12))
    model = ResNet(blocks, layers, num_classes=args.pop("num_classes", 5), channels=planes, **args)
    after = torch.rand(1).item()
    store(f"{name}/initial", sum(p.double().abs().sum() for p in model.parameters()))
    torch.manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.add_(torch.rand(buffer.shape))
    model.train(train)
    torch.manual_seed(seed + 2)
    x = torch.randn(image)
    torch.manual_seed(seed + 3)
    logits = model(x)
    store(f"{name}/logits", logits)
    logits.pow(2).mean().backward()
    store(f"{name}/gradients", torch.stack([p.grad.double().norm() if p.grad is not None else torch.tensor(-1.0).double() for p in model.parameters()]))
    store(f"{name}/conv1", (model.conv1[0] if isinstance(model.conv1, torch.nn.Sequential) else model.conv1).weight.grad.double().sum(0))
    if not train:
        with torch.no_grad():
            last, features = model.forward_intermediates(x)
            store(f"{name}/pooled", model.forward_head(last, pre_logits=True))
            for i, feature in enumerate(features):
                store(f"{name}/feature{i}", feature.double().mean((2, 3)))
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in args.items()}
    cases["models"].append(dict(name=name, block=block, layers=list(layers), planes=list(planes), image=list(image), train=train, args=given, seed=seed, after=after,
                                num_classes=model.num_classes, channels=[info["num_chs"] for info in model.feature_info],
                                reductions=[info["reduction"] for info in model.feature_info], keys=hashlib.sha256("\n".join(model.state_dict()).encode()).hexdigest()))


case("basic", "BasicBlock", (2, 1, 1, 1))
case("basic-d", "BasicBlock", (1, 2, 1, 1), stem_width=4, stem_type="deep", avg_down=True)
case("bottleneck", "Bottleneck", (1, 2, 1, 1))
case("bottleneck-d", "Bottleneck", (2, 1, 1, 1), stem_width=8, stem_type="deep", avg_down=True)
case("tiered", "Bottleneck", (1, 1, 1, 1), stem_width=8, stem_type="deep_tiered", avg_down=True, in_chans=1, image=(1, 1, 33, 47))
case("next", "Bottleneck", (1, 1, 1, 1), cardinality=4, base_width=24, channels=(8, 16, 8, 16))
case("wide", "Bottleneck", (1, 1, 1, 1), base_width=128)
case("narrow", "Bottleneck", (1, 1, 1, 1), block_reduce_first=2, down_kernel_size=3)
case("stride8", "Bottleneck", (1, 2, 2, 2), output_stride=8)
case("stride16-avg", "BasicBlock", (1, 1, 2, 2), output_stride=16, avg_down=True)
case("stride8-kernel3", "BasicBlock", (1, 1, 2, 2), output_stride=8, down_kernel_size=3)
case("stem-pool", "BasicBlock", (1, 1, 1, 1), replace_stem_pool=True, act_layer="silu")
case("max", "BasicBlock", (1, 1, 1, 1), global_pool="max", zero_init_last=False)
case("avgmax", "BasicBlock", (1, 1, 1, 1), global_pool="avgmax")
case("catavgmax", "BasicBlock", (1, 1, 1, 1), global_pool="catavgmax")
case("no-head", "BasicBlock", (1, 1, 1, 1), num_classes=0)
case("mixed", ["BasicBlock", "BasicBlock", "Bottleneck", "BasicBlock"], (1, 1, 1, 1), stem_width=4, stem_type="deep", avg_down=True)
case("groupnorm", "Bottleneck", (1, 1, 1, 1), norm_layer="groupnorm", channels=(32, 32, 32, 32))
case("train", "Bottleneck", (1, 2, 1, 1), train=True)
case("dropped", "BasicBlock", (2, 2, 2, 2), train=True, drop_rate=0.3, drop_path_rate=0.4, drop_block_rate=0.2, image=(3, 3, 96, 96))

# Every name: what its state dict holds, which weights are the default ones.
for name in timm.list_models(module="resnet"):
    model = timm.create_model(name, device="meta")
    modules = {type(module).__name__ for module in model.modules()}
    if modules & {"BlurPool2d", "EcaModule", "SEModule", "AvgPool2dAa"} or name.startswith("resnetaa"):
        continue
    lines = "\n".join(f"{key} {list(value.shape)}" for key, value in model.state_dict().items())
    cfg = get_pretrained_cfg(name)
    cases["names"][name] = dict(hash=hashlib.sha256(lines.encode()).hexdigest(), parameters=sum(p.numel() for p in model.parameters()),
                                hf_hub_id=cfg.hf_hub_id, num_classes=cfg.num_classes, input_size=list(cfg.input_size),
                                mean=list(cfg.mean), std=list(cfg.std), interpolation=cfg.interpolation, crop_pct=cfg.crop_pct,
                                first_conv=cfg.first_conv)

torch.manual_seed(1)
weight = torch.randn(4, 3, 2, 2)
for channels in (1, 2, 5, 6):
    store(f"adapted/{channels}", adapt_input_conv(channels, weight))

(out / "cases.json").write_text(json.dumps(cases, separators=(",", ":")) + "\n")
save_file(tensors, out / "golden.safetensors")
