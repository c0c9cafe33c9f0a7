#include "native/program/program.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <sstream>

#include "native/convert/dtype.h"
#include "native/program/fake.h"

namespace tf {

TensorFacts TensorFacts::Of(const at::Tensor& tensor) {
  return {tensor.scalar_type(),
          RealDevice(tensor),
          tensor.sizes().vec(),
          tensor.strides().vec(),
          tensor.requires_grad()};
}

bool TensorFacts::Fits(const at::Tensor& real) const {
  return real.scalar_type() == dtype && real.device() == device && real.sizes().equals(sizes) &&
         real.strides().equals(strides) && real.requires_grad() == requires_grad;
}

bool TensorFacts::FitsLoosely(const at::Tensor& real) const {
  if (real.scalar_type() != dtype || real.device() != device || !real.sizes().equals(sizes) ||
      real.requires_grad() != requires_grad) {
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
  for (auto instruction = code.rbegin(); instruction != code.rend(); ++instruction) {
    for (const Result& result : instruction->results) note(result.registers, instruction->unused);
    for (const Operand& operand : instruction->operands) note(operand.registers, instruction->dies);
  }
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
