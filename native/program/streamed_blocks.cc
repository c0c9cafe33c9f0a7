#include "native/program/streamed_blocks.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "native/convert/value.h"
#include "native/error/error.h"

namespace tf {
namespace {

// What was bound may be a view of the part.
at::Tensor Filled(const at::Tensor& whole, const at::Tensor& resting) {
  if (whole.sizes() == resting.sizes() && whole.strides() == resting.strides() &&
      resting.storage_offset() == 0) {
    return whole;
  }
  return whole.as_strided(
      resting.sizes(), resting.strides(), whole.storage_offset() + resting.storage_offset());
}

}  // namespace

std::unique_ptr<StreamedBlocks> StreamedBlocks::Of(const Program& program,
                                                   const Registers& registers) {
  for (const c10::IValue& value : registers) {
    if (value.isTensor() && FindRest(value.toTensor()) != nullptr)
      return std::unique_ptr<StreamedBlocks>(new StreamedBlocks(program, registers));
  }
  return nullptr;
}

StreamedBlocks::StreamedBlocks(const Program& program, const Registers& registers)
    : program_(program) {
  if (program.needs_gradients) {
    throw Failure(code::kInvalidArgument,
                  "offloaded parameters have no gradients, and their memory is another's by the "
                  "time of a backward pass",
                  "Run the function under torch.no_grad(), or keep the model on its device.");
  }
  Bind(registers);
  FindHolds();
  CheckSlots();
}

void StreamedBlocks::Bind(const Registers& registers) {
  std::map<std::pair<const TensorStreamer*, size_t>, size_t> known;
  for (size_t at = 0; at < registers.size(); ++at) {
    if (!registers[at].isTensor()) continue;
    const at::Tensor& tensor = registers[at].toTensor();
    const RestMark* mark = FindRest(tensor);
    if (mark == nullptr) continue;
    if (at < program_.written.size() && program_.written[at]) {
      throw Failure(code::kInvalidArgument,
                    "a Program writes to an offloaded parameter (" + Summary(tensor) +
                        "), and the values would be lost",
                    "Place what is written on a device.");
    }
    const auto [entry, fresh] =
        known.try_emplace({mark->streamer.get(), mark->block}, blocks_.size());
    if (fresh) blocks_.push_back({mark->streamer, mark->block, {}});
    blocks_[entry->second].bound.push_back({static_cast<Register>(at), tensor, mark->part});
  }
}

void StreamedBlocks::FindHolds() {
  constexpr size_t kNobody = SIZE_MAX;
  // Which block the memory of a register is in, and when what lies in it was made and used last.
  std::vector<size_t> of_storage(static_cast<size_t>(program_.storages), kNobody);
  std::set<Register> bound;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    for (const Bound& each : blocks_[i].bound) {
      of_storage[static_cast<size_t>(program_.registers[each.to].storage)] = i;
      bound.insert(each.to);
    }
  }
  const auto block_of = [&](Register at) {
    const int32_t storage = at == kNoRegister ? -1 : program_.registers[at].storage;
    return storage < 0 ? kNobody : of_storage[static_cast<size_t>(storage)];
  };

  // Per block: instructions that use it, and from where to where a view of it lives.
  std::vector<std::set<size_t>> uses(blocks_.size());
  std::map<Register, size_t> views;
  std::vector<std::pair<size_t, size_t>> spans;  // first, last
  std::vector<size_t> span_blocks;
  const auto use = [&](Register at, size_t instruction) {
    const size_t block = block_of(at);
    if (block == kNobody) return;
    uses[block].insert(instruction);
    if (bound.contains(at)) return;
    const auto [view, fresh] = views.try_emplace(at, spans.size());
    if (fresh) {
      spans.emplace_back(instruction, instruction);
      span_blocks.push_back(block);
    }
    spans[view->second].second = instruction;
  };
  for (size_t i = 0; i < program_.code.size(); ++i) {
    for (const Operand& operand : program_.code[i].operands)
      for (const Register at : operand.registers) use(at, i);
    for (const Result& result : program_.code[i].results)
      for (const Register at : result.registers) use(at, i);
  }
  for (const Register output : program_.outputs) {
    if (block_of(output) == kNobody) continue;
    if (bound.contains(output)) {
      throw Failure(code::kInvalidArgument,
                    "a Program returns an offloaded parameter",
                    "Return a copy of it: clone().");
    }
    kept_.push_back(output);
    use(output, program_.code.size());
  }

  // Who uses which block, in order.
  std::map<size_t, std::set<size_t>> users;
  for (size_t block = 0; block < blocks_.size(); ++block)
    for (const size_t instruction : uses[block]) users[instruction].insert(block);
  const auto others_between = [&](size_t block, size_t from, size_t to) {
    for (auto at = users.upper_bound(from); at != users.end() && at->first < to; ++at)
      if (at->second.size() > 1 || !at->second.contains(block)) return true;
    return false;
  };
  const auto view_between = [&](size_t block, size_t from, size_t to) {
    for (size_t i = 0; i < spans.size(); ++i)
      if (span_blocks[i] == block && spans[i].first <= from && spans[i].second >= to) return true;
    return false;
  };
  for (size_t block = 0; block < blocks_.size(); ++block) {
    if (uses[block].empty()) continue;
    Hold hold{block, *uses[block].begin(), *uses[block].begin()};
    for (const size_t instruction : uses[block]) {
      if (others_between(block, hold.to, instruction) &&
          !view_between(block, hold.to, instruction)) {
        holds_.push_back(hold);
        hold.from = instruction;
      }
      hold.to = instruction;
    }
    holds_.push_back(hold);
  }
  std::stable_sort(
      holds_.begin(), holds_.end(), [](const Hold& a, const Hold& b) { return a.from < b.from; });

  std::map<TensorStreamer*, std::vector<size_t>> orders;
  for (const Hold& hold : holds_) {
    const Block& block = blocks_[hold.block];
    orders[block.streamer.get()].push_back(block.index);
  }
  for (const auto& [streamer, order] : orders) streamer->streamer.SetOrder(order);
}

// A run that holds more blocks at once than there are slots would wait for itself.
void StreamedBlocks::CheckSlots() const {
  for (const Hold& hold : holds_) {
    const placement::Streamer& streamer = blocks_[hold.block].streamer->streamer;
    size_t together = 0;
    for (const Hold& other : holds_) {
      const Block& block = blocks_[other.block];
      together += &block.streamer->streamer == &streamer && !streamer.stays(block.index) &&
                  other.from <= hold.from && hold.from <= other.to;
    }
    if (together > streamer.slots() && !streamer.stays(blocks_[hold.block].index)) {
      throw Failure(code::kOutOfMemory,
                    "an operator needs " + std::to_string(together) +
                        " offloaded blocks at once, and there are slots for " +
                        std::to_string(streamer.slots()),
                    "Use more slots.");
    }
  }
}

bool StreamedBlocks::Fill(size_t instruction,
                          Registers& registers,
                          const std::shared_ptr<Wake>& wake) {
  for (; next_ < holds_.size() && holds_[next_].from <= instruction; ++next_) {
    const Hold& hold = holds_[next_];
    const Block& block = blocks_[hold.block];
    const bool again = std::exchange(waiting_, false);
    waiting_ = !block.streamer->streamer.TryAcquire(block.index, again, [wake] { wake->Ring(); });
    if (waiting_) return false;
    held_.push_back(next_);
    leaves_ = std::min(leaves_, hold.to);
    for (const Bound& bound : block.bound) {
      registers[bound.to] =
          Filled(TensorStreamer::Part(block.streamer, block.index, bound.part), bound.resting);
    }
  }
  return true;
}

void StreamedBlocks::Drop(size_t instruction, Registers& registers) {
  leaves_ = SIZE_MAX;
  std::vector<size_t> stay;
  for (const size_t index : held_) {
    const Hold& hold = holds_[index];
    if (hold.to > instruction) {
      stay.push_back(index);
      leaves_ = std::min(leaves_, hold.to);
      continue;
    }
    const Block& block = blocks_[hold.block];
    for (const Bound& bound : block.bound) registers[bound.to] = c10::IValue();
    block.streamer->streamer.Unpin(block.index);
  }
  held_ = std::move(stay);
}

void StreamedBlocks::Finish(Registers& registers) {
  for (const Register at : kept_)
    if (registers[at].isTensor()) registers[at] = registers[at].toTensor().clone();
  for (const size_t index : std::exchange(held_, {})) {
    const Block& block = blocks_[holds_[index].block];
    block.streamer->streamer.Unpin(block.index);
  }
  Abandon();
}

void StreamedBlocks::Abandon() {
  if (std::exchange(waiting_, false)) {
    const Block& block = blocks_[holds_[next_].block];
    block.streamer->streamer.GiveUp(block.index);
  }
  for (const size_t index : std::exchange(held_, {})) {
    const Block& block = blocks_[holds_[index].block];
    block.streamer->streamer.Unpin(block.index);
  }
  next_ = 0;
  leaves_ = SIZE_MAX;
}

}  // namespace tf
