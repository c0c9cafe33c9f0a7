"""Writes test/fixtures/autograd/golden.json: gradients, hook order and errors of Python torch.

Run: python scripts/goldens/autograd.py   (needs torch 2.11.0; the output is committed)

The programs stand in test/native/autograd.test.ts under the same names.
"""
import json
import pathlib

import torch
import torch.nn.functional as F

OUT = pathlib.Path(__file__).resolve().parents[2] / "test" / "fixtures" / "autograd"


def values(start, *shape):
    count = int(torch.Size(shape).numel())
    return torch.sin(torch.arange(count, dtype=torch.float64) * 0.7 + start).to(torch.float32).reshape(shape)


def leaf(start, *shape):
    return values(start, *shape).requires_grad_()


def flat(t):
    return t.detach().double().reshape(-1).tolist()


def double_backward():
    x = leaf(0, 2, 3)
    y = (x.pow(3) * torch.exp(x)).sum()
    (first,) = torch.autograd.grad(y, [x], create_graph=True)
    (second,) = torch.autograd.grad(first.pow(2).sum(), [x])
    return {"first": flat(first), "second": flat(second)}


def block():
    x, w1, b1, w2, g = leaf(0, 2, 4, 8), leaf(1, 16, 8), leaf(2, 16), leaf(3, 8, 16), leaf(4, 8)
    h = F.layer_norm(x, [8], g)
    h = F.linear(F.gelu(F.linear(h, w1, b1)), w2) + x
    a = torch.softmax(h @ h.transpose(1, 2) / 3, -1) @ h
    loss = F.cross_entropy(a.reshape(8, 8), torch.tensor([0, 3, -100, 7, 2, 2, 1, 5]))
    loss.backward()
    return {"loss": loss.item(), "x": flat(x.grad), "w1": flat(w1.grad), "b1": flat(b1.grad), "w2": flat(w2.grad), "g": flat(g.grad)}


def hooks():
    log = []
    x, w = leaf(0, 3), leaf(1, 3)
    h = x * w
    h.retain_grad()
    y = h.exp()
    x.register_hook(lambda g: log.append("x1"))
    h.register_hook(lambda g: log.append("h1") or g * 2)
    h.register_hook(lambda g: log.append("h2"))
    y.register_hook(lambda g: log.append("y"))
    x.register_hook(lambda g: log.append("x2") or g + 1)
    x.register_post_accumulate_grad_hook(lambda p: log.append("after x"))
    removed = h.register_hook(lambda g: log.append("removed"))
    removed.remove()
    w.register_post_accumulate_grad_hook(lambda p: log.append("after w"))
    y.sum().backward()
    return {"log": log, "x": flat(x.grad), "w": flat(w.grad), "h": flat(h.grad)}


def accumulate():
    x = leaf(0, 4)
    (x * x).sum().backward()
    (x * 3).sum().backward()
    y = x.exp().sum()
    y.backward(retain_graph=True)
    y.backward()
    return {"x": flat(x.grad)}


def vector():
    x, w = leaf(0, 2, 3), leaf(1, 3, 4)
    torch.autograd.backward([x @ w, x.sum(0)], [values(2, 2, 4), values(3, 3)], inputs=[x])
    return {"x": flat(x.grad), "w": None if w.grad is None else flat(w.grad)}


def inplace():
    x = leaf(0, 5)
    y = x * 2
    y[1:3].mul_(x[3])
    y.add_(x)
    y.pow(2).sum().backward()
    return {"x": flat(x.grad)}


def complex_numbers():
    x = torch.complex(values(0, 3), values(1, 3)).requires_grad_()
    (x * x.conj() * x).abs().sum().backward()
    return {"x": flat(torch.view_as_real(x.grad))}


def names():
    x, w = leaf(0, 2, 2), leaf(1, 2, 2)
    made = [x + x, x @ w, x.exp().sum(), F.linear(x, w), x[0], x.view(4), torch.cat([x, w]), x.to(torch.float64), F.layer_norm(x, [2])]
    return [None if t.grad_fn is None else t.grad_fn.name() for t in [x, *made]] + [made[6].output_nr, x.unbind(0)[1].output_nr]


cases = [double_backward, block, hooks, accumulate, vector, inplace, complex_numbers, names]
OUT.mkdir(parents=True, exist_ok=True)
text = ",\n".join(f' {json.dumps(c.__name__)}: {json.dumps(c())}' for c in cases)
(OUT / "golden.json").write_text("{\n" + text + "\n}\n")
