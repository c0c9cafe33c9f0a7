// A residual addition and the norm of its sum as one operator that gives both.
#include "native/program/passes/graph.h"
#include "native/program/passes/passes.h"

namespace tf {
namespace {

bool IsResidual(const Graph& graph, const Instruction& sum) {
  if (!Is(sum, "aten::add.Tensor") || IntAt(sum, 2) != 1) return false;
  const Register a = TensorAt(sum, 0);
  const Register b = TensorAt(sum, 1);
  if (a == kNoRegister || b == kNoRegister) return false;
  const TensorFacts& one = graph.FactsOf(a);
  const TensorFacts& other = graph.FactsOf(b);
  return one.dtype == other.dtype && one.sizes == other.sizes;
}

}  // namespace

void FuseResiduals(Program& program) {
  Graph graph(program);
  for (size_t i = 0; i < graph.size(); ++i) {
    if (!Is(graph[i], "torchformers::rms_norm")) continue;
    const Register sum = TensorAt(graph[i], 0);
    const Instruction* add = graph.MadeBy(sum, "aten::add.Tensor");
    if (add == nullptr || !IsResidual(graph, *add)) continue;
    const size_t at = graph.MakerOf(sum);
    const Register weight = TensorAt(graph[i], 1);
    const Register result = ResultOf(graph[i]);
    if (!graph.IsPlain(at) || !graph.SameModes({at, i})) continue;
    if (!graph.IsSameAt(sum, at, i)) continue;
    if (weight != kNoRegister &&
        (graph.MakerOf(weight) != Graph::kNowhere || !graph.IsSameAt(weight, at, i)))
      continue;
    // Early: what comes between might write to memory that an output has.
    if (graph.aliases().IsWritten(result)) continue;
    Instruction fused;
    fused.op = &OpNamed("torchformers::add_rms_norm");
    fused.operands = {
        add->operands[0], add->operands[1], graph[i].operands[1], graph[i].operands[2]};
    fused.results.resize(2);
    fused.results[0].registers = {result};
    fused.results[1].registers = {sum};
    if (graph.Replace(at, std::move(fused))) graph.Remove(i);
  }
}

}  // namespace tf
