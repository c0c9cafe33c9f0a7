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
      executor_(Executor::Of(interpreter_.program().device)),
      order_(interpreter_.program().device),
      mailbox_(std::move(mailbox)),
      id_(id) {}

void ProgramRun::Start(std::unique_ptr<ProgramRun> run) {
  run->order_.Ask();
  Executor& executor = run->executor_;
  executor.Enqueue(*run.release());
}

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
  Executor& executor = executor_;
  const auto queue = [&executor, task = self.release()] { executor.Enqueue(*task); };
  // The executor is free for others while a block is on its way.
  if (wake) {
    wake->Park(queue);
  } else {
    queue();
  }
}

bool ProgramRun::TakeTurn() {
  order_.Begin();
  const int64_t turn_ends = NanosecondsNow() + kTurn;
  const bool finished = interpreter_.Run([&] {
    if (cancelled() || mailbox_->closed()) {
      cancelled_.store(true, std::memory_order_relaxed);
      return true;
    }
    return executor_.has_waiting() && NanosecondsNow() >= turn_ends;
  });
  if (!finished && !cancelled()) return false;
  std::vector<c10::IValue> outputs;
  for (const Register at : interpreter_.program().outputs)
    if (finished && at != kNoRegister) outputs.push_back(interpreter_.registers()[at]);
  order_.End(outputs);
  if (finished) return true;
  interpreter_.Clear();
  return true;
}

}  // namespace tf
