// Linear layers of one input (queries, keys and values; gate and up) as one operator, which reads
// all of their weights in one parallel region. One alone too, where the operator of ours is the
// faster one: for few rows.
#include <vector>

#include "native/program/passes/graph.h"
#include "native/program/passes/passes.h"

namespace tf {
namespace {

// As many as the matrix-vector kernels take.
constexpr int64_t kFewRows = 8;

class Grouper {
 public:
  explicit Grouper(Program& program) : graph_(program) {}

  void Run() {
    for (size_t i = 0; i < graph_.size(); ++i) {
      if (graph_.IsRemoved(i) || !IsLinear(i)) continue;
      std::vector<size_t> group = {i};
      for (const size_t user : graph_.UsersOf(TensorAt(graph_[i], 0))) {
        if (user > group.back() && BelongsTo(i, user)) group.push_back(user);
      }
      if (group.size() > 1 || IsForOurs(i)) Fuse(group);
    }
  }

 private:
  bool IsLinear(size_t position) const {
    const Instruction& linear = graph_[position];
    if (!Is(linear, "aten::linear") || !graph_.IsPlain(position)) return false;
    const Register weight = TensorAt(linear, 1);
    const Register bias = TensorAt(linear, 2);
    const auto dtype = graph_.FactsOf(TensorAt(linear, 0)).dtype;
    if (weight == kNoRegister || graph_.FactsOf(weight).sizes.size() != 2) return false;
    if (graph_.FactsOf(weight).dtype != dtype) return false;
    return bias == kNoRegister ||
           (graph_.FactsOf(bias).sizes.size() == 1 && graph_.FactsOf(bias).dtype == dtype);
  }

  bool IsForOurs(size_t position) const {
    const TensorFacts& input = graph_.FactsOf(TensorAt(graph_[position], 0));
    if (input.dtype == at::kBFloat16) return true;
    int64_t rows = 1;
    for (size_t i = 0; i + 1 < input.sizes.size(); ++i) rows *= input.sizes[i];
    return rows <= kFewRows;
  }

  // Whether it can be computed at the first one's place.
  bool BelongsTo(size_t first, size_t other) const {
    if (graph_.IsRemoved(other) || !IsLinear(other) || !graph_.SameModes({first, other}))
      return false;
    const Instruction& linear = graph_[other];
    if (TensorAt(linear, 0) != TensorAt(graph_[first], 0)) return false;
    for (size_t i = 0; i < 3; ++i) {
      const Register at = TensorAt(linear, i);
      if (at == kNoRegister) continue;
      const size_t maker = graph_.MakerOf(at);
      if (maker != Graph::kNowhere && maker > first) return false;
      if (!graph_.IsSameAt(at, first, other)) return false;
    }
    return true;
  }

  void Fuse(const std::vector<size_t>& group) {
    std::vector<Register> weights;
    std::vector<Register> biases;
    Result results;
    results.list = true;
    bool any_bias = false;
    for (const size_t each : group) {
      weights.push_back(TensorAt(graph_[each], 1));
      biases.push_back(TensorAt(graph_[each], 2));
      any_bias |= biases.back() != kNoRegister;
      results.registers.push_back(ResultOf(graph_[each]));
    }
    if (!any_bias) biases.clear();
    Instruction fused;
    fused.op = &OpNamed("torchformers::linear_group");
    fused.operands = {graph_[group[0]].operands[0],
                      TensorsOperand(std::move(weights)),
                      OptionalTensorsOperand(std::move(biases))};
    fused.results = {std::move(results)};
    if (!graph_.Replace(group[0], std::move(fused))) return;
    for (size_t i = 1; i < group.size(); ++i) graph_.Remove(group[i]);
  }

  Graph graph_;
};

}  // namespace

void GroupLinears(Program& program) { Grouper(program).Run(); }

}  // namespace tf
