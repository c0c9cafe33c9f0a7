// Instructions whose results nobody looks at. Writes stay, and so do draws of random numbers: the
// next draw would get their numbers.
#include "native/program/passes/graph.h"
#include "native/program/passes/passes.h"

namespace tf {
namespace {

bool HasEffects(const Program& program, const Instruction& instruction) {
  if (instruction.op->writes || instruction.draws) return true;
  // An operator of ours may have to do with gradients, which no schema tells of.
  if (program.needs_gradients && !instruction.op->name.starts_with("aten::")) return true;
  // What gives nothing back is there for something else: a check, say.
  return instruction.results.empty();
}

}  // namespace

void RemoveDeadCode(Program& program) {
  std::vector<bool> live(program.registers.size(), false);
  const auto mark = [&](const std::vector<Register>& registers) {
    for (const Register at : registers)
      if (at != kNoRegister) live[at] = true;
  };
  mark(program.outputs);
  Graph graph(program);
  for (size_t i = graph.size(); i-- > 0;) {
    const Instruction& instruction = graph[i];
    bool needed = HasEffects(program, instruction);
    for (const Result& result : instruction.results) {
      for (const Register at : result.registers) needed |= at != kNoRegister && live[at];
    }
    if (!needed) {
      graph.Remove(i);
      continue;
    }
    for (const Operand& operand : instruction.operands) mark(operand.registers);
  }
}

}  // namespace tf
