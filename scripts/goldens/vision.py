"""What the Python reference computes with vision models of many configurations.

    python scripts/goldens/vision.py test/fixtures/vision

Needs transformers 5.23.0 and torch 2.11.0. Nothing but results is stored: weights are those of a seed, moved by numbers
of another seed so that every parameter matters, and inputs are drawn too. Writes cases.json and golden.safetensors.
"""

import json
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.utils import logging

warnings.filterwarnings("ignore")
logging.set_verbosity_error()
out = Path(sys.argv[1])
shutil.rmtree(out, ignore_errors=True)
out.mkdir(parents=True)
tensors, cases = {}, {"models": [], "configs": []}


def store(prefix, name, value):
    tensors[f"{prefix}/{name}"] = value.detach().clone().contiguous()


def move(model, seed):
    """Every parameter and buffer that checkpoints store, in their order, moved by a fifth of a normal number."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.add_(torch.rand(buffer.shape))


def draw(spec):
    kind, *rest = spec
    if kind == "randn":
        return torch.randn(rest[0])
    if kind == "randint":
        return torch.randint(rest[0], rest[1], rest[2])
    if kind == "uniform":
        return torch.rand(rest[1]) * rest[0]
    if kind == "bool":
        return torch.rand(rest[1]) < rest[0]
    return torch.tensor(rest[0])


def pick(output, path):
    for part in path.split("."):
        output = output[int(part)] if part.isdigit() else getattr(output, part)
    return output


def model(name, cls, config, inputs, outputs, *, options=None, grads=None, train=False, attn=None, seed=3, buffers=()):
    Model = getattr(transformers, cls)
    torch.manual_seed(seed)
    instance = Model._from_config(Model.config_class(**config), **({"attn_implementation": attn} if attn else {}))
    after = torch.rand(1).item()
    for key in ("initial",):
        total = sum(p.double().abs().sum() for p in instance.parameters())
        store(name, key, total)
    move(instance, seed + 1)
    instance.train(train)
    torch.manual_seed(seed + 2)
    given = {key: draw(spec) for key, spec in inputs.items()}
    torch.manual_seed(seed + 3)
    with torch.set_grad_enabled(grads is not None):
        result = instance(**given, **(options or {}))
    for path in outputs:
        store(name, path, pick(result, path))
    if grads is not None:
        loss = getattr(result, "loss", None)
        if loss is None:
            loss = sum(pick(result, path).pow(2).mean() for path in outputs)
        loss.backward()
        named = dict(instance.named_parameters())
        norms = [p.grad.double().norm() if p.grad is not None else torch.tensor(-1.0).double() for p in named.values()]
        store(name, "gradients", torch.stack(norms))
        for key in grads:
            store(name, f"grad:{key}", named[key].grad)
    for key in buffers:
        store(name, f"buffer:{key}", dict(instance.named_buffers())[key])
    cases["models"].append(
        dict(name=name, config=config, inputs=inputs, options=options or {}, outputs=outputs, grads=grads, train=train,
             attn=attn, seed=seed, after=after, buffers=list(buffers), **{"class": cls})
    )


IMAGE = ["randn", [2, 3, 32, 32]]

# ResNet: both kinds of block, strides in other places, other losses, training mode.
RESNET = dict(embedding_size=6, hidden_sizes=[8, 12, 16], depths=[2, 1, 2], num_labels=4)
TRACE = dict(output_hidden_states=True)
model("resnet-basic", "ResNetForImageClassification", {**RESNET, "layer_type": "basic", "hidden_act": "gelu"},
      {"pixel_values": IMAGE, "labels": ["randint", 0, 4, [2]]}, ["logits", "loss", "hidden_states.1"], options=TRACE,
      grads=["resnet.embedder.embedder.convolution.weight", "classifier.1.weight"])
model("resnet-strides", "ResNetModel",
      {**RESNET, "downsample_in_bottleneck": True, "downsample_in_first_stage": True, "num_channels": 1},
      {"pixel_values": ["randn", [1, 1, 45, 38]]}, ["last_hidden_state", "pooler_output"])
model("resnet-train", "ResNetForImageClassification", RESNET,
      {"pixel_values": IMAGE, "labels": ["randint", 0, 4, [2]]}, ["logits", "loss"], train=True,
      grads=["resnet.encoder.stages.0.layers.0.shortcut.convolution.weight"],
      buffers=["resnet.embedder.embedder.normalization.running_mean", "resnet.embedder.embedder.normalization.running_var"])
model("resnet-regression", "ResNetForImageClassification", {**RESNET, "num_labels": 1},
      {"pixel_values": IMAGE, "labels": ["randn", [2]]}, ["logits", "loss"], grads=[])
model("resnet-multilabel", "ResNetForImageClassification", RESNET,
      {"pixel_values": IMAGE, "labels": ["uniform", 1.0, [2, 4]]}, ["logits", "loss"], grads=[])
model("resnet-backbone", "ResNetBackbone", {**RESNET, "out_indices": [0, -1]}, {"pixel_values": IMAGE},
      ["feature_maps.0", "feature_maps.1", "hidden_states.2"], options=TRACE)

# ViT: sizes that are no squares, masks, weights of attention, positions of larger images, dropout.
VIT = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=20, image_size=16, patch_size=4,
           encoder_stride=4, num_labels=3)
SMALL = ["randn", [2, 3, 16, 16]]
model("vit-oblong", "ViTModel", {**VIT, "image_size": [16, 24], "patch_size": [4, 8], "qkv_bias": False, "pooler_output_size": 5,
                                 "pooler_act": "relu"},
      {"pixel_values": ["randn", [2, 3, 16, 24]]}, ["last_hidden_state", "pooler_output"], grads=["embeddings.position_embeddings"])
model("vit-mask", "ViTForImageClassification", VIT,
      {"pixel_values": SMALL, "attention_mask": ["value", [[1] * 17, [1] * 9 + [0] * 8]]}, ["logits"])
model("vit-eager", "ViTForImageClassification", VIT, {"pixel_values": SMALL, "labels": ["randint", 0, 3, [2]]},
      ["logits", "loss", "attentions.1", "hidden_states.2"], options={"output_attentions": True, "output_hidden_states": True},
      attn="eager", grads=["vit.embeddings.cls_token", "vit.layers.0.attention.q_proj.bias"])
model("vit-larger", "ViTForImageClassification", VIT, {"pixel_values": ["randn", [1, 3, 24, 32]]}, ["logits"],
      options={"interpolate_pos_encoding": True}, grads=["vit.embeddings.position_embeddings"])
model("vit-dropout", "ViTForImageClassification", {**VIT, "hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.2},
      {"pixel_values": SMALL, "labels": ["randint", 0, 3, [2]]}, ["logits", "loss"], train=True, attn="eager", grads=[])
model("vit-masked", "ViTForMaskedImageModeling", VIT, {"pixel_values": SMALL, "bool_masked_pos": ["bool", 0.4, [2, 16]]},
      ["loss", "reconstruction"], grads=["vit.embeddings.mask_token", "decoder.0.weight"])
model("vit-unmasked", "ViTForMaskedImageModeling", VIT, {"pixel_values": SMALL}, ["reconstruction"])

# SAM: windows that do not fit, without positions, all kinds of prompts, guidance, traces, gradients.
VISION = dict(hidden_size=16, output_channels=8, num_hidden_layers=2, num_attention_heads=2, image_size=20, patch_size=4,
              window_size=3, global_attn_indexes=[1], num_pos_feats=4)
PROMPT = dict(hidden_size=8, image_size=20, patch_size=4, mask_input_channels=8)
DECODER = dict(hidden_size=8, mlp_dim=12, num_attention_heads=2, iou_head_hidden_dim=8, iou_head_depth=4)
SAM = dict(vision_config=VISION, prompt_encoder_config=PROMPT, mask_decoder_config=DECODER)
PICTURE = ["randn", [2, 3, 20, 20]]
MASKS = ["iou_scores", "pred_masks"]
POINTS = {"input_points": ["uniform", 20.0, [2, 2, 3, 2]], "input_labels": ["value", [[[1, 0, -1], [0, 1, -10]], [[1, 1, 1], [-10, -10, 0]]]]}
model("sam-points", "SamModel", SAM, {"pixel_values": PICTURE, **POINTS}, MASKS,
      grads=["vision_encoder.layers.0.attn.rel_pos_h", "shared_image_embedding.positional_embedding", "prompt_encoder.point_embed.1.weight"])
model("sam-all-prompts", "SamModel", SAM,
      {"pixel_values": PICTURE, **POINTS, "input_boxes": ["uniform", 20.0, [2, 2, 4]], "input_masks": ["randn", [2, 1, 20, 20]]}, MASKS,
      options={"multimask_output": False}, grads=["prompt_encoder.mask_embed.conv1.weight", "mask_decoder.iou_token.weight"])
model("sam-no-prompt", "SamModel", SAM, {"pixel_values": ["randn", [1, 3, 20, 20]]}, MASKS)
model("sam-whole-points", "SamModel", SAM, {"pixel_values": ["randn", [1, 3, 20, 20]], "input_points": ["value", [[[[4, 7], [12, 19]]]]]}, MASKS)
model("sam-embeddings", "SamModel", SAM, {"image_embeddings": ["randn", [2, 8, 5, 5]], "input_boxes": ["uniform", 20.0, [2, 3, 4]]}, MASKS)
model("sam-guided", "SamModel", SAM,
      {"image_embeddings": ["randn", [1, 8, 5, 5]], "input_points": ["uniform", 20.0, [1, 1, 1, 2]],
       "attention_similarity": ["randn", [1, 1, 1, 25]], "target_embedding": ["randn", [1, 1, 1, 8]]}, MASKS)
model("sam-eager", "SamModel", {**SAM, "vision_config": {**VISION, "attention_dropout": 0.2}}, {"pixel_values": PICTURE, **POINTS},
      [*MASKS, "vision_hidden_states.0", "vision_hidden_states.2", "vision_attentions.0", "vision_attentions.1", "mask_decoder_attentions.1"],
      options={"output_attentions": True, "output_hidden_states": True}, attn="eager", train=True, grads=[])
model("sam-vision", "SamVisionModel", {**VISION, "use_rel_pos": False, "use_abs_pos": False, "window_size": 0, "mlp_dim": 9, "qkv_bias": False},
      {"pixel_values": PICTURE}, ["last_hidden_state"], grads=["vision_encoder.neck.conv2.weight"])

# Checkpoints from before version 5, and what is saved of them.
torch.manual_seed(0)
tiny = transformers.ViTForImageClassification(transformers.ViTConfig(**VIT))
move(tiny, 1)
OLD = [("vit.layers.", "vit.encoder.layer."), ("attention.q_proj", "attention.attention.query"), ("attention.k_proj", "attention.attention.key"),
       ("attention.v_proj", "attention.attention.value"), ("attention.o_proj", "attention.output.dense"), ("mlp.fc1", "intermediate.dense"),
       ("mlp.fc2", "output.dense")]


def old_name(name):
    for new, old in OLD:
        name = name.replace(new, old)
    return name


old = out / "vit-old"
old.mkdir()
tiny.config.architectures = ["ViTForImageClassification"]
tiny.config.save_pretrained(old)
save_file({old_name(name): value.contiguous() for name, value in tiny.state_dict().items()}, old / "model.safetensors", metadata={"format": "pt"})
loaded, info = transformers.ViTForImageClassification.from_pretrained(old, output_loading_info=True)
assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
torch.manual_seed(2)
store("vit-old", "logits", loaded(torch.randn(2, 3, 16, 16)).logits)
with tempfile.TemporaryDirectory() as folder:
    loaded.save_pretrained(folder)
    cases["old_saved"] = sorted(load_file(f"{folder}/model.safetensors"))


# Configurations: what is saved of them, or that they are refused.
def config(cls, **kwargs):
    try:
        text = getattr(transformers, cls)(**kwargs).to_json_string()
        cases["configs"].append(dict(kwargs=kwargs, saved=text, **{"class": cls}))
    except Exception as error:
        cases["configs"].append(dict(kwargs=kwargs, error=type(error).__name__, **{"class": cls}))


config("ResNetConfig")
config("ResNetConfig", layer_type="basic", depths=[2, 2], hidden_sizes=[8, 16], num_labels=3)
config("ResNetConfig", out_features=["stem", "stage3"])
config("ResNetConfig", out_indices=[-3, -1])
config("ResNetConfig", out_features=["stage1", "stage4"], out_indices=[1, -1])
config("ResNetConfig", layer_type="wide")
config("ResNetConfig", out_features=["stage5"])
config("ResNetConfig", out_features=["stage3", "stage1"])
config("ResNetConfig", out_features=["stage1", "stage1"])
config("ResNetConfig", out_features="stage1")
config("ResNetConfig", out_indices=[7])
config("ResNetConfig", out_indices=[4, -1])
config("ResNetConfig", out_indices=[-1, 0])
config("ResNetConfig", out_features=["stage1"], out_indices=[2])
config("ResNetConfig", out_features=["stage1"], out_indices=[1, 2])
config("ResNetConfig", depths="3")
config("ViTConfig")
config("ViTConfig", image_size=[32, 64], patch_size=[8, 16], pooler_output_size=7, hidden_size=64)
config("ViTConfig", hidden_dropout_prob=0.5, layer_norm_eps=1e-6)
config("ViTConfig", hidden_size=10, num_attention_heads=3)
config("ViTConfig", patch_size="16")
config("SamConfig")
config("SamConfig", **SAM)
config("SamConfig", vision_config={**VISION, "scale": 7}, tie_word_embeddings=False)
config("SamConfig", vision_config=3)
config("SamVisionConfig", mlp_ratio=2.5, global_attn_indexes=[])
config("SamPromptEncoderConfig", image_size=512)
config("SamMaskDecoderConfig", num_multimask_outputs=4)

(out / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
save_file(tensors, out / "golden.safetensors")
