"""Golden checks of LoRA adapters, made with PEFT: values at the start for a seed, losses, gradients, results, files.

    python scripts/goldens/adapters.py test/fixtures/adapters        writes the fixtures
    python scripts/goldens/adapters.py --check BASE DIR [DIR ...]    loads folders that torchformers saved: prints the sum of
                                                                     the logits, fails unless every tensor finds its place

Needs torch 2.11.0, transformers 5.23.0, peft 0.21.2. The base model is test/fixtures/models/llama; the other one is `Net`,
which test/adapters has too.
"""

import json
import os
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

LLAMA = "test/fixtures/models/llama"
IDS = [[3, 7, 11, 20, 63, 5], [9, 9, 1, 40, 2, 8]]

# Cases for transformers' add_adapter.
CASES = {
    "default_targets": dict(r=4, init_lora_weights="gaussian"),
    "list": dict(r=2, lora_alpha=16, target_modules=["q_proj", "down_proj"], init_lora_weights=False),
    "regex": dict(
        r=4,
        target_modules=r".*layers\.1\..*(q|k|gate)_proj",
        use_rslora=True,
        rank_pattern={"k_proj": 2, "^model.layers.1.mlp.gate_proj": 3},
        alpha_pattern={"self_attn.q_proj": 5},
        init_lora_weights=False,
    ),
    "all_linear": dict(r=2, target_modules="all-linear", exclude_modules=["up_proj"], init_lora_weights=False),
    "layers": dict(
        r=2,
        target_modules=["o_proj"],
        layers_to_transform=[1],
        layers_pattern="layers",
        modules_to_save=["lm_head"],
        init_lora_weights=False,
    ),
    "embeddings": dict(r=2, target_modules=["embed_tokens", "lm_head"], init_lora_weights=False),
    "dora": dict(r=2, target_modules=["v_proj", "up_proj"], use_dora=True, init_lora_weights=False),
    "zero": dict(r=2, target_modules=["v_proj"]),
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 6, padding_idx=0)
        self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.point = nn.Conv2d(4, 4, 1)
        self.line = nn.Conv1d(2, 4, 3)
        self.fc = nn.Linear(6, 5)
        self.score = nn.Linear(5, 3)

    def forward(self, ids, image):
        h = torch.relu(self.fc(self.embed(ids)))
        p = torch.tanh(self.point(self.conv(image)))
        line = self.line(p.flatten(2).transpose(1, 2)[:, :2])
        return self.score(h).sum(1) + p.mean((1, 2, 3))[:, None] + line.mean((1, 2))[:, None]


def tensors(prefix, state):
    # Copies: parameters change in place afterwards.
    return {f"{prefix}/{name}": value.detach().clone() for name, value in state.items()}


def train_and_measure(model, forward, out, prefix):
    """Loss and gradients, one step, the result after it; then merged."""
    loss = forward(model)
    loss.backward()
    out[f"{prefix}/loss"] = loss.detach()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    out.update(tensors(f"{prefix}/grad", grads))
    with torch.no_grad():
        for p in model.parameters():
            if p.grad is not None:
                p.sub_(0.1 * p.grad)
                p.grad = None
        out[f"{prefix}/after"] = forward(model).detach()


def merged(model, forward, out, prefix):
    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
    with torch.no_grad():
        for layer in layers:
            layer.merge()
        out[f"{prefix}/merged"] = forward(model)
        for layer in layers:
            layer.unmerge()
        out[f"{prefix}/unmerged"] = forward(model)


def llama_cases(folder, out, facts):
    ids = torch.tensor(IDS)

    def loss_of(model):
        return model(input_ids=ids, labels=ids).loss

    for name, fields in CASES.items():
        model = AutoModelForCausalLM.from_pretrained(LLAMA)
        torch.manual_seed(7)
        model.add_adapter(LoraConfig(**fields), "default")
        model.eval()
        out.update(tensors(f"{name}/init", model.get_adapter_state_dict()))
        train_and_measure(model, loss_of, out, name)
        merged(model, loss_of, out, name)
        path = os.path.join(folder, name)
        model.peft_config["default"].base_model_name_or_path = LLAMA
        model.save_pretrained(path)
        config = json.load(open(os.path.join(path, "adapter_config.json")))
        for key, value in config.items():
            if isinstance(value, list) and all(isinstance(item, str) for item in value):
                config[key] = sorted(value)
        open(os.path.join(path, "adapter_config.json"), "w").write(json.dumps(config, indent=2, sort_keys=True))
        for file in os.listdir(path):
            if file not in ("adapter_config.json", "adapter_model.safetensors"):
                os.remove(os.path.join(path, file))
        facts.append({"name": name, "fields": fields})


def several(folder, out):
    """Two adapters at once, each alone, none."""
    ids = torch.tensor(IDS)
    model = AutoModelForCausalLM.from_pretrained(LLAMA)
    model.load_adapter(os.path.join(folder, "list"), "a")
    model.load_adapter(os.path.join(folder, "regex"), "b")
    with torch.no_grad():
        for active in (["a", "b"], ["b", "a"], "a", "b"):
            model.set_adapter(active)
            out["several/" + "+".join([active] if isinstance(active, str) else active)] = model(ids).logits
        model.disable_adapters()
        out["several/none"] = model(ids).logits
    bf16 = AutoModelForCausalLM.from_pretrained(os.path.join(folder, "list"), dtype="bfloat16")
    with torch.no_grad():
        out["several/bf16"] = bf16(ids).logits
        out["several/bf16/dtypes"] = torch.tensor(
            [p.dtype == torch.bfloat16 for n, p in bf16.named_parameters() if "lora_" in n]
        )


def net_cases(folder, out):
    torch.manual_seed(3)
    net = Net()
    out.update(tensors("net/base", net.state_dict()))
    ids = torch.tensor([[1, 2, 0], [4, 9, 9]])
    image = torch.randn(2, 1, 6, 6)
    out["net/image"] = image

    def loss_of(model):
        return model(ids, image).square().sum()

    torch.manual_seed(11)
    config = LoraConfig(
        modules_to_save=["score"],
        r=2,
        lora_alpha=3,
        target_modules=["embed", "conv", "point", "line", "fc"],
        bias="lora_only",
        init_lora_weights=False,
    )
    model = get_peft_model(net, config)
    model.eval()
    out.update(tensors("net/init", model.state_dict()))
    train_and_measure(model, loss_of, out, "net")
    merged(model, loss_of, out, "net")
    out["net/count"] = torch.tensor(model.get_nb_trainable_parameters())
    model.save_pretrained(os.path.join(folder, "net"))
    os.remove(os.path.join(folder, "net", "README.md"))


def biased(folder, out):
    """A bias of the second matrix, and all biases of the model."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    out.update(tensors("biased/base", net.state_dict()))
    torch.manual_seed(5)
    config = LoraConfig(r=2, target_modules=["0"], bias="all", lora_bias=True, init_lora_weights=False)
    model = get_peft_model(net, config)
    out.update(tensors("biased/init", model.state_dict()))
    x = torch.randn(3, 4)
    out["biased/x"] = x

    def loss_of(model):
        return model(x).square().sum()

    train_and_measure(model, loss_of, out, "biased")
    merged(model, loss_of, out, "biased")
    model.save_pretrained(os.path.join(folder, "biased"))
    os.remove(os.path.join(folder, "biased", "README.md"))


def check(base, folders):
    ids = torch.tensor(IDS)
    for folder in folders:
        model = AutoModelForCausalLM.from_pretrained(base)
        wanted = set(load_file(os.path.join(folder, "adapter_model.safetensors")))
        model = PeftModel.from_pretrained(model, folder)
        from peft import get_peft_model_state_dict

        found = set(get_peft_model_state_dict(model))
        assert wanted == found, f"{folder}: {wanted ^ found}"
        with torch.no_grad():
            print(f"{folder}: {model(ids).logits.double().sum().item():.6f}")


def main():
    if sys.argv[1] == "--check":
        check(sys.argv[2], sys.argv[3:])
        return
    folder = sys.argv[1]
    out, facts = {}, []
    llama_cases(folder, out, facts)
    several(folder, out)
    net_cases(folder, out)
    biased(folder, out)
    save_file({name: value.contiguous().clone() for name, value in out.items()}, os.path.join(folder, "golden.safetensors"))
    with open(os.path.join(folder, "golden.json"), "w") as file:
        json.dump({"ids": IDS, "cases": facts}, file, indent=1)
        file.write("\n")


main()
