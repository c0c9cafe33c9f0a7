// Gradients: what a tensor knows of them, running the engine, hooks, and the modes of a thread.
#include <ATen/autocast_mode.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/anomaly_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "native/addon.h"
#include "native/autograd/engine.h"
#include "native/autograd/graph.h"
#include "native/autograd/hooks.h"
#include "native/convert/bind.h"
#include "native/program/programs.h"

namespace tf {
namespace {

using Tensors = std::vector<at::Tensor>;
using MaybeTensors = std::optional<std::vector<std::optional<at::Tensor>>>;

// What a tensor knows
// -------------------------------------------------------------------------------------------

bool RequiresGrad(Environment&, const at::Tensor& tensor) { return tensor.requires_grad(); }

Recorder* Recording(Environment& environment) {
  return environment.programs() == nullptr ? nullptr : environment.programs()->recorder();
}

void SetRequiresGrad(Environment& environment, const at::Tensor& tensor, bool value) {
  if (Recorder* recorder = Recording(environment)) return recorder->SetRequiresGrad(tensor, value);
  tensor.requires_grad_(value);
}

bool IsLeaf(Environment&, const at::Tensor& tensor) { return tensor.is_leaf(); }

std::optional<std::string> GradFn(Environment&, const at::Tensor& tensor) {
  const auto& node = tensor.grad_fn();
  if (!node) return std::nullopt;
  std::string name = node->name();
  const size_t scope = name.rfind("::");
  return scope == std::string::npos ? name : name.substr(scope + 2);
}

int64_t OutputNr(Environment&, const at::Tensor& tensor) { return tensor.output_nr(); }

Handle Grad(Environment& environment, Owner owner, const at::Tensor& tensor) {
  Recorder* recorder = Recording(environment);
  const at::Tensor grad = recorder != nullptr ? recorder->Gradient(tensor) : tensor.grad();
  return grad.defined() ? environment.tensors().Add(grad, owner.value) : kNoHandle;
}

void SetGrad(Environment& environment,
             const at::Tensor& tensor,
             const std::optional<at::Tensor>& grad) {
  Recorder* recorder = Recording(environment);
  if (recorder == nullptr) RefuseBusyGradient(environment, tensor, "grad");
  if (!grad) {
    if (recorder != nullptr) return recorder->SetGradient(tensor, std::nullopt);
    tensor.mutable_grad().reset();
    return;
  }
  const auto both = [&] { return "expected " + Summary(tensor) + ", got " + Summary(*grad); };
  if (grad->is_same(tensor))
    throw Failure(code::kInvalidArgument, "[grad] a tensor cannot be its own gradient");
  if (grad->scalar_type() != tensor.scalar_type()) {
    throw Failure(code::kDtype, "[grad] a gradient has its tensor's dtype: " + both());
  }
  if (RealDevice(*grad) != RealDevice(tensor)) {
    throw Failure(code::kInvalidArgument,
                  "[grad] a gradient lies on its tensor's device: expected " +
                      RealDevice(tensor).str() + ", got " + RealDevice(*grad).str());
  }
  if (!grad->sizes().equals(tensor.sizes())) {
    throw Failure(code::kShape, "[grad] a gradient has its tensor's shape: " + both());
  }
  if (recorder != nullptr) return recorder->SetGradient(tensor, grad);
  tensor.mutable_grad() = *grad;
}

void RetainGrad(Environment& environment, const at::Tensor& tensor) {
  if (Recorder* recorder = Recording(environment)) return recorder->RetainGradient(tensor);
  tensor.retain_grad();
}

// The engine
// ----------------------------------------------------------------------------------------------------

// One per output; undefined where none was given.
Tensors GradOutputs(const char* name, const Tensors& outputs, const MaybeTensors& grads) {
  if (!grads) return {};
  if (grads->size() != outputs.size()) {
    throw Failure(code::kInvalidArgument,
                  "[" + std::string(name) + "] got " + std::to_string(grads->size()) +
                      " gradients for " + std::to_string(outputs.size()) + " tensors");
  }
  Tensors result;
  for (const auto& grad : *grads) result.push_back(grad.value_or(at::Tensor()));
  return result;
}

// A run in flight may be about to write the gradients that this backward adds to.
void RefuseBusyLeaves(Environment& environment, const Tensors& roots) {
  if (environment.programs() == nullptr || !environment.programs()->holds_gradients()) return;
  for (const at::Tensor& leaf : LeavesOf(roots)) RefuseBusyGradient(environment, leaf, "backward");
}

void Backward(Environment& environment,
              const Tensors& tensors,
              const MaybeTensors& grads,
              bool retain_graph,
              bool create_graph,
              const std::optional<Tensors>& inputs) {
  if (inputs && inputs->empty())
    throw Failure(code::kInvalidArgument, "[backward] `inputs` must not be empty");
  const Tensors outputs = GradOutputs("backward", tensors, grads);
  if (Recorder* recorder = Recording(environment)) {
    return recorder->Backward(tensors, outputs, retain_graph, create_graph, inputs);
  }
  RefuseBusyLeaves(environment, tensors);
  RunEngine(environment, "backward", tensors, [&] {
    torch::autograd::backward(
        tensors, outputs, retain_graph, create_graph, inputs.value_or(Tensors()));
  });
}

std::vector<std::optional<Handle>> AutogradGrad(Environment& environment,
                                                const Tensors& outputs,
                                                const MaybeTensors& grads,
                                                const Tensors& inputs,
                                                bool retain_graph,
                                                bool create_graph,
                                                bool allow_unused) {
  const Tensors grad_outputs = GradOutputs("autograd.grad", outputs, grads);
  Tensors result;
  if (Recorder* recorder = Recording(environment)) {
    result = recorder->Gradients(
        outputs, grad_outputs, inputs, retain_graph, create_graph, allow_unused);
  } else {
    RunEngine(environment, "autograd.grad", outputs, [&] {
      result = torch::autograd::grad(
          outputs, inputs, grad_outputs, retain_graph, create_graph, allow_unused);
    });
  }
  std::vector<std::optional<Handle>> handles;
  for (at::Tensor& grad : result) {
    handles.push_back(grad.defined()
                          ? std::optional(environment.tensors().Add(std::move(grad), nullptr))
                          : std::nullopt);
  }
  return handles;
}

// Hooks
// ---------------------------------------------------------------------------------------------------------

void RequireFunction(Environment& environment, const char* name, Js value) {
  if (TypeOf(environment.env(), value.value) != napi_function) {
    FailArgument(environment, Where{name, 2}, "a function", value.value);
  }
}

uint32_t RegisterHook(Environment& environment, const at::Tensor& tensor, Js hook) {
  RefuseRecording(environment, "register_hook");
  RequireFunction(environment, "register_hook", hook);
  return environment.Room<Hooks>().OnGradient(tensor, hook.value);
}

uint32_t RegisterPostAccumulateGradHook(Environment& environment,
                                        const at::Tensor& tensor,
                                        Js hook) {
  RefuseRecording(environment, "register_post_accumulate_grad_hook");
  RequireFunction(environment, "register_post_accumulate_grad_hook", hook);
  return environment.Room<Hooks>().AfterAccumulate(tensor, hook.value);
}

void RemoveHook(Environment& environment, int64_t id) {
  environment.Room<Hooks>().Remove(static_cast<uint32_t>(id));
}

// Modes of the calling thread
// -----------------------------------------------------------------------------------

// The guards of inference mode, innermost last; libtorch wants them undone in order.
struct InferenceModes {
  explicit InferenceModes(Environment&) {}
  ~InferenceModes() {
    while (!guards.empty()) guards.pop_back();
  }
  std::vector<std::unique_ptr<c10::InferenceMode>> guards;
};

bool GradMode(Environment&) { return c10::GradMode::is_enabled(); }

void SetGradMode(Environment&, bool enabled) { c10::GradMode::set_enabled(enabled); }

bool InferenceMode(Environment&) { return c10::InferenceMode::is_enabled(); }

void PushInferenceMode(Environment& environment, bool enabled) {
  environment.Room<InferenceModes>().guards.push_back(
      std::make_unique<c10::InferenceMode>(enabled));
}

void PopInferenceMode(Environment& environment) {
  auto& guards = environment.Room<InferenceModes>().guards;
  if (guards.empty())
    throw Failure(code::kInvalidArgument, "[inference_mode] there is nothing to undo");
  guards.pop_back();
}

napi_value Autocast(Environment& environment, const std::string& device) {
  const c10::DeviceType type = c10::Device(device).type();
  return Record(environment,
                {{"enabled", ToJs(environment, at::autocast::is_autocast_enabled(type))},
                 {"dtype", ToJs(environment, at::autocast::get_autocast_dtype(type))}});
}

void SetAutocast(Environment&, const std::string& device, bool enabled, c10::ScalarType dtype) {
  const c10::DeviceType type = c10::Device(device).type();
  at::autocast::set_autocast_enabled(type, enabled);
  at::autocast::set_autocast_dtype(type, dtype);
}

void ClearAutocastCache(Environment& environment) {
  if (Recorder* recorder = Recording(environment)) recorder->ClearAutocastCache();
  at::autocast::clear_cache();
}

void DetectAnomaly(Environment&, bool enabled) {
  torch::autograd::AnomalyMode::set_enabled(enabled);
}

}  // namespace

void InitAutograd(Exports& exports) {
  exports.Function<"requiresGrad", RequiresGrad>();
  exports.Function<"setRequiresGrad", SetRequiresGrad>();
  exports.Function<"isLeaf", IsLeaf>();
  exports.Function<"gradFn", GradFn>();
  exports.Function<"outputNr", OutputNr>();
  exports.Function<"grad", Grad>();
  exports.Function<"setGrad", SetGrad>();
  exports.Function<"retainGrad", RetainGrad>();
  exports.Function<"backward", Backward>();
  exports.Function<"autogradGrad", AutogradGrad>();
  exports.Function<"registerHook", RegisterHook>();
  exports.Function<"registerPostAccumulateGradHook", RegisterPostAccumulateGradHook>();
  exports.Function<"removeHook", RemoveHook>();
  exports.Function<"gradMode", GradMode>();
  exports.Function<"setGradMode", SetGradMode>();
  exports.Function<"inferenceMode", InferenceMode>();
  exports.Function<"pushInferenceMode", PushInferenceMode>();
  exports.Function<"popInferenceMode", PopInferenceMode>();
  exports.Function<"autocast", Autocast>();
  exports.Function<"setAutocast", SetAutocast>();
  exports.Function<"clearAutocastCache", ClearAutocastCache>();
  exports.Function<"detectAnomaly", DetectAnomaly>();
}

}  // namespace tf
