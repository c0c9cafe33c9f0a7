#include "native/autograd/graph.h"

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/variable.h>

#include <unordered_set>

namespace tf {
namespace {

using torch::autograd::Node;

// Below this ATen computes on one thread, and matrix products gain little from a second.
constexpr int64_t kSmallElements = 16384;
// Looking takes some 50 ns per node. A graph of more nodes gains enough elsewhere.
constexpr size_t kMaxNodes = 4096;

bool IsSmall(const Node& node) {
  for (uint32_t i = 0; i < node.num_inputs(); ++i) {
    const auto& gradient = node.input_metadata(i);
    if (!gradient.device().is_cpu() || gradient.is_nested_tensor()) return false;
    int64_t elements = 1;
    for (const c10::SymInt& size : gradient.shape_as_dim_vector())
      elements *= size.maybe_as_int().value_or(kSmallElements);
    if (elements >= kSmallElements) return false;
  }
  return true;
}

}  // namespace

std::vector<at::Tensor> LeavesOf(const std::vector<at::Tensor>& roots) {
  std::vector<at::Tensor> leaves;
  std::unordered_set<const Node*> seen;
  std::vector<Node*> open;
  const auto visit = [&](Node* node) {
    if (node != nullptr && seen.insert(node).second) open.push_back(node);
  };
  for (const at::Tensor& root : roots) {
    if (root.requires_grad()) visit(torch::autograd::impl::gradient_edge(root).function.get());
  }
  while (!open.empty()) {
    Node* node = open.back();
    open.pop_back();
    if (const auto* leaf = dynamic_cast<torch::autograd::AccumulateGrad*>(node))
      leaves.push_back(leaf->variable);
    for (const auto& edge : node->next_edges()) visit(edge.function.get());
  }
  return leaves;
}

bool IsSmallGraph(const std::vector<at::Tensor>& roots) {
  std::unordered_set<const Node*> seen;
  std::vector<const Node*> open;
  const auto visit = [&](const Node* node) {
    if (node != nullptr && seen.insert(node).second) open.push_back(node);
  };
  for (const at::Tensor& root : roots) {
    if (root.requires_grad()) visit(torch::autograd::impl::gradient_edge(root).function.get());
  }
  while (!open.empty()) {
    const Node* node = open.back();
    open.pop_back();
    if (seen.size() > kMaxNodes || !IsSmall(*node)) return false;
    for (const auto& edge : node->next_edges()) visit(edge.function.get());
  }
  return true;
}

}  // namespace tf
