"""Writes lib/timm/resnet_cfgs.ts: which ResNets timm has, how they are built, and which weights it names for them.

    python scripts/timm_cfgs.py > lib/timm/resnet_cfgs.ts && npm run style

Needs timm 1.0.31. Left out are models with layers that lib/timm does not have (attention, anti-aliasing).
"""

import dataclasses
import json

import timm.models.resnet as resnet
from timm.models import get_pretrained_cfg, list_models

BASE = dict(
    num_classes=1000, input_size=[3, 224, 224], pool_size=[7, 7], crop_pct=0.875, interpolation="bilinear",
    mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], first_conv="conv1", classifier="fc", license="apache-2.0",
)
FIELDS = [*BASE, "test_input_size", "test_crop_pct", "label_offset"]

built = {}
resnet._create_resnet = lambda variant, pretrained=False, **kwargs: built.__setitem__(variant, kwargs)
names = list_models(module="resnet")
for name in names:
    getattr(resnet, name)()


def plain(value):
    if isinstance(value, tuple):
        return list(value)
    return value


def cfg_of(name):
    cfg = dataclasses.asdict(get_pretrained_cfg(name))
    fields = {key: plain(cfg.get(key)) for key in FIELDS}
    differing = {key: value for key, value in fields.items() if value is not None and value != BASE.get(key)}
    expected = f"timm/{name}"
    assert cfg["hf_hub_id"] in (None, expected), cfg["hf_hub_id"]
    return differing if cfg["hf_hub_id"] else {**differing, "untrained": True}


models = {}
for name in sorted(built):
    args = dict(built[name])
    if any(key in args.get("block_args", {}) for key in ("attn_layer",)) or "aa_layer" in args:
        continue
    block = args.pop("block")
    block = [each.__name__ for each in block] if isinstance(block, list) else block.__name__
    layers = list(args.pop("layers"))
    args = {key: plain(value) for key, value in args.items()}
    tags = {tag.split(".", 1)[1]: cfg_of(tag) for tag in list_models(name, pretrained=False, include_tags=True) if "." in tag}
    default = get_pretrained_cfg(name).tag
    if default not in tags:
        tags[default] = cfg_of(f"{name}.{default}")
    tags = {default: tags.pop(default), **dict(sorted(tags.items()))}
    models[name] = dict(block=block, layers=layers, args=args, tags=tags)

print("""// Which ResNets timm has, how they are built, and which weights it names for them: facts of timm 1.0.31.
// Written by scripts/timm_cfgs.py. Do not edit.
// Over 500 lines because it is a table.
import type { ResNetEntry } from "./registry.ts";

/** What holds for all weights unless a tag says otherwise. */
export const BASE_CFG = """ + json.dumps(BASE) + """ as const;

/** Model → how it is built, and its weights by tag, the default one first. */
export const RESNETS: Readonly<Record<string, ResNetEntry>> = """ + json.dumps(models) + ";")
