// Runs Programs on an executor, between the turns of others, and brings what they give to the
// environment that asked.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "native/device/stream_order.h"
#include "native/error/error.h"
#include "native/executor/executor.h"
#include "native/program/interpreter.h"
#include "native/program/mailbox.h"

namespace tf {

class Mailbox;

// One run of a Program. Belongs to the executor from Start until it is in the mailbox.
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
  void SetRegister(Register at, c10::IValue value) {
    interpreter_.SetRegister(at, std::move(value));
  }
  // Where operators draw that name no generator.
  void DrawFrom(at::Generator generator) { interpreter_.set_generator(std::move(generator)); }

  // What came of it, once it is in the mailbox.
  uint64_t id() const { return id_; }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }
  const std::optional<Failure>& failure() const { return failure_; }
  const Program& program() const { return interpreter_.program(); }
  const Interpreter& interpreter() const { return interpreter_; }

 private:
  void Run() noexcept override;
  // Until the end, or until others wait and the turn is over; true at the end.
  bool TakeTurn();

  Interpreter interpreter_;
  Executor& executor_;
  StreamOrder order_;
  std::shared_ptr<Mailbox> mailbox_;
  const uint64_t id_;
  std::atomic<bool> cancelled_ = false;
  std::optional<Failure> failure_;
};

// Where runs go when they are done. Outlives its environment: a run may end later.
class Mailbox final : public MailboxOf<std::unique_ptr<ProgramRun>> {};

}  // namespace tf
