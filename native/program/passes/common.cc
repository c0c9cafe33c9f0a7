// The same operator on the same arguments: computed once. Not where somebody writes to one of the
// results, or to an argument in between, nor for outputs: two results are two tensors.
#include <ATen/ATen.h>

#include <cstring>
#include <unordered_map>

#include "native/program/passes/graph.h"
#include "native/program/passes/passes.h"

namespace tf {
namespace {

void Append(std::string& key, const void* data, size_t bytes) {
  key.append(static_cast<const char*>(data), bytes);
}

template <class T>
void Append(std::string& key, T value) {
  Append(key, &value, sizeof(value));
}

// Exact, other than a printed number. False for what cannot be compared.
bool AppendValue(std::string& key, const c10::IValue& value) {
  if (value.isNone()) {
    key += 'n';
  } else if (value.isBool()) {
    key += value.toBool() ? 't' : 'f';
  } else if (value.isInt()) {
    key += 'i';
    Append(key, value.toInt());
  } else if (value.isDouble()) {
    key += 'd';
    Append(key, value.toDouble());
  } else if (value.isDevice()) {
    key += 'v' + value.toDevice().str() + ';';
  } else if (value.isString()) {
    key += 's';
    Append(key, value.toStringRef().size());
    key += value.toStringRef();
  } else if (value.isTensor()) {
    const at::Tensor& tensor = value.toTensor();
    if (!tensor.defined()) {
      key += 'n';
      return true;
    }
    // A number.
    if (tensor.numel() != 1 || !tensor.is_cpu()) return false;
    key += 'w';
    Append(key, tensor.scalar_type());
    Append(key, tensor.const_data_ptr(), tensor.element_size());
  } else if (value.isList()) {
    key += 'l';
    Append(key, value.toListRef().size());
    for (const c10::IValue& item : value.toListRef())
      if (!AppendValue(key, item)) return false;
  } else {
    return false;
  }
  return true;
}

std::optional<std::string> KeyOf(const Instruction& instruction) {
  std::string key;
  Append(key, instruction.op);
  Append(key, instruction.modes);
  for (const Operand& operand : instruction.operands) {
    Append(key, operand.kind);
    if (operand.kind == Operand::Kind::kConstant) {
      if (!AppendValue(key, operand.constant)) return std::nullopt;
      continue;
    }
    Append(key, operand.registers.size());
    for (const Register at : operand.registers) Append(key, at);
  }
  return key;
}

class Merger {
 public:
  explicit Merger(Program& program) : graph_(program) {}

  void Run() {
    for (size_t i = 0; i < graph_.size(); ++i) {
      if (!MayMerge(graph_[i])) continue;
      const auto key = KeyOf(graph_[i]);
      if (!key) continue;
      const auto [known, is_new] = first_.try_emplace(*key, i);
      if (is_new) continue;
      if (!ArgumentsAreSame(known->second, i)) {
        known->second = i;
        continue;
      }
      Merge(known->second, i);
    }
  }

 private:
  bool MayMerge(const Instruction& instruction) const {
    if (instruction.op->writes || instruction.draws || instruction.results.empty()) return false;
    for (const Result& result : instruction.results) {
      for (const Register at : result.registers) {
        if (at == kNoRegister) return false;
        if (graph_.IsOutput(at)) return false;
        // A view is its argument's memory, whoever makes it; fresh memory must stay two.
        const bool view = SharesWithArgument(instruction, at);
        if (!view && (graph_.aliases().IsWritten(at) || graph_.aliases().Escapes(at))) return false;
      }
    }
    return true;
  }

  bool SharesWithArgument(const Instruction& instruction, Register result) const {
    for (const Operand& operand : instruction.operands) {
      for (const Register at : operand.registers) {
        if (at != kNoRegister && graph_.FactsOf(at).storage == graph_.FactsOf(result).storage)
          return true;
      }
    }
    return false;
  }

  bool ArgumentsAreSame(size_t first, size_t second) const {
    for (const Operand& operand : graph_[second].operands) {
      for (const Register at : operand.registers)
        if (at != kNoRegister && !graph_.IsSameAt(at, first, second)) return false;
    }
    return true;
  }

  void Merge(size_t first, size_t second) {
    const auto& kept = graph_[first].results;
    const std::vector<Result> dropped = graph_[second].results;
    for (size_t i = 0; i < dropped.size(); ++i) {
      for (size_t k = 0; k < dropped[i].registers.size(); ++k)
        graph_.Redirect(dropped[i].registers[k], kept[i].registers[k]);
    }
    graph_.Remove(second);
  }

  Graph graph_;
  std::unordered_map<std::string, size_t> first_;
};

}  // namespace

void MergeCommon(Program& program) { Merger(program).Run(); }

}  // namespace tf
