#include "native/program/passes/passes.h"

#include <algorithm>
#include <array>

#include "native/error/error.h"

namespace tf {
namespace {

struct Pass {
  const char* name;
  void (*run)(Program&);
  // Leaves operators and their derivatives as they are.
  bool keeps_gradients;
};

// Each sees what those before it have left. Sequences become single operators before anything
// moves across them; views become direct when nobody looks for their operators any more.
constexpr std::array<Pass, 13> kPasses{{{"dead_code", RemoveDeadCode, true},
                                        {"identities", RemoveIdentities, false},
                                        {"constants", FoldConstants, true},
                                        {"common", MergeCommon, false},
                                        {"norms", FuseNorms, false},
                                        {"last_positions", KeepLastPositions, false},
                                        {"residuals", FuseResiduals, false},
                                        {"rotary", FuseRotary, false},
                                        {"swiglu", FuseSwiGlu, false},
                                        {"linears", GroupLinears, false},
                                        {"attention", PickAttention, false},
                                        {"views", MakeViewsDirect, false},
                                        {"in_place", ReuseBuffers, false}}};

// Some result may get a graph behind it.
bool NeedsGradients(const Program& program) {
  const auto requires_grad = [&](const std::vector<Register>& registers) {
    return std::any_of(registers.begin(), registers.end(), [&](Register at) {
      return at != kNoRegister && program.registers[at].requires_grad;
    });
  };
  for (const Instruction& instruction : program.code) {
    if (!program.mode_facts[instruction.modes].grad) continue;
    for (const Operand& operand : instruction.operands)
      if (requires_grad(operand.registers)) return true;
    for (const Result& result : instruction.results)
      if (requires_grad(result.registers)) return true;
  }
  return false;
}

// Operators that give a tensor other memory, after which a register's facts no longer hold, and
// those of others, which may do what their schema does not say.
bool IsOpaque(const Instruction& instruction) {
  const std::string& name = instruction.op->name;
  if (name.starts_with("torchformers::")) return false;
  return !name.starts_with("aten::") || name.starts_with("aten::set_") ||
         name.starts_with("aten::resize_");
}

void DropUnusedConstants(Program& program) {
  std::vector<bool> used(program.registers.size(), false);
  for (const Instruction& instruction : program.code) {
    for (const Operand& operand : instruction.operands) {
      for (const Register at : operand.registers)
        if (at != kNoRegister) used[at] = true;
    }
  }
  std::erase_if(program.captures,
                [&](const CapturedTensor& capture) { return capture.folded && !used[capture.to]; });
}

}  // namespace

std::vector<std::string> PassNames() {
  std::vector<std::string> names;
  for (const Pass& pass : kPasses) names.emplace_back(pass.name);
  return names;
}

void Optimize(Program& program, const std::optional<std::vector<std::string>>& names) {
  const std::vector<std::string> known = PassNames();
  for (const std::string& name : names.value_or(std::vector<std::string>())) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    std::string text;
    for (const std::string& each : known) text += (text.empty() ? "" : ", ") + each;
    throw Failure(code::kInvalidArgument,
                  "[compile] there is no pass '" + name + "'",
                  "Passes are " + text + ".");
  }
  program.needs_gradients = NeedsGradients(program);
  if (std::any_of(program.code.begin(), program.code.end(), IsOpaque)) return;
  for (const Pass& pass : kPasses) {
    if (program.needs_gradients && !pass.keeps_gradients) continue;
    if (names && std::find(names->begin(), names->end(), pass.name) == names->end()) continue;
    pass.run(program);
    // What a pass replaced is of no use any more.
    if (!pass.keeps_gradients) RemoveDeadCode(program);
  }
  DropUnusedConstants(program);
}

}  // namespace tf
