// The part of a run that deals with parameters which rest between uses: their blocks are acquired
// before the first instruction that works on them and released after the last, in the order of the
// Program, which the streamer then brings ahead.
#pragma once

#include <ATen/core/ivalue.h>

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "native/placement/resting.h"
#include "native/program/program.h"

namespace tf {

// Between a task that waits and what it waits for: whoever comes second queues the task again.
class Wake {
 public:
  // What the task waits for has come.
  void Ring() { Come(); }
  // The task's turn has ended.
  void Park(std::function<void()> queue) {
    queue_ = std::move(queue);
    Come();
  }

 private:
  void Come() {
    if (came_.fetch_add(1, std::memory_order_acq_rel) == 1) queue_();
  }
  std::atomic<int> came_ = 0;
  std::function<void()> queue_;
};

class StreamedBlocks {
 public:
  using Registers = std::vector<c10::IValue>;

  // Null when none of the registers rests. Throws where the Program does with such a tensor what
  // cannot be.
  static std::unique_ptr<StreamedBlocks> Of(const Program& program, const Registers& registers);
  ~StreamedBlocks() { Abandon(); }
  StreamedBlocks(const StreamedBlocks&) = delete;
  StreamedBlocks& operator=(const StreamedBlocks&) = delete;

  // Before an instruction. False: a block is on its way, and `wake` rings when there is news.
  bool Enter(size_t instruction, Registers& registers, const std::shared_ptr<Wake>& wake) {
    return next_ >= holds_.size() || holds_[next_].from > instruction ||
           Fill(instruction, registers, wake);
  }
  // After it.
  void Leave(size_t instruction, Registers& registers) {
    if (instruction >= leaves_) Drop(instruction, registers);
  }
  // At the end: outputs that lie in a block become copies.
  void Finish(Registers& registers);
  // The run is over, or begins again.
  void Abandon();

 private:
  // A register that is a part of a block, as it was bound.
  struct Bound {
    Register to;
    at::Tensor resting;
    size_t part;
  };
  struct Block {
    std::shared_ptr<TensorStreamer> streamer;
    size_t index;
    std::vector<Bound> bound;
  };
  // A block is held from before one instruction until after another.
  struct Hold {
    size_t block;
    size_t from;
    size_t to;
  };

  StreamedBlocks(const Program& program, const Registers& registers);
  void Bind(const Registers& registers);
  void FindHolds();
  void CheckSlots() const;
  bool Fill(size_t instruction, Registers& registers, const std::shared_ptr<Wake>& wake);
  void Drop(size_t instruction, Registers& registers);

  const Program& program_;
  std::vector<Block> blocks_;
  std::vector<Hold> holds_;     // by `from`
  std::vector<Register> kept_;  // outputs that lie in blocks
  size_t next_ = 0;             // the hold that comes next
  bool waiting_ = false;        // for its block
  std::vector<size_t> held_;    // holds that are on
  size_t leaves_ = SIZE_MAX;    // the first `to` of these
};

}  // namespace tf
