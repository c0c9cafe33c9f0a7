// Gradients in a recording: `backward` and `autograd.grad` become one operator that runs the
// engine,
// `.grad` becomes a register.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/variable.h>

#include <set>
#include <unordered_set>

#include "native/addon.h"
#include "native/autograd/gradients.h"
#include "native/convert/value.h"
#include "native/error/error.h"
#include "native/program/programs.h"
#include "native/program/recorder.h"

namespace tf {

using Tensors = std::vector<at::Tensor>;
using torch::autograd::AccumulateGrad;
using torch::autograd::Node;

// What the engine would meet, going back from some tensors.
struct Recorder::Graph {
  std::set<std::pair<const Node*, uint32_t>> edges;
  Tensors leaves;  // in the order in which they were met
};

Recorder::Graph Recorder::Explore(const char* what, const Tensors& roots) {
  Graph graph;
  std::vector<Node*> open;
  std::unordered_set<const Node*> seen;
  const auto visit = [&](const torch::autograd::Edge& edge) {
    if (!edge.is_valid()) return;
    graph.edges.emplace(edge.function.get(), edge.input_nr);
    if (seen.insert(edge.function.get()).second) open.push_back(edge.function.get());
  };
  for (const at::Tensor& root : roots) {
    visit(
        torch::autograd::impl::gradient_edge(FindFakeMark(root) == nullptr ? FakeOf(root) : root));
  }
  while (!open.empty()) {
    Node* node = open.back();
    open.pop_back();
    if (IsOutside(*node)) {
      throw Failure(code::kTrace,
                    "[" + std::string(what) +
                        "] reaches a tensor that was computed before the "
                        "recorded function (" +
                        node->name() + ")",
                    "Compute it inside, or pass it in detached.");
    }
    if (const auto* leaf = dynamic_cast<AccumulateGrad*>(node))
      graph.leaves.push_back(leaf->variable);
    for (const torch::autograd::Edge& edge : node->next_edges()) visit(edge);
  }
  return graph;
}

// The real tensor behind a fake that stands for one; else the tensor itself.
at::Tensor Recorder::Original(const at::Tensor& tensor) const {
  const auto found = originals_.find(tensor.unsafeGetTensorImpl());
  return found == originals_.end() ? tensor : found->second;
}

// A tensor that is given and captured has two fakes, and one gradient.
const c10::TensorImpl* Recorder::Identity(const at::Tensor& tensor) const {
  return Original(tensor).unsafeGetTensorImpl();
}

Recorder::GradientState& Recorder::StateOf(const at::Tensor& tensor) {
  const auto [entry, fresh] = gradients_.try_emplace(Identity(tensor));
  GradientState& state = entry->second;
  if (!fresh) return state;
  state.tensor = FindFakeMark(tensor) == nullptr ? FakeOf(tensor) : tensor;
  held_.push_back(state.tensor);
  state.outside = originals_.contains(state.tensor.unsafeGetTensorImpl());
  if (!state.outside) return state;
  state.slot = program_->gradients.size();
  GradientSlot slot;
  slot.of = RegisterOf(FindFakeMark(tensor) == nullptr ? tensor : state.tensor);
  program_->gradients.push_back(slot);
  return state;
}

at::Tensor Recorder::Gradient(const at::Tensor& tensor) {
  if (!tensor.requires_grad() && !Original(tensor).grad().defined() &&
      !gradients_.contains(Identity(tensor))) {
    return {};
  }
  GradientState& state = StateOf(tensor);
  if (!state.outside) return state.now;
  GradientSlot& slot = program_->gradients[state.slot];
  if (slot.looked || slot.changed) return state.now;
  slot.looked = true;
  const at::Tensor of = Original(state.tensor);
  if (const Programs::Foreseen foreseen = environment_.programs()->Foresee(of); foreseen.known) {
    slot.defined = foreseen.facts != nullptr;
    if (!slot.defined) return {};
    const c10::NoGradGuard guard;
    state.now = at::empty_strided(foreseen.facts->sizes,
                                  foreseen.facts->strides,
                                  at::dtype(foreseen.facts->dtype).device(at::kMeta));
    MarkFake(state.now, {foreseen.facts->device, id_});
    slot.before = NewRegister(state.now);
    return state.now;
  }
  const at::Tensor real = of.grad();
  slot.defined = real.defined();
  if (!slot.defined) return {};
  state.now = MakeFake(StorageOf(real), real);
  originals_.emplace(state.now.unsafeGetTensorImpl(), real);
  slot.before = NewRegister(state.now);
  return state.now;
}

void Recorder::SetGradient(const at::Tensor& tensor, const std::optional<at::Tensor>& gradient) {
  GradientState& state = StateOf(tensor);
  state.now = at::Tensor();
  if (gradient) {
    RegisterOf(*gradient);
    state.now = FindFakeMark(*gradient) == nullptr ? FakeOf(*gradient) : *gradient;
  }
  if (state.outside) program_->gradients[state.slot].changed = true;
}

void Recorder::RetainGradient(const at::Tensor& tensor) {
  if (!tensor.requires_grad())
    throw Failure(code::kOp, "[retain_grad] needs a tensor that requires grad");
  if (!tensor.is_leaf()) retained_.push_back(tensor);
}

void Recorder::SetRequiresGrad(const at::Tensor& tensor, bool value) {
  if (FindFakeMark(tensor) == nullptr) {
    if (tensor.requires_grad() == value) return;
    throw Failure(code::kTrace,
                  "[requires_grad] of a tensor from outside cannot be changed in a recording",
                  "Set it before the call.");
  }
  torch::jit::Stack stack{tensor, value};
  Record(*OpRegistry::At(OpRegistry::Find("aten::requires_grad_", "")), stack);
}

void Recorder::CheckRoots(const char* what,
                          const Tensors& tensors,
                          const Tensors& gradients) const {
  for (size_t i = 0; i < tensors.size(); ++i) {
    const at::Tensor& tensor = tensors[i];
    const auto fail = [&](const std::string& text) {
      throw Failure(code::kOp, "[" + std::string(what) + "] element " + std::to_string(i) + text);
    };
    if (!tensor.requires_grad())
      fail(" of tensors does not require grad and does not have a grad_fn");
    const bool given = i < gradients.size() && gradients[i].defined();
    if (!given && tensor.numel() != 1)
      fail(": grad can be implicitly created only for scalar outputs");
    if (given && !gradients[i].sizes().equals(tensor.sizes())) {
      throw Failure(code::kShape,
                    "[" + std::string(what) + "] a gradient has its tensor's shape: expected " +
                        Summary(tensor) + ", got " + Summary(gradients[i]));
    }
  }
}

// One instruction. What the engine would compute is not computed here, except where its result is
// to be differentiated again: then its graph matters.
Tensors Recorder::RecordGradients(const Tensors& outputs,
                                  const Tensors& gradients,
                                  const Tensors& inputs,
                                  bool retain_graph,
                                  bool create_graph) {
  const OpPlan& op = *OpRegistry::At(OpRegistry::Find("torchformers::gradients", ""));
  Instruction instruction;
  instruction.op = &op;
  instruction.modes = CurrentModes();
  c10::List<at::Tensor> roots;
  c10::List<std::optional<at::Tensor>> given;
  c10::List<at::Tensor> wanted;
  for (const at::Tensor& output : outputs) roots.push_back(output);
  for (const at::Tensor& gradient : gradients) {
    given.push_back(gradient.defined() ? std::optional(gradient) : std::nullopt);
  }
  for (const at::Tensor& input : inputs) wanted.push_back(input);
  torch::jit::Stack stack{roots, given, wanted, retain_graph, create_graph};
  for (size_t i = 0; i < stack.size(); ++i)
    instruction.operands.push_back(TakeOperand(op.arguments[i], stack[i]));

  Tensors fakes;
  if (create_graph) {
    try {
      fakes = DifferentiableGradients(stack);
    } catch (...) {
      const Failure failure = CurrentFailure();
      throw Failure(code::kTrace,
                    "[backward] with create_graph cannot be recorded: " + failure.message,
                    "Some operator's derivative has no rule for shapes: run this part eagerly.");
    }
  } else {
    for (const at::Tensor& input : inputs) fakes.push_back(EmptyGradient(input));
  }
  Result result;
  result.list = true;
  for (size_t i = 0; i < fakes.size(); ++i) {
    if (!fakes[i].defined()) {
      result.registers.push_back(kNoRegister);
      continue;
    }
    MarkFake(fakes[i], {RealDevice(inputs[i]), id_});
    result.registers.push_back(NewRegister(fakes[i]));
  }
  instruction.results.push_back(std::move(result));
  NoteLine();
  instruction.line = static_cast<int32_t>(program_->code.size());
  program_->code.push_back(std::move(instruction));
  return fakes;
}

void Recorder::Backward(const Tensors& tensors,
                        const Tensors& gradients,
                        bool retain_graph,
                        bool create_graph,
                        const std::optional<Tensors>& inputs) {
  CheckRoots("backward", tensors, gradients);
  const Graph graph = Explore("backward", tensors);
  Tensors wanted;
  std::unordered_set<const c10::TensorImpl*> met;
  const auto want = [&](const at::Tensor& tensor) {
    if (met.insert(Identity(tensor)).second) wanted.push_back(tensor);
  };
  if (inputs) {
    std::unordered_set<const c10::TensorImpl*> leaves;
    for (const at::Tensor& leaf : graph.leaves) leaves.insert(Identity(leaf));
    for (const at::Tensor& input : *inputs) {
      if (input.is_leaf() && leaves.contains(Identity(input))) want(input);
    }
  } else {
    for (const at::Tensor& leaf : graph.leaves) want(leaf);
  }
  for (const at::Tensor& tensor : retained_) {
    const auto edge = torch::autograd::impl::gradient_edge(tensor);
    if (graph.edges.contains({edge.function.get(), edge.input_nr})) want(tensor);
  }
  for (const at::Tensor& leaf : wanted) RefuseGradientHooks(Original(leaf));
  if (wanted.empty()) return;
  const Tensors fakes = RecordGradients(tensors, gradients, wanted, retain_graph, create_graph);

  // As torch accumulates: in place, unless the sum is to be differentiated.
  static const OpPlan* const add_in_place =
      OpRegistry::At(OpRegistry::Find("aten::add_", "Tensor"));
  static const OpPlan* const add = OpRegistry::At(OpRegistry::Find("aten::add", "Tensor"));
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (!fakes[i].defined()) continue;
    const at::Tensor now = Gradient(wanted[i]);
    if (!now.defined()) {
      SetGradient(wanted[i], fakes[i]);
      continue;
    }
    const c10::AutoGradMode mode(create_graph);
    torch::jit::Stack stack{now, fakes[i], 1};
    Record(create_graph ? *add : *add_in_place, stack);
    if (create_graph) SetGradient(wanted[i], stack[0].toTensor());
  }
}

Tensors Recorder::Gradients(const Tensors& outputs,
                            const Tensors& gradients,
                            const Tensors& inputs,
                            bool retain_graph,
                            bool create_graph,
                            bool allow_unused) {
  CheckRoots("autograd.grad", outputs, gradients);
  const Graph graph = Explore("autograd.grad", outputs);
  std::unordered_set<const c10::TensorImpl*> leaves;
  for (const at::Tensor& leaf : graph.leaves) leaves.insert(Identity(leaf));
  Tensors wanted;
  std::vector<size_t> places;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const at::Tensor& input = inputs[i];
    if (!input.requires_grad())
      throw Failure(code::kOp, "[autograd.grad] one of the tensors does not require grad");
    const auto edge = torch::autograd::impl::gradient_edge(
        FindFakeMark(input) == nullptr ? FakeOf(input) : input);
    const bool used = input.is_leaf() ? leaves.contains(Identity(input))
                                      : graph.edges.contains({edge.function.get(), edge.input_nr});
    if (used) {
      RefuseGradientHooks(Original(input));
      wanted.push_back(input);
      places.push_back(i);
    } else if (!allow_unused) {
      throw Failure(code::kOp,
                    "[autograd.grad] one of the differentiated tensors appears to not have been "
                    "used in the graph",
                    "Set allow_unused: true if this is the desired behavior.");
    }
  }
  Tensors result(inputs.size());
  if (wanted.empty()) return result;
  const Tensors fakes = RecordGradients(outputs, gradients, wanted, retain_graph, create_graph);
  for (size_t i = 0; i < places.size(); ++i) result[places[i]] = fakes[i];
  return result;
}

}  // namespace tf
