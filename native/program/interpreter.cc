#include "native/program/interpreter.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>

#include <chrono>

#include "native/error/error.h"
#include "native/io/mapped_tensors.h"

namespace tf {

int64_t NanosecondsNow() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

Interpreter::Interpreter(std::shared_ptr<const Program> program,
                         std::vector<c10::IValue> registers,
                         bool profiled)
    : program_(std::move(program)), registers_(std::move(registers)) {
  registers_.resize(program_->registers.size());
  if (!profiled) return;
  spans_.resize(program_->code.size());
  began_ = NanosecondsNow();
}

Interpreter::ModesHere::~ModesHere() {
  interpreter_.guard_.reset();
  // Weights in lower precision are kept as long as the run.
  if (interpreter_.program_->autocast && interpreter_.finished()) at::autocast::clear_cache();
}

void Interpreter::Rewind(const std::vector<c10::IValue>& registers) {
  registers_ = registers;
  registers_.resize(program_->registers.size());
  position_ = 0;
}

void Interpreter::Execute(const Instruction& instruction) {
  if (!guard_ || modes_ != instruction.modes) {
    guard_.reset();
    guard_.emplace(program_->modes[instruction.modes]);
    modes_ = instruction.modes;
  }
  if (!spans_.empty()) spans_[position_].begin = NanosecondsNow() - began_;
  stack_.clear();
  for (size_t i = 0; i < instruction.operands.size(); ++i) stack_.push_back(Load(instruction, i));
  for (const Register at : instruction.dies) registers_[at] = c10::IValue();
  try {
    io::CheckMapped(stack_);
    instruction.op->handle.callBoxed(&stack_);
    io::CheckMappingFaults();
  } catch (...) {
    Failure failure = CurrentFailure();
    if (failure.from_torch) {
      failure.message = "[" + instruction.op->name + "] " + failure.message;
      failure.from_torch = false;
    }
    stack_.clear();
    Clear();
    throw failure;
  }
  Store(instruction);
  if (!spans_.empty()) spans_[position_].end = NanosecondsNow() - began_;
}

c10::IValue Interpreter::Load(const Instruction& instruction, size_t index) const {
  const Operand& operand = instruction.operands[index];
  switch (operand.kind) {
    case Operand::Kind::kConstant:
      if (generator_ && instruction.draws && operand.constant.isNone() &&
          instruction.op->arguments[index].kind == ArgumentKind::kGenerator) {
        return *generator_;
      }
      return operand.constant;
    case Operand::Kind::kTensor:
      return registers_[operand.registers[0]];
    case Operand::Kind::kTensors: {
      c10::List<at::Tensor> list;
      list.reserve(operand.registers.size());
      for (const Register at : operand.registers) {
        list.push_back(at == kNoRegister ? at::Tensor() : registers_[at].toTensor());
      }
      return list;
    }
    case Operand::Kind::kOptionalTensors: {
      c10::List<std::optional<at::Tensor>> list;
      list.reserve(operand.registers.size());
      for (const Register at : operand.registers) {
        list.push_back(at == kNoRegister ? std::optional<at::Tensor>() : registers_[at].toTensor());
      }
      return list;
    }
  }
  return {};
}

void Interpreter::Store(const Instruction& instruction) {
  for (size_t i = 0; i < instruction.results.size() && i < stack_.size(); ++i) {
    const Result& result = instruction.results[i];
    if (result.registers.empty()) continue;
    if (!result.list) {
      if (result.registers[0] != kNoRegister)
        registers_[result.registers[0]] = std::move(stack_[i]);
      continue;
    }
    const auto tensors = stack_[i].toTensorVector();
    for (size_t k = 0; k < result.registers.size() && k < tensors.size(); ++k)
      if (result.registers[k] != kNoRegister) registers_[result.registers[k]] = tensors[k];
  }
  stack_.clear();
  for (const Register at : instruction.unused) registers_[at] = c10::IValue();
}

}  // namespace tf
