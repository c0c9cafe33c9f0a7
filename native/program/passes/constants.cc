// What depends on no tensor (positions from arange, empty masks, and what is made of them) is
// computed once, when the recording ends. Captured tensors are none of it, also those that nothing
// seems to change: they are bound anew at each run. Bounded in bytes, since it stays.
#include <ATen/ATen.h>
#include <ATen/ThreadLocalState.h>

#include <unordered_map>

#include "native/program/passes/graph.h"
#include "native/program/passes/passes.h"

namespace tf {
namespace {

constexpr size_t kMaxBytesEach = size_t{4} << 20;
constexpr size_t kMaxBytes = size_t{16} << 20;

class Folder {
 public:
  explicit Folder(Program& program) : program_(program), graph_(program) {}

  void Run() {
    for (size_t i = 0; i < graph_.size(); ++i) {
      const Instruction& instruction = graph_[i];
      if (!MayFold(instruction)) continue;
      torch::jit::Stack stack;
      if (!Load(instruction, stack) || !Compute(instruction, stack)) continue;
      Keep(instruction, stack);
      graph_.Remove(i);
    }
  }

 private:
  bool MayFold(const Instruction& instruction) const {
    if (instruction.op->writes || instruction.draws || instruction.results.empty()) return false;
    const std::string& name = instruction.op->name;
    // Memory that somebody fills later.
    if (!name.starts_with("aten::") || name.find("empty") != std::string::npos) return false;
    if (program_.mode_facts[instruction.modes].autocast) return false;
    for (const Result& result : instruction.results) {
      for (const Register at : result.registers) {
        if (at == kNoRegister) return false;
        const TensorFacts& facts = graph_.FactsOf(at);
        if (!facts.device.is_cpu() || facts.requires_grad) return false;
        if (graph_.aliases().Escapes(at) || graph_.aliases().IsWritten(at)) return false;
        // An expanded view is no larger than what it shows.
        size_t bytes = c10::elementSize(facts.dtype);
        for (size_t i = 0; i < facts.sizes.size(); ++i)
          if (facts.strides[i] != 0) bytes *= static_cast<size_t>(facts.sizes[i]);
        if (bytes > kMaxBytesEach) return false;
      }
    }
    return true;
  }

  bool Load(const Instruction& instruction, torch::jit::Stack& stack) const {
    for (const Operand& operand : instruction.operands) {
      if (operand.kind == Operand::Kind::kConstant) {
        stack.push_back(operand.constant);
        continue;
      }
      if (operand.kind == Operand::Kind::kOptionalTensors) return false;
      c10::List<at::Tensor> list;
      for (const Register at : operand.registers) {
        const auto known = values_.find(at);
        if (known == values_.end()) return false;
        list.push_back(known->second);
      }
      if (operand.kind == Operand::Kind::kTensor) {
        stack.emplace_back(list.get(0));
      } else {
        stack.emplace_back(std::move(list));
      }
    }
    return true;
  }

  // False where the result is not what was recorded, or too large.
  bool Compute(const Instruction& instruction, torch::jit::Stack& stack) {
    const at::ThreadLocalStateGuard modes(program_.modes[instruction.modes]);
    try {
      instruction.op->handle.callBoxed(&stack);
    } catch (const c10::Error&) {
      return false;
    }
    if (stack.size() != instruction.results.size()) return false;
    std::unordered_map<const c10::StorageImpl*, size_t> fresh;
    for (size_t i = 0; i < stack.size(); ++i) {
      const Result& result = instruction.results[i];
      const auto tensors = Tensors(stack[i]);
      if (tensors.size() != result.registers.size()) return false;
      for (size_t k = 0; k < tensors.size(); ++k) {
        if (!graph_.FactsOf(result.registers[k]).Fits(tensors[k])) return false;
        const c10::StorageImpl* storage = tensors[k].storage().unsafeGetStorageImpl();
        if (!storages_.contains(storage)) fresh.emplace(storage, storage->nbytes());
      }
    }
    size_t bytes = bytes_;
    for (const auto& [storage, size] : fresh) {
      if (size > kMaxBytesEach) return false;
      bytes += size;
    }
    if (bytes > kMaxBytes) return false;
    bytes_ = bytes;
    for (const auto& [storage, size] : fresh) storages_.emplace(storage, size);
    return true;
  }

  void Keep(const Instruction& instruction, torch::jit::Stack& stack) {
    for (size_t i = 0; i < stack.size(); ++i) {
      const auto tensors = Tensors(stack[i]);
      for (size_t k = 0; k < tensors.size(); ++k) {
        const Register at = instruction.results[i].registers[k];
        values_.emplace(at, tensors[k]);
        graph_.AddConstant(at, tensors[k]);
      }
    }
  }

  static std::vector<at::Tensor> Tensors(const c10::IValue& value) {
    if (value.isTensor()) return {value.toTensor()};
    if (value.isTensorList()) return value.toTensorVector();
    return {};
  }

  Program& program_;
  Graph graph_;
  std::unordered_map<Register, at::Tensor> values_;
  std::unordered_map<const c10::StorageImpl*, size_t> storages_;
  size_t bytes_ = 0;
};

}  // namespace

void FoldConstants(Program& program) { Folder(program).Run(); }

}  // namespace tf
