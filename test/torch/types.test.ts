// What the compiler knows of torch: this file checks types, so most of it never runs.
import t from "tap";
import { type Tensor, torch } from "torchformers";

export function accepted(x: Tensor, number: number, either: Tensor | number): Tensor[] {
  const [values, indices]: [Tensor, Tensor] = x.topk(5);
  const named: Tensor = x.max(1, { keepdim: true }).values;
  const self: Tensor = x.add_(either).mul_(2);
  const info: number = torch.finfo(x.dtype).min;
  const pair: readonly [Tensor, Tensor] = torch.sort(x, { descending: true });
  const flag: boolean = torch.allclose(x, x, { atol: info });
  return [
    values,
    indices,
    named,
    self,
    ...pair,
    ...x.unbind(0),
    ...torch.split(x, 2),
    ...x,
    torch.zeros(2, 3),
    torch.zeros([2, 3], { dtype: "bfloat16", device: "cuda:0", requires_grad: flag }),
    torch.zeros(2, 3, { dtype: "int64" }),
    torch.add(x, either, { alpha: 2 }),
    torch.sub(1, x),
    x.view(-1, number),
    x.sum([1], { keepdim: true, dtype: "float64" }),
    x.sum({ dim: 0 }),
    x.mean(),
    x.to("float16"),
    x.to(x),
    x.to({ device: "meta" }),
    torch.where(x.gt(0), x, 0),
    torch.cat([x, x], { dim: 1 }),
    torch.einsum("ij,jk->ik", x, x),
    x.index(0, "...", torch.slice(1, null), null),
    torch.linalg.norm(x),
    torch.fft.rfft(x, { n: 8 }),
    torch.special.expit(x),
    torch.full([2], torch.float(1)),
    torch.arange(0, 10, 2),
    torch.no_grad(() => x.mul(2)),
    torch.tidy(() => x.mul(2)),
    torch.tensor(
      [
        [1, 2],
        [3, 4],
      ],
      { dtype: undefined },
    ),
  ];
}

export function refused(x: Tensor): void {
  // @ts-expect-error unknown option
  x.sum([1], { keepdims: true });
  // @ts-expect-error unknown dtype
  x.to({ dtype: "float33" });
  // @ts-expect-error a tensor is wanted
  torch.matmul(x, 2);
  // @ts-expect-error both arguments are needed
  torch.transpose(x, 0);
  // @ts-expect-error not an index
  x.index("1:2");
  // @ts-expect-error a number, not a list
  torch.softmax(x, [1]);
  // @ts-expect-error facts are read only
  x.shape = [1];
  // @ts-expect-error out= is not for people
  torch.add(x, x, { out: x });
}

t.pass("compiled");
