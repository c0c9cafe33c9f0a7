#include "native/program/interpreter.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <omp.h>

#include <chrono>

#include "native/error/error.h"
#include "native/io/mapped_tensors.h"

namespace tf {
namespace {

// For the time of one operator: no parallel region begins with more than this thread. The team
// stays as it is. (libtorch's own setter would also empty oneDNN's caches.)
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) {
    if (before_ > 1) omp_set_num_threads(1);
  }
  ~OneThread() {
    if (before_ > 1) omp_set_num_threads(before_);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

}  // namespace

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
  streamed_ = StreamedBlocks::Of(*program_, registers_);
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
  if (streamed_) streamed_->Abandon();
}

bool Interpreter::EnterBlocks() {
  auto wake = std::make_shared<Wake>();
  try {
    if (streamed_->Enter(position_, registers_, wake)) return true;
  } catch (...) {
    Failure failure = CurrentFailure();
    Clear();
    throw failure;
  }
  wake_ = std::move(wake);
  return false;
}

void Interpreter::Execute(const Instruction& instruction) {
  if (!guard_ || modes_ != instruction.modes) {
    if (program_->cast_epochs[instruction.modes] != program_->cast_epochs[modes_])
      at::autocast::clear_cache();
    guard_.reset();
    guard_.emplace(program_->modes[instruction.modes]);
    modes_ = instruction.modes;
  }
  if (!spans_.empty()) spans_[position_].begin = NanosecondsNow() - began_;
  if (instruction.way == Instruction::Way::kView) {
    MakeView(instruction);
  } else {
    Load(instruction);
    Call(instruction);
    Store(instruction);
  }
  if (!spans_.empty()) spans_[position_].end = NanosecondsNow() - began_;
}

void Interpreter::Call(const Instruction& instruction) {
  try {
    io::CheckMapped(stack_);
    std::optional<OneThread> alone;
    if (instruction.alone) alone.emplace();
    if (instruction.way == Instruction::Way::kCallBelow) {
      const at::AutoDispatchBelowAutograd below;
      instruction.op->handle.callBoxed(&stack_);
    } else {
      instruction.op->handle.callBoxed(&stack_);
    }
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
}

// As ATen's own views are made below autograd's layer, without the way there.
void Interpreter::MakeView(const Instruction& instruction) {
  const Operand& operand = instruction.operands[0];
  const Register to = instruction.results[0].registers[0];
  const TensorFacts& facts = program_->registers[to];
  const at::Tensor& base = registers_[operand.registers[0]].toTensor();
  at::Tensor view = at::detail::make_tensor<c10::TensorImpl>(
      c10::TensorImpl::VIEW, c10::Storage(base.storage()), base.key_set(), base.dtype());
  view.unsafeGetTensorImpl()->set_sizes_and_strides(
      facts.sizes, facts.strides, base.storage_offset() + instruction.operands[3].constant.toInt());
  registers_[to] = std::move(view);
  if (operand.moves) registers_[operand.registers[0]] = c10::IValue();
  for (const Register at : instruction.unused) registers_[at] = c10::IValue();
}

void Interpreter::Load(const Instruction& instruction) {
  stack_.clear();
  for (size_t i = 0; i < instruction.operands.size(); ++i) {
    const Operand& operand = instruction.operands[i];
    switch (operand.kind) {
      case Operand::Kind::kConstant:
        // On the CPU DrawFrom has named it, inside of operators too.
        if (instruction.draws && generator_ && !generator_->device().is_cpu() &&
            operand.constant.isNone() &&
            instruction.op->arguments[i].kind == ArgumentKind::kGenerator) {
          stack_.emplace_back(*generator_);
        } else {
          stack_.push_back(operand.constant);
        }
        break;
      case Operand::Kind::kTensor:
        if (operand.moves) {
          stack_.push_back(std::move(registers_[operand.registers[0]]));
        } else {
          stack_.push_back(registers_[operand.registers[0]]);
        }
        break;
      case Operand::Kind::kTensors: {
        c10::List<at::Tensor> list;
        list.reserve(operand.registers.size());
        for (const Register at : operand.registers)
          list.push_back(at == kNoRegister ? at::Tensor() : registers_[at].toTensor());
        stack_.emplace_back(std::move(list));
        break;
      }
      case Operand::Kind::kOptionalTensors: {
        c10::List<std::optional<at::Tensor>> list;
        list.reserve(operand.registers.size());
        for (const Register at : operand.registers)
          list.push_back(at == kNoRegister ? std::optional<at::Tensor>()
                                           : registers_[at].toTensor());
        stack_.emplace_back(std::move(list));
        break;
      }
    }
  }
  for (const Register at : instruction.dies) registers_[at] = c10::IValue();
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
    const c10::ArrayRef<c10::IValue> tensors = stack_[i].toListRef();
    for (size_t k = 0; k < result.registers.size() && k < tensors.size(); ++k)
      if (result.registers[k] != kNoRegister) registers_[result.registers[k]] = tensors[k];
  }
  stack_.clear();
  for (const Register at : instruction.unused) registers_[at] = c10::IValue();
}

}  // namespace tf
