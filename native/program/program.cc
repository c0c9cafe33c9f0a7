#include "native/program/program.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <sstream>
#include <utility>

#include "native/convert/dtype.h"
#include "native/placement/resting.h"
#include "native/program/effects.h"
#include "native/program/fake.h"

namespace tf {
namespace {

// Multiplications that one thread does in some 10 us.
constexpr double kSmall = 1 << 20;

int64_t UsesOf(const Instruction& instruction, Register at) {
  int64_t uses = 0;
  for (const Operand& operand : instruction.operands)
    uses += std::count(operand.registers.begin(), operand.registers.end(), at);
  return uses;
}

}  // namespace

TensorFacts TensorFacts::Of(const at::Tensor& tensor) {
  return {tensor.scalar_type(),
          RealDevice(tensor),
          tensor.sizes().vec(),
          tensor.strides().vec(),
          tensor.requires_grad(),
          -1,
          tensor.storage_offset()};
}

bool TensorFacts::Fits(const at::Tensor& real) const {
  return real.scalar_type() == dtype && HomeDevice(real) == device && real.sizes().equals(sizes) &&
         real.strides().equals(strides) && WantsGradient(real) == requires_grad;
}

bool TensorFacts::FitsLoosely(const at::Tensor& real) const {
  if (real.scalar_type() != dtype || HomeDevice(real) != device || !real.sizes().equals(sizes) ||
      WantsGradient(real) != requires_grad) {
    return false;
  }
  for (size_t i = 0; i < sizes.size(); ++i)
    if (sizes[i] != 1 && real.stride(static_cast<int64_t>(i)) != strides[i]) return false;
  return true;
}

std::string TensorFacts::Text() const {
  std::string text(DtypeName(dtype));
  text += '[';
  for (size_t i = 0; i < sizes.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(sizes[i]);
  text += ']';
  if (!device.is_cpu()) text += " on " + device.str();
  return text;
}

void Program::Finish() {
  std::vector<bool> seen(registers.size(), false);
  for (const Register output : outputs) {
    if (output != kNoRegister) seen[output] = true;
  }
  const auto note = [&](const std::vector<Register>& uses, std::vector<Register>& last) {
    for (const Register at : uses) {
      if (at == kNoRegister || seen[at]) continue;
      seen[at] = true;
      last.push_back(at);
    }
  };
  for (const Instruction& instruction : code) writes |= instruction.op->writes;
  const auto on_device =
      std::find_if(registers.begin(), registers.end(), [](const TensorFacts& facts) {
        return facts.device.is_cuda();
      });
  if (on_device != registers.end()) device = on_device->device;
  written = WrittenRegisters(*this);
  for (auto instruction = code.rbegin(); instruction != code.rend(); ++instruction) {
    for (const Result& result : instruction->results) note(result.registers, instruction->unused);
    for (const Operand& operand : instruction->operands) note(operand.registers, instruction->dies);
    for (Operand& operand : instruction->operands) {
      if (operand.kind != Operand::Kind::kTensor) continue;
      const Register at = operand.registers[0];
      const auto dies = std::find(instruction->dies.begin(), instruction->dies.end(), at);
      if (dies == instruction->dies.end() || UsesOf(*instruction, at) != 1) continue;
      operand.moves = true;
      instruction->dies.erase(dies);
    }
    instruction->way = WayOf(*instruction);
    instruction->alone = IsSmall(*instruction);
  }
}

Instruction::Way Program::WayOf(const Instruction& instruction) const {
  if (instruction.op->name == "torchformers::view" && !needs_gradients)
    return Instruction::Way::kView;
  return instruction.op->skips_autograd && !mode_facts[instruction.modes].grad
             ? Instruction::Way::kCallBelow
             : Instruction::Way::kCall;
}

bool Program::IsSmall(const Instruction& instruction) const {
  if (!instruction.op->heavy) return false;
  // Each element of the largest tensor is multiplied with each row of the second.
  double largest = 0;
  double second = 0;
  double last = 1;  // dimension of the second
  double largest_last = 1;
  for (const Operand& operand : instruction.operands) {
    for (const Register at : operand.registers) {
      if (at == kNoRegister) continue;
      const TensorFacts& facts = registers[at];
      if (!facts.device.is_cpu()) return false;
      double elements = 1;
      for (const int64_t size : facts.sizes) elements *= static_cast<double>(size);
      const double width = facts.sizes.empty() ? 1 : static_cast<double>(facts.sizes.back());
      if (elements > largest) {
        second = std::exchange(largest, elements);
        last = std::exchange(largest_last, width);
      } else if (elements > second) {
        second = elements;
        last = width;
      }
    }
  }
  return largest * second <= kSmall * std::max(last, 1.0);
}

std::string Program::Name(Register at) const {
  if (at == kNoRegister) return "None";
  const auto capture = std::find_if(
      captures.begin(), captures.end(), [&](const CapturedTensor& each) { return each.to == at; });
  if (capture != captures.end()) return "$" + std::to_string(capture - captures.begin());
  return "%" + std::to_string(at);
}

std::string Program::Text(const Operand& operand) const {
  if (operand.kind == Operand::Kind::kTensor) return Name(operand.registers[0]);
  if (operand.kind == Operand::Kind::kConstant) {
    if (operand.constant.isTensor() && operand.constant.toTensor().defined()) {
      const at::Tensor& tensor = operand.constant.toTensor();
      std::ostringstream number;
      if (tensor.numel() == 1) number << tensor.item();
      return number.str();
    }
    if (operand.constant.isGenerator()) return "Generator";
    std::ostringstream text;
    text << operand.constant;
    return text.str();
  }
  std::string text = "[";
  for (size_t i = 0; i < operand.registers.size(); ++i)
    text += (i > 0 ? ", " : "") + Name(operand.registers[i]);
  return text + "]";
}

std::vector<std::string> Program::Text() const {
  std::vector<std::string> lines;
  for (const Instruction& instruction : code) {
    std::string line;
    for (const Result& result : instruction.results) {
      for (const Register at : result.registers) {
        if (at == kNoRegister) continue;
        line += (line.empty() ? "" : ", ") + Name(at) + ": " + registers[at].Text();
      }
    }
    if (!line.empty()) line += " = ";
    line += instruction.op->name + "(";
    for (size_t i = 0; i < instruction.operands.size(); ++i)
      line += (i > 0 ? ", " : "") + Text(instruction.operands[i]);
    lines.push_back(line + ")");
  }
  return lines;
}

}  // namespace tf
