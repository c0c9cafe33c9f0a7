// Steps through a Program: registers, where it stands, and the text of a failure. Knows no thread,
// no queue and no JavaScript.
#pragma once

#include <ATen/ThreadLocalState.h>
#include <ATen/core/Generator.h>
#include <ATen/core/ivalue.h>
#include <ATen/core/stack.h>

#include <memory>
#include <optional>
#include <vector>

#include "native/device/run_generator.h"
#include "native/program/program.h"
#include "native/program/streamed_blocks.h"

namespace tf {

// Nanoseconds since the run began.
struct Span {
  int64_t begin = 0;
  int64_t end = 0;
};

int64_t NanosecondsNow();

// One execution of a Program, which may pause between two operators. Not thread-safe: whoever
// steps it owns it meanwhile.
class Interpreter {
 public:
  // `registers` holds the inputs and the captured tensors.
  Interpreter(std::shared_ptr<const Program> program,
              std::vector<c10::IValue> registers,
              bool profiled = false);

  // Goes on until the end, and is true then; or until `pause()`, which is asked before each
  // operator, says so; or until a block of offloaded parameters is needed that is on its way, see
  // TakeWake. Throws a Failure that names the operator; the registers are empty then.
  template <class Pause>
  bool Run(Pause&& pause) {
    const ModesHere modes(*this);
    const DrawFrom draws(generator_ && generator_->device().is_cpu() ? *generator_
                                                                     : at::Generator());
    for (; position_ < program_->code.size(); ++position_) {
      if (pause() || (streamed_ && !EnterBlocks())) return false;
      Execute(program_->code[position_]);
      if (streamed_) streamed_->Leave(position_, registers_);
    }
    if (streamed_) streamed_->Finish(registers_);
    return true;
  }

  // Before it runs.
  void SetRegister(Register at, c10::IValue value) { registers_[at] = std::move(value); }
  // Begins again, with these inputs and captured tensors.
  void Rewind(const std::vector<c10::IValue>& registers);
  // Lets go of all tensors.
  void Clear() {
    registers_.clear();
    if (streamed_) streamed_->Abandon();
  }
  // What rings when it can go on; null when it was not waiting for a block. To be parked.
  bool waits() const { return wake_ != nullptr; }
  std::shared_ptr<Wake> TakeWake() { return std::move(wake_); }
  // From where operators draw that name no generator of their own; none: from the default one.
  void set_generator(std::optional<at::Generator> generator) { generator_ = std::move(generator); }

  const Program& program() const { return *program_; }
  const std::shared_ptr<const Program>& shared_program() const { return program_; }
  // The instruction that comes next, or has failed; the number of instructions at the end.
  size_t position() const { return position_; }
  bool finished() const { return position_ >= program_->code.size(); }
  const std::vector<c10::IValue>& registers() const { return registers_; }
  const std::vector<Span>& spans() const { return spans_; }

 private:
  // The modes of the calling thread are put back at its end; the Program's caches are cleared.
  class ModesHere {
   public:
    explicit ModesHere(Interpreter& interpreter) : interpreter_(interpreter) {}
    ~ModesHere();
    ModesHere(const ModesHere&) = delete;
    ModesHere& operator=(const ModesHere&) = delete;

   private:
    Interpreter& interpreter_;
  };

  bool EnterBlocks();
  void Execute(const Instruction& instruction);
  void Call(const Instruction& instruction);
  void MakeView(const Instruction& instruction);
  void Load(const Instruction& instruction);
  void Store(const Instruction& instruction);

  std::shared_ptr<const Program> program_;
  std::vector<c10::IValue> registers_;
  std::unique_ptr<StreamedBlocks> streamed_;
  std::shared_ptr<Wake> wake_;
  size_t position_ = 0;
  std::optional<at::Generator> generator_;
  // Those of the instructions that are under way.
  std::optional<at::ThreadLocalStateGuard> guard_;
  uint32_t modes_ = 0;
  torch::jit::Stack stack_;
  std::vector<Span> spans_;
  int64_t began_ = 0;
};

}  // namespace tf
