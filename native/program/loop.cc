#include "native/program/loop.h"

#include <ATen/ATen.h>

#include "native/error/guard.h"

namespace tf {
namespace {

// How long a stage keeps the executor when others wait for it.
constexpr int64_t kTurn = 2'000'000;

}  // namespace

Loop::Loop(LoopPlan plan, std::shared_ptr<LoopMailbox> mailbox, uint64_t id)
    : mailbox_(std::move(mailbox)),
      id_(id),
      plan_(std::move(plan)),
      in_first_(!plan_.first.empty()) {}

void Loop::Start(int64_t limit) { Allow(limit); }

void Loop::Allow(int64_t limit) {
  const std::lock_guard lock(mutex_);
  limit_ = limit;
  if (!paused_ || news_.ended || (news_.steps >= limit_ && !cancelled_)) return;
  paused_ = news_.paused = false;
  Queue();
}

void Loop::Replace(std::vector<Stage> first, std::vector<Stage> body) {
  plan_.first = std::move(first);
  plan_.body = std::move(body);
  in_first_ = !plan_.first.empty();
  interpreters_.clear();
}

void Loop::Cancel() {
  cancelled_.store(true, std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  if (!paused_ || news_.ended) return;
  paused_ = news_.paused = false;
  Queue();
}

bool Loop::paused() {
  const std::lock_guard lock(mutex_);
  return paused_;
}

bool Loop::ended() {
  const std::lock_guard lock(mutex_);
  return news_.ended;
}

LoopNews Loop::TakeNews() {
  const std::lock_guard lock(mutex_);
  told_ = false;
  LoopNews news = news_;
  news_.ids.clear();
  return news;
}

void Loop::Heard() {
  const std::lock_guard lock(mutex_);
  told_ = false;
}

void Loop::Queue() {
  self_ = shared_from_this();
  Executor::Cpu().Enqueue(*this);
}

void Loop::Run() noexcept {
  const std::shared_ptr<Loop> self = std::move(self_);
  // Without an environment nobody waits for the end.
  if (!mailbox_->BeginTurn()) return;
  Turn turn = Turn::kEnd;
  std::optional<Failure> failure = Capture([&] { turn = TakeTurn(); });
  if (failure || turn == Turn::kEnd) End(std::move(failure));
  mailbox_->EndTurn();
  if (failure) return;
  if (turn == Turn::kAgain) Queue();
  if (turn == Turn::kPark) interpreters_[stage_]->TakeWake()->Park([self] { self->Queue(); });
}

Loop::Turn Loop::TakeTurn() {
  const Executor& executor = Executor::Cpu();
  for (;;) {
    if (!RunStage()) {
      if (cancelled_ || mailbox_->closed()) return Turn::kEnd;
      return interpreters_[stage_]->waits() ? Turn::kPark : Turn::kAgain;
    }
    Collect();
    running_ = false;
    interpreters_[stage_]->Clear();
    if (++stage_ == stages().size()) {
      const Turn turn = EndStep();
      if (turn != Turn::kAgain) return turn;
    }
    if (executor.has_waiting()) return Turn::kAgain;
  }
}

bool Loop::RunStage() {
  const Executor& executor = Executor::Cpu();
  const Stage& stage = stages()[stage_];
  interpreters_.resize(stages().size());
  std::unique_ptr<Interpreter>& interpreter = interpreters_[stage_];
  if (!interpreter) {
    interpreter = std::make_unique<Interpreter>(stage.program, stage.registers);
    interpreter->set_generator(plan_.generator);
  } else if (!running_) {
    interpreter->Rewind(stage.registers);
  }
  running_ = true;
  const int64_t turn_ends = NanosecondsNow() + kTurn;
  const bool finished = interpreter->Run([&] {
    if (cancelled_.load(std::memory_order_relaxed) || mailbox_->closed()) return true;
    return executor.has_waiting() && NanosecondsNow() >= turn_ends;
  });
  return finished && !cancelled_.load(std::memory_order_relaxed);
}

void Loop::Collect() {
  if (!stages()[stage_].collects) return;
  const Interpreter& interpreter = *interpreters_[stage_];
  for (const Register at : interpreter.program().outputs)
    collected_.push_back(at == kNoRegister ? c10::IValue() : interpreter.registers()[at]);
}

Loop::Turn Loop::EndStep() {
  stage_ = 0;
  if (in_first_) {
    // The prompt's stages hold its tensors, and are not needed again.
    in_first_ = false;
    interpreters_.clear();
    plan_.first.clear();
  }
  at::Tensor ids;
  bool going = true;
  if (plan_.ids.defined()) ids = plan_.ids.cpu().contiguous();
  if (plan_.going.defined()) going = plan_.going.item<int64_t>() != 0;

  const std::lock_guard lock(mutex_);
  ++news_.steps;
  if (ids.defined()) {
    const int64_t* values = ids.const_data_ptr<int64_t>();
    news_.ids.insert(news_.ids.end(), values, values + ids.numel());
  }
  if (!going || news_.steps >= plan_.most || NanosecondsNow() > plan_.deadline) return Turn::kEnd;
  if (news_.steps >= limit_) {
    paused_ = news_.paused = true;
    Tell();
    return Turn::kPause;
  }
  if (!plan_.quiet) Tell();
  return Turn::kAgain;
}

void Loop::End(std::optional<Failure> failure) {
  if (failure && running_) {
    news_.instruction = interpreters_[stage_]->position();
    const auto stage = static_cast<int64_t>(stage_);
    news_.stage = in_first_ ? stage : -1 - stage;
  }
  interpreters_.clear();
  // Its memory is free before anybody hears of the end.
  plan_ = LoopPlan();
  const bool cancelled = cancelled_.load(std::memory_order_relaxed);
  if (failure) collected_.clear();
  const std::lock_guard lock(mutex_);
  news_.failure = std::move(failure);
  news_.cancelled = cancelled;
  news_.ended = true;
  Tell();
}

// With the lock held.
void Loop::Tell() {
  if (std::exchange(told_, true)) return;
  mailbox_->Post(shared_from_this());
}

}  // namespace tf
