// Runs Programs on an executor, between the turns of others, and brings what they give to the
// environment that asked.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/ivalue.h>
#include <node_api.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "native/error/error.h"
#include "native/executor/executor.h"
#include "native/program/program.h"

namespace tf {

class Mailbox;

// Nanoseconds since the run began.
struct Span {
  int64_t begin = 0;
  int64_t end = 0;
};

// One run: a Program, the tensors in its registers, and where it stands. Belongs to the executor
// from Start until it is in the mailbox.
class ProgramRun final : public Executor::Task {
 public:
  ProgramRun(std::shared_ptr<const Program> program,
             std::vector<c10::IValue> registers,
             std::shared_ptr<Mailbox> mailbox,
             uint64_t id,
             bool profiled);

  static void Start(std::unique_ptr<ProgramRun> run);

  // Any thread: the run ends before its next operator.
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }

  // Before it starts.
  void SetRegister(Register at, c10::IValue value) { registers_[at] = std::move(value); }
  // Where operators draw that name no generator.
  void DrawFrom(at::Generator generator) { generator_ = std::move(generator); }

  // What came of it, once it is in the mailbox.
  uint64_t id() const { return id_; }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }
  const std::optional<Failure>& failure() const { return failure_; }
  // The instruction that failed; the number of instructions when all went well.
  size_t position() const { return position_; }
  const Program& program() const { return *program_; }
  const std::vector<c10::IValue>& registers() const { return registers_; }
  const std::vector<Span>& spans() const { return spans_; }

 private:
  void Run() noexcept override;
  // Until the end, or until others wait and the turn is over; true at the end.
  bool TakeTurn();
  void Execute(const Instruction& instruction, torch::jit::Stack& stack);
  c10::IValue Load(const Operand& operand) const;
  void Store(const Instruction& instruction, torch::jit::Stack& stack);

  std::shared_ptr<const Program> program_;
  std::vector<c10::IValue> registers_;
  at::Generator generator_;
  std::shared_ptr<Mailbox> mailbox_;
  const uint64_t id_;
  std::atomic<bool> cancelled_ = false;
  size_t position_ = 0;
  uint32_t modes_ = 0;  // of the last instruction
  std::optional<Failure> failure_;
  std::vector<Span> spans_;
  int64_t began_ = 0;
  bool profiled_;
};

// Where runs go when they are done. Outlives its environment: a run may end later.
class Mailbox {
 public:
  // The environment's thread. `wake` is called on it (with Mailbox* as context) some time after a
  // run has arrived; several arrivals may share a call.
  void Open(napi_env env, napi_threadsafe_function_call_js wake);
  // Waits until no operator of this environment's runs is under way, as long as two seconds.
  void Close();

  // The executor. The run is dropped when the environment is gone.
  void Post(std::unique_ptr<ProgramRun> run);
  // Around each turn; false when the environment is gone.
  bool BeginTurn();
  void EndTurn();
  bool closed() const { return closed_.load(std::memory_order_acquire); }

  // The environment's thread.
  std::vector<std::unique_ptr<ProgramRun>> Take();
  // While something is pending the process stays alive.
  void Hold(napi_env env, bool alive);

 private:
  std::mutex mutex_;
  std::condition_variable idle_;
  std::atomic<bool> closed_ = true;
  int turns_ = 0;
  bool awake_ = false;
  napi_threadsafe_function function_ = nullptr;
  std::vector<std::unique_ptr<ProgramRun>> done_;
};

}  // namespace tf
