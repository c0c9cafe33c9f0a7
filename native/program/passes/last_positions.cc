// What is looked at in a few positions only (the last token's logits) is computed for those only:
// the selection moves up through linear layers, norms and element-wise operators, to where
// positions meet. The values are the same; strides of a result may be, and its memory is, smaller.
#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <map>
#include <vector>

#include "native/program/passes/graph.h"
#include "native/program/passes/passes.h"

namespace tf {
namespace {

// `count` positions along a dimension.
struct Range {
  int64_t dim = 0;
  int64_t start = 0;
  int64_t count = 0;
  bool operator==(const Range&) const = default;
};

bool IsElementwise(const Instruction& instruction) {
  static constexpr std::array<std::string_view, 13> kNames{"aten::add.Tensor",
                                                           "aten::sub.Tensor",
                                                           "aten::mul.Tensor",
                                                           "aten::div.Tensor",
                                                           "aten::silu",
                                                           "aten::gelu",
                                                           "aten::relu",
                                                           "aten::tanh",
                                                           "aten::sigmoid",
                                                           "aten::neg",
                                                           "aten::to.dtype",
                                                           "aten::to.dtype_layout",
                                                           "torchformers::swiglu"};
  return std::find(kNames.begin(), kNames.end(), instruction.op->name) != kNames.end();
}

// Works on the last dimension of its first argument, position by position.
bool IsRowwise(const Instruction& instruction) {
  return Is(instruction, "aten::linear") || Is(instruction, "torchformers::rms_norm") ||
         Is(instruction, "aten::rms_norm") || Is(instruction, "aten::layer_norm");
}

class Mover {
 public:
  explicit Mover(Program& program)
      : program_(program), needs_(program.registers.size()), graph_(program) {}

  void Run() {
    FindNeeds();
    if (!pays_) return;
    for (size_t i = 0; i < graph_.size(); ++i) {
      if (graph_.IsRemoved(i)) continue;
      if (const auto range = RegionOf(i)) {
        Shrink(i, *range);
      } else if (SelectsFromRegion(i)) {
        MoveSelection(i);
      } else if (UsesChanged(i)) {
        Retrace(program_.code[i]);
      }
    }
  }

 private:
  // What is needed of a register; absent: nothing yet. Of count -1: everything.
  using Need = std::optional<Range>;
  static constexpr Range kAll{0, 0, -1};

  void Join(Register at, const Range& range) {
    Need& need = needs_[at];
    need = !need || *need == range ? range : kAll;
  }

  static bool IsSome(const Need& need) { return need && need->count >= 0; }

  void FindNeeds() {
    for (const Register at : program_.outputs)
      if (at != kNoRegister) needs_[at] = kAll;
    for (size_t i = graph_.size(); i-- > 0;) {
      const Instruction& instruction = graph_[i];
      if (const auto range = SelectionOf(i)) {
        Join(TensorAt(instruction, 0), *range);
        continue;
      }
      const auto range = RegionOf(i);
      for (size_t k = 0; k < instruction.operands.size(); ++k) {
        for (const Register at : instruction.operands[k].registers) {
          if (at != kNoRegister) Join(at, range && IsSliced(i, at, *range) ? *range : kAll);
        }
      }
      if (range && instruction.op->heavy) pays_ = true;
    }
  }

  // The positions that an instruction picks from its argument, when it is a view that does so and
  // may be one of something smaller.
  std::optional<Range> SelectionOf(size_t position) const {
    const Instruction& instruction = graph_[position];
    const Register from = TensorAt(instruction, 0);
    const Register to = ResultOf(instruction);
    if (from == kNoRegister || to == kNoRegister) return std::nullopt;
    const auto& sizes = graph_.FactsOf(from).sizes;
    const auto dim = IntAt(instruction, 1);
    if (!dim) return std::nullopt;
    Range range;
    const auto rank = static_cast<int64_t>(sizes.size());
    range.dim = *dim < 0 ? *dim + rank : *dim;
    if (range.dim < 0 || range.dim >= rank) return std::nullopt;
    const int64_t size = sizes[range.dim];
    const auto start = IntAt(instruction, 2);
    if (Is(instruction, "aten::select.int")) {
      range.count = 1;
    } else if (Is(instruction, "aten::narrow")) {
      range.count = IntAt(instruction, 3).value_or(size);
    } else if (Is(instruction, "aten::slice.Tensor") && IntAt(instruction, 4) == 1) {
      range.count = graph_.FactsOf(to).sizes[range.dim];
    } else {
      return std::nullopt;
    }
    range.start = start.value_or(0);
    if (range.start < 0) range.start += size;
    if (range.start < 0 || range.count < 1 || range.count * 2 > size ||
        range.start + range.count > size)
      return std::nullopt;
    if (graph_.aliases().IsWritten(from)) return std::nullopt;
    const bool first_dims_are_one = std::all_of(
        sizes.begin(), sizes.begin() + range.dim, [](int64_t each) { return each == 1; });
    if (!first_dims_are_one && IsCopiedByLayout(to)) return std::nullopt;
    return range;
  }

  // Whether an operator copies it, or a view of it, that would not do so with smaller strides.
  bool IsCopiedByLayout(Register at) const {
    for (const size_t user : graph_.UsersOf(at)) {
      const Instruction& instruction = graph_[user];
      if (!instruction.op->may_alias) continue;
      for (const Result& result : instruction.results) {
        for (const Register each : result.registers) {
          if (each == kNoRegister) continue;
          if (graph_.FactsOf(each).storage != graph_.FactsOf(at).storage) return true;
          if (IsCopiedByLayout(each)) return true;
        }
      }
    }
    return false;
  }

  // The positions for which an instruction must be computed, when it works position by position.
  std::optional<Range> RegionOf(size_t position) const {
    const Instruction& instruction = graph_[position];
    const Register result = ResultOf(instruction);
    if (result == kNoRegister || instruction.draws || instruction.op->writes) return std::nullopt;
    const Need& need = needs_[result];
    if (!IsSome(need) || graph_.aliases().IsWritten(result)) return std::nullopt;
    if (program_.mode_facts[instruction.modes].autocast) return std::nullopt;
    const auto rank = static_cast<int64_t>(graph_.FactsOf(result).sizes.size());
    const Register first = TensorAt(instruction, 0);
    if (IsRowwise(instruction)) {
      if (need->dim >= rank - NormalizedDims(instruction)) return std::nullopt;
      if (graph_.FactsOf(first).sizes.size() != static_cast<size_t>(rank)) return std::nullopt;
    } else if (!IsElementwise(instruction) || BroadcastsPositions(instruction, rank, need->dim)) {
      return std::nullopt;
    }
    // A view is its argument's memory.
    for (const Operand& operand : instruction.operands) {
      for (const Register at : operand.registers) {
        if (at != kNoRegister && graph_.FactsOf(at).storage == graph_.FactsOf(result).storage)
          return std::nullopt;
      }
    }
    return need;
  }

  // An argument with fewer dimensions has the positions too.
  bool BroadcastsPositions(const Instruction& instruction, int64_t rank, int64_t dim) const {
    for (const Operand& operand : instruction.operands) {
      for (const Register at : operand.registers) {
        if (at == kNoRegister) continue;
        const auto& sizes = graph_.FactsOf(at).sizes;
        const int64_t there = dim - (rank - static_cast<int64_t>(sizes.size()));
        const bool fewer = static_cast<int64_t>(sizes.size()) < rank;
        if (fewer && there >= 0 && sizes[there] != 1) return true;
      }
    }
    return false;
  }

  static int64_t NormalizedDims(const Instruction& instruction) {
    if (instruction.operands.size() < 2) return 1;
    const c10::IValue& shape = instruction.operands[1].constant;
    return shape.isIntList() ? static_cast<int64_t>(shape.toIntList().size()) : 1;
  }

  // Whether an operand has the positions, and is not the same for all of them.
  bool IsSliced(size_t position, Register at, const Range& range) const {
    const Instruction& instruction = graph_[position];
    if (IsRowwise(instruction)) return at == TensorAt(instruction, 0) && OnlyFirst(instruction, at);
    // Sizes before any change: where both are as large.
    const auto& sizes = graph_.FactsOf(at).sizes;
    const auto& whole = graph_.FactsOf(ResultOf(instruction)).sizes;
    return sizes.size() == whole.size() && sizes[range.dim] != 1;
  }

  static bool OnlyFirst(const Instruction& instruction, Register at) {
    for (size_t k = 1; k < instruction.operands.size(); ++k)
      if (TensorAt(instruction, k) == at) return false;
    return true;
  }

  void Shrink(size_t position, const Range& range) {
    Instruction& instruction = program_.code[position];
    std::vector<Register> sliced;
    for (const Operand& operand : instruction.operands) {
      for (const Register at : operand.registers) {
        if (at != kNoRegister && WasSliced(position, at, range)) sliced.push_back(at);
      }
    }
    for (const Register at : sliced) {
      if (shrunk_.contains(at)) continue;
      const Register narrow = Narrow(at, range, position);
      for (Operand& operand : instruction.operands)
        std::replace(operand.registers.begin(), operand.registers.end(), at, narrow);
    }
    shrunk_[ResultOf(instruction)] = range;
    Retrace(instruction);
  }

  // As IsSliced, of operands and results that may have shrunk since.
  bool WasSliced(size_t position, Register at, const Range& range) const {
    if (shrunk_.contains(at)) return true;
    return IsSliced(position, at, range);
  }

  Register Narrow(Register at, const Range& range, size_t position) {
    const auto known = narrowed_.find(at);
    if (known != narrowed_.end()) return known->second;
    TensorFacts facts = graph_.FactsOf(at);
    facts.sizes[range.dim] = range.count;
    facts.offset += range.start * facts.strides[range.dim];
    const Register narrow = graph_.NewRegister(facts);
    needs_.emplace_back();
    Instruction view;
    view.op = &OpNamed("aten::narrow");
    view.operands = {TensorOperand(at),
                     ConstantOperand(range.dim),
                     ConstantOperand(range.start),
                     ConstantOperand(range.count)};
    view.results.resize(1);
    view.results[0].registers = {narrow};
    view.modes = graph_[position].modes;
    view.line = graph_[position].line;
    graph_.InsertBefore(position, std::move(view));
    // Its memory may be written later on, and then it is looked at no more.
    narrowed_.emplace(at, narrow);
    changed_.push_back(narrow);
    return narrow;
  }

  bool SelectsFromRegion(size_t position) const {
    return shrunk_.contains(TensorAt(graph_[position], 0));
  }

  // It picks all that is left.
  void MoveSelection(size_t position) {
    Instruction& instruction = program_.code[position];
    const Range range = shrunk_.at(TensorAt(instruction, 0));
    instruction.operands[2].constant = int64_t{0};
    if (Is(instruction, "aten::slice.Tensor")) instruction.operands[3].constant = range.count;
    Retrace(instruction);
  }

  bool UsesChanged(size_t position) const {
    for (const Operand& operand : graph_[position].operands) {
      for (const Register at : operand.registers) {
        if (std::find(changed_.begin(), changed_.end(), at) != changed_.end()) return true;
      }
    }
    return false;
  }

  // Asks the operator what its results are now.
  void Retrace(const Instruction& instruction) {
    for (const Register at : graph_.Retrace(instruction)) changed_.push_back(at);
  }

  Program& program_;
  std::vector<Need> needs_;
  Graph graph_;
  bool pays_ = false;
  std::map<Register, Range> shrunk_;
  std::map<Register, Register> narrowed_;
  std::vector<Register> changed_;
};

}  // namespace

void KeepLastPositions(Program& program) { Mover(program).Run(); }

}  // namespace tf
