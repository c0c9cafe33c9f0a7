// torch.nn.utils: gradients and parameters as a whole.

import { InvalidArgumentError, OpError } from "../errors/index.ts";
import type { Tensor } from "../torch/index.ts";
import * as torch from "../torch/index.ts";
import { bind, type Rest } from "./arguments.ts";

type Tensors = Tensor | Iterable<Tensor>;

const gradsOf = (parameters: Tensors): Tensor[] => {
  const list = parameters instanceof torch.Tensor ? [parameters] : [...parameters];
  return list.flatMap((parameter) => parameter.grad ?? []);
};

export interface ClipGradNormOptions {
  /** Which norm; Infinity is the largest entry. Default: 2. */
  norm_type?: number | undefined;
  /** Throw when the norm is not a finite number. Default: false. */
  error_if_nonfinite?: boolean | undefined;
}

/** The norm of all tensors together, without recording it. */
export function get_total_norm(
  tensors: Tensors,
  ...rest: Rest<[norm_type: number, error_if_nonfinite: boolean], ClipGradNormOptions>
): Tensor {
  const { norm_type, error_if_nonfinite } = bind("get_total_norm", rest, {
    norm_type: 2,
    error_if_nonfinite: false,
  });
  const list = tensors instanceof torch.Tensor ? [tensors] : [...tensors];
  const [first] = list;
  if (first === undefined) return torch.tensor(0);
  const total = torch.no_grad(() => {
    const norms = list.map((tensor) =>
      torch.linalg.vector_norm(tensor, norm_type).to({ device: first.device }),
    );
    return torch.linalg.vector_norm(torch.stack(norms), norm_type);
  });
  if (error_if_nonfinite && !Number.isFinite(Number(total.item()))) {
    throw new OpError(
      `[clip_grad_norm_] the norm of order ${norm_type} of the gradients is ${total.item()}.`,
    );
  }
  return total;
}

/**
 * Scales gradients down, in place, so that the norm of all of them together is at most `max_norm`.
 *
 * @returns the norm before.
 * @example nn.utils.clip_grad_norm_(model.parameters(), 1.0);
 */
export function clip_grad_norm_(
  parameters: Tensors,
  max_norm: number,
  ...rest: Rest<[norm_type: number, error_if_nonfinite: boolean], ClipGradNormOptions>
): Tensor {
  const options = bind("clip_grad_norm_", rest, { norm_type: 2, error_if_nonfinite: false });
  const grads = gradsOf(parameters);
  const total = get_total_norm(grads, options);
  torch.no_grad(() => {
    // On the device: nothing waits for the number.
    const factor = torch.clamp(total.add(1e-6).reciprocal().mul(max_norm), { max: 1 });
    for (const grad of grads) grad.mul_(factor.to({ device: grad.device }));
  });
  return total;
}

/** Cuts each entry of the gradients, in place, to lie between ±clip_value. */
export function clip_grad_value_(parameters: Tensors, clip_value: number): void {
  torch.no_grad(() => {
    for (const grad of gradsOf(parameters)) grad.clamp_({ min: -clip_value, max: clip_value });
  });
}

/** All parameters end to end in one vector. */
export function parameters_to_vector(parameters: Iterable<Tensor>): Tensor {
  return torch.cat([...parameters].map((parameter) => parameter.reshape([-1])));
}

/** Makes the parameters views of a vector, piece by piece. */
export function vector_to_parameters(vector: Tensor, parameters: Iterable<Tensor>): void {
  let begin = 0;
  for (const parameter of parameters) {
    const count = parameter.numel();
    if (begin + count > vector.numel()) {
      throw new InvalidArgumentError(
        `vector_to_parameters: a vector of ${vector.numel()} entries is too short.`,
      );
    }
    parameter.data = vector.narrow(0, begin, count).view_as(parameter).detach();
    begin += count;
  }
}
