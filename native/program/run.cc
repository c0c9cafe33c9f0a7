#include "native/program/run.h"

#include <chrono>

#include "native/convert/value.h"
#include "native/error/guard.h"

namespace tf {
namespace {

// How long a run keeps the executor when others wait for it.
constexpr int64_t kTurn = 2'000'000;
constexpr std::chrono::seconds kPatience{2};

}  // namespace

// ProgramRun --------------------------------------------------------------------------------------

ProgramRun::ProgramRun(std::shared_ptr<const Program> program,
                       std::vector<c10::IValue> registers,
                       std::shared_ptr<Mailbox> mailbox,
                       uint64_t id,
                       bool profiled)
    : interpreter_(std::move(program), std::move(registers), profiled),
      mailbox_(std::move(mailbox)),
      id_(id) {}

void ProgramRun::Start(std::unique_ptr<ProgramRun> run) {
  Executor::Cpu().Enqueue(*run.release());
}

void ProgramRun::Run() noexcept {
  std::unique_ptr<ProgramRun> self(this);
  const std::shared_ptr<Mailbox> mailbox = mailbox_;
  if (!mailbox->BeginTurn()) return;
  bool finished = false;
  failure_ = Capture([&] { finished = TakeTurn(); });
  mailbox->EndTurn();
  if (!finished && !failure_) {
    Executor::Cpu().Enqueue(*self.release());
  } else {
    mailbox->Post(std::move(self));
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

// Mailbox -----------------------------------------------------------------------------------------

void Mailbox::Open(napi_env env, napi_threadsafe_function_call_js wake) {
  Check(env,
        napi_create_threadsafe_function(env,
                                        nullptr,
                                        nullptr,
                                        FromString(env, "torchformers programs"),
                                        /*max_queue_size=*/0,
                                        /*initial_thread_count=*/1,
                                        nullptr,
                                        nullptr,
                                        this,
                                        wake,
                                        &function_));
  Check(env, napi_unref_threadsafe_function(env, function_));
  closed_.store(false, std::memory_order_release);
}

void Mailbox::Close() {
  std::vector<std::unique_ptr<ProgramRun>> dropped;
  std::unique_lock lock(mutex_);
  closed_.store(true, std::memory_order_release);
  // Operators may be reading memory that ends with the environment.
  idle_.wait_for(lock, kPatience, [&] { return turns_ == 0; });
  dropped.swap(done_);
  function_ = nullptr;
}

bool Mailbox::BeginTurn() {
  const std::lock_guard lock(mutex_);
  if (closed()) return false;
  ++turns_;
  return true;
}

void Mailbox::EndTurn() {
  const std::lock_guard lock(mutex_);
  --turns_;
  idle_.notify_all();
}

void Mailbox::Post(std::unique_ptr<ProgramRun> run) {
  const std::lock_guard lock(mutex_);
  if (closed()) return;
  done_.push_back(std::move(run));
  if (std::exchange(awake_, true)) return;
  napi_call_threadsafe_function(function_, nullptr, napi_tsfn_nonblocking);
}

std::vector<std::unique_ptr<ProgramRun>> Mailbox::Take() {
  const std::lock_guard lock(mutex_);
  awake_ = false;
  return std::exchange(done_, {});
}

void Mailbox::Hold(napi_env env, bool alive) {
  if (alive) {
    napi_ref_threadsafe_function(env, function_);
  } else {
    napi_unref_threadsafe_function(env, function_);
  }
}

}  // namespace tf
