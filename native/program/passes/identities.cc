// Operators that give their argument back as it is: a reshape to the shape that is there, a cast to
// the dtype, dropout in evaluation. Outputs keep theirs: two results are two tensors.
#include <algorithm>
#include <array>
#include <string_view>

#include "native/program/passes/graph.h"
#include "native/program/passes/passes.h"

namespace tf {
namespace {

// None of these changes a value where it keeps memory, dtype and layout.
bool KeepsValues(const Instruction& instruction) {
  static constexpr std::array<std::string_view, 16> kNames{"aten::reshape",
                                                           "aten::view",
                                                           "aten::view_as",
                                                           "aten::reshape_as",
                                                           "aten::flatten",
                                                           "aten::expand",
                                                           "aten::expand_as",
                                                           "aten::contiguous",
                                                           "aten::to",
                                                           "aten::dropout",
                                                           "aten::detach",
                                                           "aten::alias",
                                                           "aten::slice",
                                                           "aten::narrow",
                                                           "aten::type_as",
                                                           "aten::squeeze"};
  const std::string_view name = instruction.op->name;
  const std::string_view plain = name.substr(0, name.find('.'));
  return std::find(kNames.begin(), kNames.end(), plain) != kNames.end();
}

bool SameTensor(const TensorFacts& a, const TensorFacts& b) {
  return a.storage == b.storage && a.offset == b.offset && a.dtype == b.dtype &&
         a.device == b.device && a.sizes == b.sizes && a.strides == b.strides &&
         a.requires_grad == b.requires_grad && !at::isComplexType(a.dtype);
}

}  // namespace

void RemoveIdentities(Program& program) {
  Graph graph(program);
  for (size_t i = 0; i < graph.size(); ++i) {
    const Instruction& instruction = graph[i];
    const Register result = ResultOf(instruction);
    const Register argument = TensorAt(instruction, 0);
    if (result == kNoRegister || argument == kNoRegister || graph.IsOutput(result)) continue;
    if (instruction.draws || !KeepsValues(instruction)) continue;
    if (!SameTensor(graph.FactsOf(result), graph.FactsOf(argument))) continue;
    graph.Redirect(result, argument);
    graph.Remove(i);
  }
}

}  // namespace tf
