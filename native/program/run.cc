#include "native/program/run.h"

#include "native/error/guard.h"

namespace tf {
namespace {

// How long a run keeps the executor when others wait for it.
constexpr int64_t kTurn = 2'000'000;

}  // namespace

ProgramRun::ProgramRun(std::shared_ptr<const Program> program,
                       std::vector<c10::IValue> registers,
                       std::shared_ptr<Mailbox> mailbox,
                       uint64_t id,
                       bool profiled)
    : interpreter_(std::move(program), std::move(registers), profiled),
      mailbox_(std::move(mailbox)),
      id_(id) {}

void ProgramRun::Start(std::unique_ptr<ProgramRun> run) { Executor::Cpu().Enqueue(*run.release()); }

void ProgramRun::Run() noexcept {
  std::unique_ptr<ProgramRun> self(this);
  const std::shared_ptr<Mailbox> mailbox = mailbox_;
  if (!mailbox->BeginTurn()) return;
  bool finished = false;
  failure_ = Capture([&] { finished = TakeTurn(); });
  mailbox->EndTurn();
  if (finished || failure_) {
    mailbox->Post(std::move(self));
    return;
  }
  const std::shared_ptr<Wake> wake = interpreter_.TakeWake();
  const auto queue = [task = self.release()] { Executor::Cpu().Enqueue(*task); };
  // The executor is free for others while a block is on its way.
  if (wake) {
    wake->Park(queue);
  } else {
    queue();
  }
}

bool ProgramRun::TakeTurn() {
  const Executor& executor = Executor::Cpu();
  const int64_t turn_ends = NanosecondsNow() + kTurn;
  const bool finished = interpreter_.Run([&] {
    if (cancelled() || mailbox_->closed()) {
      cancelled_.store(true, std::memory_order_relaxed);
      return true;
    }
    return executor.has_waiting() && NanosecondsNow() >= turn_ends;
  });
  if (finished || !cancelled()) return finished;
  interpreter_.Clear();
  return true;
}

}  // namespace tf
