"""Files of torch.save, in both formats, and the tensors in them.

    python scripts/goldens/pickles.py test/fixtures/pickles

Needs torch 2.11.0. The files hold plain data, but for refused.pt, which wants a class that is no tensor.
"""

import collections
import fractions
import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

out = Path(sys.argv[1])
shutil.rmtree(out, ignore_errors=True)
out.mkdir(parents=True)
torch.manual_seed(0)

DTYPES = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64"]
state = collections.OrderedDict((f"d.{d}", (torch.randn(2, 3) * 3).to(getattr(torch, d))) for d in DTYPES)
state["t"] = torch.randn(3, 4).t()
state["part"] = torch.randn(5, 4)[1:3, 1:]
state["scalar"] = torch.tensor(2.5)
state["empty"] = torch.empty(0, 3)
state["parameter"] = torch.nn.Parameter(torch.randn(4))
state["embed.weight"] = torch.randn(6, 2)
state["lm_head.weight"] = state["embed.weight"]
shared = torch.randn(8)
state["first"], state["second"] = shared[:5], shared[3:]
plain = {name: tensor.detach().clone().contiguous() for name, tensor in state.items() if name != "lm_head.weight"}
save_file(plain, out / "golden.safetensors")

torch.save(state, out / "zip.pt")
torch.save(state, out / "legacy.pt", _use_new_zipfile_serialization=False)
torch.save({"epoch": 3, "name": "x", "big": 2**80, "lr": [0.1, (1, None, True)], "state_dict": state}, out / "nested.pt")
torch.save({"a": {"w": torch.ones(1)}, "b": {"w": torch.zeros(1)}}, out / "two.pt")
torch.save({"w": torch.randn(4).to(torch.float8_e4m3fn), "u": torch.arange(4).to(torch.uint16)}, out / "new_dtypes.pt")
torch.save(torch.nn.Linear(2, 2).state_dict(), out / "with_metadata.pt")
torch.save({"w": torch.ones(2), "f": fractions.Fraction(1, 2)}, out / "refused.pt")
torch.save(3, out / "number.pt")
torch.jit.script(torch.nn.Linear(2, 2)).save(out / "program.pt")

sharded = out / "sharded"
sharded.mkdir()
names = list(plain)
weight_map = {}
for i in range(2):
    file = f"pytorch_model-0000{i + 1}-of-00002.bin"
    part = {name: plain[name] for name in names[i::2]}
    torch.save(part, sharded / file)
    weight_map |= dict.fromkeys(part, file)
(sharded / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
(sharded / "config.json").write_text('{"model_type": "llama"}\n')
