"""Makes test/fixtures/cuda: seeded draws of Python torch on a GPU. Run it where there is one:

    python scripts/goldens/cuda.py

The numbers depend on torch's version (2.11.0), not on the GPU's model.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

DRAWS = {
    "rand": lambda: torch.rand(1000, device="cuda"),
    "randn": lambda: torch.randn(1000, device="cuda"),
    "randn_bfloat16": lambda: torch.randn(1000, device="cuda", dtype=torch.bfloat16),
    "randint": lambda: torch.randint(0, 1000, (1000,), device="cuda"),
    "randperm": lambda: torch.randperm(1000, device="cuda"),
    "bernoulli": lambda: torch.full((1000,), 0.3, device="cuda").bernoulli(),
    "exponential": lambda: torch.empty(1000, device="cuda").exponential_(),
    "multinomial": lambda: torch.multinomial(torch.arange(1, 101, device="cuda", dtype=torch.float32), 50),
    "multinomial_one": lambda: torch.multinomial(torch.ones(64, 100, device="cuda"), 1),
    "dropout": lambda: torch.dropout(torch.ones(1000, device="cuda"), 0.4, True),
}


def main():
    if not torch.cuda.is_available():
        raise SystemExit("No CUDA device: these goldens can only be made on a machine with a GPU.")
    goldens = {}
    for name, draw in DRAWS.items():
        torch.manual_seed(1234)
        goldens[name] = draw().cpu()
    torch.manual_seed(99)
    for name, draw in DRAWS.items():
        goldens[f"row.{name}"] = draw().cpu()
    folder = Path(__file__).parents[2] / "test/fixtures/cuda"
    folder.mkdir(exist_ok=True)
    save_file(goldens, folder / "random.safetensors", {"torch": torch.__version__, "gpu": torch.cuda.get_device_name()})


if __name__ == "__main__":
    main()
