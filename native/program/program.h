// A recorded function: what its operators are, in order, and what they work on.
#pragma once

#include <ATen/ThreadLocalState.h>
#include <ATen/core/ivalue.h>

#include <cstdint>
#include <string>
#include <vector>

#include "native/op/registry.h"
#include "native/tensor/slots.h"

namespace tf {

// A place for one tensor during a run. The first registers are the inputs, then come captured
// tensors and results in the order in which the recording met them.
using Register = int32_t;
inline constexpr Register kNoRegister = -1;

// An argument of an instruction.
struct Operand {
  enum class Kind : uint8_t { kConstant, kTensor, kTensors, kOptionalTensors };
  Kind kind = Kind::kConstant;
  c10::IValue constant;
  // One for kTensor; kNoRegister for "none" in a list.
  std::vector<Register> registers;
  // Of kTensor: the register is needed no more, so that its tensor may be taken out of it.
  bool moves = false;
};

// A result of an instruction: one tensor, several, or nothing that is kept.
struct Result {
  bool list = false;
  std::vector<Register> registers;
};

struct Instruction {
  const OpPlan* op = nullptr;
  std::vector<Operand> operands;
  std::vector<Result> results;
  // Operands whose last use this is (but for those that move), and results that have none.
  std::vector<Register> dies;
  std::vector<Register> unused;
  // Which of the program's modes hold.
  uint32_t modes = 0;
  // Its place in the recording: names the model's line, also after passes have moved it.
  int32_t line = 0;
  // Draws random numbers, so that it keeps its place among those that do.
  bool draws = false;
  // How it is run; found by Program::Finish.
  enum class Way : uint8_t {
    kCall,       // the operator
    kCallBelow,  // the operator, below autograd's layer: gradients are off
    kView,       // torchformers::view, made in place
  };
  Way way = Way::kCall;
  // Products and the like that are done before a team of threads would have woken.
  bool alone = false;
};

// What a recording knows of the tensor in a register.
struct TensorFacts {
  c10::ScalarType dtype;
  c10::Device device;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  bool requires_grad = false;
  // Which memory, numbered per Program, and where in it: two registers with one number share it.
  // Not looked at by Fits.
  int32_t storage = -1;
  int64_t offset = 0;

  static TensorFacts Of(const at::Tensor& tensor);
  bool Fits(const at::Tensor& real) const;
  // As above; strides of dimensions of size 1 do not matter.
  bool FitsLoosely(const at::Tensor& real) const;
  std::string Text() const;
};

// A tensor that the function used without getting it as an argument.
struct CapturedTensor {
  Register to = kNoRegister;
  // Where it is bound at each run. kNoHandle: it was made during the recording and is a constant.
  Handle handle = kNoHandle;
  at::Tensor constant;
  // Computed by a pass: nobody else has it, and nobody writes to it.
  bool folded = false;
};

// What passes need to know of a mode.
struct ModeFacts {
  bool grad = false;
  bool inference = false;
  bool autocast = false;
};

// The gradient of a tensor from outside, where the function looks at it or changes it.
struct GradientSlot {
  Register of = kNoRegister;  // an input or a captured tensor
  // What the function saw first; when it only replaced the gradient, there is no matter what.
  bool looked = false;
  bool defined = false;
  Register before = kNoRegister;  // holds it when the run begins
  bool changed = false;
  size_t after = 0;  // which of the outputs it is at the end; kNoRegister stands for none
};

// A generator that operators name. Each run draws from one of its own, see GeneratorLease.
struct BoundGenerator {
  Register to = kNoRegister;
  int32_t input = -1;  // which of the call's generators; -1: the captured one
  at::Generator captured;
};

// A setting that may differ in each run (a learning rate), as an operand.
struct BoundNumber {
  Register to = kNoRegister;
  int32_t input = 0;  // which of the call's numbers
  bool as_tensor = false;
};

class Program {
 public:
  std::vector<Instruction> code;
  std::vector<TensorFacts> registers;
  std::vector<CapturedTensor> captures;
  std::vector<Register> outputs;
  size_t results = 0;  // so many of the outputs are the function's; gradients follow
  std::vector<GradientSlot> gradients;
  // Registers of these two hold no tensors, but what an operator takes in their place.
  std::vector<BoundGenerator> generators;
  std::vector<BoundNumber> numbers;
  // Which inputs, captured tensors and gradients lay in one memory, by register; -1 for others.
  std::vector<int32_t> sharing;
  std::vector<at::ThreadLocalState> modes;
  std::vector<ModeFacts> mode_facts;  // one per mode
  int32_t storages = 0;               // so many numbers of TensorFacts::storage are taken
  // Casts that autocast keeps hold within one of these, per mode.
  std::vector<uint32_t> cast_epochs;
  Register inputs = 0;  // so many of the first registers
  bool draws = false;
  bool draws_from_default = false;  // the CPU's generator
  bool draws_on_device = false;     // from a device's default generator, which runs share
  bool writes = false;              // something, that may be there before and after the run
  // Per register: whether the memory of the tensor that is in it beforehand is written.
  std::vector<bool> written;
  bool autocast = false;
  bool needs_gradients = false;  // some result may get a graph behind it
  // Whose executor runs it: the CUDA device of its tensors, if there is one. Found by Finish.
  c10::Device device = c10::Device(c10::kCPU);

  // To be called once all is there: finds the last uses, and how each instruction is run.
  void Finish();

  // One line per instruction: "%7: float32[2, 8] = aten::linear(%3, $1, None)".
  std::vector<std::string> Text() const;
  std::string Name(Register at) const;

 private:
  std::string Text(const Operand& operand) const;
  Instruction::Way WayOf(const Instruction& instruction) const;
  bool IsSmall(const Instruction& instruction) const;
};

}  // namespace tf
