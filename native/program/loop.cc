#include "native/program/loop.h"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "native/error/guard.h"

namespace tf {
namespace {

// How long a stage keeps the executor when others wait for it.
constexpr int64_t kTurn = 2'000'000;
// How often a stage runs before it is recorded as a graph: libraries choose and allocate meanwhile.
constexpr int kWarmUp = 2;

}  // namespace

Loop::Loop(LoopPlan plan, std::shared_ptr<LoopMailbox> mailbox, uint64_t id)
    : mailbox_(std::move(mailbox)),
      id_(id),
      executor_(Executor::Of(plan.device)),
      order_(plan.device),
      plan_(std::move(plan)),
      in_first_(!plan_.first.empty()) {}

void Loop::Start(int64_t limit) { Allow(limit); }

void Loop::Allow(int64_t limit) {
  const std::lock_guard lock(mutex_);
  limit_ = limit;
  if (!paused_ || news_.ended || (news_.steps >= limit_ && !cancelled_)) return;
  paused_ = news_.paused = false;
  order_.Ask();
  Queue();
}

void Loop::Replace(std::vector<Stage> first, std::vector<Stage> body) {
  plan_.first = std::move(first);
  plan_.body = std::move(body);
  in_first_ = !plan_.first.empty();
  interpreters_.clear();
  graphs_.clear();
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
  executor_.Enqueue(*this);
}

void Loop::Run() noexcept {
  const std::shared_ptr<Loop> self = std::move(self_);
  // Without an environment nobody waits for the end.
  if (!mailbox_->BeginTurn()) return;
  Turn turn = Turn::kEnd;
  std::optional<Failure> failure = Capture([&] { turn = TakeTurn(); });
  if (failure || turn == Turn::kEnd) {
    // What is queued still uses what End lets go of, and what it collected is looked at elsewhere.
    const std::optional<Failure> late = Capture([&] { order_.End(collected_); });
    if (!failure) failure = late;
    End(std::move(failure));
  }
  mailbox_->EndTurn();
  if (failure) return;
  if (turn == Turn::kAgain) Queue();
  if (turn == Turn::kPark) interpreters_[stage_]->TakeWake()->Park([self] { self->Queue(); });
}

Loop::Turn Loop::TakeTurn() {
  order_.Begin();
  for (;;) {
    if (!RunStage()) {
      if (cancelled_ || mailbox_->closed()) return Turn::kEnd;
      return interpreters_[stage_]->waits() ? Turn::kPark : Turn::kAgain;
    }
    Collect();
    running_ = false;
    if (interpreters_[stage_]) interpreters_[stage_]->Clear();
    if (++stage_ == stages().size()) {
      const Turn turn = EndStep();
      if (turn != Turn::kAgain) return turn;
    }
    if (executor_.has_waiting()) return Turn::kAgain;
  }
}

bool Loop::RunStage() {
  if (!running_ && ReplayStage()) return !cancelled_.load(std::memory_order_relaxed);
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
    return executor_.has_waiting() && NanosecondsNow() >= turn_ends;
  });
  return finished && !cancelled_.load(std::memory_order_relaxed);
}

bool Loop::ReplayStage() {
  if (!plan_.device.is_cuda() || in_first_) return false;
  graphs_.resize(plan_.body.size());
  StageGraph& graph = graphs_[stage_];
  const Stage& stage = plan_.body[stage_];
  if (graph.refused || stage.collects) return false;
  if (!graph.graph) {
    if (graph.runs++ < kWarmUp) return false;
    RecordGraph(stage, graph);
    if (graph.refused) return false;
  }
  graph.graph->Replay();
  return true;
}

// Of what it computes nothing is kept but what it writes in place, so its registers may go.
void Loop::RecordGraph(const Stage& stage, StageGraph& graph) {
  std::string reason;
  graph.graph = NewDeviceGraph(plan_.device, reason);
  if (graph.graph) {
    const std::optional<Failure> failure = Capture([&] {
      graph.graph->Record(
          [&] {
            Interpreter interpreter(stage.program, stage.registers);
            interpreter.set_generator(plan_.generator);
            interpreter.Run([] { return false; });
          },
          plan_.generator);
    });
    if (failure) reason = failure->message;
  }
  graph.refused = !reason.empty();
  if (graph.refused) graph.graph.reset();
  const std::lock_guard lock(mutex_);
  news_.graphs += graph.refused ? 0 : 1;
  if (graph.refused) news_.no_graph = reason;
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
  ++queued_;
  readings_.push_back(Read());
  bool last = queued_ >= plan_.most || NanosecondsNow() > plan_.deadline;
  bool pauses;
  {
    const std::lock_guard lock(mutex_);
    pauses = queued_ >= limit_;
  }
  while (readings_.size() > (last || pauses ? 0 : plan_.ahead)) {
    const Reading reading = std::move(readings_.front());
    readings_.pop_front();
    if (!Take(reading)) return Turn::kEnd;
  }
  if (last) return Turn::kEnd;
  // Whoever looks at its tensors meanwhile finds them complete.
  if (pauses) order_.End({});
  const std::lock_guard lock(mutex_);
  if (news_.steps >= limit_) {
    paused_ = news_.paused = true;
    Tell();
    return Turn::kPause;
  }
  if (!plan_.quiet) Tell();
  return Turn::kAgain;
}

// On the CPU the values are there; the next step may write over them.
Loop::Reading Loop::Read() const {
  Reading reading;
  const auto fetch = [&](const at::Tensor& tensor) {
    if (!tensor.defined() || tensor.is_cpu())
      return plan_.ahead > 0 && tensor.defined() ? tensor.clone() : tensor;
    const auto host = tensor.options().device(at::kCPU).pinned_memory(true);
    return at::empty(tensor.sizes(), host).copy_(tensor, /*non_blocking=*/true);
  };
  reading.ids = fetch(plan_.ids);
  reading.going = fetch(plan_.going);
  if (plan_.device.is_cuda()) {
    reading.arrived.emplace(plan_.device.type());
    reading.arrived->record(
        c10::impl::VirtualGuardImpl(plan_.device.type()).getStream(plan_.device));
  }
  return reading;
}

bool Loop::Take(const Reading& reading) {
  if (reading.arrived) reading.arrived->synchronize();
  const at::Tensor ids = reading.ids.defined() ? reading.ids.contiguous() : reading.ids;
  const bool going = !reading.going.defined() || reading.going.item<int64_t>() != 0;
  const std::lock_guard lock(mutex_);
  ++news_.steps;
  if (ids.defined()) {
    const int64_t* values = ids.const_data_ptr<int64_t>();
    news_.ids.insert(news_.ids.end(), values, values + ids.numel());
  }
  return going;
}

void Loop::End(std::optional<Failure> failure) {
  if (failure && running_) {
    news_.instruction = interpreters_[stage_]->position();
    const auto stage = static_cast<int64_t>(stage_);
    news_.stage = in_first_ ? stage : -1 - stage;
  }
  interpreters_.clear();
  graphs_.clear();
  readings_.clear();
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
