// Runs Programs again and again on the executor, over tensors that they update in place, without
// JavaScript between the steps. Knows no model: what a step computes is in its Programs.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <atomic>
#include <deque>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "native/device/device_graph.h"
#include "native/device/stream_order.h"
#include "native/error/error.h"
#include "native/executor/executor.h"
#include "native/program/interpreter.h"
#include "native/program/mailbox.h"

namespace tf {

class Loop;

// Loops that have something to tell.
class LoopMailbox final : public MailboxOf<std::shared_ptr<Loop>> {};

// A Program with the tensors that it is run on: inputs and captured ones, as they were bound when
// the loop began. Later changes of what a handle holds (`.data =`, `to()`) do not reach it.
struct Stage {
  std::shared_ptr<const Program> program;
  std::vector<c10::IValue> registers;
  // Its outputs are kept, for the end.
  bool collects = false;
};

// What a loop does. A step is a list of stages; the first step may be another one (a prompt).
struct LoopPlan {
  std::vector<Stage> first;
  std::vector<Stage> body;
  // int64, read after each step: what goes into the ring. Undefined: nothing.
  at::Tensor ids;
  // One integer, read after each step: the loop ends when it is zero. Undefined: never.
  at::Tensor going;
  // The loop ends after so many steps, or at the end of the step in which this time passes.
  int64_t most = std::numeric_limits<int64_t>::max();
  int64_t deadline = std::numeric_limits<int64_t>::max();
  // From where its Programs draw; none: from the default generator.
  std::optional<at::Generator> generator;
  // Tells of its end and of pauses only, not of each step.
  bool quiet = false;
  // So many steps may be queued before what an earlier one gave is read, so that the device never
  // waits for the host; what the last ones do then is not told of. Not where steps draw, or
  // collect.
  size_t ahead = 0;
  c10::Device device = c10::Device(c10::kCPU);
};

// What came since the environment looked last.
struct LoopNews {
  std::vector<int64_t> ids;
  int64_t steps = 0;  // in all
  bool paused = false;
  bool ended = false;
  bool cancelled = false;
  std::optional<Failure> failure;
  // Where it failed: number n of the first step's stages, or -1 - n of the others'.
  int64_t stage = 1 << 30;  // no stage
  size_t instruction = 0;
  // On a device with graphs: so many stages are replayed, and why others are not.
  int64_t graphs = 0;
  std::string no_graph;
  bool any() const { return !ids.empty() || paused || ended; }
};

// One request. Its queue entry on the executor is one stage: requests of all environments take
// turns. It pauses when it has made as many steps as it is allowed to, and holds its tensors then;
// when it has ended it holds none but what it collected.
class Loop final : public Executor::Task, public std::enable_shared_from_this<Loop> {
 public:
  Loop(LoopPlan plan, std::shared_ptr<LoopMailbox> mailbox, uint64_t id);

  // The environment's thread ----------------------------------------------------------------------

  // Begins, with leave for so many steps.
  void Start(int64_t limit);
  // Leave for `limit` steps in all; goes on when it had paused.
  void Allow(int64_t limit);
  // While it is paused: other stages from here on, and others again (or none) for the next step.
  void Replace(std::vector<Stage> first, std::vector<Stage> body);
  // It ends before its next operator, also when it was paused or never started.
  void Cancel();
  bool paused();
  bool ended();
  LoopNews TakeNews();
  // It was listened to, but nobody takes the news yet: it tells of what comes next, too.
  void Heard();
  // Once it has ended: what the stages that collect have given, in order.
  std::vector<c10::IValue>& collected() { return collected_; }
  uint64_t id() const { return id_; }

 private:
  enum class Turn { kAgain, kPark, kPause, kEnd };

  // A stage of the body, recorded as a graph after some runs.
  struct StageGraph {
    int runs = 0;
    bool refused = false;
    std::unique_ptr<DeviceGraph> graph;
  };
  // What a step gave, on its way to the host.
  struct Reading {
    at::Tensor ids;
    at::Tensor going;
    std::optional<c10::Event> arrived;
  };

  void Run() noexcept override;
  Turn TakeTurn();
  // Whether the stage under way is at its end.
  bool RunStage();
  // Queues the stage as a graph; false where there is none, or not yet.
  bool ReplayStage();
  void RecordGraph(const Stage& stage, StageGraph& graph);
  // After the last stage of a step.
  Turn EndStep();
  Reading Read() const;
  // False when the loop ends with it.
  bool Take(const Reading& reading);
  void Collect();
  const std::vector<Stage>& stages() const { return in_first_ ? plan_.first : plan_.body; }
  void End(std::optional<Failure> failure);
  void Queue();
  void Tell();

  const std::shared_ptr<LoopMailbox> mailbox_;
  const uint64_t id_;
  Executor& executor_;
  StreamOrder order_;
  std::atomic<bool> cancelled_ = false;

  // The executor's, or the environment's while paused.
  LoopPlan plan_;
  bool in_first_;
  size_t stage_ = 0;
  // One per stage of the step under way, kept for the next.
  std::vector<std::unique_ptr<Interpreter>> interpreters_;
  bool running_ = false;  // the stage has begun
  std::vector<StageGraph> graphs_;
  std::deque<Reading> readings_;
  int64_t queued_ = 0;  // steps
  std::vector<c10::IValue> collected_;
  std::shared_ptr<Loop> self_;  // while it is in the executor's queue

  std::mutex mutex_;  // for all below
  LoopNews news_;
  int64_t limit_ = 0;
  bool paused_ = true;
  bool told_ = false;
};

}  // namespace tf
