// A Program while a pass rewrites it: who makes and who uses each register.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string_view>
#include <vector>

#include "native/program/passes/aliases.h"
#include "native/program/program.h"

namespace tf {

// An operator of the registry, by its full name: "aten::add.Tensor".
const OpPlan& OpNamed(std::string_view name);

inline bool Is(const Instruction& instruction, std::string_view name) {
  return instruction.op->name == name;
}

// What an operand is, when it is that.
Register TensorAt(const Instruction& instruction, size_t operand);  // kNoRegister: none
std::optional<double> NumberAt(const Instruction& instruction, size_t operand);
std::optional<int64_t> IntAt(const Instruction& instruction, size_t operand);
bool BoolAt(const Instruction& instruction, size_t operand);
bool IsNone(const Instruction& instruction, size_t operand);

// The only result of an instruction that has one tensor, else kNoRegister.
Register ResultOf(const Instruction& instruction);

Operand TensorOperand(Register at);  // kNoRegister: none
Operand TensorsOperand(std::vector<Register> registers);
Operand OptionalTensorsOperand(std::vector<Register> registers);
Operand ConstantOperand(c10::IValue value);

// Instructions keep their places while a graph lives: what a pass removes goes when it ends.
class Graph {
 public:
  explicit Graph(Program& program);
  // Without the instructions that were removed.
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  size_t size() const { return program_.code.size(); }
  bool IsRemoved(size_t position) const { return removed_[position]; }
  const Instruction& operator[](size_t position) const { return program_.code[position]; }
  const TensorFacts& FactsOf(Register at) const { return program_.registers[at]; }
  const Program& program() const { return program_; }
  const Aliases& aliases() const { return aliases_; }

  static constexpr size_t kNowhere = SIZE_MAX;
  // Of the instruction that makes the register; kNowhere for arguments and captured tensors.
  size_t MakerOf(Register at) const { return makers_[at]; }
  // The instruction that makes it, when it is that operator; else null.
  const Instruction* MadeBy(Register at, std::string_view name) const;
  const std::vector<size_t>& UsersOf(Register at) const { return users_[at]; }
  bool IsOutput(Register at) const { return outputs_[at]; }
  // Nobody but that instruction looks at it or at its memory.
  bool IsOnlyFor(Register at, size_t user) const;
  // What it held at `from` it holds at `to`, whichever comes first.
  bool IsSameAt(Register at, size_t from, size_t to) const;

  // On the CPU, in a dtype that our kernels take, without autocast.
  bool IsPlain(size_t position) const;
  bool SameModes(std::initializer_list<size_t> positions) const;

  // Puts an instruction in the place of another. False, and nothing is changed, when its results
  // are other than the registers that they go to say: asks the operator's kernel for shapes.
  // Strides along dimensions of size one may change where nobody outside can see it.
  bool Replace(size_t position, Instruction instruction);
  // Asks the operator what its results are now that its arguments have changed, and gives those
  // that are other than before.
  std::vector<Register> Retrace(const Instruction& instruction);
  void Remove(size_t position);
  // All that used one register use the other.
  void Redirect(Register from, Register to);
  Register NewRegister(TensorFacts facts);  // with memory of its own, when its storage is -1
  void AddConstant(Register at, at::Tensor value);
  // An instruction that comes before the one at `position`, when the pass ends.
  void InsertBefore(size_t position, Instruction instruction);

 private:
  torch::jit::Stack RunOnMeta(const Instruction& instruction) const;
  bool Agrees(const Instruction& instruction);
  void Note(const Instruction& instruction, size_t position);
  void Forget(const Instruction& instruction, size_t position);

  Program& program_;
  Aliases aliases_;
  std::vector<size_t> makers_;
  std::vector<std::vector<size_t>> users_;
  std::vector<bool> outputs_;
  std::vector<bool> removed_;
  std::vector<std::pair<size_t, Instruction>> inserted_;
};

}  // namespace tf
