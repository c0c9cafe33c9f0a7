#include "native/program/passes/graph.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <string>

namespace tf {

const OpPlan& OpNamed(std::string_view name) {
  const size_t dot = name.find('.');
  const std::string overload(dot == std::string_view::npos ? "" : name.substr(dot + 1));
  return *OpRegistry::At(OpRegistry::Find(std::string(name.substr(0, dot)), overload));
}

// Operands ----------------------------------------------------------------------------------------

Register TensorAt(const Instruction& instruction, size_t operand) {
  if (operand >= instruction.operands.size()) return kNoRegister;
  const Operand& at = instruction.operands[operand];
  return at.kind == Operand::Kind::kTensor ? at.registers[0] : kNoRegister;
}

std::optional<double> NumberAt(const Instruction& instruction, size_t operand) {
  if (operand >= instruction.operands.size()) return std::nullopt;
  const Operand& at = instruction.operands[operand];
  if (at.kind != Operand::Kind::kConstant) return std::nullopt;
  const c10::IValue& value = at.constant;
  if (value.isInt()) return static_cast<double>(value.toInt());
  if (value.isDouble()) return value.toDouble();
  // A number where the operator takes a tensor.
  if (!value.isTensor() || !value.toTensor().defined()) return std::nullopt;
  const at::Tensor& tensor = value.toTensor();
  if (tensor.numel() != 1 || tensor.is_complex() || !tensor.is_cpu()) return std::nullopt;
  return tensor.item().toDouble();
}

std::optional<int64_t> IntAt(const Instruction& instruction, size_t operand) {
  if (operand >= instruction.operands.size()) return std::nullopt;
  const c10::IValue& value = instruction.operands[operand].constant;
  return value.isInt() ? std::optional(value.toInt()) : std::nullopt;
}

bool BoolAt(const Instruction& instruction, size_t operand) {
  if (operand >= instruction.operands.size()) return false;
  const c10::IValue& value = instruction.operands[operand].constant;
  return value.isBool() && value.toBool();
}

bool IsNone(const Instruction& instruction, size_t operand) {
  if (operand >= instruction.operands.size()) return true;
  const Operand& at = instruction.operands[operand];
  return at.kind == Operand::Kind::kConstant &&
         (at.constant.isNone() || (at.constant.isTensor() && !at.constant.toTensor().defined()));
}

Register ResultOf(const Instruction& instruction) {
  if (instruction.results.size() != 1 || instruction.results[0].list) return kNoRegister;
  const auto& registers = instruction.results[0].registers;
  return registers.size() == 1 ? registers[0] : kNoRegister;
}

Operand TensorOperand(Register at) {
  Operand operand;
  if (at == kNoRegister) return operand;
  operand.kind = Operand::Kind::kTensor;
  operand.registers.push_back(at);
  return operand;
}

Operand TensorsOperand(std::vector<Register> registers) {
  Operand operand;
  operand.kind = Operand::Kind::kTensors;
  operand.registers = std::move(registers);
  return operand;
}

Operand OptionalTensorsOperand(std::vector<Register> registers) {
  Operand operand = TensorsOperand(std::move(registers));
  operand.kind = Operand::Kind::kOptionalTensors;
  return operand;
}

Operand ConstantOperand(c10::IValue value) {
  Operand operand;
  operand.constant = std::move(value);
  return operand;
}

// Graph -------------------------------------------------------------------------------------------

Graph::Graph(Program& program)
    : program_(program),
      aliases_(program),
      makers_(program.registers.size(), kNowhere),
      users_(program.registers.size()),
      outputs_(program.registers.size(), false),
      removed_(program.code.size(), false) {
  for (size_t i = 0; i < program.code.size(); ++i) Note(program.code[i], i);
  for (const Register at : program.outputs) {
    if (at != kNoRegister) outputs_[at] = true;
  }
}

Graph::~Graph() {
  std::stable_sort(inserted_.begin(), inserted_.end(), [](const auto& a, const auto& b) {
    return a.first < b.first;
  });
  std::vector<Instruction> code;
  code.reserve(program_.code.size() + inserted_.size());
  auto next = inserted_.begin();
  for (size_t i = 0; i < program_.code.size(); ++i) {
    for (; next != inserted_.end() && next->first == i; ++next)
      code.push_back(std::move(next->second));
    if (!removed_[i]) code.push_back(std::move(program_.code[i]));
  }
  program_.code = std::move(code);
}

void Graph::Note(const Instruction& instruction, size_t position) {
  for (const Operand& operand : instruction.operands) {
    for (const Register at : operand.registers) {
      if (at != kNoRegister) users_[at].push_back(position);
    }
  }
  for (const Result& result : instruction.results) {
    for (const Register at : result.registers) {
      if (at != kNoRegister) makers_[at] = position;
    }
  }
}

void Graph::Forget(const Instruction& instruction, size_t position) {
  for (const Operand& operand : instruction.operands) {
    for (const Register at : operand.registers) {
      if (at == kNoRegister) continue;
      auto& users = users_[at];
      const auto found = std::find(users.begin(), users.end(), position);
      if (found != users.end()) users.erase(found);
    }
  }
}

const Instruction* Graph::MadeBy(Register at, std::string_view name) const {
  if (at == kNoRegister || makers_[at] == kNowhere) return nullptr;
  const Instruction& maker = program_.code[makers_[at]];
  return Is(maker, name) ? &maker : nullptr;
}

bool Graph::IsOnlyFor(Register at, size_t user) const {
  if (outputs_[at] || makers_[at] == kNowhere) return false;
  return std::all_of(
      users_[at].begin(), users_[at].end(), [&](size_t each) { return each == user; });
}

bool Graph::IsSameAt(Register at, size_t from, size_t to) const {
  return !aliases_.IsWrittenBetween(at, std::min(from, to), std::max(from, to));
}

bool Graph::IsPlain(size_t position) const {
  const Instruction& instruction = program_.code[position];
  if (program_.mode_facts[instruction.modes].autocast) return false;
  for (const Result& result : instruction.results) {
    for (const Register at : result.registers) {
      if (at == kNoRegister) continue;
      const TensorFacts& facts = program_.registers[at];
      if (!facts.device.is_cpu()) return false;
      if (facts.dtype != at::kFloat && facts.dtype != at::kBFloat16) return false;
    }
  }
  return true;
}

bool Graph::SameModes(std::initializer_list<size_t> positions) const {
  return std::all_of(positions.begin(), positions.end(), [&](size_t each) {
    return program_.code[each].modes == program_.code[*positions.begin()].modes;
  });
}

// The results of an instruction, as tensors without values.
torch::jit::Stack Graph::RunOnMeta(const Instruction& instruction) const {
  const c10::NoGradGuard no_grad;
  const auto on_meta = [&](Register at) {
    if (at == kNoRegister) return at::Tensor();
    const TensorFacts& facts = program_.registers[at];
    return at::empty_strided(
        facts.sizes, facts.strides, at::TensorOptions().dtype(facts.dtype).device(at::kMeta));
  };
  torch::jit::Stack stack;
  for (const Operand& operand : instruction.operands) {
    switch (operand.kind) {
      case Operand::Kind::kConstant:
        stack.push_back(operand.constant);
        if (operand.constant.isDevice()) stack.back() = c10::Device(at::kMeta);
        break;
      case Operand::Kind::kTensor:
        stack.push_back(on_meta(operand.registers[0]));
        break;
      case Operand::Kind::kTensors: {
        c10::List<at::Tensor> list;
        for (const Register at : operand.registers) list.push_back(on_meta(at));
        stack.push_back(list);
        break;
      }
      case Operand::Kind::kOptionalTensors: {
        c10::List<std::optional<at::Tensor>> list;
        for (const Register at : operand.registers)
          list.push_back(at == kNoRegister ? std::nullopt : std::optional(on_meta(at)));
        stack.push_back(list);
        break;
      }
    }
  }
  instruction.op->handle.callBoxed(&stack);
  return stack;
}

bool Graph::Agrees(const Instruction& instruction) {
  torch::jit::Stack stack;
  try {
    stack = RunOnMeta(instruction);
  } catch (const c10::Error&) {
    return false;
  }
  std::vector<std::pair<Register, std::vector<int64_t>>> strides;
  const auto fits = [&](Register at, const at::Tensor& result) {
    if (at == kNoRegister) return true;
    const TensorFacts& facts = program_.registers[at];
    if (result.scalar_type() != facts.dtype || !result.sizes().equals(facts.sizes)) return false;
    if (result.strides().equals(facts.strides)) return true;
    if (aliases_.Escapes(at)) return false;
    for (size_t i = 0; i < facts.sizes.size(); ++i) {
      if (facts.sizes[i] != 1 && result.stride(static_cast<int64_t>(i)) != facts.strides[i])
        return false;
    }
    strides.emplace_back(at, result.strides().vec());
    return true;
  };
  if (stack.size() != instruction.results.size()) return false;
  for (size_t i = 0; i < stack.size(); ++i) {
    const Result& result = instruction.results[i];
    if (!result.list) {
      if (result.registers.size() != 1 || !fits(result.registers[0], stack[i].toTensor()))
        return false;
      continue;
    }
    const auto tensors = stack[i].toTensorVector();
    if (tensors.size() != result.registers.size()) return false;
    for (size_t k = 0; k < tensors.size(); ++k)
      if (!fits(result.registers[k], tensors[k])) return false;
  }
  for (auto& [at, each] : strides) program_.registers[at].strides = std::move(each);
  return true;
}

bool Graph::Replace(size_t position, Instruction instruction) {
  if (!Agrees(instruction)) return false;
  Forget(program_.code[position], position);
  instruction.modes = program_.code[position].modes;
  instruction.line = program_.code[position].line;
  program_.code[position] = std::move(instruction);
  Note(program_.code[position], position);
  return true;
}

std::vector<Register> Graph::Retrace(const Instruction& instruction) {
  const torch::jit::Stack stack = RunOnMeta(instruction);
  std::vector<Register> changed;
  const auto update = [&](Register at, const at::Tensor& result) {
    if (at == kNoRegister) return;
    TensorFacts& facts = program_.registers[at];
    // Views begin so far behind what they are views of.
    int64_t offset = result.storage_offset();
    for (const Operand& operand : instruction.operands) {
      for (const Register from : operand.registers) {
        if (from == kNoRegister || program_.registers[from].storage != facts.storage) continue;
        offset = program_.registers[from].offset + result.storage_offset();
      }
    }
    if (result.sizes().equals(facts.sizes) && result.strides().equals(facts.strides) &&
        offset == facts.offset)
      return;
    facts.sizes = result.sizes().vec();
    facts.strides = result.strides().vec();
    facts.offset = offset;
    changed.push_back(at);
  };
  for (size_t i = 0; i < std::min(stack.size(), instruction.results.size()); ++i) {
    const Result& result = instruction.results[i];
    if (result.registers.empty()) continue;
    if (!result.list) {
      update(result.registers[0], stack[i].toTensor());
      continue;
    }
    const auto tensors = stack[i].toTensorVector();
    for (size_t k = 0; k < std::min(tensors.size(), result.registers.size()); ++k)
      update(result.registers[k], tensors[k]);
  }
  return changed;
}

void Graph::Remove(size_t position) {
  Forget(program_.code[position], position);
  removed_[position] = true;
}

void Graph::Redirect(Register from, Register to) {
  for (const size_t user : users_[from]) {
    for (Operand& operand : program_.code[user].operands)
      std::replace(operand.registers.begin(), operand.registers.end(), from, to);
    users_[to].push_back(user);
  }
  users_[from].clear();
}

Register Graph::NewRegister(TensorFacts facts) {
  const auto at = static_cast<Register>(program_.registers.size());
  if (facts.storage < 0) facts.storage = program_.storages++;
  program_.registers.push_back(std::move(facts));
  makers_.push_back(kNowhere);
  users_.emplace_back();
  outputs_.push_back(false);
  return at;
}

void Graph::AddConstant(Register at, at::Tensor value) {
  CapturedTensor capture;
  capture.to = at;
  capture.constant = std::move(value);
  capture.folded = true;
  program_.captures.push_back(std::move(capture));
  makers_[at] = kNowhere;
}

void Graph::InsertBefore(size_t position, Instruction instruction) {
  for (const Operand& operand : instruction.operands) {
    for (const Register at : operand.registers) {
      if (at != kNoRegister) users_[at].push_back(position);
    }
  }
  for (const Result& result : instruction.results) {
    for (const Register at : result.registers) {
      if (at != kNoRegister) makers_[at] = position;
    }
  }
  inserted_.emplace_back(position, std::move(instruction));
}

}  // namespace tf
