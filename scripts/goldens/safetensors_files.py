"""Writes test/fixtures/safetensors/*.safetensors with Python's safetensors: what our writer must give byte for byte.

Run: python scripts/goldens/safetensors_files.py   (needs torch 2.11.0 and safetensors 0.8.0; the output is committed)
"""
import pathlib

import torch
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parents[2] / "test" / "fixtures" / "safetensors"

DTYPES = """bool uint8 int8 float8_e5m2 float8_e4m3fn float8_e8m0fnu float8_e4m3fnuz float8_e5m2fnuz int16 uint16 float16
bfloat16 int32 uint32 float32 float64 int64 uint64 complex64""".split()


def filled(shape, dtype, seed):
    """Bytes that count up, so that each dtype has values of its own; bool gets 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.bool:
        return torch.rand(shape, generator=generator) > 0.5
    size = torch.tensor([], dtype=dtype).element_size()
    count = int(torch.Size(shape).numel()) * size
    return torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator).view(dtype).reshape(shape)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    dtypes = {f"{d}.{i}": filled(s, getattr(torch, d), i) for i, d in enumerate(DTYPES) for s in [(2, 3)]}
    save_file(dtypes, OUT / "dtypes.safetensors")
    # Names: order is by bytes of UTF-8, escapes are the few that JSON needs.
    names = ["b", "a", "Z", "a.10", "a.9", "é", "日本", "😀", "\uffff", "with \"quotes\" and \\", "tab\tnewline\ncontrol\x01\x7f", "", "/", "__proto__"]
    save_file({n: torch.full((i + 1,), float(i)) for i, n in enumerate(names)}, OUT / "names.safetensors", metadata={"format": "pt"})
    shapes = {"scalar": torch.tensor(3.5), "none": torch.zeros(0), "empty": torch.zeros(2, 0, 3, dtype=torch.int64), "ones": torch.ones(1, 1, 1), "one byte": torch.tensor(True)}
    save_file(shapes, OUT / "shapes.safetensors", metadata={"note é": "line\n\"quoted\" 😀"})
    save_file({}, OUT / "nothing.safetensors")
    for i in range(6):  # random files: mixed dtypes and shapes
        generator = torch.Generator().manual_seed(100 + i)
        pick = lambda n: int(torch.randint(0, n, (1,), generator=generator))
        tensors = {}
        for j in range(3 + pick(12)):
            shape = [1 + pick(5) for _ in range(pick(4))]
            tensors[f"model.layers.{pick(20)}.{'abcdefgh'[pick(8)]}{j}.weight"] = filled(shape, getattr(torch, DTYPES[pick(len(DTYPES))]), 1000 * i + j)
        save_file(tensors, OUT / f"random-{i}.safetensors", metadata={"format": "pt"} if i % 2 else None)


main()
