#include "native/autograd/gradients.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/utils/grad_layout_contract.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/library.h>

#include "native/autograd/hooks.h"
#include "native/convert/value.h"
#include "native/error/error.h"

namespace tf {
namespace {

using Tensors = std::vector<at::Tensor>;
using OptionalTensors = c10::List<std::optional<at::Tensor>>;

// What AccumulateGrad would make of the first gradient of a leaf. Where it might keep memory that
// others see, this copies: in a Program a result is nobody else's.
at::Tensor Own(const at::Tensor& input, at::Tensor gradient, bool create_graph) {
  const c10::AutoGradMode mode(create_graph);
  if (!create_graph && gradient.storage().use_count() > 1)
    return torch::autograd::utils::clone_obey_contract(gradient, input);
  at::Tensor none;
  at::Tensor result;
  torch::autograd::AccumulateGrad::accumulateGrad(
      input, none, gradient, 1, [&](at::Tensor&& update) { result = std::move(update); });
  return result;
}

Tensors Compute(const Tensors& outputs,
                const OptionalTensors& gradients,
                const Tensors& inputs,
                bool retain_graph,
                bool create_graph) {
  Tensors given;
  for (const std::optional<at::Tensor> gradient : gradients)
    given.push_back(gradient.value_or(at::Tensor()));
  Tensors found = torch::autograd::grad(
      outputs, inputs, given, retain_graph, create_graph, /*allow_unused=*/true);
  for (size_t i = 0; i < found.size(); ++i) {
    if (!found[i].defined()) continue;
    TORCH_CHECK(found[i].layout() == at::kStrided,
                "a sparse gradient cannot be part of a Program (input ",
                i,
                ")");
    found[i] = Own(inputs[i], std::move(found[i]), create_graph);
  }
  return found;
}

Tensors Gradients(at::TensorList outputs,
                  const OptionalTensors& gradients,
                  at::TensorList inputs,
                  bool retain_graph,
                  bool create_graph) {
  Tensors found = Compute(outputs.vec(), gradients, inputs.vec(), retain_graph, create_graph);
  for (size_t i = 0; i < found.size(); ++i) {
    // With create_graph the recording knows who has none.
    TORCH_CHECK(found[i].defined() || create_graph,
                "no gradient reached input ",
                i,
                ", of shape ",
                inputs[i].sizes(),
                ", which a recording cannot know; run this backward eagerly");
  }
  return found;
}

TORCH_LIBRARY_FRAGMENT(torchformers, m) {
  m.def(
      "gradients(Tensor(a!)[] outputs, Tensor?[] gradients, Tensor[] inputs, bool retain_graph, "
      "bool create_graph) -> Tensor[]");
}

// Not below autograd: the engine looks at graphs.
TORCH_LIBRARY_IMPL(torchformers, CompositeImplicitAutograd, m) { m.impl("gradients", Gradients); }

}  // namespace

at::Tensor EmptyGradient(const at::Tensor& input) {
  const auto options = input.options().device(at::kMeta).requires_grad(false);
  const c10::NoGradGuard guard;
  if (input.is_non_overlapping_and_dense())
    return at::empty_strided(input.sizes(), input.strides(), options);
  return at::empty(input.sizes(), options);
}

Tensors DifferentiableGradients(const torch::jit::Stack& arguments) {
  OptionalTensors gradients;
  for (const c10::IValue& gradient : arguments[1].toListRef()) {
    gradients.push_back(gradient.isNone() ? std::nullopt
                                          : std::optional<at::Tensor>(gradient.toTensor()));
  }
  return Compute(arguments[0].toTensorVector(),
                 gradients,
                 arguments[2].toTensorVector(),
                 /*retain_graph=*/true,
                 /*create_graph=*/true);
}

void RefuseGradientHooks(const at::Tensor& tensor) {
  if (!Hooks::Watch(tensor)) return;
  throw Failure(code::kTrace,
                "[backward] a tensor has gradient hooks, which cannot run in a Program (" +
                    Summary(tensor) + ")",
                "Remove them, or run the training step eagerly.");
}

}  // namespace tf
