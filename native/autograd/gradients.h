// Gradients as results of an operator, `torchformers::gradients`: what `backward` is in a Program.
//
//   gradients(Tensor(a!)[] outputs, Tensor?[] gradients, Tensor[] inputs, bool retain_graph,
//             bool create_graph) -> Tensor[]
//
// Runs the engine from `outputs` (whose graph it frees: it is a write) and gives the gradients of
// `inputs`, each in memory of its own and in the layout that `.grad` has. None of them may be
// without a gradient. Accumulating is left to the caller.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/stack.h>

#include <vector>

namespace tf {

// A tensor without values as the gradient of `input` will be, on the meta device.
at::Tensor EmptyGradient(const at::Tensor& input);

// The operator with create_graph on fakes, for their graph; undefined where there is no gradient.
std::vector<at::Tensor> DifferentiableGradients(const torch::jit::Stack& arguments);

// Throws ERR_TRACE when JavaScript is to be called with the tensor's gradient.
void RefuseGradientHooks(const at::Tensor& tensor);

}  // namespace tf
