// An element-wise operator whose argument is dead afterwards writes its result over it. Only into
// memory that the run made itself and that nobody else looks at any more.
#include <algorithm>
#include <array>
#include <string>

#include "native/program/passes/graph.h"
#include "native/program/passes/passes.h"

namespace tf {
namespace {

bool HasInPlaceForm(const Instruction& instruction) {
  static constexpr std::array<std::string_view, 18> kNames{"aten::add.Tensor",
                                                           "aten::sub.Tensor",
                                                           "aten::mul.Tensor",
                                                           "aten::div.Tensor",
                                                           "aten::relu",
                                                           "aten::silu",
                                                           "aten::gelu",
                                                           "aten::tanh",
                                                           "aten::sigmoid",
                                                           "aten::neg",
                                                           "aten::exp",
                                                           "aten::cos",
                                                           "aten::sin",
                                                           "aten::rsqrt",
                                                           "aten::sqrt",
                                                           "aten::pow.Tensor_Scalar",
                                                           "aten::clamp",
                                                           "aten::masked_fill.Scalar"};
  return std::find(kNames.begin(), kNames.end(), instruction.op->name) != kNames.end();
}

const OpPlan& InPlaceFormOf(const Instruction& instruction) {
  const std::string& name = instruction.op->name;
  const size_t dot = name.find('.');
  if (dot == std::string::npos) return OpNamed(name + "_");
  const std::string overload = name.substr(dot + 1);
  // pow_ has its own words for its overloads.
  return OpNamed(name.substr(0, dot) + "_." + (overload == "Tensor_Scalar" ? "Scalar" : overload));
}

class Reuser {
 public:
  explicit Reuser(Program& program)
      : program_(program),
        last_use_(program.storages, 0),
        escapes_(program.storages, false),
        graph_(program) {
    for (const Register at : program.outputs)
      if (at != kNoRegister) escapes_[graph_.FactsOf(at).storage] = true;
    for (size_t i = 0; i < program.code.size(); ++i) {
      for (const Operand& operand : program.code[i].operands) {
        for (const Register at : operand.registers)
          if (at != kNoRegister) last_use_[graph_.FactsOf(at).storage] = i;
      }
    }
  }

  void Run() {
    for (size_t i = 0; i < program_.code.size(); ++i) {
      if (MayReuse(i)) Reuse(i);
    }
  }

 private:
  bool MayReuse(size_t position) {
    const Instruction& instruction = program_.code[position];
    if (!HasInPlaceForm(instruction)) return false;
    if (program_.mode_facts[instruction.modes].autocast) return false;
    const Register over = TensorAt(instruction, 0);
    const Register result = ResultOf(instruction);
    if (over == kNoRegister || result == kNoRegister) return false;
    const TensorFacts& from = graph_.FactsOf(over);
    const TensorFacts& to = graph_.FactsOf(result);
    if (from.dtype != to.dtype || from.sizes != to.sizes || from.strides != to.strides)
      return false;
    if (from.device != to.device || !IsDense(from)) return false;
    // Folded constants are no arguments, but are there at the next run.
    const size_t maker = graph_.MakerOf(over);
    if (maker == Graph::kNowhere || graph_.aliases().IsForeign(over)) return false;
    if (escapes_[from.storage] || IsFolded(from.storage)) return false;
    if (last_use_[from.storage] > position) return false;
    for (size_t k = 1; k < instruction.operands.size(); ++k) {
      for (const Register at : instruction.operands[k].registers) {
        if (at == kNoRegister || at == over) continue;
        if (graph_.FactsOf(at).storage == from.storage) return false;
      }
    }
    return true;
  }

  bool IsFolded(int32_t storage) const {
    return std::any_of(
        program_.captures.begin(), program_.captures.end(), [&](const CapturedTensor& capture) {
          return graph_.FactsOf(capture.to).storage == storage;
        });
  }

  // Every element has its own place, and there are no others between.
  static bool IsDense(const TensorFacts& facts) {
    std::vector<std::pair<int64_t, int64_t>> dims;
    for (size_t i = 0; i < facts.sizes.size(); ++i)
      if (facts.sizes[i] != 1) dims.emplace_back(facts.strides[i], facts.sizes[i]);
    std::sort(dims.begin(), dims.end());
    int64_t expected = 1;
    for (const auto& [stride, size] : dims) {
      if (stride != expected) return false;
      expected *= size;
    }
    return true;
  }

  void Reuse(size_t position) {
    Instruction& instruction = program_.code[position];
    const Register over = TensorAt(instruction, 0);
    const Register result = ResultOf(instruction);
    instruction.op = &InPlaceFormOf(instruction);
    instruction.results = {Result{}};
    const int32_t kept = graph_.FactsOf(over).storage;
    const int32_t gone = graph_.FactsOf(result).storage;
    for (TensorFacts& facts : program_.registers)
      if (facts.storage == gone) facts.storage = kept;
    last_use_[kept] = std::max(last_use_[kept], last_use_[gone]);
    escapes_[kept] = escapes_[kept] || escapes_[gone];
    std::replace(program_.outputs.begin(), program_.outputs.end(), result, over);
    for (Instruction& each : program_.code) {
      for (Operand& operand : each.operands)
        std::replace(operand.registers.begin(), operand.registers.end(), result, over);
    }
  }

  Program& program_;
  // By storage.
  std::vector<size_t> last_use_;
  std::vector<bool> escapes_;
  Graph graph_;
};

}  // namespace

void ReuseBuffers(Program& program) { Reuser(program).Run(); }

}  // namespace tf
