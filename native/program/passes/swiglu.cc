// silu(gate) * up as one operator.
#include "native/program/passes/graph.h"
#include "native/program/passes/passes.h"

namespace tf {

void FuseSwiGlu(Program& program) {
  Graph graph(program);
  for (size_t i = 0; i < graph.size(); ++i) {
    const Instruction& product = graph[i];
    if (!Is(product, "aten::mul.Tensor") || !graph.IsPlain(i)) continue;
    for (const size_t side : {0, 1}) {
      const Register active = TensorAt(product, side);
      const Register up = TensorAt(product, 1 - side);
      const Instruction* silu = graph.MadeBy(active, "aten::silu");
      if (silu == nullptr || up == kNoRegister || active == up) continue;
      const size_t at = graph.MakerOf(active);
      const Register gate = TensorAt(*silu, 0);
      if (!graph.IsOnlyFor(active, i) || !graph.SameModes({at, i}) || !graph.IsSameAt(gate, at, i))
        continue;
      if (graph.FactsOf(gate).sizes != graph.FactsOf(up).sizes ||
          graph.FactsOf(gate).dtype != graph.FactsOf(up).dtype)
        continue;
      Instruction fused;
      fused.op = &OpNamed("torchformers::swiglu");
      fused.operands = {TensorOperand(gate), TensorOperand(up)};
      fused.results = product.results;
      graph.Replace(i, std::move(fused));
      break;
    }
  }
}

}  // namespace tf
